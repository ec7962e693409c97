"""What is typed, given on line by line: one in a turn of the reactor, and none while what came of the last is not sent.

So a thousand pasted lines hold up nobody, and neither does a client that reads slowly: it is asked for no more than it may
send already.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from distbal.manhole.session import Session


class Feed:
    """Input of a session.

    :param take: takes a line, with its end; or what there is of one.
    :param ended: called when all is taken, and no more will come.
    """

    def __init__(self, session: Session, take: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        self._session = session
        self._clock: IReactorTime = session.transport.factory.clock
        self._take = take
        self._ended = ended
        self._data = b""
        self._is_last = False
        self._turn: IDelayedCall | None = None

    def add(self, data: bytes) -> None:
        """More of it."""
        self._data += data
        if self._turn is None:
            self._work()

    def interrupt(self) -> None:
        """Forget what is not taken yet."""
        self._data = b""

    def end(self) -> None:
        """No more will come."""
        self._is_last = True
        if self._turn is None:
            self._work()

    def go_on(self) -> None:
        """Something was sent."""
        if self._turn is None and (self._data or self._is_last):
            self._turn = self._clock.callLater(0, self._work)

    def stop(self) -> None:
        """Nothing is taken any more."""
        self._data, self._is_last = b"", False
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def _work(self) -> None:
        self._turn = None
        with self._session.alone():
            self._take_one()

    def _take_one(self) -> None:
        if self._session.is_behind:
            self._session.hold(bool(self._data))
            return
        if self._data:
            size = min((at + 1 for at in map(self._data.find, (b"\r", b"\n")) if at >= 0), default=len(self._data))
            line, self._data = self._data[:size], self._data[size:]
            self._take(line)
        self._session.hold(bool(self._data))
        if self._data:
            self.go_on()
        elif self._is_last:
            self._is_last = False
            self._ended()
