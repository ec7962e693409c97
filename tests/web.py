"""A web site of a small farm in this very process, and a client that takes it at its word: bytes there, bytes back."""

# most of twisted.web has no types
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Request

from distbal.access import AccessList
from distbal.complaints import Complaints
from distbal.decisions import Decisions
from distbal.inside import Inside
from distbal.report import KeeperReport
from distbal.reporter import Reporter
from distbal.web.resources import send
from distbal.web.site import Channel, WebSite, make_site
from tests.services import Client, connect
from tests.watchers import Ground, ground

GET = b"GET /healthz/live HTTP/1.1\r\nHost: a\r\n\r\n"


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["content-type"] in ("application/json", "application/schema+json")
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


def parsed(heard: bytes) -> Answer:
    """One answer, of which the connection's end is the end."""
    head, _, body = heard.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        raise AssertionError("the length was known")
    return Answer(int(first.split()[1]), headers, body)


@dataclass
class Web:
    """A site that listens, or not, and what it tells of."""

    site: WebSite
    reporter: Reporter
    ground: Ground
    port: int = 0
    decisions: list[Decisions] = field(default_factory=lambda: [Decisions()])

    async def get(self, path: str, *headers: str, method: str = "GET") -> Answer:
        client = await self.client()
        lines = [f"{method} {path} HTTP/1.1", "Host: here", "Connection: close", *headers]
        client.transport.write("\r\n".join([*lines, "", ""]).encode())
        await client.ends()
        answer = parsed(client.heard)
        if method != "HEAD":
            assert answer.headers["content-length"] == str(len(answer.body))
        return answer

    async def client(self) -> Client:
        return await connect(self.port)


KEEPER: KeeperReport = {"pid": 7, "version": "1.2", "restarts": 0, "last": "", "gone": ""}


def reporter_of(ground: Ground, decisions: Callable[[], Decisions] = Decisions) -> Reporter:
    ports = {"balance": ["0.0.0.0:5656"], "web": ["0.0.0.0:5659"]}
    seconds = ground.clock.seconds
    return Reporter(
        ground.leases,
        ground.rounds,
        seconds=seconds,
        wall=lambda: seconds() + 1e9,
        inside=Inside(ground.clock, lambda: 900, lambda: KEEPER),
        decisions=decisions,
        ports=lambda: ports,
    )


def site_of(reporter: Reporter, clock: Any = reactor, *, allow: tuple[str, ...] = ("loopback",), **terms: Any) -> WebSite:
    allowed = AccessList.parse(allow)
    complain = Complaints(Logger(), clock.seconds)
    return make_site(reporter, allowed=lambda: allowed, complain=complain, reactor=clock, **terms)


@asynccontextmanager
async def listening(ground: Ground, **terms: Any) -> AsyncIterator[Web]:
    """A site on a port of the loopback address, while the block runs."""
    decided = [Decisions()]
    reporter = reporter_of(ground, lambda: decided[0])
    site = site_of(reporter, **terms)
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(as_factory(site))
    try:
        yield Web(site, reporter, ground, port.getHost().port, decided)
    finally:
        await port.stopListening()


def as_factory(site: WebSite) -> Factory[Any]:
    return site


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
