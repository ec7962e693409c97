"""A farm of real distccd servers with the balancer in front, which a test can hold, count and kill.

Each server's compiler is a script of ours: it waits while the farm is held, so that a test decides what happens while jobs run,
and keeps a journal of its starts and ends, so that how many ran at once does not rest on anybody's word.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from distbal import wire
from tests.support import ROOT, alone, free_port, need, stop

#: seconds in which whatever is awaited has come, or never will
PATIENCE = 30.0

#: where Debian's distccd looks up which compilers it may run
ALLOWED_COMPILERS = Path("/usr/lib/distcc")

COMPILER = """\
#!/bin/sh
echo + >>'{directory}/journal'
while [ -e '{farm}/hold' ]; do sleep 0.05; done
sleep {delay}
'{real}' "$@"
status=$?
echo - >>'{directory}/journal'
exit $status
"""


def until(holds: Callable[[], bool], what: str = "it", patience: float = PATIENCE) -> None:
    """Look again and again until it holds."""
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not come about in {patience:.0f} s"
        time.sleep(0.02)


def clean_environment() -> dict[str, str]:
    """This environment, without what would lead distcc, ccache, make or the compiler astray."""
    astray = ("DIST", "_DIST", "CCACHE", "MAKE", "MFLAGS", "GNUMAKE", "CMAKE", "CPATH", "C_INCLUDE_PATH", "DEPENDENCIES_")
    return {name: value for name, value in os.environ.items() if not name.startswith(astray)} | {"LC_ALL": "C"}


def start(command: Sequence[str | Path], log: Path, env: Mapping[str, str], cwd: Path) -> subprocess.Popen[bytes]:
    """A process in a group of its own, all that it says in a log."""
    with log.open("ab") as out:
        return subprocess.Popen(
            command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, process_group=0
        )


@dataclass
class Server:
    """One distccd. It would run more jobs at once than its slots: that it does not is the balancer's doing.

    :ivar farm: the farm's directory, which the user distccd can read.
    :ivar slots: what the balancer is told.
    :ivar delay: seconds by which its compiler is late.
    :ivar allow: the address of the clients that it serves; it turns others away as distccd does, without a word.
    :ivar port: where it listens; the same when it is started again.
    :ivar path: where it looks for compilers, if not in its own directory first.
    """

    farm: Path
    label: str
    slots: int
    delay: float = 0.0
    allow: str = "127.0.0.1"
    port: int = 0
    path: str = ""
    _process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        """As clients are told it."""
        return f"127.0.0.1:{self.port}"

    @property
    def directory(self) -> Path:
        return self.farm / self.label

    def start(self) -> None:
        """Run it, and wait until it serves. The first time it takes a free port."""
        if not self.directory.exists():
            self._write_compiler()
        for _ in range(5):
            port = self.port or free_port()
            log = self.directory / "log"
            log.touch()
            before = len(log.read_text())
            process = start(
                [
                    *("distccd", "--daemon", "--no-detach", "--log-stderr", "--log-level", "debug"),
                    *("--listen", "127.0.0.1", "--allow", self.allow, "--port", str(port), "--jobs", str(self.slots + 8)),
                ],
                log,
                clean_environment()
                | {"DISTCCD_PATH": self.path or f"{self.directory}:/usr/bin:/bin", "TMPDIR": str(self.farm / "tmp")},
                self.farm,
            )
            if self._serves(process, log, before):
                self._process, self.port = process, port
                return
            said = log.read_text()[before:]
            assert "in use" in said, said
        raise AssertionError("its port was taken five times")

    @staticmethod
    def _serves(process: subprocess.Popen[bytes], log: Path, before: int) -> bool:
        """Wait until it says so; False when it ends instead."""
        until(lambda: process.poll() is not None or "daemon started" in log.read_text()[before:], "distccd")
        return process.poll() is None

    def _write_compiler(self) -> None:
        real = shutil.which("gcc", path="/usr/bin:/bin")
        assert real, "gcc is not Debian's"
        machine = subprocess.run([real, "-dumpmachine"], capture_output=True, check=True, text=True).stdout.strip()
        self.directory.mkdir()
        # distcc asks for gcc by its full name where there is one
        for name in ("gcc", f"{machine}-gcc"):
            script = COMPILER.format(directory=self.directory, farm=self.farm, delay=self.delay, real=real)
            (self.directory / name).write_text(script)
            (self.directory / name).chmod(0o755)
        (self.directory / "journal").touch()
        (self.directory / "journal").chmod(0o666)

    def kill(self) -> None:
        """End it as a machine does that loses power: no goodbye, its workers included."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It is there and does nothing: connections come to be, as far as the system can do that, and get no further."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it as an admin does."""
        if self._process is not None:
            stop(self._process)
            self._process = None

    def compiled(self) -> int:
        """How many compiles went well, by its own account."""
        return self._log().count("COMPILE_OK exit:0 ")

    def protocols(self) -> Counter[int]:
        """How many requests it has had in each version of distcc's protocol."""
        return Counter(int(version, 16) for version in re.findall(r"got DIST([0-9a-f]{8})", self._log()))

    def running(self) -> int:
        """How many compilers run there now; one that was killed counts for ever."""
        return self._counts()[-1]

    def alive(self) -> int:
        """The same by what the system says: those that were killed do not count; one that forks counts twice for a moment."""
        script = f"{self.directory}/".encode()
        return sum(script in command for command in _commands())

    def most(self) -> int:
        """The most compilers that ever ran there at once. Each wrote that it ended before its client could know."""
        return max(self._counts())

    def _log(self) -> str:
        return (self.directory / "log").read_text()

    def _counts(self) -> list[int]:
        steps = (self.directory / "journal").read_text().split()
        return [0, *accumulate(1 if step == "+" else -1 for step in steps)]


@dataclass
class Farm:
    """The servers and the balancer.

    :ivar directory: everybody may read it, and ``tmp`` in it is for everybody's files.
    :ivar balance: the port for clients; ``status``, ``update`` and ``proxy`` likewise. They stay when the balancer is started
        again.
    :ivar more: what else stands in hosts.yaml.
    """

    directory: Path
    servers: list[Server]
    balance: int = 0
    status: int = 0
    update: int = 0
    proxy: int = 0
    more: str = ""
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def slots(self) -> int:
        return sum(server.slots for server in self.servers)

    @property
    def address(self) -> str:
        """For ``$DISTBAL``."""
        return f"127.0.0.1:{self.balance}"

    @property
    def log(self) -> str:
        """What the balancer said."""
        return (self.directory / "balancer.log").read_text()

    # -- the balancer

    def start_balancer(self) -> None:
        """Run it, and wait until it serves: where it did before, or on ports that are free."""
        hosts = "".join(f"  - {server.name}/{server.slots}\n" for server in self.servers)
        ports = {"balance": self.balance, "status": self.status, "update": self.update, "proxy": self.proxy}
        listen = ", ".join(f"{kind}: '127.0.0.1:{port}'" for kind, port in ports.items())
        (self.directory / "hosts.yaml").write_text(alone(f"hosts:\n{hosts}listen: {{{listen}}}\n{self.more}"))
        log = self.directory / "balancer.log"
        log.touch()
        before = len(log.read_text())
        process = start(
            [Path(sys.executable).with_name("twistd"), "-n", "--pidfile=", "distbal", "-c", "hosts.yaml", "--verbose"],
            log,
            clean_environment() | {"PYTHONPATH": str(ROOT)},
            self.directory,
        )
        self._process = process
        listening = re.compile(r"listening on balance (\d+), status (\d+), update (\d+), proxy (\d+)")
        until(lambda: process.poll() is not None or bool(listening.search(log.read_text(), before)), "the balancer")
        found = listening.search(log.read_text(), before)
        assert found, log.read_text()[before:]
        self.balance, self.status, self.update, self.proxy = map(int, found.groups())

    @property
    def pid(self) -> int:
        """The balancer's process."""
        assert self._process
        return self._process.pid

    def kill_balancer(self) -> None:
        """No goodbye."""
        assert self._process
        self._process.kill()
        self._process.wait()
        self._process = None

    def look(self) -> wire.ParsedStatus:
        """What the status port says now."""
        with socket.create_connection(("127.0.0.1", self.status), PATIENCE) as sock, sock.makefile("rb") as page:
            return wire.parse_status(page.read())

    def await_clients(self, served: int, waiting: int) -> None:
        """Wait until this many clients have a lease, and this many wait for one."""

        def there() -> bool:
            page = self.look()
            return (len(page.served), len(page.waiting)) == (served, waiting)

        until(there, f"{served} leases and {waiting} waiters")

    def await_running(self, *counts: int) -> None:
        """Wait until this many compilers run on each server."""
        until(lambda: tuple(server.running() for server in self.servers) == counts, f"{counts} compilers")

    def await_state(self, server: Server, *, up: bool, patience: float = PATIENCE) -> None:
        """Wait until the balancer takes a server to be up, or down."""

        def there() -> bool:
            return {host.name: host.up for host in self.look().hosts}[server.name] == up

        until(there, f"{server.name} up={up}", patience)

    def granted(self) -> int:
        """How many leases there were, since the beginning."""
        return len(re.findall(r" has \S+ after ", self.log))

    # -- the servers

    def compiled(self) -> int:
        """How many compiles went well on the servers, by their own account."""
        return sum(server.compiled() for server in self.servers)

    def await_compiled(self, count: int) -> None:
        """Wait for the servers' account: they write it when the client has its object already."""
        until(lambda: self.compiled() >= count, f"{count} compiles")
        assert self.compiled() == count

    @contextmanager
    def held(self) -> Iterator[None]:
        """While the block runs, no compiler on any server gets on with it."""
        hold = self.directory / "hold"
        hold.touch()
        try:
            yield
        finally:
            hold.unlink()

    def stop(self) -> None:
        """End all of it."""
        if self._process is not None:
            stop(self._process)
            self._process = None
        for server in self.servers:
            server.stop()


@contextmanager
def running_farm(
    *servers: tuple[str, int, float] | tuple[str, int, float, str], balance: int = 0, more: str = ""
) -> Iterator[Farm]:
    """Servers (label, slots, delay and perhaps whom they allow), fastest first, and the balancer, all serving.

    :param balance: the balancer's port for clients; 0 for a free one.
    :param more: what else stands in hosts.yaml.
    """
    need("distccd", "gcc")
    assert ALLOWED_COMPILERS.joinpath("gcc").exists(), f"{ALLOWED_COMPILERS} does not list gcc: run update-distcc-symlinks"
    # distccd that is started as root goes on as the user distccd, for whom pytest's own directories are closed
    directory = Path(tempfile.mkdtemp(prefix="farm-", dir="/tmp" if os.geteuid() == 0 else None))
    directory.chmod(0o755)
    (directory / "tmp").mkdir()
    (directory / "tmp").chmod(0o1777)
    farm = Farm(directory, [Server(directory, *server) for server in servers], balance, more=more)
    try:
        for server in farm.servers:
            server.start()
        farm.start_balancer()
        yield farm
    finally:
        farm.stop()
        until(lambda: _removed(directory), "the directory's end")


def _commands() -> Iterator[bytes]:
    """The command line of each process, with what was said to it."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            yield path.read_bytes()


def _removed(directory: Path) -> bool:
    """Remove it; False where a compiler whose server was killed wrote something meanwhile."""
    shutil.rmtree(directory, ignore_errors=True)
    return not directory.exists()
