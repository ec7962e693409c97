"""What a session over Twisted's transports has at its server's side, and how either side slows the other one down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IPushProducer, ITCPTransport
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.internet.interfaces import IConnector
    from twisted.python.failure import Failure

    from distbal.proxy.streams import StreamSession


@implementer(IPushProducer)
class Tap:
    """The client as the server's producer: Twisted would close its transport together with the server's."""

    def __init__(self, session: StreamSession) -> None:
        self._session = session

    def pauseProducing(self) -> None:
        self._session.pause_client()

    def resumeProducing(self) -> None:
        self._session.resume_client()

    def stopProducing(self) -> None:
        """The server's connection is gone, and says so itself."""


@implementer(IPushProducer)
class Brake:
    """The server's transport as the client's producer, which tells that the client does not keep up."""

    def __init__(self, session: StreamSession, server: Any) -> None:
        self._session = session
        self._server = server

    def pauseProducing(self) -> None:
        self._session.client_falls_behind()
        self._server.pauseProducing()

    def resumeProducing(self) -> None:
        self._session.port.stalled.discard(self._session)
        self._server.resumeProducing()

    def stopProducing(self) -> None:
        """The client's connection is gone, and says so itself."""


@implementer(IHalfCloseableProtocol)
class ServerSide(Protocol):
    """A server's transport."""

    transport: ITCPTransport

    def __init__(self, session: StreamSession) -> None:
        self._session = session

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self._session.connected(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self._session.server_said(data)

    def readConnectionLost(self) -> None:
        self._session.server_ended_its_side()

    def writeConnectionLost(self) -> None:
        self._session.server_told()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._session.server_lost(reason)


class Dial(ClientFactory):
    """One connect of one session."""

    noisy = False

    def __init__(self, session: StreamSession) -> None:
        self._session = session

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return ServerSide(self._session)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self._session.connect_failed(self, reason)
