"""Runs the statements of a shell, out of harm's way: what they print is bounded, and what they raise is shown."""

from __future__ import annotations

import code
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import TextIOBase
from types import CodeType
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from distbal.errors import DistbalError

#: characters that one statement may print, and those of a statement of several lines
MOST_PRINTED, MOST_SOURCE = 1_000_000, 1_000_000
CUT = f"\n... cut: a statement may print {MOST_PRINTED} characters\n"
#: bytes of a value that is kept as ``_``
MOST_KEPT = 1_000_000


class Printed(TextIOBase):
    """What a statement prints, up to a bound. It is sent when the statement has ended: nothing is sent before that anyway."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._left = MOST_PRINTED

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):
            raise TypeError(f"text is printed, not {type(text).__name__}")
        if self._left > 0:
            self._parts.append(text[: self._left])
            if len(text) > self._left:
                self._parts.append(CUT)
            self._left -= len(text)
        return len(text)

    def writable(self) -> bool:
        return True

    def __str__(self) -> str:
        return "".join(self._parts)


class Interpreter(code.InteractiveInterpreter):
    """Runs statements.

    :param tell: shows text that comes when no statement runs.
    :param ended: told when a statement wants the session to end, with the exit status.
    """

    def __init__(self, names: dict[str, Any], tell: Callable[[str], None], ended: Callable[[int], None]) -> None:
        super().__init__(names)
        self._tell = tell
        self._ended = ended
        self._lines: list[str] = []
        self._size = 0
        self._printed = Printed()

    def push(self, line: str) -> tuple[bool, str]:
        """One more line: whether more of them make a statement, and what was printed."""
        self._lines.append(line)
        self._size += len(line) + 1
        if self._size > MOST_SOURCE:
            self.reset()
            return False, f"a statement has at most {MOST_SOURCE} characters"
        self._printed = printed = Printed()
        before = sys.displayhook
        sys.displayhook = self._show
        try:
            with redirect_stdout(printed), redirect_stderr(printed):
                more = self.runsource("\n".join(self._lines), "<shell>")
        finally:
            sys.displayhook = before
        if not more:
            self.reset()
        return more, str(printed)

    def reset(self) -> None:
        """Forget the lines of a statement that is not whole yet."""
        self._lines, self._size = [], 0

    # -- InteractiveInterpreter's

    def runcode(self, code: CodeType) -> None:
        try:
            exec(code, self.locals)  # noqa: S102 (that is what a shell does)
        except SystemExit as ending:
            if ending.code is not None and not isinstance(ending.code, int):
                self.write(f"{ending.code}\n")
            self._ended(ending.code & 0xFF if isinstance(ending.code, int) else int(ending.code is not None))
        except BaseException as error:  # noqa: BLE001 - a statement may raise anything, and none of it is the balancer's
            self._explain(error)

    def write(self, data: str) -> None:
        self._printed.write(data)

    def showsyntaxerror(self, filename: str | None = None, **more: Any) -> None:
        error = sys.exc_info()[1]
        self.write("".join(traceback.format_exception_only(error)))

    # -- the inside

    def _explain(self, error: BaseException) -> None:
        if isinstance(error, DistbalError):
            self.write(f"{error}\n")
            return
        try:
            where = None if error.__traceback__ is None else error.__traceback__.tb_next
            text = "".join(traceback.format_exception(type(error), error, where))
        except Exception as problem:  # noqa: BLE001 - it is an exception of anybody's
            text = f"{type(error).__name__}, which cannot be shown ({type(problem).__name__})\n"
        self.write(text)

    def _show(self, value: object) -> None:
        """The displayhook: what a statement is worth."""
        if value is None:
            return
        if isinstance(value, Deferred):
            self._await(value)
        elif isinstance(value, str | bytes) and len(value) > MOST_PRINTED:
            self.write(repr(value[:MOST_PRINTED]) + CUT)
        else:
            self.write(repr(value) + "\n")
        # what is that big is not kept for the chance that somebody wants it again
        if sys.getsizeof(value, 0) <= MOST_KEPT:
            self.locals["_"] = value

    def _await(self, value: Deferred[Any]) -> None:
        """Show what it comes to: now, where it has, or else then."""
        running, came = True, False

        def tell(text: str) -> None:
            nonlocal came
            came = True
            self.write(text + "\n") if running else self._tell(text)

        value.addCallbacks(lambda result: tell(repr(result)), lambda failure: tell(explained(failure)))
        if not came:
            self.write("it is shown when it is there\n")
        running = False


def explained(failure: Failure) -> str:
    """What went wrong, for whoever typed it."""
    return failure.getErrorMessage() if isinstance(failure.value, DistbalError) else failure.getTraceback()
