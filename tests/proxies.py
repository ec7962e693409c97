"""The proxy without the daemon around it, and servers for it: real sockets, a clock that is turned by hand.

The reactor moves the bytes; what takes time (a pause, a deadline, somebody's patience) happens when the test says so.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any, ClassVar, Self

import pytest
from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater
from twisted.logger import Logger

from distbal.complaints import Complaints
from distbal.health import Verdict
from distbal.hosts import DEFAULT_POOL, Farm, HostSpec
from distbal.keeping import Keeping
from distbal.leases import LocalLeases
from distbal.listeners import Opened
from distbal.listenspec import Listener, parse
from distbal.lookup import Lookup, Resolve, SystemResolver
from distbal.loop import HotLoop, Watcher
from distbal.outcomes import Outcome
from distbal.ports import BalancePort, Replies, Terms
from distbal.proxy import splice
from distbal.proxy.port import Proxy, ProxyPort
from distbal.proxy.session import Session
from distbal.proxy.streams import ProxyFactory
from distbal.scheduler import Scheduler
from distbal.snapshot import HostState
from tests.peers import Peer, readable, until
from tests.ports import Lending

#: the two relays, and where a proxy listens that uses them
RELAYS = {"spliced": "127.0.0.1:0", "streams": "tcp:0:interface=127.0.0.1:backlog=4096"}

both_relays = pytest.mark.parametrize("relay", list(RELAYS))
#: more than all buffers on the way hold
MUCH = 24_000_000
#: a receive buffer that much does not fit into
SMALL = 1 << 16
Leave = Callable[[Peer], None]
every_way_to_leave = pytest.mark.parametrize(
    "leave", [Peer.close, Peer.half_close, Peer.reset], ids=["close", "half-close", "reset"]
)


# -- servers


class Accepted(Peer):
    """A connection that a server has taken in."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setblocking(False)


class Server:
    """A server of the farm: what it does with its connections is the test's business.

    :ivar where: its address.
    """

    def __init__(self, backlog: int = 128) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self.sock.setblocking(False)
        self.where: tuple[str, int] = self.sock.getsockname()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def spec(self, name: str = "alpha", slots: int = 1, rank: int = 0, *pools: str) -> HostSpec:
        return HostSpec(name, slots, rank, address=self.where, pools=pools or (DEFAULT_POOL,))

    async def accept(self) -> Peer:
        await readable(self.sock)
        return Accepted(self.sock.accept()[0])

    def nobody_came(self) -> bool:
        try:
            self.sock.accept()[0].close()
        except BlockingIOError:
            return True
        return False


class Hole(Server):
    """A server that answers no connect: its queue is full."""

    def __init__(self) -> None:
        super().__init__(0)
        self._first = socket.create_connection(self.where)

    def __exit__(self, *exception: object) -> None:
        self._first.close()
        super().__exit__(*exception)

    async def open_up(self) -> None:
        """Make room, for those that come from now on."""
        self.sock.listen(100)
        (await self.accept()).close()


class Nobody(Server):
    """A server that refuses: its port is taken, so that no other program listens there, and it does not listen either."""

    def __init__(self) -> None:
        self.sock = socket.socket()
        self.sock.bind(("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.where = self.sock.getsockname()


#: an address to which there is no way: it names all of the loopback, so the system refuses at once and nothing is sent
NOWHERE = ("127.255.255.255", 3632)


async def read(peer: Peer, count: int) -> bytes:
    """Exactly so many bytes, or fewer at the end."""
    data = b""
    while len(data) < count:
        await readable(peer.sock)
        part = peer.sock.recv(min(1 << 16, count - len(data)))
        if not part:
            break
        data += part
    return data


async def heard(peer: Peer) -> tuple[bytes, bool]:
    """All to the end, and whether that was a clean one."""
    data = bytearray()
    while True:
        await readable(peer.sock)
        try:
            part = peer.sock.recv(1 << 16)
        except ConnectionResetError:
            return bytes(data), False
        if not part:
            return bytes(data), True
        data += part


async def expect(house: House, server: Server, client: Peer, said: bytes) -> None:
    """The client's job is done by this server."""
    with await server.accept() as end:
        assert await read(end, len(said)) == said
        end.send(b"done")
        end.close()
        assert await heard(client) == (b"done", True)


def lose_patience(descriptor: int) -> None:
    """Let the system give this connection up at the first thing that the other side does not acknowledge or take at once."""
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1)


async def turns(number: int = 20) -> None:
    """Let the reactor turn: what had happened is served then."""
    for _ in range(number):
        await deferLater(reactor, 0)


async def rests(house: House) -> None:
    """Nobody has anything to say, and the loop does not turn for nothing."""
    await turns()
    before = house.loop._turn
    await turns()
    assert house.loop._turn == before, "the same event comes again and again"


async def gone(peer: Peer) -> None:
    """Wait until the other side has ended the connection, in whatever way."""
    await heard(peer)


def noise(count: int, seed: int = 0) -> bytes:
    """Bytes of which each place can be told from the others."""
    return random.Random(seed).randbytes(count)


# -- the proxy


class StrictLoop(HotLoop):
    """A hot loop that sees to it that no new descriptor is watched while others still have an event to come."""

    def watches_no_more(self) -> None:
        """From now on the system has no room for another, as where fs.epoll.max_user_watches is reached."""

        def register(fd: Any, eventmask: int = 0) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self._register = register

    def add(self, descriptor: int, events: int, watcher: Watcher) -> None:
        assert not self._serving, "its number may be that of one that was closed a moment ago"
        super().add(descriptor, events, watcher)


class House(Lending):
    """A farm, and one port of the proxy to it.

    :cvar keepings: makes the way to a keeper for each, where tests are to have one without asking for it.

    :param resolve: looks names up.
    :param room: descriptors that there are for clients.
    :param clock: what the time is; ``keeping``: to a keeper, where there is one.

    :ivar where: the address of the port that is served.
    """

    keepings: ClassVar[Callable[[], Keeping] | None] = None

    def __init__(
        self,
        *hosts: HostSpec,
        resolve: Resolve | None = None,
        wait: float | None = None,
        order: str = "fair",
        server_first: bool = False,
        passes: bool = False,
        verbose: bool = False,
        room: int = 10_000,
        clock: Clock | None = None,
        keeping: Keeping | None = None,
    ) -> None:
        self.clock = Clock() if clock is None else clock
        self.leases = LocalLeases(Scheduler(Farm(hosts, order=order, wait=wait)), self.clock)
        self.terms = Terms()
        self.terms.replies = Replies("{name}{options}")
        self.allow("loopback")
        self.complain = Complaints(Logger(), self.clock.seconds)
        self.lookup = Lookup(self.clock, resolve or SystemResolver(reactor))
        if keeping is None and House.keepings is not None:
            keeping = House.keepings()
        self.proxy = Proxy(self.clock, self.lookup, keeping)
        self.port = ProxyPort(
            self.proxy,
            self.leases,
            self.terms,
            DEFAULT_POOL,
            self.complain,
            server_first=server_first,
            passes=passes,
            verbose=verbose,
        )
        self.factory = ProxyFactory(self.port, reactor)
        self.room = room
        self.loop: Any = None
        self.where: Any = None

    # -- what is to be seen

    @property
    def counts(self) -> dict[str, int]:
        return self.leases.scheduler.counts

    def host(self, name: str = "alpha") -> HostState:
        (state,) = [host for host in self.leases.snapshot().hosts if host.spec.name == name]
        return state

    def verdict(self, name: str = "alpha") -> Verdict | None:
        """What the failed connects to it came to."""
        return self.leases.scheduler.verdict(name, "connect")

    def outcomes(self) -> list[Outcome]:
        """How the leases ended, in their order."""
        return [outcome for _, outcome, _ in self.leases.scheduler.history._ended]

    @property
    def sessions(self) -> list[Session]:
        """Those that are not over."""
        watched = dict.fromkeys(self.loop._watched.values()) if self.loop is not None else {}
        return [*watched, *self.factory.sessions]

    async def becomes(self, lent: int, waiting: int = 0) -> None:
        await until(lambda: (self.lent, self.waiting) == (lent, waiting), f"{lent} leases and {waiting} waiters")

    # -- who comes

    def client(self, said: bytes = b"", *, source: str = "127.0.0.1", window: int = 0) -> Peer:
        """A client, which says something at once."""
        peer = Peer(self.where, source=source, window=window) if isinstance(self.where, tuple) else Peer(self.where)
        if said:
            peer.send(said)
        return peer

    @asynccontextmanager
    async def serves(self, relay: str, at: str = "") -> AsyncIterator[None]:
        """Serve it while the block runs; after that no session is left, and nothing that one had."""
        async with self.open(relay, at):
            yield
            await self.idle()

    async def idle(self) -> None:
        """Everything has ended, and was given back."""
        await until(lambda: not self.sessions, "the end of all sessions")
        assert (self.lent, self.waiting, self.loop._reserved) == (0, 0, 0)
        assert [len(deadlines) for deadlines in self.proxy.deadlines] == [0, 0, 0, 0]

    @asynccontextmanager
    async def open(self, relay: str, at: str = "") -> AsyncIterator[None]:
        """Serve it while the block runs, and then end what there is."""
        opened = Opened(
            Listener("proxy", parse(at or RELAYS[relay]), speaks_first="server" if self.port.server_first else "client")
        )
        self.loop = loop = StrictLoop(reactor, self.clock, self.room, self.proxy.keeping)
        try:
            if relay == "spliced":
                opened.serve_hot(loop, lambda descriptor, address: self.port.hot(loop, descriptor, address), splice.COST)
            else:
                await opened.serve(reactor, self.factory)
            self.where = ("127.0.0.1", opened.port) if opened.port else at.removeprefix("unix:").partition(":")[0]
            yield
        finally:
            await opened.close()
            loop.stop()
            self.factory.stop()
            self.proxy.stop()
            self.leases.stop()

    @contextlib.contextmanager
    def balance(self) -> Iterator[tuple[str, int]]:
        """5656 to the same farm, in the same loop."""
        port = BalancePort(self.leases, self.terms, DEFAULT_POOL, self.complain)
        opened = Opened(Listener("balance", parse("127.0.0.1:0")))
        opened.serve_hot(self.loop, lambda descriptor, address: port.hot(self.loop, descriptor, address))
        with ExitStack() as stack:
            stack.callback(opened.close)
            yield ("127.0.0.1", opened.port)


@asynccontextmanager
async def relayed(house: House, server: Server, said: bytes = b"hello", **client: Any) -> AsyncIterator[tuple[Peer, Peer]]:
    """A client and its server, connected through the proxy: the first words have arrived."""
    with house.client(said, **client) as peer, await server.accept() as end:
        assert await read(end, len(said)) == said
        yield peer, end


# -- much at once


async def sends_all(peer: Peer, data: bytes) -> None:
    """Send it and close. What did not go because the other side is gone, did not."""
    try:
        await peer.send_much(data)
    except (BrokenPipeError, ConnectionResetError):
        return
    finally:
        peer.close()


async def stuck(house: House) -> None:
    """Wait until no more bytes move."""
    before = None
    while before != (now := [session.moved() for session in house.sessions]):
        before = now
        await turns()


async def stuff(peer: Peer, house: House) -> None:
    """Send as much as fits."""
    for _ in range(3):
        with contextlib.suppress(BlockingIOError):
            while True:
                peer.sock.send(bytes(1 << 16))
        await stuck(house)
