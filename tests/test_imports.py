"""Imports point one way: errors <- core <- edges <- service; the core knows neither Twisted nor files nor a clock.

Read from the modules' text, imports inside functions included; imports for types alone count too, as they say who knows whom.
What runs outside the daemon is shown by running it: which modules are there after ``import distbal.cli``?
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

#: what can go wrong, and the extension points: known to everybody, know nobody
BASE = {"distbal", "distbal.errors", "distbal.interfaces"}
#: what composes the rest, and what loads it to see whether it can be composed
SERVICE = {"distbal.service", "distbal.balancer", "distbal.trial"}
#: what people and programs run
OUTSIDE = {
    *("distbal.cli", "distbal.__main__", "distbal.status", "distbal.verbcommand", "distbal.completion", "distbal.terminal"),
    *("distbal.adminclient", "distbal.top", "distbal.topmodel", "distbal.toplayout", "distbal.upgraded"),
}
#: what outlives the daemon, and what it starts it by
KEEPER = {
    *("distbal.keeper", "distbal.keeper.__main__", "distbal.keeper.channel", "distbal.keeper.child", "distbal.keeper.command"),
    *(
        "distbal.keeper.holding",
        "distbal.keeper.loop",
        "distbal.keeper.past",
        "distbal.keeper.replacing",
        "distbal.keeper.saying",
    ),
    *("distbal.keeper.signals", "distbal.keeper.systemd"),
}
#: what people's programs and the daemon share: words and tables, of the standard library alone
SHARED = {
    *("distbal.addresses", "distbal.hostspec", "distbal.verbs", "distbal.report", "distbal.columns"),
    *("distbal.tables", "distbal.hosttables", "distbal.keeperwire", "distbal.insidewords", "distbal.places"),
}
#: what would bring a clock, chance without a seed, files or the network into the core
IMPURE = {
    *(
        "asyncio",
        "multiprocessing",
        "os",
        "pathlib",
        "select",
        "selectors",
        "signal",
        "socket",
        "ssl",
        "subprocess",
        "threading",
    ),
    *("datetime", "io", "logging", "secrets", "sched", "shutil", "tempfile", "time", "uuid"),
}


def core() -> set[str]:
    """The core's modules: the Makefile names them, as their coverage is held higher."""
    line = re.search(r"^CORE := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert line is not None
    return {f"distbal.{name}" for name in line[1].split()} - BASE


def modules() -> dict[str, Path]:
    """Every module of the package by its name."""
    found = {}
    for path in sorted((ROOT / "distbal").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(text: str, module: str, known: set[str], package: bool = False) -> set[str]:
    """The modules that a module's text imports, anywhere in it; names of modules that are not ours as they are written.

    :param known: our own modules, so that ``from distbal import wire`` is seen to be ``distbal.wire``.
    """
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                ancestors = module.split(".")[: len(module.split(".")) - node.level + package]
                base = ".".join([*ancestors, *([base] if base else [])])
            inner = {f"{base}.{alias.name}" for alias in node.names} & known
            found |= inner or {base}
    return found


def forbidden(module: str, imported: set[str]) -> set[str]:
    """Those of a module's imports that its place in the house does not allow."""
    ours = {name for name in imported if name.split(".")[0] == "distbal"}
    others = imported - ours
    if module in BASE | core():
        allowed = BASE if module in BASE else BASE | core()
        strangers = {name for name in others if name.split(".")[0] not in sys.stdlib_module_names}
        if module == "distbal.interfaces":
            strangers = {name for name in strangers if not name.startswith("zope.interface")}
        return (ours - allowed) | strangers | {name for name in others if name.split(".")[0] in IMPURE}
    if module in SHARED:
        return (ours - BASE - core() - SHARED) | {name for name in others if name.split(".")[0] not in sys.stdlib_module_names}
    if module in KEEPER:
        allowed = {"distbal", "distbal.errors", "distbal.keeperwire", "distbal.places"} | KEEPER
        return (ours - allowed) | {name for name in others if name.split(".")[0] not in sys.stdlib_module_names}
    if module in SERVICE:
        return ours & (OUTSIDE | KEEPER)
    if module in OUTSIDE:
        return set()
    return ours & (SERVICE | OUTSIDE | KEEPER)


def test_every_import_points_the_right_way() -> None:
    ours = modules()
    assert core() <= set(ours), "the Makefile's CORE names a module that is not there"
    wrong = {
        name: bad
        for name, path in ours.items()
        if (bad := forbidden(name, imports(path.read_text(), name, set(ours), path.name == "__init__.py")))
    }
    assert wrong == {}


@pytest.mark.parametrize(
    ("module", "text", "bad"),
    [
        ("distbal.hosts", "import time", {"time"}),
        ("distbal.hosts", "def f():\n    from time import monotonic", {"time"}),
        ("distbal.hosts", "from twisted.internet import reactor", {"twisted.internet"}),
        ("distbal.hosts", "import yaml, pydantic", {"yaml", "pydantic"}),
        ("distbal.hosts", "from distbal import service, wire", {"distbal.service"}),
        ("distbal.hosts", "from . import service", {"distbal.service"}),
        ("distbal.hosts", "from .service import makeService", {"distbal.service"}),
        ("distbal.hosts", "import os.path", {"os.path"}),
        ("distbal.errors", "from distbal.hosts import Host", {"distbal.hosts"}),
        ("distbal.monitors.tcp", "from distbal.service import makeService", {"distbal.service"}),
        ("distbal.monitors.tcp", "from ..cli import main", {"distbal.cli"}),
        ("distbal.monitors.tcp", "from distbal.hosts import Host\nimport time, twisted", set()),
        ("distbal.hosts", "import random, heapq\nfrom distbal.health import Health", set()),
        ("distbal.service", "from distbal.hosts import Host\nimport distbal.cli", {"distbal.cli"}),
        ("distbal.service", "from distbal.keeper import loop", {"distbal.keeper.loop"}),
        ("distbal.keeper.loop", "from distbal.hosts import Host\nimport time, twisted", {"distbal.hosts", "twisted"}),
        (
            "distbal.tables",
            "import time, yaml\nfrom distbal import verbs, reporter, cli",
            {"yaml", "distbal.reporter", "distbal.cli"},
        ),
    ],
)
def test_a_wrong_import_is_seen(module: str, text: str, bad: set[str]) -> None:
    known = {f"distbal.{name}" for name in ("service", "wire", "hosts", "health", "cli", "verbs", "reporter", "keeper.loop")}
    assert forbidden(module, imports(text, module, known)) == bad


@pytest.mark.parametrize("module", sorted((OUTSIDE | KEEPER) - {"distbal.__main__"}))
def test_outside_the_daemon_nothing_of_it_is_loaded(module: str) -> None:
    program = f"import sys, {module}; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert module in loaded
    assert not loaded & {"twisted", "zope.interface", "yaml", "pydantic", "asyncio"}
    daemon = set(modules()) - BASE - OUTSIDE - SHARED - KEEPER - core()
    assert not loaded & daemon


def test_the_plugin_does_not_load_the_daemon() -> None:
    program = "import sys, twisted.plugins.distbal_plugin; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert not loaded & (set(modules()) - {"distbal"})
    assert "twisted.internet.reactor" not in loaded


def test_what_lends_loads_nothing_that_it_does_not_take() -> None:
    """Clients of the process before wait for it."""
    program = "import sys, distbal.service, distbal.lending, distbal.process; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert "distbal.serving" in loaded
    assert not loaded & {"yaml", "pydantic", "pydantic_core", "twisted.web", "twisted.conch"}
    rest = {"admin", "balancer", "config", "decisions", "frontends", "model", "reporter", "saver", "starting", "succession"}
    assert not loaded & {f"distbal.{name}" for name in rest}
    assert not {name for name in loaded if name.startswith(("distbal.monitors", "distbal.web", "distbal.manhole"))}


@pytest.mark.parametrize(("monitor", "loaded"), [("tcp", False), ("ssh", True)])
def test_a_file_loads_the_libraries_of_the_monitors_that_it_has(monitor: str, loaded: bool, tmp_path: Path) -> None:
    pytest.importorskip("bcrypt", reason="Conch needs bcrypt, which is not installed here")
    file = tmp_path / "hosts.yaml"
    file.write_text(f"hosts: [box/4]\nmonitors: {{{monitor}: true}}\n")
    program = f"import sys\nfrom distbal import config\nconfig.load({str(file)!r})\nprint(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert ("distbal.monitors.sshtalk" in done.stdout.split()) is loaded
