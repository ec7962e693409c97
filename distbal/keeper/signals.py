"""Signals as numbers that can be read from a descriptor, so that the loop has one place to wait in."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

FORWARDED = (signal.SIGHUP, signal.SIGUSR2)
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
CAUGHT = (*FORWARDED, *ENDING, signal.SIGCHLD)


def block() -> None:
    """Keep all that is caught waiting: it would end a process that has no handlers yet."""
    signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)


class Signals:
    """The signals of this process."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before: dict[int, object] = {}

    def fileno(self) -> int:
        """The descriptor, for epoll."""
        return self._reading

    def catch(self) -> None:
        """Catch them from now on, and those that waited."""
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        for number in CAUGHT:
            signal.signal(number, _caught)
        self.unblock()
        # a child may have ended before
        self.add([signal.SIGCHLD])

    def release(self) -> None:
        """End them for good: what comes now ends this process."""
        signal.set_wakeup_fd(-1)
        for number in CAUGHT:
            signal.signal(number, signal.SIG_DFL)

    def block(self) -> None:
        """See :func:`block`."""
        block()

    def unblock(self) -> None:
        """Let them come again."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)

    def add(self, numbers: Iterable[int]) -> None:
        """As if these had come."""
        os.write(self._writing, bytes(numbers))

    def come(self) -> list[int]:
        """Those that have come since it was last asked."""
        try:
            return list(os.read(self._reading, 4096))
        except BlockingIOError:
            return []


def _caught(_number: int, _frame: object) -> None:
    """The number is in the pipe already."""
