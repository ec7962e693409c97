"""A daemon that does nothing but speak to its keeper, for the keeper's tests: a real process on the real wire.

Started by the keeper as ``python -m tests.fake_daemon -n --pidfile= WORDS... distbal -c ADDRESS``: it connects to the test at
the unix socket ADDRESS, tells it in lines of JSON what happens to it (its start, signals, packets from the keeper), and does
what the test says in lines of JSON; see :class:`tests.supervising.Daemon`, which is the other end. A descriptor goes over that
socket as SCM_RIGHTS, with the line that it belongs to.
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import sys
from typing import Any

from distbal import keeperwire


def main() -> None:
    """Speak until the test says how to end, or is gone."""
    test = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    test.connect(sys.argv[-1])
    keeper = socket.socket(fileno=int(os.environ[keeperwire.VARIABLE]))
    keeper.setblocking(True)
    os.set_inheritable(keeper.fileno(), False)

    def tell(event: str, descriptors: list[int] | None = None, **content: Any) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors or []))]
        test.sendmsg([json.dumps({"event": event, **content}).encode()], rights if descriptors else [])

    signal.signal(signal.SIGTERM, lambda *_: tell("signal", number=signal.SIGTERM))
    signal.signal(signal.SIGHUP, lambda *_: tell("signal", number=signal.SIGHUP))
    signal.signal(signal.SIGUSR2, lambda *_: tell("signal", number=signal.SIGUSR2))
    blocked = signal.pthread_sigmask(signal.SIG_SETMASK, [])
    tell(
        "start", pid=os.getpid(), blocked=sorted(blocked), words=sys.argv[1:], environment=dict(os.environ), parent=os.getppid()
    )
    size = socket.CMSG_SPACE(253 * 4)
    while True:
        line, ancillary, _, _ = test.recvmsg(1 << 18, size)
        if not line:
            return
        descriptors = array.array("i", b"".join(data for _, _, data in ancillary))
        order = json.loads(line)
        if order["do"] == "send":
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)]
            keeper.sendmsg([bytes.fromhex(order["packet"])], rights if descriptors else [])
        elif order["do"] == "receive":
            try:
                packet, ancillary, _, _ = keeper.recvmsg(1 << 18, size)
            except ConnectionResetError:  # it is gone, and had not read everything
                packet, ancillary = b"", []
            given = list(array.array("i", b"".join(data for _, _, data in ancillary)))
            tell("packet", given, packet=packet.hex())
            descriptors.extend(given)
        elif order["do"] == "tell":
            tell("told")
        elif order["do"] == "hang up":
            keeper.close()
            tell("told")
        elif order["do"] == "end":
            os._exit(order["status"])
        for descriptor in descriptors:
            os.close(descriptor)


if __name__ == "__main__":
    main()
