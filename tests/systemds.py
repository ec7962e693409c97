"""A real systemd, which runs the unit that is installed, its sandbox aside: systemd --user, in namespaces where it can write to
nothing but the test's own directory. It needs root, for those.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import ROOT, need

#: for the tests with one
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces with a systemd in them are root's to make")

#: what the unit says of the keeper, and what is forbidden to it; the rest of the sandbox systemd --user cannot make
KEPT = re.compile(
    r"^(\[.*|(Type|NotifyAccess|WatchdogSec|KillMode|TimeoutStopSec|FileDescriptorStoreMax|Environment|OOMPolicy|Rest\w+"
    r"|RuntimeDirectory\w*|StartLimit\w*|ExecReload|NoNewPrivileges|LockPersonality|MemoryDenyWriteExecute|SystemCall\w+|UMask)=.*)$",
    re.MULTILINE,
)
#: where the unit's RuntimeDirectory= is, within
RUNTIME = "/run/user/0/distbal"
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
    $bin --user --unit=nothing.target >"$mine/systemd.log" 2>&1 &
until systemctl --user show -p Version >/dev/null 2>&1; do kill -0 $! 2>/dev/null || exit; sleep 0.1; done
echo "status 0"
while read -r command; do eval "$command"; echo "status $?"; done
"""


class RealSystemd:
    """The one that runs.

    :ivar process: of its namespaces.
    """

    def __init__(self, process: subprocess.Popen[str], directory: Path) -> None:
        self.process = process
        self._directory = directory

    @property
    def log(self) -> str:
        """What it says."""
        log = self._directory / "systemd.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def answers(self) -> tuple[str, int]:
        """What the last command has written, and its status; 255 where all has ended."""
        assert self.process.stdout is not None
        said = ""
        for line in self.process.stdout:
            if line.startswith("status "):
                return said, int(line.split()[1])
            said += line
        return said, 255

    def systemctl(self, words: str) -> str:
        """Run systemctl, which has to succeed."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"systemctl --user {words} 2>&1 </dev/null\n")
        self.process.stdin.flush()
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
            running = RealSystemd(process, directory)
            said, status = running.answers()
            if status:
                pytest.skip(f"systemd --user does not run here: {said}{running.log}")
            yield running
        finally:
            # the first process of the namespace ends, and all the others with it
            process.communicate()
            # deepest first
            for path in sorted(Path("/sys/fs/cgroup").glob(f"**/{group}/**/"), reverse=True):
                path.rmdir()


def unit(arguments: str, environment: Mapping[str, str], directory: Path, said: Path, **others: str) -> str:
    """The unit, for a keeper of this checkout.

    :param arguments: of ``distbal supervise``.
    :param directory: where it runs.
    :param said: the file to which what it says is added.
    :param others: lines that are to be different, or there besides, by their names.
    """
    text = "\n".join(found[0] for found in KEPT.findall((ROOT / "etc" / "distbal.service").read_text()))
    for name in others:
        text = re.sub(rf"^{name}=.*\n", "", text, flags=re.MULTILINE)
    lines = [
        *(f"{name}={value}" for name, value in others.items()),
        *(f'Environment="{name}={value}"' for name, value in environment.items()),
        f"WorkingDirectory={directory}",
        f"ExecStart={sys.executable} -m distbal supervise {arguments}",
        f"StandardOutput=append:{said}",
        f"StandardError=append:{said}",
    ]
    return text.replace("[Service]", "\n".join(["[Service]", *lines]))
