"""The three ports without the daemon around them, on real sockets: for tests of what their clients meet."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.logger import LogEvent, Logger, formatEvent

from distbal.access import AccessList
from distbal.briefports import StatusFactory, UpdateFactory
from distbal.complaints import Complaints
from distbal.hosts import HostSpec
from distbal.leases import LocalLeases
from distbal.listeners import Opened
from distbal.listenspec import Listener, parse
from distbal.loop import HotLoop
from distbal.ports import BalanceFactory, BalancePort, Replies, Terms
from tests.farms import scheduler, spec

#: the ways in which clients of 5656 are served, and where each listens: by the hot loop; by Twisted on an endpoint of the
#: user's; by Twisted on a socket of ours, as where there is no epoll
HOWS = {"hot": "127.0.0.1:0", "endpoint": "tcp:0:interface=127.0.0.1:backlog=4096", "adopted": "127.0.0.1:0"}


class Lending:
    """What there is to see, and to decide, wherever slots are lent."""

    leases: LocalLeases
    terms: Terms

    def allow(self, *words: str) -> None:
        self.terms.allow_clients = self.terms.allow_update = AccessList.parse(words)

    @property
    def lent(self) -> int:
        return self.leases.scheduler.lent

    @property
    def waiting(self) -> int:
        return self.leases.scheduler.waiting


class Office(Lending):
    """A farm, who may use it, and the ports to it. Its clock is turned by hand: nobody's patience ends by itself.

    :ivar where: the address of the port that is served.
    """

    def __init__(self, *hosts: HostSpec, wait: float | None = None, verbose: bool = False) -> None:
        self.clock = Clock()
        self.leases = LocalLeases(scheduler(*(hosts or [spec("fast")]), wait=wait), self.clock)
        self.terms = Terms()
        self.terms.replies = Replies("{name}{options}")
        self.allow("loopback")
        complain = Complaints(Logger(), self.clock.seconds)
        self.balance = BalancePort(self.leases, self.terms, "default", complain, verbose=verbose)
        self.status = StatusFactory("status", self.leases, self.terms, complain, self.clock)
        self.update = UpdateFactory("update", self.leases, self.terms, complain, self.clock)
        self.where: Any = None

    @asynccontextmanager
    async def serves(self, kind: str, at: str, how: str = "", room: int = 10_000) -> AsyncIterator[Opened]:
        """Serve one of the ports while the block runs.

        :param kind: ``balance``, ``status`` or ``update``.
        :param at: where, as in hosts.yaml.
        :param how: ``hot`` for the hot loop.
        """
        opened = Opened(Listener(kind, parse(at)))
        loop = HotLoop(reactor, reactor, room)
        try:
            if how == "hot":
                opened.serve_hot(loop, lambda descriptor, address: self.balance.hot(loop, descriptor, address))
            else:
                factories = {"balance": BalanceFactory(self.balance), "status": self.status, "update": self.update}
                await opened.serve(reactor, factories[kind])
            self.where = ("127.0.0.1", opened.port) if opened.port else opened.spec.at.path
            yield opened
        finally:
            await opened.close()
            loop.stop()
            self.leases.stop()


def texts(events: Collection[LogEvent]) -> list[str]:
    """What was logged, as it is read."""
    return [formatEvent(event) for event in events]


def our_end(peer: socket.socket) -> socket.socket:
    """A duplicate of the socket that a peer in this process talks to."""
    for name in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            copy = socket.dup(int(name.name))
            try:
                found = socket.socket(fileno=copy)
            except OSError:
                os.close(copy)
                continue
            try:
                if found.getpeername() == peer.getsockname() and found.getsockname() == peer.getpeername():
                    return found
            except OSError:
                found.close()
                continue
            found.close()
    raise AssertionError("nobody has accepted it")
