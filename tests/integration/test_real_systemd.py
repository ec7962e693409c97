"""The keeper and its daemon under a real systemd, with a crowd on 5656 and sessions of the proxy with bytes on their way."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.integration.crowded import Scene, crowded
from tests.integration.kept import Kept, admin_socket, children_of, descendants, installed, write
from tests.support import need
from tests.systemds import RUNTIME, RealSystemd, needs_root, systemd, unit

pytestmark = [pytest.mark.programs, needs_root]

#: where it is by default too
ADMIN = f"{RUNTIME}/admin.sock"
#: clients of 5656; a session for ten of them
CLIENTS = 400


@dataclass
class Unit(Kept):
    """A daemon whose keeper systemd runs."""

    real: RealSystemd = field(kw_only=True)

    @property
    def admin(self) -> str:
        """The path of the admin socket, as it is outside of systemd's namespace."""
        within = children_of(self.process.pid)[0]
        return f"/proc/{within}/root{ADMIN}"

    @property
    def keeper(self) -> int:
        """The keeper's process, as it is known outside of systemd's namespace."""
        main = self.real.shows("MainPID")
        for pid in descendants(self.process.pid):
            with suppress(FileNotFoundError, ProcessLookupError):
                status = Path(f"/proc/{pid}/status").read_text()
                if status.partition("NSpid:")[2].partition("\n")[0].split()[-1:] == [main]:
                    return pid
        return 0

    @property
    def state(self) -> tuple[str, str]:
        """What systemd says: the unit's state, and its main process."""
        # at once: they belong together
        said = self.real.systemctl("show -p ActiveState -p MainPID distbal.service").splitlines()
        shown = dict(line.split("=", 1) for line in said)
        return shown["ActiveState"], shown["MainPID"]

    def processes(self) -> list[int]:
        """All that belong to the unit, as they are known outside."""
        found = []
        for pid in descendants(self.process.pid):
            with suppress(FileNotFoundError, ProcessLookupError):
                if b"\0-m\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found


def under_systemd(**others: str) -> Callable[[Path, str], Any]:
    """What runs a daemon as a unit, with some lines that are different."""

    @contextmanager
    def run(directory: Path, text: str) -> Iterator[Unit]:
        environment = installed(directory)
        write(directory, text)
        file = directory / "hosts.yaml"
        file.write_text(file.read_text().replace(str(admin_socket(directory)), ADMIN))
        log = directory / "log"
        log.touch()
        with systemd(directory) as real:
            names = ("PYTHONPATH", "PYTHONWARNINGS")
            within = {name: environment[name] for name in names} | {"PYTHONDONTWRITEBYTECODE": "1"}
            lines = unit("-c hosts.yaml", within, directory, log, **others)
            (directory / "units" / "distbal.service").write_text(lines)
            real.systemctl("daemon-reload")
            real.systemctl("start distbal")
            one = Unit(directory, True, real.process, environment, real=real)
            assert one.state[0] == "active"
            yield one
            real.systemctl("stop distbal")
            assert one.processes() == []
        assert one.dies or "Traceback" not in one.log, one.log[-6000:]

    return run


@contextmanager
def unit_of(directory: Path, **others: str) -> Iterator[tuple[Scene, Unit]]:
    """A full daemon as a unit."""
    need("systemd-analyze", "unshare")
    with crowded(directory, supervised=True, clients=CLIENTS, run=under_systemd(**others)) as scene:
        assert isinstance(scene.daemon, Unit)
        yield scene, scene.daemon


def restart(scene: Scene, one: Unit) -> None:
    """Restart the unit, while clients come and go."""
    before = one.state
    one.real.systemctl("restart --no-block distbal")
    scene.meanwhile(lambda: one.state[0] == "active" and one.state != before, "the restart")


def test_nobody_sees_what_the_unit_goes_through(tmp_path: Path) -> None:
    """It is reloaded, restarted twice, its daemon killed, and upgraded; each client and each byte is where it was."""
    with unit_of(tmp_path) as (scene, one):
        real = one.real
        before = scene.sight()
        main = one.state
        file = tmp_path / "hosts.yaml"
        (tmp_path / "new").write_text(file.read_text().replace("listen:", "  - {name: late, slots: 3, pools: [late]}\nlisten:"))
        (tmp_path / "new").rename(file)
        real.systemctl("reload distbal")
        scene.meanwhile(lambda: "late" in [host["name"] for host in scene.reports.hosts()], "the file to be taken in")
        assert one.state == main

        # twice: what is stored is taken out of the store
        for _ in range(2):
            scene.begin_connecting()
            restart(scene, one)
            scene.relayed.let_connect()
            assert real.shows("NFileDescriptorStore") == "0"
            scene.agree()
            scene.same(before)
        assert one.log.count("the whole unit was restarted") == 0
        assert scene.reports.status()["inside"]["keeper"]["last"] == "the whole unit was restarted"

        # the daemon is killed, and the unit goes on
        main = one.state
        scene.crowd.tolerant = True
        scene.kill_in(0.1)
        scene.agree()
        scene.same(before)
        assert scene.crowd.cut <= one.lost + 1
        scene.crowd.tolerant = False
        assert one.state == main

        # daemon and keeper are upgraded, and are the same processes
        one.install(__init__='\n__version__ = "9.9.9"\n')
        daemon = one.pid
        with one.asking("upgrade") as command:
            scene.meanwhile(lambda: command.poll() is not None, "the upgrade")
            assert command.returncode == 0, command.communicate()
        scene.meanwhile(lambda: "the keeper goes on as distbal 9.9.9" in one.log, "the upgrade of the keeper")
        assert (one.state, one.pid, scene.reports.status()["distbal"]) == (main, daemon, "9.9.9")
        scene.agree()
        scene.same(before)

        # and what is new can be restarted
        restart(scene, one)
        scene.agree()
        scene.same(before)
        scene.all_end()


def test_a_restart_to_code_that_does_not_start(tmp_path: Path) -> None:
    """Systemd tries it again and again, and keeps everything until the right code is there; whoever comes meanwhile waits."""
    with unit_of(tmp_path, RestartSec="100ms") as (scene, one):
        before = scene.sight()
        one.dies = True
        one.install(**{"keeper/command": "\nraise RuntimeError('a planted error')\n"})
        one.real.systemctl("restart --no-block distbal")
        scene.meanwhile(lambda: one.log.count("a planted error") >= 4, "its death, twice")
        one.install_ours()
        scene.meanwhile(lambda: one.state[0] == "active", "the restart")
        scene.agree()
        scene.same(before)
        scene.all_end()


def closed(scene: Scene) -> None:
    """Wait until the daemon has closed everybody's connection; none was reset."""
    everybody = len(scene.crowd.guests)
    assert everybody
    scene.room.until(lambda: not scene.crowd.guests, "the end of all clients")
    assert [fault for fault in scene.crowd.faults if not fault.endswith(": closed")] == []
    assert len(scene.crowd.faults) == everybody
    scene.crowd.faults.clear()
    for session in scene.relayed.sessions.values():
        session.abandon()
    scene.relayed.faults.clear()
    scene.relayed.sessions.clear()


def serves_again(scene: Scene, one: Unit, before: tuple[str, str]) -> None:
    """The unit has been started anew, with nothing, and serves."""
    scene.room.until(lambda: one.state[0] == "active" and one.state != before, "another start")
    # its port is a new one
    scene.crowd.where = ("127.0.0.1", int(re.findall(r"listening on balance (\d+)", one.log)[-1]))
    assert scene.reports.status()["totals"]["used"] == 0
    scene.crowd.come(10)
    scene.room.until(lambda: scene.crowd.counts(10, 0), "new clients served", 20)
    scene.agree()


def test_a_keeper_that_is_killed_and_the_stop(tmp_path: Path) -> None:
    """The daemon ends with its keeper, and the unit is started anew, with nothing. A stop is the end of all."""
    with unit_of(tmp_path) as (scene, one):
        before = one.state
        one.real.systemctl("kill --kill-whom=main --signal=KILL distbal")
        closed(scene)
        serves_again(scene, one, before)
        assert one.real.shows("NRestarts") == "1"

        scene.crowd.come(scene.number - 10)
        scene.room.until(lambda: scene.crowd.counts(scene.number // 2, scene.number - scene.number // 2), "a full farm")
        one.real.systemctl("stop --no-block distbal")
        closed(scene)
        scene.room.until(lambda: one.state == ("inactive", "0"), "the end")
        assert (one.real.shows("Result"), one.real.shows("NFileDescriptorStore"), one.processes()) == ("success", "0", [])


def test_a_keeper_that_stands_still(tmp_path: Path) -> None:
    """Systemd kills it, and starts the unit anew, with nothing; until then its daemon serves."""
    result = tmp_path / "result"
    note = f"/bin/sh -c 'echo $SERVICE_RESULT >>{result}'"
    with unit_of(tmp_path, WatchdogSec="5", RestartSec="100ms", ExecStopPost=note) as (scene, one):
        before = one.state
        # one that lives says so, also when it has become another
        with one.asking("upgrade") as command:
            scene.meanwhile(lambda: "the keeper goes on as" in one.log, "the upgrade")
            assert command.wait() == 0
        scene.room.spend(6)
        assert one.state == before
        scene.agree()
        os.kill(one.keeper, signal.SIGSTOP)
        scene.crowd.leave(scene.crowd.served[:1])
        scene.room.until(lambda: len(scene.crowd.served) == scene.number // 2, "the next that waits")
        closed(scene)
        serves_again(scene, one, before)
        assert result.read_text() == "watchdog\n"
