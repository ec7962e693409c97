"""One direction of a spliced session: ``os.splice`` from a socket into a pipe, and from the pipe into the other socket.

No byte of it becomes a Python object. A :class:`Flow` says what came of it and decides nothing: that is splice.py's business.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from distbal.descriptors import STARVED
from distbal.proxy.pipes import Pipe, Pipes, StarvedError

available = hasattr(os, "splice")
"""Whether this machine has what this module needs (Linux has)."""

if available:
    _splice: Callable[[int, int, int, None, None, int], int] = os.splice
    _FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK

#: what came of moving bytes
MOVED, BLOCKED, NOTHING, ENDED, SOURCE_BROKE, TARGET_BROKE = range(6)


class Flow:
    """One direction of a session.

    :ivar source, target: descriptors.
    :ivar pipe: while it holds something.
    :ivar taken: bytes that came from the source.
    :ivar ended: the source has said all; ``over``: and the target has it, or will never have it.
    :ivar full: the pipe takes no more, and has no target yet.
    :ivar error: why one of the two broke.

    Moving raises StarvedError where this machine is short of something.
    """

    __slots__ = ("ended", "error", "full", "over", "pipe", "pipes", "source", "taken", "target")

    def __init__(self, pipes: Pipes, source: int, target: int) -> None:
        self.pipes = pipes
        self.source = source
        self.target = target
        self.pipe: Pipe | None = None
        self.taken = 0
        self.ended = self.full = False
        self.over = False
        self.error: OSError | None = None

    def take(self) -> int:
        """Source to pipe, without a target yet: MOVED, NOTHING (or no room), ENDED or SOURCE_BROKE."""
        pipe = self.pipe
        if pipe is None:
            pipe = self.pipe = self.pipes.borrow()
        try:
            count = self._fill(pipe)
        except OSError as error:
            return self._broke(error, SOURCE_BROKE)
        if count > 0:
            pipe.held += count
            self.taken += count
            return MOVED
        if not pipe.held:
            self.pipe = None
            self.pipes.give_back(pipe)
        if count:
            # with bytes there to be read, as an event has said, it is the pipe that has no room
            self.full = self.pipe is not None
            return NOTHING
        self.ended = True
        return ENDED

    @property
    def wants(self) -> bool:
        """Whether the source should be listened to."""
        return not self.ended and not self.over and (self.pipe is None or (self.target < 0 and not self.full))

    def give(self) -> int:
        """Pipe to target: MOVED when all of it went, BLOCKED or TARGET_BROKE."""
        pipe = self.pipe
        if pipe is None:
            return MOVED
        try:
            pipe.held -= _splice(pipe.read, self.target, pipe.held, None, None, _FLAGS)
        except BlockingIOError:
            return BLOCKED
        except OSError as error:
            return self._broke(error, TARGET_BROKE)
        if pipe.held:
            return BLOCKED
        self.pipe = None
        self.pipes.give_back(pipe)
        return MOVED

    def move(self) -> int:
        """Source to target, as much as a pipe holds; to be called when the pipe is empty. Any of the above."""
        pipes = self.pipes
        pipe = pipes.borrow()
        try:
            count = self._fill(pipe)
        except OSError as error:
            pipes.give_back(pipe)
            return self._broke(error, SOURCE_BROKE)
        if count <= 0:
            pipes.give_back(pipe)
            if count:
                return NOTHING
            self.ended = True
            return ENDED
        self.taken += count
        try:
            held = count - _splice(pipe.read, self.target, count, None, None, _FLAGS)
        except BlockingIOError:
            held = count
        except OSError as error:
            pipe.held = count
            self.pipe = pipe
            return self._broke(error, TARGET_BROKE)
        if not held:
            pipes.give_back(pipe)
            return MOVED
        pipe.held = held
        self.pipe = pipe
        return BLOCKED

    def rest(self) -> int:
        """The source is said to have ended, and the pipe is empty: ENDED where all had come, else any of the above.

        A read of one byte tells, and costs less than a pipe and a splice.
        """
        try:
            data = os.read(self.source, 1)
        except BlockingIOError:
            return NOTHING
        except OSError as error:
            return self._broke(error, SOURCE_BROKE)
        if not data:
            self.ended = True
            return ENDED
        pipe = self.pipe = self.pipes.borrow()
        pipe.held = os.write(pipe.write, data)
        self.taken += pipe.held
        return self.give()

    def _fill(self, pipe: Pipe) -> int:
        """Source to pipe: bytes that came, 0 for the end, -1 for nothing, or no room."""
        try:
            return _splice(self.source, pipe.write, pipe.size, None, None, _FLAGS) or self._pass_a_mark(pipe)
        except BlockingIOError:
            return -1 if pipe.held else self._pass_a_mark(pipe)

    def _pass_a_mark(self, pipe: Pipe) -> int:
        """There is something to read, says an event, and nothing to splice: bytes that came, 0 for the end, -1 for nothing.

        A splice stops before a byte that is marked urgent, and never gets beyond it (where the end has come as well, it says
        that this is the end); reading one byte does. The marked one itself is out of band and left out, as by whoever reads
        without asking for it.
        """
        try:
            data = os.read(self.source, 1)
        except BlockingIOError:
            return -1
        return os.write(pipe.write, data) if data else 0

    def _broke(self, error: OSError, what: int) -> int:
        if error.errno in STARVED:
            raise StarvedError(error.strerror) from error
        self.error = error
        return what

    def drop(self) -> None:
        """It is over; what is in the pipe is lost."""
        self.over = True
        pipe, self.pipe = self.pipe, None
        if pipe is not None:
            self.pipes.give_back(pipe)
