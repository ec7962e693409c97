"""What can go wrong, each with the words that a user sees.

Every exception here is meant to be shown as its text alone, without a traceback: the text says what is wrong, where, and what
would be right. Anything else that is raised is a bug.
"""

from __future__ import annotations

from dataclasses import dataclass


class DistbalError(Exception):
    """The base of every mistake that a user can make and mend."""


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """One thing wrong (or doubtful) in a configuration file.

    :ivar line: the line it stands on, from 1; 0 where it belongs to the whole file.
    :ivar column: the column, from 1; 0 where only the line is known.
    :ivar where: the path of keys, as a reader would say it (``hosts[2].slots``); "" for the whole file.
    :ivar text: what is wrong and what would be right, one sentence or two.
    """

    line: int
    column: int
    where: str
    text: str


class ConfigError(DistbalError):
    """hosts.yaml cannot be used.

    :ivar path: the file as the user named it.
    :ivar mistakes: all of them, in the order of the file.
    """

    def __init__(self, path: str, mistakes: list[Mistake]) -> None:
        self.path = path
        self.mistakes = sorted(mistakes)
        super().__init__("\n".join(describe(path, mistake) for mistake in self.mistakes))


class ListenError(DistbalError):
    """A port cannot be listened on: taken, not allowed, no such address."""


class WireError(DistbalError):
    """Text that came over one of the ports does not follow docs/protocol.md."""


class LineTooLongError(WireError):
    """It does not end where it must at the latest."""


class MonitorTrouble(DistbalError):
    """A monitor could not do its own work; the text says why, as the end of a sentence that begins with the host's name.

    It says nothing of whether the host can take jobs.
    """


def describe(path: str, mistake: Mistake) -> str:
    """One mistake as ``hosts.yaml:7: hosts[2].slots: ...``, the form that editors jump to."""
    place = f"{path}:{mistake.line}" if mistake.line else path
    return f"{place}: {mistake.where}: {mistake.text}" if mistake.where else f"{place}: {mistake.text}"
