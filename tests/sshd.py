"""Real SSH servers (Debian's sshd) on loopback ports, with keys of their own, that let the user in who runs the tests."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.error import ConnectingCancelledError

from distbal.errors import MonitorTrouble
from distbal.hosts import Farm
from distbal.interfaces import Reading, Target
from distbal.leases import LocalLeases
from distbal.lookup import Lookup, SystemResolver
from distbal.monitors.kit import Surroundings
from distbal.monitors.slots import Slots
from distbal.monitors.ssh import SshKind, SshMonitor, SshOptions
from distbal.scheduler import Scheduler
from tests.farms import spec
from tests.services import PATIENCE, until
from tests.support import free_port, need, stop

NAME = "alpha:3632"
#: how a check ends that was cancelled
GIVEN_UP = (CancelledError, ConnectingCancelledError)
# where Debian has it, and where the PATH of ordinary users does not lead
os.environ["PATH"] += os.pathsep + "/usr/sbin"

USER = pwd.getpwuid(os.getuid()).pw_name
KINDS = ("ed25519", "ecdsa", "rsa")


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys for servers and users, made once for all tests of a module: ``host_ed25519``, ``user_rsa`` ..."""

    directory: Path

    def private(self, name: str) -> Path:
        return self.directory / name

    def public(self, name: str) -> str:
        return (self.directory / f"{name}.pub").read_text().strip()


def make_keys(factory: pytest.TempPathFactory) -> Keys:
    """Made once for a module; skips where the programs are missing."""
    need("sshd", "ssh-keygen", "ssh-agent")
    directory = factory.mktemp("keys")
    for kind in KINDS:
        for whose in ("host", "user"):
            size = ["-b", "2048"] if kind == "rsa" else []
            keygen("-q", "-t", kind, *size, "-N", "", "-C", whose, "-f", str(directory / f"{whose}_{kind}"))
    return Keys(directory)


def keygen(*words: str) -> str:
    return subprocess.run(["ssh-keygen", *words], check=True, capture_output=True, text=True).stdout


@dataclass
class Sshd:
    """A server.

    :ivar settings: lines of its sshd_config, before the others: the first of each keyword counts.
    :ivar restrictions: what stands before each user's key in authorized_keys.
    """

    directory: Path
    keys: Keys
    settings: list[str] = field(default_factory=list)
    host_kinds: tuple[str, ...] = KINDS
    user_keys: tuple[str, ...] = tuple(f"user_{kind}" for kind in KINDS)
    port: int = field(default_factory=free_port)
    restrictions: str = ""
    process: subprocess.Popen[bytes] | None = None

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    @property
    def log(self) -> str:
        path = self.directory / "sshd.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def logins(self) -> int:
        return self.log.count("Accepted publickey")

    def know(self, *kinds: str, name: str = "") -> None:
        """Write known_hosts: with the host's keys of these kinds."""
        lines = [f"{name or f'[127.0.0.1]:{self.port}'} {self.keys.public(f'host_{kind}')}\n" for kind in kinds]
        self.known_hosts.write_text("".join(lines))

    def options(self, **more: Any) -> SshOptions:
        """What leads here."""
        mine: dict[str, Any] = {
            "user": USER,
            "port": self.port,
            "key": str(self.keys.private("user_ed25519")),
            "known_hosts": str(self.known_hosts),
        }
        return SshOptions(**mine | more)

    async def start(self) -> None:
        """Begin to listen."""
        begun = self.log.count("Server listening")
        self._spawn()
        await until(lambda: self.log.count("Server listening") > begun or self.exited, "a listening sshd")
        assert not self.exited, self.log

    def _spawn(self) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where it locks itself in; Debian makes it at boot
        authorized = self.directory / "authorized_keys"
        authorized.write_text("".join(f"{self.restrictions}{self.keys.public(name)}\n" for name in self.user_keys))
        config = self.directory / "sshd_config"
        lines = [
            *self.settings,
            f"ListenAddress 127.0.0.1:{self.port}",
            *(f"HostKey {self.keys.private(f'host_{kind}')}" for kind in self.host_kinds),
            f"AuthorizedKeysFile {authorized}",
            *("StrictModes no", "UsePAM no", "PasswordAuthentication no", "KbdInteractiveAuthentication no"),
            *("PermitRootLogin yes", "PidFile none", "LogLevel VERBOSE", "UseDNS no"),
        ]
        config.write_text("\n".join(lines) + "\n")
        sshd = shutil.which("sshd")
        assert sshd is not None
        command = [sshd, "-D", "-f", str(config), "-E", str(self.directory / "sshd.log")]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    @property
    def exited(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def sessions(self) -> list[int]:
        """The processes that serve connections, each parent before its children."""
        assert self.process is not None
        found = [self.process.pid]
        for pid in found:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return found[1:]

    def signal(self, number: signal.Signals, *, all_of_it: bool = True) -> None:
        """Send a signal to what serves connections, and to the listener too."""
        assert self.process is not None
        for pid in [*([self.process.pid] if all_of_it else []), *self.sessions()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> None:
        """End it, with all its connections."""
        if self.process is not None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGKILL, all_of_it=False)
            stop(self.process)
            self.process = None


def _listens(path: Path) -> bool:
    """Whether somebody takes connections at this Unix socket, which is there a little before."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@contextlib.contextmanager
def agent(directory: Path, *keys: Path) -> Iterator[Path]:
    """An agent that holds these keys; its socket."""
    path = directory / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE
        while not _listens(path):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        env = os.environ | {"SSH_AUTH_SOCK": str(path)}
        for key in keys:
            subprocess.run(["ssh-add", "-q", str(key)], check=True, env=env)
        yield path
    finally:
        stop(process)


def target(host: str = "127.0.0.1") -> Target:
    return Target(NAME, host, 3632)


def surroundings() -> Surroundings:
    leases = LocalLeases(Scheduler(Farm((spec(NAME, 4),))), reactor)
    return Surroundings(reactor, Lookup(reactor, SystemResolver(reactor)), Slots(leases))


@asynccontextmanager
async def asking(options: SshOptions, host: str = "127.0.0.1") -> AsyncIterator[SshMonitor]:
    monitor = SshKind().monitor(target(host), options, surroundings())
    try:
        yield monitor
    finally:
        await until_done(monitor.stop())


async def until_done(stopped: Deferred[None] | None) -> None:
    if stopped is not None:
        await stopped


async def trouble(monitor: SshMonitor) -> str:
    """What the monitor says when it cannot do its work, in one line that is not cut."""
    with pytest.raises(MonitorTrouble) as caught:
        await monitor.check()
    words = str(caught.value)
    assert words.isprintable()
    return words


async def trouble_with(options: SshOptions, host: str = "127.0.0.1") -> str:
    async with asking(options, host) as monitor:
        return await trouble(monitor)


def running(monitor: SshMonitor) -> Deferred[Reading]:
    return ensureDeferred(monitor.check())


def options_without_server(directory: Path, port: int, with_key: Any = None) -> SshOptions:
    """What leads to something that need not be an SSH server, with a key that is good."""
    from twisted.conch.ssh.keys import Key

    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    key = directory / "key"
    private = Key(with_key or ed25519.Ed25519PrivateKey.generate())  # type: ignore[no-untyped-call]
    key.touch(0o600)
    key.write_bytes(private.toString("openssh"))
    (directory / "known_hosts").write_text("")
    return SshOptions(port=port, key=str(key), known_hosts=str(directory / "known_hosts"))


@contextlib.contextmanager
def server(directory: Path, keys: Keys) -> Iterator[Sshd]:
    """A server that is stopped at the end. It is not started yet; its ed25519 key is known."""
    one = Sshd(directory, keys)
    one.know("ed25519")
    try:
        yield one
    finally:
        one.stop()


@contextlib.contextmanager
def serving(factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A server that runs while the block does; skips where Conch's libraries are not, or sshd."""
    pytest.importorskip("bcrypt", reason="Twisted Conch's libraries are not here: pip install 'distbal[ssh]'")
    need("sshd", "ssh-keygen")
    with server(factory.mktemp("sshd"), make_keys(factory)) as one:
        pytest_twisted.blockon(Deferred.fromCoroutine(one.start()))
        yield one
