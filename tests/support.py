"""What several tests need: programs of this machine, processes that end with their test, ports nobody uses."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import struct
import subprocess
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from twisted.logger import ILogObserver, LogEvent
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: the checkout
ROOT = Path(__file__).resolve().parent.parent
#: whether this Twisted forgets to close a socket that it could not bind (fixed in 26.10)
TWISTED_DROPS_SOCKETS = tuple(map(int, version("twisted").split(".")[:2])) < (26, 10)
#: how long a well-behaved process may take to end after SIGTERM, in seconds
PATIENCE = 10.0


def packages() -> dict[str, list[str]]:
    """The Debian packages that bring each program, from programs.txt."""
    lines = (ROOT / "tests" / "programs.txt").read_text().splitlines()
    return {words[0]: words[1:] for words in (line.split() for line in lines if not line.startswith("#")) if words}


def in_ci() -> bool:
    """Whether every program has to be there (``$CI`` is set)."""
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def need(*programs: str) -> None:
    """Skip the test (or the module, when called there) where one of the programs is missing; in CI that is a failure.

    :param programs: names in programs.txt; any other is a mistake in the test.
    """
    known = packages()
    missing = [program for program in programs if shutil.which(program) is None]
    wanted = sorted({package for program in programs for package in known[program] if program in missing})
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: apt-get install {' '.join(wanted)}", allow_module_level=True)


def free_port(family: socket.AddressFamily = socket.AF_INET) -> int:
    """A port of the loopback address that nobody listens on, for programs that cannot be given 0 and tell what they got."""
    with socket.socket(family) as probe:
        probe.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        return int(probe.getsockname()[1])


def reset_at_close(sock: socket.socket) -> None:
    """Let the peer see a reset when it is closed, as from a process that is killed with bytes unread (socket(7), SO_LINGER)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextmanager
def descriptors_left(number: int) -> Iterator[None]:
    """Let this process open so many files and sockets more, and not one beyond them."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(number + 1)]
        limit = probes[-1].fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def room_for(descriptors: int) -> Iterator[None]:
    """Let this process, and what it starts, have so many at once; skips where it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < descriptors:
        pytest.skip(f"this process may have no more than {hard} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, descriptors), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def stop(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> int:
    """End this process (SIGTERM, and SIGKILL when it does not listen) and wait for it; its exit status."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
    status = process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    return status


@contextmanager
def spawn(
    *command: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdout: int | None = subprocess.PIPE,
    stderr: int | None = subprocess.STDOUT,
) -> Iterator[subprocess.Popen[str]]:
    """A process that runs while the ``with`` block does, its output together on ``stdout``.

    :param env: added to the environment.
    """
    process = subprocess.Popen(
        [str(word) for word in command],
        env=os.environ | env if env else None,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        text=True,
    )
    try:
        yield process
    finally:
        stop(process)


@implementer(ILogObserver)
class LoggedErrors:
    """What was logged as an error while a test ran: the test fails when something of it is left at the end.

    A test that provokes an error takes the ``logged_errors`` fixture, and asserts on what :meth:`flush` gives.
    """

    def __init__(self) -> None:
        self._events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        """The observer: keeps errors, criticals and failures."""
        level = event.get("log_level")
        if "log_failure" in event or event.get("isError") or (level is not None and level.name in ("error", "critical")):
            self._events.append(event)

    def flush(self) -> list[LogEvent]:
        """The errors so far; they do not count against the test any more."""
        events, self._events = self._events, []
        return events


def alone(text: str) -> str:
    """A hosts.yaml whose daemon reaches no further than its test: no page, admin socket and state but its own."""
    missing = [key for key in ("web", "admin") if f"{key}:" not in text]
    if "listen:\n" in text:
        text = text.replace("listen:\n", "listen:\n" + "".join(f"  {key}: null\n" for key in missing))
    elif missing:
        off = ", ".join(f"{key}: null" for key in missing)
        text = text.replace("listen: {", f"listen: {{{off}, ") if "listen: {" in text else f"{text}listen: {{{off}}}\n"
    return text if "state:" in text else f"{text}state: null\n"
