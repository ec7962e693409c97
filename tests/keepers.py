"""The proxy with a keeper, and its end by kill -9: what the keeper holds, and the ledger, are all that is left of it.

Nothing of a process that is killed here says a word more: its descriptors are closed as the system does it, without a shutdown,
while the keeper's duplicates stay open.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from twisted.internet import reactor
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from distbal import keeperwire, ledger
from distbal.keeperwire import Key, Role
from distbal.keeping import Keeping
from distbal.ledger import Ledger
from distbal.listeners import Opened
from distbal.listenspec import Listener, parse
from distbal.outcomes import Outcome
from distbal.proxy import splice
from distbal.proxy.lasting import LastingSession
from distbal.proxy.pipes import Pipe
from distbal.proxy.takeup import TakenUp, take_up, ticket_of
from distbal.takeup import Carried
from tests.peers import until
from tests.proxies import House, StrictLoop


@implementer(IReadDescriptor)
class Holder:
    """The keeper's side: it holds what it is sent.

    :param watched: the reactor sees to it that it reads.

    :ivar held: descriptors by (id, role).
    """

    def __init__(self, *, watched: bool = True) -> None:
        self._watched = watched
        self.held: dict[Key, int] = {}
        self._sock: socket.socket | None = None

    def channel(self) -> socket.socket:
        """For a new daemon; what the one before had sent is read first."""
        self._hang_up()
        self._sock, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sock.setblocking(False)
        self.starts()
        return other

    def starts(self) -> None:
        """Read what comes."""
        if self._watched:
            reactor.addReader(self)

    def is_full(self, keeping: Keeping) -> None:
        """Read nothing for now, and have room for nothing more."""
        self.stalls()
        with suppress(BlockingIOError):
            while True:
                keeping._channel.send(keeperwire.BEAT)

    def stalls(self) -> None:
        """Read nothing for now."""
        if self._watched:
            reactor.removeReader(self)

    def doRead(self) -> None:
        self.read()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops."""

    def fileno(self) -> int:
        return -1 if self._sock is None else self._sock.fileno()

    def logPrefix(self) -> str:
        return "keeper"

    def read(self) -> None:
        """Take what there is."""
        while self._sock is not None:
            try:
                packet, descriptors, _, _ = socket.recv_fds(self._sock, keeperwire.MAX_PACKET, keeperwire.MAX_DESCRIPTORS)
            except BlockingIOError:
                return
            if not packet:
                self.stalls()
                return
            said = keeperwire.from_daemon(packet)
            if isinstance(said, keeperwire.Beat):
                continue
            assert isinstance(said, keeperwire.Journal)
            for key, descriptor in zip(said.held, descriptors, strict=True):
                self.drop(key)
                self.held[key] = descriptor
            for key in said.let_go:
                self.drop(key)

    def give(self) -> dict[Key, int]:
        """Duplicates of all, for a new daemon; it keeps its own."""
        self.read()
        return {key: os.dup(descriptor) for key, descriptor in self.held.items()}

    def of(self, role: Role) -> list[Key]:
        """What it holds of a kind."""
        self.read()
        return [key for key in self.held if key[1] == role]

    def close(self) -> None:
        self._hang_up()
        for key in list(self.held):
            self.drop(key)

    def _hang_up(self) -> None:
        self.read()
        if self._sock is not None:
            self.stalls()
            self._sock.close()
            self._sock = None

    def drop(self, key: Key) -> None:
        """Close one; nothing happens where it is not held."""
        descriptor = self.held.pop(key, -1)
        if descriptor >= 0:
            os.close(descriptor)


class KeptHouse(House):
    """A house that can be left, and lived in again.

    :param house: the one before, which was killed or upgraded; None for the first.
    :param way: ``kept``, ``kept upgrade`` or ``upgrade``: with a keeper, with one, and upgraded, or without.

    :ivar taken: what was taken up.
    """

    def __init__(self, *hosts: Any, way: str = "kept", clock: Clock | None = None, **how: Any) -> None:
        self._hosts, self._how, self.way = hosts, how, way
        self.before: list[Outcome] = []
        self.noted: list[str] = []
        self.holder = Holder() if way != "upgrade" else None
        #: whose turn the reactor's is; a test that turns the loop itself has another
        self.reactor: Any = reactor
        self.ledger = Ledger()
        self._begin(clock or Clock())

    def _begin(self, clock: Clock) -> None:
        self.keeping = None if self.holder is None else Keeping(reactor, self.holder.channel(), self.ledger, lambda: None)
        if self.keeping is not None:
            self.keeping._channel.setblocking(False)
        super().__init__(*self._hosts, clock=clock, keeping=self.keeping, **self._how)
        self.port.noted = self.noted.append
        self.taken = TakenUp()

    @property
    def spliced(self) -> list[LastingSession]:
        """Its sessions."""
        return [session for session in self.sessions if isinstance(session, LastingSession)]

    def begin_loop(self) -> None:
        self.loop = StrictLoop(self.reactor, self.clock, self.room, self.keeping)

    @asynccontextmanager
    async def lasts(self, at: str = "127.0.0.1:0") -> AsyncIterator[None]:
        """Serve while the block runs, and be killed at will; after it nothing is left of any session."""
        server = "server" if self.port.server_first else "client"
        self.opened = Opened(Listener("proxy", parse(at), speaks_first=server))
        self.where = ("127.0.0.1", self.opened.port) if self.opened.port else at.removeprefix("unix:").partition(":")[0]
        self.begin_loop()
        self._listen()
        try:
            yield
            await self.idle()
            await until(lambda: not getattr(self.proxy.pipes, "_coming", ()), "the pipes that were made")
            self.nothing_is_left()
        finally:
            await self.opened.close()
            self.stop()

    def _listen(self) -> None:
        # each process has a duplicate of the listening socket
        sock = socket.socket(fileno=os.dup(self.opened.descriptor))
        self.loop.listen(sock, lambda descriptor, address: self.port.hot(self.loop, descriptor, address), splice.COST)

    def stop(self) -> None:
        self.loop.stop()
        self.proxy.stop()
        self.leases.stop()
        if self.keeping is not None:
            self.keeping.flush()
            self.keeping.stop()
        if self.holder is not None:
            self.holder.close()
        self.ledger.close()

    def nothing_is_left(self) -> None:
        """Of no session there is an account, or anything at the keeper; and of pipes only those that are free."""
        accounts = [account for account in self.ledger.accounts() if account.kind != ledger.TURN]
        free = len(self.proxy.pipes._free)
        if self.holder is None or self.keeping is None:
            assert accounts == []
            return
        assert [account.kind for account in accounts] == [ledger.PIPE] * free
        if self.keeping.alone:
            return
        self.keeping.flush()
        self.holder.read()
        roles = sorted(role for _, role in self.holder.held)
        assert roles == sorted([Role.PIPE_READ, Role.PIPE_WRITE] * free)

    # -- another process goes on

    def kill(self) -> None:
        """Nothing of it is left but what is the keeper's."""
        if self.keeping is not None and "upgrade" in self.way:
            self.keeping.flush()
        passed = self._passed() if "upgrade" in self.way else None
        keep = set() if passed is None else set(passed.values())
        for session in self.loop.watchers:
            assert isinstance(session, LastingSession)
            _close_all(session, keep)
        for pipe in (*self.proxy.pipes._free, *getattr(self.proxy.pipes, "_coming", ())):
            _close(keep, pipe.read, pipe.write)
        for listener in self.loop._listeners.values():
            listener.sock.close()
        self.reactor.removeReader(self.loop)
        self.loop._epoll.close()
        self.factory.stop()
        for deadlines in self.proxy.deadlines:
            deadlines.stop()
        self.leases.stop()
        self.before += self.outcomes()
        if self.keeping is not None:
            self.keeping.stop()
        if passed is not None:
            self._left = passed
        else:
            assert self.holder is not None
            self.holder.read()
            self._left = self.holder.give()

    def lose(self, role: Role) -> None:
        """The one descriptor of this kind did not get to the keeper."""
        (key,) = [key for key in self._left if key[1] == role]
        os.close(self._left.pop(key))
        assert self.holder is not None
        self.holder.drop(key)

    def live_again(self) -> TakenUp:
        """Another process takes everything up."""
        accounts = self.ledger.accounts()
        if self.holder is None:
            self.ledger.close()
            self.ledger = Ledger()
        self._begin(self.clock)
        self.begin_loop()
        taken = self.taken = take_up(self.proxy, self.loop, accounts, self._left, self._the_port)
        assert self._left == {}
        tickets = [(ticket, session) for account, session in taken.sessions if (ticket := ticket_of(account, session))]
        there = self.leases.take_up(Carried(tickets))
        assert there.left_out == []
        for account, session in taken.sessions:
            session.resume(there.tickets.get(account.ticket) if ticket_of(account, session) else None)
        self.leases.deliver(there.grants)
        if self.keeping is not None:
            self.keeping.flush()
        self._listen()
        return taken

    def again(self) -> TakenUp:
        """It is killed, and lives again."""
        self.kill()
        return self.live_again()

    def all_outcomes(self) -> list[Outcome]:
        """How all leases ended, in this process and those before."""
        return [*self.before, *self.outcomes()]

    def _the_port(self, words: str) -> Any:
        if words != self.port.words:
            raise ValueError(words)
        return self.port

    def _passed(self) -> dict[Key, int]:
        new_id = iter(range(1, 1 << 20)).__next__ if self.keeping is None else self.keeping.new_id
        passed = {}
        for session in self.loop.watchers:
            for ident, role, descriptor in session.enter(self.ledger, new_id):
                passed[ident, int(role)] = descriptor
        for ident, role, descriptor in getattr(self.proxy.pipes, "descriptors", ()):
            passed[ident, int(role)] = descriptor
        return passed


def _close_all(session: Any, keep: set[int]) -> None:
    pipes: list[Pipe] = [flow.pipe for flow in (session.up, session.down) if flow.pipe is not None]
    _close(keep, session._client, session._server, *(end for pipe in pipes for end in (pipe.read, pipe.write)))


def _close(keep: set[int], *descriptors: int) -> None:
    for descriptor in descriptors:
        if descriptor >= 0 and descriptor not in keep:
            os.close(descriptor)
