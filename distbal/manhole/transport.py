"""One SSH connection to the manhole, up to the login: by public key alone, and bounded in all that a stranger can do.

With Twisted Conch, by what it lets override. Its own log is turned off: what goes wrong gets its words here, and what a peer
does wrong is no error of ours. Conch expects well-formed packets, and raises whatever it likes about others: the connection
ends then.
"""

from __future__ import annotations

# half of Conch has no types
# mypy: disallow-untyped-calls=false
import socket
import struct
from typing import TYPE_CHECKING, Any

from twisted.conch.ssh.common import NS, getNS
from twisted.conch.ssh.service import SSHService
from twisted.conch.ssh.transport import (
    DISCONNECT_BY_APPLICATION,
    DISCONNECT_NO_MORE_AUTH_METHODS_AVAILABLE,
    DISCONNECT_PROTOCOL_ERROR,
    DISCONNECT_TOO_MANY_CONNECTIONS,
    SSHServerTransport,
)
from twisted.conch.ssh.userauth import (
    MSG_USERAUTH_FAILURE,
    MSG_USERAUTH_PK_OK,
    MSG_USERAUTH_REQUEST,
    MSG_USERAUTH_SUCCESS,
)
from twisted.internet.interfaces import IPushProducer, ISystemHandle
from twisted.python.failure import Failure
from zope.interface import implementer

from distbal import listening
from distbal.admin import Who
from distbal.logs import Logger
from distbal.manhole.authorized import ALGORITHMS, Entry
from distbal.monitors.hostkeys import fingerprint
from distbal.monitors.sshtalk import CIPHERS, COMPRESSIONS, EXCHANGES, MACS, SILENT, legible

if TYPE_CHECKING:
    from distbal.manhole.factory import ManholeFactory

#: bytes that a client may send before it is logged in
MOST_HEARD = 262_144
#: keys that a client may try, as MaxAuthTries in sshd_config(5), and requests in all; a client asks for "none" to begin with
MOST_TRIES, MOST_REQUESTS = 10, 30
#: bytes that wait for a client that does not read, before it is cut off: of a session, whose last answer may be longer ...
MOST_UNREAD = 4_194_304
#: ... and of all of a connection: clients that want all at once (PuTTY has windows of 2 GB) get some answers of 10,000 hosts
MOST_BEHIND = 67_108_864
# a prime number of any size costs time before anybody is known: elliptic curves do for every client since OpenSSH 5.7
KEX = [name for name in EXCHANGES if not name.startswith(b"diffie-hellman")]


@implementer(IPushProducer)
class Transport(SSHServerTransport):
    """A connection.

    :ivar peer: the client's address, "" where it came by a Unix socket.
    :ivar entry: the line of authorized_keys by which somebody is logged in; None before.
    :ivar over: nothing that comes is looked at any more.
    """

    log = Logger()
    _log = SILENT
    factory: ManholeFactory
    transport: Any
    service: Any
    ourVersionString = b"SSH-2.0-distbal"
    supportedCiphers = CIPHERS
    supportedMACs = MACS
    supportedKeyExchanges = KEX
    supportedCompressions = COMPRESSIONS

    def __init__(self) -> None:
        self.peer = ""
        self.entry: Entry | None = None
        self.over = False
        self._heard = 0
        #: whether the log says already why it came to nothing
        self._told = False
        self._full = False
        self._unread = 0

    @property
    def where(self) -> str:
        """Where the client is, in words."""
        return f"ssh from {self.peer or 'a Unix socket'}"

    @property
    def who(self) -> Who:
        """Who is logged in."""
        if self.entry is None:
            raise ValueError("nobody is logged in")
        return Who(self.entry.name, self.where)

    @property
    def was_answered(self) -> bool:
        """Whether it is logged in and no session of it goes on."""
        if self.entry is None or self.over:
            return False
        sessions = getattr(self.service, "channels", {}).values()
        return all(session.closing or session.localClosed for session in sessions)

    def cut(self, form: str, *, bound: str = "", **fields: object) -> None:
        """End it at once, and say why in the log: the client, and then these words."""
        if not self.over:
            self.complain(form, bound=bound, **fields)
            self.factory.closing(self)
            self.abort()

    def complain(self, form: str, *, bound: str = "", **fields: object) -> None:
        """Say in the log what is wrong with it: the client, and then these words."""
        self._told = True
        self.factory.complain("manhole: {where} " + form, bound=bound, where=self.where, **fields)

    def abort(self) -> None:
        """End it at once."""
        self.over = True
        self.transport.abortConnection()

    def take_leave(self, why: bytes) -> None:
        """End it, and say why to the client, if that listens."""
        if self.over or self._full or not self.gotVersion:
            self.abort()
        else:
            super().sendDisconnect(DISCONNECT_BY_APPLICATION, why)
            self._close()

    def log_in(self, entry: Entry) -> str:
        """Somebody has shown that a key is theirs. Why they may not in, or "" and they are."""
        why_not = self.factory.logged_in(self)
        if not why_not:
            self.entry = entry
            self.log.info("manhole: {who} logged in with {fingerprint}", who=str(self.who), fingerprint=fingerprint(entry.blob))
        return why_not

    # -- what Conch and Twisted call

    def connectionMade(self) -> None:
        self.peer = _plain(getattr(self.transport.getPeer(), "host", ""))
        if ISystemHandle.providedBy(self.transport):
            _keep_alive(self.transport.getHandle())
        self.transport.registerProducer(self, True)
        self.factory.begun(self)
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        if self.over:
            return
        self._heard += len(data)
        if self.entry is None and self._heard > MOST_HEARD:
            self.cut("sent more than {most} bytes without logging in", bound="manhole-unread", most=MOST_HEARD)
        elif not self.gotVersion and not (self.buf + data).startswith(b"SSH-"[: len(self.buf + data)]):
            self.cut("does not speak SSH: {said!r}", said=legible(self.buf + data, 30))
        else:
            try:
                super().dataReceived(data)
            except Exception as problem:  # noqa: BLE001 - Conch expects well-formed packets
                self.cut("sent what cannot be taken: {problem!r}", problem=problem)

    def getPacket(self) -> Any:
        # what has come already is not looked at either
        return None if self.over else super().getPacket()

    def sendPacket(self, messageType: int, payload: bytes) -> None:
        super().sendPacket(messageType, payload)
        if self._full:
            self._unread += len(payload)
            if self._unread > MOST_BEHIND:
                self.cut("does not read what it asked for", bound="manhole-unread")

    def pauseProducing(self) -> None:
        """The client does not keep up."""
        self._full, self._unread = True, 0

    def resumeProducing(self) -> None:
        """It has read all."""
        self._full = False
        if self.entry is not None:
            self.service.go_on()

    @property
    def is_behind(self) -> bool:
        """Whether it does not keep up."""
        return self._full

    def stopProducing(self) -> None:
        """It is gone."""

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.over = True
        self.factory.ended(self)
        super().connectionLost(reason)
        if self.entry is not None:
            self.log.info("manhole: {who} left", who=str(self.who))
        elif not self._told:
            self.complain("left without logging in")

    def sendDisconnect(self, reason: int, desc: bytes | str) -> None:
        """End it, and say why to the client too."""
        if self.over:
            return
        text = desc.encode() if isinstance(desc, str) else desc
        bound = "manhole" if reason == DISCONNECT_TOO_MANY_CONNECTIONS else ""
        self.complain("is sent away: {why}", bound=bound, why=legible(text, 100))
        super().sendDisconnect(reason, text)
        self._close()

    def ssh_DISCONNECT(self, packet: bytes) -> None:
        """The client ends it."""
        self._close()

    def ssh_KEXINIT(self, packet: bytes) -> Any:
        offered = [set(text.split(b",")) for text in getNS(packet[16:], 8)[:8]]
        ours = [self.supportedKeyExchanges, self.supportedPublicKeys]
        ours += [self.supportedCiphers] * 2 + [self.supportedMACs] * 2 + [self.supportedCompressions] * 2
        if not all(theirs & set(own) for theirs, own in zip(offered, ours, strict=True)):
            self.cut("has no algorithm in common with the manhole; OpenSSH has since 6.5")
            return None
        return super().ssh_KEXINIT(packet)

    def ssh_KEX_DH_GEX_REQUEST(self, packet: bytes) -> None:
        """Conch's, for an exchange that is not offered."""
        self.sendDisconnect(DISCONNECT_PROTOCOL_ERROR, b"this key exchange was not agreed on")

    def ssh_KEX_DH_GEX_INIT(self, packet: bytes) -> None:
        """The same."""
        self.ssh_KEX_DH_GEX_REQUEST(packet)

    def sendExtInfo(self, extensions: Any) -> None:
        """Conch's, which would name the algorithms of the host key for those that users may sign with (RFC 8308, 3.1)."""
        taken = [algorithm for algorithms in ALGORITHMS.values() for algorithm in algorithms]
        super().sendExtInfo([(b"server-sig-algs", b",".join(taken))])

    def ssh_SERVICE_REQUEST(self, packet: bytes) -> None:
        name = getNS(packet)[0]
        if name != Login.name or self.service is not None or not self.isEncrypted("in"):
            self.sendDisconnect(DISCONNECT_PROTOCOL_ERROR, b"there is nothing to do but to log in, once")
        else:
            super().ssh_SERVICE_REQUEST(packet)

    def _close(self) -> None:
        """Close it when what was said is sent, or soon."""
        self.over = True
        self.factory.closing(self)
        # as long as there is one, Twisted closes nothing
        self.transport.unregisterProducer()
        self.transport.loseConnection()


class Login(SSHService):
    """Logs somebody in (RFC 4252). Whatever the user is called, the key decides."""

    name = b"ssh-userauth"
    _log = SILENT
    protocolMessages = {MSG_USERAUTH_REQUEST: "MSG_USERAUTH_REQUEST"}  # noqa: RUF012 (Conch's)
    transport: Transport

    def __init__(self) -> None:
        self._tries: set[bytes] = set()
        self._failed = 0
        self._requests = 0

    def ssh_USERAUTH_REQUEST(self, packet: bytes) -> None:
        user, service, method, rest = getNS(packet, 3)
        self._requests += 1
        if self._requests > MOST_REQUESTS or self._failed >= MOST_TRIES:
            self._enough()
        elif method != b"publickey" or service != b"ssh-connection":
            # "none" is how a client asks what there is
            self._failed += method != b"none"
            self._fail()
        else:
            signed = rest[:1] != b"\0"
            algorithm, blob, rest = getNS(rest[1:], 2)
            entry = self._entry(user, algorithm, blob)
            if entry is None:
                self._failed += 1
                self._fail()
            elif not signed:
                self.transport.sendPacket(MSG_USERAUTH_PK_OK, NS(algorithm) + NS(blob))
            else:
                about = NS(user) + NS(service) + NS(method) + b"\1" + NS(algorithm) + NS(blob)
                data = NS(self.transport.sessionID or b"") + bytes([MSG_USERAUTH_REQUEST]) + about
                self._verify(entry, algorithm, getNS(rest)[0], data)

    def _entry(self, user: bytes, algorithm: bytes, blob: bytes) -> Entry | None:
        """The line of the file by which this key lets in; none, and a line in the log, where it does not."""
        factory = self.transport.factory
        entry = factory.keys.find(blob)
        if entry is None:
            why = f"its key is not in {factory.keys.path}"
        elif algorithm not in ALGORITHMS[entry.key.sshType()]:
            why = f"{legible(algorithm)} is no way to sign with its key"
            entry = None
        else:
            why = entry.why_not(self.transport.peer, factory.wall())
            entry = None if why else entry
        if why and blob not in self._tries:
            self._tries.add(blob)
            self.transport.complain(
                "is not let in as {user!r} with {fingerprint}: {why}",
                user=legible(user, 32),
                fingerprint=fingerprint(blob),
                why=why,
            )
        return entry

    def _verify(self, entry: Entry, algorithm: bytes, signature: bytes, data: bytes) -> None:
        if getNS(signature)[0] != algorithm or not entry.key.verify(signature, data):
            self.transport.cut("signs wrongly with {fingerprint}", fingerprint=fingerprint(entry.blob))
            return
        why_not = self.transport.log_in(entry)
        if why_not:
            self.transport.sendDisconnect(DISCONNECT_TOO_MANY_CONNECTIONS, why_not)
            return
        self.transport.sendPacket(MSG_USERAUTH_SUCCESS, b"")
        self.transport.setService(self.transport.factory.connection())

    def _fail(self) -> None:
        self.transport.sendPacket(MSG_USERAUTH_FAILURE, NS(b"publickey") + b"\0")

    def _enough(self) -> None:
        self.transport.sendDisconnect(
            DISCONNECT_NO_MORE_AUTH_METHODS_AVAILABLE,
            f"tried to log in {self._requests - 1} times in vain",
        )


def _keep_alive(sock: Any) -> None:
    """Notice when the client vanished. One that is there, and does not read for an hour, may stay."""
    if not isinstance(sock, socket.socket) or sock.family == socket.AF_UNIX:
        return
    listening.keep_alive(sock, relay=True)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)


def number(data: bytes) -> int:
    """An SSH uint32 (RFC 4251, 5)."""
    (value,) = struct.unpack(">L", data[:4])
    return int(value)


def _plain(address: str) -> str:
    """An IPv4 client that reached an IPv6 socket comes as ``::ffff:10.0.0.9``."""
    address = address.partition("%")[0]
    return address[7:] if address.lower().startswith("::ffff:") and "." in address else address
