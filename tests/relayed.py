"""Sessions of the proxy in every phase, held there until the test lets them go on, and the servers at their other ends.

Both ends are the test's own, so it knows of each byte that went in at one of them which has to come out at the other: what
comes is compared as it comes. An end that is broken, short, long or different is a fault.
"""

from __future__ import annotations

import errno
import os
import random
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.crowds import View
from tests.rooms import LOST, PATIENCE, READ, WRITE, Room

#: what a request begins with: the session's number
HEADER = struct.Struct("<Q")
#: what all bytes are taken from, at places that differ from session to session
NOISE = random.Random(6).randbytes((1 << 20) + 7)
TWICE = memoryview(NOISE + NOISE)
#: bytes that are moved at once
PIECE = 1 << 18
#: buffers of both ends: small, so that a stream that is not read stands still soon
BUFFER = 1 << 15

QUIET, WAITING, CONNECTING = "quiet", "waiting", "connecting"
HALFWAY, ASKED, SENDING, ANSWERING, HALF_CLOSED, PARTING = "halfway", "asked", "sending", "answering", "half-closed", "parting"
PHASES = (QUIET, WAITING, CONNECTING, HALFWAY, ASKED, SENDING, ANSWERING, HALF_CLOSED, PARTING)
#: held nowhere: both sides send all they have, at once
FREE = "free"


def noise(number: int, place: int, count: int) -> memoryview:
    """What stands at that place of that stream."""
    first = (number * 7919 + place) % len(NOISE)
    return TWICE[first : first + min(count, PIECE)]


@dataclass(frozen=True)
class Sizes:
    """How many bytes a session moves.

    :ivar request: to the server, the header not counted; ``answer``: back.
    """

    request: int
    answer: int


#: more than all buffers on the way hold, where something shall stand still on the way
USUAL, MUCH = 40_000, 6_000_000
SIZES = {SENDING: Sizes(MUCH, USUAL), ANSWERING: Sizes(USUAL, MUCH)}


class End:
    """One side of a session: a stream out, a stream in, and how far each may go for now.

    :ivar may_send: bytes of the stream out that may be sent.
    :ivar may_read: whether it reads.
    :ivar may_close: whether it closes when it has heard all.
    :ivar ended: the other side's end was heard, after all that was to come.
    """

    def __init__(self, room: Room, session: Session, sock: socket.socket, out: tuple[int, int], into: tuple[int, int]) -> None:
        self.sock = sock
        self.session = session
        self.may_read, self.may_send, self.may_close = True, 0, True
        self.closes_first = False
        self.half_closes = False
        self.sent, self.got = 0, 0
        self.ended, self.over, self._shut = False, False, False
        self._out, self._into = out, into
        self._room = room
        room.watch(sock, 0, self._happened)

    def go(self) -> None:
        """What may be done may have changed."""
        if self.over:
            return
        events = 0
        if self.may_read and not self.ended:
            events |= READ
        if self.sent < min(self.may_send, self._out[1]):
            events |= WRITE
        self._room.change(self.sock, events)
        all_sent = self.sent == self._out[1]
        if all_sent and self.half_closes and not self._shut:
            self._shut = True
            self.sock.shutdown(socket.SHUT_WR)
        if all_sent and self.got == self._into[1] and self.may_close and (self.ended or self.closes_first):
            self.close()

    def close(self) -> None:
        if not self.over:
            self.over = True
            self._room.forget(self.sock)
            self.sock.close()
            self.session.moved()

    def _happened(self, events: int) -> None:
        if events & (WRITE | LOST):
            self._send()
        if not self.over and events & (READ | LOST):
            self._receive()
        if not self.over:
            self.session.moved()
            self.go()

    def _send(self) -> None:
        number, total = self._out
        while (left := min(self.may_send, total) - self.sent) > 0:
            try:
                if self.sent < HEADER.size and not self.closes_first:
                    self.sent += self.sock.send(HEADER.pack(number)[self.sent :])
                else:
                    self.sent += self.sock.send(noise(number, self.sent, left))
            except BlockingIOError:
                return
            except OSError as error:
                self._broken(error)
                return

    def _receive(self) -> None:
        number, total = self._into
        # not all that there may be: others have their turn, and a test sees how far it has come
        for _ in range(8):
            try:
                data = self.sock.recv(PIECE)
            except BlockingIOError:
                return
            except OSError as error:
                self._broken(error)
                return
            if not data:
                self._ended()
                return
            if data != noise(number, self.got, len(data)):
                self.session.fault(f"other bytes than those that were sent, from byte {self.got} on")
            self.got += len(data)
            if self.got > total:
                self.session.fault(f"{self.got} bytes instead of {total}")

    def _ended(self) -> None:
        self.ended = True
        if self.got < self._into[1]:
            self.session.fault(f"an end after {self.got} bytes of {self._into[1]}")
            self.close()

    def _broken(self, error: OSError) -> None:
        if not self.session.is_excused():
            self.session.fault(f"{os.strerror(error.errno or 0)}, after {self.got} bytes of {self._into[1]}")
        self.close()


class Session:
    """One job of a client by way of the proxy.

    :ivar phase: where it is held.
    :param relayed: told of faults, and asked whether a reset is one.
    :ivar host: whose it is to be.
    :ivar server: its server's end, once that has taken it in.
    """

    def __init__(
        self, room: Room, number: int, phase: str, host: str, where: tuple[str, int], relayed: Relayed, sizes: Sizes | None
    ) -> None:
        self.number = number
        self.phase = phase
        self.host = host
        self.held = phase != FREE
        self.server: End | None = None
        self._relayed = relayed
        self._sizes = sizes or SIZES.get(phase, Sizes(USUAL, USUAL))
        self.request = HEADER.size + self._sizes.request
        self._room = room
        sock = socket.socket()
        if phase != FREE:
            _small(sock)
        sock.setblocking(False)
        number_of_error = sock.connect_ex(where)
        assert number_of_error in (0, errno.EINPROGRESS), os.strerror(number_of_error)
        self.port = sock.getsockname()[1]
        self.client = End(room, self, sock, (number, self.request), (number + 1, self._sizes.answer))
        self.client.may_send = {QUIET: 0, HALFWAY: self.request // 2}.get(phase, self.request)
        self.client.may_read = phase != ANSWERING
        self.client.may_close = phase != PARTING
        self.client.half_closes = phase == HALF_CLOSED
        self.client.go()

    @property
    def over(self) -> bool:
        """Both ends are done."""
        return self.client.over and self.server is not None and self.server.over

    @property
    def lent(self) -> bool:
        """Whether it has a lease where it is held."""
        return self.phase not in (QUIET, WAITING, PARTING)

    def fault(self, what: str) -> None:
        self._relayed.faults.append(f"session {self.number} ({self.phase}): {what}")

    def is_excused(self) -> bool:
        """Whether its reset is no fault."""
        return self._relayed.excuses(self)

    def taken(self, sock: socket.socket) -> None:
        """Its server has taken it in, and has read its number."""
        if self.phase != FREE:
            _small(sock)
        self.server = End(self._room, self, sock, (self.number + 1, self._sizes.answer), (self.number, self.request))
        self.server.got = HEADER.size
        self.server.closes_first = True
        if self.held:
            self.server.may_read = self.phase != SENDING
            self.server.may_send = self._sizes.answer if self.phase in (ANSWERING, PARTING) else 0
        elif self.phase == FREE:
            self.server.may_send = self._sizes.answer
        self.server.go()

    def moved(self) -> None:
        """A server answers when it has heard all, and where its client half-closes, that this was all."""
        server = self.server
        if server is None or self.held:
            return
        heard = server.got == self.request and (not self.client.half_closes or server.ended)
        if heard and not server.over and server.may_send == 0:
            server.may_send = self._sizes.answer
            server.go()

    def in_place(self) -> bool:
        """Whether it has come to where it is held, as far as its ends can tell."""
        if self.server is None:
            return self.phase in (QUIET, WAITING, CONNECTING) and (
                self.phase == QUIET or self.client.sent == min(self.client.may_send, self.request)
            )
        return {
            HALFWAY: self.server.got == self.request // 2,
            ASKED: self.server.got == self.request,
            SENDING: self.client.sent > 4 * BUFFER,
            ANSWERING: self.server.sent > 4 * BUFFER,
            HALF_CLOSED: self.server.ended,
            PARTING: self.client.ended and self.server.over,
        }.get(self.phase, False)

    def stand_still(self) -> None:
        """Nobody reads, until all go on."""
        for end in (self.client, self.server):
            if end is not None:
                end.may_read = False
                end.go()

    def go_on(self) -> None:
        self.held = False
        for end in (self.client, self.server):
            if end is not None:
                end.may_read = end.may_close = True
        self.client.may_send = self.request
        self.client.go()
        if self.server is not None:
            self.server.go()
            self.moved()

    def abandon(self) -> None:
        for end in (self.client, self.server):
            if end is not None:
                end.close()


class Service:
    """A server of the farm; a deaf one answers no connect, until it opens up; and it can fall deaf again."""

    def __init__(self, room: Room, name: str, slots: int, sessions: Mapping[int, Session], *, deaf: bool = False) -> None:
        self.name = name
        self.slots = slots
        self._room = room
        self._sessions = sessions
        self._sock = socket.create_server(("127.0.0.1", 0), backlog=1000)
        self._sock.setblocking(False)
        self.address = f"127.0.0.1:{self._sock.getsockname()[1]}"
        #: connections whose number has not come
        self._nameless: dict[socket.socket, bytes] = {}
        self._first: socket.socket | None = None
        self._deaf = False
        room.watch(self._sock, READ, self._accept)
        if deaf:
            self.fall_deaf()

    @property
    def line(self) -> str:
        """As it stands in hosts.yaml, in a pool of its own."""
        return f"{{name: {self.name}, address: '{self.address}', slots: {self.slots}, pools: [{self.name}]}}"

    def fall_deaf(self) -> None:
        """From now on no connect is answered: a connection of our own fills the queue, which has room for one."""
        if not self._deaf:
            self._deaf = True
            self._accept(READ)
            self._room.forget(self._sock)
            self._sock.listen(0)
            self._first = socket.create_connection(self._sock.getsockname(), PATIENCE)

    def open_up(self) -> None:
        if self._deaf:
            self._deaf = False
            self._sock.listen(1000)
            self._room.watch(self._sock, READ, self._accept)
            if self._first is not None:
                self._first.close()
                self._first = None

    def close(self) -> None:
        if not self._deaf:
            self._room.forget(self._sock)
        self._sock.close()
        if self._first is not None:
            self._first.close()
        for sock in self._nameless:
            self._room.forget(sock)
            sock.close()

    def _accept(self, events: int) -> None:
        with suppress(BlockingIOError):
            while True:
                sock, _ = self._sock.accept()
                sock.setblocking(False)
                self._nameless[sock] = b""
                self._room.watch(sock, READ, lambda events, sock=sock: self._named(sock))  # type: ignore[misc]

    def _named(self, sock: socket.socket) -> None:
        try:
            self._nameless[sock] += (data := sock.recv(HEADER.size - len(self._nameless[sock])))
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if data and len(self._nameless[sock]) < HEADER.size:
            return
        self._room.forget(sock)
        header = self._nameless.pop(sock)
        if not data:
            sock.close()  # a connect that was given up, or our own that kept the queue full
            return
        self._sessions[HEADER.unpack(header)[0]].taken(sock)


class Relayed:
    """Sessions in all phases, and their services.

    :ivar faults: what should not have happened, in words.
    :ivar sessions: all that ever were, by number.
    :ivar cut: how many were reset that no server had taken in: what a kill may do to one that was accepted in its very turn.
        They are sessions no more.
    :ivar tolerant: whether those are counted, and no fault.
    """

    #: sessions that hold all slots of the service ``few``, so that others wait
    HOLDERS = 2

    def __init__(self, room: Room) -> None:
        self.faults: list[str] = []
        self.sessions: dict[int, Session] = {}
        self.cut = 0
        self.tolerant = False
        self._room = room
        self._number = 2
        self.relay = Service(room, "relay", 1000, self.sessions)
        self.few = Service(room, "few", self.HOLDERS, self.sessions)
        self.deaf = Service(room, "deaf", 1000, self.sessions, deaf=True)
        self._services = (self.relay, self.few, self.deaf)
        self._where: Callable[[str], tuple[str, int]] = _nowhere

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for session in self.sessions.values():
            session.abandon()
        for service in self._services:
            service.close()

    @property
    def lines(self) -> str:
        """The services, for hosts.yaml."""
        return "".join(f"  - {service.line}\n" for service in self._services)

    #: the proxy's ports, for hosts.yaml, in this order
    LISTEN = (
        "[{at: '127.0.0.1:0', pool: relay}, {at: '127.0.0.1:0', pool: relay, half_close: pass},"
        " {at: '127.0.0.1:0', pool: few}, {at: '127.0.0.1:0', pool: deaf}]"
    )

    def serve(self, ports: list[int]) -> None:
        """Where the proxy listens, in the order of LISTEN."""
        relay, passing, few, deaf = ports
        by_phase = {HALF_CLOSED: passing, WAITING: few, CONNECTING: deaf}
        self._where = lambda phase: ("127.0.0.1", by_phase.get(phase, relay))

    def begin(self, phase: str, number: int, sizes: Sizes | None = None) -> list[Session]:
        """So many sessions that are to be held in this phase; they are not waited for.

        :param sizes: how much they move, if not as much as is usual in this phase.

        Before the first that is to wait, holders take all slots there. Before those that are to be connecting, their
        server falls deaf.
        """
        if phase == CONNECTING:
            self.deaf.fall_deaf()
        if phase == WAITING and not any(session.host == "few" and session.held for session in self.sessions.values()):
            holders = [self._session(ASKED, "few", self._where(WAITING)) for _ in range(self.HOLDERS)]
            self._room.until(lambda: all(holder.in_place() for holder in holders), "the slots taken that others wait for")
        host = {WAITING: "few", CONNECTING: "deaf"}.get(phase, "relay")
        return [self._session(phase, host, self._where(phase), sizes) for _ in range(number)]

    def _session(self, phase: str, host: str, where: tuple[str, int], sizes: Sizes | None = None) -> Session:
        self._number += 2
        session = self.sessions[self._number] = Session(self._room, self._number, phase, host, where, self, sizes)
        return session

    def excuses(self, session: Session) -> bool:
        """Whether it is one of those that a kill may reset."""
        if not self.tolerant or session.server is not None:
            return False
        self.cut += 1
        del self.sessions[session.number]
        return True

    def held(self) -> list[Session]:
        return [session for session in self.sessions.values() if session.held]

    def settle(self, patience: float = PATIENCE) -> None:
        """Wait until each is where it is held."""
        self._room.until(lambda: not self._elsewhere(), lambda: f"the places of sessions {self._elsewhere()}", patience)

    def _elsewhere(self) -> str:
        """Those that are not where they are to be held."""
        return ", ".join(f"{session.number} ({session.phase})" for session in self.held() if not session.in_place())

    def view(self) -> View:
        """Who has what, while they are held."""
        served: dict[str, set[int]] = {}
        for session in self.held():
            if session.lent:
                served.setdefault(session.host, set()).add(session.port)
        waiting = frozenset(session.port for session in self.held() if session.phase == WAITING)
        return View({host: frozenset(ports) for host, ports in served.items()}, {"few": waiting} if waiting else {})

    def let_connect(self) -> None:
        """The deaf server opens up, and those that were connecting are served, to be held where they have asked."""
        self.deaf.open_up()
        for session in self.held():
            if session.phase == CONNECTING:
                session.phase = ASKED
        self.settle()

    def go_on(self) -> None:
        """All of them, to their ends."""
        self.deaf.open_up()
        for session in self.held():
            session.go_on()

    def finish(self) -> None:
        """Let them go on, and wait until all are over, as they should be."""
        self.go_on()
        # a host that did not answer again and again has a pause of up to 80 s
        self._room.until(lambda: self.faults != [] or self.finished(), "the end of all sessions", 3 * PATIENCE)
        self.check()

    def finished(self) -> bool:
        return all(session.over for session in self.sessions.values())

    def check(self) -> None:
        assert not self.faults, f"{len(self.faults)} faults: {'; '.join(self.faults[:10])}"


def _small(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)


def _nowhere(phase: str) -> tuple[str, int]:
    raise AssertionError("the proxy is not there yet")
