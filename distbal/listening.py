"""Listening sockets, made the way this daemon needs them, and every way in which that fails in words.

A long backlog, since clients come by the hundred while the loop is away; keepalive, so that a client whose machine lost power
does not hold a slot for hours; no delay, since what we send is one line. All of it is set on the listening socket: Linux hands
it down to the connections.
"""

from __future__ import annotations

import errno
import socket
import stat
import struct
from pathlib import Path

from distbal.errors import ListenError

BACKLOG = 4096
#: a silent peer is asked after 30 s, then 3 times every 10 s, then it is gone (design: a lease ends when its peer vanished)
KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPALIVE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
#: milliseconds after which a grant that nobody acknowledges ends the connection: keepalive does not see to those
USER_TIMEOUT = 60_000
_RELAYED = [(getattr(socket, name), value) for name, value in ({"TCP_NODELAY": 1} | KEEPALIVE).items() if hasattr(socket, name)]
_BRIEF = [*_RELAYED, *([(socket.TCP_USER_TIMEOUT, USER_TIMEOUT)] if hasattr(socket, "TCP_USER_TIMEOUT") else [])]
#: struct linger: on or off, and for how many seconds
_ABORT, _END = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)
#: seconds after which a client that says nothing is brought in all the same, where a listener may wait for its first bytes
DEFERRED = 5
#: Unix sockets: clients of any account may connect; those that change something are for the owner and the group
CLIENTS_MODE, ADMIN_MODE = 0o666, 0o660

#: what is in the way of a port, and of a Unix socket
_TAKEN = "it is in use, perhaps by another distbal or by the Tcl daemon (ss -ltnp shows by whom)"
_LIVING = "it is in use, perhaps by another distbal (ss -lxp shows by whom)"
_NO_SOCKET = "something that is not a socket is there already: move it away"


def listen_tcp(host: str | None, port: int, *, relay: bool = False, deferred: bool = False) -> socket.socket:
    """A socket that listens on a port, non-blocking.

    :param host: a numeric address, without brackets; None for every address, IPv4 and IPv6.
    :param port: 0 to 65535; 0 lets the system choose.
    :param relay: its connections carry more than a line (see :func:`keep_alive`).
    :param deferred: the system answers those who connect, and keeps them until they have said something, where it can.
    :raises ListenError: in words.
    """
    if host is None:
        try:
            return _tcp(socket.AF_INET6, ("::", port), relay, deferred, both=True)
        except OSError as error:
            if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.ENOPROTOOPT):
                raise ListenError(_in_words(f"port {port}", error)) from error
        # this machine has no IPv6
        host = "0.0.0.0"  # noqa: S104 (every address is what was asked for)
    try:
        flags = socket.AI_NUMERICHOST | socket.AI_PASSIVE
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)[0]
        return _tcp(family, address, relay, deferred)
    except OSError as error:
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise ListenError(_in_words(where, error)) from error


def listen_unix(path: str, mode: int = CLIENTS_MODE) -> socket.socket:
    """A socket that listens at a path, non-blocking. A socket left there by a process that is gone is replaced.

    :raises ListenError: in words.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        sock.bind(path)
        Path(path).chmod(mode)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        in_the_way = _LIVING if error.errno == errno.EADDRINUSE and Path(path).is_socket() else _NO_SOCKET
        raise ListenError(_in_words(f"unix:{path}", error, in_the_way)) from error
    return sock


def keep_alive(sock: socket.socket, *, relay: bool = False) -> None:
    """Let a TCP connection, or those that a listener takes in, notice when its peer vanished; and send at once.

    :param relay: it carries more than a line. Then a peer may live and take nothing for a while, which must not end the
        connection.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _RELAYED if relay else _BRIEF:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def reset_at_close(sock: socket.socket, *, reset: bool = True) -> None:
    """Let the peer see, when the socket is closed, that what it has is not all (socket(7), SO_LINGER); or an end, as usual."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT if reset else _END)


def _tcp(family: int, address: tuple[object, ...], relay: bool, deferred: bool, *, both: bool = False) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not both))
        keep_alive(sock, relay=relay)
        if deferred and hasattr(socket, "TCP_DEFER_ACCEPT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFERRED)
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on. Anything else at that path is left, and makes bind fail."""
    try:
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
        except OSError:
            return


def _in_words(where: str, error: OSError, in_the_way: str = _TAKEN) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"cannot listen on {where}: {in_the_way}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"cannot listen on {where}: this machine has no such address"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"cannot listen on {where}: not allowed (ports below 1024 and others' directories need more rights)"
    return f"cannot listen on {where}: {error.strerror or error}"
