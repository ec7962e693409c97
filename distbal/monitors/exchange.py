"""One exchange with a port of a host: say something, take what comes until it is enough, and be gone.

Whoever asks decides how much is enough, and so bounds it: nothing is kept here. No timer runs here either: the check's own
timeout cancels, and then the connection is let go of at once.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure


class Ending(Enum):
    """How an exchange ended."""

    #: what came was enough
    ENOUGH = auto()
    #: the host closed in order before that
    CLOSED = auto()
    #: the host, or the way to it, broke the connection before that
    BROKEN = auto()


class Caller(Protocol):
    """Our end of one connection. :func:`distbal.monitors.kit.connect` makes it; then :meth:`ask` is called, once.

    :cvar resets: what is let go of is reset; otherwise it is closed, for those that a reset harms.
    """

    resets: ClassVar[bool] = True
    transport: ITCPTransport

    def __init__(self) -> None:
        self._take: Callable[[bytes], bool] | None = None
        self._ending: Deferred[Ending] = Deferred(self._let_go)

    def ask(self, words: bytes, take: Callable[[bytes], bool]) -> Deferred[Ending]:
        """Send the words, and take the answer.

        :param words: may be none; a few kB at most.
        :param take: is given each piece of the answer, and returns whether that is enough. What it raises, the Deferred fails
            with.
        :returns: a Deferred that fires when the exchange is over; the connection is let go of then, as when it is cancelled.
        """
        self._take = take
        if words:
            self.transport.write(words)
        return self._ending

    def dataReceived(self, data: bytes) -> None:
        if self._take is None:
            return
        try:
            enough = self._take(data)
        except Exception as problem:  # noqa: BLE001 (it is the asker's own, who hears of it)
            self._let_go()
            self._ending.errback(problem)
            return
        if enough:
            self._take = None
            self.transport.loseConnection()
            self._ending.callback(Ending.ENOUGH)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._take is not None:
            self._take = None
            closed = reason.check(ConnectionDone)  # type: ignore[no-untyped-call]
            self._ending.callback(Ending.CLOSED if closed else Ending.BROKEN)

    def _let_go(self, _: object = None) -> None:
        self._take = None
        if self.resets:
            self.transport.abortConnection()
        else:
            self.transport.loseConnection()


class Text:
    """What a host says, up to one of some marks, or so many bytes.

    :ivar text: what came so far, at most ``most`` bytes.
    """

    def __init__(self, most: int, *marks: bytes) -> None:
        self.text = b""
        self._most = most
        self._marks = marks

    def take(self, data: bytes) -> bool:
        """Take the next piece; whether it is enough."""
        self.text = (self.text + data[: self._most])[: self._most]
        return self.marked or len(self.text) == self._most

    @property
    def marked(self) -> bool:
        """Whether one of the marks came."""
        return any(mark in self.text for mark in self._marks)


def printable(words: bytes, most: int = 120) -> str:
    """What a host said, so that it can stand in a sentence: on one line, without control characters, cut where it is long."""
    text = words[: 8 * most].decode(errors="replace")
    shown = "".join(letter if letter.isprintable() else " " for letter in text).strip()
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."
