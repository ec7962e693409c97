"""The contract suite: one test a promise of distbal/interfaces.py."""

from __future__ import annotations

import re
import socket
import unittest
from collections.abc import Callable, Coroutine, Mapping
from functools import wraps
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError
from twisted.internet.defer import Deferred
from twisted.plugin import IPlugin
from zope.interface.verify import verifyObject

from distbal.errors import MonitorTrouble
from distbal.interfaces import IHostMonitorFactory, Reading, Target
from distbal.monitors.kit import MonitorOptions, Surroundings
from distbal.testing.holdings import eventually, expect, memory
from distbal.testing.scenes import SILENCE, Scene, scene, surroundings
from distbal.testing.servers import MEGABYTE, NONSENSE, server

#: seconds after which a check is cancelled, in turn; some are longer than most checks last
MOMENTS = (0.0, 0.0, 0.001, 0.005, 0.02, 0.05, 0.1, 0.3)
#: bytes that a monitor may keep, or leave to Python's memory, of a server that floods it
MOST_MEMORY = 32 * 1024 * 1024
#: bytes that a flood sends before it is enough
FLOOD = 100_000_000


def _test(body: Callable[[Any], Coroutine[Any, Any, None]]) -> Callable[[Any], Deferred[None]]:
    """A test whose Deferred pytest-twisted, or trial, waits for."""

    @wraps(body)
    def run(self: Any) -> Deferred[None]:
        return Deferred.fromCoroutine(body(self))

    return run


class MonitorContract:
    """Derive from it, in a class that your test runner finds: ``factory`` and :meth:`host` have to be given.

    All of these can stand in the class, or be set on the instance by a fixture.

    :ivar factory: an instance of the kind.
    :ivar options: what stands behind the kind's name in hosts.yaml.
    :ivar port_option: the option that names the port that a monitor connects to. "": it is the target's, distccd's own. None:
        it connects to none, and the tests with servers that say nonsense are skipped.
    :ivar udp: whether that is a port of UDP.
    :ivar patience: seconds in which whatever has to come about has, on a slow machine too.
    :ivar silence: seconds that a check of a silent server gets before it is cancelled.
    """

    factory: Any
    options: Mapping[str, Any] = MappingProxyType({})
    port_option: str | None = ""
    udp: bool = False
    patience: float = 20.0
    silence: float = 0.5

    def host(self) -> Any:
        """A context manager, ``async`` or not, that gives a :class:`Target` which answers well while the block runs.

        Or a Target and a mapping: options beside the class's own, such as the path of a key that was made just now.
        """
        raise NotImplementedError

    def surroundings(self, *targets: Target) -> Surroundings:
        """What the monitors of a test are made with; the tests share nothing."""
        from twisted.internet import reactor

        return surroundings(reactor, *targets)

    # -- the factory

    def test_the_factory(self) -> None:
        """It provides its interfaces, and is one line to people."""
        factory = self.factory
        verifyObject(IPlugin, factory)
        verifyObject(IHostMonitorFactory, factory)
        expect(isinstance(factory.name, str) and re.fullmatch("[A-Za-z0-9-]+", factory.name), "name: letters, digits and '-'")
        described = factory.description
        one_line = isinstance(described, str) and described.isprintable() and 0 < len(described) <= 100
        expect(one_line, "description: one line, at most 100 characters")
        at_once = factory.most_at_once
        expect(
            isinstance(at_once, int) and not isinstance(at_once, bool) and at_once >= 1,
            "most_at_once: a whole number, 1 or more",
        )
        expect(isinstance(factory.silence_is_down, bool), "silence_is_down: True or False")
        expect(isinstance(factory.why_unavailable(), str), "why_unavailable() returns a text")
        expect(factory.why_unavailable() == "", f"the checks cannot be tested here: {factory.why_unavailable()}")

    def test_the_options(self) -> None:
        """They are MonitorOptions, every one described, and take no key that is not theirs."""
        options = self.factory.options
        expect(isinstance(options, type) and issubclass(options, MonitorOptions), "options: a subclass of MonitorOptions")
        needed = {key for key, field in options.model_fields.items() if field.is_required()}
        if needed <= set(self.options):  # else host() gives them
            # defaults are checked as what stands in the file is
            options.model_validate({key: self.options[key] for key in needed})
        properties = options.model_json_schema()["properties"]
        bare = [key for key, schema in properties.items() if not schema.get("description")]
        expect(not bare, f"options without a description: {', '.join(bare)}")
        try:
            options.model_validate({**self.options, "no-such-option": 1})
        except ValidationError as wrong:
            if any("no-such-option" in mistake["loc"] for mistake in wrong.errors()):
                return
        raise AssertionError("an option that there is not should be a mistake; it is taken")

    # -- a host that is well

    @_test
    async def test_making_one_opens_nothing(self) -> None:
        """And it can be stopped without a check."""
        async with self._scene(warm=False) as one:
            monitors = [one.monitor(), one.monitor_elsewhere(_free_port(udp=self.udp))]
            left = one.before.more()
            expect(not left, f"a monitor that was only made holds: {'; '.join(left)}")
            for monitor in monitors:
                await one.stop(monitor)

    @_test
    async def test_a_host_that_answers(self) -> None:
        """Check after check: up, with a reading that can be shown."""
        async with self._scene(warm=False) as one:
            monitor = one.monitor()
            await one.answers(monitor, "the host of host()")
            for _ in range(3):
                await one.answers(monitor, "the host of host(), asked again", again=True)

    @_test
    async def test_two_monitors(self) -> None:
        """Two of two hosts, at the same time: neither does anything to the other."""
        async with self._scene() as one:
            good, bad = one.monitor(), one.monitor_elsewhere(_free_port(udp=self.udp))
            other = one.start(bad)
            await one.answers(good, "a host beside one that is down")
            await one.end(other, "a check that was cancelled")
            await one.stop(bad)
            await one.answers(good, "a host beside one that was removed", again=True)

    # -- checks that are cancelled

    @_test
    async def test_checks_that_are_cancelled(self) -> None:
        """At once, and a moment later: they let go, and the monitor can go on."""
        async with self._scene() as one:
            monitor = one.monitor()
            await one.answers(monitor, "the host of host()")
            kept = one.before.number()
            for moment in MOMENTS:
                await one.cancelled(monitor, moment)
            await one.holds_no_more(kept, "after checks that were cancelled")
            await one.answers(monitor, "a host of which checks were cancelled", again=True)

    @_test
    async def test_a_first_check_that_is_cancelled(self) -> None:
        """Of a monitor each, which is stopped then."""
        async with self._scene() as one:
            for moment in MOMENTS:
                monitor = one.monitor()
                await one.cancelled(monitor, moment)
                await one.stop(monitor)

    # -- servers that are not well

    @_test
    async def test_nobody_listens(self) -> None:
        """That is a host that is down, or a trouble; never one that is up."""
        self._needs_a_port()
        async with self._scene() as one:
            monitor = one.monitor_elsewhere(_free_port(udp=self.udp))
            for _ in range(2):
                answer = await one.ask(monitor, "a host where nobody listens", self.silence if self.udp else None)
                down = isinstance(answer, Reading) and not answer.up
                silent = self.udp and answer == SILENCE
                expect(
                    down or silent or isinstance(answer, MonitorTrouble),
                    f"nobody listens there, and this came of it: {answer!r}",
                )

    @_test
    async def test_a_silent_server(self) -> None:
        """It takes the connection and says nothing: the check is cancelled in the end."""
        await self._meet("a silent server")

    @_test
    async def test_a_server_that_closes(self) -> None:
        """At once, or after a word."""
        await self._meet("a server that closes at once", then="close")
        await self._meet("a server that closes in the middle", b"x", then="close")

    @_test
    async def test_nonsense(self) -> None:
        """Whatever a server says, a reading or a MonitorTrouble comes of it."""
        self._needs_a_port()
        async with self._scene() as one:
            for what, says in NONSENSE.items():
                await self._face(one, what, says, "close")
            for what, says in NONSENSE.items():
                # those that wait for more are no concern here
                await self._face(one, f"{what}, and the connection stays", says, "stay", self.silence / 2)

    @_test
    async def test_a_megabyte(self) -> None:
        """On one line, and on many."""
        await self._meet("a megabyte on one line", b"x" * MEGABYTE, then="close")
        await self._meet("a megabyte of lines", b"x y=1\r\n" * (MEGABYTE // 7), then="close")

    @_test
    async def test_a_flood(self) -> None:
        """However much comes, it is not kept."""
        self._needs_a_port()
        if self.udp:
            return
        async with self._scene() as one, server(one.reactor, udp=False, then="flood") as flood:
            monitor = one.monitor_elsewhere(flood.port)
            before = memory()
            check = one.start(monitor)
            await eventually(one.reactor, lambda: check.called or flood.sent > FLOOD, self.silence * 4)
            grown = memory() - before
            expect(
                grown < MOST_MEMORY, f"a server sent {flood.sent:,} bytes without an end, and {grown:,} of memory are in use"
            )
            await one.end(check, "a check of a flood that was cancelled")
            await one.stop_all()

    # -- the inside

    def note(self, words: str) -> None:
        """Something that is allowed, and a little odd; a test runner shows it where a test fails."""
        print(words)  # noqa: T201 (that is what test runners collect)

    def _scene(self, *, warm: bool = True) -> Any:
        from twisted.internet import reactor

        return scene(reactor, self, warm=warm)

    def _needs_a_port(self) -> None:
        if self.port_option is None:
            raise unittest.SkipTest(f"monitors of the kind {self.factory.name} connect to no port")

    async def _meet(self, what: str, says: bytes = b"", then: str = "stay") -> None:
        """Two checks of such a server by one monitor."""
        self._needs_a_port()
        async with self._scene() as one:
            await self._face(one, what, says, then, self.silence, self.silence)

    async def _face(self, one: Scene, what: str, says: bytes, then: str, *times: float) -> None:
        """A monitor's whole life with such a server: checks of so many seconds, and the end."""
        async with server(one.reactor, self.udp, says, then) as bad:
            monitor = one.monitor_elsewhere(bad.port)
            for seconds in times or (self.silence,):
                await one.ask(monitor, what, seconds)
            await one.stop(monitor)


def _free_port(*, udp: bool) -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
