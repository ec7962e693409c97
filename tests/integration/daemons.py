"""The daemon as an admin runs it, ``twistd distbal -c hosts.yaml``, and plain clients of it."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from distbal import wire
from tests.integration.farm import PATIENCE, clean_environment, until
from tests.support import ROOT, alone, reset_at_close, stop

TWISTD = str(Path(sys.executable).with_name("twistd"))
ANY = "127.0.0.1:0"
LISTEN = f"listen: {{balance: '{ANY}', status: '{ANY}', update: '{ANY}'}}\n"
PORTS = re.compile(r"listening on balance (\d+), status (\d+), update (\d+)")
# Twisted makes a cache of its plugins at the first start after an installation, and loads Conch for it, which before
# Python 3.13 loads spwd, a module of the standard library that was to go.
ENVIRONMENT = clean_environment() | {
    "PYTHONPATH": str(ROOT),
    "PYTHONWARNINGS": "error,ignore:'spwd' is deprecated:DeprecationWarning",
}


@dataclass
class Daemon:
    """A running one.

    :ivar directory: hosts.yaml and ``log`` are there.
    :ivar ports: balance, status, update.
    """

    directory: Path
    process: subprocess.Popen[bytes]
    ports: tuple[int, int, int]

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    @property
    def proxies(self) -> list[int]:
        """The proxy's ports, as they were when it started."""
        return [int(port) for port in re.findall(r"proxy (\d+)", self.log)]

    def awaits(self, words: str, times: int = 1) -> None:
        """Wait until the log has these words."""
        until(lambda: self.log.count(words) >= times, f"{words!r} in the log")

    def client(self) -> socket.socket:
        """Connect to the balance port."""
        return connect(self.ports[0])

    def look(self) -> wire.ParsedStatus:
        with connect(self.ports[1]) as sock, sock.makefile("rb") as page:
            return wire.parse_status(page.read())

    def say(self, line: bytes) -> None:
        with connect(self.ports[2]) as sock:
            sock.sendall(line)
            assert sock.recv(1) == b""

    def counts(self) -> tuple[int, int]:
        """Clients that have a lease, and those that wait."""
        page = self.look()
        return len(page.served), len(page.waiting)

    def await_counts(self, served: int, waiting: int) -> None:
        until(lambda: self.counts() == (served, waiting), f"{served} leases and {waiting} waiters")

    def reload(self, text: str) -> None:
        (self.directory / "hosts.yaml").write_text(alone(text))
        before = self.log.count("taken in")
        self.process.send_signal(signal.SIGHUP)
        self.awaits("taken in", before + 1)

    def cpu(self) -> float:
        """Seconds of processor time that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def descriptors(self) -> Counter[str]:
        """How many it has open of each kind: ``socket``, ``pipe`` (two a pipe) ..."""
        kinds: Counter[str] = Counter()
        for path in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                kinds[str(path.readlink()).partition(":")[0]] += 1
        return kinds

    def memory(self) -> int:
        """How many kB of it are in memory now."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found
        return int(found[1])

    def lent_and_back(self, times: int) -> None:
        """Jobs go on."""
        for _ in range(times):
            with self.client() as sock:
                assert line(sock)

    def end(self) -> int:
        """SIGTERM; the exit status."""
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def assert_calm(self) -> None:
        """It runs, and met no bug."""
        assert self.process.poll() is None
        assert "Traceback" not in self.log


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), PATIENCE)


def line(sock: socket.socket) -> bytes:
    """What a client is answered; b"" when it is turned away."""
    heard = b""
    while not heard.endswith(b"\n") and (piece := sock.recv(100)):
        heard += piece
    return heard


def is_over(pid: int) -> bool:
    """Whether a process that is no child of ours has ended; init may be slow to take notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def refuses(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError):
        connect(port).close()
        return False
    return True


def reset(sock: socket.socket) -> None:
    reset_at_close(sock)
    sock.close()


def command(*words: str, before: Sequence[str] = (), options: Sequence[str] = (), detach: bool = False) -> list[str]:
    foreground = [] if detach else ["-n", "--pidfile="]
    return [*before, TWISTD, *foreground, *options, "distbal", "-c", "hosts.yaml", *words]


def limited(soft: int, hard: int) -> tuple[str, ...]:
    """What to put before a command that shall have few descriptors."""
    return ("/bin/sh", "-c", f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"', "sh")


@contextlib.contextmanager
def running(directory: Path, text: str, *words: str, before: Sequence[str] = (), ordinary: bool = False) -> Iterator[Daemon]:
    """A daemon with this file, ready, while the block runs; it must end without a traceback.

    :param ordinary: it works as an ordinary user, also where we are root.
    """
    (directory / "hosts.yaml").write_text(alone(text))
    options: list[str] = []
    env = ENVIRONMENT
    if ordinary and os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        options = [f"--uid={nobody.pw_uid}", f"--gid={nobody.pw_gid}"]
        # nobody may write no measurements
        env = {name: value for name, value in env.items() if not name.startswith("COVERAGE")}
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            command(*words, before=before, options=options),
            cwd=directory,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    daemon = Daemon(directory, process, (0, 0, 0))
    try:
        until(lambda: process.poll() is not None or "listening on" in daemon.log, "the daemon")
        assert process.poll() is None, daemon.log
        if found := PORTS.search(daemon.log):
            daemon.ports = (int(found[1]), int(found[2]), int(found[3]))
        yield daemon
    finally:
        stop(process)
    assert "Traceback" not in daemon.log


def run(directory: Path, text: str, *words: str, detach: bool = False) -> subprocess.CompletedProcess[str]:
    """A daemon that is not expected to stay."""
    (directory / "hosts.yaml").write_text(alone(text))
    return subprocess.run(
        command(*words, detach=detach),
        cwd=directory,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
