"""The web port's frame: who may come, how long they may take, what is said to a request that is none of ours.

Everything here is read-only: GET and HEAD, and no bodies. A connection has so many seconds to say a whole request, another one
behind an answer, and to read what it was sent; a request that is being answered (the events of the page are for hours) has all
the time that its resource gives it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from io import BytesIO
from typing import Any

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.http import Request as HttpRequest
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site

from distbal.access import AccessList
from distbal.bugs import bugs
from distbal.complaints import Complaints
from distbal.descriptors import CROWD
from distbal.logs import Logger
from distbal.ports import peer_of_transport
from distbal.reporter import Reporter
from distbal.web.making import Answers
from distbal.web.resources import Tree, text

_log = Logger()
#: seconds in which a whole request must have come, counted from the connection or the answer before
PATIENCE = 20.0
#: seconds that a connection that is closed may take to end
PARTING = 5.0
#: bytes of a body that are read, and forgotten
BODY = 65536

#: what every answer says, unless its resource says otherwise
HEADERS = {
    b"Server": b"distbal",
    b"Cache-Control": b"no-store",
    b"X-Content-Type-Options": b"nosniff",
    b"Content-Security-Policy": b"default-src 'none'; frame-ancestors 'none'",
    b"Referrer-Policy": b"no-referrer",
    b"Cross-Origin-Resource-Policy": b"same-origin",
}


class WebRequest(Request):
    """One request: GET or HEAD; a body is read past."""

    channel: Any

    def gotLength(self, length: int | None) -> None:
        # never a file: nothing of a body is kept
        self.content = BytesIO()
        self._read = 0

    def handleContentChunk(self, data: bytes) -> None:
        self._read += len(data)
        if self._read > BODY:
            self.channel.too_long()
            self.channel.turn_away(b"413 Content Too Large")

    def render(self, resrc: IResource) -> None:
        for name, value in HEADERS.items():
            self.setHeader(name, value)
        if self.method not in (b"GET", b"HEAD"):
            self.setHeader(b"Allow", b"GET, HEAD")
            body: bytes | int = text(self, 405, "Nothing can be changed here: only GET and HEAD are answered.")
        else:
            body = resrc.render(self)
        if isinstance(body, bytes):
            self.setHeader(b"Content-Length", b"%d" % len(body))
            self.write(body)
            self.finish()

    def processingFailed(self, reason: Failure) -> Failure:
        bugs.met("page", _log, "a request for {path} met a bug", reason, path=ascii(self.path))
        if self.channel is None:
            return reason
        if self.startedWriting or self.finished:
            self.channel.transport.abortConnection()
            return reason
        for name, value in HEADERS.items():
            self.setHeader(name, value)
        # the answer that was meant may have been a compressed one
        self.responseHeaders.removeHeader(b"Content-Encoding")
        body = text(self, 500, "This answer met a bug; the log of distbal has it.")
        self.setHeader(b"Content-Length", b"%d" % len(body))
        self.write(body)
        self.finish()
        return reason


class Channel(HTTPChannel):
    """One connection."""

    site: WebSite
    transport: ITCPTransport
    _deadline: IDelayedCall | None = None
    _over = False

    def connectionMade(self) -> None:
        self.site.channels.add(self)
        self.hurry(PATIENCE)
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._over = True
        self.site.channels.discard(self)
        self._set_deadline(None, self._parted)
        super().connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:
        if not self._over:
            super().dataReceived(data)

    def allContentReceived(self) -> None:
        if self._over:
            return
        self._set_deadline(None, self._parted)
        request = self.requests[-1]
        # thousands of requests fit into what is read at once, and would be answered in one go
        if self.clearLineBuffer() or request.requestHeaders.hasHeader(b"Content-Length") or self.length is None:
            self.persistent = False
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        super().allContentReceived()

    def requestDone(self, request: Request) -> None:
        self.hurry(PATIENCE)
        super().requestDone(request)

    def loseConnection(self) -> None:
        # what came behind the last request, or behind rubbish, is not looked at
        self._over = True
        self.clearLineBuffer()
        super().loseConnection()

    def turn_away(self, status: bytes) -> None:
        """This request is not read on."""
        if not self._over:
            self._over = True
            self.transport.write(b"HTTP/1.1 " + status + b"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            self._out_of_patience()

    def too_long(self) -> None:
        """Say in the log that a request is."""
        if self._over:
            return
        self.site.complain(
            "{address} sent a request to the web port that is too long: cut off",
            bound="web-request",
            address=peer_of_transport(self.transport.getPeer())[0] or "this machine",
        )

    def lineLengthExceeded(self, line: bytes) -> None:
        self.too_long()
        self.loseConnection()

    def _respondToBadRequestAndDisconnect(self) -> None:
        # Twisted's, which says the same to all that it cannot take
        if self._receivedHeaderSize > self.totalHeadersSize or self._receivedHeaderCount > self.maxHeaders:
            self.too_long()
        super()._respondToBadRequestAndDisconnect()

    def hurry(self, seconds: float) -> None:
        """What goes on now must be over after this time."""
        self._set_deadline(seconds, self._out_of_patience)

    def _set_deadline(self, seconds: float | None, act: Callable[[], None]) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.site.reactor.callLater(seconds, act)

    def _out_of_patience(self) -> None:
        if self.requests and not self._over:
            # half a request, or an answer that is not read
            self._parted()
            return
        # what was sent may still be read
        self._set_deadline(PARTING, self._parted)
        self.loseConnection()

    def _parted(self) -> None:
        self.transport.abortConnection()


class WebSite(Site):
    """The whole port.

    :ivar resource: the root; what is put on it has HEADERS unless it sets its own.
    :ivar answers: makes those that take long.
    :ivar channels: the connections; ``most``: how many there may be.
    """

    noisy = False
    # Twisted's is one that also knows HTTP/2
    protocol: Any = Channel
    displayTracebacks = False

    def __init__(
        self,
        resource: Resource,
        answers: Answers,
        *,
        allowed: Callable[[], AccessList],
        complain: Complaints,
        reactor: IReactorTime,
        most: int = CROWD,
    ) -> None:
        # the deadlines are the channel's own: Twisted's begin anew with every byte
        super().__init__(resource, WebRequest, timeout=None, reactor=reactor)
        self.answers = answers
        self.channels: set[Channel] = set()
        self.most = most
        self._allowed = allowed
        self.complain = complain

    def buildProtocol(self, addr: IAddress | None) -> Any:
        address, allowed = peer_of_transport(addr)[0], self._allowed()
        if not allowed.allows(address):
            self.complain("{address} is not in allow.web ({allowed}): turned away", address=address, allowed=str(allowed))
            return None
        if len(self.channels) >= self.most:
            self.complain(
                "{crowd} connections at once on the web port: {address} is turned away",
                bound="web",
                crowd=len(self.channels),
                address=address or "this machine",
            )
            return None
        return super().buildProtocol(addr)

    def startFactory(self) -> None:
        """No log of accesses, and so no clock for one."""

    def stopFactory(self) -> None:
        """Nobody listens any more: the connections end too."""
        self.close()

    def close(self) -> None:
        """End every connection, and make nothing any more."""
        self.answers.stop()
        for channel in list(self.channels):
            channel.transport.abortConnection()

    def log(self, request: HttpRequest) -> None:
        """Nothing is noted of a request."""

    def acceptableProtocols(self) -> list[bytes]:
        """For TLS: what the channel speaks."""
        return [b"http/1.1"]


def make_site(
    reporter: Reporter,
    *,
    allowed: Callable[[], AccessList],
    complain: Complaints,
    reactor: IReactorTime,
    most: int = CROWD,
    cpu: Callable[[], float] = time.thread_time,
) -> WebSite:
    """The site with what programs read: ``/api/v1``, ``/metrics`` and ``/healthz``. The page is put on its ``resource``.

    :param allowed: who may come, now.
    :param most: connections at once.
    :param cpu: seconds that this thread has computed.
    """
    from distbal.web.api import make_api
    from distbal.web.health import Healthz, Live

    answers = Answers(reactor, cpu)
    root, health = Tree(), Healthz(reporter)
    root.putChild(b"api", make_api(reporter, answers))
    root.putChild(b"metrics", _metrics(reporter, answers))
    health.putChild(b"live", Live())
    root.putChild(b"healthz", health)
    return WebSite(root, answers, allowed=allowed, complain=complain, reactor=reactor, most=most)


def _metrics(reporter: Reporter, answers: Answers) -> Resource:
    try:
        from distbal.web.metrics import Metrics
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "prometheus_client":
            raise
        return WithoutMetrics()
    return Metrics(reporter, answers)


class WithoutMetrics(Resource):
    """``/metrics`` where prometheus-client is not installed."""

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        return text(request, 501, "Metrics need prometheus-client, which is not installed here: pip install 'distbal[web]'")
