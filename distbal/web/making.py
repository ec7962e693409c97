"""Answers that may take long to make: in spells between which jobs are served, and made once for all who ask meanwhile.

An answer is made of pieces. What is made within one spell is there at once. What is not is gone on with after a rest, so that
no crowd of readers, and no farm, however large, takes more than about a tenth of our time; and it is shown again for a while.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from distbal.briefports import DEAR, REST

#: seconds of computing after which jobs are served in between
SPELL = DEAR
#: dear answers that are kept to be shown again
KEPT = 8

Pieces = Callable[[], Iterator[bytes]]


class _Making:
    """One answer on its way."""

    __slots__ = ("parts", "pieces", "took", "waiting")

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces = pieces
        self.parts: list[bytes] = []
        self.took = 0.0
        self.waiting: list[Deferred[bytes]] = []


class Answers:
    """Makes them.

    :param clock: when to go on.
    :param cpu: seconds that this thread has computed: what another program takes of the processor is nobody's work here.
    """

    def __init__(self, clock: IReactorTime, cpu: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self._cpu = cpu
        self._makings: OrderedDict[Hashable, _Making] = OrderedDict()
        #: and until when
        self._kept: OrderedDict[Hashable, tuple[bytes, float]] = OrderedDict()
        self._rests_until = float("-inf")
        self._timer: IDelayedCall | None = None

    def get(self, key: Hashable, pieces: Pieces) -> bytes | Deferred[bytes]:
        """The answer to what the key stands for.

        :param pieces: makes it; is called where it is not there already, now or later.
        :returns: the answer, or what will have it.
        :raises Exception: what the pieces raise; a Deferred fails with it.
        """
        now = self._clock.seconds()
        if key in self._kept:
            body, until = self._kept[key]
            if now < until:
                return body
            del self._kept[key]
        making = self._makings.get(key)
        if making is None:
            making = _Making(_from(pieces))
            if not self._makings and now >= self._rests_until and self._spell(making):
                return self._made(key, making)
            self._makings[key] = making
            self._set_timer()
        waiter: Deferred[bytes] = Deferred(making.waiting.remove)
        making.waiting.append(waiter)
        return waiter

    def stop(self) -> None:
        """Make nothing any more; those who wait hear nothing."""
        self._makings.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _spell(self, making: _Making) -> bool:
        """Go on with it; whether it is whole."""
        began = self._cpu()
        whole = True
        try:
            for piece in making.pieces:
                making.parts.append(piece)
                if self._cpu() - began > SPELL:
                    whole = False
                    break
        finally:
            took = self._cpu() - began
            making.took += took
            if took > DEAR:
                self._rests_until = self._clock.seconds() + REST * took
        return whole

    def _made(self, key: Hashable, making: _Making) -> bytes:
        body = b"".join(making.parts)
        if making.took > DEAR:
            self._kept[key] = body, self._clock.seconds() + REST * making.took
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return body

    def _set_timer(self) -> None:
        if self._timer is None and self._makings:
            pause = max(0.0, self._rests_until - self._clock.seconds())
            self._timer = self._clock.callLater(pause, self._turn)

    def _turn(self) -> None:
        """One spell for the one that has waited longest for its next; whoever has left is not waited for."""
        self._timer = None
        key, making = next(iter(self._makings.items()))
        result: bytes | Failure | None = None
        try:
            if making.waiting and self._spell(making):
                result = self._made(key, making)
        except Exception:  # noqa: BLE001 (whatever it is, those who wait hear of it)
            result = Failure()
        if result is None and making.waiting:
            self._makings.move_to_end(key)
        else:
            del self._makings[key]
        self._set_timer()
        if result is not None:
            for waiter in making.waiting[:]:
                waiter.callback(result)


def _from(pieces: Pieces) -> Iterator[bytes]:
    """Nothing of it is made before the first piece is wanted."""
    yield from pieces()
