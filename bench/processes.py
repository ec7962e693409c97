"""One process that a run started: stopped by its number, asked by lines of JSON, and what the system knows of it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

#: seconds in which a daemon has started, an answer has come, a process has ended, or never will
PATIENCE = 30.0


class BenchError(Exception):
    """The run cannot go on; the text says why."""


def wait_until(ready: Callable[[], bool], what: str, *, within: float = PATIENCE, pause: float = 0.001) -> None:
    """Look until it is so.

    :param pause: seconds between two looks.
    :raises BenchError: it did not become so.
    """
    end = time.monotonic() + within
    while not ready():
        if time.monotonic() > end:
            raise BenchError(f"{what}: not within {within:g} s")
        time.sleep(pause)


class Process:
    """One process that we started.

    :param core: the processor that it is bound to; None for any.
    """

    def __init__(self, name: str, command: Sequence[str], *, core: int | None, log: Path, **options: Any) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as stderr:
            # in a session of its own: Ctrl-C reaches us alone, and we stop it in our order; and where its files are, so that
            # no code is found by chance where the user stands
            self.popen = subprocess.Popen(command, stderr=stderr, cwd=log.parent, start_new_session=True, **options)
        self.pid = self.popen.pid
        if core is not None:
            os.sched_setaffinity(self.pid, {core})

    def check(self) -> None:
        """:raises BenchError: it has ended, with the last that it said."""
        status = self.popen.poll()
        if status is not None:
            said = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise BenchError(f"{self.name} ended with status {status}:\n{said}")

    def stop(self) -> None:
        """End this process and wait for it: SIGTERM, and SIGKILL when it does not listen."""
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(5)
            except subprocess.TimeoutExpired:
                self.popen.kill()
        self.popen.wait()
        for stream in (self.popen.stdin, self.popen.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    # -- what the system knows of it

    def cpu(self) -> float:
        """Seconds of CPU time that it has used, all its threads together, user and system, to the nanosecond."""
        # the clock that clock_getcpuclockid(3) names
        return time.clock_gettime_ns((~self.pid << 3) | 2) / 1e9

    def waited(self) -> float:
        """Seconds that it was ready and had no processor; 0 for ever where the kernel does not count them."""
        try:
            return int(Path(f"/proc/{self.pid}/schedstat").read_bytes().split()[1]) / 1e9
        except FileNotFoundError:
            return 0.0

    def memory(self) -> int:
        """Resident bytes."""
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
        raise BenchError(f"the memory of {self.name} is not to be had")

    def descriptors(self) -> int:
        """How many it has open."""
        # Linux 6.2 and later tell the number; before, they must be counted
        return os.stat(f"/proc/{self.pid}/fd").st_size or len(os.listdir(f"/proc/{self.pid}/fd"))  # noqa: PTH116, PTH208

    def sockets(self) -> int:
        """How many of its descriptors are sockets."""
        count = 0
        for path in Path(f"/proc/{self.pid}/fd").iterdir():
            # it may be closed meanwhile
            with contextlib.suppress(FileNotFoundError):
                count += str(path.readlink()).startswith("socket:")
        return count

    def wait_descriptors(self, number: int) -> None:
        """Until it has so many open: every connection before was taken in, or closed."""
        wait_until(lambda: self.descriptors() == number, f"{self.name} should have {number} descriptors open")


class Family(Process):
    """A process that starts others, which are stopped with it: all that are of its session."""

    def stop(self) -> None:
        """End it and wait for it, and then whatever it has left behind."""
        super().stop()
        while orphans := self._members():
            for pid in orphans:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    def _members(self) -> list[int]:
        """The processes of its session that have not ended."""
        members = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                # what follows the command's name, which may hold anything
                state, _parent, _group, session, *_ = path.read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue
            if int(session) == self.pid and state not in b"ZX":
                members.append(int(path.parent.name))
        return members


class Answering(Process):
    """A process that is told what to do, a line of JSON each, and answers with one."""

    def __init__(self, name: str, command: Sequence[str], **options: Any) -> None:
        super().__init__(name, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)
        self._buffer = b""

    def tell(self, **words: object) -> None:
        """Say what to do, and do not wait for the answer."""
        if self.popen.stdin is None:
            raise BenchError(f"{self.name} cannot be told anything")
        try:
            self.popen.stdin.write(json.dumps(words).encode() + b"\n")
            self.popen.stdin.flush()
        except BrokenPipeError:
            self.check()
            raise

    def answer(self, within: float = PATIENCE) -> dict[str, Any]:
        """What it answered; raises BenchError when that is a complaint, or none."""
        if self.popen.stdout is None:
            raise BenchError(f"{self.name} cannot answer")
        descriptor = self.popen.stdout.fileno()
        end = time.monotonic() + within
        while b"\n" not in self._buffer:
            if not select.select([descriptor], [], [], max(0.0, end - time.monotonic()))[0]:
                raise BenchError(f"{self.name} did not answer within {within:g} s")
            data = os.read(descriptor, 65536)
            if not data:
                self.popen.wait(PATIENCE)
                self.check()
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        words: dict[str, Any] = json.loads(line)
        if "error" in words:
            raise BenchError(f"{self.name}: {words['error']}")
        return words

    def ask(self, **words: object) -> dict[str, Any]:
        """Say what to do, and wait until it is done."""
        self.tell(**words)
        return self.answer()


class Server(Process):
    """A daemon.

    :ivar port: where it lends; the others follow: one tells, one is told, and the web port.
    :ivar idle: how many descriptors it has open when nobody is connected.
    """

    idle = 0

    def __init__(self, name: str, port: int, command: Sequence[str], **options: Any) -> None:
        super().__init__(name, command, **options)
        self.port = port

    def answers(self, port: int | None = None) -> bool:
        """Whether it takes connections, on another port where one is named; raises BenchError when it has ended."""
        self.check()
        try:
            socket.create_connection(("127.0.0.1", port or self.port), 1).close()
        except ConnectionRefusedError:
            return False
        return True

    def settle(self) -> None:
        """Wait until it has nothing left to do."""
        before = -1.0

        def rests() -> bool:
            nonlocal before
            before, now = self.cpu(), before
            return now == before

        wait_until(rests, f"{self.name} should have nothing left to do", pause=0.05)

    def wait_clients(self, number: int) -> None:
        """Until so many are connected, and it knows."""
        self.wait_descriptors(self.idle + number)


class Lagged(Server, Answering):
    """A daemon with the probe of lagged.py in it, which can be told to ``start`` and to ``stop``."""
