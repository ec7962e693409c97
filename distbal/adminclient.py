"""The client of the admin socket: words in, an answer out, and for everything that can go wrong a sentence.

The socket is a Unix one. Each request is a line of JSON, ``{"words": ["drain", "newbb:3632", "fan broken"], "for": "alice"}``,
and each is answered by one: ``{"ok": true, "answer": {...}}``, or ``{"ok": false, "error": "a sentence", "usage": false}``.
Of the standard library alone, since the command line starts anew for each word that a person types.
"""

from __future__ import annotations

import grp
import json
import os
import socket
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from distbal.errors import DistbalError, WireError
from distbal.report import VERSION

DEFAULT_PATH = "/run/distbal/admin.sock"
#: names another socket
VARIABLE = "DISTBAL_ADMIN"
#: seconds for one answer; a reload reads files and a change is first kept on the disk
PATIENCE = 30.0
#: bytes of a request, its line end included
LARGEST_REQUEST = 64 << 10
#: bytes of an answer; 10,000 hosts with three monitors each make some 20 MB
LARGEST_ANSWER = 64 << 20


class NoDaemonError(DistbalError):
    """Nobody listens there."""


class NotPermittedError(DistbalError):
    """The socket is there, and not for this user."""


class RefusedError(DistbalError):
    """The daemon says that it cannot be done: the text is its own.

    :ivar usage: whether the words were no verb, or not of its form.
    """

    def __init__(self, text: str, *, usage: bool = False) -> None:
        super().__init__(text)
        self.usage = usage


def default_path() -> str:
    """Where the socket is, unless somebody says otherwise on the command line."""
    return os.environ.get(VARIABLE) or DEFAULT_PATH


class Connection:
    """A connection to the daemon, on which one question may follow another; a context manager.

    :param path: the socket's.
    :param patience: seconds to connect, and for each answer.
    :raises NoDaemonError: nobody listens there.
    :raises NotPermittedError: this user may not connect.
    :raises DistbalError: it cannot be connected to for another reason.
    """

    def __init__(self, path: str, patience: float = PATIENCE) -> None:
        self.path = path
        self._patience = patience
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._rest = b""
        try:
            self._sock.settimeout(patience)
            self._sock.connect(path)
        except BaseException as error:
            self._sock.close()
            if isinstance(error, OSError):
                raise _not_connected(path, error, patience) from error
            raise

    def ask(self, words: Sequence[str]) -> dict[str, Any]:
        """What the daemon answers.

        :raises RefusedError: it says that it cannot be done.
        :raises WireError: what answers there is not distbal, or breaks off.
        :raises DistbalError: it does not answer in time.
        """
        request: dict[str, Any] = {"words": list(words)}
        if person := os.environ.get("SUDO_USER"):
            request["for"] = person
        line = json.dumps(request).encode() + b"\n"
        if len(line) > LARGEST_REQUEST:
            raise RefusedError(f"that is too long: a request has at most {LARGEST_REQUEST >> 10} KiB", usage=True)
        deadline = time.monotonic() + self._patience
        try:
            self._sock.settimeout(self._patience)
            self._sock.sendall(line)
            return self._understood(self._read(deadline))
        except TimeoutError as error:
            why = "it is stopped, or busy; its log may say with what"
            raise DistbalError(f"distbal at {self.path} did not answer within {self._patience:g} s: {why}") from error
        except OSError as error:
            raise WireError(f"{self.path}: the connection broke: {error.strerror}") from error

    def close(self) -> None:
        """Leave."""
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _read(self, deadline: float) -> bytes:
        """One line."""
        pieces = [self._rest]
        total = len(self._rest)
        while b"\n" not in pieces[-1]:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._sock.settimeout(left)
            piece = self._sock.recv(1 << 18)
            if not piece:
                what = "closed without an answer" if not total else "broke off in its answer"
                raise WireError(f"{self.path} {what}; its log may say why")
            pieces.append(piece)
            total += len(piece)
            if total > LARGEST_ANSWER:
                raise WireError(f"{self.path} answers with more than {LARGEST_ANSWER >> 20} MiB")
        line, _, self._rest = b"".join(pieces).partition(b"\n")
        return line

    def _understood(self, line: bytes) -> dict[str, Any]:
        try:
            reply = json.loads(line)
            if reply["ok"] is True and isinstance(reply["answer"], dict):
                return dict(reply["answer"])
            refused = RefusedError(str(reply["error"]), usage=reply.get("usage") is True)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise WireError(f"{self.path} is not distbal's admin socket: it says {line[:60]!r}") from error
        raise refused


def check(answer: dict[str, Any]) -> None:
    """Whether we know what these fields mean.

    :raises WireError: it is a report of another version of distbal.
    """
    version = answer.get("version", VERSION)
    if version != VERSION:
        raise WireError(
            f"the daemon's reports have version {version!r}, and this distbal knows {VERSION}: use the one that came with the"
            " daemon; --json shows them as they are"
        )


def _not_connected(path: str, error: OSError, patience: float) -> DistbalError:
    if isinstance(error, FileNotFoundError):
        return NoDaemonError(f"there is no {path}: is distbal running, and does listen.admin in its hosts.yaml say so?")
    if isinstance(error, ConnectionRefusedError):
        return NoDaemonError(f"nobody listens on {path}: is distbal running?")
    if isinstance(error, PermissionError):
        return NotPermittedError(f"you may not connect to {path}: {_who_may(path)}")
    if isinstance(error, TimeoutError | BlockingIOError):
        return DistbalError(f"distbal at {path} takes no connection: it is stopped, or busy (tried for {patience:g} s)")
    return DistbalError(f"{path}: {error.strerror or error}")


def _who_may(path: str) -> str:
    """Who may connect to a socket, as far as it can be told."""
    from pathlib import Path

    try:
        group = Path(path).stat().st_gid
    except OSError:
        return "ask whoever runs distbal, or use sudo"
    if group == 0:
        return "only root may; use sudo"
    try:
        name = grp.getgrgid(group).gr_name
    except KeyError:
        name = str(group)
    if group in (os.getegid(), *os.getgroups()):
        return "its mode keeps its group out; use sudo"
    return f"you are not in the group {name} (usermod -aG {name} YOU, and a new login), and sudo is another way"
