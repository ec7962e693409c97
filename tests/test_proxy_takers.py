"""Clients that take their answer slowly: whoever takes anything in five minutes goes on, whoever takes nothing is cut off."""

from __future__ import annotations

import socket
from contextlib import suppress

import pytest
import pytest_twisted

from distbal.outcomes import Outcome
from distbal.proxy.session import STALL_TIME
from tests.peers import Peer
from tests.ports import our_end
from tests.proxies import House, Server, both_relays, noise, read, relayed, turns

pytestmark = pytest.mark.usefixtures("descriptors_stay")

#: a window so small that what the client takes shows soon at our end
WINDOW = 4096


def holds(peer: Peer, option: int, size: int) -> None:
    """Let our end of its connection hold so much."""
    with our_end(peer.sock) as ours:
        ours.setsockopt(socket.SOL_SOCKET, option, size)


async def falls_behind(house: House, end: Peer, most: int) -> None:
    """The server says so much, or as much of it as goes, and the client takes none of it."""
    left = memoryview(noise(most))
    idle = 0
    while left and idle < 5:
        idle += 1
        with suppress(BlockingIOError):
            left = left[end.sock.send(left) :]
            idle = 0
        await turns()
    assert len(house.proxy.stalled) == 1


async def takes_a_little(house: House, client: Peer, minutes: int) -> None:
    """Every two minutes the client takes some kilobytes: as few as let its machine ask for more."""
    for _ in range(minutes // 2):
        house.clock.advance(120)
        await turns()
        assert house.lent == 1, "it took something"
        assert len(await read(client, 2 * WINDOW)) == 2 * WINDOW
        await turns()


async def takes_nothing(house: House) -> None:
    # one look that finds what was taken last, and one more
    for _ in range(2):
        house.clock.advance(STALL_TIME + 0.1)
    await house.becomes(lent=0)
    assert house.outcomes() == [Outcome.ANSWERED]


@both_relays
@pytest_twisted.ensureDeferred
async def test_what_is_taken_out_of_the_system_s_buffer_counts(relay: str) -> None:
    """It is large, and ours does not move before it is almost empty."""
    with Server() as server:
        house = House(server.spec())
        async with house.serves(relay), relayed(house, server, window=WINDOW) as (client, end):
            await falls_behind(house, end, 12_000_000)
            (session,) = house.sessions
            before = session.moved()[1]
            await takes_a_little(house, client, minutes=20)
            if relay == "spliced":
                assert session.moved()[1] == before, "nothing moved at our end"
            await takes_nothing(house)


@both_relays
@pytest_twisted.ensureDeferred
async def test_what_is_taken_out_of_our_own_buffer_counts(relay: str) -> None:
    """It is a pipe, or Twisted's; the server is not read meanwhile."""
    with Server() as server:
        house = House(server.spec())
        async with house.serves(relay), relayed(house, server, window=WINDOW) as (client, end):
            holds(client, socket.SO_SNDBUF, 20_000)
            holds(end, socket.SO_RCVBUF, 2_000_000)
            end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2_000_000)
            await falls_behind(house, end, 700_000)
            (session,) = house.sessions
            before = session.moved()[1]
            await takes_a_little(house, client, minutes=20)
            if relay == "spliced":
                assert session.moved()[1] == before, "the server's side did not move"
            await takes_nothing(house)
