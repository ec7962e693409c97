"""A kept SSH connection to one host, on which commands are run: for every kind of monitor that asks by way of a shell.

The first command connects and logs in (3 ms of CPU), and each one after it takes a channel of the same connection (0.6 ms).
The server's key is always verified, against a known_hosts file that is read and never written. Whatever goes wrong, the
connection is dropped, and the next command makes it anew.

This module imports without Twisted Conch's libraries; what needs them (:mod:`distbal.monitors.sshtalk`) is imported with the
first options, as hosts.yaml is read.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any, Self, TypeVar, cast

from pydantic import model_validator
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol

from distbal.addresses import matches
from distbal.errors import MonitorTrouble
from distbal.forms import Leaf, Unfit, port_number, setting, shown, switch, text, text_schema
from distbal.interfaces import Target
from distbal.monitors.hostkeys import SSH_PORT, KnownHosts, scan
from distbal.monitors.kit import Interval, MonitorOptions, Surroundings, Timeout, Unreachable, connect

#: what Conch needs beside Twisted itself: a kind's ``requires``, and the extra that brings them
REQUIRES, EXTRA = ("bcrypt", "cryptography"), "ssh"
#: bytes; a file that is larger is not what it is named for
MOST_KEY, MOST_KNOWN_HOSTS = 65_536, 16_777_216
#: what ssh-keygen makes where it is not told otherwise
USUAL_KEY = "~/.ssh/id_ed25519"
_USER = r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}\$?"
_PATH = r"(?:~?/[^\x00-\x1f\x7f]{1,1000})"
_PATH_FORM = "a path is absolute, or begins with ~/: the home of the user whom distbal runs as"

Parsed = TypeVar("Parsed")


def _user(value: str) -> str:
    if matches(_USER, value):
        return value
    raise Unfit(f"{shown(value)} is no name of a user: letters, digits, '-', '_' and dots, at most 64")


def _path(value: object) -> str:
    if isinstance(value, str) and matches(_PATH, value):
        return value
    raise Unfit(f"{shown(value)} is no path: {_PATH_FORM}")


def _path_or_none(value: object) -> str | None:
    return None if value is None else _path(value)


class SshLoginOptions(MonitorOptions):
    """The options of every kind that logs in by SSH; derive yours from it."""

    interval: Interval = setting(15, "Seconds from one check of a host to the next.")
    timeout: Timeout = setting(10, "Seconds that a check may take, the login included where there is no connection yet.")
    user: Annotated[str, text(_USER, _user, "the name of a user of the host")] = setting(
        "distbal", "Who logs in: a user of the host, who needs no rights there."
    )
    port: Annotated[int, port_number()] = setting(SSH_PORT, "The port of its SSH server.")
    key: Annotated[str | None, Leaf(_path_or_none, {"anyOf": [text_schema(_PATH, _PATH_FORM), {"type": "null"}]})] = setting(
        None,
        f"Path of the private key that logs in: ed25519, ECDSA or RSA, without a passphrase. null: {USUAL_KEY}, or none where"
        " the agent is asked.",
    )
    agent: Annotated[bool, switch()] = setting(False, "true: ask the agent at $SSH_AUTH_SOCK to log in with the keys it holds.")
    known_hosts: Annotated[str, Leaf(_path, text_schema(_PATH, _PATH_FORM))] = setting(
        "~/.ssh/known_hosts", "Path of the file with the hosts' public keys, as ssh-keyscan prints them. It is never written."
    )

    @model_validator(mode="after")
    def _load(self) -> Self:
        # here, where a file that asks for it is read: with the first check, jobs would wait for Conch to be loaded
        with contextlib.suppress(ImportError):  # what is missing, the kind says
            import_module("distbal.monitors.sshtalk")
        return self


class SshLink:
    """Runs commands on one host, one at a time."""

    def __init__(self, target: Target, options: SshLoginOptions, surroundings: Surroundings) -> None:
        """Connect to nothing yet.

        :param target: the host; its SSH server is at ``target.host`` and ``options.port``.
        """
        self._target = target
        self._options = options
        self._surroundings = surroundings
        self._files: Files = surroundings.shared.setdefault("ssh", Files())
        self._talk: Any = None
        self._busy = False

    async def run(self, command: str, most: int = 16_384) -> bytes:
        """Run a command there, with nothing to read, and give what it wrote to its standard output.

        :param command: a line for the login shell of the user.
        :param most: bytes; a command that writes more has failed.
        :raises MonitorTrouble: the login or the command failed (a status other than 0 included), and why.

        There is no timeout: cancel the Deferred that waits for this, as distbal does with a check that takes too long. The
        connection is gone then, too, as after every failure.
        """
        if self._busy:
            raise RuntimeError("a command runs already: a link runs one at a time")
        self._busy = True
        try:
            if self._talk is None or self._talk.trouble is not None:
                self._talk = None
                self._talk = await self._connected()
            return cast("bytes", await self._talk.run(command, most))
        except BaseException:
            self.drop()
            raise
        finally:
            self._busy = False

    def drop(self) -> None:
        """Let go of the connection at once; the next command makes another. For an answer that makes no sense."""
        if self._talk is not None:
            self._talk.drop()
            self._talk = None

    def close(self) -> Deferred[None] | None:
        """Close the connection in order; what to wait for until it is closed, or None."""
        talk, self._talk = self._talk, None
        return None if talk is None else cast("Deferred[None]", talk.close())

    async def _connected(self) -> Any:
        """A connection on which the user is logged in."""
        try:
            from distbal.monitors import sshkeys, sshtalk
        except ImportError as problem:
            raise MonitorTrouble(f"cannot be logged in to: {problem}; pip install 'distbal[{EXTRA}]'") from problem
        host, port = self._target.host, self._options.port
        known = self._known_hosts()
        keys = await sshkeys.login_keys(self._options, self._files, self._surroundings.reactor)
        try:
            talk = sshtalk.Talk(host, port, self._options.user, known, keys.each)
            try:
                await connect(self._surroundings, host, port, cast("type[Protocol]", lambda: talk))
                await talk.ready
            except Unreachable as problem:
                raise MonitorTrouble(f"{problem} (ssh, port {port})") from problem
            except BaseException:
                talk.drop()
                raise
        finally:
            keys.let_go()
        return talk

    def _known_hosts(self) -> KnownHosts:
        path, host, port = self._options.known_hosts, self._target.host, self._options.port
        try:
            return self._files.read(path, MOST_KNOWN_HOSTS, _as_known_hosts)
        except FileNotFoundError as problem:
            raise MonitorTrouble(
                f"cannot be told from an impostor: there is no {problem.filename}; {scan(host, port)} >>{problem.filename}"
                " makes it, and its keys are to be compared with the host's"
            ) from problem
        except OSError as problem:
            raise MonitorTrouble(f"cannot be told from an impostor: {problem.filename}: {problem.strerror}") from problem


class Files:
    """Small files, taken in anew only where they have changed: one for all links."""

    def __init__(self) -> None:
        self._taken: dict[tuple[str, object], tuple[tuple[int, ...], Any]] = {}

    def read(self, path: str, most: int, parse: Callable[[str, bytes, os.stat_result], Parsed]) -> Parsed:
        """What ``parse`` makes of the file: of its path without ``~``, its content and its status.

        :param most: bytes.
        :raises OSError: it cannot be read, is larger, or is no file; what parse raises is passed on.
        """
        full = os.path.expanduser(path)  # noqa: PTH111 - Path's raises where there is no home
        # opened before it is looked at, so that it is one and the same; without waiting, as a pipe would have us do
        descriptor = os.open(full, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(0, "is no file", full)
            stamp = status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev
            taken = self._taken.get((full, parse))
            if taken is None or taken[0] != stamp:
                content = _content(descriptor, most + 1)
                if len(content) > most:
                    raise OSError(0, f"is larger than {most} bytes", full)
                taken = self._taken[full, parse] = stamp, parse(full, content, status)
        finally:
            os.close(descriptor)
        return cast("Parsed", taken[1])


def _content(descriptor: int, most: int) -> bytes:
    """So many bytes of a file, at the most."""
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        return file.read(most)


def _as_known_hosts(path: str, content: bytes, status: os.stat_result) -> KnownHosts:
    if status.st_mode & stat.S_IWOTH:
        raise MonitorTrouble(f"cannot be told from an impostor: everybody may write {path} (chmod o-w {path})")
    return KnownHosts(path, content.decode("utf-8", "replace"))
