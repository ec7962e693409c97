"""Where hosts are: their addresses as the system's resolver has them, looked up when they are needed.

Numeric addresses need no looking up. What a name led to is good for a minute, and then still for the jobs that come while it is
looked up again: a resolver that is slow holds up nobody who knows a host already. Of several addresses the one that was last
connected to is tried first.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

#: a family (AF_INET ...) and an address as the socket module has it
Place = tuple[int, Any]
#: a host's name or numeric address, and its port
Address = tuple[str, int]

#: seconds for which what was found is good
FRESH = 60.0

Resolve = Callable[[str, int], Deferred[list[Place]]]


class NotFoundError(Exception):
    """A name could not be looked up; the text says why."""


class Lookup:
    """Finds addresses, and remembers them.

    :param clock: its ``seconds()`` never go back.
    :param resolve: looks a name up; fails with :class:`NotFoundError`.
    """

    def __init__(self, clock: IReactorTime, resolve: Resolve | None = None) -> None:
        self._seconds = clock.seconds
        self._resolve = resolve_by_system if resolve is None else resolve
        #: by address: the places, the likeliest first, and until when they are good
        self._known: dict[Address, tuple[list[Place], float]] = {}
        #: who waits for one that is being looked up
        self._asking: dict[Address, list[Callable[[list[Place] | Failure], None]]] = {}

    def known(self, address: Address) -> list[Place] | None:
        """Where it is, if that is known; None where it has to be found first. Not to be changed."""
        entry = self._known.get(address)
        if entry is None:
            return self._numeric(address)
        places, good_until = entry
        if self._seconds() >= good_until and address not in self._asking:
            self._ask(address)
        return places

    def find(self, address: Address, tell: Callable[[list[Place] | Failure], None]) -> None:
        """Look it up, and tell the places or a Failure with a :class:`NotFoundError`. It may be told at once."""
        asking = self._asking.get(address)
        if asking is not None:
            asking.append(tell)
        else:
            self._ask(address, tell)

    def reached(self, address: Address, place: Place) -> None:
        """One of several places was connected to: try it first from now on."""
        entry = self._known.get(address)
        if entry is not None and place in entry[0]:
            self._known[address] = [place, *(other for other in entry[0] if other != place)], entry[1]

    def missed(self, address: Address, place: Place) -> None:
        """One of several places could not be connected to: try it last from now on."""
        entry = self._known.get(address)
        if entry is not None and place in entry[0]:
            self._known[address] = [*(other for other in entry[0] if other != place), place], entry[1]

    # -- the inside

    def _numeric(self, address: Address) -> list[Place] | None:
        try:
            places = _places(*address, flags=socket.AI_NUMERICHOST)
        except (OSError, UnicodeError):
            return None
        self._known[address] = places, float("inf")
        return places

    def _ask(self, address: Address, *tell: Callable[[list[Place] | Failure], None]) -> None:
        self._asking[address] = list(tell)
        self._resolve(*address).addBoth(self._answered, address)

    def _answered(self, found: list[Place] | Failure, address: Address) -> None:
        if isinstance(found, Failure):
            # whoever needs it next asks again
            self._known.pop(address, None)
        else:
            before, _ = self._known.get(address, ([], 0.0))
            found.sort(key=lambda place: before.index(place) if place in before else len(before))
            self._known[address] = found, self._seconds() + FRESH
        for tell in self._asking.pop(address):
            tell(found)


def resolve_by_system(host: str, port: int) -> Deferred[list[Place]]:
    """Ask the system's resolver, in a thread of the reactor's: it knows no time limit."""
    return deferToThread(_resolve, host, port)


def _resolve(host: str, port: int) -> list[Place]:
    try:
        return _places(host, port)
    except (OSError, UnicodeError) as error:
        raise NotFoundError(str(getattr(error, "strerror", None) or error)) from error


def _places(host: str, port: int, flags: int = 0) -> list[Place]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))
