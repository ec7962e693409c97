"""The proxy in need: without descriptors, without large pipes, without room; and a bug, which meets one session alone."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from distbal.outcomes import Outcome
from distbal.proxy import flow
from distbal.proxy.pipes import USUAL
from distbal.proxy.splice import COST
from tests.peers import readable, until
from tests.ports import texts
from tests.proxies import House, Server, both_relays, gone, heard, noise, read, relayed, turns
from tests.support import LoggedErrors, descriptors_left, room_for
from tests.test_listening import ordinary_user

pytestmark = pytest.mark.usefixtures("descriptors_stay")


# -- what we lack ourselves


@pytest.mark.parametrize(("relay", "left"), [("spliced", 1), ("spliced", 2), ("spliced", 3), ("streams", 1)])
@pytest_twisted.ensureDeferred
async def test_a_session_that_finds_no_descriptor_is_cut_off_and_no_host_is_blamed(relay: str, left: int) -> None:
    """One is taken by accepting it, two by the pipe where there is one, one by the connect."""
    with Server() as server:
        house = House(server.spec())
        async with house.serves(relay):
            with house.client(b"hello") as client, capturedLogs() as events, descriptors_left(left):
                await readable(client.sock)
                assert await heard(client) == (b"", False)
            no_pipe = relay == "spliced" and left < 3
            reason = "there is no pipe for it: Too many open files" if no_pipe else "Too many open files"
            assert [line for line in texts(events) if "cut off" in line] == [f"127.0.0.1 is cut off: {reason}"]
            assert house.verdict() is None
            assert house.host().failures == {}
            async with relayed(house, server) as (client, _):
                assert client.silence()


@pytest.mark.parametrize("whom", ["client", "server"])
@pytest_twisted.ensureDeferred
async def test_whom_the_system_does_not_watch_is_closed_once(whom: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It watches so many for each user (fs.epoll.max_user_watches). A number that is closed twice may be somebody else's."""
    watched: list[int] = []
    closed: list[int] = []
    close = os.close

    def closes(descriptor: int) -> None:
        closed.append(descriptor)
        close(descriptor)

    with Server() as server:
        house = House(server.spec())
        async with house.serves("spliced"):
            register = house.loop._register
            house.loop.watches_no_more()
            refuse = house.loop._register

            def registers(descriptor: int, events: int) -> None:
                watched.append(descriptor)
                (refuse if len(watched) > (whom == "server") else register)(descriptor, events)

            house.loop._register = registers
            monkeypatch.setattr(os, "close", closes)
            with house.client(b"hello") as client, capturedLogs() as events:
                await gone(client)
            monkeypatch.undo()
            house.loop._register = register
            assert closed.count(watched[-1]) == 1
            assert texts(events) == ["127.0.0.1 is cut off: No space left on device"]
            assert house.outcomes() == ([] if whom == "client" else [Outcome.CUT_OFF])
            assert house.host().failures == {}
            if whom == "server":
                with await server.accept() as end:
                    await gone(end)
            async with relayed(house, server) as (client, _):
                assert client.silence()


#: what may be under way when the system has no memory for it
MOVES = ["first bytes", "more bytes", "to the server", "to the client"]


@pytest.mark.parametrize("error", [errno.ENOMEM, errno.ENOBUFS], ids=errno.errorcode.get)
@pytest.mark.parametrize("move", MOVES)
@pytest_twisted.ensureDeferred
async def test_a_system_without_memory_is_no_peer_s_fault(move: str, error: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def splice(*_: object) -> int:
        raise OSError(error, os.strerror(error))

    with Server() as server, capturedLogs() as events:
        house = House(server.spec())
        async with house.serves("spliced"):
            with ExitStack() as stack:
                speaker = meets_it = stack.enter_context(house.client(b"" if move == "first bytes" else b"hello"))
                if move != "first bytes":
                    end = stack.enter_context(await server.accept())
                    assert await read(end, 5) == b"hello"
                if move == "more bytes":
                    speaker = meets_it = stack.enter_context(house.client(b"waits"))
                    await house.becomes(lent=1, waiting=1)
                elif move == "to the client":
                    speaker = end
                monkeypatch.setattr(flow, "_splice", splice)
                speaker.send(b"and more")
                assert await heard(meets_it) == (b"", False)
                monkeypatch.undo()
                await house.becomes(lent=1 if move == "more bytes" else 0)
        if move.startswith("to"):
            assert house.outcomes() == [Outcome.CUT_OFF]
            assert house.host().failures == {}
    # at the end the server of the job that goes on is closed, and says so
    assert texts(events)[0] == f"127.0.0.1 is cut off: {os.strerror(error)}"
    assert all("without an answer" in text for text in texts(events)[1:])


@pytest_twisted.ensureDeferred
async def test_a_waiter_that_speaks_where_the_server_should_keeps_no_large_pipe() -> None:
    with Server() as server:
        house = House(server.spec(), server_first=True)
        async with house.serves("spliced"):
            with house.client() as holder, house.client() as waiter:
                await house.becomes(lent=1, waiting=1)
                (session,) = [one for one in house.sessions if one.ticket is not None]
                waiter.send(b"early")
                await until(lambda: session.up.pipe is not None, "its first bytes")  # type: ignore[attr-defined]
                assert session.up.pipe.size == USUAL  # type: ignore[attr-defined]
                holder.close()
                (await server.accept()).close()
                with await server.accept() as end:
                    assert await read(end, 5) == b"early"


@pytest_twisted.ensureDeferred
async def test_a_session_whose_server_cannot_be_watched_is_cut_off_and_no_host_is_blamed() -> None:
    with Server() as server, Server() as other:
        house = House(server.spec(), other.spec("other", 1, 1))
        async with house.serves("spliced"), relayed(house, server) as (holder, _), relayed(house, other):
            with house.client(b"hello") as client, capturedLogs() as events:
                await house.becomes(lent=2, waiting=1)
                house.loop.watches_no_more()
                holder.close()
                assert await heard(client) == (b"", False)
            assert texts(events) == ["127.0.0.1 is cut off: No space left on device"]
            await house.becomes(lent=1)
            assert house.outcomes() == [Outcome.CLOSED, Outcome.CUT_OFF]
            assert house.verdict() is None
            assert house.host().failures == {}


@pytest_twisted.ensureDeferred
async def test_beyond_their_room_sessions_wait_outside() -> None:
    with Server() as server, capturedLogs() as events:
        house = House(server.spec(slots=10), room=2 * COST + 1)
        async with house.serves("spliced"):
            with ExitStack() as stack:
                clients = [stack.enter_context(house.client(b"hello")) for _ in range(3)]
                await until(lambda: bool(house.loop._paused), "the pause")
                assert house.lent == 2
                clients[1].close()
                await until(lambda: house.counts["asked"] == 3, "the third")
                await house.becomes(lent=2)
                ends = [stack.enter_context(await server.accept()) for _ in range(3)]
                ends[0].close()
                assert await heard(clients[0]) != (b"hello", True)
                assert clients[2].silence()
            await turns()
            assert not house.loop._paused
    said = [text for text in texts(events) if "without an answer" not in text]
    assert said == ["not accepting more clients for now: there are as many clients as its descriptors allow"]


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    with room_for(5000):
        yield


@both_relays
@pytest_twisted.ensureDeferred
async def test_six_hundred_sessions_of_an_ordinary_user_at_once(relay: str, many_descriptors: None) -> None:
    """Its pipes share 64 MiB; what does not fit into one that is small fits into the sockets' own buffers."""
    said, answer = noise(100_000, 1), noise(30_000, 2)
    with capturedLogs(), ordinary_user(), Server(backlog=1000) as server, ExitStack() as stack:
        house = House(server.spec(slots=300))
        async with house.serves(relay):
            clients = [stack.enter_context(house.client()) for _ in range(600)]
            sending = [Deferred.fromCoroutine(client.send_much(said)) for client in clients]
            await house.becomes(lent=300, waiting=300)
            for _ in clients:
                with await server.accept() as end:
                    assert await read(end, len(said)) == said
                    await end.send_much(answer)
                    end.close()
            for client in clients:
                assert await heard(client) == (answer, True)
                client.close()
            for one in sending:
                await one
        host = house.host()
        assert (host.sent, host.received, host.failures) == (600 * len(said), 600 * len(answer), {})


@both_relays
@pytest_twisted.ensureDeferred
async def test_a_session_whose_lease_is_lost_is_cut_off_and_gives_nothing_back(relay: str) -> None:
    """As with leases that come from another process: it knows already that this one is over."""
    with Server() as server, capturedLogs() as events:
        house = House(server.spec(), verbose=True)
        async with house.serves(relay), relayed(house, server) as (client, end):
            (session,) = house.sessions
            lease = session.lease
            assert lease is not None
            house.leases.release(lease, Outcome.CUT_OFF)
            async with relayed(house, server):
                # the slot is another one's by now
                session.lost(lease, "its source is gone")
                assert await heard(client) == (b"", False)
                await gone(end)
                assert house.lent == 1
        assert house.counts["ended"] == 2
    assert "<Ticket 1 of 127.0.0.1 for default> is over: its source is gone" in texts(events)


# -- bugs


@both_relays
@pytest_twisted.ensureDeferred
async def test_what_cannot_be_closed_gives_its_slot_back_all_the_same(relay: str) -> None:
    with Server() as server:
        house = House(server.spec())
        async with house.open(relay), relayed(house, server):
            (session,) = house.sessions
            lacks = "_loop" if relay == "spliced" else "_client"
            has, server_side = getattr(session, lacks), session._server  # type: ignore[attr-defined]
            setattr(session, lacks, None)
            with pytest.raises(AttributeError):
                session.end(Outcome.CUT_OFF)
            setattr(session, lacks, has)
            if relay == "streams":
                server_side.abortConnection()
            assert house.lent == 0
            assert len(house.proxy.young) == 0
        assert house.outcomes() == [Outcome.CUT_OFF]


@both_relays
@pytest_twisted.ensureDeferred
async def test_a_bug_in_one_session_ends_that_one_alone(relay: str, logged_errors: LoggedErrors) -> None:
    with Server() as server:
        house = House(server.spec(slots=2))
        async with house.serves(relay), relayed(house, server) as (first, end):
            async with relayed(house, server) as (second, other_end):
                (session,) = [one for one in house.sessions if one.peer_port == second.port]
                # what it needs is gone: the next thing that it does raises
                if relay == "spliced":
                    session.down.pipes = None  # type: ignore[attr-defined]
                else:
                    session.server_said = None  # type: ignore[attr-defined]
                other_end.send(b"answer")
                assert await heard(second) == (b"", False)
                await house.becomes(lent=1)
                await heard(other_end)
            end.send(b"fine")
            assert await read(first, 4) == b"fine"
    assert len(logged_errors.flush()) == 1
