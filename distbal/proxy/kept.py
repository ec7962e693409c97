"""Spliced sessions whose descriptors a keeper holds too, and whose accounts are always true: a killed process loses none.

Three things come in a certain order here. The keeper has a descriptor before anything is sent over it, or put into it. What a
session is about to do is in its account before the system call that does it, if it could not be told from the sockets
afterwards. And a lease is no longer in the account by the time it goes back, so that no two can have it.

A client whom the keeper does not have yet is closed by the system when this process is killed: with a reset, since an end would
look like an answer that is whole and empty. So whatever closes a client before its session relays, and has not told it the end,
resets it.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

from distbal import ledger
from distbal.keeperwire import Role
from distbal.ledger import Account, Ledger
from distbal.proxy import session as phases
from distbal.proxy.flow import ENDED, NOTHING, SOURCE_BROKE, TARGET_BROKE, Flow
from distbal.proxy.keptpipes import KeptPipe, KeptPipes, Lender
from distbal.proxy.lasting import CUT, SAID_DOWN, SAID_UP, LastingSession, Passed
from distbal.proxy.pipes import Pipe
from distbal.proxy.sockets import peek, set_abortive
from distbal.proxy.splice import available

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from distbal.lookup import Place
    from distbal.loop import HotLoop
    from distbal.proxy.port import ProxyPort
    from distbal.requests import Lease, Ticket

if available:
    _IN, _OUT, _FAILED = select.EPOLLIN, select.EPOLLOUT, select.EPOLLERR | select.EPOLLHUP

# plain numbers: to look them up in the enumeration costs as much as to use them
_CLIENT, _SERVER = int(Role.SESSION_CLIENT), int(Role.SESSION_SERVER)


class KeptFlow(Flow):
    """A direction in which no byte is ever in this process alone.

    :param accounts: where it is noted that the way to the server broke; ``offset``: the session's account there.
    """

    __slots__ = ("_accounts", "_offset")

    pipes: Lender  # type: ignore[assignment]

    def __init__(self, pipes: Lender, source: int, target: int, accounts: Ledger, offset: int) -> None:
        super().__init__(pipes, source, target)  # type: ignore[arg-type]
        self._accounts = accounts
        self._offset = offset

    def rest(self) -> int:
        # looked at, not read: what is read is in nobody's hands but ours
        try:
            data = peek(self.source)
        except BlockingIOError:
            return NOTHING
        except OSError as error:
            return self._broke(error, SOURCE_BROKE)
        if data:
            return self.move()
        self.ended = True
        return ENDED

    def _pass_a_mark(self, pipe: Pipe) -> int:
        try:
            data = peek(self.source)
        except BlockingIOError:
            return -1
        if not data:
            return 0
        assert isinstance(pipe, KeptPipe)  # noqa: S101 (for the type checker: the lender has no others)
        return self.pipes.pass_a_byte(self.source, pipe)

    def _broke(self, error: OSError, what: int) -> int:
        what = super()._broke(error, what)
        if what == (SOURCE_BROKE if self.pipes.is_down else TARGET_BROKE):
            # a socket tells it once
            self._accounts.broke(self._offset, error.errno or 0)
        return what


class KeptSession(LastingSession):
    """A session in a process that has a keeper.

    :param pipes: the keeper's, too.
    """

    __slots__ = ("_accounts", "_keeping", "_offset", "_on_its_way", "_pipes", "id")

    def __init__(self, port: ProxyPort, loop: HotLoop, pipes: KeptPipes, descriptor: int, address: str, peer_port: int) -> None:
        super().__init__(port, loop, pipes, descriptor, address, peer_port)
        self._pipes = pipes
        self._keeping = pipes.keeping
        self._accounts = pipes.keeping.ledger
        #: where its account is; 0 while it has none
        self._offset = 0
        self.id = 0
        #: the server's descriptor is not the keeper's yet
        self._on_its_way = False

    def begin(self) -> None:
        keeping = self._keeping
        set_abortive(self._client, True)
        ident = keeping.new_id()
        offset = self._accounts.enter(
            ledger.SESSION,
            ledger.QUIET,
            ident,
            listener=self.port.words,
            address=self.address,
            peer_port=self.peer_port,
        )
        self._has_account(ident, offset)
        keeping.hold(ident, _CLIENT, self._client)
        super().begin()
        if self.state == phases.OVER:
            # it could not even be watched
            self._lose_account()

    def _has_account(self, ident: int, offset: int) -> None:
        accounts, pipes, client = self._accounts, self._pipes, self._client
        self.id, self._offset = ident, offset
        self.up = KeptFlow(Lender(pipes, ident, 0), client, -1, accounts, offset)
        self.down = KeptFlow(Lender(pipes, ident, ledger.DOWN), -1, client, accounts, offset)

    def _lose_account(self) -> None:
        offset, self._offset = self._offset, 0
        if offset:
            self._accounts.leave(offset)
            self._keeping.let_go(self.id, _CLIENT)

    # -- to go on in another process

    def enter(self, accounts: Ledger, new_id: Callable[[], int]) -> list[Passed]:
        passed = self._sockets(self.id)
        for flow in (self.up, self.down):
            if isinstance(flow.pipe, KeptPipe):
                passed += flow.pipe.descriptors
        return passed

    def take_up(
        self,
        account: Account,
        server: int,
        pipes: Collection[tuple[int, Pipe]],
        broken_off: str,
        resumed: Callable[[], None],
    ) -> None:
        self._has_account(account.id, account.offset)
        super().take_up(account, server, pipes, broken_off, resumed)

    def _cannot_be_watched(self, why: str) -> None:
        self._lose_account()
        self._keeping.let_go(self.id, _SERVER)
        super()._cannot_be_watched(why)

    # -- its lease

    def ask(self) -> None:
        super().ask()
        ticket = self.ticket
        if ticket is not None:
            self._asks(ticket)
            self.port.noted(self.address)

    def _asks(self, ticket: Ticket) -> None:
        request = ticket.request
        self._accounts.asks(self._offset, ticket.id, request.job, ticket.asked, request.since)

    def granted(self, lease: Lease) -> None:
        ticket = lease.ticket
        waited = self.ticket is not None
        if not waited:
            self._asks(ticket)
        self._accounts.grant(self._offset, lease.host.spec.name, lease.granted, ledger.CONNECTING)
        if waited:
            self.port.noted(self.address)
        super().granted(lease)

    def refused(self, ticket: Ticket, reason: str) -> None:
        super().refused(ticket, reason)
        self.port.noted(self.address)

    def _leave(self, *how: object) -> None:
        waits = self.ticket is not None and self.ticket.lease is None
        super()._leave(*how)  # type: ignore[arg-type]
        if waits:
            self.port.noted(self.address)

    def between_attempts(self) -> None:
        self._accounts.set_state(self._offset, ledger.QUIET)

    # -- its server

    def connect(self, place: Place) -> None:
        super().connect(place)
        if self._server >= 0:
            self._on_its_way = True
            self._keeping.hold_instead(self.id, _SERVER, self._server, self)

    def _connected(self, events: int) -> None:
        if self._on_its_way and not events & _FAILED:
            # with all that the keeper is to have: then one message does for many, where many connect at once
            self._keeping.flush()
            if self._on_its_way:
                # the event comes again when it is watched again
                self._loop.change(self._server, self._server_events, 0)
                self._server_events = 0
                return
        super()._connected(events)

    def handed_over(self) -> None:
        """The keeper has the server's descriptor, or there is no keeper any more."""
        self._on_its_way = False
        if self._server >= 0 and not self._server_events and self.state == phases.CONNECTING:
            try:
                self._loop.change(self._server, 0, _OUT)
            except OSError as error:
                self.starved(str(error.strerror))
            else:
                self._server_events = _OUT

    def give_up_connecting(self) -> None:
        has_server = self._server >= 0
        super().give_up_connecting()
        if has_server:
            self._let_server_go()

    def _let_server_go(self) -> None:
        self._on_its_way = False
        self._keeping.let_go(self.id, _SERVER)
        self._keeping.soon()

    def relay(self) -> None:
        # first: a process that takes it up while it relays counts on it
        set_abortive(self._client, False)
        self._accounts.connected(self._offset, self._connect or 0.0)
        super().relay()

    def pass_end_up(self) -> None:
        self._accounts.mark(self._offset, SAID_UP)
        super().pass_end_up()

    def pass_end_down(self) -> None:
        self._accounts.mark(self._offset, SAID_DOWN)
        super().pass_end_down()

    # -- pipes that the keeper does not have yet

    def has_no_pipe_yet(self) -> None:
        self._pipes.wait(self)
        # nothing is read for now, from either side
        events = 0 if self.port.passes else self._client_events & ~_IN
        if events != self._client_events:
            self._loop.change(self._client, self._client_events, events)
            self._client_events = events
        if self._server_events and self.state == phases.RELAYING:
            self._loop.change(self._server, self._server_events, 0)
            self._server_events = 0

    def pipes_came(self) -> None:
        """There may be a pipe for it."""
        if self.state not in (phases.OVER, phases.PARTING):
            try:
                self._watch()
            except OSError as error:
                self.starved(str(error.strerror))

    # -- the end

    def part(self) -> None:
        self._accounts.set_state(self._offset, ledger.PARTING)
        has_server = self._server >= 0
        super().part()
        if has_server:
            self._let_server_go()

    def close(self, *, reset: bool) -> None:
        if reset:
            # whoever comes after us must not end it as if all were said
            self._accounts.mark(self._offset, CUT)
        else:
            self._lose_account()
        has_server = self._server >= 0
        try:
            super().close(reset=reset)
        finally:
            self._lose_account()
            if has_server:
                self._let_server_go()
            self._pipes.wait_no_more(self)
            self._keeping.soon()
