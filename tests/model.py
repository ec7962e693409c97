"""The scheduler's rules once more, as plainly as they can be said: no index, no heap, every host looked at each time.

The state machine (test_scheduler_machine.py) tells a :class:`Model` what it did and what the scheduler decided; the model says
whether that was right, with an AssertionError that names the rule. It shares the vocabulary with the scheduler (requests,
verdicts, the file's words) and none of its code: capacity, availability, policies and disciplines are worked out here anew.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from distbal.health import Verdict
from distbal.history import Attempt, Job
from distbal.hosts import AdminState, Farm
from distbal.outcomes import CONNECT_FAILURES, FAILURES, Outcome, Traffic
from distbal.requests import Lease, Request, Ticket
from distbal.snapshot import ClientState, Snapshot
from distbal.standing import Moment
from tests.model_host import ModelHost

#: how the hosts stood is not compared with what is here: the state machine looks at that itself
NOTHING = Moment("", ())


@dataclass(frozen=True)
class Waiting:
    """One who waits; ``turn``: how many were served from the queue before it came."""

    request: Request
    asked: float
    turn: int

    @property
    def again(self) -> bool:
        """Its turn had come once, and its host could not be reached."""
        return self.request.since is not None

    @property
    def in_turn(self) -> bool:
        """The discipline decides when it is served. Before these come who needs one host, then who waits again."""
        return not self.again and not self.request.only


@dataclass(frozen=True)
class Loan:
    """One slot that is lent."""

    request: Request
    host: str
    asked: float
    granted: float


class Model:
    """One farm, its waiters and its leases.

    :param first_id: the least number of a ticket.
    :param remember: how many ended attempts the history keeps.
    """

    def __init__(self, farm: Farm, first_id: int, remember: int) -> None:
        self.farm = farm
        self.hosts: dict[str, ModelHost] = {}
        self.waiters: dict[int, Waiting] = {}
        self.loans: dict[int, Loan] = {}
        self.ended: deque[tuple[int, Loan, Outcome, float]] = deque(maxlen=remember)
        self.counts = Counter[str]()
        self.last_id = first_id - 1
        #: clients that wait, next turn first
        self.rotation: list[str] = []
        #: whom the queue served since the discipline was last changed
        self.served: list[str] = []
        self._take_in(farm, 0.0)

    # -- what happens, and whether what was decided is right

    def asked(self, ticket: Ticket, request: Request, now: float) -> None:
        """A client asked and was given this ticket, perhaps with a lease."""
        assert ticket.id > self.last_id, f"ticket {ticket.id} came after {self.last_id}"
        asked = now if request.since is None else request.since
        assert (ticket.request, ticket.asked) == (request, asked), f"{ticket} is not what was asked"
        self.last_id = ticket.id
        self.counts["asked"] += 1
        if ticket.lease is not None:
            self._granted(ticket.lease, request, asked, now)
        else:
            free = [host.spec.name for host in self.available_to(request)]
            assert not free, f"{ticket} waits while {free} are available to it"
            waiting = self.waiters[ticket.id] = Waiting(request, asked, len(self.served))
            if waiting.in_turn and request.key not in self.rotation:
                self.rotation.append(request.key)

    def withdrawn(self, ticket_id: int) -> None:
        """A waiter left."""
        self.counts["withdrawn"] += 1
        self._leaves(ticket_id)

    def released(self, lease_id: int, outcome: Outcome, traffic: Traffic | None, grants: list[Lease], now: float) -> None:
        """A lease ended, with this of its connection if the edge made it, and these follow from it."""
        loan = self.loans.pop(lease_id)
        self.counts["ended"] += 1
        self.ended.append((lease_id, loan, outcome, now))
        host = self.hosts[loan.host]
        host.held += now - loan.granted
        most = 1
        if traffic is not None:
            host.traffic.append(traffic)
            if outcome in FAILURES:
                host.failures.append(outcome)
            if outcome is Outcome.NO_ANSWER:
                host.unanswered.append(loan.request.key)
            elif outcome is Outcome.ANSWERED:
                host.unanswered = []
                # a job that began before its host failed shows nothing
                if (host.failed_at is None or loan.granted > host.failed_at) and host.lifted():
                    most = host.slots
            elif outcome in CONNECT_FAILURES:
                host.not_reached(loan.granted, traffic.reason, now)
        if host.removed and not self.load(host):
            del self.hosts[loan.host]
        assert all(lease.host_name == loan.host for lease in grants), f"one slot of {loan.host} came back, and {grants} follow"
        assert len(grants) <= most, f"one slot came back, and {grants} follow"
        self._served(grants, now)

    def connected(self, lease_id: int, grants: list[Lease], now: float) -> None:
        """A lease's host could be connected to."""
        host = self.hosts[self.loans[lease_id].host]
        host.lifted()
        assert all(lease.host_name == host.spec.name for lease in grants), f"{host.spec.name} was reached, and {grants} follow"
        self._served(grants, now)

    def reported(self, name: str, verdict: Verdict, grants: list[Lease], now: float) -> None:
        """A source said something."""
        self.hosts[name].verdicts[verdict.source] = verdict
        self._served(grants, now)

    def forgotten(self, name: str, source: str, grants: list[Lease], now: float) -> None:
        """A source has no opinion any more."""
        self.hosts[name].verdicts.pop(source, None)
        self._served(grants, now)

    def proposed(self, name: str, slots: int, grants: list[Lease], now: float) -> None:
        """A host said how many jobs it runs at once."""
        self.hosts[name].said_slots = slots if self.hosts[name].spec.auto else None
        self._served(grants, now)

    def decided(self, name: str, state: AdminState, grants: list[Lease], now: float) -> None:
        """A person decided something."""
        self.hosts[name].admin = state
        self._served(grants, now)

    def configured(self, farm: Farm, grants: list[Lease], now: float) -> None:
        """The file was read again."""
        if farm.order != self.farm.order:
            self.rotation = list(dict.fromkeys(waiting.request.key for waiting in self.waiters.values() if waiting.in_turn))
            self.served = []
            self.waiters = {number: Waiting(old.request, old.asked, 0) for number, old in self.waiters.items()}
        self._take_in(farm, now)
        self._served(grants, now)

    def replaced(self, farm: Farm, grants: list[Lease], now: float) -> None:
        """Another process went on with all of it, having read the file: what should have expired has."""
        for host in self.hosts.values():
            host.expire(now)
        self.loans = dict(sorted(self.loans.items(), key=lambda pair: (pair[1].granted, pair[0])))
        self.configured(farm, grants, now)

    def woken(self, grants: list[Lease], refusals: list[Ticket], now: float) -> None:
        """Time passed: verdicts expired first, then waiters who had waited too long were refused."""
        for host in self.hosts.values():
            host.expire(now)
        self._served(grants, now)
        wait = self.farm.wait
        late = [number for number in self.longest_wait_first() if wait is not None and self.waiters[number].asked + wait <= now]
        assert [ticket.id for ticket in refusals] == late, f"{refusals} were refused, {late} have waited too long"
        for number in late:
            self.counts["refused"] += 1
            self._leaves(number)

    # -- what follows from the rules

    def load(self, host: ModelHost) -> int:
        return sum(loan.host == host.spec.name for loan in self.loans.values())

    def serves(self, host: ModelHost, request: Request) -> bool:
        """Whether the request may go to this host at all, now or later."""
        if request.only:
            return host.spec.name == request.only
        return request.pool in host.spec.pools and host.spec.name not in request.exclude

    def available(self, host: ModelHost) -> bool:
        return self.load(host) < host.capacity

    def available_to(self, request: Request) -> list[ModelHost]:
        return [host for host in self.hosts.values() if self.serves(host, request) and self.available(host)]

    def preference(self, host: ModelHost) -> tuple[float, ...]:
        """What the policy orders hosts by: the least is the best; the same for all where chance decides. Suspects are last."""
        load = self.load(host) / host.capacity
        if self.farm.policy == "fastest-first":
            return (host.suspect, host.spec.rank, load, host.position)
        if self.farm.policy == "least-loaded":
            return (host.suspect, load, host.spec.rank, host.position)
        return (host.suspect,)

    def next_for(self, host: ModelHost) -> int | None:
        """Whose turn it is when this host has a free slot."""
        fitting = [number for number, waiting in self.waiters.items() if self.serves(host, waiting.request)]
        only = [number for number in fitting if self.waiters[number].request.only]
        again = [number for number in fitting if self.waiters[number].again]
        if only or again or self.farm.order == "fifo":
            return min(only or again or fitting, default=None)
        turns = [(self.rotation.index(self.waiters[number].request.key), number) for number in fitting]
        return min(turns)[1] if turns else None

    def longest_wait_first(self) -> list[int]:
        """Who waits, by when their jobs first asked."""
        return sorted(self.waiters, key=lambda number: (self.waiters[number].asked, number))

    def due(self) -> float | None:
        """When something happens by itself."""
        times = [said.expires for host in self.hosts.values() for said in host.verdicts.values() if said.expires is not None]
        if self.farm.wait is not None:
            times += [waiting.asked + self.farm.wait for waiting in self.waiters.values()]
        return min(times, default=None)

    def jobs(self) -> tuple[Job, ...]:
        """What the history should say."""
        by_job: dict[int, list[Attempt]] = {}
        requests: dict[int, Request] = {}
        for number, loan, outcome, ended in self.ended:
            job = loan.request.job or number
            requests.setdefault(job, loan.request)
            attempt = Attempt(number, loan.host, loan.asked, loan.granted, ended, outcome, loan.request, NOTHING, None)
            by_job.setdefault(job, []).append(attempt)
        return tuple(
            Job(job, requests[job].address, requests[job].port, requests[job].pool, tuple(attempts))
            for job, attempts in by_job.items()
        )

    # -- what holds at any time

    def check(self, snapshot: Snapshot, now: float) -> None:
        """Nobody waits for nothing, the counts add up, and readers are shown what is so."""
        available = [host for host in self.hosts.values() if self.available(host)]
        for number, waiting in self.waiters.items():
            free = [host.spec.name for host in available if self.serves(host, waiting.request)]
            assert not free, f"{number} waits while {free} are available to it"
        counts = snapshot.counts
        accounted = counts["granted"] + counts["withdrawn"] + counts["refused"] + len(snapshot.waiters)
        assert counts["asked"] == accounted, f"of {counts['asked']} requests {accounted} are accounted for"
        accounted = counts["ended"] + len(snapshot.leases)
        assert counts["granted"] == accounted, f"of {counts['granted']} leases {accounted} are accounted for"
        lent = sum(host.leases for host in snapshot.hosts)
        assert lent == len(snapshot.leases), f"hosts have lent {lent} slots, clients have {len(snapshot.leases)}"
        expected = {name: self.counts[name] for name in ("asked", "granted", "ended", "withdrawn", "refused")}
        assert counts == expected, f"counts are {counts}, not {expected}"
        assert snapshot.at == now, f"a snapshot of {snapshot.at}"
        in_file = [host.spec for host in snapshot.hosts if not host.removed]
        specs = {name: replace(host.spec, slots=host.slots) for name, host in self.hosts.items()}
        assert in_file == [specs[spec.name] for spec in self.farm.hosts], f"{in_file} are shown as the file's hosts"
        assert all(host.removed for host in snapshot.hosts[len(in_file) :]), "a removed host is shown before one of the file"
        shown = {
            host.spec.name: (host.spec, host.leases, host.capacity, host.up, host.available, host.admin, host.removed)
            for host in snapshot.hosts
        }
        known = {
            name: (
                replace(host.spec, slots=host.slots),
                load,
                host.capacity,
                host.up,
                load < host.capacity,
                host.admin.value,
                host.removed,
            )
            for name, host in self.hosts.items()
            for load in [self.load(host)]
        }
        assert shown == known, f"hosts are shown as {shown}, not as {known}"
        for state in snapshot.hosts:
            host = self.hosts[state.spec.name]
            assert (state.granted, state.held) == (host.granted, host.held), f"totals of {state.spec.name}"
            assert state.verdicts == tuple(host.verdicts.values()), f"verdicts on {state.spec.name}"
            assert state.suspect is host.suspect, f"{state.spec.name} had no answer for {host.unanswered}"
            connects = [each.connect for each in host.traffic if each.connect is not None]
            assert (state.sent, state.received, state.connected, state.connecting) == (
                sum(each.sent for each in host.traffic),
                sum(each.received for each in host.traffic),
                len(connects),
                sum(connects),
            ), f"traffic of {state.spec.name}"
            failures = Counter(outcome.value for outcome in host.failures)
            assert state.failures == failures, f"failures of {state.spec.name}"
        waiters = [
            _client(number, waiting.request, waiting.asked)
            for number in self.longest_wait_first()
            for waiting in [self.waiters[number]]
        ]
        assert list(snapshot.waiters) == waiters, f"{snapshot.waiters} are shown to wait, not {waiters}"
        served = [_client(number, loan.request, loan.granted, loan.host) for number, loan in self.loans.items()]
        assert list(snapshot.leases) == served, f"{snapshot.leases} are shown as leases, not {served}"

    # -- the inside

    def _take_in(self, farm: Farm, now: float) -> None:
        self.farm = farm
        for host in self.hosts.values():
            host.removed = True
        for position, spec in enumerate(farm.hosts):
            host = self.hosts.setdefault(spec.name, ModelHost(spec, position))
            host.take_in(spec, position, now)
        self.hosts = {name: host for name, host in self.hosts.items() if not host.removed or self.load(host)}

    def _served(self, grants: Iterable[Lease], now: float) -> None:
        """These waiters were given slots, in this order."""
        for lease in grants:
            assert lease.id in self.waiters, f"{lease} was granted to one who does not wait"
            waiting = self.waiters[lease.id]
            host = self.hosts[lease.host_name]
            if self.farm.order == "fair" and waiting.in_turn:
                self._check_round(waiting.request.key, host)
            due = self.next_for(host)
            assert lease.id == due, f"{self.farm.order}: {lease} was granted while it was {due}'s turn"
            key = waiting.request.key
            self._leaves(lease.id)
            if waiting.in_turn:
                self.served.append(key)
                if key in self.rotation:
                    self.rotation.remove(key)
                    self.rotation.append(key)
            self._granted(lease, waiting.request, waiting.asked, now)

    def _check_round(self, key: str, host: ModelHost) -> None:
        """What a round robin promises: between two turns of one client, everyone else who could have been served had one.

        That is everyone who waited all that time, for the first turn, for something that the second turn's host could do.
        """
        if key not in self.served:
            return
        last = len(self.served) - 1 - self.served[::-1].index(key)
        for number, waiting in self.waiters.items():
            waited = waiting.turn <= last and waiting.in_turn
            if waited and waiting.request.key != key and self.serves(host, waiting.request):
                assert waiting.request.key in self.served[last + 1 :], f"{key} had two turns while {number} waited"

    def _granted(self, lease: Lease, request: Request, asked: float, now: float) -> None:
        """A slot was lent: might it be?"""
        assert lease.granted == now, f"{lease} was granted at {lease.granted}"
        assert lease.job == (request.job or lease.id), f"{lease} is of job {lease.job}"
        host = self.hosts[lease.host_name]
        assert self.serves(host, request), f"{lease} is on a host that its request does not want"
        assert self.load(host) < host.capacity, f"{lease} exceeds the capacity of {host.capacity}"
        best = min(self.available_to(request), key=self.preference)
        assert self.preference(host) == self.preference(best), f"{self.farm.policy}: {lease}, not on {best.spec.name}"
        self.loans[lease.id] = Loan(request, lease.host_name, asked, now)
        self.counts["granted"] += 1
        host.granted += 1

    def _leaves(self, number: int) -> None:
        waiting = self.waiters.pop(number)
        key = waiting.request.key
        if waiting.in_turn and not any(other.in_turn and other.request.key == key for other in self.waiters.values()):
            self.rotation.remove(key)


def _client(number: int, request: Request, since: float, host: str = "") -> ClientState:
    return ClientState(number, request.address, request.port, request.pool, since, host)
