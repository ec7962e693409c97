"""Where hosts are: their addresses as the system's resolver has them, looked up when they are needed.

Numeric addresses need no looking up. What a name led to is good for a minute, and then still for the jobs that come while it is
looked up again: a resolver that is slow or out of order holds up nobody who knows a host already. Of several addresses the one
that was last connected to is tried first.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from threading import Thread
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from distbal.bugs import bugs
from distbal.logs import Logger

#: a family (AF_INET ...) and an address as the socket module has it
Place = tuple[int, Any]
#: a host's name or numeric address, and its port
Address = tuple[str, int]

#: seconds for which what was found is good
FRESH = 60.0
#: seconds after which it is looked up again when that failed, while what was found before is used
AGAIN = 5.0
#: names that are looked up at once
MOST_AT_ONCE = 32
#: getaddrinfo(3) says that there is no such name, or that it has no address
NO_SUCH_NAME = frozenset({socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_ADDRFAMILY})

Resolve = Callable[[str, int], Deferred[list[Place]]]


class NotFoundError(Exception):
    """A name could not be looked up; the text says why.

    :ivar unasked: the resolver could not tell: it did not answer, or this machine lacks what it takes to ask it.
    """

    def __init__(self, text: str, *, unasked: bool = False) -> None:
        super().__init__(text)
        self.unasked = unasked


class Lookup:
    """Finds addresses, and remembers them.

    :param clock: its ``seconds()`` never go back.
    :param resolve: looks a name up; fails with :class:`NotFoundError`. See :class:`SystemResolver`.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, resolve: Resolve) -> None:
        self._seconds = clock.seconds
        self._resolve = resolve
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
        # it may raise where no thread can be had: whoever asks later would wait for an answer that never comes
        maybeDeferred(self._resolve, *address).addBoth(self._answered, address)

    def _answered(self, found: list[Place] | Failure, address: Address) -> None:
        if isinstance(found, Failure):
            found = self._not_found(found, address)
            # where it was known it may still be there; else whoever needs it next asks again
            if address in self._known:
                self._known[address] = self._known[address][0], self._seconds() + AGAIN
        else:
            before, _ = self._known.get(address, ([], 0.0))
            found.sort(key=lambda place: before.index(place) if place in before else len(before))
            self._known[address] = found, self._seconds() + FRESH
        for tell in self._asking.pop(address):
            try:
                tell(found)
            except Exception:  # noqa: BLE001 (a bug met one who asked: the others must be told)
                bugs.met("session", self.log, "who asked for {host} could not be told where it is", host=address[0])

    def _not_found(self, failure: Failure, address: Address) -> Failure:
        """Why it was not found, in the words that those who asked know."""
        if isinstance(failure.value, NotFoundError):
            return failure
        bugs.met("session", self.log, "{host} could not be looked up, by a bug", failure, host=address[0])
        return Failure(NotFoundError(failure.getErrorMessage(), unasked=True))  # type: ignore[no-untyped-call]


class _Thread(Thread):
    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, daemon=True, **more)


class SystemResolver:
    """Asks the system's resolver, in threads of its own.

    It knows no time limit, so names that are not answered hold the threads up for long: nothing else may depend on these, and
    nobody waits for them at the end.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(0, MOST_AT_ONCE, "lookup")
        self._pool.threadFactory = _Thread
        self._pool.start()

    def __call__(self, host: str, port: int) -> Deferred[list[Place]]:
        found: Deferred[list[Place]] = deferToThreadPool(self._reactor, self._pool, _resolve, host, port)
        return found


def _resolve(host: str, port: int) -> list[Place]:
    try:
        return _places(host, port)
    except (OSError, UnicodeError) as error:
        unasked = isinstance(error, OSError) and error.errno not in NO_SUCH_NAME
        raise NotFoundError(str(getattr(error, "strerror", None) or error), unasked=unasked) from error


def _places(host: str, port: int, flags: int = 0) -> list[Place]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))
