"""The event loop's own lag: by how much a timer is late, which is how long whoever comes has to wait for anything at all.

A timer is set every quarter of a second; it is as late as the reactor was busy with something else, or the process was given no
processor. What holds it up for shorter than that is seen when it happens to be there while the timer is due.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from itertools import accumulate

from twisted.internet.interfaces import IReactorTime

from distbal.complaints import Complaints
from distbal.logs import Logger
from distbal.periodic import Periodic

#: seconds between two looks
INTERVAL = 0.25
#: seconds that are remembered one by one
MEMORY = 60.0
#: seconds by which it may be late before that is a complaint, and between two complaints
LONG, AGAIN = 1.0, 60.0
#: upper bounds of the histogram's buckets, in seconds; the last bucket has none
BOUNDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


class Lag:
    """Measures it.

    :param clock: the reactor; never goes back.
    :ivar seconds: by which all looks were late together; ``looks``: how many there were; ``worst``: the most, since the start.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._complain = Complaints(self.log, clock.seconds)
        self._told = float("-inf")
        #: when, and how late
        self._last: deque[tuple[float, float]] = deque()
        self._buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = self.worst = 0.0
        self.looks = 0
        self._timer = Periodic(clock, INTERVAL, self._look, "to measure the event loop's lag")

    def start(self) -> None:
        """Measure from now on."""
        self._timer.start()

    def stop(self) -> None:
        """Measure no more."""
        self._timer.stop()

    def over(self, seconds: float) -> tuple[float, float]:
        """The mean and the most of the last so many seconds, up to :data:`MEMORY`; 0.0 and 0.0 where nothing was seen."""
        since = self._clock.seconds() - seconds
        seen = [late for at, late in self._last if at >= since]
        return (sum(seen) / len(seen), max(seen)) if seen else (0.0, 0.0)

    @property
    def counts(self) -> tuple[int, ...]:
        """How many looks were late by at most each of :data:`BOUNDS`, and all: cumulative."""
        return tuple(accumulate(self._buckets))

    def _look(self) -> None:
        now, late = self._clock.seconds(), self._timer.late
        self._last.append((now, late))
        while self._last[0][0] < now - MEMORY:
            self._last.popleft()
        self._buckets[bisect_left(BOUNDS, late)] += 1
        self.seconds += late
        self.looks += 1
        self.worst = max(self.worst, late)
        if late > LONG and now - self._told >= AGAIN:
            self._told = now
            self._complain("everybody was held up for {seconds:.1f} s: the event loop did not get its turn", seconds=late)
