"""What monitors see of the scheduler: slots that they borrow, and what was lent as a load average has it."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from distbal.errors import MonitorTrouble
from distbal.hosts import Farm
from distbal.leases import LocalLeases
from distbal.monitors.slots import Loan, Slots
from distbal.outcomes import Outcome
from tests.farms import spec
from tests.takers import Client, ask, source


def borrowed(loan: Deferred[Loan]) -> Loan:
    """The loan, which must be there."""
    found: list[Loan] = []
    loan.addCallback(found.append)
    return found[0]


def failed(loan: Deferred[Loan]) -> list[Failure]:
    """Where failures will be."""
    found: list[Failure] = []
    loan.addErrback(found.append)
    return found


def lending(wait: float | None = None) -> tuple[Clock, LocalLeases, Slots]:
    clock = Clock()
    leases = source(clock, "fast", "slow", wait=wait)
    return clock, leases, Slots(leases)


def test_a_slot_is_given_back_once() -> None:
    _, leases, slots = lending()
    loan = borrowed(slots.take("slow"))
    assert (slots.lent("slow"), slots.has_free("slow"), slots.has_free("fast")) == (1, False, True)
    loan.give_back()
    loan.give_back()
    assert (slots.lent("slow"), leases.scheduler.counts["ended"]) == (0, 1)


def test_a_slot_that_was_lost_is_not_given_back() -> None:
    _, leases, slots = lending()
    loan = borrowed(slots.take("slow"))
    holder = loan.lease.ticket.holder
    # whoever lends it has ended it already
    leases.release(loan.lease, Outcome.CLOSED)
    holder.lost(loan.lease, "the balancer has gone")  # type: ignore[attr-defined]
    loan.give_back()
    assert slots.lent("slow") == 0


def test_who_does_without_waits_no_longer() -> None:
    _, leases, slots = lending()
    first = borrowed(slots.take("slow"))
    loan = slots.take("slow")
    failures = failed(loan)
    loan.cancel()
    assert isinstance(failures[0].value, CancelledError)
    first.give_back()
    assert (leases.scheduler.waiting, slots.lent("slow")) == (0, 0)


def test_who_does_without_while_others_are_told_gives_it_back() -> None:
    _, leases, slots = lending()
    held = borrowed(slots.take("slow"))
    # the first of two that a host serves at once makes the second one give up before it is told
    loans = [slots.take("slow"), slots.take("slow")]
    failures = failed(loans[1])
    loans[0].addCallback(lambda _: loans[1].cancel())
    leases.configure(Farm((spec("fast"), spec("slow", 3, 1))))
    assert isinstance(failures[0].value, CancelledError)
    assert slots.lent("slow") == 2, "the first, and the one that was lent before"
    held.give_back()


def test_who_waits_longer_than_queue_wait_is_in_trouble() -> None:
    clock, leases, slots = lending(wait=10.0)
    borrowed(slots.take("slow"))
    failures = failed(slots.take("slow"))
    clock.advance(11)
    assert isinstance(failures[0].value, MonitorTrouble)
    assert leases.scheduler.waiting == 0


def test_hosts_that_are_not_there_are_a_key_error() -> None:
    _, _, slots = lending()
    for look in (slots.lent, slots.has_free, slots.in_service, slots.take, slots.average):
        with pytest.raises(KeyError):
            look("nobody")


def test_what_was_lent_is_averaged_as_the_kernel_does() -> None:
    _, leases, slots = lending()
    assert slots.average("fast") == 0.0
    ask(leases, Client())
    for _ in range(12):
        slots.sample()
    # a minute after it was lent: 1 - 1/e
    assert slots.average("fast") == pytest.approx(0.632, abs=0.001)
    for _ in range(200):
        slots.sample()
    assert slots.average("fast") == pytest.approx(1.0, abs=0.001)
    leases.configure(Farm((spec("slow"),)))
    slots.sample()
    with pytest.raises(KeyError):
        slots.average("fast")
