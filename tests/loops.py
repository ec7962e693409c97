"""A hot loop that a test turns by hand, on real sockets: so that the test decides what happens in one batch."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from twisted.internet.testing import MemoryReactorClock

from distbal import listening
from distbal.loop import Connection, HotLoop, Listener
from distbal.outcomes import Outcome
from tests.peers import PATIENCE, Peer


class Client(Connection):
    """A connection that notes how it ended.

    :param when_left: what it does then, before it is ended.
    """

    def __init__(self, loop: HotLoop, descriptor: int, when_left: Callable[[], object] | None = None) -> None:
        self.loop = loop
        self.descriptor = descriptor
        self.when_left = when_left
        self.outcomes: list[Outcome] = []

    def left(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        if self.when_left is not None:
            self.when_left()
        self.loop.end(self)


class Hand:
    """A loop turned by hand, with one listener whose connections it notes."""

    def __init__(self, room: int) -> None:
        self.reactor = MemoryReactorClock()  # type: ignore[no-untyped-call]
        self.loop = HotLoop(self.reactor, self.reactor, room)
        self.clients: list[Client] = []
        self.listener = self.listen(listening.listen_tcp("127.0.0.1", 0))

    def listen(self, sock: socket.socket) -> Listener:
        return self.loop.listen(sock, self.accepted)

    def accepted(self, descriptor: int, _: Any) -> None:
        client = Client(self.loop, descriptor)
        self.clients.append(client)
        self.loop.watch(client)

    @property
    def where(self) -> Any:
        return self.listener.sock.getsockname()

    @property
    def readers(self) -> list[object]:
        """What the reactor looks at."""
        return list(self.reactor.getReaders())  # type: ignore[no-untyped-call]

    def happened(self, events: int) -> None:
        """Wait until that much has happened, and serve none of it. What a peer does reaches us at once, or almost."""
        deadline = time.monotonic() + PATIENCE
        while (count := len(self.loop._epoll.poll(0))) < events:
            assert time.monotonic() < deadline, f"{count} events instead of {events}"

    def quiet(self) -> bool:
        """Whether the reactor would leave us alone: it polls us as one descriptor."""
        return select.select([self.loop], [], [], 0) == ([], [], [])

    def serve(self, events: int = 1) -> None:
        self.happened(events)
        self.loop.doRead()

    def connect(self) -> tuple[Peer, Client]:
        """Somebody who is accepted."""
        peer = Peer(self.where)
        self.serve()
        return peer, self.clients[-1]


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def hands() -> Iterator[Callable[..., Hand]]:
    """For a fixture: makes hands, and stops their loops at the end."""
    with ExitStack() as stack:

        def make_one(room: int = 1000) -> Hand:
            hand = Hand(room)
            stack.callback(hand.loop.stop)
            return hand

        yield make_one
