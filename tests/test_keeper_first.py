"""The keeper as the first process of a container (PID 1), and with the daemon itself where that does not start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import pytest

from distbal import keeperwire as wire
from distbal import service
from distbal.daemon import take_listening_sockets
from distbal.keeper import command
from distbal.keeperwire import Role
from tests.supervising import LONG, Daemon, Lines, address, connections, inodes
from tests.support import ROOT, need


@pytest.mark.programs
@pytest.mark.skipif(os.geteuid() != 0, reason="a namespace of processes is root's to make")
def test_as_the_first_process_it_reaps_the_children_of_others(tmp_path: Path) -> None:
    need("unshare")
    with address(tmp_path) as (path, listener), connections(1) as (_, served):
        keeper = [sys.executable, "-m", "distbal", "supervise", "-c", path, "--patience=600", "--daemon=tests.fake_daemon"]
        # a child of it from before, and one of that one's own, which it never waits for
        script = '(sleep 0 & exec sleep 0) & exec "$@"'
        inside = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script, "sh", *keeper]
        with subprocess.Popen(inside, cwd=ROOT, stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            lines = Lines(process.stderr.fileno())
            daemon = Daemon(listener.accept()[0])
            assert daemon.began["parent"] == 1
            daemon.serve()
            daemon.hold({(1, Role.CLIENT): served[0].fileno()})
            daemon.end(1)
            daemon = Daemon(listener.accept()[0])
            assert list(inodes(daemon.serve())) == [(1, Role.CLIENT)]
            (first,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            (child,) = Path(f"/proc/{first}/task/{first}/children").read_text().split()
            assert "fake_daemon" in Path(f"/proc/{child}/cmdline").read_text()
            # what would end another process by its default is caught, and an end is an end
            os.kill(int(first), signal.SIGHUP)
            assert daemon.hears("signal")[0]["number"] == signal.SIGHUP
            os.kill(int(first), signal.SIGTERM)
            assert daemon.hears("signal")[0]["number"] == signal.SIGTERM
            daemon.send(wire.STOPPING)
            daemon.end(0)
            assert process.wait(LONG) == 0
            lines.until("ended with status 1; a new one starts at once")


def test_a_bad_configuration_is_told_by_the_daemon_and_ends_the_keeper(tmp_path: Path) -> None:
    (tmp_path / "hosts.yaml").write_text("hosts: [box/0]\n")
    command = [sys.executable, "-m", "distbal", "supervise", "-c", str(tmp_path / "hosts.yaml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=LONG)
    assert done.returncode == 1
    assert "hosts.yaml:1: hosts[0]: a host has at least 1 slot" in done.stdout + done.stderr
    assert done.stderr.endswith("the daemon ended with status 1 before it served: there is nothing to supervise\n")


def test_twistds_own_words_are_handed_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "distbal", "supervise", "-c", "hosts.yaml", "--", "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=LONG)
    assert done.returncode == 0
    assert done.stdout.startswith("twistd (the Twisted daemon)")


def test_sockets_that_systemd_opened_are_the_daemons() -> None:
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "2"}
    take_listening_sockets(environment)
    assert environment["LISTEN_PID"] == "1"
    environment[wire.VARIABLE] = "7"
    take_listening_sockets(environment)
    assert environment["LISTEN_PID"] == str(os.getpid())
    none = {wire.VARIABLE: "7"}
    take_listening_sockets(none)
    assert none == {wire.VARIABLE: "7"}


def test_without_a_file_it_is_the_one_that_the_daemon_takes() -> None:
    parser = ArgumentParser()
    command.add_arguments(parser)
    assert parser.parse_args([]).config == service.Options()["config"] == "/etc/distbal/hosts.yaml"
