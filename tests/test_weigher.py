"""A weight from CPU times or the load average, whichever is wanted and to be had."""

from __future__ import annotations

import pytest

from distbal.loads import CpuTimes
from distbal.monitors.weigher import Weighed, Weigher

#: a host at rest: 100 units of idle time a second
REST = CpuTimes(0, 0, 0, 100)


def at(seconds: float, *, user: int = 0, nice: int = 0) -> CpuTimes:
    """The times of a host that, of 100 a second, spends so many on this and is idle otherwise."""
    return CpuTimes(int(user * seconds), int(nice * seconds), 0, int((100 - user - nice) * seconds))


def test_cpu_times_say_something_from_the_second_look_on() -> None:
    weigher = Weigher("cpu")
    first = weigher.weigh(at(100, user=50), 9.0, 4, 0.0, 100.0)
    assert first == Weighed(
        None, "has told its CPU times, and with the next ones a share can be said", {"load": 9.0, "cpus": 4}
    )
    second = weigher.weigh(at(115, user=50), 2.0, 4, 0.0, 115.0)
    assert second.weight == pytest.approx(0.5)
    assert second.reason == "has 50% of its CPU time left for us"
    assert second.facts == {"load": 2.0, "cpus": 4, "share": 0.5, "by": "cpu"}


def test_what_runs_niced_is_ours() -> None:
    weigher = Weigher("cpu")
    weigher.weigh(at(0), 8.0, 8, 0.0, 0.0)
    assert weigher.weigh(at(15, nice=100), 8.0, 8, 0.0, 15.0).weight == 1.0


def test_the_load_average_less_what_we_lent_says_something_at_once() -> None:
    weighed = Weigher("loadavg").weigh(REST, 3.0, 4, 1.0, 0.0)
    assert weighed.weight == pytest.approx(0.5)
    assert weighed.reason == "has a load of 3 on 4 CPUs, 1 of it ours: 50% is left for us"
    assert weighed.facts == {"load": 3.0, "cpus": 4, "ours": 1.0, "share": 0.5, "by": "loadavg"}


def test_the_load_average_stands_in_for_cpu_times() -> None:
    weighed = Weigher("cpu").weigh(None, 1.0, 1, 0.5, 0.0)
    assert weighed.weight == pytest.approx(0.5)
    assert weighed.reason == "has a load of 1 on 1 CPU, 0.5 of it ours: 50% is left for us"


@pytest.mark.parametrize(("load", "cpus"), [(None, 4), (1.0, None)])
def test_cpu_times_stand_in_for_the_load_average(load: float | None, cpus: int | None) -> None:
    weigher = Weigher("loadavg")
    weigher.weigh(at(0), load, cpus, 0.0, 0.0)
    weighed = weigher.weigh(at(15, user=50), load, cpus, 0.0, 15.0)
    assert weighed.weight == pytest.approx(0.5)
    assert weighed.facts["by"] == "cpu"


def test_nothing_is_known_of_a_host_that_tells_nothing() -> None:
    assert Weigher("cpu").weigh(None, None, None, 0.0, 0.0) == Weighed(None, "tells neither its CPU times nor its load", {})
    assert Weigher("cpu").weigh(None, 1.0, None, 0.0, 0.0).weight is None


def test_a_host_that_was_started_anew_keeps_its_weight_until_the_next_look() -> None:
    weigher = Weigher("cpu")
    weigher.weigh(at(1000, user=50), None, 4, 0.0, 1000.0)
    weigher.weigh(at(1015, user=50), None, 4, 0.0, 1015.0)
    anew = weigher.weigh(at(1), None, 4, 0.0, 1030.0)
    assert anew.weight == pytest.approx(0.5)
    assert "share" not in anew.facts
    assert weigher.weigh(at(3600), None, 4, 0.0, 5000.0).weight == 1.0


def test_a_kernel_that_does_not_count_is_weighed_by_its_load() -> None:
    weigher = Weigher("cpu")
    for now in (0.0, 15.0):
        weighed = weigher.weigh(CpuTimes(0, 0, 0, 0), 1.0, 2, 0.0, now)
    assert weighed.weight == pytest.approx(0.5)
    assert weighed.facts["by"] == "loadavg"


def test_a_look_without_times_does_not_lose_the_ones_before() -> None:
    weigher = Weigher("cpu")
    weigher.weigh(at(0), None, None, 0.0, 0.0)
    weigher.weigh(None, None, None, 0.0, 15.0)
    assert weigher.weigh(at(30, user=50), None, None, 0.0, 30.0).weight == pytest.approx(0.5)
