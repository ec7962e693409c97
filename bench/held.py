"""Many clients held at once: what each costs in memory, how long they take to leave, and how long the loop stands still then.

Half of them have leases, and the others wait. Each round starts a fresh daemon, so that memory is what these clients cost and
not what earlier ones left behind. The stall is measured by the probe of lagged.py, which sleeps during everything else.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from bench.crew import Crew
from bench.grants import Size, listed
from bench.processes import Answering, Lagged
from bench.report import Part, Progress, single

#: what is asked for; a hard limit on descriptors may allow less
WANTED = 20_000
#: share of that limit which clients may take: 18,000 of 20,000
SHARE = 0.9
#: generators: half of them hold leases, the others wait
GENERATORS = 4
#: hosts, each with as many slots as it takes
HOSTS = 100
#: clients that connect before the daemon's progress is waited for, well below its backlog
STEP = 1000
#: seconds that the probe watches a loop with nothing to do, to know what the machine does to it
CONTROL = 0.3

#: milliseconds that the loop may stand still
STALL = 20

#: with fewer clients, what start-up left free holds most of them, and their memory is no figure to judge by
ENOUGH = 5000

LEAVING, OWN = "longest stall while half leave", "the same, less waits for a processor"


def affordable(limit: int) -> int:
    """How many clients can be held under a limit on descriptors."""
    return max(1, min(WANTED, int(limit * SHARE)) // (2 * HOSTS)) * 2 * HOSTS


def fill(crew: Crew, server: Lagged, generators: Sequence[Answering], count: int) -> None:
    """Connect ``count`` clients, the first half of the generators those that get leases."""
    share = count // len(generators)
    connected = 0
    for number, generator in enumerate(generators):
        source = crew.source()
        for done in range(0, share, STEP):
            step = min(STEP, share - done)
            generator.ask(do="hold", port=server.port, source=source, count=step, granted=number < len(generators) // 2)
            connected += step
            server.wait_clients(connected)


def one_round(crew: Crew, generators: Sequence[Answering], count: int) -> dict[str, float]:
    """Everything once, with a fresh daemon."""
    server = crew.lagged("distbal", listed(HOSTS, count // 2 // HOSTS))
    # the first clients make it import and build what it needs for any
    generators[0].ask(do="load", port=server.port, source=crew.source(), grants=200, at_once=20)
    server.wait_clients(0)
    server.settle()
    before = server.memory()
    fill(crew, server, generators, count)
    values = {"memory a held client": (server.memory() - before) / count}

    values["all leave at once"] = leave(server, generators, 0)

    fill(crew, server, generators, count)
    server.settle()
    server.ask(do="start")
    time.sleep(CONTROL)
    values["longest stall while nobody leaves"] = server.ask(do="stop")["late"]
    holders, waiters = generators[: len(generators) // 2], generators[len(generators) // 2 :]
    server.ask(do="start")
    values["half leave, and the others get their slots"] = leave(server, holders, count // 2, waiters)
    stalled = server.ask(do="stop")
    values[LEAVING], values[OWN] = stalled["late"], stalled["own"]
    leave(server, waiters, 0)
    crew.stop(server)
    return values


def leave(server: Lagged, leaving: Sequence[Answering], left: int, served: Sequence[Answering] = ()) -> float:
    """Let clients leave at once; seconds until the daemon has closed them all.

    :param left: how many clients are left.
    :param served: generators whose waiting clients then all get their grants; that is waited for, too.
    """
    began = time.monotonic()
    for generator in leaving:
        generator.tell(do="drop")
    server.wait_clients(left)
    for generator in served:
        generator.tell(do="read")
    for generator in (*leaving, *served):
        generator.answer()
    return time.monotonic() - began


def many_clients(crew: Crew, size: Size, progress: Progress) -> Part:
    """The rounds, and their rows."""
    count = min(size.held, affordable(crew.limit))
    part = Part(f"{count:,} clients held at once: {count // 2:,} leases, {count // 2:,} waiting")
    if count < min(size.held, WANTED):
        part.notes.append(f"{count:,} for {WANTED:,}: a process here may open no more than {crew.limit:,} descriptors")
    generators = [crew.generator() for _ in range(GENERATORS)]
    rounds = []
    for number in range(size.held_rounds):
        progress(f"held: {count:,} clients, round {number + 1} of {size.held_rounds}")
        rounds.append(one_round(crew, generators, count))
    crew.stop(*generators)

    def values(name: str, scale: float) -> list[float]:
        return [one[name] * scale for one in rounds]

    part.rows += [
        single("memory a held client", "bytes", values("memory a held client", 1), at_most=2048 if count >= ENOUGH else None),
        single("all leave at once", "ms", values("all leave at once", 1e3)),
        single(name := "half leave, and the others get their slots", "ms", values(name, 1e3)),
        single(LEAVING, "ms", values(LEAVING, 1e3), at_most=STALL),
        single(OWN, "ms", values(OWN, 1e3), at_most=STALL),
        single(name := "longest stall while nobody leaves", "ms", values(name, 1e3)),
    ]
    part.notes.append(
        "who leaves: all that hold a lease, so that every other client gets one meanwhile; a wait for a processor is another"
        " program's doing: on a quiet machine there is none"
    )
    return part
