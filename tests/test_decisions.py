"""What people decide on top of the file, and when the file has the last word again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from distbal.decisions import Decision, Decisions, Place, applied, said_by_file, settled
from distbal.hosts import Farm, HostSpec
from tests.farms import spec

FAST, SLOW, OLD = spec("fast", 8, 0), spec("slow", 4, 1), spec("old", 2, 2)
FILE = Farm((FAST, SLOW, OLD))


def decide(farm: Farm, *decided: tuple[str, str, object], before: Decisions | None = None) -> Decisions:
    """As the verbs do it: with what the file says now."""
    decisions = Decisions() if before is None else before
    for name, key, value in decided:
        decisions = decisions.with_(name, key, Decision(value, said_by_file(farm, name, key, value)))
    return decisions


def ranks(farm: Farm) -> list[list[str]]:
    found: dict[int, list[str]] = {}
    for host in farm.hosts:
        found.setdefault(host.rank, []).append(host.name)
    assert list(found) == list(range(len(found)))
    return list(found.values())


def keys(decisions: Decisions) -> list[tuple[str, str]]:
    return [(name, key) for name, key, _ in decisions]


def test_nothing_decided_is_the_file() -> None:
    assert applied(FILE, Decisions()) == FILE


def test_slots_hold_until_the_file_says_something_else_about_them() -> None:
    decisions = decide(FILE, ("slow", "slots", 6))
    assert [host.slots for host in applied(FILE, decisions).hosts] == [8, 6, 2]
    other_key = Farm((FAST, HostSpec("slow", 4, 1, ",lzo"), OLD))
    assert settled(decisions, other_key) == (decisions, [])
    assert applied(other_key, decisions).hosts[1] == HostSpec("slow", 6, 1, ",lzo")
    very_key = Farm((FAST, spec("slow", 5, 1), OLD))
    left, overtaken = settled(decisions, very_key)
    assert (left, [one[:2] for one in overtaken]) == (Decisions(), [("slow", "slots")])


def test_slots_of_a_host_that_says_them_itself() -> None:
    auto = Farm((HostSpec("fast", 4, 0, auto=True),))
    decisions = decide(auto, ("fast", "slots", 6))
    assert applied(auto, decisions).hosts == (HostSpec("fast", 6, 0),)
    assert settled(decisions, auto) == (decisions, [])
    assert keys(settled(decisions, Farm((HostSpec("fast", 4, 0),)))[0]) == []


def test_places() -> None:
    for side, expected in {
        "before": [["old"], ["fast"], ["slow"]],
        "with": [["fast", "old"], ["slow"]],
        "after": [["fast"], ["old"], ["slow"]],
    }.items():
        decisions = decide(FILE, ("old", "rank", Place(side, "fast")))  # type: ignore[arg-type]
        assert ranks(applied(FILE, decisions)) == expected
    shared = Farm((FAST, spec("slow", 4, 0), OLD))
    assert ranks(applied(shared, decide(shared, ("fast", "rank", Place("after", "slow"))))) == [["slow"], ["fast"], ["old"]]
    assert ranks(applied(shared, decide(shared, ("old", "rank", Place("before", "slow"))))) == [["old"], ["fast", "slow"]]


def test_a_place_holds_until_the_file_puts_these_two_otherwise() -> None:
    decisions = decide(FILE, ("old", "rank", Place("before", "slow")))
    newcomer = Farm((spec("new", 1, 0), spec("fast", 8, 1), spec("slow", 4, 2), spec("old", 2, 3)))
    assert settled(decisions, newcomer) == (decisions, [])
    assert ranks(applied(newcomer, decisions)) == [["new"], ["fast"], ["old"], ["slow"]]
    otherwise = Farm((spec("fast", 8, 0), spec("slow", 4, 1), spec("old", 2, 1)))
    assert keys(settled(decisions, otherwise)[0]) == []
    assert keys(settled(decisions, Farm((FAST, spec("old", 2, 1))))[0]) == [], "the other one is gone"


def test_a_host_that_was_added() -> None:
    decisions = decide(FILE, ("new", "there", spec("new", 16)), ("new", "rank", Place("after", "fast")))
    assert ranks(applied(FILE, decisions)) == [["fast"], ["new"], ["slow"], ["old"]]
    assert settled(decisions, FILE) == (decisions, [])
    with_it = Farm((*FILE.hosts, spec("new", 12, 3)))
    left, _ = settled(decisions, with_it)
    assert keys(left) == []
    assert applied(with_it, left) == with_it


def test_a_place_beside_a_host_that_was_added_holds_whatever_is_decided_about_that_later() -> None:
    decisions = decide(FILE, ("b", "there", spec("b")), ("a", "there", spec("a")), ("a", "rank", Place("before", "b")))
    decisions = decide(FILE, ("b", "rank", Place("before", "fast")), ("b", "admin", "drain"), before=decisions)
    assert ranks(applied(FILE, decisions)) == [["b"], ["fast"], ["slow"], ["old"], ["a"]]
    assert settled(decisions, FILE)[0] == decisions


def test_a_host_that_was_removed() -> None:
    decisions = decide(FILE, ("slow", "admin", "down"), ("slow", "there", False))
    assert ranks(applied(FILE, decisions)) == [["fast"], ["old"]]
    assert settled(decisions, FILE) == (decisions, [])
    gone = Farm((FAST, spec("old", 2, 1)))
    left, overtaken = settled(decisions, gone)
    assert (left, [one[:2] for one in overtaken]) == (Decisions(), [("slow", "there"), ("slow", "admin")])


def test_what_the_file_has_no_key_for_holds_as_long_as_the_host_does() -> None:
    decisions = decide(FILE, ("fast", "admin", "drain"), ("old", "weight", 500))
    other = Farm((spec("fast", 1, 0), spec("old", 9, 1)))
    assert settled(decisions, other) == (decisions, [])
    left, overtaken = settled(decisions, Farm((FAST,)))
    assert keys(left) == [("fast", "admin")]
    assert [one[:2] for one in overtaken] == [("old", "weight")]


def test_one_decision_a_key_and_back() -> None:
    decisions = decide(FILE, ("fast", "slots", 1), ("fast", "slots", 2))
    found = decisions.get("fast", "slots")
    assert found is not None
    assert (found.value, found.file, len(decisions.made)) == (2, 8, 1)
    assert decisions.without("fast", "slots") == Decisions()
    assert decisions.without("slow", "slots") == decisions
    assert decisions.get("slow", "slots") is None


names = st.sampled_from(["a", "b", "c", "d", "e"])


@st.composite
def farms(draw: st.DrawFn) -> Farm:
    rank, hosts = 0, []
    for number, name in enumerate(draw(st.lists(names, min_size=1, max_size=5, unique=True))):
        rank += draw(st.integers(0, 1)) if number else 0
        hosts.append(spec(name, draw(st.integers(1, 3)), rank))
    return Farm(tuple(hosts))


places = st.builds(Place, st.sampled_from(["before", "with", "after"]), names)
changes = st.one_of(
    st.tuples(names, st.just("slots"), st.integers(1, 9)),
    st.tuples(names, st.just("rank"), places),
    st.tuples(names, st.just("there"), st.just(False)),
    st.tuples(names, st.just("admin"), st.sampled_from(["drain", "down"])),
    names.map(lambda name: (name, "there", spec(name, 5))),
)


@given(farms(), farms(), st.lists(changes, max_size=8))
def test_whatever_is_decided_hosts_are_there_once_and_settling_comes_to_rest(
    before: Farm, after: Farm, decided: list[tuple[str, str, object]]
) -> None:
    decisions, _ = settled(decide(before, *decided), before)
    farm = applied(before, decisions)
    ranks(farm)
    present = [host.name for host in farm.hosts]
    assert len(set(present)) == len(present)
    removed = {name for name, key, decision in decisions if key == "there" and decision.value is False}
    assert {host.name for host in before.hosts} - removed <= set(present)
    left, overtaken = settled(decisions, after)
    assert settled(left, after) == (left, [])
    assert sorted(keys(left) + [one[:2] for one in overtaken]) == sorted(keys(decisions))
    ranks(applied(after, left))


def test_many_places_in_a_large_farm_cost_little() -> None:
    looks = 0

    class Counted(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            nonlocal looks
            looks += 1
            return super().__eq__(other)

        __hash__ = str.__hash__

    farm = Farm(tuple(spec(Counted(f"box{number}"), 1, number) for number in range(2000)))
    made = Decisions()
    for number in range(0, 400, 2):
        made = made.with_(f"box{number}", "rank", Decision(Place("after", f"box{1999 - number}")))
    order = [one.name for one in applied(farm, made).hosts]
    assert order[-5:] == ["box1997", "box2", "box1998", "box1999", "box0"]
    # each move finds its host, and does not look for it
    assert looks < 20_000


def test_a_file_that_says_what_was_decided_has_the_word_about_places() -> None:
    """An export that was put in the file's place: nothing differs from it, and nobody moves once more."""
    file = Farm(tuple(spec(name, 1, rank) for rank, name in enumerate("abcd")))
    made = Decisions()
    for name, place in (("a", Place("before", "c")), ("b", Place("before", "c")), ("c", Place("after", "d"))):
        made = made.with_(name, "rank", Decision(place, said_by_file(file, name, "rank", place)))
    served = applied(file, made)
    assert [one.name for one in served.hosts] == ["a", "b", "d", "c"]
    left, _ = settled(made, served, served)
    assert left == Decisions()
    assert applied(served, left) == served


def test_a_place_that_the_file_gives_itself_is_no_decision() -> None:
    file = Farm((spec("a", 1, 0), spec("b", 1, 1), spec("c", 1, 1), spec("d", 1, 2)))
    for name, place, holds in (
        ("a", Place("before", "b"), False),
        ("a", Place("before", "d"), True),
        ("b", Place("with", "c"), False),
        ("b", Place("before", "d"), True),
        ("d", Place("after", "c"), False),
        ("a", Place("before", "x"), True),
    ):
        made = Decisions().with_(name, "rank", Decision(place, said_by_file(file, name, "rank", place)))
        assert bool(settled(made, file)[0].made) is holds, (name, place)
