"""What one session takes of the others' time: a pipe for each event, no turn for nothing, no byte by way of Python."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from distbal.outcomes import Outcome
from distbal.proxy import flow
from distbal.proxy.flow import Flow
from distbal.proxy.splice import MOST_DROPPED, SpliceSession
from tests.peers import Peer
from tests.proxies import House, Server, heard, noise, read, relayed, stuff, turns

pytestmark = pytest.mark.usefixtures("descriptors_stay")

passing_or_not = pytest.mark.parametrize("passes", [False, True], ids=["cancel", "pass"])


# -- bytes that move


@pytest.mark.parametrize("way", ["up", "down"])
@pytest_twisted.ensureDeferred
async def test_one_event_moves_no_more_than_one_pipe_holds(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much one of them sends, the others have their turn."""
    moves: list[Flow] = []
    counts: list[int] = []
    move, ready = Flow.move, SpliceSession.ready

    def noted(one: Flow) -> int:
        moves.append(one)
        return move(one)

    def counted(session: SpliceSession, descriptor: int, events: int) -> None:
        moves.clear()
        ready(session, descriptor, events)
        counts.append(len(moves))

    monkeypatch.setattr(Flow, "move", noted)
    monkeypatch.setattr(SpliceSession, "ready", counted)
    with Server() as server:
        house = House(server.spec())
        async with house.serves("spliced"), relayed(house, server) as (client, end):
            speaker, listener = (client, end) if way == "up" else (end, client)
            sending = Deferred.fromCoroutine(speaker.send_much(noise(12_000_000)))
            await read(listener, 12_000_000)
            await sending
            assert max(counts) == 1


@passing_or_not
@pytest_twisted.ensureDeferred
async def test_what_is_relayed_never_becomes_an_object(passes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte is spliced twice: into a pipe, and out of it."""
    moved = 0
    splice = flow._splice

    def counted(source: int, target: int, most: int, no_offset: None, none_here: None, flags: int) -> int:
        nonlocal moved
        count = splice(source, target, most, no_offset, none_here, flags)
        moved += count
        return count

    monkeypatch.setattr(flow, "_splice", counted)
    up, down = noise(3_000_000, 1), noise(2_000_000, 2)
    with Server() as server:
        house = House(server.spec(), passes=passes)
        async with house.serves("spliced"), relayed(house, server) as (client, end):
            for speaker, listener, data in ((client, end, up), (end, client, down)):
                sending = Deferred.fromCoroutine(speaker.send_much(data))
                assert await read(listener, len(data)) == data
                await sending
            end.close()
            assert await heard(client) == (b"", True)
            await house.becomes(lent=0 if not passes else 1)
            client.close()
            await house.becomes(lent=0)
        assert (house.host().sent, house.host().received) == (3_000_005, 2_000_000)
    assert moved == 2 * (3_000_005 + 2_000_000)


@pytest_twisted.ensureDeferred
async def test_who_talks_on_when_it_has_been_told_all_is_dropped() -> None:
    with Server() as server:
        house = House(server.spec())
        async with house.serves("spliced"), relayed(house, server) as (client, end):
            end.send(b"done")
            end.close()
            assert await heard(client) == (b"done", True)
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                await client.send_much(bytes(MOST_DROPPED + (1 << 24)))
        assert house.outcomes() == [Outcome.ANSWERED]


# -- nothing that moves


async def stands_still(house: House) -> None:
    """The reactor turns, and finds nothing to do in the hot loop."""
    await turns()
    before = house.loop._turn
    await turns(50)
    assert house.loop._turn - before < 5


@passing_or_not
@pytest_twisted.ensureDeferred
async def test_a_waiter_with_more_to_say_than_is_taken_in_costs_nothing(passes: bool) -> None:
    with Server() as server:
        house = House(server.spec(), passes=passes)
        async with house.serves("spliced"), relayed(house, server):
            with house.client(b"x") as waiter:
                await house.becomes(lent=1, waiting=1)
                await stuff(waiter, house)
                await stands_still(house)
                waiter.reset()
                await house.becomes(lent=1)


@pytest_twisted.ensureDeferred
async def test_a_waiter_that_has_ended_its_side_costs_nothing() -> None:
    with Server() as server:
        house = House(server.spec(), passes=True)
        async with house.serves("spliced"), relayed(house, server) as (holder, held):
            with house.client(b"all I say") as waiter:
                await house.becomes(lent=1, waiting=1)
                waiter.half_close()
                await stands_still(house)
                assert (house.lent, house.waiting) == (1, 1)
                held.close()
                holder.close()
                with await server.accept() as end:
                    assert await heard(end) == (b"all I say", True)


@pytest.mark.parametrize("leave", [Peer.half_close, Peer.close], ids=["half-close", "close"])
@pytest_twisted.ensureDeferred
async def test_a_client_whose_words_the_server_does_not_read_costs_nothing(leave: Callable[[Peer], None]) -> None:
    """Both sides of it are ended when it has said all and has heard all, which the system goes on telling."""
    with Server() as server:
        house = House(server.spec(), passes=True)
        async with house.serves("spliced"), relayed(house, server) as (client, end):
            end.half_close()
            assert await heard(client) == (b"", True)
            (session,) = house.sessions
            said = 0
            while session.up.pipe is None:  # type: ignore[attr-defined]
                client.send(bytes(1 << 16))
                said += 1 << 16
                await turns(2)
            leave(client)
            await stands_still(house)
            assert await heard(end) == (bytes(said), True), "it is read again, and all of it arrives"
            await house.becomes(lent=0)


@passing_or_not
@pytest_twisted.ensureDeferred
async def test_a_session_of_which_neither_side_is_read_costs_nothing(passes: bool) -> None:
    with Server() as server:
        house = House(server.spec(), passes=passes)
        async with house.serves("spliced"), relayed(house, server) as (client, end):
            await stuff(client, house)
            await stuff(end, house)
            await stands_still(house)
