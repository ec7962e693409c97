"""The page, live: server-sent events (WHATWG HTML, 9.2) with what has changed, once a second, while somebody listens.

A frame is made once, however many listen. It holds what differs from the last one; who has just come, or could not take one,
gets a whole one next. Nothing is queued for a reader who is slow: a frame that he has no room for, he misses; and of a large
one he gets a slice when he has taken the slice before, so that all who read it have it once in memory. And where making a frame
is dear, since the farm is large, frames are made less often: they may take :data:`SHARE` of a core and no more.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Generator
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from distbal.activity import Activity
from distbal.bugs import bugs
from distbal.complaints import Complaints
from distbal.logs import Logger
from distbal.periodic import Periodic
from distbal.web.answers import guard, takes_gzip
from distbal.web.pieces import Done, in_pieces
from distbal.web.resources import text

#: seconds between two frames, at the least
INTERVAL = 1.0
#: of a core: what frames may take
SHARE = 0.02
#: CPU seconds that the kernel and the reactor take for a byte that is sent, as measured on the loopback interface
PER_BYTE = 1.5e-9
#: readers at once
MOST_LISTENERS = 100
#: seconds after which readers who were sent nothing are told that all is well
HEARTBEAT = 15.0
#: seconds in which a reader must have taken what he was sent, or else he is let go
STUCK = 60.0
#: bytes that are written at once: more than a transport keeps before it asks for a pause
SLICE = 1 << 17
#: milliseconds after which a browser that lost the stream tries again
RETRY = 2000
#: begins a gzip file (RFC 1952, 2.3): no name, no time, of an unknown system
GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
#: fast rather than small: HTML shrinks to a tenth anyhow
LEVEL = 1


class FrameSource(Protocol):
    """Makes frames; :class:`distbal.web.frames.Frames` is one."""

    def delta(self) -> Generator[None, None, bytes | None]:
        """What changed since the last one; None for nothing. Made in pieces."""

    def whole(self) -> bytes:
        """All of it, as of the last ``delta``."""


class Block:
    """What is sent to several readers, as it is and compressed, each made once and only where somebody wants it.

    A block is compressed without a look at those before it and ends at a byte (RFC 1951 knows blocks that are not the last), so
    one and the same can be sent to every reader, whichever others he missed.
    """

    def __init__(self, event: bytes) -> None:
        self.plain = event
        self._compressed: bytes | None = None

    def compressed(self) -> bytes:
        if self._compressed is None:
            compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
            self._compressed = compressor.compress(self.plain) + compressor.flush(zlib.Z_SYNC_FLUSH)
        return self._compressed


def event(data: bytes, kind: bytes = b"") -> Block:
    """One event.

    :param data: without line breaks.
    :param kind: its name; empty for ``message``.
    """
    name = b"event: " + kind + b"\n" if kind else b""
    return Block(name + b"data: " + data + b"\n\n")


@implementer(IPushProducer)
class Listener:
    """One reader.

    :ivar stuck: since when he has not taken what he was sent, in seconds; None where he has.
    :ivar behind: he needs a whole frame.
    :ivar heard: when he was last sent something.
    """

    def __init__(self, request: Request, clock: IReactorTime, *, gzip: bool) -> None:
        self._request: Any = request
        self._clock = clock
        self._gzip = gzip
        self._paused = False
        #: of what is being sent: all of it, and how much of that was written
        self._data, self._written = b"", 0
        self.stuck: float | None = None
        self.behind = True
        self.heard = clock.seconds()
        request.registerProducer(self, streaming=True)
        start = Block(b"retry: %d\n\n" % RETRY)
        request.write(GZIP_HEADER + start.compressed() if gzip else start.plain)

    def send(self, block: Block) -> int:
        """Send it, and say how many bytes that is. Only to one who is ready."""
        self._data = block.compressed() if self._gzip else block.plain
        self._written = 0
        self.heard = self._clock.seconds()
        size = len(self._data)
        self._go_on()
        return size

    @property
    def ready(self) -> bool:
        """He has taken what he was sent."""
        return not self._paused and not self._data

    def _go_on(self) -> None:
        """Write until there is no room, or no more."""
        while self._data and not self._paused:
            piece = self._data[self._written : self._written + SLICE]
            self._written += len(piece)
            if self._written == len(self._data):
                self._data = b""
            # which may call for a pause
            self._request.write(piece)

    def let_go(self) -> None:
        """End it: in order where he listens, at once where he does not."""
        request = self._request
        channel = request.channel
        request.unregisterProducer()
        if self.ready:
            request.finish()
            channel.loseConnection()
        else:
            channel.transport.abortConnection()

    def pauseProducing(self) -> None:
        self._paused = True
        if self.stuck is None:
            self.stuck = self._clock.seconds()

    def resumeProducing(self) -> None:
        self._paused = False
        self._go_on()
        if self.ready:
            self.stuck = None

    def stopProducing(self) -> None:
        self._paused, self._data = True, b""


class Feed:
    """All readers of the stream.

    :param frames: where frames come from.
    :param activity: looked at once a second, whether or not somebody listens.
    :param look: how many slots are lent and how many clients wait: for pennies.
    :param clock: never goes back.
    :param cpu: seconds that this thread has computed.
    """

    log = Logger()

    def __init__(
        self,
        frames: FrameSource,
        activity: Activity,
        look: Callable[[], tuple[int, int]],
        clock: IReactorTime,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self._frames = frames
        self._activity = activity
        self._look = look
        self._clock = clock
        self._cpu = cpu
        self._due = self._begun = float("-inf")
        self._making: Deferred[Any] | None = None
        self._listeners: dict[Request, Listener] = {}
        self._alive = event(b"", b"alive")
        self._complain = Complaints(self.log, clock.seconds)
        self._call = Periodic(clock, INTERVAL, self._turn, "to keep the page live")
        #: seconds of CPU that the last frame took, as far as it is known
        self.cost = 0.0
        #: frames that were made, and those that readers missed
        self.made = self.missed = 0

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    @property
    def running(self) -> bool:
        return self._call.running

    def start(self) -> None:
        """From now on look and send."""
        self._call.start(now=True)

    def stop(self) -> None:
        """Send no more, and close every reader's connection. Nothing happens where it is not running."""
        self._call.stop()
        if self._making is not None:
            self._making.cancel()
        listeners, self._listeners = self._listeners, {}
        for request, listener in listeners.items():
            self._let_go(request, listener)

    def add(self, request: Request, *, gzip: bool) -> bool:
        """Another reader; False where there are too many."""
        if not self._call.running:
            return False
        if len(self._listeners) >= MOST_LISTENERS:
            self._complain("{readers} browsers follow the page: one more does not", bound="web-streams", readers=MOST_LISTENERS)
            return False
        self._listeners[request] = Listener(request, self._clock, gzip=gzip)
        request.notifyFinish().addBoth(lambda _: self._listeners.pop(request, None))
        return True

    def _turn(self) -> None:
        now = self._clock.seconds()
        # each by itself: if the hour cannot be noted, readers are told all the same
        with bugs.survived("page", self.log, "the last hour could not be noted"):
            self._activity.look(now, *self._look())
        self._drop_stuck(now)
        if self._listeners and self._making is None and now >= self._due:
            self._begun = now
            making = self._making = in_pieces(self._frames.delta(), self._clock, self._cpu)
            making.addCallback(self._push).addErrback(self._trouble)
        for request, listener in list(self._listeners.items()):
            if listener.ready and now - listener.heard >= HEARTBEAT:
                self._send(request, listener, self._alive)

    def _push(self, frame: Done[bytes | None]) -> None:
        """A frame was made: send it."""
        self._making = None
        self.made += 1
        before = self._cpu()
        delta = None if frame.value is None else event(frame.value)
        whole: Block | None = None
        sent = 0
        for request, listener in list(self._listeners.items()):
            if not listener.ready:
                listener.behind = True
                self.missed += 1
            elif listener.behind:
                whole = whole or event(self._frames.whole())
                listener.behind = False
                sent += self._send(request, listener, whole)
            elif delta is not None:
                sent += self._send(request, listener, delta)
        self.cost = frame.cost + self._cpu() - before + sent * PER_BYTE
        # turns come a little early or late
        self._due = self._begun + self.cost / SHARE - INTERVAL / 10

    def _send(self, request: Request, listener: Listener, block: Block) -> int:
        """Send it to one; a bug that is met there ends this stream, and no other."""
        try:
            return listener.send(block)
        except Exception:  # noqa: BLE001 (whatever it is, the others are sent theirs)
            bugs.met("page", self.log, "a browser's stream met a bug; it is ended")
            self._let_go(request, listener)
            return 0

    def _let_go(self, request: Request, listener: Listener) -> None:
        self._listeners.pop(request, None)
        with bugs.survived("page", self.log, "a browser's stream could not be ended"):
            listener.let_go()

    def _trouble(self, failure: Failure) -> None:
        self._making = None
        if failure.check(CancelledError) is None:
            bugs.met("page", self.log, "the page could not be kept live", failure)

    def _drop_stuck(self, now: float) -> None:
        for request, listener in list(self._listeners.items()):
            if listener.stuck is not None and now - listener.stuck >= STUCK:
                self._complain(
                    "a browser did not read the page's stream for {seconds:g} s: cut off", bound="web-slow", seconds=STUCK
                )
                self._let_go(request, listener)


class Events(Resource):
    """The stream, at a URL."""

    isLeaf = True

    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self._feed = feed

    def render_GET(self, request: Request) -> int | bytes:
        guard(request)
        gzip = takes_gzip(request)
        request.setHeader(b"content-type", b"text/event-stream; charset=utf-8")
        # nginx would keep what it has until its buffer is full
        request.setHeader(b"x-accel-buffering", b"no")
        if gzip:
            request.setHeader(b"content-encoding", b"gzip")
        if self._feed.add(request, gzip=gzip):
            return NOT_DONE_YET
        request.responseHeaders.removeHeader(b"content-encoding")
        request.setHeader(b"retry-after", b"60")
        return text(
            request, http.SERVICE_UNAVAILABLE, f"{MOST_LISTENERS} browsers follow this page already; read it without that."
        )

    def render_HEAD(self, request: Request) -> bytes:
        guard(request)
        request.setHeader(b"content-type", b"text/event-stream; charset=utf-8")
        return b""
