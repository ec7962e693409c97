"""The pipes through which sessions are spliced: a few, lent while bytes move, and used again and again.

Between two sockets the kernel moves bytes only by way of a pipe. One that is large moves more for each call, but an ordinary
user's pipes share a budget (/proc/sys/fs/pipe-user-pages-soft, 64 MiB): beyond it new pipes hold but 4 to 8 KiB. So a session
borrows a pipe when bytes have come and gives it back as soon as they are gone; only one that waits, or whose peer does not
read, keeps its pipe, and while it waits that is a small one. Large are only the first :data:`MOST_LARGE`; the others are what
the system gives.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable
from typing import TypeVar

from distbal.ledger import Account
from distbal.logs import Logger
from distbal.proxy.sockets import unread

#: bytes that a large pipe holds: as many as an ordinary user may ask for (/proc/sys/fs/pipe-max-size). The larger, the less a
#: stream costs: 50 MB took 30 ms of CPU time by way of 64 KiB, 18 by 256 KiB, and 10 by 1 MiB
LARGE = 1 << 20
#: large pipes there are at most: half of an ordinary user's budget
MOST_LARGE = 32
#: bytes that a pipe holds where nothing was asked for (pipe(7))
USUAL = 1 << 16
#: pipes that are kept for the next session: two descriptors each
KEPT = 32
#: seconds until a pipe is made larger again when the system refused that
REFUSED = 10.0


class StarvedError(Exception):
    """There is no pipe to be had; the text says why."""


class NotYetError(Exception):
    """There is a pipe, which the keeper does not have yet (keptpipes.py): it is to be tried again when it has."""


class Pipe:
    """A pipe that does not block.

    :ivar read, write: its ends' descriptors.
    :ivar size: bytes that it holds at most, though a crowd of small pieces fills it sooner.
    :ivar held: bytes in it, as far as whoever has borrowed it keeps count.
    """

    __slots__ = ("held", "read", "size", "write")

    def __init__(self, read: int, write: int, size: int) -> None:
        self.read = read
        self.write = write
        self.size = size
        self.held = 0


TakenUp = TypeVar("TakenUp", bound=Pipe)


class Pipes:
    """Those that are free, and how many are large.

    :param seconds: a clock that never goes back.
    :ivar keep: how many are kept for the next session.
    """

    log = Logger()

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.keep = KEPT
        self._seconds = seconds
        self._free: list[Pipe] = []
        self._large = 0
        #: when a pipe may be made larger again, since one could not be; None while they can
        self._try_again: float | None = None

    def borrow(self) -> Pipe:
        """An empty one; StarvedError where there are no more descriptors or no memory."""
        free = self._free
        return free.pop() if free else self._make()

    def give_back(self, pipe: Pipe) -> None:
        """It is needed no more; what is in it, if anything, is lost."""
        free = self._free
        # one that is not large is not worth keeping, if the next may be
        if not pipe.held and len(free) < self.keep and (pipe.size >= LARGE or self._is_refused()):
            free.append(pipe)
        else:
            self._close(pipe)

    def shrink(self, pipe: Pipe) -> None:
        """It is going to be kept for long: let it be no larger than others, if what is in it allows that."""
        if pipe.size < LARGE:
            return
        for size in (USUAL, LARGE // 4):
            # EBUSY: it has more pieces in it than so large a pipe could hold
            with contextlib.suppress(OSError):
                pipe.size = fcntl.fcntl(pipe.write, fcntl.F_SETPIPE_SZ, size)
                self._lost_a_large_one()
                return

    def stop(self) -> None:
        """Close those that are free."""
        self._close(*self._free)
        self._free.clear()

    def take_up(self, read: int, write: int, account: Account) -> Pipe:
        """One that an earlier process had, with what it holds; it is borrowed.

        :param account: the ledger's, of this pipe.
        """
        return self._as_it_is(Pipe(read, write, USUAL))

    def _make(self) -> Pipe:
        try:
            read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise StarvedError(f"there is no pipe for it: {error.strerror}") from error
        size = USUAL
        if self._large < MOST_LARGE and not self._is_refused():
            try:
                size = fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, LARGE)
                self._large += 1
                self._try_again = None
            except OSError as error:
                # the user's budget is used up, or pipe-max-size is small: what we have must do for a while
                if self._try_again is None:
                    self.log.info(
                        "pipes hold {usual} bytes instead of {large}: {reason}", usual=USUAL, large=LARGE, reason=str(error)
                    )
                self._try_again = self._seconds() + REFUSED
        return Pipe(read, write, size)

    def _as_it_is(self, pipe: TakenUp) -> TakenUp:
        """Ask the system how large a pipe is, and what it holds."""
        pipe.size = fcntl.fcntl(pipe.write, fcntl.F_GETPIPE_SZ)
        pipe.held = unread(pipe.read)
        if pipe.size >= LARGE:
            self._large += 1
        return pipe

    def _is_refused(self) -> bool:
        return self._try_again is not None and self._seconds() < self._try_again

    def _close(self, *pipes: Pipe) -> None:
        for pipe in pipes:
            os.close(pipe.read)
            os.close(pipe.write)
            if pipe.size >= LARGE:
                self._lost_a_large_one()

    def _lost_a_large_one(self) -> None:
        self._large -= 1
