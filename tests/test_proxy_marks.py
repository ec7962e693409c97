"""Bytes that TCP marks as urgent: they go nowhere, and what comes before and after them goes on."""

from __future__ import annotations

import socket

import pytest
import pytest_twisted

from distbal.outcomes import Outcome
from tests.peers import Peer
from tests.proxies import House, Server, both_relays, heard, noise, read, relayed, rests, turns

pytestmark = pytest.mark.usefixtures("descriptors_stay")


def mark(peer: Peer) -> None:
    peer.sock.send(b"!", socket.MSG_OOB)


@both_relays
@pytest.mark.parametrize("speaker", ["client", "server"])
@pytest_twisted.ensureDeferred
async def test_a_mark_among_the_bytes_of_either_side_is_passed_over(relay: str, speaker: str) -> None:
    with Server() as server:
        house = House(server.spec())
        async with house.serves(relay), relayed(house, server) as (client, end):
            says, hears = (client, end) if speaker == "client" else (end, client)
            for count in (10, 1, 50_000):
                says.send(noise(count, 1))
                mark(says)
                says.send(noise(count, 2))
                assert await read(hears, 2 * count) == noise(count, 1) + noise(count, 2)
                await rests(house)
            end.send(b"done")
            assert await read(client, 4) == b"done"
            end.close()
            assert await heard(client) == (b"", True)
        assert house.outcomes() == [Outcome.ANSWERED]
        counted = 2 * (10 + 1 + 50_000)
        assert house.host().sent == 5 + (counted if speaker == "client" else 0)
        assert house.host().received == 4 + (counted if speaker == "server" else 0)


@both_relays
@pytest_twisted.ensureDeferred
async def test_a_mark_as_the_last_thing_does_not_hide_the_end(relay: str) -> None:
    with Server() as server:
        house = House(server.spec(), passes=True)
        async with house.serves(relay), relayed(house, server) as (client, end):
            for says, hears in ((client, end), (end, client)):
                says.send(b"all")
                mark(says)
                await turns()
                says.half_close()
                assert await heard(hears) == (b"all", True)
            await house.becomes(lent=0)
        assert house.outcomes() == [Outcome.ANSWERED]


@both_relays
@pytest.mark.parametrize("passes", [False, True], ids=["cancel", "pass"])
@pytest_twisted.ensureDeferred
async def test_what_comes_between_a_mark_and_the_end_is_not_lost_when_all_is_there_at_once(relay: str, passes: bool) -> None:
    with Server() as server:
        house = House(server.spec(), passes=passes)
        async with house.serves(relay), relayed(house, server) as (client, end):
            for says, hears in ((client, end), (end, client)) if passes else ((end, client),):
                says.send(b"be")
                mark(says)
                says.send(b"fore")
                says.half_close()
                assert await heard(hears) == (b"before", True)
            await house.becomes(lent=0)
        assert house.outcomes() == [Outcome.ANSWERED]


@both_relays
@pytest_twisted.ensureDeferred
async def test_a_waiter_may_have_said_all_with_a_mark_in_it(relay: str) -> None:
    with Server() as server:
        house = House(server.spec(), passes=True)
        async with house.serves(relay), relayed(house, server) as (holder, first):
            with house.client() as client:
                client.send(b"a")
                await house.becomes(lent=1, waiting=1)
                mark(client)
                client.send(b"ll")
                client.half_close()
                await rests(house)
                holder.half_close()
                first.close()
                with await server.accept() as end:
                    assert await heard(end) == (b"all", True)


@both_relays
@pytest_twisted.ensureDeferred
async def test_a_mark_as_the_first_thing_asks_for_nothing_by_itself(relay: str) -> None:
    with Server() as server:
        house = House(server.spec())
        async with house.serves(relay):
            with house.client() as client:
                mark(client)
                await rests(house)
                assert house.counts["asked"] == 0
                client.send(b"hello")
                with await server.accept() as end:
                    assert await read(end, 5) == b"hello"
                    await rests(house)
                    end.send(b"done")
                    end.close()
                    assert await heard(client) == (b"done", True)
        assert house.outcomes() == [Outcome.ANSWERED]


@both_relays
@pytest_twisted.ensureDeferred
async def test_a_waiter_that_sends_a_mark_waits_on_and_all_it_said_arrives(relay: str) -> None:
    with Server() as server:
        house = House(server.spec())
        async with house.serves(relay), relayed(house, server) as (holder, _):
            with house.client() as client:
                mark(client)
                client.send(b"one, ")
                await house.becomes(lent=1, waiting=1)
                client.send(b"two, ")
                await rests(house)
                mark(client)
                client.send(b"three")
                await rests(house)
                assert (house.lent, house.waiting) == (1, 1)
                holder.close()
                with await server.accept() as end:
                    assert await read(end, 15) == b"one, two, three"
