"""The two brief ports: 5657 tells, 5658 is told. What the bytes mean is in wire.py.

Each conversation is short, nobody can make it long, and only so many go on at once: so they are plain Twisted protocols.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IReactorTime, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from distbal import wire
from distbal.access import AccessList
from distbal.bugs import bugs
from distbal.complaints import Complaints
from distbal.descriptors import CROWD
from distbal.errors import LineTooLongError, WireError
from distbal.leases import LocalLeases
from distbal.logs import Logger
from distbal.ports import Terms, peer_of_transport

_log = Logger()
#: seconds that a client of 5658 may take to say its line
PATIENCE = 5.0
#: seconds that a client of 5657 may take to read a long page
READING_TIME = 60.0
#: a status page that took longer than this to make, in seconds, is shown again for a while ...
DEAR = 0.005
#: ... of this many times as long: then no crowd of readers takes more than a tenth of our time
REST = 10


@implementer(IHalfCloseableProtocol)
class BriefProtocol(Protocol):
    """A short conversation, which nobody can make long: whoever stays too long is cut off.

    It ends by closing our side first and reading on until the peer closes too: to close with something unread would reset the
    connection, and destroy what the peer has not read yet.
    """

    transport: ITCPTransport
    patience = PATIENCE

    def __init__(self, factory: BriefFactory) -> None:
        self.factory = factory

    @property
    def peer(self) -> str:
        """Who it is, in log lines: who comes by a Unix socket has no address."""
        return peer_of_transport(self.transport.getPeer())[0] or "this machine"

    def connectionMade(self) -> None:
        self.factory.crowd += 1
        self._parting = False
        self._cut_off = self.factory.clock.callLater(self.patience, self._out_of_patience)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.crowd -= 1
        if self._cut_off.active():
            self._cut_off.cancel()

    def dataReceived(self, data: bytes) -> None:
        if not self._parting:
            with self._alone():
                self.received(data)

    def readConnectionLost(self) -> None:
        # the peer has said all, and may still listen: it gets what is on its way
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Our side is closed, as :meth:`part` wanted; now the peer closes its own."""

    def received(self, data: bytes) -> None:
        """Bytes from the peer, while the conversation is not over."""

    def part(self) -> None:
        """We have said all: let it be read, and take the peer's leave."""
        if self._parting:
            return
        self._parting = True
        self.transport.loseWriteConnection()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """What the block raises is a bug that ends this conversation, and no other."""
        try:
            yield
        except Exception:  # noqa: BLE001 (whatever it is, it is this one's alone)
            bugs.met("connection", _log, "a conversation on the {port} port met a bug; it is ended", port=self.factory.name)
            self._parting = True
            self.transport.abortConnection()

    def _out_of_patience(self) -> None:
        if not self._parting:
            # whatever part of a line it said: it did not end it
            self._parting = True
            self.factory.complain(
                "{address} said no whole line in {patience:g} s on the {port} port: cut off",
                bound="update-line",
                address=self.peer,
                patience=self.patience,
                port=self.factory.name,
            )
        self.transport.abortConnection()


class BriefFactory(Factory):
    """What the two brief ports share: who may come, and how many at once.

    :param name: ``status`` or ``update``; in log lines.
    :ivar crowd: how many are served now; ``most``: how many may be at once.
    """

    noisy = False

    def __init__(self, name: str, leases: LocalLeases, terms: Terms, complain: Complaints, clock: IReactorTime) -> None:
        self.name = name
        self.leases = leases
        self.terms = terms
        self.complain = complain
        self.clock = clock
        self.crowd = 0
        self.most = CROWD

    @property
    def allowed(self) -> AccessList:
        """Who may come."""
        return self.terms.allow_clients

    def conversation(self) -> BriefProtocol:
        """A new one."""
        raise NotImplementedError

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        address = peer_of_transport(addr)[0]  # none on a Unix socket, which is let in by its mode
        if not self.allowed.allows(address):
            self.complain(
                "{address} may not use the {port} port ({allowed}): turned away",
                address=address,
                port=self.name,
                allowed=str(self.allowed),
            )
            return None
        if self.crowd >= self.most:
            self.complain(
                "{crowd} clients at once on the {port} port: {address} is turned away",
                bound=self.name,
                crowd=self.crowd,
                port=self.name,
                address=address or "this machine",
            )
            return None
        return self.conversation()


class StatusProtocol(BriefProtocol):
    """5657: nine lines, then the end. What the peer sends is ignored."""

    patience = READING_TIME

    def __init__(self, factory: StatusFactory) -> None:
        super().__init__(factory)
        self._page = factory.page

    def connectionMade(self) -> None:
        super().connectionMade()
        with self._alone():
            self.transport.write(self._page())
            self.part()


class StatusFactory(BriefFactory):
    """Makes the status port's conversations.

    :ivar balance_port, status_port: the port numbers that the page names; 0 where that port is off or has none.
    """

    balance_port = 0
    status_port = 0
    _page = b""
    _good_until = float("-inf")

    def page(self) -> bytes:
        """What it says now; of a farm so large that saying it takes long, what it said a moment ago."""
        began = self.clock.seconds()
        if began < self._good_until:
            return self._page
        page = wire.status(self.leases.snapshot(), self.balance_port, self.status_port)
        took = self.clock.seconds() - began
        if took > DEAR:
            self._page, self._good_until = page, began + took + REST * took
        return page

    def conversation(self) -> BriefProtocol:
        return StatusProtocol(self)


class UpdateProtocol(BriefProtocol):
    """5658: one line, ``HOST up`` or ``HOST down``; no answer, and the end."""

    def __init__(self, factory: UpdateFactory) -> None:
        super().__init__(factory)
        self._heard = factory.heard
        self._reader = wire.UpdateReader()

    def received(self, data: bytes) -> None:
        self._read(lambda: self._reader.feed(data))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        if not self._parting:
            # a line without an end is a line, when the connection ends; part() has nothing left to do
            self._parting = True
            with self._alone():
                self._read(self._reader.feed_eof)

    def _read(self, feed: Callable[[], wire.Update | None]) -> None:
        try:
            update = feed()
        except WireError as error:
            self.factory.complain(
                "{address} on the update port: {problem}",
                bound="update-line" if isinstance(error, LineTooLongError) else "",
                address=self.peer,
                problem=str(error),
            )
            self.part()
            return
        if update is not None:
            self._heard(update, self.peer)
            self.part()


class UpdateFactory(BriefFactory):
    """Makes the update port's conversations, and acts on them."""

    log = Logger()

    @property
    def allowed(self) -> AccessList:
        return self.terms.allow_update

    def conversation(self) -> BriefProtocol:
        return UpdateProtocol(self)

    def heard(self, update: wire.Update, address: str) -> None:
        """A whole line came.

        :param address: from where, for log lines.
        """
        if update.state is None:
            self.complain(
                "{address} on the update port: {line} says neither up nor down", address=address, line=ascii(update.name)
            )
            return
        up = update.state == "up"
        try:
            changed = self.leases.report(update.name, "update", up=up, reason=f"said on the update port by {address}")
        except KeyError:
            self.complain("{address} on the update port: no host {name} in the file", address=address, name=ascii(update.name))
            return
        if changed:
            self.log.info("{host} is now {state}, says the update port", host=update.name, state=update.state)
