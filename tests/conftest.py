"""What every test is held to: no error logged, nothing left in the reactor, no process left behind.

pytest by itself does not notice an exception that Twisted caught and logged, nor a Deferred that failed unheard; here both fail
the test in which they happened. In CI (``$CI``) a test that is skipped because a program is missing fails too.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from hypothesis import settings
from twisted.internet.task import deferLater
from twisted.logger import formatEvent, globalLogPublisher

from distbal.bounds import bounds
from distbal.bugs import bugs
from tests.support import ROOT, TWISTED_DROPS_SOCKETS, LoggedErrors, in_ci

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from tests.sshd import Keys, Sshd

# a machine that is busy with something else is no fault of the code
settings.register_profile("distbal", deadline=None)
settings.load_profile("distbal")

#: turns of the reactor, 10 ms each, in which connections that are being closed may go
LAST_TURNS = 10


@pytest.fixture(autouse=True, scope="session")
def running_reactor() -> None:
    """Start the reactor before the first test, so that its own wakers are not taken for something left behind."""
    from twisted.internet import reactor

    pytest_twisted.blockon(deferLater(reactor, 0))


@pytest.fixture(autouse=True, scope="session")
def cached_plugins() -> None:
    """Let Twisted make its cache of plugins, which loads all of them: Conch, before Python 3.13, warns of a module it uses."""
    from twisted.internet.interfaces import IStreamServerEndpointStringParser
    from twisted.plugin import getPlugins

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'spwd' is deprecated", DeprecationWarning)
        list(getPlugins(IStreamServerEndpointStringParser))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Keys of SSH, for servers and users."""
    from tests.sshd import make_keys

    return make_keys(tmp_path_factory)


@pytest.fixture
def sshd(tmp_path: Path, keys: Keys) -> Iterator[Sshd]:
    """An SSH server that is not started yet, and whose ed25519 key is known."""
    from tests.sshd import server

    with server(tmp_path, keys) as one:
        yield one


@pytest.fixture(autouse=True)
def logged_errors() -> Iterator[LoggedErrors]:
    """The errors that the test logs; see :class:`tests.support.LoggedErrors`."""
    errors = LoggedErrors()
    bugs.begin()  # what an earlier test met is no old acquaintance
    bounds.begin()
    before = _holdings()
    globalLogPublisher.addObserver(errors)
    try:
        yield errors
        left = _left_over(before)
        gc.collect()  # a Deferred that failed says so when it goes
    finally:
        globalLogPublisher.removeObserver(errors)
    if events := errors.flush():
        pytest.fail("\n".join(["errors were logged:", *map(_describe, events)]), pytrace=False)
    if left:
        pytest.fail("\n".join(["the test left behind:", *left]), pytrace=False)


@pytest.fixture
def descriptors_stay() -> Iterator[None]:
    """The test leaves as many descriptors as it found."""
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred
    from twisted.internet.protocol import ServerFactory

    from tests.loops import open_descriptors
    from tests.peers import until

    # Twisted takes a reserve with its first port
    pytest_twisted.blockon(reactor.listenTCP(0, ServerFactory(), interface="127.0.0.1").stopListening())
    before = open_descriptors()
    yield

    async def same() -> None:
        await until(lambda: open_descriptors() == before, f"{before} descriptors, as before")

    pytest_twisted.blockon(Deferred.fromCoroutine(same()))


@pytest.fixture
def original() -> Path:
    """The directory of the Tcl original (``$DISTBAL_ORIGINAL``, or ../shared/original); skips where there is none."""
    path = Path(os.environ.get("DISTBAL_ORIGINAL") or ROOT.parent / "shared" / "original")
    if not (path / "run-original").exists():
        pytest.skip(f"the Tcl original is not in {path}; DISTBAL_ORIGINAL may name another directory")
    return path


def pytest_configure(config: pytest.Config) -> None:
    """Make up for what the surroundings lack.

    distcc that is interrupted leaves its temporary files behind: they get a directory that goes at the end.
    A shell ignores SIGINT in what it runs in the background, and so would every program that a test starts and interrupts.
    Twisted before 26.10 leaves a socket that it could not bind to the garbage collector, which complains.
    """
    tempfile.gettempdir()  # what pytest keeps of the last runs goes where it always goes
    os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="distbal-tests-")
    Path(os.environ["TMPDIR"]).chmod(0o1777)  # distccd changes its user
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if TWISTED_DROPS_SOCKETS:
        unbound = r"Exception ignored.*<socket\.socket .*laddr=\('0\.0\.0\.0', 0\)>"
        config.addinivalue_line("filterwarnings", f"ignore:{unbound}:pytest.PytestUnraisableExceptionWarning")


def pytest_unconfigure() -> None:
    """Remove what the programs left behind."""
    shutil.rmtree(os.environ.pop("TMPDIR"))


def pytest_collection_finish() -> None:
    """Take what is there before the first test out of the garbage collector's sight, so that a collection costs little."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that could not run for want of a program has failed, in CI."""
    report = yield
    _insist(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a whole module."""
    report = yield
    _insist(report)
    return report


def _insist(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip that tests.support.need asked for into a failure, where every program has to be there."""
    if in_ci() and report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if reason.startswith("needs "):
            report.outcome = "failed"
            report.longrepr = f"{reason} (with CI set, a missing program is a failure)"


def _holdings() -> tuple[Counter[Callable[..., Any]], set[Any], set[str]]:
    """Delayed calls (by what they call: a looping call makes a new one each time), readers and child processes."""
    from twisted.internet import reactor

    # func is not in the interface, but every reactor's delayed calls have it
    calls = Counter(call.func for call in reactor.getDelayedCalls())  # type: ignore[attr-defined]
    return calls, set(reactor.getReaders()), _children()


def _children() -> set[str]:
    found: set[str] = set()
    for task in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
            found.update(task.read_text().split())
    return found


def _left_over(before: tuple[Counter[Callable[..., Any]], set[Any], set[str]]) -> list[str]:
    """What is there now and was not before, after some turns of the reactor if need be."""
    from twisted.internet import reactor

    for turn in range(LAST_TURNS + 1):
        calls, readers, children = _holdings()
        left = [f"a delayed call of {call!r}" for call in calls - before[0]]
        left += [f"a reader: {reader!r}" for reader in readers - before[1]]
        left += [f"a process: {pid}" for pid in children - before[2]]
        if not left or turn == LAST_TURNS:
            return left
        pytest_twisted.blockon(deferLater(reactor, 0.01))
    raise AssertionError


def _describe(event: dict[str, Any]) -> str:
    failure = event.get("log_failure")
    text = formatEvent(event) or repr(event)
    return f"{text}\n{failure.getTraceback()}" if failure is not None else text
