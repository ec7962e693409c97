"""The proxy of a daemon as an admin runs it: its end, changed listeners, and services that are not distcc."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from distbal import wire
from tests.integration.daemons import ANY, LISTEN, connect, refuses, running
from tests.integration.farm import PATIENCE, until
from tests.support import free_port, spawn

ENDPOINT = "tcp:0:interface=127.0.0.1"


def listen(*places: str) -> str:
    """Listeners, those of the proxy included."""
    return LISTEN.replace("}", f", proxy: [{', '.join(places)}]}}")


@contextlib.contextmanager
def listening() -> Iterator[tuple[socket.socket, str]]:
    """A server's socket, and its address."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as sock:
        sock.settimeout(PATIENCE)
        yield sock, f"127.0.0.1:{sock.getsockname()[1]}"


def accepted(server: socket.socket) -> socket.socket:
    sock, _ = server.accept()
    sock.settimeout(PATIENCE)
    return sock


def says(one: socket.socket, other: socket.socket, words: bytes) -> None:
    """It reaches the other end."""
    one.sendall(words)
    heard = b""
    while len(heard) < len(words):
        heard += (piece := other.recv(65536))
        assert piece
    assert heard == words


def is_cut_off(sock: socket.socket) -> bool:
    """Whether nothing follows but the end, in whatever form."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("place", [ANY, ENDPOINT], ids=["spliced", "streams"])
def test_the_end_of_the_daemon_is_the_end_of_its_sessions(tmp_path: Path, place: str) -> None:
    """SIGTERM: at once, whatever state they are in; both sides see it, and nothing is left."""
    with listening() as (server, at), contextlib.ExitStack() as stack:
        with running(tmp_path, f"hosts: ['{at}/2']\n{listen(repr(place))}") as daemon:
            (port,) = daemon.proxies
            pairs = []
            for _ in range(2):
                client = stack.enter_context(connect(port))
                client.sendall(b"hello")
                server_side = stack.enter_context(accepted(server))
                assert server_side.recv(100) == b"hello"
                pairs.append((client, server_side))
            waits, silent = (stack.enter_context(connect(port)) for _ in range(2))
            waits.sendall(b"hello")
            daemon.await_counts(2, 1)
            # the one has heard all that was said, the other reads nothing
            says(pairs[0][1], pairs[0][0], b"half an answer")
            pairs[1][1].setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    pairs[1][1].send(bytes(100_000))
            began = time.monotonic()
            assert daemon.end() == -signal.SIGTERM
            assert time.monotonic() - began < 5
            assert refuses(port)
            assert "Unhandled" not in daemon.log
        pairs[1][1].settimeout(PATIENCE)
        # one who had said nothing yet may be known to the system alone, which forgets it, and tells it when it speaks
        with contextlib.suppress(ConnectionError):
            silent.sendall(b"hello")
        assert all(is_cut_off(sock) for sock in (waits, silent, pairs[0][0], pairs[0][1], pairs[1][1]))


@pytest.mark.parametrize("place", [ANY, ENDPOINT], ids=["spliced", "streams"])
def test_listeners_come_and_go_and_sessions_stay(tmp_path: Path, place: str) -> None:
    with listening() as (server, at), contextlib.ExitStack() as stack:
        hosts = f"hosts: ['{at}/3']\n"
        added = free_port()
        new = f"'127.0.0.1:{added}'" if place == ANY else f"'tcp:{added}:interface=127.0.0.1'"
        with running(tmp_path, hosts + listen(repr(place))) as daemon:
            (first,) = daemon.proxies
            runs = stack.enter_context(connect(first))
            runs.sendall(b"one")
            serves = stack.enter_context(accepted(server))
            assert serves.recv(100) == b"one"

            daemon.reload(hosts + listen(repr(place), new))
            until(lambda: not refuses(added), "the new listener")
            assert not refuses(first)
            says(runs, serves, b"two" * 100_000)

            daemon.reload(hosts + listen(new))
            until(lambda: refuses(first), "the old listener's end")
            says(serves, runs, b"three" * 100_000)
            with connect(added) as other:
                other.sendall(b"by the new one")
                with accepted(server) as more:
                    assert more.recv(100) == b"by the new one"
                    daemon.await_counts(2, 0)

            daemon.reload(hosts + LISTEN)
            until(lambda: refuses(added), "the last listener's end")
            says(runs, serves, b"four")
            serves.close()
            assert runs.recv(1) == b""
            runs.close()
            daemon.await_counts(0, 0)
            daemon.assert_calm()


@pytest.mark.parametrize("scheme", ["", "tcp:"], ids=["spliced", "streams"])
def test_services_that_are_not_distcc(tmp_path: Path, scheme: str) -> None:
    """One whose server speaks first, which is this daemon's own status page; and one whose clients end their side early."""
    status, number = free_port(), free_port()
    content = bytes(range(256)) * 20_000
    (tmp_path / "content").write_bytes(content)
    ends = ", ".join(
        f"{{at: {place(scheme)}, pool: {pool}, {how}}}"
        for pool, how in (("greets", "speaks_first: server"), ("web", "half_close: pass"), ("web", "half_close: cancel"))
    )
    hosts = f"[{{name: '127.0.0.1:{status}', pools: [greets]}}, {{name: '127.0.0.1:{number}', pools: [web]}}]"
    others = f"balance: {{at: '{ANY}', pool: web}}, status: '127.0.0.1:{status}', update: '{ANY}'"
    text = f"hosts: {hosts}\nlisten: {{{others}, proxy: [{ends}]}}\n"
    server = spawn(sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(number), cwd=tmp_path)
    with running(tmp_path, text) as daemon, server:
        greets, passes, cancels = daemon.proxies
        with connect(greets) as sock, sock.makefile("rb") as page:
            # it sees itself: a client that has a host
            assert len(wire.parse_status(page.read()).served) == 1
        until(lambda: not refuses(number), "the web server")
        headers, _, body = got(passes).partition(b"\r\n\r\n")
        assert b"200 OK" in headers
        assert body == content
        # where such a client has left as far as anybody is concerned, it may even see a reset
        with contextlib.suppress(ConnectionResetError):
            assert len(got(cancels)) < len(content)
        daemon.await_counts(0, 0)
        daemon.assert_calm()


def place(scheme: str) -> str:
    return f"'tcp:{free_port()}:interface=127.0.0.1'" if scheme else f"'127.0.0.1:{free_port()}'"


def got(port: int) -> bytes:
    """What a client hears that ends its side as soon as it has asked."""
    with connect(port) as sock, sock.makefile("rb") as answer:
        sock.sendall(b"GET /content HTTP/1.0\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        return answer.read()
