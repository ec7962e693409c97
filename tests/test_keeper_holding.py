"""What is held, and how it comes and goes, in one process; see distbal/keeper/holding.py, channel.py and saying.py."""

from __future__ import annotations

import array
import os
import select
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from distbal import keeperwire as wire
from distbal.keeper.channel import Channel, pair
from distbal.keeper.holding import SPARE, Holdings
from distbal.keeper.saying import COMPLAINTS, Voice
from distbal.keeperwire import Role
from tests.loops import open_descriptors
from tests.supervising import connections, inodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distbal.keeperwire import Key


@pytest.fixture
def holdings() -> Iterator[Holdings]:
    held = Holdings(1000)
    yield held
    held.clear()


def test_the_same_connection_may_come_again(holdings: Holdings) -> None:
    """Its first duplicate is closed while another is open elsewhere, which epoll goes on watching."""
    with connections(1) as (_, (sock,)):
        number = os.dup(sock.fileno())
        holdings.hold([(1, Role.CLIENT)], [number])
        sock.shutdown(socket.SHUT_RDWR)
        assert holdings.sweep() == 1
        assert os.dup(sock.fileno()) == number
        holdings.hold([(2, Role.CLIENT)], [number])
        assert holdings.sweep() == 1
        assert holdings.sweep() == 0
        assert len(holdings) == 0


def test_a_client_that_is_no_connection_stays_until_it_is_let_go(holdings: Holdings, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        holdings.hold([(1, Role.CLIENT)], [os.dup(file.fileno())])
    assert holdings.sweep() == 0
    holdings.let_go([(1, Role.CLIENT), (1, Role.CLIENT), (7, Role.LOCK)])
    assert len(holdings) == 0


def test_an_error_that_does_not_end_a_connection_does_not_end_the_watch(holdings: Holdings) -> None:
    """A datagram to nobody: an error is told, and no end."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        sock.connect(nobody.getsockname())
        nobody.close()
        sock.send(b"hello")
        poll = select.poll()
        poll.register(sock, 0)
        assert poll.poll(1000) == [(sock.fileno(), select.POLLERR)]
        holdings.hold([(1, Role.CLIENT)], [os.dup(sock.fileno())])
        assert holdings.sweep() == 0
        assert holdings.sweep() == 0
        assert len(holdings) == 1


def test_what_there_is_no_room_for_is_closed() -> None:
    before = open_descriptors()
    holdings = Holdings(3)
    refused = holdings.hold([(number, Role.PIPE_READ) for number in range(5)], [os.dup(0) for _ in range(5)])
    assert refused == 2
    assert holdings.keys() == [(number, Role.PIPE_READ) for number in range(3)]
    # in the place of another there is room
    assert holdings.hold([(1, Role.PIPE_READ)], [os.dup(0)]) == 0
    holdings.clear()
    del holdings
    assert open_descriptors() == before


def test_a_crowd_takes_no_room_from_what_all_depends_on() -> None:
    """A daemon that takes up a full keeper's things hands its listening sockets over anew."""
    holdings = Holdings(3)
    assert holdings.hold([(number, Role.SESSION_CLIENT) for number in range(4)], [os.dup(0) for _ in range(4)]) == 1
    keys: list[Key] = [(0, Role.LEDGER), (0, Role.NOTES), (0, Role.LOCK)]
    keys += [(number, Role.LISTENER) for number in range(SPARE)]
    assert holdings.hold(keys, [os.dup(0) for _ in keys]) == 3
    assert holdings.hold([(9, Role.CLIENT)], [os.dup(0)]) == 1
    assert len(holdings) == 3 + SPARE
    holdings.clear()


def test_those_that_have_ended_make_room_for_others() -> None:
    """A keeper that was frozen finds all at once what came and went meanwhile: that refuses nobody who is there."""
    holdings = Holdings(3)
    with ExitStack() as stack:
        for number in range(10):
            ours, theirs = socket.socketpair()
            stack.enter_context(theirs)
            assert holdings.hold([(number, Role.CLIENT)], [os.dup(ours.fileno())]) == 0
            if number < 8:
                ours.shutdown(socket.SHUT_RDWR)
                theirs.shutdown(socket.SHUT_RDWR)
            ours.close()
        assert holdings.keys()[-2:] == [(8, Role.CLIENT), (9, Role.CLIENT)]
    holdings.clear()


def test_many_that_end_at_once(holdings: Holdings) -> None:
    ends = [socket.socketpair() for _ in range(400)]
    holdings.hold([(number, Role.CLIENT) for number in range(400)], [os.dup(ours.fileno()) for ours, _ in ends])
    for ours, theirs in ends:
        ours.shutdown(socket.SHUT_RDWR)
        ours.close()
        theirs.close()
    assert holdings.sweep() == 400


def test_what_is_given_is_what_is_held_when_its_turn_comes(holdings: Holdings) -> None:
    with ExitStack() as stack:
        ours, theirs = pair()
        stack.enter_context(ours)
        stack.enter_context(theirs)
        complaints: list[str] = []
        channel = Channel(ours, complaints.append)
        keys: list[Key] = [(number, Role.PIPE_READ) for number in range(600)]
        holdings.hold(keys, [os.dup(0) for _ in keys])
        channel.put_descriptors(keys)
        channel.put(wire.LEAVE)
        holdings.let_go(keys[10:20])
        assert channel.flush(holdings)
        given: dict[Key, int] = {}
        for _ in range(3):
            packet, ancillary, _, _ = theirs.recvmsg(65536, socket.CMSG_SPACE(253 * 4))
            said = wire.from_keeper(packet)
            assert isinstance(said, wire.Give)
            given.update(zip(said.keys, array.array("i", b"".join(data for _, _, data in ancillary)), strict=True))
        assert sorted(inodes(given)) == [*keys[:10], *keys[20:]]
        assert theirs.recv(10) == wire.LEAVE
        assert complaints == []


def test_a_full_channel_is_waited_for_and_a_closed_one_is_not(holdings: Holdings) -> None:
    ours, theirs = pair()
    with ours:
        channel = Channel(ours, pytest.fail)
        packets = [wire.ready("7.0", "x" * 60000)] * 1000
        with theirs:
            channel.put(*packets)
            assert not channel.flush(holdings)
            came = 0
            while not channel.flush(holdings):
                came += bool(theirs.recv(70000))
            theirs.setblocking(False)
            while came < len(packets):
                came += bool(theirs.recv(70000))
            channel.put(*packets)
            assert not channel.flush(holdings)
        assert channel.flush(holdings)
        assert list(channel.receive()) == []
        assert channel.ended


def test_the_end_is_told_from_an_empty_packet(holdings: Holdings) -> None:
    ours, theirs = pair()
    with ours:
        complaints: list[str] = []
        channel = Channel(ours, complaints.append)
        theirs.send(b"")
        theirs.send(wire.BEAT)
        theirs.send(b"")
        theirs.send(wire.STOPPING)
        theirs.close()
        assert [type(said) for said, _ in channel.receive()] == [wire.Beat, wire.Stopping]
        assert channel.ended
        assert len(complaints) == 2


def test_complaints_are_bounded(tmp_path: Path) -> None:
    with (tmp_path / "said").open("w") as file:
        voice = Voice(descriptor=file.fileno())
        for number in range(COMPLAINTS + 5):
            voice.complain(f"no {number}")
        voice.tell("nothing")
        voice.say("so\x1b[2J\nit is \udcff")
    lines = (tmp_path / "said").read_text().splitlines()
    assert len(lines) == COMPLAINTS + 1
    assert lines[COMPLAINTS - 1].endswith("(more of this kind is not said for a minute)")
    assert lines[-1] == "distbal supervise: so?[2J?it is ?"
