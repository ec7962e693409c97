"""CPU per job that is carried from its client to the server behind: distbal's proxy beside other relays.

A round is so many clients, some at any time, each of which connects, sends its job, reads the answer and leaves. What is
counted is the CPU time of the relay's process, from before the first to when it has closed the last. The relays take turns, and
every second round in the opposite order, so that what else the machine does meets all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.crew import Crew
from bench.grants import ROOM, Size
from bench.processes import Answering
from bench.relays import AUTO, FORWARD, TUNED, Backend, Relay, clients, distbal, start
from bench.report import Part, Progress, Row, paired, single

#: seconds in which a round is over, or never will be
PATIENCE = 300.0


@dataclass(frozen=True)
class Load:
    """Jobs of one kind.

    :ivar up: bytes of a job; ``down``: of its answer.
    :ivar from_file: whether they are sent as distcc sends files (sendfile), or as it sends what it has compressed itself.
    :ivar at_once: sessions at any time.
    :ivar jobs: how many make a round.
    :ivar most: the most that a job may cost, as a share of what it costs a peer.
    """

    name: str
    up: int
    down: int
    at_once: int
    jobs: int
    most: dict[str, float] = field(default_factory=dict)
    from_file: bool = False

    def __str__(self) -> str:
        return f"{self.name}, {self.at_once} at a time"

    def words(self, jobs: int) -> dict[str, int]:
        """For the clients."""
        return {"jobs": jobs, "at_once": self.at_once, "up": self.up, "down": self.down, "from_file": self.from_file}


COMPILE = Load("300 kB up, 60 kB down, from files", 300_000, 60_000, 20, 2000, {AUTO: 0.85, TUNED: 1.1}, from_file=True)
SMALL = Load("1 kB each way", 1000, 1000, 20, 3000, {TUNED: 1.5})
LARGE = Load("50 MB up, from a file", 50_000_000, 1000, 4, 40, {TUNED: 1.1}, from_file=True)
LOADS = {
    "compile": COMPILE,
    "compile-memory": replace(COMPILE, name="300 kB up, 60 kB down, from memory", from_file=False),
    "small": SMALL,
    "large": LARGE,
    "large-memory": replace(LARGE, name="50 MB up, from memory", from_file=False),
}

BUSY = Load("1 kB each way", 1000, 1000, 1, 1500)
#: sessions that are held beside it
IDLE = 500


@dataclass(frozen=True)
class Figures:
    """Of one round.

    :ivar cost: seconds of CPU time that a job took.
    :ivar rate: jobs a second.
    :ivar slow: seconds that 99 of 100 jobs did not exceed.
    """

    cost: float
    rate: float
    slow: float


def send(
    crew: Crew, sender: Answering, relay: Relay, load: Load, jobs: int, *, beside: Sequence[Load] = (), within: float = PATIENCE
) -> dict[str, float]:
    """Let so many jobs go by way of it; what jobs.py says of them.

    :param beside: other loads, under way meanwhile.
    """
    words, *others = [
        {"port": relay.port, "source": crew.source(), **one.words(number)}
        for one, number in ((load, jobs), *((one, one.jobs) for one in beside))
    ]
    sender.tell(do="load", **words, beside=others)
    return sender.answer(within=within)


def in_turns(
    crew: Crew, sender: Answering, relays: Sequence[Relay], load: Load, size: Size, held: Sequence[int] = ()
) -> list[list[Figures]]:
    """For each relay, the figures of every round.

    :param held: for each relay, how many sessions stay meanwhile; none when it is empty.
    """
    jobs = max(load.at_once, round(load.jobs * size.proxied))
    rounds: list[list[Figures]] = [[] for _ in relays]
    for number in range(size.proxy_rounds + 1):
        for place in sorted(range(len(relays)), reverse=number % 2 == 0):
            relay = relays[place]
            before = relay.server.cpu()
            done = send(crew, sender, relay, load, jobs)
            relay.wait_sessions(held[place] if held else 0)
            if number:
                cost = (relay.server.cpu() - before) / jobs
                rounds[place].append(Figures(cost, jobs / done["seconds"], done["p99"]))
    return rounds


def rows(load: Load, relays: Sequence[Relay], rounds: Sequence[Sequence[Figures]]) -> Iterator[Row]:
    """What a job costs, how many there are a second, and how long the slow ones take: beside each of the others."""
    unit, scale = ("ms", 1e3) if load.up > 1_000_000 else ("us", 1e6)
    measures: dict[str, tuple[str, list[list[float]]]] = {
        "CPU": (unit, [[figures.cost * scale for figures in each] for each in rounds]),
        "jobs a second": ("/s", [[figures.rate for figures in each] for each in rounds]),
        "p99": ("ms", [[figures.slow * 1e3 for figures in each] for each in rounds]),
    }
    for measure, (of, (ours, *others)) in measures.items():
        for relay, theirs in zip(relays[1:], others, strict=True):
            most = load.most.get(relay.name) if measure == "CPU" else None
            yield paired(f"{measure}: {relay.name}", of, ours, relay.name, theirs, at_most=most)
        if not others:
            yield single(measure, of, ours)


def relayed(load: Load, against: Path | None, crew: Crew, size: Size, progress: Progress) -> Part:
    """One load, by every relay.

    :param against: another checkout of distbal, to be measured beside this one.
    """
    part = Part(f"CPU per job by way of the proxy: {load}")
    backend = Backend(crew)
    relays = start(crew, backend.port, (AUTO, TUNED, FORWARD), part.notes, against)
    sender = clients(crew)
    progress(f"proxy: {load}")
    part.rows += rows(load, relays, in_turns(crew, sender, relays, load, size))
    crew.stop(sender, *(relay.server for relay in relays), backend)
    return part


def beside_idle(against: Path | None, crew: Crew, size: Size, progress: Progress) -> Part:
    """One busy session after the other, and many that are held and do nothing; beside distbal without those, too.

    :param against: another checkout of distbal, to be measured as well.
    """
    part = Part(f"CPU per job by way of the proxy, beside {IDLE} idle sessions: {BUSY}")
    if crew.limit < 6 * IDLE + ROOM:
        part.notes.append(f"not measured: a process here may open no more than {crew.limit:,} descriptors")
        return part
    backend = Backend(crew)
    alone = distbal(crew, backend.port, "distbal, none idle")
    relays = start(crew, backend.port, (AUTO, TUNED, FORWARD), part.notes, against)
    holder, sender = clients(crew), clients(crew)
    progress(f"proxy-idle: {IDLE} sessions in each")
    for number, relay in enumerate(relays, 1):
        holder.ask(do="hold", port=relay.port, source=crew.source(), count=IDLE)
        relay.wait_sessions(IDLE)
        backend.wait_sessions(number * IDLE)
    relays.insert(1, alone)
    held = [0 if relay is alone else IDLE for relay in relays]
    part.rows += rows(BUSY, relays, in_turns(crew, sender, relays, BUSY, size, held))
    crew.stop(holder, sender, *(relay.server for relay in relays), backend)
    return part
