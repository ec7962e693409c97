"""Why there? Four hosts passed over for four reasons, and each other reason once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from distbal.carried import CarriedTicket
from distbal.history import attempt
from distbal.hosts import AdminState, Farm
from distbal.outcomes import Outcome, Traffic
from distbal.requests import Request, Ticket
from distbal.standing import MOST, UNKNOWN
from distbal.takeup import Carried, take_up
from distbal.why import ASKED_BEFORE, LENT_BEFORE, REASONS
from tests.farms import NOW, ask, granted, host_of, says, scheduler, spec

REQUEST = Request("10.0.0.9", 4711, "10.0.0.9")


def passed(ticket: Ticket) -> list[tuple[str, str, str]]:
    return [(one.host, one.reason, one.words) for one in attempt(granted(ticket)).passed_over]


def test_four_hosts_are_passed_over_for_four_reasons() -> None:
    farm = scheduler(spec("full", 2, 0), spec("gone", 8, 1), spec("tired", 8, 2), spec("arm", 8, 3, "arm"), spec("last", 8, 4))
    ask(farm)
    ask(farm)
    farm.report("gone", replace(says(up=False), reason="cannot be reached: Connection refused"))
    farm.set_admin("tired", AdminState.DRAIN, NOW, "fan broken")
    ticket = ask(farm)
    assert host_of(ticket) == "last"
    assert passed(ticket) == [
        ("full", "full", "was full: 2 of 2 slots lent"),
        ("gone", "down", "was down: tcp says so (cannot be reached: Connection refused)"),
        ("tired", "drained", "was drained: fan broken"),
        ("arm", "pool", "serves other pools (arm)"),
    ]


def test_it_is_told_as_it_was_and_not_as_it_is() -> None:
    farm = scheduler(spec("fast", 1, 0), spec("slow", 1, 1))
    first = granted(ask(farm))
    ticket = ask(farm)
    farm.release(first, Outcome.CLOSED, NOW + 1)
    farm.set_admin("fast", AdminState.DOWN, NOW + 2, "moved")
    assert passed(ticket) == [("fast", "full", "was full: 1 of 1 slots lent")]
    farm.configure(Farm((spec("slow", 1, 0),)), NOW + 3)
    assert passed(ticket) == [("fast", "full", "was full: 1 of 1 slots lent")]
    farm.release(granted(ticket), Outcome.CLOSED, NOW + 4)
    _, job = farm.history.jobs()
    (over,) = job.attempts
    assert [one.host for one in over.passed_over] == ["fast"]
    assert (over.outcome, over.ended) == (Outcome.CLOSED, NOW + 4)


def test_who_waited_is_told_what_for_and_who_it_passed() -> None:
    farm = scheduler(spec("fast", 1, 0), spec("down", 1, 1), spec("slow", 1, 2), spec("arm", 1, 3, "arm"))
    farm.report("down", says(up=False))
    first, second = ask(farm), ask(farm)
    third = ask(farm)
    farm.release(granted(second), Outcome.CLOSED, NOW + 1)
    assert host_of(third) == "slow"
    assert attempt(granted(third)).waited_for == {"down": 1, "full": 2}
    assert passed(third) == [("fast", "full", "was full: 1 of 1 slots lent"), ("down", "down", "was down: tcp says so")]
    assert attempt(granted(first)).waited_for == {}


def test_a_host_with_less_weight_says_who_weighed_it() -> None:
    farm = scheduler(spec("busy", 8, 0), spec("laden", 8, 1), spec("slow", 1, 2))
    farm.report("busy", replace(says(weight=250, source="ssh"), reason="others use 75 % of its CPUs"))
    farm.report("busy", says(weight=900, source="agent"))
    farm.report("laden", says(weight=0, source="agent"))
    tickets = [ask(farm) for _ in range(3)]
    assert passed(tickets[-1]) == [
        ("busy", "full", "was full: 2 of 2 slots lent (of 8: weight 0.25, ssh says so (others use 75 % of its CPUs))"),
        ("laden", "weight", "had no capacity: weight 0, agent says so"),
    ]


def test_a_host_that_somebody_took_down() -> None:
    farm = scheduler(spec("fast", 8, 0), spec("slow", 1, 1))
    farm.set_admin("fast", AdminState.DOWN, NOW)
    assert passed(ask(farm)) == [("fast", "taken-down", "was taken down")]


def test_every_source_that_says_down_is_named() -> None:
    farm = scheduler(spec("fast", 8, 0), spec("slow", 8, 1))
    farm.report("fast", says(up=False, source="tcp"))
    farm.report("fast", replace(says(up=False, source="compile"), reason="lacks gcc"))
    assert passed(ask(farm)) == [("fast", "down", "was down: tcp says so; compile says so (lacks gcc)")]
    farm.forget("fast", "tcp", NOW)
    assert passed(ask(farm)) == [("fast", "down", "was down: compile says so (lacks gcc)")]


def test_a_job_that_failed_there() -> None:
    farm = scheduler(spec("fast", 8, 0), spec("slow", 8, 1))
    assert passed(ask(farm, exclude=("fast",))) == [("fast", "excluded", "was left out: this job had failed there")]


def test_a_job_that_one_host_alone_will_do_for() -> None:
    farm = scheduler(spec("fast", 8, 0), spec("slow", 8, 1, "arm"))
    assert passed(ask(farm, only="slow")) == [("fast", "asked-for", "was not asked for: slow alone would do")]
    for _ in range(7):
        ask(farm, only="slow")
    waits = ask(farm, only="slow")
    farm.release(granted(ask(farm)), Outcome.CLOSED, NOW)
    assert waits.found is not None
    farm.propose_slots("slow", 9, NOW)
    assert waits.lease is None, "the file says 8"
    farm.configure(Farm((spec("fast", 8, 0), spec("slow", 9, 1, "arm"))), NOW)
    assert attempt(granted(waits)).waited_for == {"full": 1}


def test_a_suspect_host_is_used_last() -> None:
    farm = scheduler(spec("odd", 8, 0), spec("slow", 8, 1))
    for number in range(3):
        lease = granted(ask(farm, key=f"10.0.0.{number}"))
        farm.release(lease, Outcome.NO_ANSWER, NOW, Traffic())
    assert passed(ask(farm)) == [("odd", "suspect", "was to be used last: it closed jobs of several clients without an answer")]


@pytest.mark.parametrize(
    ("policy", "reason", "words"),
    [
        ("least-loaded", "busier", "was free too, and no less busy"),
        ("random", "not-drawn", "was free too: the draw fell elsewhere"),
    ],
)
def test_a_host_that_was_free_too(policy: str, reason: str, words: str) -> None:
    farm = scheduler(spec("fast", 20, 0), spec("slow", 20, 1), policy=policy)
    told = [passed(ticket) for ticket in (ask(farm) for _ in range(12)) if host_of(ticket) == "slow"]
    assert told
    assert all(one == [("fast", reason, words)] for one in told)


def test_every_reason_has_its_test() -> None:
    text = Path(__file__).read_text()
    assert [reason for reason in REASONS if f'"{reason}"' not in text] == []


def test_what_leases_keep_is_shared_while_nothing_changes_and_bounded() -> None:
    farm = scheduler(*(spec(f"h{number}", 4, number) for number in range(MOST + 20)))
    one, two = granted(ask(farm)), granted(ask(farm))
    assert one.found is two.found
    assert len(one.found.standings) == MOST


def test_of_many_hosts_the_first_are_told_and_the_rest_is_counted() -> None:
    farm = scheduler(*(spec(f"full{number}", 1, number) for number in range(9)), spec("last", 1, 9))
    tickets = [ask(farm) for _ in range(10)]
    whole = attempt(granted(tickets[-1]))
    for most in (0, 3, 9, 20):
        told, count = whole.first_passed_over(most)
        assert told == whole.passed_over[:most]
        assert count == 9
    assert attempt(granted(tickets[0])).first_passed_over(3) == ((), 0)


def test_what_a_job_told_as_its_slot_went_to_the_next_is_kept_with_the_right_number_of_leases() -> None:
    """That a host was reached ends what was held against it, which changes nothing else, between a release and a grant."""
    farm = scheduler(spec("far", 1))
    farm.release(granted(ask(farm)), Outcome.REFUSED, NOW, Traffic())
    now = NOW
    trial = waiter = None
    for _ in range(2):
        # the pause, and then the time in which one job alone is on trial
        assert farm.due is not None
        now = farm.due
        farm.wake(now)
        trial, waiter = trial or ask(farm, "10.0.0.1", now), waiter or ask(farm, "10.0.0.2", now)
    assert trial is not None
    assert waiter is not None
    farm.release(granted(trial), Outcome.ANSWERED, now, Traffic(5, 2, 0.5))
    assert host_of(waiter) == "far"
    assert [(one.leases, one.available) for one in farm.moment.standings] == [(1, False)]


def test_what_was_said_while_a_host_was_free_is_kept_when_it_is_full_again() -> None:
    farm = scheduler(spec("far", 1), spec("near", 1, 1))
    farm.release(granted(ask(farm)), Outcome.CLOSED, NOW)
    farm.report("far", replace(says(weight=1000), reason="is idle"))
    ask(farm)
    far, _ = farm.moment.standings
    assert [(verdict.source, verdict.reason) for verdict in far.verdicts] == [("tcp", "is idle")]


def test_what_is_not_known_is_said() -> None:
    """Of a job that was there before distbal was started anew nothing is made up; one that waited tells of its grant."""
    farm = scheduler(spec("fast", 1, 0), spec("slow", 1, 1))
    before = [CarriedTicket(1, REQUEST, NOW - 9, "slow", NOW - 9), CarriedTicket(2, REQUEST, NOW - 8, "fast", NOW - 7)]
    waits = CarriedTicket(3, REQUEST, NOW - 5)
    tickets = take_up(farm, Carried([(one, None) for one in (*before, waits)]), NOW).tickets
    at_once, later = attempt(granted(tickets[1])), attempt(granted(tickets[2]))
    assert (at_once.not_known, at_once.waited, later.waited) == (LENT_BEFORE, None, UNKNOWN)
    assert at_once.passed_over == later.passed_over == ()
    assert later.waited_for == {}
    farm.release(granted(tickets[1]), Outcome.CLOSED, NOW)
    assert passed(tickets[3]) == [("fast", "full", "was full: 1 of 1 slots lent")]
    assert (attempt(granted(tickets[3])).not_known, attempt(granted(tickets[3])).waited_for) == (ASKED_BEFORE, {})
    assert attempt(granted(ask(scheduler(spec("fast", 1))))).not_known == ""
