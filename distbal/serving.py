"""Who is served where: a listener of each kind, and what speaks there.

The hot loop takes the clients of ``balance`` and ``proxy`` where it can; the reactor does the rest, with the factories that the
composition brings. Where there is a keeper, clients of the hot loop are such that outlive the process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakSet

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.python.failure import Failure

from distbal import loop
from distbal.complaints import Complaints
from distbal.keeperwire import Role
from distbal.keeping import Keeping
from distbal.keptclients import KeptClients, Turns
from distbal.leases import LocalLeases
from distbal.listeners import Opened, words
from distbal.logs import Logger
from distbal.loop import HotLoop
from distbal.ports import BalanceFactory, BalancePort, ClientPort, HotClient, Terms
from distbal.proxy import splice
from distbal.proxy.port import Proxy, ProxyPort
from distbal.proxy.streams import ProxyFactory

#: notes of the ledger that say what a listening socket is, by its number
LISTENER_NOTE = "listener/"


class Serving:
    """Serves what is listened on.

    :param room: how many descriptors clients may take.
    :param log_jobs: whether each job is logged.
    :param factories: makes of each kind of listener, but balance and proxy, what speaks there; asked when one is served.
    :param changed: called when it may have turned out by which ports it is reached.
    :param keeping: who is to hold what clients have; None for nobody.

    :ivar leases: where slots come from.
    :ivar proxy: what its ports share.
    :ivar loop: where clients are, that are no transports; None before the start, and where there can be none.
    :ivar turns: of fairness, as the ledger has them; None without a keeper.
    :ivar opened: what is listened on. Those that turn out not to be served are taken out, so that the next reload tries again.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        leases: LocalLeases,
        terms: Terms,
        complain: Complaints,
        proxy: Proxy,
        factories: dict[str, Callable[[], Any]],
        changed: Callable[[], None],
        opened: list[Opened],
        *,
        room: int,
        log_jobs: bool,
        keeping: Keeping | None = None,
    ) -> None:
        self.opened = opened
        self._reactor = reactor
        self.leases = leases
        self._terms = terms
        self._complain = complain
        self.proxy = proxy
        self._factories = factories
        self._changed = changed
        self._room = room
        self._log_jobs = log_jobs
        self.loop: HotLoop | None = None
        self._keeping = keeping
        self.turns = None if keeping is None else Turns(keeping.ledger, leases.scheduler.turn)
        self._ports: WeakSet[ClientPort] = WeakSet()
        self._streams: list[ProxyFactory] = []
        self._transports: list[BalanceFactory] = []

    def start(self) -> list[str]:
        """Serve those who want a slot; why some cannot be served, as far as it shows at once. :meth:`start_rest` follows."""
        if loop.available:
            self.loop = HotLoop(self._reactor, self._reactor, self._room, self._keeping)
            # all that it complains of is that there are too many
            self.loop.complain = Complaints(self.loop.log, self._reactor.seconds, bound="clients")
        # also what is served later: the keeper lets go of the sockets of before as soon as it has the others
        self.hold(self.opened)
        return self.serve([one for one in self.opened if one.spec.lends])

    def start_rest(self) -> list[str]:
        """Serve everybody else."""
        return self.serve([one for one in self.opened if not one.spec.lends])

    def free(self) -> int | None:
        """For how many descriptors of clients there is room now; None where the reactor takes them in."""
        return None if self.loop is None else self.loop.free()

    def stop(self) -> list[Deferred[object]]:
        """Listen no more, and let everybody go."""
        closed = [opened.close() for opened in self.opened]
        self.opened = []
        if self.loop is not None:
            self.loop.stop()
            self.loop = None
        for factory in self._streams:
            factory.stop()
        self._streams = []
        return closed

    # -- another process goes on

    def client(self, came_by: str, descriptor: int) -> HotClient:
        """A client of 5656 that an earlier process had, which is not watched yet.

        :param came_by: its port's ``words``.
        :raises ValueError: these say nothing.
        """
        if self.loop is None:
            raise ValueError("clients cannot be taken up on this machine")
        kind, *rest = came_by.split(" ")
        if kind != "balance" or len(rest) != 1:
            raise ValueError(f"no client comes by {came_by!r}")
        port = self._port(came_by) or self._balance_port(rest[0])
        if not isinstance(port, BalancePort):
            raise ValueError(f"no client comes by {came_by!r}")  # noqa: TRY004 (the words are wrong, not a type)
        if self._keeping is None or self.turns is None:
            return HotClient(port, self.loop, descriptor)
        return KeptClients(port, self.loop, self._keeping, self.turns.note).client(descriptor)

    def proxy_port(self, came_by: str) -> ProxyPort:
        """The port that a session of an earlier process came by; made for it where none of the kind is listened on.

        :raises ValueError: the words say nothing.
        """
        kind, *rest = came_by.split(" ")
        if kind != "proxy" or len(rest) != 3 or rest[1] not in ("client", "server") or rest[2] not in ("cancel", "pass"):
            raise ValueError(f"no session comes by {came_by!r}")
        port = self._port(came_by)
        return port if isinstance(port, ProxyPort) else self._make_proxy_port(*rest)

    def _port(self, came_by: str) -> ClientPort | None:
        return next((port for port in self._ports if port.words == came_by), None)

    def pause_endpoints(self, paused: bool) -> None:
        """Take in nobody, for now, who wants a slot by way of a Twisted endpoint: whoever connects waits."""
        self._pause(paused, lends=True)

    def pause_others(self, paused: bool) -> None:
        """Take in nobody, for now, who wants no slot: whoever connects waits."""
        self._pause(paused, lends=False)

    def _pause(self, paused: bool, *, lends: bool) -> None:
        for opened in self.opened:
            if opened.spec.lends is lends:
                opened.pause(paused)

    @property
    def carried_by_transports(self) -> int:
        """Clients and sessions with jobs that cannot go on in another process."""
        return sum(len(factory.clients) for factory in self._transports) + sum(len(one.sessions) for one in self._streams)

    def log_jobs(self, each: bool) -> None:
        """Whether each job is logged from now on."""
        self._log_jobs = each
        for port in self._ports:
            port.verbose = each

    def places(self) -> dict[str, list[str]]:
        """Where it listens, by kind; port numbers as they turned out."""
        found: dict[str, list[str]] = {}
        for one in self.opened:
            place = str(one.spec.at)
            if one.spec.at.kind == "tcp" and one.port:
                place = place.removesuffix(str(one.spec.at.port)) + str(one.port)
            found.setdefault(one.spec.kind, []).append(place)
        return found

    def port(self, kind: str) -> int:
        """The number of the first TCP port of a kind; 0 where it has none."""
        return next((one.port for one in self.opened if one.spec.kind == kind), 0)

    def serve(self, opened: list[Opened]) -> list[str]:
        """Serve listeners; why some cannot be served, as far as it shows at once. What shows later is logged too."""
        reasons: list[str] = []

        def cannot(failure: Failure, one: Opened) -> None:
            reasons.append(failure.getErrorMessage())
            self.log.critical("{reason}", reason=reasons[-1])
            if one in self.opened:
                self.opened.remove(one)
            one.close()

        for one in list(opened):
            maybeDeferred(self._serve, one).addCallbacks(lambda _: self._changed(), cannot, errbackArgs=(one,))
        self._changed()
        return reasons

    def hold(self, opened: Iterable[Opened]) -> None:
        """Let the keeper, where there is one, have the sockets of these that it does not have yet."""
        if self._keeping is not None:
            for one in opened:
                if one.is_socket and not one.ident:
                    self._hold(self._keeping, one)

    def _hold(self, keeping: Keeping, opened: Opened) -> None:
        """Let the keeper have a listening socket."""
        ident = opened.ident = keeping.new_id()
        key = f"{LISTENER_NOTE}{ident}"
        keeping.ledger.note(key, words(opened.spec).encode())
        keeping.hold(ident, Role.LISTENER, opened.descriptor)
        keeping.soon()

        def closed() -> None:
            keeping.let_go(ident, Role.LISTENER)
            keeping.ledger.note(key, b"")
            keeping.soon()

        opened.closed = closed

    def _serve(self, opened: Opened) -> Deferred[None]:
        spec = opened.spec
        self.hold([opened])
        if spec.kind == "proxy":
            return self._serve_proxy(opened)
        if spec.kind != "balance":
            return opened.serve(self._reactor, self._factories[spec.kind]())
        port = self._balance_port(spec.pool)
        hot_loop = self.loop
        if hot_loop is None or not opened.is_socket:
            factory = BalanceFactory(port)
            self._transports = [old for old in self._transports if old.numPorts or old.clients] + [factory]
            return opened.serve(self._reactor, factory)
        if self._keeping is None or self.turns is None:
            opened.serve_hot(hot_loop, lambda descriptor, address: port.hot(hot_loop, descriptor, address))
        else:
            opened.serve_hot(hot_loop, KeptClients(port, hot_loop, self._keeping, self.turns.note))
        return succeed(None)

    def _balance_port(self, pool: str) -> BalancePort:
        port = BalancePort(self.leases, self._terms, pool, self._complain, verbose=self._log_jobs)
        self._ports.add(port)
        return port

    def _make_proxy_port(self, pool: str, speaks_first: str, half_close: str) -> ProxyPort:
        port = ProxyPort(
            self.proxy,
            self.leases,
            self._terms,
            pool,
            self._complain,
            server_first=speaks_first == "server",
            passes=half_close == "pass",
            verbose=self._log_jobs,
        )
        if self.turns is not None:
            port.noted = self.turns.note
        self._ports.add(port)
        return port

    def _serve_proxy(self, opened: Opened) -> Deferred[None]:
        spec, hot_loop = opened.spec, self.loop
        port = self._make_proxy_port(spec.pool, spec.speaks_first, spec.half_close)
        if hot_loop is None or not splice.available or not opened.is_socket:
            factory = ProxyFactory(port, self._reactor)
            # those that listen no more are kept for their sessions
            self._streams = [old for old in self._streams if old.numPorts or old.sessions] + [factory]
            return opened.serve(self._reactor, factory)
        self.proxy.reserve(hot_loop)
        opened.serve_hot(hot_loop, lambda descriptor, address: port.hot(hot_loop, descriptor, address), splice.COST)
        return succeed(None)
