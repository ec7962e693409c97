"""Bugs that are met while the daemon runs: each ends what it met and nothing else, is logged once, and is counted.

Whoever serves many (connections, monitors, pages, commands, timers) catches what one of them raises and says so here. A bug is
known again by what was raised and where: the first time it is logged with its traceback, and after that in one line at most
once a minute, since one that a thousand connections meet would fill a disk. What Twisted caught by itself comes here through
:mod:`distbal.loggate`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

from twisted.python.failure import Failure

from distbal.logs import Logger

#: where a bug was met, and what it ended there: a client's connection; a proxied session; what a lease's holder was to be told;
#: one monitor's check; one answer of the page, the API or the metrics; one verb or line of an admin; one turn of something
#: periodic; a reload; or whatever Twisted caught itself (a protocol, a timed call, a Deferred that nobody looked at)
Where = Literal["connection", "session", "lease", "monitor", "page", "command", "periodic", "reload", "reactor"]
PLACES: tuple[Where, ...] = get_args(Where)
#: seconds between two lines about one bug
PERIOD = 60.0
#: bugs that are told from each other; what is met beyond them counts as one for each place
MOST_KNOWN = 200
#: marks an event of the log whose bug is counted already
MARK = "distbal_bug"


@dataclass(slots=True)
class _Known:
    """One bug.

    :ivar told: when it was last logged; ``untold``: how often it was met since.
    """

    log: Logger
    where: Where
    what: str
    told: float
    untold: int = 0


class Bugs:
    """Counts and logs them.

    :param seconds: a clock that never goes back.
    :ivar counts: exceptions since the start, by where they were met: every place is there.
    """

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self.counts: Counter[Where] = Counter()
        self._known: dict[tuple[str, str], _Known] = {}
        self.begin()

    def begin(self) -> None:
        """Count from 0, and know none: a daemon starts."""
        self.counts.clear()
        self.counts.update(dict.fromkeys(PLACES, 0))
        self._known.clear()

    def met(self, where: Where, log: Logger, form: str, failure: Failure | None = None, /, **fields: object) -> None:
        """An exception was met: count it, and log it if it is news.

        :param log: whose it is.
        :param form: twisted.logger's format: what came of it; ``fields`` are for that.
        :param failure: the exception; None for the one that is handled now.
        """
        problem = Failure() if failure is None else failure  # type: ignore[no-untyped-call]
        if self.note(where, log, problem):
            marked: dict[str, Any] = {MARK: True, **fields}
            log.failure(form, problem, **marked)

    def count(self, where: Where) -> None:
        """Count one that is logged otherwise: with what it was, and seldom."""
        self.counts[where] += 1

    def note(self, where: Where, log: Logger, failure: Failure) -> bool:
        """Count it; whether it is to be logged in full, by the caller. If it is known, a line says so here, now or later."""
        self.counts[where] += 1
        now = self._seconds()
        key = where, signature(failure)
        if key not in self._known and len(self._known) >= MOST_KNOWN:
            key = where, "one of many"
        known = self._known.get(key)
        if known is None:
            self._known[key] = _Known(log, where, key[1], now)
            return True
        known.untold += 1
        if now - known.told >= PERIOD:
            _tell(known, now)
        return False

    def tell(self) -> None:
        """Log what was met since it was last told, where that is long enough ago. To be called now and then."""
        now = self._seconds()
        for known in list(self._known.values()):
            if known.untold and now - known.told >= PERIOD:
                _tell(known, now)

    @contextmanager
    def survived(self, where: Where, log: Logger, form: str, **fields: object) -> Iterator[None]:
        """What the block raises ends the block alone; see :meth:`met`."""
        try:
            yield
        except Exception:  # noqa: BLE001 (that is what this is for)
            self.met(where, log, form, **fields)


def _tell(known: _Known, now: float) -> None:
    known.log.error(
        "the same bug as before, {times} times more in the last {seconds:.0f} s ({where}): {what}",
        times=known.untold,
        seconds=now - known.told,
        where=known.where,
        what=known.what,
        **{MARK: True},
    )
    known.told, known.untold = now, 0


def signature(failure: Failure) -> str:
    """What tells a bug from others: the kind of exception, where it was raised, and from which line of ours."""
    kind = getattr(failure.type, "__name__", "exception")
    # innermost last; of a recursion a thousand deep, its end is enough
    frames = failure.frames[-50:]
    places = [f"{_short(frame[1])}:{frame[2]}" for frame in frames]
    ours = [place for place in places if place.startswith("distbal/")]
    raised = places[-1] if places else "nowhere"
    return f"{kind} at {raised}" + (f", from {ours[-1]}" if ours and ours[-1] != raised else "")


def _short(path: str) -> str:
    """A file of ours without what is before the package; of others, the last two names."""
    _, package, inside = path.rpartition("/distbal/")
    return f"distbal/{inside}" if package else "/".join(path.split("/")[-2:])


#: those of this process
bugs = Bugs()
