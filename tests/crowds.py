"""A crowd of 5656's clients that knows its own view: who was told which host, who waits, who was closed without having left.

It takes nobody's word: a host that more clients have at once than it has slots, a second line, a line that is no host's, a
connection that is refused or closed are faults, noted when they happen. What the daemon says of its clients can be compared
with the crowd's own view, client by client, since each is known by its port.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from distbal.adminclient import Connection
from distbal.errors import DistbalError
from tests.rooms import LOST, PATIENCE, READ, WRITE, Room
from tests.support import reset_at_close

CONNECTING, WAITING, SERVED, LEAVING, GONE = "connecting", "waiting", "served", "leaving", "gone"
#: what the crowd's port lends
POOL = "default"
Ports = Mapping[str, frozenset[int]]
WAYS_TO_LEAVE = ("close", "half-close", "reset")


def _together(one: Ports, other: Ports) -> Ports:
    nobody: frozenset[int] = frozenset()
    return {name: one.get(name, nobody) | other.get(name, nobody) for name in {*one, *other}}


def _numbers(ports: Ports) -> str:
    return ", ".join(f"{name} {len(some)}" for name, some in sorted(ports.items())) or "nobody"


@dataclass(frozen=True)
class View:
    """Who has what, by somebody's account.

    :ivar served: each host's clients, by their ports; a host without clients is left out.
    :ivar waiting: the ports of those that wait, by pool; a pool without is left out. (Two clients may have the same port where
        they have connected to different ones.)
    """

    served: Ports = field(default_factory=dict)
    waiting: Ports = field(default_factory=dict)

    def __or__(self, other: View) -> View:
        """Both together."""
        return View(_together(self.served, other.served), _together(self.waiting, other.waiting))

    def __str__(self) -> str:
        return f"{_numbers(self.served)} served, {_numbers(self.waiting)} waiting"

    def without(self, other: View) -> str:
        """What of this is not in the other one, in words."""
        pairs = ((self.served, other.served), (self.waiting, other.waiting))
        return ", ".join(
            f"{name}: {sorted(extra)[:5]}"
            for mine, theirs in pairs
            for name, ports in sorted(mine.items())
            if (extra := ports - theirs.get(name, frozenset()))
        )


class Guest:
    """One client.

    :ivar port: its own; the daemon knows it by that.
    :ivar state: connecting, waiting, served, leaving or gone.
    :ivar host: the text that it was told, or "".
    """

    __slots__ = ("heard", "host", "port", "sock", "state")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.port = 0
        self.state = CONNECTING
        self.heard = b""
        self.host = ""


class Crowd:
    """The clients of one port.

    :param where: the port's address.
    :param slots: of each host, by the text that clients are told.

    :ivar guests: those that are not gone.
    :ivar faults: what should not have happened, in words.
    :ivar cut: how many were closed that had been told nothing: what a kill may do to one that was accepted in its very turn.
    :ivar tolerant: whether those are counted, and no fault.
    """

    def __init__(self, room: Room, where: tuple[str, int], slots: Mapping[str, int]) -> None:
        self.where = where
        self.slots = dict(slots)
        self.guests: dict[Guest, None] = {}
        self.faults: list[str] = []
        self.cut = 0
        self.tolerant = False
        self.told = 0
        self._room = room
        self._served = dict.fromkeys(slots, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for guest in list(self.guests):
            self._gone(guest)

    # -- its own view

    def view(self) -> View:
        served: dict[str, set[int]] = {}
        for guest in self.guests:
            if guest.state == SERVED:
                served.setdefault(guest.host, set()).add(guest.port)
        waiting = frozenset(guest.port for guest in self.waiting)
        return View({host: frozenset(ports) for host, ports in served.items()}, {POOL: waiting} if waiting else {})

    def of(self, *states: str) -> list[Guest]:
        """Those in these states, in the order in which they came."""
        return [guest for guest in self.guests if guest.state in states]

    @property
    def served(self) -> list[Guest]:
        return self.of(SERVED)

    @property
    def waiting(self) -> list[Guest]:
        return self.of(WAITING)

    def settled(self) -> bool:
        """Whether nobody is on the way in or out."""
        return not self.of(CONNECTING, LEAVING)

    def counts(self, served: int, waiting: int) -> bool:
        return self.settled() and (len(self.served), len(self.waiting)) == (served, waiting)

    def check(self) -> None:
        """Fail where there were faults."""
        assert not self.faults, f"{len(self.faults)} faults: {'; '.join(self.faults[:10])}"

    # -- what it does

    def come(self, number: int) -> list[Guest]:
        """So many more connect; they are not waited for."""
        return [self._connect() for _ in range(number)]

    def leave(self, guests: Iterable[Guest], way: str = "close") -> None:
        """These leave: their connection is closed, half-closed (and closed when the daemon has done so too) or reset."""
        for guest in guests:
            assert guest.state in (CONNECTING, WAITING, SERVED), guest.state
            if way == "half-close" and guest.state != CONNECTING:
                try:
                    guest.sock.shutdown(socket.SHUT_WR)
                except OSError:
                    # it was reset a moment ago
                    self._read(guest)
                    continue
                self._away(guest)
                guest.state = LEAVING
            else:
                if way == "reset":
                    reset_at_close(guest.sock)
                self._away(guest)
                self._gone(guest)

    # -- what happens to it

    def _connect(self) -> Guest:
        guest = Guest(socket.socket())
        guest.sock.setblocking(False)
        self.guests[guest] = None
        number = guest.sock.connect_ex(self.where)
        self._room.watch(guest.sock, READ | WRITE, lambda events: self._happened(guest, events))
        if number not in (0, errno.EINPROGRESS):
            self._fault(guest, f"cannot connect: {os.strerror(number)}")
        return guest

    def _happened(self, guest: Guest, events: int) -> None:
        if guest.state == CONNECTING:
            if number := guest.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._fault(guest, f"cannot connect: {os.strerror(number)}")
                return
            if not events & WRITE:
                return
            guest.port = guest.sock.getsockname()[1]
            guest.state = WAITING
            self._room.change(guest.sock, READ)
        if events & (READ | LOST):
            self._read(guest)

    def _read(self, guest: Guest) -> None:
        try:
            data = guest.sock.recv(4096)
        except BlockingIOError:
            return
        except OSError as error:
            self._closed(guest, os.strerror(error.errno or 0))
            return
        if not data:
            self._closed(guest, "closed")
            return
        if guest.state == LEAVING:
            return  # its line was on the way
        guest.heard += data
        if guest.host or guest.heard.count(b"\n") > 1:
            self._fault(guest, f"was told a second thing: {guest.heard!r}")
        elif guest.heard.endswith(b"\n"):
            self._was_told(guest, guest.heard.removesuffix(b"\r\n").decode("utf-8", "replace"))

    def _was_told(self, guest: Guest, host: str) -> None:
        if host not in self.slots:
            self._fault(guest, f"was told {guest.heard!r}")
            return
        guest.host, guest.state = host, SERVED
        self.told += 1
        self._served[host] += 1
        if self._served[host] > self.slots[host]:
            self.faults.append(f"{self._served[host]} clients have {host} at once, which has {self.slots[host]} slots")

    def _closed(self, guest: Guest, how: str) -> None:
        if guest.state == LEAVING:
            self._gone(guest)
        elif guest.state == WAITING and self.tolerant and not guest.heard:
            self.cut += 1
            self._gone(guest)
        else:
            self._fault(guest, how)

    def _fault(self, guest: Guest, what: str) -> None:
        self.faults.append(f"client {guest.port}, {guest.state} {guest.host}: {what}")
        self._away(guest)
        self._gone(guest)

    def _away(self, guest: Guest) -> None:
        """It has its host no longer, in its own view."""
        if guest.state == SERVED:
            self._served[guest.host] -= 1

    def _gone(self, guest: Guest) -> None:
        self._room.forget(guest.sock)
        guest.sock.close()
        guest.state = GONE
        del self.guests[guest]


# -- the daemon's view


class Reports:
    """What the daemon says over its admin socket, while it may be on its way from one process to the next.

    :param path: the socket's.
    """

    def __init__(self, room: Room, path: str) -> None:
        self._room = room
        self._path = path

    def ask(self, *words: str) -> dict[str, Any]:
        """One answer; asks again as long as there is nobody who answers."""
        answers: list[dict[str, Any]] = []

        def answered() -> bool:
            with suppress(DistbalError), Connection(self._path, PATIENCE) as connection:
                answers.append(connection.ask(words))
            return bool(answers)

        self._room.until(answered, f"an answer to {' '.join(words)}")
        return answers[0]

    def hosts(self) -> list[dict[str, Any]]:
        return list(self.ask("hosts")["hosts"])

    def status(self) -> dict[str, Any]:
        return self.ask("status")

    def view(self) -> View:
        """Who has what, and who waits. The two are asked one after the other."""
        served = {host["name"]: frozenset(_ports(host["clients"])) for host in self.hosts() if host["clients"]}
        waiters = self.ask("queue")["waiters"]
        pools = {waiter["pool"] for waiter in waiters}
        waiting = {pool: frozenset(_ports(one for one in waiters if one["pool"] == pool)) for pool in pools}
        return View(served, waiting)

    def agree(self, own: Crowd, *others: View) -> None:
        """Wait until the daemon's view is the crowd's own.

        :param others: who has what besides.
        """
        both: list[View] = []

        def same() -> bool:
            mine = own.view()
            for other in others:
                mine |= other
            both[:] = [self.view(), mine]
            return both[0] == mine

        try:
            self._room.until(same, "the same view", PATIENCE / 2)
        except AssertionError:
            theirs, mine = both
            only = f"only the daemon has {theirs.without(mine)}; only the clients have {mine.without(theirs)}"
            raise AssertionError(f"the daemon says {theirs}; its clients {mine}; {only}") from None

    def clients(self) -> tuple[dict[int, int], dict[int, float], list[int]]:
        """What it says of the crowd's clients, by their ports.

        :returns: the numbers of their leases; since when each has waited, or has had its host, in seconds since 1970; and those
            that wait, the longest first.
        """
        hosts, queue = self.ask("hosts"), self.ask("queue")
        served = [client for host in hosts["hosts"] for client in host["clients"] if client["pool"] == POOL]
        waiting = [client for client in queue["waiters"] if client["pool"] == POOL]
        ages = {client["port"]: hosts["at"] - client["seconds"] for client in served}
        ages |= {client["port"]: queue["at"] - client["seconds"] for client in waiting}
        return {client["port"]: client["id"] for client in served}, ages, list(_ports(waiting))


def _ports(clients: Iterable[Mapping[str, Any]]) -> Iterator[int]:
    return (client["port"] for client in clients)
