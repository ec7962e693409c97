"""Manholes: over a real farm, with keys of their own; and real OpenSSH clients of them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from distbal.admin import Admin
from distbal.changes import Changes
from distbal.decisions import Decisions
from distbal.hosts import Farm
from distbal.inside import Inside
from distbal.leases import LocalLeases
from distbal.lookup import Lookup, SystemResolver
from distbal.monitors.kit import Surroundings
from distbal.monitors.rounds import Rounds
from distbal.monitors.slots import Slots
from distbal.reporter import Reporter
from distbal.scheduler import Scheduler
from distbal.upgrade import Going
from tests.farms import spec
from tests.services import until
from tests.sshd import Keys

if TYPE_CHECKING:
    from distbal.manhole.factory import ManholeFactory

HOSTS = Farm((spec("alpha:3632", 4), spec("beta:3632", 2, 1), spec("newbb:3632", 8, 2)))


class Daemon:
    """What the verbs need of a daemon; it keeps in memory what it is to keep.

    :ivar mistakes: why the file is not taken in, next time.
    :ivar why_not: why nothing can be kept; "" where it can.
    :ivar kept: fires what waits for the disk; None where it is there at once.
    """

    def __init__(self, leases: LocalLeases) -> None:
        self._leases = leases
        self.mistakes: list[str] = []
        self.slow: list[tuple[Deferred[Any], Any]] = []
        self.is_slow = False
        self.why_not = ""
        self.saves = 0
        self.each_job = False

    def serve(self, farm: Farm) -> None:
        self._leases.configure(farm)

    def reload_file(self) -> Deferred[tuple[list[str], list[str]]]:
        return self._when_there((list(self.mistakes), []))

    def export(self, made: Decisions) -> Deferred[str]:
        return self._when_there("hosts: [alpha:3632/4]\n")

    def save(self, made: Decisions, changes: Changes) -> None:
        self.saves += 1

    def saved(self) -> Deferred[str]:
        return self._when_there(self.why_not)

    def log_jobs(self, each: bool) -> None:
        self.each_job = each

    def upgrade(self) -> Deferred[Going]:
        return self._when_there(Going("0.5.0", "0.6.0"))

    def catch_up(self) -> None:
        """All that was waited for is there."""
        waiting, self.slow = self.slow, []
        for answer, value in waiting:
            answer.callback(value)

    def _when_there(self, value: Any) -> Deferred[Any]:
        if not self.is_slow:
            return succeed(value)
        answer: Deferred[Any] = Deferred()
        self.slow.append((answer, value))
        return answer


@dataclass
class Balancer:
    """A farm, and what the verbs are done with."""

    clock: Any
    farm: Farm = HOSTS
    leases: LocalLeases = field(init=False)
    admin: Admin = field(init=False)

    def __post_init__(self) -> None:
        self.leases = LocalLeases(Scheduler(self.farm), self.clock)
        surroundings = Surroundings(self.clock, Lookup(self.clock, SystemResolver(self.clock)), Slots(self.leases))
        self.monitors = Rounds(self.leases, surroundings)
        self.daemon = Daemon(self.leases)
        self.reporter = Reporter(
            self.leases, self.monitors, seconds=self.clock.seconds, wall=time.time, inside=Inside(self.clock)
        )
        self.admin = Admin(self.daemon, self.leases, self.reporter, time.time)
        self.admin.file_changed(self.farm)

    @property
    def live(self) -> dict[str, object]:
        """What the shell has."""
        return {"leases": self.leases, "scheduler": self.leases.scheduler, "admin": self.admin, "monitors": self.monitors}

    def state(self, name: str) -> str:
        return str(self.leases.scheduler.host(name).admin.value)


@dataclass(frozen=True)
class Settings:
    """``manhole`` of a hosts.yaml."""

    authorized_keys: str
    host_key: str


@dataclass
class Manhole:
    """A manhole that listens on a port of 127.0.0.1, and the files of its clients.

    :ivar keys: as :func:`tests.sshd.make_keys` makes them; those of ``user_*`` may log in.
    """

    directory: Path
    keys: Keys
    restrictions: str = ""
    users: tuple[str, ...] = ("user_ed25519", "user_ecdsa", "user_rsa")
    balancer: Balancer = field(init=False)
    factory: ManholeFactory = field(init=False)
    port: Any = None

    def __post_init__(self) -> None:
        from distbal.manhole.factory import make_factory

        self.authorized = self.directory / "authorized_keys"
        self.authorize(*self.users)
        self.settings = Settings(str(self.authorized), str(self.directory / "ssh_host_ed25519_key"))
        self.balancer = Balancer(reactor)
        self.factory = make_factory(self.balancer.admin, self.settings, reactor, self.balancer.live)

    def authorize(self, *users: str) -> None:
        """Let these in, and nobody else."""
        lines = [f"{self.restrictions}{self.keys.public(name)}@example\n" for name in users]
        self.authorized.write_text("".join(lines))
        self.authorized.chmod(0o600)

    def listen(self) -> None:
        self.port = reactor.listenTCP(0, self.factory, interface="127.0.0.1")  # type: ignore[arg-type]
        number = self.port.getHost().port
        (host,) = self.factory.publicKeys.values()
        known = self.directory / "known_hosts"
        known.write_bytes(f"[127.0.0.1]:{number} ".encode() + host.toString("openssh") + b"\n")

    async def stop(self) -> None:
        if self.port is not None:
            await self.port.stopListening()
        await self.factory.close()
        self.balancer.leases.stop()

    def command(self, *words: str, key: str = "user_ed25519", user: str = "admin") -> list[str]:
        """The ssh that leads here; words: of its own first, then the command's after ``--``."""
        at = words.index("--") if "--" in words else len(words)
        settings = ["BatchMode=yes", "IdentitiesOnly=yes", "IdentityAgent=none", "StrictHostKeyChecking=yes", "LogLevel=ERROR"]
        settings += [f"UserKnownHostsFile={self.directory / 'known_hosts'}", "GlobalKnownHostsFile=/dev/null"]
        options = [part for setting in settings for part in ("-o", setting)]
        identity = ["-i", str(self.keys.private(key))] if key else ["-o", "IdentityFile=none"]
        where = ["-p", str(self.port.getHost().port), f"{user}@127.0.0.1"]
        # the first of two settings counts
        # without it, ssh takes an option of the command for one of its own
        return ["ssh", "-F", "none", *words[:at], *options, *identity, *where, *words[at:]]

    async def run(self, *words: str, said: bytes = b"", key: str = "user_ed25519", user: str = "admin") -> Ran:
        """Run ssh to its end."""
        return await run(self.command(*words, key=key, user=user), said)

    async def do(self, *words: str) -> Ran:
        """Run a command over it."""
        return await self.run("--", *words)


@dataclass(frozen=True)
class Ran:
    """What came of a program."""

    status: int | None
    out: str
    err: str


class Running(ProcessProtocol):
    """A program that runs.

    :ivar ended: fires with what came of it.
    """

    transport: Any

    def __init__(self, said: bytes | None = b"") -> None:
        self._said = said
        self.out = bytearray()
        self.err = bytearray()
        self.ended: Deferred[Ran] = Deferred()

    def connectionMade(self) -> None:
        if self._said is not None:
            self.transport.write(self._said)
            self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self.out += data

    def errReceived(self, data: bytes) -> None:
        self.err += data

    def processEnded(self, reason: Failure) -> None:
        status = getattr(reason.value, "exitCode", None)
        self.ended.callback(Ran(status, self.out.decode(errors="replace"), self.err.decode(errors="replace")))

    def kill(self) -> None:
        with contextlib.suppress(Exception):
            self.transport.signalProcess("KILL")


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("SSH_", "LC_"))} | {"LC_ALL": "C.UTF-8"}


async def run(command: list[str], said: bytes = b"") -> Ran:
    running = Running(said)
    reactor.spawnProcess(running, command[0], command, environment())
    try:
        return await running.ended
    finally:
        running.kill()


class Typist(Running):
    """Somebody at a terminal.

    :ivar screen: what the terminal shows.
    """

    def __init__(self, columns: int = 100, rows: int = 40) -> None:
        super().__init__(None)
        import pyte

        self.screen = pyte.HistoryScreen(columns, rows, history=2000)
        self._stream = pyte.ByteStream(self.screen)
        self.is_over = False

    @classmethod
    def at(cls, command: list[str], term: str = "xterm-256color", columns: int = 100, rows: int = 40) -> Typist:
        one = cls(columns, rows)
        reactor.spawnProcess(one, command[0], command, environment() | {"TERM": term}, usePTY=True)
        one._set_size()
        return one

    def outReceived(self, data: bytes) -> None:
        super().outReceived(data)
        self._stream.feed(data)

    def processEnded(self, reason: Failure) -> None:
        self.is_over = True
        super().processEnded(reason)

    def type(self, text: str) -> None:
        self.transport.write(text.encode())

    def resize(self, columns: int, rows: int = 40) -> None:
        self.screen.resize(rows, columns)
        self._set_size()

    @property
    def text(self) -> str:
        """The whole screen."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    @property
    def line(self) -> str:
        """The line with the cursor."""
        return str(self.screen.display[self.screen.cursor.y]).rstrip()

    async def sees(self, part: str) -> None:
        await self._until(lambda: part in self.text, part)

    async def prompted(self, line: str = ">>>") -> None:
        await self._until(lambda: self.line == line, line)

    async def enters(self, text: str) -> str:
        """Type a line, and wait for the next prompt; what came between."""
        await self.prompted()
        self.screen.reset()
        self.type(text + "\x0c")
        await self.prompted(f">>> {text}".rstrip())
        self.type("\r")
        await self._until(lambda: self.screen.cursor.y > 0 and self.line == ">>>", f"what comes of {text}")
        return "\n".join(self.text.split("\n")[1:-1])

    async def _until(self, holds: Callable[[], bool], what: str) -> None:
        await until(lambda: holds() or self.is_over, f"{what!r} on the screen")
        assert holds(), self.text

    def _set_size(self) -> None:
        size = struct.pack("HHHH", self.screen.lines, self.screen.columns, 0, 0)
        fcntl.ioctl(self.transport.fd, termios.TIOCSWINSZ, size)
