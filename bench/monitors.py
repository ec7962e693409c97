"""What monitors cost: CPU time and memory, and what those who ask for a slot meanwhile notice of them.

Beside each daemon that asks its hosts stands one with the same hosts that does not: what the first has more is the monitors'.
CPU time is measured over whole intervals, in each of which every host is asked once, after a first one, in which whatever is
done once is done: imports, logins, names of SNMP agents.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.asked import Asked, AskedSnmp, AskedSsh, AskedTcp, address, why_not
from bench.crew import Crew
from bench.grants import Size
from bench.processes import PATIENCE, Answering, BenchError, Server, wait_until
from bench.report import Part, Progress, Row, paired, single

#: hosts of a farm where grants are measured, and slots of each. ssh and snmp see one machine, and give their hosts what is left
#: of it: the others, which lend all their slots, are enough for all clients
HOSTS, SLOTS = 1000, 4
#: of the checks that a time should have, the share that has to come to the servers, less a few: in a short time it is much that
#: each may be a little early or late
ENOUGH, FEW = 0.75, 3
#: seconds beyond the first interval in which the last answers come
EXTRA = 1.0
#: grants of one load at full speed, fewer than one address has ports; how many such loads make a round; clients at a time
GRANTS, LOADS, AT_ONCE = 20_000, 3, 50
#: clients a second where it is measured how long they wait
RATE = 500
#: what a grant may cost beside monitors, as a share of what it costs without; milliseconds that its p99 may be later
DEARER, LATER = 1.1, 2.0

WITHOUT = "without monitors"


@dataclass(frozen=True)
class Kind:
    """One kind of monitor.

    :ivar hosts: how many are asked, each every ``interval`` seconds.
    :ivar most: percent of a processor that this may take.
    """

    name: str
    hosts: int
    interval: float
    most: float

    def __str__(self) -> str:
        return f"{self.name} of {self.hosts:,} hosts"

    def scaled(self, share: float) -> Kind:
        """The same number of checks a second with fewer hosts."""
        return replace(self, hosts=round(self.hosts * share), interval=self.interval * share)


KINDS = (Kind("tcp", 1000, 10, 2), Kind("ssh", 200, 15, 5), Kind("snmp", 500, 15, 8))


def what_it_takes(crew: Crew, size: Size, progress: Progress) -> Part:
    """CPU time and memory, of each kind."""
    part = Part("what checks take, beside one with the same hosts and no monitors")
    for kind in measurable(size, part.notes):
        progress(f"monitors: {kind}, every {kind.interval:g} s")
        part.rows += _costs(crew, kind, size)
    part.notes.append("CPU: percent of one processor, over whole intervals after the first; that of the servers is not in it")
    return part


def measurable(size: Size, notes: list[str]) -> list[Kind]:
    """Those kinds that can be measured here; the notes get the others."""
    reasons = {kind.name: why_not(kind.name) for kind in KINDS}
    notes += filter(None, reasons.values())
    return [kind.scaled(size.monitored) for kind in KINDS if not reasons[kind.name]]


def _costs(crew: Crew, kind: Kind, size: Size) -> list[Row]:
    farm = Farm(crew, [kind], kind.hosts)
    plain, server = farm.plain(), farm.asking()
    shares, costs, memories = [], [], []
    for _ in range(size.monitor_rounds):
        seconds, (made,), (ours, theirs) = farm.watch(kind.interval, server, plain)
        shares.append((ours - theirs) / seconds * 100)
        costs.append((ours - theirs) / made * 1e6)
        memories.append((server.memory() / 1e6, plain.memory() / 1e6))
    farm.check(server)
    crew.stop(server, plain)
    farm.stop()
    with_them, without = zip(*memories, strict=True)
    return [
        single(f"CPU: {kind}, every {kind.interval:g} s", "%", shares, at_most=kind.most),
        single(f"CPU of a check: {kind.name}", "us", costs),
        paired(f"memory, {kind}: {WITHOUT}", "MB", with_them, WITHOUT, without),
        single(f"memory of a host: {kind.name}", "kB", [(one - other) / kind.hosts * 1e3 for one, other in memories]),
    ]


class Farm:
    """Hosts that are asked, what answers there, and daemons that have them.

    :ivar kinds: each asks so many hosts, the first ones.
    """

    def __init__(self, crew: Crew, kinds: Sequence[Kind], hosts: int) -> None:
        self.kinds = kinds
        self._crew = crew
        self._hosts = hosts
        #: behind distccd's port, asked or not
        self._tcp = AskedTcp(crew)
        self._asked: dict[str, Asked] = {}

    def plain(self) -> Server:
        """A daemon without monitors."""
        return self._crew.distbal("distbal", [self._host(number) for number in range(self._hosts)])

    def asking(self, **more: Any) -> Server:
        """A daemon that has asked each host once; raises BenchError when that found something wrong.

        :param more: what else :meth:`bench.crew.Crew.distbal` is to be told.
        """
        makers: dict[str, Callable[[], Asked]] = {
            "tcp": lambda: self._tcp,
            "ssh": lambda: AskedSsh(self._crew, self._hosts),
            "snmp": lambda: AskedSnmp(self._crew),
        }
        self._asked = {kind.name: makers[kind.name]() for kind in self.kinds}
        entries = {kind.name: {"interval": kind.interval} | self._asked[kind.name].options for kind in self.kinds}
        hosts = [
            self._host(number, [kind.name for kind in self.kinds if number >= kind.hosts]) for number in range(self._hosts)
        ]
        before = self._checks()
        server = self._crew.distbal("distbal with monitors", hosts, more=f"monitors: {json.dumps(entries)}\n", **more)
        longest, began = max(kind.interval for kind in self.kinds), time.monotonic()

        def asked_all() -> bool:
            self.check(server)
            made = self._checks()
            all_of_them = all(made[kind.name] - before[kind.name] >= kind.hosts for kind in self.kinds)
            # some are asked twice for their first answer; and the last of them get theirs
            return all_of_them and time.monotonic() > began + longest + EXTRA

        wait_until(asked_all, "every host should have been asked once", within=2 * longest + PATIENCE, pause=0.1)
        return server

    def wait_checks(self, server: Server, number: int, within: float) -> None:
        """Until so many more have come to the server of the first kind."""
        asked = self._asked[self.kinds[0].name]
        wanted = asked.checks() + number

        def made() -> bool:
            self.check(server)
            return asked.checks() >= wanted

        wait_until(made, f"{number} checks should have been made", within=within, pause=0.1)

    @staticmethod
    def check(server: Server) -> None:
        """:raises BenchError: the daemon has ended, or has found something wrong."""
        server.check()
        for line in failures(server):
            raise BenchError(f"a check failed: {line}")

    def watch(self, interval: float, *servers: Server) -> tuple[float, list[int], list[float]]:
        """For so long, do nothing; one of the daemons asks the hosts.

        :returns: the seconds, the checks of each kind that came to its server, and the CPU seconds of each daemon.
        """
        checks, began = self._checks(), time.monotonic()
        before = [server.cpu() for server in servers]
        time.sleep(interval)
        used = [server.cpu() - one for server, one in zip(servers, before, strict=True)]
        seconds, now = time.monotonic() - began, self._checks()
        made = [now[kind.name] - checks[kind.name] for kind in self.kinds]
        for kind, number in zip(self.kinds, made, strict=True):
            due = kind.hosts / kind.interval * seconds
            if number < ENOUGH * due - FEW:
                raise BenchError(f"{kind}: {number} checks came to the server in {seconds:.1f} s, where {due:.0f} were due")
        return seconds, made, used

    def give_way(self) -> None:
        """The servers run from now on only when nobody else wants their processor."""
        for one in self._asked.values():
            one.give_way()

    def stop(self) -> None:
        """End the servers; the daemons go before."""
        for one in self._asked.values():
            one.stop()
        self._tcp.stop()

    def _checks(self) -> dict[str, int]:
        return {name: one.checks() for name, one in self._asked.items()}

    def _host(self, number: int, off: Sequence[str] = ()) -> str:
        name = f"{address(number)}:{self._tcp.port}"
        if not off:
            return f"{name}/{SLOTS}"
        return json.dumps({"name": name, "slots": SLOTS, "monitors": dict.fromkeys(off, False)})


def failures(server: Server) -> list[str]:
    """What its log says of checks that did not find what they should."""
    said = (" cannot ask: ", " is down, says ", " has a bug, ")
    return [line for line in server.log.read_text(errors="replace").splitlines() if any(words in line for words in said)]


@dataclass(frozen=True)
class Figures:
    """Of one round of grants.

    :ivar grant: microseconds of CPU time for each, whatever else the daemon did meanwhile.
    :ivar less: the same, less what the checks take when there are no grants.
    :ivar median: milliseconds that half of those who came at a moderate rate did not exceed, and ``p99`` 99 of 100.
    :ivar kept: percent of that time for which the daemon, or the clients, were kept from their processor by another program.
    """

    grant: float
    less: float
    median: float
    p99: float
    kept: float


def grants_meanwhile(crew: Crew, size: Size, progress: Progress) -> Part:
    """What a grant costs, and how long it takes to come, while all hosts are asked."""
    part = Part("")
    kinds = measurable(size, part.notes)
    if not kinds:
        return replace(part, title="grants on 5656 while hosts are asked")
    part.title = f"grants on 5656 while there are {', '.join(map(str, kinds))}; beside the same daemon without monitors"
    clients = crew.generator()
    rounds: dict[bool, list[Figures]] = {True: [], False: []}
    failed: list[str] = []
    for number in range(size.monitor_rounds):
        progress(f"monitors: grants meanwhile, round {number + 1} of {size.monitor_rounds}")
        for asking in (True, False) if number % 2 else (False, True):
            rounds[asking].append(_grants(crew, clients, kinds, size, failed, asking=asking))
    crew.stop(clients)

    def values(name: str) -> tuple[list[float], list[float]]:
        with_them, without = ([getattr(one, name) for one in rounds[asking]] for asking in (True, False))
        return with_them, without

    def row(what: str, unit: str, name: str, at_most: float | None = None) -> Row:
        ours, theirs = values(name)
        return paired(f"{what}: {WITHOUT}", unit, ours, WITHOUT, theirs, at_most=at_most)

    later = [one - other for one, other in zip(*values("p99"), strict=True)]
    part.rows += [
        row(f"CPU, {AT_ONCE} at a time", "us", "grant", DEARER),
        row("the same, less the checks' own", "us", "less"),
        row(f"median wait, {RATE} a second", "ms", "median"),
        row(f"p99 of the wait, {RATE} a second", "ms", "p99"),
        single("p99, less that without monitors", "ms", later, at_most=LATER),
        single("kept from a processor by other programs", "%", values("kept")[0]),
    ]
    part.notes.append("CPU: with the checks that were made meanwhile; their own is what they take when there are no grants")
    if failed:
        part.notes.append(f"{len(failed)} checks failed meanwhile; {failed[0]}")
    return part


def _grants(crew: Crew, clients: Answering, kinds: Sequence[Kind], size: Size, failed: list[str], *, asking: bool) -> Figures:
    """A round of one daemon. It is alone on its processor: another one that asks hosts would let this one's clients wait."""
    farm = Farm(crew, kinds, round(HOSTS * size.monitored))
    server = farm.asking() if asking else farm.plain()
    own = 0.0
    if asking:
        seconds, _, (used,) = farm.watch(max(kind.interval for kind in kinds) / 3, server)
        own = used / seconds
    grants = round(GRANTS * size.monitored)
    began, before = time.monotonic(), server.cpu()
    for _ in range(LOADS):
        clients.ask(do="load", port=server.port, source=crew.source(), grants=grants, at_once=AT_ONCE)
    # the last clients' ends are known within this
    time.sleep(0.05)
    used, elapsed = server.cpu() - before, time.monotonic() - began
    farm.give_way()
    began, kept = time.monotonic(), server.waited() + clients.waited()
    clients.tell(do="pace", port=server.port, source=crew.source(), grants=size.paced, rate=RATE)
    waits = clients.answer(within=PATIENCE + size.paced / RATE)
    kept = (server.waited() + clients.waited() - kept) / (time.monotonic() - began)
    failed += failures(server)
    crew.stop(server)
    farm.stop()
    number = LOADS * grants
    return Figures(
        used / number * 1e6, (used - own * elapsed) / number * 1e6, waits["median"] * 1e3, waits["p99"] * 1e3, kept * 100
    )
