"""A new process goes on with what an earlier one had: each rule of takeup.py by example."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest

from distbal.carried import CarriedHost, CarriedTicket, CarriedTotals, host_note, read_host, read_totals, totals_note
from distbal.evidence import FIRST_PAUSE
from distbal.health import Verdict
from distbal.history import attempt
from distbal.hosts import AdminState, Farm, HostSpec
from distbal.outcomes import Outcome, Traffic
from distbal.requests import Lease, Request, Ticket
from distbal.scheduler import Scheduler
from distbal.standing import UNKNOWN
from distbal.takeup import LAST_RANK, Carried, TakenUp, take_up
from distbal.waits import BOUNDS

NOW = 1000.0


def farm(*hosts: HostSpec, order: str = "fair", wait: float | None = None) -> Farm:
    return Farm(hosts, order=order, wait=wait)


def spec(
    name: str, slots: int, rank: int = 0, address: str = "10.0.0.1", *, auto: bool = False, pool: str = "default"
) -> HostSpec:
    return HostSpec(name, slots, rank, address=(address, 3632), pools=(pool,), auto=auto)


def request(client: str = "10.0.0.9", **others: object) -> Request:
    return replace(Request(client, 4711, client), **others)  # type: ignore[arg-type]


def through_json(values: object) -> object:
    return json.loads(json.dumps(values))


def carried(old: Scheduler, holders: Mapping[int, object] | None = None) -> Carried:
    """All that a scheduler has, as a process leaves it."""
    tickets = [
        CarriedTicket(one.id, one.request, one.asked)
        if one.lease is None
        else CarriedTicket(one.id, one.request, one.asked, one.lease.host_name, one.lease.granted)
        for one in old.tickets
    ]
    return Carried(
        tickets=[(one, (holders or {}).get(one.id, f"holder {one.id}")) for one in reversed(tickets)],
        hosts=[read_host(through_json(host_note(host))) for host in old.hosts.values()],
        totals=read_totals(through_json(totals_note(old))),
        turns={key: turn for key in {one.request.key for one in tickets} if (turn := old.turn(key)) is not None},
    )


def anew(old: Scheduler, file: Farm | None = None, now: float = NOW) -> tuple[Scheduler, TakenUp]:
    """A new process takes up what an old one had."""
    new = Scheduler(old.farm if file is None else file)
    return new, take_up(new, carried(old), now)


def lease(ticket: Ticket) -> Lease:
    assert ticket.lease is not None
    return ticket.lease


def order_of_service(scheduler: Scheduler, now: float = NOW) -> list[int]:
    """Whoever has a slot gives it back, one after the other: the numbers of those who get it."""
    served = []
    while scheduler.lent:
        first = next(one for one in scheduler.tickets if one.lease is not None)
        served += [grant.id for grant in scheduler.release(lease(first), Outcome.CLOSED, now)]
    return served


# -- leases and waiters


def test_leases_and_waiters_go_on_where_they_were() -> None:
    old = Scheduler(farm(spec("fast", 2), spec("slow", 1, 1)), first_id=50)
    held = [old.ask(request(port=number), "old", NOW - 10 + number) for number in range(4)]
    new, taken = anew(old)
    assert taken.left_out == []
    assert taken.grants == []
    assert list(taken.tickets) == [53, 50, 51, 52]
    assert new.snapshot(NOW) == old.snapshot(NOW)
    for ticket in held:
        mine = taken.tickets[ticket.id]
        assert (mine.request, mine.asked, mine.holder) == (ticket.request, ticket.asked, f"holder {ticket.id}")
    assert new.ask(request(), "new", NOW).id == 54
    assert [grant.id for grant in new.release(lease(taken.tickets[50]), Outcome.CLOSED, NOW)] == [53]
    assert new.host("fast").held == 10.0


@pytest.mark.parametrize("order", ["fair", "fifo"])
def test_the_order_of_service_is_the_same(order: str) -> None:
    def build() -> Scheduler:
        scheduler = Scheduler(farm(spec("host", 2), order=order))
        for client in ("a", "a", "a", "a", "a", "b", "b", "c"):
            scheduler.ask(request(client), None, NOW)
        scheduler.ask(request("d", since=NOW - 99), None, NOW)
        scheduler.ask(request("e", only="host"), None, NOW)
        # somebody's turn has come once already, so that the turns are not the order of arrival
        for ticket in scheduler.tickets[-1:]:
            scheduler.release(lease(ticket), Outcome.CLOSED, NOW)
        scheduler.release(lease(scheduler.tickets[-1]), Outcome.CLOSED, NOW)
        scheduler.release(lease(scheduler.tickets[-1]), Outcome.CLOSED, NOW)
        return scheduler

    new, _ = anew(build())
    assert new.turns() == build().turns()
    expected = order_of_service(build())
    assert len(expected) >= 4
    assert order_of_service(new) == expected


def test_a_client_whose_turn_is_not_known_comes_after_those_whose_is() -> None:
    old = Scheduler(farm(spec("host", 1)))
    for client in ("a", "b", "c", "d"):
        old.ask(request(client), None, NOW)
    left = replace(carried(old), turns={"d": 70, "c": 71, "gone": 72})
    new = Scheduler(old.farm)
    take_up(new, left, NOW)
    assert new.turns() == {"d": 70, "c": 71, "b": 72}
    assert order_of_service(new) == [4, 3, 2]
    assert new.turn("gone") is None


def test_another_discipline_gives_turns_by_arrival() -> None:
    old = Scheduler(farm(spec("host", 1), order="fifo"))
    for client in ("a", "b", "b", "c"):
        old.ask(request(client), None, NOW)
    assert old.turns() == {}
    assert old.turn("b") is None
    new, _ = anew(old, replace(old.farm, order="fair"))
    assert order_of_service(new) == [2, 4, 3]


def test_a_free_slot_goes_to_a_waiter_at_once() -> None:
    old = Scheduler(farm(spec("host", 1)))
    for client in ("a", "b", "c"):
        old.ask(request(client), None, NOW)
    new, taken = anew(old, farm(spec("host", 2)))
    assert [grant.id for grant in taken.grants] == [2]
    assert taken.grants[0].found is not UNKNOWN
    assert new.lent == 2


def test_a_host_may_have_more_leases_than_capacity() -> None:
    old = Scheduler(farm(spec("host", 4)))
    for client in ("a", "b", "c", "d", "e"):
        old.ask(request(client), None, NOW)
    new, taken = anew(old, farm(spec("host", 2)))
    assert taken.grants == []
    assert (new.host("host").leases, new.host("host").capacity, new.waiting) == (4, 2, 1)
    assert order_of_service(new) == [5]


def test_patience_counts_from_when_they_asked() -> None:
    old = Scheduler(farm(spec("host", 1), wait=20.0))
    for when in (NOW - 30, NOW - 15, NOW - 5):
        old.ask(request(), None, when)
    new, taken = anew(old)
    assert new.due == NOW + 5
    late = taken.tickets[2]
    decisions = new.wake(NOW + 5)
    assert decisions.refusals == [late]
    assert new.due == NOW + 15


def test_waiters_of_unknown_pools_and_hosts_wait() -> None:
    old = Scheduler(farm(spec("host", 1)))
    left = Carried(
        [
            (CarriedTicket(7, request(pool="nobody's"), NOW), "pool"),
            (CarriedTicket(8, request(only="gone"), NOW), "host"),
        ]
    )
    taken = take_up(old, left, NOW)
    assert old.waiting == 2
    for ticket in taken.tickets.values():
        old.withdraw(ticket)
    assert old.waiting == 0


# -- hosts


def test_what_was_heard_of_hosts_goes_on() -> None:
    old = Scheduler(farm(spec("host", 8), spec("broken", 8, 1)))
    old.report("host", Verdict("ssh", up=True, at=NOW - 5, weight=500, reason="half of it is ours", expires=NOW + 30))
    old.report("host", Verdict("tcp", up=True, at=NOW - 50, expires=NOW - 1))
    old.report("broken", Verdict("update", up=False, at=NOW - 5, reason="says so"))
    new, _ = anew(old)
    assert new.host("host").health.verdicts == (old.verdict("host", "ssh"),)
    assert new.host("host").capacity == 4
    assert not new.host("broken").up
    assert new.due == NOW + 30
    assert new.wake(NOW + 30).grants == []
    assert new.host("host").capacity == 8


def test_a_pause_goes_on_and_the_next_one_is_twice_as_long() -> None:
    old = Scheduler(farm(spec("host", 8)))
    early = lease(old.ask(request(), None, NOW - 2))
    old.release(lease(old.ask(request(), None, NOW - 1)), Outcome.REFUSED, NOW - 1, Traffic(9, 0, None, "refused connections"))
    assert old.lent == 1
    new, taken = anew(old)
    assert new.host("host").health.verdict("connect") == old.host("host").health.verdict("connect")
    assert new.host("host").evidence.unreachable
    # one from before that failure tells nothing new
    new.release(lease(taken.tickets[early.id]), Outcome.REFUSED, NOW, Traffic(reason="refused connections"))
    assert new.host("host").evidence.account().pause == FIRST_PAUSE
    back = NOW - 1 + FIRST_PAUSE
    new.wake(back)
    trial = lease(new.ask(request(), None, back))
    new.release(trial, Outcome.REFUSED, back + 1, Traffic(reason="refused connections"))
    assert new.host("host").evidence.account().pause == 2 * FIRST_PAUSE
    assert new.host("host").evidence.failures == {"refused": 3}
    assert new.host("host").evidence.sent == 9


def test_a_suspect_stays_one() -> None:
    old = Scheduler(farm(spec("odd", 8), spec("slow", 8, 1)))
    for client in ("a", "b", "c"):
        old.release(lease(old.ask(request(client), None, NOW)), Outcome.NO_ANSWER, NOW, Traffic())
    new, _ = anew(old)
    assert new.host("odd").suspect
    assert lease(new.ask(request(), None, NOW)).host_name == "slow"


def test_a_host_of_another_address_begins_anew() -> None:
    old = Scheduler(farm(spec("host", 8)))
    for client in ("a", "b", "c"):
        old.release(lease(old.ask(request(client), None, NOW)), Outcome.NO_ANSWER, NOW, Traffic())
    held = lease(old.ask(request(), None, NOW - 1))
    old.release(lease(old.ask(request(), None, NOW)), Outcome.TIMED_OUT, NOW, Traffic())
    new, taken = anew(old, farm(spec("host", 8, address="10.0.0.2")))
    host = new.host("host")
    assert (host.suspect, host.evidence.unreachable, host.up) == (False, False, True)
    assert host.spec.address == ("10.0.0.2", 3632)
    new.release(lease(taken.tickets[held.id]), Outcome.REFUSED, NOW, Traffic())
    assert host.up, "that job began at the old address"


@pytest.mark.parametrize(("auto", "slots"), [(True, 6), (False, 3)])
def test_what_a_host_said_of_its_slots_holds_where_the_file_leaves_it_to_the_host(auto: bool, slots: int) -> None:
    old = Scheduler(farm(spec("host", 4, auto=True)))
    old.propose_slots("host", 6, NOW)
    new, _ = anew(old, farm(spec("host", 4 if auto else 3, auto=auto)))
    assert new.host("host").spec.slots == slots


def test_what_the_new_process_has_heard_goes_before_what_the_old_one_had() -> None:
    old = Scheduler(farm(spec("host", 8)))
    old.report("host", Verdict("update", up=False, at=NOW - 9))
    old.report("host", Verdict("person", up=True, at=NOW - 9, weight=0))
    new = Scheduler(old.farm)
    fresh = Verdict("update", up=True, at=NOW - 1)
    new.report("host", fresh)
    take_up(new, carried(old), NOW, anew={"person"})
    assert new.host("host").health.verdicts == (fresh,)
    assert new.host("host").available


def test_a_host_that_is_gone_from_the_file_drains_where_it_has_leases() -> None:
    old = Scheduler(farm(spec("gone", 2), spec("idle", 2, 1), spec("stays", 1, 2)))
    old.set_admin("gone", AdminState.DRAIN, NOW, "it smokes")
    old.set_admin("gone", AdminState.READY, NOW)
    held = lease(old.ask(request(), None, NOW))
    old.set_admin("gone", AdminState.DRAIN, NOW, "it smokes")
    old.release(lease(old.ask(request(), None, NOW)), Outcome.CLOSED, NOW)
    new, taken = anew(old, farm(spec("stays", 1)))
    assert set(new.hosts) == {"gone", "stays"}
    gone = new.hosts["gone"]
    assert (gone.removed, gone.leases, gone.capacity, gone.admin, gone.decided) == (True, 1, 0, AdminState.DRAIN, "it smokes")
    assert lease(new.ask(request(), None, NOW)).host_name == "stays"
    waits = new.ask(request(), None, NOW)
    assert new.release(lease(taken.tickets[held.id]), Outcome.CLOSED, NOW) == []
    assert set(new.hosts) == {"stays"}
    assert waits.lease is None


def test_a_host_that_had_left_the_file_and_is_there_again_is_the_same() -> None:
    old = Scheduler(farm(spec("host", 2)))
    old.ask(request(), None, NOW)
    old.configure(farm(spec("other", 1)), NOW)
    assert old.hosts["host"].removed
    new, _ = anew(old, farm(spec("host", 1)))
    assert set(new.hosts) == {"host"}
    assert (new.host("host").leases, new.host("host").granted) == (1, 1)


def test_a_lease_of_a_host_that_nothing_is_known_of_is_not_lost() -> None:
    new = Scheduler(farm(spec("host", 1)))
    taken = take_up(new, Carried([(CarriedTicket(9, request(), NOW - 5, "lost", NOW - 4), "me")]), NOW)
    lost = new.hosts["lost"]
    assert (lost.removed, lost.leases, lost.granted, lost.spec.rank) == (True, 1, 1, LAST_RANK)
    assert new.counts == {"asked": 1, "granted": 1, "ended": 0, "withdrawn": 0, "refused": 0}
    new.release(lease(taken.tickets[9]), Outcome.CLOSED, NOW)
    assert set(new.hosts) == {"host"}


# -- what was counted


def test_totals_go_on() -> None:
    old = Scheduler(farm(spec("host", 1), wait=60.0))
    first = old.ask(request(), None, NOW - 100)
    old.ask(request(), None, NOW - 95)
    old.withdraw(old.ask(request(), None, NOW - 90))
    old.release(lease(first), Outcome.CLOSED, NOW - 93)
    old.ask(request(), None, NOW - 90)
    old.wake(NOW - 30)
    old.ask(request(), None, NOW)
    new, _ = anew(old)
    assert new.counts == old.counts == {"asked": 5, "granted": 2, "ended": 1, "withdrawn": 1, "refused": 1}
    assert new.waits == old.waits
    assert new.waits.seconds == 2.0
    assert new.host("host").granted == 2


@pytest.mark.parametrize(
    ("noted", "lent", "waiting", "expected"),
    [
        # granted since, and nothing ended
        (CarriedTotals(5, 5, 3), 4, 0, (7, 7, 3, 0)),
        # ended since
        (CarriedTotals(5, 5, 3), 1, 0, (5, 5, 4, 0)),
        # one asked and had to wait; one that waited has left
        (CarriedTotals(5, 3, 1), 2, 3, (6, 3, 1, 0)),
        (CarriedTotals(5, 3, 1), 2, 1, (5, 3, 1, 1)),
        # nothing was noted at all
        (CarriedTotals(), 2, 1, (3, 2, 0, 0)),
        (CarriedTotals(), 0, 0, (0, 0, 0, 0)),
        # nothing that a scheduler notes
        (CarriedTotals(asked=0, granted=9, ended=50), 1, 0, (51, 51, 50, 0)),
    ],
)
def test_totals_that_are_older_than_the_clients_are_made_to_agree(
    noted: CarriedTotals, lent: int, waiting: int, expected: tuple[int, ...]
) -> None:
    new = Scheduler(farm(spec("host", 4)))
    new.set_admin("host", AdminState.DRAIN, NOW)
    held = [CarriedTicket(number, request(), NOW, "host", NOW) for number in range(1, lent + 1)]
    waits = [CarriedTicket(number, request(), NOW) for number in range(100, 100 + waiting)]
    take_up(new, Carried([(one, None) for one in held + waits], totals=noted), NOW)
    counts = new.counts
    assert (counts["asked"], counts["granted"], counts["ended"], counts["withdrawn"]) == expected
    assert counts["granted"] == counts["ended"] + new.lent
    assert counts["asked"] == counts["granted"] + new.waiting + counts["withdrawn"] + counts["refused"]


@pytest.mark.parametrize(("granted", "leases", "lent", "expected"), [(9, 2, 4, 11), (9, 2, 1, 9), (9, 2, 2, 9), (0, 5, 1, 1)])
def test_a_host_s_own_totals_are_made_to_agree(granted: int, leases: int, lent: int, expected: int) -> None:
    new = Scheduler(farm(spec("host", 4)))
    note = CarriedHost(spec("host", 4), granted=granted, leases=leases)
    held = [(CarriedTicket(number, request(), NOW, "host", NOW), None) for number in range(1, lent + 1)]
    take_up(new, Carried(held, [note]), NOW)
    assert new.host("host").granted == expected


def test_buckets_of_other_bounds_are_counted_where_their_bounds_fall() -> None:
    new = Scheduler(farm(spec("host", 4)))
    totals = CarriedTotals(20, 20, 20, bounds=(0.01, 0.02, 5.0, 9999.0), waited=(1, 2, 3, 4, 5), seconds=7.0)
    take_up(new, Carried(totals=totals), NOW)
    assert new.waits.seconds == 7.0
    below = dict(zip(BOUNDS, new.waits.counts, strict=False))
    assert (below[0.01], below[0.03], below[3.0], below[10.0], below[600.0]) == (6, 8, 8, 11, 11)
    assert new.waits.counts[-1] == 20


# -- what cannot be


def test_a_ticket_that_cannot_be_is_left_out_and_takes_no_other_with_it() -> None:
    new = Scheduler(farm(spec("host", 4)))
    odd: Iterable[tuple[int, str]] = [(5, "first"), (0, "none"), (5, "second"), (1 << 64, "beyond"), (6, "good")]
    taken = take_up(new, Carried([(CarriedTicket(number, request(), NOW, "host", NOW), who) for number, who in odd]), NOW)
    assert {number: ticket.holder for number, ticket in taken.tickets.items()} == {5: "first", 6: "good"}
    assert [(one.holder, one.why) for one in taken.left_out] == [
        ("none", "0 is no number of a ticket"),
        ("second", "the number 5 is another ticket's"),
        ("beyond", f"{1 << 64} is no number of a ticket"),
    ]
    assert new.lent == 2


@pytest.mark.parametrize("moment", [NOW + 5, float("inf"), float("nan"), -float("inf")])
def test_what_is_to_come_has_not_happened(moment: float) -> None:
    new = Scheduler(farm(spec("host", 1)))
    left = [(CarriedTicket(1, request(), moment, "host", moment), None), (CarriedTicket(2, request(), moment), None)]
    taken = take_up(new, Carried(left), NOW)
    assert taken.tickets[1].asked == lease(taken.tickets[1]).granted == taken.tickets[2].asked == NOW


def test_nobody_may_have_asked_before() -> None:
    new = Scheduler(farm(spec("host", 1)))
    new.ask(request(), None, NOW)
    with pytest.raises(ValueError, match="before anybody asks"):
        take_up(new, Carried(), NOW)


def test_numbers_go_on_above_all_that_are_known() -> None:
    for first, expected in ((5, 101), (500, 500)):
        new = Scheduler(farm(spec("host", 1)), first_id=first)
        take_up(new, Carried([(CarriedTicket(100, request(), NOW), None)]), NOW)
        assert new.ask(request(), None, NOW).id == expected


# -- why there


def test_how_the_hosts_stood_before_is_not_made_up() -> None:
    old = Scheduler(farm(spec("fast", 1), spec("slow", 1, 1)))
    for when in (NOW - 3, NOW - 2, NOW - 1):
        old.ask(request(), None, when)
    new, taken = anew(old)
    assert all(lease(taken.tickets[number]).found is UNKNOWN for number in (1, 2))
    assert attempt(lease(taken.tickets[2])).passed_over == ()
    new.release(lease(taken.tickets[1]), Outcome.CLOSED, NOW)
    later = attempt(lease(taken.tickets[3]))
    assert later.waited is UNKNOWN
    assert later.found is not UNKNOWN
    assert new.history.jobs()[0].attempts[0].found is UNKNOWN
