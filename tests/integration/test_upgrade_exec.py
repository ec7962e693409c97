"""An upgrade of a process that twistd started, really: a trial, signals, an exec, the same number, pidfile and socket.

What distbal itself carries over is another test's; here is a small service (upgradable.py) in its place.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.daemons import ENVIRONMENT, TWISTD, is_over
from tests.integration.farm import PATIENCE, until
from tests.support import ROOT, alone, stop

SERVICE = ROOT / "tests" / "integration" / "upgradable.py"


def command(*words: str) -> list[str]:
    return [TWISTD, *words, "-y", str(SERVICE)]


def environment(directory: Path, last: str = "") -> dict[str, str]:
    return {**ENVIRONMENT, "UPGRADABLE": str(directory), "LAST": last}


def write_file(directory: Path, text: str = "hosts: [alpha/4]\n") -> None:
    (directory / "hosts.yaml").write_text(alone(text))


def look(directory: Path) -> dict[str, Any]:
    """What it says of itself. Whoever is accepted in the very turn before an exec may hear nothing, and asks again."""
    heard = b""

    def asked() -> bool:
        nonlocal heard
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(str(directory / "s"))
            with sock.makefile("rb") as file:
                heard = file.read()
        return bool(heard)

    until(asked, "an answer")
    found = json.loads(heard)
    assert isinstance(found, dict)
    return found


@contextmanager
def running(directory: Path, *words: str, last: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """In the foreground; what it logs is in ``log``."""
    write_file(directory)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            command("-n", *words),
            cwd=directory,
            env=environment(directory, last),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    try:
        until(lambda: (directory / "s").exists() or process.poll() is not None, "its socket")
        yield process
    finally:
        stop(process)


def upgraded(directory: Path, pid: int, generation: int) -> dict[str, Any]:
    """Ask for an upgrade and wait for it; no connection is refused meanwhile."""
    os.kill(pid, signal.SIGUSR2)
    found: dict[str, Any] = {}

    def there() -> bool:
        found.update(look(directory))
        return bool(found["generation"] == generation)

    until(there, f"generation {generation}; {(directory / 'log').read_text() if (directory / 'log').exists() else ''}")
    return found


def test_upgrades_in_the_foreground(tmp_path: Path) -> None:
    """Twice, and a signal that comes while the one image does not heed it any more and the other not yet."""
    (tmp_path / "run").mkdir()
    with running(tmp_path, "--pidfile", "run/x.pid", "--umask", "027", last="SIGHUP") as process:
        first = look(tmp_path)
        assert (first["generation"], first["pid"], first["hups"]) == (0, process.pid, 0)
        second = upgraded(tmp_path, process.pid, 1)
        until(lambda: look(tmp_path)["hups"] == 1, "the signal from before the exec")
        for later in (second, upgraded(tmp_path, process.pid, 2)):
            assert (later["pid"], later["directory"], later["umask"]) == (process.pid, str(tmp_path.resolve()), 0o27)
            assert later["blocked"] == []
            assert (tmp_path / "run" / "x.pid").read_text() == str(process.pid)
        process.terminate()
        assert process.wait(PATIENCE) == -signal.SIGTERM
        assert not (tmp_path / "run" / "x.pid").exists()
    assert "twistd.pid" not in os.listdir(tmp_path)  # noqa: PTH208 (no path is wanted)


def test_a_stop_that_is_asked_for_at_the_last_moment_is_for_the_other_image(tmp_path: Path) -> None:
    with running(tmp_path, "--pidfile=", last="SIGTERM") as process:
        look(tmp_path)
        process.send_signal(signal.SIGUSR2)
        assert process.wait(PATIENCE) == -signal.SIGTERM
        log = (tmp_path / "log").read_text()
    # both came up, and the second went down properly
    assert log.count("starting up") == 2
    assert log.count("Server Shut Down") == 1


def test_upgrades_of_a_process_that_twistd_detached(tmp_path: Path) -> None:
    write_file(tmp_path)
    (tmp_path / "work").mkdir()
    subprocess.run(
        command("--rundir", "work"),
        cwd=tmp_path,
        env=environment(tmp_path),
        check=True,
        timeout=PATIENCE,
        stdin=subprocess.DEVNULL,
    )
    pid = int((tmp_path / "twistd.pid").read_text())
    try:
        first = look(tmp_path)
        for generation in (1, 2):
            later = upgraded(tmp_path, pid, generation)
            assert {**later, "generation": 0} == first
            assert (later["pid"], later["directory"], later["umask"]) == (pid, str((tmp_path / "work").resolve()), 0o77)
            assert (tmp_path / "twistd.pid").read_text() == str(pid)
    finally:
        os.kill(pid, signal.SIGTERM)
        until(lambda: is_over(pid), "its end")
    assert (tmp_path / "twistd.log").read_text().count("starting up") == 3
    assert not (tmp_path / "twistd.pid").exists()


def test_a_file_that_has_become_wrong_stops_the_upgrade_and_nothing_else(tmp_path: Path) -> None:
    with running(tmp_path, "--pidfile=") as process:
        assert look(tmp_path)["generation"] == 0
        write_file(tmp_path, "hosts: [alpha/0]\n")
        process.send_signal(signal.SIGUSR2)
        until(lambda: bool(look(tmp_path)["trouble"]), "the trial's no")
        now = look(tmp_path)
        assert now["generation"] == 0
        assert now["trouble"].startswith(f"{tmp_path}/hosts.yaml:1: hosts[0]: a host has at least 1 slot")
        assert "is not upgraded" in (tmp_path / "log").read_text()
        write_file(tmp_path)
        assert upgraded(tmp_path, process.pid, 1)["trouble"] == ""


def test_behind_a_chroot_it_is_not_upgraded(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may do that")
    with running(tmp_path, "--pidfile=", "--chroot", "/") as process:
        assert look(tmp_path)["generation"] == 0
        process.send_signal(signal.SIGUSR2)
        until(lambda: bool(look(tmp_path)["trouble"]), "no")
        assert "behind --chroot" in look(tmp_path)["trouble"]
