"""The keeper under systemd, which the test plays: a datagram socket that is told, and a store of descriptors."""

from __future__ import annotations

import array
import os
import select
import signal
import socket
import stat
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from distbal import keeperwire as wire
from distbal.keeper.past import A_WHILE
from distbal.keeper.systemd import Systemd, memory_of
from distbal.keeperwire import Role
from tests.supervising import LONG, Supervised, connections, inodes, supervised
from tests.support import room_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: runs what follows it with these descriptors from 3 on, as systemd does
LISTEN = (
    "import fcntl, os, sys\n"
    "numbers = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 500) for number in sys.argv[1].split(',')]\n"
    "for index, number in enumerate(numbers): os.dup2(number, 3 + index)\n"
    "for number in numbers: os.close(number)\n"
    "os.environ['LISTEN_PID'] = str(os.getpid())\n"
    "os.execvp(sys.argv[2], sys.argv[2:])\n"
)


class Played:
    """A systemd.

    :ivar stored: what it keeps.
    :ivar environment: what a unit of it finds.
    """

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self._sock.settimeout(LONG)
        self._sock.bind(str(directory / "notify"))
        self.stored: list[int] = []
        stack.callback(self.forget)
        self.environment = {"NOTIFY_SOCKET": str(directory / "notify")}

    def hears(self) -> list[str]:
        """The lines of the next message."""
        text, ancillary, _, _ = self._sock.recvmsg(4096, socket.CMSG_SPACE(253 * 4))
        descriptors = array.array("i", b"".join(data for _, _, data in ancillary))
        lines = text.decode().split("\n")
        if "FDSTORE=1" in lines:
            assert "FDNAME=distbal" in lines
            self.stored += descriptors
        else:
            assert bool(descriptors) is (lines == ["BARRIER=1"])
            for descriptor in descriptors:
                os.close(descriptor)
        return lines

    def until(self, line: str) -> list[str]:
        """The next message with this line."""
        while line not in (lines := self.hears()):
            pass
        return lines

    def is_busy(self) -> None:
        """Let so much be said that nothing more can be, as long as nothing of it is read."""
        said = Systemd(self.environment)
        while said.tell("STATUS=busy"):
            pass

    def taken_out(self) -> None:
        """Wait until nothing is in the queues of the sockets that are stored."""
        for descriptor in self.stored:
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                with socket.socket(fileno=os.dup(descriptor)) as sock:
                    deadline = time.monotonic() + LONG
                    while select.select([sock], [], [], 0)[0]:
                        assert time.monotonic() < deadline
                        time.sleep(0.001)

    def forget(self) -> None:
        """Keep nothing any more."""
        while self.stored:
            os.close(self.stored.pop())

    @contextmanager
    def restarted(self, directory: Path, others: Sequence[int] = (), patience: float = 600) -> Iterator[Supervised]:
        """A keeper that gets what is stored, after sockets that systemd opened."""
        passed = [*others, *self.stored]
        before = [sys.executable, "-c", LISTEN, ",".join(map(str, passed))]
        names = ":".join(["web"] * len(others) + ["distbal"] * len(self.stored))
        env = self.environment | {"LISTEN_FDS": str(len(passed)), "LISTEN_FDNAMES": names}
        with supervised(directory, before=before, env=env, pass_fds=passed, patience=patience) as keeper:
            yield keeper


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Played]:
    with ExitStack() as stack:
        yield Played(tmp_path, stack)


def test_it_is_told_what_happens(tmp_path: Path, systemd: Played) -> None:
    with supervised(tmp_path, env=systemd.environment | {"WATCHDOG_USEC": "1000000"}) as keeper:
        daemon = keeper.daemon()
        assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & set(daemon.began["environment"])
        assert systemd.hears() == ["WATCHDOG=1"]
        assert systemd.hears() == ["WATCHDOG=1"]
        daemon.serve()
        assert systemd.until("READY=1") == ["READY=1", "STATUS=serving nobody", f"MAINPID={keeper.process.pid}"]
        daemon.kill(signal.SIGSEGV)
        systemd.until("STATUS=The daemon was killed by SIGSEGV: a bug in a library that is not Python; starting again")
        daemon = keeper.daemon()
        daemon.serve()
        systemd.until("READY=1")
        keeper.process.terminate()
        systemd.until("STOPPING=1")
        daemon.hears("signal")
        # as long as it runs
        systemd.until("WATCHDOG=1")
        daemon.end()
        assert keeper.wait() == 0


@pytest.mark.parametrize("says", [{"FDSTORE": "64"}, {"DISTBAL_FDSTORE": "1"}], ids=["systemd 254", "before"])
def test_a_restart_of_the_unit_keeps_everything(tmp_path: Path, systemd: Played, says: dict[str, str]) -> None:
    systemd.environment |= says
    with room_for(4000), connections(1000) as (clients, served):
        things: dict[wire.Key, int] = {(number, Role.CLIENT): sock.fileno() for number, sock in enumerate(served)}
        reading, writing = os.pipe()
        things |= {(3, Role.PIPE_READ): reading, (3, Role.PIPE_WRITE): writing, (0, Role.LEDGER): memory_of(b"accounts")}
        expected = {key: os.fstat(descriptor).st_ino for key, descriptor in things.items()}
        with supervised(tmp_path, env=systemd.environment) as keeper:
            daemon = keeper.daemon_that_holds(things)
            os.write(writing, b"on its way")
            for descriptor in things.values():
                os.close(descriptor)
            for sock in served:
                sock.detach()
            keeper.process.terminate()
            assert isinstance(daemon.receive()[0], wire.Leave)
            daemon.end(0)
            systemd.until("BARRIER=1")
            assert keeper.wait() == 0
            keeper.lines.until("systemd has 1003 descriptors, for a restart")
        assert len(systemd.stored) < 10
        with socket.create_server(("127.0.0.1", 0)) as other, systemd.restarted(tmp_path, [other.fileno()]) as keeper:
            systemd.forget()
            systemd.until("FDSTOREREMOVE=1")
            keeper.lines.until("systemd kept 1003 descriptors")
            daemon = keeper.daemon()
            # what systemd opened is the daemon's
            environment = daemon.began["environment"]
            assert (environment["LISTEN_FDS"], environment["LISTEN_FDNAMES"]) == ("1", "web")
            given, told = daemon.hello()
            assert told.last == "the whole unit was restarted"
            with socket.socket(fileno=os.dup(given[(7, Role.CLIENT)])) as again:
                again.sendall(b"hello")
            assert clients[7].recv(10) == b"hello"
            assert os.read(given[(3, Role.PIPE_READ)], 100) == b"on its way"
            assert os.pread(given[(0, Role.LEDGER)], 100, 0) == b"accounts"
            assert inodes(given) == expected
            # and what is held is not given up for one that does not start
            daemon.end(1)
            assert len(inodes(keeper.daemon().serve())) == 1003
            keeper.process.terminate()


def test_a_restart_at_any_moment_of_the_start_keeps_everything(tmp_path: Path, systemd: Played) -> None:
    """What is stored is taken out of the store, and the signal comes before anything else has been done."""
    systemd.environment |= {"FDSTORE": "64"}
    with connections(10) as (_, served):
        things: dict[wire.Key, int] = {(number, Role.CLIENT): sock.fileno() for number, sock in enumerate(served)}
        with supervised(tmp_path, env=systemd.environment) as keeper:
            daemon = keeper.daemon_that_holds(things)
            keeper.process.terminate()
            assert isinstance(daemon.receive()[0], wire.Leave)
            daemon.end(0)
            systemd.until("BARRIER=1")
        systemd.is_busy()
        with systemd.restarted(tmp_path) as keeper:
            systemd.taken_out()
            keeper.process.terminate()
            systemd.forget()
            systemd.until("BARRIER=1")
            assert keeper.wait() == 0
        with systemd.restarted(tmp_path) as keeper:
            systemd.forget()
            given = keeper.daemon().serve()
            assert inodes(given) == {key: os.fstat(descriptor).st_ino for key, descriptor in things.items()}


def test_failures_before_one_that_served_do_not_count(tmp_path: Path, systemd: Played) -> None:
    """Also where that one did not end by a crash: it left for a restart of the unit, or was upgraded."""
    systemd.environment |= {"FDSTORE": "64"}
    with connections(1) as (_, served):
        with supervised(tmp_path, env=systemd.environment) as keeper:
            daemon = keeper.daemon_that_holds({(1, Role.CLIENT): served[0].fileno()})
            daemon.kill()
            assert "a new one starts at once" in keeper.lines.until("was killed by SIGKILL")
            daemon = keeper.daemon()
            inodes(daemon.serve())
            keeper.lines.until("serving nobody")
            time.sleep(1.2 * A_WHILE)
            keeper.process.terminate()
            assert isinstance(daemon.receive()[0], wire.Leave)
            daemon.end(0)
            systemd.until("BARRIER=1")
        with systemd.restarted(tmp_path) as keeper:
            systemd.forget()
            keeper.daemon().kill()
            assert "a new one starts at once" in keeper.lines.until("was killed by SIGKILL")
            daemon = keeper.daemon()
            inodes(daemon.serve())
            keeper.lines.until("serving nobody")
            time.sleep(1.2 * A_WHILE)
            daemon.hello("upgrade", give=False)
            daemon.kill()
            assert "a new one starts at once" in keeper.lines.until("was killed by SIGKILL")


def test_a_daemon_that_does_not_leave_is_killed_and_one_that_does_not_serve_at_once(tmp_path: Path, systemd: Played) -> None:
    systemd.environment |= {"FDSTORE": "64"}
    with connections(1) as (_, served):
        with supervised(tmp_path, env=systemd.environment) as keeper:
            daemon = keeper.daemon_that_holds({(1, Role.CLIENT): served[0].fileno()})
            daemon.kill()
            daemon = keeper.daemon()
            keeper.process.terminate()
            daemon.gone()
            systemd.until("BARRIER=1")
            assert keeper.wait() == 0
        with systemd.restarted(tmp_path, patience=3) as keeper:
            systemd.forget()
            daemon = keeper.daemon()
            inodes(daemon.serve())
            systemd.until("READY=1")
            keeper.process.terminate()
            # it is told, and does not listen
            keeper.lines.until("does not end: it is killed")
            daemon.gone()
            systemd.until("BARRIER=1")
            assert keeper.wait() == 0


def test_where_systemd_stores_nothing_the_daemon_is_ended(tmp_path: Path, systemd: Played) -> None:
    with supervised(tmp_path, env=systemd.environment | {"FDSTORE": "0"}) as keeper:
        daemon = keeper.daemon()
        daemon.serve()
        keeper.process.terminate()
        assert daemon.hears("signal")[0]["number"] == signal.SIGTERM
        daemon.end()
        assert keeper.wait() == 0


@pytest.mark.parametrize(
    ("environment", "watchdog", "stores"),
    [
        ({}, None, False),
        ({"WATCHDOG_USEC": "30000000"}, None, False),
        ({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "30000000"}, 15.0, False),
        ({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None, False),
        ({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "soon", "FDSTORE": "yes"}, None, False),
        ({"NOTIFY_SOCKET": "/x", "FDSTORE": "16"}, None, True),
        ({"NOTIFY_SOCKET": "vsock:2:1", "FDSTORE": "16"}, None, False),
        ({"FDSTORE": "16"}, None, False),
    ],
)
def test_what_the_environment_says(environment: dict[str, str], watchdog: float | None, stores: bool) -> None:
    systemd = Systemd(environment)
    assert (systemd.watchdog, systemd.stores) == (watchdog, stores)


def test_a_systemd_that_does_not_read_is_not_waited_for(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        systemd = Systemd({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        while systemd.tell("WATCHDOG=1"):
            pass
        assert sock.recv(100) == b"WATCHDOG=1"
        assert systemd.tell("READY=1")


def test_where_no_systemd_is_nothing_happens(tmp_path: Path) -> None:
    for environment in ({}, {"NOTIFY_SOCKET": str(tmp_path / "nobody"), "FDSTORE": "1", "LISTEN_PID": "1", "LISTEN_FDS": "9"}):
        systemd = Systemd(environment)
        assert not systemd.tell("READY=1")
        assert not systemd.barrier()
        assert systemd.take_up() is None
        assert "LISTEN_FDS" not in environment
