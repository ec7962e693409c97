"""The scheduler by examples: each of its rules, and each thing that can happen to a farm, once and in the small."""

from __future__ import annotations

import pytest

from distbal.history import History
from distbal.hosts import AdminState, Farm
from distbal.outcomes import Outcome
from distbal.requests import Request
from distbal.scheduler import Scheduler
from distbal.snapshot import ClientState, HostState
from tests.farms import NOW, ask, given, granted, host_of, says, scheduler, shown, spec

# -- a lease from beginning to end


def test_a_free_slot_is_granted_at_once() -> None:
    farm = scheduler(spec("fast", 2))
    holder = object()
    request = Request("10.0.0.1", 4711, "10.0.0.1")
    ticket = farm.ask(request, holder, NOW)
    lease = granted(ticket)
    assert (ticket.request, ticket.holder, ticket.asked) == (request, holder, NOW)
    assert (lease.ticket, lease.id, lease.host_name, lease.granted, lease.job) == (ticket, ticket.id, "fast", NOW, ticket.id)
    assert (farm.lent, farm.waiting) == (1, 0)
    assert repr(ticket) == "<Ticket 1 of 10.0.0.1 for default>"
    assert repr(lease) == "<Lease 1 on fast>"


def test_whoever_cannot_be_served_waits_and_gets_the_slot_that_comes_back() -> None:
    farm = scheduler(spec("fast"))
    first, second, third = (ask(farm) for _ in range(3))
    assert [host_of(first), host_of(second), host_of(third)] == ["fast", "", ""]
    assert (farm.lent, farm.waiting) == (1, 2)
    assert given(farm.release(granted(first), Outcome.CLOSED, NOW + 3)) == [(second.id, "fast")]
    assert granted(second).granted == NOW + 3
    assert given(farm.release(granted(second), Outcome.CLOSED, NOW + 4)) == [(third.id, "fast")]
    assert farm.release(granted(third), Outcome.CLOSED, NOW + 5) == []
    assert (farm.lent, farm.waiting) == (0, 0)
    assert host_of(ask(farm)) == "fast"


def test_a_lease_comes_back_once() -> None:
    farm = scheduler(spec("fast"))
    lease = granted(ask(farm))
    farm.release(lease, Outcome.CLOSED, NOW)
    assert lease.ticket.holder is None, "who held it is not kept alive by the history"
    with pytest.raises(KeyError):
        farm.release(lease, Outcome.CLOSED, NOW)
    assert shown(farm, "fast").leases == 0


def test_who_leaves_is_not_served() -> None:
    farm = scheduler(spec("fast"))
    first, second, third = (ask(farm) for _ in range(3))
    farm.withdraw(second)
    with pytest.raises(KeyError):
        farm.withdraw(second)
    with pytest.raises(KeyError):
        farm.withdraw(first)  # it was granted
    assert given(farm.release(granted(first), Outcome.CLOSED, NOW)) == [(third.id, "fast")]


def test_tickets_are_numbered_from_where_they_should() -> None:
    farm = Scheduler(Farm((spec("fast"),)), first_id=7_000)
    assert [ask(farm).id for _ in range(3)] == [7_000, 7_001, 7_002]


# -- the policy and the discipline that the file names


def test_fastest_first() -> None:
    farm = scheduler(spec("fast", 2, 0), spec("slow", 2, 1))
    assert [host_of(ask(farm)) for _ in range(5)] == ["fast", "fast", "slow", "slow", ""]


def test_fastest_first_with_a_shared_rank() -> None:
    farm = scheduler(spec("fast", 1, 0), spec("big", 4, 1), spec("small", 2, 1))
    assert [host_of(ask(farm)) for _ in range(5)] == ["fast", "big", "small", "big", "big"]


def test_least_loaded() -> None:
    farm = scheduler(spec("fast", 2, 0), spec("slow", 4, 1), policy="least-loaded")
    tickets = [ask(farm) for _ in range(6)]
    assert [host_of(ticket) for ticket in tickets] == ["fast", "slow", "slow", "fast", "slow", "slow"]
    farm.release(granted(tickets[1]), Outcome.CLOSED, NOW)
    farm.release(granted(tickets[0]), Outcome.CLOSED, NOW)
    assert host_of(ask(farm)) == "fast"


def test_random() -> None:
    farm = scheduler(*(spec(name, 50, rank) for rank, name in enumerate("abc")), policy="random")
    drawn = [host_of(ask(farm)) for _ in range(90)]
    assert all(15 <= drawn.count(name) <= 45 for name in "abc")
    assert [host_of(ask(farm)) for _ in range(61)].count("") == 1


@pytest.mark.parametrize(("order", "served"), [("fair", "a b c a b a"), ("fifo", "a a a b b c")])
def test_discipline(order: str, served: str) -> None:
    farm = scheduler(spec("fast"), order=order)
    running = granted(ask(farm, "nobody"))
    for key in "aaabbc":
        ask(farm, key)
    seen = []
    while grants := farm.release(running, Outcome.CLOSED, NOW):
        (running,) = grants
        seen.append(running.ticket.request.key)
    assert " ".join(seen) == served


# -- pools and excludes


def test_a_pool_has_its_own_hosts_and_a_host_counts_its_slots_once() -> None:
    farm = scheduler(spec("both", 2, 0, "default", "arm"), spec("arm", 1, 1, "arm"))
    assert host_of(ask(farm)) == "both"
    assert host_of(ask(farm, pool="arm")) == "both"
    waiting = ask(farm)
    assert host_of(waiting) == "", "the arm host is not in its pool, and both slots of the other are lent"
    assert host_of(ask(farm, pool="arm")) == "arm"
    assert shown(farm, "both").leases == 2


def test_a_slot_goes_to_a_waiter_of_any_of_the_host_s_pools() -> None:
    farm = scheduler(spec("both", 1, 0, "default", "arm"), order="fifo")
    running = granted(ask(farm))
    arm, plain = ask(farm, pool="arm"), ask(farm)
    assert given(farm.release(running, Outcome.CLOSED, NOW)) == [(arm.id, "both")]
    assert given(farm.release(granted(arm), Outcome.CLOSED, NOW)) == [(plain.id, "both")]


def test_a_pool_that_nobody_serves_waits_until_somebody_does() -> None:
    farm = scheduler(spec("fast"))
    ticket = ask(farm, pool="mips")
    assert host_of(ticket) == ""
    assert given(farm.configure(Farm((spec("fast"), spec("sgi", 1, 1, "mips"))), NOW)) == [(ticket.id, "sgi")]


def test_hosts_that_an_earlier_attempt_failed_on_are_left_out() -> None:
    farm = scheduler(spec("fast", 2, 0), spec("slow", 1, 1))
    first = ask(farm, exclude=("fast",))
    assert host_of(first) == "slow"
    second = ask(farm, exclude=("fast",))
    assert host_of(second) == "", "a free slot on the host that it does not want is none for it"
    assert host_of(ask(farm)) == "fast", "and holds up nobody else"
    assert given(farm.release(granted(first), Outcome.CLOSED, NOW)) == [(second.id, "slow")]


def test_a_slot_that_nobody_wants_is_free_for_the_next() -> None:
    farm = scheduler(spec("fast"))
    running = granted(ask(farm))
    ask(farm, exclude={"fast"})
    assert farm.release(running, Outcome.CLOSED, NOW) == []
    assert host_of(ask(farm)) == "fast"


# -- verdicts


def test_a_host_that_is_down_gets_no_jobs_and_keeps_its_running_ones() -> None:
    farm = scheduler(spec("fast", 2, 0), spec("slow", 1, 1))
    running = granted(ask(farm))
    assert farm.report("fast", says(up=False)) == []
    assert (shown(farm, "fast").leases, shown(farm, "fast").up) == (1, False)
    assert host_of(ask(farm)) == "slow"
    waiting = ask(farm)
    assert host_of(waiting) == ""
    assert farm.release(running, Outcome.CLOSED, NOW) == [], "its slot is not lent again while it is down"
    assert given(farm.report("fast", says())) == [(waiting.id, "fast")]


def test_a_host_that_comes_up_serves_as_many_as_it_can_at_the_time_of_the_verdict() -> None:
    farm = scheduler(spec("fast", 2))
    farm.report("fast", says(up=False))
    tickets = [ask(farm, key) for key in "aab"]
    grants = farm.report("fast", says(at=NOW + 5))
    assert given(grants) == [(tickets[0].id, "fast"), (tickets[2].id, "fast")]
    assert [lease.granted for lease in grants] == [NOW + 5] * 2
    assert farm.waiting == 1


def test_no_source_overrules_another() -> None:
    farm = scheduler(spec("fast"))
    farm.report("fast", says(up=False, source="tcp"))
    ticket = ask(farm)
    assert farm.report("fast", says(up=True, source="update")) == []
    assert farm.verdict("fast", "update") == says(up=True, source="update")
    assert farm.verdict("fast", "ssh") is None
    assert given(farm.report("fast", says(up=True, source="tcp"))) == [(ticket.id, "fast")]


def test_a_weight_limits_what_is_lent() -> None:
    farm = scheduler(spec("fast", 4))
    running = [granted(ask(farm)) for _ in range(4)]
    farm.report("fast", says(weight=500))
    assert (shown(farm, "fast").capacity, shown(farm, "fast").leases) == (2, 4)
    waiting = ask(farm)
    assert farm.release(running[0], Outcome.CLOSED, NOW) == [], "it is still over its capacity"
    assert farm.release(running[1], Outcome.CLOSED, NOW) == [], "now it has as many as it may"
    assert given(farm.release(running[2], Outcome.CLOSED, NOW)) == [(waiting.id, "fast")]
    assert host_of(ask(farm)) == ""


def test_a_weight_of_nothing_lends_nothing() -> None:
    farm = scheduler(spec("fast", 4), spec("slow", 1, 1))
    farm.report("fast", says(weight=0))
    assert shown(farm, "fast").up
    assert host_of(ask(farm)) == "slow"
    waiting = [ask(farm) for _ in range(2)]
    assert given(farm.report("fast", says(weight=1))) == [(waiting[0].id, "fast")], "a little is one slot"


def test_load_is_a_share_of_capacity() -> None:
    farm = scheduler(spec("fast", 8, 0), spec("slow", 2, 1), policy="least-loaded")
    farm.report("fast", says(weight=250))
    assert [host_of(ask(farm)) for _ in range(4)] == ["fast", "slow", "fast", "slow"]


def test_hosts_that_are_not_in_the_file_are_unknown() -> None:
    farm = scheduler(spec("fast"), spec("gone"))
    granted(ask(farm))
    granted(ask(farm))
    farm.configure(Farm((spec("fast"),)), NOW)
    for name in ("nobody", "gone"):
        with pytest.raises(KeyError):
            farm.report(name, says())
        with pytest.raises(KeyError):
            farm.verdict(name, "tcp")
        with pytest.raises(KeyError):
            farm.set_admin(name, AdminState.DRAIN, NOW)


# -- what a person decides


@pytest.mark.parametrize("state", [AdminState.DRAIN, AdminState.DOWN])
def test_out_of_service_by_hand(state: AdminState) -> None:
    farm = scheduler(spec("fast", 2))
    running = granted(ask(farm))
    assert farm.set_admin("fast", state, NOW) == []
    waiting = ask(farm)
    assert farm.report("fast", says(source="update")) == [], "no monitor changes it"
    assert farm.release(running, Outcome.CLOSED, NOW) == []
    assert (shown(farm, "fast").admin, shown(farm, "fast").up) == (state.value, False)
    grants = farm.set_admin("fast", AdminState.READY, NOW + 7)
    assert given(grants) == [(waiting.id, "fast")]
    assert grants[0].granted == NOW + 7


def test_ready_by_hand_is_not_up_where_a_monitor_says_down() -> None:
    farm = scheduler(spec("fast"))
    farm.report("fast", says(up=False))
    farm.set_admin("fast", AdminState.DRAIN, NOW)
    ask(farm)
    assert farm.set_admin("fast", AdminState.READY, NOW) == []


# -- for readers


def test_snapshot() -> None:
    slow, fast, gone = spec("slow", 4, 1), spec("fast", 1, 0), spec("gone", 1, 2)
    farm = Scheduler(Farm((gone, fast, slow)), first_id=10)
    farm.set_admin("slow", AdminState.DRAIN, NOW)
    verdict = says(weight=500, expires=NOW + 60)
    farm.report("slow", verdict)
    ask(farm, "a", NOW + 1)
    ask(farm, "b", NOW + 2)
    ask(farm, "c", NOW + 3, pool="arm")
    farm.configure(Farm((fast, slow)), NOW + 4)
    seen = farm.snapshot(NOW + 5)
    assert seen.at == NOW + 5
    assert seen.hosts == (
        HostState(fast, 1, 1, True, False, "ready", False, (), 1, 0.0),
        HostState(slow, 0, 0, False, False, "drain", False, (verdict,), 0, 0.0),
        HostState(gone, 1, 0, False, False, "ready", True, (), 1, 0.0),
    )
    assert [host.free for host in seen.hosts] == [0, 4, 0]
    assert seen.leases == (
        ClientState(10, "a", 4711, "default", NOW + 1, "fast"),
        ClientState(11, "b", 4711, "default", NOW + 2, "gone"),
    )
    assert seen.waiters == (ClientState(12, "c", 4711, "arm", NOW + 3),)


def test_a_snapshot_does_not_change() -> None:
    farm = scheduler(spec("fast"))
    seen = farm.snapshot(NOW)
    ask(farm)
    assert (seen.counts["asked"], seen.leases, seen.hosts[0].leases) == (0, (), 0)


def test_counts() -> None:
    farm = scheduler(spec("fast"), wait=10.0)
    assert farm.snapshot(NOW).counts == {"asked": 0, "granted": 0, "ended": 0, "withdrawn": 0, "refused": 0}
    tickets = [ask(farm) for _ in range(4)]
    farm.withdraw(tickets[1])
    farm.release(granted(tickets[0]), Outcome.CLOSED, NOW + 2)
    farm.wake(NOW + 10)
    assert farm.snapshot(NOW).counts == {"asked": 4, "granted": 2, "ended": 1, "withdrawn": 1, "refused": 1}


def test_a_host_s_totals() -> None:
    farm = scheduler(spec("fast", 2))
    first, second = granted(ask(farm)), granted(ask(farm))
    farm.release(first, Outcome.CLOSED, NOW + 3.0)
    farm.release(second, Outcome.RESET, NOW + 0.5)
    assert (shown(farm, "fast").granted, shown(farm, "fast").held) == (2, 3.5)


def test_the_history_is_by_job() -> None:
    history = History()
    farm = Scheduler(Farm((spec("fast", 1, 0), spec("slow", 1, 1))), history=history)
    first = granted(ask(farm))
    other = granted(ask(farm, "10.0.0.2"))
    farm.release(first, Outcome.VANISHED, NOW + 1)
    farm.release(other, Outcome.CLOSED, NOW + 2)
    again = granted(ask(farm, now=NOW + 3, job=first.job, exclude=("fast",)))
    assert again.job == first.id
    farm.release(again, Outcome.CLOSED, NOW + 4)
    assert farm.history is history
    assert [
        (job.id, [(attempt.lease, attempt.host, attempt.outcome) for attempt in job.attempts]) for job in history.jobs()
    ] == [
        (first.id, [(first.id, "fast", Outcome.VANISHED), (again.id, "slow", Outcome.CLOSED)]),
        (other.id, [(other.id, "slow", Outcome.CLOSED)]),
    ]
