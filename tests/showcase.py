"""Farms to be looked at: hosts in every state, and builds that come and go, on a clock that runs as it is told."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock

from distbal.activity import Activity
from distbal.decisions import Decision, Decisions
from distbal.hosts import AdminState, Farm, HostSpec
from distbal.inside import Inside
from distbal.interfaces import Target
from distbal.leases import LocalLeases
from distbal.lookup import Lookup
from distbal.monitors.kit import Surroundings
from distbal.monitors.rounds import Rounds
from distbal.monitors.slots import Slots
from distbal.monitors.watch import Assignment
from distbal.outcomes import Outcome, Traffic
from distbal.reporter import Reporter
from distbal.requests import Lease, Request, Ticket
from distbal.scheduler import Scheduler
from distbal.web.page import install
from tests.watchers import Kind, never
from tests.web import site_of

#: when such a farm was started, in seconds since 1970
STARTED = 1_790_000_000.0


class Compile:
    """A client with one job: what it is given it holds for a while."""

    def __init__(self, shown: Shown, seconds: float) -> None:
        self.shown = shown
        self.seconds = seconds
        self.lease: Lease | None = None
        self.over = False

    def granted(self, lease: Lease) -> None:
        self.lease = lease
        self.shown.ends(self)

    def refused(self, ticket: Ticket, reason: str) -> None:
        self.over = True

    def lost(self, lease: Lease, reason: str) -> None:
        self.over = True

    def end(self) -> None:
        if self.lease is not None and not self.over:
            self.over = True
            self.shown.leases.release(self.lease, self.shown.outcome(self.lease), Traffic(300_000, 60_000, 0.001))


class Shown:
    """A farm, its monitors and what readers are told of it.

    :ivar outcome: how a job ends.
    """

    def __init__(self, hosts: Iterable[HostSpec], seed: int = 5) -> None:
        self.draw = random.Random(seed)
        self.clock = Clock()
        self.clock.advance(1000)
        self.leases = LocalLeases(Scheduler(Farm(tuple(hosts)), draw=random.Random(seed)), self.clock)
        surroundings = Surroundings(self.clock, Lookup(self.clock, never), Slots(self.leases))
        self.monitors = Rounds(self.leases, surroundings, random.Random(seed))
        self.decisions = Decisions()
        self.activity = Activity()
        self.reporter = Reporter(
            self.leases,
            self.monitors,
            seconds=self.clock.seconds,
            wall=lambda: STARTED + self.clock.seconds(),
            inside=Inside(self.clock, lambda: 900),
            decisions=lambda: self.decisions,
            ports=lambda: {"balance": ["*:5656"]},
        )
        self.outcome: Callable[[Lease], Outcome] = lambda lease: Outcome.ANSWERED
        self._ends: list[tuple[float, int, Compile]] = []
        self._number = 40000
        self._serial = 0

    def ask(self, address: str = "10.0.0.9", seconds: float = math.inf, **wishes: object) -> Compile:
        """A client asks for a slot, and has it for so long."""
        self._number = 40000 + (self._number + 7) % 20000
        job = Compile(self, seconds)
        self.leases.ask(Request(address, self._number, address, **wishes), job)  # type: ignore[arg-type]
        return job

    def ends(self, job: Compile) -> None:
        """It was granted a slot: note when its job ends."""
        if job.seconds < math.inf:
            self._serial += 1
            heapq.heappush(self._ends, (self.clock.seconds() + job.seconds, self._serial, job))

    def decide(self, name: str, key: str, value: object, file: object = None, why: str = "", by: str = "alice") -> None:
        """A person decides something."""
        at = STARTED + self.clock.seconds()
        self.decisions = self.decisions.with_(name, key, Decision(value, file, by, at, why))
        if key == "admin":
            self.leases.set_admin(name, AdminState(value), why)
        if key == "weight" and isinstance(value, int):
            self.leases.report(name, "admin", up=True, weight=value, reason=f"weight {value / 1000:g}, says {by}")
        if key == "slots":
            farm = self.leases.scheduler.farm
            specs = tuple(replace(spec, slots=value) if spec.name == name else spec for spec in farm.hosts)  # type: ignore[arg-type]
            self.leases.configure(replace(farm, hosts=specs))

    def watch(self, answers: dict[str, dict[str, object]], interval: float = 10.0) -> dict[str, Kind]:
        """Have monitors by these names ask every host; what they answer, by host."""
        kinds = {}
        assignments = []
        for source, by_host in answers.items():
            kind = kinds[source] = Kind(self.clock)
            kind.answers = by_host
            options = kind.options(interval=interval, fall=1, rise=1)
            names = [spec.name for spec in self.leases.scheduler.farm.hosts]
            assignments += [Assignment(Target(name, name, 3632), source, kind, options) for name in names]
        self.monitors.configure(assignments)
        return kinds

    def go(self, seconds: float, each: Callable[[], None] = lambda: None) -> None:
        """Let time pass, a second at once: jobs end, and each second something happens."""
        for _ in range(round(seconds)):
            self.clock.advance(1.0)
            while self._ends and self._ends[0][0] <= self.clock.seconds():
                heapq.heappop(self._ends)[2].end()
            each()
            self.activity.look(self.clock.seconds(), *self.reporter.activity)

    def stop(self) -> None:
        """The end of it: nothing of it is left on the clock that matters."""
        self.leases.stop()


class GoingOn:
    """The reactor's time, going on from where a farm's clock stands, and faster.

    :param pace: how many seconds of it pass in one.
    """

    def __init__(self, start: float, pace: float = 1.0) -> None:
        self._start = start
        self._began = reactor.seconds()
        self._pace = pace

    def seconds(self) -> float:
        return self._start + (reactor.seconds() - self._began) * self._pace

    def callLater(self, delay: float, *call: Any, **named: Any) -> IDelayedCall:
        return reactor.callLater(delay / self._pace, *call, **named)


class Served:
    """A farm's page on a port of its own, as the daemon serves it.

    :param pace: frames are made so many times as often, so that nobody waits for them.
    """

    def __init__(self, shown: Shown, port: int = 0, pace: float = 1.0) -> None:
        self.shown = shown
        clock: Any = GoingOn(shown.clock.seconds(), pace)
        self.site = site_of(shown.reporter, allow=("any",), most=1000)
        self.feed = install(self.site.resource, self.site.answers, shown.reporter, shown.activity, clock)
        site: Any = self.site
        self.port: Any = reactor.listenTCP(port, site, interface="127.0.0.1")
        self.feed.start()
        where: Any = self.port.getHost()
        self.number = int(where.port)
        self.url = f"http://127.0.0.1:{self.number}/"

    async def stop(self) -> None:
        """No longer; every connection is closed."""
        self.feed.stop()
        await maybeDeferred(self.port.stopListening)
        self.site.close()
        self.shown.leases.stop()


def farm(*hosts: str) -> list[HostSpec]:
    """Hosts written NAME/SLOTS, one a rank."""
    specs = []
    for rank, written in enumerate(hosts):
        name, _, slots = written.partition("/")
        host = name.removesuffix(":3632").strip("[]")
        specs.append(HostSpec(name, int(slots or 1), rank, address=(host, 3632)))
    return specs
