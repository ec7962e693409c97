"""Which waiter is next: the disciplines.

A queue holds the waiters of every pool. When a host has a free slot the scheduler asks for the next waiter that this host can
serve; both disciplines answer in O(log n), whatever the number of waiters, and forget a waiter that leaves at once.

- ``fifo``: who has waited longest.
- ``fair``: the clients take turns, and within one client who has waited longest. A client that starts to wait gets the last
  turn, and again whenever it was served: a round robin. Its turn is one for all pools, so that waiting in two does not give two
  shares.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from distbal.hosts import Host
from distbal.ranking import Ranking
from distbal.requests import Ticket

#: waiters by ticket id, longest wait first (ids grow with time)
Line = OrderedDict[int, Ticket]


class WaitQueue(Protocol):
    """Everyone who waits, in the order of one discipline."""

    def add(self, ticket: Ticket) -> None:
        """Take in a waiter that has not been here before, behind those that came before it."""

    def remove(self, ticket: Ticket) -> None:
        """Forget a waiter that left; KeyError when it does not wait here."""

    def take(self, host: Host) -> Ticket | None:
        """The next waiter that this host can serve, taken out; None when there is none."""


def first_in(line: Line, host: Host) -> Ticket | None:
    """Who of one line has waited longest and does not leave this host out."""
    for ticket in line.values():
        if host.spec.name not in ticket.request.exclude:
            return ticket
    return None


class FifoQueue:
    """Longest wait first, whoever it is."""

    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}

    def add(self, ticket: Ticket) -> None:
        self._lines.setdefault(ticket.request.pool, OrderedDict())[ticket.id] = ticket

    def remove(self, ticket: Ticket) -> None:
        line = self._lines[ticket.request.pool]
        del line[ticket.id]
        if not line:
            del self._lines[ticket.request.pool]

    def take(self, host: Host) -> Ticket | None:
        heads = (first_in(self._lines[pool], host) for pool in host.spec.pools if pool in self._lines)
        ticket = min((head for head in heads if head is not None), key=lambda head: head.id, default=None)
        if ticket is not None:
            self.remove(ticket)
        return ticket


class _Client:
    """One client that waits: when its turn comes, and its lines by pool (none of them empty)."""

    __slots__ = ("lines", "turn")

    def __init__(self, turn: int) -> None:
        self.turn = turn
        self.lines: dict[str, Line] = {}


class FairQueue:
    """Clients take turns; within one client, longest wait first."""

    def __init__(self) -> None:
        self._clients: dict[str, _Client] = {}
        #: by pool: the clients that wait in it (by their fairness key), in the order of their turns
        self._turns: dict[str, Ranking[str]] = {}
        self._last_turn = 0

    def add(self, ticket: Ticket) -> None:
        request = ticket.request
        client = self._clients.get(request.key)
        if client is None:
            client = self._clients[request.key] = _Client(self._new_turn())
        line = client.lines.get(request.pool)
        if line is None:
            line = client.lines[request.pool] = OrderedDict()
            self._turns.setdefault(request.pool, Ranking()).put(request.key, client.turn)
        line[ticket.id] = ticket

    def remove(self, ticket: Ticket) -> None:
        request = ticket.request
        client = self._clients[request.key]
        line = client.lines[request.pool]
        del line[ticket.id]
        if not line:
            del client.lines[request.pool]
            turns = self._turns[request.pool]
            turns.discard(request.key)
            if not turns:
                del self._turns[request.pool]
            if not client.lines:
                del self._clients[request.key]

    def take(self, host: Host) -> Ticket | None:
        best: tuple[int, Ticket] | None = None
        for pool in host.spec.pools:
            if pool in self._turns:
                head = self._head(pool, host)
                # one client in two pools has one turn: then the longer wait decides
                if head is not None and (best is None or (head[0], head[1].id) < (best[0], best[1].id)):
                    best = head
        if best is None:
            return None
        ticket = best[1]
        self.remove(ticket)
        self._to_the_back(ticket.request.key)
        return ticket

    def _head(self, pool: str, host: Host) -> tuple[int, Ticket] | None:
        """Whose turn it is in one pool, as (turn, ticket): the first client that has a waiter for this host."""

        def has_none(key: str) -> bool:
            return first_in(self._clients[key].lines[pool], host) is None

        key = self._turns[pool].first(has_none)
        if key is None:
            return None
        client = self._clients[key]
        ticket = first_in(client.lines[pool], host)
        return (client.turn, ticket) if ticket is not None else None

    def _to_the_back(self, key: str) -> None:
        client = self._clients.get(key)
        if client is not None:
            client.turn = self._new_turn()
            for pool in client.lines:
                self._turns[pool].put(key, client.turn)

    def _new_turn(self) -> int:
        self._last_turn += 1
        return self._last_turn


#: each discipline by its name in hosts.yaml
DISCIPLINES: dict[str, Callable[[], WaitQueue]] = {"fair": FairQueue, "fifo": FifoQueue}
