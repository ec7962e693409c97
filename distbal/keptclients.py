"""Clients of 5656 that outlive the process: each has an account in the ledger, and its descriptor is the keeper's as well.

A client that is new hears of its grant when the keeper has its descriptor, at the end of the turn of the loop in which it came:
whoever holds a grant is never lost. All that follows is written into the ledger before it is done, so the next process finds a
waiter waiting, or a lease lent; whether the line had been sent is known from the account, and from the socket itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from distbal import ledger
from distbal.bugs import bugs
from distbal.keeperwire import Role
from distbal.keeping import Keeping
from distbal.ledger import Ledger
from distbal.loop import HotLoop
from distbal.outcomes import Outcome
from distbal.ports import BalancePort, HotClient, peer_of
from distbal.requests import Ticket

_CLIENT = int(Role.CLIENT)


class Turns:
    """Whose turn comes when, of those who wait, kept in the ledger (queues.py: fair).

    :param turn: a key's turn; None where it has none.
    """

    def __init__(self, book: Ledger, turn: Callable[[str], int | None]) -> None:
        self._book = book
        self._turn = turn
        self._where: dict[str, int] = {}

    def note(self, key: str) -> None:
        """Something of this key's waits, was served, or left."""
        turn = self._turn(key)
        offset = self._where.get(key)
        if turn is None:
            if offset is not None:
                del self._where[key]
                self._book.leave(offset)
        elif offset is None:
            self._where[key] = self._book.enter(ledger.TURN, ledger.IN_USE, 0, ticket=turn, address=key)
        else:
            self._book.own(offset, turn)

    def take_up(self, account: ledger.Account) -> None:
        """An earlier process wrote this; it stays if the key waits still, and has no other by now."""
        if account.address in self._where:
            self._book.leave(account.offset)
            return
        self._where[account.address] = account.offset
        self.note(account.address)


class KeptClients:
    """Takes in the clients of one port.

    :param noted: told a key of fairness whose turn may have changed.
    """

    __slots__ = ("_loop", "_port", "keeping", "listener", "noted")

    def __init__(self, port: BalancePort, loop: HotLoop, keeping: Keeping, noted: Callable[[str], None]) -> None:
        self._port = port
        self._loop = loop
        self.keeping = keeping
        self.noted = noted
        self.listener = keeping.ledger.name(port.words)

    def __call__(self, descriptor: int, address: Any) -> None:
        """A new client, from the hot loop."""
        host, peer_port = peer_of(address)
        if self._port.admits(host):
            client = self.client(descriptor)
            self._loop.watch(client)
            client.begin(host, peer_port)
        else:
            os.close(descriptor)

    def client(self, descriptor: int) -> KeptClient:
        """A client with this descriptor, which is not watched yet."""
        return KeptClient(self, self._port, self._loop, descriptor)


class KeptClient(HotClient):
    """A client that outlives the process.

    :ivar account: where it is in the ledger; -1 before and after.
    :ivar handed: the keeper has its descriptor.
    """

    __slots__ = ("_clients", "_id", "_line", "account", "handed")

    def __init__(self, clients: KeptClients, port: BalancePort, loop: HotLoop, descriptor: int) -> None:
        super().__init__(port, loop, descriptor)
        self._clients = clients
        self.account = -1
        self.handed = False
        self._id = 0
        #: a grant that is to be sent when the keeper has the descriptor
        self._line = b""

    def begin(self, address: str, peer_port: int) -> None:
        super().begin(address, peer_port)
        ticket = self.ticket
        if ticket is None:
            return  # it is over already
        clients, lease = self._clients, ticket.lease
        keeping = clients.keeping
        self._id = ticket.id
        host, granted = ("", 0.0) if lease is None else (lease.host.spec.name, lease.granted)
        self.account = keeping.ledger.enter_client(clients.listener, host, ticket.id, ticket.asked, granted, address, peer_port)
        keeping.hold(ticket.id, _CLIENT, self.descriptor, self)
        if lease is None:
            clients.noted(address)

    def handed_over(self) -> None:
        """The keeper has its descriptor."""
        if self.account < 0:
            return  # it left meanwhile
        self.handed = True
        line = self._line
        try:
            if not line:
                self._clients.keeping.ledger.mark(self.account, ledger.HELD)
                return
            self._line = b""
            if HotClient.deliver(self, line):
                self._clients.keeping.ledger.mark(self.account, ledger.HELD | ledger.TOLD)
            else:
                self.left(Outcome.UNDELIVERED)
        except Exception:  # noqa: BLE001 (whatever it is, the slot comes back)
            bugs.met("connection", self.port.log, "a client that is new could not be told its host; it is let go")
            self.left(Outcome.CUT_OFF)

    def deliver(self, line: bytes) -> bool:
        ticket = self.ticket
        if self.account >= 0 and ticket is not None and ticket.lease is not None:
            # it had to wait
            lease = ticket.lease
            self._clients.keeping.ledger.grant(self.account, lease.host.spec.name, lease.granted)
            self._clients.noted(ticket.request.key)
        if not self.handed:
            self._line = line
            return True
        return self._send(line)

    def left(self, outcome: Outcome) -> None:
        ticket = self.ticket
        waited = ticket is not None and ticket.lease is None
        super().left(outcome)
        if waited and ticket is not None:
            self._clients.noted(ticket.request.key)

    def refused(self, ticket: Ticket, reason: str) -> None:
        super().refused(ticket, reason)
        if ticket.lease is None:
            self._clients.noted(ticket.request.key)

    def hang_up(self) -> None:
        if self.account >= 0:
            keeping = self._clients.keeping
            if not self.handed:
                keeping.forget(self._id, _CLIENT)
            account, self.account = self.account, -1
            super().hang_up()
            keeping.ledger.leave(account)
        else:
            super().hang_up()

    def resume(self, account: ledger.Account) -> None:
        """It was taken up from an earlier process, with this account."""
        self._id, self.account = account.id, account.offset
        self.handed = bool(account.flags & ledger.HELD)
        if not self.handed:
            # the keeper may have it all the same, which does no harm
            keeping = self._clients.keeping
            keeping.hold(account.id, _CLIENT, self.descriptor, self)
            keeping.soon()

    def _send(self, line: bytes) -> bool:
        if not super().deliver(line):
            return False
        if self.account >= 0:
            self._clients.keeping.ledger.mark(self.account, ledger.TOLD)
        return True
