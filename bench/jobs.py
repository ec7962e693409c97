"""The clients of the relays: a process of its own, which sends jobs through one of them and gets them answered.

Every client connects, sends its job (backend.py says what that is), reads the answer and leaves when the other side has closed.
What is answered in bytes is counted, and is what was asked for, or the run ends. It is told what to do as generator.py is:

- ``{"do": "load", "port": P, "source": ADDRESS, "jobs": N, "at_once": C, "up": BYTES, "down": BYTES, "from_file": false}``: N
  clients in all, C of them connected at any time. The answer: the ``seconds`` that it took, and the ``p99`` of the seconds from
  a client's connect to the close behind its answer. There may be other loads ``"beside": [{"port": ...}, ...]`` it, which begin
  a little before and take on clients until it is done; the answer then has the bytes a second that these ``moved`` meanwhile.
- ``{"do": "hold", "port": P, "source": ADDRESS, "count": N}``: N clients more, that send a job but for its last byte, and stay.
- ``{"do": "serve"}``: be the backend, too, from now on; on which ``port``, the answer says. Of two processes on one processor,
  either waits for the other now and then; where milliseconds count, that must not be.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bench.backend import DROP, FILLING, HEADER, NOWHERE, SHARE, Backend, send
from bench.generator import connect, obey, within

#: seconds after which a load that does not move is stuck
STUCK = 10.0
#: seconds that the loads beside it have to get up to speed
HEAD_START = 0.05


class Turns:
    """Who waits for a descriptor, and is called when there is something to do."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._acts: dict[int, Callable[[], object]] = {}

    def add(self, descriptor: int, events: int, act: Callable[[], object]) -> None:
        self._acts[descriptor] = act
        self._epoll.register(descriptor, events)

    def change(self, descriptor: int, events: int) -> None:
        self._epoll.modify(descriptor, events)

    def remove(self, descriptor: int) -> None:
        self._epoll.unregister(descriptor)
        del self._acts[descriptor]

    def take(self) -> None:
        """One turn for each that can do something."""
        events = self._epoll.poll(STUCK)
        if not events:
            raise ValueError(f"{len(self._acts)} jobs did not move for {STUCK:.0f} s")
        for descriptor, _ in events:
            self._acts[descriptor]()


class Load:
    """Clients of one kind, which come and go.

    :ivar left: how many have yet to come.
    :ivar running: those that are here.
    :ivar seconds: that each took, of those that are done.
    """

    def __init__(
        self, turns: Turns, *, port: int, source: str, jobs: int, at_once: int, up: int, down: int, from_file: bool
    ) -> None:
        self.turns = turns
        self.port, self.source = port, source
        self.left, self._at_once = jobs, at_once
        self.up, self.down, self.from_file = up, down, from_file
        self.running: set[Job] = set()
        self.seconds: list[float] = []

    def fill(self) -> None:
        """Let as many come as may be here."""
        while self.left and len(self.running) < self._at_once:
            self.left -= 1
            self.running.add(Job(self))

    def done(self, job: Job) -> None:
        self.running.remove(job)
        self.seconds.append(time.monotonic() - job.began)
        self.fill()

    def moved(self) -> int:
        """Bytes up and down so far."""
        under_way = sum(self.up - job.unsent + self.down - job.unread for job in self.running)
        return len(self.seconds) * (self.up + self.down) + under_way

    def p99(self) -> float:
        return within(self.seconds, 0.99)


class Job:
    """One client, on its way as soon as it is made.

    :ivar unsent: bytes of the job that have not gone; ``unread``: of the answer, that have not come.
    """

    __slots__ = ("began", "load", "sock", "unread", "unsent")

    def __init__(self, load: Load) -> None:
        self.began = time.monotonic()
        self.load = load
        self.unsent, self.unread = load.up, load.down
        self.sock = connect(load.port, load.source)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        header = HEADER.pack(load.up, load.down, load.from_file)
        if load.from_file:
            self.sock.setblocking(False)
            self.sock.send(header, socket.MSG_MORE)
        else:
            # a new socket has room for a header
            self.unsent -= self.sock.sendmsg((header, FILLING[: load.up]), (), socket.MSG_DONTWAIT) - len(header)
        load.turns.add(self.sock.fileno(), select.EPOLLOUT if self.unsent else select.EPOLLIN, self.go_on)

    def go_on(self) -> None:
        """Send or read a share of what is left; leave when the other side has closed."""
        turns, descriptor = self.load.turns, self.sock.fileno()
        if self.unsent:
            self.unsent -= send(self.sock, self.unsent, from_file=self.load.from_file)
            if not self.unsent:
                turns.change(descriptor, select.EPOLLIN)
        elif count := self.sock.recv_into(NOWHERE, SHARE, DROP):
            self.unread -= count
        elif self.unread:
            raise ValueError(f"the connection was closed with {self.unread} bytes of the answer missing")
        else:
            turns.remove(descriptor)
            self.sock.close()
            self.load.done(self)


class Clients:
    """All of them.

    :ivar held: those that stay.
    """

    def __init__(self) -> None:
        self.held: list[socket.socket] = []
        self._backend: Backend | None = None

    def orders(self) -> Iterator[str]:
        """The lines of the standard input, one at a time; as long as there is none, the backend does what it has to."""
        while line := sys.stdin.readline():
            yield line
            while self._backend is not None and sys.stdin not in select.select([sys.stdin, self._backend], [], [])[0]:
                self._backend.turn()

    def load(self, beside: Sequence[dict[str, Any]] = (), **words: Any) -> dict[str, Any]:
        turns = Turns()
        if self._backend is not None:
            turns.add(self._backend.fileno(), select.EPOLLIN, self._backend.turn)
        others = [Load(turns, **each) for each in beside]
        for other in others:
            other.fill()
        began = time.monotonic()
        while others and time.monotonic() < began + HEAD_START:
            turns.take()
        load = Load(turns, **words)
        began, before = time.monotonic(), sum(other.moved() for other in others)
        load.fill()
        while load.running:
            turns.take()
        seconds = time.monotonic() - began
        moved = sum(other.moved() for other in others) - before
        for other in others:
            other.left = 0
        while any(other.running for other in others):
            turns.take()
        return {"seconds": seconds, "p99": load.p99(), "moved": moved / seconds}

    def serve(self) -> dict[str, Any]:
        self._backend = Backend()
        return {"port": self._backend.port}

    def hold(self, port: int, source: str, count: int) -> dict[str, Any]:
        for _ in range(count):
            sock = connect(port, source)
            sock.sendall(HEADER.pack(2, 1, False) + b"1")
            self.held.append(sock)
        return {"held": len(self.held)}


if __name__ == "__main__":
    clients = Clients()
    obey(clients, clients.orders())
