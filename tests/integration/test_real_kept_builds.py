"""Two real builds, one by distbal-wrap and one by the proxy, whose daemon is upgraded and killed while they run."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.integration.farm import Farm, Server, until
from tests.integration.kept import Kept, kept
from tests.integration.project import Project, project, proxied
from tests.support import need

pytestmark = pytest.mark.programs

FILES = 30
#: jobs at once, of each build; five of all have a slot
JOBS = 6
ANY = "127.0.0.1:0"


@contextmanager
def kept_farm() -> Iterator[tuple[Farm, Kept]]:
    """Two servers, of 3 slots and of 2, and the daemon under its keeper."""
    need("distcc", "distccd", "gcc", "make")
    # distccd that is started as root goes on as the user distccd, for whom pytest's own directories are closed
    directory = Path(tempfile.mkdtemp(prefix="farm-", dir="/tmp" if os.geteuid() == 0 else None))
    directory.chmod(0o755)
    (directory / "tmp").mkdir()
    (directory / "tmp").chmod(0o1777)
    (directory / "daemon").mkdir()
    farm = Farm(directory, [Server(directory, "fast", 3), Server(directory, "slow", 2, 0.05)])
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        for server in farm.servers:
            server.start()
            stack.callback(server.kill)
        hosts = "".join(f"  - {server.name}/{server.slots}\n" for server in farm.servers)
        listen = ", ".join(f"{kind}: '{ANY}'" for kind in ("balance", "status", "update", "proxy"))
        daemon = stack.enter_context(kept(directory / "daemon", f"hosts:\n{hosts}listen: {{{listen}}}\n"))
        (farm.balance,), (farm.status,), (farm.proxy,) = (daemon.ports(kind) for kind in ("balance", "status", "proxy"))
        yield farm, daemon


def made_here(one: Project) -> dict[str, bytes]:
    """What the compiler makes of its files without anybody's help."""
    assert one.run("make", "CC=gcc").returncode == 0
    contents = one.contents()
    one.clean()
    return contents


def killed(farm: Farm, daemon: Kept) -> None:
    before = daemon.kill()
    until(lambda: daemon.pid not in (0, before), "another daemon")


def upgraded(farm: Farm, daemon: Kept) -> None:
    answer = daemon.cli("upgrade")
    assert answer.returncode == 0, answer


def test_builds_go_on(wrap_program: Path, tmp_path: Path) -> None:
    """Jobs that run, jobs that wait and jobs that come: nobody falls back on itself, and nothing is said."""
    with kept_farm() as (farm, daemon):
        projects = (project(farm, tmp_path, wrap_program, FILES, "leased"), proxied(farm, tmp_path, FILES, "proxied"))
        expected = [made_here(one) for one in projects]
        compilers = ("CC=distbal-wrap distcc gcc", "CC=distcc gcc")
        with ExitStack() as stack:
            makes: list[subprocess.Popen[str]] = []
            for number, step in enumerate((killed, upgraded, killed, upgraded)):
                with farm.held():
                    if not makes:
                        pairs = zip(projects, compilers, strict=True)
                        makes = [stack.enter_context(one.building("make", f"-j{JOBS}", cc)) for one, cc in pairs]
                    # nobody is on his way in when it happens
                    farm.await_clients(5, 2 * JOBS - 5)
                    step(farm, daemon)
                    farm.await_clients(5, 2 * JOBS - 5)
                until(lambda number=number: farm.compiled() >= 5 * (number + 1), "some compiles")  # type: ignore[misc]
            for one, make, contents in zip(projects, makes, expected, strict=True):
                built = one.end(make)
                assert (built.returncode, built.stderr) == (0, "")
                assert one.contents() == contents
        farm.await_compiled(2 * FILES)
        assert [server.most() for server in farm.servers] == [3, 2]
        farm.await_clients(0, 0)
