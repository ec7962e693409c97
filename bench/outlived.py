"""What it costs that no job is lost with the daemon: CPU per grant with a keeper, and how long clients wait meanwhile.

The pause is what a client sees that comes in the middle of it: while many clients are held, half with leases and half
waiting, others come to a pool of their own at a steady pace, each of which would be served at once. The longest time that one
of them took from its connect to its grant is the pause; none may be refused, nor, at an upgrade, see a close. At a kill those
may who were accepted in that very turn of the daemon's loop: they are counted.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.crew import Crew, environment, hosts_yaml
from bench.grants import Size, in_turns, listed
from bench.processes import Answering, BenchError, Server, wait_until
from bench.report import Part, Progress, paired, single

#: what a grant may cost with a keeper, beside one without
KEPT = 1.6
#: milliseconds that clients may be kept waiting
UPGRADE, KILL = 500, 1500
#: clients that are held meanwhile, and the pace of those that come, in clients a second
HELD, PACE = 2000, 200
#: seconds that these come before and after
BEFORE, LONGEST = 0.3, 20.0


class Kept(Server):
    """A daemon with its keeper, whose process this is.

    :ivar brief: where a pool of its own is lent, of which nobody has to wait for a slot.
    """

    brief = 0

    def said(self, what: str) -> bool:
        """Whether that stands in the daemon's log."""
        return what in self.log.read_text(errors="replace")

    def daemon(self) -> int:
        """The daemon's process."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        if len(children) != 1:
            raise BenchError(f"{self.name} has {len(children)} children")
        return int(children[0])

    def cpu(self) -> float:
        """Of both together."""
        return super().cpu() + time.clock_gettime_ns((~self.daemon() << 3) | 2) / 1e9

    def descriptors(self) -> int:
        """Of both: none is left behind."""
        return super().descriptors() + len(list(Path(f"/proc/{self.daemon()}/fd").iterdir()))

    def wait_clients(self, number: int) -> None:
        """Until so many are connected, and both know."""
        self.wait_descriptors(self.idle + 2 * number)


def kept(crew: Crew, hosts: Sequence[str]) -> Kept:
    """``distbal supervise``, up and answering; its hosts, and one for the pool of its own."""
    base, brief = crew.port(), crew.port()
    directory = crew.fresh_directory()
    log, config = directory / "log", directory / "hosts.yaml"
    text = hosts_yaml([*hosts, '{name: "127.9.99.1:3632", slots: 1000, pools: [brief]}'], base)
    config.write_text(text.replace(f"balance: {base}", f"balance: [{base}, {{at: {brief}, pool: brief}}]"))
    command = [sys.executable, "-m", "distbal", "supervise", "-c", str(config), "--", f"--logfile={log}"]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    server = crew.add(Kept("distbal with a keeper", base, command, core=crew.server_core, log=log, env=environment(), **quiet))
    server.brief = brief
    wait_until(lambda: server.answers(brief), f"{server.name} should answer on port {base}", pause=0.02)
    server.settle()
    server.idle = server.descriptors()
    return server


def with_a_keeper(crew: Crew, size: Size, progress: Progress) -> Part:
    """CPU per grant and release, the keeper's counted in."""
    part = Part("CPU per grant and release on 5656 under distbal supervise, the keeper's own counted in")
    hosts = listed(100, 4)
    clients = crew.generator()
    servers: list[Server] = [kept(crew, hosts), crew.distbal("distbal", hosts)]
    for at_once in (1, 50):
        progress(f"kept: grants, {at_once} at a time")
        ours, alone = in_turns(crew, clients, servers, size, at_once=at_once)
        target = KEPT if at_once == 50 else None
        part.rows.append(paired(f"{at_once} at a time, 100 hosts of 4 slots", "us", ours, "no keeper", alone, at_most=target))
    crew.stop(clients, *servers)
    return part


def pauses(crew: Crew, size: Size, progress: Progress) -> Part:
    """What clients see of an upgrade, and of a kill -9."""
    count = min(HELD, size.held) // 2
    part = Part(f"the longest that a client waited which came meanwhile, with {2 * count:,} clients held")
    generators = [crew.generator() for _ in range(3)]
    rounds: dict[str, list[float]] = {"an upgrade in place": [], "a kill -9 of the daemon": []}
    closed = 0
    for number in range(size.held_rounds):
        progress(f"kept: pauses, round {number + 1} of {size.held_rounds}")
        for what, values in rounds.items():
            server = kept(crew, [f"127.9.1.1:3632/{count}"])
            upgrade = what.startswith("an upgrade")
            seconds, untold = pause(crew, server, generators, count, upgrade=upgrade)
            if upgrade and untold:
                raise BenchError(f"{untold} clients that came saw a close at an upgrade")
            values.append(1e3 * seconds)
            closed += untold
            crew.stop(server)
    crew.stop(*generators)
    for (what, values), most in zip(rounds.items(), (UPGRADE, KILL), strict=True):
        part.rows.append(single(what, "ms", values, at_most=most))
    part.notes.append("half of those held have leases, the others wait; none of them saw a close, and nobody was refused")
    part.notes.append(f"of those who came, {closed} were closed untold in {size.held_rounds} kills: accepted in that very turn")
    return part


def pause(crew: Crew, server: Kept, generators: list[Answering], count: int, *, upgrade: bool) -> tuple[float, int]:
    """Once; seconds, and how many of those who came were closed without a word."""
    leased, waiting, coming = generators
    leased.ask(do="hold", port=server.port, source=crew.source(), count=count, granted=True)
    waiting.ask(do="hold", port=server.port, source=crew.source(), count=count, granted=False)
    server.wait_clients(2 * count)
    before = server.daemon()
    coming.tell(do="come", port=server.brief, source=crew.source(), rate=PACE)
    time.sleep(BEFORE)
    os.kill(before, signal.SIGUSR2 if upgrade else signal.SIGKILL)
    wait_until(lambda: server.said("taken up: "), "the new code should have taken the clients up", within=LONGEST, pause=0.02)
    time.sleep(BEFORE)
    coming.tell(do="enough")
    came = coming.answer()
    coming.answer()
    # all are there still: the leases end, and each waiter gets one
    leased.ask(do="drop")
    waiting.ask(do="read")
    waiting.ask(do="drop")
    return float(came["longest"]), int(came["closed"])
