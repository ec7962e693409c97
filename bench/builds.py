"""How long real builds take over three servers of unequal speed, by who says which job goes where.

A round is the same build once by each way, with everything real but the compiler, which sleeps (distccd.py). Each build is one
of its own: other sources, and a DISTCC_DIR that nobody has used, so that a way finds nothing which another has left. It counts
only when, by the logs of the servers themselves, every source was compiled by one of them, once.
"""

from __future__ import annotations

import os
import select
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import distccd
from bench.crew import ROOT, Crew, original
from bench.distccd import Kind
from bench.grants import Size
from bench.processes import BenchError, Family
from bench.report import Part, Progress, Row, paired
from bench.wrapper import bal_wrap, compiled

#: the servers, fastest first
KINDS = (Kind(8, 0.15), Kind(4, 0.4), Kind(4, 1.2))
#: who builds at once: the -j of each make. Every make is a builder of its own, with locks that no other one sees
BUILDERS = {"one make -j24": (24,), "two make -j12": (12, 12)}
#: sources by which every way is tried before anything is measured
TRIED = 2
#: seconds after which a build is stuck
STUCK = 120.0
#: seconds within which servers write of a job whose object the client has already
LATE = 5.0

PROXY, ASSIGN = "distbal's proxy", "5656 and distbal-wrap"
LIST, RANDOM = "distcc's own list", "the list and --randomize"
TCL = "Tcl original and bal-wrap"
PROGRAMS = ("make", "distcc", "distccd", "cc")

# the sources are preprocessed already: that is work for the builder's own machine, whoever has the job
MAKEFILE = """\
all: $(patsubst %.i,%.o,$(wildcard *.i))
%.o: %.i ; $(CC) -c $< -o $@
"""


@dataclass(frozen=True)
class Way:
    """One way from make to the servers.

    :ivar launcher: what make calls to compile, before the compiler's name.
    :ivar environment: what it is told.
    """

    name: str
    launcher: str
    environment: dict[str, str]


@dataclass(frozen=True)
class Build:
    """One that went well.

    :ivar seconds: from the start of the first make to the end of the last.
    :ivar shares: how many jobs each server had.
    """

    seconds: float
    shares: tuple[int, ...]


class Site:
    """Where it is built: the servers, and one directory after the other."""

    def __init__(self, crew: Crew, compiler: str) -> None:
        self._crew = crew
        self.servers, ready = distccd.start(crew, KINDS, compiler)
        self._ready = ready.read_bytes()
        self._builds = 0

    def hosts(self) -> list[str]:
        """The servers as they stand in a list, with their slots."""
        return [f"{server.name}/{server.kind.slots}" for server in self.servers]

    def build(self, way: Way, builders: Sequence[int], jobs: int) -> Build:
        """Build by one way.

        :param builders: the -j of each make.
        :param jobs: how many sources there are for all of them.
        :raises BenchError: make failed, or a job was not compiled as it should be.
        """
        self._builds += 1
        directory = self._crew.directory / f"build-{self._builds}"
        sites = [directory / f"{number}" for number in range(len(builders))]
        sources = [f"{self._builds}_{number}.i" for number in range(jobs)]
        for place, site in enumerate(sites):
            site.mkdir(parents=True)
            (site / "Makefile").write_text(MAKEFILE)
            for source in sources[place :: len(sites)]:
                (site / source).write_text("int one(void) { return 1; }\n")
        logs = [server.written() for server in self.servers]
        began = time.monotonic()
        makes = [self._make(way, site, parallel) for site, parallel in zip(sites, builders, strict=True)]
        _ended(makes, way)
        seconds = time.monotonic() - began
        self._crew.stop(*makes)
        self._see(way, directory, sources, logs)
        shares = tuple(len(server.compiled(log)) for server, log in zip(self.servers, logs, strict=True))
        shutil.rmtree(directory)
        return Build(seconds, shares)

    def _make(self, way: Way, site: Path, parallel: int) -> Family:
        state = site / "distcc"
        state.mkdir()
        told = {
            "PATH": os.environ["PATH"],
            "LC_ALL": "C",
            "HOME": str(site),
            "TMPDIR": str(self._crew.directory / "tmp"),
            "DISTCC_DIR": str(state),
            # no quiet way out: where there is no server for it, a compile fails
            "DISTCC_FALLBACK": "0",
            "DISTBAL_FALLBACK": "fail",
        }
        command = ["make", "-r", "-s", "-C", str(site), f"-j{parallel}", f"CC={way.launcher} gcc"]
        log = site / "log"
        with log.open("ab") as said:
            return self._crew.add(Family("make", command, core=None, log=log, env=told | way.environment, stdout=said))

    def _see(self, way: Way, directory: Path, sources: Sequence[str], logs: Sequence[int]) -> None:
        """That the servers compiled each source once, and that their objects came."""
        end = time.monotonic() + LATE
        while True:
            counts = Counter(source for server, log in zip(self.servers, logs, strict=True) for source in server.compiled(log))
            if counts.total() >= len(sources) or time.monotonic() > end:
                break
            time.sleep(0.02)
        if counts != Counter(sources):
            raise BenchError(
                f"{way.name}: each of {len(sources)} sources should have been compiled by a server, once; by their own logs"
                f" they did {counts.total()} compiles, of {len(counts.keys() & set(sources))} of them\n{_tails(directory)}"
            )
        objects = [path.read_bytes() for path in directory.glob("*/*.o")]
        if objects != [self._ready] * len(sources):
            raise BenchError(f"{way.name}: there are {objects.count(self._ready)} good objects, and {len(sources)} should be")


def _ended(makes: Sequence[Family], way: Way) -> None:
    """Wait for the makes, and be awake when the last one ends; raises BenchError when one failed."""
    end = time.monotonic() + STUCK
    with ExitStack() as stack:
        poll = select.poll()
        running = set()
        for make in makes:
            descriptor = os.pidfd_open(make.pid)
            stack.callback(os.close, descriptor)
            poll.register(descriptor, select.POLLIN)
            running.add(descriptor)
        while running:
            ready = poll.poll(max(0.0, end - time.monotonic()) * 1e3)
            if not ready:
                raise BenchError(f"{way.name}: a build is not done after {STUCK:.0f} s\n{_tails(makes[0].log.parent.parent)}")
            for descriptor, _ in ready:
                poll.unregister(descriptor)
                running.remove(descriptor)
    for make in makes:
        if status := make.popen.wait():
            raise BenchError(f"{way.name}: make ended with status {status}\n{_tails(make.log.parent)}")


def _tails(directory: Path) -> str:
    """The last that was said in a build."""
    lines = [line for log in sorted(directory.rglob("log")) for line in log.read_text(errors="replace").splitlines()[-6:]]
    return "\n".join(lines) or "(it said nothing)"


def ways(crew: Crew, site: Site, compiler: str, notes: list[str]) -> list[Way]:
    """All that can be had here, their balancers serving.

    :param notes: gets what is missing.
    """
    # a lock for each preprocessor that may run here, and one for each local compile: more than there are jobs, so none waits
    local = "--localslots=99 --localslots_cpp=99"
    listed = " ".join(site.hosts())
    proxy = crew.port()
    distbal = crew.distbal("distbal", site.hosts(), proxy=proxy)
    sources = sorted(str(path) for path in (ROOT / "distbal" / "wrap").glob("*.c"))
    wrap = compiled(compiler, crew.directory / "distbal-wrap", *sources)
    # what a client waits for its slot, it waits inside of distcc
    patient = {"DISTCC_IO_TIMEOUT": "3600"}
    found = [
        Way(PROXY, "distcc", patient | {"DISTCC_HOSTS": f"{local} 127.0.0.1:{proxy}/40"}),
        Way(ASSIGN, f"{wrap} distcc", {"DISTBAL": f"127.0.0.1:{distbal.port}", "DISTCC_HOSTS": local}),
        Way(LIST, "distcc", {"DISTCC_HOSTS": f"{local} {listed}"}),
        Way(RANDOM, "distcc", {"DISTCC_HOSTS": f"--randomize {local} {listed}"}),
    ]
    balancers = [distbal]
    directory, tclsh = original(), shutil.which("tclsh")
    if directory is None or tclsh is None:
        notes.append(f"{TCL}: not measured, no tclsh, or no run-original in $DISTBAL_ORIGINAL or ../shared/original")
    else:
        tcl = crew.tcl("the Tcl original", directory, site.hosts())
        found.append(Way(TCL, f"{tclsh} {bal_wrap(directory, crew.directory, tcl.port)} distcc", {}))
        balancers.append(tcl)
    for balancer in balancers:
        # nobody has a processor of his own here
        os.sched_setaffinity(balancer.pid, crew.cores)
    return found


def build_times(crew: Crew, size: Size, progress: Progress) -> Part:
    """The rounds, and their rows."""
    part = Part(f"seconds until {size.builds} jobs are done over servers of {', '.join(map(str, KINDS))}; beside {LIST}")
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        part.notes.append(f"not measured, not on this machine: {', '.join(missing)}")
        return part
    compiler = shutil.which("cc") or ""
    # servers, builders and balancer would be machines of their own: let them share what there is
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, crew.cores)
    try:
        site = Site(crew, compiler)
        all_ways = ways(crew, site, compiler, part.notes)
        for way in all_ways:
            progress(f"builds: trying {way.name}")
            site.build(way, (TRIED,), TRIED)
        rounds: dict[str, dict[str, list[Build]]] = {}
        for named, builders in BUILDERS.items():
            rounds[named] = {way.name: [] for way in all_ways}
            for number in range(size.build_rounds):
                progress(f"builds: {named}, round {number + 1} of {size.build_rounds}")
                for way in all_ways if number % 2 else reversed(all_ways):
                    rounds[named][way.name].append(site.build(way, builders, size.builds))
            part.rows += rows(named, rounds[named], size.builds)
        part.notes.append("here all of them share every processor; how many jobs the servers had, fastest first:")
        part.notes += shares(rounds)
    finally:
        os.sched_setaffinity(0, before)
    return part


def rows(named: str, rounds: dict[str, list[Build]], jobs: int) -> Iterator[Row]:
    """One for each way, and the bound."""
    beside = [build.seconds for build in rounds[LIST]]
    # every slot at work from beginning to end
    bound = jobs / sum(kind.slots / kind.late for kind in KINDS)
    seconds = {name: [build.seconds for build in builds] for name, builds in rounds.items()}
    for name, values in (seconds | {"every slot always busy": [bound] * len(beside)}).items():
        row = paired(f"{named}: {name}", "s", values, LIST, beside)
        row.rounds = {name: values, LIST: beside}
        yield row


def shares(rounds: dict[str, dict[str, list[Build]]]) -> Iterator[str]:
    """Who had how many jobs, in words.

    :param rounds: by the builders, and by the way.
    """
    for name in next(iter(rounds.values())):
        counts = {named: zip(*(build.shares for build in by_way[name]), strict=True) for named, by_way in rounds.items()}
        words = [f"{'/'.join(f'{statistics.mean(count):.0f}' for count in each)} of {named}" for named, each in counts.items()]
        yield f"{name}: {', '.join(words)}"
