"""Servers that cannot be connected to or fail their jobs: what the client meets, and what is learnt of the host."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from distbal.evidence import FIRST_PAUSE
from distbal.outcomes import Outcome
from distbal.proxy.session import CONNECT_TIME
from tests.peers import Peer, until
from tests.ports import our_end, texts
from tests.proxies import (
    MUCH,
    SMALL,
    Hole,
    House,
    Nobody,
    Server,
    both_relays,
    expect,
    heard,
    lose_patience,
    noise,
    read,
    relayed,
    sends_all,
    stuck,
    stuff,
    turns,
)

pytestmark = pytest.mark.usefixtures("descriptors_stay")


# -- no connection comes about: the client never learns of it


@both_relays
@pytest_twisted.ensureDeferred
async def test_where_nobody_listens_the_next_host_gets_the_job(relay: str) -> None:
    with Nobody() as nobody, Server() as server, capturedLogs() as events:
        house = House(nobody.spec("dead"), server.spec("good", 1, 1))
        async with house.serves(relay):
            with house.client(b"hello") as client:
                await expect(house, server, client, b"hello")
        assert house.outcomes() == [Outcome.REFUSED, Outcome.ANSWERED]
        (job,) = house.leases.scheduler.history.jobs()
        assert [attempt.host for attempt in job.attempts] == ["dead", "good"], "one job, two attempts"
        verdict = house.verdict("dead")
        assert verdict is not None
        assert (verdict.up, verdict.reason, verdict.expires) == (False, "refused the connection", FIRST_PAUSE)
        dead = house.host("dead")
        assert (dead.up, dead.failures, dead.connected, dead.sent, dead.received) == (False, {"refused": 1}, 0, 0, 0)
        assert house.host("good").failures == {}
    assert "dead refused the connection; no jobs go there for 5 s, then one on trial" in texts(events)


@both_relays
@pytest_twisted.ensureDeferred
async def test_a_host_that_does_not_answer_is_given_up_after_a_moment(relay: str) -> None:
    with Hole() as hole, Server() as server:
        house = House(hole.spec("dark"), server.spec("good", 1, 1))
        async with house.serves(relay):
            with house.client(b"hel") as client:
                await house.becomes(lent=1)
                await turns()
                client.send(b"lo")
                house.clock.advance(CONNECT_TIME - 0.1)
                assert house.host("dark").leases == 1
                house.clock.advance(0.2)
                assert (house.host("dark").leases, house.host("good").leases) == (0, 1)
                await expect(house, server, client, b"hello")
        assert house.outcomes() == [Outcome.TIMED_OUT, Outcome.ANSWERED]
        verdict = house.verdict("dark")
        assert verdict is not None
        assert verdict.reason == "did not answer within 3 s"
        assert house.host("dark").failures == {"timed-out": 1}


@both_relays
@pytest_twisted.ensureDeferred
async def test_a_host_that_fails_rests_is_tried_with_one_job_and_recovers(relay: str) -> None:
    house = House()
    with Server() as server:
        house = House(server.spec(slots=4))
        server.sock.close()
        server.sock = socket.socket()
        server.sock.bind(server.where)  # and it does not listen
        server.sock.setblocking(False)
        async with house.serves(relay):
            with ExitStack() as stack:
                clients = [stack.enter_context(house.client(b"hello")) for _ in range(4)]
                await until(lambda: house.counts["ended"] > 0 and house.waiting == 4, "four that wait again")
                # many failed at once, which is one failure
                for pause in (FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE):
                    verdict = house.verdict()
                    assert verdict is not None
                    assert (verdict.up, verdict.expires) == (False, house.clock.seconds() + pause)
                    failed = house.host().failures["refused"]
                    house.clock.advance(pause - 0.01)
                    assert house.host().capacity == 0
                    house.clock.advance(0.02)
                    await until(lambda failed=failed: house.host().failures["refused"] == failed + 1, "one on trial")  # type: ignore[misc]
                    house.clock.advance(0)
                    await house.becomes(lent=0, waiting=4)
                    house.clock.pump([0])
                server.sock.listen()
                house.clock.advance(8 * FIRST_PAUSE + 0.01)
                assert house.host().capacity == 1
                await until(lambda: house.host().capacity == 4, "the end of the trial")
                assert house.verdict() is None
                for _ in clients:
                    with await server.accept() as end:
                        assert await read(end, 5) == b"hello"
                        end.send(b"done")
                        end.close()
                for client in clients:
                    assert await heard(client) == (b"done", True)
        assert house.host().connected == 4


@both_relays
@pytest_twisted.ensureDeferred
async def test_a_job_without_any_host_is_hung_up_on_after_queue_wait(relay: str) -> None:
    with Nobody() as one, Nobody() as two:
        house = House(one.spec("one"), two.spec("two", 1, 1), wait=4)
        async with house.serves(relay):
            with house.client(b"hello") as client:
                await until(lambda: house.waiting == 1 and house.counts["ended"] == 2, "two attempts")
                house.clock.advance(3.9)
                assert client.silence()
                house.clock.advance(0.2)
                assert (await heard(client))[0] == b""
        assert house.counts == {"asked": 3, "granted": 2, "ended": 2, "withdrawn": 0, "refused": 1}


@both_relays
@pytest_twisted.ensureDeferred
async def test_queue_wait_counts_from_the_moment_when_a_job_first_asked(relay: str) -> None:
    with Hole() as hole:
        house = House(hole.spec(), wait=5)
        async with house.serves(relay):
            with house.client(b"hello") as client:
                await house.becomes(lent=1)
                await turns()
                house.clock.advance(CONNECT_TIME + 0.1)
                await house.becomes(lent=0, waiting=1)
                house.clock.advance(1.8)
                assert house.waiting == 1
                house.clock.advance(0.2)
                assert house.waiting == 0
                assert (await heard(client))[0] == b""


@both_relays
@pytest_twisted.ensureDeferred
async def test_where_the_system_gives_a_connect_up_first_the_host_did_not_answer(relay: str) -> None:
    with Hole() as hole, Server() as server:
        house = House(hole.spec("dark"), server.spec("good", 1, 1))
        async with house.serves(relay):
            with house.client(b"hello") as client:
                await house.becomes(lent=1)
                await turns()
                (session,) = house.sessions
                connecting: Any = session
                lose_patience(connecting._server if relay == "spliced" else connecting._connector.transport.fileno())
                await expect(house, server, client, b"hello")
        assert house.outcomes() == [Outcome.TIMED_OUT, Outcome.ANSWERED]
        verdict = house.verdict("dark")
        assert verdict is not None
        assert verdict.reason == "did not answer"


# -- servers that fail a job that they have


@both_relays
@pytest_twisted.ensureDeferred
async def test_a_server_that_closes_without_a_byte(relay: str) -> None:
    with Server() as server:
        house = House(server.spec())
        async with house.serves(relay), relayed(house, server) as (client, end):
            end.close()
            assert await heard(client) == (b"", True), "the client sees what it would see without us"
            await house.becomes(lent=0)
        assert house.outcomes() == [Outcome.NO_ANSWER]
        assert house.host().failures == {"no-answer": 1}
        assert house.verdict() is None


@both_relays
@pytest_twisted.ensureDeferred
async def test_a_server_that_resets_without_a_byte(relay: str) -> None:
    with Server() as server:
        house = House(server.spec())
        async with house.serves(relay), relayed(house, server) as (client, end):
            end.reset()
            assert await heard(client) == (b"", False)
            await house.becomes(lent=0)
        assert house.outcomes() == [Outcome.NO_ANSWER]


@both_relays
@pytest.mark.parametrize("leave", [Peer.close, Peer.reset], ids=["close", "reset"])
@pytest_twisted.ensureDeferred
async def test_a_server_that_takes_connections_and_ends_them_at_once(relay: str, leave: object) -> None:
    """A reset may be seen as a connect that failed: then nothing was sent, and the next host gets the job."""
    with Server() as server, Server() as good:
        house = House(server.spec("bad"), good.spec("good", 1, 1))
        async with house.serves(relay):
            with house.client(b"hello") as client:
                (Peer.close if leave is Peer.close else Peer.reset)(await server.accept())
                await until(lambda: house.counts["ended"] == 1, "the end of the first attempt")
                if house.outcomes() == [Outcome.NO_ANSWER]:
                    await heard(client)
                else:
                    assert house.outcomes() == [Outcome.UNREACHABLE]
                    await expect(house, good, client, b"hello")


@both_relays
@pytest.mark.parametrize("answered", [7, 3_000_000])
@pytest_twisted.ensureDeferred
async def test_an_answer_that_is_broken_off_does_not_look_whole(relay: str, answered: int) -> None:
    answer = noise(answered)
    with Server() as server:
        house = House(server.spec())
        async with house.serves(relay), relayed(house, server) as (client, end):
            sending = Deferred.fromCoroutine(end.send_much(answer))
            got = await read(client, answered)
            await sending
            end.reset()
            more, clean = await heard(client)
            assert (got + more, clean) == (answer, False)
            await house.becomes(lent=0)
        assert house.outcomes() == [Outcome.BROKEN]
        assert house.host().failures == {"broken": 1}
        assert house.host().received == answered


@both_relays
@pytest_twisted.ensureDeferred
async def test_a_reset_that_shows_when_the_server_is_written_to_is_a_reset_all_the_same(relay: str) -> None:
    """The error of a socket is told once: to the write. A read finds what looks like a clean end after that."""
    with Server() as server:
        house = House(server.spec())
        async with house.serves(relay), relayed(house, server) as (client, end):
            end.send(b"in part")
            assert await read(client, 7) == b"in part"
            # in one turn: the client's words come first, the server's end second
            client.send(b"more")
            end.reset()
            with capturedLogs() as events:
                assert await heard(client) == (b"", False)
                await house.becomes(lent=0)
        assert house.outcomes() == [Outcome.BROKEN]
        (line,) = texts(events)
        assert line.startswith("alpha broke off its answer: ")
        assert line.endswith(": the job of 127.0.0.1 is lost")


@both_relays
@pytest_twisted.ensureDeferred
async def test_three_clients_without_an_answer_make_a_host_suspect_and_an_answer_clears_it(relay: str) -> None:
    with Server() as server, Server() as other, capturedLogs() as events:
        house = House(server.spec("odd"), other.spec("good", 1, 1))

        async def job(source: str, answer: bytes, lent: int = 0) -> None:
            async with relayed(house, server, source=source) as (client, end):
                if answer:
                    end.send(answer)
                end.close()
                assert await heard(client) == (answer, True)
            await house.becomes(lent)

        async with house.serves(relay):
            for source in ("127.0.0.2", "127.0.0.2", "127.0.0.2", "127.0.0.3"):
                await job(source, b"")
            assert not house.host("odd").suspect, "two clients are not three"
            await job("127.0.0.2", b"done")
            for source in ("127.0.0.2", "127.0.0.3", "127.0.0.4"):
                assert not house.host("odd").suspect
                await job(source, b"")
            assert house.host("odd").suspect
            assert house.host("odd").up, "and never down by that alone"
            async with relayed(house, other):
                # only now that the other one is taken
                await job("127.0.0.2", b"done", lent=1)
            assert not house.host("odd").suspect
        assert house.host("odd").failures == {"no-answer": 7}
    lines = texts(events)
    said = "odd closed the job of 127.0.0.2 without an answer (distccd does so where its --allow does not"
    assert any(line.startswith(said) for line in lines)
    assert any(line.startswith("odd closed jobs of 3 clients without an answer: it is used last") for line in lines)
    assert "odd answers again" in lines


@pytest.mark.parametrize("shows", ["reading", "writing"])
@pytest.mark.parametrize("answered", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_server_whose_machine_vanishes_has_lost_its_job(answered: bool, shows: str) -> None:
    """It is no way to turn a client away: the job was broken off, whether there was the beginning of an answer or not."""
    with Server() as server, capturedLogs() as events:
        house = House(server.spec(), verbose=True)
        server.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 5000)
        async with house.serves("spliced"), relayed(house, server) as (client, end):
            if answered:
                end.send(b"in part")
                assert await read(client, 7) == b"in part"
            with our_end(end.sock) as ours:
                lose_patience(ours.fileno())
            # it reads no more, and what it has not taken is given up
            if shows == "writing":
                await stuff(client, house)
            else:
                client.send(bytes(100_000))
            await house.becomes(lent=0)
            assert not (await heard(client))[1]
        assert house.outcomes() == [Outcome.BROKEN]
        assert house.host().failures == {"broken": 1}
    assert "<Ticket 1 of 127.0.0.1 for default> is over: broken" in texts(events)


# -- accounting


@both_relays
@pytest_twisted.ensureDeferred
async def test_what_a_server_that_died_was_not_sent_is_not_counted(relay: str) -> None:
    with Server() as server:
        house = House(server.spec())
        server.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        async with house.serves(relay), relayed(house, server) as (client, end):
            sending = Deferred.fromCoroutine(sends_all(client, noise(MUCH)))
            await stuck(house)
            (session,) = house.sessions
            sent, _ = session.moved()
            end.reset()
            await house.becomes(lent=0)
            await sending
        assert house.host().sent == sent


@both_relays
@pytest_twisted.ensureDeferred
async def test_the_books_are_exact(relay: str) -> None:
    up, down = noise(700_000, 1), noise(300_000, 2)
    with Server() as server:
        house = House(server.spec())
        async with house.serves(relay):
            for _ in range(3):
                with house.client() as client:
                    sending = Deferred.fromCoroutine(client.send_much(up))
                    with await server.accept() as end:
                        assert await read(end, len(up)) == up
                        await sending
                        sending = Deferred.fromCoroutine(end.send_much(down))
                        assert await read(client, len(down)) == down
                        await sending
                        house.clock.advance(2)
                        end.close()
                        await house.becomes(lent=0)
            for _ in range(2):
                async with relayed(house, server, b"four") as (_, end):
                    end.close()
                    await house.becomes(lent=0)
        host = house.host()
        assert (host.sent, host.received) == (3 * len(up) + 8, 3 * len(down))
        assert (host.granted, host.held, host.connected, host.failures) == (5, 6.0, 5, {"no-answer": 2})


@both_relays
@pytest_twisted.ensureDeferred
async def test_the_time_that_connects_take(relay: str) -> None:
    with Hole() as hole:
        house = House(hole.spec())
        async with house.serves(relay):
            with house.client(b"hello") as client:
                await house.becomes(lent=1)
                await turns()
                house.clock.advance(1.5)
                await hole.open_up()
                # the system asks again after a second
                with await hole.accept() as end:
                    assert await read(end, 5) == b"hello"
                    client.close()
        assert (house.host().connected, house.host().connecting) == (1, 1.5)
