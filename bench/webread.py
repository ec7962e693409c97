"""CPU per grant and release on 5656 while the web port is read: the page's events by 20, and metrics every second."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any

from bench.crew import Crew, environment
from bench.grants import Size, listed
from bench.processes import PATIENCE, Answering, BenchError, Server
from bench.report import Part, Progress, Row, paired, single

#: pages that are open, and what they read
BROWSERS, EVENTS = 20, "/events"
#: what is scraped, and every how many seconds
METRICS, EVERY = "/metrics", 1.0
#: of the scrapes that a time should have, the share that must have come
ENOUGH = 0.7
#: hosts, and slots of each; clients at a time; grants by one address, which has so many ports; clients a second where they wait
HOSTS, SLOTS, AT_ONCE, GRANTS, RATE = 100, 4, 50, 20_000, 500
#: what a grant may cost meanwhile, as a share of what it costs while nobody reads
DEARER = 1.1
#: seconds in which it is seen what reading takes by itself
ALONE = 3.0

WITHOUT = "nobody reads"


@dataclass(frozen=True)
class Figures:
    """Of one round.

    :ivar grant: microseconds of CPU time for each, with all else that the daemon did meanwhile.
    :ivar p99: milliseconds that 99 of 100 at a moderate rate did not wait longer for.
    :ivar alone: percent of a processor that the daemon took while there were no grants.
    """

    grant: float
    p99: float
    alone: float


def while_read(crew: Crew, size: Size, progress: Progress) -> Part:
    """With readers and without, in turns, of one daemon."""
    part = Part(
        f"CPU per grant and release on 5656, {HOSTS} hosts of {SLOTS} slots, with the page open in {BROWSERS} browsers and"
        " metrics scraped every second"
    )
    server = crew.distbal("distbal", listed(HOSTS, SLOTS))
    if not server.answers(server.port + 3):
        crew.stop(server)
        part.notes.append("this daemon has no web port: nothing is measured")
        return part
    clients = crew.generator()
    command = [sys.executable, "-m", "bench.browsers"]
    browsers = Answering(
        "the readers of the web port", command, core=crew.load_core, log=crew.directory / "browsers.log", env=environment()
    )
    crew.add(browsers)
    rounds: dict[bool, list[Figures]] = {True: [], False: []}
    slowest = 0.0
    for number in range(size.read_rounds + 1):
        progress("web: to warm up" if not number else f"web: round {number} of {size.read_rounds}")
        for reading in (True, False) if number % 2 else (False, True):
            began = time.monotonic()
            if reading:
                _open(browsers, server, part)
            figures = _round(crew, clients, server, size if number else None)
            if reading:
                slowest = max(slowest, _close(browsers, part, time.monotonic() - began))
            if number:
                rounds[reading].append(figures)
    crew.stop(browsers, clients, server)

    def row(what: str, unit: str, name: str, at_most: float | None = None) -> Row:
        ours, theirs = ([getattr(one, name) for one in rounds[reading]] for reading in (True, False))
        return paired(f"{what}: {WITHOUT}", unit, ours, WITHOUT, theirs, at_most=at_most)

    part.rows += [
        row(f"{AT_ONCE} at a time", "us", "grant", DEARER),
        row(f"p99 of the wait, {RATE} a second", "ms", "p99"),
        single("CPU of the reading alone, without grants", "%", [one.alone for one in rounds[True]]),
    ]
    part.notes.append(f"the slowest scrape took {slowest * 1e3:.0f} ms from connect to close")
    return part


def _open(browsers: Answering, server: Server, part: Part) -> None:
    port = server.port + 3
    answer = browsers.ask(do="open", port=port, events=EVENTS, count=BROWSERS, metrics=METRICS, every=EVERY)
    if answer["metrics"] != 200:
        raise BenchError(f"{METRICS} answered with status {answer['metrics']}, not 200 (pip install prometheus-client?)")
    if answer["status"] == 404:
        note = f"there is no {EVENTS}: metrics alone were read"
        part.notes += [] if note in part.notes else [note]
    elif answer["status"] != 200:
        raise BenchError(f"{EVENTS} answered with status {answer['status']}, not 200")


def _close(browsers: Answering, part: Part, seconds: float) -> float:
    """The readers leave; raises BenchError where they read less than they should have. The seconds of the slowest scrape."""
    answer: dict[str, Any] = browsers.ask(do="close")
    due = seconds / EVERY
    if answer["scrapes"] < ENOUGH * due - 1:
        raise BenchError(f"{answer['scrapes']} scrapes were whole in {seconds:.1f} s, where {due:.0f} were due")
    # events come once a second: the round to warm up is too short to wait for them
    if seconds > 3 * EVERY and not answer["least"] and not any(EVENTS in note for note in part.notes):
        raise BenchError(f"a browser heard nothing of {EVENTS} in {seconds:.1f} s")
    slowest: float = answer["slowest"]
    return slowest


def _round(crew: Crew, clients: Answering, server: Server, size: Size | None) -> Figures:
    """All figures once.

    :param size: None for a short one, to warm up.
    """
    began, before = time.monotonic(), server.cpu()
    time.sleep(ALONE if size else 0.1)
    alone = (server.cpu() - before) / (time.monotonic() - began)
    grants = size.read_grants if size else GRANTS // 10
    before = server.cpu()
    for done in range(0, grants, GRANTS):
        number = min(GRANTS, grants - done)
        clients.ask(do="load", port=server.port, source=crew.source(), grants=number, at_once=AT_ONCE)
    # the last clients' ends are known within this
    time.sleep(0.05)
    used = server.cpu() - before
    paced = size.paced if size else 100
    clients.tell(do="pace", port=server.port, source=crew.source(), grants=paced, rate=RATE)
    waits = clients.answer(within=PATIENCE + paced / RATE)
    return Figures(used / grants * 1e6, waits["p99"] * 1e3, alone * 100)
