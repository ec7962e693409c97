"""Compile jobs as users run them, by every way in, each compared with the same compile made here without anybody's help."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: seconds after which a job that has not ended never will
LONGEST = 150.0
FLAGS = (("-O0",), ("-O1", "-fPIC"), ("-O2", "-DDOUBLED=2"), ("-Os", "-Wall"))
#: which source, and with which flags
Recipe = tuple[int, tuple[str, ...]]
SOURCES = 15
#: what distcc and distbal-wrap say when they go on without the server that they were to use
FELL_BACK = ("running locally instead", "retrying locally", "going on with distcc's own list")

SERVED, LOCAL, WRONG, KILLED = "served", "fell back", "wrong", "killed by us"


@dataclass(frozen=True)
class Way:
    """A way in.

    :ivar before: what stands before ``gcc``.
    :ivar env: what the environment has besides.
    :ivar carried: whether its connection outlives the daemon. What Twisted's transports hold does not: such a job falls back.
    :ivar deaf: whether the program keeps the compiler's exit status and stderr to itself (bal-wrap.tcl does).
    """

    name: str
    before: Sequence[str]
    env: Mapping[str, str]
    carried: bool = True
    deaf: bool = False


@dataclass
class Job:
    """One compile.

    :ivar fate: how it ended; "" while it runs.
    :ivar words: what there is to say of that.
    """

    number: int
    way: Way
    source: int
    flags: tuple[str, ...]
    began: float
    ended: float = 0.0
    fate: str = ""
    words: str = ""
    process: subprocess.Popen[str] | None = field(default=None, repr=False)


def source(number: int) -> str:
    """A C file; some are small, some large, all include what real ones do."""
    functions = "".join(
        f'int part{number}_{k}(int x) {{ char text[40]; snprintf(text, sizeof text, "%d {k}", x * {k + number});'
        f" return (int)strlen(text) + abs(x - {k}); }}\n"
        for k in range(3 + 12 * (number % 5))
    )
    double = "#ifdef DOUBLED\nint doubled = DOUBLED;\n#endif\n"
    return f"#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n{double}{functions}"


def prepare(directory: Path, env: Mapping[str, str]) -> dict[Recipe, bytes]:
    """Write the sources there, and compile each here; the objects, as the servers are expected to make them."""
    expected: dict[Recipe, bytes] = {}
    target = directory / "expected.o"
    for number in range(SOURCES):
        (directory / f"part{number}.c").write_text(source(number))
        for flags in FLAGS:
            subprocess.run(["gcc", *flags, "-c", f"part{number}.c", "-o", target], cwd=directory, env=env, check=True)
            expected[number, flags] = target.read_bytes()
    target.unlink()
    return expected


class Jobs:
    """The jobs of this run, made by as many threads as there are clients.

    :param directory: where sources, objects and distcc's own files are.
    :param expected: what each compile makes, by :func:`prepare`.
    :param seed: of the dice.

    :ivar done: those that have ended.
    """

    def __init__(
        self, directory: Path, ways: Sequence[Way], env: Mapping[str, str], expected: Mapping[Recipe, bytes], seed: int
    ) -> None:
        self.directory = directory
        self.done: list[Job] = []
        self._ways = ways
        self._env = dict(env)
        self._seed = seed
        self._lock = threading.Lock()
        self._number = 0
        self._running: dict[int, Job] = {}
        self._stopping = threading.Event()
        self._pausing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._expected = expected

    # -- before

    def start(self, clients: int) -> None:
        for client in range(clients):
            thread = threading.Thread(target=self._work, args=(random.Random(f"{self._seed} {client}"),), daemon=True)
            self._threads.append(thread)
            thread.start()

    # -- while they run

    def running(self) -> list[Job]:
        with self._lock:
            return list(self._running.values())

    def kill_one(self, dice: random.Random) -> str:
        """The whole process group of a job, as an impatient user does; what that was."""
        if not (there := self.running()):
            return "no job runs"
        job = dice.choice(there)
        with self._lock:
            # one that has ended meanwhile has been reaped: its number may be somebody else's
            if job.number in self._running and job.process is not None and job.process.returncode is None:
                job.fate = KILLED
                os.killpg(job.process.pid, signal.SIGKILL)
        return f"job {job.number}, {job.way.name}"

    def counts(self) -> Counter[tuple[str, str]]:
        """How many have ended, by way and fate."""
        return Counter((job.way.name, job.fate) for job in list(self.done))

    # -- the end

    def finish(self, patience: float = LONGEST) -> None:
        """No new ones; wait for those that run."""
        self._stopping.set()
        deadline = time.monotonic() + patience
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def stop(self) -> None:
        """At once, whatever runs."""
        self._stopping.set()
        with self._lock:
            for job in self._running.values():
                if job.process is not None and job.process.returncode is None:
                    job.fate = KILLED
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(job.process.pid, signal.SIGKILL)
        for thread in self._threads:
            thread.join(10)

    # -- one thread

    def _work(self, dice: random.Random) -> None:
        while not self._stopping.is_set():
            with self._lock:
                self._number += 1
                number = self._number
            job = Job(number, dice.choice(self._ways), dice.randrange(SOURCES), dice.choice(FLAGS), time.monotonic())
            directory = self.directory / f"job{number}"
            directory.mkdir()
            try:
                self._run(job, directory)
            except Exception as error:  # noqa: BLE001 - a thread's exception would be heard by nobody: it is the job's fault
                job.fate, job.words = WRONG, repr(error)
            job.ended = time.monotonic()
            with self._lock:
                self._running.pop(number, None)
                self.done.append(job)
            shutil.rmtree(directory, ignore_errors=True)

    def _run(self, job: Job, directory: Path) -> None:
        target = directory / "it.o"
        command = [*job.way.before, "gcc", *job.flags, "-c", f"part{job.source}.c", "-o", str(target)]
        # distcc's files are the job's own, so that what happened to one job's server is nothing to another's
        env = self._env | dict(job.way.env) | {"DISTCC_DIR": str(directory), "TMPDIR": str(directory)}
        with self._lock:
            if self._stopping.is_set():
                job.fate = KILLED
                return
            job.process = subprocess.Popen(
                command,
                cwd=self.directory,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                process_group=0,
            )
            self._running[job.number] = job
        try:
            said, _ = job.process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            os.killpg(job.process.pid, signal.SIGKILL)
            said, _ = job.process.communicate()
            job.fate = job.fate or WRONG
            said = f"it had not ended after {LONGEST:.0f} s; {said}"
        with self._lock:
            self._judge(job, target, said)

    def _judge(self, job: Job, target: Path, said: str) -> None:
        assert job.process is not None
        job.words = said.strip()
        if job.fate:
            return
        there = target.read_bytes() if target.exists() else b""
        if job.process.returncode != 0 or not there:
            job.fate = WRONG
            job.words = f"exit status {job.process.returncode}, {len(there)} bytes of an object; {job.words}"
        elif there != self._expected[job.source, job.flags]:
            job.fate, job.words = WRONG, f"another object than gcc makes here; {job.words}"
        else:
            job.fate = LOCAL if any(words in said for words in FELL_BACK) else SERVED
