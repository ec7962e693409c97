"""The history: by job, bounded, in the order in which things ended."""

from __future__ import annotations

import pytest

from distbal.history import DEFAULT_LIMIT, Attempt, History
from distbal.hosts import Host, HostSpec
from distbal.outcomes import Outcome
from distbal.requests import Lease, Request, Ticket
from distbal.standing import Moment

FAST, SLOW = (Host(HostSpec(name, 4, rank), rank) for rank, name in enumerate(["fast", "slow"]))


def lease(number: int, host: Host = FAST, *, job: int = 0, asked: float = 1.0, granted: float = 2.0) -> Lease:
    ticket = Ticket(number, Request("10.0.0.9", 4711, "10.0.0.9", "arm", (), job), None, asked)
    return Lease(ticket, host, granted, Moment("fastest-first", ()))


def told(attempt: Attempt) -> tuple[object, ...]:
    return attempt.lease, attempt.host, attempt.asked, attempt.granted, attempt.ended, attempt.outcome


def test_nothing_yet() -> None:
    history = History()
    assert len(history) == 0
    assert history.jobs() == ()


def test_one_job_one_attempt() -> None:
    history = History()
    history.ended(lease(7), Outcome.CLOSED, 5.0)
    (job,) = history.jobs()
    assert (job.id, job.address, job.port, job.pool) == (7, "10.0.0.9", 4711, "arm")
    assert list(map(told, job.attempts)) == [(7, "fast", 1.0, 2.0, 5.0, Outcome.CLOSED)]


def test_several_attempts_are_one_job() -> None:
    """In the order in which they ended, other jobs' ends between them."""
    history = History()
    history.ended(lease(7, FAST), Outcome.RESET, 5.0)
    history.ended(lease(8, SLOW), Outcome.CLOSED, 6.0)
    history.ended(lease(12, SLOW, job=7, asked=5.0, granted=5.5), Outcome.CLOSED, 7.0)
    first, second = history.jobs()
    assert (first.id, second.id) == (7, 8)
    assert list(map(told, first.attempts)) == [
        (7, "fast", 1.0, 2.0, 5.0, Outcome.RESET),
        (12, "slow", 5.0, 5.5, 7.0, Outcome.CLOSED),
    ]
    assert len(history) == 3


def test_the_second_attempt_may_end_first() -> None:
    history = History()
    history.ended(lease(9, SLOW, job=7), Outcome.CLOSED, 5.0)
    history.ended(lease(7, FAST), Outcome.VANISHED, 6.0)
    (job,) = history.jobs()
    assert job.id == 7
    assert [attempt.lease for attempt in job.attempts] == [9, 7]


def test_the_oldest_is_forgotten_first() -> None:
    history = History(limit=2)
    for number in (1, 2, 3):
        history.ended(lease(number), Outcome.CLOSED, float(number))
    assert [job.id for job in history.jobs()] == [2, 3]
    history.ended(lease(4, job=2), Outcome.CLOSED, 4.0)
    assert [(job.id, len(job.attempts)) for job in history.jobs()] == [(3, 1), (2, 1)]


def test_the_limit_by_itself() -> None:
    history = History()
    for number in range(DEFAULT_LIMIT + 5):
        history.ended(lease(number + 1), Outcome.CLOSED, 3.0)
    assert len(history) == DEFAULT_LIMIT
    assert history.jobs()[0].id == 6


@pytest.mark.parametrize("limit", [0, -1])
def test_a_history_of_nothing_is_a_mistake(limit: int) -> None:
    with pytest.raises(ValueError, match=f"at least one attempt, not {limit}"):
        History(limit)


def test_the_last_ones_are_the_last_of_all() -> None:
    history = History(limit=20)
    for number in range(30):
        history.ended(lease(100 + number, job=number - number % 3), Outcome.CLOSED, 5.0 + number)
    every = history.jobs()
    assert len(every) == 7
    for last in (0, 1, 4, 7, 50):
        assert history.jobs(last) == every[len(every) - min(last, len(every)) :]
