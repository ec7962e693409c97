"""What this process holds, so that it can be said what somebody left behind; and waiting that has an end."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

#: seconds between two looks
LOOK = 0.005
#: seconds for which nothing may hold the reactor up: far more than starting a program takes on a busy machine
MOST_ASLEEP = 0.5


def expect(holds: object, words: str) -> None:
    """Fail with these words where it does not hold."""
    if not holds:
        raise AssertionError(words)


async def eventually(reactor: Any, holds: Callable[[], bool], seconds: float) -> bool:
    """Let the reactor turn until it holds; whether that came about in so many seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        before = asleep()
        await deferLater(reactor, LOOK)
        does_not_sleep(before, "something")
    return True


def asleep() -> float:
    """Seconds in which this thread neither ran nor waited for a CPU, from some moment on: it slept, or waited for a disk.

    How busy the machine is does not matter to it. It is 0.0 where the kernel does not count (CONFIG_SCHED_INFO).
    """
    try:
        ran, waited, _ = Path("/proc/thread-self/schedstat").read_text().split()
    except OSError:
        return 0.0
    return time.monotonic() - (int(ran) + int(waited)) / 1e9


def does_not_sleep(before: float, what: str) -> None:
    """Fail where too much of that was added in one turn of the reactor: jobs would have waited meanwhile."""
    seconds = asleep() - before
    expect(seconds < MOST_ASLEEP, f"{what} held the reactor up for {seconds:.2f} s")


async def ended(reactor: Any, deferred: Deferred[Any], seconds: float, what: str) -> Any:
    """What a Deferred fires with, a Failure included; AssertionError where it does not fire within so many seconds."""
    results: list[Any] = []
    # it is heard here, so that a failure is not one that nobody heard of
    deferred.addBoth(results.append)
    expect(await eventually(reactor, lambda: bool(results), seconds), f"{what} has not ended after {seconds:g} s")
    return results[0]


class Holdings:
    """What the process holds now, to compare with later.

    Delayed calls are told apart by what they call: a looping call makes a new one each time.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._calls = _calls(reactor)
        self._watched = _watched(reactor)
        self._children = children()
        self._threads = threads()
        self._descriptors = descriptors()

    def more(self) -> list[str]:
        """What is there now and was not then, in words."""
        left = [f"a delayed call of {call!r}" for call in _calls(self._reactor) - self._calls]
        left += [f"a reader or writer: {one!r}" for one in _watched(self._reactor) - self._watched]
        left += [f"the process {pid}" for pid in children() - self._children]
        left += [f"the thread {name}" for name, _ in threads() - self._threads]
        left += [f"descriptor {number}: {leads_to}" for number, leads_to in descriptors() - self._descriptors]
        return left

    def number(self) -> int:
        """How many descriptors and processes are there now and were not then."""
        return len(children() - self._children) + len(descriptors() - self._descriptors)


def children() -> set[str]:
    """The processes that this one has."""
    found: set[str] = set()
    for task in Path("/proc/self/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
            found.update(task.read_text().split())
    return found


def threads() -> set[tuple[str, int | None]]:
    """The threads that run, by their names; without those of Twisted's pools, which stay for the next one who needs them."""
    return {(one.name, one.ident) for one in threading.enumerate() if not one.name.startswith("PoolThread-")}


def descriptors() -> set[tuple[str, str]]:
    """The open descriptors, and where each leads."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the directory itself
            found.add((path.name, str(path.readlink())))
    return found


def memory() -> int:
    """The bytes of main memory that the process occupies, without what it has freed and keeps for later."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        # a GNU libc, which may have plenty
        trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def _calls(reactor: Any) -> Counter[Any]:
    return Counter(call.func for call in reactor.getDelayedCalls())


def _watched(reactor: Any) -> set[Any]:
    return {*reactor.getReaders(), *reactor.getWriters()}


@implementer(ILogObserver)
class Errors:
    """What is logged as an error while the ``with`` block runs: the bugs that Twisted catches and goes on after."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        """The observer."""
        level = event.get("log_level")
        if "log_failure" in event or event.get("isError") or (level is not None and level.name in ("error", "critical")):
            self.events.append(event)

    def __enter__(self) -> Self:
        globalLogPublisher.addObserver(self)
        return self

    def __exit__(self, *exception: object) -> None:
        globalLogPublisher.removeObserver(self)

    def words(self) -> list[str]:
        """All of them, those included that a Deferred nobody heard tells when it goes."""
        gc.collect()
        return [_words(event) for event in self.events]


def _words(event: LogEvent) -> str:
    failure: Failure | None = event.get("log_failure")
    text = formatEvent(event) or repr(event)
    return text if failure is None else f"{text}\n{failure.getTraceback()}"
