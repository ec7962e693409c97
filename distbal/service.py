"""Composition: the one place where everybody is known. ``twistd -n distbal -c hosts.yaml`` comes in here.

:func:`makeService` reads the file and binds the ports, so that every mistake is told before anything runs.
:class:`BalancerService` then serves them, and takes a changed file in on SIGHUP.
"""

from __future__ import annotations

import gc
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, DeferredLock, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python import usage
from twisted.python.failure import Failure

from distbal import config, descriptors, loop, monitorconfig
from distbal.briefports import StatusFactory, UpdateFactory
from distbal.complaints import Complaints
from distbal.config import DEFAULT_PATH
from distbal.errors import ConfigError, ListenError, describe
from distbal.leases import LocalLeases
from distbal.listeners import Opened, open_all, sort_out
from distbal.lookup import Lookup, SystemResolver
from distbal.loop import HotLoop
from distbal.monitors.kit import Surroundings
from distbal.monitors.rounds import Rounds
from distbal.monitors.slots import Slots
from distbal.notify import notify
from distbal.ports import BalanceFactory, BalancePort, Replies, Terms
from distbal.proxy import pipes, splice
from distbal.proxy.port import Proxy, ProxyPort
from distbal.proxy.streams import ProxyFactory
from distbal.scheduler import Scheduler


class Options(usage.Options):
    """The words after ``distbal`` on twistd's command line."""

    synopsis = "[options]"
    longdesc = "Lends each distcc job the best server that is free now. distbal check FILE tells what is wrong with a file."
    optParameters: ClassVar = [["config", "c", DEFAULT_PATH, "the file that lists the hosts"]]
    optFlags: ClassVar = [["verbose", None, "log each job, not only what changes"]]


class CannotStart(SystemExit, Exception):
    """The start failed; the text is for the user.

    Of a SystemExit twistd shows the text alone. Where it has detached itself, it tells the process on the terminal only of
    an Exception, and that one would wait for ever: so this is both.
    """


class BalancerService(Service):
    """The balancer.

    :param reactor: whichever twistd chose; its clock must never go back (:func:`never_back`).
    :param path: hosts.yaml, read again on SIGHUP; absolute.
    :param loaded: what it says now.
    :param opened: its listeners, bound.
    :param room: how many descriptors clients may take; ``crowd``: how many clients of 5657, and of 5658, may be there at once.

    :ivar leases: where slots come from.
    :ivar monitors: what asks the hosts how they are.
    :ivar opened: what is listened on.
    """

    name = "distbal"
    log = Logger()

    def __init__(
        self,
        reactor: Any,
        path: str,
        loaded: config.Loaded,
        opened: list[Opened],
        *,
        room: int,
        crowd: int = descriptors.CROWD,
        verbose: bool = False,
    ) -> None:
        self.path = path
        self.settings = loaded.settings
        self.opened = opened
        self.verbose = verbose
        self._reactor = reactor
        self._room = room
        clock = cast("IReactorTime", reactor)
        # microseconds since 1970: greater than any number that an earlier process can have given out
        scheduler = Scheduler(loaded.settings.farm, first_id=time.time_ns() // 1000)
        self.leases = LocalLeases(scheduler, clock)
        self._complain = Complaints(self.log, clock.seconds)
        self._terms = Terms()
        self._agree()
        self._loop: HotLoop | None = None
        lookup = Lookup(clock, SystemResolver(reactor))
        self._proxy = Proxy(clock, lookup)
        self.monitors = Rounds(self.leases, Surroundings(reactor, lookup, Slots(self.leases)))
        self._streams: list[ProxyFactory] = []
        self._status = StatusFactory("status", self.leases, self._terms, self._complain, clock)
        self._update = UpdateFactory("update", self.leases, self._terms, self._complain, clock)
        self._status.most = self._update.most = crowd
        self._reloading = DeferredLock()
        self._signal_before: Any = None

    # -- start and stop

    def startService(self) -> None:
        """Serve what was bound; CannotStart where a Twisted endpoint cannot listen."""
        super().startService()  # type: ignore[no-untyped-call]
        if loop.available:
            self._loop = HotLoop(self._reactor, self._reactor, self._room)
        if reasons := self._serve_all(self.opened):
            # the daemon does not come up half
            raise CannotStart("\n".join(f"distbal: {reason}" for reason in reasons))
        self._signal_before = signal.signal(signal.SIGHUP, self._hang_up)
        self.monitors.configure(self.settings.monitors)
        farm = self.settings.farm
        asked = monitorconfig.summary(self.settings.monitors)
        self.log.info(
            "hosts: {hosts}, slots: {slots}, policy: {policy}; listening on {ports}{asked}",
            asked=f"; monitors: {asked}" if asked else "",
            slots=sum(host.slots for host in farm.hosts),
            hosts=len(farm.hosts),
            policy=farm.policy,
            ports=", ".join(f"{one.spec.kind} {one.port or one.spec.at}" for one in self.opened),
        )
        notify("READY=1")

    def stopService(self) -> Deferred[Any]:
        super().stopService()  # type: ignore[no-untyped-call]
        notify("STOPPING=1")
        if self._signal_before is not None:
            signal.signal(signal.SIGHUP, self._signal_before)
            self._signal_before = None
        closed = [opened.close() for opened in self.opened]
        closed.append(self.monitors.stop())
        self.opened = []
        if self._loop is not None:
            self._loop.stop()
            self._loop = None
        for factory in self._streams:
            factory.stop()
        self._streams = []
        self._proxy.stop()
        self.leases.stop()
        self.log.info(
            "slots lent since the start: {granted}; clients that left while they waited: {withdrawn}; refused after"
            " queue.wait: {refused}",
            **self.leases.scheduler.counts,
        )
        return DeferredList(closed)

    # -- reload

    def reload(self) -> Deferred[bool]:
        """Read the file again, and do what it says; a file that cannot be used changes nothing.

        :returns: whether it was taken in. One reload at a time; a further one reads the file once more when its turn comes.
        """
        # a file of 10,000 hosts takes seconds, in which jobs must go on
        return self._reloading.run(lambda: deferToThread(config.load, self.path).addCallbacks(self._take_in, self._cannot_read))

    def _cannot_read(self, failure: Failure) -> bool:
        if not isinstance(failure.value, ConfigError):
            self.log.failure("{path} could not be read, by a bug", failure, path=self.path)
            return False
        return self._refuse([describe(self.path, mistake) for mistake in failure.value.mistakes])

    def _refuse(self, reasons: list[str]) -> bool:
        for reason in reasons:
            self.log.error("{reason}", reason=reason)
        self.log.error("{path} was not taken in: nothing has changed", path=self.path)
        return False

    def _take_in(self, loaded: config.Loaded) -> bool | Deferred[bool]:
        """The last step that can fail is to bind new ports; it comes before anything is changed."""
        if not self.running:
            return False
        settings = loaded.settings
        kept, gone, wanted = sort_out(self.opened, settings.listen)
        try:
            new = open_all(wanted)
        except ListenError as error:
            ours = [str(one.spec.at) for one in gone if any(one.spec.at.overlaps(spec.at) for spec in wanted)]
            reasons = [str(error), *(f"distbal itself listens on {at}: to listen there otherwise, restart it" for at in ours)]
            return self._refuse(reasons)
        for mistake in loaded.warnings:
            self.log.warn("{warning}", warning=describe(self.path, mistake))
        closing = DeferredList([one.close() for one in gone])
        self.opened = kept + new
        before, self.settings = self.settings, settings
        self._agree()
        self.leases.configure(settings.farm)
        self.monitors.configure(settings.monitors)
        self._tell_changes(before, gone, new)
        warn_of_little_room(self.log, settings, descriptors.raise_limit(), self._room)
        # an endpoint that listens on the port of one that is gone can do so only when that one has closed
        return closing.addCallback(lambda _: self._serve_new(new))

    def _serve_new(self, new: list[Opened]) -> bool:
        if self.running:
            self._serve_all(new)
        return True

    def _tell_changes(self, before: config.Settings, closed: list[Opened], opened: list[Opened]) -> None:
        old = {host.name: host for host in before.farm.hosts}
        new = {host.name: host for host in self.settings.farm.hosts}
        self.log.info(
            "{path} was taken in; hosts added: {added}, removed: {removed}, changed: {changed}{closed}{opened}",
            path=self.path,
            closed="".join(f"; no longer listening: {one.spec.kind} ({one.spec.at})" for one in closed),
            opened="".join(f"; listening now: {one.spec.kind} ({one.spec.at})" for one in opened),
            added=len(new.keys() - old.keys()),
            removed=len(old.keys() - new.keys()),
            changed=sum(old[name] != new[name] for name in old.keys() & new.keys()),
        )

    def _hang_up(self, signum: int, frame: FrameType | None) -> None:
        # the system called us between two instructions: the reactor does it when it can
        self._reactor.callFromThread(self._reload_if_none_waits)

    def _reload_if_none_waits(self) -> None:
        # one that has yet to begin will read what is there now
        if not self._reloading.waiting:
            self.reload()

    # -- serving

    def _agree(self) -> None:
        """Let the ports go by what the file says now."""
        self._terms.replies = Replies(self.settings.reply)
        self._terms.allow_clients = self.settings.allow["clients"]
        self._terms.allow_update = self.settings.allow["update"]

    def _serve_all(self, opened: list[Opened]) -> list[str]:
        """Serve listeners; why some cannot be served, as far as it shows at once. What shows later is logged too."""
        reasons: list[str] = []

        def cannot(failure: Failure, one: Opened) -> None:
            reasons.append(failure.getErrorMessage())
            self.log.critical("{reason}", reason=reasons[-1])
            if one in self.opened:
                # so that the next reload tries it again
                self.opened.remove(one)

        for one in list(opened):
            self._serve(one).addCallbacks(lambda _: self._name_ports(), cannot, errbackArgs=(one,))
        self._name_ports()
        return reasons

    def _serve(self, opened: Opened) -> Deferred[None]:
        spec = opened.spec
        if spec.kind == "status":
            return opened.serve(self._reactor, self._status)
        if spec.kind == "update":
            return opened.serve(self._reactor, self._update)
        if spec.kind == "proxy":
            return self._serve_proxy(opened)
        port = BalancePort(self.leases, self._terms, spec.pool, self._complain, verbose=self.verbose)
        hot_loop = self._loop
        if hot_loop is None or not opened.is_socket:
            return opened.serve(self._reactor, BalanceFactory(port))
        opened.serve_hot(hot_loop, lambda descriptor, address: port.hot(hot_loop, descriptor, address))
        return succeed(None)

    def _serve_proxy(self, opened: Opened) -> Deferred[None]:
        spec, hot_loop = opened.spec, self._loop
        port = ProxyPort(
            self._proxy,
            self.leases,
            self._terms,
            spec.pool,
            self._complain,
            server_first=spec.speaks_first == "server",
            passes=spec.half_close == "pass",
            verbose=self.verbose,
        )
        if hot_loop is None or not splice.available or not opened.is_socket:
            factory = ProxyFactory(port, self._reactor)
            # those that listen no more are kept for their sessions
            self._streams = [old for old in self._streams if old.numPorts or old.sessions] + [factory]
            return opened.serve(self._reactor, factory)
        self._proxy.reserve(hot_loop)
        opened.serve_hot(hot_loop, lambda descriptor, address: port.hot(hot_loop, descriptor, address), splice.COST)
        return succeed(None)

    def _name_ports(self) -> None:
        """The status page names the first port of each kind."""
        ports = {one.spec.kind: one.port for one in reversed(self.opened)}
        self._status.balance_port, self._status.status_port = ports.get("balance", 0), ports.get("status", 0)


def not_yet(signum: int, frame: FrameType | None) -> None:
    """Nothing is there yet, or any more, that could be reloaded."""


def spare_the_collector() -> None:
    """Let the garbage collector leave alone what lives as long as the daemon, and look less often at the rest.

    What a job leaves behind is freed by itself; a collection over 20,000 clients would only stall them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def never_back(reactor: Any) -> None:
    """Let the reactor's timers go by the monotonic clock. Its own is the wall clock, and a step of that fires every timer.

    To be called before the first timer is set; a reactor that has timers already keeps its clock.
    """
    if not reactor.getDelayedCalls():
        reactor.seconds = time.monotonic


def warn_of_little_room(log: Logger, settings: config.Settings, limit: int, room: int) -> None:
    """Say so where the farm has more slots than half of the clients that there is room for."""
    proxied = any(spec.kind == "proxy" for spec in settings.listen)
    each, kept = (splice.COST, 2 * pipes.KEPT) if proxied else (1, 0)
    slots = sum(host.slots for host in settings.farm.hosts)
    wanted = 2 * slots * each + kept
    if room < wanted:
        log.warn(
            "the limit on open descriptors is {limit}, which leaves room for {room} clients: for {slots} slots, and as many"
            " waiting, raise it to {wanted} (LimitNOFILE= in the unit, ulimit -Hn in a shell)",
            limit=limit,
            room=max(0, room - kept) // each,
            slots=slots,
            wanted=wanted + limit - room,
        )


def makeService(options: Options) -> BalancerService:
    """Read the file and bind its ports.

    :raises SystemExit: with every mistake, in words.
    """
    from twisted.internet import reactor

    # until there is something to reload, a request for it must not end us (SIG_IGN would be inherited by what we start)
    signal.signal(signal.SIGHUP, not_yet)
    log = Logger(namespace="distbal.service")
    path = options["config"]
    try:
        loaded = config.load(path)
        opened = open_all(loaded.settings.listen)
    except (ConfigError, ListenError) as error:
        raise SystemExit("\n".join(f"distbal: {line}" for line in str(error).splitlines())) from None
    for mistake in loaded.warnings:
        log.warn("{warning}", warning=describe(path, mistake))
    limit = descriptors.raise_limit()
    room = descriptors.room_for_clients(limit)
    warn_of_little_room(log, loaded.settings, limit, room)
    never_back(reactor)
    # twistd may change directories before the file is read again
    there = str(Path(path).absolute())
    crowd = descriptors.crowd(limit)
    service = BalancerService(reactor, there, loaded, opened, room=room, crowd=crowd, verbose=bool(options["verbose"]))
    spare_the_collector()
    return service
