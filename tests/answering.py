"""What monitors ask, in this very process: a port that answers as a test says, and what the daemon has for its monitors."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure

from distbal.hosts import HostSpec
from distbal.interfaces import Target
from distbal.leases import LocalLeases
from distbal.lookup import Lookup, SystemResolver
from distbal.monitors.kit import Surroundings
from distbal.monitors.slots import Slots
from tests.farms import scheduler, spec
from tests.peers import until

#: the host that is asked, by its name in the file
NAME = "box:3632"


def leases(*hosts: HostSpec, wait: float | None = None) -> LocalLeases:
    """Lends the slots of these hosts, or of the one that is asked, which has two."""
    return LocalLeases(scheduler(*(hosts or [spec(NAME, 2)]), wait=wait), reactor)


def surroundings(lending: LocalLeases | None = None) -> Surroundings:
    """What the daemon has for its monitors."""
    return Surroundings(reactor, Lookup(reactor, SystemResolver(reactor)), Slots(lending or leases()))


def target(port: int = 3632) -> Target:
    """The host that is asked, on loopback, with distccd's port there."""
    return Target(NAME, "127.0.0.1", port)


class _Connection(Protocol):
    transport: ITCPTransport

    def __init__(self, server: Server) -> None:
        self._server = server

    def connectionMade(self) -> None:
        self._server.connections.add(self)
        self._server.met += 1
        if not self._server.after:
            self._answer()

    def dataReceived(self, data: bytes) -> None:
        before, self._server.heard = self._server.heard, self._server.heard + data
        after = self._server.after
        if after and before.count(after) < self._server.heard.count(after):
            self._answer()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._server.connections.discard(self)
        self._server.ended.append(type(reason.value).__name__)

    def _answer(self) -> None:
        answers = self._server.answers
        self.transport.write(answers.pop(0) if len(answers) > 1 else answers[0])
        if self._server.then == "close":
            self.transport.loseConnection()
        elif self._server.then == "reset":
            # what was written goes first
            reactor.callLater(0.01, self.transport.abortConnection)


class Server:
    """A port that answers every connection with the next of some answers, and with the last from then on.

    :ivar port: where.
    :ivar heard: what it was sent, by all.
    :ivar met: how many connected, so far.
    :ivar connections: those that are there now; ``ended`` how the others ended, as Twisted has it.
    """

    def __init__(self, answers: tuple[bytes, ...], after: bytes, then: str) -> None:
        self.answers = list(answers or [b""])
        self.after = after
        self.then = then
        self.port = 0
        self.heard = b""
        self.met = 0
        self.connections: set[_Connection] = set()
        self.ended: list[str] = []

    async def left(self) -> None:
        """Wait until nobody is connected."""
        await until(lambda: not self.connections, "the end of all connections")


class _Factory(ServerFactory):
    noisy = False

    def __init__(self, server: Server) -> None:
        self._server = server

    def buildProtocol(self, address: object) -> _Connection:
        return _Connection(self._server)


@asynccontextmanager
async def answering(*answers: bytes, after: bytes = b"", then: str = "close") -> AsyncIterator[Server]:
    """A port that answers while the block runs.

    :param after: what it waits for before it answers; nothing: it speaks first.
    :param then: what it does after an answer: ``close``, ``reset`` or ``hold``.
    """
    server = Server(answers, after, then)
    port: Any = reactor.listenTCP(0, _Factory(server), interface="127.0.0.1")
    server.port = port.getHost().port
    try:
        yield server
    finally:
        await port.stopListening()
        for connection in list(server.connections):
            connection.transport.abortConnection()
        await server.left()


def checked(check: Coroutine[Any, Any, Any]) -> Deferred[Any]:
    """A check on its way, as the daemon has it."""
    return Deferred.fromCoroutine(check)


async def given_up(check: Deferred[Any]) -> Any:
    """Cancel it, as the daemon does at the timeout. What it ended with, at once; CancelledError where that is silence."""
    ends: list[Any] = []
    check.addBoth(ends.append)
    check.cancel()
    assert len(ends) == 1, "it goes on"
    if not isinstance(ends[0], Failure):
        return ends[0]
    problem = ends[0].value
    return CancelledError if isinstance(problem, CancelledError | ConnectingCancelledError) else problem


@contextmanager
def full_port(port: int = 0) -> Iterator[int]:
    """A port to which a connect takes for ever: its backlog is full."""
    with socket.socket() as listening, socket.socket() as first:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen(0)
        first.connect(listening.getsockname())
        yield listening.getsockname()[1]


def is_connected(port: int) -> bool:
    """Whether somebody's connection to that port of 127.0.0.1 is there, as the kernel has it (proc(5): 01 is ESTABLISHED)."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[2:4] == [f"0100007F:{port:04X}", "01"] for line in lines)
