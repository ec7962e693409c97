"""What a load says of a host, and that it does not make the farm flap: by numbers, and in farms that are simulated."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
from twisted.internet.task import Clock

from distbal.health import Verdict
from distbal.judge import thousandths
from distbal.leases import LocalLeases
from distbal.loads import BAND, SAMPLE, SETTLED, CpuTimes, LoadAverage, Steady, share_by_load, share_left
from distbal.monitors.slots import Slots
from distbal.monitors.weigher import Weigher
from distbal.outcomes import Outcome
from distbal.requests import Lease
from tests.farms import scheduler, spec
from tests.takers import Client, ask

CPUS = 8


def test_the_first_line_of_proc_stat() -> None:
    assert CpuTimes.parse("cpu  1 2 3 4 5 6 7 8 9 10") == CpuTimes(1, 2, 3, 4, 5, 6, 7, 8)
    assert CpuTimes.parse("cpu 1 2 3 4") == CpuTimes(1, 2, 3, 4)
    for line in ("cpu0 1 2 3 4", "cpu 1 2 3", "cpu a b c d"):
        with pytest.raises(ValueError, match=r"is no line of CPU times|invalid literal"):
            CpuTimes.parse(line)


def test_what_was_added_since() -> None:
    assert CpuTimes(5, 5, 5, 9).since(CpuTimes(1, 2, 3, 4)) == CpuTimes(4, 3, 2, 5)
    assert CpuTimes(5, 5, 5, 9, 1).since(CpuTimes(1, 2, 3, 4, 2)) == CpuTimes(4, 3, 2, 5), "iowait may go back a little"
    assert CpuTimes(1, 2, 3, 4).since(CpuTimes(1, 2, 3, 4)) is None
    assert CpuTimes(1, 2, 3, 4).since(CpuTimes(100, 200, 300, 400)) is None, "it was started anew"


@pytest.mark.parametrize(
    ("step", "share"),
    [
        (CpuTimes(0, 0, 0, 100), 1.0),
        (CpuTimes(0, 100, 0, 0), 1.0),
        (CpuTimes(100, 0, 0, 0), 0.0),
        (CpuTimes(40, 40, 20, 0), 0.5),
        (CpuTimes(0, 80, 20, 0), 1.0),
        (CpuTimes(0, 50, 0, 0, steal=50), 0.5),
        (CpuTimes(50, 0, 0, 0, iowait=50), 0.5),
    ],
)
def test_the_share_that_is_left(step: CpuTimes, share: float) -> None:
    assert share_left(step) == pytest.approx(share)


def test_the_share_by_load_stays_within_its_bounds() -> None:
    assert [share_by_load(load, ours, 4) for load, ours in ((0, 0), (4, 4), (2, 4), (6, 4), (9, 0))] == [1, 1, 1, 0.5, 0]


def test_a_weight_does_not_follow_what_is_within_its_band() -> None:
    steady = Steady()
    assert steady.take(0.5, 0.0) == 0.5
    seen = {steady.take(0.5 + BAND * (0.9 if second % 2 else -0.9), float(second)) for second in range(1, 60)}
    assert seen == {0.5}
    # what has left it for good is followed, however little it is
    for second in range(60, 600):
        last = steady.take(0.55, float(second))
    assert last == pytest.approx(0.55, abs=0.03)


def test_a_little_is_nothing_and_nearly_all_is_all() -> None:
    assert [Steady().take(share, 0.0) for share in (0.01, 0.03, 0.94, 0.96)] == [0.0, 0.03, 0.94, 1.0]


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_beside_an_end_a_weight_does_not_go_to_and_fro(end: float) -> None:
    steady = Steady()
    inwards = 0.06 if end == 0.0 else -0.06
    weights = [steady.take(end + (inwards if second % 120 < 60 else 0.0), float(second)) for second in range(1200)]
    assert len(set(weights[200:])) == 1


# -- farms


class Simulation:
    """One host with as many slots as CPUs, clients without end, and somebody else's work; a second is a step.

    :ivar theirs: how many CPUs' worth of work at the usual priority somebody else has there now.
    :ivar weights: the weight after each check.
    """

    def __init__(self, weight_by: str) -> None:
        self.clock = Clock()
        self.farm = scheduler(spec("host", CPUS))
        self.leases = LocalLeases(self.farm, self.clock)
        self.theirs = 0.0
        self.weights: list[float] = []
        self._slots = Slots(self.leases)
        self._weigher = Weigher(weight_by)
        self._times = [0.0, 0.0, 0.0]
        self._load = LoadAverage()
        self._running: list[tuple[float, Lease]] = []
        self._draw = random.Random(4)
        self._by_load = weight_by == "loadavg"

    def run(self, seconds: int, theirs: Callable[[], float] | float) -> list[float]:
        """Let time pass; the weights of that time."""
        first = len(self.weights)
        for _ in range(seconds):
            self.theirs = theirs() if callable(theirs) else theirs
            self._second()
        return self.weights[first:]

    def _second(self) -> None:
        self.clock.advance(1.0)
        now = self.clock.seconds()
        for end, lease in [one for one in self._running if one[0] <= now]:
            self._running.remove((end, lease))
            self.leases.release(lease, Outcome.CLOSED)
        while self.farm.host("host").available:
            client = Client()
            ask(self.leases, client)
            assert client.lease is not None
            self._running.append((now + self._draw.uniform(2, 20), client.lease))
        # what is niced gets what the others leave, as each of them is one process
        user = min(self.theirs, CPUS)
        nice = min(len(self._running), CPUS - user)
        for index, used in enumerate((user, nice, CPUS - user - nice)):
            self._times[index] += 100 * used
        if now % SAMPLE == 0:
            self._load.sample(self.theirs + len(self._running))
            self._slots.sample()
        if now % 15 == 0:
            self._check(now)

    def _check(self, now: float) -> None:
        user, nice, idle = map(int, self._times)
        times = None if self._by_load else CpuTimes(user, nice, 0, idle)
        weighed = self._weigher.weigh(times, self._load.value, CPUS, self._slots.average("host"), now)
        if weighed.weight is not None:
            self.farm.report("host", Verdict("ssh", up=True, at=now, weight=thousandths(weighed.weight)))
            self.weights.append(weighed.weight)


def changes(weights: list[float]) -> int:
    return sum(one != other for one, other in itertools.pairwise(weights))


@pytest.fixture(params=["cpu", "loadavg"])
def host(request: pytest.FixtureRequest) -> Simulation:
    return Simulation(request.param)


def test_a_host_at_full_work_by_us_alone_keeps_its_weight(host: Simulation) -> None:
    weights = host.run(1800, 0.0)
    assert len(weights) > 100
    assert min(weights[8:]) > 0.9


def test_half_of_its_cpus_for_somebody_else_are_half_of_its_weight_within_two_minutes(host: Simulation) -> None:
    host.run(600, 0.0)
    busy = host.run(600, CPUS / 2)
    assert busy[120 // 15 :]
    assert all(weight == pytest.approx(0.5, abs=0.15) for weight in busy[120 // 15 :])
    assert changes(busy[120 // 15 :]) <= 2
    back = host.run(600, 0.0)
    assert min(back[120 // 15 :]) > 0.85
    assert back[-1] > 0.9
    # on its way it turns round nowhere
    assert busy == sorted(busy, reverse=True)
    assert back == sorted(back)


def test_a_load_that_wobbles_does_not_make_the_farm_flap(host: Simulation) -> None:
    draw = random.Random(1)
    host.run(600, 2.0)
    weights = host.run(3600, lambda: 2.0 + draw.choice((-1.0, 1.0)))
    assert len(weights) == 240
    # what comes in wobbles by a quarter of the host: what goes out by less than one of its slots
    assert max(weights) - min(weights) < 1 / CPUS
    assert max(abs(weight - 0.75) for weight in weights) < 0.1
    # and rarely: once a minute at the most
    assert changes(weights) <= 3600 / SETTLED
