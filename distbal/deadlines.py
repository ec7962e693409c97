"""Deadlines that are all equally far away: one timer for however many there are.

A timer of the reactor's for each connect would cost more than the connect's own system call; where all last equally long, the
first to begin is the first to be late, so a queue and one timer do.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from distbal.bugs import bugs
from distbal.logs import Logger

Item = TypeVar("Item", bound=Hashable)

#: seconds between two looks at the least
_GRAIN = 0.01


class Deadlines(Generic[Item]):
    """Things that should be over within a time.

    :param seconds: that time.
    :param late: called with what is not; it is forgotten then. What it raises is a bug that the others do not notice.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, seconds: float, late: Callable[[Item], None]) -> None:
        self._clock = clock
        self._now = clock.seconds
        self._seconds = seconds
        self._late = late
        self._items: OrderedDict[Item, float] = OrderedDict()
        self._timer: IDelayedCall | None = None
        #: while those that are late are told: who begins anew then is not the next to be looked at
        self._looking = False

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Item) -> None:
        """It begins now; for one that had begun already, anew."""
        self._items.pop(item, None)
        self._items[item] = self._now() + self._seconds
        if self._timer is None and not self._looking:
            self._timer = self._clock.callLater(self._seconds + _GRAIN, self._look)

    def discard(self, item: Item) -> None:
        """It is over; nothing happens when it had not begun."""
        # the timer stays: most of what is looked at is over by then, and a timer that is set anew each time is dear
        self._items.pop(item, None)

    def stop(self) -> None:
        """Forget all."""
        self._items.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        self._looking = True
        now = self._now()
        try:
            while self._items:
                item, due = next(iter(self._items.items()))
                if due > now:
                    break
                del self._items[item]
                with bugs.survived("periodic", self.log, "{item!r} is late, and nothing could be done about it", item=item):
                    self._late(item)
        finally:
            self._looking = False
            if self._items:
                due = next(iter(self._items.values()))
                self._timer = self._clock.callLater(max(0.0, due - now) + _GRAIN, self._look)
