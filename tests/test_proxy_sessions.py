"""The proxy's clients from their connect to their end: when they ask, how they wait, and what they free when they leave."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from distbal.outcomes import Outcome
from distbal.proxy.session import LONG_WAIT, LOOK_TIME
from tests.peers import Peer, until
from tests.ports import texts
from tests.proxies import (
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
    stuff,
    turns,
)

pytestmark = pytest.mark.usefixtures("descriptors_stay")


# -- when a lease is asked for


@both_relays
@pytest_twisted.ensureDeferred
async def test_a_job(relay: str) -> None:
    with Server() as server:
        house = House(server.spec())
        async with house.serves(relay), relayed(house, server, b"compile this") as (client, end):
            (lease,) = house.leases.snapshot().leases
            assert (lease.address, lease.port, lease.host) == ("127.0.0.1", client.port, "alpha")
            end.send(b"object")
            assert await read(client, 6) == b"object"
            client.send(b", and this")
            assert await read(end, 10) == b", and this"
            end.send(b" two")
            end.close()
            assert await heard(client) == (b" two", True)
            await house.becomes(lent=0)
        assert house.outcomes() == [Outcome.ANSWERED]
        assert house.counts == {"asked": 1, "granted": 1, "ended": 1, "withdrawn": 0, "refused": 0}
        host = house.host()
        assert (host.sent, host.received, host.connected, host.connecting, host.failures) == (22, 10, 1, 0.0, {})


@both_relays
@pytest_twisted.ensureDeferred
async def test_a_silent_client_holds_nothing(relay: str) -> None:
    with Server() as server:
        house = House(server.spec())
        async with house.serves(relay):
            with house.client() as silent, house.client() as leaves, house.client() as resets:
                async with relayed(house, server):
                    assert house.counts["asked"] == 1, "whoever speaks is served, and the silent are in nobody's way"
                    leaves.close()
                    resets.reset()
                await house.becomes(lent=0)
                silent.send(b"at last")
                with await server.accept() as end:
                    assert await read(end, 7) == b"at last"
        assert house.counts["asked"] == 2


@both_relays
@pytest_twisted.ensureDeferred
async def test_where_the_server_speaks_first_a_slot_is_asked_for_at_the_connect(relay: str) -> None:
    with Server() as server:
        house = House(server.spec(), server_first=True)
        async with house.serves(relay):
            with house.client() as client, await server.accept() as end:
                end.send(b"220 hello")
                assert await read(client, 9) == b"220 hello"
                client.send(b"quit")
                assert await read(end, 4) == b"quit"
                end.send(b"221 bye")
                end.close()
                assert await heard(client) == (b"221 bye", True)
        assert house.outcomes() == [Outcome.ANSWERED]


@both_relays
@pytest_twisted.ensureDeferred
async def test_a_silent_client_of_a_server_that_speaks_first_waits_too(relay: str) -> None:
    with Server() as server:
        house = House(server.spec(), server_first=True)
        async with house.serves(relay):
            with house.client() as first, house.client(b"early") as second:
                await house.becomes(lent=1, waiting=1)
                (await server.accept()).close()
                assert await heard(first) == (b"", True)
                with await server.accept() as end:
                    assert await read(end, 5) == b"early"
                    second.close()


@both_relays
@pytest_twisted.ensureDeferred
async def test_strangers_are_turned_away(relay: str) -> None:
    with Server() as server:
        house = House(server.spec())
        house.allow("10.0.0.0/8")
        async with house.serves(relay):
            with capturedLogs() as events, house.client() as stranger:
                stranger.send(b"let me in")
                assert await stranger.is_turned_away()
            assert texts(events) == ["127.0.0.1 is not in allow.clients (10.0.0.0/8): turned away"]
            house.allow("127.0.0.2")
            with capturedLogs(), house.client(b"me too") as stranger:
                assert await stranger.is_turned_away()
            assert house.counts["asked"] == 0
            async with relayed(house, server, source="127.0.0.2"):
                assert house.lent == 1


@pytest.mark.parametrize(("relay", "at"), [("spliced", "unix:{}"), ("streams", "unix:{}:mode=666")])
@pytest_twisted.ensureDeferred
async def test_a_unix_socket(relay: str, at: str, tmp_path: Path) -> None:
    with Server() as server:
        house = House(server.spec())
        house.allow()
        path = tmp_path / "socket"
        async with house.serves(relay, at.format(path)):
            house.where = str(path)
            up, down = noise(500_000, 1), noise(500_000, 2)
            with house.client(b"first") as client, await server.accept() as end:
                with house.client(b"waits") as second:
                    await house.becomes(lent=1, waiting=1)
                    now = house.leases.snapshot()
                    assert [(one.address, one.port) for one in now.leases + now.waiters] == [("", 0), ("", 0)]
                    second.close()
                    await house.becomes(lent=1)
                sending = Deferred.fromCoroutine(client.send_much(up))
                assert await read(end, 500_005) == b"first" + up
                await sending
                sending = Deferred.fromCoroutine(end.send_much(down))
                assert await read(client, 500_000) == down
                await sending
                end.close()
                assert await heard(client) == (b"", True)


# -- while it waits


@both_relays
@pytest_twisted.ensureDeferred
async def test_what_a_waiter_says_is_taken_in_up_to_a_bound_and_arrives_in_order(relay: str) -> None:
    said = noise(20_000_000)
    with Server() as server:
        house = House(server.spec())
        async with house.serves(relay), relayed(house, server) as (holder, _):
            with house.client(said[:100]) as client:
                await house.becomes(lent=1, waiting=1)
                sending = Deferred.fromCoroutine(client.send_much(said[100:]))
                (session,) = [one for one in house.sessions if one.ticket is not None]
                taken = -1
                while taken != (now := held(session)):
                    # what is on its way comes with the reactor's next turns
                    taken = now
                    await turns()
                assert 100 < taken <= 1 << 20
                assert house.counts["withdrawn"] == 0
                holder.close()
                with await server.accept() as end:
                    assert await read(end, len(said)) == said
                    await sending
                    client.close()
        assert house.host().sent == len(said) + 5


def held(session: object) -> int:
    """Bytes of its client that a waiting session keeps."""
    if hasattr(session, "up"):
        return 0 if session.up.pipe is None else int(session.up.pipe.held)
    parts: list[bytes] = session._held  # type: ignore[attr-defined]
    return sum(map(len, parts))


@both_relays
@every_way_to_leave
@pytest.mark.parametrize("said", [5, 3000], ids=["word", "3 kB"])
@pytest_twisted.ensureDeferred
async def test_a_waiter_that_leaves_is_forgotten_at_once(relay: str, leave: Leave, said: int) -> None:
    with Server() as server:
        house = House(server.spec())
        async with house.serves(relay), relayed(house, server) as (holder, _):
            with ExitStack() as stack:
                waiters = [stack.enter_context(house.client(noise(said))) for _ in range(4)]
                await house.becomes(lent=1, waiting=4)
                for waiter in waiters[:3]:
                    leave(waiter)
                await house.becomes(lent=1, waiting=1)
                assert house.counts["withdrawn"] == 3
                holder.close()
                with await server.accept() as end:
                    assert await read(end, said) == noise(said)
        assert house.counts == {"asked": 5, "granted": 2, "ended": 2, "withdrawn": 3, "refused": 0}


@both_relays
@pytest.mark.parametrize("more", [False, True], ids=["word", "more than fits"])
@pytest_twisted.ensureDeferred
async def test_where_ends_are_passed_on_a_waiter_that_is_reset_is_forgotten(relay: str, more: bool) -> None:
    with Server() as server:
        house = House(server.spec(), passes=True)
        async with house.serves(relay), relayed(house, server):
            with house.client(b"hello") as waiter:
                await house.becomes(lent=1, waiting=1)
                if more:
                    await stuff(waiter, house)
                waiter.reset()
                if more and relay == "streams":
                    # Twisted hears of a client only while it reads
                    house.clock.advance(LOOK_TIME + 0.1)
                await house.becomes(lent=1)
                assert house.counts["withdrawn"] == 1


@both_relays
@every_way_to_leave
@pytest_twisted.ensureDeferred
async def test_a_waiter_that_sent_more_than_fits_is_forgotten_at_its_turn_at_the_latest(relay: str, leave: Leave) -> None:
    with Server() as server:
        house = House(server.spec())
        async with house.serves(relay), relayed(house, server) as (holder, _):
            with house.client(b"x") as waiter:
                await house.becomes(lent=1, waiting=1)
                sent = 0
                while sent < 2_000_000:
                    try:
                        sent += waiter.sock.send(bytes(100_000))
                    except BlockingIOError:
                        break
                    await turns(2)
                leave(waiter)
                at_once = leave is Peer.reset and relay == "spliced"
                if at_once:
                    # its end does not wait behind what it sent
                    await house.becomes(lent=1)
                holder.close()
                if not at_once:
                    with await server.accept() as end:
                        await gone(end)
                await house.becomes(lent=0)


@both_relays
@pytest_twisted.ensureDeferred
async def test_who_has_waited_too_long_is_hung_up_on(relay: str) -> None:
    with Server() as server:
        house = House(server.spec(), wait=30)
        async with house.serves(relay), relayed(house, server) as (holder, _):
            with house.client(b"me too") as waiter, house.client() as silent:
                await house.becomes(lent=1, waiting=1)
                house.clock.advance(29.9)
                assert house.waiting == 1
                house.clock.advance(0.2)
                assert await heard(waiter) == (b"", True), "a clean end"
                assert (house.lent, house.waiting) == (1, 0)
                assert holder.silence()
                assert silent.silence()
        assert house.counts["refused"] == 1


@both_relays
@pytest.mark.parametrize("waited", [LONG_WAIT - 0.1, LONG_WAIT + 0.1], ids=["soon", "late"])
@pytest_twisted.ensureDeferred
async def test_who_gives_up_after_a_long_wait_is_worth_a_line(relay: str, waited: float) -> None:
    with Server() as server:
        house = House(server.spec())
        async with house.serves(relay), relayed(house, server):
            with capturedLogs() as events, house.client(b"me too") as waiter:
                await house.becomes(lent=1, waiting=1)
                house.clock.advance(waited)
                waiter.close()
                await house.becomes(lent=1)
    assert texts(events) == (
        ["127.0.0.1 gave up after 10 s of waiting for a host (distcc waits for DISTCC_IO_TIMEOUT: 300 s where that is not set)"]
        if waited > LONG_WAIT
        else []
    )


# -- while it is connecting, and after that


@both_relays
@every_way_to_leave
@pytest_twisted.ensureDeferred
async def test_who_leaves_while_its_host_is_connected_to_frees_the_slot_at_once(relay: str, leave: Leave) -> None:
    with Hole() as hole:
        house = House(hole.spec())
        async with house.serves(relay):
            with house.client(b"hello") as client:
                await house.becomes(lent=1)
                leave(client)
                await house.becomes(lent=0)
        assert house.verdict() is None, "nothing was learnt of the host"
        assert house.host().failures == {}
        (outcome,) = house.outcomes()
        assert outcome is (Outcome.RESET if leave is Peer.reset else Outcome.CLOSED)


@both_relays
@every_way_to_leave
@pytest.mark.parametrize("answered", [False, True])
@pytest_twisted.ensureDeferred
async def test_who_leaves_while_its_job_runs_cancels_it_at_once(relay: str, leave: Leave, answered: bool) -> None:
    with Server() as server:
        house = House(server.spec())
        async with house.serves(relay), relayed(house, server) as (client, end):
            if answered:
                end.send(b"in part")
                assert await read(client, 7) == b"in part"
            leave(client)
            await gone(end)
            await house.becomes(lent=0)
        outcome = Outcome.ANSWERED if answered else Outcome.RESET if leave is Peer.reset else Outcome.CLOSED
        assert house.outcomes() == [outcome]
        assert house.host().failures == {}


@both_relays
@pytest_twisted.ensureDeferred
async def test_jobs_are_logged_when_asked_for(relay: str) -> None:
    with Server() as server, capturedLogs() as events:
        house = House(server.spec(), wait=30, verbose=True)
        async with house.serves(relay), relayed(house, server) as (_, end):
            with house.client(b"hello"), house.client(b"hello", source="127.0.0.2") as leaves:
                await house.becomes(lent=1, waiting=2)
                leaves.close()
                await house.becomes(lent=1, waiting=1)
                house.clock.advance(30.1)
                await house.becomes(lent=1)
            end.send(b"done")
            end.close()
            await house.becomes(lent=0)
    ours = [text for event, text in zip(events, texts(events), strict=True) if event["log_namespace"].startswith("distbal")]
    assert ours == [
        "<Ticket 1 of 127.0.0.1 for default> has alpha after 0.000 s",
        "<Ticket 2 of 127.0.0.1 for default> waits",
        "<Ticket 3 of 127.0.0.2 for default> waits",
        "<Ticket 3 of 127.0.0.2 for default> is over: closed",
        "<Ticket 2 of 127.0.0.1 for default> is refused: no host was free for as long as queue.wait allows",
        "<Ticket 1 of 127.0.0.1 for default> is over: answered",
    ]


# -- the end of it all


@both_relays
@pytest.mark.parametrize("passes", [False, True])
@pytest_twisted.ensureDeferred
async def test_the_end_leaves_nothing_in_whatever_state(relay: str, passes: bool) -> None:
    before = set(reactor.getReaders()), set(reactor.getWriters())
    with Server() as server, Hole() as hole, ExitStack() as stack:
        # where ends are passed on, a client that has heard all may still speak
        house = House(server.spec(slots=2 + passes), hole.spec("hole", 1, 1), passes=passes)
        async with house.open(relay):
            parting = stack.enter_context(house.client(b"1"))
            end = stack.enter_context(await server.accept())
            assert await read(end, 1) == b"1"
            end.send(b"done")
            end.close()
            assert await heard(parting) == (b"done", True)
            relaying = [stack.enter_context(house.client(b"2")) for _ in range(2)]
            ends = [stack.enter_context(await server.accept()) for _ in relaying]
            connecting = stack.enter_context(house.client(b"3"))
            await house.becomes(lent=3 + passes)
            waiting = stack.enter_context(house.client(b"4"))
            await house.becomes(lent=3 + passes, waiting=1)
            peers = [*relaying, *ends, connecting, waiting]
            if relay == "streams":
                # by the other listener the system brings only those who speak
                peers.append(stack.enter_context(house.client()))
                await until(lambda: len(house.sessions) == 6, "the silent one")
        for peer in peers:
            await gone(peer)
        assert house.clock.getDelayedCalls() == []
        await turns()
        assert (set(reactor.getReaders()), set(reactor.getWriters())) == before
