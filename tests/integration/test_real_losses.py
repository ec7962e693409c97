"""A server, or the balancer, that dies while a build runs: the build ends well."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.farm import Farm
from tests.integration.project import Project

pytestmark = pytest.mark.programs

CC = "CC=distbal-wrap distcc gcc"

MakeProject = Callable[..., Project]


def test_a_server_dies(farm: Farm, make_project: MakeProject) -> None:
    """Its jobs are done again where the client is, as distcc does without a balancer; the other server has its share."""
    fast, slow = farm.servers
    project = make_project(12)
    with project.building("make", "-j6", CC) as make:
        with farm.held():
            farm.await_running(3, 2)
            slow.kill()
        built = project.end(make)
    assert built.returncode == 0, built.stderr
    assert project.is_built()
    assert "running locally instead" in built.stderr
    assert fast.compiled() >= 3
    farm.await_clients(0, 0)


def test_the_balancer_dies(farm: Farm, make_project: MakeProject) -> None:
    """Jobs that run are not disturbed; those that waited, and all that come, go by the user's own list."""
    fast, slow = farm.servers
    project = make_project(12)
    project.env["DISTCC_HOSTS"] = f"--localslots_cpp=16 {fast.name}/3 {slow.name}/2"
    with project.building("make", "-j8", CC) as make:
        with farm.held():
            farm.await_clients(5, 3)
            farm.await_running(3, 2)
            farm.kill_balancer()
        built = project.end(make)
    assert built.returncode == 0, built.stderr
    assert project.is_built()
    said = built.stderr.splitlines()
    assert len(said) == 12 - 5
    assert all("going on with distcc's own list of hosts" in line for line in said)
    farm.await_compiled(12)


def test_the_balancer_dies_and_comes_back(farm: Farm, make_project: MakeProject) -> None:
    """With DISTBAL_FALLBACK=wait the build stands still meanwhile, and then goes on by leases."""
    project = make_project(12)
    project.env["DISTBAL_FALLBACK"] = "wait"
    with project.building("make", "-j8", CC) as make:
        with farm.held():
            farm.await_clients(5, 3)
            farm.await_running(3, 2)
            farm.kill_balancer()
        farm.await_compiled(5)
        farm.start_balancer()
        built = project.end(make)
    assert built.returncode == 0, built.stderr
    assert project.is_built()
    assert "waiting for one" in built.stderr
    farm.await_compiled(12)
    assert farm.granted() == 12
    farm.await_clients(0, 0)
