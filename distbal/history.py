"""What became of each job, and why there: a bounded record. By job, since a job may take several attempts.

It is written when a lease ends, and costs an append; it is put in order when somebody reads it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from distbal import why
from distbal.outcomes import Outcome
from distbal.requests import Lease, Request
from distbal.standing import Moment

#: ended attempts that are remembered; the oldest is forgotten first
DEFAULT_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a job, on one host, under one lease. Times are seconds on the scheduler's clock.

    :ivar lease: its number; ``host``: the host's name.
    :ivar ended: None while it runs, and so is ``outcome``.
    :ivar request: what was asked for.
    :ivar found: how the hosts stood when it was granted; ``waited``: when it asked, None where it had not to wait.
    """

    lease: int
    host: str
    asked: float
    granted: float
    ended: float | None
    outcome: Outcome | None
    request: Request = field(repr=False)
    found: Moment = field(repr=False, compare=False)
    waited: Moment | None = field(repr=False, compare=False)

    @property
    def not_known(self) -> str:
        """What is not known of how the hosts stood, as a sentence; "" where all is."""
        return why.not_known(self.found, self.waited)

    @property
    def passed_over(self) -> tuple[why.PassedOver, ...]:
        """Why not each host before it in rank."""
        return why.passed_over(self.request, self.host, self.found)

    def first_passed_over(self, most: int) -> tuple[tuple[why.PassedOver, ...], int]:
        """The first of them, and how many there are in all: for readers who want many jobs told, and of each a little."""
        before = why.hosts_before(self.host, self.found)
        return why.passed_over(self.request, self.host, self.found, most), before

    @property
    def waited_for(self) -> dict[str, int]:
        """How many hosts could not serve it when it asked, by reason; empty where it had not to wait."""
        return {} if self.waited is None else why.waited_for(self.request, self.waited)


def attempt(lease: Lease, outcome: Outcome | None = None, ended: float | None = None) -> Attempt:
    """A lease's attempt, ended or not."""
    ticket = lease.ticket
    return Attempt(
        lease.id, lease.host_name, ticket.asked, lease.granted, ended, outcome, ticket.request, lease.found, ticket.found
    )


@dataclass(frozen=True, slots=True)
class Job:
    """One client's job.

    :ivar id: the number that its requests carry.
    :ivar address: the client's, and ``port`` its port there, as in a request.
    :ivar attempts: in the order in which they ended.
    """

    id: int
    address: str
    port: int
    pool: str
    attempts: tuple[Attempt, ...]


#: an attempt that ended: its lease, how, and when
Entry = tuple[Lease, Outcome, float]


class History:
    """The last jobs.

    :param limit: how many ended attempts to remember, at least 1.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        if limit < 1:
            raise ValueError(f"a history remembers at least one attempt, not {limit}")
        self._ended: deque[Entry] = deque(maxlen=limit)

    def __len__(self) -> int:
        return len(self._ended)

    def ended(self, lease: Lease, outcome: Outcome, now: float) -> None:
        """A lease ended: note the attempt."""
        self._ended.append((lease, outcome, now))

    @property
    def entries(self) -> Sequence[Entry]:
        """Every attempt that is remembered, the oldest first."""
        return self._ended

    def take_up(self, entries: Iterable[Entry]) -> None:
        """Go on with what an earlier process remembered: it comes before all that has ended since."""
        since = tuple(self._ended)
        self._ended.clear()
        self._ended.extend(entries)
        self._ended.extend(since)

    def jobs(self, last: int | None = None) -> tuple[Job, ...]:
        """Every job that an attempt is remembered of, in the order in which their first remembered attempts ended.

        :param last: only so many, the last ones of that order; None for all.
        """
        # nothing is made for a job of one attempt, as nearly all are: of a thousand lists, the collection of garbage would hear
        first: dict[int, Entry] = {}
        more: dict[int, list[Entry]] = {}
        for entry in self._ended:
            ticket = entry[0].ticket
            job = ticket.request.job or ticket.id
            if first.setdefault(job, entry) is not entry:
                more.setdefault(job, []).append(entry)
        left_out = 0 if last is None else max(0, len(first) - last)
        return tuple(_job(job, (entry, *more.get(job, ()))) for job, entry in islice(first.items(), left_out, None))


def _job(number: int, entries: tuple[Entry, ...]) -> Job:
    request = entries[0][0].ticket.request
    return Job(number, request.address, request.port, request.pool, tuple(attempt(*entry) for entry in entries))
