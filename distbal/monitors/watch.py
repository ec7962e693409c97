"""One monitor and one host: what hosts.yaml asks for, and what came of it so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred

from distbal.interfaces import Reading, Target
from distbal.judge import Judge
from distbal.monitors.kit import MonitorOptions

#: seconds of the first pause after a monitor met a bug, and the longest that they become
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 600.0


@dataclass(frozen=True, slots=True)
class Assignment:
    """One host that is to be asked by one monitor.

    :ivar target: the host.
    :ivar source: the name that stands in hosts.yaml; the verdicts' source.
    :ivar kind: the factory of such monitors.
    :ivar options: the factory's.
    """

    target: Target
    source: str
    kind: Any
    options: MonitorOptions

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from all others: the host's name and the source."""
        return self.target.name, self.source


@dataclass(frozen=True, slots=True)
class WatchState:
    """What readers are shown of one monitor and one host.

    :ivar host: the host's name; ``source``: the monitor's; ``kind``: the factory's.
    :ivar reading: the last answer; None where there was none yet.
    :ivar read_at: when that was, in seconds on the scheduler's clock; ``took``: for how many seconds it was waited for.
    :ivar trouble: why the last check could not be made; "" where it could.
    :ivar checks: how many were made since the start; ``failed``: those that found the host down, or silent; ``troubled``: those
        that could not be made; ``bugs``: those that met a bug in the monitor.
    :ivar late: how many had to be ended at their timeout.
    :ivar paused_until: when the monitor is tried again after a bug, on the same clock; None where it is not paused.
    """

    host: str
    source: str
    kind: str
    reading: Reading | None
    read_at: float
    took: float
    trouble: str
    checks: int
    failed: int
    troubled: int
    bugs: int
    late: int
    paused_until: float | None


class Watch:
    """The same, alive. Its rounds change it.

    :ivar answer: the last answer as the monitor gave it; ``reading`` is the same as it is kept and shown.
    :ivar monitor: made when the first check is due, and again after a bug; None in between.
    :ivar check: the check that runs; None when none does.
    :ivar began: when that was begun, or the last one.
    :ivar base: from where its intervals are counted.
    :ivar overdue: the check that runs was cancelled at its timeout.
    :ivar gone: it is no longer wanted.
    :ivar told: its trouble stands in the log.
    :ivar turn: the host's name and the kind's: of those that share it one alone may ask at a time.
    """

    __slots__ = (
        "answer",
        "assignment",
        "base",
        "began",
        "bugs",
        "bugs_in_a_row",
        "check",
        "checks",
        "failed",
        "gone",
        "judge",
        "late",
        "monitor",
        "overdue",
        "paused_until",
        "read_at",
        "reading",
        "told",
        "took",
        "trouble",
        "troubled",
        "turn",
    )

    def __init__(self, assignment: Assignment, base: float) -> None:
        options = assignment.options
        self.assignment = assignment
        self.turn = assignment.target.name, assignment.kind.name
        self.base = base
        self.judge = Judge(options.fall, options.rise, required=options.required)
        self.monitor: Any = None
        self.check: Deferred[Any] | None = None
        self.began = float("-inf")
        self.overdue = self.gone = self.told = False
        self.reading: Reading | None = None
        self.read_at = self.took = 0.0
        self.answer: Reading | None = None
        self.trouble = ""
        self.checks = self.failed = self.troubled = self.bugs = self.bugs_in_a_row = self.late = 0
        self.paused_until: float | None = None

    def __repr__(self) -> str:
        return f"<Watch {self.assignment.source} of {self.assignment.target.name}>"

    @property
    def names(self) -> dict[str, str]:
        """For a line of the log."""
        return {"host": self.assignment.target.name, "source": self.assignment.source}

    def holds_for(self, now: float) -> float:
        """Seconds for which an opinion holds when it is not heard again: three checks may fail to come, after a pause."""
        options = self.assignment.options
        interval: float = max(options.interval, self.assignment.kind.least_interval)
        pause = 0.0 if self.paused_until is None else self.paused_until - now
        return pause + 3.0 * interval + options.timeout

    def state(self) -> WatchState:
        """What readers are shown."""
        return WatchState(
            host=self.assignment.target.name,
            source=self.assignment.source,
            kind=self.assignment.kind.name,
            reading=self.reading,
            read_at=self.read_at,
            took=self.took,
            trouble=self.trouble,
            checks=self.checks,
            failed=self.failed,
            troubled=self.troubled,
            bugs=self.bugs,
            late=self.late,
            paused_until=self.paused_until,
        )

    def pause(self, now: float) -> float:
        """A bug was met: until when to leave the monitor alone."""
        self.bugs += 1
        self.bugs_in_a_row += 1
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self.bugs_in_a_row - 1, 10))
        self.paused_until = now + max(pause, self.assignment.options.interval)
        return self.paused_until
