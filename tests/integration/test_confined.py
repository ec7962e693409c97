"""The daemon within what etc/distbal.service leaves it: all its work is done without a right or a system call that is filtered.

Systemd is not needed for that: tests/confined.py asks the kernel for the same, and ends a process that does more.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from distbal.adminclient import Connection
from tests.confined import allowed, directives
from tests.distccds import Distccd, distccd
from tests.integration.daemons import Daemon, connect, line, running
from tests.integration.farm import PATIENCE, until
from tests.sshd import USER, Sshd, serving
from tests.support import ROOT, need

pytestmark = pytest.mark.programs

UNIT = ROOT / "etc" / "distbal.service"
WITHIN = (sys.executable, str(ROOT / "tests" / "confined.py"), str(UNIT))
PLUGIN = "/usr/lib/nagios/plugins/check_load"
#: a job's bytes, there and back: more than a pipe holds
JOB = bytes(range(256)) * 8192

#: what holds a daemon's descriptors asks this of the kernel: each is a program that must end well
KEEPING = {
    "memory that outlives its process": """
import mmap, os
memory = os.memfd_create("ledger", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
os.ftruncate(memory, 8192)
mapped = mmap.mmap(memory, 8192)
mapped[:5] = b"slots"
mapped.flush()
assert os.pread(memory, 5, 0) == b"slots"
mapped.resize(16384)
""",
    "descriptors passed on": """
import os, select, socket
here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
ours, theirs = socket.socketpair()
socket.send_fds(here, [b"J"], [ours.fileno()])
ours.close()
_, (copy, *_), _, _ = socket.recv_fds(there, 100, 253)
watched = select.epoll()
watched.register(copy, select.EPOLLRDHUP)
theirs.shutdown(socket.SHUT_RDWR)
assert watched.poll(5)
socket.socket(fileno=copy).getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
""",
    "a child that is watched and killed": """
import os, signal, subprocess, sys
signal.set_wakeup_fd(-1)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
watched = os.pidfd_open(child.pid)
os.kill(child.pid, signal.SIGKILL)
assert child.wait() == -signal.SIGKILL
os.close(watched)
""",
    "another program in its place": """
import os, sys
os.set_inheritable(0, True)
os.execv(sys.executable, [sys.executable, "-c", "import fcntl, termios; fcntl.fcntl(0, fcntl.F_GETFD)"])
""",
    "what a connection and a pipe hold": """
import fcntl, os, socket, struct, termios
read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 65536)
os.write(write, b"half a job")
assert struct.unpack("i", fcntl.ioctl(read, termios.FIONREAD, bytes(4))) == (10,)
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
server = listener.accept()[0]
assert os.splice(read, client.fileno(), 10) == 10
assert server.recv(100) == b"half a job"
server.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
server.getsockopt(socket.SOL_SOCKET, 57, 8)  # SO_COOKIE
""",
    "systemd told": """
import os, socket
os.environ.setdefault("NOTIFY_SOCKET", "@" + "distbal-test-%d" % os.getpid())
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.bind("\\0" + os.environ["NOTIFY_SOCKET"][1:])
service = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
service.connect("\\0" + os.environ["NOTIFY_SOCKET"][1:])
socket.send_fds(service, [b"FDSTORE=1"], [0])
""",
}


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A host that the ssh monitor looks at."""
    need("systemd-analyze", "ssh")
    with serving(tmp_path_factory) as one:
        yield one


@pytest.mark.parametrize("what", KEEPING)
def test_what_the_keeper_asks_of_the_kernel_is_let_through(what: str) -> None:
    need("systemd-analyze")
    command = [*WITHIN, sys.executable, "-c", KEEPING[what]]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "program",
    [
        "import os; os.setuid(12)",
        "import os; os.chroot('/')",
        "import os; os.unshare(os.CLONE_NEWUSER)" if sys.version_info >= (3, 12) else "import os; os.chroot('/')",
        "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        "import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)",
        "import time; time.clock_settime(time.CLOCK_REALTIME, 0)",
    ],
)
def test_what_it_never_needs_is_not(program: str) -> None:
    """That the other tests here can fail."""
    need("systemd-analyze")
    done = subprocess.run([*WITHIN, sys.executable, "-c", program], capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == -signal.SIGSYS


def test_the_calls_of_the_system_that_it_needs_are_named() -> None:
    need("systemd-analyze")
    let_through = allowed(directives(UNIT)["SystemCallFilter"])
    assert {"splice", "memfd_create", "sendmsg", "recvmsg", "accept4", "epoll_ctl", "kill", "prlimit64", "flock"} <= let_through
    assert not {"mount", "ptrace", "bpf", "setuid", "chown", "kexec_load", "init_module", "swapon"} & let_through


def hosts(relayed: str, served: Distccd, sshd: Sshd) -> str:
    """One that relays what it is told, and one that is asked by whatever there is."""
    often = {"interval": 3, "timeout": 2.9}
    ssh = {"key": str(sshd.keys.private("user_ed25519")), "known_hosts": str(sshd.known_hosts), "user": USER, "port": sshd.port}
    monitors: dict[str, Any] = {
        "tcp": often,
        "compile": often,
        "exec": often | {"command": [PLUGIN, "-w", "10000", "-c", "10000"]},
        "ssh": often | ssh,
    }
    return json.dumps([{"name": relayed, "slots": 1}, {"name": f"127.0.0.1:{served.port}", "slots": 2, "monitors": monitors}])


def listen(directory: Path) -> str:
    return (
        "listen:\n  balance: 127.0.0.1:0\n  status: 127.0.0.1:0\n  update: 127.0.0.1:0\n"
        "  proxy: ['127.0.0.1:0', 'tcp:0:interface=127.0.0.1']\n  web: 127.0.0.1:0\n"
        f"  admin: unix:{directory}/admin.sock\n  manhole: 127.0.0.1:0\n"
        f"manhole: {{authorized_keys: {directory}/authorized_keys, host_key: {directory}/host_key}}\n"
        f"state: {directory}/state\n"
    )


def port_of(daemon: Daemon, kind: str) -> int:
    found = re.search(rf"\b{kind} (\d+)", daemon.log)
    assert found, daemon.log
    return int(found[1])


def relays(port: int, server: socket.socket) -> None:
    """A job goes there and comes back, by way of the proxy."""
    with connect(port) as client:
        client.sendall(JOB[:100])
        with server.accept()[0] as end:
            end.settimeout(PATIENCE)
            client.sendall(JOB[100:100_000])
            heard = bytearray()
            while len(heard) < 100_000:
                heard += end.recv(65536)
            end.sendall(JOB[:100_000])
            heard.clear()
            while len(heard) < 100_000:
                heard += client.recv(65536)
            assert heard == JOB[:100_000]


def test_a_daemon_does_all_its_work_within_the_unit(tmp_path: Path, sshd: Sshd) -> None:
    need("distccd", "gcc", PLUGIN)
    public = sshd.keys.public("user_ed25519")
    (tmp_path / "authorized_keys").write_text(f"{public}\n")
    (tmp_path / "authorized_keys").chmod(0o600)
    with ExitStack() as stack:
        served = stack.enter_context(distccd())
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        server.settimeout(PATIENCE)
        relayed = f"127.0.0.1:{server.getsockname()[1]}"
        text = f"hosts: {hosts(relayed, served, sshd)}\n{listen(tmp_path)}"
        daemon = stack.enter_context(running(tmp_path, text, before=WITHIN))
        with daemon.client() as client:
            assert line(client)
        for port in daemon.proxies + [int(found) for found in re.findall(r"proxy \d+, proxy (\d+)", daemon.log)]:
            relays(port, server)
        daemon.await_counts(0, 0)
        daemon.say(f"{relayed} down\r\n".encode())

        admin = stack.enter_context(Connection(str(tmp_path / "admin.sock")))

        def said() -> dict[str, bool]:
            monitors = admin.ask(["show", f"127.0.0.1:{served.port}"])["host"]["monitors"]
            return {one["source"]: one["up"] for one in monitors if one["checks"]}

        good = {"tcp": True, "compile": True, "exec": True, "ssh": True}
        until(lambda: said() == good, "what every monitor says")
        admin.ask(["drain", relayed, "a test"])
        assert "a test" in (tmp_path / "state" / "decisions.json").read_text()

        for path in ("/", "/api/v1/status", "/healthz", "/events"):
            with connect(port_of(daemon, "web")) as browser:
                browser.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                assert browser.recv(100).startswith(b"HTTP/1.1 200 OK")

        command = ["ssh", "-F", "none", "-p", str(port_of(daemon, "manhole")), "-i", str(sshd.keys.private("user_ed25519"))]
        command += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes"]
        done = subprocess.run(
            [*command, "127.0.0.1", "hosts"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert relayed in done.stdout, done.stderr

        daemon.reload(f"{text}policy: least-loaded\n")
        assert daemon.end() == -signal.SIGTERM
