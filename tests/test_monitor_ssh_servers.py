"""The ``ssh`` kind and servers that are of no use to it: set up otherwise, out of order, hostile, or no SSH servers at all."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from distbal.errors import MonitorTrouble
from distbal.monitors.hostkeys import KnownHosts
from tests.services import until
from tests.sshd import (
    GIVEN_UP,
    USER,
    Sshd,
    asking,
    options_without_server,
    running,
    trouble_with,
)
from tests.support import free_port

pytest.importorskip("bcrypt", reason="Conch needs bcrypt, which is not installed here")
programs = pytest.mark.programs


@programs
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["PubkeyAuthentication no", "PasswordAuthentication yes"], "lets nobody in by key: PubkeyAuthentication"),
        (["AuthenticationMethods publickey,publickey"], "wants more of {user} than a key: publickey"),
        (["MaxSessions 0"], "opens no session for a command (MaxSessions in its sshd_config)"),
        (
            ["Ciphers aes256-gcm@openssh.com,chacha20-poly1305@openssh.com"],
            "has no cipher that distbal speaks: Ciphers +aes256-ctr in its sshd_config would do (aes256-gcm@openssh.com,",
        ),
        (
            ["Ciphers aes256-ctr", "MACs hmac-sha2-256-etm@openssh.com"],
            "has no MAC that distbal speaks: MACs +hmac-sha2-256 in its sshd_config would do (hmac-sha2-256-etm@openssh.com)",
        ),
        (
            ["KexAlgorithms diffie-hellman-group14-sha1,diffie-hellman-group-exchange-sha256"],
            "has no key exchange that distbal speaks: KexAlgorithms +curve25519-sha256 in its sshd_config would do",
        ),
        (["ForceCommand echo no >&2; exit 3"], "ended the command with status 3: no"),
        (["ForceCommand kill -9 $$"], "ended the command by signal KILL"),
        (["ForceCommand printf '\\033[2Jhello\\n'"], "answered neither CPU times nor a load average"),
        (["ForceCommand head -c 1000000 /dev/zero"], "answered with more than 65536 bytes"),
        (["ForceCommand head -c 100000 /dev/zero >&2; exit 1"], "ended the command with status 1"),
        (["ForceCommand head -c 1000000 /dev/zero >&2; exit 1"], "sends more than 262144 bytes that nobody asked for"),
        (["Banner /etc/passwd", "ForceCommand :"], "answered neither CPU times nor a load average"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_server_that_is_not_of_use(sshd: Sshd, settings: list[str], words: str) -> None:
    sshd.settings = settings
    await sshd.start()
    assert (await trouble_with(sshd.options())).startswith(words.format(user=USER))


@pytest_twisted.ensureDeferred
async def test_a_port_that_nobody_listens_on(tmp_path: Path) -> None:
    port = free_port()
    options = options_without_server(tmp_path, port)
    assert await trouble_with(options) == f"refused the connection (ssh, port {port})"
    assert (await trouble_with(options, "no-such-host.invalid")).startswith("has no address: ")


class Says(Protocol):
    """A server that says this to whoever comes, and hangs up."""

    words = b""
    hangs_up = True

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.words)
        if self.hangs_up:
            self.transport.loseConnection()


@asynccontextmanager
async def saying(words: bytes, *, hangs_up: bool = True) -> AsyncIterator[int]:
    """The port of such a server."""

    def build() -> Says:
        says = Says()
        says.words, says.hangs_up = words, hangs_up
        return says

    factory: Any = Factory.forProtocol(build)
    port: Any = reactor.listenTCP(0, factory, interface="127.0.0.1")
    try:
        yield port.getHost().port
    finally:
        await port.stopListening()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (b"", "closed the connection to its port {port} without a word of SSH"),
        (b"220 mail.invalid ESMTP\r\n" * 1000, "does not speak SSH at its port {port}"),
        (b"x" * 1_000_000, "does not speak SSH at its port {port}"),
        (b"SSH-1.5-old\r\n", "does not speak SSH as it should: bad version 1.5"),
        (b"SSH-2.0-x\r\n", "closed the connection to its port {port}"),
        (b"SSH-2.0-x\r\n" + b"\xff" * 100, "does not speak SSH as it should: bad packet length"),
        (b"SSH-2.0-x\r\n" + b"\0\0\0\x0c\x0a\x15" + bytes(50), "does not speak SSH as it should"),
        (b"SSH-2.0-x\r\n" + b"\0\0\0\x0c\x0a\x14" + bytes(50), "does not speak SSH as it should"),
        (
            b"SSH-2.0-x\r\n\0\0\0\x24\x0a\x01\0\0\0\x0c\0\0\0\x0dtoo \x1b[2J many\0\0\0\0" + bytes(10),
            "ended the SSH connection: too [2J many",
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_server_that_speaks_no_ssh(tmp_path: Path, words: bytes, said: str, descriptors_stay: None) -> None:
    async with saying(words) as port:
        assert (await trouble_with(options_without_server(tmp_path, port))).startswith(said.format(port=port))


@pytest_twisted.ensureDeferred
async def test_a_server_that_says_nothing(tmp_path: Path, descriptors_stay: None) -> None:
    async with saying(b"", hangs_up=False) as port, asking(options_without_server(tmp_path, port)) as monitor:
        check = running(monitor)
        await until(lambda: True)
        check.cancel()
        with pytest.raises(GIVEN_UP):
            await check


def talking() -> tuple[Any, StringTransport]:
    """A connection in memory, before the server has said anything."""
    from distbal.monitors.sshtalk import Talk

    talk = Talk("box", 22, USER, KnownHosts("known_hosts", ""), [])
    transport = StringTransport()  # type: ignore[no-untyped-call]
    talk.makeConnection(transport)  # type: ignore[no-untyped-call]
    return talk, transport


#: of messages (RFC 4250, 4.1.2)
NUMBERS = [*range(8), 20, 21, *range(30, 36), 52, 94]


def packet(number: int, payload: bytes) -> bytes:
    """A message as it goes over the wire before keys are exchanged (RFC 4253, 6)."""
    padding = 4 + -(len(payload) + 10) % 8
    return struct.pack(">LBB", len(payload) + 2 + padding, padding, number) + payload + bytes(padding)


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40), st.builds(packet, st.sampled_from([*range(8), 20, 21, *range(30, 36), 52, 94]), st.binary())
        ),
        max_size=6,
    )
)
def test_whatever_a_server_sends_is_taken_calmly(parts: list[bytes]) -> None:
    talk, transport = talking()
    for part in [b"SSH-2.0-x\r\n", *parts]:
        talk.dataReceived(part)
    assert transport.disconnecting == (talk.trouble is not None)
    talk.connectionLost(Failure(ConnectionDone()))  # type: ignore[no-untyped-call]
    caught: list[Failure] = []
    talk.ready.addErrback(caught.append)
    assert str(caught[0].value).isprintable()
    assert caught[0].type is MonitorTrouble


def test_a_server_does_not_choose_the_group_in_which_we_compute() -> None:
    """Whether 8192 bits are a good prime takes OpenSSL a minute, in which nothing else runs."""
    talk, transport = talking()
    offers = b"diffie-hellman-group-exchange-sha256", b"ssh-ed25519", *(b"aes256-ctr",) * 2, *(b"hmac-sha2-256",) * 2
    lists = b"".join(struct.pack(">L", len(text)) + text for text in (*offers, b"none", b"none", b"", b""))
    talk.dataReceived(b"SSH-2.0-x\r\n" + packet(20, bytes(16) + lists + bytes(5)))
    assert str(talk.trouble).startswith("has no key exchange that distbal speaks: ")
    assert transport.disconnecting


def test_a_flood_costs_little() -> None:
    from distbal.monitors.sshtalk import MOST_HEARD

    talk, transport = talking()
    talk.dataReceived(b"SSH-2.0-x\r\n")
    ignored = packet(2, struct.pack(">L", 1000) + bytes(1000))
    for number in range(300):
        assert (talk.trouble is not None) is (number * len(ignored) > MOST_HEARD)
        talk.dataReceived(ignored)
    assert transport.disconnecting
