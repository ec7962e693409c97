"""A daemon whose log nobody can write or read, for tests that show that jobs go on."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from distbal import adminclient
from tests.integration.daemons import ENVIRONMENT, command, line
from tests.integration.farm import until
from tests.support import stop

#: more lines of the log than a pipe has room for
MANY = 400


class Unheard:
    """A daemon of which only its Unix sockets are known: its log says nothing."""

    def __init__(self, directory: Path, process: subprocess.Popen[bytes]) -> None:
        self.directory = directory
        self.process = process

    def ask(self, *words: str) -> dict[str, Any]:
        with adminclient.Connection(str(self.directory / "admin")) as daemon:
            return dict(daemon.ask(list(words)))

    @property
    def inside(self) -> dict[str, Any]:
        return dict(self.ask("status")["inside"])

    def jobs(self, number: int) -> None:
        """Each of them is logged, or should be."""
        for _ in range(number):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(20)
                sock.connect(str(self.directory / "balance"))
                assert line(sock) == b"alpha\r\n"

    def assert_jobs_go_on(self, trouble: str) -> None:
        """And it is known why nobody hears of them."""
        self.jobs(MANY)
        inside = self.inside
        assert trouble in inside["log_trouble"]
        assert inside["log_lost"] == inside["bounds"]["log"] > 0
        assert set(inside["bugs"].values()) == {0}
        self.ask("drain", "alpha", "the fan")
        self.ask("ready", "alpha")
        self.jobs(1)

    def standard(self) -> list[str]:
        """Where its standard input, output and error lead."""
        return [str(Path(f"/proc/{self.process.pid}/fd/{number}").readlink()) for number in range(3)]

    def end(self) -> None:
        """It ends as it should when it is told to."""
        self.process.terminate()
        # twistd ends itself by the same signal
        assert self.process.wait(20) == -signal.SIGTERM


@contextlib.contextmanager
def unheard(directory: Path, start: Callable[[list[str]], subprocess.Popen[bytes]], *options: str) -> Iterator[Unheard]:
    """:param start: starts a command, with whatever standard output and error."""
    text = f"hosts: [alpha/4]\nlisten: {{balance: 'unix:{directory}/balance', status: null, update: null, web: null,"
    (directory / "hosts.yaml").write_text(f"{text} admin: 'unix:{directory}/admin'}}\nstate: null\n")
    process = start(command("--verbose", options=options))
    try:
        until(lambda: process.poll() is not None or _answers(directory / "admin"), "the daemon")
        assert process.poll() is None
        yield Unheard(directory, process)
    finally:
        stop(process)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
        sock.connect(str(path))
        return True
    return False


def starts(directory: Path, shell: str, **files: Any) -> Callable[[list[str]], subprocess.Popen[bytes]]:
    """:param shell: what stands around the command in a shell, as in ``exec "$@" 2>&-``."""

    def start(words: list[str]) -> subprocess.Popen[bytes]:
        files.setdefault("stdout", subprocess.DEVNULL)
        files.setdefault("stderr", subprocess.DEVNULL)
        # without the measurement of coverage: where no file may grow, its own could not either
        env = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("COVERAGE")}
        return subprocess.Popen(["/bin/sh", "-c", shell, "sh", *words], cwd=directory, env=env, **files)

    return start
