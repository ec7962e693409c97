"""Pipes that a keeper holds too, so that what is in them outlives the process.

A pipe is handed over when it is made, and bytes go into it only when the keeper has it. Before they do, its account says whose
they will be. What is in a pipe belongs to whoever borrowed it last, so nothing needs to be written when it is given back, and
whether there is anything in it, the system knows.

A keeper that takes nothing for the moment is waited for by those who need another pipe (:class:`NotYetError`), and by nobody
else.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from distbal.keeperwire import Role
from distbal.ledger import DOWN, IN_USE, PIPE, Account
from distbal.proxy.pipes import NotYetError, Pipe, Pipes

if TYPE_CHECKING:
    from distbal.keeping import Keeping

#: flag of a pipe's account: a byte is on its way into it that is in no socket any more, and perhaps not in the pipe either
MARKED = 1 << 6


class Waits(Protocol):
    """Whoever waits for a pipe."""

    def pipes_came(self) -> None:
        """There may be one now. Must not raise."""


class KeptPipe(Pipe):
    """One of them.

    :ivar id: its number at the keeper; ``offset``: where its account is.
    """

    __slots__ = ("_came", "id", "offset")

    def __init__(self, read: int, write: int, size: int, ident: int, offset: int, came: Callable[[KeptPipe], None]) -> None:
        super().__init__(read, write, size)
        self.id = ident
        self.offset = offset
        self._came = came

    def handed_over(self) -> None:
        """The keeper has it, or there is none any more."""
        self._came(self)

    @property
    def descriptors(self) -> list[tuple[int, int, int]]:
        """What the keeper has of it, as (id, role, descriptor)."""
        return [(self.id, Role.PIPE_READ, self.read), (self.id, Role.PIPE_WRITE, self.write)]


class KeptPipes(Pipes):
    """Those that are free, and those that are on their way to the keeper."""

    _free: list[KeptPipe]  # type: ignore[assignment]  # it makes no others

    def __init__(self, seconds: Callable[[], float], keeping: Keeping) -> None:
        super().__init__(seconds)
        self.keeping = keeping
        self._coming: dict[KeptPipe, None] = {}
        self._waiting: dict[Waits, None] = {}

    def borrow(self) -> KeptPipe:
        """An empty one; NotYetError where the keeper does not have it yet, StarvedError as usual."""
        free = self._free
        if not free and not self._coming:
            self._make_another()
        if not free:
            raise NotYetError
        return free.pop()

    def wait(self, who: Waits) -> None:
        """It needs a pipe, and is to be told when there is one."""
        self._waiting[who] = None

    def wait_no_more(self, who: Waits) -> None:
        """Or not; nothing happens where it did not wait."""
        self._waiting.pop(who, None)

    def stop(self) -> None:
        super().stop()
        self._close(*self._coming)
        self._coming.clear()

    @property
    def descriptors(self) -> list[tuple[int, int, int]]:
        """What there is of those that are not lent, as (id, role, descriptor)."""
        return [entry for pipe in (*self._free, *self._coming) for entry in pipe.descriptors]

    def take_up(self, read: int, write: int, account: Account) -> KeptPipe:
        return self._as_it_is(KeptPipe(read, write, 0, account.id, account.offset, self._has_come))

    def _make_another(self) -> None:
        made, keeping = self._make(), self.keeping
        ident = keeping.new_id()
        offset = keeping.ledger.enter(PIPE, IN_USE, ident, error=made.size >> 10)
        pipe = KeptPipe(made.read, made.write, made.size, ident, offset, self._has_come)
        self._coming[pipe] = None
        keeping.hold(ident, Role.PIPE_READ, pipe.read)
        keeping.hold(ident, Role.PIPE_WRITE, pipe.write, pipe)
        keeping.flush()

    def _has_come(self, pipe: KeptPipe) -> None:
        del self._coming[pipe]
        self._free.append(pipe)
        waiting, self._waiting = self._waiting, {}
        for who in waiting:
            who.pipes_came()

    def _close(self, *pipes: Pipe) -> None:
        keeping = self.keeping
        for pipe in pipes:
            if isinstance(pipe, KeptPipe):
                keeping.ledger.leave(pipe.offset)
                keeping.let_go(pipe.id, Role.PIPE_READ)
                keeping.let_go(pipe.id, Role.PIPE_WRITE)
        super()._close(*pipes)


class Lender:
    """Lends pipes to one direction of one session.

    :param session: its number in accounts; ``flags``: DOWN or 0, the direction's.
    """

    __slots__ = ("_flags", "_free", "_own", "_pipes", "_session", "give_back")

    def __init__(self, pipes: KeptPipes, session: int, flags: int) -> None:
        self._pipes = pipes
        self._free = pipes._free  # noqa: SLF001 (it is asked for each move)
        self._own = pipes.keeping.ledger.own
        self._session = session
        self._flags = flags
        self.give_back = pipes.give_back

    @property
    def is_down(self) -> bool:
        """Whether it is for what the server says."""
        return bool(self._flags & DOWN)

    def borrow(self) -> KeptPipe:
        """As of :class:`KeptPipes`."""
        free = self._free
        pipe = free.pop() if free else self._pipes.borrow()
        self._own(pipe.offset, self._session, self._flags)
        return pipe

    def pass_a_byte(self, source: int, pipe: KeptPipe) -> int:
        """Read one byte that is there, and write it into the pipe; how many that was.

        Should this process end in between, then the account says that a byte may be missing.
        """
        self._own(pipe.offset, self._session, self._flags | MARKED)
        try:
            count = os.write(pipe.write, os.read(source, 1))
        except OSError:
            count = -1
        self._own(pipe.offset, self._session, self._flags)
        return count
