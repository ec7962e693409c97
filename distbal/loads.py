"""Weights from load: how much of a host is left for us, and how to keep that from wobbling. Pure.

Only load that is *not ours* may lower a weight, or a host at full work by us alone would be sent less, get idle, be sent
more. distccd runs its compilers niced (by 5, distccd(1)), so what runs niced is ours, or as willing to give way as ours, and
what runs at the usual priority is somebody else's (:func:`share_left`). Where CPU times are not to be had, the load average
less what we lent says nearly the same, a minute later (:func:`share_by_load`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

#: seconds between two samples of a load average, and over how long the first of the three averages (LOAD_FREQ and EXP_1 in
#: Linux's include/linux/sched/loadavg.h)
SAMPLE, MINUTE = 5.0, 60.0
_DECAY = math.exp(-SAMPLE / MINUTE)
#: digits of a counter, which has 64 bits; characters of a line of ten of them, and some to spare
_MOST_DIGITS, _MOST_CHARS = 20, 1000

#: seconds over which shares are averaged
TAU = 20.0
#: by how much the average must leave the weight before that follows: on in the direction of its last change; the other way; and
#: either way where it has stood for SETTLED seconds
STEP, TURN, FINE_STEP = 0.05, 0.25, 0.03
SETTLED = 60.0
#: and by how much at the least where the weight is all or nothing
BAND = 0.1
#: from here on it is all, or nothing: a little of somebody else's work is always there
ALL, NOTHING = 0.95, 0.02
_ENDS = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """How long a host's CPUs did what, all together, since it was started: the fields of /proc/stat (proc(5)), in any unit.

    ``user`` includes guests, ``nice`` niced ones, as the kernel has it.
    """

    user: int
    nice: int
    system: int
    idle: int
    iowait: int = 0
    irq: int = 0
    softirq: int = 0
    steal: int = 0

    @classmethod
    def parse(cls, line: str) -> CpuTimes:
        """The first line of /proc/stat, ``cpu  4705 150 1120 ...``; ValueError where it is none."""
        words = line.split() if len(line) <= _MOST_CHARS else []
        numbers = words[1 : 1 + len(fields(cls))]
        if words[:1] != ["cpu"] or len(numbers) < 4 or not all(map(_is_counter, numbers)):
            raise ValueError(f"{line[:60]!r} is no line of CPU times")
        return cls(*map(int, numbers))

    def since(self, before: CpuTimes) -> CpuTimes | None:
        """What was added since then; None where that cannot be said: nothing was, or the host was started anew.

        One of the fields may go back a little (proc(5) says so of iowait): that one counts as unchanged.
        """
        steps = [getattr(self, field.name) - getattr(before, field.name) for field in fields(self)]
        total = sum(steps)
        if total <= 0 or min(steps) < -total:
            return None
        return CpuTimes(*(max(0, step) for step in steps))


def share_left(step: CpuTimes) -> float:
    """The share of a host's CPU time that was ours or idle, 0.0 to 1.0.

    :param step: between two looks (:meth:`CpuTimes.since`).

    Ours is the niced time. What the kernel did is not told apart by niceness, and a compiler makes it work for a tenth of its
    own time or more; so that is split in the proportion of niced to other work. Stolen time is another virtual machine's.
    """
    kernel = step.system + step.irq + step.softirq
    working = step.user + step.nice
    ours = step.nice + (kernel * step.nice / working if working else 0.0)
    total = working + kernel + step.idle + step.iowait + step.steal
    # counters that nobody would believe are rounded to a share above 1.0
    return min(1.0, (step.idle + step.iowait + ours) / total) if total else 1.0


def share_by_load(load: float, ours: float, cpus: int) -> float:
    """The share of a host's CPUs that somebody else's work leaves, 0.0 to 1.0.

    :param load: its load average over one minute.
    :param ours: the same average of the slots that we lent of it.
    :param cpus: how many it has, at least 1.
    """
    return min(1.0, max(0.0, 1.0 - max(0.0, load - ours) / cpus))


class LoadAverage:
    """An exponential average over one minute, sampled every :data:`SAMPLE` seconds as Linux samples what runs.

    :ivar value: the average.
    """

    __slots__ = ("value",)

    def __init__(self, value: float = 0.0) -> None:
        self.value = float(value)

    def sample(self, running: float) -> None:
        """Take in how many run now."""
        self.value = self.value * _DECAY + running * (1.0 - _DECAY)

    def missed(self, seconds: float, running: float) -> None:
        """No sample was taken for so long, while so many ran."""
        left = math.exp(-max(0.0, seconds) / MINUTE)
        self.value = self.value * left + running * (1.0 - left)


class Steady:
    """A weight that follows shares which wobble: by their average, in steps, and all or nothing near the ends.

    It goes on at once where it was going, and turns at once only by a quarter: else it must have stood for a minute first. So
    shares that wobble by a tenth, around whatever and however fast, do not make it go to and fro.

    :ivar weight: 0.0 to 1.0; None before the first share.
    """

    __slots__ = ("_at", "_average", "_changed", "_way", "weight")

    def __init__(self) -> None:
        self.weight: float | None = None
        self._average = 0.0
        self._at = self._changed = 0.0
        #: its last change: above 0.0 where it rose, below where it fell
        self._way = 0.0

    def take(self, share: float, now: float) -> float:
        """Take in a share, 0.0 to 1.0, looked at now (seconds on a clock that never goes back); the weight that follows."""
        if self.weight is None:
            self._average, self._changed = share, now
            self.weight = self._rounded()
        else:
            old = math.exp(-(now - self._at) / TAU)
            self._average = self._average * old + share * (1.0 - old)
            weight = self._rounded()
            way = weight - self.weight
            if way and abs(self._average - self.weight) >= self._band(weight, turns=way * self._way < 0, now=now):
                self.weight, self._changed, self._way = weight, now, way
        self._at = now
        return self.weight

    def _band(self, weight: float, *, turns: bool, now: float) -> float:
        """How far the average must be from the weight that stands, if this one is to follow."""
        settled = now - self._changed >= SETTLED
        band = FINE_STEP if settled else TURN if turns else STEP
        if self.weight in _ENDS:
            return max(band, BAND)
        # what is all but all, or nothing, becomes that without another step
        return 0.0 if weight in _ENDS and (settled or not turns) else band

    def _rounded(self) -> float:
        return 1.0 if self._average >= ALL else 0.0 if self._average <= NOTHING else self._average


def _is_counter(word: str) -> bool:
    return len(word) <= _MOST_DIGITS and word.isascii() and word.isdigit()
