"""The farm, told: reports made of what the scheduler, the monitors and people's decisions hold, when somebody reads them.

:mod:`distbal.report` says which fields there are. Nothing here is called for a job.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from distbal import __version__
from distbal.decisions import Decision, Decisions
from distbal.health import FULL_WEIGHT, Verdict
from distbal.history import Attempt, Job, attempt
from distbal.inside import Inside
from distbal.leases import LocalLeases
from distbal.monitors.rounds import Rounds
from distbal.monitors.watch import WatchState
from distbal.report import (
    VERSION,
    AttemptReport,
    Client,
    Differs,
    HostReport,
    HostsReport,
    ImageReport,
    InsideReport,
    JobReport,
    JobsReport,
    Monitored,
    Said,
    State,
    StatusReport,
    Totals,
)
from distbal.snapshot import ClientState, HostState, Snapshot, host_state
from distbal.standing import UNKNOWN
from distbal.waits import Histogram

#: hosts that were passed over, in one report of many jobs: those of the latest ones. Of 500 hosts, 100 jobs would fill 5 MB
MOST_PASSED_OVER = 10_000


@dataclass(frozen=True, slots=True)
class Sight:
    """What a report is made of.

    :ivar snapshot: the scheduler's.
    :ivar epoch: what makes seconds since 1970 of the scheduler's clock.
    :ivar watches: what the monitors found, host by host.
    :ivar decisions: what people decided.
    """

    snapshot: Snapshot
    epoch: float
    watches: Mapping[str, list[WatchState]]
    decisions: Decisions


@dataclass(frozen=True, slots=True)
class Figures:
    """What is counted: for metrics, and without those clients of whom there may be thousands.

    :ivar hosts: in no order.
    :ivar watches: what the monitors found.
    :ivar counts: totals since the start, as a snapshot has them; ``waits``: how long those waited that were granted a slot.
    :ivar lent: slots that are lent; ``waiting``: clients that wait; ``longest_wait``: seconds that the longest has waited.
    :ivar policy: which host gets a job; ``order``: which waiter is next.
    :ivar inside: how the daemon itself is; ``lags``: all looks at the event loop's lag.
    """

    hosts: tuple[HostState, ...]
    watches: tuple[WatchState, ...]
    counts: dict[str, int]
    waits: Histogram
    lent: int
    waiting: int
    longest_wait: float
    policy: str
    order: str
    inside: InsideReport
    lags: Histogram


class Reporter:
    """Makes the reports, each of this very moment.

    :param seconds: the scheduler's clock.
    :param wall: seconds since 1970.
    :param decisions: what people decided, now.
    :param inside: how the daemon itself is.
    :param ports: where the daemon listens, now: addresses by the kind of listener.
    :param started: when the first of the processes did whose counters these are, on the scheduler's clock; None for now.

    :ivar started: the same.
    :ivar image: the code that runs, and how it came to run; whoever composes the daemon knows more of that.
    """

    def __init__(
        self,
        leases: LocalLeases,
        monitors: Rounds,
        *,
        seconds: Callable[[], float],
        wall: Callable[[], float],
        inside: Inside,
        decisions: Callable[[], Decisions] = Decisions,
        ports: Callable[[], dict[str, list[str]]] = dict,
        started: float | None = None,
    ) -> None:
        self._leases = leases
        self._monitors = monitors
        self._seconds = seconds
        self._wall = wall
        self._decisions = decisions
        self._inside = inside
        self._ports = ports
        self.started = seconds() if started is None else min(started, seconds())
        self.image: ImageReport = {
            "version": __version__,
            "pid": os.getpid(),
            "began": "start",
            "at": wall(),
            "before": "",
            "taken_up": {},
            "trouble": "",
        }

    @property
    def epoch(self) -> float:
        """What makes seconds since 1970 of the scheduler's clock. Made anew each time, since a wall clock may be set."""
        return self._wall() - self._seconds()

    @property
    def activity(self) -> tuple[int, int]:
        """How many slots are lent, and how many clients wait: for pennies."""
        return self._leases.scheduler.lent, self._leases.scheduler.waiting

    @property
    def usable(self) -> tuple[int, int]:
        """How many hosts may be given jobs, now or when a slot of theirs is free, and how many the file names: for pennies."""
        hosts = [host for host in self._leases.scheduler.hosts.values() if not host.removed]
        return sum(host.capacity > 0 for host in hosts), len(hosts)

    def figures(self) -> Figures:
        """What is counted."""
        scheduler = self._leases.scheduler
        first = scheduler.asked_first
        return Figures(
            hosts=tuple(map(host_state, scheduler.hosts.values())),
            watches=self._monitors.states(),
            counts=scheduler.counts,
            waits=scheduler.waits,
            lent=scheduler.lent,
            waiting=scheduler.waiting,
            longest_wait=0.0 if first is None else max(0.0, self._seconds() - first),
            policy=scheduler.farm.policy,
            order=scheduler.farm.order,
            inside=self._inside.report(),
            lags=self._inside.lags(),
        )

    def sight(self) -> Sight:
        """All that there is to tell, at one moment."""
        watches: dict[str, list[WatchState]] = {}
        for watch in self._monitors.states():
            watches.setdefault(watch.host, []).append(watch)
        return Sight(self._leases.snapshot(), self.epoch, watches, self._decisions())

    def status(self) -> StatusReport:
        """The farm in few words, and who waits."""
        return self._status(self._leases.snapshot(leases=False), self.epoch)

    def status_and_hosts(self) -> tuple[StatusReport, HostsReport]:
        """Both, of one moment, for the price of one."""
        sight = self.sight()
        return self._status(sight.snapshot, sight.epoch), hosts_report(sight)

    def _status(self, snapshot: Snapshot, epoch: float) -> StatusReport:
        farm = self._leases.scheduler.farm
        return {
            "version": VERSION,
            "distbal": __version__,
            "at": round(snapshot.at + epoch, 3),
            "started": round(self.started + epoch, 3),
            "policy": farm.policy,
            "order": farm.order,
            "totals": {**totals(snapshot), "used": self._leases.scheduler.lent},
            "counts": snapshot.counts,
            "ports": self._ports(),
            "image": {**self.image},
            "inside": self._inside.report(),
            "waiters": [client_report(waiter, snapshot.at) for waiter in snapshot.waiters],
        }

    def hosts(self) -> HostsReport:
        """Every host."""
        return hosts_report(self.sight())

    def jobs(self, limit: int = 50, *, host: str = "", address: str = "", passed_over: int | None = None) -> JobsReport:
        """The last jobs that ended, the latest first: as :meth:`ended` has them.

        :param passed_over: of how many hosts to tell why they did not get the job, for each attempt; None for all.
        """
        return jobs_report(self.ended(limit, host=host, address=address), self.epoch, self._seconds(), passed_over)

    def ended(self, limit: int = 50, *, host: str = "", address: str = "") -> list[Job]:
        """The last jobs that ended, the latest first, for :func:`each_job`.

        :param limit: how many at most.
        :param host: only those that had an attempt there; "" for any.
        :param address: only that client's; "" for any.
        """
        last = None if host or address else limit
        found = [
            job
            for job in reversed(self._leases.scheduler.history.jobs(last))
            if (not host or any(one.host == host for one in job.attempts)) and (not address or job.address == address)
        ]
        return found[:limit]

    @property
    def now(self) -> float:
        """On the scheduler's clock."""
        return self._seconds()

    def job(self, number: int) -> JobReport | None:
        """One job, running or ended; None where nothing is known of it (any more).

        :param number: the job's, or that of one of its leases.
        """
        scheduler = self._leases.scheduler
        ended = next(
            (job for job in scheduler.history.jobs() if number in (job.id, *(one.lease for one in job.attempts))), None
        )
        number = number if ended is None else ended.id
        leases = [ticket.lease for ticket in scheduler.tickets if ticket.lease is not None]
        running = [attempt(lease) for lease in leases if number in (lease.job, lease.id)]
        if ended is None and not running:
            return None
        if ended is None:
            request = running[0].request
            ended = Job(request.job or running[0].lease, request.address, request.port, request.pool, ())
        whole = Job(ended.id, ended.address, ended.port, ended.pool, (*ended.attempts, *running))
        return job_report(whole, self.epoch, self._seconds(), why=True)


def hosts_report(sight: Sight) -> HostsReport:
    """Every host."""
    return {"version": VERSION, "at": round(sight.snapshot.at + sight.epoch, 3), "hosts": list(each_host(sight))}


def each_host(sight: Sight, name: str = "", wanted: Callable[[str], bool] = bool) -> Iterator[HostReport]:
    """Every host, or the one of this name, if it is there; made as they are wanted.

    :param wanted: whether a host of that name is.
    """
    clients: dict[str, list[ClientState]] = {}
    for lease in sight.snapshot.leases:
        clients.setdefault(lease.host, []).append(lease)
    differing: dict[str, list[Differs]] = {}
    for other, key, decision in sight.decisions:
        differing.setdefault(other, []).append(_differs(key, decision))
    for host in sight.snapshot.hosts:
        if name in ("", host.spec.name) and wanted(host.spec.name):
            yield _host(host, sight, clients.get(host.spec.name, []), differing.get(host.spec.name, []))


def totals(snapshot: Snapshot) -> Totals:
    """Sums over the farm."""
    waiters = snapshot.waiters
    return {
        "hosts": sum(not host.removed for host in snapshot.hosts),
        "out": sum(not host.removed and host.capacity == 0 for host in snapshot.hosts),
        "slots": sum(host.spec.slots for host in snapshot.hosts if not host.removed),
        "capacity": sum(host.capacity for host in snapshot.hosts),
        "used": len(snapshot.leases),
        "waiting": len(waiters),
        "longest_wait": max(0.0, snapshot.at - waiters[0].since) if waiters else 0.0,
    }


def client_report(client: ClientState, now: float) -> Client:
    """One client.

    :param now: on the scheduler's clock.
    """
    return {
        "id": client.id,
        "address": client.address,
        "port": client.port,
        "pool": client.pool,
        "seconds": round(max(0.0, now - client.since), 3),
    }


def job_report(job: Job, epoch: float, now: float, *, why: bool, most: int | None = None) -> JobReport:
    """One job.

    :param now: on the scheduler's clock.
    :param why: with the hosts that were passed over.
    :param most: how many of them; None for all.
    """
    return {
        "id": job.id,
        "address": job.address,
        "port": job.port,
        "pool": job.pool,
        "attempts": [_attempt(attempt, epoch, now, why=why, most=most) for attempt in job.attempts],
    }


def jobs_report(jobs: Iterable[Job], epoch: float, now: float, most: int | None = None) -> JobsReport:
    """Several.

    :param most: of how many hosts that were passed over to tell, for each attempt; None for all.
    """
    return {"version": VERSION, "at": round(now + epoch, 3), "jobs": list(each_job(jobs, epoch, now, most))}


def each_job(jobs: Iterable[Job], epoch: float, now: float, most: int | None = None) -> Iterator[JobReport]:
    """Several, made as they are wanted; the first of them with the hosts that were passed over."""
    left = MOST_PASSED_OVER
    for job in jobs:
        report = job_report(job, epoch, now, why=left > 0, most=most)
        left -= sum(len(one.get("passed_over", ())) for one in report["attempts"])
        yield report


def state_of(host: HostState) -> State:
    """How a host is, in one word."""
    if host.removed:
        return "removed"
    if host.admin != "ready":
        return "down" if host.admin == "down" else "drain"
    if not host.up:
        return "failing"
    if host.capacity == 0:
        return "off"
    if host.suspect:
        return "suspect"
    return "ready" if host.available else "full"


def _why(host: HostState, state: State) -> str:
    if state in ("down", "drain"):
        return host.decided
    if state == "failing":
        return "; ".join(_said_words(verdict) for verdict in host.verdicts if not verdict.up)
    if state == "suspect":
        return "closed jobs of several clients without an answer"
    given = [verdict for verdict in host.verdicts if verdict.weight is not None and verdict.weight < FULL_WEIGHT]
    if state != "removed" and given:
        return _said_words(min(given, key=lambda verdict: verdict.weight or 0))
    return ""


def _said_words(verdict: Verdict) -> str:
    what = verdict.reason or ("is down" if not verdict.up else f"weight {_share(verdict.weight)}")
    return f"{verdict.source}: {what}"


def _host(host: HostState, sight: Sight, clients: list[ClientState], differs: list[Differs]) -> HostReport:
    spec, state = host.spec, state_of(host)
    weights = [verdict.weight for verdict in host.verdicts if verdict.weight is not None]
    return {
        "name": spec.name,
        "state": state,
        "why": _why(host, state),
        "rank": spec.rank,
        "slots": spec.slots,
        "capacity": host.capacity,
        "weight": _share(min(weights, default=FULL_WEIGHT)) or 0.0,
        "used": host.leases,
        "options": spec.options.lstrip(","),
        "address": _address(spec.address),
        "pools": list(spec.pools),
        "jobs": host.granted,
        "seconds": round(host.held, 3),
        "failures": host.failures,
        "sent": host.sent,
        "received": host.received,
        "said": [_said(verdict, sight.epoch) for verdict in host.verdicts],
        "monitors": [_monitored(watch, sight.epoch) for watch in sight.watches.get(spec.name, ())],
        "differs": differs,
        "clients": [client_report(client, sight.snapshot.at) for client in clients],
    }


def _said(verdict: Verdict, epoch: float) -> Said:
    return {
        "source": verdict.source,
        "up": verdict.up,
        "weight": _share(verdict.weight),
        "reason": verdict.reason,
        "at": round(verdict.at + epoch, 3),
        "expires": None if verdict.expires is None else round(verdict.expires + epoch, 3),
    }


def _monitored(watch: WatchState, epoch: float) -> Monitored:
    reading = watch.reading
    return {
        "source": watch.source,
        "kind": watch.kind,
        "up": None if reading is None else reading.up,
        "weight": None if reading is None else reading.weight,
        "reason": "" if reading is None else reading.reason,
        "facts": {} if reading is None else {name: _fact(fact) for name, fact in reading.facts.items()},
        "at": 0.0 if reading is None else round(watch.read_at + epoch, 3),
        "took": round(watch.took, 6),
        "trouble": watch.trouble,
        "checks": watch.checks,
        "failed": watch.failed,
        "troubled": watch.troubled,
        "late": watch.late,
        "bugs": watch.bugs,
        "paused_until": None if watch.paused_until is None else round(watch.paused_until + epoch, 3),
    }


def _fact(fact: Any) -> Any:
    return list(fact) if isinstance(fact, tuple) else fact


def _differs(key: str, decision: Decision) -> Differs:
    value: Any = decision.value
    if key == "there":
        value = value is not False
    elif key == "weight":
        value = _share(value)
    elif key == "rank":
        value = str(value)
    return {"key": key, "value": value, "file": decision.file, "by": decision.by, "at": decision.at, "why": decision.why}  # type: ignore[typeddict-item]


def _attempt(attempt: Attempt, epoch: float, now: float, *, why: bool, most: int | None) -> AttemptReport:
    told: AttemptReport = {
        "lease": attempt.lease,
        "host": attempt.host,
        "asked": round(attempt.asked + epoch, 3),
        "granted": round(attempt.granted + epoch, 3),
        "waited": round(attempt.granted - attempt.asked, 3),
        "ended": None if attempt.ended is None else round(attempt.ended + epoch, 3),
        "seconds": round((now if attempt.ended is None else attempt.ended) - attempt.granted, 3),
        "outcome": None if attempt.outcome is None else attempt.outcome.value,
        "waited_for": attempt.waited_for,
    }
    if attempt.not_known:
        told["not_known"] = attempt.not_known
    if why and attempt.found is not UNKNOWN:
        passed, before = (attempt.passed_over, 0) if most is None else attempt.first_passed_over(most)
        told["passed_over"] = [{"host": one.host, "reason": one.reason, "words": one.words} for one in passed]
        if before > len(passed):
            told["more"] = before - len(passed)
    return told


def _share(weight: int | None) -> float | None:
    return None if weight is None else weight / FULL_WEIGHT


def _address(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
