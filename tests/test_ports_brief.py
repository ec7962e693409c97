"""5657 and 5658 on real sockets: nobody makes a short conversation long, and what was said arrives whole."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import pytest
import pytest_twisted
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs

from distbal import wire
from distbal.bounds import bounds
from distbal.briefports import PATIENCE, READING_TIME
from distbal.descriptors import CROWD
from distbal.leases import LocalLeases
from distbal.snapshot import Snapshot
from tests.farms import spec
from tests.peers import Peer, until
from tests.ports import Office, texts

#: by an adopted socket of ours, as the daemon does it, and by a Twisted endpoint
WHERE = pytest.mark.parametrize("at", ["127.0.0.1:0", "tcp:0:interface=127.0.0.1:backlog=4096"], ids=["adopted", "endpoint"])
WAYS = pytest.mark.parametrize("leave", [Peer.close, Peer.half_close, Peer.reset], ids=["close", "half-close", "reset"])
Leave = Callable[[Peer], None]


async def page_of(peer: Peer) -> wire.ParsedStatus:
    """The page that it is sent, to the last byte."""
    page = await peer.rest()
    assert page.count(b"\r\n") == 9
    assert page.endswith(b"\r\n")
    return wire.parse_status(page)


# -- 5657


@WHERE
@pytest_twisted.ensureDeferred
async def test_the_page_is_what_is_now(at: str) -> None:
    office = Office(spec("fast", 2), spec("slow", 3))
    office.status.balance_port, office.status.status_port = 5656, 5657
    async with office.serves("status", at):
        with Peer(office.where) as peer:
            page = await page_of(peer)
        assert (page.balance_port, page.status_port) == (5656, 5657)
        assert [(host.name, host.slots, host.up) for host in page.hosts] == [("fast", 2, True), ("slow", 3, True)]
        office.leases.report("slow", "tcp", up=False)
        with Peer(office.where) as peer:
            assert [host.up for host in (await page_of(peer)).hosts] == [True, False]
        await until(lambda: office.status.crowd == 0)


@WHERE
@pytest.mark.parametrize("said", [b"GET / HTTP/1.0\r\n\r\n", b"\0\xff" * 100_000], ids=["a request", "200 kB of junk"])
@pytest_twisted.ensureDeferred
async def test_the_page_is_whole_though_the_peer_says_something(at: str, said: bytes) -> None:
    """To close with something unread would be a reset, which destroys what the peer has not read yet."""
    office = Office(*(spec(f"host{number}.example.com:3632", 4) for number in range(1000)))
    async with office.serves("status", at):
        with Peer(office.where, window=2048) as peer:
            await peer.send_much(said)
            assert len((await page_of(peer)).hosts) == 1000
        with Peer(office.where) as peer:
            peer.half_close()
            assert len((await page_of(peer)).hosts) == 1000
        await until(lambda: office.status.crowd == 0)


@WHERE
@pytest_twisted.ensureDeferred
async def test_a_slow_reader_holds_up_nobody_and_gets_it_whole(at: str) -> None:
    office = Office(*(spec(f"host{number}.example.com:3632", 4) for number in range(10_000)))
    async with office.serves("status", at):
        with Peer(office.where, window=2048) as slow, Peer(office.where) as quick:
            first = await slow.line()
            assert len((await page_of(quick)).hosts) == 10_000
            quick.close()
            await until(lambda: office.status.crowd == 1)
            # it takes its time, just less than it has
            office.clock.advance(READING_TIME - 1)
            slow.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            rest = await slow.rest()
            assert len(first + rest) > 500_000
            assert len(wire.parse_status(first + rest).hosts) == 10_000
        await until(lambda: office.status.crowd == 0)


@WHERE
@pytest.mark.parametrize("number", [1, 10_000], ids=["small page", "huge page"])
@pytest_twisted.ensureDeferred
async def test_who_never_reads_is_cut_off(at: str, number: int) -> None:
    office = Office(*(spec(f"host{number}.example.com:3632", 4) for number in range(number)))
    async with office.serves("status", at):
        with capturedLogs() as events, Peer(office.where, window=2048) as peer:
            await until(lambda: not peer.silence())
            assert office.status.crowd == 1
            office.clock.advance(READING_TIME)
            await until(lambda: office.status.crowd == 0)
        assert texts([event for event in events if event["log_level"] >= LogLevel.warn]) == []
        assert office.clock.getDelayedCalls() == []


@WHERE
@WAYS
@pytest_twisted.ensureDeferred
async def test_who_leaves_in_the_middle_of_the_page_is_no_matter(at: str, leave: Leave) -> None:
    office = Office(*(spec(f"host{number}.example.com:3632", 4) for number in range(10_000)))
    async with office.serves("status", at):
        with Peer(office.where, window=2048) as peer:
            await peer.line()
            leave(peer)
            if leave is Peer.half_close:
                await peer.rest()
            await until(lambda: office.status.crowd == 0)
        assert office.clock.getDelayedCalls() == []


# -- 5658


async def say(office: Office, *parts: bytes, leave: Leave | None = None) -> None:
    """Say something, in these parts; and leave, or be left."""
    with Peer(office.where) as peer:
        for part in parts:
            await until(lambda: office.update.crowd == 1)
            peer.send(part)
        if leave is not None:
            leave(peer)
        if leave is None or leave is Peer.half_close:
            assert await peer.rest() == b""
    await until(lambda: office.update.crowd == 0)


def is_up(office: Office, name: str = "fast") -> bool:
    (state,) = [host.up for host in office.leases.snapshot().hosts if host.spec.name == name]
    return state


@WHERE
@pytest_twisted.ensureDeferred
async def test_what_is_said_counts_and_news_is_logged(at: str) -> None:
    office = Office()
    async with office.serves("update", at):
        with capturedLogs() as events:
            for line in (
                b"fast up\n",
                b"fast down\r\n",
                b"fast down\r",
                b"fast down and more words\n",
                b"fast up\n",
                b"fast up\n",
            ):
                await say(office, line)
                assert is_up(office) is (b"up" in line)
        news = [event for event in events if event["log_namespace"] == "distbal.briefports.UpdateFactory"]
        assert texts(news) == ["fast is now down, says the update port", "fast is now up, says the update port"]
        assert (news[0]["host"], news[0]["state"], news[0]["log_level"]) == ("fast", "down", LogLevel.info)
        (verdict,) = office.leases.snapshot().hosts[0].verdicts
        assert (verdict.source, verdict.reason) == ("update", "said on the update port by 127.0.0.1")


@pytest_twisted.ensureDeferred
async def test_a_line_may_come_in_pieces_and_something_after_it() -> None:
    office = Office()
    async with office.serves("update", "127.0.0.1:0"):
        await say(office, *(b"fast down\n"[at : at + 1] for at in range(10)))
        assert not is_up(office)
        await say(office, b"fast up\nfast down\n" + b"junk" * 10_000)
        assert is_up(office)


@WHERE
@pytest.mark.parametrize("leave", [Peer.close, Peer.half_close], ids=["close", "half-close"])
@pytest_twisted.ensureDeferred
async def test_the_end_ends_the_line(at: str, leave: Leave) -> None:
    office = Office()
    async with office.serves("update", at):
        await say(office, b"fast down", leave=leave)
        await until(lambda: not is_up(office))


@WHERE
@WAYS
@pytest_twisted.ensureDeferred
async def test_who_says_nothing_and_leaves_is_no_matter(at: str, leave: Leave) -> None:
    office = Office()
    async with office.serves("update", at):
        with capturedLogs() as events:
            await say(office, leave=leave)
            # reset: it may be gone before it is accepted, so the next one is waited for
            await say(office, b"fast down\n")
            assert not is_up(office)
        assert texts([event for event in events if event["log_level"] >= LogLevel.warn]) == []
        assert office.clock.getDelayedCalls() == []


@WHERE
@pytest_twisted.ensureDeferred
async def test_a_silent_peer_holds_up_nobody_and_is_cut_off(at: str) -> None:
    office = Office(spec("fast"), spec("slow"))
    async with office.serves("update", at):
        with Peer(office.where) as silent, Peer(office.where) as half, capturedLogs() as events:
            # a whole line but for its end, which it did not mean to be one: "fast downstairs up"
            half.send(b"fast down")
            await until(lambda: office.update.crowd == 2)
            with Peer(office.where) as other:
                other.send(b"slow down\n")
                assert await other.rest() == b""
            assert not is_up(office, "slow")
            await until(lambda: office.update.crowd == 2)
            office.clock.advance(PATIENCE - 0.1)
            assert silent.silence()
            assert half.silence()
            office.clock.advance(0.1)
            assert await silent.is_turned_away()
            assert await half.is_turned_away()
            await until(lambda: office.update.crowd == 0)
        assert is_up(office, "fast")
        warnings = texts([event for event in events if event["log_level"] >= LogLevel.warn])
        assert warnings == ["127.0.0.1 said no whole line in 5 s on the update port: cut off"] * 2
        assert bounds.hits["update-line"] == 2


@pytest_twisted.ensureDeferred
async def test_who_does_not_go_is_shown_the_door() -> None:
    """Its line is done, and so is our side: no complaint."""
    office = Office()
    async with office.serves("update", "127.0.0.1:0"):
        with Peer(office.where) as peer, capturedLogs() as events:
            peer.send(b"fast down\n")
            assert await peer.rest() == b""
            assert office.update.crowd == 1
            office.clock.advance(PATIENCE)
            await until(lambda: office.update.crowd == 0)
        assert texts([event for event in events if event["log_level"] >= LogLevel.warn]) == []


@WHERE
@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (b"x" * 2000 + b" up\n", "the line is longer than 1024 bytes; HOST up or HOST down was expected"),
        (b"x" * 100_000, "the line is longer than 1024 bytes; HOST up or HOST down was expected"),
        (b"\xff\xfe\xfd\n", "the line is not text; HOST up or HOST down was expected"),
        (b"fast\0 up\n", "the line has control characters in it; HOST up or HOST down was expected"),
        (b"nobody up\n", "no host 'nobody' in the file"),
        ("sch\u00f6n up\n".encode(), "no host 'sch\\xf6n' in the file"),
        (b"fast Up\n", "'fast' says neither up nor down"),
        (b"fast  down\n", "'fast' says neither up nor down"),
        (b"\n", "'' says neither up nor down"),
    ],
    ids=["long line", "no line", "no text", "control", "unknown", "unknown, not ASCII", "case", "two spaces", "empty"],
)
@pytest_twisted.ensureDeferred
async def test_nonsense_is_a_line_in_the_log_and_nothing_else(at: str, said: bytes, complaint: str) -> None:
    office = Office()
    async with office.serves("update", at):
        with capturedLogs() as events:
            await say(office, said)
        assert texts([event for event in events if event["log_level"] >= LogLevel.warn]) == [
            f"127.0.0.1 on the update port: {complaint}"
        ]
        assert is_up(office)
        await say(office, b"fast down\n")
        assert not is_up(office)


@pytest_twisted.ensureDeferred
async def test_nonsense_without_an_end_is_one_too() -> None:
    office = Office()
    async with office.serves("update", "127.0.0.1:0"):
        with capturedLogs() as events:
            await say(office, b"\xff", leave=Peer.half_close)
            await say(office, b"nobody down", leave=Peer.close)
            await until(lambda: len(events) == 2)
        assert texts(events) == [
            "127.0.0.1 on the update port: the line is not text; HOST up or HOST down was expected",
            "127.0.0.1 on the update port: no host 'nobody' in the file",
        ]


@pytest_twisted.ensureDeferred
async def test_a_unix_peer_has_a_name_in_the_log(tmp_path: Path) -> None:
    office = Office()
    office.allow()
    async with office.serves("update", f"unix:{tmp_path}/socket"):
        with capturedLogs() as events:
            for line in (b"nobody up\n", b"\xff\n", b"fast sideways\n", b"fast down\n"):
                await say(office, line)
            with Peer(office.where) as silent:
                await until(lambda: office.update.crowd == 1)
                office.clock.advance(PATIENCE)
                assert await silent.is_turned_away()
        assert texts(events) == [
            "this machine on the update port: no host 'nobody' in the file",
            "this machine on the update port: the line is not text; HOST up or HOST down was expected",
            "this machine on the update port: 'fast' says neither up nor down",
            "fast is now down, says the update port",
            "this machine said no whole line in 5 s on the update port: cut off",
        ]
        (verdict,) = office.leases.snapshot().hosts[0].verdicts
        assert verdict.reason == "said on the update port by this machine"


# -- both


BOTH = pytest.mark.parametrize("kind", ["status", "update"])


@WHERE
@BOTH
@pytest_twisted.ensureDeferred
async def test_strangers_are_turned_away(at: str, kind: str) -> None:
    office = Office()
    office.allow("192.168.0.0/16")
    async with office.serves(kind, at):
        with capturedLogs() as events, Peer(office.where) as stranger:
            stranger.send(b"fast down\n")
            assert await stranger.is_turned_away()
        warnings = texts([event for event in events if event["log_level"] >= LogLevel.warn])
        assert warnings == [f"127.0.0.1 may not use the {kind} port (192.168.0.0/16): turned away"]
        assert is_up(office)


@pytest_twisted.ensureDeferred
async def test_who_may_ask_may_not_therefore_tell() -> None:
    office = Office()
    office.terms.allow_update = type(office.terms.allow_update).parse(["10.0.0.1"])
    async with office.serves("update", "127.0.0.1:0"):
        with capturedLogs() as events, Peer(office.where) as stranger:
            assert await stranger.is_turned_away()
    assert texts(events) == ["127.0.0.1 may not use the update port (10.0.0.1): turned away"]


@BOTH
@pytest_twisted.ensureDeferred
async def test_a_crowd_has_an_end(kind: str) -> None:
    office = Office()
    factory = office.status if kind == "status" else office.update
    async with office.serves(kind, "127.0.0.1:0"):
        with ExitStack() as stack:
            crowd = [stack.enter_context(Peer(office.where)) for _ in range(CROWD)]
            await until(lambda: factory.crowd == CROWD)
            with capturedLogs() as events, Peer(office.where) as one_more:
                assert await one_more.is_turned_away()
            assert texts(events) == [f"{CROWD} clients at once on the {kind} port: 127.0.0.1 is turned away"]
            assert bounds.hits[kind] == 1
            crowd[0].close()
            await until(lambda: factory.crowd == CROWD - 1)
            with Peer(office.where) as next_one:
                await until(lambda: factory.crowd == CROWD)
                if kind == "status":
                    await page_of(next_one)
            await until(lambda: factory.crowd == CROWD - 1)
        await until(lambda: factory.crowd == 0)
    assert office.clock.getDelayedCalls() == []


class Costly(LocalLeases):
    """A farm so large that to look at it takes a while: 20 ms on this clock."""

    looks = 0

    def snapshot(self, *, leases: bool = True) -> Snapshot:
        self.looks += 1
        cast("Clock", self._clock).advance(0.02)
        return super().snapshot(leases=leases)


def test_a_page_that_is_dear_is_shown_again_for_a_while() -> None:
    """A crowd of readers must not keep clients of 5656 waiting: at most a tenth of the time goes into pages."""
    office = Office()
    costly = office.status.leases = Costly(office.leases.scheduler, office.clock)
    page = office.status.page()
    costly.report("fast", "update", up=False)
    office.clock.advance(0.19)
    assert (office.status.page(), costly.looks) == (page, 1)
    office.clock.advance(0.02)
    assert b"fast down" in office.status.page()
    assert costly.looks == 2


def test_a_page_that_is_cheap_is_always_new() -> None:
    office = Office()
    assert b"fast up" in office.status.page()
    office.leases.report("fast", "update", up=False)
    assert b"fast down" in office.status.page()
