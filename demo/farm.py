"""The farm: distccd servers and the balancer as processes of this one, what they say of the build, and their end."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: seconds for what takes a moment: a start, a stop, the last lines of a log
PATIENCE = 10.0
#: where Debian's distccd looks up which compilers it may run
ALLOWED_COMPILERS = Path("/usr/lib/distcc")
#: the option of prctl(2) by which processes whose parent has ended become children of this one
PR_SET_CHILD_SUBREAPER = 36

COMPILED = re.compile(r"COMPILE_OK exit:0 .* time:(\d+)ms \S+ (\S+)$", re.MULTILINE)
GRANTED = re.compile(r" has (\S+) after ([\d.]+) s$", re.MULTILINE)
LISTENING = re.compile(r"listening on balance (\d+), status (\d+)")
FREE_SLOTS = re.compile(r"(\S+:\d+) (\d+)")


class DemoError(Exception):
    """What went wrong, in words; each argument is a line."""


@dataclass
class Server:
    """One distccd.

    :ivar slots: how many jobs it runs at once.
    :ivar nice: how far its compiles stand back for others, 0 to 19.
    :ivar late: seconds by which its compiler starts late.
    :ivar address: ``127.0.0.1:PORT``, once it runs.
    :ivar log: its log file, once it runs.
    """

    label: str
    slots: int
    nice: int
    late: float
    address: str = ""
    log: Path = Path()

    def handicap(self) -> str:
        """What makes it slow, in words."""
        words = [f"its compiler starts {self.late} s late"] if self.late else []
        words += [f"nice {self.nice}"] if self.nice else []
        return ", ".join(words)

    def compiled(self) -> list[tuple[str, float]]:
        """What it compiled, by its own account: the source, and how many seconds that took there."""
        return [(source, int(ms) / 1000) for ms, source in COMPILED.findall(self.log.read_text())]


class Farm:
    """All that runs for the demo.

    :ivar balance: where the balancer waits for clients, ``127.0.0.1:PORT``; ``status``: where it shows what it does.
    :ivar distcc_dir: for distcc's own files.
    """

    def __init__(self, work: Path, logs: Path, servers: Sequence[Server]) -> None:
        self.work = work
        self.logs = logs
        self.servers = servers
        self.hosts_yaml = work / "hosts.yaml"
        self.distcc_dir = work / "distcc"
        self.balance = self.status = ""
        self.distcc_dir.mkdir()

    def start(
        self, name: str, command: Sequence[str | Path], cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process that writes what it has to say to the log ``name``. Ctrl-C does not reach it: end_all does."""
        with (self.logs / name).open("wb") as log:
            return subprocess.Popen(
                command,
                cwd=cwd or self.work,
                env=env or environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    # -- servers

    def start_servers(self) -> None:
        """Start them all, and wait until they serve."""
        # Debian keeps gcc there under its full name too, and distcc asks for that one
        compiler = Path("/usr/bin/gcc")
        machine = subprocess.run([compiler, "-dumpmachine"], capture_output=True, check=True, text=True).stdout.strip()
        names = ["gcc", f"{machine}-gcc"]
        if not any((ALLOWED_COMPILERS / name).exists() for name in names):
            raise DemoError(
                f"{ALLOWED_COMPILERS} does not list gcc, so distccd would not run it. As root: update-distcc-symlinks"
            )
        temporary = self.work / "tmp"
        temporary.mkdir()
        temporary.chmod(0o1777)  # distccd that is started as root goes on as another user
        for server in self.servers:
            directory = self.work / server.label
            directory.mkdir()
            for name in names:
                late_compiler = directory / name
                late_compiler.write_text(f'#!/bin/sh\nsleep {server.late}\nexec {compiler} "$@"\n')
                late_compiler.chmod(0o755)
            self._start_server(server, environment() | {"DISTCCD_PATH": f"{directory}:/usr/bin:/bin", "TMPDIR": str(temporary)})

    def _start_server(self, server: Server, env: Mapping[str, str]) -> None:
        """On a free port; on another one where somebody took it meanwhile."""
        server.log = self.logs / server.label
        for _ in range(5):
            port = free_port()
            process = self.start(
                server.label,
                [
                    *("distccd", "--daemon", "--no-detach", "--log-stderr", "--log-level", "info"),
                    *("--listen", "127.0.0.1", "--allow", "127.0.0.1", "--port", str(port)),
                    *("--jobs", str(server.slots), "--nice", str(server.nice)),
                ],
                env=env,
            )
            if _until(lambda: "daemon started" in server.log.read_text(), process):
                server.address = f"127.0.0.1:{port}"
                return
        raise DemoError("distccd does not start:", *server.log.read_text().splitlines())

    # -- the balancer

    def start_balancer(self) -> None:
        """Start it, and wait until it serves. It takes any ports that are free, and says in its log which."""
        hosts = "".join(f"  - {server.address}/{server.slots}   # {server.label}\n" for server in self.servers)
        listen = "listen: {balance: '127.0.0.1:0', status: '127.0.0.1:0', update: null, web: null, admin: null}"
        self.hosts_yaml.write_text(f"hosts:   # fastest first\n{hosts}{listen}\nstate: null\n")
        balancer = self.start("balancer", ["twistd", "-n", "--pidfile=", "distbal", "-c", self.hosts_yaml, "--verbose"])
        log = self.logs / "balancer"
        if not _until(lambda: LISTENING.search(log.read_text()) is not None, balancer):
            raise DemoError("the balancer does not start:", *log.read_text().splitlines())
        ports = LISTENING.findall(log.read_text())[0]
        self.balance, self.status = (f"127.0.0.1:{port}" for port in ports)

    def free_slots(self) -> tuple[dict[str, int], int]:
        """The free slots of each server by its address, and how many jobs wait, as the status port says now."""
        host, _, port = self.status.partition(":")
        with socket.create_connection((host, int(port)), PATIENCE) as sock, sock.makefile() as page:
            lines = dict(line.rstrip("\n").split(" = ", 1) for line in page if " = " in line)
        free = next(value for name, value in lines.items() if name.startswith("ServerStatus"))
        return {name: int(count) for name, count in FREE_SLOTS.findall(free)}, int(lines["WaitQueueLen"])

    def waits(self) -> list[float]:
        """How long each job waited for its slot, in seconds."""
        return [float(waited) for _, waited in GRANTED.findall((self.logs / "balancer").read_text())]

    # -- what became of the build

    def settle(self, files: int) -> None:
        """Wait a moment for the servers' last lines: they write them when the client has its object already."""
        _until(lambda: sum(len(server.compiled()) for server in self.servers) >= files, patience=2.0)

    def verify(self, sources: Sequence[str]) -> None:
        """DemoError unless the servers compiled each source, once, and all slots are free again."""
        counts = Counter(source for server in self.servers for source, _ in server.compiled())
        wrong = [f"{source}: compiled {counts[source]} times" for source in sources if counts[source] != 1]
        wrong += [f"{source}: not of this build" for source in counts.keys() - set(sources)]
        if wrong:
            raise DemoError("the servers should have compiled each file once:", *sorted(wrong))
        slots = {server.address: server.slots for server in self.servers}
        if not _until(lambda: self.free_slots() == (slots, 0)):
            raise DemoError(f"slots did not come back: {self.free_slots()}")


def environment() -> dict[str, str]:
    """This environment, without what would lead distcc, ccache, make or the compiler astray."""
    astray = ("DISTCC", "_DISTCC", "DISTBAL", "CCACHE", "MAKE", "MFLAGS", "GNUMAKE", "CPATH", "C_INCLUDE_PATH", "DEPENDENCIES_")
    return {name: value for name, value in os.environ.items() if not name.startswith(astray)} | {"LC_ALL": "C"}


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _until(holds: Callable[[], bool], process: subprocess.Popen[bytes] | None = None, patience: float = PATIENCE) -> bool:
    """Look again and again until it holds; False when it does not in time, or when the process has ended."""
    deadline = time.monotonic() + patience
    while not holds():
        if time.monotonic() > deadline or (process and process.poll() is not None):
            return False
        time.sleep(0.02)
    return True


# -- the end


def own_orphans() -> None:
    """Make this process the parent of whatever its children leave behind, so that end_all finds them all."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def end_all() -> None:
    """Stop every child of this process, and what these leave behind, until there is none; the stubborn are killed."""
    told: set[int] = set()
    deadline = time.monotonic() + PATIENCE
    while pids := _children():
        late = time.monotonic() > deadline
        for pid in pids if late else pids - told:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        told |= pids
        time.sleep(0.02)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _children() -> set[int]:
    return {int(pid) for tasks in Path("/proc/self/task").glob("*/children") for pid in tasks.read_text().split()}
