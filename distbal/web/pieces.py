"""Work that is done in pieces, between which jobs are served: a page of 500 hosts takes longer than anybody may wait."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """What came of it.

    :ivar cost: seconds of CPU that it took.
    """

    value: T
    cost: float


def in_pieces(work: Generator[None, None, T], clock: IReactorTime, cpu: Callable[[], float]) -> Deferred[Done[T]]:
    """Do a piece in each turn of the reactor, the first one in the next.

    :param work: yields after each piece, and returns what comes of it.
    :param cpu: seconds that this thread has computed.
    :returns: fires with that, or fails as the work does; cancelled, it does no more pieces.
    """
    cost = 0.0
    call: IDelayedCall

    def piece() -> None:
        nonlocal call, cost
        before = cpu()
        try:
            next(work)
        except StopIteration as end:
            done.callback(Done(end.value, cost + cpu() - before))
        except Exception:  # noqa: BLE001 (whoever waits for it hears of it)
            done.errback()
        else:
            cost += cpu() - before
            call = clock.callLater(0, piece)

    def cancelled(_: Deferred[Done[T]]) -> None:
        call.cancel()
        work.close()

    done: Deferred[Done[T]] = Deferred(cancelled)
    call = clock.callLater(0, piece)
    return done
