"""Everything that a run starts, and that ends with it: daemons, generators of load, a directory for their files.

A :class:`Crew` is a ``with`` block. Whatever happens in it, an error, Ctrl-C or SIGTERM, each process that was started in it is
stopped by its number, and the directory removed. Where there are two processors or more, daemons get one for themselves.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

from bench.processes import Answering, BenchError, Lagged, Process, Server, wait_until

#: the checkout
ROOT = Path(__file__).resolve().parent.parent

#: ports of a daemon, one after the other: those that lend, tell and are told, and the web port
PORTS = 4

_TWISTD = "import sys; from twisted.scripts.twistd import run; sys.exit(run())"

AnyProcess = TypeVar("AnyProcess", bound=Process)
AnyServer = TypeVar("AnyServer", bound=Server)


def original() -> Path | None:
    """The directory of the Tcl original (``$DISTBAL_ORIGINAL``, or ../shared/original); None where it or tclsh is missing."""
    path = Path(os.environ.get("DISTBAL_ORIGINAL") or ROOT.parent / "shared" / "original")
    return path if shutil.which("tclsh") and (path / "run-original").exists() else None


def hosts_yaml(hosts: Iterable[str], base: int, proxy: int | None = None, more: str = "", *, root: Path = ROOT) -> str:
    """The default configuration, but for its hosts, its port numbers and what it would leave on this machine.

    :param proxy: the proxy's port, which is off by default.
    :param more: what else stands there.
    :param root: the checkout that is to read it: an older one has no web port, no admin socket and no state.
    """
    listed = "".join(f"  - {host}\n" for host in hosts)
    ports, rest = f"balance: {base}, status: {base + 1}, update: 127.0.0.1:{base + 2}", ""
    if "DEFAULT_ADMIN" in (root / "distbal" / "model.py").read_text():
        ports, rest = f"{ports}, web: 127.0.0.1:{base + 3}, admin: null", "state: null\n"
    return f"hosts:\n{listed}listen: {{{ports}{'' if proxy is None else f', proxy: 127.0.0.1:{proxy}'}}}\n{rest}{more}"


def environment(root: Path = ROOT) -> dict[str, str]:
    """What our Python programs run with: the code of one checkout, before any that is installed."""
    return os.environ | {"PYTHONPATH": str(root)}


class Crew:
    """The processes of a run.

    :ivar directory: for their files.
    :ivar cores: the processors that there are.
    :ivar server_core: the processor that daemons are bound to, None where there is only one.
    :ivar limit: how many descriptors a process here may have open.
    """

    def __init__(self) -> None:
        self.cores = sorted(os.sched_getaffinity(0))
        several = len(self.cores) > 1
        self.server_core = self.cores[-1] if several else None
        self.load_core = self.cores[0] if several else None
        self.limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        self.directory = Path()
        self._running: list[Process] = []
        self._files = 0
        self._ports = _ports_for_servers()
        self._sources = 0
        self._signals: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.limit, self.limit))
        # distccd that is started as root goes on as another user, for whom root's TMPDIR may be closed
        self.directory = Path(tempfile.mkdtemp(prefix="distbal-bench-", dir="/tmp" if os.geteuid() == 0 else None))
        if self.load_core is not None:
            os.sched_setaffinity(0, {self.load_core})
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._signals[number] = signal.signal(number, _interrupt)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        # a second Ctrl-C must not leave anything behind
        self._signals[signal.SIGINT] = signal.getsignal(signal.SIGINT)
        for number in self._signals:
            signal.signal(number, signal.SIG_IGN)
        for process in reversed(self._running):
            process.stop()
        self._running = []
        os.sched_setaffinity(0, self.cores)
        shutil.rmtree(self.directory)
        for number, handler in self._signals.items():
            signal.signal(number, handler)

    def stop(self, *processes: Process) -> None:
        """These are needed no more."""
        for process in processes:
            process.stop()
            self._running.remove(process)

    def source(self) -> str:
        """A client's address that was not used in this run: each has 28,000 ports, which take a minute to be free again."""
        self._sources += 1
        return f"127.1.{self._sources // 250 % 250}.{1 + self._sources % 250}"

    def port(self) -> int:
        """A port that nobody listens on, and none of those that the system gives to clients."""
        return self._base()

    def fresh_directory(self) -> Path:
        """One for the files of a server."""
        directory = self._file("d")
        directory.mkdir(mode=0o700)
        return directory

    def add(self, process: AnyProcess) -> AnyProcess:
        """This one was started elsewhere, and ends with the others."""
        self._running.append(process)
        return process

    # -- what it can start

    def distbal(
        self,
        name: str,
        hosts: Sequence[str],
        *,
        root: Path = ROOT,
        options: Sequence[str] = (),
        proxy: int | None = None,
        more: str = "",
    ) -> Server:
        """``twistd -n distbal -c``, up and answering.

        :param root: the checkout whose code it runs.
        :param options: further ones of twistd.
        :param proxy: where its proxy listens; nowhere where it is not given.
        :param more: what else stands in its file: monitors, with which it always has something to do.
        """
        base = self._base()
        log = self._file("log")
        command = [*self._twistd(log), *options, "distbal", "-c", self._config(hosts, base, proxy, more, root)]
        server = Server(name, base, command, core=self.server_core, log=log, env=environment(root), stdin=subprocess.DEVNULL)
        return self._up(server, settled=not more)

    def lagged(self, name: str, hosts: Sequence[str]) -> Lagged:
        """The same with the probe of lagged.py in it."""
        base = self._base()
        log = self._file("log")
        command = [*self._twistd(log), "--python", str(ROOT / "bench" / "lagged.py")]
        env = environment() | {"DISTBAL_BENCH_CONFIG": self._config(hosts, base)}
        return self._up(Lagged(name, base, command, core=self.server_core, log=log, env=env))

    def tcl(self, name: str, directory: Path, hosts: Sequence[str]) -> Server:
        """The Tcl original, up and answering."""
        base = self._base()
        command = [str(directory / "run-original"), "--base", str(base), *hosts]
        # what it unpacks goes away with our directory
        env = os.environ | {"TMPDIR": str(self.directory)}
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        return self._up(Server(name, base, command, core=self.server_core, log=self._file("log"), env=env, **quiet))

    def generator(self) -> Answering:
        """A process that makes load: generator.py says what it can be told."""
        command = [sys.executable, "-m", "bench.generator"]
        process = Answering("the load generator", command, core=self.load_core, log=self._file("log"), env=environment())
        self._running.append(process)
        return process

    # -- the inside

    def _file(self, suffix: str) -> Path:
        self._files += 1
        return self.directory / f"{self._files}.{suffix}"

    def _config(self, hosts: Sequence[str], base: int, proxy: int | None = None, more: str = "", root: Path = ROOT) -> str:
        path = self._file("yaml")
        path.touch(mode=0o600)  # a monitor's passphrase may stand in it, and distbal refuses one that others can read
        path.write_text(hosts_yaml(hosts, base, proxy, more, root=root))
        return str(path)

    def _twistd(self, log: Path) -> list[str]:
        settings = ["--nodaemon", "--pidfile=", f"--logfile={log}", f"--rundir={self.directory}"]
        return [sys.executable, "-c", _TWISTD, *settings]

    def _base(self) -> int:
        for base in self._ports:
            with contextlib.ExitStack() as probes:
                try:
                    for port in range(base, base + PORTS):
                        probes.enter_context(socket.create_server(("", port)))
                except OSError:
                    continue
            return base
        raise BenchError(f"no {PORTS} free ports in a row")

    def _up(self, server: AnyServer, *, settled: bool = True) -> AnyServer:
        self._running.append(server)
        wait_until(server.answers, f"{server.name} should answer on port {server.port}", pause=0.02)
        if settled:
            server.settle()
        server.idle = server.descriptors()
        return server


def _ports_for_servers() -> Iterator[int]:
    """Below those that the system gives to clients, which a run uses up by the thousand; from a place of chance."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    top = min(lowest, 32768) - PORTS
    first = 1024 + random.randrange(max(1, top - 1024 - 3000))
    yield from range(first, min(top, first + 3000), PORTS)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM and SIGHUP end a run as Ctrl-C does."""
    raise KeyboardInterrupt
