"""The crowds themselves: what upgrades and crashes are judged by sees each kind of fault, and no fault where there is none."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from tests.crowds import SERVED, WAITING, Crowd, View
from tests.relayed import ASKED, CONNECTING, FREE, HEADER, PHASES, USUAL, Relayed, noise
from tests.rooms import READ, Room
from tests.support import reset_at_close


class Fake:
    """A port that does by hand what the daemon should, or should not."""

    def __init__(self, room: Room, stack: ExitStack) -> None:
        self.sock = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=100))
        self.where: tuple[str, int] = self.sock.getsockname()
        self.stack = stack

    def accept(self) -> socket.socket:
        return self.stack.enter_context(self.sock.accept()[0])


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as one:
        yield one


@pytest.fixture
def room(stack: ExitStack) -> Room:
    return stack.enter_context(Room())


@pytest.fixture
def port(room: Room, stack: ExitStack) -> Fake:
    return Fake(room, stack)


@pytest.fixture
def crowd(room: Room, port: Fake, stack: ExitStack) -> Crowd:
    return stack.enter_context(Crowd(room, port.where, {"alpha": 1, "beta": 2}))


def test_its_own_view(room: Room, port: Fake, crowd: Crowd) -> None:
    one, two = crowd.come(2)
    ends = [port.accept() for _ in range(2)]
    ends[0].sendall(b"alpha\r\n")
    room.until(lambda: crowd.counts(1, 1))
    assert crowd.view() == View({"alpha": frozenset({one.port})}, {"default": frozenset({two.port})})
    crowd.leave([one], "half-close")
    assert not crowd.settled()
    assert ends[0].recv(1) == b""
    ends[0].close()
    ends[1].sendall(b"alpha\r\n")
    room.until(lambda: crowd.counts(1, 0))
    assert crowd.view() == View({"alpha": frozenset({two.port})})
    crowd.leave([two], "reset")
    assert crowd.view() == View()
    crowd.check()


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (b"gamma\r\n", "was told b'gamma"),
        (b"alpha\r\nalpha\r\n", "was told a second thing"),
        (b"", "waiting : closed"),
    ],
)
def test_what_one_client_sees(room: Room, port: Fake, crowd: Crowd, said: bytes, what: str) -> None:
    crowd.come(1)
    with port.accept() as end:
        end.sendall(said)
    room.until(lambda: bool(crowd.faults))
    assert what in crowd.faults[0]
    with pytest.raises(AssertionError, match="1 faults"):
        crowd.check()


def test_a_second_line_later(room: Room, port: Fake, crowd: Crowd) -> None:
    crowd.come(1)
    end = port.accept()
    end.sendall(b"beta\r\n")
    room.until(lambda: crowd.counts(1, 0))
    end.sendall(b"beta\r\n")
    room.until(lambda: bool(crowd.faults))
    assert "was told a second thing" in crowd.faults[0]


def test_a_reset(room: Room, port: Fake, crowd: Crowd) -> None:
    crowd.come(1)
    end = port.accept()
    end.sendall(b"beta\r\n")
    room.until(lambda: crowd.counts(1, 0))
    reset_at_close(end)
    end.close()
    room.until(lambda: bool(crowd.faults))
    assert "Connection reset" in crowd.faults[0]


def test_a_slot_that_is_lent_twice(room: Room, port: Fake, crowd: Crowd) -> None:
    crowd.come(2)
    for _ in range(2):
        port.accept().sendall(b"alpha\r\n")
    room.until(lambda: bool(crowd.faults))
    assert crowd.faults == ["2 clients have alpha at once, which has 1 slots"]


def test_what_a_kill_may_do(room: Room, port: Fake, crowd: Crowd) -> None:
    """Closed, having been told nothing: counted where that is expected; one that was told a host is a fault nevertheless."""
    crowd.tolerant = True
    crowd.come(2)
    first, second = port.accept(), port.accept()
    second.sendall(b"beta\r\n")
    room.until(lambda: crowd.counts(1, 1))
    first.close()
    room.until(lambda: crowd.cut == 1)
    assert (crowd.of(WAITING), len(crowd.of(SERVED))) == ([], 1)
    crowd.check()
    second.close()
    room.until(lambda: bool(crowd.faults))
    assert crowd.cut == 1


def test_nobody_listens(room: Room, port: Fake, crowd: Crowd) -> None:
    port.sock.close()
    crowd.come(1)
    room.until(lambda: bool(crowd.faults))
    assert "refused" in crowd.faults[0]


@pytest.fixture
def relayed(room: Room, stack: ExitStack) -> Relayed:
    return stack.enter_context(Relayed(room))


class Wire:
    """A proxy of one connection, by hand."""

    def __init__(self, relayed: Relayed, port: Fake) -> None:
        relayed.serve([port.where[1]] * 4)
        self.relayed = relayed
        self.port = port

    def open(self) -> tuple[socket.socket, socket.socket]:
        """Both ends of the session that has just begun."""
        client = self.port.accept()
        host, _, number = self.relayed.relay.address.partition(":")
        return client, self.port.stack.enter_context(socket.create_connection((host, int(number))))


def exactly(room: Room, sock: socket.socket, count: int) -> bytes:
    """So many bytes, while the room turns."""
    sock.setblocking(False)
    heard = b""

    def come() -> bool:
        nonlocal heard
        with suppress(BlockingIOError):
            heard += sock.recv(count - len(heard))
        return len(heard) == count

    room.until(come, f"{count} bytes")
    return heard


@pytest.mark.parametrize("damage", ["", "a byte", "the end"])
def test_bytes_are_compared(room: Room, port: Fake, relayed: Relayed, damage: str) -> None:
    wire = Wire(relayed, port)
    (session,) = relayed.begin(FREE, 1)
    client, server = wire.open()
    server.sendall(exactly(room, client, HEADER.size + USUAL))
    answer = bytearray(exactly(room, server, USUAL))
    assert answer == noise(session.number + 1, 0, USUAL)
    if damage == "a byte":
        answer[1000] ^= 1
    if damage == "the end":
        del answer[-1:]
    client.setblocking(True)
    client.sendall(answer)
    client.shutdown(socket.SHUT_WR)
    room.until(relayed.finished)
    expected = {"": [], "a byte": ["other bytes than those that were sent"], "the end": ["an end after 39999 bytes of 40000"]}
    assert [what in fault for what, fault in zip(expected[damage], relayed.faults, strict=True)] == [True] * bool(damage)


def test_a_session_that_is_cut(room: Room, port: Fake, relayed: Relayed) -> None:
    wire = Wire(relayed, port)
    relayed.begin(ASKED, 1)
    client, server = wire.open()
    server.sendall(exactly(room, client, HEADER.size + USUAL))
    relayed.settle()
    assert relayed.view().served.keys() == {"relay"}
    reset_at_close(client)
    client.close()
    room.until(lambda: bool(relayed.faults))
    assert "Connection reset by peer, after 0 bytes of 40000" in relayed.faults[0]


@pytest.mark.parametrize(("tolerant", "taken"), [(False, False), (True, False), (True, True)])
def test_a_session_that_is_reset(room: Room, port: Fake, relayed: Relayed, tolerant: bool, taken: bool) -> None:
    """It is excused where it had not come to a server."""
    wire = Wire(relayed, port)
    relayed.tolerant = tolerant
    (session,) = relayed.begin(ASKED, 1)
    client, server = wire.open()
    request = exactly(room, client, HEADER.size + USUAL)
    if taken:
        server.sendall(request)
        relayed.settle()
    reset_at_close(client)
    client.close()
    room.until(lambda: session.client.over)
    excused = tolerant and not taken
    assert (len(relayed.faults), relayed.cut, session in relayed.held()) == (not excused, excused, not excused)


def test_every_phase_is_held_somewhere(room: Room, port: Fake, relayed: Relayed) -> None:
    """A phase that nobody comes to would be waited for in vain: it is not in its place until then."""
    relayed.serve([port.where[1]] * 4)
    for phase in PHASES:
        if phase != "waiting":
            relayed.begin(phase, 1)
    for _ in range(50):
        room.turn()
    assert {session.phase for session in relayed.held() if session.in_place()} == {"quiet", "connecting"}


def test_a_server_falls_deaf_and_opens_up_again(room: Room, relayed: Relayed) -> None:
    host, _, number = relayed.deaf.address.partition(":")
    for _ in range(2):
        relayed.deaf.fall_deaf()
        with socket.socket() as unheard:
            unheard.setblocking(False)
            unheard.connect_ex((host, int(number)))
            for _ in range(50):
                room.turn()
            with pytest.raises(OSError, match="not connected"):
                unheard.getpeername()
        relayed.deaf.open_up()
        with socket.create_connection((host, int(number)), 10.0) as heard:
            assert heard.getpeername()


def test_sessions_are_not_in_their_places(room: Room, port: Fake, relayed: Relayed) -> None:
    """What is said of it names them."""
    relayed.serve([port.where[1]] * 4)
    (session,) = relayed.begin(CONNECTING, 1)
    relayed.settle()
    session.phase = ASKED
    with pytest.raises(AssertionError, match=rf"the places of sessions {session.number} \(asked\) did not come about"):
        relayed.settle(patience=0.1)


def test_a_room_tells_what_happens(room: Room, stack: ExitStack) -> None:
    one, other = socket.socketpair()
    stack.enter_context(one), stack.enter_context(other)
    seen: list[int] = []
    room.watch(one, READ, seen.append)
    room.turn()
    assert seen == []
    other.close()
    room.until(lambda: bool(seen))
    room.forget(one)
    with pytest.raises(AssertionError, match="never did not come about in 0 s"):
        room.until(lambda: False, "never", 0.05)
