"""Spliced sessions, in each of their phases, go on in another process: after kill -9 with a keeper, and after an upgrade."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from distbal.hosts import HostSpec
from distbal.keeperwire import Role
from distbal.lookup import Place
from distbal.outcomes import Outcome
from distbal.proxy.session import CONNECTING, PARTING, QUIET, RELAYING
from tests.keepers import KeptHouse
from tests.peers import Peer, until
from tests.proxies import MUCH, SMALL, Hole, Nobody, Server, heard, noise, read, relayed, rests, sends_all, stuck, turns

every_way = pytest.mark.parametrize("way", ["kept", "kept upgrade", "upgrade"])


async def phase(house: KeptHouse, state: int, number: int = 1) -> None:
    await until(lambda: [one.state for one in house.sessions] == [state] * number, "the phase")


@every_way
@pytest_twisted.ensureDeferred
async def test_one_that_has_said_nothing(way: str, tmp_path: Path) -> None:
    with Server() as server:
        house = KeptHouse(server.spec(), way=way)
        async with house.lasts(f"unix:{tmp_path}/proxy"):
            with house.client() as client:
                await phase(house, QUIET)
                assert len(house.again().sessions) == 1
                await rests(house)
                assert house.sessions[0].state == QUIET
                client.send(b"hello")
                with await server.accept() as end:
                    assert await read(end, 5) == b"hello"
                    end.send(b"done")
                    end.close()
                    assert await heard(client) == (b"done", True)
        assert house.all_outcomes() == [Outcome.ANSWERED]
        assert house.counts["granted"] == 1


@every_way
@pytest_twisted.ensureDeferred
async def test_one_that_left_while_no_process_was_there(way: str, tmp_path: Path) -> None:
    with Server() as server:
        house = KeptHouse(server.spec(), way=way)
        async with house.lasts(f"unix:{tmp_path}/proxy"):
            with house.client():
                await phase(house, QUIET)
                house.kill()
            house.live_again()
            await house.idle()
        assert house.all_outcomes() == []


@every_way
@pytest_twisted.ensureDeferred
async def test_those_who_wait_keep_their_places_and_what_they_said(way: str) -> None:
    with Server() as server:
        house = KeptHouse(server.spec(), way=way, order="fifo")
        async with house.lasts(), relayed(house, server) as (first, first_end):
            with house.client(b"second") as second:
                await house.becomes(1, 1)
                with house.client(b"third") as third:
                    await house.becomes(1, 2)
                    asked = [ticket.asked for ticket in house.leases.scheduler.tickets]
                    house.clock.advance(3)
                    house.kill()
                    second.send(b" more")
                    house.live_again()
                    assert (house.lent, house.waiting) == (1, 2)
                    assert [ticket.asked for ticket in house.leases.scheduler.tickets] == asked
                    await rests(house)
                    first_end.close()
                    assert await heard(first) == (b"", True)
                    first.close()
                    with await server.accept() as end:
                        assert await read(end, 11) == b"second more"
                        end.send(b"2")
                        end.close()
                    assert await heard(second) == (b"2", True)
                    second.close()
                    with await server.accept() as end:
                        assert await read(end, 5) == b"third"
                    assert await heard(third) == (b"", True)
        assert house.all_outcomes() == [Outcome.NO_ANSWER, Outcome.ANSWERED, Outcome.NO_ANSWER]


@every_way
@pytest_twisted.ensureDeferred
async def test_one_that_waited_and_left(way: str) -> None:
    with Server() as server:
        house = KeptHouse(server.spec(), way=way)
        async with house.lasts(), relayed(house, server) as (_, _end):
            with house.client(b"second"):
                await house.becomes(1, 1)
                house.kill()
            house.live_again()
            await house.becomes(1, 0)
        assert house.counts["withdrawn"] == 1


@every_way
@pytest_twisted.ensureDeferred
async def test_one_that_connects_still(way: str) -> None:
    with Hole() as hole:
        house = KeptHouse(hole.spec(), way=way)
        async with house.lasts():
            with house.client(b"hello") as client:
                await phase(house, CONNECTING)
                await turns()
                house.again()
                assert (house.lent, house.waiting) == (1, 0)
                await rests(house)
                await hole.open_up()
                # the system tries again by itself after a second
                with await hole.accept() as end:
                    assert await read(end, 5) == b"hello"
                    end.send(b"done")
                    end.close()
                    assert await heard(client) == (b"done", True)
        assert house.all_outcomes() == [Outcome.ANSWERED]


@every_way
@pytest_twisted.ensureDeferred
async def test_a_host_that_does_not_answer_has_its_time_anew(way: str) -> None:
    with Hole() as hole, Server() as server:
        house = KeptHouse(hole.spec("alpha", rank=0), server.spec("beta", rank=1), way=way)
        async with house.lasts():
            with house.client(b"hello") as client:
                await phase(house, CONNECTING)
                await turns()
                house.clock.advance(2)
                house.again()
                house.clock.advance(2)
                await turns()
                assert (house.sessions[0].state, house.host().leases) == (CONNECTING, 1)
                house.clock.advance(2)
                with await server.accept() as end:
                    assert await read(end, 5) == b"hello"
                    end.send(b"done")
                    end.close()
                    assert await heard(client) == (b"done", True)
        assert house.all_outcomes() == [Outcome.TIMED_OUT, Outcome.ANSWERED]


@every_way
@pytest_twisted.ensureDeferred
async def test_a_connection_that_was_made_while_no_process_was_there(way: str) -> None:
    with Hole() as hole:
        house = KeptHouse(hole.spec(), way=way)
        async with house.lasts():
            with house.client(b"hello") as client:
                await phase(house, CONNECTING)
                await turns()
                house.kill()
                await hole.open_up()
                with await hole.accept() as end:
                    house.live_again()
                    assert await read(end, 5) == b"hello"
                    end.send(b"done")
                    end.close()
                    assert await heard(client) == (b"done", True)
        assert house.all_outcomes() == [Outcome.ANSWERED]


@every_way
@pytest_twisted.ensureDeferred
async def test_a_lookup_is_begun_anew(way: str) -> None:
    asked: list[Deferred[list[Place]]] = []

    def resolve(name: str, port: int) -> Deferred[list[Place]]:
        asked.append(Deferred())
        return asked[-1]

    with Server() as server:
        spec = HostSpec("alpha", 1, 0, address=("alpha.example", 3632), pools=server.spec().pools)
        house = KeptHouse(spec, way=way, resolve=resolve)
        async with house.lasts():
            with house.client(b"hello") as client:
                await until(lambda: len(asked) == 1)
                house.again()
                await until(lambda: len(asked) == 2)
                asked[1].callback([(2, server.where)])
                with await server.accept() as end:
                    assert await read(end, 5) == b"hello"
                    end.send(b"done")
                    end.close()
                    assert await heard(client) == (b"done", True)
        assert house.all_outcomes() == [Outcome.ANSWERED]


@every_way
@pytest_twisted.ensureDeferred
async def test_bytes_that_wait_in_both_pipes(way: str) -> None:
    """Neither side reads: what was read from one and not given to the other is in the pipes."""
    said, answer = noise(MUCH, 1), noise(MUCH, 2)
    with Server() as server:
        house = KeptHouse(server.spec(), way=way)
        async with house.lasts():
            async with relayed(house, server, window=SMALL) as (client, end):
                sent = [await _stuff(house, client, said), await _stuff(house, end, answer)]
                (session,) = house.spliced
                assert None not in (session.up.pipe, session.down.pipe)
                house.again()
                (session,) = house.spliced
                assert None not in (session.up.pipe, session.down.pipe)
                assert session.moved()[1] > 0
                assert await read(end, sent[0]) == said[: sent[0]]
                assert await read(client, sent[1]) == answer[: sent[1]]
                await rests(house)
                end.close()
                assert await heard(client) == (b"", True)
            await house.idle()
            traffic = house.host()
            assert (traffic.sent, traffic.received) == (5 + sent[0], sent[1])


@every_way
@pytest_twisted.ensureDeferred
async def test_a_long_transfer_each_way_with_ten_new_processes(way: str) -> None:
    said, answer = noise(MUCH, 3), noise(MUCH, 4)
    with Server() as server:
        house = KeptHouse(server.spec(), way=way, passes=True)
        async with house.lasts():
            async with relayed(house, server) as (client, end):
                sending = [client.send_much(said), end.send_much(answer)]
                both = [Deferred.fromCoroutine(one) for one in sending]
                reads = [Deferred.fromCoroutine(read(end, MUCH)), Deferred.fromCoroutine(read(client, MUCH))]
                for _ in range(10):
                    await turns(3)
                    house.again()
                for one in both:
                    await one
                assert await reads[0] == said
                assert await reads[1] == answer
                client.half_close()
                assert await read(end, 1) == b""
                end.close()
                assert await heard(client) == (b"", True)
            await house.idle()
            traffic = house.host()
            assert (traffic.sent, traffic.received) == (5 + MUCH, MUCH)
        assert house.all_outcomes() == [Outcome.ANSWERED]


@every_way
@pytest.mark.parametrize("passes", [False, True])
@pytest_twisted.ensureDeferred
async def test_an_answer_that_came_while_no_process_was_there(way: str, passes: bool) -> None:
    with Server() as server:
        house = KeptHouse(server.spec(), way=way, passes=passes)
        async with house.lasts():
            async with relayed(house, server) as (client, end):
                house.kill()
                client.send(b" more")
                end.send(b"done")
                end.close()
                house.live_again()
                if passes:
                    client.half_close()
                assert await heard(client) == (b"done", True)
            await house.idle()
            traffic = house.host()
            assert traffic.received == 4
        assert house.all_outcomes() == [Outcome.ANSWERED]


@every_way
@pytest_twisted.ensureDeferred
async def test_a_server_that_closed_without_a_byte(way: str) -> None:
    """The end that came has a number in TCP's count of bytes, and is none."""
    with Server() as server:
        house = KeptHouse(server.spec(), way=way)
        async with house.lasts():
            async with relayed(house, server) as (client, end):
                house.kill()
                end.close()
                house.live_again()
                assert await heard(client) == (b"", True)
            await house.idle()
        assert house.all_outcomes() == [Outcome.NO_ANSWER]


@every_way
@pytest.mark.parametrize("answered", [b"", b"half"])
@pytest_twisted.ensureDeferred
async def test_a_server_that_reset_the_connection(way: str, answered: bytes) -> None:
    with Server() as server:
        house = KeptHouse(server.spec(), way=way)
        async with house.lasts():
            async with relayed(house, server) as (client, end):
                if answered:
                    end.send(answered)
                    assert await read(client, 4) == answered
                house.kill()
                end.reset()
                house.live_again()
                assert await heard(client) == (b"", False)
            await house.idle()
        assert house.all_outcomes() == [Outcome.BROKEN if answered else Outcome.NO_ANSWER]


@every_way
@pytest.mark.parametrize(("leave", "outcome"), [(Peer.close, Outcome.CLOSED), (Peer.reset, Outcome.RESET)])
@pytest_twisted.ensureDeferred
async def test_a_client_that_left_its_job(way: str, leave: Any, outcome: Outcome) -> None:
    with Server() as server:
        house = KeptHouse(server.spec(), way=way)
        async with house.lasts(), relayed(house, server) as (client, end):
            house.kill()
            leave(client)
            house.live_again()
            await heard(end)
            await house.idle()
        assert house.all_outcomes() == [outcome]


@every_way
@pytest_twisted.ensureDeferred
async def test_ends_that_were_passed_on_stay_passed_on(way: str) -> None:
    """Both sides of the client's connection are ended, and that is no reason to let it go."""
    said = noise(MUCH, 5)
    with Server() as server:
        house = KeptHouse(server.spec(), way=way, passes=True)
        async with house.lasts():
            async with relayed(house, server, window=SMALL) as (client, end):
                end.half_close()
                assert await read(client, 1) == b""
                house.again()
                await rests(house)
                sent = Deferred.fromCoroutine(sends_all(client, said))
                await turns()
                house.again()
                assert await heard(end) == (said, True)
                await sent
            await house.idle()
        assert house.all_outcomes() == [Outcome.NO_ANSWER]


@every_way
@pytest_twisted.ensureDeferred
async def test_a_client_that_had_said_all_hears_the_answer(way: str) -> None:
    with Server() as server:
        house = KeptHouse(server.spec(), way=way, passes=True)
        async with house.lasts():
            async with relayed(house, server) as (client, end):
                client.half_close()
                assert await read(end, 1) == b""
                house.again()
                await rests(house)
                end.send(b"done")
                end.close()
                assert await heard(client) == (b"done", True)
            await house.idle()
            traffic = house.host()
            assert (traffic.sent, traffic.received) == (5, 4)
        assert house.all_outcomes() == [Outcome.ANSWERED]


@every_way
@pytest_twisted.ensureDeferred
async def test_a_server_that_broke_while_it_was_written_to_is_not_done_in_order(way: str) -> None:
    """The system tells an error once: the process that hears of it may not be the one that has to know it."""
    with Server() as server:
        house = KeptHouse(server.spec(), way=way)
        async with house.lasts():
            async with relayed(house, server) as (client, end):
                end.send(b"half")
                assert await read(client, 4) == b"half"
                (session,) = house.spliced
                house.loop.change(session._server, session._server_events, 0)
                session._server_events = 0
                end.reset()
                client.send(b"more")
                await until(lambda: session.up.error is not None or session.state != RELAYING)
                if session.state == RELAYING:
                    house.again()
                assert await heard(client) == (b"", False)
            await house.idle()
        assert house.all_outcomes() == [Outcome.BROKEN]


@every_way
@pytest_twisted.ensureDeferred
async def test_one_whose_client_takes_its_time_to_leave(way: str) -> None:
    with Server() as server:
        house = KeptHouse(server.spec(), way=way)
        async with house.lasts(), relayed(house, server) as (client, end):
            end.send(b"done")
            end.close()
            await phase(house, PARTING)
            house.clock.advance(4)
            assert house.lent == 0
            house.again()
            assert house.lent == 0
            await rests(house)
            assert await heard(client) == (b"done", True)
            house.clock.advance(4)
            await turns()
            assert house.sessions[0].state == PARTING
            house.clock.advance(2)
            await house.idle()
        assert house.all_outcomes() == [Outcome.ANSWERED]


@every_way
@pytest_twisted.ensureDeferred
async def test_a_client_that_takes_nothing_is_cut_off_as_before(way: str) -> None:
    with Server() as server:
        house = KeptHouse(server.spec(), way=way)
        async with house.lasts(), relayed(house, server, window=SMALL) as (client, end):
            await _stuff(house, end, noise(MUCH, 6))
            house.clock.advance(200)
            house.again()
            await stuck(house)
            house.clock.advance(200)
            await turns()
            assert house.sessions[0].state == RELAYING
            house.clock.advance(110)
            await house.idle()
            assert client.sock.fileno() >= 0
        assert house.all_outcomes() == [Outcome.ANSWERED]


@every_way
@pytest_twisted.ensureDeferred
async def test_where_the_server_speaks_first(way: str) -> None:
    with Server() as server:
        house = KeptHouse(server.spec(), way=way, server_first=True)
        async with house.lasts():
            with house.client() as client, await server.accept() as end:
                await phase(house, RELAYING)
                with house.client() as waits:
                    await house.becomes(1, 1)
                    house.again()
                    assert (house.lent, house.waiting) == (1, 1)
                    end.send(b"220 hello")
                    assert await read(client, 9) == b"220 hello"
                    client.close()
                    with await server.accept() as other:
                        other.send(b"220 you")
                        assert await read(waits, 7) == b"220 you"
                        other.close()
                        assert await heard(waits) == (b"", True)


@every_way
@pytest_twisted.ensureDeferred
async def test_clients_of_a_unix_socket(way: str, tmp_path: Path) -> None:
    with Server() as server:
        house = KeptHouse(server.spec(), way=way)
        async with house.lasts(f"unix:{tmp_path}/proxy"):
            async with relayed(house, server) as (client, end):
                await _stuff(house, end, noise(MUCH, 7)[:3_000_000])
                house.again()
                end.close()
                data, _ = await heard(client)
                assert data == noise(MUCH, 7)[: len(data)]
            await house.idle()
            traffic = house.host()
            assert traffic.received == len(data)
        assert house.all_outcomes() == [Outcome.ANSWERED]


@every_way
@pytest_twisted.ensureDeferred
async def test_a_job_whose_host_refused_it_before(way: str) -> None:
    """It asks again as the same job, and so does its next attempt in the next process."""
    with Nobody() as nobody, Server() as server:
        house = KeptHouse(nobody.spec("alpha"), server.spec("beta", rank=1), way=way)
        async with house.lasts(), relayed(house, server) as (first, first_end):
            jobs: list[tuple[int, float | None]] = []
            with house.client(b"second", source="127.0.0.2") as second:
                await house.becomes(1, 1)
                # of what was known of hosts nothing is carried here: so the one that refuses is tried again
                for refusals in (2, 3):
                    house.clock.advance(1)
                    house.again()
                    await _is_refused(house, refusals)
                    await house.becomes(1, 1)
                    (ticket,) = house.leases.scheduler._waiters.values()
                    jobs.append((ticket.request.job, ticket.request.since))
                assert jobs[0] == jobs[1]
                assert jobs[0][0]
                assert jobs[0][1] == 0.0
                first_end.close()
                assert await heard(first) == (b"", True)
                with await server.accept() as end:
                    assert await read(end, 6) == b"second"
                    end.close()
                assert await heard(second) == (b"", True)


# -- what is missing


@pytest_twisted.ensureDeferred
async def test_one_that_the_keeper_did_not_have_yet_is_missed(tmp_path: Path) -> None:
    with Server() as server:
        house = KeptHouse(server.spec())
        async with house.lasts(f"unix:{tmp_path}/proxy"):
            with house.client() as client:
                await phase(house, QUIET)
                house.kill()
                house.lose(Role.SESSION_CLIENT)
                taken = house.live_again()
                assert (len(taken.missing), taken.sessions) == (1, [])
                assert await heard(client) == (b"", True)


@pytest_twisted.ensureDeferred
async def test_one_that_the_keeper_did_not_have_yet_is_reset() -> None:
    """All that it said was read, and so its end would look like an answer that is whole and empty."""
    with Hole() as hole:
        house = KeptHouse(hole.spec())
        async with house.lasts():
            with house.client(b"hello") as client:
                await phase(house, CONNECTING)
                house.kill()
                house.lose(Role.SESSION_CLIENT)
                assert len(house.live_again().missing) == 1
                assert await heard(client) == (b"", False)


@every_way
@pytest_twisted.ensureDeferred
async def test_one_that_is_refused_sees_an_end(way: str) -> None:
    with Server() as server:
        house = KeptHouse(server.spec(), way=way, wait=60.0)
        async with house.lasts(), relayed(house, server):
            with house.client(b"second") as second:
                await house.becomes(1, 1)
                house.again()
                house.clock.advance(61)
                await house.becomes(1, 0)
                # the keeper lets go of it too
                await turns()
                assert await heard(second) == (b"", True)


def _resets(session: Any) -> bool:
    """Whether the client sees a reset, whoever closes it."""
    with socket.socket(fileno=os.dup(session._client)) as sock:
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)[:4] != bytes(4)


@pytest_twisted.ensureDeferred
async def test_clients_are_reset_by_whoever_closes_them_until_they_are_relayed() -> None:
    """From then on bytes may be on their way to them that a reset would take away."""
    with Server() as server:
        house = KeptHouse(server.spec())
        async with house.lasts():
            with house.client(b"first"):
                await phase(house, RELAYING)
                assert [_resets(session) for session in house.sessions] == [False]
                with house.client(b"second") as second:
                    await house.becomes(1, 1)
                    assert sorted(map(_resets, house.sessions)) == [False, True]
                    house.again()
                    assert sorted(map(_resets, house.sessions)) == [False, True]
                    (await server.accept()).close()
                    with await server.accept() as end:
                        assert await read(end, 6) == b"second"
                        assert [_resets(session) for session in house.sessions if session.state == RELAYING] == [False]
                        end.send(b"done")
                        end.close()
                    assert await heard(second) == (b"done", True)


@pytest_twisted.ensureDeferred
async def test_one_whose_server_is_missing_ends_and_says_so() -> None:
    with Server() as server:
        house = KeptHouse(server.spec())
        async with house.lasts(), relayed(house, server) as (client, _):
            house.kill()
            house.lose(Role.SESSION_SERVER)
            house.live_again()
            assert await heard(client) == (b"", False)
        assert house.all_outcomes() == [Outcome.CUT_OFF]


@pytest_twisted.ensureDeferred
async def test_a_connection_that_the_keeper_did_not_have_is_made_again() -> None:
    with Hole() as hole:
        house = KeptHouse(hole.spec())
        async with house.lasts():
            with house.client(b"hello") as client:
                await phase(house, CONNECTING)
                await turns()
                house.kill()
                house.lose(Role.SESSION_SERVER)
                house.live_again()
                await hole.open_up()
                with await hole.accept() as end:
                    assert await read(end, 5) == b"hello"
                assert await heard(client) == (b"", True)
        assert house.all_outcomes() == [Outcome.NO_ANSWER]


@pytest_twisted.ensureDeferred
async def test_a_lease_that_is_free_at_the_take_up_goes_to_one_that_is_not_watched_yet() -> None:
    with Server() as server:
        house = KeptHouse(server.spec())
        async with house.lasts(), relayed(house, server) as (client, _):
            with house.client(b"second") as second:
                await house.becomes(1, 1)
                house.kill()
                house.lose(Role.SESSION_SERVER)
                house.live_again()
                assert await heard(client) == (b"", False)
                with await server.accept() as end:
                    assert await read(end, 6) == b"second"
                    end.send(b"done")
                    end.close()
                assert await heard(second) == (b"done", True)
        assert house.all_outcomes() == [Outcome.CUT_OFF, Outcome.ANSWERED]
        assert house.counts["granted"] == 2


async def _stuff(house: KeptHouse, peer: Peer, data: bytes) -> int:
    """Send as much of it as goes while nobody reads."""
    sent, before = 0, -1
    while sent != before:
        before = sent
        with contextlib.suppress(BlockingIOError):
            while sent < len(data):
                sent += peer.sock.send(data[sent : sent + (1 << 16)])
        await stuck(house)
    return sent


async def _is_refused(house: KeptHouse, times: int) -> None:
    await until(lambda: house.all_outcomes().count(Outcome.REFUSED) == times, "a refusal")
