"""Real distccds for monitors to look at: with its statistics, with compilers of a test's own, frozen, killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.integration.farm import clean_environment, start, until
from tests.support import free_port, need


class Distccd:
    """One that runs.

    :ivar port: for jobs; ``stats`` for its page.
    :ivar directory: its own, which the user distccd can read and write, for distccd started as root becomes that.
    """

    def __init__(self, directory: Path, process: subprocess.Popen[bytes], port: int, stats: int) -> None:
        self.directory = directory
        self.port = port
        self.stats = stats
        self._process = process

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def serves(self, line: str) -> bool:
        """Wait until its log has that line; False when it ends instead."""
        until(lambda: self._process.poll() is not None or line in self.log, "distccd")
        return self._process.poll() is None

    def freeze(self) -> None:
        """All of it stops; its ports take connections nevertheless."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.killpg(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it, workers and their compilers included."""
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@contextmanager
def distccd(
    *words: str, allow: str = "127.0.0.1", jobs: int = 3, compilers: Mapping[str, str] | None = None
) -> Iterator[Distccd]:
    """A distccd that runs while the block does.

    :param words: more options.
    :param compilers: shell scripts by the compilers' names, which it runs in place of those installed.
    """
    need("distccd", "gcc")
    directory = Path(tempfile.mkdtemp(prefix="distccd-", dir=os.environ["TMPDIR"]))
    directory.chmod(0o1777)
    for name, script in (compilers or {}).items():
        (directory / name).write_text(f"#!/bin/sh\n{script}\n")
        (directory / name).chmod(0o755)
    path = "/usr/bin:/bin" if compilers is None else f"{directory}:/usr/bin:/bin"
    server = _started(directory, (*words, "--allow", allow, "--jobs", str(jobs)), path)
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(directory, ignore_errors=True)


def _started(directory: Path, words: tuple[str, ...], path: str) -> Distccd:
    log = directory / "log"
    environment = clean_environment() | {"DISTCCD_PATH": path, "TMPDIR": str(directory)}
    for _ in range(5):
        port, stats = free_port(), free_port()
        log.write_bytes(b"")
        own = ("--daemon", "--no-detach", "--log-stderr", "--log-level", "debug", "--listen", "127.0.0.1", "--port", str(port))
        page = ("--stats-port", str(stats)) if "--stats" in words else ()
        process = start(["distccd", *own, *page, *words], log, environment, directory)
        server = Distccd(directory, process, port, stats)
        if server.serves("HTTP server started" if page else "daemon started"):
            return server
        assert "in use" in server.log, server.log
    raise AssertionError("its port was taken five times")
