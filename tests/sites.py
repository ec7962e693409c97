"""The page's site in memory: requests as bytes, answers as bytes, on a clock that runs as a test tells it."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IProtocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from distbal.web.page import install
from distbal.web.site import WebSite
from tests.showcase import Shown
from tests.web import site_of


class Transport(StringTransport):
    """A connection that goes when it is told to."""

    protocol: Any
    gone = False

    def loseConnection(self) -> None:
        super().loseConnection()
        self._go()

    def abortConnection(self) -> None:
        super().abortConnection()
        self._go()

    def _go(self) -> None:
        if not self.gone:
            self.gone = True
            self.protocol.connectionLost(Failure(ConnectionLost()))


class Exchange:
    """A browser's connection.

    :ivar transport: what the site writes to.
    """

    def __init__(self, site: WebSite) -> None:
        self.transport = Transport()
        protocol: IProtocol = site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 4711))
        self.transport.protocol = protocol
        protocol.makeConnection(self.transport)
        self._protocol = protocol

    def ask(self, path: str, method: str = "GET", **headers: str) -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: balancer:5659"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self._protocol.dataReceived("\r\n".join([*lines, "", ""]).encode())

    def send(self, data: bytes) -> None:
        """Whatever it is."""
        if not self.transport.disconnecting:
            self._protocol.dataReceived(data)

    def leave(self) -> None:
        self.transport._go()

    @property
    def answer(self) -> Answer:
        return Answer(self.transport.value())


class Answer:
    """What came back so far."""

    def __init__(self, data: bytes) -> None:
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.status = int(first.split(" ")[1]) if first else 0
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        self.body = _unchunked(body) if self.headers.get("transfer-encoding") == "chunked" else body

    @property
    def text(self) -> str:
        body = self.body
        if self.headers.get("content-encoding") == "gzip":
            body = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(body)
        return body.decode()

    @property
    def events(self) -> list[tuple[str, Any]]:
        """Each event of a stream: its name and its data."""
        events = []
        for block in self.text.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n") if line)
            if "data" in fields:
                events.append((fields.get("event", "message"), json.loads(fields["data"] or "null")))
        return events

    @property
    def frames(self) -> list[Any]:
        return [data for name, data in self.events if name == "message"]


def _unchunked(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        whole += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]
    return whole


class Website:
    """A farm's page, on the site that the daemon has.

    :param cpu: seconds that were computed; by default none, so that all answers are made at once, on however busy a machine.
    """

    def __init__(self, shown: Shown, cpu: Callable[[], float] = lambda: 0.0) -> None:
        self.shown = shown
        self.clock: Clock = shown.clock
        self.site = site_of(shown.reporter, self.clock, allow=("any",), most=1000, cpu=cpu)
        self.feed = install(self.site.resource, self.site.answers, shown.reporter, shown.activity, self.clock, cpu)

    def exchange(self) -> Exchange:
        return Exchange(self.site)

    def get(self, path: str = "/", method: str = "GET", **headers: str) -> Answer:
        """An answer that is whole."""
        one = self.exchange()
        one.ask(path, method, **headers)
        self.clock.advance(0)
        return one.answer

    def listen(self, **headers: str) -> Exchange:
        """Somebody who reads the page live."""
        one = self.exchange()
        one.ask("/events", **headers)
        return one


#: elements that have no end tag
VOID = {"meta", "link", "input", "br", "path", "circle", "use", "rect"}


class Outline(HTMLParser):
    """A page's elements: that each is ended where it belongs, and the texts and attributes that are there.

    :ivar tags: every element's name and attributes.
    :ivar texts: every text.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"{self.open} are not ended"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> ends nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())

    def with_(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [have for name, have in self.tags if name == tag and attributes.items() <= have.items()]

    @property
    def text(self) -> str:
        return " ".join(self.texts)
