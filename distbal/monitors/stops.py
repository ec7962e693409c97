"""The end of monitors: each is stopped when its last check has ended, and is given a while for that."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList, maybeDeferred, succeed
from twisted.python.failure import Failure

from distbal.complaints import Complaints
from distbal.monitors.answers import named
from distbal.monitors.watch import Watch

#: seconds that monitors have to stop
STOP_TIME = 5.0


class Stops:
    """Stops monitors.

    :ivar leaving: those that are gone, and whose last check has yet to end.
    """

    def __init__(self, clock: Any, complain: Complaints) -> None:
        self._clock = clock
        self._complain = complain
        self._stopping: set[Deferred[Any]] = set()
        self.leaving: dict[Watch, Deferred[None]] = {}

    def dismiss(self, watch: Watch) -> Deferred[None]:
        """Stop the monitor; a new one is made for the next check, if any. Fires when it has stopped, or could not be."""
        monitor, watch.monitor = watch.monitor, None
        if monitor is None:
            return succeed(None)

        def failed(failure: Failure) -> None:
            text = f"it took more than {STOP_TIME:g} s" if isinstance(failure.value, CancelledError) else named(failure)
            self._complain("the monitor {source} of {host} could not be stopped: {text}", text=text, **watch.names)

        stopping = maybeDeferred(lambda: monitor.stop()).addErrback(failed)  # noqa: PLW0108 (it may have no stop)
        self._await(stopping)
        return stopping.addCallback(lambda _: None)

    def dismiss_later(self, watch: Watch) -> None:
        """Its last check has been cancelled: stop the monitor at :meth:`check_ended`."""
        left: Deferred[None] = Deferred()
        self.leaving[watch] = left
        self._await(left)

    def check_ended(self, watch: Watch) -> None:
        """The last check of one that is gone has ended."""
        stopped = self.dismiss(watch)
        left = self.leaving.pop(watch, None)
        if left is not None:
            stopped.addCallback(left.callback)

    def all_over(self) -> Deferred[Any]:
        """Fires when every monitor has stopped, or has had its time."""
        stopping = list(self._stopping)
        together: Deferred[Any] = DeferredList(stopping)
        if all(one.called for one in stopping):
            return together
        return together.addTimeout(STOP_TIME, self._clock).addErrback(lambda _: None)

    def _await(self, stopping: Deferred[Any]) -> None:
        self._stopping.add(stopping)
        stopping.addBoth(lambda _: self._stopping.discard(stopping))
