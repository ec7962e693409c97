"""The file is read again: what joins, changes, leaves and comes back, and what stays as it was."""

from __future__ import annotations

from dataclasses import replace

from distbal.hosts import AdminState, Farm
from distbal.outcomes import Outcome
from tests.farms import NOW, ask, given, granted, host_of, says, scheduler, shown, spec


def test_a_new_host_joins() -> None:
    farm = scheduler(spec("fast"))
    ask(farm)
    tickets = [ask(farm) for _ in range(3)]
    grants = farm.configure(Farm((spec("fast"), spec("slow", 2, 1))), NOW + 9)
    assert given(grants) == [(tickets[0].id, "slow"), (tickets[1].id, "slow")]
    assert {lease.granted for lease in grants} == {NOW + 9}


def test_changed_slots_apply() -> None:
    farm = scheduler(spec("fast", 1))
    running = granted(ask(farm))
    tickets = [ask(farm) for _ in range(3)]
    assert given(farm.configure(Farm((spec("fast", 3),)), NOW)) == [(tickets[0].id, "fast"), (tickets[1].id, "fast")]
    assert farm.configure(Farm((spec("fast", 1),)), NOW) == []
    state = shown(farm, "fast")
    assert (state.leases, state.capacity, state.free, state.available) == (3, 1, 0, False)
    for ticket in (running, granted(tickets[0])):
        assert farm.release(ticket, Outcome.CLOSED, NOW) == []
    assert given(farm.release(granted(tickets[1]), Outcome.CLOSED, NOW)) == [(tickets[2].id, "fast")]


def test_changed_ranks_apply() -> None:
    farm = scheduler(spec("one", 2, 0), spec("two", 2, 1))
    assert host_of(ask(farm)) == "one"
    farm.configure(Farm((spec("two", 2, 0), spec("one", 2, 1))), NOW)
    assert host_of(ask(farm)) == "two"
    farm.configure(Farm((spec("two", 2, 0), spec("one", 3, 0))), NOW)
    assert host_of(ask(farm)) == "one", "they share the rank now, and one has lent a third, two a half"


def test_a_host_that_is_gone_drains_and_is_forgotten() -> None:
    farm = scheduler(spec("gone", 2, 0), spec("slow", 1, 1))
    running = granted(ask(farm))
    farm.report("gone", says(expires=NOW + 50))
    farm.configure(Farm((spec("slow"),)), NOW)
    assert (shown(farm, "gone").removed, shown(farm, "gone").leases, shown(farm, "gone").up) == (True, 1, False)
    assert [host_of(ask(farm)) for _ in range(2)] == ["slow", ""]
    assert farm.release(running, Outcome.CLOSED, NOW) == [], "the waiter does not get its slot"
    assert [host.spec.name for host in farm.snapshot(NOW).hosts] == ["slow"]
    farm.wake(NOW)
    assert farm.due is None, "nor does anybody wait for its verdict to expire"


def test_a_host_that_is_gone_and_idle_is_forgotten_at_once() -> None:
    farm = scheduler(spec("gone"), spec("slow", 1, 1))
    farm.report("gone", says(up=False, expires=NOW + 50))
    farm.set_admin("gone", AdminState.DRAIN, NOW)
    farm.configure(Farm((spec("slow"),)), NOW)
    assert [host.spec.name for host in farm.snapshot(NOW).hosts] == ["slow"]
    assert farm.due is None
    farm.configure(Farm((spec("gone"), spec("slow", 1, 1))), NOW)
    assert host_of(ask(farm)) == "gone", "when it comes back it is new"


def test_a_host_comes_back_while_it_drains() -> None:
    """Its running leases, its verdicts and what a person decided are still there; its slots are not lent twice."""
    farm = scheduler(spec("fast", 2))
    running = [granted(ask(farm)) for _ in range(2)]
    farm.report("fast", says(weight=500, expires=NOW + 50))
    farm.configure(Farm((spec("slow", 1, 5),)), NOW)
    assert farm.wake(NOW + 1).grants == []
    farm.configure(Farm((spec("fast", 2),)), NOW + 2)
    state = shown(farm, "fast")
    assert (state.removed, state.leases, state.capacity, len(state.verdicts)) == (False, 2, 1, 1)
    waiting = ask(farm)
    assert farm.release(running[0], Outcome.CLOSED, NOW + 3) == []
    assert given(farm.release(running[1], Outcome.CLOSED, NOW + 4)) == [(waiting.id, "fast")]
    farm.wake(NOW + 50)
    assert shown(farm, "fast").capacity == 2


def test_a_verdict_expires_while_its_host_drains_and_raises_nobody() -> None:
    farm = scheduler(spec("gone", 2))
    granted(ask(farm))
    farm.report("gone", says(up=False, expires=NOW + 5))
    ask(farm)
    farm.configure(Farm(()), NOW)
    assert farm.wake(NOW + 5).grants == []
    assert shown(farm, "gone").verdicts == ()


def test_a_drained_host_stays_drained_over_a_reload() -> None:
    farm = scheduler(spec("fast"))
    farm.set_admin("fast", AdminState.DRAIN, NOW)
    farm.report("fast", says(up=False, source="update"))
    ask(farm)
    assert farm.configure(Farm((spec("fast", 4),)), NOW) == []
    assert farm.set_admin("fast", AdminState.READY, NOW) == []
    assert len(farm.report("fast", says(source="update"))) == 1


def test_pools_are_renamed() -> None:
    farm = scheduler(spec("fast", 2, 0, "old"))
    running = granted(ask(farm, pool="old"))
    new = ask(farm, pool="new")
    assert given(farm.configure(Farm((spec("fast", 2, 0, "new"),)), NOW)) == [(new.id, "fast")]
    stranded, other = ask(farm, pool="old"), ask(farm, pool="new")
    assert given(farm.release(running, Outcome.CLOSED, NOW)) == [(other.id, "fast")], "it serves the old pool no more"
    grants = farm.configure(Farm((spec("fast", 3, 0, "new", "old"),)), NOW)
    assert given(grants) == [(stranded.id, "fast")], "and the waiter of the old pool was not lost"


def test_waiters_keep_their_age_when_the_discipline_changes() -> None:
    farm = scheduler(spec("fast"), order="fair")
    running = granted(ask(farm, "nobody"))
    tickets = [ask(farm, key) for key in "aabb"]
    base = farm.farm
    farm.configure(replace(base, order="fifo"), NOW)
    order = []
    (running,) = farm.release(running, Outcome.CLOSED, NOW)
    order.append(running.id)
    farm.configure(replace(base, order="fair", policy="least-loaded"), NOW)
    while grants := farm.release(running, Outcome.CLOSED, NOW):
        (running,) = grants
        order.append(running.id)
    first_a, second_a, first_b, second_b = (ticket.id for ticket in tickets)
    assert order == [first_a, second_a, first_b, second_b], "a's second is older than b's first when turns begin anew"


def test_turns_go_on_when_something_else_changes() -> None:
    farm = scheduler(spec("fast"), order="fair")
    running = granted(ask(farm, "nobody"))
    tickets = [ask(farm, key) for key in "aab"]
    (running,) = farm.release(running, Outcome.CLOSED, NOW)
    farm.configure(replace(farm.farm, policy="random"), NOW)
    assert given(farm.release(running, Outcome.CLOSED, NOW)) == [(tickets[2].id, "fast")]


def test_another_wait_applies_to_those_who_wait() -> None:
    farm = scheduler(spec("fast"))
    ask(farm)
    ticket = ask(farm)
    farm.configure(replace(farm.farm, wait=10.0), NOW + 2)
    assert farm.due == NOW + 10
    farm.configure(replace(farm.farm, wait=None), NOW + 3)
    assert farm.due is None
    farm.configure(replace(farm.farm, wait=1.0), NOW + 4)
    assert farm.due is not None
    assert farm.wake(NOW + 4).refusals == [ticket]
