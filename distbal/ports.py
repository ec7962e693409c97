"""5656, the port that lends: a client asks by connecting, is told one host, and holds its lease by staying connected.

On Linux its clients live in loop.py as :class:`HotClient`. Where there is no epoll, or where the user gave a Twisted endpoint
string, the same conversation runs over a Twisted transport, as :class:`BalanceProtocol`. What all ports share stands here too;
the two others are in briefports.py, and what the bytes mean is in wire.py.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, ISystemHandle, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import implementer

from distbal import listening, wire
from distbal.access import AccessList, plain
from distbal.complaints import Complaints
from distbal.hosts import HostSpec
from distbal.leases import LeaseSource
from distbal.logs import Logger
from distbal.loop import Connection, HotLoop
from distbal.outcomes import Outcome
from distbal.requests import Lease, Request, Ticket


def peer_of(address: Any) -> tuple[str, int]:
    """Where a client comes from, as (address, port), from what ``accept`` gave: ("", 0) for a Unix socket."""
    if type(address) is tuple:
        return plain(address[0]), address[1]
    return "", 0


def peer_of_transport(address: IAddress | None) -> tuple[str, int]:
    """The same, from what Twisted gave; ``?`` of a connection without addresses, which no list but ``any`` lets in."""
    host = getattr(address, "host", "" if address is None or isinstance(address, UNIXAddress) else "?")
    return plain(host) if isinstance(host, str) else "?", getattr(address, "port", 0)


def system_socket(transport: object) -> socket.socket | None:
    """What a transport, wrapped (TLS, PROXY) or not, sends through in the end; None where that is not a socket."""
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    handle = transport.getHandle() if ISystemHandle.providedBy(transport) else None
    return handle if isinstance(handle, socket.socket) else None


class Replies:
    """What 5656 answers for each host.

    :param template: as in hosts.yaml, ``{name}{options}``.
    """

    def __init__(self, template: str) -> None:
        self._template = template
        self._lines: dict[str, bytes] = {}

    def line(self, spec: HostSpec) -> bytes:
        """The whole line for one host, its end included."""
        line = self._lines.get(spec.name)
        if line is None:
            line = self._lines[spec.name] = wire.grant(self._template, spec.name, spec.options)
        return line


class Terms:
    """What the file says that clients of the ports meet; the composition sets it, and sets it again on a reload.

    :ivar replies: what 5656 answers.
    :ivar allow_clients: who may use 5656 and 5657; ``allow_update``: who may use 5658.
    """

    __slots__ = ("allow_clients", "allow_update", "replies")

    replies: Replies
    allow_clients: AccessList
    allow_update: AccessList


# -- 5656 --------------------------------------------------------------------------------------------------------------------


class ClientPort:
    """A listener for clients that want a slot, in whatever way.

    :param pool: what it lends.
    :param verbose: log each job.
    """

    def __init__(self, leases: LeaseSource, terms: Terms, pool: str, complain: Complaints, *, verbose: bool = False) -> None:
        self.leases = leases
        self.terms = terms
        self.pool = pool
        self.complain = complain
        self.verbose = verbose

    @property
    def words(self) -> str:
        """What clients come by here, in words that outlive the process: serving.py finds it again by these."""
        raise NotImplementedError

    def admits(self, address: str) -> bool:
        """Whether a client may come in; says so in the log when it may not."""
        allowed = self.terms.allow_clients
        if allowed.allows(address):
            return True
        self.complain("{address} is not in allow.clients ({allowed}): turned away", address=address, allowed=str(allowed))
        return False


class BalancePort(ClientPort):
    """A listener whose clients are told their host, and connect to it themselves."""

    log = Logger()

    @property
    def words(self) -> str:
        return f"balance {self.pool}"

    def hot(self, loop: HotLoop, descriptor: int, address: Any) -> None:
        """A new client, from the hot loop."""
        host, port = peer_of(address)
        if self.admits(host):
            client = HotClient(self, loop, descriptor)
            loop.watch(client)
            client.begin(host, port)
        else:
            os.close(descriptor)


class BalanceClient:
    """A client of 5656: it asks by connecting, and holds its lease by staying connected.

    Needs, from the one who knows its socket: :meth:`deliver` and :meth:`hang_up`.
    """

    __slots__ = ("port", "ticket")

    def __init__(self, port: BalancePort) -> None:
        self.port = port
        self.ticket: Ticket | None = None

    def deliver(self, line: bytes) -> bool:
        """Send a grant; False when the client is gone."""
        raise NotImplementedError

    def hang_up(self) -> None:
        """Close the connection; harmless when it is closed."""
        raise NotImplementedError

    def begin(self, address: str, peer_port: int) -> None:
        """The client is here: ask for its slot."""
        port = self.port
        ticket = port.leases.ask(Request(address, peer_port, address, port.pool), self)
        # no lease, and nobody's: it came back at once, since the client was gone
        if ticket.lease is None and ticket.holder is self:
            self.ticket = ticket
            if port.verbose:
                port.log.info("{ticket} waits", ticket=ticket)

    def left(self, outcome: Outcome) -> None:
        """The client is gone: give back what it had."""
        ticket, self.ticket = self.ticket, None
        self.hang_up()
        if ticket is not None:
            if ticket.lease is not None:
                self.port.leases.release(ticket.lease, outcome)
            else:
                self.port.leases.withdraw(ticket)
            if self.port.verbose:
                self.port.log.info("{ticket} is over: {outcome}", ticket=ticket, outcome=outcome.value)

    # -- a taker

    def granted(self, lease: Lease) -> None:
        port = self.port
        self.ticket = lease.ticket
        if not self.deliver(port.terms.replies.line(lease.host.spec)):
            self.left(Outcome.UNDELIVERED)
        elif port.verbose:
            port.log.info(
                "{ticket} has {host} after {waited:.3f} s",
                ticket=lease.ticket,
                host=lease.host.spec.name,
                waited=lease.granted - lease.ticket.asked,
            )

    def refused(self, ticket: Ticket, reason: str) -> None:
        self.ticket = None
        self.hang_up()
        if self.port.verbose:
            self.port.log.info("{ticket} is refused: {reason}", ticket=ticket, reason=reason)

    def lost(self, lease: Lease, reason: str) -> None:
        self.refused(lease.ticket, reason)


class HotClient(BalanceClient, Connection):
    """A client of 5656 in the hot loop."""

    __slots__ = ("descriptor", "loop")

    def __init__(self, port: BalancePort, loop: HotLoop, descriptor: int) -> None:
        self.port = port
        self.ticket = None
        self.loop = loop
        self.descriptor = descriptor

    def deliver(self, line: bytes) -> bool:
        try:
            # the first thing ever sent on this connection: the buffer has room for it, or something is wrong with it
            return os.write(self.descriptor, line) == len(line)
        except OSError:
            return False

    def hang_up(self) -> None:
        self.loop.end(self)


@implementer(IHalfCloseableProtocol)
class BalanceProtocol(BalanceClient, Protocol):
    """A client of 5656 on a Twisted transport. Bytes that it sends are ignored, like the original ignores them."""

    transport: ITCPTransport
    factory: BalanceFactory

    def connectionMade(self) -> None:
        self.factory.clients.add(self)
        # what a user's own endpoint takes in would hold its lease for ever when its machine loses power
        sock = system_socket(self.transport)
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            with contextlib.suppress(OSError):  # it is gone already, which is seen when it is read
                listening.keep_alive(sock)
        self.begin(*peer_of_transport(self.transport.getPeer()))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.clients.discard(self)
        self.left(Outcome.CLOSED if isinstance(reason.value, ConnectionDone) else Outcome.RESET)

    def readConnectionLost(self) -> None:
        # it ended its side, which ends the lease; a grant that is on its way still reaches it
        self.left(Outcome.CLOSED)

    def writeConnectionLost(self) -> None:
        """Never: our side ends with the connection."""

    def deliver(self, line: bytes) -> bool:
        self.transport.write(line)
        return True

    def hang_up(self) -> None:
        self.transport.loseConnection()


class BalanceFactory(Factory):
    """Clients of 5656 that come by a Twisted endpoint."""

    noisy = False

    def __init__(self, port: BalancePort) -> None:
        self.port = port
        #: those that are here
        self.clients: set[BalanceProtocol] = set()

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        if not self.port.admits(peer_of_transport(addr)[0]):
            return None
        client = BalanceProtocol(self.port)
        client.factory = self
        return client
