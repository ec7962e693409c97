"""One asyncio loop in a thread: what goes in, what comes out, and nothing of it stays."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater

from distbal.bugs import bugs
from distbal.monitors.asyncioloop import AsyncioLoop
from tests.services import until
from tests.support import LoggedErrors


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "asyncio"]


@pytest_twisted.async_yield_fixture
async def loop() -> AsyncIterator[AsyncioLoop]:
    loop = AsyncioLoop(reactor)
    loop.hold()
    yield loop
    await loop.release()
    assert threads() == []


async def where() -> str:
    await asyncio.sleep(0)
    return threading.current_thread().name


@pytest_twisted.ensureDeferred
async def test_a_coroutine_runs_in_its_thread(loop: AsyncioLoop) -> None:
    assert await loop.run(where()) == "asyncio"
    assert threading.current_thread().name != "asyncio"


@pytest_twisted.ensureDeferred
async def test_what_it_raises_comes_out(loop: AsyncioLoop) -> None:
    async def fails() -> None:
        raise ValueError("like this")

    with pytest.raises(ValueError, match="like this"):
        await loop.run(fails())


@pytest_twisted.ensureDeferred
async def test_it_runs_as_long_as_anybody_holds_it() -> None:
    loop = AsyncioLoop(reactor)
    for _ in range(2):
        loop.hold()
        loop.hold()
        await loop.release()
        assert await loop.run(where()) == "asyncio"
        await loop.release()
        assert threads() == []
    with pytest.raises(RuntimeError, match="nobody holds"):
        loop.run(where())


class Sleeper:
    """A coroutine that sleeps until it is cancelled."""

    def __init__(self) -> None:
        self.state = ""

    async def sleep(self) -> None:
        self.state = "sleeps"
        try:
            await asyncio.sleep(3600)
        finally:
            self.state = "over"


@pytest_twisted.ensureDeferred
async def test_cancelling_cancels_the_coroutine(loop: AsyncioLoop) -> None:
    sleeper = Sleeper()
    sleeping = loop.run(sleeper.sleep())
    await until(lambda: sleeper.state == "sleeps")
    sleeping.cancel()
    with pytest.raises(CancelledError):
        await sleeping
    await until(lambda: sleeper.state == "over")


@pytest_twisted.ensureDeferred
async def test_cancelled_at_once_it_does_not_matter_whether_it_had_begun(loop: AsyncioLoop) -> None:
    for _ in range(50):
        sleeping = loop.run(Sleeper().sleep())
        sleeping.cancel()
        with pytest.raises(CancelledError):
            await sleeping


@pytest_twisted.ensureDeferred
async def test_cancelled_too_late_nothing_happens(loop: AsyncioLoop) -> None:
    finished = threading.Event()

    async def finish() -> None:
        finished.set()

    done = loop.run(finish())
    finished.wait(10)
    done.cancel()
    with pytest.raises(CancelledError):
        await done


@pytest_twisted.ensureDeferred
async def test_the_last_to_leave_ends_what_still_runs() -> None:
    loop = AsyncioLoop(reactor)
    loop.hold()
    sleeper = Sleeper()
    sleeping = loop.run(sleeper.sleep())
    await until(lambda: sleeper.state == "sleeps")
    await loop.release()
    assert sleeper.state == "over"
    with pytest.raises(asyncio.CancelledError):
        await sleeping
    assert threads() == []


@pytest_twisted.ensureDeferred
async def test_what_goes_wrong_in_the_loop_itself_is_logged(loop: AsyncioLoop, logged_errors: LoggedErrors) -> None:
    async def leave_a_trap() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)

    await loop.run(leave_a_trap())
    events = logged_errors.flush()
    while not events:
        await deferLater(reactor, 0.002)
        events = logged_errors.flush()
    assert [event["log_failure"].type for event in events] == [ZeroDivisionError]


@pytest_twisted.ensureDeferred
async def test_a_library_that_ends_the_loop_ends_nothing_else(loop: AsyncioLoop, logged_errors: LoggedErrors) -> None:
    """SystemExit ends an asyncio loop: whoever asks after that would be answered by nobody, for ever."""

    async def leaves() -> None:
        raise SystemExit(2)

    with pytest.raises(SystemExit):
        await loop.run(leaves())
    await until(lambda: bugs.counts["monitor"] == 1, "the word of it")
    assert await loop.run(where()) == "asyncio"
    assert len(threads()) == 1
    (event,) = logged_errors.flush()
    assert event["log_format"] == "the asyncio loop was ended by a bug; another one is begun"
    assert event["log_failure"].type is SystemExit
