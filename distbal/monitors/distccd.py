"""``distccd``: what distccd itself tells of its work, on the page that it serves when it is started with ``--stats``.

The page (distcc's src/stats.c) is HTTP to look at: whatever is asked, the answer is the same, some thirty lines of ``name
value`` between ``<distccstats>`` and ``</distccstats>``. The process that serves it is the one that minds the workers, so one
that is frozen is silent here. How many jobs run now it does not say: ``dcc_current_load`` counts whatever runs on the host, and
``dcc_avg_kids1`` is how many ran on average in the minute before the last one, a whole number.

Three things that it is careful of. Looks in quick succession have made a distccd stop taking jobs (distcc's issue #275), so ten
seconds lie between two. A connection that is reset before the request has come kills all of distccd 3.4 (it is told so when it
reads, writes its page nevertheless, and gets a SIGPIPE), so none is. And a port of our own choosing that nobody serves, or
that a firewall drops, says nothing of distccd: as long as no page ever came from there, neither does a connect without an end.
"""

from __future__ import annotations

import re
from typing import Annotated

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectingCancelledError
from twisted.plugin import IPlugin
from zope.interface import implementer

from distbal.errors import MonitorTrouble
from distbal.forms import between, port_number, setting, shown, whole_number
from distbal.hostspec import MOST_SLOTS
from distbal.interfaces import Fact, IHostMonitor, IHostMonitorFactory, Reading, Target
from distbal.monitors.exchange import Caller, Text, printable
from distbal.monitors.kit import MOST_INTERVAL, MonitorKind, MonitorOptions, Refused, Surroundings, Unreachable, connect

#: where distccd serves its page unless --stats-port says otherwise (distcc.h)
STATS_PORT = 3633
#: seconds; see issue #275 of distcc
LEAST_INTERVAL = 10
#: bytes; distccd's own page has at most 2 kB
MOST_PAGE = 65_536
BEGIN, END = b"<distccstats>\n", b"</distccstats>"
REQUEST = b"GET / HTTP/1.0\r\n\r\n"

#: our facts, and distccd's names for them; numbers below 0 are those that it does not know
NUMBERS = {
    "max_jobs": "dcc_max_kids",
    "average_jobs": "dcc_avg_kids1",
    "compiled": "dcc_compile_ok",
    "compiled_last_minute": "dcc_num_compiles1",
    "failed": "dcc_compile_error",
    "timed_out": "dcc_compile_timeout",
    "clients_gone": "dcc_cli_disconnect",
    "bad_requests": "dcc_rej_bad_req",
    "running_processes": "dcc_current_load",
    "disk_free_mb": "dcc_free_space",
    "memory_free_mb": "dcc_free_mem",  # not in distcc 3.4
    "longest_job_ms": "dcc_longest_job_time_msecs",
}

Port = Annotated[int, port_number("the port of the statistics")]
Interval = Annotated[
    float,
    between(
        LEAST_INTERVAL,
        MOST_INTERVAL,
        "seconds between two looks at distccd's statistics: more often has made a distccd stop taking jobs (distcc issue #275)",
    ),
]
Megabytes = Annotated[int, whole_number(0, 10**9, lambda value: f"megabytes of disk are a whole number, not {value[:40]}")]


class DistccdOptions(MonitorOptions):
    """What stands behind ``distccd`` in hosts.yaml."""

    interval: Interval = setting(15, "Seconds from one check of a host to the next; at least 10.")
    port: Port = setting(STATS_PORT, "The port of the statistics: distccd's --stats-port.")
    least_disk: Megabytes = setting(
        0, "Megabytes that must be free where distccd keeps its temporary files, or the host is given no new jobs; 0: any."
    )


@implementer(IPlugin, IHostMonitorFactory)
class DistccdKind(MonitorKind):
    """Makes monitors of this kind."""

    name = "distccd"
    description = "what does distccd tell of its work (distccd --stats)?"
    options = DistccdOptions
    silence_is_down = True
    least_interval = LEAST_INTERVAL
    proposes_slots = True

    def monitor(self, target: Target, options: DistccdOptions, surroundings: Surroundings) -> DistccdMonitor:
        """Make a monitor of one host."""
        return DistccdMonitor(target, options, surroundings)


class _Looker(Caller):
    resets = False


@implementer(IHostMonitor)
class DistccdMonitor:
    """Reads one host's page."""

    def __init__(self, target: Target, options: DistccdOptions, surroundings: Surroundings) -> None:
        self._host = target.host
        self._port = options.port
        self._least_disk = options.least_disk
        self._surroundings = surroundings
        #: a page came from there: it is distccd's port, and silence is distccd's
        self._proven = False

    async def check(self) -> Reading:
        """Read the page once."""
        caller = await self._connect()
        page = Text(MOST_PAGE, END)
        await caller.ask(REQUEST, page.take)
        if not page.text:
            raise MonitorTrouble(f"closed port {self._port} without a word: does distccd's --allow name this machine?")
        reading = parse(page.text, self._least_disk)
        self._proven = True
        return reading

    def stop(self) -> None:
        """Nothing is kept between two checks."""

    async def _connect(self) -> Caller:
        try:
            caller: Caller = await connect(self._surroundings, self._host, self._port, _Looker)
        except Refused as problem:
            raise MonitorTrouble(
                f"has no statistics on port {self._port}: start distccd with --stats, and --stats-port where the port differs"
            ) from problem
        except Unreachable as problem:
            raise MonitorTrouble(f"{problem} (port {self._port}, for distccd's statistics)") from problem
        except (CancelledError, ConnectingCancelledError) as problem:
            if self._proven:
                raise
            raise MonitorTrouble(
                f"takes no connections on port {self._port}, for distccd's statistics: a firewall?"
            ) from problem
        return caller


def parse(page: bytes, least_disk: int = 0) -> Reading:
    """What distccd's page says.

    :param page: all that came; where it was cut short, what is there counts, except an unfinished line.
    :param least_disk: megabytes, below which no new jobs are wanted.
    :raises MonitorTrouble: it is another page.
    """
    _, begun, rest = page.partition(BEGIN)
    lines = rest.partition(END)[0].split(b"\n")[:-1]
    # the last of two counts: a client's file name, which comes first, may have a line end in it
    said = dict(line.partition(b" ")[::2] for line in lines if line.startswith(b"dcc_"))
    if not begun or not said:
        raise MonitorTrouble(f"does not show distccd's statistics on that port, but {shown(page.decode(errors='replace'))}")
    facts: dict[str, Fact] = {}
    for fact, name in NUMBERS.items():
        if number := re.fullmatch(rb"([0-9]{1,12})(?: MB)?", said.get(name.encode(), b"")):
            facts[fact] = int(number[1])
    if load := re.fullmatch(rb"[0-9]{1,7}(?:\.[0-9]{1,6})?", said.get(b"dcc_load1", b"")):
        facts["load"] = float(load[0])
    if "longest_job_ms" in facts:
        facts["longest_job"] = printable(said.get(b"dcc_longest_job", b""), 60)
    most, disk = facts.get("max_jobs"), facts.get("disk_free_mb")
    slots = most if isinstance(most, int) and 1 <= most <= MOST_SLOTS else None
    if isinstance(disk, int) and disk < least_disk:
        reason = f"has only {disk} MB of disk left, and {least_disk} are wanted (no new jobs)"
        return Reading(up=True, reason=reason, weight=0.0, slots=slots, facts=facts)
    parts = [
        text.format(facts[fact])
        for fact, text in (
            ("compiled_last_minute", "{} compiled in the last minute"),
            ("load", "load {}"),
            ("max_jobs", "{} jobs at once at most"),
        )
        if fact in facts
    ]
    return Reading(up=True, reason=f"shows its statistics: {', '.join(parts)}".removesuffix(": "), slots=slots, facts=facts)
