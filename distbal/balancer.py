"""Composition: the one place where everybody is known.

The ports are bound, and what lends is there (lending.py) and may lend already, before the :class:`BalancerService` is made. It
adds all the rest: who asks the hosts, who tells people, who does what they say; and it takes a changed file in on SIGHUP.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, Literal, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, DeferredLock
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from distbal import __version__, config, descriptors, execing, logs, logwords, monitorconfig
from distbal.admin import Admin, Who
from distbal.bugs import bugs
from distbal.changes import Changes
from distbal.decisions import Decisions
from distbal.errors import ConfigError, ListenError, describe
from distbal.frontends import Frontends
from distbal.hosts import Farm
from distbal.inside import Inside
from distbal.lending import Lending
from distbal.listeners import Opened, open_all, sort_out
from distbal.logs import Logger
from distbal.monitors.kit import Surroundings
from distbal.monitors.rounds import Rounds
from distbal.monitors.slots import Slots
from distbal.notebook import Notebook
from distbal.notify import notify
from distbal.ports import Replies
from distbal.process import warn_of_little_room
from distbal.reporter import Reporter
from distbal.saver import Kept
from distbal.spells import Spells
from distbal.succession import Succession
from distbal.termsnote import CarriedTerms
from distbal.upgrade import Going, Upgrader, started

#: seconds after which a new image serves others than those who want a slot
REST = 0.05


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
    :param kept: what people decided before.
    :param lending: with the file's listeners, bound.
    :param room: how many descriptors clients may take; ``crowd``: how many clients of each other port may be there at once.

    :ivar leases: where slots come from.
    :ivar monitors: what asks the hosts how they are.
    :ivar admin: what changes all this while it runs.
    :ivar reporter: what tells of it.
    :ivar serving: what is listened on.
    """

    name = "distbal"
    log = Logger()

    def __init__(
        self,
        reactor: Any,
        path: str,
        loaded: config.Loaded,
        kept: Kept,
        lending: Lending,
        *,
        room: int,
        crowd: int = descriptors.CROWD,
        verbose: bool = False,
    ) -> None:
        self.path = path
        self.settings = loaded.settings
        self._text = loaded.text
        self._reactor = reactor
        self._room = room
        self._verbose = verbose
        clock = cast("IReactorTime", reactor)
        self._lending = lending
        self.leases = lending.leases
        self.serving = lending.serving
        self._came = lending.notes
        keeping = self._keeping = lending.keeping
        self._terms = lending.terms
        self._agree()
        self._slots = Slots(self.leases)
        self.monitors = Rounds(self.leases, Surroundings(reactor, lending.lookup, self._slots))
        self._kept = kept
        self._state = loaded.settings.state
        self._inside = Inside(
            clock,
            self.serving.free,
            lambda: None if keeping is None else keeping.report(),
        )
        self.reporter = Reporter(
            self.leases,
            self.monitors,
            seconds=clock.seconds,
            wall=time.time,
            inside=self._inside,
            decisions=lambda: self.admin.overlay.decisions,
            ports=self.serving.places,
            started=self._came.totals.since,
        )
        self._spells = Spells(clock)
        self.admin = Admin(
            self, self.leases, self.reporter, time.time, spells=self._spells, made=kept.decisions, changes=kept.changes
        )
        self._frontends = Frontends(
            reactor,
            self.leases,
            self._terms,
            lending.complain,
            self.reporter,
            self.admin,
            self._spells,
            lambda: self.settings,
            crowd,
            {"monitors": self.monitors, "service": self},
            self._came.activity,
        )
        lending.makers.update(self._frontends.makers)
        lending.ports_changed = self._name_ports
        self.succession = Succession(
            reactor,
            lending,
            self.monitors,
            kept,
            self._notebook,
            text=lambda: self._text,
            conversations=lambda: self._frontends.conversations,
            part=self._frontends.take_leave,
            resume=self._resume,
        )
        lending.leave = self.succession.leave
        self.admin.file_changed(loaded.settings.farm)
        self._upgrader = Upgrader(
            reactor,
            self.succession,
            started(),
            path,
            by_signal=lambda what: self.admin.upgraded_by(Who("-", "SIGUSR2"), what),
            tried=lambda why: self.reporter.image.update({"trouble": why}),
        )
        self._reloading, self._exporting = DeferredLock(), DeferredLock()
        #: why the last file was not taken in
        self._refusal: list[str] = []
        #: what is doubtful of the last one that was
        self._doubts: list[str] = []
        self._signal_before: Any = None
        self._rest: IDelayedCall | None = None

    # -- start and stop

    def startService(self) -> None:
        """Serve what was bound; CannotStart where a Twisted endpoint cannot listen."""
        super().startService()  # type: ignore[no-untyped-call]
        logs.threshold.set("debug" if self._verbose else "info")
        reasons = self._lending.start()
        self.succession.take_up()
        if self.succession.goes_on:
            # those who wait for a slot come first: the page and the manhole bring large libraries along
            self._rest = self._reactor.callLater(REST, self.serving.start_rest)
        elif reasons := [*reasons, *self.serving.start_rest()]:
            # the daemon does not come up half
            raise CannotStart("\n".join(f"distbal: {reason}" for reason in reasons))
        self._came.give_averages(self._slots, self.leases.scheduler.hosts, self._reactor.seconds())
        for wrong in self._came.wrong:
            self.log.error("{wrong}", wrong=wrong)
        self._tell_image()
        self._inside.start()
        self._kept.look()
        self._upgrader.start()
        self._reactor.callWhenRunning(execing.unblock)
        self._signal_before = signal.signal(signal.SIGHUP, self._hang_up)
        farm = self.leases.scheduler.farm
        self._ask_hosts(farm)
        asked = monitorconfig.summary(self.settings.monitors)
        self.log.info(
            "distbal {version}, hosts: {hosts}, slots: {slots}, policy: {policy}; listening on {ports}{asked}{decided}",
            version=__version__,
            asked=f"; monitors: {asked}" if asked else "",
            decided=logwords.decided(self.admin.overlay.decisions),
            slots=sum(host.slots for host in farm.hosts),
            hosts=len(farm.hosts),
            policy=farm.policy,
            ports=", ".join(f"{one.spec.kind} {one.port or one.spec.at}" for one in self.serving.opened),
        )
        notify("READY=1")
        if self._keeping is not None:
            self._keeping.ready(__version__, f"serves {len(farm.hosts)} hosts")

    def stopService(self) -> Deferred[Any]:
        super().stopService()  # type: ignore[no-untyped-call]
        notify("STOPPING=1")
        if self._signal_before is not None:
            signal.signal(signal.SIGHUP, self._signal_before)
            self._signal_before = None
        if self._rest is not None and self._rest.active():
            self._rest.cancel()
        closed: list[Deferred[Any]] = [self._upgrader.stop(), *self.serving.stop()]
        closed.append(self.monitors.stop())
        self._lending.proxy.stop()
        closed += self._frontends.stop()
        self._spells.stop()
        self.leases.stop()
        self.succession.stop()
        closed.append(self._kept.saved().addBoth(lambda _: self._kept.close()))
        self.log.info(
            "slots lent since the start: {granted}; clients that left while they waited: {withdrawn}; refused after"
            " queue.wait: {refused}",
            **self.leases.scheduler.counts,
        )
        self._inside.stop()
        return DeferredList(closed)

    # -- what the verbs need (admin.Daemon)

    def serve(self, farm: Farm) -> None:
        """Serve this farm from now on."""
        # a host may have other options than one of its name had before
        self._terms.replies = Replies(self.settings.reply)
        self.succession.terms_change()
        self.leases.configure(farm)
        if self.running:
            self._ask_hosts(farm)

    def reload_file(self) -> Deferred[tuple[list[str], list[str]]]:
        """Read the file again: why it was not taken in, nothing where it was; and then what is doubtful of it."""
        return self.reload().addCallback(lambda taken: ([], self._doubts) if taken else (self._refusal, []))

    def export(self, made: Decisions) -> Deferred[str]:
        """The file as it would have to be for these decisions."""
        # loaded when somebody wants it
        from distbal.export import exported

        # one at a time: each takes one of ten threads for seconds, in which changes are kept and names looked up
        return self._exporting.run(deferToThread, exported, self.path, self._text, made, time.time())

    def save(self, made: Decisions, changes: Changes) -> None:
        """Keep these across restarts."""
        self._kept.save(made, changes)

    def saved(self) -> Deferred[str]:
        """Fires when they are kept: with why they are not, or ""."""
        return self._kept.saved()

    def log_jobs(self, each: bool) -> None:
        """Whether each job is logged."""
        self.serving.log_jobs(each)

    def upgrade(self) -> Deferred[Going]:
        """Go on as other code, without an end."""
        return self._upgrader.upgrade()

    def _resume(self) -> None:
        """An upgrade came to nothing: ask the hosts again, and let people stay."""
        self._frontends.stay()
        self._ask_hosts(self.leases.scheduler.farm)

    def _tell_image(self) -> None:
        """What this code took up, for whoever asks."""
        self._inside.lost = self.succession.came.lost
        began: Literal["start", "upgrade", "recovery"] = self._lending.left.began
        if began == "start" and self.succession.goes_on:
            began = "recovery"
        self.reporter.image.update(
            {"began": began, "before": self._lending.left.version, "taken_up": self.succession.came.numbers()}
        )

    def _ask_hosts(self, farm: Farm) -> None:
        """Let the monitors ask the hosts of this farm."""
        settings = self.settings
        named = {spec.name for spec in settings.farm.hosts}
        self.monitors.configure(monitorconfig.served(settings.monitors, settings.common, named, farm.hosts))

    # -- reload

    def reload(self) -> Deferred[bool]:
        """Read the file again, and do what it says; a file that cannot be used changes nothing.

        :returns: whether it was taken in. One reload at a time; a further one reads the file once more when its turn comes.
        """
        # a file of 10,000 hosts takes seconds, in which jobs must go on
        return self._reloading.run(lambda: deferToThread(config.load, self.path).addCallbacks(self._take_in, self._cannot_read))

    def _cannot_read(self, failure: Failure) -> bool:
        if not isinstance(failure.value, ConfigError):
            bugs.met("reload", self.log, "{path} could not be read, by a bug", failure, path=self.path)
            self._refusal = [f"{self.path} could not be read, by a bug: the log tells more"]
            return False
        return self._refuse([describe(self.path, mistake) for mistake in failure.value.mistakes])

    def _refuse(self, reasons: list[str]) -> bool:
        self._refusal = reasons
        for reason in reasons:
            self.log.error("{reason}", reason=reason)
        self.log.error("{path} was not taken in: nothing has changed", path=self.path)
        return False

    def _take_in(self, loaded: config.Loaded) -> bool | Deferred[bool]:
        """The last step that can fail is to bind new ports; it comes before anything is changed."""
        if not self.running:
            self._refusal = ["distbal stops"]
            return False
        settings = loaded.settings
        kept, gone, wanted = sort_out(self.serving.opened, settings.listen)
        try:
            new = open_all(wanted)
        except ListenError as error:
            ours = [str(one.spec.at) for one in gone if any(one.spec.at.overlaps(spec.at) for spec in wanted)]
            reasons = [str(error), *(f"distbal itself listens on {at}: to listen there otherwise, restart it" for at in ours)]
            return self._refuse(reasons)
        self._doubts = [describe(self.path, mistake) for mistake in loaded.warnings]
        if settings.state != self._state:
            self._doubts.append(f"state is {self._state or 'nowhere'} until a restart, and from then on where the file says")
        for doubt in self._doubts:
            self.log.warn("{warning}", warning=doubt)
        closing = DeferredList([one.close() for one in gone])
        self.serving.opened = kept + new
        before, self.settings = self.settings, settings
        self._text = loaded.text
        self.succession.note_file()
        self.succession.terms_change()
        self._agree()
        self._doubts += self._frontends.configure()
        self.admin.file_changed(settings.farm)
        self._ask_hosts(self.leases.scheduler.farm)
        told = logwords.changes(before, settings, gone, new)
        self.log.info("{path} was taken in; {changes}", path=self.path, changes=told)
        warn_of_little_room(self.log, settings, descriptors.raise_limit(), self._room)
        # an endpoint that listens on the port of one that is gone can do so only when that one has closed
        return closing.addCallback(lambda _: self._serve_new(new))

    def _serve_new(self, new: list[Opened]) -> bool:
        if self.running:
            self.serving.serve(new)
        return True

    def _hang_up(self, signum: int, frame: FrameType | None) -> None:
        # the system called us between two instructions: the reactor does it when it can
        self._reactor.callFromThread(self._reload_if_none_waits)

    def _reload_if_none_waits(self) -> None:
        # one that has yet to begin will read what is there now
        if not self._reloading.waiting:
            self.reload().addCallbacks(self._hung_up, self._met_bug)

    def _met_bug(self, failure: Failure) -> None:
        bugs.met("reload", self.log, "{path} could not be taken in, by a bug", failure, path=self.path)

    def _hung_up(self, taken: bool) -> None:
        if taken:
            # the system does not say who sent the signal
            self.admin.reloaded_by(Who("-", "SIGHUP"))

    def _agree(self) -> None:
        """Let the ports go by what the file says now."""
        self._terms.replies = Replies(self.settings.reply)
        self._terms.allow_clients = self.settings.allow["clients"]
        self._terms.allow_update = self.settings.allow["update"]

    def _notebook(self, put: Callable[[str, bytes], None], noted: Iterable[str]) -> Notebook:
        """Notes for the next process what is known of hosts."""
        return Notebook(
            self.leases,
            put,
            cast("IReactorTime", self._reactor),
            slots=self._slots,
            activity=self._came.activity,
            began=self.reporter.started,
            terms=lambda: CarriedTerms(self.leases.scheduler.farm, self.settings.reply, self.settings.allow["clients"]),
            noted=noted,
        )

    def _name_ports(self) -> None:
        """The text of 5657 names the first port of each kind."""
        self._frontends.name_ports(self.serving.port("balance"), self.serving.port("status"))
