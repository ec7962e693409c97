"""The scheduler: who gets which slot, and who waits. Pure: time comes in as an argument, decisions go out as values.

The rules, all of which stand in this file or in the one it names:

1. A host is given a job only while it is available (hosts.py). Of the available ones the policy chooses (policies.py).
2. Whoever cannot be served waits; the discipline says who is next (queues.py). A job whose turn had come, but whose host turned
   out to be unreachable, is served before all of them; and before that one who needs this very host, which is a monitor.
3. No waiter waits while a host is available to it. So a free slot concerns only those who wait, and a request only the hosts.
4. What was lent comes back once: with :meth:`Scheduler.release`. Hosts that go down, are drained or leave the file keep their
   running leases.
5. What a job tells of its host when it ends, by whoever saw it, is heard (evidence.py).
6. Each lease keeps how all hosts stood when it was granted, and each that had to wait, when it asked (standing.py).

A call that may free a slot returns the leases that follow from it; its caller tells their holders. Some things happen by
themselves when their time comes (a verdict expires, a waiter has waited too long): ``due`` says when :meth:`Scheduler.wake`
wants to be called. Times are seconds on one clock of the caller's that never goes back.

Nothing here costs more than O(log n) in hosts, leases or waiters, but :meth:`Scheduler.configure` and
:meth:`Scheduler.snapshot`, which look at everything.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from distbal import evidence
from distbal.health import Verdict
from distbal.history import History
from distbal.hosts import AdminState, Farm, Host
from distbal.outcomes import Outcome, Traffic
from distbal.past import Past
from distbal.policies import POLICIES, HostIndex
from distbal.queues import DISCIPLINES, Discipline, FifoQueue, OneHostQueue, WaitQueue
from distbal.ranking import Ranking
from distbal.requests import Lease, Request, Ticket
from distbal.snapshot import Snapshot, client_state, host_state
from distbal.standing import Board, Moment
from distbal.waits import Histogram, Waits


@dataclass(slots=True)
class Decisions:
    """What the passing of time led to.

    :ivar grants: leases to deliver, in their order.
    :ivar refusals: waiters that waited too long; they are forgotten already.
    """

    grants: list[Lease] = field(default_factory=list)
    refusals: list[Ticket] = field(default_factory=list)


class Scheduler:
    """Hosts, leases and waiters of one farm.

    :param farm: hosts, policy and discipline to begin with.
    :param first_id: the first ticket's number: greater than any that an earlier process gave out.
    :param draw: randomness, for the policies that use it.
    :param history: where ended jobs are noted.

    :ivar due: when :meth:`wake` wants to be called, in seconds on the caller's clock; None for never.
    :ivar waiting: how many wait; ``lent``: how many leases run.
    """

    def __init__(
        self,
        farm: Farm,
        *,
        first_id: int = 1,
        draw: random.Random | None = None,
        history: History | None = None,
    ) -> None:
        self.history = History() if history is None else history
        self.due: float | None = None
        self._draw = random.Random() if draw is None else draw
        self._ids = itertools.count(first_id)
        self._hosts: dict[str, Host] = {}
        self._indexes: dict[str, HostIndex] = {}
        self._leases: dict[int, Lease] = {}
        self._waiters: OrderedDict[int, Ticket] = OrderedDict()
        self._expiries: Ranking[Host] = Ranking()
        #: waiters by when they asked, where they may not wait for ever
        self._patience: Ranking[Ticket] = Ranking()
        self._counts = dict.fromkeys(("asked", "granted", "ended", "withdrawn", "refused"), 0)
        self._waits = Waits()
        self._farm = farm
        self._queue: Discipline = DISCIPLINES[farm.order]()
        #: jobs whose turn had come already
        self._again = FifoQueue()
        #: those for whom one host alone will do
        self._only = OneHostQueue()
        self._rebuild(farm, -math.inf)

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    @property
    def lent(self) -> int:
        return len(self._leases)

    @property
    def counts(self) -> dict[str, int]:
        """Totals since the start, by the names that a snapshot has."""
        return dict(self._counts)

    @property
    def waited(self) -> Waits:
        """What :attr:`waits` is made of: those who had to wait. To be looked at, not changed."""
        return self._waits

    @property
    def waits(self) -> Histogram:
        """How long those who were granted a slot had waited. A job whose turn comes again has waited since it first asked."""
        return self._waits.histogram(self._counts["granted"])

    @property
    def asked_first(self) -> float | None:
        """When the one that waits longest asked; None when nobody waits. Looks at all of them."""
        return min((ticket.asked for ticket in self._waiters.values()), default=None)

    @property
    def hosts(self) -> Mapping[str, Host]:
        """Every host by its name, those that are gone from the file and drain included. To be looked at, not changed."""
        return self._hosts

    @property
    def tickets(self) -> list[Ticket]:
        """Of all who wait, in the order in which they came, and then of all who have a lease."""
        return [*self._waiters.values(), *(lease.ticket for lease in self._leases.values())]

    def turn(self, key: str) -> int | None:
        """When a waiting client's turn comes, by its fairness key; None where it has none.

        It changes when the client begins to wait, and when it is served.
        """
        return self._queue.turn(key)

    def turns(self) -> dict[str, int]:
        """Of all clients that have one."""
        return self._queue.turns()

    @property
    def moment(self) -> Moment:
        """How the hosts stand now, as leases keep it."""
        return self._board.moment()

    @property
    def farm(self) -> Farm:
        """What it was last configured with."""
        return self._farm

    # -- what edges call for each job

    def ask(self, request: Request, holder: object, now: float) -> Ticket:
        """A client wants a slot.

        :param holder: handed back with the lease.
        :returns: the ticket; its ``lease`` is there at once when a host is available, else it waits.
        :raises KeyError: the one host that will do is not in the file.
        """
        wanted = self._in_file(request.only) if request.only else None
        ticket = Ticket(next(self._ids), request, holder, now if request.since is None else request.since)
        self._counts["asked"] += 1
        if wanted is not None:
            host = wanted if wanted.available else None
        else:
            index = self._indexes.get(request.pool)
            host = None if index is None else index.pick(request.exclude)
        if host is not None:
            self._grant(ticket, host, now)
            self._reindex(host)
        else:
            ticket.found = self._board.moment()
            self._waiters[ticket.id] = ticket
            self._line(ticket).add(ticket)
            if self._farm.wait is not None:
                self._patience.put(ticket, ticket.asked)
                self._be_woken(ticket.asked + self._farm.wait)
        return ticket

    def withdraw(self, ticket: Ticket) -> None:
        """A waiter leaves; KeyError when it does not wait (any more)."""
        del self._waiters[ticket.id]
        self._line(ticket).remove(ticket)
        self._patience.discard(ticket)
        ticket.holder = None
        self._counts["withdrawn"] += 1

    def release(self, lease: Lease, outcome: Outcome, now: float, traffic: Traffic | None = None) -> list[Lease]:
        """A lease ends; KeyError when it had ended before.

        :param traffic: what came of the connection to its host, where the edge made that.
        :returns: the leases that its slot now goes to: one at most, and none where the host had been over its capacity, unless
            the job told something of the host.
        """
        del self._leases[lease.id]
        host = lease.host
        host.leases -= 1
        host.held += now - lease.granted
        self._counts["ended"] += 1
        # what the history keeps is let go of by everybody else, and is no circle
        lease.ticket.holder = lease.ticket.lease = None
        self.history.ended(lease, outcome, now)
        learnt = traffic is not None and self._learn(lease, outcome, traffic, now)
        if host.removed and not host.leases:
            self._forget(host)
            return []
        if learnt:
            return self._changed([host], now)
        if self._waiters and host.leases < host.capacity:
            ticket = self._take(host, now)
            if ticket is not None:
                # as many leases as before: the indexes need not hear of it
                lease = self._grant(ticket, host, now)
                if traffic is not None and not host.available:
                    # what the job told may have been noted with one lease fewer
                    self._board.turned(host)
                return [lease]
        self._reindex(host)
        return []

    def connected(self, lease: Lease, now: float) -> list[Lease]:
        """A lease's host could be connected to; needs only be told where connects had failed.

        :returns: leases to deliver.
        """
        host = lease.host
        return self._changed([host], now) if self._reached(host) else []

    # -- what is heard of hosts

    def verdict(self, name: str, source: str) -> Verdict | None:
        """What a source last said of a host; None when it has said nothing; KeyError when no such host is in the file."""
        return self._in_file(name).health.verdict(source)

    def report(self, name: str, verdict: Verdict) -> list[Lease]:
        """A source says something of a host; KeyError when no such host is in the file.

        :param verdict: its ``at`` is now.
        :returns: leases to deliver.
        """
        host = self._in_file(name)
        changed = host.health.hear(verdict)
        self._verdicts_changed(host)
        return self._changed([host], verdict.at) if changed else []

    def forget(self, name: str, source: str, now: float) -> list[Lease]:
        """A source has no opinion of a host any more; KeyError when no such host is in the file. Returns leases to deliver."""
        host = self._in_file(name)
        changed = host.health.forget(source)
        self._verdicts_changed(host)
        return self._changed([host], now) if changed else []

    def propose_slots(self, name: str, slots: int, now: float) -> list[Lease]:
        """A host says how many jobs it runs at once: taken where the file leaves that to it (``slots: auto``).

        :param slots: at least 1.
        :returns: leases to deliver.
        :raises KeyError: no such host is in the file.
        """
        host = self._in_file(name)
        if not host.spec.auto or slots == host.spec.slots:
            return []
        host.spec = replace(host.spec, slots=slots)
        return self._changed([host], now)

    def host(self, name: str) -> Host:
        """One host, to be looked at; KeyError when no such host is in the file."""
        return self._in_file(name)

    def set_admin(self, name: str, state: AdminState, now: float, why: str = "") -> list[Lease]:
        """A person decides about a host, and says why; KeyError when no such host is in the file. Returns leases to deliver."""
        host = self._in_file(name)
        host.admin, host.decided = state, why
        return self._changed([host], now)

    def wake(self, now: float) -> Decisions:
        """Do what time has brought: call when ``due`` is reached; too early does no harm."""
        decisions = Decisions()
        expired: list[Host] = []
        while (host := self._expiries.first()) is not None and self._expiries.key(host) <= now:
            if host.health.expire(now):
                expired.append(host)
            self._verdicts_changed(host)
        decisions.grants += self._changed(expired, now)
        wait = self._farm.wait
        while wait is not None and (ticket := self._patience.first()) is not None and ticket.asked + wait <= now:
            del self._waiters[ticket.id]
            self._line(ticket).remove(ticket)
            self._patience.discard(ticket)
            self._counts["refused"] += 1
            decisions.refusals.append(ticket)
        self._set_due()
        return decisions

    def configure(self, farm: Farm, now: float) -> list[Lease]:
        """Take another farm in: new hosts join, changed slots and ranks apply, hosts that are gone drain.

        Verdicts and what a person decided stay with their hosts, as long as these are in the file or have leases; but what jobs
        told of a host is forgotten when it has another address. Waiters keep their age.

        :returns: leases to deliver.
        :raises KeyError: no such policy or order; nothing has changed.
        """
        POLICIES[farm.policy], DISCIPLINES[farm.order]
        if farm.order != self._farm.order:
            self._queue = DISCIPLINES[farm.order]()
            for ticket in self._waiters.values():
                if ticket.request.since is None and not ticket.request.only:
                    self._queue.add(ticket)
        self._patience = Ranking()
        if farm.wait is not None:
            for ticket in self._waiters.values():
                self._patience.put(ticket, ticket.asked)
        self._farm = farm
        self._rebuild(farm, now)
        self._set_due()
        return self._serve(self._hosts.values(), now)

    def resume(self, past: Past, now: float) -> list[Lease]:
        """Go on where an earlier process stopped: for :mod:`distbal.takeup`, which says how, and before anybody has asked.

        What changed with the new process's file is what a reload would change.

        :returns: leases to deliver.
        """
        for host in past.removed:
            self._hosts[host.spec.name] = host
        for lease in past.leases:
            self._leases[lease.id] = lease
            lease.host.leases += 1
        self._queue.take_up(past.turns)
        for ticket in past.waiters:
            self._waiters[ticket.id] = ticket
            self._line(ticket).add(ticket)
        for host in self._hosts.values():
            self._verdicts_changed(host)
        self._counts.update(past.counts)
        self._waits = past.waits
        self._ids = itertools.count(max(next(self._ids), past.last_id + 1))
        return self.configure(self._farm, now)

    # -- for readers

    def snapshot(self, now: float, *, leases: bool = True) -> Snapshot:
        """Everything at one moment; of the leases, of which there may be thousands, none where they are not wanted."""
        hosts = sorted(self._hosts.values(), key=lambda host: (host.removed, host.position))
        return Snapshot(
            at=now,
            hosts=tuple(map(host_state, hosts)),
            # in this order already, but for jobs that wait again
            waiters=tuple(map(client_state, sorted(self._waiters.values(), key=_asked))),
            leases=tuple(client_state(lease.ticket) for lease in self._leases.values()) if leases else (),
            counts=self.counts,
        )

    # -- the inside

    def _in_file(self, name: str) -> Host:
        host = self._hosts[name]
        if host.removed:
            raise KeyError(name)
        return host

    def _line(self, ticket: Ticket) -> WaitQueue:
        """Where a waiter waits."""
        request = ticket.request
        if request.only:
            return self._only
        return self._queue if request.since is None else self._again

    def _take(self, host: Host, now: float) -> Ticket | None:
        """The next waiter that this host can serve, taken out, as it is to be granted now; None when there is none."""
        ticket = self._only.take(host) if self._only else None
        ticket = ticket or (self._again.take(host) if self._again else None) or self._queue.take(host)
        if ticket is not None:
            del self._waiters[ticket.id]
            self._patience.discard(ticket)
            self._waits.note(now - ticket.asked)
        return ticket

    def _learn(self, lease: Lease, outcome: Outcome, traffic: Traffic, now: float) -> bool:
        """Hear what a job tells of its host; whether that changed by what hosts are chosen."""
        host = lease.host
        verdict = host.evidence.ended(outcome, traffic, lease.ticket.request.key, lease.granted, now)
        suspect, host.suspect = host.suspect, host.evidence.suspect
        changed = False
        if verdict is not None and not host.removed:
            changed = host.health.hear(verdict)
            self._verdicts_changed(host)
        elif outcome is Outcome.ANSWERED and host.evidence.proves(lease.granted):
            changed = self._reached(host)
        return changed or suspect is not host.suspect

    def _reached(self, host: Host) -> bool:
        """A host could be connected to; whether that changed anything."""
        if not host.evidence.reached():
            return False
        changed = host.health.forget(evidence.SOURCE)
        self._verdicts_changed(host)
        return changed

    def _grant(self, ticket: Ticket, host: Host, now: float) -> Lease:
        lease = ticket.lease = Lease(ticket, host, now, self._board.moment())
        self._leases[ticket.id] = lease
        self._counts["granted"] += 1
        host.leases += 1
        host.granted += 1
        return lease

    def _reindex(self, host: Host) -> None:
        """The number of a host's leases changed."""
        available = host.leases < host.capacity
        if not (available and host.available):
            # what is noted of a host that is free is that it is
            host.available = available
            self._board.turned(host)
        for pool in host.spec.pools:
            self._indexes[pool].changed(host)

    def _changed(self, hosts: list[Host], now: float) -> list[Lease]:
        """What decides about these hosts changed; give what became free to those who wait."""
        for host in hosts:
            host.weigh()
            self._board.note(host)
            self._reindex(host)
        return self._serve(hosts, now)

    def _serve(self, hosts: Iterable[Host], now: float) -> list[Lease]:
        """Give the free slots of some hosts to waiters, in the policy's order of hosts."""
        grants: list[Lease] = []
        if not self._waiters:
            return grants
        free = POLICIES[self._farm.policy](self._draw)
        for host in hosts:
            free.changed(host)
        while self._waiters and (best := free.pick(())) is not None:
            ticket = self._take(best, now)
            if ticket is None:
                free.drop(best)
                continue
            grants.append(self._grant(ticket, best, now))
            self._reindex(best)
            free.changed(best)
        return grants

    def _rebuild(self, farm: Farm, now: float) -> None:
        """Make hosts and indexes what a farm says, and keep what lives."""
        for host in self._hosts.values():
            host.removed = True
        for position, spec in enumerate(farm.hosts):
            known = self._hosts.get(spec.name)
            if known is None:
                self._hosts[spec.name] = Host(spec, position)
            else:
                if known.spec.address != spec.address:
                    known.evidence.moved(now)
                    known.suspect = False
                    known.health.forget(evidence.SOURCE)
                    self._verdicts_changed(known)
                if spec.auto and known.spec.auto:
                    # what it said of itself holds
                    spec = replace(spec, slots=known.spec.slots)  # noqa: PLW2901
                known.spec, known.position, known.removed = spec, position, False
        for host in [host for host in self._hosts.values() if host.removed and not host.leases]:
            self._forget(host)
        self._indexes = {}
        ranks = Counter(spec.rank for spec in farm.hosts)
        for host in self._hosts.values():
            host.alone = ranks[host.spec.rank] == 1
            host.weigh()
            for pool in host.spec.pools:
                if pool not in self._indexes:
                    self._indexes[pool] = POLICIES[farm.policy](self._draw)
                self._indexes[pool].changed(host)
        named = [host for host in self._hosts.values() if not host.removed]
        self._board = Board(farm.policy, sorted(named, key=lambda host: host.position))

    def _forget(self, host: Host) -> None:
        del self._hosts[host.spec.name]
        self._expiries.discard(host)

    def _verdicts_changed(self, host: Host) -> None:
        """What is said of a host changed, if only the reason."""
        self._board.said(host)
        expiry = host.health.next_expiry()
        if expiry is None:
            self._expiries.discard(host)
        else:
            self._expiries.put(host, expiry)
            self._be_woken(expiry)

    def _be_woken(self, when: float) -> None:
        if self.due is None or when < self.due:
            self.due = when

    def _set_due(self) -> None:
        self.due = None
        host = self._expiries.first()
        if host is not None:
            self._be_woken(self._expiries.key(host))
        ticket = self._patience.first()
        if ticket is not None and self._farm.wait is not None:
            self._be_woken(ticket.asked + self._farm.wait)


def _asked(ticket: Ticket) -> float:
    return ticket.asked
