"""The event loop's lag: how late a timer is, over the last seconds, the last minute and all the time."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from distbal.lag import AGAIN, BOUNDS, INTERVAL, LONG, MEMORY, Lag
from tests.services import Lines


def lag_on(clock: Clock) -> Lag:
    lag = Lag(clock)
    lag.start()
    return lag


def calm(clock: Clock, seconds: float) -> None:
    clock.pump([INTERVAL] * round(seconds / INTERVAL))


def test_an_idle_loop_is_never_late() -> None:
    clock = Clock()
    lag = lag_on(clock)
    assert lag.over(10) == (0.0, 0.0)
    calm(clock, 30)
    assert lag.over(10) == (0.0, 0.0)
    assert (lag.looks, lag.counts) == (120, (120,) * (len(BOUNDS) + 1))
    lag.stop()
    assert clock.getDelayedCalls() == []


def test_what_holds_it_up_is_seen_for_as_long_as_it_is_asked_for() -> None:
    clock = Clock()
    lag = lag_on(clock)
    calm(clock, 5)
    clock.advance(INTERVAL + 0.5)
    calm(clock, 5)
    mean, most = lag.over(10)
    assert math.isclose(most, 0.5)
    assert 0 < mean < 0.05
    calm(clock, 20)
    assert lag.over(10)[1] == 0.0
    assert math.isclose(lag.over(60)[1], 0.5)
    calm(clock, 60)
    assert lag.over(60)[1] == 0.0
    assert math.isclose(lag.worst, 0.5)
    assert lag.counts[-1] - lag.counts[BOUNDS.index(0.3)] == 1
    lag.stop()


def test_more_than_a_second_is_a_complaint_once_a_minute() -> None:
    clock = Clock()
    lag = lag_on(clock)
    with Lines() as lines:
        clock.advance(INTERVAL + LONG)
        assert lines.of("warn") == []
        clock.advance(INTERVAL + 2.5)
        assert lines.of("warn") == ["everybody was held up for 2.5 s: the event loop did not get its turn"]
        for _ in range(5):
            clock.advance(INTERVAL + 3)
        assert len(lines.of("warn")) == 1
        calm(clock, AGAIN)
        clock.advance(INTERVAL + 4)
        assert lines.of("warn")[1:] == ["everybody was held up for 4.0 s: the event loop did not get its turn"]
    lag.stop()


@given(st.lists(st.floats(0, 5), min_size=1, max_size=100))
def test_it_is_what_a_list_of_all_looks_says(steps: list[float]) -> None:
    clock = Clock()
    lag = lag_on(clock)
    seen: list[tuple[float, float]] = []
    looked = 0
    for step in steps:
        clock.advance(step)
        if lag.looks > looked:
            looked = lag.looks
            seen.append((clock.seconds(), lag._timer.late))
    for seconds in (10.0, MEMORY):
        late = [one for at, one in seen if at >= clock.seconds() - seconds]
        assert math.isclose(lag.over(seconds)[1], max(late, default=0.0))
        assert math.isclose(lag.over(seconds)[0], sum(late) / len(late) if late else 0.0, abs_tol=1e-9)
    assert math.isclose(lag.worst, max((one for _, one in seen), default=0.0))
    assert lag.counts[-1] == lag.looks == len(seen)
    assert all(0 <= one <= 5 for _, one in seen)
    lag.stop()
