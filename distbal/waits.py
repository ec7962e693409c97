"""How long those who got a slot had waited for it: counted into buckets, for a histogram.

Most have not to wait at all. Nothing is done for these: they are all grants but those that are noted here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

#: upper bounds of the buckets, in seconds, each with its bound: from what nobody notices to what nobody bears. The last bucket
#: has no bound.
BOUNDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


@dataclass(frozen=True, slots=True)
class Histogram:
    """What was seen.

    :ivar counts: how many waited at most as long as each bound of :data:`BOUNDS`, and at the end how many there were at all:
        cumulative.
    :ivar seconds: that they waited together.
    """

    counts: tuple[int, ...]
    seconds: float


class Waits:
    """Counts those that had to wait.

    :ivar seconds: that they waited together.
    """

    __slots__ = ("_counts", "seconds")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    @property
    def counts(self) -> tuple[int, ...]:
        """How many waited no longer than each bound, and longer than the one before; at the end, longer than all."""
        return tuple(self._counts)

    def take_up(self, bounds: Sequence[float], counts: Sequence[int], seconds: float) -> None:
        """Go on with what an earlier process counted, for a moment at which nothing is counted here.

        :param bounds: its own, which may be others: who waited at most as long as one of them is counted in the bucket that
            this bound falls in.
        :param counts: one more than bounds.
        """
        for bound, count in zip((*bounds, float("inf")), counts, strict=True):
            self._counts[bisect_left(BOUNDS, bound)] += count
        self.seconds += seconds

    def note(self, seconds: float) -> None:
        """One got its slot after this time."""
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    def histogram(self, granted: int) -> Histogram:
        """All who got a slot.

        :param granted: how many that were: those that are not noted did not wait.
        """
        at_once = granted - sum(self._counts)
        return Histogram(tuple(at_once + count for count in accumulate(self._counts)), self.seconds)
