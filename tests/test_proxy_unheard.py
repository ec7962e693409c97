"""Peers that leave while they are not read, or in a way that reading does not tell: they are noticed, and nobody else is."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from distbal.outcomes import Outcome
from distbal.proxy.session import LOOK_TIME
from distbal.proxy.streams import MOST_HELD
from tests.peers import Peer
from tests.ports import our_end
from tests.proxies import (
    RELAYS,
    Hole,
    House,
    Leave,
    Server,
    both_relays,
    every_way_to_leave,
    gone,
    heard,
    noise,
    read,
    relayed,
    rests,
    turns,
)

pytestmark = pytest.mark.usefixtures("descriptors_stay")

#: where a proxy listens for clients of this machine
UNIX = {"spliced": "unix:{}", "streams": "unix:{}:mode=666"}


def look(house: House, relay: str) -> None:
    """It is time to look at those that are not read; in the hot loop most are heard all the same."""
    if relay == "streams":
        house.clock.advance(LOOK_TIME + 0.1)


def is_not_read(session: Any) -> bool:
    return not session.up.wants if hasattr(session, "up") else bool(session._paused)


def little_room(end: Peer) -> None:
    """Let little be on its way to a server that does not read."""
    with our_end(end.sock) as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)


async def says_too_much(client: Peer, session: Any) -> bytes:
    """Say more than there is room for, but no more than is on its way all the same; what was said."""
    said = b""
    while not is_not_read(session):
        piece = noise(1 << 15, len(said))
        client.send(piece)
        said += piece
        await turns()
    return said


# -- clients of this machine, where ends are passed on: to end one side and to leave are two things


@pytest.mark.parametrize("relay", list(RELAYS))
@pytest.mark.parametrize("answered", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_client_on_a_unix_socket_that_leaves_its_job_is_noticed(relay: str, answered: bool, tmp_path: Path) -> None:
    with Server() as server:
        house = House(server.spec(), passes=True)
        async with house.serves(relay, UNIX[relay].format(tmp_path / "socket")), relayed(house, server) as (client, end):
            if answered:
                end.send(b"in part")
                assert await read(client, 7) == b"in part"
            client.close()
            await turns()
            look(house, relay)
            await house.becomes(lent=0)
            await gone(end)
        assert house.outcomes() == [Outcome.ANSWERED if answered else Outcome.CLOSED]
        assert house.host().failures == {}


@pytest.mark.parametrize("relay", list(RELAYS))
@pytest_twisted.ensureDeferred
async def test_a_client_on_a_unix_socket_that_leaves_the_queue_is_noticed(relay: str, tmp_path: Path) -> None:
    with Server() as server:
        house = House(server.spec(), passes=True)
        async with house.serves(relay, UNIX[relay].format(tmp_path / "socket")), relayed(house, server):
            with house.client(b"me too") as waiter:
                await house.becomes(lent=1, waiting=1)
                waiter.close()
                await turns()
                look(house, relay)
                await house.becomes(lent=1, waiting=0)
                await rests(house)
        assert house.counts["withdrawn"] == 1


@pytest.mark.parametrize("relay", list(RELAYS))
@pytest_twisted.ensureDeferred
async def test_a_client_on_a_unix_socket_that_leaves_while_its_host_is_connected_to_is_noticed(
    relay: str, tmp_path: Path
) -> None:
    with Hole() as hole:
        house = House(hole.spec(), passes=True)
        async with house.serves(relay, UNIX[relay].format(tmp_path / "socket")):
            with house.client(b"hello") as client:
                await house.becomes(lent=1)
                client.close()
                await turns()
                # which is later than the host is given up
                look(house, relay)
                await house.becomes(lent=0)
        assert house.host().leases == 0


@pytest.mark.parametrize("relay", list(RELAYS))
@pytest_twisted.ensureDeferred
async def test_a_client_on_a_unix_socket_that_has_said_all_goes_on(relay: str, tmp_path: Path) -> None:
    with Server() as server:
        house = House(server.spec(), passes=True)
        async with house.serves(relay, UNIX[relay].format(tmp_path / "socket")), relayed(house, server) as (client, end):
            with house.client(b"me too") as waiter:
                await house.becomes(lent=1, waiting=1)
                for peer in (client, waiter):
                    peer.half_close()
                for _ in range(3):
                    await rests(house)
                    look(house, relay)
                assert (house.lent, house.waiting) == (1, 1)
                assert await heard(end) == (b"", True)
                end.send(b"first")
                end.close()
                assert await heard(client) == (b"first", True)
                client.close()
                with await server.accept() as second:
                    assert await heard(second) == (b"me too", True)
                    await rests(house)
                    look(house, relay)
                    second.send(b"second")
                    second.close()
                    assert await heard(waiter) == (b"second", True)
            await house.becomes(lent=0)
        assert house.outcomes() == [Outcome.ANSWERED] * 2


# -- clients that are not read, since there is no room for what they say


@both_relays
@every_way_to_leave
@pytest_twisted.ensureDeferred
async def test_who_leaves_while_its_server_does_not_read_gives_the_slot_back(relay: str, leave: Leave) -> None:
    with Server() as server:
        server.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        house = House(server.spec())
        async with house.serves(relay), relayed(house, server) as (client, end):
            little_room(end)
            await says_too_much(client, house.sessions[0])
            for _ in range(2):
                look(house, relay)
                await turns()
                assert house.lent == 1, "it is there"
            leave(client)
            await turns()
            look(house, relay)
            await house.becomes(lent=0)
            await gone(end)
        assert house.outcomes() == [Outcome.RESET if leave is Peer.reset else Outcome.CLOSED]


@both_relays
@every_way_to_leave
@pytest_twisted.ensureDeferred
async def test_a_waiter_of_which_no_more_is_taken_in_is_forgotten_when_it_leaves(relay: str, leave: Leave) -> None:
    with Server() as server:
        house = House(server.spec())
        async with house.serves(relay), relayed(house, server):
            with house.client(b"x") as waiter:
                await house.becomes(lent=1, waiting=1)
                (session,) = [one for one in house.sessions if one.ticket is not None]
                assert len(await says_too_much(waiter, session)) >= MOST_HELD // 2
                look(house, relay)
                await turns()
                assert house.waiting == 1
                leave(waiter)
                await turns()
                look(house, relay)
                await house.becomes(lent=1, waiting=0)
        assert house.counts["withdrawn"] == 1


@both_relays
@pytest.mark.parametrize("server_ended", [False, True], ids=["server speaks", "server has said all"])
@pytest_twisted.ensureDeferred
async def test_who_has_said_all_and_is_not_read_has_not_left(relay: str, server_ended: bool) -> None:
    """Both sides of its connection may be ended, and the server has not read yet what came before."""
    with Server() as server:
        server.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        house = House(server.spec(), passes=True)
        async with house.serves(relay), relayed(house, server) as (client, end):
            if server_ended:
                end.half_close()
                assert await heard(client) == (b"", True)
            little_room(end)
            said = await says_too_much(client, house.sessions[0])
            client.half_close()
            for _ in range(2):
                await rests(house)
                house.clock.advance(LOOK_TIME + 0.1)
            assert house.lent == 1
            assert await heard(end) == (said, True)
            if not server_ended:
                end.send(b"done")
                end.close()
                assert await heard(client) == (b"done", True)
            await house.becomes(lent=0)
        assert house.host().sent == 5 + len(said)


@both_relays
@pytest_twisted.ensureDeferred
async def test_where_ends_are_passed_on_who_is_reset_while_it_is_not_read_gives_the_slot_back(relay: str) -> None:
    with Server() as server:
        server.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        house = House(server.spec(), passes=True)
        async with house.serves(relay), relayed(house, server) as (client, end):
            end.half_close()
            assert await heard(client) == (b"", True)
            little_room(end)
            await says_too_much(client, house.sessions[0])
            client.reset()
            await turns()
            house.clock.advance(LOOK_TIME + 0.1)
            await house.becomes(lent=0)
            await gone(end)


# -- servers that are not read, since they have said all


@both_relays
@pytest.mark.parametrize("spoke", [b"", b"all I say"], ids=["silent", "spoke"])
@pytest_twisted.ensureDeferred
async def test_a_server_that_has_said_all_and_is_reset_gives_the_slot_back(relay: str, spoke: bytes) -> None:
    with Server() as server:
        house = House(server.spec(), passes=True)
        async with house.serves(relay), relayed(house, server) as (client, end):
            end.send(spoke)
            end.half_close()
            assert await heard(client) == (spoke, True)
            for _ in range(2):
                await rests(house)
                look(house, relay)
            assert house.lent == 1, "the client may go on"
            end.reset()
            await turns()
            look(house, relay)
            await house.becomes(lent=0)
        assert house.outcomes() == [Outcome.ANSWERED if spoke else Outcome.NO_ANSWER]


@both_relays
@pytest_twisted.ensureDeferred
async def test_a_server_that_has_said_all_still_hears_the_rest(relay: str) -> None:
    said = noise(1_000_000)
    with Server() as server:
        house = House(server.spec(), passes=True)
        async with house.serves(relay), relayed(house, server) as (client, end):
            end.half_close()
            assert await heard(client) == (b"", True)
            sending = Deferred.fromCoroutine(client.send_much(said))
            await turns()
            look(house, relay)
            await turns()
            assert await read(end, len(said)) == said
            await sending
            client.half_close()
            assert await heard(end) == (b"", True)
            await house.becomes(lent=0)
