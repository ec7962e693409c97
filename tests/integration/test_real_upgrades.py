"""``distbal upgrade`` with 2,000 clients of 5656 and 200 sessions of the proxy in every phase: nobody sees a thing.

That is asked of both ways to run it: under its keeper, and alone.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.integration.crowded import Scene, crowded

both = pytest.mark.parametrize("supervised", [False, True], ids=["alone", "supervised"])


@contextmanager
def upgrading(scene: Scene, times: int = 1) -> Iterator[list[subprocess.Popen[str]]]:
    """``distbal upgrade``, so many of them at once, and clients come and go until all have ended; then the block runs."""
    with ExitStack() as stack:
        commands = [stack.enter_context(scene.daemon.asking("upgrade")) for _ in range(times)]
        scene.meanwhile(lambda: all(one.poll() is not None for one in commands), "the upgrade")
        yield commands


def said(command: subprocess.Popen[str]) -> tuple[int, str]:
    """How it ended, and what it said."""
    out, err = command.communicate()
    return command.returncode, out + err


@both
def test_upgrade(tmp_path: Path, supervised: bool) -> None:
    """The same process, with new code: every lease, place, age and session is as it was; and all can end as they would have."""
    with crowded(tmp_path, supervised=supervised) as scene:
        scene.daemon.install(__init__='\n__version__ = "9.9.9"\n')
        before, pid = scene.sight(), scene.daemon.pid
        scene.begin_connecting()
        with upgrading(scene) as (command,):
            status, words = said(command)
        assert status == 0, words
        # what was on its way to a server that did not answer goes there now
        scene.relayed.let_connect()
        assert scene.daemon.pid == pid
        assert scene.reports.status()["distbal"] == "9.9.9"
        scene.agree()
        scene.same(before)
        scene.all_end()


BAD_CODE = {
    "cannot be read": {"service": "\ndef def\n"},
    "fails when it is loaded": {"scheduler": "\nraise RuntimeError('a planted error')\n"},
    "does not understand the accounts": {"ledgerform": "\nVERSION = 77\n"},
}


@both
def test_upgrade_to_code_that_fails_its_trial(tmp_path: Path, supervised: bool) -> None:
    """The old code goes on and says why; then the right code takes over."""
    with crowded(tmp_path, supervised=supervised) as scene:
        before, pid = scene.sight(), scene.daemon.pid
        for what, code in BAD_CODE.items():
            scene.daemon.install(**code)
            with upgrading(scene) as (command,):
                status, words = said(command)
            assert status == 1, (what, words)
            assert "SyntaxError" in words or "a planted error" in words or "77" in words, (what, words)
            assert scene.daemon.pid == pid
            scene.agree()
            scene.same(before)
        scene.daemon.install_ours()
        with upgrading(scene) as (command,):
            status, words = said(command)
        assert status == 0, words
        scene.agree()
        scene.same(before)
        scene.all_end()


def test_upgrade_to_code_that_dies_nevertheless(tmp_path: Path) -> None:
    """Its trial did not show it. Its keeper holds all there is until the right code is there."""
    with crowded(tmp_path, supervised=True) as scene:
        before = scene.sight()
        scene.daemon.dies = True
        scene.daemon.install(service="\ndef makeService(options):\n    raise RuntimeError('a planted error')\n")
        with scene.daemon.asking("upgrade") as command:
            scene.meanwhile(lambda: scene.daemon.log.count("a planted error") >= 4, "its death, twice")
            scene.daemon.install_ours()
            scene.meanwhile(lambda: command.poll() is not None, "the upgrade's end")
            assert said(command)[0] == 0
        scene.agree()
        scene.same(before)
        scene.all_end()


@both
def test_upgrade_twice_at_once(tmp_path: Path, supervised: bool) -> None:
    """Two people, and a signal, ask for it at the same time: at least one upgrade is made, and nobody is told a falsehood."""
    with crowded(tmp_path, supervised=supervised) as scene:
        before, pid = scene.sight(), scene.daemon.pid
        os.kill(pid, signal.SIGUSR2)
        with upgrading(scene, 2) as commands:
            ends = [said(command) for command in commands]
        # whoever was not the first is told so
        assert all(status == 0 or (status == 1 and "an upgrade is under way already" in words) for status, words in ends), ends
        scene.meanwhile(lambda: "taken up:" in scene.daemon.log, "an upgrade")
        assert scene.daemon.pid == pid
        scene.agree()
        scene.same(before)
        with upgrading(scene) as (command,):
            status, words = said(command)
        assert status == 0, words
        scene.agree()
        scene.same(before)
        scene.all_end()


@both
def test_upgrade_while_hosts_go_down(tmp_path: Path, supervised: bool) -> None:
    """What 5658 says while the new code takes over is heard, what it said before still holds, and running jobs are not cut."""
    with crowded(tmp_path, supervised=supervised) as scene:
        before = scene.sight()
        (update,) = scene.daemon.ports("update")
        say(update, "alpha down")
        with scene.daemon.asking("upgrade") as command:
            turns = iter(range(1_000_000))

            def over() -> bool:
                say(update, f"beta {'up' if next(turns) % 2 else 'down'}")
                return command.poll() is not None

            scene.meanwhile(over, "the upgrade")
            status, words = said(command)
        assert status == 0, words
        say(update, "beta down")
        scene.agree()
        scene.same(before)
        assert {host["name"]: host["state"] for host in scene.reports.hosts() if host["name"] in scene.crowd.slots} == {
            "alpha": "failing",
            "beta": "failing",
            "gamma": "full",
        }
        # whoever has a host that is down keeps it; the slots that they leave are lent to nobody
        served = scene.crowd.view().served
        scene.crowd.leave([guest for guest in scene.crowd.served if guest.host in ("alpha", "beta")][:50])
        scene.agree()
        assert sum(map(len, scene.crowd.view().served.values())) == sum(map(len, served.values())) - 50
        for host in ("alpha", "beta"):
            say(update, f"{host} up")
        scene.all_end()


def say(port: int, line: str) -> None:
    """To 5658, as the outside agent does; it closes when it has taken it in."""
    with socket.create_connection(("127.0.0.1", port), 30) as sock:
        sock.sendall(f"{line}\n".encode())
        assert sock.recv(1) == b""
