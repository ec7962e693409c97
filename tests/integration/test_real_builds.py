"""Builds as users run them, with the real distcc, distccd, make, ccache, CMake and Ninja, the daemon and distbal-wrap."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.integration.farm import Farm, until
from tests.integration.project import Project
from tests.support import need

pytestmark = pytest.mark.programs

CC = "CC=distbal-wrap distcc gcc"

MakeProject = Callable[..., Project]


def test_make_spreads_a_build(farm: Farm, make_project: MakeProject) -> None:
    """Every part is compiled by a server, the link takes no lease, and the program runs."""
    project = make_project(12)
    built = project.run("make", "-j8", CC, "program")
    assert (built.returncode, built.stderr) == (0, "")
    assert project.run(project.directory / "program").returncode == sum(range(12))
    farm.await_compiled(13)
    assert farm.granted() == 13
    assert all(server.compiled() for server in farm.servers)
    farm.await_clients(0, 0)


def test_an_error_is_the_compilers(farm: Farm, make_project: MakeProject) -> None:
    """Exit status and words are the compiler's; what distcc adds, it marks as its own. The rest of the build goes on."""
    project = make_project(6)
    (project.directory / "part6.c").write_text("int part6(void) { return 1 +; }\n")
    plain = project.run("gcc", "-c", "part6.c")
    assert plain.returncode == 1
    one = project.run("distbal-wrap", "distcc", "gcc", "-c", "part6.c")
    assert (one.returncode, one.stdout) == (plain.returncode, "")
    assert [line for line in one.stderr.splitlines() if not line.startswith("distcc[")] == plain.stderr.splitlines()
    built = project.run("make", "-k", "-j4", CC)
    assert built.returncode == 2
    others = ("distcc[", "make: ")
    assert [line for line in built.stderr.splitlines() if not line.startswith(others)] == plain.stderr.splitlines()
    assert project.is_built()
    farm.await_clients(0, 0)


def test_an_interrupt_gives_everything_back(farm: Farm, make_project: MakeProject) -> None:
    """Ctrl-C reaches the whole process group: jobs that run and jobs that wait are over, and the next build has the farm."""
    project = make_project(12)
    with farm.held(), project.building("make", "-j8", CC) as make:
        farm.await_clients(5, 3)
        os.killpg(make.pid, signal.SIGINT)
        assert project.end(make).returncode in {-signal.SIGINT, 2}
        farm.await_clients(0, 0)
        assert project.objects() == set()
    again = project.run("make", "-j8", CC)
    assert (again.returncode, again.stderr) == (0, "")
    assert project.is_built()


def test_ccache_in_front_asks_only_for_what_it_lacks(farm: Farm, make_project: MakeProject) -> None:
    need("ccache")
    project = make_project(6)
    project.env |= {"CCACHE_PREFIX": "distbal-wrap distcc", "CCACHE_DIR": str(project.directory.parent / "cache")}
    for _ in range(2):
        built = project.run("make", "-j6", "CC=ccache gcc")
        assert (built.returncode, built.stderr) == (0, "")
        assert project.is_built()
        assert farm.granted() == 6
        project.clean()
    farm.await_compiled(6)


def test_masquerade_directory(farm: Farm, make_project: MakeProject, wrap_program: Path) -> None:
    """A build that knows nothing of distcc: links named as the compilers, in front of PATH."""
    project = make_project(6)
    links = project.directory.parent / "masquerade"
    links.mkdir()
    for name in ("gcc", "cc"):
        (links / name).symlink_to(wrap_program)
    project.env["PATH"] = f"{links}:{os.environ['PATH']}"
    built = project.run("make", "-j6", "CC=gcc", "program")
    assert (built.returncode, built.stderr) == (0, "")
    assert project.run(project.directory / "program").returncode == sum(range(6))
    farm.await_compiled(7)
    assert farm.granted() == 7


def test_cmake_launcher(farm: Farm, make_project: MakeProject) -> None:
    need("cmake", "ninja")
    project = make_project(6)
    lines = ["cmake_minimum_required(VERSION 3.13)", "project(it C)", "file(GLOB parts *.c)", "add_executable(it ${parts})"]
    (project.directory / "CMakeLists.txt").write_text("\n".join(lines))
    launcher = "-DCMAKE_C_COMPILER_LAUNCHER=distbal-wrap;distcc"
    configured = project.run("cmake", "-G", "Ninja", "-B", "out", "-S", ".", "-DCMAKE_C_COMPILER=gcc", launcher)
    assert configured.returncode == 0, configured.stderr
    compiled, granted = farm.compiled(), farm.granted()
    built = project.run("ninja", "-C", "out", "-j6")
    assert built.returncode == 0, built.stdout
    assert project.run(project.directory / "out" / "it").returncode == sum(range(6))
    farm.await_compiled(compiled + 7)
    assert farm.granted() == granted + 7


@contextmanager
def two_builds(farm: Farm, make_project: MakeProject, **environment: str) -> Iterator[None]:
    """Two users' builds; the block runs while no compiler gets on. Then both end well."""
    projects = [make_project(10, label) for label in ("ann", "bob")]
    for project in projects:
        project.env |= environment
    with ExitStack() as stack:
        with farm.held():
            makes = [stack.enter_context(project.building("make", "-j6", CC)) for project in projects]
            yield
        for project, make in zip(projects, makes, strict=True):
            built = project.end(make)
            assert (built.returncode, built.stderr) == (0, "")
            assert project.is_built()
    farm.await_compiled(20)


def test_two_builds_share_without_collisions(farm: Farm, make_project: MakeProject) -> None:
    """Twelve jobs at once for five slots: at no time did a server run more than its slots, and all slots were used."""
    with two_builds(farm, make_project):
        farm.await_clients(5, 7)
        farm.await_running(3, 2)
    assert [server.most() for server in farm.servers] == [3, 2]
    farm.await_clients(0, 0)


def test_without_the_balancer_two_builds_collide(farm: Farm, make_project: MakeProject) -> None:
    """What the test before would see: distcc's own list, with the same slots, gives each build all of them."""
    fast, slow = farm.servers
    hosts = f"--localslots_cpp=16 {fast.name}/3 {slow.name}/2"
    with two_builds(farm, make_project, DISTBAL="", DISTBAL_CLIENT_FILE="/nowhere", DISTCC_HOSTS=hosts):
        until(lambda: fast.running() == 6, "a collision")
    assert fast.most() > fast.slots
