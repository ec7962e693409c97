"""Servers that no monitor hopes for: silent ones, and those that say nonsense, too much, or close."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from twisted.internet.interfaces import IConsumer, IPullProducer, ITCPTransport
from twisted.internet.protocol import DatagramProtocol, Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

#: beginnings that some client takes for those of its own protocol, and what comes then
NONSENSE = {
    "binary nonsense": random.Random(4).randbytes(3000),
    "a line of nonsense": b"\xff\xfe nonsense \x00\r\n",
    "empty lines": b"\r\n" * 500,
    "an error of HTTP": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nno\n",
    "half of SSH": b"SSH-2.0-OpenSSH_9.2p1\r\n" + b"\x00\x00\x7f\xff" * 50,
    "half of distcc": b"DONE00000001STAT00000000SERR7fffffff",
    "tokens with huge numbers": b"DONEffffffff" * 100,
    "zeros": b"\0" * 500,
}
_PIECE = b"\xffx y=1\n" * 8000
MEGABYTE = 1_000_000


class Server(ServerFactory):
    """Listens on 127.0.0.1; made, it does.

    :param says: what is said to each client that comes, and again whenever it says something.
    :param then: ``stay``, ``close``, or ``flood``: go on saying something for ever.
    :ivar came: how many clients did; ``sent`` how many bytes a flood has sent.
    """

    noisy = False

    def __init__(self, reactor: Any, says: bytes = b"", then: str = "stay") -> None:
        self.says = says
        self.then = then
        self.came = self.sent = 0
        self.clients: set[_Client] = set()
        self._port = reactor.listenTCP(0, self, interface="127.0.0.1")

    @property
    def port(self) -> int:
        return int(self._port.getHost().port)

    def buildProtocol(self, address: Any) -> _Client:
        return _Client(self)

    async def end(self) -> None:
        await self._port.stopListening()
        for client in list(self.clients):
            client.transport.abortConnection()


@implementer(IPullProducer)
class _Client(Protocol):
    transport: ITCPTransport

    def __init__(self, server: Server) -> None:
        self._server = server

    def connectionMade(self) -> None:
        self._server.came += 1
        self._server.clients.add(self)
        self._say()
        if self._server.then == "close":
            self.transport.loseConnection()
        elif self._server.then == "flood":
            cast("IConsumer", self.transport).registerProducer(self, streaming=False)

    def dataReceived(self, data: bytes) -> None:
        if self._server.then == "stay":
            self._say()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._server.clients.discard(self)

    def resumeProducing(self) -> None:
        self._server.sent += len(_PIECE)
        self.transport.write(_PIECE)

    def stopProducing(self) -> None:
        """The client is gone."""

    def _say(self) -> None:
        if self._server.says:
            self.transport.write(self._server.says)


class DatagramServer(DatagramProtocol):
    """The same with UDP: it answers, or does not."""

    noisy = False

    def __init__(self, reactor: Any, says: bytes = b"", then: str = "stay") -> None:
        self._says = says[:60_000]
        self._times = 20 if then == "flood" or len(says) > len(self._says) else 1
        self.came = self.sent = 0
        self._port = reactor.listenUDP(0, self, interface="127.0.0.1")

    @property
    def port(self) -> int:
        return int(self._port.getHost().port)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.came += 1
        for _ in range(self._times if self._says else 0):
            # mypy does not know that a datagram's transport is another
            self.transport.write(self._says, addr)  # type: ignore[union-attr]

    async def end(self) -> None:
        await self._port.stopListening()


@asynccontextmanager
async def server(reactor: Any, udp: bool, says: bytes = b"", then: str = "stay") -> AsyncIterator[Server | DatagramServer]:
    """A server that listens while the block runs."""
    one = DatagramServer(reactor, says, then) if udp else Server(reactor, says, then)
    try:
        yield one
    finally:
        await one.end()
