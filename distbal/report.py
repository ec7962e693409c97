"""What readers are told of the farm: its fields, all of them JSON, for the page, ``/api/v1``, the admin socket and the manhole.

Durations are seconds, moments are seconds since 1970, shares are 0.0 to 1.0. ``version`` grows when a field changes its meaning
or goes; new ones may come. :mod:`distbal.reporter` fills them in.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

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
    #: how many more were passed over than are told of, where not all of them are
    more: NotRequired[int]


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
