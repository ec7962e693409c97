"""Sessions and pipes that an earlier process had become this one's: from their accounts and their descriptors.

It is done in two steps, since each session is the holder of its ticket: first they are made (:func:`take_up`), then the
scheduler takes up their tickets, then each goes on (:meth:`distbal.proxy.lasting.LastingSession.resume`).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from distbal import listening
from distbal.carried import CarriedTicket
from distbal.keeperwire import Role
from distbal.ledger import CONNECTING, PIPE, RELAYING, SESSION, WAITING, Account
from distbal.logs import Logger
from distbal.proxy.keptpipes import MARKED
from distbal.proxy.lasting import CUT, LastingSession
from distbal.proxy.pipes import Pipe
from distbal.requests import Request

if TYPE_CHECKING:
    from distbal.keeping import Keeping
    from distbal.loop import HotLoop
    from distbal.proxy.port import Proxy, ProxyPort

_log = Logger()

_ROLES = frozenset({Role.SESSION_CLIENT, Role.SESSION_SERVER, Role.PIPE_READ, Role.PIPE_WRITE})

#: what was passed on, by (id, role)
Descriptors = dict[tuple[int, int], int]


@dataclass(slots=True)
class TakenUp:
    """What came of it.

    :ivar sessions: those that go on when they are resumed, each with its account. Of those accounts, one that is WAITING has a
        ticket that waits, one that is CONNECTING or RELAYING has one with a lease, and the others have none.
    :ivar missing: accounts of which the client's descriptor was not passed on: it was taken in at the last moment.
    :ivar ended: accounts of which all that was left to do was to end them: that is done.
    """

    sessions: list[tuple[Account, LastingSession]] = field(default_factory=list)
    missing: list[Account] = field(default_factory=list)
    ended: list[Account] = field(default_factory=list)


class _Gate:
    """Puts off what is to be done soon until all sessions are resumed: one that ends gives its lease to another, perhaps to one
    that is not resumed yet, and so cannot connect.

    :ivar sessions: how many are to be resumed.
    """

    def __init__(self, loop: HotLoop) -> None:
        self.sessions = 0
        self._loop = loop
        self._ports: set[ProxyPort] = set()
        self._later: list[Callable[[], None]] = []

    def put_off(self, port: ProxyPort) -> None:
        """One of its sessions is to be resumed."""
        self._ports.add(port)
        port.soon = self._later.append

    def resumed(self) -> None:
        """One was."""
        self.sessions -= 1
        if not self.sessions:
            for port in self._ports:
                port.soon = self._loop.soon
            for call in self._later:
                self._loop.soon(call)


def take_up(
    proxy: Proxy,
    loop: HotLoop,
    accounts: Iterable[Account],
    descriptors: Descriptors,
    port_of: Callable[[str], ProxyPort],
) -> TakenUp:
    """Make sessions of what an earlier process left.

    :param accounts: all that there are; those that are no session's and no pipe's are passed over.
    :param descriptors: those that are a session's or a pipe's are taken out; what belongs to nobody is closed.
    :param port_of: the port that has these words in accounts; ValueError where it cannot be had: its sessions are ended.
    """
    keeping = proxy.keeping
    accounts = list(accounts)
    pipes = _take_up_pipes(proxy, [account for account in accounts if account.kind == PIPE], descriptors, keeping)
    taken, gate = TakenUp(), _Gate(loop)
    for account in accounts:
        if account.kind != SESSION:
            continue
        client = descriptors.pop((account.id, Role.SESSION_CLIENT), -1)
        server = descriptors.pop((account.id, Role.SESSION_SERVER), -1)
        port = None if client < 0 or account.flags & CUT else _port(port_of, account)
        if port is None:
            (taken.missing if client < 0 else taken.ended).append(account)
            _end(account, client, server, keeping)
            continue
        gate.put_off(port)
        its = pipes.pop(account.id, [])
        broken_off = "distbal was killed between two bytes" if any(flags & MARKED for flags, _ in its) else ""
        session = proxy.kind(port, loop, proxy.pipes, client, account.address, account.peer_port)
        session.take_up(account, server, its, broken_off, gate.resumed)
        taken.sessions.append((account, session))
    for left in pipes.values():
        for _, pipe in left:
            proxy.pipes.give_back(pipe)
    gate.sessions = len(taken.sessions)
    for key in [key for key in descriptors if key[1] in _ROLES]:
        os.close(descriptors.pop(key))
        if keeping is not None:
            keeping.let_go(*key)
    return taken


def ticket_of(account: Account, session: LastingSession) -> CarriedTicket | None:
    """The ticket that a session has, for the scheduler; None where it has none."""
    if account.state not in (WAITING, CONNECTING, RELAYING):
        return None
    address = account.address
    request = Request(address, account.peer_port, address, session.port.pool, (), account.job, account.since)
    host = "" if account.state == WAITING else account.host
    return CarriedTicket(account.ticket, request, account.asked, host, account.granted)


def _port(port_of: Callable[[str], ProxyPort], account: Account) -> ProxyPort | None:
    try:
        return port_of(account.listener)
    except ValueError as error:
        _log.error("a session cannot be taken up: {why}", why=str(error))
        return None


def _take_up_pipes(
    proxy: Proxy, accounts: Iterable[Account], descriptors: Descriptors, keeping: Keeping | None
) -> dict[int, list[tuple[int, Pipe]]]:
    """Those with something in them, each with its account's flags, by whose they are; the others are free again."""
    pipes: dict[int, list[tuple[int, Pipe]]] = {}
    for account in accounts:
        keys = [(account.id, int(Role.PIPE_READ)), (account.id, int(Role.PIPE_WRITE))]
        if not all(key in descriptors for key in keys):
            # made at the last moment: nothing was put into it. What there is of it is closed with what belongs to nobody
            if keeping is not None:
                keeping.ledger.leave(account.offset)
            continue
        pipe = proxy.pipes.take_up(descriptors.pop(keys[0]), descriptors.pop(keys[1]), account)
        if pipe.held or account.flags & MARKED:
            pipes.setdefault(account.ticket, []).append((account.flags, pipe))
        else:
            proxy.pipes.give_back(pipe)
    return pipes


def _end(account: Account, client: int, server: int, keeping: Keeping | None) -> None:
    if client >= 0:
        with contextlib.suppress(OSError), socket.socket(fileno=client) as sock:
            listening.reset_at_close(sock)
    if server >= 0:
        with contextlib.suppress(OSError), socket.socket(fileno=server) as sock:
            sock.shutdown(socket.SHUT_RDWR)
    if keeping is not None:
        keeping.ledger.leave(account.offset)
        keeping.let_go(account.id, Role.SESSION_CLIENT)
        keeping.let_go(account.id, Role.SESSION_SERVER)
