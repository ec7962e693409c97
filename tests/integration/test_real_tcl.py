"""The unmodified programs of 2004: bal-wrap.tcl compiles through distbal, balance-status-daemon.tcl watches its servers."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.farm import running_farm
from tests.integration.project import project
from tests.support import ROOT, need, spawn

pytestmark = pytest.mark.programs

#: what bal-wrap.tcl has in its text
FROZEN_PORT = 5656

#: set the loopback interface up (a new network has it down), then become the arguments
LOOPBACK_UP = """
import fcntl, os, socket, struct, sys
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
os.execv(sys.argv[1], sys.argv[1:])
"""


def is_free(port: int) -> bool:
    """Whether this port can be had on every address by which ``localhost`` may go."""
    for family, _, _, _, address in socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM):
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return False
    return True


def run_in_a_network_of_its_own(test: str) -> None:
    """Run this test again where every port is free; skips where that is not allowed."""
    alone = ["unshare", "--net", "--", sys.executable, "-c", LOOPBACK_UP, sys.executable]
    if os.geteuid() != 0 or subprocess.run([*alone, "-c", ""], check=False, stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip(f"port {FROZEN_PORT} is taken, and a network where it is free is not allowed here")
    again = subprocess.run(
        [*alone, "-m", "pytest", "-q", "-p", "no:cacheprovider", test], check=False, cwd=ROOT, capture_output=True, text=True
    )
    assert again.returncode == 0, again.stdout
    assert "1 passed" in again.stdout


def test_bal_wrap(original: Path, wrap_program: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A build through the 2004 client: each compile is one lease, and runs on the server that it names."""
    need("tclsh", "distcc", "distccd", "gcc", "make")
    if not is_free(FROZEN_PORT):
        run_in_a_network_of_its_own(request.node.nodeid)
        return
    with running_farm(("fast", 3, 0.0), ("slow", 2, 0.05), balance=FROZEN_PORT) as farm:
        build = project(farm, tmp_path, wrap_program, files=12)
        build.env["DISTCC_FALLBACK"] = "0"
        with build.building("make", "-j8", f"CC=tclsh {original}/bal-wrap.tcl distcc gcc") as make:
            with farm.held():
                farm.await_clients(5, 3)
                farm.await_running(3, 2)
            built = build.end(make)
        assert (built.returncode, built.stderr) == (0, "")
        assert build.is_built()
        farm.await_compiled(12)
        assert farm.granted() == 12
        assert [server.most() for server in farm.servers] == [3, 2]
        farm.await_clients(0, 0)


@pytest.mark.parametrize("monitors", ["", "monitors: {tcp: true}\n"], ids=["alone", "beside our own monitors"])
def test_balance_status_daemon(original: Path, tmp_path: Path, monitors: str) -> None:
    """A server that was killed is taken down, and nobody is sent there; when it is back, it is taken up. It looks each 10 s."""
    need("tclsh")
    with running_farm(("fast", 3, 0.0), ("slow", 2, 0.0), more=monitors) as farm:
        fast, slow = farm.servers
        assert all(host.up for host in farm.look().hosts)
        fast.kill()
        ports = ("127.0.0.1", str(farm.status), str(farm.update))
        with spawn("tclsh", original / "balance-status-daemon.tcl", *ports, cwd=tmp_path, stdout=subprocess.DEVNULL):
            farm.await_state(fast, up=False)
            farm.await_state(slow, up=True)
            assert ask(farm.balance) == slow.name
            fast.start()
            farm.await_state(fast, up=True)
            assert ask(farm.balance) == fast.name


def ask(port: int) -> str:
    """The name that the next client is sent."""
    with socket.create_connection(("127.0.0.1", port)) as sock, sock.makefile() as line:
        return line.readline().rstrip()
