"""Clients that mean no good, or no longer mean anything: to every port, on the loopback alone, and not for long."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from tests.support import reset_at_close

#: where: a port of the loopback, or the path of a Unix socket
Place = int | str
#: seconds that one of them stays, at most
LONGEST = 4.0
#: connections of one flood
FLOOD = 150


def _connect(place: Place) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX if isinstance(place, str) else socket.AF_INET)
    try:
        sock.settimeout(LONGEST)
        sock.connect(place if isinstance(place, str) else ("127.0.0.1", place))
    except OSError:
        sock.close()
        raise
    return sock


def noise(place: Place, dice: random.Random) -> None:
    """Random bytes, more than anybody wants; the answer is not read."""
    with _connect(place) as sock:
        sock.settimeout(0.5)
        for _ in range(dice.randrange(1, 20)):
            sock.sendall(dice.randbytes(dice.choice((1, 100, 20_000))))


def trickle(place: Place, dice: random.Random) -> None:
    """A byte now and then, of something that looks like the beginning of a request."""
    words = dice.choice((b"GET / HTTP/1.1\r\nX: ", b'{"words": ["status', b"alpha ", b"DIST00000001ARGC0000"))
    end = time.monotonic() + LONGEST
    with _connect(place) as sock:
        while time.monotonic() < end:
            sock.sendall(bytes((words[0],)))
            words = words[1:] or b"x"
            time.sleep(0.05)


def flood(place: Place, dice: random.Random) -> None:
    """Many connections at once, which say nothing, and end in one way or another."""
    with ExitStack() as stack:
        crowd = [stack.enter_context(_connect(place)) for _ in range(FLOOD)]
        time.sleep(dice.uniform(0, 0.5))
        for sock in crowd:
            way = dice.randrange(3)
            if way == 0:
                reset_at_close(sock)
            elif way == 1:
                sock.shutdown(socket.SHUT_WR)


def silent(place: Place, dice: random.Random) -> None:
    """Comes, says nothing, hears nothing, and then leaves."""
    with _connect(place):
        time.sleep(dice.uniform(0, LONGEST))


def half_closed(place: Place, dice: random.Random) -> None:
    """Closes its side, perhaps after half a word, and listens."""
    with _connect(place) as sock:
        if dice.randrange(2):
            sock.sendall(b"DIST0000000")
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(1000):
            pass


STRANGERS: Mapping[str, Callable[[Place, random.Random], None]] = {
    "random bytes": noise,
    "a slow trickle": trickle,
    "a flood of connections": flood,
    "silence": silent,
    "a half-closed client": half_closed,
}


def visit(how: str, place: Place, seed: int) -> None:
    """One of them, from beginning to end; that it is thrown out is what is expected."""
    with contextlib.suppress(OSError):
        STRANGERS[how](place, random.Random(seed))
