"""What stands between the log and where it goes: a full disk, a closed standard error or a reader that is gone stops no job.

twistd decides where lines go; this is put in front of it when the daemon starts. A line that cannot be written is lost, and
counted, and the first one that can be written again says how many were. A pipe or a terminal that takes nothing more now (its
reader is stopped) is not waited for: a line that does not fit is lost too. And a bug that Twisted caught by itself passes once:
see :mod:`distbal.bugs`.
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


class _Outlet:
    """Where lines go.

    :ivar lost: lines that could not be written since the last that could; ``why``: of the last of them.
    """

    def __init__(self, observer: Any) -> None:
        self.observer = observer
        self.lost = 0
        self.why = ""
        self._log = Logger(namespace="distbal.loggate", observer=observer)
        self._poll = _poll(observer)

    def write(self, event: LogEvent) -> bool:
        """Whether it was written."""
        try:
            if self._poll is not None and not self._poll.poll(0):
                raise BlockingIOError("whoever reads it does not")  # noqa: TRY301 (it is one more reason)
            if self.lost:
                lost = self.lost
                # to the observer itself: it raises what that raises
                self._log.warn("{lost} lines of the log before this one are lost: {why}", lost=lost, why=self.why)
                self.lost -= lost
            self.observer(event)
        except Exception as error:  # noqa: BLE001 (whatever it is: to log it would be the same again)
            self.lost += 1
            self.why = str(error)
            return False
        return True


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


@implementer(ILogObserver)
class Gate:
    """Observes the log, and gives it on.

    :param publisher: the log; those that observe it when this is installed are those that it is given on to.
    :ivar lost: lines that could not be written since the start.
    """

    log = Logger()

    def __init__(self, publisher: LogPublisher = globalLogPublisher) -> None:
        self._publisher = publisher
        self._outlets: list[_Outlet] = []
        self._installed = 0
        self.lost = 0

    @property
    def trouble(self) -> str:
        """Why lines cannot be written now; "" where they can."""
        return next((outlet.why for outlet in self._outlets if outlet.lost), "")

    def install(self) -> None:
        """Stand there from now on, until it is removed as often as it was installed."""
        self._installed += 1
        if self._installed > 1:
            return
        self.lost = 0
        # the publisher has no name for them that is public
        self._outlets = [_Outlet(observer) for observer in self._publisher._observers]  # noqa: SLF001
        for outlet in self._outlets:
            self._publisher.removeObserver(outlet.observer)
        self._publisher.addObserver(self)

    def remove(self) -> None:
        """Let those who observed the log before do so again."""
        self._installed -= 1
        if self._installed:
            return
        self._publisher.removeObserver(self)
        for outlet in self._outlets:
            self._publisher.addObserver(outlet.observer)
        self._outlets = []

    def __call__(self, event: LogEvent) -> None:
        failure = event.get("log_failure")
        if failure is not None and MARK not in event and not bugs.note("reactor", self.log, failure):
            return
        for outlet in self._outlets:
            if not outlet.write(event):
                self.lost += 1
                bounds.hit("log")


#: the one of this process
gate = Gate()
