"""5656 on real sockets: the same conversations with clients in the hot loop and on Twisted's transports."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import pytest_twisted
from twisted.logger import LogLevel, capturedLogs

from distbal.outcomes import Outcome
from distbal.ports import Replies
from tests.farms import spec
from tests.peers import Peer, until, with_ipv6
from tests.ports import HOWS, Office, our_end, texts
from tests.test_listening import WANTED, options

FAST = b"fast\r\n"


@pytest.fixture(params=list(HOWS))
def how(request: pytest.FixtureRequest) -> str:
    """How clients are served."""
    return str(request.param)


every_way_to_leave = pytest.mark.parametrize(
    "leave", [Peer.close, Peer.half_close, Peer.reset], ids=["close", "half-close", "reset"]
)
Leave = Callable[[Peer], None]


# -- leases


@every_way_to_leave
@pytest_twisted.ensureDeferred
async def test_a_slot_goes_from_one_to_the_next(how: str, leave: Leave) -> None:
    office = Office()
    async with office.serves("balance", HOWS[how], how):
        with Peer(office.where) as first, Peer(office.where) as second, Peer(office.where) as third:
            assert await first.line() == FAST
            await until(lambda: office.waiting == 2)
            assert second.silence()
            leave(first)
            assert await second.line() == FAST
            assert third.silence()
            leave(second)
            assert await third.line() == FAST
            leave(third)
            await until(lambda: office.lent == 0)


@pytest_twisted.ensureDeferred
async def test_who_half_closes_is_hung_up_on(how: str) -> None:
    office = Office()
    async with office.serves("balance", HOWS[how], how):
        with Peer(office.where) as served, Peer(office.where) as waiter:
            assert await served.line() == FAST
            await until(lambda: office.waiting == 1)
            waiter.half_close()
            assert await waiter.rest() == b""
            served.half_close()
            assert await served.rest() == b""


@every_way_to_leave
@pytest_twisted.ensureDeferred
async def test_a_waiter_that_leaves_is_forgotten_at_once(how: str, leave: Leave) -> None:
    office = Office()
    async with office.serves("balance", HOWS[how], how):
        with Peer(office.where) as holder, ExitStack() as stack:
            assert await holder.line() == FAST
            waiters = [stack.enter_context(Peer(office.where)) for _ in range(5)]
            await until(lambda: office.waiting == 5)
            for waiter in waiters[:4]:
                leave(waiter)
            await until(lambda: office.waiting == 1)
            assert office.lent == 1
            holder.close()
            assert await waiters[4].line() == FAST
        await until(lambda: office.lent == 0)
    assert office.leases.snapshot().counts == {"asked": 6, "granted": 2, "ended": 2, "withdrawn": 4, "refused": 0}


@pytest_twisted.ensureDeferred
async def test_what_a_client_says_does_not_matter(how: str) -> None:
    office = Office()
    async with office.serves("balance", HOWS[how], how):
        with Peer(office.where) as holder, Peer(office.where) as waiter:
            holder.send(b"GET / HTTP/1.1\r\n\r\n")
            assert await holder.line() == FAST
            waiter.send(b"fast down\n")
            await until(lambda: office.waiting == 1)
            holder.send(b"\0\xff\r\n" * 100)
            await holder.send_much(b"junk" * 1_000_000)
            assert (office.lent, office.waiting) == (1, 1)
            assert holder.silence()
            assert waiter.silence()
            holder.close()
            assert await waiter.line() == FAST
            # a lot, and gone before it was read
            waiter.sock.send(b"junk" * 1_000_000)
        await until(lambda: office.lent == 0)


@pytest_twisted.ensureDeferred
async def test_who_dies_in_the_queue_while_its_turn_comes_blocks_nobody(how: str) -> None:
    """All of it in one batch: the holder leaves, three waiters are dead, a newcomer may get the number of one of them."""
    office = Office()
    async with office.serves("balance", HOWS[how], how):
        with Peer(office.where) as alive:
            assert await alive.line() == FAST
            dead = [Peer(office.where) for _ in range(3)]
            await until(lambda: office.waiting == 3)
            alive.close()
            for peer in dead:
                peer.reset()
            with Peer(office.where) as newcomer:
                assert await newcomer.line() == FAST
                await until(lambda: (office.lent, office.waiting) == (1, 0))
                assert newcomer.silence()
                assert [lease.port for lease in office.leases.snapshot().leases] == [newcomer.port]
        await until(lambda: office.lent == 0)


@pytest.fixture
def many_descriptors() -> Iterator[int]:
    """As many clients as this process can have, and be served, at once: a thousand where it is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield min(1000, (hard - len(list(Path("/proc/self/fd").iterdir())) - 50) // 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest_twisted.ensureDeferred
async def test_a_crowd_comes_and_leaves_at_once(how: str, many_descriptors: int) -> None:
    half = many_descriptors // 2
    office = Office(spec("fast", half))
    async with office.serves("balance", HOWS[how], how):
        peers = [Peer(office.where) for _ in range(2 * half)]
        await until(lambda: (office.lent, office.waiting) == (half, half))
        first, second = peers[:half], peers[half:]
        for peer in first:
            assert await peer.line() == FAST
        assert all(peer.silence() for peer in second)
        for peer in first:
            peer.close()
        for peer in second:
            assert await peer.line() == FAST
        assert office.waiting == 0
        for peer in second:
            peer.reset()
        await until(lambda: office.lent == 0)
    assert office.leases.snapshot().counts["ended"] == 2 * half


@pytest_twisted.ensureDeferred
async def test_who_came_by_a_port_outlives_it(how: str) -> None:
    office = Office()
    async with office.serves("balance", HOWS[how], how) as opened:
        with Peer(office.where) as holder, Peer(office.where) as waiter:
            assert await holder.line() == FAST
            await until(lambda: office.waiting == 1)
            await opened.close()
            with pytest.raises(ConnectionRefusedError):
                Peer(office.where)
            holder.close()
            assert await waiter.line() == FAST
        await until(lambda: office.lent == 0)


@pytest_twisted.ensureDeferred
async def test_who_waited_too_long_is_hung_up_on(how: str) -> None:
    office = Office(wait=30)
    async with office.serves("balance", HOWS[how], how):
        with Peer(office.where) as holder, Peer(office.where) as waiter:
            assert await holder.line() == FAST
            await until(lambda: office.waiting == 1)
            office.clock.advance(30.1)
            assert await waiter.rest() == b""
            assert (office.lent, office.waiting) == (1, 0)
            assert holder.silence()
        await until(lambda: office.lent == 0)
    assert office.leases.snapshot().counts["refused"] == 1


@pytest_twisted.ensureDeferred
async def test_the_reply_is_the_one_of_now(how: str) -> None:
    """A reload changes what later clients are told."""
    host = spec("fast", 3)
    office = Office(type(host)(host.name, 3, 0, ",lzo,cpp"))
    async with office.serves("balance", HOWS[how], how):
        with Peer(office.where) as first:
            assert await first.line() == b"fast,lzo,cpp\r\n"
            office.terms.replies = Replies("{name}/100{options}")
            with Peer(office.where) as second:
                assert await second.line() == b"fast/100,lzo,cpp\r\n"
        await until(lambda: office.lent == 0)


# -- the connection


@pytest_twisted.ensureDeferred
async def test_a_peer_that_vanished_would_be_found(how: str) -> None:
    """Whoever waits or holds a lease is asked by the system whether it is still there."""
    office = Office()
    async with office.serves("balance", HOWS[how], how):
        with Peer(office.where) as holder, Peer(office.where) as waiter:
            assert await holder.line() == FAST
            await until(lambda: office.waiting == 1)
            for peer in (holder, waiter):
                with our_end(peer.sock) as ours:
                    assert options(ours) == WANTED
        await until(lambda: office.lent == 0)


# -- strangers


@pytest_twisted.ensureDeferred
async def test_strangers_are_turned_away(how: str) -> None:
    office = Office()
    office.allow("10.0.0.0/8", "::1")
    async with office.serves("balance", HOWS[how], how):
        with capturedLogs() as events, Peer(office.where) as stranger:
            assert await stranger.is_turned_away()
        assert texts(events) == ["127.0.0.1 is not in allow.clients (10.0.0.0/8, ::1): turned away"]
        assert events[0]["log_level"] == LogLevel.warn
        assert (office.lent, office.waiting) == (0, 0)
        office.allow("any")
        with Peer(office.where) as friend:
            assert await friend.line() == FAST
        await until(lambda: office.lent == 0)


@pytest_twisted.ensureDeferred
async def test_strangers_by_the_thousand_are_ten_lines(how: str) -> None:
    office = Office()
    office.allow()
    async with office.serves("balance", HOWS[how], how):
        with capturedLogs() as events:
            for _ in range(200):
                with Peer(office.where) as stranger:
                    assert await stranger.is_turned_away()
        assert len(events) == 10
        assert office.leases.snapshot().counts["asked"] == 0


@pytest.mark.parametrize(
    ("at", "how"), [("0", "hot"), ("0", "adopted"), (r"tcp6:0:interface=\:\:", "endpoint")], ids=["hot", "adopted", "endpoint"]
)
@with_ipv6
@pytest_twisted.ensureDeferred
async def test_an_ipv4_client_of_an_ipv6_socket_is_an_ipv4_client(at: str, how: str) -> None:
    office = Office()
    office.allow("127.0.0.0/8")
    async with office.serves("balance", at, how) as opened:
        with Peer(("127.0.0.1", opened.port)) as first, Peer(("127.0.0.1", opened.port)) as second:
            assert await first.line() == FAST
            await until(lambda: office.waiting == 1)
            now = office.leases.snapshot()
            assert [(client.address, client.port) for client in now.leases] == [("127.0.0.1", first.port)]
            assert [(client.address, client.port) for client in now.waiters] == [("127.0.0.1", second.port)]
            (lease,) = office.leases.scheduler._leases.values()
            assert lease.ticket.request.key == "127.0.0.1"
            with capturedLogs() as events, Peer(("::1", opened.port)) as stranger:
                assert await stranger.is_turned_away()
            assert texts(events) == ["::1 is not in allow.clients (127.0.0.0/8): turned away"]
        await until(lambda: office.lent == 0)
        office.allow("::/0")
        with capturedLogs() as events, Peer(("127.0.0.1", opened.port)) as stranger:
            assert await stranger.is_turned_away()
        assert texts(events) == ["127.0.0.1 is not in allow.clients (::/0): turned away"]


@pytest.mark.parametrize("how", ["hot", "adopted"])
@pytest_twisted.ensureDeferred
async def test_a_unix_socket_is_guarded_by_its_mode_alone(how: str, tmp_path: Path) -> None:
    office = Office()
    office.allow()
    async with office.serves("balance", f"unix:{tmp_path}/socket", how):
        with Peer(office.where) as holder, Peer(office.where) as waiter:
            assert await holder.line() == FAST
            await until(lambda: office.waiting == 1)
            now = office.leases.snapshot()
            assert [(client.address, client.port) for client in now.leases + now.waiters] == [("", 0), ("", 0)]
            holder.close()
            assert await waiter.line() == FAST
        await until(lambda: office.lent == 0)


# -- the log


@pytest.mark.parametrize("verbose", [False, True])
@pytest_twisted.ensureDeferred
async def test_jobs_are_logged_when_asked_for(how: str, verbose: bool) -> None:
    office = Office(wait=30, verbose=verbose)
    ticket = "<Ticket {} of 127.0.0.1 for default>"
    with capturedLogs() as events:
        async with office.serves("balance", HOWS[how], how):
            with Peer(office.where) as first, Peer(office.where) as second:
                assert await first.line() == FAST
                await until(lambda: office.waiting == 1)
                office.clock.advance(1.5)
                first.close()
                assert await second.line() == FAST
                with Peer(office.where) as third:
                    await until(lambda: office.waiting == 1)
                    third.close()
                    await until(lambda: office.waiting == 0)
                with Peer(office.where) as fourth:
                    await until(lambda: office.waiting == 1)
                    office.clock.advance(30.1)
                    assert await fourth.rest() == b""
                second.close()
                await until(lambda: office.lent == 0)
    ours = [event for event in events if event["log_namespace"].startswith("distbal")]
    assert texts(ours) == (
        [
            f"{ticket.format(1)} has fast after 0.000 s",
            f"{ticket.format(2)} waits",
            f"{ticket.format(2)} has fast after 1.500 s",
            f"{ticket.format(1)} is over: closed",
            f"{ticket.format(3)} waits",
            f"{ticket.format(3)} is over: closed",
            f"{ticket.format(4)} waits",
            f"{ticket.format(4)} is refused: no host was free for as long as queue.wait allows",
            f"{ticket.format(2)} is over: closed",
        ]
        if verbose
        else []
    )


@pytest_twisted.ensureDeferred
async def test_who_was_gone_before_it_was_told_does_not_wait() -> None:
    office = Office(verbose=True)
    with capturedLogs() as events:
        async with office.serves("balance", HOWS["hot"], "hot"):
            Peer(office.where).reset()
            await until(lambda: office.leases.snapshot().counts["ended"] == 1)
    ours = [event for event in events if event["log_namespace"].startswith("distbal")]
    assert texts(ours) == [f"<Ticket 1 of 127.0.0.1 for default> is over: {Outcome.UNDELIVERED.value}"]
