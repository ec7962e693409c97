"""Sessions whose bytes never leave the kernel: ``os.splice`` from one socket into a pipe, and from the pipe into the other.

Everything happens in the hot loop (loop.py), on events that are level-triggered: one event moves what a pipe holds and no more,
so each session gets its share however much one of them sends. A :class:`Flow` is one direction. While its target takes all, it
borrows a pipe for the time of two system calls. When the target is full, the rest stays in the pipe, and the source is not
listened to until the target has taken it: that is the back-pressure.

Which events a socket is watched for follows from the two flows and is worked out in one place, :meth:`SpliceSession._watch`. A
socket that nothing is wanted of is not watched at all, since the kernel would report an error on it for ever.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from typing import TYPE_CHECKING

from distbal import listening, loop
from distbal.descriptors import STARVED
from distbal.loop import HotLoop
from distbal.outcomes import Outcome
from distbal.proxy import flow
from distbal.proxy.flow import BLOCKED, ENDED, MOVED, SOURCE_BROKE, TARGET_BROKE, Flow
from distbal.proxy.pipes import NotYetError, Pipes, StarvedError
from distbal.proxy.session import OVER, PARTING, QUIET, RELAYING, WAITING, Session, why_unreachable
from distbal.proxy.sockets import SocketType, broke, can_write, end_writing, error_of, in_flight, socket_of

if TYPE_CHECKING:
    from distbal.lookup import Place
    from distbal.proxy.port import ProxyPort

available = flow.available and loop.available
"""Whether this machine has what this module needs (Linux has)."""

#: descriptors that a session may have at once: its client, its server, a pipe each way
COST = 6
#: bytes of a client that has been told all which are read and dropped, in the hope that it closes
MOST_DROPPED = 1 << 26
_SINK = 1 << 14

if available:
    _IN, _OUT, _LEFT = select.EPOLLIN, select.EPOLLOUT, select.EPOLLRDHUP
    _ERROR, _HUP = select.EPOLLERR, select.EPOLLHUP
    #: never happens, but to watch for it is to hear of errors
    _ERRORS_ONLY = select.EPOLLMSG
    #: the peer has left, in whatever way
    _GONE = _LEFT | _ERROR | _HUP
    #: the peer said something, or is done
    _SAYS = _IN | _GONE

#: not the host's fault, but this machine's (the last: no more descriptors may be watched)
_OURS = STARVED | {errno.ENOSPC}


class SpliceSession(Session):
    """A session in the hot loop.

    :param descriptor: the client's socket, ours from now on.
    """

    __slots__ = (
        "_client",
        "_client_events",
        "_dropped",
        "_gone",
        "_loop",
        "_server",
        "_server_events",
        "down",
        "up",
    )

    def __init__(self, port: ProxyPort, loop: HotLoop, pipes: Pipes, descriptor: int, address: str, peer_port: int) -> None:
        super().__init__(port, address, peer_port)
        self._loop = loop
        self._client, self._client_events = descriptor, _IN | _LEFT
        self._server, self._server_events = -1, 0
        #: events that say that the client has left: where ends are passed on, to end one side is not enough
        self._gone = _ERROR | _HUP if port.passes else _GONE
        self._dropped = 0
        #: client to server, and back
        self.up = Flow(pipes, descriptor, -1)
        self.down = Flow(pipes, -1, descriptor)

    def begin(self) -> None:
        """The client is here."""
        os.set_blocking(self._client, False)
        if self.port.passes:
            # that it ended its side is told by reading; an event for it would come again and again
            self._client_events = _IN
        try:
            self._loop.add(self._client, self._client_events, self)
        except OSError as error:
            self.state = OVER
            self.port.cuts_off(self, str(error.strerror))
            return
        self._loop.reserve(COST)
        if self.port.server_first:
            self.ask()
            return
        try:
            # a listener that defers (TCP_DEFER_ACCEPT) brings clients whose first bytes have come
            self._first_bytes()
        except StarvedError as error:
            self.starved(str(error))
        except NotYetError:
            self.has_no_pipe_yet()

    # -- events

    def ready(self, descriptor: int, events: int) -> None:
        try:
            if descriptor == self._client:
                self._client_ready(events)
            else:
                self._server_ready(events)
        except StarvedError as error:
            self.starved(str(error))
        except NotYetError:
            self.has_no_pipe_yet()

    def has_no_pipe_yet(self) -> None:
        """Bytes are to be moved, and the pipe for them comes in a moment; those that there are plain do not do that."""
        raise NotImplementedError

    def stop(self) -> None:
        # an answer that is cut short must not look like a whole one
        in_mid_answer, self.state = self.state == RELAYING, OVER
        self.close(reset=in_mid_answer)

    def _client_ready(self, events: int) -> None:
        state = self.state
        if state == RELAYING:
            if events & self._gone:
                self._client_gone(events)
                return
            if events & _OUT:
                self._give_down()
            if events & (_IN | _HUP) and self.up.wants and self.state == RELAYING:
                result = self.up.move()
                if result != MOVED:
                    self._after_up(result)
        elif state == PARTING:
            self._part()
        elif events & self._gone:
            self._client_gone(events)
        elif state == QUIET:
            self._first_bytes()
        else:
            self._more_bytes()

    def _server_ready(self, events: int) -> None:
        if self.state != RELAYING:
            self._connected(events)
            return
        if self.down.over and events & (_ERROR | _HUP):
            # it had said all; what is still said to it is for nobody
            self._after_up(TARGET_BROKE)
            return
        if events & _OUT:
            self._after_up(self.up.give())
        if events & _SAYS and self.down.wants and self.state == RELAYING:
            result = self.down.move()
            if result == MOVED and events & _LEFT:
                # most servers close right after the answer: then its end is here already
                result = self.down.rest()
            if result != MOVED:
                self._after_down(result)

    # -- before the relay

    def _first_bytes(self) -> None:
        result = self.up.take()
        if result == MOVED:
            self.ask()
        elif result == ENDED:
            self.end(Outcome.CLOSED)
        elif result == SOURCE_BROKE:
            self._client_gone(_ERROR, self.up.error)

    def _more_bytes(self) -> None:
        """What comes while it waits goes into the pipe, as far as that has room."""
        result = self.up.take()
        if result == SOURCE_BROKE:
            self._client_gone(_ERROR, self.up.error)
            return
        if self.state == WAITING:
            self.settle()
        if not self.up.wants:
            self._watch()

    def _client_gone(self, events: int, error: OSError | None = None) -> None:
        outcome = Outcome.CLOSED
        if events & _ERROR:
            number = error_of(self._client) if error is None else error.errno
            outcome = Outcome.VANISHED if number == errno.ETIMEDOUT else Outcome.RESET
        # what came of the answer was enough for it, as far as anybody can know
        self.client_left(Outcome.ANSWERED if self.state == RELAYING and self.down.taken else outcome)

    def settle(self) -> None:
        if self.up.pipe is not None:
            self.port.pipes.shrink(self.up.pipe)

    # -- connecting

    def connect(self, place: Place) -> None:
        family, address = place
        try:
            sock = SocketType(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            self._cannot_connect(error)
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.up.taken:
            # there is something to send: the handshake's last packet can carry it, and a packet less is a tenth of a small job
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        error_number = sock.connect_ex(address)
        if error_number not in (0, errno.EINPROGRESS):
            sock.close()
            self._cannot_connect(OSError(error_number, os.strerror(error_number)))
            return
        descriptor = sock.detach()
        try:
            self._loop.add(descriptor, _OUT, self)
        except OSError as error:
            self._cannot_connect(error)
            return
        self._server, self._server_events = descriptor, _OUT

    def _cannot_connect(self, error: OSError) -> None:
        if error.errno in _OURS:
            self.starved(str(error.strerror))
        else:
            # not at once: a farm of hosts that all fail at once would be as many calls deep
            self.port.clock.callLater(0, self._still_cannot, self.lease, error.errno)

    def _still_cannot(self, lease: object, error_number: int) -> None:
        if self.lease is lease and self._server < 0:
            self._missed(error_number)

    def _missed(self, error_number: int) -> None:
        if error_number == errno.ECONNREFUSED:
            self.missed(Outcome.REFUSED, "refused the connection")
        elif error_number == errno.ETIMEDOUT:
            self.missed(Outcome.TIMED_OUT, "did not answer")
        else:
            self.missed(Outcome.UNREACHABLE, why_unreachable(error_number))

    def _connected(self, events: int) -> None:
        """Connected, or not: it is told by the first event."""
        if not events & (_ERROR | _HUP):
            self.reached()
        else:
            error_number = error_of(self._server)
            self.give_up_connecting()
            self._missed(error_number)

    def is_decided(self) -> bool:
        return self._server >= 0 and can_write(self._server)

    def keep_alive(self) -> None:
        if self._server >= 0:
            sock = socket_of(self._server)
            try:
                listening.keep_alive(sock, relay=True)
            except OSError:
                return  # it is gone already, which the next event tells
            finally:
                sock.detach()

    def give_up_connecting(self) -> None:
        if self._server >= 0:
            # the server may have it already: where ends are passed on, this must not look as if nothing were all
            self._loop.close(self._server, self._server_events, reset=self.port.passes)
            self._server, self._server_events = -1, 0

    # -- the relay

    def relay(self) -> None:
        self.up.target = self.down.source = self._server
        self._after_up(self.up.give())

    def _after_up(self, result: int) -> None:
        """Something was moved from client to server."""
        up = self.up
        if result == SOURCE_BROKE:
            self._client_gone(_ERROR, up.error)
            return
        if result == TARGET_BROKE:
            # what it answered before that is still to be had
            up.taken -= up.pipe.held if up.pipe is not None else 0
            up.drop()
        elif up.ended and up.pipe is None and not up.over:
            up.over = True
            self.pass_end_up()
        if up.over and self.down.over:
            self.server_done(client_ended=self.up.ended)
        else:
            self._watch()

    def _after_down(self, result: int) -> None:
        """Something other than "all moved" came of moving from server to client."""
        down = self.down
        if result == TARGET_BROKE:
            self._client_gone(_ERROR, down.error)
        elif result == SOURCE_BROKE and down.error is not None:
            self.server_broke(str(down.error.strerror), reset=isinstance(down.error, ConnectionError))
        elif result == ENDED and self.up.error is not None and self.up.error.errno != errno.EPIPE:
            # its connection broke: that was told to whoever wrote (EPIPE: it had closed before), and this is no clean end
            self.server_broke(str(self.up.error.strerror), reset=isinstance(self.up.error, ConnectionError))
        elif result == ENDED and (self.up.over or not self.port.passes):
            self.server_done(client_ended=self.up.ended)
        else:
            if result == ENDED:
                down.over = True
                # both of its sides are ended when it has ended its own, and that is what a hang-up is
                self._gone &= ~_HUP
                self.pass_end_down()
            elif result == BLOCKED and self._stalled_at < 0:
                self.client_falls_behind()
            self._watch()

    def pass_end_up(self) -> None:
        """The client has said all, and the server has it."""
        end_writing(self._server)

    def pass_end_down(self) -> None:
        """The server has said all, and the client has it."""
        end_writing(self._client)

    def _give_down(self) -> None:
        """The client has room again."""
        down = self.down
        if down.give() == TARGET_BROKE:
            self._client_gone(_ERROR, down.error)
        else:
            self._watch()

    def stalled(self) -> None:
        if self.down.pipe is None:
            # it has caught up, and is not watched for room
            self._stalled_at = -1
        else:
            super().stalled()

    def delivered(self) -> int:
        down = self.down
        return down.taken - (0 if down.pipe is None else down.pipe.held) - in_flight(self._client)

    def _watch(self) -> None:
        """Watch both sides for what their flows want."""
        up, down = self.up, self.down
        events = 0 if self.port.passes else _LEFT
        if up.wants:
            events |= _IN
        if down.pipe is not None:
            events |= _OUT
        if not events and not down.over:
            events = _ERRORS_ONLY
        if events != self._client_events:
            self._loop.change(self._client, self._client_events, events)
            self._client_events = events
            if not events:
                self.port.unheard.add(self)
        if self._server >= 0 and self.state == RELAYING:
            events = _IN | _LEFT if down.wants else 0
            if up.pipe is not None:
                events |= _OUT
            if not events and down.over:
                events = _ERRORS_ONLY
            if events != self._server_events:
                self._loop.change(self._server, self._server_events, events)
                self._server_events = events

    def listen_in(self) -> None:
        # both of its sides may be ended, in order, and of that an event would come for ever
        if self.state != RELAYING or self._client_events:
            return
        if broke(self._client):
            self._client_gone(_ERROR)
        else:
            self.port.unheard.add(self)

    # -- the end

    def part(self) -> None:
        end_writing(self._client)
        self.up.drop()
        if self._server >= 0:
            self._loop.close(self._server, self._server_events)
            self._server, self._server_events = -1, 0
        events = _IN if self.port.passes else _IN | _LEFT
        if events != self._client_events:
            self._loop.change(self._client, self._client_events, events)
            self._client_events = events
        self.port.parting.add(self)

    def _part(self) -> None:
        """The client has been told all: what it says now is dropped, until it closes."""
        try:
            data = os.read(self._client, _SINK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._dropped += len(data)
        if not data or self._dropped > MOST_DROPPED:
            self.end(Outcome.ANSWERED)

    def moved(self) -> tuple[int, int]:
        up = self.up
        sent = up.taken - (0 if up.pipe is None else up.pipe.held)
        return sent if up.target >= 0 else 0, self.down.taken

    def close(self, *, reset: bool) -> None:
        if self._server >= 0:
            # where an end says that this was all, a client that broke off must not look as if it had said all
            broke_off = self.port.passes and not self.up.over
            self._loop.close(self._server, self._server_events, reset=broke_off)
            self._server = -1
        self.up.drop()
        self.down.drop()
        self._loop.close(self._client, self._client_events, reset=reset)
        self._loop.reserve(-COST)
