"""What stands between the log and where it goes: a full disk, a closed standard error or a reader that is gone stops no job.

twistd decides where lines go; this is put in front of it when the daemon starts, and stays there to the last line. A line that
cannot be written is lost, and counted, and the first one that can be written again says how many were. A pipe or a terminal
that takes nothing more now (its reader is stopped) is not waited for: a line that does not fit is lost too. And a bug that
Twisted caught by itself passes once: see :mod:`distbal.bugs`.
"""

from __future__ import annotations

import os
import select
import stat
from typing import Any

from twisted.logger import ILogObserver, LogEvent, LogPublisher, globalLogPublisher
from zope.interface import implementer

from distbal.bounds import bounds
from distbal.bugs import MARK, bugs
from distbal.logs import Logger

_TAKES = select.POLLOUT | select.POLLERR | select.POLLHUP | select.POLLNVAL
#: of an event with a bug that Twisted caught: whether it is to be logged
_NEWS = "distbal_news"


@implementer(ILogObserver)
class Outlet:
    """Stands in front of one observer of the log. To the log it is that observer, which can be taken out by its own name.

    :ivar lost: lines that could not be written since the last that could; ``why``: of the last of them.
    """

    def __init__(self, observer: Any, gate: Gate) -> None:
        self.lost = 0
        self.why = ""
        self._observer = observer
        self._gate = gate
        self._log = Logger(namespace="distbal.loggate", observer=observer)
        self._poll = _poll(observer)

    def __eq__(self, other: object) -> bool:
        return other is self or other is self._observer or other == self._observer

    def __hash__(self) -> int:
        return hash(self._observer)

    def __call__(self, event: LogEvent) -> None:
        if not self._gate.passes(event):
            return
        try:
            if self._poll is not None and not self._poll.poll(0):
                raise BlockingIOError("whoever reads it does not")  # noqa: TRY301 (it is one more reason)
            if self.lost:
                # to the observer itself: it raises what that raises
                self._log.warn("{lost} lines of the log before this one are lost: {why}", lost=self.lost, why=self.why)
                self.lost = 0
            self._observer(event)
        except Exception as error:  # noqa: BLE001 (whatever it is: to log it would be the same again)
            self.lost += 1
            self.why = str(error)
            self._gate.lost += 1
            bounds.hit("log")


def _poll(observer: Any) -> select.poll | None:
    """What tells whether something can be written without waiting; None where that is so in any case, or unknown."""
    try:
        # Twisted's own; what else there may be (syslog) has no file
        descriptor = observer._outFile.fileno()  # noqa: SLF001 (there is no other way to it)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
    except (AttributeError, OSError, ValueError):
        return None
    poll = select.poll()
    poll.register(descriptor, _TAKES)
    return poll


class Gate:
    """All of them.

    :param publisher: the log.
    :ivar lost: lines that could not be written since the start.
    """

    log = Logger()

    def __init__(self, publisher: LogPublisher = globalLogPublisher) -> None:
        self._publisher = publisher
        self.lost = 0

    @property
    def trouble(self) -> str:
        """Why lines cannot be written now; "" where they can."""
        return next((outlet.why for outlet in self._observers if isinstance(outlet, Outlet) and outlet.lost), "")

    def install(self) -> None:
        """Stand in front of all who observe the log now, and count from 0."""
        self.lost = 0
        observers = self._observers
        observers[:] = [one if isinstance(one, Outlet) else Outlet(one, self) for one in observers]

    def passes(self, event: LogEvent) -> bool:
        """Whether it is to be logged: not so where Twisted caught a bug that is known. Asked by each outlet, decided once."""
        # Twisted before 23.8 tells of what it caught by its older log
        failure = event.get("log_failure") or event.get("failure")
        if failure is None or MARK in event:
            return True
        if _NEWS not in event:
            event[_NEWS] = bugs.note("reactor", self.log, failure)
        return bool(event[_NEWS])

    @property
    def _observers(self) -> list[Any]:
        # the publisher has no name for them that is public
        return self._publisher._observers  # noqa: SLF001


#: the one of this process
gate = Gate()
