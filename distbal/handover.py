"""Clients, sessions and listening sockets that outlive the process: given to the next one, and taken up from the one before.

A process that is upgraded gives away what it has (:func:`hand_over`), and its next image takes it up. One that crashed has
given everything to its keeper while it lived, bit by bit. Taking up (:class:`TakingUp`) is the same for both: the ledger's
accounts say what each descriptor is, and the sockets themselves say what no account can know, such as whether a grant was on
its way.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from distbal import ledger, takeup
from distbal.carried import CarriedTicket
from distbal.closing import shut_and_close
from distbal.errors import DistbalError
from distbal.hosts import DEFAULT_POOL
from distbal.inheritance import Inheritance
from distbal.keeperwire import Key, Role
from distbal.keeping import Keeping
from distbal.keptclients import KeptClient
from distbal.ledger import Account, Ledger, LedgerError
from distbal.listeners import Left, stop_listening, words
from distbal.logs import Logger
from distbal.notebook import Notes, read_notes
from distbal.outcomes import Outcome
from distbal.ports import HotClient
from distbal.proxy import takeup as proxy_takeup
from distbal.proxy.keptpipes import KeptPipes
from distbal.proxy.lasting import LastingSession
from distbal.proxy.transferred import was_sent_to
from distbal.requests import Request, Ticket
from distbal.scheduler import Scheduler
from distbal.serving import LISTENER_NOTE, Serving
from distbal.takeup import Carried

if TYPE_CHECKING:
    from distbal.config import Settings

#: digits of a number of 64 bits
_DIGITS = 20
#: the note of the file that was last taken in
FILE_NOTE = "file"
#: the note of those lost of whom nobody has been told yet: a process that had taken up may be killed before it says so
LOST_NOTE = "lost"
_log = Logger()


@dataclass(slots=True)
class TakenUp:
    """How many there were.

    :ivar leases, waiters: clients of 5656, by what they had; ``sessions``: of the proxy.
    :ivar left: clients and sessions that had left meanwhile.
    :ivar lost: connections that were accepted in the very turn of the loop in which the process was killed, and that the keeper
        had not been handed yet: they saw a close, and none of them had been told a host.
    """

    leases: int = 0
    waiters: int = 0
    sessions: int = 0
    left: int = 0
    lost: int = 0

    def __str__(self) -> str:
        told = f"{self.leases} leases, {self.waiters} waiters and {self.sessions} sessions"
        told += f"; {self.left} had left meanwhile" if self.left else ""
        return told + (f"; {self.lost} that had just come were lost" if self.lost else "")

    def numbers(self) -> dict[str, int]:
        """The same, by name."""
        return asdict(self)


# -- giving


def hand_over(book: Ledger, serving: Serving, new_id: Callable[[], int], *, kept: bool) -> dict[Key, int]:
    """Write accounts of all that is there, and say which descriptors go with them. Nothing may be served meanwhile.

    :param new_id: numbers that nothing else has.
    :param kept: there is a keeper, and so the accounts are there already.
    """
    given: dict[Key, int] = {(0, Role.LEDGER): book.slots, (0, Role.NOTES): book.notes}
    for opened in serving.opened:
        if opened.descriptor < 0:
            continue
        ident = opened.ident
        if not ident:
            ident = new_id()
            book.note(f"{LISTENER_NOTE}{ident}", words(opened.spec).encode())
        given[ident, Role.LISTENER] = opened.descriptor
    if serving.loop is None:
        return given
    for connection in serving.loop.connections:
        if isinstance(connection, HotClient) and connection.ticket is not None:
            if not kept:
                _enter(book, connection, connection.ticket)
            given[connection.ticket.id, Role.CLIENT] = connection.descriptor
    passed = [one for each in serving.loop.watchers if isinstance(each, LastingSession) for one in each.enter(book, new_id)]
    if isinstance(serving.proxy.pipes, KeptPipes):
        passed += serving.proxy.pipes.descriptors
    given.update({(ident, role): descriptor for ident, role, descriptor in passed})
    if not kept:
        for key, turn in serving.leases.scheduler.turns().items():
            book.enter(ledger.TURN, ledger.IN_USE, 0, ticket=turn, address=key)
    return given


def _enter(book: Ledger, client: HotClient, ticket: Ticket) -> None:
    lease, request = ticket.lease, ticket.request
    host, granted = ("", 0.0) if lease is None else (lease.host.spec.name, lease.granted)
    listener = book.name(client.port.words)
    offset = book.enter_client(listener, host, ticket.id, ticket.asked, granted, request.address, request.port)
    if lease is not None:
        book.mark(offset, ledger.TOLD)


# -- taking up


def left_sockets(left: Inheritance) -> Left:
    """The listening sockets that were left; what of them nobody can use is closed, and its place is free."""
    found: dict[int, tuple[str, socket.socket]] = {}
    notes = {} if left.ledger is None else left.ledger.read_notes()
    for key, note in notes.items():
        if key.startswith(LISTENER_NOTE):
            number = key.removeprefix(LISTENER_NOTE)
            ident = int(number) if number.isascii() and number.isdecimal() and len(number) <= _DIGITS else 0
            # those that stay are noted anew
            left.renumbered.append((ident, Role.LISTENER))
            sock = _listening(left.take(ident, Role.LISTENER))
            if sock is None:
                continue
            # a process that ended when it had just begun may have left one under two numbers
            inode = os.fstat(sock.fileno()).st_ino
            if inode in found:
                sock.close()
            else:
                found[inode] = note.decode(errors="replace"), sock
    _free_places_of_those_without_a_note(left, found)
    return Left(found.values())


def _listening(descriptor: int) -> socket.socket | None:
    """A listening socket; None of what is none, or listens no more, as of a process that was killed while it closed it."""
    if descriptor < 0:
        return None
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        _log.error("what was left as a listening socket is none: {why}", why=error.strerror)
        os.close(descriptor)
        return None
    poll = select.poll()
    poll.register(sock, 0)
    # a Unix socket that was shut down says still that it accepts
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and not poll.poll(0):
        return sock
    sock.close()
    return None


def _free_places_of_those_without_a_note(left: Inheritance, noted: Collection[int]) -> None:
    for key in [key for key in left.descriptors if key[1] == Role.LISTENER]:
        left.renumbered.append(key)
        sock = _listening(left.take(*key))
        if sock is not None and os.fstat(sock.fileno()).st_ino not in noted:
            stop_listening(sock)
        if sock is not None:
            sock.close()


def settle(left: Inheritance, keeping: Keeping) -> None:
    """Let the keeper have what is this process's by now, and go of what that came in the place of, or nobody took.

    Listening sockets stay noted under both numbers until the keeper has both; where that takes longer, until the next process
    has come so far.
    """
    for key in (*left.renumbered, *left.descriptors):
        keeping.let_go(*key)
    keeping.flush()
    for ident, role in left.renumbered if keeping.is_idle else ():
        if role == Role.LISTENER:
            keeping.ledger.note(f"{LISTENER_NOTE}{ident}", b"")


def _unsaid(book: Ledger) -> int:
    """How many were lost of whom an earlier process said nothing, since it was killed too."""
    noted = book.read_note(LOST_NOTE)
    return int(noted) if noted.isdigit() and len(noted) < _DIGITS else 0


def all_is_said(book: Ledger) -> None:
    """People were told what was taken up, and what was lost."""
    book.note(LOST_NOTE, b"")


class HandoverError(DistbalError):
    """What was handed over cannot be taken up."""


def dry_run(settings: Settings, book: Ledger) -> None:
    """Take up what an earlier image wrote down, as far as that goes without a socket; nothing is opened, told or written.

    :param settings: what the file says.
    :param book: a copy, which nobody writes to.
    :raises HandoverError: it could not be taken up; the text says why, a line for each reason.
    """
    try:
        accounts = book.accounts()
        notes = read_notes(book.read_notes())
    except LedgerError as error:
        raise HandoverError(f"the accounts of the running daemon cannot be read: {error}") from error
    tickets = [(_ticket(one, DEFAULT_POOL), None) for one in accounts if one.kind == ledger.CLIENT]
    taken = takeup.take_up(Scheduler(settings.farm), Carried(tickets, notes.hosts, notes.totals), time.monotonic())
    wrong = [*notes.wrong, *(f"{one.ticket} cannot be taken up: {one.why}" for one in taken.left_out)]
    if wrong:
        raise HandoverError("\n".join(wrong))


def _ticket(account: Account, pool: str) -> CarriedTicket:
    """What a client of 5656 has."""
    request = Request(account.address, account.peer_port, account.address, pool)
    host = account.host if account.state == ledger.LEASED else ""
    return CarriedTicket(account.ticket, request, account.asked, host, account.granted)


class TakingUp:
    """What was left, on its way to be this process's own.

    :param left: with a ledger, ``book``.
    :param notes: those of the ledger.
    :param anew: sources whose verdicts are known already, or are not any more: what is noted of them is passed over.
    """

    def __init__(self, left: Inheritance, book: Ledger, notes: Notes, serving: Serving, anew: Collection[str] = ()) -> None:
        self._left = left
        self._notes = notes
        self._book = book
        self._serving = serving
        self._anew = anew
        self.came = TakenUp(lost=_unsaid(book))
        self._tickets: list[tuple[CarriedTicket, object]] = []
        self._clients: list[tuple[Account, HotClient]] = []

    def __call__(self) -> TakenUp:
        """Take everything up: from when this returns, all of it goes on."""
        accounts = self._book.accounts(lambda why: _log.error("an account cannot be taken up: {why}", why=why))
        turns = {one.address: one.ticket for one in accounts if one.kind == ledger.TURN}
        for account in accounts:
            if account.kind == ledger.CLIENT:
                self._client(account)
        notes = self._notes
        sessions = self._sessions(accounts)
        leases = self._serving.leases
        taken = leases.take_up(Carried(self._tickets, notes.hosts, notes.totals, turns), anew=self._anew)
        for one in taken.left_out:
            _log.error("{ticket} cannot be taken up: {why}", ticket=one.ticket, why=one.why)
        there = self._resumed(taken.tickets)
        for account, session in sessions:
            self.came.sessions += session.resume(taken.tickets.get(account.ticket))
        self._turns(accounts)
        leases.scheduler.history.take_up(notes.history)
        for account, client in there:
            self._tell(account, client)
        leases.deliver(taken.grants)
        return self.came

    def _sessions(self, accounts: list[Account]) -> list[tuple[Account, LastingSession]]:
        """Those of the proxy, and their tickets."""
        serving = self._serving
        if serving.loop is None:
            return []
        taken = proxy_takeup.take_up(serving.proxy, serving.loop, accounts, self._left.descriptors, serving.proxy_port)
        # the keeper does not let them go by itself: those that are missing had just come
        self._lose(len(taken.missing))
        self.came.left += len(taken.ended)
        for account, session in taken.sessions:
            ticket = proxy_takeup.ticket_of(account, session)
            if ticket is not None:
                self._tickets.append((ticket, session))
        return taken.sessions

    def _client(self, account: Account) -> None:
        descriptor = self._left.take(account.id, Role.CLIENT)
        if descriptor < 0:
            # the keeper lets a client go by itself when it leaves
            if account.flags & ledger.HELD:
                self.came.left += 1
            else:
                self._lose(1)
            self._book.leave(account.offset)
            return
        try:
            client = self._serving.client(account.listener, descriptor)
        except ValueError as error:
            _log.error("a client cannot be taken up: {why}", why=str(error))
            self._book.leave(account.offset)
            shut_and_close(descriptor)
            return
        self._tickets.append((_ticket(account, client.port.pool), client))
        self._clients.append((account, client))

    def _lose(self, number: int) -> None:
        if number:
            self.came.lost += number
            # first: their accounts are about to go, and it is said when the log is there
            self._book.note(LOST_NOTE, str(self.came.lost).encode())

    def _resumed(self, tickets: dict[int, Ticket]) -> list[tuple[Account, HotClient]]:
        """Watch all clients from now on; those that can be, the others are ended."""
        for account, client in self._clients:
            if isinstance(client, KeptClient):
                client.resume(account)
            ticket = tickets.get(account.ticket)
            if ticket is not None and ticket.holder is client:
                client.ticket = ticket
        there, gone = [], []
        for account, client in self._clients:
            # where there is none, it is said already why not
            if client.ticket is not None and self._watched(client):
                there.append((account, client))
            else:
                gone.append(client)
        # when all others are there: they may get what these had
        for client in gone:
            client.left(Outcome.CUT_OFF)
            shut_and_close(client.descriptor)
        return there

    def _watched(self, client: HotClient) -> bool:
        try:
            client.loop.watch(client)
        except OSError as error:
            _log.error("a client cannot be taken up: {why}", why=error.strerror)
            return False
        return True

    def _tell(self, account: Account, client: HotClient) -> None:
        """Tell a client what it had not been told; of what it got just now it hears with all others."""
        if account.state != ledger.LEASED:
            self.came.waiters += 1
            return
        self.came.leases += 1
        ticket = client.ticket
        if ticket is None or ticket.lease is None or account.flags & ledger.TOLD or was_sent_to(client.descriptor):
            return
        client.granted(ticket.lease)

    def _turns(self, accounts: list[Account]) -> None:
        """From now on these are this process's."""
        turns = self._serving.turns
        for account in accounts:
            if account.kind == ledger.TURN:
                if turns is None:
                    self._book.leave(account.offset)
                else:
                    turns.take_up(account)
