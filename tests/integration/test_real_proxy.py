"""Builds by way of the proxy, with the real distcc and distccd: distcc knows one server, and distbal-wrap is nowhere."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.farm import Farm, until
from tests.integration.project import Project, proxied
from tests.support import need

pytestmark = pytest.mark.programs

CC = "CC=distcc gcc -O2"
#: repairs Debian 12's distcc-pump
PUMP = Path(__file__).parent / "pump"

MakeProject = Callable[..., Project]


def built_here(project: Project) -> dict[str, bytes]:
    """The objects as this machine makes them; they are removed again."""
    built = project.run("make", "-j2", "CC=gcc -O2")
    assert (built.returncode, built.stderr) == (0, "")
    assert project.is_built()
    contents = project.contents()
    project.clean()
    return contents


def spoken(farm: Farm) -> dict[int, int]:
    """How many requests the servers had in each version of the protocol."""
    return dict(sum((server.protocols() for server in farm.servers), Counter()))


@pytest.mark.parametrize(("options", "version"), [("", 1), (",lzo", 2)])
def test_a_build(farm: Farm, tmp_path: Path, options: str, version: int) -> None:
    """Each part is compiled by a server, in the version that distcc was told, and comes out as it does here."""
    project = proxied(farm, tmp_path, 12, options=options)
    here = built_here(project)
    built = project.run("make", "-j8", CC, "program")
    assert (built.returncode, built.stderr) == (0, "")
    assert project.run(project.directory / "program").returncode == sum(range(12))
    assert project.contents() == here
    farm.await_compiled(13)
    assert farm.granted() == 13
    assert all(server.compiled() for server in farm.servers)
    assert spoken(farm) == {version: 13}
    farm.await_clients(0, 0)


def test_a_build_in_pump_mode(farm: Farm, tmp_path: Path) -> None:
    """The servers are sent the sources and their headers, and preprocess them."""
    need("distcc-pump")
    project = proxied(farm, tmp_path, 12, options=",cpp,lzo")
    # a header of some length, which differs from part to part where it is preprocessed
    words = "".join(f'static const char word{number}[] = __FILE__ " {"x" * 50}";\n' for number in range(200))
    with (project.directory / "parts.h").open("a") as header:
        header.write(f"{words}const char *PASTE(last, PART_NUMBER)(void) {{ return word199; }}\n")
    for number in range(12):
        text = f"#define PASTE(a, b) PASTE_(a, b)\n#define PASTE_(a, b) a##b\n#define PART_NUMBER {number}\n"
        path = project.directory / f"part{number}.h"
        path.write_text(text + path.read_text())
    here = built_here(project)
    project.env["PYTHONPATH"] = str(PUMP)
    built = project.run("distcc-pump", "make", "-j8", CC, "program")
    assert (built.returncode, built.stderr) == (0, "")
    assert "in pump mode" in built.stdout
    assert project.run(project.directory / "program").returncode == sum(range(12))
    assert project.contents() == here
    farm.await_compiled(13)
    assert all(server.compiled() for server in farm.servers)
    assert spoken(farm) == {3: 13}
    farm.await_clients(0, 0)


@pytest.mark.parametrize("options", ["", ",lzo"])
def test_errors_and_warnings_are_the_compilers(farm: Farm, tmp_path: Path, options: str) -> None:
    """Exit status and words are the compiler's; what distcc adds, it marks as its own. The rest of the build goes on."""
    project = proxied(farm, tmp_path, 6, options=options)
    (project.directory / "part6.c").write_text("int part6(void) { return 1 +; }\n")
    (project.directory / "warned.c").write_text("int warned(void) { int unused; return 1; }\n")
    for name, status in (("part6.c", 1), ("warned.c", 0)):
        # a server is sent no source that it could quote
        words = ("gcc", "-Wall", "-fno-diagnostics-show-caret", "-c", name)
        plain = project.run(*words)
        assert plain.returncode == status
        assert plain.stderr
        one = project.run("distcc", *words)
        assert (one.returncode, one.stdout) == (status, "")
        assert not_distccs(one.stderr) == plain.stderr.splitlines()
    built = project.run("make", "-k", "-j4", CC)
    assert built.returncode == 2
    assert any("error: expected expression" in line for line in built.stderr.splitlines())
    assert project.is_built()
    farm.await_compiled(1 + 6)
    farm.await_clients(0, 0)


def not_distccs(said: str) -> list[str]:
    return [line for line in said.splitlines() if not line.startswith("distcc[")]


def test_more_jobs_than_slots(farm: Farm, tmp_path: Path) -> None:
    """A server never runs more compilers than it has slots, and all are used."""
    project = proxied(farm, tmp_path, 24)
    with project.building("make", "-j16", CC) as make:
        with farm.held():
            farm.await_clients(5, 11)
            farm.await_running(3, 2)
        built = project.end(make)
    assert (built.returncode, built.stderr) == (0, "")
    assert project.is_built()
    farm.await_compiled(24)
    assert [server.most() for server in farm.servers] == [3, 2]
    farm.await_clients(0, 0)


def test_both_ways_in_share_the_slots(farm: Farm, make_project: MakeProject, tmp_path: Path) -> None:
    """One build by way of the proxy, one that asks on 5656: to the scheduler a client is a client."""
    ways = {"proxy": (proxied(farm, tmp_path, 12, "ann"), CC), "asks": (make_project(12, "bob"), "CC=distbal-wrap distcc gcc")}
    ways["asks"][0].env["DISTCC_FALLBACK"] = "0"
    with ExitStack() as stack:
        with farm.held():
            makes = [(one, stack.enter_context(one.building("make", "-j6", compiler))) for one, compiler in ways.values()]
            farm.await_clients(5, 7)
            farm.await_running(3, 2)
        for one, make in makes:
            built = one.end(make)
            assert (built.returncode, built.stderr) == (0, "")
            assert one.is_built()
    farm.await_compiled(24)
    assert farm.granted() == 24
    assert [server.most() for server in farm.servers] == [3, 2]
    farm.await_clients(0, 0)


def test_an_interrupt_gives_everything_back(farm: Farm, tmp_path: Path) -> None:
    """Ctrl-C: jobs that wait are forgotten, those that run are stopped where they run, and the next build has the farm."""
    project = proxied(farm, tmp_path, 12)
    with farm.held(), project.building("make", "-j8", CC) as make:
        farm.await_clients(5, 3)
        farm.await_running(3, 2)
        until(lambda: [server.alive() for server in farm.servers] == [3, 2], "the compilers")
        os.killpg(make.pid, signal.SIGINT)
        assert project.end(make).returncode in {-signal.SIGINT, 2}
        farm.await_clients(0, 0)
        # held as they are, they end all the same
        until(lambda: not any(server.alive() for server in farm.servers), "the compilers' end")
        assert project.objects() == set()
    again = project.run("make", "-j8", CC)
    assert (again.returncode, again.stderr) == (0, "")
    assert project.is_built()
    farm.await_compiled(12)
    farm.await_clients(0, 0)
