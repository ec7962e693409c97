"""Sessions over Twisted's transports, where bytes cannot be spliced: not on Linux, or by a Twisted endpoint of the user's.

What is decided is the same as in splice.py, and the same tests show it. Each side's transport is the producer of the other, so
that a peer that does not keep up slows the other one down; both are unregistered before either is closed, or the close would
wait for ever.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any

from twisted.internet import error, tcp
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from distbal import listening
from distbal.descriptors import STARVED
from distbal.outcomes import Outcome
from distbal.ports import peer_of_transport, system_socket
from distbal.proxy.session import CONNECT_TIME, CONNECTING, OVER, PARTING, QUIET, RELAYING, WAITING, Session, why_unreachable
from distbal.proxy.sides import Brake, Dial, Tap
from distbal.proxy.sockets import broke, can_write, error_of, hung_up, in_flight, is_connected

if TYPE_CHECKING:
    from twisted.internet.interfaces import IConnector

    from distbal.lookup import Place
    from distbal.proxy.port import ProxyPort

#: bytes that are taken in of a client that waits
MOST_HELD = 1 << 16


class StreamSession(Session):
    """A session of two transports.

    :param reactor: connects.
    :param client: its client's side.
    """

    def __init__(self, port: ProxyPort, reactor: Any, client: ClientSide, address: str, peer_port: int) -> None:
        super().__init__(port, address, peer_port)
        self._reactor = reactor
        #: transports; their interfaces do not say that each is a producer and a consumer, too
        self._client: Any = client.transport
        self._server: Any = None
        self._is_plain = isinstance(client.transport, tcp.Connection)
        self._connector: IConnector | None = None
        #: what the client said before there was a server
        self._held: list[bytes] = []
        #: the client is not read for now
        self._paused = False
        self._client_ended = self._server_ended = False
        #: all that there was for the client has been handed to the system, and its end
        self._told = False
        #: the same for the server
        self._server_told = False
        #: the client takes no more
        self._left = False
        self._sent = self._received = 0

    def begin(self) -> None:
        """The client is here."""
        if self.port.server_first:
            self.ask()

    # -- the client

    def client_said(self, data: bytes) -> None:
        """Bytes from the client."""
        if self.state == RELAYING:
            if self._server is not None:
                self._sent += len(data)
                self._server.write(data)
        elif self.state in (QUIET, WAITING, CONNECTING):
            self._held.append(data)
            if sum(map(len, self._held)) >= MOST_HELD and not self._paused:
                self.pause_client()
            if self.state == QUIET:
                self.ask()

    def client_ended_its_side(self) -> None:
        """It will say no more."""
        self._client_ended = True
        if self.state == PARTING:
            self._client.loseConnection()
        elif not self.port.passes:
            self.client_lost(Outcome.CLOSED)
        elif self.state == QUIET and not self._held:
            self.end(Outcome.CLOSED)
        else:
            self.port.unheard.add(self)
            if self.state == RELAYING:
                self._pass_the_end_on()

    def client_lost(self, outcome: Outcome) -> None:
        """The client's connection is gone, or it has left as far as we are concerned."""
        self._left = True
        if self.state == PARTING or (self.state == RELAYING and self._received):
            outcome = Outcome.ANSWERED
        self.client_left(outcome)

    def client_told(self) -> None:
        """All that there was for the client has been sent."""
        self._told = True
        if self.state == PARTING:
            self.port.stalled.discard(self)
            self.port.parting.add(self)

    def pause_client(self) -> None:
        """There is no room for what it says."""
        self._paused = True
        self._client.pauseProducing()
        self.port.unheard.add(self)

    def resume_client(self) -> None:
        """There is room again."""
        self._paused = False
        self._client.resumeProducing()

    def delivered(self) -> int:
        client = self._client
        # as twisted.internet.abstract.FileDescriptor has them; another kind of transport may not
        buffered = len(getattr(client, "dataBuffer", b"")) - getattr(client, "offset", 0) + getattr(client, "_tempDataLen", 0)
        sock = system_socket(client)
        return self._received - buffered - (0 if sock is None else in_flight(sock.fileno()))

    def listen_in(self) -> None:
        """One side is not read for now, or has ended, so Twisted would not hear that it is gone: ask the system."""
        if self.state not in (WAITING, CONNECTING, RELAYING):
            return
        client, server = system_socket(self._client), system_socket(self._server)
        not_read = self._paused or self._client_ended
        if not_read and client is not None and self._is_gone(client.fileno()):
            self.client_lost(Outcome.RESET if error_of(client.fileno()) else Outcome.CLOSED)
        elif self._server_ended and server is not None and hung_up(server.fileno(), half=False):
            # what is still said to it is for nobody
            self.server_told()
        elif not_read or self._server_ended:
            self.port.unheard.add(self)

    def _is_gone(self, client: int) -> bool:
        if self._server_ended:
            # both of its sides may be ended, in order, and that is what a hang-up is
            return broke(client)
        return hung_up(client, half=not self.port.passes)

    # -- connecting

    def connect(self, place: Place) -> None:
        _, address = place
        host, number, *more = address
        if len(more) == 2 and more[1] and "%" not in host:
            host = f"{host}%{more[1]}"
        self._connector = self._reactor.connectTCP(host, number, Dial(self), timeout=10 * CONNECT_TIME)

    def is_decided(self) -> bool:
        sock = system_socket(getattr(self._connector, "transport", None))
        return sock is not None and can_write(sock.fileno())

    def give_up_connecting(self) -> None:
        connector, self._connector = self._connector, None
        if connector is not None:
            connector.disconnect()

    def connect_failed(self, dial: Dial, failure: Failure) -> None:
        """It could not be connected to."""
        if self.state != CONNECTING or self._connector is None:
            return  # we gave it up ourselves
        self._connector = None
        number = getattr(failure.value, "osError", None) if isinstance(failure.value, error.ConnectError) else None
        if isinstance(failure.value, error.ConnectionRefusedError):
            self.missed(Outcome.REFUSED, "refused the connection")
        elif isinstance(failure.value, error.TimeoutError | error.TCPTimedOutError):
            self.missed(Outcome.TIMED_OUT, "did not answer")
        elif number in STARVED:
            self.starved(os.strerror(number))
        else:
            self.missed(Outcome.UNREACHABLE, why_unreachable(number, failure.getErrorMessage()))

    def connected(self, server: Any) -> None:
        """It is connected."""
        if self.state != CONNECTING:
            server.abortConnection()
            return
        self._connector = None
        self._server = server
        self.reached()

    # -- the relay

    def relay(self) -> None:
        client, server = self._client, self._server
        if self._paused:
            self.resume_client()
        server.registerProducer(Tap(self), True)
        client.registerProducer(Brake(self, server), True)
        for data in self._held:
            self._sent += len(data)
            server.write(data)
        self._held = []
        if self._client_ended:
            self._pass_the_end_on()

    def keep_alive(self) -> None:
        sock = system_socket(self._server)
        if sock is not None:
            with contextlib.suppress(OSError):  # it is gone already, which is seen when it is read
                listening.keep_alive(sock, relay=True)

    def server_said(self, data: bytes) -> None:
        """Bytes from the server."""
        if self.state == RELAYING:
            self._received += len(data)
            self._client.write(data)

    def server_ended_its_side(self) -> None:
        """It will say no more."""
        if self.state != RELAYING:
            return
        sock = None if self._server_told else system_socket(self._server)
        if sock is not None and not is_connected(sock):
            # it was reset; that was told to whoever wrote, and looks like an end to who reads after that
            self.server_broke("Connection reset by peer", reset=True)
            return
        self._server_ended = True
        if self._server_told or not self.port.passes:
            self.server_done(client_ended=False)
        else:
            self._client.unregisterProducer()
            self._client.loseWriteConnection()
            self.port.unheard.add(self)

    def server_lost(self, failure: Failure) -> None:
        """The server's connection is gone."""
        if self.state != RELAYING:
            return
        self._server = None
        self._client.unregisterProducer()
        if self._server_ended or isinstance(failure.value, error.ConnectionDone):
            # it had said all; what the client went on to say is for nobody
            self.server_done(client_ended=False)
        else:
            # whether it was reset or vanished is more than Twisted tells
            self.server_broke("Connection lost", reset=True)

    def server_told(self) -> None:
        """All that the client said has been sent, and its end."""
        self._server_told = True
        if self.state == RELAYING and self._server_ended:
            self.server_done(client_ended=False)

    def _pass_the_end_on(self) -> None:
        if self._server is not None:
            self._server.unregisterProducer()
            self._server.loseWriteConnection()

    # -- the end

    def part(self) -> None:
        self._let_go_of_the_server()
        self.client_falls_behind()
        if self._client_ended or not self._is_plain:
            # It is not read again, or its end would be told again; or it speaks through something (ssl, haproxy) that knows no
            # end of one side. This is over when it has been sent the rest.
            self._client.loseConnection()
            return
        self._client.resumeProducing()
        self._client.loseWriteConnection()

    def moved(self) -> tuple[int, int]:
        return self._sent, self._received

    def close(self, *, reset: bool) -> None:
        self._let_go_of_the_server()
        self._held = []
        if reset and (sock := system_socket(self._client)) is not None:
            with contextlib.suppress(OSError):
                listening.reset_at_close(sock)
        if reset or (self._left and not self._told):
            self._client.abortConnection()
        else:
            # the system still has to deliver it
            self._client.loseConnection()

    def _let_go_of_the_server(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            self._client.unregisterProducer()
            server.unregisterProducer()
            if self._server_told:
                server.loseConnection()
            else:
                server.abortConnection()

    def stop(self) -> None:
        """Everything ends, without a word to anybody."""
        # an answer that is cut short must not look like a whole one
        in_mid_answer = self.state == RELAYING or (self.state == PARTING and not self._told)
        if self.state == CONNECTING:
            self.give_up_connecting()
        self.state = OVER
        self.ticket = None
        self.close(reset=in_mid_answer)


@implementer(IHalfCloseableProtocol)
class ClientSide(Protocol):
    """A client's transport."""

    transport: ITCPTransport
    session: StreamSession

    def __init__(self, factory: ProxyFactory) -> None:
        self._factory = factory

    def connectionMade(self) -> None:
        sock = system_socket(self.transport)
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            with contextlib.suppress(OSError):  # it is gone already, which is seen when it is read
                listening.keep_alive(sock, relay=True)
        factory = self._factory
        self.session = StreamSession(factory.port, factory.reactor, self, *peer_of_transport(self.transport.getPeer()))
        factory.sessions.add(self.session)
        self.session.begin()

    def dataReceived(self, data: bytes) -> None:
        self.session.client_said(data)

    def readConnectionLost(self) -> None:
        self.session.client_ended_its_side()

    def writeConnectionLost(self) -> None:
        self.session.client_told()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._factory.sessions.discard(self.session)
        self.session.client_lost(Outcome.CLOSED if isinstance(reason.value, error.ConnectionDone) else Outcome.RESET)


class ProxyFactory(Factory):
    """Clients of the proxy on Twisted's transports.

    :ivar sessions: those that are not over.
    """

    noisy = False

    def __init__(self, port: ProxyPort, reactor: Any) -> None:
        self.port = port
        self.reactor = reactor
        self.sessions: set[StreamSession] = set()

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        return ClientSide(self) if self.port.admits(peer_of_transport(addr)[0]) else None

    def stop(self) -> None:
        """End all of them, without a word to anybody."""
        for session in list(self.sessions):
            session.stop()
