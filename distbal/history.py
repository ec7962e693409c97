"""What became of each job: a bounded record. By job, since a job may take several attempts.

It is written when a lease ends, and costs an append; it is put in order when somebody reads it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from distbal.outcomes import Outcome
from distbal.requests import Lease

#: ended attempts that are remembered; the oldest is forgotten first
DEFAULT_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a job, on one host, under one lease. Times are seconds on the scheduler's clock."""

    lease: int
    host: str
    asked: float
    granted: float
    ended: float
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Job:
    """One client's job.

    :ivar id: the number that its requests carry.
    :ivar attempts: in the order in which they ended.
    """

    id: int
    address: str
    pool: str
    attempts: tuple[Attempt, ...]


class History:
    """The last jobs.

    :param limit: how many ended attempts to remember, at least 1.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        if limit < 1:
            raise ValueError(f"a history remembers at least one attempt, not {limit}")
        self._ended: deque[tuple[Lease, Outcome, float]] = deque(maxlen=limit)

    def __len__(self) -> int:
        return len(self._ended)

    def ended(self, lease: Lease, outcome: Outcome, now: float) -> None:
        """A lease ended: note the attempt."""
        self._ended.append((lease, outcome, now))

    def jobs(self) -> tuple[Job, ...]:
        """Every job that an attempt is remembered of, in the order in which their first remembered attempts ended."""
        by_job: dict[int, list[tuple[Lease, Outcome, float]]] = {}
        for entry in self._ended:
            by_job.setdefault(entry[0].job, []).append(entry)
        return tuple(
            Job(
                job,
                entries[0][0].ticket.request.address,
                entries[0][0].ticket.request.pool,
                tuple(
                    Attempt(lease.id, lease.host_name, lease.ticket.asked, lease.granted, ended, outcome)
                    for lease, outcome, ended in entries
                ),
            )
            for job, entries in by_job.items()
        )
