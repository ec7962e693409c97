"""The key by which clients know the balancer again: made at the first start, and never changed after that."""

from __future__ import annotations

# half of Conch has no types
# mypy: disallow-untyped-calls=false
import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.conch.ssh.keys import EncryptedKeyError, Key
from twisted.logger import Logger

from distbal.errors import DistbalError
from distbal.manhole.files import opened
from distbal.monitors.hostkeys import fingerprint

#: bytes of a file with a private key
MOST_KEY = 65_536

log = Logger()


class HostKeyError(DistbalError):
    """There can be no host key: why, and what would mend it."""


def host_key(path: str) -> Key:
    """The key in the file; a new one where there is no file yet.

    :raises HostKeyError: it cannot be read or made.
    """
    try:
        key = _read(path)
        if key is None:
            key = _make(path)
    except OSError as error:
        raise HostKeyError(f"the manhole's host key {path}: {error.strerror or error}") from error
    log.info("manhole: its host key is {fingerprint} ({path})", fingerprint=fingerprint(key.public().blob()), path=path)
    return key


def _read(path: str) -> Key | None:
    try:
        with opened(path) as (descriptor, status):
            if status.st_mode & 0o077:
                raise HostKeyError(
                    f"others may read the manhole's host key {path}: chmod 600 {path}, or remove it for a new one"
                )
            content = os.read(descriptor, MOST_KEY)
    except FileNotFoundError:
        return None
    try:
        key: Key = Key.fromString(content)
    except EncryptedKeyError:
        raise HostKeyError(f"the manhole's host key {path} has a passphrase, which nobody is there to type") from None
    except Exception:  # noqa: BLE001 - a file with anything in it
        raise HostKeyError(f"{path} holds no private key; remove it, and the manhole makes a new one") from None
    if key.isPublic():
        raise HostKeyError(f"{path} is the public half of a key; manhole.host_key names the private one")
    if key.type() not in ("Ed25519", "EC", "RSA"):
        raise HostKeyError(f"{path} is a key of a kind that nobody takes any more; remove it, and the manhole makes a new one")
    return key


def _make(path: str) -> Key:
    """A new key, in a file that is there whole or not at all."""
    directory = Path(path).parent
    if not directory.is_dir():
        raise HostKeyError(f"there is no directory {directory} for the manhole's host key: make it, or set manhole.host_key")
    key = Key(Ed25519PrivateKey.generate())
    made = Path(f"{path}.{os.getpid()}.new")
    made.unlink(missing_ok=True)
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.toString("openssh", comment="distbal"))
            file.flush()
            os.fsync(descriptor)
        made.rename(path)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
    log.info("manhole: made a host key, {path}", path=path)
    return key
