"""What people decided while the farm runs: on top of the file, which the daemon never edits.

A decision about a key of the file (a host's slots, its rank, whether it is there at all) holds until that very key changes in
the file: it remembers what the file said, and when the file says something else, the file has the last word. What the file has
no key for (a host that was drained or taken down, and why; a weight) holds until a person says otherwise.

All of it is values: :class:`Decisions` is made anew by every change, :func:`applied` makes a farm of it and the file's, and
:func:`settled` drops what the file has overtaken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from distbal.hosts import Farm, HostSpec

#: where a host is put: beside another one of the farm
Side = Literal["before", "with", "after"]


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the order of hosts: ``before``, ``after`` or in one rank ``with`` another host."""

    side: Side
    host: str

    def __str__(self) -> str:
        return f"{self.side} {self.host}"


@dataclass(frozen=True, slots=True)
class Decision:
    """One person's word about one key of one host.

    :ivar value: what was decided: see :data:`KEYS`.
    :ivar file: what the file said of this key then; None where it has no such key.
    :ivar by: who; ``at``: when, in seconds since 1970; ``why``: in their words, or "".
    """

    value: Any
    file: Any = None
    by: str = ""
    at: float = 0.0
    why: str = ""


#: what can be decided about a host, and what the value is
KEYS = {
    "admin": "down or drain",
    "weight": "0 to 1000 thousandths",
    "slots": "a number of slots",
    "rank": "a Place",
    "there": "a HostSpec that was added, or False for a host of the file that was removed",
}


@dataclass(frozen=True, slots=True)
class Decisions:
    """All of them, as (the host's name, the key, the decision), in the order in which they were made; one a key of a host."""

    made: tuple[tuple[str, str, Decision], ...] = ()

    def __iter__(self) -> Iterator[tuple[str, str, Decision]]:
        return iter(self.made)

    def get(self, name: str, key: str) -> Decision | None:
        """What was decided about this key of this host."""
        return next((decision for host, other, decision in self.made if (host, other) == (name, key)), None)

    def with_(self, name: str, key: str, decision: Decision) -> Decisions:
        """The same, and this one, as the last."""
        return Decisions((*self.without(name, key).made, (name, key, decision)))

    def without(self, name: str, key: str) -> Decisions:
        """The same without it; nothing happens where it is not there."""
        return Decisions(tuple(one for one in self.made if one[:2] != (name, key)))


def said_by_file(farm: Farm, name: str, key: str, value: Any) -> Any:
    """What the file says of a key of a host: what a decision remembers, and what is compared later.

    :param farm: the file's.
    :param value: what is decided; of a place the file can say only where it has that other host.
    """
    return _said({spec.name: spec for spec in farm.hosts}, name, key, value)


def _said(specs: Mapping[str, HostSpec], name: str, key: str, value: Any) -> Any:
    spec = specs.get(name)
    if key == "there":
        return spec is not None
    if spec is None:
        return None
    if key == "slots":
        return "auto" if spec.auto else spec.slots
    if key == "rank":
        other = specs.get(value.host)
        if other is None:
            return None
        return "with" if other.rank == spec.rank else "before" if spec.rank < other.rank else "after"
    return None


def settled(decisions: Decisions, farm: Farm, served: Farm | None = None) -> tuple[Decisions, list[tuple[str, str, Decision]]]:
    """Drop what the file has overtaken.

    :param farm: what the file says now.
    :param served: what was served until now. Where the file has its hosts in that very order, it says itself what was decided
        about places: an export that was put in its place.
    :returns: those that still hold, and those that do not any more.
    """
    specs = {spec.name: spec for spec in farm.hosts}
    is_so = _places_in(farm)
    ordered = served is not None and _order(served) == _order(farm)
    overtaken = [
        one
        for one in decisions
        if _said(specs, *one[:2], one[2].value) != one[2].file
        or (one[1] == "rank" and (ordered or is_so(one[0], one[2].value)))
    ]
    gone = {one[:2] for one in overtaken}
    still = Decisions(tuple(one for one in decisions if one[:2] not in gone))
    # what was decided about a host that is nowhere any more goes with it
    there = {spec.name for spec in applied(farm, still).hosts} | {
        name for name, key, decision in still if key == "there" and decision.value is False
    }
    overtaken += [one for one in still if one[0] not in there]
    return Decisions(tuple(one for one in still if one[0] in there)), overtaken


def _order(farm: Farm) -> list[tuple[str, int]]:
    return [(spec.name, spec.rank) for spec in farm.hosts]


def _places_in(farm: Farm) -> Callable[[str, Place], bool]:
    """What tells whether a host stands at a place in the file, so that to put it there changes nothing."""
    ranks = {spec.name: spec.rank for spec in farm.hosts}
    in_rank = Counter(ranks.values())
    steps = {"before": 1, "with": 0, "after": -1}

    def is_so(name: str, place: Place) -> bool:
        rank, other = ranks.get(name), ranks.get(place.host)
        if rank is None or other is None or other - rank != steps[place.side]:
            return False
        return place.side == "with" or in_rank[rank] == 1

    return is_so


def applied(farm: Farm, decisions: Decisions) -> Farm:
    """The farm with what was decided.

    :param farm: what the file says.
    :returns: the same hosts in ranks from 0, none left out but those that were removed. A place beside a host that is not there
        is that in the file, or the last one.
    """
    order = _Order()
    there = {name: decision.value for name, key, decision in decisions if key == "there"}
    names, before = {spec.name for spec in farm.hosts}, -1
    for spec in farm.hosts:
        if there.get(spec.name) is not False:
            order.append(spec, new=spec.rank != before)
            before = spec.rank
    for name, spec_or_false in there.items():
        if spec_or_false is not False and name not in names:
            order.append(spec_or_false)
    # a place may be beside a host that was added later
    for name, key, decision in decisions:
        if key == "rank":
            order.move(name, decision.value)
    slots = {name: decision.value for name, key, decision in decisions if key == "slots"}
    hosts: list[HostSpec] = []
    for number, rank in enumerate(order):
        for spec in rank:
            changed = replace(spec, slots=slots[spec.name], auto=False) if spec.name in slots else spec
            hosts.append(changed if changed.rank == number else replace(changed, rank=number))
    return replace(farm, hosts=tuple(hosts))


class _Rank:
    """Hosts of one rank, by name, between two others."""

    __slots__ = ("after", "before", "specs")

    def __init__(self) -> None:
        self.specs: dict[str, HostSpec] = {}
        self.before = self.after = self

    def put_behind(self, other: _Rank) -> None:
        """Stand behind another one from now on."""
        self.before, self.after = other, other.after
        other.after.before = self
        other.after = self

    def take_out(self) -> None:
        """Stand nowhere any more."""
        self.before.after, self.after.before = self.after, self.before


class _Order:
    """Ranks in a ring, so that a move costs the same in any farm: a thousand of them are made anew with each change."""

    def __init__(self) -> None:
        self._end = _Rank()
        self._ranks: dict[str, _Rank] = {}

    def __iter__(self) -> Iterator[Iterable[HostSpec]]:
        rank = self._end.after
        while rank is not self._end:
            yield rank.specs.values()
            rank = rank.after

    def append(self, spec: HostSpec, *, new: bool = True) -> None:
        """One more, as the last.

        :param new: in a rank of its own.
        """
        rank = self._end.before
        if new:
            rank = _Rank()
            rank.put_behind(self._end.before)
        rank.specs[spec.name] = spec
        self._ranks[spec.name] = rank

    def move(self, name: str, place: Place) -> None:
        """Put a host beside another one; nothing happens where one of them is not there."""
        rank, other = self._ranks.get(name), self._ranks.get(place.host)
        if rank is None or other is None or name == place.host:
            return
        spec = rank.specs.pop(name)
        goal = other
        if place.side != "with":
            goal = _Rank()
            goal.put_behind(other if place.side == "after" else other.before)
        goal.specs[name] = spec
        self._ranks[name] = goal
        if not rank.specs:
            rank.take_out()
