"""The daemon in need: too few descriptors, clients that behave badly, logs that nobody can write."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from distbal.complaints import BURST
from tests.integration.daemons import (
    ENVIRONMENT,
    LISTEN,
    TWISTD,
    connect,
    limited,
    line,
    refuses,
    reset,
    running,
)
from tests.integration.farm import until
from tests.support import alone, free_port, room_for, stop

# -- descriptors --------------------------------------------------------------------------------------------------------------


def test_more_clients_than_descriptors(tmp_path: Path) -> None:
    slots, wait = 60, 4
    text = f"hosts: [alpha/{slots}]\nqueue: {{wait: {wait}}}\n{LISTEN}"
    with running(tmp_path, text, before=limited(120, 160)) as daemon, contextlib.ExitStack() as stack:
        found = re.search(r"open descriptors is 160, which leaves room for (\d+) clients: for 60 slots", daemon.log)
        assert found, daemon.log
        room = int(found[1])
        assert slots < room < 2 * slots
        clients = [stack.enter_context(daemon.client()) for _ in range(room + 30)]
        daemon.await_counts(slots, room - slots)
        assert [line(sock) for sock in clients[:slots]] == [b"alpha\r\n"] * slots
        # nothing happens until the first one has waited as long as it may
        before = daemon.cpu()
        assert clients[slots].recv(1) == b""
        assert daemon.cpu() - before < 0.4 * wait
        # as each is sent away, another one is taken in: all are served or refused in the end, none is forgotten
        assert [line(sock) for sock in clients[slots + 1 :]] == [b""] * (room + 30 - slots - 1)
        daemon.await_counts(slots, 0)
        # the next one is taken in as soon as one leaves
        more = [stack.enter_context(daemon.client()) for _ in range(room)]
        daemon.await_counts(slots, room - slots)
        for sock in clients[:slots]:
            sock.close()
        assert [line(sock) for sock in more[:slots]] == [b"alpha\r\n"] * slots
        daemon.say(b"alpha down\n")
        assert daemon.log.count("not accepting more clients for now") == 1
        daemon.assert_calm()


def test_two_thousand_clients_that_leave_at_once(tmp_path: Path) -> None:
    number = 2000
    with (
        room_for(number + 500),
        running(tmp_path, f"hosts: [alpha/{number // 2}]\n{LISTEN}", before=limited(256, 4096)) as daemon,
    ):
        assert "limit on open descriptors" not in daemon.log
        clients = [daemon.client() for _ in range(number)]
        daemon.await_counts(number // 2, number // 2)
        for turn, sock in enumerate(clients):
            if turn % 2:
                reset(sock)
            else:
                sock.close()
        daemon.await_counts(0, 0)
        daemon.lent_and_back(3)
        daemon.assert_calm()


# -- clients that behave badly ------------------------------------------------------------------------------------------------

HOLDER = """
import socket, sys, time
port, number = map(int, sys.argv[1:])
held = [socket.create_connection(("127.0.0.1", port)) for _ in range(number)]
print("here", flush=True)
time.sleep(3600)
"""

FLOOD = """
import contextlib, os, random, socket, struct, sys
ports, dice = [int(word) for word in sys.argv[2:]], random.Random(int(sys.argv[1]))
garbage = b"alpha up", b"{", b"\\n", b"alpha \\n", b"\\xff\\x00", b"GET / HTTP/1.0\\r\\n\\r\\n", bytes(9000)
for turn in range(600):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports[turn % 3]), 20) as sock:
        sock.settimeout(0.01)
        sock.sendall(dice.choice(garbage))
        end = dice.randrange(4)
        if end == 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif end == 1:
            sock.shutdown(socket.SHUT_WR)
        elif end == 2:
            sock.recv(10)
"""


@contextlib.contextmanager
def script(text: str, *words: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-S", "-c", text, *map(str, words)], stdout=subprocess.PIPE, env={"PATH": ""})
    try:
        yield process
    finally:
        stop(process)


def test_garbage_on_every_port_while_jobs_go_on(tmp_path: Path) -> None:
    with running(tmp_path, f"hosts: [alpha/50, beta/50]\n{LISTEN}") as daemon, contextlib.ExitStack() as stack:
        floods = [stack.enter_context(script(FLOOD, seed, *daemon.ports)) for seed in range(3)]
        jobs = 0
        while any(flood.poll() is None for flood in floods):
            daemon.lent_and_back(1)
            jobs += 1
            assert jobs < 100_000
        assert [flood.returncode for flood in floods] == [0, 0, 0]
        daemon.await_counts(0, 0)
        daemon.say(b"beta down\n")
        assert [host.up for host in daemon.look().hosts] == [True, False]
        daemon.assert_calm()
        warnings = len(daemon.log.splitlines())
        assert warnings < 10 * BURST, "so many lines fill a disk"


def test_clients_that_freeze_or_are_killed(tmp_path: Path) -> None:
    with running(tmp_path, f"hosts: [alpha/5, beta/1]\n{LISTEN}") as daemon, script(HOLDER, daemon.ports[0], 5) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"here\n"
        daemon.await_counts(5, 0)
        holder.send_signal(signal.SIGSTOP)
        # its jobs are its own business, and nobody else's hindrance
        daemon.lent_and_back(20)
        with script(HOLDER, daemon.ports[0], 5) as waiter:
            assert waiter.stdout
            assert waiter.stdout.readline() == b"here\n"
            daemon.await_counts(6, 4)
            waiter.send_signal(signal.SIGSTOP)
            holder.kill()
            # the leases go to those who wait, frozen as they are
            daemon.await_counts(5, 0)
            waiter.kill()
            daemon.await_counts(0, 0)
        daemon.assert_calm()


# -- logs that cannot be written ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("redirect", "words"),
    [
        (">/dev/full 2>&1", []),
        (">&- 2>&-", []),
        ("2>&-", []),
        (">/dev/null 2>&1", ["--logfile=/dev/full"]),
    ],
    ids=["a full disk", "closed", "stderr closed", "a log file on a full disk"],
)
def test_jobs_go_on_where_nothing_can_be_logged(tmp_path: Path, redirect: str, words: list[str]) -> None:
    port, update = free_port(), free_port()
    places = f"balance: '127.0.0.1:{port}', status: null, update: '127.0.0.1:{update}'"
    (tmp_path / "hosts.yaml").write_text(alone(f"hosts: [alpha/1, beta/1]\nlisten: {{{places}}}\n"))
    shell = ("/bin/sh", "-c", f'exec "$@" {redirect}', "sh")
    twistd = [TWISTD, "-n", "--pidfile=", *words, "distbal", "-c", "hosts.yaml", "--verbose"]
    process = subprocess.Popen([*shell, *twistd], cwd=tmp_path, env=ENVIRONMENT, stdin=subprocess.DEVNULL)
    try:
        until(lambda: process.poll() is not None or not refuses(port), "the daemon")
        for _ in range(300):
            with connect(port) as first, connect(port) as second:
                assert {line(first), line(second)} == {b"alpha\r\n", b"beta\r\n"}
        for _ in range(3):
            with connect(update) as sock:
                sock.sendall(b"nobody up\n")
                assert sock.recv(1) == b""
        assert process.poll() is None
    finally:
        stop(process)
    assert process.returncode == -signal.SIGTERM
