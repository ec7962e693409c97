"""What a client may do before and after it is logged in, and what it may not: real Conch clients, over a network in memory."""

from __future__ import annotations

# half of Conch has no types
# mypy: disallow-untyped-calls=false
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("bcrypt", reason="Twisted Conch's libraries are not here: pip install 'distbal[ssh]'")

from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.conch.ssh import connection as messages
from twisted.conch.ssh.common import MP, NS, getNS
from twisted.conch.ssh.keys import Key
from twisted.conch.ssh.service import SSHService
from twisted.conch.ssh.transport import MSG_KEX_DH_GEX_REQUEST, MSG_SERVICE_REQUEST, SSHClientTransport
from twisted.conch.ssh.userauth import (
    MSG_USERAUTH_FAILURE,
    MSG_USERAUTH_PK_OK,
    MSG_USERAUTH_REQUEST,
    MSG_USERAUTH_SUCCESS,
)
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.test.iosim import FakeTransport, IOPump, connect

from distbal.bounds import bounds as hit
from distbal.bugs import bugs
from distbal.manhole import factory as bounds
from distbal.manhole.factory import ManholeFactory, make_factory
from distbal.manhole.hostkey import HostKeyError
from distbal.manhole.transport import MOST_TRIES, Transport
from distbal.monitors.sshtalk import SILENT
from distbal.verbs import VERBS
from tests.manholes import Balancer, Settings
from tests.services import Lines
from tests.support import LoggedErrors

ED = Key(ed25519.Ed25519PrivateKey.generate())
RSA = Key(rsa.generate_private_key(65537, 2048))
STRANGE = Key(ed25519.Ed25519PrivateKey.generate())


class Heard(SSHService):
    """All that the server says after the keys are exchanged."""

    name = b"ssh-userauth"
    _log = SILENT

    def __init__(self) -> None:
        self.heard: list[tuple[int, bytes]] = []

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        self.heard.append((messageNum, packet))

    def take(self) -> list[tuple[int, bytes]]:
        heard, self.heard = self.heard, []
        return heard


class Client(SSHClientTransport):
    """A client that does what it is told.

    :ivar said: why the server ended it.
    """

    _log = SILENT
    transport: Any

    def __init__(self) -> None:
        self.secure = False
        self.over = False
        self.said = b""
        self.heard = Heard()

    def verifyHostKey(self, hostKey: bytes, fingerprint: bytes) -> Deferred[bool]:
        return succeed(True)

    def connectionSecure(self) -> None:
        self.secure = True

    def receiveError(self, reasonCode: int, description: bytes) -> None:
        self.said = description

    def connectionLost(self, reason: Any = None) -> None:
        self.over = True


class Place:
    """A manhole in memory, and clients of it."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.balancer = Balancer(self.clock)
        authorized = directory / "authorized_keys"
        authorized.write_bytes(b"".join(key.public().toString("openssh") + b" chuck\n" for key in (ED, RSA)))
        authorized.chmod(0o600)
        settings = Settings(str(authorized), str(directory / "host_key"))
        self.factory: ManholeFactory = make_factory(
            self.balancer.admin, settings, self.clock, self.balancer.live, lambda: 1.8e9 + self.clock.seconds()
        )
        self.factory.startFactory()
        self.pumps: list[IOPump] = []

    def client(self) -> Client:
        """One whose connection is encrypted."""
        address = IPv4Address("TCP", "10.0.0.9", 4711)
        server, client = self.factory.buildProtocol(address), Client()
        far = FakeTransport(server, isServer=True, peerAddress=address)
        self.pumps.append(connect(server, far, client, FakeTransport(client, isServer=False)))
        self.pump()
        assert client.secure
        client.requestService(client.heard)
        self.pump()
        return client

    def pump(self) -> None:
        for pump in self.pumps:
            pump.flush()
        self.clock.advance(0)
        for pump in self.pumps:
            pump.flush()

    def says(self, client: Client, message: int, payload: bytes) -> list[tuple[int, bytes]]:
        """The client says that; what it hears."""
        client.sendPacket(message, payload)
        self.pump()
        return client.heard.take()

    def logs_in(self, client: Client, key: Key = ED, algorithm: bytes = b"", **wrong: bytes) -> int:
        """The client logs in; the number of the message that it gets, 0 for none."""
        heard = self.says(client, MSG_USERAUTH_REQUEST, request(client, key, algorithm, **wrong))
        return heard[0][0] if heard else 0

    def opens(self, client: Client, window: int = 1 << 20, packet: int = 32768, kind: bytes = b"session") -> int:
        """The client opens a channel; the number of the message that it gets."""
        ((message, _),) = self.says(client, messages.MSG_CHANNEL_OPEN, NS(kind) + struct.pack(">3L", 0, window, packet))
        return message

    def asks(self, client: Client, kind: bytes, data: bytes = b"", channel: int = 0) -> list[tuple[int, bytes]]:
        payload = struct.pack(">L", channel) + NS(kind) + b"\1" + data
        return self.says(client, messages.MSG_CHANNEL_REQUEST, payload)

    def types(self, client: Client, text: bytes) -> bytes:
        """The client types that; what it is shown."""
        return shown(self.says(client, messages.MSG_CHANNEL_DATA, struct.pack(">L", 0) + NS(text)))


def shown(heard: list[tuple[int, bytes]]) -> bytes:
    return b"".join(getNS(payload[4:])[0] for message, payload in heard if message == messages.MSG_CHANNEL_DATA)


def request(
    client: Client, key: Key, algorithm: bytes = b"", *, signed: bytes = b"", service: bytes = b"ssh-connection"
) -> bytes:
    """A USERAUTH_REQUEST by key, signed.

    :param signed: what is signed in place of what should be.
    """
    algorithm = algorithm or key.sshType()
    text = NS(b"anybody") + NS(service) + NS(b"publickey") + b"\1" + NS(algorithm) + NS(key.public().blob())
    data = signed or NS(client.sessionID or b"") + bytes([MSG_USERAUTH_REQUEST]) + text
    return text + NS(key.sign(data, algorithm))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    one = Place(tmp_path)
    yield one
    closed = one.factory.close()
    for pump in one.pumps:
        pump.flush()
    assert closed.called
    one.balancer.leases.stop()
    assert one.clock.getDelayedCalls() == []


@pytest.mark.parametrize(("key", "algorithm"), [(ED, b""), (RSA, b"rsa-sha2-256"), (RSA, b"rsa-sha2-512")])
def test_who_has_a_key_is_let_in(place: Place, key: Key, algorithm: bytes) -> None:
    client = place.client()
    asked = NS(b"x") + NS(b"ssh-connection") + NS(b"publickey") + b"\0"
    algorithm = algorithm or key.sshType()
    heard = place.says(client, MSG_USERAUTH_REQUEST, asked + NS(algorithm) + NS(key.public().blob()))
    assert heard == [(MSG_USERAUTH_PK_OK, NS(algorithm) + NS(key.public().blob()))]
    with Lines() as lines:
        assert place.logs_in(client, key, algorithm) == MSG_USERAUTH_SUCCESS
    assert "manhole: chuck (ssh from 10.0.0.9) logged in with SHA256:" in lines
    assert client.peerExtensions[b"server-sig-algs"].endswith(b",rsa-sha2-512,rsa-sha2-256")
    # time does not send it away
    place.clock.advance(1000)
    place.pump()
    assert not client.over


def test_who_has_none_is_not(place: Place) -> None:
    client = place.client()
    with Lines() as lines:
        assert place.logs_in(client, STRANGE) == MSG_USERAUTH_FAILURE
        assert place.logs_in(client, RSA, b"ssh-rsa") == MSG_USERAUTH_FAILURE
        assert place.logs_in(client, ED, service=b"ssh-other") == MSG_USERAUTH_FAILURE
        for method, rest in ((b"none", b""), (b"password", b"\0" + NS(b"secret")), (b"keyboard-interactive", NS(b"") * 2)):
            heard = place.says(client, MSG_USERAUTH_REQUEST, NS(b"root") + NS(b"ssh-connection") + NS(method) + rest)
            assert heard == [(MSG_USERAUTH_FAILURE, NS(b"publickey") + b"\0")]
    assert "ssh from 10.0.0.9 is not let in as 'anybody' with SHA256:" in lines
    assert "ssh-rsa is no way to sign with its key" in lines
    assert "secret" not in lines
    # and yet, with a key
    assert place.logs_in(client) == MSG_USERAUTH_SUCCESS


@pytest.mark.parametrize(
    "signed",
    [b"something else", NS(b"another session") + b"2"],
)
def test_a_wrong_signature_ends_it(place: Place, signed: bytes) -> None:
    client = place.client()
    with Lines() as lines:
        assert place.logs_in(client, signed=signed) == 0
    assert client.over
    assert "ssh from 10.0.0.9 signs wrongly with SHA256:" in lines


def test_a_signature_made_in_another_way_than_it_says(place: Place) -> None:
    client = place.client()
    text = NS(b"x") + NS(b"ssh-connection") + NS(b"publickey") + b"\1" + NS(b"rsa-sha2-512") + NS(RSA.public().blob())
    data = NS(client.sessionID or b"") + bytes([MSG_USERAUTH_REQUEST]) + text
    assert place.says(client, MSG_USERAUTH_REQUEST, text + NS(RSA.sign(data, b"ssh-rsa"))) == []
    assert client.over


def test_tries_are_bounded(place: Place) -> None:
    client = place.client()
    with Lines() as lines:
        for _ in range(MOST_TRIES):
            assert place.logs_in(client, STRANGE) == MSG_USERAUTH_FAILURE
        assert place.logs_in(client) == 0
    assert client.said == b"tried to log in 10 times in vain"
    # a line for a key, not for a try
    assert sum("is not let in" in text for text in lines.of("warn")) == 1
    place.clock.advance(bounds.LEAVE + 1)
    place.pump()
    assert client.over


def test_who_does_not_log_in_is_sent_away(place: Place) -> None:
    client = place.client()
    place.clock.advance(bounds.GRACE - 1)
    place.pump()
    assert not client.over
    with Lines() as lines:
        place.clock.advance(2)
        place.pump()
    assert client.over
    assert "ssh from 10.0.0.9 has not logged in within 30 s" in lines


def test_of_too_many_strangers_the_oldest_goes(place: Place) -> None:
    servers = []
    for _ in range(bounds.MOST_STRANGERS + 3):
        server = place.factory.buildProtocol(None)
        server.makeConnection(Wire())
        servers.append(server)
    gone = [server for server in servers if server.over]
    assert gone == servers[:3]
    assert all(server.transport.disconnecting for server in gone)
    assert hit.hits["manhole"] == 3
    for server in servers:
        server.connectionLost()


def test_connections_are_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MOST_CONNECTIONS", 2)
    first, second, third = place.client(), place.client(), place.client()
    assert place.logs_in(first) == place.logs_in(second) == MSG_USERAUTH_SUCCESS
    assert place.logs_in(third) == 0
    assert third.said == b"distbal has 2 SSH connections already"
    assert hit.hits["manhole"] == 1
    first.transport.loseConnection()
    place.pump()
    assert place.logs_in(place.client()) == MSG_USERAUTH_SUCCESS


class Wire(StringTransport):
    """A connection whose other end is the test."""

    def __init__(self) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", "10.0.0.9", 4711))

    def abortConnection(self) -> None:
        self.disconnecting = True


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", "does not speak SSH: 'G"),
        (b"\0", "does not speak SSH"),
        (b"SSH-" + b"x" * 5000, "is sent away: Peer version string longer than 4KB"),
        (b"SSH-\n", "is sent away: bad version"),
        (b"SSH-1.5-x\n", "is sent away: bad version 1.5"),
        (b"SSH-2.0-x\n" + b"\xff" * 100, "is sent away: bad packet length 4294967295"),
        (b"SSH-2.0-x\n" + struct.pack(">LB", 12, 4) + b"\x14" + b"\0" * 50, "cannot be taken"),
        (
            b"SSH-2.0-x\n" + struct.pack(">LB", 28, 4) + b"\x05" + NS(b"ssh-userauth") + b"\0" * 50,
            "nothing to do but to log in",
        ),
        (b"SSH-2.0-x\n" + (struct.pack(">LB", 1004, 4) + b"\x02" + b"\0" * 1002) * 300, "sent more than 262144 bytes"),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_what_is_no_ssh(place: Place, said: bytes, why: str, at_once: bool) -> None:
    server, wire = place.factory.buildProtocol(None), Wire()
    with Lines() as lines:
        server.makeConnection(wire)
        size = len(said) if at_once else max(1, len(said) // 400)
        for start in range(0, len(said), size):
            server.dataReceived(said[start : start + size])
    assert wire.disconnecting
    assert server.over
    assert why in lines
    assert hit.hits["manhole-unread"] == ("sent more" in why)
    server.connectionLost()


@given(st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=5), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_noise(place: Place, noise: list[bytes], begins_well: bool) -> None:
    server, wire = place.factory.buildProtocol(None), Wire()
    server.makeConnection(wire)
    for data in [b"SSH-2.0-noise\r\n", *noise] if begins_well else noise:
        server.dataReceived(data)
    server.connectionLost()
    assert place.factory.connections == []


def test_what_was_not_agreed_on(place: Place) -> None:
    client = place.client()
    client.sendPacket(MSG_KEX_DH_GEX_REQUEST, struct.pack(">3L", 1024, 8192, 8192))
    place.pump()
    assert client.said == b"this key exchange was not agreed on"
    for client in (place.client(), place.client()):
        place.logs_in(client)
        # once more
        client.sendPacket(MSG_SERVICE_REQUEST, NS(b"ssh-userauth"))
        place.pump()
        assert client.said.startswith(b"there is nothing to do but to log in")
    names = Transport.supportedKeyExchanges
    assert names
    assert not [name for name in names if b"group" in name or b"sha1" in name]


def test_a_client_with_nothing_in_common(place: Place) -> None:
    server, client = place.factory.buildProtocol(None), Client()
    client.supportedKeyExchanges = [b"diffie-hellman-group14-sha256"]
    with Lines() as lines:
        pump = connect(server, FakeTransport(server, isServer=True), client, FakeTransport(client, isServer=False))
        pump.flush()
    assert client.over
    assert "ssh from a Unix socket has no algorithm in common with the manhole" in lines


# -- who is logged in


@pytest.fixture
def client(place: Place) -> Client:
    """One that is logged in, and has a session."""
    one = place.client()
    place.logs_in(one)
    assert place.opens(one) == messages.MSG_CHANNEL_OPEN_CONFIRMATION
    return one


def test_there_are_sessions_and_nothing_else(place: Place, client: Client) -> None:
    assert place.opens(client, kind=b"direct-tcpip") == messages.MSG_CHANNEL_OPEN_FAILURE
    assert place.opens(client, packet=1) == messages.MSG_CHANNEL_OPEN_FAILURE
    for kind in (b"subsystem", b"x11-req", b"auth-agent-req@openssh.com", b"env", b"signal", b"\xff"):
        assert place.asks(client, kind, NS(b"sftp") + NS(b"x")) == [(messages.MSG_CHANNEL_FAILURE, struct.pack(">L", 0))]
    for kind in (b"tcpip-forward", b"keepalive@openssh.com"):
        heard = place.says(client, messages.MSG_GLOBAL_REQUEST, NS(kind) + b"\1" + NS(b"") + struct.pack(">L", 0))
        assert heard == [(messages.MSG_REQUEST_FAILURE, b"")]
    for _ in range(9):
        assert place.opens(client) == messages.MSG_CHANNEL_OPEN_CONFIRMATION
    assert place.opens(client) == messages.MSG_CHANNEL_OPEN_FAILURE
    assert hit.hits["manhole-session"] == 1


def test_a_bug_of_ours_ends_the_session_and_not_the_connection(
    place: Place, client: Client, logged_errors: LoggedErrors
) -> None:
    """Nor is it taken for the client's fault."""
    place.asks(client, b"shell")
    (session,) = place.factory.connections[0].service.channels.values()

    def boom(data: bytes) -> None:
        raise ZeroDivisionError

    session._program.received = boom
    told = place.says(client, messages.MSG_CHANNEL_DATA, struct.pack(">L", 0) + NS(b"1\n"))
    assert b"distbal met a bug, which is in its log: this session ends" in b"".join(payload for _, payload in told)
    assert [payload[4:] for message, payload in told if message == messages.MSG_CHANNEL_REQUEST] == [
        NS(b"exit-status") + b"\0" + struct.pack(">L", 1)
    ]
    (event,) = logged_errors.flush()
    assert event["log_failure"].type is ZeroDivisionError
    assert bugs.counts["command"] == 1
    assert not client.over
    # it may open another one
    assert place.opens(client) == messages.MSG_CHANNEL_OPEN_CONFIRMATION


def test_a_bug_in_a_turn_of_what_was_typed_ends_it_too(place: Place, client: Client, logged_errors: LoggedErrors) -> None:
    place.asks(client, b"shell")
    (session,) = place.factory.connections[0].service.channels.values()
    session._program._feed._take = lambda line: 1 // 0
    place.says(client, messages.MSG_CHANNEL_DATA, struct.pack(">L", 0) + NS(b"1\n2\n3\n"))
    place.pump()
    assert [event["log_failure"].type for event in logged_errors.flush()] == [ZeroDivisionError]
    assert bugs.counts["command"] == 1
    assert session.localClosed or session.closing


def test_the_answer_comes_after_the_word_that_it_will(place: Place, client: Client) -> None:
    heard = place.asks(client, b"exec", NS(b"drain alpha:3632"))
    assert [message for message, _ in heard] == [
        messages.MSG_CHANNEL_SUCCESS,
        messages.MSG_CHANNEL_DATA,
        messages.MSG_CHANNEL_REQUEST,
        messages.MSG_CHANNEL_CLOSE,
    ]
    assert heard[2][1][4:] == NS(b"exit-status") + b"\0" + struct.pack(">L", 0)
    # one command is all
    assert place.asks(client, b"shell") == []


def test_a_change_is_made_though_the_client_leaves(place: Place, client: Client) -> None:
    place.balancer.daemon.is_slow = True
    place.asks(client, b"exec", NS(b"drain alpha:3632"))
    client.transport.loseConnection()
    place.pump()
    place.balancer.daemon.catch_up()
    assert place.balancer.state("alpha:3632") == "drain"


def test_a_pasted_flood_is_taken_line_by_line(place: Place, client: Client) -> None:
    place.asks(client, b"shell")
    server = place.factory.connections[0]
    (session,) = server.service.channels.values()
    text = b"n = []\n" + b"n.append(1)\n" * 50 + b"len(n)\n"
    client.sendPacket(messages.MSG_CHANNEL_DATA, struct.pack(">L", 0) + NS(text))
    place.pumps[0].flush()
    # the first line is done at once, and each of the others in a turn of its own
    assert session._program.names["n"] == []
    assert session.is_held
    place.pump()
    assert shown(client.heard.take()) == b"50\n"
    assert not session.is_held


def test_ctrl_c_takes_back_what_was_pasted(place: Place, client: Client) -> None:
    place.asks(client, b"pty-req", NS(b"xterm") + struct.pack(">4L", 80, 24, 0, 0) + NS(b""))
    place.asks(client, b"shell")
    for text in (b"n = []\r" + b"n.append(1)\r" * 50, b"n.append(2)\r\x03", b"n.append(3)\r"):
        client.sendPacket(messages.MSG_CHANNEL_DATA, struct.pack(">L", 0) + NS(text))
        place.pumps[0].flush()
    place.pump()
    (session,) = place.factory.connections[0].service.channels.values()
    assert session._program.names["n"] == [3]
    assert b"^C" in shown(client.heard.take())


def test_other_keys_from_a_file_that_was_read_again(place: Place, tmp_path: Path) -> None:
    before, staying = place.client(), place.client()
    place.logs_in(staying)
    authorized = tmp_path / "others"
    authorized.write_bytes(STRANGE.public().toString("openssh"))
    authorized.chmod(0o600)
    with pytest.raises(HostKeyError, match="there is no directory"):
        place.factory.configure(Settings(str(authorized), str(tmp_path / "none" / "host_key")))
    assert place.logs_in(before) == MSG_USERAUTH_SUCCESS
    place.factory.configure(Settings(str(authorized), str(tmp_path / "host_key")))
    assert place.logs_in(place.client()) == MSG_USERAUTH_FAILURE
    assert place.logs_in(place.client(), STRANGE) == MSG_USERAUTH_SUCCESS
    assert place.opens(staying) == messages.MSG_CHANNEL_OPEN_CONFIRMATION


def test_statements_wait_for_the_client_to_read(place: Place) -> None:
    client = place.client()
    place.logs_in(client)
    place.opens(client, window=1000)
    place.asks(client, b"shell")
    text = b"print('x' * 900)\nprint('y' * 900)\nprint('z' * 900)\n"
    assert place.types(client, text) == b"x" * 900 + b"\n" + b"y" * 99
    place.pump()
    assert client.heard.take() == []
    adjust = struct.pack(">2L", 0, 10_000)
    heard = shown(place.says(client, messages.MSG_CHANNEL_WINDOW_ADJUST, adjust))
    for _ in range(5):
        place.pump()
        heard += shown(client.heard.take())
    assert heard == b"y" * 801 + b"\n" + b"z" * 900 + b"\n"


def test_what_comes_unasked_is_bounded(place: Place) -> None:
    client = place.client()
    place.logs_in(client)
    place.opens(client, window=1000)
    place.asks(client, b"pty-req", NS(b"xterm") + struct.pack(">4L", 80, 24, 0, 0) + NS(b""))
    place.asks(client, b"shell")
    place.types(client, b"from twisted.internet.defer import Deferred; d = [Deferred() for _ in range(6)]\r")
    for number in range(6):
        place.types(client, b"d[%d]\r" % number)
        for _ in range(3):
            place.pump()
    (server,) = place.factory.connections
    (session,) = server.service.channels.values()
    names: dict[str, Any] = session._program.names
    names["d"] = [Deferred() for _ in range(6)]
    adjust: Callable[[int], Any] = lambda size: place.says(  # noqa: E731
        client, messages.MSG_CHANNEL_WINDOW_ADJUST, struct.pack(">2L", 0, size)
    )
    adjust(100_000)
    for number in range(6):
        place.types(client, b"d[%d]\r" % number)
        place.pump()
    with Lines() as lines:
        for one in names["d"]:
            one.callback("x" * 990_000)
        place.pump()
    assert client.over
    assert "ssh from 10.0.0.9 does not read what it asked for" in lines
    assert hit.hits["manhole-unread"] == 1


@pytest.mark.parametrize(
    ("message", "payload"),
    [
        (messages.MSG_CHANNEL_DATA, b""),
        (messages.MSG_CHANNEL_DATA, struct.pack(">2L", 77, 0)),
        (messages.MSG_CHANNEL_REQUEST, struct.pack(">L", 0) + NS(b"pty-req") + b"\0"),
        (messages.MSG_CHANNEL_REQUEST, struct.pack(">L", 0) + NS(b"exec") + b"\0\0"),
        (messages.MSG_CHANNEL_OPEN, b"\0"),
        (messages.MSG_CHANNEL_OPEN_CONFIRMATION, struct.pack(">4L", 5, 5, 5, 5)),
        (messages.MSG_REQUEST_SUCCESS, b""),
        (messages.MSG_GLOBAL_REQUEST, NS(b"x")),
    ],
)
def test_messages_that_make_no_sense_end_it(place: Place, client: Client, message: int, payload: bytes) -> None:
    with Lines() as lines:
        place.says(client, message, payload)
    assert client.over
    assert "ssh from 10.0.0.9 sent what cannot be taken" in lines
    assert "chuck (ssh from 10.0.0.9) left" in lines


def test_more_than_the_window(place: Place, client: Client) -> None:
    place.asks(client, b"shell")
    for _ in range(6):
        client.sendPacket(messages.MSG_CHANNEL_DATA, struct.pack(">L", 0) + NS(b"n = 0\n" * 5000))
    place.pump()
    heard = [message for message, _ in client.heard.take()]
    assert messages.MSG_CHANNEL_CLOSE in heard


def test_after_the_end_nobody_is_taken_in(place: Place) -> None:
    place.client()
    closed = place.factory.close()
    place.pump()
    assert closed.called
    assert place.factory.buildProtocol(None) is None


def test_numbers_of_any_size_are_not_looked_at(place: Place) -> None:
    client = place.client()
    blob = NS(b"ssh-rsa") + MP(65537) + MP(1 << 60_000 | 1)
    text = NS(b"x") + NS(b"ssh-connection") + NS(b"publickey") + b"\1" + NS(b"rsa-sha2-512") + NS(blob)
    ((message, _),) = place.says(client, MSG_USERAUTH_REQUEST, text + NS(NS(b"rsa-sha2-512") + NS(b"x" * 8000)))
    assert message == MSG_USERAUTH_FAILURE


COMMANDS = st.binary(max_size=200) | st.lists(
    st.sampled_from([*VERBS, "help", "--json", "alpha:3632", "'", '"', "\\", "9" * 5000, "0.5", "\n", "\x1b[2J", "#"]),
    max_size=6,
).map(lambda words: " ".join(words).encode())


@given(COMMANDS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
def test_any_command(place: Place, said: bytes) -> None:
    """It is done or refused, with a status that says which, and the session is over."""
    one = place.client()
    place.logs_in(one)
    place.opens(one)
    heard = place.asks(one, b"exec", NS(said))
    statuses = [payload[-1] for message, payload in heard if message == messages.MSG_CHANNEL_REQUEST]
    assert heard[0][0] == messages.MSG_CHANNEL_FAILURE or statuses in ([0], [1], [2])
    one.transport.loseConnection()
    place.pump()


REQUESTS = st.sampled_from([b"exec", b"shell", b"pty-req", b"env", b"window-change", b"signal", b"subsystem", b"break"])


@given(st.lists(st.tuples(REQUESTS, st.binary(max_size=60) | st.binary(max_size=20).map(NS)), max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
def test_whatever_is_asked_of_a_session(place: Place, asked: list[tuple[bytes, bytes]]) -> None:
    """Each is granted or refused, or ends the connection; none is a bug in the log."""
    one = place.client()
    place.logs_in(one)
    place.opens(one)
    for kind, data in asked:
        if one.transport.disconnecting:
            break
        place.asks(one, kind, data)
    one.transport.loseConnection()
    place.pump()
