"""A monitor's opinion of a host: rise and fall, proof, checks that could not be made, weights in thousandths."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbal.interfaces import Reading
from distbal.judge import Judge, Opinion, thousandths

UP = Reading(up=True, reason="answers", weight=0.5)
DOWN = Reading(up=False, reason="is silent")
REFUSED = Reading(up=False, reason="refused the connection", certain=True)
PROVEN = Reading(up=True, reason="compiled", certain=True)


def states(judge: Judge, *readings: Reading | str) -> str:
    """What it says after each reading (or check that could not be made, for a reason): + up, - down, . nothing."""
    said = ""
    for reading in readings:
        opinion = judge.miss(reading) if isinstance(reading, str) else judge.hear(reading)
        said += "." if opinion is None else "+" if opinion.up else "-"
    return said


# -- fall


def test_nothing_is_said_before_a_check() -> None:
    judge = Judge(3, 2)
    assert judge.opinion is None
    assert not judge.undecided


def test_the_first_good_check_decides() -> None:
    judge = Judge(3, 2)
    assert judge.hear(UP) == Opinion(up=True, weight=500, reason="answers")
    assert judge.opinion == Opinion(up=True, weight=500, reason="answers")
    assert not judge.undecided


@pytest.mark.parametrize("fall", [1, 2, 3])
@pytest.mark.parametrize("known", [True, False], ids=["up before", "unknown before"])
def test_so_many_must_fail_in_a_row(fall: int, known: bool) -> None:
    judge = Judge(fall, 2)
    assert states(judge, *[UP] * known) == "+" * known
    assert states(judge, *[DOWN] * fall) == ("+" if known else ".") * (fall - 1) + "-"
    assert judge.opinion == Opinion(up=False, reason="is silent")


def test_a_good_check_in_between_begins_the_count_anew() -> None:
    assert states(Judge(3, 2), UP, DOWN, DOWN, UP, DOWN, DOWN, UP, DOWN, DOWN, DOWN) == "+++++++++-"


def test_what_was_said_holds_on_while_a_fall_is_undecided() -> None:
    judge = Judge(2, 2)
    said = judge.hear(UP)
    assert judge.hear(DOWN) is said, "its weight too, and it is heard again so that it does not expire"
    assert judge.undecided
    judge.hear(DOWN)
    assert not judge.undecided


def test_a_failure_that_is_proof_decides_alone() -> None:
    judge = Judge(3, 2)
    assert states(judge, UP, REFUSED) == "+-"
    assert judge.opinion == Opinion(up=False, reason="refused the connection")
    assert states(Judge(3, 2), REFUSED) == "-"


def test_a_host_that_is_down_gives_the_newest_reason_and_no_weight() -> None:
    judge = Judge(1, 2)
    states(judge, DOWN, Reading(up=False, reason="refused the connection", weight=0.7))
    assert judge.opinion == Opinion(up=False, weight=None, reason="refused the connection")


# -- rise


@pytest.mark.parametrize("rise", [1, 2, 3])
def test_so_many_must_succeed_in_a_row(rise: int) -> None:
    judge = Judge(1, rise)
    assert states(judge, DOWN) == "-"
    assert states(judge, *[UP] * rise) == "-" * (rise - 1) + "+"


def test_a_bad_check_in_between_begins_the_count_of_good_ones_anew() -> None:
    assert states(Judge(3, 3), REFUSED, UP, UP, DOWN, UP, UP, UP) == "------+"


def test_a_down_host_s_reason_holds_on_while_a_rise_is_undecided() -> None:
    judge = Judge(1, 2)
    said = judge.hear(DOWN)
    assert not judge.undecided
    assert judge.hear(UP) is said
    assert judge.undecided
    judge.hear(UP)
    assert not judge.undecided


def test_a_success_that_is_proof_decides_alone() -> None:
    assert states(Judge(1, 3), DOWN, PROVEN) == "-+"


def test_after_a_rise_the_count_of_failures_begins_anew() -> None:
    assert states(Judge(2, 2), DOWN, DOWN, UP, UP, DOWN, DOWN) == ".--++-"


def test_each_good_check_has_its_weight() -> None:
    judge = Judge(2, 2)
    assert [judge.hear(Reading(up=True, weight=weight)) for weight in (1.0, 0.25, None, 0.0)] == [
        Opinion(up=True, weight=1000),
        Opinion(up=True, weight=250),
        Opinion(up=True, weight=None),
        Opinion(up=True, weight=0),
    ]


def test_the_same_opinion_is_the_same_object() -> None:
    judge = Judge(2, 2)
    said = judge.hear(UP)
    assert judge.hear(Reading(up=True, reason="answers", weight=0.5001, took=9.9, facts={"load": 1})) is said


# -- checks that could not be made


def test_a_check_that_could_not_be_made_says_nothing() -> None:
    judge = Judge(2, 2)
    assert states(judge, "has no key", "has no key", "has no key") == "..."
    assert judge.opinion is None
    said = judge.hear(UP)
    assert states(judge, "has no key", "has no key", "has no key") == "...", "what was said is not heard again, and expires"
    assert judge.opinion is said
    assert not judge.undecided


def test_it_breaks_no_row_of_failures_or_successes() -> None:
    judge = Judge(2, 2)
    assert states(judge, UP, DOWN, "has no key", DOWN) == "++.-"
    assert states(judge, UP, "has no key", UP) == "-.+"


def test_where_it_is_required_it_is_a_check_that_failed() -> None:
    judge = Judge(2, 2, required=True)
    assert states(judge, UP, "has no key") == "++"
    assert judge.undecided
    assert states(judge, DOWN) == "-"
    assert states(judge, "has no key") == "-"
    assert judge.opinion == Opinion(up=False, reason="has no key")
    assert states(judge, UP, "has no key", UP, UP) == "---+"


# -- what holds no longer


def test_what_is_forgotten_is_as_if_it_had_not_been_said() -> None:
    judge = Judge(2, 3)
    states(judge, UP, DOWN)
    judge.forget()
    assert judge.opinion is None
    assert not judge.undecided
    assert states(judge, DOWN, DOWN) == ".-", "the failure from before does not count"
    states(judge, UP, UP)
    judge.forget()
    assert states(judge, UP) == "+", "nothing has to rise"


# -- in general


@dataclass
class Reference:
    """The same rules by looking at all checks since the last change: True for good ones."""

    fall: int
    rise: int
    up: bool | None = None
    checks: list[bool] = field(default_factory=list)

    def check(self, *, good: bool, certain: bool) -> bool | None:
        self.checks.append(good)
        if good and self.up is not True:
            needed = 1 if certain or self.up is None else self.rise
        elif not good and self.up is not False:
            needed = 1 if certain else self.fall
        else:
            return self.up
        if self.checks[-needed:] == [good] * needed:
            self.up, self.checks = good, []
        return self.up

    @property
    def undecided(self) -> bool:
        return bool(self.checks) and self.checks[-1] is (self.up is False)


checks = st.sampled_from(["good", "bad", "proof of good", "proof of bad", "miss", "miss", "forget"])


@given(st.lists(checks, max_size=60), st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_any_sequence_of_checks(sequence: list[str], fall: int, rise: int, required: bool) -> None:
    judge, reference = Judge(fall, rise, required=required), Reference(fall, rise)
    for number, check in enumerate(sequence):
        before = judge.opinion
        if check == "forget":
            judge.forget()
            reference = Reference(fall, rise)
        elif check == "miss":
            said = judge.miss(f"trouble {number}")
            if required:
                reference.check(good=False, certain=False)
                assert said is judge.opinion
            else:
                assert said is None
                assert judge.opinion is before
        else:
            good, certain = check.endswith("good"), check.startswith("proof")
            said = judge.hear(Reading(up=good, reason=f"reason {number}", weight=number / 100, certain=certain))
            reference.check(good=good, certain=certain)
            assert said is judge.opinion
            if said is not None and said.up is good:
                assert said.reason == f"reason {number}"
                assert said.weight == (thousandths(number / 100) if good else None)
            elif said is not None:
                assert said is before
        assert (None if judge.opinion is None else judge.opinion.up) is reference.up
        assert judge.undecided is reference.undecided


# -- weights


@pytest.mark.parametrize(
    ("weight", "parts"), [(0.0, 0), (1e-9, 1), (0.0004, 1), (0.0016, 2), (0.5, 500), (0.9994, 999), (0.9999, 1000), (1.0, 1000)]
)
def test_thousandths(weight: float, parts: int) -> None:
    assert thousandths(weight) == parts


@given(st.floats(0.0, 1.0))
def test_thousandths_are_a_weight_and_nothing_only_for_nothing(weight: float) -> None:
    parts = thousandths(weight)
    assert 0 <= parts <= 1000
    assert (parts == 0) is (weight == 0.0)
    assert abs(parts / 1000 - weight) <= 0.001
