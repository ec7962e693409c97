"""Opened: a place bound from the file, served by the hot loop or the reactor, closed without a trace; several at once."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import capturedLogs, formatEvent

from distbal.errors import ListenError
from distbal.listeners import Left, Opened, open_all, sort_out, words
from distbal.listenspec import Listener, parse
from distbal.loop import HotLoop
from tests.peers import Peer, with_ipv6
from tests.test_listening import ordinary_user

HELLO = b"hello\r\n"


class Greeter(Protocol):
    transport: ITCPTransport

    def connectionMade(self) -> None:
        self.transport.write(HELLO)


def greet_hot(descriptor: int, _: Any) -> None:
    os.write(descriptor, HELLO)
    os.close(descriptor)


def listener(at: str, kind: str = "balance", pool: str = "default") -> Listener:
    return Listener(kind, parse(at), pool)


@asynccontextmanager
async def served(at: str, how: str, kind: str = "balance") -> AsyncIterator[Opened]:
    """A place that greets; by the hot loop, or by the reactor."""
    opened = Opened(listener(at, kind))
    loop = HotLoop(reactor, reactor, 10)
    try:
        if how == "hot":
            opened.serve_hot(loop, greet_hot)
        else:
            await opened.serve(reactor, Factory.forProtocol(Greeter))
        yield opened
    finally:
        await opened.close()
        loop.stop()


async def greeted(where: Any) -> bool:
    with Peer(where) as peer:
        return await peer.line() == HELLO


def refused(where: Any) -> bool:
    try:
        Peer(where).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    return False


def empty(directory: Path) -> bool:
    return not any(directory.iterdir())


# -- one place


@pytest.mark.parametrize(
    ("at", "how", "address"),
    [
        ("127.0.0.1:0", "hot", "127.0.0.1"),
        ("127.0.0.1:0", "reactor", "127.0.0.1"),
        pytest.param("[::1]:0", "hot", "::1", marks=with_ipv6),
        pytest.param("[::1]:0", "reactor", "::1", marks=with_ipv6),
        ("0", "hot", "127.0.0.1"),
        ("0", "reactor", "127.0.0.1"),
        pytest.param("0", "hot", "::1", marks=with_ipv6),
        pytest.param("0", "reactor", "::1", marks=with_ipv6),
        ("tcp:0:interface=127.0.0.1", "reactor", "127.0.0.1"),
        pytest.param(r"tcp6:0:interface=\:\:1", "reactor", "::1", marks=with_ipv6),
    ],
)
@pytest_twisted.ensureDeferred
async def test_tcp(at: str, how: str, address: str) -> None:
    async with served(at, how) as opened:
        where = (address, opened.port)
        assert opened.port
        assert await greeted(where)
        assert await greeted(where)
        await opened.close()
        assert refused(where)


@pytest.mark.parametrize("how", ["hot", "reactor"])
@pytest_twisted.ensureDeferred
async def test_a_crowd_that_comes_while_the_loop_is_away_gets_in(how: str) -> None:
    """Twisted's own backlog is 50: the 52nd would knock in vain."""
    async with served("127.0.0.1:0", how) as opened:
        crowd = [socket.create_connection(("127.0.0.1", opened.port), timeout=5) for _ in range(200)]
        for one in crowd:
            one.close()


@pytest.mark.parametrize("how", ["hot", "reactor"])
@pytest.mark.parametrize(("kind", "mode"), [("balance", 0o666), ("status", 0o666), ("update", 0o660)])
@pytest_twisted.ensureDeferred
async def test_unix(tmp_path: Path, how: str, kind: str, mode: int) -> None:
    path = tmp_path / "socket"
    async with served(f"unix:{path}", how, kind) as opened:
        assert (opened.port, opened.is_socket) == (0, False)
        assert stat.S_IMODE(path.stat().st_mode) == mode
        assert await greeted(str(path))
        await opened.close()
        assert not path.exists()
        await opened.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root's rights, to give them up")
@pytest.mark.parametrize("how", ["hot", "reactor"])
@pytest_twisted.ensureDeferred
async def test_a_unix_socket_of_root_s_is_served_by_others(tmp_path: Path, how: str) -> None:
    """As twistd --uid makes it."""
    path = tmp_path / "socket"
    opened = Opened(listener(f"unix:{path}", "update"))
    loop = HotLoop(reactor, reactor, 10)
    try:
        with ordinary_user():
            if how == "hot":
                opened.serve_hot(loop, greet_hot)
            else:
                await opened.serve(reactor, Factory.forProtocol(Greeter))
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert await greeted(str(path))
        with capturedLogs() as events, ordinary_user():
            await opened.close()
    finally:
        loop.stop()
    assert refused(str(path))
    assert [formatEvent(event) for event in events if "path" in event] == [f"{path} stays behind: Permission denied"]
    # the next start replaces it
    await Opened(listener(f"unix:{path}")).close()
    assert empty(tmp_path)


@pytest.mark.parametrize("how", ["hot", "reactor"])
@pytest_twisted.ensureDeferred
async def test_a_unix_socket_that_somebody_removed_closes_all_the_same(tmp_path: Path, how: str) -> None:
    path = tmp_path / "socket"
    async with served(f"unix:{path}", how) as opened:
        with Peer(str(path)) as peer:
            assert await peer.line() == HELLO
        path.unlink()
        await opened.close()
    assert empty(tmp_path)


@pytest.mark.parametrize("how", ["hot", "reactor"])
@pytest_twisted.ensureDeferred
async def test_a_unix_socket_that_another_process_put_in_its_place_is_left(tmp_path: Path, how: str) -> None:
    path = tmp_path / "socket"
    async with served(f"unix:{path}", how) as opened:
        path.rename(tmp_path / "old")  # not removed: its number must not be given to the next file
        with socket.socket(socket.AF_UNIX) as theirs:
            theirs.bind(str(path))
            await opened.close()
            assert path.is_socket()


@pytest.mark.parametrize("at", ["127.0.0.1:0", "unix:{}/socket"])
@pytest_twisted.ensureDeferred
async def test_what_was_never_served_is_closed_too(tmp_path: Path, at: str) -> None:
    opened = Opened(listener(at.format(tmp_path)))
    assert opened.is_socket
    where = ("127.0.0.1", opened.port) if opened.port else str(tmp_path / "socket")
    Peer(where).close()
    await opened.close()
    assert refused(where)
    assert empty(tmp_path)


@pytest_twisted.ensureDeferred
async def test_an_endpoint_is_bound_when_it_is_served(tmp_path: Path) -> None:
    opened = Opened(listener(f"unix:{tmp_path}/socket:mode=600"))
    assert not opened.is_socket
    await opened.close()
    async with served(f"unix:{tmp_path}/socket:mode=600", "reactor"):
        assert stat.S_IMODE((tmp_path / "socket").stat().st_mode) == 0o600
        assert await greeted(str(tmp_path / "socket"))
    assert empty(tmp_path)


@pytest_twisted.ensureDeferred
async def test_an_endpoint_that_is_taken_fails_in_words() -> None:
    async with served("127.0.0.1:0", "reactor") as taken:
        at = f"tcp:{taken.port}:interface=127.0.0.1"
        second = Opened(listener(at))
        with pytest.raises(ListenError, match=f"^cannot listen on {at}: .*in use"):
            await second.serve(reactor, Factory.forProtocol(Greeter))
        await second.close()
        assert await greeted(("127.0.0.1", taken.port))


@pytest_twisted.ensureDeferred
async def test_an_endpoint_that_nobody_knows_fails_in_words() -> None:
    opened = Opened(listener("nosuchkind:whatever"))
    with pytest.raises(ListenError, match=r"^cannot listen on nosuchkind:whatever: .*nosuchkind"):
        await opened.serve(reactor, Factory.forProtocol(Greeter))
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_the_hot_loop_takes_only_sockets_of_ours_and_once() -> None:
    async with served("127.0.0.1:0", "hot") as opened:
        loop = HotLoop(reactor, reactor, 10)
        try:
            with pytest.raises(ValueError, match="served already"):
                opened.serve_hot(loop, greet_hot)
            with pytest.raises(ValueError, match=r"^tcp:0 has no socket of ours"):
                Opened(listener("tcp:0")).serve_hot(loop, greet_hot)
        finally:
            loop.stop()


@pytest.mark.parametrize("at", ["127.0.0.1:0", "tcp:0:interface=127.0.0.1"])
@pytest_twisted.ensureDeferred
async def test_connections_outlive_their_listener(at: str) -> None:
    async with served(at, "reactor") as opened:
        with Peer(("127.0.0.1", opened.port)) as peer:
            assert await peer.line() == HELLO
            await opened.close()
            assert peer.silence()


@pytest.mark.parametrize(
    ("kind", "speaks_first", "relay", "deferred"),
    [("balance", "client", False, False), ("proxy", "client", True, True), ("proxy", "server", True, False)],
)
@pytest_twisted.ensureDeferred
async def test_what_is_set_on_a_socket_follows_from_its_use(kind: str, speaks_first: str, relay: bool, deferred: bool) -> None:
    opened = Opened(Listener(kind, parse("127.0.0.1:0"), speaks_first=speaks_first))
    assert opened._sock is not None
    assert (opened._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0) is relay
    assert (opened._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) > 0) is deferred
    await opened.close()


# -- several


@pytest_twisted.ensureDeferred
async def test_all_are_opened(tmp_path: Path) -> None:
    opened = open_all([listener("127.0.0.1:0"), listener(f"unix:{tmp_path}/socket", "status"), listener("tcp:0", "update")])
    assert [one.spec.kind for one in opened] == ["balance", "status", "update"]
    for one in opened:
        await one.close()
    assert empty(tmp_path)


@pytest_twisted.ensureDeferred
async def test_all_or_none(tmp_path: Path) -> None:
    async with served("127.0.0.1:0", "reactor") as taken, served("127.0.0.1:0", "reactor") as free:
        port = free.port
        await free.close()
        specs = [
            listener(f"127.0.0.1:{port}"),
            listener(f"unix:{tmp_path}/socket", "status"),
            listener("tcp:0"),
            listener(f"127.0.0.1:{taken.port}", "update"),
            listener(f"unix:{tmp_path}/never", "status"),
        ]
        with pytest.raises(ListenError, match=f"^cannot listen on 127.0.0.1:{taken.port}: it is in use"):
            open_all(specs)
        assert refused(("127.0.0.1", port))
        assert empty(tmp_path)
        assert await greeted(("127.0.0.1", taken.port))


Names = tuple[list[str], list[str], list[str]]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([listener("tcp:1"), listener("tcp:2", "status")], (["tcp:1", "tcp:2"], [], [])),
        ([listener("tcp:2", "status"), listener("tcp:1")], (["tcp:1", "tcp:2"], [], [])),
        ([], ([], ["tcp:1", "tcp:2"], [])),
        ([listener("tcp:1"), listener("tcp:3")], (["tcp:1"], ["tcp:2"], ["tcp:3"])),
        ([listener("tcp:1", pool="arm"), listener("tcp:2", "status")], (["tcp:2"], ["tcp:1"], ["tcp:1"])),
        ([listener("tcp:1"), listener("tcp:2", "update")], (["tcp:1"], ["tcp:2"], ["tcp:2"])),
    ],
    ids=["the same", "another order", "none", "another place", "another pool", "another kind"],
)
def test_what_a_changed_file_means(wanted: list[Listener], expected: Names) -> None:
    # endpoints are not bound before they are served
    opened = open_all([listener("tcp:1"), listener("tcp:2", "status")])
    keep, close, new = sort_out(opened, wanted)
    assert ([str(one.spec.at) for one in keep], [str(one.spec.at) for one in close], [str(spec.at) for spec in new]) == expected
    assert all(one in opened for one in keep + close)


def test_one_that_was_left_and_whose_file_is_gone_is_made_anew(tmp_path: Path) -> None:
    """Nobody could find it any more: its directory went with the process before, say."""
    specs = [Listener("balance", parse(f"unix:{tmp_path / name}")) for name in ("one", "other")]
    before = open_all(specs)
    left = Left([(words(one.spec), socket.socket(fileno=os.dup(one.descriptor))) for one in before])
    (tmp_path / "one").unlink()
    now = open_all(specs, left)
    inodes = [[os.fstat(one.descriptor).st_ino for one in opened] for opened in (before, now)]
    assert inodes[0][0] != inodes[1][0]
    assert inodes[0][1] == inodes[1][1]
    for name, one in zip(("one", "other"), now, strict=True):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / name))
        one.close()
    for one in before:
        one.close()
