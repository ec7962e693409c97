"""The clients: a process of its own, which connects, reads what it is lent, and leaves.

It is told what to do by lines of JSON on its standard input, answers each with one on its standard output, and ends with its
input. What it can be told:

- ``{"do": "load", "port": P, "source": ADDRESS, "grants": N, "at_once": C}``: N clients in all, C of them connected at any
  time; each reads its grant and leaves, and the next one comes.
- ``{"do": "pace", "port": P, "source": ADDRESS, "grants": N, "rate": R}``: N clients in all, R a second at times of chance,
  whether those before have their grants or not. The answer: the ``median`` and the ``p99`` of the seconds from a client's
  connect to its grant.
- ``{"do": "come", "port": P, "source": ADDRESS, "rate": R}``: R clients a second until the next line comes. The answer: how
  many that were, the ``longest`` of the seconds from a client's connect to its grant, and how many were ``closed`` untold.
- ``{"do": "enough"}``: nothing; such a next line.
- ``{"do": "hold", "port": P, "source": ADDRESS, "count": N, "granted": true}``: N clients more, that stay; with ``granted``
  each one's grant is read before the next connects, without it they wait.
- ``{"do": "read"}``: read the grant of each that still waited for one.
- ``{"do": "drop"}``: all that stay leave, as fast as they can.
"""

from __future__ import annotations

import json
import math
import os
import random
import resource
import select
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

#: from linux/in.h; the socket module has it from Python 3.12 on: let connect() choose the port, by the whole of both addresses
_IP_BIND_ADDRESS_NO_PORT = 24
#: seconds after which a grant that does not come never will
STUCK = 10.0


def connect(port: int, source: str) -> socket.socket:
    """A client from a loopback address."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((source, 0))
    sock.connect(("127.0.0.1", port))
    return sock


def read_grant(sock: socket.socket) -> None:
    """Read the line; an error when there is none."""
    data = sock.recv(256)
    if not data.endswith(b"\n"):
        raise ValueError(f"a grant is a line, not {data!r}")


def within(seconds: Sequence[float], share: float) -> float:
    """What that share of them did not exceed."""
    return sorted(seconds)[math.ceil(len(seconds) * share) - 1]


class Clients:
    """Those that stay.

    :ivar leased: have their grant; ``waiting`` do not.
    """

    def __init__(self) -> None:
        self.leased: list[socket.socket] = []
        self.waiting: list[socket.socket] = []

    def load(self, port: int, source: str, grants: int, at_once: int) -> dict[str, Any]:
        began = time.monotonic()
        at_once = min(at_once, grants)
        socks = [connect(port, source) for _ in range(at_once)]
        for number in range(grants):
            place = number % at_once
            read_grant(socks[place])
            socks[place].close()
            if number + at_once < grants:
                socks[place] = connect(port, source)
        return {"seconds": time.monotonic() - began}

    def pace(self, port: int, source: str, grants: int, rate: float) -> dict[str, Any]:
        here: dict[int, tuple[socket.socket, float]] = {}
        seconds: list[float] = []
        epoll = select.epoll()
        due = time.monotonic()
        left = grants
        while left or here:
            now = time.monotonic()
            if left and now >= due:
                sock = connect(port, source)
                here[sock.fileno()] = sock, now
                epoll.register(sock, select.EPOLLIN)
                left -= 1
                due += random.expovariate(rate)
                continue
            events = epoll.poll(due - now if left else STUCK)
            now = time.monotonic()
            for descriptor, _ in events:
                sock, began = here.pop(descriptor)
                read_grant(sock)
                seconds.append(now - began)
                sock.close()
            if not events and not left:
                raise ValueError(f"{len(here)} grants did not come within {STUCK:.0f} s")
        epoll.close()
        return {"median": within(seconds, 0.5), "p99": within(seconds, 0.99)}

    def come(self, port: int, source: str, rate: float) -> dict[str, Any]:
        here: dict[int, tuple[socket.socket, float]] = {}
        epoll = select.epoll()
        epoll.register(sys.stdin.fileno(), select.EPOLLIN)
        due, longest, count, closed, more = time.monotonic(), 0.0, 0, 0, True
        while more or here:
            now = time.monotonic()
            if more and now >= due:
                sock = connect(port, source)
                here[sock.fileno()] = sock, now
                epoll.register(sock, select.EPOLLIN)
                count += 1
                due += 1 / rate
                continue
            events = epoll.poll(due - now if more else STUCK)
            if not events and not more:
                raise ValueError(f"{len(here)} grants did not come within {STUCK:.0f} s")
            for descriptor, _ in events:
                if descriptor == sys.stdin.fileno():
                    epoll.unregister(descriptor)
                    more = False
                    continue
                sock, began = here.pop(descriptor)
                if sock.recv(1, socket.MSG_PEEK):
                    read_grant(sock)
                    longest = max(longest, time.monotonic() - began)
                else:
                    closed += 1
                sock.close()
        epoll.close()
        return {"longest": longest, "count": count, "closed": closed}

    def enough(self) -> dict[str, Any]:
        return {}

    def hold(self, port: int, source: str, count: int, granted: bool) -> dict[str, Any]:
        for _ in range(count):
            sock = connect(port, source)
            if granted:
                read_grant(sock)
            (self.leased if granted else self.waiting).append(sock)
        return {"held": len(self.leased) + len(self.waiting)}

    def read(self) -> dict[str, Any]:
        for sock in self.waiting:
            read_grant(sock)
        self.leased += self.waiting
        self.waiting = []
        return {"leased": len(self.leased)}

    def drop(self) -> dict[str, Any]:
        descriptors = sorted(sock.detach() for sock in self.leased + self.waiting)
        self.leased, self.waiting = [], []
        if descriptors:
            # all between them are ours: we open nothing else meanwhile
            os.closerange(descriptors[0], descriptors[-1] + 1)
        return {"dropped": len(descriptors)}


def obey(clients: object, orders: Iterable[str] = sys.stdin) -> None:
    """Do what the lines say with them, a method each, until they end."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for line in orders:
        words = json.loads(line)
        try:
            answer = getattr(clients, words.pop("do"))(**words)
        except (OSError, ValueError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    obey(Clients())
