"""How sessions end: all bytes first, or a reset; half closes that cancel or are passed on."""

from __future__ import annotations

import socket

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from distbal.outcomes import Outcome
from distbal.proxy.session import LOOK_TIME, PARTING_TIME
from tests.proxies import (
    MUCH,
    SMALL,
    Hole,
    House,
    Server,
    both_relays,
    gone,
    heard,
    noise,
    read,
    relayed,
    sends_all,
    stuck,
    stuff,
    turns,
)

pytestmark = pytest.mark.usefixtures("descriptors_stay")


# -- nothing is lost


@both_relays
@pytest.mark.parametrize("passes", [False, True], ids=["cancel", "pass"])
@pytest_twisted.ensureDeferred
async def test_a_slow_reader_slows_the_server_down_and_gets_everything(relay: str, passes: bool) -> None:
    answer = noise(MUCH)
    with Server() as server:
        house = House(server.spec(), passes=passes)
        async with house.serves(relay), relayed(house, server, window=SMALL) as (client, end):
            sending = Deferred.fromCoroutine(sends_all(end, answer))
            await stuck(house)
            (session,) = house.sessions
            assert 0 < session.moved()[1] < MUCH // 2, "back-pressure"
            assert house.lent == 1
            assert await heard(client) == (answer, True)
            await sending
        assert house.host().received == MUCH
        assert house.outcomes() == [Outcome.ANSWERED]


@both_relays
@pytest.mark.parametrize("passes", [False, True], ids=["cancel", "pass"])
@pytest_twisted.ensureDeferred
async def test_a_slow_server_slows_the_client_down_and_gets_everything(relay: str, passes: bool) -> None:
    said = noise(MUCH)
    with Server() as server:
        house = House(server.spec(), passes=passes)
        server.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        async with house.serves(relay), relayed(house, server) as (client, end):
            sending = Deferred.fromCoroutine(client.send_much(said))
            await stuck(house)
            (session,) = house.sessions
            assert 0 < session.moved()[0] < MUCH // 2
            assert await read(end, MUCH) == said
            await sending
            client.half_close()
            assert (await heard(end))[0] == b""
            end.close()
        assert house.host().sent == MUCH + 5


@both_relays
@pytest.mark.parametrize("passes", [False, True], ids=["cancel", "pass"])
@pytest.mark.parametrize("much", [1000, 3_000_000])
@pytest_twisted.ensureDeferred
async def test_an_answer_that_comes_before_the_client_has_said_all_arrives_whole(relay: str, passes: bool, much: int) -> None:
    answer = noise(much)
    with Server() as server:
        house = House(server.spec(), passes=passes)
        async with house.serves(relay), relayed(house, server) as (client, end):
            await stuff(client, house)
            # the server has not read what the client says
            answering = Deferred.fromCoroutine(end.send_much(answer))
            got = await read(client, much // 2)
            await answering
            end.half_close()
            more, clean = await heard(client)
            assert (got + more, clean) == (answer, True)
            client.close()
            await gone(end)
            await house.becomes(lent=0)
        assert house.outcomes() == [Outcome.ANSWERED]


@both_relays
@pytest.mark.parametrize("passes", [False, True], ids=["cancel", "pass"])
@pytest_twisted.ensureDeferred
async def test_what_a_client_says_to_a_server_that_has_closed_does_not_destroy_the_answer(relay: str, passes: bool) -> None:
    answer = noise(10_000)
    with Server() as server:
        house = House(server.spec(), passes=passes)
        async with house.serves(relay), relayed(house, server) as (client, end):
            end.send(answer)
            end.close()
            for _ in range(5):
                client.send(b"more of it")
                await turns()
            assert await heard(client) == (answer, True)
            client.send(b"and yet more")
            client.close()
            await house.becomes(lent=0)
        assert house.outcomes() == [Outcome.ANSWERED]


@pytest.mark.parametrize("passes", [False, True], ids=["cancel", "pass"])
@pytest_twisted.ensureDeferred
async def test_words_to_a_server_that_has_closed_do_not_make_its_answer_a_broken_one(passes: bool) -> None:
    """Not even while the answer is still on its way to a client that takes its time. (Twisted drops what it has not read.)"""
    answer = noise(6_000_000)
    with Server() as server:
        house = House(server.spec(), passes=passes)
        async with house.serves("spliced"), relayed(house, server, window=SMALL) as (client, end):
            sending = Deferred.fromCoroutine(sends_all(end, answer))
            await stuck(house)
            got = b""
            while not sending.called:
                got += await read(client, 100_000)
                await stuck(house)
            for _ in range(3):
                client.send(b"more")
                await turns()
            got += (last := await heard(client))[0]
            assert (len(got), last[1]) == (len(answer), True)
            client.close()
            await house.becomes(lent=0)
        assert house.outcomes() == [Outcome.ANSWERED]


@both_relays
@pytest.mark.parametrize("passes", [False, True], ids=["cancel", "pass"])
@pytest_twisted.ensureDeferred
async def test_a_client_that_reads_for_longer_than_parting_takes_gets_everything(relay: str, passes: bool) -> None:
    """What we have handed to the system is on its way, however long the client takes."""
    answer = noise(3_000_000)
    with Server() as server:
        house = House(server.spec(), passes=passes)
        async with house.serves(relay), relayed(house, server, window=SMALL) as (client, end):
            sending = Deferred.fromCoroutine(sends_all(end, answer))
            await stuck(house)
            got = b""
            while house.lent:
                got += await read(client, 100_000)
                await stuck(house)
                if passes and sending.called:
                    break
            await sending
            house.clock.advance(PARTING_TIME + 0.1)
            await turns()
            got += (last := await heard(client))[0]
            assert (len(got), last[1]) == (len(answer), True)
            assert got == answer


# -- half closes


@both_relays
@pytest_twisted.ensureDeferred
async def test_a_half_close_cancels(relay: str) -> None:
    with Server() as server:
        house = House(server.spec())
        async with house.serves(relay), relayed(house, server) as (client, end):
            client.half_close()
            await gone(end)
            assert (await heard(client))[0] == b""
            await house.becomes(lent=0)
        assert house.outcomes() == [Outcome.CLOSED]


@both_relays
@pytest.mark.parametrize("much", [6, 300_000])
@pytest_twisted.ensureDeferred
async def test_a_half_close_is_passed_on_and_the_answer_comes_back(relay: str, much: int) -> None:
    question, answer = noise(much, 1), noise(much, 2)
    with Server() as server:
        house = House(server.spec(), passes=True)
        async with house.serves(relay), relayed(house, server) as (client, end):
            sending = Deferred.fromCoroutine(client.send_much(question))
            assert await read(end, much) == question
            await sending
            client.half_close()
            assert await heard(end) == (b"", True)
            await turns()
            assert house.lent == 1
            sending = Deferred.fromCoroutine(sends_all(end, answer))
            assert await heard(client) == (answer, True)
            await sending
            await house.becomes(lent=0)
        assert house.outcomes() == [Outcome.ANSWERED]
        assert (house.host().sent, house.host().received) == (much + 5, much)


@both_relays
@pytest.mark.parametrize("much", [6, 300_000])
@pytest_twisted.ensureDeferred
async def test_the_server_may_end_its_side_first(relay: str, much: int) -> None:
    said = noise(much)
    with Server() as server:
        house = House(server.spec(), passes=True)
        async with house.serves(relay), relayed(house, server) as (client, end):
            end.send(b"all I say")
            end.half_close()
            assert await heard(client) == (b"all I say", True)
            await turns()
            assert house.lent == 1, "the client may go on"
            sending = Deferred.fromCoroutine(sends_all(client, said))
            assert await heard(end) == (said, True)
            await sending
            await house.becomes(lent=0)
        assert house.outcomes() == [Outcome.ANSWERED]
        assert house.host().sent == much + 5


@both_relays
@pytest.mark.parametrize("much", [6, 300_000])
@pytest_twisted.ensureDeferred
async def test_an_end_that_came_while_waiting_is_passed_on(relay: str, much: int) -> None:
    """The whole of it may be there before the server is: ``printf ... | nc -N``."""
    said = noise(much)
    with Server() as server:
        house = House(server.spec(), passes=True)
        async with house.serves(relay), relayed(house, server) as (holder, end):
            with house.client(said[:6]) as client:
                await house.becomes(lent=1, waiting=1)
                sending = Deferred.fromCoroutine(client.send_much(said[6:]))
                await stuck(house)
                if sending.called:
                    client.half_close()
                await turns()
                assert (house.lent, house.waiting) == (1, 1)
                end.close()
                holder.close()
                with await server.accept() as second:
                    if sending.called:
                        assert await heard(second) == (said, True)
                    else:
                        assert await read(second, much) == said
                        await sending
                        client.half_close()
                        assert await heard(second) == (b"", True)
                    second.send(b"answer")
                    second.close()
                    assert await heard(client) == (b"answer", True)


@both_relays
@pytest_twisted.ensureDeferred
async def test_who_ends_without_a_word_asks_for_nothing(relay: str) -> None:
    with Server() as server:
        house = House(server.spec(), passes=True)
        async with house.serves(relay), relayed(house, server):
            with house.client() as silent:
                silent.half_close()
                assert await heard(silent) == (b"", True)
                assert house.counts["asked"] == 1


@both_relays
@pytest.mark.parametrize("state", ["uploading", "ended"])
@pytest_twisted.ensureDeferred
async def test_where_ends_are_passed_on_a_client_that_is_reset_has_not_ended_cleanly(relay: str, state: str) -> None:
    """For the server an end means that it has all; so it must not see one where the client broke off."""
    with Server() as server:
        house = House(server.spec(), passes=True)
        async with house.serves(relay), relayed(house, server) as (client, end):
            if state == "ended":
                end.half_close()
                assert await heard(client) == (b"", True)
            client.send(b"a part")
            assert await read(end, 6) == b"a part"
            client.reset()
            assert await heard(end) == (b"", False)
            await house.becomes(lent=0)


@pytest_twisted.ensureDeferred
async def test_a_client_that_is_reset_after_it_has_said_all_is_gone() -> None:
    with Server() as server:
        house = House(server.spec(), passes=True)
        async with house.serves("spliced"), relayed(house, server) as (client, end):
            client.half_close()
            assert await heard(end) == (b"", True)
            await turns()
            client.reset()
            await house.becomes(lent=0)
        assert house.outcomes() == [Outcome.RESET]


@both_relays
@pytest_twisted.ensureDeferred
async def test_a_server_that_is_reset_after_it_has_said_all_is_gone(relay: str) -> None:
    with Server() as server:
        house = House(server.spec(), passes=True)
        async with house.serves(relay), relayed(house, server) as (client, end):
            end.send(b"all I say")
            end.half_close()
            assert await heard(client) == (b"all I say", True)
            await turns()
            assert house.lent == 1, "the client may go on"
            end.reset()
            if relay == "streams":
                # which does not hear of it
                house.clock.advance(LOOK_TIME + 0.1)
            await house.becomes(lent=0)
        assert house.outcomes() == [Outcome.ANSWERED]


@both_relays
@pytest_twisted.ensureDeferred
async def test_an_end_that_comes_while_the_server_is_connected_to_is_passed_on(relay: str) -> None:
    """With nothing said before it: the client listens, and where servers speak first it need not say anything."""
    with Hole() as hole:
        house = House(hole.spec(), passes=True, server_first=True)
        async with house.serves(relay):
            with house.client() as client:
                await house.becomes(lent=1)
                await turns()
                client.half_close()
                await turns()
                await hole.open_up()
                with await hole.accept() as end:
                    assert await heard(end) == (b"", True)
                    end.send(b"all the same")
                    end.half_close()
                    assert await heard(client) == (b"all the same", True)
            await house.becomes(lent=0)
        assert house.outcomes() == [Outcome.ANSWERED]
