"""What is said on the web port: bodies, rubbish, too much at once; and answers that take long, or meet a bug."""

# most of twisted.web has no types
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.web.server import Request

from distbal.bounds import bounds
from distbal.briefports import REST
from distbal.bugs import bugs
from distbal.web.making import SPELL, Pieces
from distbal.web.resources import Made, ProblemError
from distbal.web.site import BODY
from tests.services import said
from tests.support import LoggedErrors
from tests.web import GET, Room, parsed


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


@pytest.mark.parametrize(
    "said", [b"GET /" + b"x" * 40_000, GET[:-2] + b"A: " + b"x" * 17_000 + b"\r\n", GET[:-2] + b"a: b\r\n" * 600]
)
@pytest.mark.parametrize("size", [1000, 10**6])
def test_a_request_that_is_too_long_is_cut_off_and_counted(said: bytes, size: int) -> None:
    room = Room()
    channel, wire = room.client()
    for begin in range(0, len(said), size):
        channel.dataReceived(said[begin : begin + size])
    assert wire.disconnecting
    assert bounds.hits["web-request"] == 1
    room.leaves(channel)
    assert room.clock.getDelayedCalls() == []


def test_rubbish_that_is_short_hits_no_bound() -> None:
    room = Room()
    channel, wire = room.client()
    channel.dataReceived(b"nonsense\r\n\r\n")
    assert wire.disconnecting
    assert bounds.hits["web-request"] == 0
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
        assert bounds.hits["web-request"] == (length > BODY) + (length > BODY + 1)
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
    # of two who are told the same bug, the log has one, and the other is counted
    assert len(logged_errors.flush()) == (1 if status == 500 else 0)
    assert bugs.counts["page"] == (2 if status == 500 else 0)
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
