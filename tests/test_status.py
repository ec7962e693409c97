"""``distbal status``: what it asks, what it prints for people and for programs, and what it says when there is no answer."""

from __future__ import annotations

import argparse
import io
import json
import os
import pty
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from distbal import status, wire
from distbal.errors import DistbalError
from distbal.hosts import HostSpec
from distbal.snapshot import ClientState, HostState, Snapshot
from tests.support import ROOT, free_port


def host(name: str, slots: int, leases: int, *, up: bool = True, removed: bool = False) -> HostState:
    spec = HostSpec(name, slots, rank=0)
    return HostState(spec, leases, slots if up else 0, up, up and leases < slots, "ready", removed, (), granted=0, held=0.0)


def client(number: int, address: str, given: str = "") -> ClientState:
    return ClientState(number, address, 50000 + number if address else 0, "default", 0.0, given)


FARM = Snapshot(
    0.0,
    (
        host("snookles:3632", 8, 3),
        host("newbb", 4, 0, up=False),
        host("[fd00::7]:3632", 2, 2),
        host("old", 4, 1, up=False, removed=True),
    ),
    (client(0x20, "10.0.0.9"), client(0x21, ""), client(0x22, "10.0.0.9")),
    (
        client(0x10, "10.0.0.9", "snookles:3632"),
        client(0x11, "10.0.0.12", "snookles:3632"),
        client(0x12, "10.0.0.9", "snookles:3632"),
        client(0x13, "fd00::9", "[fd00::7]:3632"),
        client(0x14, "10.0.0.9", "[fd00::7]:3632"),
        client(0x15, "10.0.0.12", "old"),
    ),
    {},
)
#: what the Tcl original said, to the byte, of another farm: its order of hash tables is none
ORIGINAL = (
    b"BalanceTcpPort = 5656, StatusTcpPort = 5657\r\n"
    b"ServerList = {127.0.0.1:3701 1} {{[fd00::7]:3632} 2} {localhost 1}\r\n"
    b"IdleServers = 1\r\n"
    b"DownServers = 1\r\n"
    b"WaitQueue = {sock55985a8dbea0 127.0.0.1 58378} {sock55985a8d2180 127.0.0.1 58390}\r\n"
    b"WaitQueueLen = 2\r\n"
    b"ServerStatus (available distcc servers) = localhost 1 127.0.0.1:3701 0 {[fd00::7]:3632} 0\r\n"
    b"ServerUpState (distcc server up/down status) = localhost down 127.0.0.1:3701 up {[fd00::7]:3632} up\r\n"
    b"ClientStatus (who's connected to what) = sock55985a8db0a0 {127.0.0.1 58358 {[fd00::7]:3632}} "
    b"sock55985a8daa20 {127.0.0.1 58332 127.0.0.1:3701} sock1 {::1 58333 {[fd00::7]:3632}}\r\n"
)


@contextmanager
def answering(answer: bytes, *, hold: bool = False) -> Iterator[int]:
    """A port where one client is answered with this; with ``hold``, the connection stays open until the client leaves."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(answer)
            if not hold:
                connection.shutdown(socket.SHUT_WR)
            connection.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    status.add_arguments(parser)
    return status.run(parser.parse_args(words))


# -- for people ---------------------------------------------------------------------------------------------------------------


def test_the_table_lines_up(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(wire.status(FARM, 5656, 5657)) as port:
        assert run(f"127.0.0.1:{port}") == 0
    out = capsys.readouterr().out
    assert out == (
        f"distbal at 127.0.0.1:{port}; clients ask on port 5656\n"
        "\n"
        "HOST            STATE    SLOTS               CLIENTS\n"
        "snookles:3632   up         3/8 [####......]  10.0.0.9 x2, 10.0.0.12\n"
        "newbb           down       0/4 [..........]\n"
        "[fd00::7]:3632  up         2/2 [##########]  fd00::9, 10.0.0.9\n"
        "old             removed    1/0 [##########]  10.0.0.12\n"
        "\n"
        "waiting, longest first: 10.0.0.9 x2, local\n"
        "\n"
        "3 hosts (1 down): 6 of 14 slots in use, 5 free on hosts that are up; 3 clients waiting\n"
    )


def test_the_original_is_understood_too(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(ORIGINAL) as port:
        assert run(str(port)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[3:6]] == [
        ["127.0.0.1:3701", "up", "1/1"],
        ["[fd00::7]:3632", "up", "2/2"],
        ["localhost", "down", "0/1"],
    ]
    assert lines[7] == "waiting, longest first: 127.0.0.1 x2"
    assert lines[-1] == "3 hosts (1 down): 3 of 4 slots in use, 0 free on hosts that are up; 2 clients waiting"


def farm(*hosts: HostState, leases: tuple[ClientState, ...] = ()) -> status.Farm:
    return status.Farm(wire.parse_status(wire.status(Snapshot(0.0, hosts, (), leases, {}), 1, 2)))


def test_an_empty_farm_has_a_table() -> None:
    lines = status.table(farm(), "here").splitlines()
    assert lines[2].split() == ["HOST", "STATE", "SLOTS", "CLIENTS"]
    assert lines[-1] == "0 hosts: 0 of 0 slots in use, 0 free on hosts that are up; 0 clients waiting"


def test_five_hundred_hosts_and_long_names_line_up() -> None:
    hosts = [host(f"h{n}" * (1 + n % 40), 1 + n * n % 300, 0) for n in range(500)]
    lines = status.table(farm(*hosts), "here").splitlines()
    assert len(lines) == 3 + 500 + 2
    assert {line.index("[") for line in lines[3:503]} == {max(len(h.spec.name) for h in hosts) + 2 + 5 + 2 + 5 + 1}


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_line_of_the_hosts_is_wider_than_the_terminal(width: int) -> None:
    leases = tuple(client(n, f"10.0.{n}.{n}", "x" * 300) for n in range(50))
    lines = status.table(farm(host("x" * 300, 50, 50), leases=leases), "here", width=width).splitlines()
    assert max(map(len, lines[2:4])) <= width
    assert lines[3].endswith("...")


def test_what_a_stranger_calls_itself_does_not_command_the_terminal() -> None:
    text = status.table(farm(host("a\x1b[31m\x07b", 1, 0)), "here")
    assert "a?[31m?b" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("used", "slots", "bar"),
    [
        (0, 8, "[..........]"),
        (1, 1000, "[#.........]"),
        (999, 1000, "[#########.]"),
        (4, 8, "[#####.....]"),
        (9, 8, "[##########]"),
    ],
)
def test_a_bar_is_empty_or_full_only_where_the_host_is(used: int, slots: int, bar: str) -> None:
    leases = tuple(client(n, "10.0.0.9", "a") for n in range(used))
    assert bar in status.table(farm(host("a", slots, used), leases=leases), "here")


def test_colour_marks_what_is_not_up_and_takes_no_room() -> None:
    busy = farm(host("a", 1, 0), host("b", 1, 0, up=False))
    plain, coloured = status.table(busy, "here"), status.table(busy, "here", colour=True)
    assert [line.startswith("\x1b[31m") for line in coloured.splitlines()[3:5]] == [False, True]
    for code in ("\x1b[31m", "\x1b[1m", "\x1b[0m"):
        coloured = coloured.replace(code, "")
    assert coloured == plain


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_a_terminal_gets_colour_unless_it_is_not_wanted(environment: dict[str, str], coloured: bool) -> None:
    clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM", "COLUMNS")}
    with answering(wire.status(FARM, 5656, 5657)) as port:
        ours, theirs = pty.openpty()
        try:
            done = subprocess.run(
                [sys.executable, "-m", "distbal", "status", str(port)],
                cwd=ROOT,
                env=clean | environment,
                stdin=subprocess.DEVNULL,
                stdout=theirs,
                timeout=60,
                check=False,
            )
            out = os.read(ours, 65536)
        finally:
            os.close(ours)
            os.close(theirs)
    assert done.returncode == 0
    assert b"newbb" in out
    assert (b"\x1b[31m" in out) is coloured


# -- for programs -------------------------------------------------------------------------------------------------------------


def test_json_has_the_shape_that_the_manual_describes(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(wire.status(FARM, 5656, 5657)) as port:
        assert run("--json", f"127.0.0.1:{port}") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer == {
        "version": 1,
        "ports": {"balance": 5656, "status": 5657},
        "hosts": [
            {
                "name": "snookles:3632",
                "state": "up",
                "slots": 8,
                "used": 3,
                "free": 5,
                "clients": [
                    {"id": "sock10", "address": "10.0.0.9", "port": 50016},
                    {"id": "sock11", "address": "10.0.0.12", "port": 50017},
                    {"id": "sock12", "address": "10.0.0.9", "port": 50018},
                ],
            },
            {"name": "newbb", "state": "down", "slots": 4, "used": 0, "free": 4, "clients": []},
            {
                "name": "[fd00::7]:3632",
                "state": "up",
                "slots": 2,
                "used": 2,
                "free": 0,
                "clients": [
                    {"id": "sock13", "address": "fd00::9", "port": 50019},
                    {"id": "sock14", "address": "10.0.0.9", "port": 50020},
                ],
            },
            {
                "name": "old",
                "state": "removed",
                "slots": 0,
                "used": 1,
                "free": 0,
                "clients": [{"id": "sock15", "address": "10.0.0.12", "port": 50021}],
            },
        ],
        "waiting": [
            {"id": "sock20", "address": "10.0.0.9", "port": 50032},
            {"id": "sock21", "address": "", "port": 0},
            {"id": "sock22", "address": "10.0.0.9", "port": 50034},
        ],
        "totals": {"hosts": 3, "down": 1, "slots": 14, "used": 6, "free": 9, "usable": 5, "waiting": 3},
    }


def test_in_a_pipe_it_is_plain_and_loads_nothing_of_the_daemon() -> None:
    program = (
        "import sys; from distbal.cli import main; code = main(sys.argv[1:]); "
        "bad = {'twisted', 'zope.interface', 'yaml', 'pydantic', 'distbal.service', 'distbal.scheduler', 'distbal.hosts'};"
        "sys.exit(code or sorted(bad & set(sys.modules)) or 0)"
    )
    with answering(wire.status(FARM, 5656, 5657)) as port:
        done = subprocess.run(
            [sys.executable, "-c", program, "status", f"127.0.0.1:{port}"],
            cwd=ROOT,
            env=os.environ | {"PYTHONIOENCODING": "ascii"},
            capture_output=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"snookles:3632" in done.stdout
    assert b"\x1b" not in done.stdout


def test_names_that_the_output_cannot_show_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    snapshot = Snapshot(0.0, (host("schnökel", 1, 0),), (), (), {})
    with answering(wire.status(snapshot, 5656, 5657)) as port:
        assert run(str(port)) == 0
    sys.stdout.flush()
    assert b"schn\\xf6kel" in raw.getvalue()


# -- when there is no answer --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "hold", "why"),
    [
        (b"", False, "closed without an answer; does allow.clients"),
        (b"snookles:3632\r\n", True, "is not a status port: it says b'snookles:3632"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", True, "is not a status port"),
        (b"BalanceTcp", False, "not the whole answer"),
        (ORIGINAL[:300], False, "not the whole answer"),
        (ORIGINAL.replace(b"IdleServers = 1", b"IdleServers = x"), False, "'x' in IdleServers"),
    ],
)
def test_what_is_no_status_port_is_named(answer: bytes, hold: bool, why: str) -> None:
    with answering(answer, hold=hold) as port, pytest.raises(DistbalError) as caught:
        run(f"127.0.0.1:{port}")
    assert why in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_port_where_nobody_listens() -> None:
    port = free_port()
    with pytest.raises(DistbalError, match=f"nobody listens on 127.0.0.1:{port}; is distbal running"):
        run(str(port))


def test_a_peer_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "PATIENCE", 0.05)
    with answering(b"", hold=True) as port, pytest.raises(DistbalError, match=r"did not answer within 0\.05 s"):
        run(str(port))


def test_a_peer_that_never_comes_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "READING_TIME", -1.0)
    with answering(ORIGINAL, hold=True) as port, pytest.raises(DistbalError, match="did not come to an end"):
        run(str(port))


def test_a_peer_that_says_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "LARGEST_ANSWER", 1000)
    with answering(ORIGINAL * 2, hold=True) as port, pytest.raises(DistbalError, match="says more than"):
        run(str(port))


@pytest.mark.parametrize("name", ["no-such-machine.invalid", "a" * 64 + ".example"])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(DistbalError, match=name):
        run(name)


def test_an_error_is_one_sentence_and_the_exit_status_1() -> None:
    command = [sys.executable, "-m", "distbal", "status", str(free_port())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("distbal: nobody listens on 127.0.0.1:")
    assert done.stderr.count("\n") == 1


# -- where to ask -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("build1", ("build1", 5657)),
        ("build1:7", ("build1", 7)),
        ("10.0.0.7:65535", ("10.0.0.7", 65535)),
        ("[fd00::7]:7", ("fd00::7", 7)),
        ("[fd00::7]", ("fd00::7", 5657)),
        ("fd00::7", ("fd00::7", 5657)),
        (":7", ("127.0.0.1", 7)),
        ("7", ("127.0.0.1", 7)),
        ("", ("127.0.0.1", 5657)),
    ],
)
def test_an_address_may_be_short(text: str, place: tuple[str, int]) -> None:
    assert status.where(text) == place


@pytest.mark.parametrize(
    "text", ["build1:", "build1:0", "build1:65536", "build1:http", "[fd00::7]7", "[fd00::7]:", "0", "a:-7", "a:\u0667"]
)
def test_an_address_that_is_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(text)
    assert caught.value.code == 2
    assert f'"{text}" should' in capsys.readouterr().err


@pytest.mark.parametrize(("place", "text"), [(("fd00::7", 7), "[fd00::7]:7"), (("build1", 7), "build1:7")])
def test_an_address_is_spelt_as_it_is_given(place: tuple[str, int], text: str) -> None:
    assert status.spell(*place) == text
    assert status.where(text) == place
