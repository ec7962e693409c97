"""What is known of the daemons before, and what follows from how the last one ended. No process and no clock."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, NamedTuple

from distbal.keeper.child import ended

if TYPE_CHECKING:
    from distbal.keeper.child import Life

#: seconds of serving after which an end is no sign of a bad start
A_WHILE = 1.0
#: the pause before a start that is not at once, and the longest, in seconds
SHORTEST, LONGEST = 0.5, 30.0
#: so many daemons in a row did not live with what they were given: the next one gets nothing
FUTILE = 5
#: failures that are counted: beyond them the pause does not grow, nor need the power
_COUNTED = 20


class Past(NamedTuple):
    """The daemons before.

    :ivar since: when the keeper began, seconds since 1970.
    :ivar served: whether there was ever one that served, or something was taken up that another keeper had held.
    :ivar restarts: how many daemons were started because the one before was gone.
    :ivar last: why the last one ended, a sentence; "" for none.
    :ivar failures: how many in a row did not serve for a while.
    :ivar futile: how many of those in a row had been given what is held.
    """

    since: float
    served: bool = False
    restarts: int = 0
    last: str = ""
    failures: int = 0
    futile: int = 0

    def forgetting(self, life: Life, now: float) -> Past:
        """The same, but that failures before one that has served for a while do not count any more."""
        return self._replace(failures=0, futile=0) if life.served(now) >= A_WHILE else self

    def after(self, life: Life, status: int, now: float) -> tuple[Past, str, float]:
        """What is known when one has ended that was not asked to.

        The next one starts at once where this one served for a while or is the first that did not, else after a pause that
        grows. What is held may be what ends them: each that took it up and did not live long counts, but for those that were
        killed from outside (by a person, or for want of memory).

        :param status: of waitpid(2).
        :returns: that, how it ended as the end of a sentence, and the pause in seconds.
        """
        how = f"gave no sign of life for {life.silent:.0f} s, and was killed" if life.silent else ended(status)
        before = self.forgetting(life, now)
        failures, futile = before.failures, before.futile
        if life.served(now) < A_WHILE and life.given and (life.silent or not _killed(status)):
            futile += 1
        past = self._replace(
            restarts=self.restarts + 1,
            last=f"process {life.pid} {how}",
            failures=min(failures + 1, _COUNTED),
            futile=futile,
        )
        return past, how, pause(failures)

    def hopeless(self, life: Life) -> bool:
        """Whether one that ended by itself shows that none will start: none has ever served, and it will have said why."""
        return life.ready is None and not self.served


def pause(failures: int) -> float:
    """Seconds to wait when so many failed before: 0, 0.5, 1, 2, 4 ... 30."""
    return min(LONGEST, SHORTEST * 2.0 ** (failures - 1)) if failures else 0.0


def _killed(status: int) -> bool:
    return status & 0x7F == signal.SIGKILL
