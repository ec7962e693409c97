"""The keeper under a real systemd, which runs the unit that is installed, its sandbox aside: systemd --user, in namespaces
where it can write to nothing but the test's own directory. It needs root, for those.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from distbal import keeperwire as wire
from distbal.keeperwire import Role
from tests.supervising import Daemon, address, connections, inodes
from tests.support import ROOT, need, room_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.programs

#: what the unit says of the keeper, and what is forbidden to it; the rest of the sandbox systemd --user cannot make
KEPT = re.compile(
    r"^(\[.*|(Type|NotifyAccess|WatchdogSec|KillMode|TimeoutStopSec|FileDescriptorStoreMax|Environment|OOMPolicy|Restart\w*"
    r"|StartLimit\w*|ExecReload|NoNewPrivileges|LockPersonality|MemoryDenyWriteExecute|SystemCall\w+|UMask)=.*)$",
    re.MULTILINE,
)
#: Runs systemd and then commands, each of a line, after whose output comes a line with its status.
#: A systemd does more than it is asked to (it cleans /tmp, for one). So before it starts nothing can be written to but this
#: test's own directory; it finds no unit but the test's; and it has control groups below one of its own.
SCRIPT = r"""
mine=$1
for groups in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
    [ -e $groups/cgroup.procs ] && mkdir "$groups/$2" && echo 0 >"$groups/$2/cgroup.procs"
done
mount --bind "$mine" "$mine" && mount -t proc proc /proc && mount -t tmpfs tmpfs /run || exit
while read -r _ place type _; do
    case "$place $type" in "$mine "*|"/run "*|"/proc "*|*" cgroup"|*" cgroup2") ;;
    *) mount -o remount,bind,ro "$place" 2>/dev/null ;;
    esac
done </proc/self/mounts
for place in / /tmp /var /var/tmp /var/log /etc /home /root /usr /dev/shm "$PWD"; do
    [ -w "$place" ] && echo "$place can be written to" && exit
done
mkdir -p /run/systemd/system /run/user/0 "$mine/none" && chmod 700 /run/user/0 || exit
for bin in /lib/systemd/systemd /usr/lib/systemd/systemd; do [ -x $bin ] && break; done
export XDG_RUNTIME_DIR=/run/user/0
env -i PATH="$PATH" HOME="$mine/none" XDG_RUNTIME_DIR=/run/user/0 XDG_CONFIG_HOME="$mine/none" SYSTEMD_UNIT_PATH="$mine/units" \
    SYSTEMD_GENERATOR_PATH="$mine/none" SYSTEMD_ENVIRONMENT_GENERATOR_PATH="$mine/none" \
    $bin --user --unit=nothing.target >"$mine/log" 2>&1 &
until systemctl --user show -p Version >/dev/null 2>&1; do kill -0 $! 2>/dev/null || exit; sleep 0.1; done
echo "status 0"
while read -r command; do eval "$command"; echo "status $?"; done
"""


class RealSystemd:
    """The one that runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def answers(self) -> tuple[str, int]:
        """What the last command has written, and its status; 255 where all has ended."""
        assert self._process.stdout is not None
        said = ""
        for line in self._process.stdout:
            if line.startswith("status "):
                return said, int(line.split()[1])
            said += line
        return said, 255

    def systemctl(self, words: str) -> str:
        """Run systemctl, which has to succeed."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"systemctl --user {words} 2>&1 </dev/null\n")
        self._process.stdin.flush()
        said, status = self.answers()
        assert status == 0, said
        return said.strip()

    def shows(self, name: str) -> str:
        """A property of the unit."""
        return self.systemctl(f"show --value -p {name} distbal.service")


@contextmanager
def systemd(directory: Path) -> Iterator[RealSystemd]:
    """It runs for as long as the ``with`` block does."""
    need("systemd-analyze", "unshare")
    group = f"distbal-test-{os.getpid()}"
    (directory / "units").mkdir()
    # those that every service needs by default
    for name in ("nothing", "basic", "shutdown"):
        (directory / "units" / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")
    with subprocess.Popen(
        [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private"),
            *("sh", "-c", SCRIPT, "sh", str(directory), group),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            running = RealSystemd(process)
            said, status = running.answers()
            if status:
                log = directory / "log"
                pytest.skip(f"systemd --user does not run here: {said}{log.read_text() if log.exists() else ''}")
            yield running
        finally:
            # the first process of the namespace ends, and all the others with it
            process.communicate()
            # deepest first
            for path in sorted(Path("/sys/fs/cgroup").glob(f"**/{group}/**/"), reverse=True):
                path.rmdir()


def unit(path: str) -> str:
    """The unit, for a keeper of fake daemons."""
    text = "\n".join(found[0] for found in KEPT.findall((ROOT / "etc" / "distbal.service").read_text()))
    start = f"{sys.executable} -m distbal supervise --daemon=tests.fake_daemon --patience=600 -c {path}"
    return text.replace(
        "[Service]",
        f"[Service]\nEnvironment=PYTHONDONTWRITEBYTECODE=1\nWorkingDirectory={ROOT}\nExecStart={start}\nStandardError=file:{path}.said",
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces with a systemd in them are root's to make")
def test_a_restart_of_the_unit_keeps_everything(tmp_path: Path) -> None:
    with (
        room_for(4000),
        address(tmp_path) as (path, listener),
        connections(1000) as (clients, served),
        systemd(tmp_path) as real,
    ):
        (tmp_path / "units" / "distbal.service").write_text(unit(path))
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
