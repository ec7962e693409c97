"""Real peers on real sockets in this very process: they connect, send, half-close, reset and read while the reactor turns.

Connecting and sending are done by the system at once; whatever has to be awaited lets the reactor turn meanwhile.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.support import reset_at_close

#: seconds in which whatever is awaited has come, or never will
PATIENCE = 20.0


@implementer(IReadDescriptor)
class _Watch:
    """A socket that the reactor looks at until something is there to read."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.ready: Deferred[None] = Deferred()

    def fileno(self) -> int:
        return self._sock.fileno()

    def logPrefix(self) -> str:
        return "a peer"

    def doRead(self) -> None:
        reactor.removeReader(self)
        self.ready.callback(None)

    def connectionLost(self, reason: Failure) -> None:
        raise AssertionError(reason)


async def readable(sock: socket.socket) -> None:
    """Let the reactor turn until there is something to read, the end included."""
    watch = _Watch(sock)
    reactor.addReader(watch)
    try:
        await watch.ready.addTimeout(PATIENCE, reactor)
    finally:
        reactor.removeReader(watch)


async def until(holds: Callable[[], bool], what: str = "it") -> None:
    """Let the reactor turn until it holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not come about in {PATIENCE:.0f} s"
        await deferLater(reactor, 0)


class Peer:
    """Somebody who connects.

    :param where: an address as socket.connect takes it; a path for a Unix socket.
    :param window: bytes of its receive buffer; small for one who reads slowly.
    :param source: the address that it comes from, such as 127.0.0.2: another client.
    """

    def __init__(self, where: Any, *, window: int = 0, source: str = "") -> None:
        family = socket.AF_UNIX if isinstance(where, str) else socket.AF_INET6 if ":" in where[0] else socket.AF_INET
        self.sock = socket.socket(family)
        if window:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self.sock.settimeout(PATIENCE)
        try:
            if source:
                self.sock.bind((source, 0))
            self.sock.connect(where)
        except BaseException:
            self.sock.close()
            raise
        self.sock.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def port(self) -> int:
        return int(self.sock.getsockname()[1])

    # -- what it does

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    async def send_much(self, data: bytes) -> None:
        """Send as much at a time as fits."""
        left = memoryview(data)

        def all_sent() -> bool:
            nonlocal left
            with contextlib.suppress(BlockingIOError):
                left = left[self.sock.send(left) :]
            return not left

        await until(all_sent, "sending")

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Be gone as a process that is killed with bytes unread."""
        reset_at_close(self.sock)
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    # -- what it hears

    def silence(self) -> bool:
        """Whether nothing came so far, not even the end."""
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        return False

    async def line(self) -> bytes:
        """The next bytes to the end of a line, or all to the end."""
        line = b""
        while not line.endswith(b"\n"):
            await readable(self.sock)
            byte = self.sock.recv(1)
            if not byte:
                break
            line += byte
        return line

    async def rest(self) -> bytes:
        """All to the end. ConnectionResetError where that is no clean one."""
        parts: list[bytes] = []
        while True:
            await readable(self.sock)
            part = self.sock.recv(1 << 16)
            if not part:
                return b"".join(parts)
            parts.append(part)

    async def is_turned_away(self) -> bool:
        """Whether the next thing that comes is the end."""
        try:
            return await self.line() == b""
        except ConnectionResetError:
            return True


def has_ipv6() -> bool:
    """Whether this machine's loopback speaks it."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


with_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
