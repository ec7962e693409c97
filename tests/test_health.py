"""Verdicts: one a source, none overrules another, and what is not renewed does not hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distbal.health import FULL_WEIGHT, Health, Verdict


def said(source: str, *, up: bool = True, weight: int | None = None, at: float = 0.0, expires: float | None = None) -> Verdict:
    return Verdict(source, up, at, weight, "", expires)


def test_up_and_whole_until_somebody_speaks() -> None:
    health = Health()
    assert (health.up, health.weight, health.verdicts, health.next_expiry()) == (True, FULL_WEIGHT, (), None)
    assert health.verdict("tcp") is None


def test_up_when_nobody_says_down() -> None:
    health = Health()
    assert health.hear(said("update", up=False))
    assert not health.hear(said("tcp", up=False))
    assert not health.hear(said("update", up=True)), "one source's up does not overrule another's down"
    assert not health.up
    assert health.hear(said("tcp", up=True))
    assert health.up


def test_the_least_weight_counts() -> None:
    health = Health()
    assert health.hear(said("ssh", weight=600))
    assert not health.hear(said("snmp", weight=700))
    assert not health.hear(said("tcp")), "no opinion"
    assert health.weight == 600
    assert health.hear(said("ssh", weight=800))
    assert health.weight == 700
    assert health.hear(said("ssh", weight=0))
    assert health.weight == 0
    assert health.up


def test_a_source_has_one_verdict_and_keeps_its_place() -> None:
    health = Health()
    health.hear(said("tcp", up=False))
    health.hear(said("ssh", weight=500))
    renewed = said("tcp", up=True, at=3.0)
    health.hear(renewed)
    assert health.verdict("tcp") is renewed
    assert [verdict.source for verdict in health.verdicts] == ["tcp", "ssh"]


def test_saying_the_same_again_changes_nothing() -> None:
    health = Health()
    assert health.hear(said("tcp", up=False, expires=5.0))
    assert not health.hear(said("tcp", up=False, at=4.0, expires=9.0))
    assert health.next_expiry() == 9.0


@pytest.mark.parametrize("weight", [-1, 1001])
def test_an_impossible_weight_is_refused(weight: int) -> None:
    health = Health()
    health.hear(said("tcp", up=False))
    with pytest.raises(ValueError, match=f"0 to 1000 thousandths, not {weight}"):
        health.hear(said("tcp", weight=weight))
    assert health.verdict("tcp") == said("tcp", up=False), "what was said before still holds"


def test_a_verdict_holds_until_it_expires() -> None:
    health = Health()
    health.hear(said("tcp", up=False, expires=5.0))
    health.hear(said("ssh", weight=300, expires=7.0))
    health.hear(said("update", weight=900))
    assert health.next_expiry() == 5.0
    assert not health.expire(4.9)
    assert not health.up
    assert health.expire(5.0), "at its time it is over"
    assert health.up
    assert health.next_expiry() == 7.0
    assert health.expire(100.0)
    assert health.weight == 900
    assert health.next_expiry() is None
    assert not health.expire(1e9), "what has no end stays"
    assert [verdict.source for verdict in health.verdicts] == ["update"]


def test_a_verdict_may_say_what_holds_after_it() -> None:
    last = said("connect", weight=1, at=7.0, expires=9.0)
    trial = replace(said("connect", weight=500, at=5.0, expires=7.0), then=last)
    pause = replace(said("connect", up=False, expires=5.0), then=trial)
    health = Health()
    health.hear(pause)
    assert not health.expire(4.9)
    assert health.expire(5.0)
    assert (health.up, health.weight, health.verdicts, health.next_expiry()) == (True, 500, (trial,), 7.0)
    assert health.expire(7.0)
    assert [*health.verdicts] == [last]
    assert health.expire(9.0)
    assert health.weight == FULL_WEIGHT
    assert health.verdict("connect") is None
    health.hear(pause)
    assert health.expire(8.0), "what was over before anybody looked is left out"
    assert [*health.verdicts] == [last]
    health.hear(pause)
    assert health.expire(100.0)
    assert health.verdict("connect") is None


def test_what_is_forgotten_says_nothing() -> None:
    health = Health()
    assert not health.forget("connect")
    health.hear(said("connect", up=False, expires=5.0))
    assert health.forget("connect")
    assert (health.up, health.next_expiry()) == (True, None)


def test_several_expire_at_once() -> None:
    health = Health()
    for source in ("a", "b", "c"):
        health.hear(said(source, up=source != "b", expires=2.0))
    assert health.expire(2.0)
    assert health.verdicts == ()


def test_a_verdict_that_made_no_difference_expires_unnoticed() -> None:
    health = Health()
    health.hear(said("update", up=False))
    health.hear(said("tcp", up=False, expires=1.0))
    assert not health.expire(1.0)
    assert health.verdict("tcp") is None
    assert not health.up
