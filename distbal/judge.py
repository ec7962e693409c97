"""What one monitor says of one host, made from its checks: rise and fall, trouble that is not the host's, weights.

A single check that fails is often an accident, so ``fall`` of them in a row take a host down, and ``rise`` good ones bring it
back; a check that is proof decides alone. A check that could not be made says nothing, unless the file says that it is
required.
"""

from __future__ import annotations

from dataclasses import dataclass

from distbal.health import FULL_WEIGHT
from distbal.interfaces import Reading


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a monitor says of a host, until it says otherwise or is not heard of any more.

    :ivar up: whether the host can take jobs.
    :ivar weight: the share of its slots that it should be given, 0 to 1000 thousandths; None for no opinion.
    :ivar reason: why, as the end of a sentence that begins with the host's name.
    """

    up: bool
    weight: int | None = None
    reason: str = ""


class Judge:
    """One monitor's checks of one host.

    :param fall: checks in a row that must fail before the host is down; ``rise`` must succeed before it is up again.
    :param required: a check that could not be made counts as one that failed.

    :ivar opinion: what follows from the checks so far; None as long as nothing does.
    """

    __slots__ = ("_failed", "_fall", "_required", "_rise", "_succeeded", "opinion")

    def __init__(self, fall: int, rise: int, *, required: bool = False) -> None:
        self._fall = fall
        self._rise = rise
        self._required = required
        self._failed = self._succeeded = 0
        self.opinion: Opinion | None = None

    @property
    def undecided(self) -> bool:
        """Whether the last checks contradict the opinion, and too few of them yet to change it."""
        if self.opinion is not None and not self.opinion.up:
            return self._succeeded > 0
        return self._failed > 0

    def hear(self, reading: Reading) -> Opinion | None:
        """A check was made; what the monitor says now."""
        return self._succeed(reading) if reading.up else self._fail(reading.reason, certain=reading.certain)

    def miss(self, reason: str) -> Opinion | None:
        """A check could not be made, for this reason: what the monitor says now; None where that is nothing new.

        None even where there is an opinion: it is not heard again by this, and expires like any that is not.
        """
        return self._fail(reason) if self._required else None

    def forget(self) -> None:
        """What it said holds no longer."""
        self.opinion = None
        self._failed = self._succeeded = 0

    def _succeed(self, reading: Reading) -> Opinion:
        self._failed = 0
        before = self.opinion
        if before is not None and not before.up:
            self._succeeded += 1
            if self._succeeded < self._rise and not reading.certain:
                return before
        self._succeeded = 0
        weight = None if reading.weight is None else thousandths(reading.weight)
        return self._say(Opinion(True, weight, reading.reason))

    def _fail(self, reason: str, *, certain: bool = False) -> Opinion | None:
        self._succeeded = 0
        before = self.opinion
        if before is None or before.up:
            self._failed += 1
            if self._failed < self._fall and not certain:
                return before
        self._failed = 0
        return self._say(Opinion(False, None, reason))

    def _say(self, opinion: Opinion) -> Opinion:
        # the same object for the same opinion: of a thousand hosts most say what they said before
        if opinion != self.opinion:
            self.opinion = opinion
            return opinion
        return self.opinion


def thousandths(weight: float) -> int:
    """A weight of 0.0 to 1.0 in thousandths; one above 0.0 stays above 0, which is room for one job."""
    return max(1, round(weight * FULL_WEIGHT)) if weight > 0 else 0
