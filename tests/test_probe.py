"""``distbal probe`` and ``distbal monitors``, as programs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.farm import until
from tests.support import ROOT, free_port

DEAD = """\
import os
import sys
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.plugin import IPlugin
from zope.interface import implementer
from distbal.errors import MonitorTrouble
from distbal.interfaces import IHostMonitor, IHostMonitorFactory, Reading
from distbal.monitors.kit import MonitorKind

@implementer(IHostMonitor)
class Odd:
    def __init__(self, host):
        self.host = host

    def check(self):
        if self.host == "exiting":
            sys.exit(3)
        return self.ask()

    async def ask(self):
        if self.host == "fine" and "ODD_SAID" in os.environ:
            reactor.callLater(0.1, lambda: open(os.environ["ODD_SAID"], "w").close())
        if self.host == "silent":
            await Deferred()
        if self.host == "deaf":
            waits = Deferred()
            waits.cancel = lambda: None
            await waits
        if self.host == "leaving":
            raise SystemExit(2)
        if self.host == "buggy":
            return 1 / 0
        if self.host == "locked":
            raise MonitorTrouble("does not let us in")
        if self.host == "resting":
            return None
        while self.host == "stubborn":
            try:
                await Deferred()
            except GeneratorExit:
                raise
            except BaseException:
                pass
        return Reading(up=True, reason="is odd", weight=0.5, slots=7, facts={"load": 0.25, "compilers": ("gcc", "g++")})

    def stop(self):
        if self.host == "buggy":
            return 1 / 0
        return Deferred() if self.host == "stubborn" else None

@implementer(IPlugin, IHostMonitorFactory)
class OddKind(MonitorKind):
    name = "odd"
    description = "answers oddly"

    def monitor(self, target, options, surroundings):
        return (Rigged if target.name == "rigged" else Odd)(target.name)

odd = OddKind()
"""


def distbal(*words: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": ":".join(map(str, [ROOT, *([path] if path else [])]))}
    return subprocess.run(
        [sys.executable, "-m", "distbal", *words], capture_output=True, text=True, timeout=60, check=False, env=env, cwd=ROOT
    )


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """A directory for $PYTHONPATH with a kind in it."""
    directory = tmp_path / "path"
    (directory / "distbal" / "plugins").mkdir(parents=True)
    (directory / "distbal" / "plugins" / "odd.py").write_text(DEAD)
    return directory


def test_it_asks_each_host_and_shows_what_they_say(tmp_path: Path) -> None:
    file = tmp_path / "hosts.yaml"
    with socket.create_server(("127.0.0.1", 0)) as sock:
        good, bad = sock.getsockname()[1], free_port()
        file.write_text(f"hosts: ['127.0.0.1:{good}/1', '127.0.0.1:{bad}/1']\nmonitors: {{tcp: true}}\n")
        done = distbal("probe", str(file))
        assert (done.returncode, done.stderr) == (1, "")
        lines = [line.split() for line in done.stdout.splitlines()]
        assert lines[0] == ["HOST", "MONITOR", "STATE", "WEIGHT", "TOOK", "WHAT", "IT", "SAID"]
        assert lines[1][:3] == [f"127.0.0.1:{good}", "tcp", "up"]
        assert lines[1][5:] == ["takes", "connections"]
        assert lines[2][:3] == [f"127.0.0.1:{bad}", "tcp", "down"]
        assert lines[2][5:] == ["refused", "the", "connection"]
        assert distbal("probe", str(file), f"127.0.0.1:{good}").returncode == 0


def test_every_kind_of_answer_is_shown(tmp_path: Path, plugins: Path) -> None:
    file = tmp_path / "hosts.yaml"
    file.write_text("hosts: [fine/1, silent/1, buggy/1, locked/1, resting/1]\nmonitors: {odd: {timeout: 0.2}}\n")
    done = distbal("probe", str(file), path=plugins)
    assert done.returncode == 1, done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines()[1:]}
    assert "up" in rows["fine"]
    assert "0.50" in rows["fine"]
    assert "is odd (load 0.25, compilers gcc g++, slots 7)" in rows["fine"]
    assert "trouble" in rows["silent"]
    assert "did not answer within 0.2 s" in rows["silent"]
    assert "bug" in rows["buggy"]
    assert "met a bug: ZeroDivisionError: division by zero" in rows["buggy"]
    assert "does not let us in" in rows["locked"]
    assert "had no occasion to ask" in rows["resting"]
    shown = json.loads(distbal("probe", str(file), "fine", "--json", path=plugins).stdout)
    assert shown[0].pop("took") >= 0
    assert shown == [
        {
            "host": "fine",
            "monitor": "odd",
            "kind": "odd",
            "state": "up",
            "words": "is odd",
            "weight": 0.5,
            "slots": 7,
            "facts": {"load": 0.25, "compilers": ["gcc", "g++"]},
        }
    ]


def test_a_monitor_that_never_ends_keeps_nobody_from_an_answer(tmp_path: Path, plugins: Path) -> None:
    file = tmp_path / "hosts.yaml"
    file.write_text("hosts: [fine/1, stubborn/1, exiting/1]\nmonitors: {odd: {timeout: 0.2}}\n")
    done = distbal("probe", str(file), path=plugins)
    rows = {line.split()[0]: line for line in done.stdout.splitlines()[1:]}
    assert "is odd" in rows["fine"]
    assert "met a bug: a check was cancelled and did not end" in rows["stubborn"]
    assert "met a bug: SystemExit: 3" in rows["exiting"]
    assert (done.returncode, done.stderr) == (1, "")


def test_what_was_said_before_an_interrupt_is_shown(tmp_path: Path, plugins: Path) -> None:
    file = tmp_path / "hosts.yaml"
    file.write_text("hosts: [silent/1, fine/1]\nmonitors: {odd: {timeout: 600}}\n")
    said = tmp_path / "asked"
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{plugins}", "ODD_SAID": str(said)}
    command = [sys.executable, "-m", "distbal", "probe", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd=ROOT) as probe:
        until(lambda: said.exists() or probe.poll() is not None, "an answer")
        probe.send_signal(signal.SIGINT)
        output, errors = probe.communicate(timeout=60)
    assert [line.split()[:3] for line in output.splitlines()[1:]] == [["fine", "odd", "up"]]
    assert errors == "distbal: interrupted: 1 of 2 answers had not come\n"
    assert probe.returncode == 1


@pytest.mark.parametrize(
    ("file", "words", "said"),
    [
        ("hosts: [a/1]\n", [], "has no monitors: write some, such as monitors: {tcp: true}"),
        ("hosts: [a/1]\nmonitors: {tcp: true}\n", ["b"], "has no host b; it has a"),
        ("hosts: [a/1]\nmonitors: {tcp: true}\n", ["--monitor", "ssh"], "has no monitor ssh; it has tcp"),
        ("hosts: [a/1, {name: b, slots: 1, monitors: {tcp: false}}]\nmonitors: {tcp: true}\n", ["b"], "no monitor asks b"),
        (
            "hosts: [a/1, {name: b, slots: 1, monitors: {t: {kind: tcp}}}]\nmonitors: {tcp: true}\n",
            ["a", "--monitor", "t"],
            "no monitor t asks a",
        ),
        ("hosts: [a/1]\nmonitors: {tpc: true}\n", [], "did you mean tcp?"),
    ],
)
def test_what_cannot_be_asked_is_said(tmp_path: Path, file: str, words: list[str], said: str) -> None:
    (tmp_path / "hosts.yaml").write_text(file)
    done = distbal("probe", str(tmp_path / "hosts.yaml"), *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_kinds_are_listed_with_their_options(plugins: Path) -> None:
    done = distbal("monitors", path=plugins)
    assert done.returncode == 0
    kinds = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert kinds["tcp"] == "does distccd's port take connections?"
    assert kinds["odd"] == "answers oddly"
    assert list(kinds) == sorted(kinds)
    done = distbal("monitors", "tcp")
    assert "  interval  10 " in done.stdout
    assert "required  false" in done.stdout
    done = distbal("monitors", "tpc")
    assert done.returncode == 1
    assert "there is no kind tpc: there are" in done.stderr
    (plugins / "distbal" / "plugins" / "halved.py").write_text("import no_such_library\n")
    done = distbal("monitors", path=plugins)
    assert done.returncode == 1
    assert "distbal: distbal/plugins/halved.py cannot be imported: No module named 'no_such_library'" in done.stderr
