"""The frame of the web port: who may come, how long they may take, and what is said to what is none of ours."""

# most of twisted.web has no types
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import socket

import pytest
import pytest_twisted
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.web.server import NOT_DONE_YET

from distbal.bounds import bounds
from distbal.briefports import READING_TIME
from distbal.web.site import HEADERS, PARTING, PATIENCE
from tests.services import Lines, until
from tests.watchers import ground
from tests.web import GET, Room, Told, listening, parsed


def test_every_answer_has_the_headers_and_none_tells_what_runs() -> None:
    room = Room()
    room.put(b"here")
    for path in ("/healthz/live", "/nowhere", "/api/v1/nowhere", "/told", "/api/v1/status?x=1"):
        channel, wire = room.client()
        channel.dataReceived(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        answer = parsed(wire.value())
        for name, value in HEADERS.items():
            assert answer.headers[name.decode().lower()] == value.decode()
        assert b"wisted" not in wire.value()
        room.leaves(channel)
    assert room.clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    "path", ["/nowhere", "/healthz/nowhere", "/a/b/c", "//", "/..%2f..%2fetc/passwd", "/%00", "/metrics/x"]
)
@pytest_twisted.ensureDeferred
async def test_what_is_not_there(path: str) -> None:
    with ground("box1") as farm:
        async with listening(farm) as web:
            answer = await web.get(path)
    if path != "/metrics/x":
        assert answer.status == 404
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert "/api/v1/status" in answer.text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "get", "NONSENSE"])
@pytest_twisted.ensureDeferred
async def test_nothing_but_get_and_head(method: str) -> None:
    with ground("box1") as farm:
        async with listening(farm) as web:
            for path in ("/healthz", "/api/v1/hosts", "/nowhere"):
                answer = await web.get(path, method=method)
                assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest_twisted.ensureDeferred
async def test_head_is_get_without_its_body() -> None:
    with ground("box1") as farm, Lines() as lines:
        async with listening(farm) as web:
            for path in ("/healthz", "/api/v1/hosts", "/nowhere", "/api/v1/schema/jobs"):
                got, head = await web.get(path), await web.get(path, method="HEAD")
                assert head.body == b""
                assert head.status == got.status
                assert head.headers | {"date": ""} == got.headers | {"date": ""}
    # no request leaves a line in the log, beside those of ports that open and close, and of our clients
    assert [text for _, text in lines.all if not any(word in text for word in ("factory", "WebSite", "Port"))] == []


def test_who_may_come() -> None:
    room = Room(allow=("10.0.0.0/8",))
    with Lines() as lines:
        assert room.comes() is None
        assert room.comes(IPv4Address("TCP", "192.168.0.1", 4711)) is None
    assert "192.168.0.1 is not in allow.web (10.0.0.0/8): turned away" in lines
    for address in (IPv4Address("TCP", "10.9.9.9", 4711), UNIXAddress(None)):
        channel, _ = room.client(address)
        room.leaves(channel)


def test_so_many_at_once_and_no_more() -> None:
    room = Room(most=2)
    first, second = room.client()[0], room.client()[0]
    with Lines() as lines:
        for _ in range(100):
            assert room.comes() is None
    assert "2 connections at once on the web port: 127.0.0.1 is turned away" in lines
    assert len(lines.all) <= 10
    assert bounds.hits["web"] == 100
    room.leaves(first)
    third = room.client()[0]
    room.leaves(second)
    room.leaves(third)
    assert room.clock.getDelayedCalls() == []


def test_one_that_says_nothing_or_little_is_cut_off() -> None:
    room = Room()
    silent, silent_wire = room.client()
    slow, slow_wire = room.client()
    for second in range(int(PATIENCE)):
        slow.dataReceived(GET[second : second + 1])
        assert not slow_wire.disconnecting
        room.clock.advance(1)
    assert silent_wire.disconnecting
    assert slow_wire.disconnecting
    room.clock.advance(PARTING)
    assert silent_wire.aborted
    assert slow_wire.aborted
    room.leaves(silent)
    room.leaves(slow)


def test_one_that_comes_with_its_lines_one_by_one_is_cut_off_too() -> None:
    room = Room()
    channel, wire = room.client()
    channel.dataReceived(b"GET / HTTP/1.1\r\n")
    for second in range(int(PATIENCE)):
        assert not wire.aborted
        channel.dataReceived(b"X-%d: y\r\n" % second)
        room.clock.advance(1)
    assert wire.aborted
    room.leaves(channel)


def test_behind_an_answer_another_request_may_come_in_time() -> None:
    room = Room()
    channel, wire = room.client()
    for number in range(1, 4):
        room.clock.advance(PATIENCE - 1)
        channel.dataReceived(GET)
        assert wire.value().count(b"200 OK") == number
    room.clock.advance(PATIENCE)
    assert wire.disconnecting
    # it would be polite to close: whoever is not is helped
    assert not wire.aborted
    room.clock.advance(PARTING)
    assert wire.aborted
    room.leaves(channel)


def test_an_answer_that_goes_on_for_hours_is_not_cut_off() -> None:
    room = Room()
    told = room.put(NOT_DONE_YET)
    channel, wire = room.client()
    channel.dataReceived(b"GET /told HTTP/1.1\r\nHost: a\r\n\r\n")
    for _ in range(100):
        room.clock.advance(3600)
        told.requests[0].write(b"event\n")
    assert not wire.disconnecting
    assert room.clock.getDelayedCalls() == []
    room.leaves(channel)


def test_a_long_answer_is_sent_as_it_is_read_and_in_time() -> None:
    room = Room()
    body = b"x" * 1_000_000
    room.put(body)
    channel, wire = room.client()
    # the other side reads nothing from now on
    channel.dataReceived(b"GET /told HTTP/1.1\r\nHost: a\r\n\r\n")
    channel.pauseProducing()
    room.clock.advance(READING_TIME - 1)
    assert len(wire.value()) < 100_000
    assert not wire.aborted
    room.clock.advance(1)
    assert wire.aborted
    room.leaves(channel)
    assert room.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_a_long_answer_arrives_whole() -> None:
    body = bytes(range(256)) * 20_000
    with ground("box1") as farm:
        async with listening(farm) as web:
            web.site.resource.putChild(b"told", Told(body))
            answer = await web.get("/told")
            assert answer.body == body
            head = await web.get("/told", method="HEAD")
            assert (head.body, head.headers["content-length"]) == (b"", str(len(body)))


@pytest_twisted.ensureDeferred
async def test_those_who_do_not_read_are_gone_when_the_port_closes(descriptors_stay: None) -> None:
    with ground("box1") as farm:
        async with listening(farm) as web:
            web.site.resource.putChild(b"told", Told(b"x" * 20_000_000))
            socks = []
            for _ in range(5):
                sock = socket.create_connection(("127.0.0.1", web.port))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.sendall(b"GET /told HTTP/1.1\r\nHost: a\r\n\r\n")
                socks.append(sock)
            await until(lambda: len(web.site.channels) == 5, "five connections")
            await until(lambda: all(channel.requests for channel in web.site.channels), "five requests")
        await until(lambda: not web.site.channels, "the end of all")
        for sock in socks:
            sock.close()


def test_what_the_channel_speaks_over_tls() -> None:
    assert Room().site.acceptableProtocols() == [b"http/1.1"]
