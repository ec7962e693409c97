"""What an SNMP agent's values mean: which are asked for, and what of them may be believed. Pure.

net-snmp, the agent of nearly every Linux host, has CPU times and load in its UCD-SNMP-MIB; HOST-RESOURCES-MIB (RFC 2790), which
others have as well, only tells how busy each processor was over the last minute. A value that an agent does not have, or not
yet, is unknown and never 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

from distbal.loads import CpuTimes

Oid = tuple[int, ...]
#: of the types of RFC 2578: the numbers, and texts; None for what the agent does not have
Value = int | bytes | None

_UCD: Oid = (1, 3, 6, 1, 4, 1, 2021)
#: ssCpuRawUser, Nice, System, Idle, Wait, Interrupt, SoftIRQ and Steal, in the order of CpuTimes. On Linux each is one field of
#: /proc/stat (net-snmp's agent/mibgroup/hardware/cpu/cpu_linux.c), and System is that field alone: ssCpuRawKernel, which other
#: systems split it into, stays 0 there. So nothing is counted twice.
CPU_TIMES: tuple[Oid, ...] = tuple((*_UCD, 11, number, 0) for number in (50, 51, 52, 53, 54, 56, 61, 64))
#: those without which nothing can be said: the first so many
_NEEDED = 4
#: laLoadInt.1: the load average over one minute, times 100
LOAD: Oid = (*_UCD, 10, 1, 5, 1)
#: ssCpuNumCpus
CPUS: Oid = (*_UCD, 11, 67, 0)
#: memTotalReal, memAvailReal (what is free) and memCached, in kB
MEMORY: Oid = (*_UCD, 4, 5, 0)
FREE: Oid = (*_UCD, 4, 6, 0)
CACHED: Oid = (*_UCD, 4, 15, 0)
#: the column hrProcessorLoad: one row a processor, each the percentage of the last minute that it was not idle
PROCESSORS: Oid = (1, 3, 6, 1, 2, 1, 25, 3, 3, 1, 2)

#: asked for at each check
ALL: tuple[Oid, ...] = (*CPU_TIMES, LOAD, CPUS, MEMORY, FREE, CACHED)

#: Counter32 (RFC 2578, 7.1.6) begins again there
WRAP = 2**32
#: by how much all CPU times together may grow in a second: the most CPUs of a Linux, 8192, at 100 a second (USER_HZ)
FASTEST = 8192 * 100


@dataclass(frozen=True, slots=True)
class Look:
    """What an agent said at one check.

    :ivar times: the CPU times as it has them, each below 2**32; None where it has none, or none yet.
    :ivar fresh: it answers all CPU times with 0, as net-snmp does in its first seconds.
    :ivar load: the load average over one minute.
    """

    times: CpuTimes | None = None
    fresh: bool = False
    load: float | None = None

    @classmethod
    def parse(cls, values: Mapping[Oid, Value]) -> Look:
        """Read the values; old agents lack some of the CPU times, which count as 0."""
        counts = [count(values.get(oid)) for oid in CPU_TIMES]
        load = count(values.get(LOAD))
        there = None not in counts[:_NEEDED]
        times = CpuTimes(*(number or 0 for number in counts)) if there and any(counts) else None
        return cls(times, there and times is None, None if load is None else load / 100)


def count(value: Value) -> int | None:
    """A number from 0 to 2**32 - 1; None for whatever else was said."""
    return value if isinstance(value, int) and 0 <= value < WRAP else None


def memory(values: Mapping[Oid, Value]) -> dict[str, int]:
    """Facts: the whole memory and what of it is free or easily freed, in MiB, as far as they are there."""
    whole, free, cached = (count(values.get(oid)) for oid in (MEMORY, FREE, CACHED))
    facts = {}
    if whole is not None:
        facts["memory_mb"] = whole >> 10
    if free is not None:
        facts["free_mb"] = free + (cached or 0) >> 10
    return facts


def busy(rows: Sequence[Value]) -> tuple[float, int] | None:
    """How many processors were busy, and how many there are, of the rows of :data:`PROCESSORS`; None where that is unknown."""
    loads = [row for row in rows if isinstance(row, int) and 0 <= row <= 100]
    return (sum(loads) / 100, len(loads)) if loads and len(loads) == len(rows) else None


class Counters:
    """CPU times that go on over the wrap of their counters, and stand still over a restart, which nobody can look across."""

    def __init__(self) -> None:
        self._last: CpuTimes | None = None
        self._at = 0.0
        self._total: CpuTimes | None = None

    def take(self, times: CpuTimes | None, now: float) -> CpuTimes | None:
        """Take in the times of a look, at ``now`` seconds on a clock that never goes back.

        :returns: the sum of all steps so far; unchanged where the step is not known; None before the first.
        """
        if times is None:
            return self._total
        if self._last is None or self._total is None:
            self._total = times
        else:
            steps = [_step(new, old) for new, old in zip(astuple(times), astuple(self._last), strict=True)]
            if _plausible(steps, now - self._at):
                self._total = CpuTimes(*map(sum, zip(astuple(self._total), steps, strict=True)))
        self._last, self._at = times, now
        return self._total


def _step(new: int, old: int) -> int:
    """From one count to the next. A small step back is one: the kernel's iowait does that (proc(5))."""
    step = (new - old) % WRAP
    return step - WRAP if step >= WRAP // 2 else step


def _plausible(steps: Sequence[int], elapsed: float) -> bool:
    """Whether counters moved like this in so many seconds; else the host was started anew between."""
    total = sum(steps)
    return 0 <= total <= FASTEST * (elapsed + 1.0) and min(steps) >= -total
