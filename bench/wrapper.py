"""What asking for a slot adds to a compile: distbal-wrap, the original's bal-wrap.tcl, and nothing at all.

The command is a program named distcc that ends at once, called as a compile is, so that what is measured is what comes before.
CPU time is user and system time of the process and of what it waited for, from its start, exec included.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.crew import ROOT, Crew, original
from bench.grants import Size, listed
from bench.processes import BenchError
from bench.report import Part, Progress, paired, single

COMPILE = ("gcc", "-O2", "-c", "hello.c", "-o", "hello.o")
#: milliseconds of CPU time beyond exec
MOST = 3.0


@dataclass(frozen=True)
class Command:
    """One way to run the compile."""

    name: str
    words: tuple[str, ...]
    environment: dict[str, str]

    def run(self) -> tuple[float, float]:
        """Once: milliseconds of CPU time, and of anybody's."""
        null = os.open(os.devnull, os.O_RDWR)
        began = time.monotonic()
        # nothing of ours is copied for it first, as fork would
        to_null = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1)]
        pid = os.posix_spawn(self.words[0], self.words, self.environment, file_actions=to_null)
        _, status, used = os.wait4(pid, 0)
        passed = time.monotonic() - began
        os.close(null)
        if status:
            raise BenchError(f"{self.name} ended with status {os.waitstatus_to_exitcode(status)}: {' '.join(self.words)}")
        return (used.ru_utime + used.ru_stime) * 1e3, passed * 1e3


def compiled(compiler: str, target: Path, *sources: str) -> str:
    """Compile C sources as a packager does."""
    done = subprocess.run(
        [compiler, "-O2", "-o", str(target), *sources], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchError(f"{target.name} does not compile:\n{done.stderr}")
    return str(target)


def bal_wrap(directory: Path, target: Path, port: int) -> str:
    """The original's client as it is, but for the port that it asks.

    :param directory: of the original.
    :param target: where it goes.
    """
    text = (directory / "bal-wrap.tcl").read_text()
    if "set LbPort 5656" not in text:
        raise BenchError(f"{directory}/bal-wrap.tcl is not the one that we know: it should say which port it asks")
    script = target / "bal-wrap.tcl"
    script.write_text(text.replace("set LbPort 5656", f"set LbPort {port}"))
    return str(script)


def commands(crew: Crew, port: int, compiler: str) -> list[Command]:
    """The ways to be compared, the plain one first, and each known to do what it should."""
    programs = crew.directory / "bin"
    programs.mkdir()
    source = crew.directory / "distcc.c"
    source.write_text("int main(void) { return 0; }\n")
    plain = compiled(compiler, programs / "distcc", str(source))
    sources = sorted(str(path) for path in (ROOT / "distbal" / "wrap").glob("*.c"))
    wrap = compiled(compiler, crew.directory / "distbal-wrap", *sources)
    env = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(crew.directory), "DISTBAL": f"127.0.0.1:{port}"}
    ways = [Command("nothing", (plain, *COMPILE), env), Command("distbal-wrap", (wrap, "distcc", *COMPILE), env)]
    directory, tclsh = original(), shutil.which("tclsh")
    if directory is not None and tclsh is not None:
        script = bal_wrap(directory, crew.directory, port)
        ways.append(Command("bal-wrap.tcl", (tclsh, script, "distcc", *COMPILE), env))
    for way in ways[1:]:
        see_that_it_asks(way, crew.directory)
    return ways


def see_that_it_asks(way: Command, directory: Path) -> None:
    """A way that takes no lease would look fast: let the command be one that notes the hosts it was given."""
    programs, noted = directory / "noting", directory / "noted"
    programs.mkdir(exist_ok=True)
    distcc = programs / "distcc"
    distcc.write_text(f'#!/bin/sh\necho "$DISTCC_HOSTS" >{noted}\n')
    distcc.chmod(0o755)
    noted.unlink(missing_ok=True)
    noting = Command(way.name, way.words, way.environment | {"PATH": f"{programs}:/usr/bin:/bin"})
    noting.run()
    hosts = noted.read_text() if noted.exists() else ""
    if listed(1, 1)[0].partition("/")[0] not in hosts:
        raise BenchError(f"{way.name} gave distcc no host of the balancer's, but {hosts!r}")


def per_compile(crew: Crew, size: Size, progress: Progress) -> Part:
    """The rounds, and their rows."""
    part = Part("what the wrapper adds to a compile, beyond exec of the command; beside bal-wrap.tcl")
    compiler = shutil.which("cc")
    if compiler is None:
        part.notes.append("no C compiler (cc): not measured")
        return part
    server = crew.distbal("distbal", listed(10, 40))
    ways = commands(crew, server.port, compiler)
    rounds: list[list[tuple[float, float]]] = []
    for number in range(size.wrap_rounds + 1):
        progress(f"wrap: round {number} of {size.wrap_rounds}" if number else "wrap: warming up")
        runs = [[way.run() for way in ways] for _ in range(size.wraps)]
        if number:
            rounds.append([_medians([run[place] for run in runs]) for place in range(len(ways))])
    crew.stop(server)
    for kind, name, most in ((0, "CPU", MOST), (1, "wall clock", None)):
        plain, ours, *theirs = [[one[place][kind] for one in rounds] for place in range(len(ways))]
        beyond = [one - bare for one, bare in zip(ours, plain, strict=True)]
        part.rows.append(single(f"{name}: distbal-wrap", "ms", beyond, at_most=most))
        if theirs:
            other = [one - bare for one, bare in zip(theirs[0], plain, strict=True)]
            part.rows.append(paired(f"{name}: distbal-wrap and bal-wrap.tcl", "ms", beyond, "bal-wrap.tcl", other))
        part.rows.append(single(f"{name}: the command alone", "ms", plain))
    return part


def _medians(runs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return statistics.median(run[0] for run in runs), statistics.median(run[1] for run in runs)
