"""Servers that refuse, die or turn clients away, behind the proxy: what clients see of it, and what they do not."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.integration.farm import PATIENCE, Farm, running_farm, until
from tests.integration.project import Project, proxied
from tests.support import need

pytestmark = pytest.mark.programs

CC = "CC=distcc gcc"


def builds(project: Project, jobs: int) -> None:
    """It is built, by servers alone and without a word; then it is as before."""
    built = project.run("make", f"-j{jobs}", CC)
    assert (built.returncode, built.stderr) == (0, "")
    assert project.is_built()
    project.clean()


def test_a_server_that_refuses_is_never_seen(farm: Farm, tmp_path: Path) -> None:
    """Its jobs go elsewhere; when it is back it gets jobs again, with no monitor to tell."""
    fast, slow = farm.servers
    project = proxied(farm, tmp_path, 6)
    fast.kill()
    builds(project, 8)
    paused = time.monotonic()
    farm.await_compiled(6)
    assert (fast.compiled(), slow.most()) == (0, 2)
    assert f"{fast.name} refused the connection; no jobs go there for 5 s, then one on trial" in farm.log
    # a build that takes longer than that has tried it again, and the next pause is longer
    pause = float(re.findall(rf"{fast.name} refused the connection; no jobs go there for (\S+) s", farm.log)[-1])
    fast.start()
    farm.await_state(fast, up=True)
    assert time.monotonic() - paused < pause + 2
    # the first one there is on trial, alone; then it is as if nothing had been
    builds(project, 8)
    farm.await_compiled(12)
    assert f"{fast.name} can be reached again" in farm.log
    with project.building("make", "-j6", CC) as make:
        with farm.held():
            farm.await_running(3, 2)
        assert project.end(make).returncode == 0
    farm.await_clients(0, 0)


def test_all_refuse_for_a_while(farm: Farm, tmp_path: Path) -> None:
    """The build stands still until a server is back, and then goes on as if nothing had been."""
    project = proxied(farm, tmp_path, 6)
    for server in farm.servers:
        server.kill()
    with project.building("make", "-j4", CC) as make:
        farm.await_clients(0, 4)
        for server in farm.servers:
            farm.await_state(server, up=False)
            server.start()
        built = project.end(make)
    assert (built.returncode, built.stderr) == (0, "")
    assert project.is_built()
    farm.await_compiled(6)
    farm.await_clients(0, 0)


def test_a_server_dies_while_it_compiles(farm: Farm, tmp_path: Path) -> None:
    """Its clients are told, and compile here; the others notice nothing, and it gets no further jobs."""
    fast, slow = farm.servers
    project = proxied(farm, tmp_path, 12)
    project.env |= {"DISTCC_FALLBACK": "1", "DISTCC_BACKOFF_PERIOD": "1"}
    with project.building("make", "-j6", CC) as make:
        with farm.held():
            farm.await_clients(5, 1)
            farm.await_running(3, 2)
            slow.kill()
        built = project.end(make)
    assert built.returncode == 0, built.stderr
    assert project.is_built()
    assert built.stderr.count("running locally instead") >= 2
    until(lambda: fast.compiled() >= 3, "the good server's jobs")
    assert slow.compiled() == 0
    farm.await_clients(0, 0)


def test_a_server_dies_while_it_is_sent_a_file(farm: Farm, tmp_path: Path) -> None:
    """Much of the file is on its way, in buffers and in a pipe; the client is told at once."""
    fast, slow = farm.servers
    project = proxied(farm, tmp_path, 0)
    project.env["DISTCC_FALLBACK"] = "1"
    rows = "".join(f'"{number:0500}"\n' for number in range(60_000))
    (project.directory / "large.c").write_text(f"const char large[] =\n{rows};\n")
    slow.kill()
    fast.freeze()
    with project.building("distcc", "gcc", "-c", "large.c") as client:
        farm.await_clients(1, 0)
        # more than buffers hold, so that both sides have come to a halt by then
        time.sleep(1)
        began = time.monotonic()
        fast.kill()
        farm.await_clients(0, 0)
        # what it takes to compile the file here is not in it
        assert time.monotonic() - began < 10
        built = project.end(client)
    assert built.returncode == 0, built.stderr
    assert "running locally instead" in built.stderr
    assert (project.directory / "large.o").stat().st_size > len(rows) * 0.9
    farm.await_clients(0, 0)


def test_a_server_whose_compiler_is_missing(farm: Farm, tmp_path: Path) -> None:
    """It says so, which is an answer as from a compile that failed; and as after one, distcc tries again here."""
    fast, _ = farm.servers
    project = proxied(farm, tmp_path, 1)
    del project.env["DISTCC_SKIP_LOCAL_RETRY"]
    project.env["DISTCC_FALLBACK"] = "1"
    empty = farm.directory / "empty"
    empty.mkdir()
    fast.stop()
    fast.path = str(empty)
    fast.start()
    built = project.run("make", CC)
    assert built.returncode == 0, built.stderr
    assert project.is_built()
    assert "failed with exit code 110" in built.stderr
    assert "retrying locally" in built.stderr
    until(lambda: " is over: answered" in farm.log, "the end of the job")
    assert farm.granted() == 1
    farm.await_clients(0, 0)


def test_a_compiler_that_a_server_does_not_list(farm: Farm, tmp_path: Path) -> None:
    """It closes without an answer, the job is compiled here, and what came of it is told by the log."""
    project = proxied(farm, tmp_path, 1)
    project.env |= {"DISTCC_FALLBACK": "1", "PATH": f"{tmp_path}:{project.env['PATH']}"}
    compiler = tmp_path / "our-own-cc"
    compiler.write_text('#!/bin/sh\nexec gcc "$@"\n')
    compiler.chmod(0o755)
    built = project.run("make", f"CC=distcc {compiler.name}")
    assert built.returncode == 0, built.stderr
    assert project.is_built()
    assert "running locally instead" in built.stderr
    until(lambda: " is over: no-answer" in farm.log, "the end of the job")
    assert farm.granted() == 1
    assert farm.compiled() == 0
    farm.await_clients(0, 0)


@contextmanager
def said_by(number: int, port: int) -> Iterator[socket.socket]:
    """A client at an address of its own, that has sent the beginning of a request."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE, source_address=(f"127.0.0.{number}", 0)) as sock:
        sock.sendall(b"DIST00000001ARGC00000001ARGV00000002cc")
        yield sock


def turned_away(number: int, port: int) -> bool:
    """Whether the connection is closed without an answer."""
    with said_by(number, port) as sock:
        try:
            return sock.recv(1) == b""
        except ConnectionResetError:
            return True


def test_a_server_that_turns_clients_away_is_used_last(tmp_path: Path) -> None:
    """As distccd does where the balancer is not among those it allows. It looks free for ever, and would eat all jobs."""
    need("distcc", "distccd", "gcc", "make")
    with running_farm(("closed", 3, 0.0, "127.0.0.99"), ("open", 2, 0.0)) as farm, ExitStack() as stack:
        closed, open_to_us = farm.servers
        project = proxied(farm, tmp_path, 8)
        words = f"{closed.name} closed jobs of 3 clients without an answer: it is used last"
        # one client alone proves nothing
        for number in (2, 2, 2, 3):
            assert turned_away(number, farm.proxy)
        assert words not in farm.log
        assert turned_away(4, farm.proxy)
        until(lambda: words in farm.log, "the verdict")
        builds(project, 2)
        farm.await_compiled(8)
        assert open_to_us.compiled() == 8
        # last is not never: it is asked where the others are full, and one answer clears it
        closed.stop()
        closed.allow = "127.0.0.1"
        closed.start()
        with farm.held():
            make = stack.enter_context(project.building("make", "-j5", CC))
            farm.await_running(3, 2)
        assert project.end(make).returncode == 0
        until(lambda: f"{closed.name} answers again" in farm.log, "the other verdict")
        farm.await_clients(0, 0)
