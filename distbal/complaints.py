"""Log lines about what strangers do wrong, so bounded that nobody can fill a disk with them.

Of each kind the first few in a minute are logged as they come; the rest are counted, and the count is told with the next line
that is let through.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from distbal.bounds import bounds

#: lines of one kind that are logged in full within one period
BURST = 10
#: seconds
PERIOD = 60.0


class Complaints:
    """A logger for the misbehaviour of peers.

    :param seconds: a clock that never goes back.
    :param bound: the bound that all of these are about (:data:`distbal.bounds.BOUNDS`); "" where each says so itself.
    """

    def __init__(self, log: Logger, seconds: Callable[[], float], bound: str = "") -> None:
        self._log = log
        self._bound = bound
        self._seconds = seconds
        #: by format: when its period began, and how many came in it
        self._kinds: dict[str, tuple[float, int]] = {}

    def __call__(self, form: str, *, bound: str = "", **fields: object) -> bool:
        """Log a warning, or count it.

        :param form: twisted.logger's format, a constant of the caller's: it names the kind.
        :param bound: the bound that was hit, which is counted in any case.
        :returns: whether it was logged.
        """
        if bound := bound or self._bound:
            bounds.hit(bound)
        now = self._seconds()
        began, count = self._kinds.get(form, (now, 0))
        suppressed = 0
        if now - began >= PERIOD:
            suppressed, began, count = max(0, count - BURST), now, 0
        self._kinds[form] = (began, count + 1)
        if count >= BURST:
            return False
        more = " (and {suppressed} more like this before)" if suppressed else ""
        last = " (more of these within a minute are only counted)" if count == BURST - 1 else ""
        self._log.warn(form + more + last, suppressed=suppressed, **fields)
        return True
