"""Tell systemd how we are (Type=notify): sd_notify(3), which is one datagram.

Nothing happens where no systemd asked to be told, and nothing depends on it: a message that cannot be delivered is left.
"""

from __future__ import annotations

import contextlib
import os
import socket


def notify(message: str) -> None:
    """Send one message, ``READY=1`` or ``STOPPING=1``, to the socket that $NOTIFY_SOCKET names, if it does."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        # "@" stands for the zero byte of an abstract address
        sock.connect("\0" + address[1:] if address[0] == "@" else address)
        sock.send(message.encode())
