"""Which host a lease gets: one index of available hosts a policy, kept in order so that no grant looks at every host.

``changed(host)`` is called whenever a host's leases, capacity or availability changed; ``pick(exclude)`` then answers in
O(log n), and the exclusion of a few hosts costs O(log n) each. Under every policy suspect hosts (evidence.py) come last.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from typing import Any, Protocol

from distbal.hosts import Host
from distbal.ranking import Ranking


class HostIndex(Protocol):
    """The available hosts of one pool, in the order of one policy."""

    def changed(self, host: Host) -> None:
        """Something of this host changed: its load, its capacity, whether it is available."""

    def drop(self, host: Host) -> None:
        """This host does not belong here any more."""

    def pick(self, exclude: Collection[str]) -> Host | None:
        """The host to give a lease to, or None.

        :param exclude: names of hosts that the request does not want.
        """


def fastest_first(host: Host) -> tuple[float, ...]:
    """The least rank; within a shared rank the least loaded, and of equals the one named first.

    Where a rank is one host's alone its load does not matter: then its key, and so its place, never changes.
    """
    return (host.suspect, host.spec.rank, 0.0 if host.alone else host.leases / host.capacity, host.position)


def least_loaded(host: Host) -> tuple[float, ...]:
    """The least share of its capacity lent; of equals the faster one, then the one named first."""
    return (host.suspect, host.leases / host.capacity, host.spec.rank, host.position)


class OrderedIndex:
    """Hosts in the order of a key that their state determines."""

    def __init__(self, key: Callable[[Host], Any]) -> None:
        self._key = key
        self._ranking: Ranking[Host] = Ranking()

    def changed(self, host: Host) -> None:
        if host.available:
            self._ranking.put(host, self._key(host))
        else:
            self._ranking.discard(host)

    def drop(self, host: Host) -> None:
        self._ranking.discard(host)

    def pick(self, exclude: Collection[str]) -> Host | None:
        return self._ranking.first((lambda host: host.spec.name in exclude) if exclude else None)


class _Lots:
    """Hosts to draw from, each as likely as any other.

    A list for drawing, and each host's place in it; a leaving host's place is filled with the last one.
    """

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._hosts: list[Host] = []
        self._place: dict[Host, int] = {}

    def add(self, host: Host) -> None:
        if host not in self._place:
            self._place[host] = len(self._hosts)
            self._hosts.append(host)

    def drop(self, host: Host) -> None:
        place = self._place.pop(host, None)
        if place is not None:
            last = self._hosts.pop()
            if last is not host:
                self._hosts[place] = last
                self._place[last] = place

    def pick(self, exclude: Collection[str]) -> Host | None:
        hosts, place = self._hosts, self._place
        # hosts that are drawn and not wanted go behind those that may still be drawn
        for size in range(len(hosts), 0, -1):
            drawn = int(self._draw.random() * size)
            host = hosts[drawn]
            if host.spec.name not in exclude:
                return host
            last = hosts[size - 1]
            hosts[drawn], hosts[size - 1] = last, host
            place[last], place[host] = drawn, size - 1
        return None


class RandomIndex:
    """Hosts in no order: each available one is as likely as any other; suspect ones only where there is no other."""

    def __init__(self, draw: random.Random) -> None:
        self._trusted = _Lots(draw)
        self._suspect = _Lots(draw)

    def changed(self, host: Host) -> None:
        lots, others = (self._suspect, self._trusted) if host.suspect else (self._trusted, self._suspect)
        others.drop(host)
        if host.available:
            lots.add(host)
        else:
            lots.drop(host)

    def drop(self, host: Host) -> None:
        self._trusted.drop(host)
        self._suspect.drop(host)

    def pick(self, exclude: Collection[str]) -> Host | None:
        return self._trusted.pick(exclude) or self._suspect.pick(exclude)


#: each policy by its name in hosts.yaml, as what makes an index for it
POLICIES: dict[str, Callable[[random.Random], HostIndex]] = {
    "fastest-first": lambda draw: OrderedIndex(fastest_first),
    "least-loaded": lambda draw: OrderedIndex(least_loaded),
    "random": RandomIndex,
}
