"""Many sessions of the proxy, one after the other and all at once: nothing leaks, and nobody stalls."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from distbal.proxy import splice
from distbal.proxy.pipes import KEPT
from tests.integration.daemons import ANY, LISTEN, Daemon, running
from tests.integration.farm import PATIENCE, until
from tests.support import reset_at_close, room_for

ENDPOINT = "tcp:0:interface=127.0.0.1:backlog=1000"
#: a request that begins so is closed without an answer
REFUSED = b"x"
#: rounds of 10,000 sessions, of which one must add less than so many kB: 50 bytes a session, less than one object
ROUNDS = 5
STILL = 500


@dataclass
class Backend:
    """A service: takes so many bytes of each client, answers with so many, and closes.

    :ivar takes, answers: those numbers.
    :ivar free: answers are given while it is set; requests are not even read before.
    :ivar port: where it is.
    :ivar now: its connections at this moment; ``most``: the most that there ever were at once.
    """

    takes: int
    answers: int
    free: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    now: int = 0
    most: int = 0

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", backlog=1000)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield
        # connections that were reset may end a moment later
        await eventually(lambda: not self.now)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.free.wait()
            first = await reader.read(1)
            if first and first != REFUSED:
                await reader.readexactly(self.takes - 1)
                writer.write(bytes(self.answers))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # its client left
        finally:
            await ended(writer)
            self.now -= 1


async def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def ended(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def job(port: int, backend: Backend) -> None:
    """A client that sends all, hears all, and leaves when the server does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"." * backend.takes)
    await writer.drain()
    assert await reader.read(-1) == bytes(backend.answers)
    await ended(writer)


async def broken_off(port: int, backend: Backend, turn: int) -> None:
    """A client that leaves too early, in one of several ways, or is refused."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    if turn == 0:
        writer.write(REFUSED + b"." * 2 * backend.takes)
        with contextlib.suppress(ConnectionError):
            assert await reader.read(-1) == b""
    elif turn == 1:
        writer.write(b"." * (backend.takes // 2))
        writer.write_eof()
        with contextlib.suppress(ConnectionError):
            assert await reader.read(-1) == b""
    elif turn == 2:
        writer.write(b"." * (backend.takes // 2))
        await writer.drain()
        reset_at_close(writer.get_extra_info("socket"))
    await ended(writer)


async def together(number: int, jobs: int, port: int, backend: Backend) -> None:
    """So many sessions, some of them at once; one of seven is broken off."""

    async def some(first: int) -> None:
        for turn in range(first, number, jobs):
            if turn % 7 == 6:
                await broken_off(port, backend, turn // 7 % 4)
            else:
                await job(port, backend)

    await asyncio.gather(*map(some, range(jobs)))


def listen(place: str) -> str:
    return LISTEN.replace("}", f", proxy: '{place}'}}")


def settled(daemon: Daemon) -> dict[str, int]:
    """Its descriptors, less the pipes, once no client is left; pipes there are but a few."""
    daemon.await_counts(0, 0)
    # the reactor has a duplicate of each of the two that it serves
    listeners = 3 + 2 + len(daemon.proxies)
    until(lambda: daemon.descriptors()["socket"] == listeners, "the end of its connections")
    kinds = dict(daemon.descriptors())
    # the reactor has two for itself
    assert kinds.pop("pipe", 0) <= 2 * (KEPT + 2)
    return kinds


@pytest.mark.parametrize("place", [ANY, ENDPOINT], ids=["spliced", "streams"])
def test_nothing_leaks(tmp_path: Path, place: str) -> None:
    """Descriptors and memory are as before, after 10,000 sessions, some of which were broken off.

    What is kept grows by every round of them. What merely waits for the garbage collector (Twisted's transports leave a
    circle each) has a ceiling, which the first rounds reach, at a time that the collector chooses: so one round of
    several, without growth, shows that nothing is kept.
    """

    async def sessions() -> None:
        backend = Backend(takes=3_000, answers=1_000)
        backend.free.set()
        async with backend.serving():
            text = f"hosts: ['127.0.0.1:{backend.port}/15']\n{listen(place)}"
            with running(tmp_path, text) as daemon:
                (port,) = daemon.proxies
                # the history fills, what is loaded at need is loaded
                await together(2_000, 20, port, backend)
                kinds = settled(daemon)
                growth: list[int] = []
                for _ in range(ROUNDS):
                    memory = daemon.memory()
                    await asyncio.wait_for(together(10_000, 20, port, backend), 5 * PATIENCE)
                    assert settled(daemon) == kinds
                    growth.append(daemon.memory() - memory)
                    if growth[-1] < STILL:
                        break
                assert growth[-1] < STILL, growth
                daemon.assert_calm()

    asyncio.run(sessions())


async def crowd(daemon: Daemon, port: int, slots: int, number: int, backend: Backend) -> None:
    """All come at once, and nobody is answered before all are there; then all must be done in time."""
    backend.most = 0
    backend.free.clear()
    jobs = asyncio.gather(*(job(port, backend) for _ in range(number)))
    await eventually(lambda: daemon.counts() == (slots, number - slots) and backend.now == slots)
    # those that wait have the beginning of what they sent in a pipe
    assert daemon.descriptors()["pipe"] >= 2 * (number - slots)
    backend.free.set()
    await asyncio.wait_for(jobs, 5 * PATIENCE)
    assert backend.most == slots


@pytest.mark.skipif(not splice.available, reason="nothing is spliced here")
def test_six_hundred_at_once_as_an_ordinary_user(tmp_path: Path) -> None:
    """Whose pipes are small when they are many. All have a host; then all but a few wait for one, with full pipes."""
    number, few = 600, 20

    async def at_once() -> None:
        backend = Backend(takes=300_000, answers=60_000)
        async with backend.serving():
            at = f"127.0.0.1:{backend.port}"
            names = (
                f"{{name: many, address: '{at}', slots: {number}}}, {{name: few, address: '{at}', slots: {few}, pools: [few]}}"
            )
            places = listen(ANY).replace(f"proxy: '{ANY}'", f"proxy: ['{ANY}', {{at: '{ANY}', pool: few}}]")
            with running(tmp_path, f"hosts: [{names}]\n{places}", ordinary=True) as daemon:
                kinds = settled(daemon)
                for port, slots in zip(daemon.proxies, (number, few), strict=True):
                    await crowd(daemon, port, slots, number, backend)
                    assert settled(daemon) == kinds
                daemon.assert_calm()

    with room_for(3 * number):
        asyncio.run(at_once())
