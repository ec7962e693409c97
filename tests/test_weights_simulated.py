"""Weights at work: a farm in simulated time, whose hosts share their CPUs as Linux does between our jobs and somebody else's.

The hosts are made up, and all else is real: the scheduler and its leases, the slots' averages, the weights that are made of CPU
times or load averages, and the judge. As a monitor does, it looks at each host every 15 s.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import astuple

import pytest
from twisted.internet.task import Clock

from distbal.interfaces import Reading
from distbal.judge import Judge
from distbal.leases import LocalLeases
from distbal.loads import ALL, SAMPLE, CpuTimes, LoadAverage, Steady, share_by_load, share_left
from distbal.monitors.slots import Slots
from distbal.outcomes import Outcome
from distbal.requests import Lease, Request, Ticket
from tests.farms import scheduler, spec

#: seconds from one moment to the next, between two looks, and by how much those come sooner or later
TICK, LOOK, JITTER = 0.5, 15.0, 1.5
#: for how long a verdict holds
HOLDS = 50.0
#: Linux gives a process of niceness 0 so much, and one of 5 so much (sched_prio_to_weight in kernel/sched/core.c)
WEIGHT, NICED_WEIGHT = 1024, 335
#: the share of a compiler's time that the kernel works for it; what daemons take of one CPU all the time
KERNEL, DAEMONS = 0.15, 0.02
#: ticks in a second (proc(5))
HZ = 100

#: from a time in seconds to how many CPUs somebody else's processes want, or to how many jobs there are
Course = Callable[[float], float]


class Job:
    """One of ours: it is sent, and then compiled."""

    def __init__(self, farm: Simulation) -> None:
        self.sending = farm.draw.uniform(0.0, 1.0)
        self.left = farm.draw.uniform(1.0, 8.0)
        self.lease: Lease | None = None
        self._farm = farm

    def granted(self, lease: Lease) -> None:
        assert lease.host.leases <= lease.host.capacity
        self.lease = lease
        self._farm.machines[lease.host_name].jobs.append(self)

    def refused(self, ticket: Ticket, reason: str) -> None:
        raise AssertionError(reason)

    def lost(self, lease: Lease, reason: str) -> None:
        raise AssertionError(f"a running lease was cut: {reason}")


class Machine:
    """A host.

    :param others: what somebody else wants of it.
    :param phase: when its kernel samples what runs.
    """

    def __init__(self, cpus: int, others: Course, phase: float) -> None:
        self.cpus = cpus
        self.others = others
        self.jobs: list[Job] = []
        self._load = LoadAverage()
        self._next_sample = phase
        self._times = {"user": 0.0, "nice": 0.0, "system": 0.0, "idle": 0.0}

    def work(self, now: float) -> list[Job]:
        """Let a moment pass; the jobs that are done."""
        theirs = self.others(now)
        running = [job for job in self.jobs if job.sending <= 0.0]
        each, each_of_ours = self._shares(theirs, len(running))
        for job in self.jobs:
            job.sending -= TICK
        for job in running:
            job.left -= each_of_ours * TICK
        ours = each_of_ours * len(running)
        used = {
            "user": each * theirs + DAEMONS,
            "nice": ours * (1.0 - KERNEL),
            "system": ours * KERNEL,
            "idle": max(0.0, self.cpus - each * theirs - ours - DAEMONS),
        }
        for name, cpus in used.items():
            self._times[name] += cpus * TICK * HZ
        if now >= self._next_sample:
            self._next_sample += SAMPLE
            self._load.sample(theirs + len(running))
        done = [job for job in self.jobs if job.left <= 0.0]
        self.jobs = [job for job in self.jobs if job.left > 0.0]
        return done

    def _shares(self, theirs: float, ours: int) -> tuple[float, float]:
        """What one process of somebody else's gets of a CPU, and what one of ours does."""
        if theirs + ours <= self.cpus:
            return 1.0, 1.0
        unit = self.cpus / (WEIGHT * theirs + NICED_WEIGHT * ours)
        if WEIGHT * unit < 1.0:
            return WEIGHT * unit, NICED_WEIGHT * unit
        return 1.0, (self.cpus - theirs) / ours

    def proc_stat(self) -> str:
        times = self._times
        return f"cpu  {times['user']:.0f} {times['nice']:.0f} {times['system']:.0f} {times['idle']:.0f} 0 0 0 0 0 0"

    def proc_loadavg(self) -> float:
        """As the kernel prints it."""
        return round(self._load.value, 2)


class Watch:
    """Looks at one host as a monitor does."""

    def __init__(self, name: str, farm: Simulation) -> None:
        self.name = name
        self.due = farm.draw.uniform(0.0, LOOK)
        self._farm = farm
        self._judge = Judge(3, 2)
        self._steady = Steady()
        self._before: CpuTimes | None = None

    def look(self, now: float) -> None:
        farm, machine = self._farm, self._farm.machines[self.name]
        self.due += LOOK + farm.draw.uniform(-JITTER, JITTER)
        if farm.by == "cpu times":
            share = self._by_times(share_left)
        elif farm.by == "idle time":
            share = self._by_times(lambda step: step.idle / sum(astuple(step)))
        else:
            ours = farm.slots.average(self.name) if farm.by == "load average" else farm.slots.lent(self.name)
            share = share_by_load(machine.proc_loadavg(), ours, machine.cpus)
        weight = None if share is None else self._steady.take(share, now)
        opinion = self._judge.hear(Reading(up=True, reason="works", weight=weight))
        assert opinion is not None
        farm.leases.report(self.name, "ssh", up=opinion.up, weight=opinion.weight, ttl=HOLDS)

    def _by_times(self, share: Callable[[CpuTimes], float]) -> float | None:
        times = CpuTimes.parse(self._farm.machines[self.name].proc_stat())
        step, self._before = (None if self._before is None else times.since(self._before)), times
        return None if step is None else share(step)


class Simulation:
    """A farm.

    :param machines: host by name, and somebody else's work there.
    :param jobs: how many jobs there are, running and waiting.
    :param extra: slots beyond the number of CPUs.
    :param by: what weights are made of: "cpu times" or "load average"; or, wrongly, "idle time" alone, or the load average less
        what is lent "now".

    :ivar seen: by host: its weight and capacity at each second.
    """

    def __init__(
        self, machines: dict[str, tuple[int, Course]], jobs: Course, *, by: str = "cpu times", extra: int = 0, seed: int = 1
    ) -> None:
        self.draw = random.Random(seed)
        self.by = by
        self.machines = {
            name: Machine(cpus, others, self.draw.uniform(0.0, SAMPLE)) for name, (cpus, others) in machines.items()
        }
        self.clock = Clock()
        hosts = [spec(name, cpus + extra, rank) for rank, (name, (cpus, _)) in enumerate(machines.items())]
        self.leases = LocalLeases(scheduler(*hosts), self.clock)
        self.slots = Slots(self.leases)
        self.jobs = jobs
        self.done = 0
        self.seen: dict[str, list[tuple[float, int]]] = {name: [] for name in machines}
        self._watches = [Watch(name, self) for name in machines]

    def run(self, seconds: float) -> None:
        core = self.leases.scheduler
        for _ in range(int(seconds / TICK)):
            self.clock.advance(TICK)
            now = self.clock.seconds()
            for _ in range(int(self.jobs(now)) - core.waiting - core.lent):
                self.leases.ask(Request("10.0.0.9", 0, "10.0.0.9"), Job(self))
            for machine in self.machines.values():
                for job in machine.work(now):
                    assert job.lease is not None
                    self.done += 1
                    self.leases.release(job.lease, Outcome.ANSWERED)
            if now % SAMPLE == 0:
                self.slots.sample()
            for watch in self._watches:
                if watch.due <= now:
                    watch.look(now)
            if now % 1.0 == 0:
                for name, seen in self.seen.items():
                    host = core.host(name)
                    seen.append((host.health.weight / 1000, host.capacity))

    def weights(self, name: str, since: int = 0, until: int | None = None) -> list[float]:
        return [weight for weight, _ in self.seen[name][since:until]]

    def changes(self, name: str, since: int = 0, until: int | None = None) -> list[int]:
        """By how many slots its capacity changed, each time."""
        seen = self.seen[name][since:until]
        return [after - before for (_, before), (_, after) in itertools.pairwise(seen) if before != after]


def always(number: float) -> Course:
    return lambda now: number


def between(begin: float, end: float, number: float) -> Course:
    return lambda now: number if begin <= now < end else 0.0


@pytest.mark.parametrize("by", ["cpu times", "load average"])
@pytest.mark.parametrize("extra", [0, 2])
@pytest.mark.parametrize("cpus", [1, 2, 8, 32])
def test_full_work_by_us_alone_keeps_the_weight(cpus: int, extra: int, by: str) -> None:
    farm = Simulation({"fast": (cpus, always(0))}, always(3 * cpus + 3), by=by, extra=extra)
    farm.run(600)
    assert min(farm.weights("fast")) == 1.0
    assert farm.done >= 600 * cpus / 4.5 * 0.8


@pytest.mark.parametrize("by", ["cpu times", "load average"])
@pytest.mark.parametrize("pace", [20, 60, 200])
def test_builds_of_ours_that_come_and_go_keep_the_weight(pace: int, by: str) -> None:
    farm = Simulation({"fast": (8, always(0))}, lambda now: 30 * (now // pace % 2), by=by, extra=2)
    farm.run(1200)
    assert min(farm.weights("fast")) >= ALL


@pytest.mark.parametrize(("by", "turns"), [("idle time", 0), ("now", 10)])
def test_weights_that_our_own_work_lowers_would_not_do(by: str, turns: int) -> None:
    """What the two tests above would show: half of the host would be left idle, or its weight go to and fro with our builds."""
    farm = Simulation({"fast": (8, always(0))}, lambda now: 30 * (1 - now // 60 % 2) if turns else 30, by=by, extra=2)
    farm.run(1200)
    assert min(farm.weights("fast")) < 0.6
    ups = [change > 0 for change in farm.changes("fast")]
    assert sum(before != after for before, after in itertools.pairwise(ups)) >= turns


@pytest.mark.parametrize("busy", [True, False], ids=["with jobs of ours", "without"])
@pytest.mark.parametrize(("by", "soon", "most"), [("cpu times", 120, 0.6), ("load average", 240, 0.7)])
@pytest.mark.parametrize("cpus", [2, 4, 8, 32])
def test_somebody_else_on_half_of_the_cpus(cpus: int, by: str, soon: int, most: float, busy: bool) -> None:
    """By load average it takes longer, and jobs that are lent and do not run yet hide some of somebody else's."""
    begin, end = 300, 900
    farm = Simulation({"fast": (cpus, between(begin, end, cpus / 2))}, always(3 * cpus * busy), by=by)
    farm.run(end + soon + 300)
    assert set(farm.weights("fast", 0, begin)) == {1.0}
    half = farm.weights("fast", begin + soon, end)
    assert 0.4 <= min(half) <= max(half) <= most
    assert set(farm.weights("fast", end + soon)) == {1.0}
    assert max(farm.changes("fast", begin, end)) < 0 < min(farm.changes("fast", end)), "down and up, and not to and fro"
    assert farm.leases.scheduler.lent <= cpus


def test_no_running_lease_is_cut_and_no_new_one_exceeds_the_share() -> None:
    """Jobs that were lent before go on; the other host, which nobody else uses, gets what this one is not given any more."""
    farm = Simulation({"shared": (8, between(300, 900, 4)), "own": (8, always(0))}, always(40))
    farm.run(300)
    assert [farm.leases.scheduler.host(name).leases for name in ("shared", "own")] == [8, 8]
    before = {lease.id for lease in farm.leases.snapshot().leases}
    farm.run(300)
    ended = farm.leases.scheduler.counts["ended"]
    assert ended == farm.done, "each one that ended had done its job"
    assert not before & {lease.id for lease in farm.leases.snapshot().leases}
    assert farm.leases.scheduler.host("shared").leases <= 5
    assert farm.leases.scheduler.host("own").leases == 8
    farm.run(600)
    assert [farm.leases.scheduler.host(name).leases for name in ("shared", "own")] == [8, 8]


def test_somebody_else_on_all_cpus_gets_them_all() -> None:
    farm = Simulation({"fast": (4, between(60, 600, 4))}, always(12))
    farm.run(900)
    assert farm.weights("fast")[590] <= 0.3, "what our niced jobs still got there is not somebody else's"
    assert set(farm.weights("fast", 720)) == {1.0}


#: loads that go up and down by a tenth of the CPUs: by chance, in waves, or at once
WOBBLES: dict[str, Course] = {
    "chance": lambda now: random.Random(int(now)).uniform(-1.0, 1.0),
    "wave": lambda now: [0.0, 0.7, 1.0, 0.7, 0.0, -0.7, -1.0, -0.7][int(now / 15) % 8],
    "square": lambda now: 1.0 if now // 40 % 2 else -1.0,
    "slow": lambda now: 1.0 if now // 130 % 2 else -1.0,
}


@pytest.mark.parametrize("by", ["cpu times", "load average"])
@pytest.mark.parametrize("wobble", list(WOBBLES))
@pytest.mark.parametrize("level", [0.05, 0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_load_that_wobbles_does_not_make_the_farm_flap(level: float, wobble: str, by: str) -> None:
    cpus, minutes = 16, 20
    farm = Simulation(
        {"fast": (cpus, lambda now: cpus * min(1.0, max(0.0, level + 0.1 * WOBBLES[wobble](now))))}, always(40), by=by
    )
    farm.run(120 + 60 * minutes)
    assert len(farm.changes("fast", since=120)) <= minutes * 1.2
