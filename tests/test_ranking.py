"""The ranking: order, ties, moves, and what it costs: counted in comparisons, not in seconds."""

from __future__ import annotations

from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbal.ranking import _SMALL, Ranking


def ranking(**keys: object) -> Ranking[str]:
    made: Ranking[str] = Ranking()
    for item, key in keys.items():
        made.put(item, key)
    return made


def drained(made: Ranking[str]) -> list[str]:
    order = []
    while (item := made.first()) is not None:
        order.append(item)
        made.discard(item)
    return order


def test_nothing_is_first_of_nothing() -> None:
    empty = ranking()
    assert empty.first() is None
    assert empty.first(lambda item: False) is None
    assert len(empty) == 0
    assert not empty


def test_the_least_key_comes_first() -> None:
    assert drained(ranking(a=3, b=1, c=2)) == ["b", "c", "a"]


def test_of_equal_keys_the_one_that_was_put_first() -> None:
    assert drained(ranking(c=1, a=1, b=1, d=0)) == ["d", "c", "a", "b"]


def test_an_unchanged_key_keeps_its_place() -> None:
    made = ranking(a=1, b=1)
    made.put("a", 1)
    assert drained(made) == ["a", "b"]


def test_a_key_that_comes_back_is_behind_its_equals() -> None:
    made = ranking(a=1, b=1)
    made.put("a", 2)
    made.put("a", 1)
    assert drained(made) == ["b", "a"]


@pytest.mark.parametrize(("key", "order"), [(0, ["b", "a", "c"]), (2.5, ["a", "b", "c"]), (9, ["a", "c", "b"])])
def test_items_move(key: float, order: list[str]) -> None:
    made = ranking(a=1, b=2, c=3)
    made.put("b", key)
    assert made.key("b") == key
    assert len(made) == 3
    assert drained(made) == order


def test_what_was_forgotten_is_gone() -> None:
    made = ranking(a=1, b=2)
    made.discard("a")
    made.discard("nobody")
    assert "a" not in made
    assert "b" in made
    assert made.first() == "b"
    with pytest.raises(KeyError):
        made.key("a")


def test_what_was_forgotten_may_come_back_with_the_same_key() -> None:
    made = ranking(a=1, b=1)
    made.discard("a")
    made.put("a", 1)
    assert drained(made) == ["b", "a"]


def test_what_is_skipped_stays() -> None:
    made = ranking(a=1, b=2, c=3)
    assert made.first(lambda item: item != "c") == "c"
    assert made.first(lambda item: True) is None
    assert drained(made) == ["a", "b", "c"]


def test_outdated_entries_do_not_pile_up() -> None:
    """Neither with items that move all the time and are never looked at, nor with items that come and go."""
    moving: Ranking[int] = Ranking()
    for step in range(20_000):
        moving.put(step % 100, -step)
    assert len(moving._heap) <= 2 * 100 + 1
    passing: Ranking[int] = Ranking()
    for step in range(20_000):
        passing.put(step, step)
        passing.discard(step)
    assert len(passing._heap) <= _SMALL + 1
    assert passing.first() is None


@given(st.lists(st.tuples(st.sampled_from("pdfs"), st.integers(0, 40), st.integers(0, 5)), max_size=400))
def test_as_a_sorted_list(steps: list[tuple[str, int, int]]) -> None:
    made: Ranking[int] = Ranking()
    plain: dict[int, int] = {}  # by item, the one that moved last at the end
    for step, item, key in steps:
        if step == "p":
            made.put(item, key)
            if plain.get(item) != key:
                plain.pop(item, None)
                plain[item] = key
        elif step == "d":
            made.discard(item)
            plain.pop(item, None)
        else:
            skipped = {number for number in plain if step == "s" and number % (key + 2) == 0}
            expected = [number for number in sorted(plain, key=plain.__getitem__) if number not in skipped]
            assert made.first(skipped.__contains__ if step == "s" else None) == (expected[0] if expected else None)
        assert len(made) == len(plain)


class Counted:
    """A key that counts how often it is compared."""

    comparisons = 0

    def __init__(self, value: int) -> None:
        self.value = value

    def __lt__(self, other: Counted) -> bool:
        Counted.comparisons += 1
        return self.value < other.value

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return isinstance(other, Counted) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)


@pytest.mark.parametrize("size", [10, 100, 1_000, 10_000])
def test_moving_the_first_costs_the_logarithm(size: int) -> None:
    made: Ranking[int] = Ranking()
    for item in range(size):
        made.put(item, Counted(item))
    Counted.comparisons = 0
    moves = 4 * size  # enough for sweeps to be among them
    for step in range(moves):
        first = made.first()
        assert first is not None
        made.put(first, Counted(size + step * 7919 % size))
    each = Counted.comparisons / moves
    # a push and a pop, each entry compared for order and for equality
    assert each <= 6 * (log2(size) + 3), f"{each:.1f} comparisons a move of {size}"
