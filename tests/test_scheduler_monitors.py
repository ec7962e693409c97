"""What monitors need of the scheduler: a slot of one host, to be forgotten, slots that a host says it has, a look at hosts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distbal.hosts import AdminState, Farm, HostSpec
from distbal.outcomes import Outcome, Traffic
from distbal.scheduler import Scheduler
from tests.farms import NOW, ask, given, granted, host_of, says, scheduler, shown, spec


def auto(name: str, slots: int = 4, rank: int = 0) -> HostSpec:
    """A host whose slots the file leaves to it."""
    return replace(spec(name, slots, rank), auto=True)


def let_go(farm: Scheduler, *names: str) -> None:
    """Sources have no opinion of the host ``fast`` any more."""
    for name in names:
        farm.forget("fast", name, NOW)


# -- a slot of one host


def test_one_host_alone_will_do() -> None:
    farm = scheduler(spec("fast", 2), spec("slow", 1, 1))
    ticket = ask(farm, only="slow")
    assert host_of(ticket) == "slow", "however free a faster one is"
    waits = ask(farm, only="slow")
    assert host_of(waits) == ""
    assert host_of(ask(farm)) == "fast", "who waits for one host keeps no other host from anybody"
    assert given(farm.release(granted(ticket), Outcome.CLOSED, NOW)) == [(waits.id, "slow")]


def test_its_pools_and_the_hosts_left_out_do_not_matter_for_one_host() -> None:
    farm = scheduler(spec("fast", 1, 0, "arm"))
    first = ask(farm, only="fast", pool="default", exclude=("fast",))
    second = ask(farm, only="fast", pool="default", exclude=("fast",))
    assert (host_of(first), host_of(second)) == ("fast", "")
    assert given(farm.release(granted(first), Outcome.CLOSED, NOW)) == [(second.id, "fast")]


@pytest.mark.parametrize("order", ["fair", "fifo"])
def test_who_needs_one_host_is_served_before_all_others(order: str) -> None:
    farm = scheduler(spec("fast"), order=order)
    running = granted(ask(farm))
    first = ask(farm, "10.0.0.1")
    again = ask(farm, "10.0.0.2", since=NOW - 60)
    monitors = [ask(farm, "127.0.0.1", only="fast") for _ in range(2)]
    served = []
    for _ in range(4):
        ((ticket_id, _),) = given(farm.release(running, Outcome.CLOSED, NOW))
        served.append(ticket_id)
        running = next(granted(ticket) for ticket in (first, again, *monitors) if ticket.id == ticket_id)
    assert served == [monitors[0].id, monitors[1].id, again.id, first.id]


def test_slots_of_other_hosts_are_not_for_those_who_need_one() -> None:
    farm = scheduler(spec("fast"), spec("slow", 1, 1))
    busy = [ask(farm), ask(farm)]
    needs_fast, any_will_do = ask(farm, only="fast"), ask(farm)
    assert given(farm.release(granted(busy[1]), Outcome.CLOSED, NOW)) == [(any_will_do.id, "slow")]
    assert given(farm.release(granted(busy[0]), Outcome.CLOSED, NOW)) == [(needs_fast.id, "fast")]


def test_a_host_that_comes_up_serves_those_who_need_it_first() -> None:
    farm = scheduler(spec("fast", 2), spec("slow", 1, 1))
    for name in ("fast", "slow"):
        farm.report(name, says(up=False))
    client, *monitors = ask(farm), ask(farm, only="fast"), ask(farm, only="slow")
    assert given(farm.report("slow", says())) == [(monitors[1].id, "slow")]
    assert given(farm.report("fast", says())) == [(monitors[0].id, "fast"), (client.id, "fast")]


def test_who_needs_a_host_that_is_not_there_is_told_so_and_counts_for_nothing() -> None:
    farm = scheduler(spec("fast"))
    with pytest.raises(KeyError):
        ask(farm, only="nobody")
    assert not any(farm.counts.values())
    assert (farm.waiting, farm.due) == (0, None)
    assert ask(farm).id == 1


def test_who_needs_one_host_withdraws_or_waits_too_long_like_anybody() -> None:
    farm = scheduler(spec("fast"), wait=10.0)
    running = granted(ask(farm))
    leaves, late, later = (ask(farm, only="fast", now=NOW + second) for second in (0, 1, 5))
    farm.withdraw(leaves)
    with pytest.raises(KeyError):
        farm.withdraw(leaves)
    assert farm.wake(NOW + 11).refusals == [late]
    assert given(farm.release(running, Outcome.CLOSED, NOW + 12)) == [(later.id, "fast")]
    assert farm.counts == {"asked": 4, "granted": 2, "ended": 1, "withdrawn": 1, "refused": 1}


def test_who_needs_a_host_waits_while_it_is_drained_or_out_of_the_file() -> None:
    farm = scheduler(spec("fast"), spec("slow", 1, 1))
    running = granted(ask(farm, only="fast"))
    farm.set_admin("fast", AdminState.DRAIN, NOW)
    waits = ask(farm, only="fast")
    assert farm.release(running, Outcome.CLOSED, NOW) == []
    assert farm.configure(Farm((spec("slow", 1, 1),)), NOW) == []
    assert host_of(waits) == ""
    with pytest.raises(KeyError):
        ask(farm, only="fast")
    # what a person decided of a host goes with it
    assert given(farm.configure(Farm((spec("fast"),)), NOW)) == [(waits.id, "fast")]


def test_a_host_that_drains_out_of_the_file_serves_nobody_who_needs_it() -> None:
    farm = scheduler(spec("fast"), spec("slow", 1, 1))
    running, waits = granted(ask(farm, only="fast")), ask(farm, only="fast")
    farm.configure(Farm((spec("slow", 1, 1),)), NOW)
    with pytest.raises(KeyError):
        ask(farm, only="fast")
    assert farm.release(running, Outcome.CLOSED, NOW) == []
    assert "fast" not in farm.hosts
    farm.withdraw(waits)
    assert farm.waiting == 0


def test_who_needs_one_host_is_not_queued_when_the_discipline_changes() -> None:
    farm = scheduler(spec("fast"), spec("slow", 1, 1))
    running = granted(ask(farm)), granted(ask(farm))
    waits = ask(farm, only="fast")
    farm.configure(Farm((spec("fast"), spec("slow", 1, 1)), order="fifo"), NOW)
    assert farm.release(running[1], Outcome.CLOSED, NOW) == []
    assert given(farm.release(running[0], Outcome.CLOSED, NOW)) == [(waits.id, "fast")]


def test_a_turn_taken_by_who_needs_one_host_is_no_turn_of_its_client() -> None:
    farm = scheduler(spec("fast"))
    running = granted(ask(farm))
    first, second = ask(farm, "a"), ask(farm, "b")
    only = ask(farm, "a", only="fast")
    assert given(farm.release(running, Outcome.CLOSED, NOW)) == [(only.id, "fast")]
    assert given(farm.release(granted(only), Outcome.CLOSED, NOW)) == [(first.id, "fast")]
    assert given(farm.release(granted(first), Outcome.CLOSED, NOW)) == [(second.id, "fast")]


def test_a_job_of_a_monitor_tells_of_its_host_what_any_job_tells() -> None:
    farm = scheduler(spec("fast"))
    running = granted(ask(farm, only="fast"))
    farm.release(running, Outcome.REFUSED, NOW, Traffic(reason="refused the connection"))
    assert not shown(farm, "fast").up


# -- sources that have no opinion any more


def test_what_was_said_is_forgotten_and_those_who_wait_are_served() -> None:
    farm = scheduler(spec("fast", 2))
    farm.report("fast", says(up=False, source="tcp"))
    farm.report("fast", says(weight=500, source="ssh"))
    tickets = [ask(farm) for _ in range(3)]
    assert given(farm.forget("fast", "tcp", NOW + 7)) == [(tickets[0].id, "fast")]
    assert granted(tickets[0]).granted == NOW + 7
    assert given(farm.forget("fast", "ssh", NOW + 8)) == [(tickets[1].id, "fast")]
    assert farm.verdict("fast", "ssh") is None
    assert shown(farm, "fast").verdicts == ()


def test_to_forget_what_nobody_said_changes_nothing() -> None:
    farm = scheduler(spec("fast"))
    farm.report("fast", says(up=False))
    ask(farm)
    assert farm.forget("fast", "ssh", NOW) == []
    assert not shown(farm, "fast").up
    with pytest.raises(KeyError):
        farm.forget("nobody", "tcp", NOW)


def test_what_is_forgotten_does_not_expire() -> None:
    farm = scheduler(spec("fast"))
    farm.report("fast", says(source="tcp", expires=NOW + 5))
    farm.report("fast", says(source="ssh", expires=NOW + 9))
    let_go(farm, "tcp")
    farm.wake(NOW + 5)
    assert farm.due == NOW + 9
    let_go(farm, "ssh")
    farm.wake(NOW + 9)
    assert farm.due is None


# -- slots that a host says it has


def test_a_host_says_how_many_slots_it_has_where_the_file_leaves_that_to_it() -> None:
    farm = scheduler(auto("fast"), spec("slow", 1, 1))
    assert shown(farm, "fast").capacity == 4
    tickets = [ask(farm) for _ in range(7)]
    assert given(farm.propose_slots("fast", 6, NOW + 1)) == [(tickets[5].id, "fast"), (tickets[6].id, "fast")]
    assert farm.propose_slots("fast", 6, NOW + 2) == [], "no news"
    assert farm.propose_slots("slow", 6, NOW + 2) == []
    assert (shown(farm, "fast").spec.slots, shown(farm, "slow").spec.slots) == (6, 1)
    with pytest.raises(KeyError):
        farm.propose_slots("nobody", 6, NOW)


def test_fewer_slots_cut_nothing_short() -> None:
    farm = scheduler(auto("fast"))
    running = [granted(ask(farm)) for _ in range(4)]
    waits = ask(farm)
    assert farm.propose_slots("fast", 1, NOW) == []
    assert (shown(farm, "fast").leases, shown(farm, "fast").capacity) == (4, 1)
    for lease in running[:3]:
        assert farm.release(lease, Outcome.CLOSED, NOW) == []
    assert given(farm.release(running[3], Outcome.CLOSED, NOW)) == [(waits.id, "fast")]


def test_a_weight_is_of_the_slots_that_the_host_said() -> None:
    farm = scheduler(auto("fast"))
    farm.report("fast", says(weight=500))
    farm.propose_slots("fast", 9, NOW)
    assert shown(farm, "fast").capacity == 5


def test_what_a_host_said_survives_reloads_as_long_as_the_file_leaves_it_to_the_host() -> None:
    farm = scheduler(auto("fast"))
    farm.propose_slots("fast", 9, NOW)
    for file in (auto("fast"), replace(auto("fast"), rank=3, address=("10.0.0.9", 3632))):
        farm.configure(Farm((file,)), NOW)
        assert farm.host("fast").spec == replace(file, slots=9)
    farm.configure(Farm((spec("fast", 2),)), NOW)
    assert shown(farm, "fast").capacity == 2, "the file has a number"
    farm.configure(Farm((auto("fast"),)), NOW)
    assert shown(farm, "fast").capacity == 4, "it has not said anything since"
    farm.propose_slots("fast", 7, NOW)
    farm.configure(Farm((spec("other"),)), NOW)
    farm.configure(Farm((auto("fast"),)), NOW)
    assert shown(farm, "fast").capacity == 4, "it was gone"


# -- a look at hosts


def test_hosts_can_be_looked_at() -> None:
    farm = scheduler(spec("fast"), spec("slow", 1, 1))
    running = granted(ask(farm))
    fast = farm.host("fast")
    assert (fast.leases, fast.available, [*farm.hosts]) == (1, False, ["fast", "slow"])
    farm.configure(Farm((spec("slow"),)), NOW)
    with pytest.raises(KeyError):
        farm.host("fast")
    assert farm.hosts["fast"] is fast, "it drains"
    farm.release(running, Outcome.CLOSED, NOW)
    assert [*farm.hosts] == ["slow"]
