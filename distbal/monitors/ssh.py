"""``ssh``: how much of a host is left for us? Its CPU times and load average, read over one kept SSH connection.

A host that is also somebody's desktop, or runs other jobs, gets fewer of ours: its weight is the share of its CPU time that was
ours or idle. It is never found down by this, for a host without an SSH server compiles as well as any.

Linux first: what is read is in /proc (proc(5)), by one awk a check, whose answer is as short on 256 CPUs as on 2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.plugin import IPlugin
from zope.interface import implementer

from distbal.errors import MonitorTrouble
from distbal.interfaces import IHostMonitor, IHostMonitorFactory, Reading, Target
from distbal.loads import CpuTimes
from distbal.monitors.kit import MonitorKind, Surroundings
from distbal.monitors.sshlink import EXTRA, REQUIRES, SshLink, SshLoginOptions
from distbal.monitors.weigher import Weigher, WeightBy, weight_by_setting

#: prints the first line of /proc/stat, the one line of /proc/loadavg, and how many CPUs /proc/stat has lines of. Quoted so that
#: every shell that may be the user's takes it alike.
COMMAND = "awk '/^cpu[0-9]/ { n++; next } /^cpu |\\// ; END { print n + 0 }' /proc/stat /proc/loadavg"
#: bytes; the three lines have about 100, and those of a grep some 80 for each CPU
MOST_ANSWER = 65_536
_MOST_CPUS = 65_536
#: the first line of /proc/stat; a kernel counts in 64 bits
_TIMES = "cpu( +[0-9]{1,20}){4,20}"


class SshOptions(SshLoginOptions):
    """What stands behind ``ssh`` in hosts.yaml."""

    weight_by: WeightBy = weight_by_setting()


@implementer(IPlugin, IHostMonitorFactory)
class SshKind(MonitorKind):
    """Makes monitors of this kind."""

    name = "ssh"
    description = "how busy is it with what is not ours? CPU times and load average, over SSH"
    options = SshOptions
    most_at_once = 50
    silence = "does an SSH server answer on that port, and does no firewall drop what is sent there?"
    requires = REQUIRES
    extra = EXTRA

    def monitor(self, target: Target, options: SshOptions, surroundings: Surroundings) -> SshMonitor:
        """Make a monitor of one host."""
        return SshMonitor(target, options, surroundings)


@implementer(IHostMonitor)
class SshMonitor:
    """Reads one host's CPU times and load."""

    def __init__(self, target: Target, options: SshOptions, surroundings: Surroundings) -> None:
        self._name = target.name
        self._surroundings = surroundings
        self._link = SshLink(target, options, surroundings)
        self._weigher = Weigher(options.weight_by)

    async def check(self) -> Reading:
        """Look once; connects and logs in where there is no connection yet."""
        look = parse(await self._link.run(COMMAND, MOST_ANSWER))
        if look is None:
            self._link.drop()
            raise MonitorTrouble(
                "answered neither CPU times nor a load average: is it a Linux host, with a shell for this user?"
            )
        ours = self._surroundings.slots.average(self._name)
        weighed = self._weigher.weigh(look.times, look.load, look.cpus, ours, self._surroundings.reactor.seconds())
        return Reading(up=True, reason=weighed.reason, weight=weighed.weight, facts=weighed.facts)

    def stop(self) -> Deferred[None] | None:
        """Close the connection."""
        return self._link.close()


@dataclass(frozen=True, slots=True)
class Look:
    """What a host said; None where it did not."""

    times: CpuTimes | None = None
    load: float | None = None
    cpus: int | None = None


def parse(answer: bytes) -> Look | None:
    """What :data:`COMMAND` printed; None where it is something else altogether.

    What a shell's start-up files print around it does not matter. Where the host lets this key run nothing but a command of its
    own choice, ``grep -h -e ^cpu -e / /proc/stat /proc/loadavg`` will do as well: the CPUs' own lines are counted.
    """
    times, load, cpus, lines = None, None, None, 0
    for line in answer.decode("ascii", "replace").splitlines():
        if re.fullmatch(_TIMES, line):
            times = CpuTimes.parse(line)
        elif re.match("cpu[0-9]", line):
            lines += 1
        elif match := re.fullmatch(r"([0-9]{1,6}\.[0-9]{1,3}) [0-9.]+ [0-9.]+ [0-9]+/[0-9]+ [0-9]+", line):
            load = float(match[1])
        elif re.fullmatch(r"[1-9][0-9]{0,4}", line) and int(line) <= _MOST_CPUS:
            cpus = int(line)
    return Look(times, load, cpus or lines or None) if times or load is not None else None
