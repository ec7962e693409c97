"""The keeper's end of the channel: packets with descriptors, read and written without waiting.

Nothing that comes can end the keeper: descriptors that no packet accounts for are closed, and the packet is complained of.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import select
import socket
import termios
from collections import deque
from typing import TYPE_CHECKING

from distbal.keeperwire import MAX_DESCRIPTORS, MAX_PACKET, Journal, from_daemon, give

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distbal.keeper.holding import Holdings
    from distbal.keeperwire import FromDaemon, Key

#: what each side may have under way; the kernel gives what it allows (net.core.wmem_max)
BUFFER = 4 << 20
#: packets that are read before something else has its turn
ROUND = 1000

_ANCILLARY = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
_FLAGS = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
#: too many descriptors of this user are under way (unix(7)); and the buffer is full
_LATER = {errno.EAGAIN, errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM}


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a channel: the keeper's and the daemon's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, BUFFER)
    return ours, theirs


class Channel:
    """The keeper's end.

    :param sock: of :func:`pair`, or of the code before this one.
    :param complain: is told in a sentence what was wrong with something that came.
    """

    def __init__(self, sock: socket.socket, complain: Callable[[str], None]) -> None:
        self.sock = sock
        self._complain = complain
        self._buffer = bytearray(MAX_PACKET + 1)
        self._view = memoryview(self._buffer)
        self._queue: deque[bytes | list[Key]] = deque()
        #: whether the other end is closed, and all that came from there is read
        self.ended = False

    def fileno(self) -> int:
        """The descriptor, for epoll."""
        return self.sock.fileno()

    def receive(self) -> Iterator[tuple[FromDaemon, array.array[int]]]:
        """The packets that are there, each with its descriptors, which are the caller's from then on.

        A journal has fewer descriptors than keys where no more could be received.
        """
        for _ in range(ROUND):
            try:
                size, ancillary, flags, _ = self.sock.recvmsg_into([self._buffer], _ANCILLARY, _FLAGS)
            except BlockingIOError:
                return
            except ConnectionResetError:
                # it ended with something unread, which is told once, before what it had sent
                continue
            except OSError as error:
                self._complain(f"the channel to the daemon cannot be read: {error.strerror}")
                self.ended = True
                return
            descriptors = array.array("i")
            for level, kind, data in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
            if size == 0 and not descriptors and self._hung_up():
                self.ended = True
                return
            try:
                said = self._read(size, len(descriptors), flags)
            except ValueError as error:
                for descriptor in descriptors:
                    os.close(descriptor)
                self._complain(f"the daemon sent what it should not, and it is passed over: {error}")
            else:
                yield said, descriptors

    def _read(self, size: int, descriptors: int, flags: int) -> FromDaemon:
        if flags & socket.MSG_TRUNC:
            raise ValueError(f"a packet has more than {MAX_PACKET} bytes")
        said = from_daemon(self._view[:size])
        expected = len(said.held) if isinstance(said, Journal) else 0
        if flags & socket.MSG_CTRUNC and descriptors < expected:
            self._complain(
                f"{expected - descriptors} of {expected} descriptors that the daemon sent could not be received, and are not"
                " held: the keeper has too many (RLIMIT_NOFILE)"
            )
        elif descriptors != expected:
            raise ValueError(f"a packet with {expected} keys of descriptors came with {descriptors} descriptors")
        return said

    def _hung_up(self) -> bool:
        """Nothing was read: the other end is closed, where it was not an empty packet."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        closed = any(event & select.POLLHUP for _, event in poll.poll(0))
        left = array.array("i", [0])
        fcntl.ioctl(self.sock, termios.FIONREAD, left)
        return closed and not left[0]

    def put(self, *packets: bytes) -> None:
        """Queue packets; :meth:`flush` sends them."""
        self._queue.extend(packets)

    def put_descriptors(self, keys: list[Key]) -> None:
        """Queue the giving of descriptors: those of the keys that are held when it is their turn."""
        self._queue.extend(keys[start : start + MAX_DESCRIPTORS] for start in range(0, len(keys), MAX_DESCRIPTORS))

    def drop_queue(self) -> None:
        """Whom it was for is gone."""
        self._queue.clear()

    def flush(self, holdings: Holdings) -> bool:
        """Send what is queued, as far as it goes.

        :returns: whether nothing is left to be sent.
        """
        while self._queue:
            packet = self._queue[0]
            descriptors = array.array("i")
            if isinstance(packet, list):
                live = [key for key in packet if holdings.descriptor(key) is not None]
                descriptors.extend(found for key in live if (found := holdings.descriptor(key)) is not None)
                packet = give(live)
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)] if descriptors else []
            try:
                self.sock.sendmsg([packet], ancillary, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except OSError as error:
                if error.errno in _LATER:
                    return False
                # it has ended, and its end is dealt with when it is seen
                self.drop_queue()
                return True
            self._queue.popleft()
        return True

    def close(self) -> None:
        """Close this end."""
        self.sock.close()
