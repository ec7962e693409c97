"""The daemon as an admin runs it: start, signals, commands, the end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.daemons import (
    ENVIRONMENT,
    LISTEN,
    TWISTD,
    connect,
    is_over,
    line,
    refuses,
    run,
    running,
)
from tests.integration.farm import PATIENCE, until
from tests.support import TWISTED_DROPS_SOCKETS, alone, free_port

# -- signals and commands -----------------------------------------------------------------------------------------------------


def test_a_day_in_its_life(tmp_path: Path) -> None:
    """Start, a bad reload, a good one, the commands that look at it, the end."""
    with running(tmp_path, f"hosts: [alpha.invalid/1]\n{LISTEN}") as daemon:
        first, second = daemon.client(), daemon.client()
        assert line(first) == b"alpha.invalid\r\n"
        daemon.reload(f"hosts: [alpha.invalid/0, beta.invalid/1]\n{LISTEN}")
        assert "hosts.yaml:1: hosts[0]: a host has at least 1 slot" in daemon.log
        assert "was not taken in: nothing has changed" in daemon.log
        daemon.reload(f"hosts: [alpha.invalid/1, beta.invalid/1]\n{LISTEN}")
        assert line(second) == b"beta.invalid\r\n"
        daemon.say(b"alpha.invalid down\n")

        shown = _distbal("status", f"127.0.0.1:{daemon.ports[1]}")
        assert (shown.returncode, shown.stderr) == (0, "")
        assert re.search(r"alpha\.invalid .*down", shown.stdout)
        assert _distbal("status", "--json", f":{daemon.ports[1]}").returncode == 0
        assert _distbal("check", str(tmp_path / "hosts.yaml")).returncode == 0

        first.close()
        second.close()
        # twistd, having shut down, ends by the signal that it was sent
        assert daemon.end() == -signal.SIGTERM
        assert all(refuses(port) for port in daemon.ports)
        assert "Server Shut Down." in daemon.log
    nobody = _distbal("status", f":{daemon.ports[1]}")
    assert (nobody.returncode, "nobody listens" in nobody.stderr) == (1, True)
    (tmp_path / "hosts.yaml").write_text("hosts: [beta/0]\n")
    assert _distbal("check", str(tmp_path / "hosts.yaml")).returncode == 1


def _distbal(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "distbal", *words],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("detach", [False, True], ids=["-n", "as a daemon"])
def test_mistakes_and_ports_in_use_are_told_on_the_terminal(tmp_path: Path, detach: bool) -> None:
    ended = run(tmp_path, "hosts: [alpha/0]\npollicy: random\n", detach=detach)
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        "distbal: hosts.yaml:1: hosts[0]: a host has at least 1 slot: leave it out of the file to send it nothing",
        "distbal: hosts.yaml:2: pollicy: unknown key; did you mean policy?",
    ]
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = run(
            tmp_path, f"hosts: [a/1]\nlisten: {{balance: '127.0.0.1:{port}', status: null, update: null}}\n", detach=detach
        )
        assert ended.returncode == 1
        assert ended.stderr.startswith(f"distbal: cannot listen on 127.0.0.1:{port}: it is in use")
        assert len(ended.stderr.splitlines()) == 1
        # an endpoint is tried when the reactor is there: the terminal may be gone then, but the log is not
        endpoint = f"tcp:{port}:interface=127.0.0.1"
        ended = run(tmp_path, f"hosts: [a/1]\nlisten: {{balance: '{endpoint}', status: null, update: null}}\n", detach=detach)
        assert ended.returncode == 1
        told = ended.stderr if detach else ended.stdout
        assert f"cannot listen on {endpoint}: " in told
        assert "Traceback" not in told or TWISTED_DROPS_SOCKETS
        assert not (tmp_path / "twistd.pid").exists()


def test_as_a_daemon(tmp_path: Path) -> None:
    """It detaches, works in another directory, still finds its file on SIGHUP, and leaves nothing when it ends."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    port = free_port()
    text = f"hosts: [alpha/1]\nlisten: {{balance: '127.0.0.1:{port}', status: null, update: null}}\n"
    (here / "hosts.yaml").write_text(alone(text))
    words = [TWISTD, f"--rundir={there}", f"--logfile={there}/log", f"--pidfile={there}/pid", "distbal", "-c", "hosts.yaml"]
    assert subprocess.run(words, cwd=here, env=ENVIRONMENT, timeout=PATIENCE, check=False).returncode == 0
    pid = int((there / "pid").read_text())
    try:
        with connect(port) as sock:
            assert line(sock) == b"alpha\r\n"
            (here / "hosts.yaml").write_text(alone(text.replace("alpha/1", "alpha/1, beta/1")))
            os.kill(pid, signal.SIGHUP)
            until(lambda: "was taken in" in (there / "log").read_text(), "the reload")
            with connect(port) as second:
                assert line(second) == b"beta\r\n"
    finally:
        os.kill(pid, signal.SIGTERM)
        until(lambda: is_over(pid), "the daemon's end")
    assert not (there / "pid").exists()
    assert refuses(port)


def test_jobs_are_logged_when_asked_for(tmp_path: Path) -> None:
    with running(tmp_path, f"hosts: [alpha/1]\n{LISTEN}") as daemon:
        before = daemon.log
        daemon.lent_and_back(5)
        daemon.await_counts(0, 0)
        assert daemon.log == before
        assert daemon.end() == -signal.SIGTERM
    with running(tmp_path, f"hosts: [alpha/1]\n{LISTEN}", "--verbose") as daemon:
        with daemon.client() as holds, daemon.client() as waits:
            assert line(holds)
            daemon.await_counts(1, 1)
            holds.close()
            assert line(waits)
        daemon.await_counts(0, 0)
        daemon.awaits(" is over: closed", 2)
        assert (daemon.log.count(" waits"), daemon.log.count(" has alpha after ")) == (1, 2)


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "balance"
    text = f"hosts: [alpha/2]\nlisten: {{balance: 'unix:{path}', status: null, update: null}}\n"

    def is_lent() -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(str(path))
            return line(sock) == b"alpha\r\n"

    with running(tmp_path, text) as daemon:
        assert is_lent()
        second = run(tmp_path, text)
        assert (second.returncode, f"cannot listen on unix:{path}: it is in use" in second.stderr) == (1, True)
        assert is_lent()
        daemon.process.kill()
        daemon.process.wait(PATIENCE)
        assert path.exists()
    # what a process left that was killed is no obstacle
    with running(tmp_path, text) as daemon:
        assert is_lent()
        assert daemon.end() == -signal.SIGTERM
        assert not path.exists()
