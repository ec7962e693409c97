"""What is done again and again: a bug in one turn ends that turn alone.

Twisted's LoopingCall stops for ever at the first exception, and a chain of callLater breaks where a link raises before it has
made the next. Here the next turn is set first, and what a turn raises is logged and counted.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from distbal.bugs import bugs
from distbal.logs import Logger


class Periodic:
    """Calls something at equal intervals, which do not drift; turns that are missed are left out.

    :param clock: never goes back.
    :param interval: seconds.
    :param turn: called without arguments.
    :param what: what it does, for the log: the beginning of a sentence.

    :ivar late: seconds by which this turn, or the last one, came later than it should.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, interval: float, turn: Callable[[], object], what: str) -> None:
        self._clock = clock
        self._interval = interval
        self._turn = turn
        self._what = what
        self._due = 0.0
        self._timer: IDelayedCall | None = None
        self.late = 0.0

    @property
    def running(self) -> bool:
        return self._timer is not None

    def start(self, *, now: bool = False) -> None:
        """From now on; nothing happens where it runs already.

        :param now: the first turn is now, and not after an interval.
        """
        if self._timer is None:
            self._due = self._clock.seconds()
            self._set_timer(self._due)
            if now:
                self._take()

    def stop(self) -> None:
        """No more turns; nothing happens where it does not run."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, now: float) -> None:
        # those that lie in the past are left out
        self._due += self._interval * (max(0.0, now - self._due) // self._interval + 1.0)
        self._timer = self._clock.callLater(self._due - now, self._go)

    def _go(self) -> None:
        now = self._clock.seconds()
        self.late = max(0.0, now - self._due)
        self._set_timer(now)
        self._take()

    def _take(self) -> None:
        with bugs.survived("periodic", self.log, "{what} met a bug; the next turn comes", what=self._what):
            self._turn()
