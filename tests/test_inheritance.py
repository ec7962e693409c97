"""What a process finds that an earlier one left: a table from an exec, or what a keeper gives; whole, or not at all."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbal import __version__, inheritance, keeperwire
from distbal.inheritance import HANDOVER, Inheritance, InheritanceError, inherited, table
from distbal.keeperwire import Hello, Keeper, Role
from distbal.ledger import TURN, Ledger
from tests.loops import open_descriptors
from tests.support import ROOT

KEEPER = Keeper("0.5.0", 17, 2, "was killed", 1.8e9)


def done_with(found: Inheritance) -> None:
    found.close()
    if found.ledger is not None:
        found.ledger.close()
    if found.channel is not None:
        found.channel.close()


@pytest.fixture
def nothing_stays_open() -> Iterator[None]:
    before = open_descriptors()
    yield
    assert open_descriptors() == before


def memory(content: bytes) -> int:
    descriptor = os.memfd_create("test")
    os.write(descriptor, content)
    return descriptor


# -- a process that was started by hand


def test_by_hand_there_is_nothing() -> None:
    environ = {"PATH": "/bin"}
    found = inherited(environ)
    assert found == Inheritance()
    assert environ == {"PATH": "/bin"}


# -- a table

CHILD = """
import json, os, sys
sys.path.insert(0, {root!r})
from distbal.inheritance import inherited
found = inherited(os.environ)
ledger = found.ledger
print(json.dumps([
    found.began, sorted([*key] for key in found.descriptors), [one.address for one in ledger.accounts()],
    {{key: value.decode() for key, value in ledger.read_notes().items()}}, found.since, found.version,
    [os.get_inheritable(one) for one in (*found.descriptors.values(), ledger.slots, ledger.notes, found.channel.fileno())],
    os.read(found.take(7, 7), 100).decode(), sorted(key for key in os.environ if key.startswith("DISTBAL_")),
]))
"""


@pytest.mark.usefixtures("nothing_stays_open")
def test_a_table_goes_through_an_exec() -> None:
    book = Ledger()
    book.enter(TURN, 7, 0, ticket=1, address="10.0.0.1")
    book.note("file", b"hosts: [a]")
    read, write = os.pipe()
    os.write(write, b"in the pipe")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    given_on: dict[keeperwire.Key, int] = {
        (0, Role.LEDGER): book.slots,
        (0, Role.NOTES): book.notes,
        (7, Role.PIPE_READ): read,
        (7, Role.PIPE_WRITE): write,
    }
    file = table(given_on, theirs.fileno(), 12.5)
    done = subprocess.run(
        [sys.executable, "-c", CHILD.format(root=str(ROOT))],
        pass_fds=[*given_on.values(), file, theirs.fileno()],
        env=os.environ | {HANDOVER: str(file)},
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout) == [
        *("upgrade", [[7, 7], [7, 8]], ["10.0.0.1"], {"file": "hosts: [a]"}, 12.5, __version__),
        *([False] * 5, "in the pipe", []),
    ]
    said = keeperwire.from_daemon(ours.recv(1000))
    assert isinstance(said, Hello)
    assert (said.began, said.give) == ("upgrade", False)
    for descriptor in (read, write, file):
        os.close(descriptor)
    ours.close()
    theirs.close()
    book.close()


def tabled(content: object, **more: Any) -> Inheritance:
    environ = {HANDOVER: str(memory(content if isinstance(content, bytes) else json.dumps(content).encode())), **more}
    try:
        return inherited(environ)
    finally:
        assert environ == more


def with_rows(*rows: list[Any], channel: int = -1, **more: Any) -> dict[str, Any]:
    return {"version": 1, "table": list(rows), "channel": channel, "since": 1.0, "distbal": "0.4"} | more


@contextmanager
def channel_of(fill: bool = False, close: bool = False) -> Iterator[tuple[int, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    number = os.dup(theirs.fileno())
    theirs.close()
    if close:
        ours.close()
    if fill:
        with socket.socket(fileno=os.dup(number)) as sock:
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                _fill(sock)
            sock.setblocking(True)
    try:
        yield number, ours
    finally:
        ours.close()


def _fill(sock: socket.socket) -> None:
    while True:
        sock.send(keeperwire.BEAT)


@pytest.mark.usefixtures("nothing_stays_open")
@pytest.mark.parametrize("state", ["there", "gone", "full"])
def test_an_upgrade_goes_on_whatever_has_become_of_the_keeper(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inheritance, "HELLO_TIME", 0.05)
    with channel_of(fill=state == "full", close=state == "gone") as (number, _):
        here, there = os.pipe()
        found = tabled(with_rows([5, Role.PIPE_READ, here], channel=number))
        assert found.channel is not None
        assert found.descriptors == {(5, Role.PIPE_READ): here}
        assert found.last_id == 5
        done_with(found)
        os.close(there)


@pytest.mark.usefixtures("nothing_stays_open")
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "cannot be understood"),
        (b"[" * 100_000, "cannot be understood"),
        ([], "cannot be understood"),
        ({}, "cannot be understood"),
        (with_rows(version=2), "has version 2, and this distbal knows 1"),
        (with_rows([1, 2]), "cannot be understood"),
        (with_rows(["1", 2, 77]), "cannot be understood"),
        (with_rows([1, 2, 1.5]), "cannot be understood"),
        (with_rows([1, 2, -5]), "cannot be understood"),
        (with_rows([1, 2, 1 << 40]), "one that is none"),
        (with_rows([1, 2, 0]), "one that is none"),
        (with_rows([1, 2, 70], [1, 2, 71]), "names one twice"),
        (with_rows([1, 2, 70], [1, 3, 70]), "names one twice"),
        (with_rows([1, 2, 70], channel=70), "names one twice"),
        (with_rows(channel=-2), "cannot be understood"),
        (b'{"version":1,"table":[],"channel":1e999,"since":1,"distbal":""}', "cannot be understood"),
        (with_rows(since="now"), "cannot be understood"),
        (with_rows([1, 2, 1_000_000]), "Bad file descriptor"),
    ],
)
def test_a_table_that_cannot_be_understood_is_refused_in_words(content: object, why: str) -> None:
    with pytest.raises(InheritanceError, match=why):
        tabled(content)


@pytest.mark.usefixtures("nothing_stays_open")
def test_all_is_closed_where_the_ledger_is_none() -> None:
    here, there = os.pipe()
    with channel_of() as (number, _), pytest.raises(InheritanceError, match="no ledger of distbal's"):
        tabled(
            with_rows(
                [0, Role.LEDGER, memory(b"x" * 4096)],
                [0, Role.NOTES, memory(b"y" * 4096)],
                [5, Role.PIPE_READ, here],
                channel=number,
            )
        )
    os.close(there)


@pytest.mark.usefixtures("nothing_stays_open")
def test_half_a_ledger_is_none() -> None:
    found = tabled(with_rows([0, Role.LEDGER, memory(b"x" * 4096)]))
    assert found.ledger is None
    assert list(found.descriptors) == [(0, Role.LEDGER)]
    done_with(found)


@pytest.mark.parametrize("number", ["x", "-1", "1" * 10, "1.5", " 3", "\u0663"])
@pytest.mark.parametrize("variable", [HANDOVER, keeperwire.VARIABLE])
def test_a_variable_that_is_no_number_is_refused(variable: str, number: str) -> None:
    environ = {variable: number}
    with pytest.raises(InheritanceError, match=variable):
        inherited(environ)
    assert environ == {}


@pytest.mark.parametrize("variable", [HANDOVER, keeperwire.VARIABLE])
def test_a_number_that_is_no_descriptor_is_refused(variable: str) -> None:
    with pytest.raises(InheritanceError, match="Bad file descriptor"):
        inherited({variable: "999999"})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
ROWS = st.lists(VALUES | st.lists(st.integers(-5, 2), min_size=3, max_size=3), max_size=4)


@given(
    VALUES
    | st.fixed_dictionaries(
        {
            "version": st.just(1) | VALUES,
            "table": ROWS | VALUES,
            "channel": st.just(-1) | VALUES,
            "since": st.floats() | VALUES,
            "distbal": st.text() | VALUES,
        }
    )
)
def test_any_table_is_one_or_refused(content: object) -> None:
    before = open_descriptors()
    try:
        done_with(tabled(content))
    except InheritanceError as error:
        assert len(str(error)) < 400  # noqa: PT017 (both are right)
    assert open_descriptors() == before


@given(st.binary(max_size=200))
def test_any_bytes_are_no_table(content: bytes) -> None:
    with pytest.raises(InheritanceError):
        tabled(content)


# -- a keeper


@contextmanager
def kept(*packets: tuple[bytes, list[int]], end: bool = True, hang_up: bool = False) -> Iterator[dict[str, str]]:
    """The environment of a process with a keeper that says this."""
    with channel_of() as (number, keeper):
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        for packet, descriptors in packets:
            socket.send_fds(keeper, [packet], descriptors)
        if end:
            keeper.send(keeperwire.end(KEEPER))
        if hang_up:
            keeper.shutdown(socket.SHUT_WR)
        environ = {keeperwire.VARIABLE: str(number)}
        yield environ
        assert environ == {}
        said = keeperwire.from_daemon(keeper.recv(1000))
        assert said == Hello(__version__, os.getpid(), "start", True)


@pytest.mark.usefixtures("nothing_stays_open")
def test_a_keeper_gives_all_in_as_many_packets_as_it_takes() -> None:
    book = Ledger()
    book.note("a", b"1")
    here, there = os.pipe()
    many = [(ident, int(Role.CLIENT)) for ident in range(1, 601)]
    packets = [(keeperwire.give([(0, Role.LEDGER), (0, Role.NOTES)]), [book.slots, book.notes])]
    packets += [
        (keeperwire.give(some), [here] * len(some))
        for some in (many[start : start + 253] for start in range(0, len(many), 253))
    ]
    with kept(*packets) as environ:
        found = inherited(environ)
    assert (found.began, found.keeper, found.last_id, found.since) == ("start", KEEPER, 600, None)
    assert list(found.descriptors) == many
    assert found.ledger is not None
    assert found.ledger.read_notes() == {"a": b"1"}
    assert not any(os.get_inheritable(descriptor) for descriptor in found.descriptors.values())
    taken = found.take(3, Role.CLIENT)
    assert os.path.sameopenfile(taken, here)
    assert found.take(3, Role.CLIENT) == -1
    for descriptor in (here, there, taken):
        os.close(descriptor)
    done_with(found)
    book.close()


@pytest.mark.usefixtures("nothing_stays_open")
def test_a_keeper_that_has_nothing_gives_nothing() -> None:
    with kept() as environ:
        found = inherited(environ)
    assert (found.descriptors, found.ledger, found.keeper) == ({}, None, KEEPER)
    done_with(found)


def _key(ident: int) -> tuple[int, int]:
    return ident, int(Role.CLIENT)


@pytest.mark.usefixtures("nothing_stays_open")
@pytest.mark.parametrize(
    ("packets", "why"),
    [
        ([(b"X", 0)], "cannot be understood"),
        ([(b"G", 1)], "cannot be understood"),
        ([(keeperwire.give([_key(1)]), 2)], "2 descriptors came from the keeper, which named 1"),
        ([(keeperwire.give([_key(1), _key(2)]), 1)], "1 descriptors came from the keeper, which named 2"),
        ([(keeperwire.give([_key(1)]), 1), (keeperwire.give([_key(1)]), 1)], "one thing twice"),
        ([(keeperwire.give([_key(1), _key(1)]), 2)], "one thing twice"),
        ([(keeperwire.end(KEEPER), 1)], "1 descriptors came from the keeper, which named 0"),
    ],
)
def test_a_keeper_that_talks_nonsense_is_refused_in_words(packets: list[tuple[bytes, int]], why: str) -> None:
    here, there = os.pipe()
    good = (keeperwire.give([_key(100)]), [here])
    said = [(packet, [here] * number) for packet, number in packets]
    with kept(good, *said, end=False) as environ, pytest.raises(InheritanceError, match=why):
        inherited(environ)
    os.close(here)
    os.close(there)


@pytest.mark.usefixtures("nothing_stays_open")
def test_a_keeper_that_does_not_come_to_an_end_is_waited_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inheritance, "GIVING_TIME", 0.05)
    here, there = os.pipe()
    why = r"did not give everything within 0\.05 s"
    with kept((keeperwire.give([_key(1)]), [here]), end=False) as environ, pytest.raises(InheritanceError, match=why):
        inherited(environ)
    os.close(here)
    os.close(there)


@pytest.mark.usefixtures("nothing_stays_open")
def test_a_keeper_that_ends_meanwhile_is_told_of() -> None:
    with kept(end=False, hang_up=True) as environ, pytest.raises(InheritanceError, match="ended while it gave"):
        inherited(environ)


@pytest.mark.usefixtures("nothing_stays_open")
@pytest.mark.parametrize("version", [0, 1])
def test_a_ledger_of_another_version_is_refused_in_words_and_all_is_closed(version: int) -> None:
    book = Ledger()
    os.pwrite((book.slots, book.notes)[version], b"\x02", 8)
    packet = keeperwire.give([(0, Role.LEDGER), (0, Role.NOTES)]), [book.slots, book.notes]
    why = "its layout has version 2, and this distbal knows 1"
    with kept(packet) as environ, pytest.raises(InheritanceError, match=why):
        inherited(environ)
    book.close()


def test_what_nobody_takes_is_closed_even_where_it_is_closed_already() -> None:
    here, there = os.pipe()
    close: Callable[[], None] = Inheritance(descriptors={(1, 4): here, (2, 4): there}).close
    os.close(here)
    close()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(there)
