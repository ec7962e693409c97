"""What jobs tell of their hosts, by examples: pauses after failed connects, trials, suspects; what follows for the queue."""

from __future__ import annotations

import pytest

from distbal.evidence import FIRST_PAUSE, LONGEST_PAUSE, SHORTEST_TRIAL, SUSPECT_AFTER, Answers, Connects, Evidence
from distbal.hosts import Farm, HostSpec
from distbal.outcomes import CONNECT_FAILURES, FAILURES, Outcome, Traffic
from distbal.requests import Lease, Ticket
from distbal.scheduler import Decisions, Scheduler
from tests.farms import NOW, ask, given, granted, host_of, says, scheduler, shown, spec

REFUSED = Traffic(reason="refused the connection")
ANSWERED = Traffic(300, 60, 0.25)
SILENT = Traffic(300, 0, 0.25, "closed without an answer")


# -- one host's evidence


def test_each_pause_is_twice_as_long_up_to_the_longest() -> None:
    connects, now, pauses = Connects(), NOW, []
    for _ in range(9):
        down = connects.failed(now, "did not answer", now + 1)
        assert down is not None
        assert (down.source, down.up, down.at, down.reason) == ("connect", False, now + 1, "did not answer")
        assert down.expires is not None
        pauses.append(down.expires - down.at)
        trial = down.then
        assert trial is not None
        assert (trial.up, trial.weight, trial.at, trial.then) == (True, 1, down.expires, None)
        assert trial.reason == "on trial: one job at a time; it did not answer"
        assert trial.expires == down.expires + max(pauses[-1], SHORTEST_TRIAL)
        now = down.expires
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert (pauses[0], pauses[-1]) == (FIRST_PAUSE, LONGEST_PAUSE)


def test_a_connect_that_succeeds_begins_the_pauses_anew() -> None:
    connects = Connects()
    assert not connects.succeeded(), "that is no news"
    connects.failed(NOW, "", NOW + 1)
    connects.failed(NOW + 2, "", NOW + 3)
    assert connects.pause == 2 * FIRST_PAUSE
    assert connects.succeeded()
    assert connects.pause == 0
    assert not connects.succeeded()
    down = connects.failed(NOW + 4, "", NOW + 5)
    assert down is not None
    assert down.expires == NOW + 5 + FIRST_PAUSE


def test_jobs_that_failed_together_count_once() -> None:
    connects = Connects()
    assert connects.failed(NOW, "", NOW + 3) is not None
    assert connects.failed(NOW + 1, "", NOW + 3) is None, "it had begun before the first one failed"
    assert connects.failed(NOW + 3, "", NOW + 6) is None
    assert connects.failed(NOW + 3.5, "", NOW + 7) is not None


def test_three_clients_make_a_suspect() -> None:
    answers = Answers()
    for key in ("arthur", "arthur", "arthur", "ford", "arthur"):
        answers.failed(key)
        assert not answers.suspect
    answers.failed("trillian")
    assert answers.suspect
    answers.failed("zaphod")
    answers.succeeded()
    assert not answers.suspect
    for key in ("arthur", "ford"):
        answers.failed(key)
    assert not answers.suspect, "all three anew"


def test_an_answer_between_breaks_the_row() -> None:
    evidence = Evidence()
    for number in range(10 * SUSPECT_AFTER):
        evidence.ended(Outcome.NO_ANSWER, SILENT, f"client {number}", NOW, NOW)
        if number % (SUSPECT_AFTER - 1) == 0:
            evidence.ended(Outcome.ANSWERED, ANSWERED, "another", NOW, NOW)
        assert not evidence.suspect


@pytest.mark.parametrize("outcome", Outcome)
def test_what_each_outcome_tells(outcome: Outcome) -> None:
    evidence = Evidence()
    said = evidence.ended(outcome, Traffic(1000, 20, None, "is odd"), "arthur", NOW, NOW + 1)
    assert (said is not None) is (outcome in CONNECT_FAILURES)
    assert evidence.unreachable is (outcome in CONNECT_FAILURES)
    assert evidence.failures == ({outcome.value: 1} if outcome in FAILURES else None)
    assert (evidence.sent, evidence.received, evidence.connected, evidence.connecting) == (1000, 20, 0, 0.0)
    assert not evidence.suspect


def test_totals() -> None:
    evidence = Evidence()
    for outcome, traffic in (
        (Outcome.ANSWERED, ANSWERED),
        (Outcome.REFUSED, REFUSED),
        (Outcome.NO_ANSWER, SILENT),
        (Outcome.NO_ANSWER, SILENT),
        (Outcome.CLOSED, Traffic(7, 0, 0.5)),
    ):
        evidence.ended(outcome, traffic, "arthur", NOW, NOW)
    assert (evidence.sent, evidence.received) == (907, 60)
    assert (evidence.connected, evidence.connecting) == (4, 1.25)
    assert evidence.failures == {"refused": 1, "no-answer": 2}


# -- and the farm


def fail(farm: Scheduler, lease: Lease, now: float) -> Ticket:
    """The lease's host refuses the connection, and its job asks again, as the proxy does it."""
    farm.release(lease, Outcome.REFUSED, now, REFUSED)
    request = lease.ticket.request
    return ask(farm, request.key, now, exclude=(lease.host_name,), job=lease.job, since=lease.ticket.asked)


def test_a_job_that_could_not_be_connected_gets_the_next_host_at_once() -> None:
    farm = scheduler(spec("dark", 2, 0), spec("fine", 2, 1))
    first = granted(ask(farm))
    again = fail(farm, first, NOW + 3)
    assert host_of(again) == "fine"
    assert (granted(again).job, again.asked) == (first.job, NOW)
    assert not shown(farm, "dark").up
    assert host_of(ask(farm)) == "fine", "and nobody else is sent there"


def test_a_dark_host_is_found_again_without_any_monitor() -> None:
    farm = scheduler(spec("dark", 4, 0))
    fail(farm, granted(ask(farm)), NOW)
    waiting = [ask(farm, "10.0.0.2") for _ in range(3)]
    assert farm.due == NOW + FIRST_PAUSE
    grants = farm.wake(NOW + FIRST_PAUSE).grants
    assert given(grants) == [(waiting[0].id, "dark")], "one job on trial"
    assert shown(farm, "dark").capacity == 1
    assert given(farm.connected(grants[0], NOW + 6)) == [(waiting[1].id, "dark"), (waiting[2].id, "dark")]
    assert shown(farm, "dark").verdicts == ()


def test_an_old_job_that_ends_well_lifts_no_pause() -> None:
    """Its connection is older than what went wrong."""
    farm = scheduler(spec("dark", 4, 0))
    old, new = granted(ask(farm)), granted(ask(farm))
    fail(farm, new, NOW + 1)
    farm.release(old, Outcome.ANSWERED, NOW + 2, ANSWERED)
    assert not shown(farm, "dark").up


def test_a_pause_outlives_a_reload_but_not_the_host() -> None:
    farm = scheduler(spec("dark", 4, 0), spec("fine"))
    fail(farm, granted(ask(farm)), NOW)
    farm.configure(farm.farm, NOW)
    assert not shown(farm, "dark").up


def test_an_old_job_that_ends_well_ends_no_trial() -> None:
    """It is older than what went wrong: the one on trial will tell."""
    farm = scheduler(spec("dark", 4, 0))
    old, new = granted(ask(farm)), granted(ask(farm))
    farm.release(new, Outcome.REFUSED, NOW + 1, REFUSED)
    back = NOW + 1 + FIRST_PAUSE
    farm.wake(back)
    first, second = ask(farm, now=back), ask(farm, now=back)
    assert given(farm.release(old, Outcome.ANSWERED, back + 1, ANSWERED)) == [(first.id, "dark")]
    assert host_of(second) == "", "one at a time"
    assert shown(farm, "dark").capacity == 1
    assert given(farm.release(granted(first), Outcome.ANSWERED, back + 2, ANSWERED)) == [(second.id, "dark")]
    assert shown(farm, "dark").capacity == 4
    assert shown(farm, "dark").verdicts == ()


# -- a host whose address changes


def at(address: str, slots: int = 4) -> HostSpec:
    return HostSpec("box", slots, 0, address=(address, 3632))


def test_a_host_with_another_address_is_as_good_as_new() -> None:
    farm = scheduler(at("10.0.1.1"))
    for number in range(SUSPECT_AFTER):
        farm.release(granted(ask(farm, f"10.0.0.{number}")), Outcome.NO_ANSWER, NOW, SILENT)
    for _ in range(3):
        # three pauses, each after a job on trial but the first
        farm.wake(now := farm.due or NOW)
        farm.release(granted(ask(farm, now=now)), Outcome.REFUSED, now + 1, REFUSED)
    before = shown(farm, "box")
    assert (before.up, before.suspect) == (False, True)
    waiting = ask(farm, now=now + 2)
    assert given(farm.configure(Farm((at("10.0.1.2"),)), now + 2)) == [(waiting.id, "box")]
    moved = shown(farm, "box")
    assert (moved.up, moved.suspect, moved.capacity, moved.verdicts) == (True, False, 4, ())
    assert farm.due is None
    assert moved.failures == before.failures, "what happened did happen"
    # and its first pause is a first one
    farm.release(granted(ask(farm, now=now + 3)), Outcome.REFUSED, now + 4, REFUSED)
    assert farm.due == now + 4 + FIRST_PAUSE
    assert not shown(farm, "box").suspect


def test_what_could_not_connect_to_the_old_address_says_nothing_of_the_new_one() -> None:
    farm = scheduler(at("10.0.1.1"))
    old = granted(ask(farm))
    farm.configure(Farm((at("10.0.1.2"),)), NOW + 1)
    farm.release(old, Outcome.TIMED_OUT, NOW + 3, REFUSED)
    assert shown(farm, "box").up
    assert farm.verdict("box", "connect") is None
    farm.release(granted(ask(farm, now=NOW + 4)), Outcome.TIMED_OUT, NOW + 7, REFUSED)
    assert not shown(farm, "box").up


def test_the_same_address_again_changes_nothing() -> None:
    farm = scheduler(at("10.0.1.1"))
    for number in range(SUSPECT_AFTER):
        farm.release(granted(ask(farm, f"10.0.0.{number}")), Outcome.NO_ANSWER, NOW, SILENT)
    farm.release(granted(ask(farm)), Outcome.REFUSED, NOW + 1, REFUSED)
    before = shown(farm, "box")
    farm.configure(Farm((at("10.0.1.1", 2),)), NOW + 2)
    after = shown(farm, "box")
    assert (after.up, after.suspect, after.verdicts) == (False, True, before.verdicts)
    assert farm.due == NOW + 1 + FIRST_PAUSE


def test_what_others_say_of_a_host_stays_when_it_moves() -> None:
    farm = scheduler(at("10.0.1.1"))
    farm.report("box", says(up=False))
    farm.configure(Farm((at("10.0.1.2"),)), NOW + 1)
    assert not shown(farm, "box").up


# -- the queue


def test_a_job_that_is_tried_again_goes_before_all_who_wait() -> None:
    farm = scheduler(spec("dark", 1, 0), spec("fine", 1, 1))
    doomed, busy = granted(ask(farm)), granted(ask(farm, "10.0.0.2"))
    others = [ask(farm, f"10.0.1.{number}", NOW + 1) for number in range(3)]
    again = fail(farm, doomed, NOW + 3)
    assert host_of(again) == ""
    assert [waiter.id for waiter in farm.snapshot(NOW).waiters] == [again.id, *(ticket.id for ticket in others)]
    assert given(farm.release(busy, Outcome.ANSWERED, NOW + 4, ANSWERED)) == [(again.id, "fine")]


def test_its_patience_began_when_it_first_asked() -> None:
    farm = scheduler(spec("dark"), wait=10.0)
    again = fail(farm, granted(ask(farm)), NOW + 3)
    assert farm.due == NOW + 3 + FIRST_PAUSE
    farm.report("dark", says(up=False, at=NOW + 4))
    assert farm.wake(NOW + 9) == Decisions()
    assert farm.wake(NOW + 10) == Decisions([], [again])


def test_a_suspect_is_used_last_and_never_empties_the_farm() -> None:
    farm = scheduler(spec("odd", 9, 0), spec("slow", 1, 1))
    for number in range(SUSPECT_AFTER):
        lease = granted(ask(farm, f"10.0.0.{number}"))
        assert lease.host_name == "odd"
        farm.release(lease, Outcome.NO_ANSWER, NOW, SILENT)
    assert shown(farm, "odd").suspect
    first, second = ask(farm), ask(farm)
    assert (host_of(first), host_of(second)) == ("slow", "odd")
    farm.release(granted(second), Outcome.ANSWERED, NOW, ANSWERED)
    assert not shown(farm, "odd").suspect
    assert host_of(ask(farm)) == "odd"


def test_one_client_s_odd_compiler_makes_no_suspect() -> None:
    farm = scheduler(spec("fine", 9, 0), spec("slow", 1, 1))
    for _ in range(100):
        farm.release(granted(ask(farm)), Outcome.NO_ANSWER, NOW, SILENT)
    assert not shown(farm, "fine").suspect
    assert shown(farm, "fine").failures == {"no-answer": 100}
    assert host_of(ask(farm)) == "fine"
