"""Whatever both sides do, in whatever order: bytes arrive in order and whole, or their receiver sees that some are missing.

Two scripts, a client's and a server's, are played against each other on real sockets. A clean end means that everything which
the other side said before its own has arrived; no session leaves anything behind.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import pytest
import pytest_twisted
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.loops import open_descriptors
from tests.peers import Peer, until
from tests.proxies import Accepted, House, Server, noise, turns

pytestmark = pytest.mark.usefixtures("descriptors_stay")

DATA = noise(1 << 22)
#: bytes that one side says at most
MOST = len(DATA)


@dataclass(frozen=True)
class Step:
    """What one side does next.

    :ivar turns: of the reactor that follow.
    """

    who: str
    does: str
    size: int = 0
    turns: int = 0

    def __repr__(self) -> str:
        return f"Step({self.who!r}, {self.does!r}, {self.size}, {self.turns})"


class Side:
    """One side and what it has said and heard.

    :ivar said: how many bytes it said; ``heard``: how many it heard, which were the right ones.
    :ivar said_all: it ended its side, or closed; ``broke_off``: it was reset before that; ``first``: the other side had not
        ended by then, as far as it had heard.
    :ivar end: how it saw the other side end: "clean", "reset" or not yet.
    """

    def __init__(self) -> None:
        self.peer: Peer | None = None
        self.said = self.heard = 0
        self.said_all = self.broke_off = self.first = False
        self.end = ""

    def does(self, step: Step) -> None:
        if self.peer is not None:
            getattr(self, step.does)(self.peer, step.size)

    # -- what it may do

    def say(self, peer: Peer, size: int) -> None:
        try:
            while size > 0 and self.said < MOST and not self.said_all:
                count = peer.sock.send(DATA[self.said : self.said + min(size, 1 << 18)])
                self.said += count
                size -= count
        except (BlockingIOError, BrokenPipeError):
            return
        except ConnectionResetError:
            # told once: whoever reads after that finds what looks like a clean end
            self.end = self.end or "reset"

    def hear(self, peer: Peer, size: int) -> None:
        while size > 0 and not self.end:
            try:
                part = peer.sock.recv(min(size, 1 << 18))
            except BlockingIOError:
                return
            except ConnectionResetError:
                self.end = "reset"
                return
            if not part:
                self.end = "clean"
                return
            assert part == DATA[self.heard : self.heard + len(part)], "not what was said"
            self.heard += len(part)
            size -= len(part)

    def half_close(self, peer: Peer, size: int = 0) -> None:
        if not self.said_all:
            self._has_said_all()
            with suppress(OSError):  # the other side was faster, with a reset
                peer.half_close()

    def close(self, peer: Peer, size: int = 0) -> None:
        with suppress(BlockingIOError, ConnectionResetError):
            if peer.sock.recv(1, socket.MSG_PEEK):
                # with something unread the system resets the connection
                self.broke_off |= not self.said_all
        self._has_said_all()
        self.peer = None
        peer.close()

    def reset(self, peer: Peer, size: int = 0) -> None:
        self.broke_off |= not self.said_all
        self._has_said_all()
        self.peer = None
        peer.reset()

    def _has_said_all(self) -> None:
        self.first |= not self.said_all and not self.end
        self.said_all = True


SIZES = st.sampled_from([1, 2, 100, 4096, 5000, 70_000, 300_000, 2_000_000])
TURNS = st.sampled_from([0, 0, 1, 1, 2, 5])
WHO = st.sampled_from(["client", "server"])
TALK = st.builds(Step, WHO, st.sampled_from(["say", "say", "hear"]), SIZES, TURNS)
ENDS = st.builds(Step, WHO, st.sampled_from(["half_close", "close", "reset"]), st.just(0), TURNS)
SCRIPTS = st.lists(st.one_of(TALK, TALK, TALK, ENDS), max_size=12)


class Play:
    """The stage: a proxy, and the two sides.

    :param windows: bytes of the receive buffers of the client and the server, 0 for as many as the system likes.
    """

    def __init__(self, relay: str, passes: bool, windows: tuple[int, int]) -> None:
        self.relay, self.passes, self.windows = relay, passes, windows
        self.client, self.server = Side(), Side()
        self.taken_in = False

    async def run(self, queued: int, script: list[Step]) -> None:
        """Play a script. ``queued``: steps that the client does before its turn comes."""
        client, server = self.client, self.server
        with Server() as self.listener, ExitStack() as stack:
            if self.windows[1]:
                self.listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.windows[1])
            self.house = House(self.listener.spec(), passes=self.passes)
            async with self.house.serves(self.relay):
                stack.callback(self.clear)
                if queued:
                    held = stack.enter_context(ExitStack())
                    held.enter_context(self.house.client(b"x"))
                    held.enter_context(await self.listener.accept())
                client.peer = self.house.client(window=self.windows[0])
                client.say(client.peer, 1)
                for number, step in enumerate(script):
                    if number >= queued:
                        if number == queued and queued:
                            held.close()
                        self.take_in()
                    (client if step.who == "client" else server).does(step)
                    await turns(step.turns)
                if queued:
                    held.close()
                await until(self.is_over, "the end")
                self.judge(queued, orderly=not any(step.does in ("close", "reset") for step in script))

    def clear(self) -> None:
        """Nobody is left on the stage, also where the play was broken off."""
        for side in (self.client, self.server):
            if side.peer is not None:
                side.peer.close()

    def take_in(self) -> None:
        """The server takes the connection in, if it has come."""
        if not self.taken_in:
            with suppress(BlockingIOError):
                self.server.peer = Accepted(self.listener.sock.accept()[0])
                self.taken_in = True

    def is_over(self) -> bool:
        """Both sides come to their end in order: the server says that this was all, and each leaves when it has heard all."""
        client, server = self.client, self.server
        self.take_in()
        for side in (server, client):
            if side.peer is not None:
                side.hear(side.peer, MOST)
                if side is server or self.passes:
                    side.half_close(side.peer)
                if side.end or (self.house.waiting and self.taken_in):
                    # it waits again: the server reset the connection before we had seen that it was there
                    side.close(side.peer)
        return client.peer is None and server.peer is None and not self.house.sessions

    def judge(self, queued: int, *, orderly: bool) -> None:
        client, server, host = self.client, self.server, self.house.host()
        cancelled = client.first and not self.passes
        if client.end == "clean" and not cancelled:
            assert server.said_all
            assert not server.broke_off
            assert client.heard == server.said
        # Twisted ends a connect that is given up in order, also where the server has seen it already: not a byte came that way
        nothing_came = self.relay == "streams" and not server.heard
        if server.end == "clean" and self.passes and not nothing_came:
            assert client.said_all
            assert not client.broke_off
            assert server.heard == client.said
        if orderly and not cancelled:
            # and where nobody broke anything off, nothing is broken off
            assert client.end == "clean"
            assert server.end == "clean" or not self.passes
        assert client.heard <= host.received <= server.said
        assert server.heard <= host.sent <= client.said + (1 if queued else 0)


def whatever_happens(relay: str, passes: bool) -> Callable[..., None]:
    """The test. (Where pytest-twisted plays an example, it knows no parameters but Hypothesis's.)"""

    @settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
    @given(
        queued=st.sampled_from([0, 0, 0, 1, 2, 4]),
        windows=st.sampled_from([(0, 0), (0, 0), (5000, 0), (0, 5000)]),
        script=SCRIPTS,
    )
    @example(0, (0, 0), [Step("server", "say", 7, 5), Step("client", "say", 9), Step("server", "reset")])
    @example(0, (0, 0), [Step("server", "half_close", 0, 5), Step("client", "say", 300_000), Step("client", "close")])
    @example(0, (0, 0), [Step("client", "say", 2_000_000), Step("client", "reset")])
    @example(
        0,
        (0, 0),
        [
            Step("client", "say", 1, 0),
            *[Step("client", "say", 1, 2)] * 2,
            Step("client", "hear", 1, 0),
            Step("server", "say", 70_000, 0),
            Step("server", "close", 0, 1),
        ],
    )
    @pytest_twisted.ensureDeferred
    async def test(queued: int, windows: tuple[int, int], script: list[Step]) -> None:
        before = open_descriptors()
        await Play(relay, passes, windows).run(queued, script)
        await until(lambda: open_descriptors() == before, "as many descriptors as before")

    return test


test_spliced_with_ends_that_cancel = whatever_happens("spliced", passes=False)
test_spliced_with_ends_that_are_passed_on = whatever_happens("spliced", passes=True)
test_streams_with_ends_that_cancel = whatever_happens("streams", passes=False)
test_streams_with_ends_that_are_passed_on = whatever_happens("streams", passes=True)
