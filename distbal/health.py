"""Verdicts: what each source last said of a host, and what they amount to together.

A source is whoever has an opinion: the update port, a monitor, the proxy's own connects. Each holds one verdict; none overrules
another. The host is up when nobody says down, and its weight is the least of those given. A verdict that expires is as if it
had never been said, so a source that falls silent cannot keep a host down, or up, for ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

#: weights are integers in thousandths, so that capacity is exact: this one is "all of its slots"
FULL_WEIGHT = 1000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one source says of one host.

    :ivar source: who says so (``update``, ``tcp``, ``ssh`` ...).
    :ivar up: whether the host can take jobs at all.
    :ivar at: when it was said, in seconds on the scheduler's clock.
    :ivar weight: the share of its slots that it should be given, 0 to 1000 thousandths; None for no opinion.
    :ivar reason: one sentence for a person, or "".
    :ivar expires: when it no longer holds, on the same clock; None for "until the source says otherwise".
    :ivar then: what holds in its place from then on, if anything does.
    """

    source: str
    up: bool
    at: float
    weight: int | None = None
    reason: str = ""
    expires: float | None = None
    then: Verdict | None = None


class Health:
    """The verdicts on one host, one a source.

    :ivar up: nobody says down.
    :ivar weight: the least weight given, in thousandths; 1000 where nobody gives one.
    """

    __slots__ = ("_verdicts", "up", "weight")

    def __init__(self) -> None:
        self._verdicts: dict[str, Verdict] = {}
        self.up = True
        self.weight = FULL_WEIGHT

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Those that hold, in the order in which their sources first spoke."""
        return tuple(self._verdicts.values())

    def verdict(self, source: str) -> Verdict | None:
        """What one source says; None when it has said nothing that still holds."""
        return self._verdicts.get(source)

    def hear(self, verdict: Verdict) -> bool:
        """Take a source's word in place of what it said before; True when ``up`` or ``weight`` changed."""
        if verdict.weight is not None and not 0 <= verdict.weight <= FULL_WEIGHT:
            raise ValueError(f"a weight is 0 to {FULL_WEIGHT} thousandths, not {verdict.weight}")
        self._verdicts[verdict.source] = verdict
        return self._sum_up()

    def forget(self, source: str) -> bool:
        """Let what a source said hold no longer; True when ``up`` or ``weight`` changed."""
        return self._verdicts.pop(source, None) is not None and self._sum_up()

    def take_up(self, verdicts: Iterable[Verdict], now: float) -> None:
        """Go on with what an earlier process had heard, as far as it holds, of sources that have said nothing since."""
        for verdict in verdicts:
            self._verdicts.setdefault(verdict.source, verdict)
        self.expire(now)
        self._sum_up()

    def expire(self, now: float) -> bool:
        """Forget the verdicts whose time is over, or go on to what holds then; True when ``up`` or ``weight`` changed."""
        over = [v for v in self._verdicts.values() if v.expires is not None and v.expires <= now]
        for verdict in over:
            follows = verdict.then
            while follows is not None and follows.expires is not None and follows.expires <= now:
                follows = follows.then
            if follows is not None:
                self._verdicts[verdict.source] = follows
            else:
                del self._verdicts[verdict.source]
        return bool(over) and self._sum_up()

    def next_expiry(self) -> float | None:
        """When the next verdict expires, or None."""
        return min((v.expires for v in self._verdicts.values() if v.expires is not None), default=None)

    def _sum_up(self) -> bool:
        before = self.up, self.weight
        self.up = all(v.up for v in self._verdicts.values())
        self.weight = min((v.weight for v in self._verdicts.values() if v.weight is not None), default=FULL_WEIGHT)
        return (self.up, self.weight) != before
