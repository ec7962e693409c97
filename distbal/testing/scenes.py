"""One test's host, surroundings and monitors, and the end of all that: stopped, and nothing left behind."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import ServerFactory
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from distbal.errors import MonitorTrouble
from distbal.hosts import Farm, HostSpec
from distbal.interfaces import IHostMonitor, Reading, Target
from distbal.leases import LocalLeases
from distbal.lookup import Lookup, SystemResolver
from distbal.monitors.kit import Surroundings
from distbal.monitors.readings import tidy, validate_reading
from distbal.monitors.slots import Slots
from distbal.scheduler import Scheduler
from distbal.testing.holdings import Errors, Holdings, asleep, does_not_sleep, ended, eventually, expect

#: the second host of each scene: the one with which something is wrong
ELSEWHERE = "elsewhere:3632"
#: a check that was cancelled after its time
SILENCE = "silence"


def surroundings(reactor: Any, *targets: Target, slots: int = 4) -> Surroundings:
    """What monitors of these hosts are made with: the real thing, with a farm of these hosts that nobody else uses.

    :param reactor: the running one.
    :param slots: of each host.
    """
    hosts = tuple(HostSpec(one.name, slots, rank, address=(one.host, one.port)) for rank, one in enumerate(targets))
    leases = LocalLeases(Scheduler(Farm(hosts)), reactor)
    return Surroundings(reactor, Lookup(reactor, SystemResolver(reactor)), Slots(leases))


class Scene:
    """What one test works with.

    :ivar target: the host that answers, ``options`` its options as hosts.yaml has them.
    """

    def __init__(self, reactor: Any, contract: Any, target: Target, options: Mapping[str, Any]) -> None:
        self.reactor = reactor
        self.target = target
        self.options = dict(options)
        self.factory = contract.factory
        self._contract = contract
        self._elsewhere = replace(target, name=ELSEWHERE)
        self._surroundings: Surroundings = contract.surroundings(target, self._elsewhere)
        self._monitors: list[Any] = []
        self.before = Holdings(reactor)

    async def warm_up(self) -> None:
        """One check, so that what a kind imports and shares is there; that the host answers is told here."""
        await self.answers(self.monitor(), "the host of host()")
        await self.stop_all()
        self.before = Holdings(self.reactor)

    def monitor(self) -> Any:
        """A monitor of the host that answers."""
        return self._make(self.target, self.options)

    def monitor_elsewhere(self, port: int) -> Any:
        """A monitor of a host where all is the same but the port."""
        key = self._contract.port_option
        if key:
            return self._make(self._elsewhere, self.options | {key: port})
        return self._make(replace(self._elsewhere, port=port), self.options)

    def start(self, monitor: Any) -> Deferred[Any]:
        """Begin a check."""
        before = asleep()
        check = monitor.check()
        if inspect.iscoroutine(check):
            check = Deferred.fromCoroutine(check)
        does_not_sleep(before, "a check")
        expect(isinstance(check, Deferred), f"check() returns a Deferred, or is an async def; not {type(check).__name__}")
        return check  # type: ignore[no-any-return]

    async def ask(self, monitor: Any, whom: str, seconds: float | None = None) -> Reading | MonitorTrouble | str | None:
        """One check, cancelled after so many seconds, as distbal does it after the timeout.

        :returns: the reading or None, the trouble, or :data:`SILENCE`.
        """
        patience = self._contract.patience
        check = self.start(monitor)
        timer = self.reactor.callLater(patience if seconds is None else seconds, check.cancel)
        result = await ended(self.reactor, check, patience * 2, f"a check of {whom}")
        if not timer.active():
            return SILENCE
        timer.cancel()
        if isinstance(result, Failure):
            trouble = result.value
            if isinstance(trouble, MonitorTrouble):
                expect(str(trouble), f"the check of {whom} raised a MonitorTrouble without words")
                return trouble
            raised = f"{type(trouble).__name__}, where only MonitorTrouble is no bug"
            raise AssertionError(f"a check of {whom} raised {raised}:\n{result.getTraceback()}")
        if result is not None:
            self._look_at(result, whom)
        return result  # type: ignore[no-any-return]

    def _look_at(self, reading: Any, whom: str) -> None:
        wrong = validate_reading(reading)
        expect(not wrong, f"the reading of {whom} is none: {'; '.join(wrong)}")
        expect(len(reading.reason.splitlines()) <= 1, f"the reason of {whom} is more than one line: {reading.reason!r}")
        json.dumps(dict(tidy(reading).facts), allow_nan=False)

    async def answers(self, monitor: Any, whom: str, *, again: bool = False) -> None:
        """One check, of a host that is well.

        :param again: it is not the first: the monitor may find no occasion to ask.
        """
        reading = await self.ask(monitor, whom)
        if reading is None and again:
            return
        expect(isinstance(reading, Reading) and reading.up, f"{whom} should be found up, and this came of it: {reading!r}")

    async def cancelled(self, monitor: Any, after: float) -> None:
        """A check that is cancelled after so many seconds, unless it has ended before."""
        check = self.start(monitor)
        if after:
            await eventually(self.reactor, lambda: check.called, after)
        when = f"{after:g} s after its start" if after else "at once"
        result = await self.end(check, f"a check that was cancelled {when}")
        if isinstance(result, Failure) and not result.check(CancelledError, MonitorTrouble):  # type: ignore[no-untyped-call]
            self._contract.note(f"a check that was cancelled {when} ended with {type(result.value).__name__}")

    async def end(self, check: Deferred[Any], what: str) -> Any:
        """Cancel a check, and wait until it has ended; what came of it."""
        check.cancel()
        return await ended(self.reactor, check, self._contract.patience, what)

    async def holds_no_more(self, than: int, when: str) -> None:
        """Descriptors and processes are no more than that."""
        patience = self._contract.patience
        fits = await eventually(self.reactor, lambda: self.before.number() <= than, patience)
        expect(fits, f"{when}, the monitor still holds more than after one check: {'; '.join(self.before.more())}")

    async def stop(self, monitor: Any) -> None:
        """The last call."""
        self._monitors.remove(monitor)
        stopped = monitor.stop()
        if inspect.iscoroutine(stopped):
            stopped = Deferred.fromCoroutine(stopped)
        if stopped is None:
            return
        expect(isinstance(stopped, Deferred), f"stop() returns None or a Deferred, not {type(stopped).__name__}")
        result = await ended(self.reactor, stopped, self._contract.patience, "stop()")
        if isinstance(result, Failure):
            expect(False, f"stop() failed:\n{result.getTraceback()}")

    async def stop_all(self) -> None:
        """All monitors that are not yet stopped are."""
        for monitor in list(self._monitors):
            await self.stop(monitor)

    def give_up(self) -> None:
        """What is wrong is known; stop them, so that it harms no other test."""
        for monitor in self._monitors:
            with suppress(Exception):
                monitor.stop()

    async def nothing_is_left(self) -> None:
        """After the last stop."""
        patience = self._contract.patience
        clean = await eventually(self.reactor, lambda: not self.before.more(), patience)
        expect(clean, "\n  ".join([f"{patience:g} s after stop() there is still:", *self.before.more()]))
        lent = sum(self._surroundings.slots.lent(name) for name in (self.target.name, ELSEWHERE))
        expect(lent == 0, f"{lent} slots that the monitor took were never given back")

    def _make(self, target: Target, options: Mapping[str, Any]) -> Any:
        monitor = self.factory.monitor(target, self.factory.options.model_validate(options), self._surroundings)
        self._monitors.append(monitor)
        verifyObject(IHostMonitor, monitor)
        return monitor


@asynccontextmanager
async def scene(reactor: Any, contract: Any, *, warm: bool = True) -> AsyncIterator[Scene]:
    """A scene; at the end everything has to be let go.

    :param warm: see :meth:`Scene.warm_up`.
    """
    async with _entered(contract.host()) as given:
        target, more = given if isinstance(given, tuple) else (given, {})
        expect(isinstance(target, Target), f"host() is to give a Target, or a Target and options, not {type(target).__name__}")
        with Errors() as errors:
            # Twisted takes a descriptor in reserve with its first port
            await reactor.listenTCP(0, ServerFactory(), interface="127.0.0.1").stopListening()
            one = Scene(reactor, contract, target, {**contract.options, **more})
            try:
                if warm:
                    await one.warm_up()
                yield one
            except BaseException:
                one.give_up()
                raise
            await one.stop_all()
            await one.nothing_is_left()
            expect(not (words := errors.words()), "\n".join(["errors were logged:", *words]))


@asynccontextmanager
async def _entered(manager: Any) -> AsyncIterator[Any]:
    """A context manager of either kind, as an asynchronous one."""
    if hasattr(manager, "__aenter__"):
        async with manager as value:
            yield value
    else:
        with manager as value:
            yield value
