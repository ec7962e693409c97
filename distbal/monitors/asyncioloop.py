"""One asyncio loop in one daemon thread, for libraries that want asyncio: the daemon itself stays on whichever reactor it has.

It runs while somebody holds it: whoever needs it calls :meth:`AsyncioLoop.hold` before the first coroutine and
:meth:`AsyncioLoop.release` after the last.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from threading import Thread
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from distbal.bugs import bugs
from distbal.logs import Logger
from distbal.monitors.kit import Surroundings

T = TypeVar("T")

#: its place in ``surroundings.shared``
SHARED = "asyncio"


def loop_of(surroundings: Surroundings) -> AsyncioLoop:
    """The one loop that all kinds of monitors share."""
    loop: AsyncioLoop = surroundings.shared.setdefault(SHARED, AsyncioLoop(surroundings.reactor))
    return loop


class AsyncioLoop:
    """Runs coroutines of asyncio for those in the reactor's thread, where all of its methods are to be called."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._holders = 0
        self._running: _Running | None = None

    def hold(self) -> None:
        """Let it run from now on: the first holder starts the thread."""
        self._holders += 1
        if self._running is None:
            self._running = _Running(self._reactor)

    def release(self) -> Deferred[None]:
        """The holder needs it no more. After the last one's, what still runs in it is cancelled and the thread ends.

        :returns: fires when that is done; at once for all but the last holder.
        """
        self._holders -= 1
        if self._holders or self._running is None:
            return succeed(None)
        running, self._running = self._running, None
        return running.stop()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Run a coroutine in the loop; for holders only.

        :returns: fires with its result or its exception, in the reactor's thread. Cancelled, it cancels the coroutine and
            fails at once, without waiting for that.
        """
        if self._running is None:
            coroutine.close()
            raise RuntimeError("nobody holds the loop")
        if self._running.is_over:
            # a library ended it (SystemExit does): those who ask now need another one
            self._running = _Running(self._reactor)
        return _Run(coroutine, self._running).outcome


#: seconds after which the thread lets the reactor's go on
SWITCH = 0.00005


class _Running:
    """The loop and its thread, from a start to its end.

    :ivar is_over: it has ended, as somebody wished or by a bug.
    """

    log = Logger()

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(self._unforeseen)
        self._ended: Deferred[None] = Deferred()
        self._wanted = False
        self.is_over = False
        # the interpreter lets a thread work for 5 ms while others want to, and jobs would wait that long for a grant
        sys.setswitchinterval(min(SWITCH, sys.getswitchinterval()))
        self._thread = Thread(target=self._work, name="asyncio", daemon=True)
        self._thread.start()

    def soon(self, call: Callable[..., object], *args: object) -> None:
        """Call it in the loop."""
        with suppress(RuntimeError):  # it is closed: there is nothing that the call could change
            self.loop.call_soon_threadsafe(call, *args)

    def stop(self) -> Deferred[None]:
        """Fires when the thread is gone."""
        self._wanted = True
        self.soon(self.loop.stop)
        return self._ended

    def _work(self) -> None:
        problem: Failure | None = None
        try:
            self.loop.run_forever()
        except BaseException:  # noqa: BLE001 (asyncio lets SystemExit out, and the thread ends by that)
            problem = Failure()  # type: ignore[no-untyped-call]
        try:
            self.loop.run_until_complete(_cancel_all())
        finally:
            self.loop.close()
            self.reactor.callFromThread(self._over, problem)

    def _over(self, problem: Failure | None) -> None:
        self._thread.join()  # it has nothing left to do
        self.is_over = True
        if not self._wanted:
            bugs.met("monitor", self.log, "the asyncio loop was ended by a bug; another one is begun", problem)
        self._ended.callback(None)

    def _unforeseen(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception in the loop that nobody waits for."""
        problem = context.get("exception") or RuntimeError("no exception")
        self.reactor.callFromThread(
            bugs.met, "monitor", self.log, "in the asyncio loop: {words}", _failure(problem), words=context["message"]
        )


def _failure(problem: BaseException) -> Failure:
    return Failure(problem)  # type: ignore[no-untyped-call]


async def _cancel_all() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    await asyncio.sleep(0)  # transports that were closed are told so in the next turn


class _Run:
    """One coroutine in the loop, and the Deferred outside.

    By hand, and not by asyncio's own ``run_coroutine_threadsafe``: that chains three futures, and there is much to run.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], running: _Running) -> None:
        self._coroutine = coroutine
        self._running = running
        self._task: asyncio.Task[Any] | None = None
        self._given_up = False
        self.outcome: Deferred[Any] = Deferred(lambda _: running.soon(self._cancel))
        running.soon(self._start)

    # -- in the loop's thread

    def _start(self) -> None:
        if self._given_up:
            self._coroutine.close()
            return
        self._task = self._running.loop.create_task(self._coroutine)
        self._task.add_done_callback(self._done)

    def _cancel(self) -> None:
        self._given_up = True
        if self._task is not None:
            self._task.cancel()

    def _done(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            result: Any = _failure(asyncio.CancelledError())
        elif (problem := task.exception()) is not None:
            result = _failure(problem)
        else:
            result = task.result()
        self._running.reactor.callFromThread(self._tell, result)

    # -- in the reactor's thread

    def _tell(self, result: Any) -> None:
        if not self.outcome.called:  # else it was cancelled, and nobody waits any more
            self.outcome.callback(result)  # a Failure, too: that makes it an errback
