"""The soak, briefly: that it says so when all is well, and that Ctrl-C leaves nothing behind. ``make soak`` is the real one."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.integration.farm import until
from tests.support import ROOT, need, spawn

pytestmark = pytest.mark.programs


def ours(words: bytes) -> list[int]:
    """Processes whose command line or directory has these words."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if words in (process / "cmdline").read_bytes() or words in os.fsencode((process / "cwd").readlink()):
                found.append(int(process.name))
        except OSError:  # it ended meanwhile
            continue
    return found


def test_interrupted(tmp_path: Path) -> None:
    """Servers, daemon, keeper, jobs: all are gone when it is interrupted, as by Ctrl-C, and its directory too."""
    need("gcc", "distcc", "distccd", "make")
    # long names do not fit into a socket's address
    log = tmp_path / "said"
    with (
        log.open("wb") as out,
        spawn(sys.executable, "-m", "tests.soak", "--minutes", "5", "--seed", "1", cwd=ROOT, stdout=out.fileno()) as soak,
    ):
        until(lambda: soak.poll() is not None or "before anything happens" in log.read_text(), "its beginning", 120)
        assert soak.poll() is None, log.read_text()
        assert ours(b"/distbal-soak-")
        soak.send_signal(signal.SIGINT)
        assert soak.wait(60) == 130, log.read_text()
    assert "all that was started has been stopped" in log.read_text()
    until(lambda: not ours(b"/distbal-soak-"), "the end of all that it started")
