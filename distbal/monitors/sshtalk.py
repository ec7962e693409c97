"""One SSH connection: the server is verified, the user logs in, commands run. With Twisted Conch, by what it lets override.

Conch says little of what goes wrong, and a lot of what goes well: so every failure here gets its words where it is noticed
(:meth:`Talk.give_up`), and Conch's own log is turned off, which would have five lines for each command.
"""

from __future__ import annotations

# half of Conch has no types
# mypy: disallow-untyped-calls=false
import struct
from typing import Any

from twisted.conch.ssh.channel import SSHChannel
from twisted.conch.ssh.common import NS, getNS
from twisted.conch.ssh.connection import SSHConnection
from twisted.conch.ssh.transport import DISCONNECT_BY_APPLICATION, SSHClientTransport
from twisted.conch.ssh.userauth import MSG_USERAUTH_REQUEST, SSHUserAuthClient
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import ITCPTransport
from twisted.python.failure import Failure

from distbal.errors import MonitorTrouble
from distbal.logs import Logger
from distbal.monitors.hostkeys import KnownHosts, fingerprint
from distbal.monitors.sshkeys import RSA_FLAGS, LoginKey

#: bytes of a command's standard error that are kept, to be shown
MOST_SAID = 400
#: bytes that a server may send to log somebody in, or beside what a command writes; a flood of them would cost time, not memory
MOST_HEARD = 262_144
# what is weak is not offered, for somebody between could ask for it; and what a stranger deflated is not inflated. Nor is a
# stranger's own prime taken (group exchange): to find out whether it is one may take a minute, in which nothing else runs
CIPHERS = [name for name in SSHClientTransport.supportedCiphers if name.endswith(b"-ctr") and name != b"3des-ctr"]
MACS = [name for name in SSHClientTransport.supportedMACs if name != b"hmac-md5"]
EXCHANGES = [
    name for name in SSHClientTransport.supportedKeyExchanges if not name.endswith(b"-sha1") and b"group-exchange" not in name
]
COMPRESSIONS = [b"none"]
#: the lists in a server's KEXINIT message (RFC 4253, 7.1): in words, the keyword of sshd_config(5), and what to add
OFFERS = (
    ("key exchange", "KexAlgorithms", "curve25519-sha256"),
    ("host key", "HostKeyAlgorithms", "ssh-ed25519"),
    ("cipher", "Ciphers", "aes256-ctr"),
    ("cipher", "Ciphers", "aes256-ctr"),
    ("MAC", "MACs", "hmac-sha2-256"),
    ("MAC", "MACs", "hmac-sha2-256"),
)


class _Silent(Logger):
    """Conch's log, which nobody needs."""

    def emit(self, level: Any, format: str | None = None, **kwargs: object) -> None:  # noqa: A002 - Logger's own name
        pass


SILENT = _Silent()


class Talk(SSHClientTransport):
    """A connection.

    :ivar ready: fires when the user is logged in; MonitorTrouble when that cannot be.
    :ivar trouble: why nothing can be run on it any more; None while it lives.
    """

    log = Logger()
    _log = SILENT
    transport: ITCPTransport
    supportedCiphers = CIPHERS
    supportedMACs = MACS
    supportedKeyExchanges = EXCHANGES
    supportedCompressions = COMPRESSIONS

    def __init__(self, host: str, port: int, user: str, known: KnownHosts, keys: list[LoginKey]) -> None:
        """Begin, before it is connected.

        :param known: the keys that the host may show.
        :param keys: what the user may log in with; used until :attr:`ready` has fired.
        """
        self._host, self._port, self._user, self._known, self._keys = host, port, user, known, keys
        self.trouble: MonitorTrouble | None = None
        self._closed: Deferred[None] | None = None
        self._shown = b""
        self._room = MOST_HEARD
        self._phase = "without a word of SSH: it is no SSH server, or has too many clients (MaxStartups)"
        self._commands: Connection | None = None
        self.ready: Deferred[None] = Deferred()
        self.supportedPublicKeys = _host_algorithms(known.kinds(host, port))

    def run(self, command: str, most: int) -> Deferred[bytes]:
        """Run a command; what it wrote. See :meth:`distbal.monitors.sshlink.SshLink.run`."""
        if self.trouble is not None or self._commands is None:
            return fail(self.trouble or MonitorTrouble("is not logged in to"))
        self._room = MOST_HEARD + 2 * most
        channel = Command(command.encode(), most)
        self._commands.openChannel(channel)
        return channel.outcome

    def give_up(self, words: str) -> None:
        """End it at once: for this reason, the end of a sentence that begins with the host's name."""
        if self.trouble is None:
            self.trouble = MonitorTrouble(words)
            if self.transport is not None:
                self.transport.abortConnection()

    def drop(self) -> None:
        """End it at once, whatever it does."""
        self.give_up("was let go")

    def close(self) -> Deferred[None]:
        """End it in order; fires when it has ended."""
        if self.trouble is not None:
            return succeed(None)
        self._closed = Deferred()
        super().sendDisconnect(DISCONNECT_BY_APPLICATION, b"")
        self.trouble = MonitorTrouble("was let go")
        return self._closed

    # -- what Conch calls

    def dataReceived(self, data: bytes) -> None:
        self._room -= len(data)
        if self._room < 0:
            self.give_up(f"sends more than {MOST_HEARD} bytes that nobody asked for")
        if self.trouble is None:
            try:
                super().dataReceived(data)
            except Exception as problem:  # noqa: BLE001 - Conch expects well-formed packets
                self.log.debug("{host} sent what Conch cannot take: {problem!r}", host=self._host, problem=problem)
                self.give_up(f"does not speak SSH as it should ({type(problem).__name__})")

    def getPacket(self) -> Any:
        # what has come already is not looked at either
        return super().getPacket() if self.trouble is None else None

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self.trouble is None:
            self.trouble = MonitorTrouble(f"closed the connection to its port {self._port} {self._phase}")
        super().connectionLost(reason)
        if not self.ready.called:
            self.ready.errback(self.trouble)
        if self._closed is not None:
            self._closed.callback(None)

    def ssh_KEXINIT(self, packet: bytes) -> None:
        self._phase = "before keys were exchanged"
        words = self._why_nothing_in_common(packet)
        if words:
            self.give_up(words)
        else:
            super().ssh_KEXINIT(packet)

    def verifyHostKey(self, hostKey: bytes, fingerprint: bytes) -> Deferred[bool]:
        """Conch's: at the first exchange of keys and at each later one."""
        words = self._known.why_not(self._host, self._port, hostKey)
        if self._shown and hostKey != self._shown:
            words = "has changed its host key in the middle of a connection"
        if words:
            self.give_up(words)
            return fail(self.trouble)
        self._shown = hostKey
        return succeed(True)

    def connectionSecure(self) -> None:
        if self._commands is None:
            self._phase = f"while {self._user} logged in"
            self._commands = Connection()
            self.requestService(Login(self._user, self._commands, self._keys))

    def let_in(self) -> None:
        """The user is logged in."""
        self._phase = "before the command ended"
        self._keys = []
        if not self.ready.called:
            self.ready.callback(None)

    def sendDisconnect(self, reason: int, desc: bytes) -> None:
        """Conch ends the connection, for a fault of the server."""
        self.give_up(f"does not speak SSH as it should: {legible(desc)}" if self.gotVersion else _NO_SSH % self._port)

    def receiveError(self, reasonCode: int, description: bytes) -> None:
        self.give_up(f"ended the SSH connection: {legible(description)}")

    def _why_nothing_in_common(self, packet: bytes) -> str:
        """Which algorithm is lacking, by what the server offers; "" where none is."""
        ours = (
            self.supportedKeyExchanges,
            self.supportedPublicKeys,
            *(self.supportedCiphers,) * 2,
            *(self.supportedMACs,) * 2,
        )
        offered = getNS(packet[16:], len(OFFERS))
        for (what, keyword, wanted), own, text in zip(OFFERS, ours, offered, strict=False):
            if not set(own) & set(text.split(b",")):
                return f"has no {what} that distbal speaks: {keyword} +{wanted} in its sshd_config would do ({legible(text)})"
        return ""


class Login(SSHUserAuthClient):
    """Logs the user in, by keys alone."""

    _log = SILENT
    transport: Talk

    def __init__(self, user: str, then: SSHConnection, keys: list[LoginKey]) -> None:
        super().__init__(user.encode(), then)
        self._name = user
        self._left = list(keys)
        self._tried: list[LoginKey] = []
        #: the last of them, until it has signed
        self._asked: LoginKey | None = None
        self._algorithm = b""

    def serviceStarted(self) -> None:
        self._next()

    def ssh_USERAUTH_BANNER(self, packet: bytes) -> None:
        """What the host says to people who log in."""

    def ssh_USERAUTH_FAILURE(self, packet: bytes) -> None:
        text, rest = getNS(packet)
        methods = text.split(b",")
        if rest[:1] == b"\1":
            self.transport.give_up(f"wants more of {self._name} than a key: {legible(text)}")
        elif b"publickey" not in methods:
            self.transport.give_up(f"lets nobody in by key: PubkeyAuthentication in its sshd_config (it takes {legible(text)})")
        else:
            self._next()

    def ssh_USERAUTH_PK_OK_publickey(self, packet: bytes) -> None:
        key, self._asked = self._asked, None
        if key is None:
            self.transport.give_up("does not speak SSH as it should: it wants the same signature twice")
            return
        request = NS(self.user) + NS(self.instance.name) + NS(b"publickey") + b"\1" + NS(self._algorithm) + NS(key.blob)
        signed = key.sign(NS(self.transport.sessionID or b"") + bytes([MSG_USERAUTH_REQUEST]) + request, self._algorithm)
        signed.addCallbacks(self._send, self._cannot_sign)

    def _next(self) -> None:
        """Ask whether the next key would do."""
        while self._left:
            key = self._left.pop(0)
            algorithm = self._algorithm_of(key)
            if algorithm is not None:
                self._tried.append(key)
                self._asked = key
                self._algorithm = algorithm
                self.askForAuth(b"publickey", b"\0" + NS(algorithm) + NS(key.blob))
                return
        self.transport.give_up(self._why_not_let_in())

    def _algorithm_of(self, key: LoginKey) -> bytes | None:
        """How the key signs; None where the server would not have it. The server lists what it has (RFC 8308, 3.1)."""
        if key.kind != b"ssh-rsa":
            return key.kind
        taken = self.transport.peerExtensions.get(b"server-sig-algs")
        return next((name for name in RSA_FLAGS if taken is None or name in taken.split(b",")), None)

    def _send(self, signature: bytes) -> None:
        key = self._tried[-1]
        self.askForAuth(b"publickey", b"\1" + NS(self._algorithm) + NS(key.blob) + NS(signature))

    def _cannot_sign(self, failure: Failure) -> None:
        self.transport.give_up(f"cannot be logged in to: {self._tried[-1].label} does not sign: {failure.getErrorMessage()}")

    def _why_not_let_in(self) -> str:
        if not self._tried:
            return "takes no RSA key that signs with SHA-2 (PubkeyAcceptedAlgorithms in its sshd_config): use an ed25519 key"
        key = self._tried[0]
        others = len(self._tried) - 1
        more = f" or {others} more" if others else ""
        return (
            f"does not let {self._name} in with {key.label}{more} ({fingerprint(key.blob)}): does the user exist,"
            " and is that key in its authorized_keys?"
        )


class Connection(SSHConnection):
    """What commands are run on."""

    _log = SILENT
    transport: Talk

    def serviceStarted(self) -> None:
        super().serviceStarted()
        self.transport.let_in()


class Command(SSHChannel):
    """One command on its way.

    :ivar outcome: what it wrote, or MonitorTrouble.
    """

    name = b"session"
    _log = SILENT
    conn: Connection

    def __init__(self, command: bytes, most: int) -> None:
        super().__init__()
        self._command = command
        self._most = most
        self._wrote = bytearray()
        self._said = b""
        self._end = "without saying how"
        self.outcome: Deferred[bytes] = Deferred()

    def channelOpen(self, specificData: bytes) -> None:
        self.conn.sendRequest(self, b"exec", NS(self._command), wantReply=1).addErrback(self._not_run)
        self.conn.sendEOF(self)

    def openFailed(self, reason: Any) -> None:
        text = legible(reason.args[0]) if reason.args and isinstance(reason.args[0], bytes) else ""
        self._fail(f"opens no session for a command (MaxSessions in its sshd_config): {text}")

    def dataReceived(self, data: bytes) -> None:
        self._wrote += data
        if len(self._wrote) > self._most:
            self.conn.transport.give_up(f"answered with more than {self._most} bytes: {legible(bytes(self._wrote[:80]))}")

    def extReceived(self, dataType: int, data: bytes) -> None:
        self._said = (self._said + data)[:MOST_SAID]

    def request_exit_status(self, data: bytes) -> bool:
        (status,) = struct.unpack(">L", data[:4])
        self._end = f"with status {status}" if status else ""
        return True

    def request_exit_signal(self, data: bytes) -> bool:
        self._end = f"by signal {legible(getNS(data)[0])}"
        return True

    def closed(self) -> None:
        trouble = self.conn.transport.trouble
        if self.outcome.called:
            return
        if trouble is not None:
            self.outcome.errback(trouble)
        elif self._end:
            said = legible((self._said or bytes(self._wrote[:MOST_SAID])).strip(), 120)
            self._fail(f"ended the command {self._end}" + (f": {said}" if said else ""))
        else:
            self.outcome.callback(bytes(self._wrote))

    def _not_run(self, failure: Failure) -> None:
        self._fail("runs no command for this user")

    def _fail(self, words: str) -> None:
        if not self.outcome.called:
            self.outcome.errback(self.conn.transport.trouble or MonitorTrouble(words))


_NO_SSH = "does not speak SSH at its port %d"


def legible(text: bytes, most: int = 60) -> str:
    """Bytes of a stranger as one line for people: cut, without what a terminal would obey."""
    line = " ".join(
        "".join(char if char.isprintable() else " " for char in text[: 4 * most].decode("utf-8", "replace")).split()
    )
    return line if len(line) <= most else f"{line[:most]}..."


def _host_algorithms(known: list[str]) -> list[bytes]:
    """The algorithms that the server's key may have. The server takes the first that it has: so known types come first."""
    ours = [b"ssh-ed25519", *(name for name in SSHClientTransport.supportedPublicKeys if name.startswith(b"ecdsa-"))]
    ours += RSA_FLAGS
    first = [name for kind in known for name in (list(RSA_FLAGS) if kind == "ssh-rsa" else [kind.encode()]) if name in ours]
    return first + [name for name in ours if name not in first]
