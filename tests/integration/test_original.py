"""The same conversations, held with the Tcl original and with distbal: the same bytes come back.

Both run as processes of their own, on ports that were free a moment ago; the table is tests/conversations.py. Silence is not
waited for: the status port shows the client in its queue, and nothing has come to it.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.conversations import (
    CONVERSATIONS,
    FARMS,
    Close,
    Connect,
    Conversation,
    CutOff,
    Ended,
    Expect,
    HalfClose,
    Reset,
    Send,
    Status,
    Step,
    Waits,
)
from tests.support import ROOT, alone, need, reset_at_close, room_for, spawn

#: seconds in which whatever is awaited has come, or never will; more than the daemon gives a silent peer
PATIENCE = 20.0

#: the farms of the table
TALKED_OF = sorted({row.farm for row in CONVERSATIONS})

WHOLE, BYTES, TRAILING = "whole", "byte by byte", "with trailing bytes"


# -- the two daemons ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Daemon:
    """A running daemon: ``farm`` is a key of FARMS; 5657 and 5658 are ``base`` + 1 and + 2."""

    farm: str
    base: int
    process: subprocess.Popen[str]

    def status(self) -> bytes:
        """What the status port says."""
        page = b""
        with socket.create_connection(("127.0.0.1", self.base + 1), PATIENCE) as sock:
            while piece := sock.recv(65536):
                page += piece
        return page


def free_base() -> int:
    """The first of three ports in a row that nobody listens on.

    They are below those that the kernel gives to clients: a test with many connections leaves thousands of those unusable for a
    minute, and a client of another test cannot take one before the daemon does.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(100):
        base = random.randrange(10_000, max(lowest, 20_000) - 3)
        with contextlib.ExitStack() as probes, contextlib.suppress(OSError):
            for port in range(base, base + 3):
                probes.enter_context(socket.create_server(("", port)))
            return base
    raise AssertionError("no three free ports in a row")


@contextlib.contextmanager
def running(farm: str, directory: Path, command: Callable[[int], list[str]], **environment: str) -> Iterator[Daemon]:
    """A daemon for this farm, serving all three ports; another one is tried where somebody took its ports meanwhile."""
    for attempt in range(5):
        base = free_base()
        log = directory / f"log-{attempt}"
        with log.open("wb") as out, spawn(*command(base), env=environment, cwd=directory, stdout=out.fileno()) as process:
            if _serves(base, process):
                yield Daemon(farm, base, process)
                return
        text = log.read_text()
        assert "in use" in text or "Fatal error initializing TCP port" in text, text
    raise AssertionError("its ports were taken five times")


def _serves(base: int, process: subprocess.Popen[str]) -> bool:
    """Wait until all three ports take connections; False when the process ends instead."""
    deadline = time.monotonic() + PATIENCE
    for port in (base, base + 2, base + 1):
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), PATIENCE):
                    break
            except ConnectionRefusedError:
                if process.poll() is not None:
                    return False
                assert time.monotonic() < deadline, "it does not listen"
                time.sleep(0.02)
    return True


@contextlib.contextmanager
def original(farm: str, directory: Path) -> Iterator[Daemon]:
    """The Tcl original, with this farm."""
    need("tclsh")
    program = Path(os.environ.get("DISTBAL_ORIGINAL") or ROOT.parent / "shared" / "original") / "run-original"
    if not program.exists():
        pytest.skip(f"the Tcl original is not in {program.parent}; DISTBAL_ORIGINAL may name another directory")
    # the program writes the words into a Tcl script, between quotes
    words = [re.sub(r"[][$\\]", r"\\\g<0>", name) + f"/{slots}" for name, slots in FARMS[farm]]
    command = partial(_original_command, program, words)
    with running(farm, directory, command, TMPDIR=str(directory)) as daemon:
        yield daemon


def _original_command(program: Path, words: list[str], base: int) -> list[str]:
    return [str(program), "--base", str(base), *words]


@contextlib.contextmanager
def distbal(farm: str, directory: Path) -> Iterator[Daemon]:
    """distbal, with this farm."""
    with running(farm, directory, partial(_distbal_command, farm, directory), PYTHONPATH=str(ROOT)) as daemon:
        yield daemon


def _distbal_command(farm: str, directory: Path, base: int) -> list[str]:
    hosts = "".join(f"  - '{name}/{slots}'\n" for name, slots in FARMS[farm])
    listen = f"{{balance: {base}, status: {base + 1}, update: '127.0.0.1:{base + 2}'}}"
    (directory / "hosts.yaml").write_text(alone(f"hosts:\n{hosts}listen: {listen}\n"))
    return [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "distbal", "-c", "hosts.yaml"]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Daemon]]:
    """The Tcl original, once for each farm."""
    with contextlib.ExitStack() as stack:
        yield {farm: stack.enter_context(original(farm, tmp_path_factory.mktemp("original"))) for farm in TALKED_OF}


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Daemon]]:
    """distbal, once for each farm."""
    with contextlib.ExitStack() as stack:
        yield {farm: stack.enter_context(distbal(farm, tmp_path_factory.mktemp("distbal"))) for farm in TALKED_OF}


# -- holding a conversation ---------------------------------------------------------------------------------------------------


@dataclass
class Talk:
    """One conversation with one daemon.

    :ivar heard: what came back, sockets and ports renamed, hash tables sorted: the same from everyone who speaks the protocol.
    """

    daemon: Daemon
    fed: str
    heard: list[bytes] = field(default_factory=list)
    _socks: dict[str, socket.socket] = field(default_factory=dict)
    #: (address, port) of every connection there was
    _places: dict[str, tuple[str, int]] = field(default_factory=dict)
    #: connections that were sent more than one line, and may be reset in answer
    _overfed: set[str] = field(default_factory=set)

    def hold(self, steps: tuple[Step, ...]) -> None:
        """Take all the steps, then leave the daemon as it was found."""
        try:
            for step in steps:
                self._take(step)
        finally:
            for sock in self._socks.values():
                sock.close()
        for name, _ in FARMS[self.daemon.farm]:
            with socket.create_connection(("127.0.0.1", self.daemon.base + 2), PATIENCE) as agent:
                agent.sendall(f"{name} up\n".encode())
                assert agent.recv(1) == b""
        self._await(Status())

    def _take(self, step: Step) -> None:
        match step:
            case Connect(who, port, address):
                if who in self._socks:  # the name is used again
                    self._socks.pop(who).close()
                number = self.daemon.base + ("balance", "status", "update").index(port)
                sock = self._socks[who] = socket.create_connection((address, number), PATIENCE)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._places[who] = (address, sock.getsockname()[1])
            case Send(who, data):
                self._send(who, data)
            case Expect(who, data):
                self._expect(who, data)
            case Waits(who):
                self._await_waiting(who)
            case Ended(who):
                self._expect_end(who, reset=who in self._overfed)
            case CutOff(who):
                self._expect_end(who, reset=True)
            case HalfClose(who):
                self._socks[who].shutdown(socket.SHUT_WR)
            case Close(who):
                self._socks.pop(who).close()
            case Reset(who):
                sock = self._socks.pop(who)
                reset_at_close(sock)
                sock.close()
            case Status():
                self.heard.append(self._await(step))

    def _send(self, who: str, data: bytes) -> None:
        pieces = [data]
        if self.fed == BYTES:
            pieces = [data[at : at + 1] for at in range(min(len(data), 200))] + [data[200:]]
        elif self.fed == TRAILING and data.endswith((b"\n", b"\r")):
            pieces = [data + b"newbb:3632 up\r\n\xff\0", b"newbb:3632 down\n"]
        line = re.match(rb"[^\r\n]{0,1024}[\r\n]?", data)
        if line is None or line.end() < sum(map(len, pieces)):
            self._overfed.add(who)
        for piece in pieces:
            try:
                self._socks[who].sendall(piece)
            except (BrokenPipeError, ConnectionResetError):
                assert who in self._overfed  # it has heard enough
                return

    def _expect(self, who: str, data: bytes) -> None:
        came = b""
        while len(came) < len(data):
            piece = self._socks[who].recv(len(data) - len(came))
            assert piece, f"{who}: {came!r}, then the end, where {data!r} was expected"
            came += piece
        assert came == data, who
        self.heard.append(came)

    def _expect_end(self, who: str, *, reset: bool) -> None:
        try:
            came = self._socks[who].recv(65536)
        except ConnectionResetError:
            assert reset, f"{who} was reset"
            came = b""
        assert came == b"", f"{who} was sent {came!r}, where the end was expected"
        self.heard.append(came)

    def _await_waiting(self, who: str) -> None:
        self.poll(lambda page: f"sock:{who} ".encode() in _line(page, b"WaitQueue"), f"{who} in WaitQueue")
        assert not select.select([self._socks[who]], [], [], 0)[0], f"{who} waits, and was sent something"

    def _await(self, wanted: Status) -> bytes:
        page = self._page(wanted)
        return self.poll(lambda seen: seen == page, page.decode())

    def poll(self, good: Callable[[bytes], bool], wanted: str) -> bytes:
        """Ask the status port until it says what it should."""
        deadline = time.monotonic() + PATIENCE
        while True:
            page = self._canonical(self.daemon.status())
            if good(page):
                return page
            assert time.monotonic() < deadline, f"status says\n{page.decode()}where this was expected:\n{wanted}"
            select.select([], [], [], 0.005)

    def _canonical(self, page: bytes) -> bytes:
        """The page as it came, but for sockets and ports, which go by the names of the table, and the order of hash tables."""
        who = {f"{address} {port}".encode(): name.encode() for name, (address, port) in self._places.items()}

        def renamed(match: re.Match[bytes]) -> bytes:
            name = who.get(match[3] + b" " + match[4], match[4])
            return b"sock:" + name + match[2] + match[3] + b" port:" + name

        numbers = re.findall(rb"\b(sock[0-9a-f]+)\b", page)
        assert len(set(numbers)) == len(numbers), "a socket word comes twice"
        page = re.sub(rb"\b(sock[0-9a-f]+)( \{?)([0-9a-f.:]+) ([0-9]+)", renamed, page)
        page = page.replace(
            f"BalanceTcpPort = {self.daemon.base}, StatusTcpPort = {self.daemon.base + 1}\r".encode(),
            b"BalanceTcpPort, StatusTcpPort\r",
        )
        return b"".join(_in_order(line) if b" (" in line else line for line in page.splitlines(keepends=True))

    def _page(self, wanted: Status) -> bytes:
        """What the table says, in the same form, written down independently of the code."""
        hosts = FARMS[self.daemon.farm]
        given = [host for _, host in wanted.served]
        free = {name: slots - given.count(name) for name, slots in hosts}
        word = {name: f"{{{name}}}" if "[" in name else name for name, _ in hosts}
        place = {name: f"{address} port:{name}" for name, (address, _) in self._places.items()}
        lines = [
            "BalanceTcpPort, StatusTcpPort",
            "ServerList = " + " ".join(f"{{{word[name]} {slots}}}" for name, slots in hosts),
            f"IdleServers = {sum(free.values())}",
            f"DownServers = {sum(slots for name, slots in hosts if name in wanted.down)}",
            "WaitQueue = " + " ".join(f"{{sock:{name} {place[name]}}}" for name in wanted.waiting),
            f"WaitQueueLen = {len(wanted.waiting)}",
            "ServerStatus (available distcc servers) = " + " ".join(f"{word[name]} {free[name]}" for name, _ in hosts),
            "ServerUpState (distcc server up/down status) = "
            + " ".join(f"{word[name]} {'down' if name in wanted.down else 'up'}" for name, _ in hosts),
            "ClientStatus (who's connected to what) = "
            + " ".join(f"sock:{name} {{{place[name]} {word[host]}}}" for name, host in wanted.served),
        ]
        return b"".join(_in_order(f"{line}\r\n".encode()) if " (" in line else f"{line}\r\n".encode() for line in lines)


def _line(page: bytes, key: bytes) -> bytes:
    return next(line for line in page.splitlines() if line.startswith(key + b" = "))


def _in_order(line: bytes) -> bytes:
    """A line whose value is a hash table, its pairs sorted and otherwise to the byte as they were."""
    key, value = line.rstrip(b"\r\n").split(b" = ")
    words = re.findall(rb"\{(?:[^{}]|\{[^{}]*\})*\}|[^ {}]+", value)
    assert b" ".join(words) == value
    pairs = sorted(zip(words[::2], words[1::2], strict=True))
    return key + b" = " + b" ".join(word for pair in pairs for word in pair) + line[len(key) + 3 + len(value) :]


# -- the tests ----------------------------------------------------------------------------------------------------------------

ROWS = [
    (row, fed) for row in CONVERSATIONS for fed in (WHOLE, BYTES, TRAILING) if fed == WHOLE or (row.sends and not row.fault)
]
SAME = [(row, fed) for row, fed in ROWS if not row.fault]


def rows(table: list[tuple[Conversation, str]]) -> pytest.MarkDecorator:
    """Run the test for each of these rows, fed in each of these ways."""
    return pytest.mark.parametrize(("row", "fed"), table, ids=[f"{row.id}, {fed}" for row, fed in table])


def hold(daemon: Daemon, steps: tuple[Step, ...], fed: str) -> list[bytes]:
    """What comes back in a conversation; skips where it needs IPv6 and there is none."""
    if any(isinstance(step, Connect) and step.address == "::1" for step in steps) and not _has_ipv6():
        pytest.skip("there is no IPv6 here")
    talk = Talk(daemon, fed)
    talk.hold(steps)
    return talk.heard


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.programs
@rows(ROWS)
def test_the_table_is_true_of_the_original(originals: dict[str, Daemon], row: Conversation, fed: str) -> None:
    hold(originals[row.farm], row.original if row.fault else row.steps, fed)


@rows(ROWS)
def test_the_table_is_true_of_distbal(ours: dict[str, Daemon], row: Conversation, fed: str) -> None:
    hold(ours[row.farm], row.steps, fed)


@pytest.mark.programs
@rows(SAME)
def test_both_answer_the_same(originals: dict[str, Daemon], ours: dict[str, Daemon], row: Conversation, fed: str) -> None:
    assert hold(ours[row.farm], row.steps, fed) == hold(originals[row.farm], row.steps, fed)


# -- more connections than select() can watch: the original's last fault ------------------------------------------------------

CROWD = 1100


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    with room_for(2 * CROWD):
        yield


def crowd(daemon: Daemon, stack: contextlib.ExitStack) -> int:
    """Connect so many, and take their grants; how many were served before the daemon broke off."""
    for served in range(CROWD):
        try:
            client = stack.enter_context(socket.create_connection(("127.0.0.1", daemon.base), PATIENCE))
            if client.recv(100) != b"snookles:3632\r\n":
                return served
        except ConnectionError:
            return served
    return CROWD


@pytest.mark.programs
@pytest.mark.usefixtures("many_descriptors")
def test_the_original_dies_of_its_1013th_connection(tmp_path: Path) -> None:
    with original("large", tmp_path) as daemon, contextlib.ExitStack() as stack:
        assert 1000 < crowd(daemon, stack) < 1024
        assert daemon.process.wait(PATIENCE) != 0


@pytest.mark.usefixtures("many_descriptors")
def test_distbal_holds_as_many_as_there_are_descriptors(tmp_path: Path) -> None:
    with distbal("large", tmp_path) as daemon:
        with contextlib.ExitStack() as stack:
            assert crowd(daemon, stack) == CROWD
            assert _line(daemon.status(), b"IdleServers") == b"IdleServers = %d" % (2000 - CROWD)
        Talk(daemon, WHOLE).hold(())
