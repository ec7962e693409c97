"""A farm whose servers are killed, frozen and revived at random while jobs run, and the monitors that notice.

With the intervals that users have. What is documented is held: no job is sent to a server later than that after it died, all
come back, and nothing is left behind.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from distbal.monitors.compile import CompileOptions
from distbal.monitors.rounds import GRAIN, JITTER, SOONER
from distbal.monitors.tcp import TcpOptions
from tests.integration.farm import Farm, Server, running_farm, until
from tests.integration.project import Project, project
from tests.support import need

pytestmark = pytest.mark.programs

#: seconds for which the farm is in trouble
TROUBLE = 120.0
#: the log's times are whole seconds, and this machine may be slow
SLACK = 3.0
TCP, COMPILE = TcpOptions(), CompileOptions()
#: until a server whose machine refuses connections gets no more jobs: docs/monitors.md
DEAD = TCP.interval * (1 + 2 * JITTER) + 2 * GRAIN
#: until one that is frozen gets none: one interval, and as many checks as it takes, with the shorter pauses between them
FROZEN = COMPILE.interval * (1 + 2 * JITTER) + COMPILE.fall * (COMPILE.timeout + 2 * GRAIN)
FROZEN += (COMPILE.fall - 1) * COMPILE.interval * SOONER * (1 + JITTER)


@dataclass
class Outage:
    """A server that was not there for a while, in seconds since 1970."""

    server: Server
    bound: float
    began: float
    ended: float = 0.0


@contextmanager
def builders(one: Project, number: int) -> Iterator[Callable[[], int]]:
    """So many clients that compile one file after the other while the block runs; gives how many jobs they have done."""
    stop, journal = one.directory / "stop", one.directory / "done"
    script = f"""\
while [ ! -e stop ]; do
    distbal-wrap distcc gcc -c part$0.c -o out$0.o && echo done >>{journal} || echo failed >>{journal}
    sleep 0.2
done"""
    journal.touch()
    with ExitStack() as stack:
        for part in range(number):
            stack.enter_context(one.building("sh", "-c", script, str(part)))
        try:
            yield lambda: len(journal.read_text().splitlines())
        finally:
            stop.touch()
            stack.callback(stop.unlink)
    assert "failed" not in journal.read_text()


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def grants(farm: Farm) -> list[tuple[float, str]]:
    """When each lease was given, in whole seconds since 1970, and of which server."""
    found = re.findall(r"^(\S+) \[[^\]]*\] .* has (\S+) after ", farm.log, re.MULTILINE)
    return [(datetime.strptime(when, "%Y-%m-%dT%H:%M:%S%z").timestamp(), name) for when, name in found]


def test_servers_that_die_freeze_and_come_back(wrap_program: Path, tmp_path: Path) -> None:
    need("distcc", "distccd", "gcc", "make")
    draw = random.Random(os.environ.get("DISTBAL_SEED", "27"))
    servers = [(label, 2, 0.3) for label in ("frozen", "one", "two", "three")]
    with running_farm(*servers, more="policy: least-loaded\nmonitors: {tcp: true, compile: true}\n") as farm:
        one = project(farm, tmp_path, wrap_program, 5)
        # a client gives up on a server that is silent, and compiles by itself
        one.env |= {"DISTCC_IO_TIMEOUT": "5", "DISTCC_BACKOFF_PERIOD": "1"}
        before = descriptors(farm.pid), threads(farm.pid)
        frozen, *others = farm.servers
        outages: list[Outage] = []
        with builders(one, 5) as done:
            until(lambda: done() > 20, "jobs")
            began = time.time()
            frozen.freeze()
            ice = Outage(frozen, FROZEN, time.time())
            outages.append(ice)
            down: dict[str, Outage] = {}
            while time.time() < began + TROUBLE:
                server = draw.choice(others)
                outage = down.pop(server.label, None)
                if outage is not None:
                    server.start()
                    outage.ended = time.time()
                elif len(down) < 2:
                    server.kill()
                    down[server.label] = Outage(server, DEAD, time.time())
                    outages.append(down[server.label])
                jobs = done()
                time.sleep(draw.uniform(5, 15))
                assert done() > jobs, "jobs go on whatever happens"
            assert f"{frozen.name} is down, says compile: it did not answer within" in farm.log
            for server in others:
                if server.label in down:
                    server.start()
                    down[server.label].ended = time.time()
            frozen.thaw()
            ice.ended = time.time()
            for server in farm.servers:
                farm.await_state(server, up=True, patience=COMPILE.interval * 2 + TCP.interval * 2)
            assert done() > 200
        farm.await_clients(0, 0)
        given = grants(farm)
        assert len(given) > 200
        late = [
            (outage.server.label, when - outage.began)
            for outage in outages
            for when, name in given
            if name == outage.server.name and outage.began + outage.bound + SLACK < when < outage.ended - 1
        ]
        assert late == []
        assert len(outages) > 5
        # all came back: each gets jobs again
        with builders(one, 5) as done:
            until(
                lambda: {name for when, name in grants(farm) if when > ice.ended} == {s.name for s in farm.servers},
                "jobs on all",
            )
        farm.await_clients(0, 0)
        until(lambda: descriptors(farm.pid) <= before[0] + 2, "the end of every connection")
        assert threads(farm.pid) == before[1]
        assert "Traceback" not in farm.log
