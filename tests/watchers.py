"""Monitors as somebody else writes them, whose every answer a test decides; and rounds of them on a clock of the test's."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.plugin import IPlugin
from zope.interface import implementer

from distbal.deadlines import Deadlines
from distbal.hosts import Farm, HostSpec
from distbal.interfaces import IHostMonitor, IHostMonitorFactory, Reading, Target
from distbal.leases import LocalLeases
from distbal.lookup import Lookup
from distbal.monitors.kit import MonitorKind, MonitorOptions, Surroundings
from distbal.monitors.rounds import Rounds
from distbal.monitors.slots import Slots
from distbal.monitors.stops import STOP_TIME
from distbal.monitors.watch import Assignment, WatchState
from distbal.scheduler import Scheduler

UP = Reading(up=True, reason="is fine")
DOWN = Reading(up=False, reason="is broken")
PROOF = Reading(up=False, reason="refused the connection", certain=True)


@implementer(IPlugin, IHostMonitorFactory)
class Kind(MonitorKind):
    """A kind whose monitors do as they are told.

    :ivar answer: what a check comes to: a Reading, an exception to fail with or None; a Deferred, or what a function returns.
    :ivar made: its monitors, in the order in which they were made.
    :ivar checks: the hosts that were asked and when, in order.
    """

    name = "told"
    description = "does as it is told"

    def __init__(self, clock: Clock, **traits: Any) -> None:
        self.clock = clock
        self.answer: Any = UP
        self.answers: dict[str, Any] = {}
        self.made: list[Monitor] = []
        self.checks: list[tuple[str, float]] = []
        for trait, value in traits.items():
            setattr(self, trait, value)

    def monitor(self, target: Target, options: MonitorOptions, surroundings: Surroundings) -> Monitor:
        self.made.append(Monitor(self, target))
        return self.made[-1]

    def times(self, host: str = "a") -> list[float]:
        """When a host was asked."""
        return [at for name, at in self.checks if name == host]


@implementer(IHostMonitor)
class Monitor:
    """One of its monitors."""

    def __init__(self, kind: Kind, target: Target) -> None:
        self.kind = kind
        self.target = target
        self.stopped = 0

    def check(self) -> Any:
        self.kind.checks.append((self.target.name, self.kind.clock.seconds()))
        answer = self.kind.answers.get(self.target.name, self.kind.answer)
        if callable(answer):
            return answer()
        if isinstance(answer, Deferred):
            return answer
        told: Deferred[Any] = Deferred()
        if isinstance(answer, Exception):
            told.errback(answer)
        else:
            told.callback(answer)
        return told

    def stop(self) -> Any:
        self.stopped += 1


@dataclass
class Ground:
    """Rounds of some hosts, in time that a test makes go on."""

    clock: Clock
    leases: LocalLeases
    rounds: Rounds
    hosts: tuple[str, ...]
    kinds: list[Kind] = field(default_factory=list)

    def kind(self, **traits: Any) -> Kind:
        self.kinds.append(Kind(self.clock, **traits))
        return self.kinds[-1]

    def watch(self, kind: Kind, *hosts: str, sources: tuple[str, ...] = (), **options: Any) -> None:
        """Ask these hosts, or all, by monitors of this kind: one, or several under names of their own."""
        made = kind.options(**options)
        names = hosts or self.hosts
        self.rounds.configure(
            [Assignment(Target(name, name, 3632), source, kind, made) for name in names for source in sources or (kind.name,)]
        )

    def go(self, seconds: float, step: float = 0.1) -> None:
        """Let time pass."""
        self.clock.pump([step] * round(seconds / step))

    def up(self, name: str = "a") -> bool:
        return self.leases.scheduler.host(name).up

    def weight(self, name: str = "a") -> int:
        return self.leases.scheduler.host(name).health.weight

    def says(self, name: str = "a", source: str = "told") -> str:
        """What a source gives as the reason."""
        verdict = self.leases.scheduler.verdict(name, source)
        assert verdict is not None
        return verdict.reason

    def state(self, name: str = "a") -> WatchState:
        return next(state for state in self.rounds.states() if state.host == name)


def never(host: str, port: int) -> Deferred[Any]:
    """A resolver that is not asked."""
    raise AssertionError(host)


@contextmanager
def ground(*hosts: str, slots: int = 4) -> Iterator[Ground]:
    """Hosts of one name each (or ``a``), and rounds without monitors yet."""
    clock = Clock()
    names = hosts or ("a",)
    farm = Farm(tuple(HostSpec(name, slots, rank, address=(name, 3632)) for rank, name in enumerate(names)))
    leases = LocalLeases(Scheduler(farm), clock)
    rounds = Rounds(leases, Surroundings(clock, Lookup(clock, never), Slots(leases)), random.Random(1))
    one = Ground(clock, leases, rounds, names)
    try:
        yield one
    finally:
        if not rounds.stop().called:
            clock.advance(STOP_TIME)
        leases.stop()
        # a test's own timers are its own business
        left = [call for call in clock.getDelayedCalls() if isinstance(_owner(call), Rounds | Deadlines)]
        assert not left, "rounds that were stopped left timers behind"


def _owner(call: Any) -> object:
    """Whose method a delayed call will call."""
    return getattr(call.func, "__self__", None)


def counter(*answers: Any) -> Callable[[], Any]:
    """Each of the answers once, in order; the last one for ever."""
    left = list(answers)

    def answer() -> Any:
        value = left.pop(0) if len(left) > 1 else left[0]
        told: Deferred[Any] = Deferred()
        (told.errback if isinstance(value, Exception) else told.callback)(value)
        return told

    return answer
