"""Listening sockets: what is set on them and handed down, which addresses they take, and in which words they fail."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from distbal.errors import ListenError
from distbal.listening import ADMIN_MODE, KEEPALIVE, USER_TIMEOUT, keep_alive, listen_tcp, listen_unix
from tests.peers import Peer, with_ipv6

#: the user "nobody" of Debian
NOBODY = 65534
UNPRIVILEGED = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Go on without root's rights."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def options(sock: socket.socket) -> dict[str, int]:
    """What we ask of connections, as the system has it for this one."""
    names = [name for name in (*KEEPALIVE, "TCP_USER_TIMEOUT", "TCP_NODELAY") if hasattr(socket, name)]
    values = {name: sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names}
    return values | {"SO_KEEPALIVE": sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)}


#: the same, as it should be: gone after 30 s of silence and 3 probes of 10 s, or 60 s with a grant that is not acknowledged
WANTED = {
    "TCP_KEEPIDLE": 30,
    "TCP_KEEPINTVL": 10,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 60_000,
    "TCP_NODELAY": 1,
    "SO_KEEPALIVE": 1,
}


# -- TCP


@pytest.mark.parametrize(
    ("host", "peer"),
    [
        pytest.param("127.0.0.1", "127.0.0.1", id="IPv4"),
        pytest.param("::1", "::1", id="IPv6", marks=with_ipv6),
        pytest.param(None, "127.0.0.1", id="IPv4 to every address"),
        pytest.param(None, "::1", id="IPv6 to every address", marks=with_ipv6),
        pytest.param("0.0.0.0", "127.0.0.1", id="every IPv4 address"),
        pytest.param("::", "::1", id="every IPv6 address", marks=with_ipv6),
    ],
)
def test_connections_have_what_the_listener_has(host: str | None, peer: str) -> None:
    with listen_tcp(host, 0) as listener:
        assert not listener.getblocking()
        with Peer((peer, listener.getsockname()[1])):
            connection, _ = listener.accept()
            with connection:
                assert options(connection) == WANTED


def test_the_same_can_be_asked_of_a_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, Peer(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert options(connection) != WANTED
            keep_alive(connection)
            assert options(connection) == WANTED
    assert (WANTED["TCP_KEEPIDLE"], WANTED["TCP_USER_TIMEOUT"]) == (KEEPALIVE["TCP_KEEPIDLE"], USER_TIMEOUT)


def test_connections_that_are_relayed_may_take_nothing_for_a_while() -> None:
    """A window that stays full is no sign of death there: nothing bounds for how long bytes are not acknowledged."""
    wanted = WANTED | {"TCP_USER_TIMEOUT": 0}
    with listen_tcp("127.0.0.1", 0, relay=True) as listener, Peer(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert options(connection) == wanted
    with socket.create_server(("127.0.0.1", 0)) as server, Peer(server.getsockname()):
        connection, _ = server.accept()
        with connection:
            keep_alive(connection, relay=True)
            assert options(connection) == wanted


@pytest.mark.skipif(not hasattr(socket, "TCP_DEFER_ACCEPT"), reason="this system cannot do it")
def test_who_says_nothing_may_be_kept_outside() -> None:
    with listen_tcp("127.0.0.1", 0, relay=True, deferred=True) as listener, Peer(listener.getsockname()) as silent:
        with Peer(listener.getsockname()) as speaks:
            with pytest.raises(BlockingIOError):
                listener.accept()
            speaks.send(b"hello")
            connection, address = listener.accept()
            with connection:
                assert address == speaks.sock.getsockname()
                assert connection.recv(10) == b"hello"
        with pytest.raises(BlockingIOError):
            listener.accept()
        silent.send(b"at last")
        listener.accept()[0].close()


def test_a_crowd_may_come_while_nobody_accepts() -> None:
    """More than the 128 that systems once allowed, and the 50 of Twisted's endpoints."""
    with listen_tcp("127.0.0.1", 0) as listener, ExitStack() as peers:
        for _ in range(300):
            peers.enter_context(Peer(listener.getsockname()))
        accepted = 0
        while accepted < 300:
            connection, _ = listener.accept()
            connection.close()
            accepted += 1


@with_ipv6
@pytest.mark.parametrize(("host", "stranger"), [("::", "127.0.0.1"), ("::1", "127.0.0.1"), ("127.0.0.1", "::1")])
def test_one_family_is_that_family_alone(host: str, stranger: str) -> None:
    with listen_tcp(host, 0) as listener, pytest.raises(ConnectionRefusedError):
        Peer((stranger, listener.getsockname()[1]))


def test_without_ipv6_every_address_is_every_ipv4_address(monkeypatch: pytest.MonkeyPatch) -> None:
    # a family that the system does not have
    monkeypatch.setattr(socket, "AF_INET6", 99)
    with listen_tcp(None, 0) as listener:
        assert listener.family == socket.AF_INET
        assert listener.getsockname()[0] == "0.0.0.0"


def test_a_port_may_be_taken_again_right_after_it_was_left() -> None:
    """Connections of before are still in the system's book (TIME_WAIT)."""
    listener = listen_tcp("127.0.0.1", 0)
    where = listener.getsockname()
    with Peer(where):
        connection, _ = listener.accept()
        connection.close()
        listener.close()
    listen_tcp("127.0.0.1", where[1]).close()


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "127.0.0.1:{port}"),
        (None, "port {port}"),
        pytest.param("::1", "[::1]:{port}", marks=with_ipv6),
    ],
)
def test_a_port_in_use(host: str | None, shown: str) -> None:
    with listen_tcp(host, 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ListenError) as raised:
            listen_tcp(host, port)
    shown = shown.format(port=port)
    assert str(raised.value) == (
        f"cannot listen on {shown}: it is in use, perhaps by another distbal or by the Tcl daemon (ss -ltnp shows by whom)"
    )


def test_a_port_in_use_on_one_address_is_not_free_on_every_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ListenError, match=f"^cannot listen on port {port}: it is in use"):
            listen_tcp(None, port)


@pytest.mark.parametrize("host", ["192.0.2.77", pytest.param("2001:db8::77", marks=with_ipv6)])
def test_an_address_of_another_machine(host: str) -> None:
    with pytest.raises(ListenError, match=r"^cannot listen on .*77\]?:0: this machine has no such address$"):
        listen_tcp(host, 0)


@with_ipv6
def test_an_interface_that_is_not_there() -> None:
    with pytest.raises(ListenError, match=r"^cannot listen on \[fe80::1%nosuch0\]:0: \S"):
        listen_tcp("fe80::1%nosuch0", 0)


def test_a_port_that_needs_rights() -> None:
    if UNPRIVILEGED.exists() and int(UNPRIVILEGED.read_text()) < 2:
        pytest.skip("here everybody may listen on every port")
    with ordinary_user(), pytest.raises(ListenError, match=r"^cannot listen on 127.0.0.1:1: not allowed \(ports below 1024"):
        listen_tcp("127.0.0.1", 1)


# -- Unix sockets


def test_a_unix_socket_is_for_every_account_or_for_the_group(tmp_path: Path) -> None:
    for name, expected in (("clients", 0o666), ("admin", ADMIN_MODE)):
        path = tmp_path / name
        with listen_unix(str(path)) if name == "clients" else listen_unix(str(path), ADMIN_MODE) as listener:
            assert stat.S_IMODE(path.stat().st_mode) == expected
            assert not listener.getblocking()
            with Peer(str(path)):
                listener.accept()[0].close()
    assert ADMIN_MODE == 0o660


def test_what_a_dead_process_left_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    listen_unix(path).close()
    with pytest.raises(ConnectionRefusedError):
        Peer(path)
    with listen_unix(path) as listener, Peer(path):
        listener.accept()[0].close()


@pytest.mark.parametrize("backlog", [5, 0], ids=["idle", "busy"])
def test_a_living_one_is_left_alone(tmp_path: Path, backlog: int) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as living, ExitStack() as peers:
        living.bind(path)
        living.listen(backlog)
        for _ in range(0 if backlog else 1):
            peers.enter_context(Peer(path))  # and now its queue is full
        with pytest.raises(ListenError) as raised:
            listen_unix(path)
        assert str(raised.value) == (
            f"cannot listen on unix:{path}: it is in use, perhaps by another distbal (ss -lxp shows by whom)"
        )
        living.accept()[0].close()
        Peer(path).close()


def test_what_is_not_a_socket_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "directory", "link"):
        with pytest.raises(ListenError) as raised:
            listen_unix(str(tmp_path / name))
        assert str(raised.value) == (
            f"cannot listen on unix:{tmp_path / name}: something that is not a socket is there already: move it away"
        )
    assert file.read_text() == "precious"
    assert (tmp_path / "link").is_symlink()


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match=r"^cannot listen on unix:.*/nowhere/socket: No such file or directory$"):
        listen_unix(str(tmp_path / "nowhere" / "socket"))


def test_a_directory_of_somebody_else(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with ordinary_user(), pytest.raises(ListenError, match=r"^cannot listen on unix:.*: not allowed \(.*others' directories"):
        listen_unix(str(tmp_path / "socket"))
    tmp_path.chmod(0o700)


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match=r"^cannot listen on unix:.*: AF_UNIX path too long$"):
        listen_unix(str(tmp_path / ("x" * 200)))
