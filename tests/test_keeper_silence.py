"""Daemons that give no sign of life, as processes."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from distbal import keeperwire as wire
from distbal.keeperwire import Role
from tests.supervising import connections, inodes, supervised


def test_a_silent_daemon_is_killed(tmp_path: Path) -> None:
    with supervised(tmp_path, patience=2) as keeper, connections(1) as (_, served):
        daemon = keeper.daemon_that_holds({(1, Role.CLIENT): served[0].fileno()})
        os.kill(daemon.pid, signal.SIGSTOP)
        assert _silence(keeper.lines.until(f"no sign of life of the daemon (process {daemon.pid}) for ")) >= 2
        daemon.gone()
        daemon = keeper.daemon()
        given, told = daemon.hello()
        assert list(given) == [(1, Role.CLIENT)]
        assert re.search(r"gave no sign of life for \d+ s, and was killed$", told.last)
        inodes(given)
        # before it serves there is more patience, and not for ever
        assert _silence(keeper.lines.until(f"no sign of life of the daemon (process {daemon.pid}) for ")) >= 4 * 2


def _silence(line: str) -> int:
    """Seconds that it lasted: on a busy machine some more than the patience there was."""
    found = re.search(r" for (\d+) s: it is killed$", line)
    assert found, line
    return int(found[1])


def test_a_keeper_that_was_frozen_kills_nobody_for_it(tmp_path: Path) -> None:
    with supervised(tmp_path, patience=3) as keeper:
        daemon = keeper.daemon()
        daemon.serve()
        keeper.lines.until("serving nobody")
        os.kill(keeper.process.pid, signal.SIGSTOP)
        # as long as it takes for a keeper that runs to kill one
        with supervised(tmp_path, patience=3.5) as other:
            silent = other.daemon()
            silent.serve()
            other.lines.until("no sign of life")
        os.kill(keeper.process.pid, signal.SIGCONT)
        keeper.lines.until("the keeper was away for")
        daemon.send(wire.BEAT)
        daemon.sync()
        assert not any("no sign of life" in line for line in keeper.lines.read)


def test_a_daemon_that_goes_on_alone_is_not_killed_for_its_silence(tmp_path: Path) -> None:
    """It had no more patience with a keeper that was frozen, and has clients that only it knows."""
    with supervised(tmp_path, patience=2) as keeper, connections(1) as (_, served):
        daemon = keeper.daemon_that_holds({(1, Role.CLIENT): served[0].fileno()})
        daemon.hang_up()
        # as long as it takes for a keeper that runs to kill one
        with supervised(tmp_path, patience=3) as other:
            silent = other.daemon()
            silent.serve()
            other.lines.until("no sign of life")
        daemon.kill()
        keeper.lines.until("was killed by SIGKILL")
        given = keeper.daemon().serve()
        assert list(given) == [(1, Role.CLIENT)]
        inodes(given)
        assert not any("no sign of life" in line for line in keeper.lines.read)


def test_one_that_is_to_end_and_does_not_is_killed_though_it_has_hung_up(tmp_path: Path) -> None:
    with supervised(tmp_path, patience=2) as keeper:
        daemon = keeper.daemon()
        daemon.serve()
        daemon.send(wire.STOPPING)
        daemon.sent()
        daemon.hang_up()
        keeper.lines.until("no sign of life")
        daemon.gone()
        assert keeper.wait() == 0
