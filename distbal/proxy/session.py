"""A session: one client of the proxy, from its first byte to its end. What is decided, whatever moves the bytes.

A client that has said something asks for a lease and waits with everybody else. With the lease comes a connection to the host,
for which there are a few seconds. Where none comes about, nothing has been sent, so nothing is lost: the lease goes back with
what was learnt of the host, and the job asks again, before all that wait. Then the bytes are relayed, and the lease goes back
when the server is done or the client has left.

    quiet -> waiting -> connecting -> relaying -> parting -> over
                 ^           |
                 +-----------+  no connection: the next host

How bytes get from one side to the other is a subclass's business: splice.py moves them in the kernel, streams.py over Twisted's
transports.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from distbal.outcomes import LOST, Outcome, Traffic
from distbal.requests import Lease, Request, Ticket

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from distbal.lookup import Place
    from distbal.proxy.port import ProxyPort

#: seconds within which a host must be found and connected to
CONNECT_TIME = 3.0
#: seconds that a client which has been told all may take to close its side
PARTING_TIME = 5.0
#: seconds in which a client must take something of what there is for it: as long as distcc itself waits for a server
STALL_TIME = 300.0
#: seconds of waiting after which a client that gives up is worth a line in the log
LONG_WAIT = 10.0

#: seconds between two looks at a peer that is not read for now
LOOK_TIME = 5.0

QUIET, WAITING, CONNECTING, RELAYING, PARTING, OVER = range(6)


def why_unreachable(number: int | None, words: str = "") -> str:
    """How a host cannot be reached, as the end of a sentence.

    :param number: the system's error; ``words`` are used where there is none.
    """
    if number == errno.EADDRNOTAVAIL:
        # of our ports each can be used once for each address there: another host may still do
        return "cannot be reached: this machine has no address, or no port left, to connect to it from"
    return f"cannot be reached: {words if number is None else os.strerror(number)}"


class Session:
    """One client.

    :param port: what it came by.
    :param address: where it comes from, ``peer_port`` its port there; as in a request.

    :ivar state: one of the above.
    :ivar lease: while it has one.
    """

    __slots__ = (
        "_began",
        "_connect",
        "_job",
        "_looking",
        "_places",
        "_since",
        "_stalled_at",
        "address",
        "lease",
        "peer_port",
        "port",
        "state",
        "ticket",
    )

    def __init__(self, port: ProxyPort, address: str, peer_port: int) -> None:
        self.port = port
        self.address = address
        self.peer_port = peer_port
        self.state = QUIET
        self.ticket: Ticket | None = None
        self.lease: Lease | None = None
        #: the job's number and when it first asked, once an attempt has failed
        self._job = 0
        self._since: float | None = None
        #: where else the host may be, while it is connected to
        self._places: list[Place] = []
        self._looking = False
        self._began = 0.0
        self._connect: float | None = None
        #: what had been delivered when it was last looked at, while the client does not keep up; else -1
        self._stalled_at = -1

    def __repr__(self) -> str:
        return f"<Session of {self.address}:{self.peer_port}>"

    # -- for subclasses to do

    def settle(self) -> None:
        """It will have to wait: hold on to no more than need be."""

    def connect(self, place: Place) -> None:
        """Begin to connect there; :meth:`reached` or :meth:`missed` follows, perhaps at once."""
        raise NotImplementedError

    def is_decided(self) -> bool:
        """Whether the system knows already how a connect ended, and will tell when it is asked next."""
        raise NotImplementedError

    def give_up_connecting(self) -> None:
        """Whatever was begun with :meth:`connect` is no longer wanted."""
        raise NotImplementedError

    def relay(self) -> None:
        """Both sides are there: let the bytes go."""
        raise NotImplementedError

    def keep_alive(self) -> None:
        """Let the server's connection notice when its machine vanishes."""
        raise NotImplementedError

    def moved(self) -> tuple[int, int]:
        """Bytes that the server was sent, and bytes that came from it."""
        raise NotImplementedError

    def delivered(self) -> int:
        """Bytes of the server's that the client's machine has."""
        raise NotImplementedError

    def part(self) -> None:
        """End the server's side, and tell the client that this was all; then drop what it says until it closes too.

        To close at once, with something of the client's unread, would reset its connection, and destroy what it has not read.
        """
        raise NotImplementedError

    def between_attempts(self) -> None:
        """Its lease is about to go back; then it asks again."""

    def close(self, *, reset: bool) -> None:
        """End whatever is there, both sides; ``reset``: so that the client sees that something is missing."""
        raise NotImplementedError

    # -- what subclasses tell

    def ask(self) -> None:
        """It is time for a lease."""
        self.state = WAITING
        port = self.port
        request = Request(self.address, self.peer_port, self.address, port.pool, (), self._job, self._since)
        ticket = port.leases.ask(request, self)
        if ticket.lease is None and ticket.holder is self and self.state == WAITING:
            self.ticket = ticket
            self.settle()
            if port.verbose:
                port.log.info("{ticket} waits", ticket=ticket)

    def reached(self) -> None:
        """The host is connected."""
        port, lease = self.port, self.lease
        assert lease is not None, "connected without a lease"  # noqa: S101 (for the type checker: who connects has one)
        self._connect = port.seconds() - self._began
        self.state = RELAYING
        if self._places:
            port.lookup.reached(lease.host.spec.address, self._places[0])
        if lease.host.evidence.unreachable:
            port.leases.connected(lease)
        if self.state == RELAYING:
            self.relay()

    def missed(self, outcome: Outcome, reason: str) -> None:
        """The place could not be connected to.

        :param reason: how, as the end of a sentence that begins with the host's name.
        """
        if len(self._places) > 1 and outcome is not Outcome.TIMED_OUT:
            self._next_place()
            return
        lease, port = self.lease, self.port
        assert lease is not None, "connected without a lease"  # noqa: S101 (the same)
        self._places = []
        self.lease = None
        self._job, self._since = lease.job, lease.ticket.asked
        self.between_attempts()
        if port.verbose:
            port.log.info("{ticket} is to be tried elsewhere: {outcome}", ticket=lease.ticket, outcome=outcome.value)
        port.leases.release(lease, outcome, Traffic(reason=reason))
        if self.state == CONNECTING:
            self.ask()

    def starved(self, reason: str) -> None:
        """We ourselves lack what a session needs: descriptors, memory. No host's fault, and the end of this one."""
        self.port.cuts_off(self, reason)
        self.end(Outcome.CUT_OFF, reset=True)

    def client_falls_behind(self) -> None:
        """There is more for the client than it takes: see in a while whether it took anything."""
        self._stalled_at = self.delivered()
        self.port.stalled.add(self)

    def client_left(self, outcome: Outcome) -> None:
        """The client closed, was reset or vanished before its server was done: the end of the job, if there is one."""
        if self.ticket is not None:
            self.port.gave_up(self, self.ticket.asked)
        self.end(outcome)

    def end(self, outcome: Outcome, reason: str = "", *, reset: bool = False) -> None:
        """Everything ends now.

        :param reason: where the server failed: how.
        """
        if self.state == OVER:
            return
        connecting, self.state = self.state == CONNECTING, OVER
        if connecting:
            self.give_up_connecting()
        moved = self.moved()
        try:
            self.close(reset=reset)
        finally:
            self.port.over(self)
            self._leave(outcome, reason, moved)

    def server_done(self, *, client_ended: bool) -> None:
        """The server has said all. Its slot is free; the client may take a moment to leave.

        :param client_ended: the client has said all, too.
        """
        moved = self.moved()
        outcome = Outcome.ANSWERED if moved[1] else Outcome.NO_ANSWER
        reason = "" if moved[1] else "closed without an answer"
        if client_ended:
            self.end(outcome, reason)
            return
        self.state = PARTING
        self.part()
        if self.lease is not None:
            self._give_back(self.lease, outcome, reason, *moved)

    def server_broke(self, words: str, *, reset: bool) -> None:
        """The server's connection broke.

        :param words: how, in the system's words.
        :param reset: by the server's doing.
        """
        if self.moved()[1]:
            self.end(Outcome.BROKEN, f"broke off its answer: {words}", reset=True)
        elif reset:
            # a distccd that closes with something unread resets the connection
            self.end(Outcome.NO_ANSWER, "closed without an answer", reset=True)
        else:
            self.end(Outcome.BROKEN, f"was lost: {words}", reset=True)

    def fail(self) -> None:
        """A bug met it."""
        self.end(Outcome.CUT_OFF, reset=True)

    # -- a taker

    def granted(self, lease: Lease) -> None:
        self.ticket = None
        self.lease = lease
        self.state = CONNECTING
        port = self.port
        if port.verbose:
            port.log.info(
                "{ticket} has {host} after {waited:.3f} s",
                ticket=lease.ticket,
                host=lease.host.spec.name,
                waited=lease.granted - lease.ticket.asked,
            )
        port.soon(self._look_up)

    def refused(self, ticket: Ticket, reason: str) -> None:
        self.ticket = None
        if self.port.verbose:
            self.port.log.info("{ticket} is refused: {reason}", ticket=ticket, reason=reason)
        self.end(Outcome.CUT_OFF)

    def lost(self, lease: Lease, reason: str) -> None:
        self.lease = None
        if self.port.verbose:
            self.port.log.info("{ticket} is over: {reason}", ticket=lease.ticket, reason=reason)
        self.end(Outcome.CUT_OFF, reset=True)

    # -- the inside

    def _look_up(self) -> None:
        lease, port = self.lease, self.port
        if self.state != CONNECTING or lease is None:
            return  # it ended meanwhile
        self._began = port.seconds()
        port.young.add(self)
        address = lease.host.spec.address
        places = port.lookup.known(address)
        if places is None:
            self._looking = True
            port.lookup.find(address, lambda found: self._found(lease, found))
        elif len(places) == 1:
            self.connect(places[0])
        else:
            self._found(lease, places)

    def _found(self, lease: Lease, found: list[Place] | Failure) -> None:
        if self.state != CONNECTING or self.lease is not lease:
            return
        self._looking = False
        if isinstance(found, list):
            self._places = list(found)
            self.connect(found[0])
        else:
            self.missed(Outcome.UNRESOLVED, f"cannot be looked up: {found.getErrorMessage()}")

    def _next_place(self) -> None:
        if self.lease is not None:
            self.port.lookup.missed(self.lease.host.spec.address, self._places[0])
        del self._places[0]
        lease = self.lease
        self.port.soon(lambda: self._connect_next(lease))

    def _connect_next(self, lease: Lease | None) -> None:
        if self.state == CONNECTING and self.lease is lease:
            self.connect(self._places[0])

    def aged(self) -> None:
        """It is some seconds since it began to connect."""
        if self.state == CONNECTING and self.is_decided():
            # it was us who did not look for so long
            self.port.young.add(self)
        elif self.state == CONNECTING:
            self.give_up_connecting()
            if self.lease is not None and len(self._places) > 1:
                self.port.lookup.missed(self.lease.host.spec.address, self._places[0])
            if self._looking:
                self._looking = False
                self.missed(Outcome.UNRESOLVED, f"could not be looked up within {CONNECT_TIME:g} s")
            else:
                self.missed(Outcome.TIMED_OUT, f"did not answer within {CONNECT_TIME:g} s")
        elif self.state == RELAYING:
            # not at once: most are over by now, and the system calls are dear
            self.keep_alive()

    def parted(self) -> None:
        """It took its client too long to leave."""
        self.end(Outcome.ANSWERED)

    def stalled(self) -> None:
        """A while ago the client did not keep up with its server: end the session if it has taken nothing since."""
        if self.delivered() > self._stalled_at:
            self.client_falls_behind()
        else:
            self.port.does_not_read(self)
            self.end(Outcome.ANSWERED, reset=True)

    def listen_in(self) -> None:
        """One of its peers may not be heard for now: see whether it is gone."""

    def _leave(self, outcome: Outcome, reason: str, moved: tuple[int, int]) -> None:
        """Give up what it has of the scheduler's: a place in the queue, or a lease."""
        ticket = self.ticket
        if ticket is not None:
            self.ticket = None
            if ticket.lease is not None:
                # granted already, and not yet told
                self.lease = ticket.lease
            else:
                self.port.leases.withdraw(ticket)
                if self.port.verbose:
                    self.port.log.info("{ticket} is over: {outcome}", ticket=ticket, outcome=outcome.value)
        if self.lease is not None:
            self._give_back(self.lease, outcome, reason, *moved)

    def _give_back(self, lease: Lease, outcome: Outcome, reason: str, sent: int, received: int) -> None:
        self.lease = None
        if self.port.verbose:
            self.port.log.info("{ticket} is over: {outcome}", ticket=lease.ticket, outcome=outcome.value)
        if outcome in LOST:
            self.port.lost_a_job(self, lease, outcome, reason)
        self.port.leases.release(lease, outcome, Traffic(sent, received, self._connect, reason))
