"""CPU per grant-and-release on 5656: beside the Tcl original, and from 10 hosts to 10,000.

A round is so many clients, one after the other or several at any time, each of which connects, reads its grant and leaves. What
is counted is the CPU time of the daemon's process, from before the first to when it has closed the last. The peers take turns,
and every second round in the opposite order, so that what else the machine does meets all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.crew import Crew, original
from bench.processes import Answering, Server
from bench.report import Part, Progress, paired, single

#: how many connections at a time, and the most that a grant may cost, as a share of the original's
AT_ONCE = {1: 0.9, 50: 0.65, 300: 0.65}
#: what 10,000 hosts may cost beyond 10
FLAT = 1.15
#: clients at a time where farms of different sizes are compared: no more than the smallest has hosts of one slot
FEW = 8
#: descriptors that a daemon or a generator needs beside those of the clients that stay
ROOM = 200

ORIGINAL, AGAINST = "Tcl original", "other checkout"


@dataclass(frozen=True)
class Size:
    """How much is measured.

    :ivar rounds: how often the CPU time of ``grants`` grants is measured; one round more goes before, to warm up.
    :ivar farms: numbers of hosts, ascending.
    :ivar held: the most clients to hold at once, ``held_rounds`` times.
    :ivar wraps: runs of each command in a round, of which there are ``wrap_rounds``.
    :ivar builds: jobs of a build, which each way makes ``build_rounds`` times.
    :ivar proxied: what share of a load's jobs goes by way of each relay in a round, of which there are ``proxy_rounds``.
    :ivar monitored: what share of the hosts is asked by monitors, and of the seconds between two checks of each; for
        ``monitor_rounds`` intervals, and then in so many rounds of grants, with ``paced`` clients at a moderate rate in each.
    :ivar read_rounds: rounds of ``read_grants`` grants, and of ``paced`` ones, with the web port read and without.
    """

    rounds: int
    grants: int
    farms: tuple[int, ...]
    held: int
    held_rounds: int
    wraps: int
    wrap_rounds: int
    builds: int
    build_rounds: int
    proxied: float
    proxy_rounds: int
    monitored: float
    monitor_rounds: int
    paced: int
    read_rounds: int
    read_grants: int


def listed(count: int, slots: int) -> list[str]:
    """Hosts with names of their own, on loopback addresses, where nobody listens."""
    return [f"127.9.{number // 250}.{1 + number % 250}:3632/{slots}" for number in range(count)]


def in_turns(
    crew: Crew, clients: Answering, servers: Sequence[Server], size: Size, *, at_once: int, held: Sequence[int] = ()
) -> list[list[float]]:
    """Microseconds of CPU per grant and release: for each server, one value a round.

    :param held: for each server, how many clients stay connected meanwhile; none when it is empty.
    """
    values: list[list[float]] = [[] for _ in servers]
    for number in range(size.rounds + 1):
        for place in sorted(range(len(servers)), reverse=number % 2 == 0):
            server = servers[place]
            before = server.cpu()
            clients.ask(do="load", port=server.port, source=crew.source(), grants=size.grants, at_once=at_once)
            server.wait_clients(held[place] if held else 0)
            if number:
                values[place].append((server.cpu() - before) / size.grants * 1e6)
    return values


def beside_the_original(crew: Crew, size: Size, progress: Progress, against: Path | None) -> Part:
    """At 1, 50 and 300 connections at a time.

    :param against: another checkout of distbal, to be measured beside this one.
    """
    part = Part("CPU per grant and release on 5656, N connections at a time")
    directory = original()
    if directory is None:
        part.notes.append("no tclsh, or no run-original in $DISTBAL_ORIGINAL or ../shared/original: nothing to stand beside")
    clients = crew.generator()
    for count, slots in ((10, 40), (100, 4)):
        hosts = listed(count, slots)
        servers = {"distbal": crew.distbal("distbal", hosts)}
        if directory is not None:
            servers[ORIGINAL] = crew.tcl("the Tcl original", directory, hosts)
        if against is not None:
            servers[AGAINST] = crew.distbal(f"distbal in {against}", hosts, root=against)
        for at_once, most in AT_ONCE.items():
            progress(f"grants: {count} hosts of {slots} slots, {at_once} at a time")
            ours, *others = in_turns(crew, clients, list(servers.values()), size, at_once=at_once)
            what = f"{at_once} at a time, {count} hosts of {slots} slots"
            for name, theirs in zip(list(servers)[1:], others, strict=True):
                limit = most if name == ORIGINAL else None
                part.rows.append(paired(f"{what}: {name}", "us", ours, name, theirs, at_most=limit))
            if not others:
                part.rows.append(single(what, "us", ours))
        crew.stop(*servers.values())
    crew.stop(clients)
    return part


def by_hosts(crew: Crew, size: Size, progress: Progress) -> Part:
    """At 10, 1,000 and 10,000 hosts: idle, and with every slot lent but those of the last host."""
    part = Part(f"CPU per grant and release by the number of hosts, {FEW} connections at a time; beside the smallest farm")
    servers: list[Server] = []
    clients = crew.generator()
    for count in size.farms:
        progress(f"hosts: starting with {count:,}")
        *all_but_last, last = listed(count, 1)
        servers.append(crew.distbal(f"distbal with {count} hosts", [*all_but_last, last.removesuffix("/1") + f"/{2 * FEW}"]))
    for state in ("idle", "busy"):
        held: list[int] = []
        holders: list[Answering] = []
        if state == "busy":
            if crew.limit < size.farms[-1] + ROOM:
                part.notes.append(f"busy: not measured, a process here may open no more than {crew.limit:,} descriptors")
                break
            held = [count - 1 for count in size.farms]
            for server, number in zip(servers, held, strict=True):
                holders.append(crew.generator())
                holders[-1].ask(do="hold", port=server.port, source=crew.source(), count=number, granted=True)
                server.wait_clients(number)
        progress(f"hosts: {state}")
        smallest, *larger = in_turns(crew, clients, servers, size, at_once=FEW, held=held)
        least = f"{size.farms[0]} hosts"
        for count, values in zip(size.farms[1:], larger, strict=True):
            what = f"{state}, {count:,} hosts: {least}"
            part.rows.append(paired(what, "us", values, least, smallest, at_most=FLAT))
        crew.stop(*holders)
    crew.stop(clients, *servers)
    part.notes.append("hosts of one slot, each of a rank of its own; busy: every slot is lent but those of the last host")
    return part
