"""Keeps what people decided on the disk: off the reactor's thread, the latest in place of what was not written yet.

How it is written, and that a crash leaves one or the other whole, is :mod:`distbal.state`'s business; :func:`keep` finds what
was kept before, and sees to it that no two daemons keep theirs in one place.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from distbal.bugs import bugs
from distbal.changes import Changes
from distbal.decisions import Decisions
from distbal.errors import DistbalError
from distbal.logs import Logger
from distbal.state import StateFile

#: in the directory, and held as long as the daemon lives
LOCK = "lock"
_log = Logger()


class Saver:
    """Writes one thing after the other, in a thread.

    :param why_not: why nothing can be kept, as the end of a sentence; "" where it can.
    """

    log = Logger()

    def __init__(self, why_not: str = "") -> None:
        self._why_not = why_not
        self._can = not why_not
        self._wanted: Callable[[], None] | None = None
        self._writing = False
        #: for what is being written, and for what comes after that
        self._waiting: list[Deferred[str]] = []
        self._waiting_longer: list[Deferred[str]] = []

    def save(self, write: Callable[[], None]) -> None:
        """Write this soon; it may raise DistbalError."""
        if self._can:
            self._wanted = write
            self._begin()

    def saved(self) -> Deferred[str]:
        """Fires when what was to be saved by now is written: with why it could not be, or ""."""
        if not self._writing:
            return succeed(self._why_not)
        waits: Deferred[str] = Deferred()
        (self._waiting if self._wanted is None else self._waiting_longer).append(waits)
        return waits

    def _begin(self) -> None:
        if self._writing or self._wanted is None:
            return
        write, self._wanted = self._wanted, None
        self._writing = True
        self._waiting, self._waiting_longer = self._waiting_longer, []
        deferToThread(write).addCallbacks(lambda _: "", self._cannot).addCallback(self._written)

    def _cannot(self, failure: Failure) -> str:
        if isinstance(failure.value, DistbalError):
            why = str(failure.value)
            self.log.error("what was decided cannot be kept: {why}", why=why)
            return why
        bugs.met("command", self.log, "what was decided cannot be kept, by a bug", failure)
        return "of a bug: the log tells more"

    def _written(self, why_not: str) -> None:
        self._writing, self._why_not = False, why_not
        # a crowd that goes on changing things lets nobody wait for its end
        waiting, self._waiting = self._waiting, []
        self._begin()
        for waits in waiting:
            waits.callback(why_not)


@dataclass(slots=True)
class Kept:
    """What was kept, and where the next is.

    :ivar decisions: what people decided before; ``changes``: who changed what.
    :ivar lock: a descriptor that keeps the directory to us; -1 where there is none.
    """

    decisions: Decisions
    changes: Changes
    _saver: Saver
    _file: StateFile | None = None
    lock: int = -1

    def save(self, decisions: Decisions, changes: Changes) -> None:
        """Keep these, soon."""
        file, made = self._file, tuple(changes)
        if file is not None:
            self._saver.save(lambda: file.save(decisions, made))

    def saved(self) -> Deferred[str]:
        """Fires when all of it is on the disk: with why it is not, or ""."""
        return self._saver.saved()

    def look(self) -> None:
        """Say so in the log if nothing can be kept there: whoever took it up may have been another account (twistd --uid)."""
        if self._file is not None and not os.access(Path(self._file.path).parent, os.W_OK | os.X_OK):
            where, account = Path(self._file.path).parent, os.geteuid()
            _log.warn("uid {uid} cannot write in {where}: decisions hold until a restart", uid=account, where=str(where))

    def close(self) -> None:
        """Let the directory go to the next daemon: nothing is kept there from now on."""
        self._file = None
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1


def keep(directory: str | None, *, wanted: bool, lock: int = -1, leniently: bool = False) -> Kept:
    """Take up what was kept there.

    :param directory: None for nowhere.
    :param lock: the lock of an earlier image of this process, which is ours from now on; -1 for none.
    :param wanted: somebody asked for this one: it is made where it is missing, and has to be usable. Otherwise distbal does
        without it where it cannot be had.
    :param leniently: do without it whatever is wrong: jobs of an earlier process are to go on.
    :raises DistbalError: it cannot be used, or what is there cannot be understood.
    """
    if lock >= 0 and not _is_lock_of(lock, directory):
        os.close(lock)
        lock = -1
    if directory is None:
        # as somebody wished: nothing to be warned of at each change
        return Kept(Decisions(), Changes(), Saver())
    try:
        lock = _take(directory, make=wanted) if lock < 0 else lock
    except DistbalError as error:
        if wanted and not leniently:
            raise
        log = _log.error if wanted else _log.warn
        log("{why}; decisions hold until a restart", why=str(error))
        return Kept(Decisions(), Changes(), Saver(str(error)))
    try:
        file = StateFile(directory)
        decisions, changes = file.load()
    except DistbalError as error:
        os.close(lock)
        if not leniently:
            raise
        _log.error("{why}; what was decided before is not known, and what is decided now holds until a restart", why=str(error))
        return Kept(Decisions(), Changes(), Saver(str(error)))
    return Kept(decisions, Changes(earlier=changes), Saver(), file, lock)


def _is_lock_of(lock: int, directory: str | None) -> bool:
    try:
        return directory is not None and os.path.samestat(os.fstat(lock), (Path(directory) / LOCK).stat())
    except OSError:
        return False


def _take(directory: str, *, make: bool) -> int:
    """Be the only daemon that uses it: a descriptor that holds the lock."""
    path = Path(directory)
    try:
        if make:
            path.mkdir(mode=0o750, exist_ok=True)
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise DistbalError(f"the state directory {directory} cannot be had: {why}") from error
    if path.stat().st_mode & stat.S_IWOTH:
        os.close(lock)
        raise DistbalError(
            f"everybody may write in the state directory {directory}, and so undo what people decided: chmod o-w {directory},"
            " or name a new directory in it"
        )
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise DistbalError(f"another distbal uses the state directory {directory}") from error
    return lock
