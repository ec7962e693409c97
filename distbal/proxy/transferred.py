"""What a connection's socket itself knows of the bytes that went over it, so that nobody has to keep an account of them.

The kernel counts what the peer acknowledged and what came (tcp_info, linux/tcp.h, since Linux 4.2), what is still on its way
(SIOCOUTQ) and what nobody has read yet (FIONREAD). A SYN and a FIN have a number in TCP's count of bytes, and are counted with
them: the SYN by the side that connected, a FIN by the side that sent it (as on its way, then as acknowledged) and by the side
that it came to.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from distbal.proxy.sockets import in_flight, socket_of, unread

#: states of a connection (linux/tcp_states.h)
ESTABLISHED, SYN_SENT, CLOSED, CLOSE_WAIT = 1, 2, 7, 8
#: those after our FIN (FIN_WAIT1, FIN_WAIT2, TIME_WAIT, LAST_ACK, CLOSING), and those after the peer's
_WE_ENDED, _PEER_ENDED = frozenset({4, 5, 6, 9, 11}), frozenset({6, 8, 9, 11})
#: tcpi_bytes_acked and tcpi_bytes_received, tcpi_notsent_bytes and tcpi_bytes_sent (since Linux 4.19), and where they are
_COUNTS, _NOT_SENT, _SENT = struct.Struct("<QQ"), struct.Struct("<I"), struct.Struct("<Q")
_AT_COUNTS, _AT_NOT_SENT, _AT_SENT = 120, 144, 200
_INFO = _AT_SENT + _SENT.size


@dataclass(frozen=True, slots=True)
class Transferred:
    """A TCP connection, as the system sees it.

    :ivar state: one of the above, or another.
    :ivar sent: bytes that were given to it; ``taken``: bytes that were read from it.
    :ivar peer_ended: the peer has ended its side.
    """

    state: int
    sent: int
    taken: int
    peer_ended: bool


def state_of(descriptor: int) -> int:
    """The state of a TCP connection; OSError for another socket."""
    return _info(descriptor)[0]


def transferred(
    descriptor: int, *, we_connected: bool, we_ended: bool = False, taken: int | None = None, peer_ended: bool = False
) -> Transferred:
    """What went over a TCP connection; OSError for another socket.

    Once both sides have ended in order, or it broke, it is closed, and no longer says which of the two it was. What is known
    from elsewhere helps then, and is not looked at before.

    :param we_connected: it was this side that did.
    :param we_ended: this side had ended its own.
    :param taken: bytes that were read from it; None where that is not known.
    :param peer_ended: where it is not: whether the peer had ended its own.
    """
    state, acknowledged, received = _info(descriptor)
    read = received - unread(descriptor)
    if state != CLOSED:
        we_ended, peer_ended = state in _WE_ENDED, state in _PEER_ENDED
    elif taken is not None:
        peer_ended = read > taken
    sent = acknowledged + in_flight(descriptor) - we_connected - we_ended
    return Transferred(state, max(0, sent), max(0, read - peer_ended), peer_ended)


def was_sent_to(descriptor: int) -> bool:
    """Whether anything was ever sent on a connection. False where that is not known: another socket, an older Linux."""
    try:
        info = _tcp_info(descriptor)
    except OSError:
        return False
    if len(info) < _INFO:
        return False
    return bool(_NOT_SENT.unpack_from(info, _AT_NOT_SENT)[0] + _SENT.unpack_from(info, _AT_SENT)[0])


def _info(descriptor: int) -> tuple[int, int, int]:
    info = _tcp_info(descriptor)
    acknowledged, received = _COUNTS.unpack_from(info, _AT_COUNTS)
    return info[0], acknowledged, received


def _tcp_info(descriptor: int) -> bytes:
    sock = socket_of(descriptor)
    try:
        info: bytes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO)
    finally:
        sock.detach()
    return info
