"""What takes long to compute, done in spells between which jobs are served.

It is a generator, which lets go now and then, and returns what it made. All that are on their way share the spells; after a
full one there is a rest as long, so that whoever asks without end leaves half of the time to others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import CooperativeTask, Cooperator, SchedulerStopped, TaskStopped
from twisted.python.failure import Failure

from distbal.verbs import VerbError

T = TypeVar("T")

#: lets go by ``yield``, often enough that a spell is not much longer than it should be
Steps = Generator[None, None, T]
#: seconds of computing after which jobs are served in between
SPELL = 0.005
#: items of a list that are made between two looks at the clock
BATCH = 16


class Spells:
    """Does them.

    :param clock: when to go on: the reactor.
    :param cpu: seconds that this thread has computed.
    """

    def __init__(self, clock: IReactorTime, cpu: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self._cpu = cpu
        self._rest = 0.0
        self._tasks: dict[CooperativeTask[Any], None] = {}
        self._over = False
        self._work = Cooperator(
            terminationPredicateFactory=self._spell, scheduler=lambda go_on: clock.callLater(self._rest, go_on)
        )

    def do(self, steps: Steps[T]) -> Deferred[T]:
        """Fires with what it returns, and fails with what it raises; with VerbError at :meth:`stop`.

        Who does not want it any more cancels it.
        """
        made: list[T] = []

        def go() -> Iterator[None]:
            made.append((yield from steps))

        def ended(failure: Failure) -> Failure:
            # Twisted's errors, in words; to whoever cancelled it, it is that
            if self._over and isinstance(failure.value, TaskStopped | SchedulerStopped):
                raise VerbError("distbal stops")
            if isinstance(failure.value, TaskStopped):
                raise CancelledError
            return failure

        task = self._work.cooperate(go())
        self._tasks[task] = None
        done: Deferred[T] = Deferred(lambda _: task.stop())
        task.whenDone().addBoth(self._forget, task).addCallbacks(lambda _: made[0], ended).addCallbacks(
            done.callback, done.errback
        )
        return done

    def stop(self) -> None:
        """Do nothing any more."""
        self._over = True
        # Twisted's own forgets every other one of them
        for task in list(self._tasks):
            task.stop()
        self._work.stop()

    def _forget(self, result: T, task: CooperativeTask[Any]) -> T:
        del self._tasks[task]
        return result

    def _spell(self) -> Callable[[], bool]:
        began = self._cpu()

        def is_over() -> bool:
            full = self._cpu() - began > SPELL
            self._rest = SPELL if full else 0.0
            return full

        return is_over


def at_once(steps: Steps[T]) -> T:
    """What it returns, for those who cannot wait."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def listed(items: Iterator[T], batch: int = BATCH) -> Steps[list[T]]:
    """All of them, so many at a time."""
    found: list[T] = []
    for item in items:
        found.append(item)
        if len(found) % batch == 0:
            yield
    return found


def is_long(answer: Mapping[str, Any]) -> bool:
    """Whether an answer is one that should not be made into text at once."""
    return any(isinstance(value, list) and len(value) > BATCH for value in answer.values())
