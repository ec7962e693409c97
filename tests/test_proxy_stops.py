"""The daemon stops: an answer that is cut short does not look whole, and everybody else is hung up on in order."""

from __future__ import annotations

from contextlib import ExitStack, suppress

import pytest
import pytest_twisted

from tests.proxies import Hole, House, Server, both_relays, gone, heard, noise, read, turns

pytestmark = pytest.mark.usefixtures("descriptors_stay")


@both_relays
@pytest.mark.parametrize("passes", [False, True], ids=["cancel", "pass"])
@pytest.mark.parametrize("answered", [0, 7, 100_000])
@pytest_twisted.ensureDeferred
async def test_an_answer_that_a_stop_cuts_short_does_not_look_whole(relay: str, passes: bool, answered: int) -> None:
    with Server() as server, ExitStack() as stack:
        house = House(server.spec(), passes=passes)
        async with house.open(relay):
            client = stack.enter_context(house.client(b"hello"))
            end = stack.enter_context(await server.accept())
            assert await read(end, 5) == b"hello"
            end.send(noise(answered))
            assert await read(client, answered) == noise(answered)
        assert await heard(client) == (b"", False)
        await gone(end)


@both_relays
@pytest_twisted.ensureDeferred
async def test_one_that_is_not_read_is_cut_short_too(relay: str) -> None:
    with Server() as server, ExitStack() as stack:
        house = House(server.spec())
        async with house.open(relay):
            client = stack.enter_context(house.client(b"hello", window=1 << 16))
            end = stack.enter_context(await server.accept())
            sent = 0
            while not len(house.proxy.stalled):
                with suppress(BlockingIOError):
                    sent += end.sock.send(bytes(1 << 16))
                await turns()
        got, clean = await heard(client)
        assert not clean
        assert len(got) < sent
        await gone(end)


@both_relays
@pytest.mark.parametrize("passes", [False, True], ids=["cancel", "pass"])
@pytest_twisted.ensureDeferred
async def test_who_waits_is_hung_up_on_in_order(relay: str, passes: bool) -> None:
    with Server() as server, Hole() as hole, ExitStack() as stack:
        house = House(server.spec(), hole.spec("hole", 1, 1), passes=passes)
        async with house.open(relay):
            stack.enter_context(house.client(b"1"))
            stack.enter_context(await server.accept())
            connecting = stack.enter_context(house.client(b"2"))
            await house.becomes(lent=2)
            waiting = stack.enter_context(house.client(b"3"))
            await house.becomes(lent=2, waiting=1)
        assert await heard(connecting) == (b"", True)
        assert await heard(waiting) == (b"", True)


@both_relays
@pytest.mark.parametrize("answered", [0, 7, 100_000])
@pytest_twisted.ensureDeferred
async def test_who_has_been_told_all_has_it_all(relay: str, answered: int) -> None:
    with Server() as server, ExitStack() as stack:
        house = House(server.spec())
        async with house.open(relay):
            client = stack.enter_context(house.client(b"hello"))
            with await server.accept() as end:
                assert await read(end, 5) == b"hello"
                end.send(noise(answered))
            await house.becomes(lent=0)
            await turns()
            assert len(house.sessions) == 1
        assert await heard(client) == (noise(answered), True)
