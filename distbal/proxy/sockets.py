"""Sockets that are bare descriptors: what the system knows of them, and how their sending side is ended."""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import termios
from typing import Any

from distbal import listening

#: a socket as C has it: two of these are made for each spliced session, and their methods are all that is wanted of them
SocketType = socket.SocketType

_HUNG_UP = select.POLLERR | select.POLLHUP
#: the peer ended its side; a system that does not know this word says POLLHUP
_LEFT = getattr(select, "POLLRDHUP", 0)


def socket_of(descriptor: int) -> Any:
    """A socket object of a descriptor, to be detached again. The family matters only where it is given addresses."""
    return SocketType(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, descriptor)


def end_writing(descriptor: int) -> None:
    """Tell the peer that this was all. Nothing happens where it is gone."""
    sock = socket_of(descriptor)
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        return
    finally:
        sock.detach()


def set_abortive(descriptor: int, abortive: bool) -> None:
    """Let the peer see a reset when the connection is closed, by whomever; or its end, as usual."""
    sock = socket_of(descriptor)
    try:
        listening.reset_at_close(sock, reset=abortive)
    finally:
        sock.detach()


def error_of(descriptor: int) -> int:
    """The error that a socket reports, 0 for none; it is reported once."""
    sock = socket_of(descriptor)
    try:
        number: int = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return number
    finally:
        sock.detach()


def in_flight(descriptor: int) -> int:
    """Bytes that the system has been given for the peer, and that the peer's has not acknowledged (tcp(7), SIOCOUTQ).

    0 where the system does not tell.
    """
    try:
        (number,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))
    except OSError:
        return 0
    return int(number)


def unread(descriptor: int) -> int:
    """Bytes that a socket or a pipe holds for its reader (FIONREAD), before a byte that is marked urgent."""
    (number,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))
    return int(number)


def peek(descriptor: int) -> bytes:
    """The byte that would be read next, which stays there; b"" at the end. OSError as for reading."""
    sock = socket_of(descriptor)
    try:
        data: bytes = sock.recv(1, socket.MSG_PEEK)
        return data
    finally:
        sock.detach()


def is_connected(sock: socket.socket) -> bool:
    """Whether both ends are there still, or one has ended its side in order; not where a reset has come."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def can_write(descriptor: int) -> bool:
    """Whether writing would not block; of a socket that connects: whether it is decided how that ended."""
    return bool(_look(descriptor, select.POLLOUT))


def hung_up(descriptor: int, *, half: bool) -> bool:
    """Whether the peer is gone: closed for good, reset, vanished.

    :param half: to have ended its sending side is to be gone, too.
    """
    return bool(_look(descriptor, _LEFT if half else 0) & (_HUNG_UP | _LEFT))


def broke(descriptor: int) -> bool:
    """Whether the connection broke: reset, vanished."""
    return bool(_look(descriptor, 0) & select.POLLERR)


def _look(descriptor: int, events: int) -> int:
    poll = select.poll()
    poll.register(descriptor, events)
    return sum(what for _, what in poll.poll(0))
