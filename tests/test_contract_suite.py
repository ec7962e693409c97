"""The contract suite finds each way to break the contract: one monitor for each, and the sentence that is said of it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated, Any

import pytest
import pytest_twisted
from pydantic import ConfigDict
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import implementer
from zope.interface.exceptions import Invalid

from distbal.errors import MonitorTrouble
from distbal.forms import whole_number
from distbal.interfaces import IHostMonitor, IHostMonitorFactory, Reading, Target
from distbal.monitors.kit import MonitorKind, MonitorOptions, Surroundings, Unreachable, connect
from distbal.testing import MonitorContract, surroundings
from distbal.testing.holdings import asleep
from tests.services import taken_port
from tests.support import ROOT

counted = pytest.mark.skipif(not asleep(), reason="this kernel does not count what threads wait for")
#: what the broken ones leave behind, to be put away after the test
LITTER = ExitStack()


class OddOptions(MonitorOptions):
    """Takes anything."""

    model_config = ConfigDict(extra="ignore")


class BareOptions(MonitorOptions):
    """One option has no description."""

    jobs: Annotated[int, whole_number(1, 9, lambda text: "no")] = 1


@implementer(IHostMonitor)
class Good:
    """Connects, and keeps the connection; derived from by all that do something wrong."""

    def __init__(self, target: Target, options: Any, surroundings: Surroundings) -> None:
        self.target = target
        self.surroundings = surroundings
        self.kept: Any = None

    async def check(self) -> Any:
        if self.kept is None:
            try:
                self.kept = await connect(self.surroundings, self.target.host, self.target.port, Protocol)
            except Unreachable as problem:
                return problem.reading()
        return Reading(up=True, reason="takes connections")

    def stop(self) -> Any:
        if self.kept is not None:
            self.kept.transport.abortConnection()


class Opens(Good):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.own = LITTER.enter_context(socket.socket())


class Raises(Good):
    async def check(self) -> Any:
        raise ValueError("oh")


class Answers(Good):
    answer: Any = None

    async def check(self) -> Any:
        return self.answer


class Nonsense(Answers):
    answer = Reading(up=True, weight=7)


class TwoLines(Answers):
    answer = Reading(up=True, reason="one\ntwo")


class Silence(Answers):
    answer = None


class Plain(Good):
    def check(self) -> Any:
        return Reading(up=True)


class Wordless(Good):
    async def check(self) -> Any:
        raise MonitorTrouble("")


class Leaks(Good):
    async def check(self) -> Any:
        LITTER.enter_context(socket.socket())
        return Reading(up=True)


class LeaksWhenCancelled(Good):
    async def check(self) -> Any:
        if self.kept is None:
            return await super().check()
        sock = LITTER.enter_context(socket.socket())
        await Deferred()
        sock.close()
        return None


class KeepsOn(Good):
    def stop(self) -> None:
        if self.kept is not None:
            LITTER.callback(self.kept.transport.abortConnection)


class StopFails(Good):
    async def stop(self) -> None:
        raise ValueError("oh")


class Hangs(Good):
    """It cannot be cancelled."""

    async def check(self) -> Any:
        if self.kept is None:
            return await super().check()
        try:
            await Deferred()
        except CancelledError:
            goes_on: Deferred[None] = Deferred()
            LITTER.callback(goes_on.callback, None)
            await goes_on
        return None


class Ticks(Good):
    async def check(self) -> Any:
        call = self.surroundings.reactor.callLater(1000, int)
        LITTER.callback(call.cancel)
        return Reading(up=True)


class Forks(Good):
    async def check(self) -> Any:
        process = LITTER.enter_context(subprocess.Popen(["sleep", "1000"]))  # noqa: ASYNC220 (so are other people's)
        LITTER.callback(process.kill)
        return Reading(up=True)


class Works(Good):
    """In a thread of its own, which it does not end."""

    async def check(self) -> Any:
        over = threading.Event()
        LITTER.callback(over.set)
        threading.Thread(target=over.wait, name="works").start()
        return Reading(up=True)


class Sleeps(Good):
    async def check(self) -> Any:
        time.sleep(0.8)  # noqa: ASYNC251 (so do other people's)
        return Reading(up=True)


class SleepsLater(Good):
    async def check(self) -> Any:
        await deferLater(self.surroundings.reactor, 0.001)
        time.sleep(0.8)  # noqa: ASYNC251
        return Reading(up=True)


class Borrows(Good):
    async def check(self) -> Any:
        await self.surroundings.slots.take(self.target.name)
        return Reading(up=True)


class AlwaysUp(Good):
    async def check(self) -> Any:
        return Reading(up=True)


class Logs(Good):
    async def check(self) -> Any:
        Logger().error("a bug")
        return Reading(up=True)


class Hoarder(Protocol):
    def __init__(self) -> None:
        self.all: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        self.all.append(data)


class Hoards(Good):
    async def check(self) -> Any:
        if self.kept is None:
            self.kept = await connect(self.surroundings, self.target.host, self.target.port, Hoarder)
        if self.target.name == "elsewhere:3632":
            await Deferred()
        return Reading(up=True)


@implementer(IPlugin, IHostMonitorFactory)
class Kind(MonitorKind):
    name = "broken"
    description = "what is wrong?"

    def __init__(self, made: type = Good, **other: Any) -> None:
        self._made = made
        vars(self).update(other)

    def monitor(self, target: Target, options: Any, surroundings: Surroundings) -> Any:
        return self._made(target, options, surroundings)


class Suite(MonitorContract):
    factory: Any = Kind()
    patience = 0.6
    silence = 0.05

    @contextmanager
    def host(self) -> Iterator[Target]:
        with taken_port() as port:
            yield Target("alpha:3632", "127.0.0.1", port)


@pytest.fixture
def litter() -> Iterator[None]:
    yield
    LITTER.close()


class TestGood(Suite):
    factory = Kind()
    patience = MonitorContract.patience


def run(kind: Kind, test: str) -> Deferred[None]:
    class Now(Suite):
        factory = kind
        silence = 5.0 if test == "a_flood" else Suite.silence

    outcome = getattr(Now(), f"test_{test}")()
    return succeed(None) if outcome is None else outcome


@pytest.mark.usefixtures("litter")
@pytest.mark.parametrize(
    ("made", "test", "said"),
    [
        (Opens, "making_one_opens_nothing", "a monitor that was only made holds: descriptor"),
        (
            Raises,
            "a_host_that_answers",
            r"a check of the host of host\(\) raised ValueError, where only MonitorTrouble is no bug",
        ),
        (Nonsense, "a_host_that_answers", r"the reading of the host of host\(\) is none: weight is None or a number"),
        (TwoLines, "a_host_that_answers", r"the reason of the host of host\(\) is more than one line"),
        (Silence, "a_host_that_answers", r"the host of host\(\) should be found up, and this came of it: None"),
        (Plain, "a_host_that_answers", r"check\(\) returns a Deferred, or is an async def; not Reading"),
        (Wordless, "a_host_that_answers", "raised a MonitorTrouble without words"),
        (Leaks, "a_host_that_answers", r"after stop\(\) there is still:\n  descriptor"),
        (
            LeaksWhenCancelled,
            "checks_that_are_cancelled",
            "after checks that were cancelled, .* holds more than after one check",
        ),
        (KeepsOn, "a_host_that_answers", r"after stop\(\) there is still:\n  a reader or writer"),
        (StopFails, "a_host_that_answers", r"stop\(\) failed:"),
        (Hangs, "checks_that_are_cancelled", "a check that was cancelled at once has not ended after 0.6 s"),
        (Ticks, "a_host_that_answers", r"after stop\(\) there is still:\n  a delayed call"),
        (Forks, "a_host_that_answers", r"after stop\(\) there is still:\n  the process"),
        (Works, "a_host_that_answers", r"after stop\(\) there is still:\n  the thread works"),
        pytest.param(Sleeps, "a_host_that_answers", r"a check held the reactor up for [0-9.]+ s", marks=counted),
        pytest.param(SleepsLater, "a_host_that_answers", r"something held the reactor up for [0-9.]+ s", marks=counted),
        (Borrows, "a_host_that_answers", "4 slots that the monitor took were never given back"),
        (AlwaysUp, "nobody_listens", r"nobody listens there, and this came of it: Reading\(up=True"),
        (Logs, "a_host_that_answers", "errors were logged:\na bug"),
        (Hoards, "a_flood", "bytes without an end, and .* of memory are in use"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_monitors_do_wrong(made: type, test: str, said: str, logged_errors: Any) -> None:
    with pytest.raises(AssertionError, match=said):
        await run(Kind(made), test)
    logged_errors.flush()


@pytest.mark.parametrize(
    ("wrong", "test", "said"),
    [
        ({"name": "two words"}, "the_factory", "name: letters"),
        ({"description": "two\nlines"}, "the_factory", "description: one line"),
        ({"description": ""}, "the_factory", "description: one line"),
        ({"most_at_once": 0}, "the_factory", "most_at_once"),
        ({"silence_is_down": None}, "the_factory", "silence_is_down"),
        ({"requires": ("no_such_module",)}, "the_factory", "cannot be tested here: broken needs no_such_module"),
        ({"options": dict}, "the_options", "a subclass of MonitorOptions"),
        ({"options": BareOptions}, "the_options", "options without a description: jobs"),
        ({"options": OddOptions}, "the_options", "an option that there is not should be a mistake"),
    ],
)
def test_what_factories_do_wrong(wrong: dict[str, Any], test: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        run(Kind(**wrong), test)


def test_what_is_no_factory() -> None:
    class NoPlugin(Suite):
        factory = object()

    with pytest.raises(Invalid):
        NoPlugin().test_the_factory()


@pytest_twisted.ensureDeferred
async def test_surroundings_lend_slots() -> None:
    target = Target("alpha", "127.0.0.1", 1)
    slots = surroundings(reactor, target, slots=2).slots
    loans = [await slots.take("alpha") for _ in range(2)]
    assert (slots.lent("alpha"), slots.has_free("alpha")) == (2, False)
    for loan in loans:
        loan.give_back()
    assert slots.lent("alpha") == 0


def test_nothing_of_pytest_is_loaded() -> None:
    program = "import sys, distbal.testing; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert not {"pytest", "_pytest", "pytest_twisted", "twisted.internet.reactor"} & set(done.stdout.split())


def test_with_trial(tmp_path: Any) -> None:
    """The other runner that knows Deferreds, with a class of its own."""
    (tmp_path / "test_mine.py").write_text(
        "from contextlib import contextmanager\n"
        "import socket\n"
        "from twisted.trial.unittest import TestCase\n"
        "from distbal.monitors.tcp import TcpKind\n"
        "from distbal.testing import MonitorContract, Target\n"
        "class TestMine(MonitorContract, TestCase):\n"
        "    factory = TcpKind()\n"
        "    @contextmanager\n"
        "    def host(self):\n"
        "        with socket.create_server(('127.0.0.1', 0)) as server:\n"
        "            yield Target('alpha:3632', '127.0.0.1', server.getsockname()[1])\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    done = subprocess.run(
        # as the command trial does it
        [sys.executable, "-c", "from twisted.scripts.trial import run; run()", "test_mine"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED" in done.stdout
