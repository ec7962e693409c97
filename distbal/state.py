"""The state file: what people decided, and the record of it, across restarts.

One small file of JSON in a directory of distbal's own. It is written whole beside the old one and put in its place, so that
there is always one or the other, whatever ends the process or the machine. A file that cannot be understood is never passed
over: what somebody drained must not come back because of a bad byte. The daemon says so and does not start.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distbal import statejson
from distbal.changes import Change
from distbal.decisions import Decisions
from distbal.errors import DistbalError

NAME = "decisions.json"
#: ten thousand hosts with three decisions each, and a thousand changes, are some 8 MB
MOST_BYTES = 32 * 1024 * 1024
_MODE = 0o600


class StateFile:
    """The file in that directory, which exists already.

    :param directory: of distbal's own; two daemons do not share one.
    """

    def __init__(self, directory: str) -> None:
        self.path = str(Path(directory) / NAME)

    def load(self) -> tuple[Decisions, list[Change]]:
        """What was saved last; nothing where nothing was yet.

        :raises DistbalError: it cannot be read, or is not what was saved.
        """
        data = read(self.path)
        return (Decisions(), []) if data is None else parsed(self.path, data)

    def save(self, decisions: Decisions, changes: Iterable[Change]) -> None:
        """Write both down. It returns when they are on the disk: not for the reactor's thread.

        :param changes: values that nobody changes meanwhile, such as a tuple of a :class:`distbal.changes.Changes`.
        :raises DistbalError: that was not possible; what was there before is there still.
        """
        write(self.path, self.content(decisions, changes))

    def content(self, decisions: Decisions, changes: Iterable[Change]) -> bytes:
        """What :meth:`save` writes. That it can be read again is seen here, and not at the next start."""
        values = statejson.to_json(decisions, changes)
        statejson.from_json(values)
        data = json.dumps(values, indent=1).encode() + b"\n"
        if len(data) > MOST_BYTES:
            raise DistbalError(f"{self.path} would have {len(data)} bytes, more than {MOST_BYTES}: it is not written")
        return data


def parsed(path: str, data: bytes) -> tuple[Decisions, list[Change]]:
    """What a state file says.

    :param path: for the sentences.
    :raises DistbalError: it is damaged, foreign, or of another version.
    """
    away = f"move it away (mv {path} {path}.bad)"
    try:
        values = json.loads(data.decode(), object_pairs_hook=_once_each, parse_constant=_no_constant)
        return statejson.from_json(values)
    except statejson.Unknown as error:
        raise DistbalError(f"{path}: {error}: run the distbal that wrote it, or {away} to start without it") from error
    except UnicodeDecodeError as error:
        why = f"byte {error.start} is not UTF-8"
    except json.JSONDecodeError as error:
        why = f"line {error.lineno}, column {error.colno}: no JSON"
    except RecursionError:
        why = "lists and mappings inside each other too deep"
    except ValueError as error:
        why = str(error)
    raise DistbalError(f"{path} is no state of distbal's, or damaged: {why}. Mend it, or {away} to start without it")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one mapping")
    return found


def _no_constant(word: str) -> object:
    raise ValueError(f"{word} is no number")


def read(path: str) -> bytes | None:
    """The file's content; None where there is no such file. It never waits: only a regular file is read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DistbalError(f"{path} cannot be read: {_reason(error)}") from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise DistbalError(f"{path} cannot be read: it is no regular file")
        if mode & stat.S_IWOTH:
            raise DistbalError(f"everybody may write {path}: see that it says what people decided, and then chmod 600 {path}")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise DistbalError(f"{path} cannot be read: {_reason(error)}") from error
    finally:
        os.close(descriptor)
    if len(data) > MOST_BYTES:
        raise DistbalError(f"{path} is larger than {MOST_BYTES} bytes: it is no state of distbal's. Move it away")
    return data


def write(path: str, data: bytes) -> None:
    """Put the content in the place of what is there, whole or not at all, and on the disk. It blocks.

    :raises DistbalError: it was not possible; the file is as it was.
    """
    new = f"{path}.new"
    try:
        descriptor = _locked(new)
        try:
            _fill(descriptor, data)
            Path(new).rename(path)
        except BaseException:
            Path(new).unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        _sync_directory(Path(path).parent)
    except (OSError, ValueError) as error:
        raise DistbalError(
            f"{path} cannot be written: {_reason(error)}. A restart will not know what was decided now"
        ) from error


def _locked(new: str) -> int:
    """A descriptor of the file beside, which is this call's alone: another one's is waited for.

    One that a killed process left is taken over.
    """
    while True:
        descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # meanwhile the other may have put it in its place, or taken it away
            if _is_still(descriptor, new):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_still(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _fill(descriptor: int, data: bytes) -> None:
    os.fchmod(descriptor, _MODE)
    os.ftruncate(descriptor, 0)
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)


def _sync_directory(directory: Path) -> None:
    """See to it that the new name outlives a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # file systems that cannot do that for directories say EINVAL (fsync(2))
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOENT:
        return "its directory is not there"
    return (os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)).lower()
