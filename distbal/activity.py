"""How busy the farm was in the last hour: a ring of bins, each with the average and the most of what was seen in it.

Somebody looks about once a second and says what he sees; looks that come late, or not at all, leave a gap.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from distbal import checked
from distbal.checked import Fields, Wrong

#: seconds of one bin, and how many make an hour
BIN = 10.0
BINS = 360
#: beyond any number of them that are kept
MOST_BINS = 10_000


@dataclass(frozen=True, slots=True)
class Bin:
    """What was seen in one stretch of time.

    :ivar number: how many bins of time lie before it, on the clock of those who look.
    :ivar active: slots lent, on the average; ``most_active``: at the most.
    :ivar waiting: clients that waited, on the average; ``most_waiting``: at the most.
    """

    number: int
    active: float
    most_active: int
    waiting: float
    most_waiting: int


class Activity:
    """The last bins.

    :param width: seconds of one, above 0.
    :param bins: how many are kept, at least 1; the oldest is forgotten first.
    """

    def __init__(self, width: float = BIN, bins: int = BINS) -> None:
        if width <= 0 or bins < 1:
            raise ValueError(f"activity is kept in at least one bin of more than 0 seconds, not in {bins} of {width:g}")
        self.width = width
        self.bins = bins
        self._full: deque[Bin] = deque(maxlen=bins)
        self._number: int | None = None
        self._looks = self._active = self._waiting = self._most_active = self._most_waiting = 0

    def look(self, now: float, active: int, waiting: int) -> bool:
        """Note what is seen now.

        :param now: seconds on a clock that never goes back; one that does is taken for standing still.
        :param active: slots that are lent.
        :param waiting: clients that wait.
        :returns: whether a bin became full by that.
        """
        number = int(now // self.width)
        if self._number is not None:
            number = max(number, self._number)
        filled = self._number is not None and number > self._number
        if filled:
            self._full.append(self._bin())
            self._looks = self._active = self._waiting = self._most_active = self._most_waiting = 0
        self._number = number
        self._looks += 1
        self._active += active
        self._waiting += waiting
        self._most_active = max(self._most_active, active)
        self._most_waiting = max(self._most_waiting, waiting)
        return filled

    def note(self) -> dict[str, Any]:
        """All of it, for the next process: values for JSON, which :meth:`take_up` takes."""
        return {
            "width": self.width,
            "bins": [[one.number, one.active, one.most_active, one.waiting, one.most_waiting] for one in self._full],
            "number": self._number,
            "looks": self._looks,
            "active": self._active,
            "waiting": self._waiting,
            "most_active": self._most_active,
            "most_waiting": self._most_waiting,
        }

    def take_up(self, values: object) -> None:
        """Go on with what an earlier process saw, before anybody looks; bins of another width are passed over.

        :raises ValueError: that is no note of activity; nothing has changed.
        """
        fields = Fields(values)
        if fields.number("width") != self.width or "number" not in fields:
            return
        number, looks = fields.whole("number"), fields.whole("looks", 1)
        full = [_bin(one, fields.at("bins")) for one in fields.each("bins", MOST_BINS)]
        if any(one >= other for one, other in pairwise([*(one.number for one in full), number])):
            raise Wrong(f"{fields.at('bins')}: each is later than the one before, and the one that fills is the last")
        self._active, self._waiting = fields.whole("active"), fields.whole("waiting")
        self._most_active, self._most_waiting = fields.whole("most_active"), fields.whole("most_waiting")
        self._number, self._looks = number, looks
        self._full.extend(full)

    @property
    def newest(self) -> int | None:
        """The number of the bin that fills; None where nobody looked yet."""
        return self._number

    def hour(self) -> list[Bin]:
        """The full bins and the one that fills, oldest first, none older than the ring is long; none where nobody looked."""
        if self._number is None:
            return []
        oldest = self._number - self.bins
        return [*(one for one in self._full if one.number > oldest), self._bin()]

    def _bin(self) -> Bin:
        looks, number = self._looks, self._number or 0
        return Bin(number, self._active / looks, self._most_active, self._waiting / looks, self._most_waiting)


def _bin(values: object, where: str) -> Bin:
    if not isinstance(values, list) or len(values) != 5:
        raise Wrong(f"{where}: five numbers are wanted, not {checked.shown(values)}")
    number, active, most_active, waiting, most_waiting = values
    return Bin(
        checked.whole(number, where),
        checked.number(active, where),
        checked.whole(most_active, where),
        checked.number(waiting, where),
        checked.whole(most_waiting, where),
    )
