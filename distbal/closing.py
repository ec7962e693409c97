"""How a socket is closed of which another process holds a duplicate: what the peer is to see must be said before.

Where nobody has a duplicate, ``os.close`` says it by itself.
"""

from __future__ import annotations

import os
import socket


def shut_and_close(descriptor: int) -> None:
    """Close a connection, also for the peer, whoever else has it still."""
    # a socket object costs half a microsecond, and there is no other way to shutdown(2)
    sock = socket.SocketType(socket.AF_INET, socket.SOCK_STREAM, 0, descriptor)
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it was reset: whoever has a duplicate has seen that
    finally:
        sock.detach()
    os.close(descriptor)
