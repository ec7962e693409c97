"""One epoll in one thread, in which thousands of plain sockets are served: what the crowds of the tests live in.

Nothing here knows distbal. Whatever is awaited is awaited by turning the room until it is there, or until patience ends.
"""

from __future__ import annotations

import resource
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

#: seconds in which whatever is awaited has come, or never will
PATIENCE = 60.0

READ, WRITE = select.EPOLLIN | select.EPOLLRDHUP, select.EPOLLOUT
LOST = select.EPOLLHUP | select.EPOLLERR


class Room:
    """The sockets, and what is called when something happens to one: with its epoll events."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, Callable[[int], None]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._epoll.close()

    def watch(self, sock: socket.socket, events: int, serve: Callable[[int], None]) -> None:
        self._watched[sock.fileno()] = serve
        self._epoll.register(sock, events)

    def change(self, sock: socket.socket, events: int) -> None:
        """Other events from now on; with 0, a reset alone is told."""
        self._epoll.modify(sock, events)

    def forget(self, sock: socket.socket) -> None:
        """To be called before it is closed."""
        del self._watched[sock.fileno()]
        self._epoll.unregister(sock)

    def turn(self, timeout: float = 0.0) -> None:
        """Serve what has happened, after waiting for so many seconds at most."""
        for descriptor, events in self._epoll.poll(timeout, 1024):
            # whoever was served before it may have forgotten it
            if (serve := self._watched.get(descriptor)) is not None:
                serve(events)

    def until(self, holds: Callable[[], bool], what: str | Callable[[], str] = "it", patience: float = PATIENCE) -> None:
        """Turn until it holds.

        :param what: what is waited for; or says it when it did not come.
        """
        deadline = time.monotonic() + patience
        while not holds():
            if time.monotonic() >= deadline:
                raise AssertionError(f"{what if isinstance(what, str) else what()} did not come about in {patience:.0f} s")
            self.turn(0.02)

    @staticmethod
    def now() -> float:
        """Seconds, on the clock that patience is measured by."""
        return time.monotonic()

    def spend(self, seconds: float) -> None:
        """Turn for so long: for what happens at a moment of chance."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.turn(left)


@contextmanager
def many_descriptors() -> Iterator[int]:
    """This process, and what it starts, may have as many as the system allows; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = 1 << 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
