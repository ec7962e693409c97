"""A weight from what a host says of its load: by CPU times or by the load average, whichever is wanted and to be had.

For all kinds that read these, however they come by them; what the shares mean, ``loads.py`` says. One weigher a host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from distbal.forms import choice, setting
from distbal.interfaces import Fact
from distbal.loads import CpuTimes, Steady, share_by_load, share_left

CPU, LOADAVG = "cpu", "loadavg"

WeightBy = Annotated[str, choice((CPU, LOADAVG))]


def weight_by_setting() -> Any:
    """What a kind's option ``weight_by`` (a :data:`WeightBy`) is set to: its default and the one description."""
    return setting(
        CPU,
        "What the weight comes from. cpu: the share of CPU time that was niced or idle since the last check. loadavg: the load"
        " average less what was lent, by CPU. The other one is used where this one is not to be had.",
    )


@dataclass(frozen=True, slots=True)
class Weighed:
    """What a look at a host comes to, for a :class:`distbal.interfaces.Reading`.

    :ivar weight: 0.0 to 1.0; None: not known (yet).
    :ivar reason: the end of a sentence that begins with the host's name.
    :ivar facts: what was read: ``load``, ``cpus``; and what follows: ``share`` (0.0 to 1.0, before it is averaged), ``by``
        (cpu or loadavg), ``ours`` (the average of our own slots that was taken off the load).
    """

    weight: float | None
    reason: str
    facts: dict[str, Fact]


class Weigher:
    """Turns what is read at each check into a steady weight.

    CPU times say something from the second look on. Until then the weight is not known, rather than guessed from the load
    average: after a start of the balancer that would take our own running jobs for somebody else's. Later, where they say
    nothing (the host was started anew, or its kernel does not count), the load average does.
    """

    def __init__(self, weight_by: str) -> None:
        """Begin without a past; ``weight_by``: :data:`CPU` or :data:`LOADAVG`."""
        self._by = weight_by
        self._before: CpuTimes | None = None
        self._steady = Steady()

    def weigh(self, times: CpuTimes | None, load: float | None, cpus: int | None, ours: float, now: float) -> Weighed:
        """Take in one look.

        :param times: since the host was started; None where they are not to be had.
        :param load: its load average over one minute, 0.0 or more; None where that is not to be had.
        :param cpus: how many it has, at least 1; None where that is not to be had.
        :param ours: the average of the slots that we lent of it (``surroundings.slots.average``).
        :param now: seconds on a clock that never goes back.
        """
        facts: dict[str, Fact] = {}
        if load is not None:
            facts["load"] = load
        if cpus is not None:
            facts["cpus"] = cpus
        first = times is not None and self._before is None
        step = times.since(self._before) if times is not None and self._before is not None else None
        self._before = times or self._before
        if load is not None and cpus is not None and (self._by == LOADAVG or (step is None and not first)):
            share = share_by_load(load, ours, cpus)
            facts |= {"by": LOADAVG, "ours": round(ours, 2)}
            reason = f"has a load of {load:g} on {_cpus(cpus)}, {min(ours, load):.2g} of it ours: {share:.0%} is left for us"
        elif step is not None:
            share = share_left(step)
            facts["by"] = CPU
            reason = f"has {share:.0%} of its CPU time left for us"
        elif times is not None:
            return Weighed(self._steady.weight, "has told its CPU times, and with the next ones a share can be said", facts)
        else:
            return Weighed(None, "tells neither its CPU times nor its load", facts)
        facts["share"] = round(share, 3)
        return Weighed(self._steady.take(share, now), reason, facts)


def _cpus(number: int) -> str:
    return "1 CPU" if number == 1 else f"{number} CPUs"
