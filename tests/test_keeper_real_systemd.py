"""The keeper under a real systemd, with fake daemons; tests/integration/test_real_systemd.py has real ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distbal import keeperwire as wire
from distbal.keeperwire import Role
from tests.supervising import Daemon, address, connections, inodes
from tests.support import ROOT, room_for
from tests.systemds import needs_root, systemd, unit

pytestmark = [pytest.mark.programs, needs_root]


def test_a_restart_of_the_unit_keeps_everything(tmp_path: Path) -> None:
    with (
        room_for(4000),
        address(tmp_path) as (path, listener),
        connections(1000) as (clients, served),
        systemd(tmp_path) as real,
    ):
        arguments = f"--daemon=tests.fake_daemon --patience=600 -c {path}"
        lines = unit(arguments, {"PYTHONDONTWRITEBYTECODE": "1"}, ROOT, tmp_path / "said")
        (tmp_path / "units" / "distbal.service").write_text(lines)
        real.systemctl("daemon-reload")
        real.systemctl("start --no-block distbal")
        daemon = Daemon(listener.accept()[0])
        assert real.shows("ActiveState") == "activating"
        daemon.serve()
        real.systemctl("start distbal")
        assert (real.shows("ActiveState"), real.shows("StatusText")) == ("active", "serving nobody")
        things: dict[wire.Key, int] = {(number, Role.CLIENT): sock.fileno() for number, sock in enumerate(served)}
        expected = {key: os.fstat(descriptor).st_ino for key, descriptor in things.items()}
        daemon.hold(things)
        for sock in served:
            sock.close()

        # the daemon ends, and the unit does not
        main = real.shows("MainPID")
        daemon.end(1)
        daemon = Daemon(listener.accept()[0])
        assert inodes(daemon.serve()) == expected
        assert (real.shows("ActiveState"), real.shows("MainPID")) == ("active", main)

        # twice: what is stored is taken out of the store
        for _ in range(2):
            real.systemctl("restart --no-block distbal")
            assert isinstance(daemon.receive()[0], wire.Leave)
            daemon.end(0)
            daemon = Daemon(listener.accept()[0])
            given, told = daemon.hello()
            assert inodes(given) == expected
            assert told.last == "the whole unit was restarted"
            daemon.send(wire.ready("7.0", "serving again"))
            real.systemctl("start distbal")
            assert (real.shows("StatusText"), real.shows("NFileDescriptorStore")) == ("serving again", "0")
        assert real.shows("MainPID") != main

        # new code of the keeper is the same process
        main = real.shows("MainPID")
        daemon.hello("upgrade", give=False)
        assert isinstance(daemon.receive()[0], wire.News)
        daemon.sync()
        assert (real.shows("ActiveState"), real.shows("MainPID")) == ("active", main)

        # a stop is the end of all
        real.systemctl("stop --no-block distbal")
        assert isinstance(daemon.receive()[0], wire.Leave)
        daemon.end(0)
        assert [client.recv(1) for client in clients] == [b""] * 1000
        assert real.shows("Result") == "success"
        daemon.close()
