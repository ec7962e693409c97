"""One process after the other in this very process: each is killed, or upgraded, and the next takes up what was left.

Killed means: nothing of it says a word more. Its descriptors are closed as the system does it, without a shutdown, and what
the keeper had been sent by then, and the ledger's memory, are all that is left.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from twisted.internet.testing import MemoryReactorClock

from distbal.access import AccessList
from distbal.handover import TakenUp, TakingUp, hand_over, left_sockets
from distbal.hosts import Farm, HostSpec
from distbal.inheritance import Inheritance
from distbal.keeperwire import Key, Role
from distbal.ledger import Ledger
from distbal.lending import Lending
from distbal.listeners import Left, open_all
from distbal.listenspec import Listener, parse
from distbal.notebook import Notes
from distbal.ports import Replies
from tests.keepers import Holder

ANY = Listener("balance", parse("127.0.0.1:0"))


class Life:
    """One process: all that serves 5656, and a hot loop that the test turns.

    :param left: what the process before left.
    :param settles: it gets so far that the keeper has what it took up.
    """

    def __init__(
        self,
        specs: list[Listener],
        farm: Farm,
        left: Inheritance,
        clock: MemoryReactorClock,
        room: int,
        *,
        settles: bool = True,
    ) -> None:
        self.clock = clock
        self.left = left
        opened = open_all(specs, left_sockets(left) if left.ledger else Left())
        lending = Lending(clock, left, Notes(), opened, room=room)
        self.keeping, self.leases, self.proxy = lending.keeping, lending.leases, lending.proxy
        self.serving, self.terms = lending.serving, lending.terms
        self.leases.configure(farm)
        self.terms.replies = Replies("{name}{options}")
        self.terms.allow_clients = self.terms.allow_update = AccessList.parse(["any"])
        # what lends nothing is not served here: to it no process lives so long
        assert lending.start() == []
        if settles:
            self.came = lending.take_up() or TakenUp()
        else:
            assert left.ledger is not None
            self.came = TakingUp(left, left.ledger, Notes(), self.serving)()
            left.close()

    @property
    def loop(self) -> Any:
        loop = self.serving.loop
        assert loop is not None
        return loop

    @property
    def counts(self) -> tuple[int, int]:
        """Leases and waiters."""
        snapshot = self.leases.snapshot()
        return len(snapshot.leases), len(snapshot.waiters)


class Lives:
    """A daemon, process after process.

    :param way: ``kept``, ``kept upgrade`` or ``upgrade``: with a keeper and kill -9, with a keeper and upgraded, and without.

    :ivar now: the process that lives.
    """

    def __init__(
        self, *specs: Listener, hosts: Mapping[str, int] | None = None, way: str = "kept", room: int = 1000, **farm: Any
    ) -> None:
        self.specs = list(specs or [ANY])
        named = (hosts or {"alpha": 1}).items()
        self.farm = Farm(tuple(HostSpec(name, slots, rank) for rank, (name, slots) in enumerate(named)), **farm)
        self.way, self._room, self.lives = way, room, True
        self.holder = None if way == "upgrade" else Holder(watched=False)
        self.clock = MemoryReactorClock()  # type: ignore[no-untyped-call]
        self.clock.advance(1000)
        left = Inheritance()
        if self.holder is not None:
            left.channel = self.holder.channel()
        self.now = Life(self.specs, self.farm, left, self.clock, room)

    def port(self, number: int = 0) -> Any:
        """Where to connect."""
        opened = self.now.serving.opened[number]
        return ("127.0.0.1", opened.port) if opened.port else opened.spec.at.path

    def turn(self) -> None:
        """What happened is served, and what is due is done."""
        for _ in range(4):
            self.now.loop.doRead()
            self.clock.advance(0)

    @contextmanager
    def unheard(self) -> Iterator[None]:
        """While the block runs, nothing gets to the keeper."""
        keeping = self.now.keeping
        assert keeping is not None
        keeping.flush = lambda: None  # type: ignore[method-assign]
        try:
            yield
        finally:
            del keeping.flush

    def kill(self, *, heard: bool = True) -> dict[Key, int]:
        """The end of the process; what it leaves.

        :param heard: what was to be handed over in this turn was.
        """
        now, holder = self.now, self.holder
        if now.keeping is not None and heard:
            now.keeping.flush()
        if self.way == "kept":
            assert holder is not None
            left = holder.give()
            mine = set[int]()
        else:
            now.loop.pause_all()
            book, numbers = (Ledger(), iter(range(1, 1 << 20))) if now.keeping is None else (now.keeping.ledger, None)
            new_id = numbers.__next__ if numbers is not None else now.keeping.new_id  # type: ignore[union-attr]
            left = hand_over(book, now.serving, new_id, kept=now.keeping is not None)
            mine = set(left.values())
        self._end(mine)
        return left

    def _end(self, mine: set[int]) -> None:
        now = self.now
        self.lives = False
        for connection in now.loop.connections:
            if connection.descriptor not in mine:
                os.close(connection.descriptor)
        for opened in now.serving.opened:
            assert opened._sock is not None
            if opened._sock.fileno() in mine:
                opened._sock.detach()
            else:
                opened._sock.close()
        now.clock.removeReader(now.loop)  # type: ignore[no-untyped-call]
        now.loop._epoll.close()
        if now.loop._retry is not None:
            now.loop._retry.cancel()
        for deadlines in now.proxy.deadlines:
            deadlines.stop()
        now.leases.stop()
        if now.keeping is not None:
            book = now.keeping.ledger
            now.keeping.flush = lambda: None  # type: ignore[method-assign]
            now.keeping.stop()
            for memory, descriptor in ((book._slots, book.slots), (book._notes, book.notes)):
                memory.close()
                if descriptor not in mine:
                    os.close(descriptor)

    def begin(self, left: dict[Key, int], *, settles: bool = True) -> TakenUp:
        """The next process."""
        inheritance = Inheritance(descriptors=left)
        slots, notes = inheritance.take(0, Role.LEDGER), inheritance.take(0, Role.NOTES)
        inheritance.ledger = Ledger(slots, notes)
        if self.holder is not None:
            inheritance.channel = self.holder.channel()
        self.now = Life(self.specs, self.farm, inheritance, self.clock, self._room, settles=settles)
        self.lives = True
        return self.now.came

    def again(self, *, heard: bool = True) -> TakenUp:
        """Another process in the place of this one."""
        came = self.begin(self.kill(heard=heard))
        self.turn()
        return came

    def close(self) -> None:
        """An orderly end."""
        now = self.now
        if self.lives:
            now.serving.stop()
            now.proxy.stop()
            now.leases.stop()
            if now.keeping is not None:
                now.keeping.flush()
                now.keeping.stop()
                now.keeping.ledger.close()
        if self.holder is not None:
            self.holder.close()
        self.clock.advance(0)


@contextmanager
def lives(*specs: Listener, **how: Any) -> Iterator[Lives]:
    one = Lives(*specs, **how)
    try:
        yield one
    finally:
        one.close()


class Guest:
    """A client, and all that it has heard.

    :param source: the address that it comes from; "" for the usual.
    """

    def __init__(self, where: Any, source: str = "") -> None:
        self.sock = socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET)
        self.sock.settimeout(10)
        try:
            if source:
                self.sock.bind((source, 0))
            self.sock.connect(where)
        except OSError:
            self.sock.close()
            raise
        self.sock.setblocking(False)
        self.heard = b""
        self.closed = False

    def hear(self) -> bytes:
        """All that came so far."""
        while not self.closed:
            try:
                data = self.sock.recv(1000)
            except BlockingIOError:
                break
            except ConnectionResetError:
                data = b""
            self.heard += data
            self.closed = not data
        return self.heard

    def leave(self) -> None:
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.sock.close()
