"""What Linux counts of a connection, and how it counts what is no byte: SYN and FIN."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from distbal.proxy.sockets import in_flight
from distbal.proxy.transferred import CLOSED, ESTABLISHED, SYN_SENT, Transferred, state_of, transferred, was_sent_to
from tests.proxies import Hole
from tests.support import reset_at_close

Pair = tuple[socket.socket, socket.socket]


@contextmanager
def pair() -> Iterator[Pair]:
    """One that connected, and one that was connected to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        a = socket.create_connection(listener.getsockname())
        b = listener.accept()[0]
    a.settimeout(20)
    b.settimeout(20)
    with a, b:
        yield a, b


def of(sock: socket.socket, *, we_connected: bool = True, **known: bool) -> tuple[int, int]:
    found = transferred(sock.fileno(), we_connected=we_connected, **known)
    return found.sent, found.taken


def settle(sock: socket.socket) -> None:
    """Wait until all that was sent on it is acknowledged, which over loopback is a matter of microseconds."""
    while in_flight(sock.fileno()):
        os.sched_yield()


def test_a_new_connection_carried_nothing() -> None:
    with pair() as (a, b):
        assert (of(a), of(b, we_connected=False)) == ((0, 0), (0, 0))
        assert state_of(a.fileno()) == ESTABLISHED


def test_bytes_count_when_they_are_given_and_when_they_are_read() -> None:
    with pair() as (a, b):
        a.send(b"x" * 100)
        assert of(a) == (100, 0)
        settle(a)
        assert (of(a), of(b, we_connected=False)) == ((100, 0), (0, 0))
        b.recv(30)
        assert of(b, we_connected=False) == (0, 30)


def test_bytes_that_the_peer_does_not_take_count_as_given() -> None:
    with pair() as (a, _):
        a.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += a.send(bytes(1 << 16))
        assert of(a) == (sent, 0)


@pytest.mark.parametrize("read", [0, 30, 50])
def test_an_end_is_no_byte(read: int) -> None:
    with pair() as (a, b):
        b.send(b"y" * 50)
        b.shutdown(socket.SHUT_WR)
        assert of(b, we_connected=False) == (50, 0)
        settle(b)
        assert of(b, we_connected=False) == (50, 0)
        assert len(a.recv(read)) == read
        assert transferred(a.fileno(), we_connected=True) == Transferred(8, 0, read, True)


def test_an_end_that_was_read_is_no_byte_either() -> None:
    with pair() as (a, b):
        b.shutdown(socket.SHUT_WR)
        assert a.recv(1) == b""
        assert of(a) == (0, 0)


@pytest.mark.parametrize("first", [True, False])
def test_where_both_have_ended_it_is_closed_and_must_be_told_how(first: bool) -> None:
    with pair() as (a, b):
        a.send(b"x" * 10)
        b.send(b"y" * 20)
        for sock in (a, b) if first else (b, a):
            sock.shutdown(socket.SHUT_WR)
        assert a.recv(20) == b"y" * 20
        assert a.recv(1) == b""
        while state_of(a.fileno()) != CLOSED:
            os.sched_yield()
        assert transferred(a.fileno(), we_connected=True, we_ended=True, peer_ended=True) == Transferred(CLOSED, 10, 20, True)
        assert transferred(a.fileno(), we_connected=True, we_ended=True, taken=20) == Transferred(CLOSED, 10, 20, True)


def test_a_reset_leaves_the_counts_as_they_were() -> None:
    with pair() as (a, b):
        b.send(b"y" * 20)
        a.recv(5)
        a.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += a.send(bytes(1 << 16))
        reset_at_close(b)
        b.close()
        while state_of(a.fileno()) != CLOSED:
            os.sched_yield()
        assert transferred(a.fileno(), we_connected=True, taken=5) == Transferred(CLOSED, sent, 5, False)


def test_an_end_and_a_reset_after_it_are_told_apart_from_a_reset_alone() -> None:
    with pair() as (a, b):
        b.send(b"y" * 20)
        b.close()
        assert a.recv(20) == b"y" * 20
        a.send(b"to nobody")
        while state_of(a.fileno()) != CLOSED:
            os.sched_yield()
        assert transferred(a.fileno(), we_connected=True, taken=20).peer_ended


def test_one_that_connects() -> None:
    with Hole() as hole, socket.socket() as sock:
        sock.setblocking(False)
        sock.connect_ex(hole.where)
        assert state_of(sock.fileno()) == SYN_SENT


def test_a_unix_socket_does_not_count() -> None:
    a, b = socket.socketpair()
    with a, b, pytest.raises(OSError, match=r"."):
        transferred(a.fileno(), we_connected=True)


def test_whether_anything_was_sent() -> None:
    with pair() as (a, b):
        assert not was_sent_to(a.fileno())
        a.send(b"x")
        # on its way, or acknowledged
        assert was_sent_to(a.fileno())
        settle(a)
        assert was_sent_to(a.fileno())
        assert not was_sent_to(b.fileno())
    a, b = socket.socketpair()
    with a, b:
        a.send(b"x")
        assert not was_sent_to(a.fileno())
