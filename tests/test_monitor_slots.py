"""What monitors see of the scheduler, and the slots that they take."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TypeVar

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from distbal.errors import MonitorTrouble
from distbal.hosts import AdminState, Farm
from distbal.leases import LocalLeases
from distbal.loads import SAMPLE
from distbal.monitors.slots import OWN_ADDRESS, Loan, Slots
from distbal.outcomes import Outcome
from distbal.requests import Lease
from tests.farms import scheduler, spec
from tests.takers import Client, ask, due, source

Result = TypeVar("Result")


@pytest.fixture
def clock() -> Clock:
    return Clock()


def result_of(deferred: Deferred[Result]) -> Result:
    """What it fired with; it must have."""
    results: list[Result] = []
    deferred.addCallback(results.append)
    (result,) = results
    return result


def failure_of(deferred: Deferred[Loan]) -> BaseException | None:
    """What it failed with; it must have."""
    failures: list[BaseException | None] = []

    def note(failure: Failure) -> None:
        failures.append(failure.value)

    deferred.addErrback(note)
    (failure,) = failures
    return failure


def lease_of(client: Client) -> Lease:
    assert client.lease is not None
    return client.lease


# -- to take one


def test_a_free_slot_is_taken_at_once(clock: Clock) -> None:
    leases = source(clock, "fast", "slow")
    loan = result_of(Slots(leases).take("slow"))
    assert loan.lease.host_name == "slow"
    (shown,) = leases.snapshot().leases
    assert (shown.address, shown.port, shown.host) == (OWN_ADDRESS, 0, "slow"), "readers see it like any job"
    loan.give_back()
    assert leases.scheduler.lent == 0
    assert leases.scheduler.counts["ended"] == 1


def test_a_slot_is_waited_for_and_comes_before_clients(clock: Clock) -> None:
    leases, first, second = source(clock, "fast"), Client(), Client()
    ask(leases, first)
    ask(leases, second)
    taking = Slots(leases).take("fast")
    assert not taking.called
    leases.release(lease_of(first), Outcome.CLOSED)
    loan = result_of(taking)
    assert (loan.lease.host_name, second.host) == ("fast", "")
    loan.give_back()
    assert second.host == "fast"


def test_a_slot_that_is_given_back_twice_is_free_once(clock: Clock) -> None:
    leases, first, second = source(clock, "fast"), Client(), Client()
    loan = result_of(Slots(leases).take("fast"))
    ask(leases, first)
    ask(leases, second)
    loan.give_back(Outcome.ANSWERED)
    assert first.host == "fast"
    loan.give_back()
    assert (second.host, leases.scheduler.lent) == ("", 1)


def test_how_a_loan_ended_is_in_the_history(clock: Clock) -> None:
    leases = source(clock, "fast")
    result_of(Slots(leases).take("fast")).give_back()
    result_of(Slots(leases).take("fast")).give_back(Outcome.ANSWERED)
    outcomes = [attempt.outcome for job in leases.scheduler.history.jobs() for attempt in job.attempts]
    assert outcomes == [Outcome.CLOSED, Outcome.ANSWERED]


def test_who_is_cancelled_while_it_waits_gets_none(clock: Clock) -> None:
    leases, first, second = source(clock, "fast"), Client(), Client()
    ask(leases, first)
    taking = Slots(leases).take("fast")
    ask(leases, second)
    taking.cancel()
    assert isinstance(failure_of(taking), CancelledError)
    assert leases.scheduler.counts["withdrawn"] == 1
    leases.release(lease_of(first), Outcome.CLOSED)
    assert second.host == "fast"
    taking.cancel()
    assert leases.scheduler.counts["withdrawn"] == 1


def test_to_cancel_what_has_fired_changes_nothing(clock: Clock) -> None:
    leases = source(clock, "fast")
    taking = Slots(leases).take("fast")
    taking.cancel()
    loan = result_of(taking)
    assert leases.scheduler.lent == 1, "it is the holder's to give back"
    loan.give_back()
    taking.cancel()
    assert leases.scheduler.lent == 0


def test_who_is_cancelled_between_the_grant_and_its_delivery_gives_it_back(clock: Clock) -> None:
    """As when another that is told first stops everything."""
    leases = LocalLeases(scheduler(spec("fast", 2)), clock)
    slots = Slots(leases)
    leases.set_admin("fast", AdminState.DRAIN)
    takings = [slots.take("fast"), slots.take("fast")]
    client = Client()
    ask(leases, client)
    loans: list[Loan] = []

    def stop_the_other(loan: Loan) -> None:
        loans.append(loan)
        takings[1].cancel()

    takings[0].addCallback(stop_the_other)
    leases.set_admin("fast", AdminState.READY)
    assert isinstance(failure_of(takings[1]), CancelledError)
    assert len(loans) == 1
    assert client.host == "fast", "what came back serves the next"
    assert leases.scheduler.lent == 2
    history = [attempt.outcome for job in leases.scheduler.history.jobs() for attempt in job.attempts]
    assert history == [Outcome.UNDELIVERED]


def test_who_waits_for_as_long_as_queue_wait_allows_is_in_trouble(clock: Clock) -> None:
    leases, client = source(clock, "fast", wait=10), Client()
    ask(leases, client)
    taking = Slots(leases).take("fast")
    clock.advance(10.1)
    trouble = failure_of(taking)
    assert isinstance(trouble, MonitorTrouble)
    assert str(trouble) == "no host was free for as long as queue.wait allows"
    leases.release(lease_of(client), Outcome.CLOSED)
    assert (leases.scheduler.lent, due(clock)) == (0, [])
    taking.cancel()


def test_who_was_cancelled_is_not_refused(clock: Clock) -> None:
    leases = source(clock, "fast", wait=10)
    ask(leases, Client())
    taking = Slots(leases).take("fast")
    taking.cancel()
    assert isinstance(failure_of(taking), CancelledError)
    clock.advance(10.1)
    assert leases.scheduler.counts["refused"] == 0


def test_who_is_cancelled_when_its_time_was_over_together_with_another_s(clock: Clock) -> None:
    leases = source(clock, "fast", wait=10)
    ask(leases, Client())
    takings = [Slots(leases).take("fast") for _ in range(2)]

    def stop_the_other(failure: Failure) -> Failure:
        takings[1].cancel()
        return failure

    takings[0].addErrback(stop_the_other)
    clock.advance(10.1)
    assert isinstance(failure_of(takings[0]), MonitorTrouble)
    assert isinstance(failure_of(takings[1]), CancelledError)
    assert (leases.scheduler.waiting, leases.scheduler.counts["refused"]) == (0, 2)


def test_who_waits_for_a_host_that_leaves_the_file_waits_until_it_is_cancelled(clock: Clock) -> None:
    leases = source(clock, "fast", "slow")
    ask(leases, Client())
    taking = Slots(leases).take("fast")
    leases.configure(Farm((spec("slow", 2),)))
    assert not taking.called
    taking.cancel()
    assert isinstance(failure_of(taking), CancelledError)
    assert leases.scheduler.waiting == 0


def test_a_lease_that_ends_without_its_monitor_is_logged(clock: Clock) -> None:
    leases = source(clock, "fast")
    loan = result_of(Slots(leases).take("fast"))
    holder = loan.lease.ticket.holder
    with capturedLogs() as events:
        holder.lost(loan.lease, "the farm went away")  # type: ignore[attr-defined]
    assert [event["reason"] for event in events] == ["the farm went away"]


def test_hosts_that_are_not_in_the_file(clock: Clock) -> None:
    leases = source(clock, "fast")
    slots = Slots(leases)
    for look in (slots.lent, slots.has_free, slots.in_service, slots.take, slots.average):
        with pytest.raises(KeyError):
            look("nobody")
    assert leases.scheduler.counts["asked"] == 0


# -- to look


def test_what_is_lent_and_what_is_free(clock: Clock) -> None:
    leases = LocalLeases(scheduler(spec("fast", 2)), clock)
    slots = Slots(leases)
    assert (slots.lent("fast"), slots.has_free("fast"), slots.in_service("fast")) == (0, True, True)
    loans = [result_of(slots.take("fast")) for _ in range(2)]
    assert (slots.lent("fast"), slots.has_free("fast"), slots.in_service("fast")) == (2, False, True)
    loans[0].give_back()
    leases.report("fast", "tcp", up=True, weight=1)
    assert (slots.lent("fast"), slots.has_free("fast"), slots.in_service("fast")) == (1, False, True), "its one slot is lent"
    leases.report("fast", "tcp", up=True, weight=0)
    assert (slots.has_free("fast"), slots.in_service("fast")) == (False, False)
    leases.report("fast", "tcp", up=True)
    assert slots.in_service("fast")
    leases.set_admin("fast", AdminState.DRAIN)
    assert (slots.has_free("fast"), slots.in_service("fast")) == (False, False)


# -- averages


def test_an_average_begins_with_what_is_lent_when_it_is_first_asked_for(clock: Clock) -> None:
    slots = Slots(LocalLeases(scheduler(spec("fast", 4)), clock))
    slots.sample()
    loans = [result_of(slots.take("fast")) for _ in range(3)]
    assert slots.average("fast") == 3
    slots.sample()
    assert slots.average("fast") == pytest.approx(3)
    for loan in loans:
        loan.give_back()
    assert slots.average("fast") == pytest.approx(3)
    for _ in range(int(60 / SAMPLE)):
        slots.sample()
    assert slots.average("fast") == pytest.approx(3 / math.e)


def test_averages_are_each_host_s_own(clock: Clock) -> None:
    slots = Slots(source(clock, "fast", "slow"))
    result_of(slots.take("slow"))
    assert (slots.average("fast"), slots.average("slow")) == (0, 1)


def test_the_average_of_a_host_that_is_gone_is_forgotten(clock: Clock) -> None:
    leases = source(clock, "fast", "slow")
    slots = Slots(leases)
    loan = result_of(slots.take("fast"))
    assert slots.average("fast") == 1
    leases.configure(Farm((spec("slow"),)))
    slots.sample()
    with pytest.raises(KeyError):
        slots.average("fast")
    leases.configure(Farm((spec("slow"), replace(spec("fast"), slots=2))))
    slots.sample()
    assert slots.average("fast") == pytest.approx(1), "it drained meanwhile, and has the lease still"
    loan.give_back()
    leases.configure(Farm((spec("slow"),)))
    slots.sample()
    leases.configure(Farm((spec("slow"), spec("fast"))))
    assert slots.average("fast") == 0, "it begins anew"


def test_an_average_goes_on_in_the_next_process_as_if_it_had_been_sampled_meanwhile(clock: Clock) -> None:
    leases = source(clock, "fast")
    old, new = Slots(leases), Slots(leases)
    assert old.kept_average("fast") is None
    assert old.average("fast") == 0.0
    ask(leases, Client())
    for _ in range(12):
        old.sample()
    before = old.kept_average("fast")
    assert before is not None
    new.take_up("fast", before, 4 * SAMPLE)
    for _ in range(4):
        old.sample()
    assert new.average("fast") == pytest.approx(old.average("fast"))
    new.take_up("fast", before, -1.0)
    assert new.average("fast") == before, "no time has passed, whatever the clocks say"
