"""Spliced sessions that another process can go on with: how they are entered into a ledger, and how they are taken up from it.

Nothing of a transfer is in this process's memory. What came and did not go is in the pipes, what the sockets took they count
themselves (transferred.py), and that one side has ended is read again. What remains to be noted is little: which phase it was
in, with which ticket, and what the two sides have been told.

A process that was killed may have been anywhere between two system calls, so nothing is taken for granted here but what was
stored before the call that made it so: each step after that is such that it can be taken again.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from distbal import ledger
from distbal.keeperwire import Role
from distbal.ledger import Account, Ledger
from distbal.outcomes import Outcome
from distbal.proxy import session as phases
from distbal.proxy.flow import MOVED, Flow
from distbal.proxy.pipes import Pipe
from distbal.proxy.sockets import broke
from distbal.proxy.splice import COST, SpliceSession, available
from distbal.proxy.transferred import CLOSE_WAIT, CLOSED, ESTABLISHED, SYN_SENT, state_of, transferred

if TYPE_CHECKING:
    from distbal.requests import Ticket

#: flags of a session's account: the server was told that the client has said all, and the client that the server has; all that
#: is left to do is to reset the client
SAID_UP, SAID_DOWN, CUT = 1 << 3, 1 << 4, 1 << 5

_TO_ACCOUNT = {
    phases.QUIET: ledger.QUIET,
    phases.WAITING: ledger.WAITING,
    phases.CONNECTING: ledger.CONNECTING,
    phases.RELAYING: ledger.RELAYING,
    phases.PARTING: ledger.PARTING,
}
_FROM_ACCOUNT = {of_account: phase for phase, of_account in _TO_ACCOUNT.items()}
#: states of a connection that was begun and is wanted: one that failed is closed, with an error to tell; one that was given up
#: was ended, or has no error
_BEGUN = frozenset({ESTABLISHED, SYN_SENT, CLOSE_WAIT})

if available:
    _IN, _OUT, _LEFT, _HUP = select.EPOLLIN, select.EPOLLOUT, select.EPOLLRDHUP, select.EPOLLHUP

#: what is passed on to another process: (id, role, descriptor)
Passed = tuple[int, int, int]


class LastingSession(SpliceSession):
    """A spliced session, with what is needed to go on with it."""

    __slots__ = ("_broken_off", "_resumed", "_taken_up_as")

    # -- into a ledger

    def enter(self, accounts: Ledger, new_id: Callable[[], int]) -> list[Passed]:
        """Write down what it is.

        :param new_id: gives a number that nothing else has.
        :returns: which descriptors must be passed on.
        """
        ident = new_id()
        lease, ticket = self.lease, self.ticket
        if ticket is not None and ticket.lease is not None:
            # granted already, and not yet told
            lease = ticket.lease
        if lease is not None:
            ticket = lease.ticket
        state = phases.CONNECTING if self.state == phases.WAITING and lease is not None else self.state
        said_up = self.up.over and self.up.error is None
        offset = accounts.enter(
            ledger.SESSION,
            _TO_ACCOUNT[state],
            ident,
            listener=self.port.words,
            host="" if lease is None else lease.host_name,
            flags=(SAID_UP if said_up else 0) | (SAID_DOWN if self.down.over else 0),
            error=self._error,
            ticket=0 if ticket is None else ticket.id,
            job=0 if ticket is None else ticket.request.job,
            asked=0.0 if ticket is None else ticket.asked,
            granted=0.0 if lease is None else lease.granted,
            since=None if ticket is None else ticket.request.since,
            address=self.address,
            peer_port=self.peer_port,
        )
        if state == phases.RELAYING and self._connect is not None:
            accounts.connected(offset, self._connect)
        passed = self._sockets(ident)
        for flow, flags in ((self.up, 0), (self.down, ledger.DOWN)):
            pipe = flow.pipe
            if pipe is not None:
                number = new_id()
                size = pipe.size >> 10
                accounts.enter(ledger.PIPE, ledger.IN_USE, number, flags=flags, error=size, ticket=ident)
                passed += [(number, Role.PIPE_READ, pipe.read), (number, Role.PIPE_WRITE, pipe.write)]
        return passed

    @property
    def _error(self) -> int:
        error = self.up.error
        return 0 if error is None or error.errno is None else error.errno

    def _sockets(self, ident: int) -> list[Passed]:
        passed: list[Passed] = [(ident, Role.SESSION_CLIENT, self._client)]
        if self._server >= 0:
            passed.append((ident, Role.SESSION_SERVER, self._server))
        return passed

    # -- out of a ledger

    def take_up(
        self,
        account: Account,
        server: int,
        pipes: Collection[tuple[int, Pipe]],
        broken_off: str,
        resumed: Callable[[], None],
    ) -> None:
        """Be what an earlier process had; :meth:`resume` follows.

        :param server: its server's descriptor, ours from now on; -1 for none.
        :param pipes: those with something of this session's in them, each with its account's flags.
        :param broken_off: why it cannot go on, if it cannot: it ends as soon as it is resumed.
        :param resumed: called when it was.
        """
        self._resumed = resumed
        self.state = self._taken_up_as = _FROM_ACCOUNT[account.state]
        self._server = server
        self._connect = account.connect
        self._broken_off = broken_off
        for flags, pipe in pipes:
            flow = self.down if flags & ledger.DOWN else self.up
            if flow.pipe is None:
                flow.pipe, flow.taken = pipe, pipe.held
            else:
                self._broken_off = "there are two pipes with the same bytes"
                self.port.pipes.give_back(pipe)
        if self.state == phases.QUIET and account.ticket:
            # its lease had gone back, and it was about to ask again
            self._job, self._since = account.job or account.ticket, account.asked
        elif self.state == phases.RELAYING and server >= 0:
            self._take_up_relay(account)
        elif self.state == phases.RELAYING:
            self._broken_off = "its connection to the host is missing"

    def _take_up_relay(self, account: Account) -> None:
        up, down, server = self.up, self.down, self._server
        up.target = down.source = server
        said_up = bool(account.flags & SAID_UP)
        error, is_to_hear = account.error, broke(server)
        done = transferred(
            server,
            we_connected=True,
            we_ended=said_up,
            taken=self._given(),
            peer_ended=error == errno.EPIPE or (said_up and not error and not is_to_hear),
        )
        up.taken += done.sent
        down.taken = done.taken
        if done.state == CLOSED and not (error or said_up or is_to_hear):
            # it broke, and the process before was told, and did not come to write that down
            error = errno.EPIPE if done.peer_ended else errno.ECONNRESET
        if error:
            up.error = OSError(error, os.strerror(error))
            _drop(up)
        elif said_up:
            up.ended = up.over = True
        if account.flags & SAID_DOWN:
            down.ended = down.over = True
            self._gone &= ~_HUP

    def _given(self) -> int | None:
        """Bytes that the client was given, or that are on their way to it, which are those that the server was relieved of.

        None where its socket does not know it (any more).
        """
        pipe = self.down.pipe
        try:
            done = transferred(self._client, we_connected=False)
        except OSError:
            return None  # a Unix socket, which does not count
        return None if done.state == CLOSED else done.sent + (0 if pipe is None else pipe.held)

    def resume(self, ticket: Ticket | None) -> bool:
        """Go on.

        :param ticket: the one that its account has, where its state is one with a ticket and the scheduler has taken it up: it
            is this session's, and is waiting, or has a lease. None for others.
        :returns: False where that could not be, and it has ended.
        """
        try:
            return self._resume(ticket)
        finally:
            self._resumed()

    def _resume(self, ticket: Ticket | None) -> bool:
        port, state = self.port, self.state
        lease = None if ticket is None else ticket.lease
        if state == phases.WAITING:
            self.ticket = ticket
        elif state in (phases.CONNECTING, phases.RELAYING):
            self.lease = lease
        lacks = (state == phases.WAITING and ticket is None) or (
            state in (phases.CONNECTING, phases.RELAYING) and lease is None
        )
        unwatched = self._watch_both()
        why = self._broken_off or ("its place, or its lease, could not be taken up" if lacks else unwatched)
        if self.state != phases.OVER and not why:
            self._go_on()
        if why and self.state != phases.OVER:
            port.cuts_off(self, why)
            self.end(Outcome.CUT_OFF, reset=True)
        return not (why or unwatched)

    def _watch_both(self) -> str:
        """Have both sides watched; why that cannot be."""
        loop = self._loop
        # before its events are: what there is to be read may be such that all ends at once
        self._client_events = _IN if self.port.passes else _IN | _LEFT
        server, self._server = self._server, -1
        try:
            loop.add(self._client, self._client_events, self)
        except OSError as error:
            if server >= 0:
                os.close(server)
            self._cannot_be_watched(str(error.strerror))
            return str(error.strerror)
        loop.reserve(COST)
        if server >= 0:
            try:
                loop.add(server, _OUT, self)
            except OSError as error:
                return str(error.strerror)
            self._server, self._server_events = server, _OUT
        return ""

    def _cannot_be_watched(self, why: str) -> None:
        """Its client could not be watched, and is closed."""
        self.port.cuts_off(self, why)
        self.state = phases.OVER
        self.up.drop()
        self.down.drop()
        self._leave(Outcome.CUT_OFF, "", (0, 0))

    def _go_on(self) -> None:
        port, state = self.port, self.state
        if state == phases.RELAYING:
            port.young.add(self)
            if self.up.ended:
                self.pass_end_up()
            if self.down.over:
                self.pass_end_down()
            elif self.down.pipe is not None:
                self.client_falls_behind()
            self._after_up(MOVED)
        elif state == phases.PARTING:
            self.part()
        elif state == phases.CONNECTING and self._server >= 0 and _is_begun(self._server):
            # the first event tells how it ended
            self._began = port.seconds()
            port.young.add(self)
        else:
            self.give_up_connecting()
            if state != self._taken_up_as:
                return  # somebody else's end gave it a lease a moment ago, and it is about to connect
            if state == phases.CONNECTING:
                port.soon(self._look_up)
            elif state == phases.QUIET and (self.up.pipe is not None or port.server_first or self._job):
                self.ask()


def _is_begun(server: int) -> bool:
    """Whether this is a connection that is under way, or made, or failed with an error that nobody has heard of."""
    return state_of(server) in _BEGUN or broke(server)


def _drop(flow: Flow) -> None:
    """Its target broke: what is in the pipe did not get there."""
    flow.taken -= 0 if flow.pipe is None else flow.pipe.held
    flow.drop()
