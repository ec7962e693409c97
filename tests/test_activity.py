"""The ring of the last hour: what looks fold into, what is forgotten, and what nobody looked at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbal.activity import Activity, Bin


def test_looks_fold_into_their_average_and_their_most() -> None:
    activity = Activity(width=10, bins=6)
    for second, (active, waiting) in enumerate([(1, 0), (3, 0), (8, 6)]):
        assert not activity.look(100 + second, active, waiting)
    assert activity.hour() == [Bin(10, 4.0, 8, 2.0, 6)]
    assert activity.look(110, 5, 1), "the first look of the next stretch fills the one before"
    assert activity.hour() == [Bin(10, 4.0, 8, 2.0, 6), Bin(11, 5.0, 5, 1.0, 1)]
    assert activity.newest == 11


def test_nobody_looked_yet() -> None:
    activity = Activity()
    assert activity.hour() == []
    assert activity.newest is None


def test_only_the_last_hour_is_kept() -> None:
    activity = Activity()
    for second in range(0, 3 * 3600, 5):
        activity.look(second, second // 10, 0)
    bins = activity.hour()
    assert [one.number for one in bins] == list(range(3 * 360 - 360, 3 * 360))
    assert {one.most_active - one.number for one in bins} == {0}


def test_what_nobody_looked_at_is_a_gap_and_not_zero() -> None:
    activity = Activity(width=10, bins=6)
    activity.look(0, 1, 0)
    activity.look(31, 2, 0)
    assert [one.number for one in activity.hour()] == [0, 3]
    activity.look(85, 3, 0)
    assert [one.number for one in activity.hour()] == [3, 8], "what is older than the ring is long is left out"


def test_a_clock_that_goes_back_stands_still() -> None:
    activity = Activity(width=10, bins=6)
    activity.look(100, 1, 0)
    assert not activity.look(50, 3, 0)
    assert activity.hour() == [Bin(10, 2.0, 3, 0.0, 0)]


@pytest.mark.parametrize(("width", "bins"), [(0, 1), (-1, 1), (10, 0)])
def test_a_ring_of_nothing_is_refused(width: float, bins: int) -> None:
    with pytest.raises(ValueError, match="at least one bin of more than 0 seconds"):
        Activity(width, bins)


@given(st.lists(st.tuples(st.floats(0, 500), st.integers(0, 99), st.integers(0, 99)), max_size=60))
def test_bins_are_in_order_and_bounded_whatever_is_seen(looks: list[tuple[float, int, int]]) -> None:
    activity = Activity(width=10, bins=5)
    for now, active, waiting in looks:
        activity.look(now, active, waiting)
    bins = activity.hour()
    numbers = [one.number for one in bins]
    assert numbers == sorted(set(numbers))
    assert len(bins) <= 5
    assert all(0 <= one.active <= one.most_active and 0 <= one.waiting <= one.most_waiting for one in bins)
