"""A port of the proxy: what its sessions share, and how clients come in.

On Linux the sessions are spliced in the hot loop; where there is no epoll, or where the user gave a Twisted endpoint string,
they run over Twisted's transports. Which of the two it is changes nothing of what a session decides.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorTime

from distbal.bugs import bugs
from distbal.complaints import Complaints
from distbal.deadlines import Deadlines
from distbal.leases import LeaseSource
from distbal.logs import Logger
from distbal.lookup import Lookup
from distbal.loop import HotLoop
from distbal.outcomes import Outcome
from distbal.ports import ClientPort, Terms, peer_of
from distbal.proxy.kept import KeptSession
from distbal.proxy.keptpipes import KeptPipes
from distbal.proxy.lasting import LastingSession
from distbal.proxy.pipes import KEPT, Pipes
from distbal.proxy.session import CONNECT_TIME, LONG_WAIT, LOOK_TIME, PARTING_TIME, STALL_TIME, Session
from distbal.requests import Lease

if TYPE_CHECKING:
    from distbal.keeping import Keeping


class Proxy:
    """What all ports of the proxy share.

    :param keeping: where there is a keeper, which is to hold what sessions have.

    :ivar clock: for timers. ``seconds``: its own, never going back.
    :ivar lookup: finds hosts.
    :ivar pipes: for spliced sessions; ``kind``: what these are.
    :ivar young: sessions that began to connect to their host a moment ago; ``parting``: those whose client has been told all;
        ``stalled``: those whose client did not keep up; ``unheard``: those who would not hear it if one of their peers left.
    :ivar deadlines: these four.
    """

    def __init__(self, clock: IReactorTime, lookup: Lookup, keeping: Keeping | None = None) -> None:
        self.clock = clock
        self.seconds: Callable[[], float] = clock.seconds
        self.lookup = lookup
        self.keeping = keeping
        self.pipes: Pipes
        self.kind: type[LastingSession]
        if keeping is None:
            self.pipes, self.kind = Pipes(clock.seconds), LastingSession
        else:
            self.pipes, self.kind = KeptPipes(clock.seconds, keeping), KeptSession
        self._reserved = False
        self.young: Deadlines[Session] = Deadlines(clock, CONNECT_TIME, _alone(lambda session: session.aged()))
        self.parting: Deadlines[Session] = Deadlines(clock, PARTING_TIME, _alone(lambda session: session.parted()))
        self.stalled: Deadlines[Session] = Deadlines(clock, STALL_TIME, _alone(lambda session: session.stalled()))
        self.unheard: Deadlines[Session] = Deadlines(clock, LOOK_TIME, _alone(lambda session: session.listen_in()))
        self.deadlines = (self.young, self.parting, self.stalled, self.unheard)

    def reserve(self, loop: HotLoop) -> None:
        """Keep descriptors for the pipes that are kept: once, for all ports."""
        if not self._reserved:
            self._reserved = True
            self.pipes.keep = min(KEPT, loop.room // 16)
            loop.reserve(2 * self.pipes.keep)

    def stop(self) -> None:
        """The end of all sessions: to be called when these are stopped."""
        for deadlines in self.deadlines:
            deadlines.stop()
        self.pipes.stop()


class ProxyPort(ClientPort):
    """A listener whose clients are connected to a host.

    :param proxy: what it shares with the others.
    :param server_first: the service is one whose server speaks first: a lease is asked for when a client connects.
    :param passes: the service is one where a client may end its side and go on listening: that is passed on to the server.
    """

    log = Logger()

    def __init__(
        self,
        proxy: Proxy,
        leases: LeaseSource,
        terms: Terms,
        pool: str,
        complain: Complaints,
        *,
        server_first: bool = False,
        passes: bool = False,
        verbose: bool = False,
    ) -> None:
        super().__init__(leases, terms, pool, complain, verbose=verbose)
        self.server_first = server_first
        self.passes = passes
        self.clock = proxy.clock
        self.seconds = proxy.seconds
        self.lookup = proxy.lookup
        self.pipes = proxy.pipes
        self.kind = proxy.kind
        #: called with the fairness key of one that begins to wait, or waits no more, where that has to be written down
        self.noted: Callable[[str], None] = _nothing
        self.young = proxy.young
        self.parting = proxy.parting
        self.stalled = proxy.stalled
        self.unheard = proxy.unheard
        self._deadlines = proxy.deadlines
        #: calls something as soon as new descriptors may be made
        self.soon: Callable[[Callable[[], None]], None] = _at_once

    @property
    def words(self) -> str:
        return f"proxy {self.pool} {'server' if self.server_first else 'client'} {'pass' if self.passes else 'cancel'}"

    def hot(self, loop: HotLoop, descriptor: int, address: Any) -> None:
        """A new client, from the hot loop."""
        host, port = peer_of(address)
        if self.admits(host):
            self.soon = loop.soon
            self.kind(self, loop, self.pipes, descriptor, host, port).begin()
        else:
            os.close(descriptor)

    # -- what sessions tell

    def gave_up(self, session: Session, asked: float) -> None:
        """A client left while it waited for a lease."""
        waited = self.seconds() - asked
        if waited >= LONG_WAIT:
            self.complain(
                "{address} gave up after {waited:.0f} s of waiting for a host (distcc waits for DISTCC_IO_TIMEOUT: 300 s where"
                " that is not set)",
                address=session.address or "a client",
                waited=waited,
            )

    def does_not_read(self, session: Session) -> None:
        """A client is cut off since it takes nothing."""
        self.complain(
            "{address} took nothing of its answer for {time:g} s: cut off",
            address=session.address or "a client",
            time=STALL_TIME,
        )

    def cuts_off(self, session: Session, reason: str) -> None:
        """We ourselves lack what a session needs."""
        self.complain("{address} is cut off: {reason}", address=session.address or "a client", reason=reason)

    def lost_a_job(self, session: Session, lease: Lease, outcome: Outcome, reason: str) -> None:
        """A host had a job, and its client got nothing, or not all, for it."""
        address = session.address or "this machine"
        if outcome is Outcome.NO_ANSWER:
            self.complain(
                "{host} closed the job of {address} without an answer (distccd does so where its --allow does not name us, and"
                " for compilers that it does not list: its log says)",
                host=lease.host_name,
                address=address,
            )
        else:
            self.complain("{host} {reason}: the job of {address} is lost", host=lease.host_name, reason=reason, address=address)

    def over(self, session: Session) -> None:
        """A session ended."""
        for deadlines in self._deadlines:
            deadlines.discard(session)


def _nothing(key: str) -> None:
    pass


def _alone(late: Callable[[Session], None]) -> Callable[[Session], None]:
    """The same; a bug in it ends the session that it met, which would have no other deadline."""

    def tell(session: Session) -> None:
        try:
            late(session)
        except Exception:  # noqa: BLE001 (whatever it is, the slot comes back)
            bugs.met("session", ProxyPort.log, "a session met a bug at a deadline; it is ended")
            session.fail()

    return tell


def _at_once(call: Callable[[], None]) -> None:
    call()
