"""docs/monitors.md teaches what works: its example is taken out of its text, found by twisted.plugin, and meets a real sshd."""

from __future__ import annotations

import importlib
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import pytest_twisted
import yaml
from twisted.internet import reactor
from twisted.plugin import getPlugins

import distbal.plugins
from distbal.errors import MonitorTrouble
from distbal.interfaces import IHostMonitorFactory, Target
from distbal.monitors import readings
from distbal.monitors.kit import MonitorOptions
from distbal.testing import MonitorContract, surroundings
from tests.sshd import Sshd, serving
from tests.support import ROOT

TEXT = (ROOT / "docs" / "monitors.md").read_text()
PLUGIN = "distbal.plugins.desktop"


def kinds() -> dict[str, Any]:
    """All kinds that twisted.plugin finds now, by their names."""
    return {kind.name: kind for kind in getPlugins(IHostMonitorFactory, distbal.plugins)}


def example(name: str) -> str:
    """The text of one of the document's files."""
    found = re.search(rf"^<!-- {re.escape(name)} -->\n```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for PYTHONPATH, made as the document says."""
    directory = tmp_path_factory.mktemp("python")
    plugins = directory / "distbal" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "desktop.py").write_text(example("distbal/plugins/desktop.py"))
    return directory


@pytest.fixture(scope="module")
def plugin(path: Path) -> Iterator[Any]:
    """The example's module, found as distbal finds it, and forgotten at the end."""
    distbal.plugins.__path__.append(str(path / "distbal" / "plugins"))
    try:
        assert {"desktop", "exec", "tcp"} <= set(kinds())
        yield importlib.import_module(PLUGIN)
    finally:
        distbal.plugins.__path__.pop()
        sys.modules.pop(PLUGIN, None)
        vars(distbal.plugins).pop("desktop", None)


def test_on_pythonpath_it_is_found(path: Path, tmp_path: Path) -> None:
    program = (
        "from twisted.plugin import getPlugins; from distbal.interfaces import IHostMonitorFactory; import distbal.plugins\n"
        "for kind in getPlugins(IHostMonitorFactory, distbal.plugins): print(kind.name, type(kind).__module__, sep=': ')"
    )
    paths = os.pathsep.join([str(path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert f"desktop: {PLUGIN}" in done.stdout.splitlines()
    assert "tcp: distbal.monitors.tcp" in done.stdout.splitlines()
    assert done.stderr == ""


# -- what only this monitor knows


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        ("now=1000\n", 1000),
        ("now=1000\nread=400\nread=900\nread=1\n", 100),
        ("now=1000\nread=1008\n", 0),
        ("Welcome!\nnow=1000\nread=900\nIdleHint=no\nIdleSinceHint=0\n", 0),
        ("now=1000\nread=400\nIdleHint=yes\nIdleSinceHint=700000000\n", 300),
        ("now=1000\nread=400\nIdleHint=yes\nIdleSinceHint=0\n", 600),
    ],
)
def test_what_the_example_makes_of_an_answer(plugin: Any, answer: str, seconds: int) -> None:
    assert plugin.seconds_unused(answer.encode()) == seconds


@pytest.mark.parametrize("answer", [b"", b"read=400\n", b"now=\n", b"\xff\x00" * 1000, b"now=" + b"1" * 1000])
def test_what_makes_no_sense_to_the_example(plugin: Any, answer: bytes) -> None:
    with pytest.raises(MonitorTrouble, match="did not say what time it is"):
        plugin.seconds_unused(answer)


# -- with a real server


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serving(tmp_path_factory) as one:
        yield one


def login(sshd: Sshd) -> dict[str, Any]:
    """What hosts.yaml would say of that server."""
    return sshd.options().model_dump(include={"user", "port", "key", "known_hosts"})


@pytest.mark.programs
@pytest_twisted.ensureDeferred
async def test_the_example_sees_that_somebody_types(plugin: Any, sshd: Sshd) -> None:
    target = Target("alpha:3632", "127.0.0.1", 3632)
    kind = plugin.desktop
    options = kind.options.model_validate(login(sshd) | {"idle": 1, "weight_in_use": 0.125})
    monitor = kind.monitor(target, options, surroundings(reactor, target))
    person, terminal = pty.openpty()
    try:
        os.write(person, b"hello\n")
        assert os.read(terminal, 100) == b"hello\n"
        began = time.monotonic()
        reading = await monitor.check()
    finally:
        os.close(person)
        os.close(terminal)
        await monitor.stop()
    assert (reading.up, reading.weight, reading.reason) == (True, 0.125, "is used by somebody")
    # the kernel keeps that time to 8 s
    assert reading.facts["minutes_unused"] <= (8 + time.monotonic() - began) / 60 + 0.1


@pytest.mark.programs
@pytest_twisted.ensureDeferred
async def test_what_nobody_touched_for_so_long_takes_all(plugin: Any, sshd: Sshd) -> None:
    target = Target("alpha:3632", "127.0.0.1", 3632)
    kind = plugin.desktop
    monitor = kind.monitor(target, kind.options.model_validate(login(sshd) | {"idle": 0}), surroundings(reactor, target))
    try:
        reading = await monitor.check()
    finally:
        await monitor.stop()
    assert reading.weight == 1.0
    assert reading.reason.startswith("has not been used for ")


@pytest.mark.programs
class TestDesktop(MonitorContract):
    """What the document's own text of a test comes to: its class, with the options that lead to the test's server."""

    silence = 0.2

    @pytest.fixture(autouse=True)
    def written(self, plugin: Any, sshd: Sshd) -> None:
        namespace: dict[str, Any] = {"__name__": "test_desktop"}
        exec(compile(example("test_desktop.py"), "test_desktop.py", "exec"), namespace)  # noqa: S102 (that is the test)
        self.theirs = namespace["TestDesktop"]()
        assert self.theirs.factory is plugin.desktop
        assert set(self.theirs.options) <= set(plugin.DesktopOptions.model_fields)
        self.factory = self.theirs.factory
        self.port_option = self.theirs.port_option
        self.more: Mapping[str, Any] = MappingProxyType(login(sshd))

    @contextmanager
    def host(self) -> Iterator[tuple[Target, Mapping[str, Any]]]:
        with self.theirs.host() as target:
            yield target, self.more


# -- the rest of the text


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_its_examples_of_hosts_yaml_name_kinds_and_options_that_there_are(plugin: Any) -> None:
    known = kinds()
    seen = set()
    for text in blocks("yaml"):
        file = yaml.safe_load(text)
        parts = [file, *(host for host in file["hosts"] if isinstance(host, dict))]
        for name, options in (item for part in parts for item in part.get("monitors", {}).items()):
            if isinstance(options, dict):
                kind = known[options.pop("kind", name)]
                kind.options.model_validate(options)
                seen.add(kind.name)
            else:
                assert isinstance(options, bool)
    assert seen == {"desktop", "exec", "ssh"}


def test_its_other_python_runs() -> None:
    *_, steady = [text for text in blocks("python") if "Steady()" in text]
    namespace: dict[str, Any] = {}
    exec(steady, namespace)  # noqa: S102 (that is the test)
    assert namespace["weight"] == 0.61


def test_it_names_the_options_that_all_kinds_have() -> None:
    table = re.search(r"^\| option \| is \|\n\|---\|---\|\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    assert table is not None
    assert re.findall(r"^\| `(\w+)`", table[1], re.MULTILINE) == list(MonitorOptions.model_fields)


@pytest.mark.parametrize(
    "words",
    [
        f"cut at {readings.MOST_REASON} characters",
        f"{readings.MOST_FACTS} facts are kept of a reading",
        f"names of {readings.MOST_NAME} characters and texts of {readings.MOST_TEXT}.",
    ],
)
def test_its_figures_are_those_of_the_code(words: str) -> None:
    assert words in " ".join(TEXT.split())


def test_the_kinds_that_are_there_are_in_its_table() -> None:
    table = re.search(r"^\| kind \|.*\n\|[-|]+\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    assert table is not None
    described = set(re.findall(r"^\| `(\w+)`", table[1], re.MULTILINE))
    program = (
        "from twisted.plugin import getPlugins; from distbal.interfaces import IHostMonitorFactory; import distbal.plugins\n"
        "print(*(kind.name for kind in getPlugins(IHostMonitorFactory, distbal.plugins)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert set(done.stdout.split()) <= described
