"""distbal-wrap, and farms of real servers."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from tests.browser import Browser, start, stop
from tests.integration.farm import Farm, clean_environment, running_farm
from tests.integration.project import Project, project
from tests.support import ROOT, need


@pytest.fixture(scope="session")
def wrap_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """distbal-wrap, compiled."""
    need("cc", "make")
    build = tmp_path_factory.mktemp("client")
    subprocess.run(["make", "-s", "-C", ROOT / "distbal" / "wrap", f"BUILD={build}"], check=True, env=clean_environment())
    return build / "distbal-wrap"


@pytest.fixture
def farm() -> Iterator[Farm]:
    """Two servers, of 3 slots and of 2."""
    need("distcc", "distccd", "gcc", "make")
    with running_farm(("fast", 3, 0.0), ("slow", 2, 0.05)) as one:
        yield one


@pytest.fixture
def make_project(farm: Farm, wrap_program: Path, tmp_path: Path) -> Callable[..., Project]:
    """``make_project(files, label="project")``: a project that the farm builds; the label tells two of them apart."""

    def make(files: int, label: str = "project") -> Project:
        return project(farm, tmp_path, wrap_program, files, label)

    return make


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, for a whole module."""
    need("chromium")
    one = pytest_twisted.blockon(Deferred.fromCoroutine(start()))
    yield one
    pytest_twisted.blockon(Deferred.fromCoroutine(stop(one)))
