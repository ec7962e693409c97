"""How long small jobs take by way of a relay that is busy with large ones, beside how long they take alone.

A round of one relay is the small jobs alone, and the same again while large ones are under way in both directions. All clients
and the backend are one process here, which gives each session a share in turn: so what a small job waits for is the relay.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from bench.crew import Crew
from bench.grants import Size
from bench.processes import Answering
from bench.proxying import Load, send
from bench.relays import AUTO, TUNED, Relay, clients, start
from bench.report import Part, Progress, paired, single

LITTLE = Load("5 kB jobs", 5000, 5000, 4, 400)
#: bytes of a large job
LARGE = 1_000_000_000
#: milliseconds by which small jobs may be slower beside them
WORSE = 10


@dataclass(frozen=True)
class Figures:
    """Of one round.

    :ivar alone: milliseconds that 99 of 100 small jobs did not exceed; ``beside``: the same beside the large ones.
    :ivar rate: gigabytes a second that these moved.
    :ivar kept: percent of the time for which the relay, or all clients, were kept from their processor by another program.
    """

    alone: float
    beside: float
    rate: float
    kept: float


MEASURES: tuple[tuple[str, str, Callable[[Figures], float]], ...] = (
    ("p99 alone", "ms", attrgetter("alone")),
    ("p99 beside", "ms", attrgetter("beside")),
    ("the transfers", "GB/s", attrgetter("rate")),
)


def one_round(crew: Crew, sender: Answering, relay: Relay, share: float) -> Figures:
    """A round of one relay.

    :param share: of the jobs, and of the bytes of the large ones.
    """
    jobs, size = round(LITTLE.jobs * share), round(LARGE * share)
    # more than there is time for: as one ends the next one comes, as long as there are small ones
    transfers = (Load("up", size, 1000, 2, 1000, from_file=True), Load("down", 1000, size, 2, 1000, from_file=True))
    alone = send(crew, sender, relay, LITTLE, jobs)
    relay.wait_sessions(0)
    began, before = time.monotonic(), sender.waited() + relay.server.waited()
    beside = send(crew, sender, relay, LITTLE, jobs, beside=transfers)
    kept = (sender.waited() + relay.server.waited() - before) / (time.monotonic() - began)
    relay.wait_sessions(0)
    return Figures(alone["p99"] * 1e3, beside["p99"] * 1e3, beside["moved"] / 1e9, kept * 100)


def beside_transfers(against: Path | None, crew: Crew, size: Size, progress: Progress) -> Part:
    """The rounds, and their rows.

    :param against: another checkout of distbal, to be measured beside this one.
    """
    transfers = f"four transfers of {LARGE * size.proxied / 1e9:g} GB, two each way"
    part = Part(f"5 kB jobs by way of the proxy, {LITTLE.at_once} at a time, alone and beside {transfers}")
    sender = clients(crew)
    relays = start(crew, sender.ask(do="serve")["port"], (AUTO, TUNED), part.notes, against)
    rounds: list[list[Figures]] = [[] for _ in relays]
    for number in range(size.proxy_rounds + 1):
        progress(f"proxy-fair: round {number} of {size.proxy_rounds}")
        for place in sorted(range(len(relays)), reverse=number % 2 == 0):
            figures = one_round(crew, sender, relays[place], size.proxied)
            if number:
                rounds[place].append(figures)
    crew.stop(*(relay.server for relay in relays), sender)
    part.rows.append(single("p99 beside, less p99 alone", "ms", [one.beside - one.alone for one in rounds[0]], at_most=WORSE))
    for what, unit, value in MEASURES:
        ours, *others = [[value(one) for one in each] for each in rounds]
        for relay, beside in zip(relays[1:], others, strict=True):
            part.rows.append(paired(f"{what}: {relay.name}", unit, ours, relay.name, beside))
        if not others:
            part.rows.append(single(what, unit, ours))
    part.rows.append(single("kept from a processor by other programs", "%", [one.kept for one in rounds[0]]))
    for relay, theirs in zip(relays[1:], rounds[1:], strict=True):
        worse = statistics.median(one.beside - one.alone for one in theirs)
        part.notes.append(f"{relay.name}: p99 beside, less p99 alone: {worse:.2f} ms")
    return part
