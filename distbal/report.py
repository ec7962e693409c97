"""What readers are told of the farm: its fields, all of them JSON, for the page, ``/api/v1``, the admin socket and the manhole.

Durations are seconds, moments are seconds since 1970, shares are 0.0 to 1.0. ``version`` grows when a field changes its meaning
or goes; new ones may come. :mod:`distbal.reporter` fills them in, and :mod:`distbal.web.schema` makes the documentation of what
stands here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired, TypedDict

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


@dataclass(frozen=True, slots=True)
class Means:
    """What a field means, for readers of the schema and of docs/api.md."""

    words: str


class Said(TypedDict):
    """What one source says of a host, and holds now."""

    source: Annotated[str, Means("who says it: a monitor's name in hosts.yaml, update, or connect (the proxy's own connects)")]
    up: Annotated[bool, Means("whether the host can take jobs at all")]
    weight: Annotated[float | None, Means("the share of its slots that it should be given; null for no opinion")]
    reason: Annotated[str, Means("a sentence for a person, or empty")]
    at: Annotated[float, Means("when it was said")]
    expires: Annotated[float | None, Means("until when it holds; null for until the source says otherwise")]


class Monitored(TypedDict):
    """What one monitor found when it last asked."""

    source: Annotated[str, Means("the monitor's name in hosts.yaml")]
    kind: Annotated[str, Means("of what kind the monitor is")]
    up: Annotated[bool | None, Means("what it last found; null before the first answer")]
    weight: Annotated[float | None, Means("the share of its slots that the host should be given; null for no opinion")]
    reason: Annotated[str, Means("a sentence for a person, or empty")]
    facts: Annotated[dict[str, Any], Means("what else it found, by name: depends on the kind")]
    at: Annotated[float, Means("when it last answered; 0 for never")]
    took: Annotated[float, Means("how long that answer was waited for")]
    trouble: Annotated[str, Means("why the last check could not be made; empty where it could")]
    checks: Annotated[int, Means("checks since the start")]
    failed: Annotated[int, Means("those that found the host down, or silent")]
    troubled: Annotated[int, Means("those that could not be made")]
    late: Annotated[int, Means("those that had to be ended at their timeout")]
    bugs: Annotated[int, Means("those that met a bug in the monitor")]
    paused_until: Annotated[float | None, Means("when it is tried again after a bug; null where it is not paused")]


class Differs(TypedDict):
    """A key of a host that is not as the file has it, or that the file has no key for."""

    key: Annotated[
        Literal["admin", "weight", "slots", "rank", "there"],
        Means("which key: there is whether the host is in the farm at all"),
    ]
    value: Annotated[str | int | float | bool, Means("what holds")]
    file: Annotated[str | int | bool | None, Means("what the file says; null where it has no such key")]
    by: Annotated[str, Means("who decided it")]
    at: Annotated[float, Means("when it was decided")]
    why: Annotated[str, Means("in the words of the person who decided it, or empty")]


class Client(TypedDict):
    """One client that has a slot, or waits for one."""

    id: Annotated[int, Means("the lease's number, or the waiter's")]
    address: Annotated[str, Means("where it comes from; empty where it has no address")]
    port: Annotated[int, Means("its port there; 0 where it has none")]
    pool: Annotated[str, Means("the pool that it asked for")]
    seconds: Annotated[float, Means("how long it has had its slot, or waited")]


class HostReport(TypedDict):
    """One host."""

    name: Annotated[str, Means("the text that clients are told")]
    state: Annotated[State, Means("how it is, in one word; the first that fits")]
    why: Annotated[str, Means("the same in words, and who says so; empty where there is nothing to say")]
    rank: Annotated[int, Means("0 is the fastest")]
    slots: Annotated[int, Means("how many jobs it may run at once")]
    capacity: Annotated[int, Means("how many may be lent now")]
    weight: Annotated[float, Means("the share of its slots that it is given: the least of what the sources say")]
    used: Annotated[int, Means("how many are lent")]
    options: Annotated[str, Means("distcc's options, with commas between them, or empty")]
    address: Annotated[str, Means("where it really is")]
    pools: Annotated[list[str], Means("the pools that it serves")]
    jobs: Annotated[int, Means("leases since the start, ended or not")]
    seconds: Annotated[float, Means("that the ended ones lasted together")]
    failures: Annotated[dict[str, int], Means("jobs that it failed since the start, by how")]
    sent: Annotated[int, Means("bytes that the proxy sent there since the start")]
    received: Annotated[int, Means("bytes that came back")]
    said: Annotated[list[Said], Means("what each source says of it now")]
    monitors: Annotated[list[Monitored], Means("what each monitor found")]
    differs: Annotated[list[Differs], Means("what is not as the file has it")]
    clients: Annotated[list[Client], Means("who has its slots")]


class Totals(TypedDict):
    """Sums over the farm."""

    hosts: Annotated[int, Means("hosts in the file")]
    out: Annotated[int, Means("hosts that may not be given a job, whoever says so")]
    slots: Annotated[int, Means("slots of all hosts in the file")]
    capacity: Annotated[int, Means("how many may be lent now")]
    used: Annotated[int, Means("how many are lent")]
    waiting: Annotated[int, Means("clients that wait")]
    longest_wait: Annotated[float, Means("how long the longest has waited")]


class ImageReport(TypedDict):
    """The code that runs, and how it came to run in this process."""

    version: Annotated[str, Means("the version of distbal")]
    pid: Annotated[int, Means("the number of the process, which an upgrade in place keeps")]
    began: Annotated[
        Literal["start", "upgrade", "recovery"],
        Means("by what: a start, an upgrade in place, or a crash of the one before"),
    ]
    at: Annotated[float, Means("when")]
    before: Annotated[str, Means("the version of distbal before it; empty after a start")]
    taken_up: Annotated[dict[str, int], Means("what it took up of the one before: leases, waiters, sessions")]
    trouble: Annotated[str, Means("why the last upgrade came to nothing; empty where none did")]


class LagReport(TypedDict):
    """By how much the event loop's timers are late: how long whoever comes has to wait for anything at all."""

    mean: Annotated[float, Means("the mean of the last 10 s")]
    most: Annotated[float, Means("the most in the last 10 s")]
    minute: Annotated[float, Means("the most in the last minute")]
    worst: Annotated[float, Means("the most since the start")]


class KeeperReport(TypedDict):
    """The keeper (``distbal supervise``), which lets nothing be lost when the daemon crashes."""

    pid: Annotated[int, Means("its process; 0 where it was gone before it had said so")]
    version: Annotated[str, Means("its version of distbal")]
    restarts: Annotated[int, Means("how often it has started the daemon anew")]
    last: Annotated[str, Means("how the daemon before this one ended, in words; empty for the first")]
    gone: Annotated[str, Means("why the daemon is alone, in words; empty while the keeper is there")]


class InsideReport(TypedDict):
    """How the daemon itself is."""

    bugs: Annotated[
        dict[str, int],
        Means(
            "exceptions since the start, by what they ended: a connection, a (proxied) session, a lease's delivery, a monitor's"
            " check, a page, a command, a turn of something periodic, a reload, or reactor: what Twisted caught"
        ),
    ]
    bounds: Annotated[dict[str, int], Means("how often each bound was hit since the start, by its name")]
    room: Annotated[
        int | None, Means("descriptors that clients may still take: one each on 5656; null where the system sets the bound")
    ]
    lag: Annotated[LagReport, Means("the event loop's lag")]
    log_lost: Annotated[int, Means("lines of the log that could not be written since the start")]
    log_trouble: Annotated[str, Means("why lines cannot be written now; empty where they can")]
    keeper: Annotated[KeeperReport | None, Means("the keeper; null for a daemon that was started without one")]
    lost: Annotated[
        int,
        Means("connections that had just come when the daemon before was killed, and were lost; none had been told a host"),
    ]


class StatusReport(TypedDict):
    """The farm in few words."""

    version: Annotated[int, Means("of these reports: grows when a field changes its meaning or goes")]
    distbal: Annotated[str, Means("the version of distbal")]
    at: Annotated[float, Means("of when all this is")]
    started: Annotated[float, Means("when the daemon started; an upgrade, or a crash with a keeper, begins nothing anew")]
    policy: Annotated[str, Means("which host gets a job: as in hosts.yaml")]
    order: Annotated[str, Means("which waiter is next: as in hosts.yaml")]
    totals: Annotated[Totals, Means("sums over the farm")]
    counts: Annotated[
        dict[str, int],
        Means("since the start: asked, granted, ended, withdrawn (left before they had a slot), refused (waited too long)"),
    ]
    ports: Annotated[dict[str, list[str]], Means("where it listens, by kind")]
    image: Annotated[ImageReport, Means("the code that runs, and how it came to run")]
    inside: Annotated[InsideReport, Means("how the daemon itself is")]
    waiters: Annotated[list[Client], Means("who waits, the longest first")]


class HostsReport(TypedDict):
    """Every host, fastest first, then those that are gone from the file."""

    version: Annotated[int, Means("of these reports")]
    at: Annotated[float, Means("of when all this is")]
    hosts: Annotated[list[HostReport], Means("all hosts, fastest first")]


class PassedOverReport(TypedDict):
    """A host that did not get the job."""

    host: Annotated[str, Means("its name")]
    reason: Annotated[
        str,
        Means("in one word: pool, asked-for, excluded, taken-down, drained, down, weight, full, suspect, busier or not-drawn"),
    ]
    words: Annotated[str, Means("the same as the end of a sentence that begins with its name")]


class AttemptReport(TypedDict):
    """One try at a job, on one host."""

    lease: Annotated[int, Means("the lease's number")]
    host: Annotated[str, Means("the host's name")]
    asked: Annotated[float, Means("when the job first asked for a slot")]
    granted: Annotated[float, Means("when it got one")]
    waited: Annotated[float, Means("how long that took")]
    ended: Annotated[float | None, Means("when it ended; null while it runs")]
    seconds: Annotated[float, Means("how long it has run, or ran")]
    outcome: Annotated[str | None, Means("how it ended, in one word; null while it runs")]
    waited_for: Annotated[
        dict[str, int], Means("hosts that could not serve it when it asked, by reason; empty where it had not to wait")
    ]
    passed_over: NotRequired[
        Annotated[
            list[PassedOverReport],
            Means("why not each host before it in rank; left out where an answer would grow too long: ask for the job alone"),
        ]
    ]
    more: NotRequired[Annotated[int, Means("how many more were passed over than are told of, where not all of them are")]]
    not_known: NotRequired[
        Annotated[
            str,
            Means("what is not known of how the hosts stood, as a sentence: where it asked before distbal was started anew"),
        ]
    ]


class JobReport(TypedDict):
    """One client's job."""

    id: Annotated[int, Means("the job's number")]
    address: Annotated[str, Means("the client's; empty where it has none")]
    port: Annotated[int, Means("its port there; 0 where it has none")]
    pool: Annotated[str, Means("the pool that it asked for")]
    attempts: Annotated[list[AttemptReport], Means("in the order in which they ended")]


class JobsReport(TypedDict):
    """The last jobs that ended, the latest first."""

    version: Annotated[int, Means("of these reports")]
    at: Annotated[float, Means("of when all this is")]
    jobs: Annotated[list[JobReport], Means("the latest first")]
