"""The server behind the relays: a process of its own, which takes jobs as distccd does and compiles nothing.

A job is a header of 16 bytes, which says how many bytes follow it, how many shall be answered and how, and those bytes. When
they are all there the answer goes out, and then the backend closes, before the client does. When it listens it says
``{"port": P}``; then it answers each line of JSON on its standard input with how many sessions are ``open``, and ends with that
input.

It has to be cheap, as it shares a processor with the clients: what comes in is counted and dropped in the kernel.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import sys

#: bytes of the job that follow the header, bytes of the answer, whether the answer is a file
HEADER = struct.Struct("!QI?3x")
#: what may be read or written of one session before the others have their turn
SHARE = 256 * 1024
#: what is read first: the header, and all of a small job
FIRST = 8192
#: where received bytes are said to go, and do not: with MSG_TRUNC a TCP socket drops them
NOWHERE = bytearray(SHARE)
DROP = socket.MSG_TRUNC | socket.MSG_DONTWAIT
#: what is sent: from memory, or from a file
FILLING = memoryview(bytes(SHARE))
FILE = os.memfd_create("filling")
os.write(FILE, FILLING)


def send(sock: socket.socket, count: int, *, from_file: bool) -> int:
    """Send a share of that at most.

    Memory is copied to pages of up to 32 kB, a file's own pages of 4 kB go out as they are: to a relay they arrive like that,
    and its pipes fill sooner.

    :param sock: one that does not block, where a file is sent.
    :returns: how much went.
    """
    if from_file:
        return os.sendfile(sock.fileno(), FILE, 0, min(SHARE, count))
    return sock.send(FILLING[:count], socket.MSG_DONTWAIT)


class Session:
    """One connection.

    :ivar head: what there is of the header; it is read only until that is known.
    :ivar unread: bytes of the job that have not come, None as long as nobody knows.
    :ivar unsent: of the answer, that have not gone; ``from_file``: where they come from.
    """

    __slots__ = ("from_file", "head", "sock", "unread", "unsent")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.head = b""
        self.unread: int | None = None
        self.unsent = 0
        self.from_file = False


class Backend:
    """The listener, and its sessions."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        # those that it accepts inherit this
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._sessions: dict[int, Session] = {}
        self._epoll = select.epoll()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)

    def fileno(self) -> int:
        """What can be read when there is something to do."""
        return self._epoll.fileno()

    def turn(self) -> None:
        """Do a share for each that there is something to do for."""
        for descriptor, _ in self._epoll.poll(0):
            if descriptor == self._listener.fileno():
                self._accept()
            else:
                self._go_on(self._sessions[descriptor])

    def report(self) -> dict[str, int]:
        return {"open": len(self._sessions)}

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                session = Session(self._listener.accept()[0])
                self._sessions[session.sock.fileno()] = session
                self._epoll.register(session.sock.fileno(), select.EPOLLIN)

    def _go_on(self, session: Session) -> None:
        """Do a share of what is to be done next."""
        try:
            ended = self._read(session) if session.unread != 0 else self._write(session)
        except BlockingIOError:
            return
        except OSError:
            # a client that left
            ended = True
        if ended:
            # nobody else has it open: the epoll forgets it, too
            del self._sessions[session.sock.fileno()]
            session.sock.close()

    def _read(self, session: Session) -> bool:
        """Take in some of the job, and answer when that was the last; true when the session is over."""
        if session.unread is None:
            data = session.sock.recv(FIRST, socket.MSG_DONTWAIT)
            session.head += data
            if len(session.head) < HEADER.size:
                return not data
            length, session.unsent, session.from_file = HEADER.unpack_from(session.head)
            session.unread = length - (len(session.head) - HEADER.size)
            session.head = b""
        else:
            count = session.sock.recv_into(NOWHERE, min(SHARE, session.unread), DROP)
            if not count:
                return True
            session.unread -= count
        if session.unread:
            return False
        if session.from_file:
            session.sock.setblocking(False)
        if self._write(session):
            return True
        self._epoll.modify(session.sock.fileno(), select.EPOLLOUT)
        return False

    def _write(self, session: Session) -> bool:
        """Send some of the answer; true when that was the last."""
        session.unsent -= send(session.sock, session.unsent, from_file=session.from_file)
        return not session.unsent


def say(words: dict[str, int]) -> None:
    print(json.dumps(words), flush=True)


def main() -> None:
    backend = Backend()
    say({"port": backend.port})
    orders = sys.stdin.fileno()
    with select.epoll() as epoll:
        epoll.register(backend.fileno(), select.EPOLLIN)
        epoll.register(orders, select.EPOLLIN)
        while True:
            for descriptor, _ in epoll.poll():
                if descriptor != orders:
                    backend.turn()
                elif os.read(orders, 4096):
                    say(backend.report())
                else:
                    return


if __name__ == "__main__":
    main()
