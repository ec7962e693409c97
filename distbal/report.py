"""What readers are told of the farm, as plain values that are JSON: by the page, ``/api/v1``, the admin socket and the manhole.

One place says which fields there are, what they mean and in what unit; :data:`SCHEMAS` makes a JSON Schema of that. Durations
are seconds, moments are seconds since 1970, shares are 0.0 to 1.0. ``version`` grows when a field changes its meaning or goes;
new ones may come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

from distbal.decisions import Decision, Decisions
from distbal.health import FULL_WEIGHT, Verdict
from distbal.history import Attempt, Job
from distbal.monitors.watch import WatchState
from distbal.snapshot import ClientState, HostState, Snapshot

VERSION = 1

#: how a host is, in one word; the first that fits
State = Literal["removed", "down", "drain", "failing", "off", "suspect", "full", "ready"]
STATES: dict[State, str] = {
    "removed": "no longer in the file; its last jobs run",
    "down": "a person took it down",
    "drain": "a person drained it: no new jobs; the running ones end by themselves",
    "failing": "a source says that it is down",
    "off": "its weight is 0: no new jobs now",
    "suspect": "used last, since it closed jobs of several clients without an answer",
    "full": "all that may be lent is lent",
    "ready": "may be given a job now",
}


class Said(TypedDict):
    """What one source says of a host, and holds now."""

    source: str
    up: bool
    #: null for no opinion
    weight: float | None
    reason: str
    at: float
    #: null for until it says otherwise
    expires: float | None


class Monitored(TypedDict):
    """What one monitor found when it last asked."""

    source: str
    kind: str
    #: null before the first answer
    up: bool | None
    weight: float | None
    reason: str
    facts: dict[str, Any]
    #: when it last answered; 0 for never
    at: float
    took: float
    #: why the last check could not be made; "" where it could
    trouble: str
    checks: int
    failed: int
    troubled: int
    late: int
    bugs: int
    #: null where it is not paused after a bug
    paused_until: float | None


class Differs(TypedDict):
    """A key of a host that is not as the file has it, or that the file has no key for."""

    key: Literal["admin", "weight", "slots", "rank", "there"]
    value: str | int | float | bool
    #: what the file says; null where it has no such key
    file: str | int | bool | None
    by: str
    at: float
    why: str


class Client(TypedDict):
    """One client that has a slot, or waits for one."""

    #: the lease's number, or the waiter's
    id: int
    address: str
    #: 0 where it has none
    port: int
    pool: str
    #: how long it has had its slot, or waited
    seconds: float


class HostReport(TypedDict):
    """One host."""

    name: str
    state: State
    #: the same in words, and who says so
    why: str
    rank: int
    slots: int
    #: how many may be lent now
    capacity: int
    #: the share of its slots that it is given: the least of what the sources say
    weight: float
    #: how many are lent
    used: int
    options: str
    address: str
    pools: list[str]
    #: leases since the start that have ended or run, the seconds that the ended ones lasted, and failures by how
    jobs: int
    seconds: float
    failures: dict[str, int]
    sent: int
    received: int
    said: list[Said]
    monitors: list[Monitored]
    differs: list[Differs]
    clients: list[Client]


class Totals(TypedDict):
    """Sums over the farm."""

    hosts: int
    #: hosts that may not be given a job, whoever says so
    out: int
    slots: int
    capacity: int
    used: int
    waiting: int
    #: how long the longest has waited
    longest_wait: float


class StatusReport(TypedDict):
    """The farm in few words."""

    version: int
    distbal: str
    at: float
    started: float
    policy: str
    order: str
    totals: Totals
    #: since the start: asked, granted, ended, withdrawn, refused
    counts: dict[str, int]
    #: where it listens, by kind
    ports: dict[str, list[str]]
    waiters: list[Client]


class HostsReport(TypedDict):
    """Every host, fastest first, then those that are gone from the file."""

    version: int
    at: float
    hosts: list[HostReport]


class PassedOverReport(TypedDict):
    """A host that did not get the job."""

    host: str
    #: pool, asked-for, excluded, taken-down, drained, down, weight, full, suspect, busier or not-drawn
    reason: str
    words: str


class AttemptReport(TypedDict):
    """One try at a job, on one host."""

    lease: int
    host: str
    asked: float
    granted: float
    waited: float
    #: null while it runs
    ended: float | None
    seconds: float
    outcome: str | None
    #: hosts that could not serve it when it asked, by reason; empty where it had not to wait
    waited_for: dict[str, int]
    passed_over: NotRequired[list[PassedOverReport]]


class JobReport(TypedDict):
    """One client's job."""

    id: int
    address: str
    port: int
    pool: str
    attempts: list[AttemptReport]


class JobsReport(TypedDict):
    """The last jobs that ended, the latest first."""

    version: int
    at: float
    jobs: list[JobReport]


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


def hosts_report(sight: Sight) -> HostsReport:
    """Every host."""
    clients: dict[str, list[Client]] = {}
    for lease in sight.snapshot.leases:
        clients.setdefault(lease.host, []).append(client_report(lease, sight.snapshot.at))
    differing: dict[str, list[Differs]] = {}
    for name, key, decision in sight.decisions:
        differing.setdefault(name, []).append(_differs(key, decision))
    hosts = [
        _host(host, sight, clients.get(host.spec.name, []), differing.get(host.spec.name, [])) for host in sight.snapshot.hosts
    ]
    return {"version": VERSION, "at": sight.snapshot.at + sight.epoch, "hosts": hosts}


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


def job_report(job: Job, epoch: float, now: float, *, why: bool) -> JobReport:
    """One job.

    :param now: on the scheduler's clock.
    :param why: with the hosts that were passed over.
    """
    return {
        "id": job.id,
        "address": job.address,
        "port": job.port,
        "pool": job.pool,
        "attempts": [_attempt(attempt, epoch, now, why=why) for attempt in job.attempts],
    }


def jobs_report(jobs: Iterable[Job], epoch: float, now: float) -> JobsReport:
    """Several, with all there is to tell."""
    told = [job_report(job, epoch, now, why=True) for job in jobs]
    return {"version": VERSION, "at": now + epoch, "jobs": told}


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


def _host(host: HostState, sight: Sight, clients: list[Client], differs: list[Differs]) -> HostReport:
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
        "clients": clients,
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


def _attempt(attempt: Attempt, epoch: float, now: float, *, why: bool) -> AttemptReport:
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
    if why:
        told["passed_over"] = [{"host": one.host, "reason": one.reason, "words": one.words} for one in attempt.passed_over]
    return told


def _share(weight: int | None) -> float | None:
    return None if weight is None else weight / FULL_WEIGHT


def _address(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
