"""How the daemon itself is: bugs that were met, bounds that were hit, the event loop's lag, lines of the log that are lost.

Bugs, bounds and the log are those of the process, as everything in it tells them; there is one daemon in one.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from distbal.bounds import bounds
from distbal.bugs import PERIOD, bugs
from distbal.lag import Lag
from distbal.loggate import gate
from distbal.periodic import Periodic
from distbal.report import InsideReport, KeeperReport
from distbal.waits import Histogram

#: seconds: the lag is told of the last so many, and of a minute
LATELY, MINUTE = 10.0, 60.0


class Inside:
    """Looks after it, from :meth:`start` to :meth:`stop`.

    :param clock: the reactor; never goes back.
    :param room: for how many descriptors of clients there is room now; None where that is not known.
    :param keeper: the keeper; None where there is none.
    :ivar lag: the event loop's.
    :ivar lost: connections that were lost with the process before.
    """

    def __init__(
        self,
        clock: IReactorTime,
        room: Callable[[], int | None] = lambda: None,
        keeper: Callable[[], KeeperReport | None] = lambda: None,
    ) -> None:
        bugs.begin()
        bounds.begin()
        self.lag = Lag(clock)
        self._room = room
        self._keeper = keeper
        self.lost = 0
        self._teller = Periodic(clock, PERIOD, bugs.tell, "to tell of bugs that were met again")
        self._started = False

    def start(self) -> None:
        """From now on; where the log goes must be settled."""
        if not self._started:
            self._started = True
            gate.install()
            self.lag.start()
            self._teller.start()

    def stop(self) -> None:
        """The end; nothing happens where it was not started."""
        if self._started:
            self._started = False
            self._teller.stop()
            self.lag.stop()

    def report(self) -> InsideReport:
        """For readers."""
        mean, most = self.lag.over(LATELY)
        return {
            "bugs": {str(place): count for place, count in bugs.counts.items()},
            "bounds": dict(bounds.hits),
            "room": self._room(),
            "lag": {
                "mean": round(mean, 6),
                "most": round(most, 6),
                "minute": round(self.lag.over(MINUTE)[1], 6),
                "worst": round(self.lag.worst, 6),
            },
            "log_lost": gate.lost,
            "log_trouble": gate.trouble,
            "keeper": self._keeper(),
            "lost": self.lost,
        }

    def lags(self) -> Histogram:
        """All looks at the lag since the start; the bounds of its buckets are :data:`distbal.lag.BOUNDS`."""
        return Histogram(self.lag.counts, self.lag.seconds)
