"""The ends of daemons and of the keeper, as processes: who goes on, who ends with whom, and what is given up."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from distbal import keeperwire as wire
from distbal.keeperwire import Role
from tests.supervising import connections, inodes, supervised


def test_a_first_daemon_that_does_not_start_ends_the_keeper_with_its_status(tmp_path: Path) -> None:
    with supervised(tmp_path) as keeper, connections(1) as (_, served):
        daemon = keeper.daemon()
        daemon.hello()
        daemon.send(wire.journal([(1, Role.LISTENER)]), [served[0].fileno()])
        daemon.end(3)
        assert keeper.wait() == 3
        keeper.lines.until("the daemon ended with status 3 before it served: there is nothing to supervise")


def test_what_is_held_is_never_given_up_for_a_daemon_that_does_not_start(tmp_path: Path) -> None:
    """A bad hosts.yaml, say: these end before they ask for what is held, and the pauses grow."""
    with supervised(tmp_path) as keeper, connections(1) as (_, served):
        daemon = keeper.daemon_that_holds({(1, Role.CLIENT): served[0].fileno()})
        for pause in ("at once", "in 0.5 s", "in 1 s"):
            daemon.end(1)
            keeper.lines.until(f"ended with status 1; a new one starts {pause}, and gets 1 descriptors")
            daemon = keeper.daemon()
        given = daemon.serve()
        assert list(given) == [(1, Role.CLIENT)]
        inodes(given)


def test_what_is_held_is_dropped_when_daemons_do_not_live_with_it(tmp_path: Path) -> None:
    with supervised(tmp_path) as keeper, connections(1) as (clients, served):
        daemon = keeper.daemon_that_holds({(1, Role.CLIENT): served[0].fileno()})
        served[0].close()
        for _ in range(6):
            daemon.kill(signal.SIGSEGV)
            daemon = keeper.daemon()
            inodes(daemon.hello()[0])
        keeper.lines.until("5 daemons in a row ended soon after they took up what was held: all 1 descriptors are dropped")
        assert clients[0].recv(1) == b""
        daemon.send(wire.ready("7.0", "serving nobody"))
        keeper.lines.until("serving nobody")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_who_ends_it_ends_the_daemon_first(tmp_path: Path, number: int) -> None:
    with supervised(tmp_path) as keeper:
        daemon = keeper.daemon()
        daemon.serve()
        keeper.process.send_signal(number)
        assert daemon.hears("signal")[0]["number"] == signal.SIGTERM
        daemon.send(wire.STOPPING)
        assert keeper.process.poll() is None
        daemon.end(0)
        assert keeper.wait() == 0


def test_a_daemon_that_somebody_asked_to_end_is_not_started_again(tmp_path: Path) -> None:
    with supervised(tmp_path) as keeper, connections(1) as (clients, served):
        daemon = keeper.daemon_that_holds({(1, Role.SESSION_CLIENT): served[0].fileno()})
        daemon.send(wire.STOPPING)
        daemon.end(1)
        assert keeper.wait() == 0
        served[0].close()
        assert clients[0].recv(1) == b""


def test_while_no_daemon_lives_it_ends_at_once(tmp_path: Path) -> None:
    with supervised(tmp_path) as keeper:
        daemon = keeper.daemon()
        daemon.serve()
        for _ in range(2):
            daemon.kill()
            daemon = keeper.daemon()
        daemon.kill()
        keeper.lines.until("a new one starts in 1 s")
        keeper.process.terminate()
        assert keeper.wait() == 0


def test_a_daemon_whose_keeper_is_killed_goes_on(tmp_path: Path) -> None:
    with supervised(tmp_path) as keeper:
        daemon = keeper.daemon()
        daemon.serve()
        keeper.process.kill()
        keeper.wait()
        daemon.keeper_is_gone()
