"""Who we are to an SNMP agent: communities, users, passphrases. They stand in hosts.yaml or in files, and are never shown."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import SecretStr

from distbal.errors import MonitorTrouble
from distbal.forms import Leaf, Unfit, shown, text_schema

AUTH = ("sha", "sha224", "sha256", "sha384", "sha512")
PRIVACY = ("aes", "aes192", "aes256")

#: what stands before the path of a file that holds a secret
FILE = "file:"
#: a passphrase is no shorter (RFC 3414, 11.2)
LEAST = 8
MOST = 255
#: bytes of a file; only its first line is of use
_MOST_OF_FILE = 4096


def _secret(what: str, least: int = 1) -> Leaf:
    """A text that nobody may see, or the file that it stands in. It becomes a SecretStr, or None where none is given.

    :param what: its name for sentences: ``a community``.
    """
    wanted = f"{what} is a text{f' of at least {least} characters' if least > 1 else ''}, or file:/PATH of a file that holds it"

    def parse(value: object) -> SecretStr | None:
        if value is None:
            return None
        if not isinstance(value, str):
            quotes = "; put it in quotes" if isinstance(value, int | float) and not isinstance(value, bool) else ""
            raise Unfit(f"this is no text to YAML: {wanted}{quotes}")
        if value.startswith(FILE):
            if not value.startswith(f"{FILE}/") or "\0" in value:
                raise Unfit(f"{shown(value)} names no file: file:/PATH is wanted, from the root on")
        else:
            problem = _why_no_secret(value, least)
            if problem:
                raise Unfit(f"{problem}: {wanted}")
        return SecretStr(value)

    return Leaf(parse, {**text_schema("[^\\n]*", wanted), "minLength": least, "type": ["string", "null"], "writeOnly": True})


def _why_no_secret(text: str, least: int) -> str:
    if len(text) < least:
        return "nothing stands here" if not text else f"{len(text)} characters are too few"
    if len(text) > MOST:
        return f"{len(text)} characters are too many"
    return "" if text.isprintable() else "there are characters in it that cannot be printed"


def _word(words: tuple[str, ...], refused: dict[str, str]) -> Leaf:
    """One of a few names of algorithms, as people write them: ``SHA-256`` is ``sha256``.

    :param refused: those that there are, but not here: why.
    """

    def parse(value: object) -> str:
        plain = value.lower().replace("-", "").replace("_", "") if isinstance(value, str) else ""
        plain = {"sha1": "sha", "aes128": "aes"}.get(plain, plain)
        if plain in words:
            return plain
        why = f": {refused[plain]}" if plain in refused else ""
        raise Unfit(f"{shown(value)} is none of {', '.join(words)}{why}")

    return Leaf(parse, {"enum": list(words)})


def _user() -> Leaf:
    """A user's name, which RFC 3414 bounds to 32 bytes; None for none."""
    wanted = "SNMP's users have names of 1 to 32 characters"

    def parse(value: object) -> str | None:
        if value is None or (isinstance(value, str) and 1 <= len(value.encode()) <= 32 and value.isprintable()):
            return value
        raise Unfit(f"{shown(value)} is no user: {wanted}")

    return Leaf(parse, {**text_schema("[^\\n]{1,32}", wanted), "type": ["string", "null"]})


def _version() -> Leaf:
    """The protocol's version, as YAML and people have it: 3 and "3", 2c and v2c."""
    known = {"2": "2c", "2c": "2c", "3": "3"}

    def parse(value: object) -> str:
        plain = value if isinstance(value, str) else str(value) if type(value) is int else ""
        plain = plain.lower().removeprefix("snmp").removeprefix("v")
        if plain in known:
            return known[plain]
        why = ": it has no way to say that a value is missing" if plain == "1" else ""
        raise Unfit(f"{shown(value)} is none of 2c, 3{why}")

    return Leaf(parse, {"enum": ["2c", "3", 2, 3, "2", "v2c", "v3"]})


Version = Annotated[str, _version()]
User = Annotated[str | None, _user()]
Community = Annotated[SecretStr | None, _secret("a community")]
Passphrase = Annotated[SecretStr | None, _secret("a passphrase", LEAST)]
Auth = Annotated[str, _word(AUTH, {"md5": "an agent that knows md5 knows sha too, and md5 is broken"})]
Privacy = Annotated[
    str, _word(PRIVACY, {"des": "agents that know it know aes, and it is broken", "3des": "most agents know aes"})
]


@dataclass(frozen=True, slots=True)
class Credentials:
    """What one agent is to be told; hosts with the same share what it costs.

    :ivar version: ``2c`` or ``3``.
    :ivar auth: one of :data:`AUTH`, or "" for a user without; ``privacy`` likewise.
    """

    version: str
    community: bytes = field(default=b"", repr=False)
    user: str = ""
    auth: str = ""
    auth_passphrase: bytes = field(default=b"", repr=False)
    privacy: str = ""
    privacy_passphrase: bytes = field(default=b"", repr=False)

    @classmethod
    def of(cls, options: Any) -> Credentials:
        """Those that the options name; reads the files.

        :param options: a :class:`distbal.monitors.snmp.SnmpOptions`.
        :raises MonitorTrouble: a file is not to be had, or not to be used.
        """
        if options.version != "3":
            return cls("2c", community=_opened(options.community))
        auth, privacy = (_opened(one, LEAST) for one in (options.auth_passphrase, options.privacy_passphrase))
        return cls(
            "3",
            user=options.user,
            auth=options.auth if auth else "",
            auth_passphrase=auth,
            privacy=options.privacy if privacy else "",
            privacy_passphrase=privacy,
        )

    @property
    def level(self) -> int:
        """The security level of RFC 3411: 1 noAuthNoPriv, 2 authNoPriv, 3 authPriv."""
        return 1 + bool(self.auth) + bool(self.privacy)

    @property
    def _how(self) -> str:
        parts = [f"auth: {self.auth}"] if self.auth else ["no auth_passphrase"]
        parts += [f"privacy: {self.privacy}"] if self.privacy else ["no privacy_passphrase"]
        return ", ".join(parts)

    def why_refused(self, indication: str, words: str) -> str:
        """The sentence's end for what the agent, or pysnmp, has against us: the name of a class in pysnmp.proto.errind."""
        if indication in ("UnknownUserName", "UnknownSecurityName"):
            return f"has no SNMP user {self.user}"
        if indication in ("WrongDigest", "AuthenticationFailure", "AuthenticationError"):
            return f"does not accept the auth_passphrase of {self.user}, or not with auth: {self.auth}"
        if indication in ("DecryptionError", "EncryptionError"):
            return f"cannot read what {self.user} says: another privacy_passphrase, or not privacy: {self.privacy}"
        if indication == "UnsupportedSecurityLevel":
            return f"does not let {self.user} in like this ({self._how}): other keys are set for this user there"
        if indication == "NotInTimeWindow":
            return "does not agree with itself what time it is (two agents with one engine ID?)"
        if indication == "UnknownEngineID":
            return "has another SNMP engine ID than a while ago; that is found out within five minutes"
        return f"cannot be asked: {words}"

    def why_not_told(self, status: str) -> str:
        """The sentence's end for an answer with this error status (RFC 3416, 3: ``authorizationError`` ...)."""
        who = f"the user {self.user} ({self._how})" if self.version == "3" else "this community"
        if status in ("authorizationError", "noAccess"):
            return f"does not let {who} read anything"
        return f"answers with an error: {status}"


def _opened(value: SecretStr | None, least: int = 1) -> bytes:
    """The secret itself; b"" for none."""
    text = "" if value is None else value.get_secret_value()
    return _from_file(text.removeprefix(FILE), least) if text.startswith(FILE) else text.encode()


def _from_file(path: str, least: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise MonitorTrouble(f"cannot be asked: {path} is no file")
            if status.st_mode & stat.S_IRWXO:
                raise MonitorTrouble(f"is not asked: everybody may use the secret in {path} (chmod o= {path})")
            content = os.read(descriptor, _MOST_OF_FILE)
        finally:
            os.close(descriptor)
    except OSError as problem:
        raise MonitorTrouble(f"cannot be asked: {path} cannot be read: {problem.strerror}") from problem
    line = content.split(b"\n", 1)[0].rstrip(b"\r")
    why = _why_no_secret(line.decode("utf-8", "replace"), least)
    if why:
        raise MonitorTrouble(f"cannot be asked: in the first line of {path}, {why}")
    return line
