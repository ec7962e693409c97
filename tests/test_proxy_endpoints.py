"""Twisted endpoint strings that wrap a connection (TLS, the PROXY protocol): a session goes through, and ends at once."""

from __future__ import annotations

import datetime as dt
import ssl
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from distbal.outcomes import Outcome
from tests.peers import Peer, readable, until
from tests.proxies import House, Server, heard, noise, read
from tests.services import balancer, connect

pytestmark = pytest.mark.usefixtures("descriptors_stay")

PROXIED = "haproxy:tcp:0:interface=127.0.0.1"
#: what a load balancer that speaks the PROXY protocol says first
HEADER = b"PROXY TCP4 127.0.0.9 127.0.0.1 4711 3632\r\n"


@pytest.mark.parametrize("much", [6, 3_000_000])
@pytest_twisted.ensureDeferred
async def test_a_session_behind_the_proxy_protocol_ends_as_soon_as_all_is_said(much: int) -> None:
    answer = noise(much)
    with Server() as server:
        house = House(server.spec())
        async with house.serves("streams", PROXIED):
            with house.client(HEADER + b"hello") as client, await server.accept() as end:
                assert await read(end, 5) == b"hello"
                sending = Deferred.fromCoroutine(end.send_much(answer))
                got = await read(client, much)
                await sending
                end.close()
                more, clean = await heard(client)
                assert (got + more, clean) == (answer, True)
                await until(lambda: not house.sessions, "the end, without any deadline")
        assert house.outcomes() == [Outcome.ANSWERED]


@pytest_twisted.ensureDeferred
async def test_a_client_behind_the_proxy_protocol_that_leaves_cancels() -> None:
    with Server() as server:
        house = House(server.spec())
        async with house.serves("streams", PROXIED):
            with house.client(HEADER + b"hello") as client, await server.accept() as end:
                assert await read(end, 5) == b"hello"
                with house.client(HEADER + b"waits") as waiter:
                    await house.becomes(lent=1, waiting=1)
                    waiter.close()
                    await house.becomes(lent=1)
                client.close()
                await house.becomes(lent=0)
        assert house.outcomes() == [Outcome.CLOSED]


# -- TLS

#: Twisted gives pyOpenSSL what newer versions of that would rather have otherwise
over_tls = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")


class Secret:
    """A client that speaks TLS."""

    def __init__(self, peer: Peer) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._peer = peer
        self._from, self._to = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._from, self._to)

    async def shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
                return
            except ssl.SSLWantReadError:
                await self._exchange()

    async def say(self, data: bytes) -> None:
        self._tls.write(data)
        await self._peer.send_much(self._to.read())

    async def heard(self) -> tuple[bytes, bool]:
        """All to the end, and whether TLS says that it is one."""
        data = bytearray()
        while True:
            try:
                part = self._tls.read(1 << 16)
            except ssl.SSLWantReadError:
                await self._exchange()
                continue
            except ssl.SSLEOFError:
                return bytes(data), False
            if not part:
                return bytes(data), True
            data += part

    async def _exchange(self) -> None:
        if self._to.pending:
            await self._peer.send_much(self._to.read())
        await readable(self._peer.sock)
        part = self._peer.sock.recv(1 << 16)
        if part:
            self._from.write(part)
        else:
            self._from.write_eof()


@pytest.fixture(scope="module")
def tls_endpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An endpoint with a certificate of its own making."""
    pytest.importorskip("OpenSSL", reason="Twisted speaks TLS only with pyOpenSSL, which is not installed here")
    x509 = pytest.importorskip("cryptography.x509")
    hazmat = "cryptography.hazmat.primitives"
    ec = pytest.importorskip(f"{hazmat}.asymmetric.ec")
    hashes, serialization = pytest.importorskip(f"{hazmat}.hashes"), pytest.importorskip(f"{hazmat}.serialization")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "proxy.invalid")])
    now, day = dt.datetime.now(dt.UTC), dt.timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
    encoding = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8
    file: Path = tmp_path_factory.mktemp("tls") / "both.pem"
    file.touch(0o600)
    file.write_bytes(
        key.private_bytes(encoding, form, serialization.NoEncryption())
        + builder.sign(key, hashes.SHA256()).public_bytes(encoding)
    )
    return f"ssl:0:interface=127.0.0.1:privateKey={file}:certKey={file}"


@over_tls
@pytest.mark.parametrize("much", [6, 3_000_000])
@pytest_twisted.ensureDeferred
async def test_a_session_over_tls_ends_as_soon_as_all_is_said(tls_endpoint: str, much: int) -> None:
    answer = noise(much)
    with Server() as server:
        house = House(server.spec())
        async with house.serves("streams", tls_endpoint):
            with house.client() as peer:
                client = Secret(peer)
                await client.shake_hands()
                await client.say(b"hello")
                with await server.accept() as end:
                    assert await read(end, 5) == b"hello"
                    sending = Deferred.fromCoroutine(end.send_much(answer))
                    sending.addCallback(lambda _: end.close())
                    assert await client.heard() == (answer, True)
                    await sending
                peer.close()
                await until(lambda: not house.sessions, "the end, without any deadline")
        assert house.outcomes() == [Outcome.ANSWERED]


@over_tls
@pytest.mark.parametrize("kind", ["balance", "status", "proxy", "web"])
@pytest_twisted.ensureDeferred
async def test_over_tls_a_stranger_is_hung_up_on_before_anything_is_agreed_on(
    tmp_path: Path, tls_endpoint: str, kind: str
) -> None:
    places = {"balance": "null", "status": "null", "update": "null", kind: f"'{tls_endpoint}'"}
    listen = ", ".join(f"{name}: {place}" for name, place in places.items())
    allow = f"{'web' if kind == 'web' else 'clients'}: [10.0.0.0/8]"
    async with balancer(tmp_path, f"hosts: [alpha/4]\nlisten: {{{listen}}}\nallow: {{{allow}}}\n") as one:
        await until(lambda: bool(one.port(kind)), "a port")
        client = await connect(one.port(kind))
        await client.ends()
        assert client.heard == b""


@over_tls
@pytest_twisted.ensureDeferred
async def test_a_client_that_speaks_tls_and_leaves_cancels(tls_endpoint: str) -> None:
    with Server() as server:
        house = House(server.spec())
        async with house.serves("streams", tls_endpoint):
            with house.client() as peer:
                client = Secret(peer)
                await client.shake_hands()
                await client.say(b"hello")
                with await server.accept() as end:
                    assert await read(end, 5) == b"hello"
                    peer.close()
                    await house.becomes(lent=0)
