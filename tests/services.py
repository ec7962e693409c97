"""The service in this very process, made by makeService as twistd makes it, and real clients of it."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from distbal import wire
from distbal.balancer import BalancerService
from distbal.service import Options, makeService
from distbal.snapshot import HostState
from tests.support import LoggedErrors, alone

#: seconds in which whatever is awaited has come, or never will
PATIENCE = 20.0
ANY = "127.0.0.1:0"
LISTEN = f"listen: {{balance: '{ANY}', status: '{ANY}', update: '{ANY}'}}\n"
#: one slot, and it listens nowhere: an addition to this chooses where
ONE = "hosts: [alpha/1]\n"


@implementer(ILogObserver)
class Lines:
    """What is logged while the ``with`` block runs: (level, text)."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str]] = []

    def __call__(self, event: LogEvent) -> None:
        self.all.append((event["log_level"].name, formatEvent(event)))

    def __enter__(self) -> Self:
        globalLogPublisher.addObserver(self)
        return self

    def __exit__(self, *exception: object) -> None:
        globalLogPublisher.removeObserver(self)

    def of(self, level: str) -> list[str]:
        return [text for name, text in self.all if name == level]

    def __contains__(self, part: str) -> bool:
        return any(part in text for _, text in self.all)


async def until(holds: Callable[[], bool], what: str = "it") -> None:
    """Let the reactor turn until it holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not come about in {PATIENCE:.0f} s"
        await deferLater(reactor, 0.002)


class Client(Protocol):
    """A client of any port: keeps what it hears."""

    transport: ITCPTransport

    def __init__(self) -> None:
        self.heard = b""
        self.over = False

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.over = True

    async def hears(self, line: bytes) -> None:
        await until(lambda: self.heard.endswith(b"\n") or self.over, f"{line!r}")
        assert self.heard == line

    async def ends(self) -> None:
        await until(lambda: self.over, "the end of a connection")

    async def leave(self) -> None:
        self.transport.abortConnection()
        await self.ends()


async def connect(where: int | str) -> Client:
    """Connect to a port of 127.0.0.1, or to a Unix socket's path."""
    place = f"unix:{where}" if isinstance(where, str) else f"tcp:127.0.0.1:{where}"
    return await clientFromString(reactor, place).connect(Factory.forProtocol(Client))  # type: ignore[no-untyped-call,no-any-return]


class Balancer:
    """A running service and its file."""

    def __init__(self, file: Path, service: BalancerService) -> None:
        self.file = file
        self.service = service

    def port(self, kind: str, number: int = 0) -> int:
        return [one.port for one in self.service.serving.opened if one.spec.kind == kind][number]

    @property
    def ports(self) -> dict[str, int]:
        return {one.spec.kind: one.port for one in self.service.serving.opened}

    async def client(self, waits_behind: int | None = None) -> Client:
        """A client of 5656; with a number, wait until it waits, behind that many."""
        client = await connect(self.port("balance"))
        if waits_behind is not None:
            await self.await_waiters(waits_behind + 1)
        return client

    async def page(self) -> wire.ParsedStatus:
        client = await connect(self.port("status"))
        await client.ends()
        return wire.parse_status(client.heard)

    async def say(self, line: bytes) -> None:
        client = await connect(self.port("update"))
        client.transport.write(line)
        await client.ends()

    def hosts(self) -> dict[str, HostState]:
        return {host.spec.name: host for host in self.service.leases.snapshot().hosts}

    def counts(self) -> tuple[int, int]:
        """Leases and waiters."""
        now = self.service.leases.snapshot()
        return len(now.leases), len(now.waiters)

    async def await_waiters(self, number: int) -> None:
        await until(lambda: self.counts()[1] == number, f"{number} waiters")

    async def await_leases(self, number: int) -> None:
        await until(lambda: self.counts()[0] == number, f"{number} leases")

    async def reload(self, text: str) -> bool:
        self.file.write_text(alone(text))
        return await self.service.reload()


def make(file: Path, *words: str) -> BalancerService:
    options = Options()
    options.parseOptions(["-c", str(file), *words])  # type: ignore[no-untyped-call]
    return makeService(options)


@asynccontextmanager
async def balancer(directory: Path, text: str, *words: str) -> AsyncIterator[Balancer]:
    """A service that runs while the block does."""
    file = directory / "hosts.yaml"
    file.write_text(alone(text))
    service = make(file, *words)
    try:
        service.startService()
        yield Balancer(file, service)
    finally:
        await service.stopService()


def takes_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE).close()
    except ConnectionRefusedError:
        return False
    return True


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def said(errors: LoggedErrors) -> list[str]:
    """The errors that were logged, as text."""
    return [str(event.get("reason") or event["log_format"]) for event in errors.flush()]


async def leave(one: Balancer, *clients: Client) -> None:
    for client in clients:
        await client.leave()
    await one.await_leases(0)
