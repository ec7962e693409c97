"""The frame of the web port: who may come, how long they may take, and what is said to what is none of ours."""

# most of twisted.web has no types
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from distbal.briefports import READING_TIME, REST
from distbal.web.making import SPELL, Pieces
from distbal.web.site import BODY, HEADERS, PARTING, PATIENCE, Channel, Made, ProblemError, WebSite, send
from tests.services import Lines, said, until
from tests.support import LoggedErrors
from tests.watchers import ground
from tests.web import listening, parsed, reporter_of, site_of

GET = b"GET /healthz/live HTTP/1.1\r\nHost: a\r\n\r\n"


class Wire(StringTransport):
    """A connection in memory, which notes how it ended."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True
        self.disconnecting = True


class Told(Resource):
    """Answers with what it is told to."""

    isLeaf = True

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer
        self.requests: list[Request] = []

    def render_GET(self, request: Request) -> Any:
        self.requests.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer if isinstance(self.answer, int) else send(request, self.answer)


class Room:
    """A site on a clock, and connections to it in memory."""

    def __init__(self, **terms: Any) -> None:
        self.clock = Clock()
        with ground("box1", "box2") as farm:
            self.site: WebSite = site_of(reporter_of(farm), self.clock, cpu=self.clock.seconds, **terms)

    def put(self, answer: Any) -> Told:
        told = Told(answer)
        self.site.resource.putChild(b"told", told)
        return told

    def comes(self, address: Any = None) -> tuple[Channel, Wire] | None:
        channel = self.site.buildProtocol(address or IPv4Address("TCP", "127.0.0.1", 4711))
        if channel is None:
            return None
        wire = Wire()
        channel.makeConnection(wire)
        return channel, wire

    def client(self, address: Any = None) -> tuple[Channel, Wire]:
        came = self.comes(address)
        assert came is not None
        return came

    def leaves(self, channel: Channel) -> None:
        channel.connectionLost(Failure(ConnectionDone()))


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


def test_requests_all_at_once_get_one_answer() -> None:
    room = Room()
    channel, wire = room.client()
    channel.dataReceived(GET * 1000)
    assert wire.value().count(b"HTTP/1.1 200 OK") == 1
    assert b"Connection: close" in wire.value()
    assert wire.disconnecting
    channel.dataReceived(GET)
    assert wire.value().count(b"HTTP/1.1 200 OK") == 1
    room.leaves(channel)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_is_read_past_and_one_too_long_is_not(chunked: bool) -> None:
    room = Room()
    for length, status in ((10, b"200 OK"), (BODY + 1, b"413 Content Too Large"), (10**12, b"413 Content Too Large")):
        channel, wire = room.client()
        field = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % length
        channel.dataReceived(GET[:-2] + field + b"\r\n\r\n")
        sent = 0
        while sent < length and not wire.disconnecting:
            part = min(16384, length - sent)
            channel.dataReceived(b"%x\r\n" % part + b"x" * part + b"\r\n" if chunked else b"x" * part)
            sent += part
        if chunked and not wire.disconnecting:
            channel.dataReceived(b"0\r\n\r\n")
        assert wire.value().startswith(b"HTTP/1.1 " + status)
        assert sent <= BODY + 16384
        assert wire.disconnecting
        room.leaves(channel)
    assert room.clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n" * 3,
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(600)) + b"\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"a" * 100_000,
    ],
)
def test_rubbish_ends_the_connection(rubbish: bytes) -> None:
    room = Room()
    channel, wire = room.client()
    for start in range(0, len(rubbish), 4096):
        channel.dataReceived(rubbish[start : start + 4096])
    assert wire.disconnecting
    assert len(wire.value()) < 1000
    room.leaves(channel)
    assert room.clock.getDelayedCalls() == []


PARTS = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            *(
                GET,
                b"\r\n",
                b"\r\n\r\n",
                b"\n",
                b"HEAD /api/v1/jobs?limit=2 HTTP/1.1\r\n",
                b"POST / HTTP/1.0\r\n",
                b" HTTP/1.1\r\n",
            ),
            *(
                b"Content-Length: 3\r\n",
                b"Transfer-Encoding: chunked\r\n",
                b"Expect: 100-continue\r\n",
                b"Connection: close\r\n",
            ),
            *(
                b"GET /healthz",
                b"OPTIONS * HTTP/1.1\r\n",
                b"3\r\nabc\r\n0\r\n\r\n",
                b"Cookie: a=b; c\r\n",
                b"GET //..%00/ HTTP/1.1\r\n",
            ),
            *(
                b"GET http://a/healthz HTTP/1.1\r\n",
                b"Upgrade: h2c\r\n",
                b"Authorization: Basic x\r\n",
                b"Range: bytes=0-1\r\n",
            ),
        ]
    ),
)


@given(st.lists(PARTS, max_size=12))
def test_nothing_that_is_said_leads_to_an_error(parts: list[bytes]) -> None:
    room = Room()
    channel, wire = room.client()
    for part in parts:
        channel.dataReceived(part)
    assert b" 500 " not in wire.value()
    # an answer to each whole request at the most
    assert len(wire.value()) < 3000 * (len(parts) + 1)
    room.leaves(channel)
    assert room.clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    "first", [b"GET /healthz/live HTTP/1.0\r\n\r\n", b"GET http://a/healthz/live HTTP/1.1\r\nConnection: close\r\n\r\n"]
)
def test_older_and_odder_clients(first: bytes) -> None:
    room = Room()
    channel, wire = room.client()
    channel.dataReceived(first)
    assert wire.value().startswith(b"HTTP/1.")
    assert wire.disconnecting
    room.leaves(channel)


class Slow(Made):
    """An answer that takes more than a spell, and may end in an error."""

    error: Exception | None = None
    begun = 0

    def __init__(self, room: Room) -> None:
        super().__init__(room.site.answers)
        self.clock = room.clock

    def pieces(self, request: Request) -> tuple[tuple[Any, ...], Pieces]:
        return ("slow",), self._pieces

    def _pieces(self) -> Iterator[bytes]:
        self.begun += 1
        for _ in range(3):
            self.clock.rightNow += SPELL * 2
            yield b"part "
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(
    ("error", "status"), [(None, 200), (ProblemError(404, "It is not there."), 404), (ValueError("secret"), 500)]
)
def test_an_answer_that_takes_several_spells(error: Exception | None, status: int, logged_errors: LoggedErrors) -> None:
    room = Room()
    slow = Slow(room)
    slow.error = error
    room.site.resource.putChild(b"slow", slow)
    clients = [room.client() for _ in range(3)]
    for channel, _ in clients:
        channel.dataReceived(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    # one of them leaves: the others have their answer none the less
    room.leaves(clients[0][0])
    assert clients[1][1].value() == b""
    room.clock.pump([REST * SPELL * 2 + 0.001] * 4)
    for channel, wire in clients[1:]:
        answer = parsed(wire.value())
        assert answer.status == status
        assert b"secret" not in answer.body
        assert answer.headers["server"] == "distbal"
        if status == 200:
            assert answer.body == b"part part part "
        room.leaves(channel)
    assert clients[0][1].value() == b""
    assert slow.begun == 1
    assert len(logged_errors.flush()) == (2 if status == 500 else 0)
    assert room.clock.getDelayedCalls() == []


def test_when_all_have_left_nothing_is_made_any_more() -> None:
    room = Room()
    slow = Slow(room)
    room.site.resource.putChild(b"slow", slow)
    channel, wire = room.client()
    channel.dataReceived(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    room.leaves(channel)
    room.clock.pump([REST * SPELL * 2 + 0.001] * 4)
    assert wire.value() == b""
    assert room.clock.getDelayedCalls() == []


def test_a_bug_is_in_the_log_and_not_in_the_answer(logged_errors: LoggedErrors) -> None:
    room = Room()
    room.put(ValueError("secret"))
    channel, wire = room.client()
    channel.dataReceived(b"GET /told?<x> HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = parsed(wire.value())
    assert answer.status == 500
    assert answer.headers["content-type"].startswith("text/plain")
    assert b"secret" not in wire.value()
    assert b"Traceback" not in wire.value()
    (line,) = said(logged_errors) or [""]
    assert "/told" in line or "met a bug" in line
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
