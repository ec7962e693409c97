"""The hot loop and its keeper, where a bug could take everybody along: the reactor lets go of whoever raises."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.testing import MemoryReactorClock

from distbal.bugs import bugs
from distbal.keeping import BEAT, Keeping
from distbal.ledger import Ledger
from distbal.loop import RETRY_ACCEPT, HotLoop
from tests.loops import Hand
from tests.peers import Peer
from tests.services import LISTEN, ONE, Lines, balancer, until
from tests.support import LoggedErrors


def once(call: Callable[..., Any], problem: Exception) -> Callable[..., Any]:
    """The first call meets a bug, and the others do what they should."""
    left = [problem]

    def planted(*args: Any) -> Any:
        if left:
            raise left.pop()
        return call(*args)

    return planted


@pytest_twisted.ensureDeferred
async def test_a_bug_in_the_loop_itself_ends_one_turn_and_not_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors
) -> None:
    async with balancer(tmp_path, ONE + LISTEN) as one:
        first = await one.client()
        await first.hears(b"alpha\r\n")
        monkeypatch.setattr(HotLoop, "_serve", once(HotLoop._serve, ZeroDivisionError()))
        waits = await one.client(waits_behind=0)
        await until(lambda: bugs.counts["connection"] == 1, "the bug")
        await first.leave()
        await waits.hears(b"alpha\r\n")
        await waits.leave()
        await one.await_leases(0)
    (event,) = logged_errors.flush()
    assert event["log_format"] == "a turn of the hot loop met a bug; the next one comes"


@pytest.fixture
def hand() -> Iterator[Hand]:
    one = Hand(room=1)
    yield one
    one.loop.stop()


def test_a_listener_that_cannot_be_watched_again_is_tried_again(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were it forgotten, nobody would be taken in any more, without a word."""
    peer, client = hand.connect()
    with contextlib.closing(peer), contextlib.closing(Peer(hand.where)) as late, Lines() as lines:
        hand.serve()
        monkeypatch.setattr(
            hand.loop, "_watch_listener", once(hand.loop._watch_listener, OSError(12, "Cannot allocate memory"))
        )
        peer.close()
        hand.serve()
        # the end of the one was handled, whatever became of the listener
        assert len(client.outcomes) == 1
        assert "not accepting more clients for now: [Errno 12] Cannot allocate memory" in lines
        hand.reactor.advance(RETRY_ACCEPT)
        hand.serve()
        assert len(hand.clients) == 2
        late.close()
        hand.serve()


class Waiter:
    """Whoever waits until the keeper has a descriptor."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.problem = problem
        self.told = 0

    def handed_over(self) -> None:
        self.told += 1
        if self.problem is not None:
            raise self.problem


@pytest.fixture
def kept() -> Iterator[tuple[Keeping, socket.socket, MemoryReactorClock]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    reactor = MemoryReactorClock()  # type: ignore[no-untyped-call]
    ledger = Ledger()
    keeping = Keeping(reactor, ours, ledger, lambda: None)
    keeping.start()
    yield keeping, theirs, reactor
    keeping.stop()
    ledger.close()
    theirs.close()
    assert reactor.getDelayedCalls() == []


Kept = tuple[Keeping, socket.socket, MemoryReactorClock]


def test_of_a_batch_one_with_a_bug_keeps_nobody_from_its_grant(kept: Kept, logged_errors: LoggedErrors) -> None:
    keeping, _, _ = kept
    waiters = [Waiter(), Waiter(ZeroDivisionError()), Waiter()]
    for ident, waiter in enumerate(waiters, 1):
        keeping.hold(ident, 4, keeping.fileno(), waiter)
    keeping.flush()
    assert [waiter.told for waiter in waiters] == [1, 1, 1]
    assert keeping.is_idle
    assert [event["log_failure"].type for event in logged_errors.flush()] == [ZeroDivisionError]
    assert bugs.counts["connection"] == 1


def test_a_bug_does_not_end_the_signs_of_life(kept: Kept, monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors) -> None:
    keeping, theirs, reactor = kept
    assert theirs.recv(100) == b"B"
    monkeypatch.setattr(keeping, "_say", once(keeping._say, ZeroDivisionError()))
    reactor.pump([BEAT] * 4)
    assert [theirs.recv(100) for _ in range(3)] == [b"B"] * 3
    assert len(logged_errors.flush()) == 1
    assert bugs.counts["periodic"] == 1
