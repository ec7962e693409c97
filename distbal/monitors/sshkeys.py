"""The keys that log in: a private key in a file, and those that an agent holds. With Twisted Conch.

What signs is asked for a Deferred in either case. RSA keys sign with SHA-2 (RFC 8332): OpenSSH takes SHA-1 no longer since 8.8.
"""

from __future__ import annotations

# half of Conch has no types
# mypy: disallow-untyped-calls=false
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from twisted.conch.error import ConchError
from twisted.conch.ssh import keys
from twisted.conch.ssh.agent import AGENT_SIGN_RESPONSE, AGENTC_SIGN_REQUEST, SSHAgentClient
from twisted.conch.ssh.common import NS, getNS
from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import ITCPTransport
from twisted.python.failure import Failure

from distbal.errors import MonitorTrouble
from distbal.monitors.hostkeys import fingerprint
from distbal.monitors.kit import QuietFactory
from distbal.monitors.sshlink import MOST_KEY, USUAL_KEY, Files, SshLoginOptions

#: keys of an agent that are tried: sshd hangs up after six attempts (MaxAuthTries in sshd_config(5))
MOST_TRIED = 5
#: the types that log in: certificates and keys that want to be touched do not
TYPES = (b"ssh-ed25519", b"ecdsa-sha2-nistp", b"ssh-rsa")
#: the algorithms that an RSA key signs with, the best first, and an agent's flags for them (draft-ietf-sshm-ssh-agent, 3.6.1)
RSA_FLAGS = {b"rsa-sha2-512": 4, b"rsa-sha2-256": 2}


class LoginKey(Protocol):
    """A key that can sign."""

    @property
    def blob(self) -> bytes:
        """The public key, as it goes over the wire."""

    @property
    def kind(self) -> bytes:
        """Its type: ``ssh-ed25519``."""

    @property
    def label(self) -> str:
        """What people call it."""

    def sign(self, data: bytes, algorithm: bytes) -> Deferred[bytes]:
        """The signature."""


@dataclass(frozen=True, slots=True)
class LoginKeys:
    """Those of one login, in the order in which they are tried.

    :ivar let_go: to be called when it is over, one way or the other.
    """

    each: list[LoginKey]
    let_go: Callable[[], None]


async def login_keys(options: SshLoginOptions, files: Files, reactor: Any) -> LoginKeys:
    """The keys that the options name; MonitorTrouble where there is none, and why."""
    path = options.key or (None if options.agent else USUAL_KEY)
    own = None if path is None else _from_file(path, files, options.agent)
    if not options.agent:
        return LoginKeys([] if own is None else [own], lambda: None)
    agent = await _agent(reactor)
    try:
        each = _chosen(own, await agent.held())
    except BaseException:
        agent.let_go()
        raise
    return LoginKeys(each[:MOST_TRIED], agent.let_go)


def _chosen(own: FileKey | None, held: Sequence[AgentKey]) -> list[LoginKey]:
    """The file's key and then the agent's; of these only the file's where the file has a public key."""
    if not held and own is None:
        raise MonitorTrouble("cannot be logged in to: the agent at $SSH_AUTH_SOCK holds no key; ssh-add gives it one")
    if own is None:
        return list(held)
    if not own.is_public:
        return [own, *(key for key in held if key.blob != own.blob)]
    chosen: list[LoginKey] = [key for key in held if key.blob == own.blob]
    if not chosen:
        raise MonitorTrouble(f"cannot be logged in to: the agent does not hold {own.label} ({fingerprint(own.blob)})")
    return chosen


class FileKey:
    """A key of a file; one that is public cannot sign."""

    def __init__(self, path: str, key: keys.Key) -> None:
        self._key = key
        self.is_public: bool = key.isPublic()
        self.blob: bytes = key.public().blob()
        self.kind: bytes = key.sshType()
        self.label = path

    def sign(self, data: bytes, algorithm: bytes) -> Deferred[bytes]:
        return execute(self._key.sign, data, algorithm)


def _from_file(path: str, files: Files, agent: bool) -> FileKey | None:
    """The key of the file; None where it has a passphrase, and there is an agent."""
    try:
        key = files.read(path, MOST_KEY, parsed_key)
    except FileNotFoundError as problem:
        raise MonitorTrouble(
            f"cannot be logged in to: there is no key {problem.filename}; ssh-keygen -t ed25519 -N '' -f {problem.filename}"
            " makes one"
        ) from problem
    except OSError as problem:
        raise MonitorTrouble(f"cannot be logged in to: the key {problem.filename}: {problem.strerror}") from problem
    if key is None:
        if agent:
            return None
        raise MonitorTrouble(
            f"cannot be logged in to: the key {path} has a passphrase, which nobody is there to type; give it to an agent"
            " (agent: true), or use a key without"
        )
    if key.is_public and not agent:
        raise MonitorTrouble(f"cannot be logged in to: {path} is the public half of a key; key: names the private one")
    return key


def parsed_key(path: str, content: bytes, status: os.stat_result) -> FileKey | None:
    """The key, or None where it has a passphrase. The exceptions' own words are not shown: there is content in them."""
    try:
        key = keys.Key.fromString(content)
    except keys.EncryptedKeyError:
        return None
    except Exception:  # noqa: BLE001 - a file with anything in it
        raise MonitorTrouble(f"cannot be logged in to: {path} holds no private key that distbal can read") from None
    # as ssh(1) has it for one's own; a group may have been given another's on purpose
    others = 0o077 if status.st_uid == os.geteuid() else 0o007
    if not key.isPublic() and status.st_mode & others:
        raise MonitorTrouble(f"cannot be logged in to: others may read the private key {path}; chmod 600 {path}")
    return FileKey(path, key)


@dataclass(frozen=True, slots=True)
class AgentKey:
    """A key that the agent holds."""

    blob: bytes
    kind: bytes
    label: str
    _agent: Agent

    def sign(self, data: bytes, algorithm: bytes) -> Deferred[bytes]:
        flags = RSA_FLAGS.get(algorithm, 0)
        asked = self._agent.sendRequest(AGENTC_SIGN_REQUEST, NS(self.blob) + NS(data) + flags.to_bytes(4))
        return cast("Deferred[bytes]", asked.addCallback(_signature))


def _signature(answer: bytes) -> bytes:
    if answer[:1] != bytes([AGENT_SIGN_RESPONSE]):
        raise ConchError("it does not sign")
    return getNS(answer[1:])[0]


class Agent(SSHAgentClient):
    """A connection to the agent."""

    transport: ITCPTransport  # of a Unix socket, which is let go of alike

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        waiting, self.deferreds = self.deferreds, []
        for one in waiting:
            one.errback(ConchError("it hung up"))

    async def held(self) -> list[AgentKey]:
        """All keys that it holds, of the types that log in."""
        try:
            identities = await self.requestIdentities()
        except ConchError as problem:
            raise MonitorTrouble(f"cannot be logged in to: the agent at $SSH_AUTH_SOCK: {problem}") from problem
        return [
            AgentKey(blob, kind, comment.decode("utf-8", "replace") or "a key of the agent", self)
            for kind, blob, comment in ((getNS(blob)[0], blob, comment) for blob, comment in identities)
            if kind.startswith(TYPES) and b"@" not in kind
        ]

    def let_go(self) -> None:
        """No more is asked."""
        self.transport.abortConnection()


async def _agent(reactor: Any) -> Agent:
    path = os.environ.get("SSH_AUTH_SOCK", "")
    if not path:
        raise MonitorTrouble("cannot be logged in to: $SSH_AUTH_SOCK is not set, so there is no agent to ask")
    try:
        return cast("Agent", await UNIXClientEndpoint(reactor, path).connect(QuietFactory.forProtocol(Agent)))
    except ConnectError as problem:
        raise MonitorTrouble(f"cannot be logged in to: no agent at {path} ($SSH_AUTH_SOCK): {problem}") from problem
