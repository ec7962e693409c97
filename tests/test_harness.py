"""The harness itself: what tests/conftest.py promises to catch is caught, shown on tests that misbehave."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import ROOT, packages

if TYPE_CHECKING:
    from pathlib import Path

MISBEHAVIOUR = """
import subprocess, threading, warnings
import pytest, pytest_twisted
from twisted.internet import defer, protocol, reactor
from twisted.logger import Logger
from tests.support import need

log = Logger()

def test_fine(): pass
def test_flushed(logged_errors):
    log.error("told")
    assert [event["log_format"] for event in logged_errors.flush()] == ["told"]
def test_logs_error(): log.error("told")
def test_logs_failure():
    try: 1 / 0
    except ZeroDivisionError: log.failure("oh")
def test_deferred_unheard(): defer.fail(RuntimeError("unheard"))
def test_unheard_in_a_cycle():
    deferred = defer.fail(RuntimeError("unheard"))
    deferred.itself = deferred
@pytest_twisted.ensureDeferred
async def test_delayed_call(): reactor.callLater(60, print)
@pytest_twisted.ensureDeferred
async def test_listener(): reactor.listenTCP(0, protocol.ServerFactory(), interface="127.0.0.1")
def test_process():
    import sys; sys.child = subprocess.Popen(["sleep", "60"])
def test_process_is_gone():
    import sys; sys.child.kill(); sys.child.wait()
def test_warning(): warnings.warn("deprecated", DeprecationWarning)
def test_resource(): open("/dev/null")
def test_thread():
    thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()
@pytest.mark.xfail
def test_passes_unexpectedly(): pass
def test_needs(monkeypatch):
    monkeypatch.setenv("PATH", "")
    need("tclsh")
def test_skips(): pytest.skip("for another reason")
"""


@pytest.mark.parametrize("ci", [True, False])
def test_misbehaviour_is_caught(tmp_path: Path, ci: bool) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import *  # noqa: F403\n")
    (tmp_path / "test_misbehaviour.py").write_text(MISBEHAVIOUR)
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment |= {"PYTHONPATH": str(ROOT)} | ({"CI": "true"} if ci else {})
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), str(tmp_path)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    outcomes: dict[str, set[str]] = {"PASSED": set(), "FAILED": set(), "ERROR": set()}
    for outcome, name in re.findall(r"^(PASSED|FAILED|ERROR) test_misbehaviour.py::test_(\w+)", done.stdout, re.MULTILINE):
        outcomes[outcome].add(name)
    logs = {"logs_error", "logs_failure", "deferred_unheard", "unheard_in_a_cycle"}
    caught_later = logs | {"delayed_call", "listener", "process"}
    assert outcomes["ERROR"] == caught_later, done.stdout
    assert outcomes["FAILED"] == {"warning", "resource", "thread", "passes_unexpectedly"} | ({"needs"} if ci else set())
    assert outcomes["PASSED"] == caught_later | {"fine", "flushed", "process_is_gone"}
    assert f"{1 if ci else 2} skipped" in done.stdout.splitlines()[-1]


def test_every_program_has_a_package() -> None:
    assert all(packages().values())
