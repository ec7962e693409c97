"""Keeps what people decided on the disk: off the reactor's thread, the latest in place of what was not written yet.

How it is written, and that a crash leaves one or the other whole, is :mod:`distbal.state`'s business.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from distbal.errors import DistbalError
from distbal.logs import Logger


class Saver:
    """Writes one thing after the other.

    :param write: writes what it is given, in a thread; raises DistbalError where that cannot be done. None: nothing is kept.
    :param why_not: what to say where nothing is kept: the end of a sentence.
    """

    log = Logger()

    def __init__(self, write: Callable[[bytes], None] | None, why_not: str = "") -> None:
        self._write = write
        self._why_not = why_not
        self._wanted: Callable[[], bytes] | None = None
        self._writing = False
        self._waiting: list[Deferred[str]] = []

    def save(self, make: Callable[[], bytes]) -> None:
        """Keep this soon; ``make`` makes the bytes, once it is its turn."""
        if self._write is None:
            return
        self._wanted = make
        if not self._writing:
            self._begin(self._write)

    def saved(self) -> Deferred[str]:
        """Fires when nothing is left to be written: with why the last could not be, or ""."""
        if not self._writing:
            return succeed(self._why_not)
        waits: Deferred[str] = Deferred()
        self._waiting.append(waits)
        return waits

    def _begin(self, write: Callable[[bytes], None]) -> None:
        make, self._wanted = self._wanted, None
        if make is None:
            return
        self._writing = True
        deferToThread(write, make()).addCallbacks(lambda _: "", self._cannot).addCallback(self._written, write)

    def _cannot(self, failure: Failure) -> str:
        if isinstance(failure.value, DistbalError):
            why = str(failure.value)
            self.log.error("what was decided cannot be kept: {why}", why=why)
            return why
        self.log.failure("what was decided cannot be kept, by a bug", failure)
        return "of a bug: the log tells more"

    def _written(self, why_not: str, write: Callable[[bytes], None]) -> None:
        self._writing, self._why_not = False, why_not
        self._begin(write)
        if not self._writing:
            waiting, self._waiting = self._waiting, []
            for waits in waiting:
                waits.callback(why_not)
