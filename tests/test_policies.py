"""Which host: three hosts in each policy, one of them down, full, excluded."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

import pytest

from distbal.hosts import AdminState, Host, HostSpec
from distbal.policies import POLICIES, HostIndex

SEED = 5656


def host(name: str, slots: int, rank: int, position: int, *, leases: int = 0, alone: bool = False) -> Host:
    made = Host(HostSpec(name, slots, rank), position)
    made.leases, made.alone = leases, alone
    made.weigh()
    return made


def index(policy: str, hosts: Iterable[Host]) -> HostIndex:
    made = POLICIES[policy](random.Random(SEED))
    for each in hosts:
        made.changed(each)
    return made


def lend(made: HostIndex, times: int, exclude: tuple[str, ...] = ()) -> list[str]:
    """Lend slots as the scheduler does: the names of their hosts."""
    given = []
    for _ in range(times):
        best = made.pick(exclude)
        if best is None:
            break
        best.leases += 1
        best.weigh()
        made.changed(best)
        given.append(best.spec.name)
    return given


@pytest.mark.parametrize("policy", sorted(POLICIES))
class TestEveryPolicy:
    def hosts(self) -> list[Host]:
        return [host("fast", 2, 0, 0, alone=True), host("middle", 2, 1, 1, alone=True), host("slow", 2, 2, 2, alone=True)]

    def test_lends_every_slot_and_no_more(self, policy: str) -> None:
        assert sorted(lend(index(policy, self.hosts()), 10)) == ["fast", "fast", "middle", "middle", "slow", "slow"]

    def test_has_nothing_when_there_is_nothing(self, policy: str) -> None:
        made = index(policy, [])
        assert made.pick(()) is None
        assert made.pick(("fast",)) is None

    def test_passes_over_who_is_not_available(self, policy: str) -> None:
        fast, middle, slow = hosts = self.hosts()
        made = index(policy, hosts)
        fast.admin = AdminState.DRAIN
        middle.leases = 2
        for each in hosts:
            each.weigh()
            made.changed(each)
        assert lend(made, 1) == ["slow"]
        middle.leases = 1
        slow.leases = 2
        for each in hosts:
            each.weigh()
            made.changed(each)
        assert lend(made, 3) == ["middle"]

    def test_leaves_out_who_is_not_wanted_and_keeps_it_for_others(self, policy: str) -> None:
        made = index(policy, self.hosts())
        assert lend(made, 10, ("fast", "slow", "nobody")) == ["middle", "middle"]
        assert made.pick(("fast", "slow")) is None
        assert sorted(lend(made, 10)) == ["fast", "fast", "slow", "slow"]

    def test_forgets_who_was_dropped(self, policy: str) -> None:
        fast, middle, slow = hosts = self.hosts()
        made = index(policy, hosts)
        made.drop(fast)
        made.drop(slow)
        made.drop(slow)
        assert lend(made, 10) == ["middle", "middle"]
        middle.leases = 0
        middle.weigh()
        made.changed(middle)
        assert made.pick(()) is middle


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_suspects_are_used_last(policy: str) -> None:
    fast, middle, slow = hosts = [host("fast", 2, 0, 0), host("middle", 2, 1, 1), host("slow", 2, 2, 2)]
    made = index(policy, hosts)
    fast.suspect = True
    made.changed(fast)
    assert lend(made, 10)[-2:] == ["fast", "fast"]
    assert made.pick(()) is None
    fast.suspect = False
    fast.leases, middle.leases, slow.leases = 0, 2, 2
    for each in hosts:
        each.weigh()
        made.changed(each)
    assert made.pick(()) is fast


def test_fastest_first_fills_the_fastest() -> None:
    made = index("fastest-first", [host("slow", 2, 1, 1, alone=True), host("fast", 3, 0, 0, alone=True)])
    assert lend(made, 10) == ["fast", "fast", "fast", "slow", "slow"]


def test_fastest_first_shares_a_rank_by_load() -> None:
    """Load is leases over capacity: a host twice as large gets two of three; of equals the one named first."""
    hosts = [host("big", 4, 0, 0), host("small", 2, 0, 1), host("slow", 1, 1, 2, alone=True)]
    made = index("fastest-first", hosts)
    # loads before each: 0 0, 1/4 0, 1/4 1/2, 1/2 1/2, 3/4 1/2, 3/4 1
    assert lend(made, 10) == ["big", "small", "big", "big", "small", "big", "slow"]


def test_fastest_first_goes_back_to_the_fastest_as_soon_as_it_is_free() -> None:
    fast, slow = host("fast", 1, 0, 0, alone=True), host("slow", 9, 1, 1, alone=True)
    made = index("fastest-first", [fast, slow])
    assert lend(made, 3) == ["fast", "slow", "slow"]
    fast.leases = 0
    fast.weigh()
    made.changed(fast)
    assert lend(made, 2) == ["fast", "slow"]


def test_least_loaded_goes_by_share_of_capacity_then_rank_then_place() -> None:
    hosts = [host("slow", 4, 1, 2), host("also", 2, 0, 1), host("fast", 2, 0, 0)]
    # all empty: fast, also, slow; then slow has 1/4, the others 1/2
    assert lend(index("least-loaded", hosts), 10) == ["fast", "also", "slow", "slow", "fast", "also", "slow", "slow"]


def test_least_loaded_sees_a_changed_capacity() -> None:
    wide, narrow = host("wide", 10, 0, 0, leases=2), host("narrow", 2, 1, 1, leases=1)
    made = index("least-loaded", [wide, narrow])
    assert made.pick(()) is wide
    wide.spec = HostSpec("wide", 3, 0)
    wide.weigh()
    made.changed(wide)
    assert made.pick(()) is narrow


def chi_square(drawn: Counter[str], names: Iterable[str]) -> float:
    expected = [drawn.total() / len(list(names))] * len(list(names))
    return sum((drawn[name] - share) ** 2 / share for name, share in zip(names, expected, strict=True))


#: chi-square that chance exceeds once in a thousand, by degrees of freedom
ONE_IN_A_THOUSAND = {2: 13.82, 3: 16.27}


def test_random_draws_all_alike() -> None:
    """Neither rank, nor place, nor size, nor load counts."""
    names = ["a", "b", "c", "d"]
    made = index("random", [host(name, 100 * (place + 1), place, place, leases=place) for place, name in enumerate(names)])
    drawn = Counter(picked.spec.name for picked in (made.pick(()) for _ in range(4000)) if picked is not None)
    assert drawn.total() == 4000
    assert chi_square(drawn, names) < ONE_IN_A_THOUSAND[3]


def test_random_draws_alike_among_those_who_are_left() -> None:
    """Also when hosts come and go between, and after draws that others were left out of."""
    hosts = {name: host(name, 5, 0, place) for place, name in enumerate(["a", "b", "c", "d", "e"])}
    made = index("random", hosts.values())
    drawn: Counter[str] = Counter()
    for turn in range(3000):
        coming = hosts["e" if turn % 2 else "d"]
        made.drop(hosts["d"])
        made.drop(hosts["e"])
        made.changed(coming)
        picked = made.pick(("d", "e"))
        assert picked is not None
        drawn[picked.spec.name] += 1
    assert chi_square(drawn, ["a", "b", "c"]) < ONE_IN_A_THOUSAND[2]
    assert drawn.total() == 3000


def test_random_is_repeatable() -> None:
    def run() -> list[str]:
        return lend(index("random", [host(name, 3, 0, place) for place, name in enumerate("abc")]), 9)

    assert run() == run()
    assert run() != sorted(run())
