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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from distbal import wire
from tests.support import ROOT, free_port, need, stop

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


def until(holds: Callable[[], bool], what: str = "it") -> None:
    """Look again and again until it holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not come about in {PATIENCE:.0f} s"
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
    :ivar port: where it listens; the same when it is started again.
    """

    farm: Path
    label: str
    slots: int
    delay: float = 0.0
    port: int = 0
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
                    *("distccd", "--daemon", "--no-detach", "--log-stderr", "--log-level", "info"),
                    *("--listen", "127.0.0.1", "--allow", "127.0.0.1", "--port", str(port), "--jobs", str(self.slots + 8)),
                ],
                log,
                clean_environment() | {"DISTCCD_PATH": f"{self.directory}:/usr/bin:/bin", "TMPDIR": str(self.farm / "tmp")},
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

    def stop(self) -> None:
        """End it as an admin does."""
        if self._process is not None:
            stop(self._process)
            self._process = None

    def compiled(self) -> int:
        """How many compiles went well, by its own account."""
        return (self.directory / "log").read_text().count("COMPILE_OK exit:0 ")

    def running(self) -> int:
        """How many compilers run there now."""
        return self._counts()[-1]

    def most(self) -> int:
        """The most compilers that ever ran there at once. Each wrote that it ended before its client could know."""
        return max(self._counts())

    def _counts(self) -> list[int]:
        steps = (self.directory / "journal").read_text().split()
        return [0, *accumulate(1 if step == "+" else -1 for step in steps)]


@dataclass
class Farm:
    """The servers and the balancer.

    :ivar directory: everybody may read it, and ``tmp`` in it is for everybody's files.
    :ivar balance: the port for clients; ``status`` and ``update`` likewise. They stay when the balancer is started again.
    """

    directory: Path
    servers: list[Server]
    balance: int = 0
    status: int = 0
    update: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def slots(self) -> int:
        return sum(server.slots for server in self.servers)

    @property
    def address(self) -> str:
        """For ``$DISTBAL``."""
        return f"127.0.0.1:{self.balance}"

    # -- the balancer

    def start_balancer(self) -> None:
        """Run it, and wait until it serves: where it did before, or on ports that are free."""
        hosts = "".join(f"  - {server.name}/{server.slots}\n" for server in self.servers)
        ports = {"balance": self.balance, "status": self.status, "update": self.update}
        listen = ", ".join(f"{kind}: '127.0.0.1:{port}'" for kind, port in ports.items())
        (self.directory / "hosts.yaml").write_text(f"hosts:\n{hosts}listen: {{{listen}}}\n")
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
        listening = re.compile(r"listening on balance (\d+), status (\d+), update (\d+)")
        until(lambda: process.poll() is not None or bool(listening.search(log.read_text(), before)), "the balancer")
        found = listening.search(log.read_text(), before)
        assert found, log.read_text()[before:]
        self.balance, self.status, self.update = map(int, found.groups())

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

    def await_state(self, server: Server, *, up: bool) -> None:
        """Wait until the balancer takes a server to be up, or down."""
        until(lambda: {host.name: host.up for host in self.look().hosts}[server.name] == up, f"{server.name} up={up}")

    def granted(self) -> int:
        """How many leases there were, since the beginning."""
        return len(re.findall(r" has \S+ after ", (self.directory / "balancer.log").read_text()))

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
def running_farm(*servers: tuple[str, int, float], balance: int = 0) -> Iterator[Farm]:
    """Servers (label, slots, delay), fastest first, and the balancer, all serving.

    :param balance: the balancer's port for clients; 0 for a free one.
    """
    need("distccd", "gcc")
    assert ALLOWED_COMPILERS.joinpath("gcc").exists(), f"{ALLOWED_COMPILERS} does not list gcc: run update-distcc-symlinks"
    # distccd that is started as root goes on as the user distccd, for whom pytest's own directories are closed
    directory = Path(tempfile.mkdtemp(prefix="farm-", dir="/tmp" if os.geteuid() == 0 else None))
    directory.chmod(0o755)
    (directory / "tmp").mkdir()
    (directory / "tmp").chmod(0o1777)
    farm = Farm(directory, [Server(directory, *server) for server in servers], balance)
    try:
        for server in farm.servers:
            server.start()
        farm.start_balancer()
        yield farm
    finally:
        farm.stop()
        until(lambda: _removed(directory), "the directory's end")


def _removed(directory: Path) -> bool:
    """Remove it; False where a compiler whose server was killed wrote something meanwhile."""
    shutil.rmtree(directory, ignore_errors=True)
    return not directory.exists()


MAKEFILE = """\
objects = $(patsubst %.c,%.o,$(wildcard part*.c))
all: $(objects)
%.o: %.c ; $(CC) -c $< -o $@
program: $(objects) main.o ; $(CC) -o $@ $^
"""


@dataclass
class Project:
    """A C project of some files, and the environment in which it is built.

    :ivar directory: where it is.
    :ivar files: how many parts it has; ``program`` links them and one more, main.c.
    :ivar env: for make; a test adds to it.
    """

    directory: Path
    files: int
    env: dict[str, str]

    def write(self) -> None:
        """Write the sources."""
        self.directory.mkdir()
        calls = " + ".join(f"part{number}()" for number in range(self.files))
        declared = "".join(f"int part{number}(void);\n" for number in range(self.files))
        for number in range(self.files):
            (self.directory / f"part{number}.c").write_text(f"int part{number}(void) {{ return {number}; }}\n")
        (self.directory / "main.c").write_text(f"{declared}int main(void) {{ return {calls}; }}\n")
        (self.directory / "Makefile").write_text(MAKEFILE)

    def start(self, *command: str | Path) -> subprocess.Popen[str]:
        """Start a command in it, in a process group of its own as a shell would."""
        return subprocess.Popen(
            command,
            cwd=self.directory,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command in it."""
        with self.building(*command) as process:
            return self.end(process)

    @contextmanager
    def building(self, *command: str | Path) -> Iterator[subprocess.Popen[str]]:
        """A command that runs in it while the block does; it is interrupted when it is not done by then."""
        process = self.start(*command)
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            stop(process)

    def end(self, process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
        """Wait until it ends by itself; what it said."""
        out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def objects(self) -> set[str]:
        """The parts that are built."""
        return {path.name for path in self.directory.glob("part*.o")}

    def clean(self) -> None:
        """Remove what was built."""
        for path in self.directory.glob("*.o"):
            path.unlink()

    def is_built(self) -> bool:
        """Whether each part is there."""
        return self.objects() == {f"part{number}.o" for number in range(self.files)}


def project(farm: Farm, directory: Path, wrap: Path, files: int, label: str = "project") -> Project:
    """A project that is built by the farm: distbal-wrap is on PATH, distcc's own files are the project's own.

    distcc's own list names no server of the farm, so that what is not balanced shows; and it has room for as many preprocessors
    as there are jobs: where there is none, distcc sleeps for a second.
    """
    env = clean_environment() | {
        "PATH": f"{wrap.parent}:{os.environ['PATH']}",
        "HOME": str(directory),
        "DISTBAL": farm.address,
        "DISTCC_DIR": str(directory / f"{label}.distcc"),
        "DISTCC_HOSTS": "--localslots=8 --localslots_cpp=16 localhost/2",
    }
    (directory / f"{label}.distcc").mkdir()
    one = Project(directory / label, files, env)
    one.write()
    return one
