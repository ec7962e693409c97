"""Where the edges get their slots: ask a lease source, and be told later.

Whoever wants a slot (a client on 5656, a proxied session ...) is a :class:`Taker` and asks a :class:`LeaseSource`. It never
assumes that the answer is local: it may come before ``ask`` returns, or much later, or be a refusal. There are no Deferreds on
this path. :class:`LocalLeases` is the source in the daemon that has the scheduler.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from functools import partial
from typing import Protocol, cast

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from distbal import evidence
from distbal.bugs import bugs
from distbal.health import Verdict
from distbal.hosts import AdminState, Farm
from distbal.logs import Logger
from distbal.outcomes import Outcome, Traffic
from distbal.requests import Lease, Request, Ticket
from distbal.scheduler import Scheduler
from distbal.snapshot import Snapshot
from distbal.takeup import Carried, TakenUp, take_up

#: a timer that is late by this much harms nobody, and rounding must not wake us too early
_TIMER_SLACK = 0.001
#: seconds after which what expires is looked at again when a bug was met meanwhile
_AGAIN = 1.0


class Taker(Protocol):
    """Whoever asked for a slot. None of these may raise."""

    def granted(self, lease: Lease) -> None:
        """The slot is yours until you release it."""

    def refused(self, ticket: Ticket, reason: str) -> None:
        """There will be none for this ticket, which is over; the reason is a sentence."""

    def lost(self, lease: Lease, reason: str) -> None:
        """The lease ended without you: do not release it."""


class LeaseSource(Protocol):
    """Lends slots."""

    def ask(self, request: Request, taker: Taker) -> Ticket:
        """Ask for a slot. The taker may hear of it before this returns."""

    def withdraw(self, ticket: Ticket) -> None:
        """A ticket that still waits is no longer wanted."""

    def release(self, lease: Lease, outcome: Outcome, traffic: Traffic | None = None) -> None:
        """A lease is over, and how; with what came of the connection to its host, where you made that."""

    def connected(self, lease: Lease) -> None:
        """You could connect to the lease's host, after somebody could not (``host.evidence.unreachable``)."""


class LocalLeases:
    """The scheduler of this very process, with a clock and a timer.

    :param clock: its ``seconds()`` must never go back (the composition sees to it).
    :ivar scheduler: the pure core. Change it through the methods here, so that what follows reaches those concerned.
    :ivar said: told the name of a host whenever a source or a person said something of it, or took it back; it may not raise.
        None where nobody wants to know.
    """

    log = Logger()

    def __init__(self, scheduler: Scheduler, clock: IReactorTime) -> None:
        self.scheduler = scheduler
        self._seconds: Callable[[], float] = clock.seconds
        self._clock = clock
        self._timer: IDelayedCall | None = None
        self._timer_due: float | None = None
        self._undelivered: deque[Lease] = deque()
        self._delivering = False
        self._stopped = False
        self.said: Callable[[str], None] | None = None

    # -- a lease source

    def ask(self, request: Request, taker: Taker) -> Ticket:
        scheduler = self.scheduler
        ticket = scheduler.ask(request, taker, self._seconds())
        if ticket.lease is not None:
            taker.granted(ticket.lease)
        elif scheduler.due != self._timer_due:
            self._set_timer()
        return ticket

    def withdraw(self, ticket: Ticket) -> None:
        self.scheduler.withdraw(ticket)

    def release(self, lease: Lease, outcome: Outcome, traffic: Traffic | None = None) -> None:
        host = lease.host
        if traffic is None or (outcome is Outcome.ANSWERED and not host.suspect and not host.evidence.unreachable):
            # nothing that anybody has to be told of the host
            grants = self.scheduler.release(lease, outcome, self._seconds(), traffic)
        else:
            grants = self._release_and_learn(lease, outcome, traffic)
        if grants:
            self._deliver(grants)

    def connected(self, lease: Lease) -> None:
        before = lease.host.health.verdict(evidence.SOURCE)
        grants = self.scheduler.connected(lease, self._seconds())
        if before is not None:
            self.log.info("{host} can be reached again", host=lease.host_name)
        self._set_timer()
        self._deliver(grants)

    # -- what others tell the scheduler

    def report(
        self, name: str, source: str, *, up: bool, reason: str = "", weight: int | None = None, ttl: float | None = None
    ) -> bool:
        """A source's verdict on a host; KeyError when no such host is in the file.

        :param weight: 0 to 1000 thousandths, or None for no opinion.
        :param ttl: seconds for which it holds; None until the source says otherwise.
        :returns: whether the source had said otherwise before: a change that is worth a line in the log.
        """
        before = self.scheduler.verdict(name, source)
        now = self._seconds()
        expires = None if ttl is None else now + ttl
        verdict = Verdict(source, up=up, at=now, weight=weight, reason=reason, expires=expires)
        grants = self.scheduler.report(name, verdict)
        if self.said is not None:
            self.said(name)
        self._deliver(grants)
        self._set_timer()
        return not up if before is None else before.up != up

    def forget(self, name: str, source: str) -> None:
        """A source has no opinion of a host any more; nothing happens when the host is not in the file."""
        with suppress(KeyError):
            grants = self.scheduler.forget(name, source, self._seconds())
            if self.said is not None:
                self.said(name)
            self._deliver(grants)
            self._set_timer()

    def heard(self, name: str, source: str) -> bool:
        """Whether anything that this source said of the host holds now."""
        return self.verdict(name, source) is not None

    def verdict(self, name: str, source: str) -> Verdict | None:
        """What this source said of the host, as far as it holds; None also where there is no such host."""
        host = self.scheduler.hosts.get(name)
        return None if host is None else host.health.verdict(source)

    def propose_slots(self, name: str, slots: int) -> bool:
        """A host says how many jobs it runs at once: whether that was news. Nothing happens when it is not in the file."""
        try:
            host = self.scheduler.host(name)
        except KeyError:
            return False
        before = host.spec
        grants = self.scheduler.propose_slots(name, slots, self._seconds())
        news = host.spec is not before
        self._deliver(grants)
        return news

    def set_admin(self, name: str, state: AdminState, why: str = "") -> None:
        """A person's decision about a host, and why; KeyError when no such host is in the file."""
        grants = self.scheduler.set_admin(name, state, self._seconds(), why)
        if self.said is not None:
            self.said(name)
        self._deliver(grants)

    def kick(self, tickets: Iterable[Ticket], reason: str) -> int:
        """End what these clients have, or wait for, and tell them; those that are over already are passed over.

        :param reason: a sentence for whoever held it.
        :returns: how many it was.
        """
        kicked = 0
        freed: list[Lease] = []
        for ticket in tickets:
            lease, holder = ticket.lease, ticket.holder
            if holder is None:
                continue
            # first out of the scheduler: what the holder does when it is told must find it over
            if lease is not None:
                freed += self.scheduler.release(lease, Outcome.KICKED, self._seconds())
                tell = partial(cast("Taker", holder).lost, lease)
            else:
                self.scheduler.withdraw(ticket)
                tell = partial(cast("Taker", holder).refused, ticket)
            kicked += 1
            try:
                tell(reason)
            except Exception:  # noqa: BLE001 (whatever it is, the others' turn comes too)
                bugs.met("lease", self.log, "the holder of {ticket!r} could not be told", ticket=ticket)
        self._deliver(freed)
        self._set_timer()
        return kicked

    def configure(self, farm: Farm) -> None:
        """Another farm, from a reloaded file."""
        self._deliver(self.scheduler.configure(farm, self._seconds()))
        self._set_timer()

    # -- what an earlier process had

    def take_up(self, carried: Carried, *, anew: Collection[str] = ()) -> TakenUp:
        """Go on with it: see :mod:`distbal.takeup`, which has the parameters.

        Nothing is delivered: :meth:`deliver` the grants as soon as their holders can be told, and in this turn of the loop.
        """
        taken = take_up(self.scheduler, carried, self._seconds(), anew=anew)
        self._set_timer()
        return taken

    def deliver(self, grants: Iterable[Lease]) -> None:
        """Tell the holders of what :meth:`take_up` granted."""
        self._deliver(grants)

    def snapshot(self, *, leases: bool = True) -> Snapshot:
        return self.scheduler.snapshot(self._seconds(), leases=leases)

    def stop(self) -> None:
        """The end: nothing is delivered after this, since the holders' connections are closed or about to be."""
        self._stopped = True
        self._cancel_timer()

    # -- the inside

    def _release_and_learn(self, lease: Lease, outcome: Outcome, traffic: Traffic) -> list[Lease]:
        """Release, and say in the log what is new about the host."""
        host = lease.host
        verdict, suspect = host.health.verdict(evidence.SOURCE), host.suspect
        grants = self.scheduler.release(lease, outcome, self._seconds(), traffic)
        if host.suspect is not suspect:
            if host.suspect:
                self.log.warn(
                    "{host} closed jobs of {clients} clients without an answer: it is used last, until a job succeeds there"
                    " (does it list the compiler, and are the clients allowed? its log may say)",
                    host=host.spec.name,
                    clients=evidence.SUSPECT_AFTER,
                )
            else:
                self.log.info("{host} answers again", host=host.spec.name)
        now = host.health.verdict(evidence.SOURCE)
        if now is not verdict:
            if now is None:
                self.log.info("{host} can be reached again", host=host.spec.name)
            else:
                self.log.warn(
                    "{host} {reason}; no jobs go there for {pause:g} s, then one on trial",
                    host=host.spec.name,
                    reason=now.reason,
                    pause=(now.expires or now.at) - now.at,
                )
            self._set_timer()
        return grants

    def _deliver(self, grants: Iterable[Lease]) -> None:
        """Tell the holders.

        A holder that turns out to be gone gives its lease back while it is told, which may lead to more grants: they join the
        line here, so that a thousand dead waiters are not a thousand calls deep.
        """
        line = self._undelivered
        line.extend(grants)
        if self._delivering or self._stopped:
            return
        self._delivering = True
        try:
            while line:
                lease = line.popleft()
                if lease.ticket.lease is not lease:
                    continue  # one that was told before took its holder along, which gave it back already
                try:
                    cast("Taker", lease.ticket.holder).granted(lease)
                except Exception:  # noqa: BLE001 (whatever it is, the others must be told)
                    # its connection is still watched, and gives the lease back when it ends; the others must not wait for it
                    bugs.met("lease", self.log, "the holder of {lease!r} could not be told", lease=lease)
        finally:
            self._delivering = False

    def _wake(self) -> None:
        self._timer = self._timer_due = None
        try:
            decisions = self.scheduler.wake(self._seconds())
        except Exception:  # noqa: BLE001 (whatever it is, others have their turn later)
            bugs.met("periodic", self.log, "what has expired could not be looked at; it is tried again")
            if not self._stopped:
                self._timer = self._clock.callLater(_AGAIN, self._wake)
                self._timer_due = self.scheduler.due
            return
        for ticket in decisions.refusals:
            try:
                cast("Taker", ticket.holder).refused(ticket, "no host was free for as long as queue.wait allows")
            except Exception:  # noqa: BLE001 (the same)
                bugs.met("lease", self.log, "the holder of {ticket!r} could not be told", ticket=ticket)
        self._deliver(decisions.grants)
        self._set_timer()

    def _set_timer(self) -> None:
        due = self.scheduler.due
        if due == self._timer_due or self._stopped:
            return
        self._cancel_timer()
        if due is not None:
            self._timer = self._clock.callLater(max(0.0, due - self._seconds()) + _TIMER_SLACK, self._wake)
            self._timer_due = due

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._timer_due = None
