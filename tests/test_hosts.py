"""A host: its capacity to the slot, and when it is available."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbal.health import Verdict
from distbal.hosts import AdminState, Host, HostSpec


def host(slots: int = 4) -> Host:
    return Host(HostSpec("snookles:3632", slots, 0), 0)


def weighed(slots: int, weight: int) -> Host:
    made = host(slots)
    made.health.hear(Verdict("load", up=True, at=0.0, weight=weight))
    made.weigh()
    return made


@pytest.mark.parametrize(
    ("slots", "weight", "capacity"),
    [
        (4, 1000, 4),
        (4, 0, 0),
        (4, 1, 1),  # at least one while the weight is above 0
        (4, 374, 1),  # 1.496
        (4, 375, 2),  # 1.5: half up
        (4, 624, 2),  # 2.496
        (4, 625, 3),  # 2.5: half up, not half to even
        (4, 874, 3),
        (4, 875, 4),
        (4, 999, 4),
        (1, 1, 1),
        (1, 499, 1),
        (1, 500, 1),
        (1, 1000, 1),
        (3, 500, 2),  # 1.5
        (5, 300, 2),  # 1.5, which is a little less in binary fractions
        (5, 500, 3),
        (7, 71, 1),
        (16, 31, 1),
        (16, 93, 1),  # 1.488
        (16, 94, 2),  # 1.504
        (1000, 1, 1),
        (1000, 999, 999),
        (10_000, 1, 10),
    ],
)
def test_capacity(slots: int, weight: int, capacity: int) -> None:
    made = weighed(slots, weight)
    assert made.capacity == capacity
    assert made.available is (capacity > 0)
    assert made.up, "a weight of 0 leaves a host up: it may be given more again at any time"


@given(st.integers(1, 500), st.integers(0, 1000))
def test_capacity_is_between_none_and_all(slots: int, weight: int) -> None:
    capacity = weighed(slots, weight).capacity
    assert (capacity > 0) is (weight > 0)
    assert capacity <= slots
    assert capacity in (0, 1) or abs(capacity * 1000 - slots * weight) <= 500


def test_a_new_host_is_available() -> None:
    made = host()
    assert made.up
    assert made.available
    assert (made.capacity, made.free, made.leases) == (4, 4, 0)
    assert made.admin is AdminState.READY
    assert repr(made) == "<Host snookles:3632 0/4>"


def test_full_is_not_available() -> None:
    made = host(2)
    for leases, available in [(1, True), (2, False), (3, False)]:
        made.leases = leases
        made.weigh()
        assert made.available is available
        assert made.capacity == 2
        assert made.up


@pytest.mark.parametrize("state", [AdminState.DRAIN, AdminState.DOWN])
def test_a_person_takes_it_out(state: AdminState) -> None:
    made = host()
    made.leases = 1
    made.admin = state
    made.weigh()
    assert not made.available
    assert not made.up
    assert made.capacity == 0
    assert made.free == 3, "its slots are still counted as the file has them"
    made.admin = AdminState.READY
    made.weigh()
    assert made.available


def test_down_says_a_source() -> None:
    made = host()
    made.health.hear(Verdict("update", up=False, at=0.0))
    made.weigh()
    assert (made.up, made.available, made.capacity) == (False, False, 0)


def test_removed_from_the_file() -> None:
    made = host()
    made.removed = True
    made.weigh()
    assert (made.up, made.available, made.capacity) == (False, False, 0)


@given(
    leases=st.integers(0, 5),
    up=st.booleans(),
    weight=st.sampled_from([None, 0, 1, 1000]),
    state=st.sampled_from(AdminState),
    removed=st.booleans(),
)
def test_available_is_what_the_design_says(leases: int, up: bool, weight: int | None, state: AdminState, removed: bool) -> None:
    made = host()
    made.leases, made.admin, made.removed = leases, state, removed
    made.health.hear(Verdict("tcp", up, 0.0, weight))
    made.weigh()
    in_service = state is AdminState.READY and up and not removed
    assert made.up is in_service
    assert made.available is (in_service and leases < {None: 4, 0: 0, 1: 1, 1000: 4}[weight])


def test_free_is_never_negative() -> None:
    made = host(2)
    made.leases = 3
    assert made.free == 0
