"""Weights from load: CPU times, load averages, and weights that follow without wobbling."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import astuple

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from distbal.loads import ALL, BAND, NOTHING, SAMPLE, SETTLED, TURN, CpuTimes, LoadAverage, Steady, share_by_load, share_left

#: seconds between two looks at a host, and looks in an hour
LOOK = 15.0
HOUR = int(3600 / LOOK)

counters = st.integers(0, 2**64 - 1)
times = st.builds(CpuTimes, *[counters] * 8)
#: what may be added between two looks
steps = st.builds(CpuTimes, *[counters | st.integers(0, 100)] * 8)
shares = st.floats(0.0, 1.0)


def step(**ticks: int) -> CpuTimes:
    return CpuTimes(**({"user": 0, "nice": 0, "system": 0, "idle": 0} | ticks))


# -- a line of /proc/stat


def test_a_line_of_a_kernel_of_today() -> None:
    line = "cpu  10132153 290696 3084719 46828483 16683 0 25195 175628 1000 200\n"
    assert CpuTimes.parse(line) == CpuTimes(10132153, 290696, 3084719, 46828483, 16683, 0, 25195, 175628), "guests are in user"


def test_a_line_of_an_old_kernel() -> None:
    """Linux 2.4 had four numbers."""
    assert CpuTimes.parse("cpu 1 2 3 4") == CpuTimes(1, 2, 3, 4)


def test_numbers_that_are_not_known_yet_are_passed_over() -> None:
    assert CpuTimes.parse("cpu 1 2 3 4 5 6 7 8 9 10 what") == CpuTimes(1, 2, 3, 4, 5, 6, 7, 8)


def test_as_large_as_a_counter_gets() -> None:
    assert CpuTimes.parse(f"cpu 1 2 3 {2**64 - 1}").idle == 2**64 - 1


@pytest.mark.parametrize(
    "line",
    [
        "",
        " \n",
        "cpu",
        "cpu 1 2 3",
        "cpu0 1 2 3 4",
        "intr 1 2 3 4",
        "cpu 1 2 3 four",
        "cpu 1 2 3 4.5",
        "cpu 1 2 3 -4",
        "cpu 1 2 3 1_000",
        "cpu 1 2 3 ٤",
        f"cpu 1 2 3 {10**20}",
        f"cpu 1 2 3 {'9' * 100_000}",
        f"cpu 1 2 3 4 {' ' * 1000} 5",
        "-bash: cat: No such file or directory",
    ],
    ids=lambda line: line[:20] or "nothing",
)
def test_what_is_no_line_of_cpu_times(line: str) -> None:
    with pytest.raises(ValueError, match=r"^'.{0,60}' is no line of CPU times$"):
        CpuTimes.parse(line)


@given(st.text() | st.lists(st.integers().map(str) | st.text(), max_size=12).map(lambda words: " ".join(["cpu", *words])))
def test_any_text_is_a_line_or_refused(text: str) -> None:
    try:
        parsed = CpuTimes.parse(text)
    except ValueError as refused:
        assert "is no line of CPU times" in str(refused)  # noqa: PT017 (either will do)
    else:
        assert all(0 <= number < 10**20 for number in astuple(parsed))


@given(times)
def test_what_is_written_is_read(cpu_times: CpuTimes) -> None:
    assert CpuTimes.parse(f"cpu  {' '.join(map(str, astuple(cpu_times)))} 0 0") == cpu_times


# -- what was added between two looks


def test_what_was_added() -> None:
    before, after = CpuTimes(100, 200, 300, 400, 50, 6, 7, 8), CpuTimes(101, 203, 305, 407, 61, 19, 24, 27)
    assert after.since(before) == CpuTimes(1, 3, 5, 7, 11, 13, 17, 19)


def test_a_field_that_goes_back_a_little_counts_as_unchanged() -> None:
    """proc(5) says so of iowait."""
    before, after = CpuTimes(100, 0, 0, 1000, iowait=50), CpuTimes(200, 0, 0, 1100, iowait=40)
    assert after.since(before) == CpuTimes(100, 0, 0, 100)


@pytest.mark.parametrize(
    "after",
    [
        CpuTimes(100, 200, 300, 400),
        CpuTimes(0, 0, 0, 1),
        CpuTimes(10, 20, 30, 40),
        CpuTimes(0, 200, 300, 449),
        CpuTimes(0, 200, 300, 549),
    ],
    ids=[
        "nothing was",
        "it has just started",
        "it was started anew",
        "more was lost than won",
        "one lost more than came of all",
    ],
)
def test_what_was_added_cannot_be_said(after: CpuTimes) -> None:
    assert after.since(CpuTimes(100, 200, 300, 400)) is None


@given(times, times)
def test_what_was_added_is_never_negative(before: CpuTimes, after: CpuTimes) -> None:
    added = after.since(before)
    if added is not None:
        assert min(astuple(added)) >= 0
        assert sum(astuple(added)) > 0
        assert all(more == max(0, now - then) for more, now, then in zip(*map(astuple, (added, after, before)), strict=True))
    else:
        lost = sum(max(0, then - now) for now, then in zip(astuple(after), astuple(before), strict=True))
        won = sum(max(0, now - then) for now, then in zip(astuple(after), astuple(before), strict=True))
        assert lost > 0 or won == 0, "where nothing went back, and something was added, that can be said"


# -- whose time it was


@pytest.mark.parametrize(
    ("ticks", "share"),
    [
        ({"idle": 100}, 1.0),
        ({"nice": 100}, 1.0),
        ({"iowait": 60, "idle": 40}, 1.0),
        ({"user": 100}, 0.0),
        ({"user": 50, "nice": 50}, 0.5),
        ({"user": 50, "idle": 50}, 0.5),
        ({"steal": 25, "nice": 75}, 0.75),
        # the kernel worked for those who worked
        ({"nice": 80, "system": 20}, 1.0),
        ({"user": 80, "system": 20}, 0.0),
        ({"user": 40, "nice": 40, "system": 20}, 0.5),
        ({"user": 20, "nice": 60, "system": 10, "irq": 4, "softirq": 6}, 0.75),
        ({"user": 20, "nice": 60, "system": 20, "idle": 100}, 0.875),
        # nobody else worked that it could have worked for
        ({"system": 20, "idle": 80}, 0.8),
        ({}, 1.0),
    ],
    ids=str,
)
def test_the_share_that_is_left(ticks: dict[str, int], share: float) -> None:
    assert share_left(step(**ticks)) == pytest.approx(share)


def test_the_share_of_a_compile_by_ourselves() -> None:
    """Seen on two CPUs: distccd's compilers for 15 s, and little else."""
    before = CpuTimes.parse("cpu  4705 150 1120 16250 520 0 45 0 0 0")
    after = CpuTimes.parse("cpu  4712 2730 1511 16268 523 0 46 0 0 0")
    added = after.since(before)
    assert added is not None
    assert share_left(added) > 0.99


@given(steps)
@example(CpuTimes(0, 2049, 18_446_744_073_709_326_106, 0, softirq=239_846))
def test_a_share_is_a_share(added: CpuTimes) -> None:
    assert 0.0 <= share_left(added) <= 1.0


@given(steps, st.integers(1, 10**17))
def test_work_of_somebody_else_lowers_the_share(added: CpuTimes, more: int) -> None:
    with_more = CpuTimes(added.user + more, *astuple(added)[1:])
    assert share_left(with_more) <= share_left(added) + 1e-9


@given(steps, st.integers(1, 10**17))
def test_work_of_ours_does_not_lower_the_share(added: CpuTimes, more: int) -> None:
    """It takes the place of what was idle."""
    idle = CpuTimes(added.user, added.nice, added.system, added.idle + more, *astuple(added)[4:])
    ours = CpuTimes(added.user, added.nice + more, *astuple(added)[2:])
    assert share_left(ours) >= share_left(idle) - 1e-9


@given(steps)
def test_the_unit_does_not_matter(added: CpuTimes) -> None:
    in_other_units = CpuTimes(*(number * 10 for number in astuple(added)))
    assert share_left(in_other_units) == pytest.approx(share_left(added))


# -- load averages


@pytest.mark.parametrize(
    ("load", "ours", "cpus", "share"),
    [(0.0, 0.0, 4, 1.0), (4.0, 4.0, 4, 1.0), (2.0, 0.0, 4, 0.5), (6.0, 4.0, 4, 0.5), (9.0, 0.0, 4, 0.0), (1.0, 3.0, 1, 1.0)],
)
def test_the_share_by_load(load: float, ours: float, cpus: int, share: float) -> None:
    assert share_by_load(load, ours, cpus) == share


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.integers(1, 10000))
def test_a_share_by_load_is_a_share(load: float, ours: float, cpus: int) -> None:
    assert 0.0 <= share_by_load(load, ours, cpus) <= 1.0


def calc_load(load: int, active: int) -> int:
    """Linux, include/linux/sched/loadavg.h, with EXP_1 and FSHIFT from there: a load and what runs, times 2048."""
    fixed_1, exp_1 = 1 << 11, 1884
    new = load * exp_1 + active * (fixed_1 - exp_1)
    if active >= load:
        new += fixed_1 - 1
    return new // fixed_1


@given(st.lists(st.integers(0, 200), min_size=1, max_size=300))
def test_the_average_is_the_kernel_s(running: list[int]) -> None:
    average, kernel = LoadAverage(), 0
    for number in running:
        average.sample(number)
        kernel = calc_load(kernel, number * 2048)
        # the kernel has eleven bits for it, and rounds: 12.5 such steps at most, and EXP_1 is 0.02 % off
        assert average.value == pytest.approx(kernel / 2048, abs=0.01 + 0.002 * max(running))


def test_the_average_begins_with_what_it_is_given_and_takes_a_minute() -> None:
    average = LoadAverage(8)
    average.sample(8)
    assert average.value == pytest.approx(8.0)
    for _ in range(int(60 / SAMPLE)):
        average.sample(0)
    assert average.value == pytest.approx(8 / math.e)


# -- steady weights


def follow(looks: Iterable[float], every: float = LOOK) -> list[float]:
    """The weights that follow shares looked at one after the other."""
    steady = Steady()
    return [steady.take(share, 1000.0 + every * number) for number, share in enumerate(looks)]


def turns(weights: list[float], every: float = LOOK) -> list[tuple[float, float]]:
    """When the weight went the other way than before, in seconds, and by how much."""
    changes = [(every * number, new - old) for number, (old, new) in enumerate(itertools.pairwise(weights), 1) if new != old]
    return [change for before, change in itertools.pairwise(changes) if before[1] * change[1] < 0]


def changes(weights: list[float]) -> int:
    return sum(new != old for old, new in itertools.pairwise(weights))


def test_the_first_share_is_the_weight() -> None:
    steady = Steady()
    assert steady.weight is None
    assert steady.take(0.4, 100.0) == 0.4
    assert steady.weight == 0.4
    assert Steady().take(ALL, 0.0) == 1.0
    assert Steady().take(NOTHING, 0.0) == 0.0


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.9, 0.96, 1.0])
def test_a_share_that_stays_gives_one_weight(share: float) -> None:
    assert len(set(follow([share] * HOUR))) == 1


def test_a_step_to_half_is_followed_within_a_minute_and_closely_within_two() -> None:
    weights = follow([1.0] * 4 + [0.5] * 8)
    assert weights[3] == 1.0
    assert weights[4] < 0.9, "at the first look something is done"
    assert weights[3 + 4] == pytest.approx(0.5, abs=0.06)
    assert weights[3 + 8] == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("low", [0.0, 0.1, 0.25, 0.5, 0.75, 0.85])
@pytest.mark.parametrize("looks", [1, 2, 3, 4, 5, 8, 20, 40])
def test_after_whatever_it_comes_back_to_exactly_one_within_two_minutes(low: float, looks: int) -> None:
    assert follow([1.0] * 4 + [low] * looks + [1.0] * 8)[-1] == 1.0


def test_it_reaches_nothing_and_leaves_it() -> None:
    weights = follow([1.0] * 4 + [0.0] * 8)
    assert weights[-1] == 0.0
    assert follow([0.0] * 4 + [0.5] * 4)[-1] == pytest.approx(0.5, abs=0.06)


def test_beside_the_ends_a_share_does_not_go_to_and_fro() -> None:
    """A little of somebody else's work is always there; and a host that has next to nothing left stays at nothing."""
    assert set(follow([1.0] + [0.94, 0.96, 0.92] * 80)) == {1.0}
    assert set(follow([0.0] + [0.01, 0.05, 0.03] * 80)) == {0.0}
    assert follow([1.0] * 4 + [1.0 - BAND - 0.02] * 10)[-1] == pytest.approx(1.0 - BAND - 0.02, abs=0.03)


@given(st.lists(shares, min_size=1, max_size=100), st.floats(0.1, 300.0))
def test_a_weight_is_all_or_nothing_or_between(looks: list[float], every: float) -> None:
    for weight in follow(looks, every):
        assert weight in (0.0, 1.0) or NOTHING < weight < ALL


@given(st.lists(shares, min_size=1, max_size=100), st.floats(0.1, 300.0))
def test_a_weight_is_within_the_shares_or_at_an_end(looks: list[float], every: float) -> None:
    for weight in follow(looks, every):
        assert weight in (0.0, 1.0) or min(looks) - 1e-9 <= weight <= max(looks) + 1e-9


@given(st.lists(shares, min_size=1, max_size=30), shares, st.floats(0.5, 120.0))
def test_in_the_end_it_is_near_any_share(looks: list[float], share: float, every: float) -> None:
    """Within the band of the end that it may have stayed at, or else closely."""
    weight = follow([*looks, *[share] * math.ceil(300 / every)], every)[-1]
    assert abs(weight - share) <= (max(BAND, NOTHING) if weight in (0.0, 1.0) else 0.03) + 1e-3


@given(st.lists(shares, min_size=2, max_size=100), st.floats(1.0, 60.0))
def test_it_turns_within_a_minute_only_by_a_quarter(looks: list[float], every: float) -> None:
    weights = follow(looks, every)
    last = -math.inf
    changed = [number for number, (old, new) in enumerate(itertools.pairwise(weights), 1) if new != old]
    turned = {round(at / every): by for at, by in turns(weights, every)}
    for number in changed:
        if number in turned and (number - last) * every < SETTLED - 1e-6:
            assert abs(turned[number]) >= TURN - (1.0 - ALL) - 1e-9
        last = number


# -- shares that wobble

WOBBLES: dict[str, Callable[[int], list[float]]] = {
    # from look to look by chance
    "chance": lambda seed: [random.Random(1000 * seed + number).uniform(-1, 1) for number in range(HOUR)],
    # a load that comes and goes in so many looks
    "square": lambda half: [1.0 if number // half % 2 else -1.0 for number in range(HOUR)],
    "wave": lambda half: [math.sin(math.pi * number / half) for number in range(HOUR)],
}
LEVELS = [level / 20 for level in range(21)]


def wobbling(level: float, by: float, kind: str, number: int) -> list[float]:
    return [min(1.0, max(0.0, level + by * part)) for part in WOBBLES[kind](number)]


@pytest.mark.parametrize("by", [0.08, 0.1])
@pytest.mark.parametrize("kind", list(WOBBLES))
def test_what_wobbles_does_not_flap(kind: str, by: float) -> None:
    """Around any level and at any pace: it does not turn within a minute, and changes hardly more often than once in one."""
    for level in LEVELS:
        for number in range(1, 13):
            weights = follow(wobbling(level, by, kind, number))
            times = [at for at, _ in turns(weights)]
            assert all(later - earlier >= SETTLED for earlier, later in itertools.pairwise(times)), (level, number)
            assert changes(weights) <= (65 if kind == "chance" else 90), (level, number)


def test_what_wobbles_from_look_to_look_hardly_moves_a_few_slots() -> None:
    """As a mean over many: a host of eight slots has another number of them about every fourth minute."""
    moved = 0
    for level in LEVELS:
        for seed in range(5):
            moved += changes([round(8 * weight) for weight in follow(wobbling(level, 0.08, "chance", seed))])
    assert moved / (5 * len(LEVELS)) <= 18


@given(st.floats(0.0, 1.0), st.lists(st.floats(-0.1, 0.1), min_size=40, max_size=80))
def test_no_wobble_whatever_makes_it_turn_within_a_minute(level: float, wobble: list[float]) -> None:
    weights = follow([min(1.0, max(0.0, level + by)) for by in wobble])
    changed = [LOOK * number for number, (old, new) in enumerate(itertools.pairwise(weights), 1) if new != old]
    assume(changed)
    for at, _ in turns(weights):
        assert at - changed[changed.index(at) - 1] >= SETTLED
