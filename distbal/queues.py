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
from collections.abc import Callable, Mapping
from typing import Protocol

from distbal.hosts import Host
from distbal.ranking import Ranking
from distbal.requests import Request, Ticket

#: waiters by ticket id, longest wait first (ids grow with time)
Line = OrderedDict[int, Ticket]
#: which hosts will do: the pool, and the hosts to leave out. Waiters of one kind stand in one line, so that none has to be
#: passed over; there are as many kinds as pools, and a few more while jobs are tried again elsewhere.
Kind = tuple[str, frozenset[str]]


class WaitQueue(Protocol):
    """Everyone who waits, in the order of one discipline."""

    def add(self, ticket: Ticket) -> None:
        """Take in a waiter that has not been here before, behind those that came before it."""

    def remove(self, ticket: Ticket) -> None:
        """Forget a waiter that left; KeyError when it does not wait here."""

    def take(self, host: Host) -> Ticket | None:
        """The next waiter that this host can serve, taken out; None when there is none."""


class Discipline(WaitQueue, Protocol):
    """The queue of those who wait for their turn."""

    def turn(self, key: str) -> int | None:
        """When a client's turn comes, by its fairness key: the least number is next; None where it has none."""

    def turns(self) -> dict[str, int]:
        """Of every client that has one."""

    def take_up(self, turns: Mapping[str, int]) -> None:
        """Go on with the turns of an earlier process, before anybody waits. Each of these clients is about to be added."""


def kind_of(request: Request) -> Kind:
    """Which hosts will do for a request."""
    return request.pool, frozenset(request.exclude)


def will_do(host: Host, kind: Kind) -> bool:
    """Whether a host can serve the waiters of a kind."""
    return kind[0] in host.spec.pools and host.spec.name not in kind[1]


class FifoQueue:
    """Longest wait first, whoever it is."""

    def __init__(self) -> None:
        #: none of them empty
        self._lines: dict[Kind, Line] = {}

    def __bool__(self) -> bool:
        """Whether anybody waits here."""
        return bool(self._lines)

    def add(self, ticket: Ticket) -> None:
        self._lines.setdefault(kind_of(ticket.request), OrderedDict())[ticket.id] = ticket

    def remove(self, ticket: Ticket) -> None:
        kind = kind_of(ticket.request)
        line = self._lines[kind]
        del line[ticket.id]
        if not line:
            del self._lines[kind]

    def take(self, host: Host) -> Ticket | None:
        heads = [next(iter(line.values())) for kind, line in self._lines.items() if will_do(host, kind)]
        ticket = min(heads, key=lambda head: head.id, default=None)
        if ticket is not None:
            self.remove(ticket)
        return ticket

    def turn(self, key: str) -> int | None:
        return None

    def turns(self) -> dict[str, int]:
        return {}

    def take_up(self, turns: Mapping[str, int]) -> None:
        pass


class OneHostQueue:
    """Those for whom one host alone will do (``request.only``), whatever its pools; the longest wait first."""

    def __init__(self) -> None:
        #: by the host's name; none of them empty
        self._lines: dict[str, Line] = {}

    def __bool__(self) -> bool:
        """Whether anybody waits here."""
        return bool(self._lines)

    def add(self, ticket: Ticket) -> None:
        self._lines.setdefault(ticket.request.only, OrderedDict())[ticket.id] = ticket

    def remove(self, ticket: Ticket) -> None:
        line = self._lines[ticket.request.only]
        del line[ticket.id]
        if not line:
            del self._lines[ticket.request.only]

    def take(self, host: Host) -> Ticket | None:
        line = self._lines.get(host.spec.name)
        if line is None:
            return None
        ticket = next(iter(line.values()))
        self.remove(ticket)
        return ticket


class _Client:
    """One client that waits: when its turn comes, and its lines by kind (none of them empty)."""

    __slots__ = ("lines", "turn")

    def __init__(self, turn: int) -> None:
        self.turn = turn
        self.lines: dict[Kind, Line] = {}


class FairQueue:
    """Clients take turns; within one client, longest wait first."""

    def __init__(self) -> None:
        self._clients: dict[str, _Client] = {}
        #: by kind: the clients that have a line of it (by their fairness key), in the order of their turns; none of them empty
        self._turns: dict[Kind, Ranking[str]] = {}
        self._last_turn = 0

    def add(self, ticket: Ticket) -> None:
        key, kind = ticket.request.key, kind_of(ticket.request)
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = _Client(self._new_turn())
        line = client.lines.get(kind)
        if line is None:
            line = client.lines[kind] = OrderedDict()
            self._turns.setdefault(kind, Ranking()).put(key, client.turn)
        line[ticket.id] = ticket

    def remove(self, ticket: Ticket) -> None:
        key, kind = ticket.request.key, kind_of(ticket.request)
        client = self._clients[key]
        line = client.lines[kind]
        del line[ticket.id]
        if line:
            return
        del client.lines[kind]
        if not client.lines:
            del self._clients[key]
        turns = self._turns[kind]
        turns.discard(key)
        if not turns:
            del self._turns[kind]

    def take(self, host: Host) -> Ticket | None:
        heads = [self._head(kind) for kind in self._turns if will_do(host, kind)]
        if not heads:
            return None
        # one client with two lines has one turn: then the longer wait decides
        _, _, ticket = min(heads)
        self.remove(ticket)
        self._to_the_back(ticket.request.key)
        return ticket

    def turn(self, key: str) -> int | None:
        client = self._clients.get(key)
        return None if client is None else client.turn

    def turns(self) -> dict[str, int]:
        return {key: client.turn for key, client in self._clients.items()}

    def take_up(self, turns: Mapping[str, int]) -> None:
        self._clients = {key: _Client(turn) for key, turn in turns.items()}
        self._last_turn = max(turns.values(), default=0)

    def _head(self, kind: Kind) -> tuple[int, int, Ticket]:
        """Whose turn it is for one kind, as (turn, ticket id, ticket)."""
        key = self._turns[kind].first()
        assert key is not None, "an empty ranking was kept"  # noqa: S101 (a bug in this class, and for the type checker)
        client = self._clients[key]
        ticket_id, ticket = next(iter(client.lines[kind].items()))
        return client.turn, ticket_id, ticket

    def _to_the_back(self, key: str) -> None:
        client = self._clients.get(key)
        if client is not None:
            client.turn = self._new_turn()
            for kind in client.lines:
                self._turns[kind].put(key, client.turn)

    def _new_turn(self) -> int:
        self._last_turn += 1
        return self._last_turn


#: each discipline by its name in hosts.yaml
DISCIPLINES: dict[str, Callable[[], Discipline]] = {"fair": FairQueue, "fifo": FifoQueue}
