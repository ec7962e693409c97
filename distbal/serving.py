"""Who is served where: a listener of each kind, and what speaks there.

The hot loop takes the clients of ``balance`` and ``proxy`` where it can; the reactor does the rest, with the factories that the
composition brings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.python.failure import Failure

from distbal import loop
from distbal.complaints import Complaints
from distbal.leases import LocalLeases
from distbal.listeners import Opened
from distbal.logs import Logger
from distbal.loop import HotLoop
from distbal.ports import BalanceFactory, BalancePort, ClientPort, Terms
from distbal.proxy import splice
from distbal.proxy.port import Proxy, ProxyPort
from distbal.proxy.streams import ProxyFactory


class Serving:
    """Serves what is listened on.

    :param room: how many descriptors clients may take.
    :param log_jobs: whether each job is logged.
    :param factories: makes of each kind of listener, but balance and proxy, what speaks there; asked when one is served.
    :param changed: called when it may have turned out by which ports it is reached.

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
    ) -> None:
        self.opened = opened
        self._reactor = reactor
        self._leases = leases
        self._terms = terms
        self._complain = complain
        self._proxy = proxy
        self._factories = factories
        self._changed = changed
        self._room = room
        self._log_jobs = log_jobs
        self._loop: HotLoop | None = None
        self._ports: WeakSet[ClientPort] = WeakSet()
        self._streams: list[ProxyFactory] = []

    def start(self) -> list[str]:
        """Serve what is open; why some cannot be served, as far as it shows at once."""
        if loop.available:
            self._loop = HotLoop(self._reactor, self._reactor, self._room)
            # all that it complains of is that there are too many
            self._loop.complain = Complaints(self._loop.log, self._reactor.seconds, bound="clients")
        return self.serve(self.opened)

    def free(self) -> int | None:
        """For how many descriptors of clients there is room now; None where the reactor takes them in."""
        return None if self._loop is None else self._loop.free()

    def stop(self) -> list[Deferred[object]]:
        """Listen no more, and let everybody go."""
        closed = [opened.close() for opened in self.opened]
        self.opened = []
        if self._loop is not None:
            self._loop.stop()
            self._loop = None
        for factory in self._streams:
            factory.stop()
        self._streams = []
        return closed

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

    def _serve(self, opened: Opened) -> Deferred[None]:
        spec = opened.spec
        if spec.kind == "proxy":
            return self._serve_proxy(opened)
        if spec.kind != "balance":
            return opened.serve(self._reactor, self._factories[spec.kind]())
        port = BalancePort(self._leases, self._terms, spec.pool, self._complain, verbose=self._log_jobs)
        self._ports.add(port)
        hot_loop = self._loop
        if hot_loop is None or not opened.is_socket:
            return opened.serve(self._reactor, BalanceFactory(port))
        opened.serve_hot(hot_loop, lambda descriptor, address: port.hot(hot_loop, descriptor, address))
        return succeed(None)

    def _serve_proxy(self, opened: Opened) -> Deferred[None]:
        spec, hot_loop = opened.spec, self._loop
        port = ProxyPort(
            self._proxy,
            self._leases,
            self._terms,
            spec.pool,
            self._complain,
            server_first=spec.speaks_first == "server",
            passes=spec.half_close == "pass",
            verbose=self._log_jobs,
        )
        self._ports.add(port)
        if hot_loop is None or not splice.available or not opened.is_socket:
            factory = ProxyFactory(port, self._reactor)
            # those that listen no more are kept for their sessions
            self._streams = [old for old in self._streams if old.numPorts or old.sessions] + [factory]
            return opened.serve(self._reactor, factory)
        self._proxy.reserve(hot_loop)
        opened.serve_hot(hot_loop, lambda descriptor, address: port.hot(hot_loop, descriptor, address), splice.COST)
        return succeed(None)
