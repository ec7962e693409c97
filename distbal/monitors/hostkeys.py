"""A known_hosts file: which host keys a host may show. Read, and never written: what stands in it, a person put there.

The format is in sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT": names with ``*``, ``?`` and ``!``, hashed names, ``[host]:port`` and
``@revoked`` are understood; lines of certificate authorities (``@cert-authority``) are passed over, as any that cannot be read.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass

#: SSH's own port, whose hosts stand in the file by their bare names
SSH_PORT = 22
_REVOKED = "@revoked"


@dataclass(frozen=True, slots=True)
class HostKey:
    """A line of the file.

    :ivar line: its number, from 1.
    :ivar names: whose key it is, as written.
    :ivar kind: the type of key: ``ssh-ed25519``.
    :ivar blob: the public key, as it goes over the wire.
    :ivar revoked: whoever shows this key is not to be trusted.
    """

    line: int
    names: str
    kind: str
    blob: bytes
    revoked: bool

    def is_of(self, name: str) -> bool:
        """Whether the line is about this name, as :func:`name_of` makes it."""
        if self.names.startswith("|1|"):
            return _hash_matches(self.names, name)
        matched = False
        for pattern in self.names.lower().split(","):
            if _matches(pattern.removeprefix("!"), name):
                if pattern.startswith("!"):
                    return False
                matched = True
        return matched


class KnownHosts:
    """The keys in one file.

    :ivar path: where it is; what people are told.
    """

    def __init__(self, path: str, text: str) -> None:
        """Take in the whole text of the file."""
        self.path = path
        self._keys = list(_parsed(text))

    def kinds(self, host: str, port: int) -> list[str]:
        """The types of keys that are known of the host's SSH server, in the file's order: what to ask it for.

        A server has several keys and shows one. With the usual preferences it might show one that nobody wrote down.
        """
        name = name_of(host, port)
        return list(dict.fromkeys(key.kind for key in self._keys if not key.revoked and key.is_of(name)))

    def why_not(self, host: str, port: int, blob: bytes) -> str:
        """Why a key that the host shows is refused, as the end of a sentence; "" where it is the right one."""
        name = name_of(host, port)
        known = [key for key in self._keys if key.is_of(name)]
        for key in known:
            if key.revoked and key.blob == blob:
                return f"shows the host key {fingerprint(blob)}, which {self.path}:{key.line} has revoked"
        known = [key for key in known if not key.revoked]
        if any(key.blob == blob for key in known):
            return ""
        kind = kind_of(blob)
        if not known:
            return (
                f"has a host key that is not known, {kind} {fingerprint(blob)}: compare it with the host's own, and add it"
                f" ({scan(host, port)} >>{self.path})"
            )
        line = next((key.line for key in known if key.kind == kind), known[0].line)
        return (
            f"shows another host key than {self.path}:{line} has: {kind} {fingerprint(blob)}."
            f" If that is right, replace the line ({scan(host, port)})"
        )


def name_of(host: str, port: int) -> str:
    """What the file calls a host's SSH server: ``box``, ``[box]:2222``."""
    return host.lower() if port == SSH_PORT else f"[{host.lower()}]:{port}"


def scan(host: str, port: int) -> str:
    """The command that prints a host's lines for the file."""
    return f"ssh-keyscan {host}" if port == SSH_PORT else f"ssh-keyscan -p {port} {host}"


def fingerprint(blob: bytes) -> str:
    """A public key's fingerprint as ssh-keygen -l shows it: ``SHA256:...``."""
    return "SHA256:" + b64encode(hashlib.sha256(blob).digest()).rstrip(b"=").decode()


def kind_of(blob: bytes) -> str:
    """The type that a public key says itself to be (RFC 4253, 6.6: it begins with that, after four bytes of length)."""
    kind = blob[4 : 4 + int.from_bytes(blob[:4])] if len(blob) > 4 else b""
    return kind[:40].decode("ascii", "replace") if kind.isascii() and kind.decode("ascii").isprintable() else "?"


def _parsed(text: str) -> Iterator[HostKey]:
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        revoked = bool(words) and words[0] == _REVOKED
        names, kind, key = [*words[revoked : revoked + 3], "", "", ""][:3]
        if not key or names.startswith(("#", "@")):
            continue
        try:
            blob = b64decode(key, validate=True)
        except (binascii.Error, ValueError):
            continue
        if kind_of(blob) == kind:
            yield HostKey(number, names, kind, blob, revoked)


def _hash_matches(names: str, name: str) -> bool:
    """Whether ``|1|SALT|HASH`` is of this name: HASH is HMAC-SHA1 with SALT as its key."""
    try:
        salt, hashed = (b64decode(part, validate=True) for part in names.removeprefix("|1|").split("|"))
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.digest(salt, name.encode(), "sha1"), hashed)


def _matches(pattern: str, name: str) -> bool:
    if "*" not in pattern and "?" not in pattern:
        return pattern == name
    return re.fullmatch(re.sub(r"\\([*?])", _wild, re.escape(pattern)), name) is not None


def _wild(escaped: re.Match[str]) -> str:
    return ".*" if escaped[1] == "*" else "."
