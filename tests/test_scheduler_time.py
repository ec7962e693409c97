"""What time brings: verdicts that expire, waiters that have waited too long, and when the scheduler wants to be woken."""

from __future__ import annotations

import pytest

from distbal.outcomes import Outcome
from tests.farms import NOW, ask, given, granted, says, scheduler, spec


def test_nothing_is_due() -> None:
    farm = scheduler(spec("fast"))
    ask(farm)
    ask(farm)
    assert farm.due is None
    decisions = farm.wake(NOW)
    assert (decisions.grants, decisions.refusals) == ([], [])


def test_a_verdict_expires() -> None:
    farm = scheduler(spec("fast"))
    farm.report("fast", says(up=False, expires=NOW + 30))
    ticket = ask(farm)
    assert farm.due == NOW + 30
    early = farm.wake(NOW + 29)
    assert (early.grants, early.refusals, farm.due) == ([], [], NOW + 30)
    decisions = farm.wake(NOW + 30)
    assert given(decisions.grants) == [(ticket.id, "fast")]
    assert granted(ticket).granted == NOW + 30
    assert farm.due is None
    assert farm.verdict("fast", "tcp") is None


def test_a_verdict_that_is_renewed_does_not_expire() -> None:
    farm = scheduler(spec("fast"))
    farm.report("fast", says(up=False, expires=NOW + 30))
    farm.report("fast", says(up=False, at=NOW + 20, expires=NOW + 50))
    ask(farm)
    assert farm.wake(NOW + 30).grants == []
    assert farm.due == NOW + 50
    assert len(farm.wake(NOW + 50).grants) == 1


def test_a_verdict_that_is_replaced_by_one_without_end_stays() -> None:
    farm = scheduler(spec("fast"))
    farm.report("fast", says(up=False, expires=NOW + 30))
    farm.report("fast", says(up=False, at=NOW + 1))
    ask(farm)
    assert farm.wake(NOW + 1000).grants == []
    assert farm.due is None


def test_several_expire_in_the_policy_s_order() -> None:
    farm = scheduler(spec("slow", 1, 2), spec("fast", 1, 0), spec("middle", 1, 1))
    for name in ("slow", "fast", "middle"):
        farm.report(name, says(up=False, expires=NOW + 30))
    tickets = [ask(farm) for _ in range(4)]
    decisions = farm.wake(NOW + 31)
    assert given(decisions.grants) == [(tickets[0].id, "fast"), (tickets[1].id, "middle"), (tickets[2].id, "slow")]


def test_two_verdicts_on_one_host_expire_one_after_the_other() -> None:
    farm = scheduler(spec("fast", 2))
    farm.report("fast", says(up=False, source="tcp", expires=NOW + 10))
    farm.report("fast", says(weight=500, source="ssh", expires=NOW + 20))
    tickets = [ask(farm) for _ in range(2)]
    assert given(farm.wake(NOW + 10).grants) == [(tickets[0].id, "fast")]
    assert farm.due == NOW + 20
    assert given(farm.wake(NOW + 20).grants) == [(tickets[1].id, "fast")]


def test_a_waiter_that_waits_too_long_is_refused() -> None:
    farm = scheduler(spec("fast"), wait=10.0)
    running = granted(ask(farm))
    late, later, last = ask(farm, now=NOW), ask(farm, now=NOW + 1), ask(farm, now=NOW + 5)
    assert farm.due == NOW + 10
    assert farm.wake(NOW + 9.9).refusals == []
    assert farm.wake(NOW + 11).refusals == [late, later]
    assert farm.due == NOW + 15
    assert farm.waiting == 1
    with pytest.raises(KeyError):
        farm.withdraw(late)
    assert given(farm.release(running, Outcome.CLOSED, NOW + 12)) == [(last.id, "fast")]
    farm.wake(NOW + 15)
    assert farm.due is None
    assert farm.snapshot(NOW).counts["refused"] == 2


def test_who_can_be_served_at_the_last_moment_is() -> None:
    farm = scheduler(spec("fast"), wait=10.0)
    farm.report("fast", says(up=False, expires=NOW + 10))
    ticket, other = ask(farm), ask(farm)
    decisions = farm.wake(NOW + 10)
    assert given(decisions.grants) == [(ticket.id, "fast")]
    assert decisions.refusals == [other]


def test_the_sooner_of_two_is_due() -> None:
    farm = scheduler(spec("fast"), wait=10.0)
    farm.report("fast", says(up=False, expires=NOW + 30))
    ask(farm)
    assert farm.due == NOW + 10
    farm.report("fast", says(up=False, expires=NOW + 5))
    assert farm.due == NOW + 5
