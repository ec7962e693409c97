"""What an earlier process had, made ready by takeup.py for :meth:`distbal.scheduler.Scheduler.resume`."""

from __future__ import annotations

from dataclasses import dataclass

from distbal.hosts import Host
from distbal.requests import Lease, Ticket
from distbal.waits import Waits


@dataclass(slots=True)
class Past:
    """All of it.

    :ivar removed: hosts with leases that the file does not name, marked as such.
    :ivar leases: in the order of their grants; their hosts do not count them yet. ``waiters``: in the order of their ids.
    :ivar turns: of clients that have a waiter which waits for its turn.
    :ivar counts: totals, by the names that a snapshot has; ``waits``: the same of those who had to wait.
    :ivar last_id: the greatest of a ticket.
    """

    removed: list[Host]
    leases: list[Lease]
    waiters: list[Ticket]
    turns: dict[str, int]
    counts: dict[str, int]
    waits: Waits
    last_id: int
