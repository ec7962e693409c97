"""Whose key opens the manhole: a file in the form of OpenSSH's authorized_keys, read when somebody logs in.

So a key that is added or taken away counts at once. A key whose options say more than is understood here is not taken: nobody
is given more than the file means to give. The form is in sshd(8), "AUTHORIZED_KEYS FILE FORMAT".
"""

from __future__ import annotations

# half of Conch has no types
# mypy: disallow-untyped-calls=false
import binascii
import os
import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network
from typing import Any

from twisted.conch.ssh.keys import Key

from distbal.columns import safe
from distbal.complaints import Complaints
from distbal.errors import DistbalError
from distbal.manhole.files import opened
from distbal.monitors.hostkeys import fingerprint

#: bytes of the file that are read, and keys that are taken of it
MOST_FILE, MOST_KEYS = 262_144, 1000
#: characters of a comment that are shown
MOST_COMMENT = 100
#: bits of an RSA key: fewer can be broken, and more take long
LEAST_RSA, MOST_RSA = 2048, 16_384
TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")
#: how a key may sign, by its type; with SHA-1 not at all
ALGORITHMS = {kind.encode(): (kind.encode(),) for kind in TYPES[:-1]} | {b"ssh-rsa": (b"rsa-sha2-512", b"rsa-sha2-256")}
#: options about what nobody is given here anyway
_MOOT = {
    *("no-agent-forwarding", "agent-forwarding", "no-port-forwarding", "port-forwarding", "no-x11-forwarding"),
    *("x11-forwarding", "no-user-rc", "user-rc", "permitopen", "permitlisten"),
}
_OPTION = re.compile(r'([A-Za-z0-9-]+)(?:="((?:\\"|[^"])*)")?')


class KeyFileError(DistbalError):
    """The file cannot be used: why, and what would mend it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the file.

    :ivar line: its number, from 1.
    :ivar key: the public key; ``blob``: as it goes over the wire.
    :ivar comment: what stands behind it, "" for nothing.
    :ivar command: what is done whatever is asked for (``command="..."``); None for what is asked for.
    :ivar pty: whether a terminal is given.
    :ivar sources: from where it may be used (``from="..."``); None for everywhere.
    :ivar expires: until when, in seconds since 1970; None for ever.
    """

    line: int
    blob: bytes
    key: Key = field(compare=False)
    comment: str = ""
    command: str | None = None
    pty: bool = True
    sources: tuple[str, ...] | None = None
    expires: float | None = None

    @property
    def name(self) -> str:
        """What whoever has the key is called."""
        return self.comment or fingerprint(self.blob)

    def why_not(self, address: str, now: float) -> str:
        """Why it does not open from there, now; "" where it does.

        :param address: of the client, "" for a Unix socket.
        :param now: seconds since 1970.
        """
        if self.expires is not None and now >= self.expires:
            return "has expired (expiry-time)"
        if self.sources is not None and not _is_among(address, self.sources):
            return "may not be used from there (from)"
        return ""


class AuthorizedKeys:
    """The file.

    :param path: where it is; it need not be there yet.
    :param complain: told what is wrong with it.
    """

    def __init__(self, path: str, complain: Complaints) -> None:
        self.path = path
        self._complain = complain
        self._seen: tuple[Any, ...] = ()
        self._entries: Mapping[bytes, Entry] = {}

    def find(self, blob: bytes) -> Entry | None:
        """The line that has this public key; None where nothing has, or the file cannot be used."""
        return self.read().get(blob)

    def read(self) -> Mapping[bytes, Entry]:
        """All lines of the file as it is now, by public key. What is wrong with it is logged."""
        try:
            self._read()
        except KeyFileError as error:
            self._entries, self._seen = {}, ()
            self._complain("manhole: nobody can log in: {why}", why=str(error))
        return self._entries

    def _read(self) -> None:
        try:
            with opened(self.path) as (descriptor, status):
                _check(self.path, status)
                seen = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
                if seen == self._seen:
                    return
                content = os.read(descriptor, MOST_FILE + 1)
        except FileNotFoundError as error:
            hint = "it has a line for each public key (ssh-keygen makes them: id_ed25519.pub)"
            raise KeyFileError(f"{self.path}: {error.strerror}; {hint}") from error
        except OSError as error:
            raise KeyFileError(f"{self.path}: {error.strerror}" if error.strerror else str(error)) from error
        if len(content) > MOST_FILE:
            raise KeyFileError(f"{self.path} has more than {MOST_FILE} bytes")
        self._entries, wrong = parse(content.decode("utf-8", "replace"))
        self._seen = seen
        for line, why in wrong:
            self._complain("{path}:{line}: this key is not taken: {why}", path=self.path, line=line, why=why)


def parse(text: str) -> tuple[dict[bytes, Entry], list[tuple[int, str]]]:
    """The lines that count, by public key; and why others do not, by number of the line. The first line of a key counts."""
    entries: dict[bytes, Entry] = {}
    wrong: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()  # noqa: PLW2901
        if not line or line.startswith("#"):
            continue
        if len(entries) >= MOST_KEYS:
            wrong.append((number, f"the file has more than {MOST_KEYS} keys"))
            break
        try:
            entry = _entry(number, line)
        except ValueError as error:
            wrong.append((number, str(error)))
        else:
            entries.setdefault(entry.blob, entry)
    return entries, wrong


def _check(path: str, status: os.stat_result) -> None:
    """As sshd's StrictModes has it: whoever can write the file, can let anybody in."""
    if status.st_uid not in (0, os.geteuid()):
        raise KeyFileError(f"{path} belongs to somebody else (user {status.st_uid}), who could let anybody in: chown it")
    if status.st_mode & 0o022:
        raise KeyFileError(f"others may write {path}, and so let anybody in: chmod go-w {path}")


def _entry(number: int, line: str) -> Entry:
    options: list[tuple[str, str | None]] = []
    if not line.startswith(("ssh-", "ecdsa-", "sk-")):
        options, line = _options(line)
    kind, _, rest = line.partition(" ")
    text, _, comment = rest.strip().partition(" ")
    if kind.startswith("sk-"):
        raise ValueError(f"{kind} is a security key's, which distbal does not take; use an ed25519 key")
    if kind not in TYPES:
        raise ValueError(f'"{kind[:40]}" is no type of key that distbal takes: {", ".join(TYPES)}')
    try:
        blob = b64decode(text, validate=True)
        key = _key(kind, blob)
    except binascii.Error:
        raise ValueError("what stands behind its type is no base64") from None
    made: dict[str, Any] = {}
    for name, value in options:
        _OPTIONS[name](made, value) if name in _OPTIONS else _unknown(name)
    comment = safe(comment.strip())[:MOST_COMMENT]
    return Entry(number, blob, key, comment, **made)


def _key(kind: str, blob: bytes) -> Key:
    if kind == "ssh-rsa":
        _check_rsa(blob)
    try:
        key: Key = Key.fromString(blob, type="blob")
    except Exception:  # noqa: BLE001 - whatever stands in the file
        raise ValueError("it cannot be read") from None
    if key.sshType() != kind.encode():
        raise ValueError(f"it says itself to be {key.sshType().decode()}, and the line says {kind}")
    return key


def _check_rsa(blob: bytes) -> None:
    """The sizes of its numbers (RFC 4253, 6.6), before anything is computed with them."""
    numbers = []
    while blob:
        size = int.from_bytes(blob[:4])
        numbers.append(blob[4 : 4 + size].lstrip(b"\0"))
        blob = blob[4 + size :]
    if len(numbers) != 3:
        raise ValueError("it cannot be read")
    bits = int.from_bytes(numbers[2]).bit_length()
    if not LEAST_RSA <= bits <= MOST_RSA or len(numbers[1]) > 8:
        raise ValueError(f"an RSA key has {LEAST_RSA} to {MOST_RSA} bits, and this one {bits}; ed25519 keys are better")


# -- options: each puts into an Entry's arguments what it means


def _options(line: str) -> tuple[list[tuple[str, str | None]], str]:
    """The options at a line's beginning, and the rest."""
    found: list[tuple[str, str | None]] = []
    at = 0
    while match := _OPTION.match(line, at):
        value = match[2]
        found.append((match[1].lower(), None if value is None else value.replace('\\"', '"')))
        at = match.end()
        if line[at : at + 1] != ",":
            break
        at += 1
    if not found or line[at : at + 1] not in (" ", "\t"):
        raise ValueError("it begins with neither a type of key nor options in sshd's form")
    return found, line[at:].strip()


def _unknown(name: str) -> None:
    raise ValueError(f"its option {name} is not known here, and so it might be given more than it should")


def _valued(name: str, value: str | None) -> str:
    if not value:
        raise ValueError(f'its option {name} wants a value: {name}="..."')
    return value


def _command(made: dict[str, Any], value: str | None) -> None:
    made["command"] = _valued("command", value)


def _from(made: dict[str, Any], value: str | None) -> None:
    sources = tuple(part.strip() for part in _valued("from", value).split(","))
    for source in sources:
        if "/" in source:
            try:
                ip_network(source.removeprefix("!"), strict=False)
            except ValueError:
                raise ValueError(f'"{source[:60]}" in its option from is no range of addresses') from None
    made["sources"] = sources


def _expires(made: dict[str, Any], value: str | None) -> None:
    text = _valued("expiry-time", value)
    digits = text.removesuffix("Z")
    form = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}.get(len(digits) if digits.isdigit() else 0, "")
    try:
        when = datetime.strptime(digits, form)  # noqa: DTZ007 (without a Z it is the time of the place, as in sshd)
    except ValueError:
        raise ValueError('its expiry-time is no time: "YYYYMMDDHHMM" or "YYYYMMDD", and a Z for UTC') from None
    made["expires"] = (when.replace(tzinfo=UTC) if text != digits else when.astimezone()).timestamp()


def _pty(given: bool) -> Callable[[dict[str, Any], str | None], None]:
    def option(made: dict[str, Any], _: str | None) -> None:
        made["pty"] = given

    return option


_OPTIONS: dict[str, Callable[[dict[str, Any], str | None], None]] = {
    **dict.fromkeys(_MOOT, lambda made, value: None),
    "command": _command,
    "from": _from,
    "expiry-time": _expires,
    "no-pty": _pty(False),
    "restrict": _pty(False),
    "pty": _pty(True),
}


def _is_among(address: str, sources: tuple[str, ...]) -> bool:
    """Whether one of the patterns is about the address, and none with a ``!``. Names are not looked up."""
    found = False
    for source in sources:
        pattern = source.removeprefix("!")
        if _matches(address, pattern):
            if source.startswith("!"):
                return False
            found = True
    return found


def _matches(address: str, pattern: str) -> bool:
    if "/" not in pattern:
        return fnmatchcase(address.lower(), pattern.lower().replace("[", "[[]"))
    try:
        return ip_address(address) in ip_network(pattern, strict=False)
    except ValueError:
        return False
