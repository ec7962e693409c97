"""A daemon of the proxy in a process of its own, which is killed at a line of its code that the test chooses.

The process is forked and has the proxy, the scheduler, a ledger and a way to the keeper; the test has the keeper, the clients
and the servers. It is killed by the system, as by kill -9, so nothing of it runs after that line. The next process finds what
there is at the keeper, and nothing else.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Collection
from pathlib import Path
from types import FrameType
from typing import Any

from twisted.internet.task import Clock

import distbal
from distbal.hosts import HostSpec
from distbal.keeperwire import Key, Role
from distbal.keeping import Keeping
from distbal.ledger import PIPE, Ledger
from distbal.proxy import splice
from distbal.proxy.takeup import take_up, ticket_of
from distbal.takeup import Carried
from tests.keepers import Holder
from tests.proxies import House, StrictLoop

#: whether lines count from when it serves, and not from when it starts; and how many
Cut = tuple[bool, int]
_CODE = str(Path(distbal.__file__).parent) + os.sep


class Hands(Clock):
    """A reactor whose only reader turns it: with a clock that goes as the machine's does."""

    def __init__(self) -> None:
        super().__init__()
        self.rightNow = time.monotonic()

    def addReader(self, reader: object) -> None:
        """It looks by itself."""

    def removeReader(self, reader: object) -> None:
        """The same."""

    def turn(self) -> None:
        self.advance(max(0.0, time.monotonic() - self.rightNow))


class Daemon:
    """The processes, one after the other.

    :param specs: the farm.
    :param cuts: for each process but the last: at which line of distbal's code it is killed.
    :param how: as of :class:`tests.proxies.House`.

    :ivar where: its address.
    :ivar kills: how many were killed.
    """

    def __init__(self, specs: Collection[HostSpec], cuts: Collection[Cut], **how: Any) -> None:
        self._specs, self._cuts, self._how = specs, list(cuts), how
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener.setblocking(False)
        self.where: tuple[str, int] = self._listener.getsockname()
        self.holder = Holder(watched=False)
        self.kills = 0
        self._process = 0
        self._control: socket.socket | None = None

    def start(self, others: Collection[socket.socket]) -> None:
        """Start a process.

        :param others: sockets that it is not to have.
        """
        channel = self.holder.channel()
        left = self.holder.give()
        control, other = socket.socketpair()
        cut = self._cuts.pop(0) if self._cuts else (False, 0)
        process = os.fork()
        if not process:
            try:
                for descriptor in (*(sock.fileno() for sock in others), control.fileno(), self.holder.fileno()):
                    os.close(descriptor)
                for descriptor in self.holder.held.values():
                    os.close(descriptor)
                _live(self._listener, channel, left, other, cut, self._specs, self._how)
            except BaseException:  # noqa: BLE001 (whatever it is: the test is in the other process)
                traceback.print_exc()
            finally:
                os._exit(1)
        for descriptor in left.values():
            os.close(descriptor)
        channel.close()
        other.close()
        self._process, self._control = process, control

    def turn(self, others: Collection[socket.socket]) -> None:
        """Hold what is to be held, and start the next process if the one before was killed."""
        self.holder.read()
        ended, status = os.waitpid(self._process, os.WNOHANG)
        if ended:
            assert os.WIFSIGNALED(status), f"it ended by itself: {status}"
            self.kills += 1
            assert self._control is not None
            self._control.close()
            self._process = 0
            self.start(others)

    def asked(self) -> dict[str, Any]:
        """What the process, which is not to be killed any more, says of itself."""
        control = self._control
        assert control is not None
        control.settimeout(20)
        control.send(b"?")
        said = control.recv(1 << 16)
        self.holder.read()
        answer: dict[str, Any] = json.loads(said)
        return answer

    def stop(self) -> None:
        """Kill it, and let go of everything."""
        if self._process:
            os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)
        if self._control is not None:
            self._control.close()
        self._listener.close()
        self.holder.close()


def _live(
    listener: socket.socket,
    channel: socket.socket,
    left: dict[Key, int],
    control: socket.socket,
    cut: Cut,
    specs: Collection[HostSpec],
    how: dict[str, Any],
) -> None:
    """The life of a process."""
    serving, lines = cut
    if lines and not serving:
        sys.settrace(_killer(lines))
    hands = Hands()
    slots, notes = left.pop((0, Role.LEDGER), -1), left.pop((0, Role.NOTES), -1)
    ledger = Ledger(slots, notes)
    channel.setblocking(False)
    keeping = Keeping(hands, channel, ledger, lambda: None)
    if slots < 0:
        keeping.hold_ledger()
    house = House(*specs, clock=hands, keeping=keeping, **how)
    turned: Any = hands
    loop = StrictLoop(turned, hands, 1000, keeping)
    house.loop = loop
    taken = take_up(house.proxy, loop, ledger.accounts(), left, lambda words: house.port)
    tickets = [(ticket, session) for account, session in taken.sessions if (ticket := ticket_of(account, session))]
    there = house.leases.take_up(Carried(tickets))
    assert not there.left_out
    for account, session in taken.sessions:
        assert session.resume(there.tickets.get(account.ticket) if ticket_of(account, session) else None)
    house.leases.deliver(there.grants)
    loop.listen(listener, lambda descriptor, address: house.port.hot(loop, descriptor, address), splice.COST)
    if lines and serving:
        sys.settrace(_killer(lines))
    poll = select.poll()
    poll.register(loop.fileno(), select.POLLIN)
    poll.register(control, select.POLLIN)
    while True:
        events = dict(poll.poll(5))
        loop.doRead()
        hands.turn()
        if events.get(control.fileno()):
            if not control.recv(1):
                return
            kinds = [account.kind for account in ledger.accounts()]
            said = {
                "lent": house.lent,
                "waiting": house.waiting,
                "sessions": len(house.sessions),
                "accounts": len(kinds) - kinds.count(PIPE),
                "pipes": kinds.count(PIPE),
                "free": len(house.proxy.pipes._free),
                "leases": [host.leases for host in house.leases.snapshot().hosts],
            }
            control.send(json.dumps(said).encode())


def _killer(cut: int) -> Any:
    """A trace function that kills this process at so many lines."""
    lines = 0

    def line(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        if event == "line":
            lines += 1
            if lines == cut:
                os.kill(os.getpid(), signal.SIGKILL)
        return line

    def call(frame: FrameType, event: str, argument: object) -> Any:
        code = frame.f_code
        # a comprehension over all records is a thousand lines, one like the other
        return line if code.co_filename.startswith(_CODE) and code.co_name[0] != "<" else None

    return call
