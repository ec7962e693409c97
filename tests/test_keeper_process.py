"""The keeper as a process, with daemons that do what the test says: what it holds and hands on, and what it says."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from distbal import __version__
from distbal import keeperwire as wire
from distbal.keeperwire import Role
from tests.supervising import Lines, Supervised, connections, inodes, supervised
from tests.support import ROOT, alone, stop


def test_what_was_held_is_given_back_after_a_kill(tmp_path: Path) -> None:
    with supervised(tmp_path) as keeper, connections(600) as (clients, served):
        daemon = keeper.daemon()
        assert daemon.began["parent"] == keeper.process.pid
        assert daemon.began["words"][:-1] == ["-n", "--pidfile=", "distbal", "-c"]
        given, told = daemon.hello()
        assert given == {}
        assert (told.version, told.pid, told.restarts, told.last) == (__version__, keeper.process.pid, 0, "")
        daemon.send(wire.ready("7.0", "serving nobody"))
        reading, writing = os.pipe()
        roles = [Role.CLIENT, Role.SESSION_CLIENT, Role.SESSION_SERVER]
        things: dict[wire.Key, int] = {
            (1 << 60 | number, roles[number % 3]): sock.fileno() for number, sock in enumerate(served)
        }
        things |= {(5, Role.PIPE_READ): reading, (5, Role.PIPE_WRITE): writing}
        daemon.hold(things)
        expected = {key: os.fstat(descriptor).st_ino for key, descriptor in things.items()}
        os.write(writing, b"on its way")
        os.close(reading)
        os.close(writing)
        for sock in served:
            sock.close()
        daemon.kill()
        assert "was killed by SIGKILL" in keeper.lines.until("a new one starts at once, and gets 602 descriptors")

        daemon = keeper.daemon()
        given, told = daemon.hello()
        assert told.restarts == 1
        assert told.last.endswith(
            "was killed by SIGKILL: somebody's kill -9, or the machine was out of memory (the kernel's log would say so)"
        )
        assert os.read(given[(5, Role.PIPE_READ)], 100) == b"on its way"
        with socket.socket(fileno=os.dup(given[(1 << 60 | 7, roles[1])])) as again:
            again.sendall(b"hello")
        assert clients[7].recv(100) == b"hello"
        assert inodes(given) == expected


def test_all_that_a_daemon_sent_before_its_end_counts(tmp_path: Path) -> None:
    """Also where it had not read what it was sent, which the kernel tells before anything else (ECONNRESET)."""
    with supervised(tmp_path) as keeper, connections(40) as (_, served):
        daemon = keeper.daemon()
        daemon.serve()
        os.kill(keeper.process.pid, signal.SIGSTOP)
        daemon.send(wire.hello("7.0", daemon.pid, "start", give=False))  # its answer is never read
        for number, sock in enumerate(served):
            daemon.send(wire.journal([(number, Role.SESSION_CLIENT)]), [sock.fileno()])
        daemon.sent()
        daemon.kill()
        os.kill(keeper.process.pid, signal.SIGCONT)
        given = keeper.daemon().serve()
        assert sorted(given) == [(number, Role.SESSION_CLIENT) for number in range(40)]
        inodes(given)


def test_a_daemon_that_ends_with_its_mail_unread(tmp_path: Path) -> None:
    with supervised(tmp_path) as keeper, connections(1) as (_, served):
        daemon = keeper.daemon()
        daemon.serve()
        daemon.send(wire.hello("7.0", daemon.pid, "start", give=False))
        keeper.lines.until("serving nobody")
        daemon.send(wire.journal([(1, Role.CLIENT)]), [served[0].fileno()])
        daemon.end(3)
        keeper.lines.until("ended with status 3; a new one starts")
        given = keeper.daemon().serve()
        assert list(given) == [(1, Role.CLIENT)]
        inodes(given)


def test_what_is_let_go_is_closed_and_what_is_sent_again_takes_its_place(tmp_path: Path) -> None:
    with supervised(tmp_path) as keeper, connections(3) as (clients, served):
        daemon = keeper.daemon()
        daemon.serve()
        before = keeper.descriptors()
        one, two, three = (sock.fileno() for sock in served)
        daemon.hold({(1, Role.SESSION_CLIENT): one, (2, Role.CLIENT): two})
        assert keeper.descriptors() == before + 2
        daemon.hold({(1, Role.SESSION_CLIENT): three})
        assert keeper.descriptors() == before + 2
        daemon.hold({}, let_go=[(2, Role.CLIENT), (77, Role.LISTENER)])
        assert keeper.descriptors() == before + 1
        for sock in served:
            sock.close()
        # nobody has these any more
        assert clients[0].recv(1) == b""
        assert clients[1].recv(1) == b""
        daemon.kill()
        given = keeper.daemon().serve()
        assert list(given) == [(1, Role.SESSION_CLIENT)]
        inodes(given)
        clients[2].setblocking(False)
        with pytest.raises(BlockingIOError):
            clients[2].recv(1)


def test_a_client_whose_connection_is_shut_down_is_dropped_and_others_are_not(tmp_path: Path) -> None:
    with supervised(tmp_path) as keeper, connections(4) as (clients, served):
        daemon = keeper.daemon()
        daemon.serve()
        roles = [Role.CLIENT, Role.SESSION_CLIENT, Role.CLIENT, Role.CLIENT]
        daemon.hold({(number, role): sock.fileno() for number, (role, sock) in enumerate(zip(roles, served, strict=True))})
        served[0].shutdown(socket.SHUT_RDWR)
        served[1].shutdown(socket.SHUT_RDWR)
        served[2].shutdown(socket.SHUT_WR)
        daemon.sync()
        for sock in served:
            sock.close()
        # its last duplicate was the keeper's
        assert clients[0].recv(1) == b""
        daemon.kill()
        daemon = keeper.daemon()
        given = daemon.serve()
        assert sorted(given) == [(1, Role.SESSION_CLIENT), (2, Role.CLIENT), (3, Role.CLIENT)]
        inodes(given)
        # one that leaves with a reset while no daemon looks
        daemon.kill()
        clients[3].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        clients[3].close()
        given = keeper.daemon().serve()
        assert sorted(given) == [(1, Role.SESSION_CLIENT), (2, Role.CLIENT)]
        inodes(given)


def test_garbage_is_said_and_its_descriptors_are_closed(tmp_path: Path) -> None:
    with supervised(tmp_path) as keeper, connections(1) as (_, served):
        daemon = keeper.daemon()
        daemon.serve()
        before = keeper.descriptors()
        stray = [served[0].fileno()] * 5
        for packet in (b"nonsense", b"", wire.BEAT, wire.journal([(1, Role.CLIENT)] * 4), b"J\x05\0" + bytes(45), b"x" * 70000):
            daemon.send(packet, stray)
            daemon.sync()
            assert keeper.descriptors() == before
        daemon.send(b"")
        daemon.sync()
        for said in (
            "the daemon sent what it should not, and it is passed over: a packet of the type b'n' is none that a daemon sends",
            "a packet is empty",
            "a packet with 0 keys of descriptors came with 5 descriptors",
            "a packet with 4 keys of descriptors came with 5 descriptors",
            "has a descriptor of a role that is not known: 0",
            "a packet has more than 65536 bytes",
            "a packet is empty",
        ):
            keeper.lines.until(said)
        # there is an end to it
        for _ in range(20):
            daemon.send(b"nonsense")
        daemon.sync()
        keeper.lines.until("more of this kind is not said for a minute")
        daemon.kill()
        keeper.lines.until("and gets 0 descriptors")
        assert not any("nonsense" in line for line in keeper.lines.read)
        assert sum("b'n'" in line for line in keeper.lines.read) < 10
        keeper.daemon().serve()


def test_a_full_keeper_says_so_and_goes_on(tmp_path: Path) -> None:
    limit = ["sh", "-c", 'ulimit -n 100 && exec "$@"', "sh"]
    with supervised(tmp_path, before=limit) as keeper, connections(120) as (_, served):
        daemon = keeper.daemon()
        daemon.serve()
        things = {(number, Role.CLIENT): sock.fileno() for number, sock in enumerate(served)}
        daemon.hold(dict(list(things.items())[:50]))
        daemon.hold({(50, Role.CLIENT): served[50].fileno()})
        keeper.lines.until("the keeper is full: it holds 50 descriptors and no more")
        # even a packet with more than this process may have
        daemon.hold({(number, Role.SESSION_CLIENT): sock.fileno() for number, sock in enumerate(served)})
        keeper.lines.until("could not be received, and are not held")
        daemon.hold({(200, Role.CLIENT): served[50].fileno()}, let_go=[(0, Role.CLIENT)])
        daemon.hold({(201, Role.CLIENT): served[51].fileno()})
        daemon.kill()
        given = keeper.daemon().serve()
        assert sorted(given) == [*((number, Role.CLIENT) for number in range(1, 50)), (201, Role.CLIENT)]
        inodes(given)


def test_signals_are_forwarded(tmp_path: Path) -> None:
    with supervised(tmp_path) as keeper:
        daemon = keeper.daemon()
        daemon.serve()
        for number in (signal.SIGHUP, signal.SIGUSR2):
            keeper.process.send_signal(number)
            assert daemon.hears("signal")[0]["number"] == number


def test_what_is_forwarded_ends_no_daemon_that_has_only_begun(tmp_path: Path) -> None:
    """It waits until the daemon has its handlers: a reload that somebody asks for early is done, and nothing else happens."""
    with supervised(tmp_path) as keeper:
        daemon = keeper.daemon()
        assert daemon.began["blocked"] == [signal.SIGHUP, signal.SIGUSR2]
    file = tmp_path / "hosts.yaml"
    file.write_text(alone("hosts: [alpha/1]\nlisten: {balance: '127.0.0.1:0'}\n"))
    reading, writing = os.pipe()
    lines = Lines(reading)
    process = subprocess.Popen(
        [sys.executable, "-m", "distbal", "supervise", "--verbose", "-c", str(file)], cwd=ROOT, stdout=writing, stderr=writing
    )
    os.close(writing)
    try:
        lines.until("the daemon is process")
        process.send_signal(signal.SIGHUP)
        lines.until("was taken in")
        process.terminate()
        assert process.wait(60) == 0
        assert not any("was killed" in line for line in lines.read)
    finally:
        stop(process)
        lines.close()


def test_twistd_options_are_handed_on(tmp_path: Path) -> None:
    with supervised(tmp_path, "--", "--logfile=x y", "--no_save") as keeper:
        daemon = keeper.daemon()
        assert daemon.began["words"][:-1] == ["-n", "--pidfile=", "--logfile=x y", "--no_save", "distbal", "-c"]


@pytest.mark.parametrize("how", ["2>&-", "2>/dev/full", "<&- 2>&-"])
def test_nobody_has_to_listen(tmp_path: Path, how: str) -> None:
    with supervised(tmp_path, before=["sh", "-c", f'exec "$@" {how}', "sh"]) as keeper, connections(1) as (_, served):
        daemon = keeper.daemon_that_holds({(1, Role.CLIENT): served[0].fileno()})
        daemon.send(b"garbage")
        daemon.kill()
        given = keeper.daemon().serve()
        assert list(given) == [(1, Role.CLIENT)]
        inodes(given)


def test_a_reader_that_hangs_stops_nothing(tmp_path: Path) -> None:
    with ExitStack() as stack:
        reading, writing = os.pipe()
        for descriptor in (reading, writing):
            stack.callback(os.close, descriptor)
        os.set_blocking(writing, False)
        with suppress(BlockingIOError):
            while True:
                os.write(writing, bytes(4096))
        os.set_blocking(writing, True)
        keeper: Supervised = stack.enter_context(supervised(tmp_path, stderr=writing))
        daemon = keeper.daemon()
        daemon.serve()
        daemon.kill()
        keeper.daemon().serve()


@pytest.mark.parametrize(("word", "said"), [("--patience=0", "is no number of seconds"), ("--patience=soon", "is no number")])
def test_wrong_words_are_refused(tmp_path: Path, word: str, said: str) -> None:
    with supervised(tmp_path, word) as keeper:
        assert keeper.wait() == 2
        keeper.lines.until(said)
