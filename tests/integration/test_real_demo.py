"""``make demo`` fails when a compile did not run on a server, and leaves nothing behind when it is interrupted.

That it succeeds, CI sees by running it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.farm import clean_environment, until
from tests.support import ROOT, need, stop

pytestmark = pytest.mark.programs

#: seconds in which the demo is over, on a busy machine too
PATIENCE = 90.0


class Demo:
    """The demo, running; what it says comes to a file.

    :ivar process: itself.
    :ivar env: what it is run with.
    """

    def __init__(self, wrap_program: Path, directory: Path) -> None:
        self.env = clean_environment() | {"PATH": f"{wrap_program.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self.env["PYTHONPATH"] = str(ROOT)
        self._log = directory / "said"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin."""
        with self._log.open("wb") as log:
            self.process = subprocess.Popen([ROOT / "demo" / "run"], env=self.env, stdout=log, stderr=subprocess.STDOUT)

    def said(self) -> str:
        """All that it said."""
        return self._log.read_text()

    def end(self) -> int:
        """Wait for its end; the exit status."""
        assert self.process
        return self.process.wait(PATIENCE)


@pytest.fixture
def demo(wrap_program: Path, tmp_path: Path) -> Iterator[Demo]:
    """The demo, not started yet."""
    need("distcc", "distccd", "gcc", "make")
    one = Demo(wrap_program, tmp_path)
    yield one
    if one.process:
        stop(one.process)


def test_a_compile_that_was_local_is_a_failure(demo: Demo, tmp_path: Path) -> None:
    """A distcc that compiles here: everything is built, nobody complains, and the servers know nothing of it."""
    cheat = tmp_path / "cheat"
    cheat.mkdir()
    (cheat / "distcc").write_text('#!/bin/sh\nexec "$@"\n')
    (cheat / "distcc").chmod(0o755)
    demo.env["PATH"] = f"{cheat}:{demo.env['PATH']}"
    demo.start()
    assert demo.end() == 1
    assert "the program gives the right answer" in demo.said()
    assert "src/part_01.c: compiled 0 times" in demo.said()
    kept = re.search(r"logs are in (\S+)\.", demo.said())
    assert kept
    logs = Path(kept[1])
    assert {path.name for path in logs.iterdir()} >= {"balancer", "make", "hare", "dog", "tortoise"}
    for path in logs.iterdir():
        path.unlink()
    logs.rmdir()


def test_an_interrupt_leaves_nothing(demo: Demo) -> None:
    demo.start()
    assert demo.process
    until(lambda: "/72  hare" in demo.said(), "the build")
    started = family(demo.process.pid)
    assert {"distccd", "make"} <= set(started.values())
    make = next(pid for (pid, _), name in started.items() if name == "make")
    work = Path(f"/proc/{make}/cwd").resolve().parent
    assert work.name.startswith("distbal-demo-")
    demo.process.send_signal(signal.SIGINT)
    assert demo.end() == 128 + signal.SIGINT
    assert "nothing is left behind" in demo.said()
    assert not [name for process, name in started.items() if process in family(process[0])]
    assert not work.exists()


def family(pid: int) -> dict[tuple[int, str], str]:
    """The process and all that come from it, by number and time of start: the name. Empty where it is gone."""
    try:
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
        members = {(pid, rest.split()[19]): name}
        children = [child for tasks in Path(f"/proc/{pid}/task").glob("*/children") for child in tasks.read_text().split()]
    except OSError:
        return {}
    for child in children:
        members |= family(int(child))
    return members
