"""What the end of a check means: a reading, trouble that is not the host's, or a bug in the monitor."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.python.failure import Failure

from distbal.errors import MonitorTrouble
from distbal.interfaces import Reading
from distbal.monitors.readings import MOST_REASON, one_line, tidy, validate_reading
from distbal.monitors.watch import Assignment

#: lines that are logged of one bug
MOST_LINES = 40


class BugError(Exception):
    """A monitor broke its contract; the text says how."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """The check could not be made, which says nothing of the host.

    :ivar text: why, as the end of a sentence that begins with the host's name.
    """

    text: str


@dataclass(frozen=True, slots=True)
class Bug:
    """The monitor broke its contract.

    :ivar text: how, on one line; ``details`` on as many as it takes.
    """

    text: str
    details: str

    @classmethod
    def of(cls, failure: Failure) -> Bug:
        """The same for an exception."""
        if isinstance(failure.value, BugError):
            return cls.saying(failure.getErrorMessage())
        return cls(one_line(f"met a bug: {named(failure)}", MOST_REASON), _cut(failure.getTraceback()))

    @classmethod
    def saying(cls, text: str) -> Bug:
        """A contract that was broken without an exception."""
        return cls(one_line(f"met a bug: {text}", MOST_REASON), _cut(text))


def named(failure: Failure) -> str:
    """An exception and its words, on one line: many have none."""
    words = failure.getErrorMessage()
    name = type(failure.value).__name__
    return one_line(f"{name}: {words}" if words else name, MOST_REASON)


def _cut(text: str) -> str:
    """A text for the log, of lines that can be printed and are neither too many nor too long: a host's words may be in it."""
    lines = text.splitlines()
    if len(lines) > MOST_LINES:
        left_out = len(lines) - MOST_LINES
        lines = [*lines[: MOST_LINES // 2], f"({left_out} more lines)", *lines[-MOST_LINES // 2 :]]
    return "\n".join(_printable(line) for line in lines)


def _printable(line: str) -> str:
    cut = line if len(line) <= MOST_REASON else f"{line[:MOST_REASON]}..."
    return "".join(letter if letter.isprintable() else "?" for letter in cut)


#: None: there was no occasion to ask
Answer = Reading | Trouble | Bug | None


def begin(monitor: Any) -> Deferred[Any]:
    """Begin a check; BugError, or what the monitor raises, where that cannot be."""
    check = monitor.check()
    if inspect.iscoroutine(check):
        check = ensureDeferred(check)
    if not isinstance(check, Deferred):
        raise BugError(f"check() returned {type(check).__name__}, not a Deferred")
    return check


def answer(assignment: Assignment, result: Any, *, overdue: bool) -> Answer:
    """What a check came to.

    :param result: what its Deferred ended with; a Failure where it failed.
    :param overdue: it was cancelled at its timeout.
    """
    try:
        return _answer(assignment, result, overdue=overdue)
    except Exception:  # noqa: BLE001 (a mapping of facts, or an exception's text, that raises when it is looked at)
        return Bug.of(Failure())  # type: ignore[no-untyped-call]


def _answer(assignment: Assignment, result: Any, *, overdue: bool) -> Answer:
    if isinstance(result, Reading):
        wrong = validate_reading(result)
        return Bug.saying(f"a reading that is none: {'; '.join(wrong)}") if wrong else tidy(result)
    if result is None:
        return None
    if not isinstance(result, Failure):
        return Bug.saying(f"a check ended with {type(result).__name__}, not with a Reading")
    if isinstance(result.value, MonitorTrouble):
        return Trouble(one_line(str(result.value), MOST_REASON) or "could not be asked, and its monitor does not say why")
    if overdue and not isinstance(result.value, BugError):
        return silence(assignment)
    return Bug.of(result)


def silence(assignment: Assignment) -> Reading | Trouble:
    """What it means that a check had to be ended at its timeout."""
    kind, seconds = assignment.kind, assignment.options.timeout
    reason = f"did not answer within {seconds:g} s"
    if kind.silence_is_down:
        return Reading(up=False, reason=reason, took=seconds)
    return Trouble(f"{reason}: {kind.silence}" if kind.silence else reason)
