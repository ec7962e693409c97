"""The hot path's sockets: accept, watch, end. An epoll of our own, which the reactor polls as if it were one socket.

Twenty thousand clients that hold their connections while they compile cost Twisted a transport, a protocol and several
dictionaries each; what they need is one thing: that someone notices when they leave. So their sockets are watched here, by a
thin object each, and the reactor (any reactor: an epoll descriptor can be polled itself) sees a single descriptor. At most
:data:`BATCH` events are served before the reactor has its turn again, so that a crowd that leaves at once stalls nobody.

A socket of which more is wanted than its end (a proxied session has two) is *watched*: its owner says for which events, and
hears of each. Events are level-triggered, so that one that is not served to its end comes again, behind the others.

:meth:`HotLoop.end` and :meth:`HotLoop.close` are the places that close a connection: they take it out of the epoll first, since
an epoll keeps reporting a descriptor that lives on in another process; and where a keeper has a duplicate (keeping.py) they
shut it down for the peer before. No new descriptor is made while the events of one batch
are served (:meth:`HotLoop.soon`): it could have the number of one that has just been closed and still has an event to come.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReactorTime, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from distbal import listening
from distbal.bugs import bugs
from distbal.closing import shut_and_close
from distbal.complaints import Complaints
from distbal.logs import Logger
from distbal.outcomes import Outcome

if TYPE_CHECKING:
    from distbal.keeping import Keeping

#: events served in one turn of the reactor: some 4 ms of work
BATCH = 128
#: what an event of a watched socket counts for in a batch: one can move a megabyte
WATCHED = 4
#: seconds after which accepting is tried again when no descriptor of ours became free meanwhile
RETRY_ACCEPT = 1.0
#: seconds within which accepting stops again because of the same shortage, which is told once, however long it lasts
ONE_SHORTAGE = 60.0
#: connections that one listener takes in before others have their turn
MOST_ACCEPTED = 64
#: what clients send is read and ignored, this many bytes at a time
_SINK = 4096

#: the connection was gone before we could accept it, or the network broke under it: accept(2) says to go on
_ALREADY_GONE = frozenset(
    getattr(errno, name)
    for name in (
        *("ECONNABORTED", "EPROTO", "ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN", "ENONET"),
        *("EHOSTUNREACH", "EOPNOTSUPP", "ENETUNREACH", "EPERM", "EINTR"),
    )
    if hasattr(errno, name)
)

_LEAVING = select.EPOLLIN | select.EPOLLRDHUP if hasattr(select, "epoll") else 0

available = hasattr(select, "epoll")
"""Whether this machine has what this module needs (Linux has)."""


class Connection:
    """A peer whose leaving is all that we wait for.

    Its socket is a bare descriptor: at 20,000 clients a socket object each is memory and time for nothing. The descriptor is
    blocking, and only ever read after an event and written once, when its buffer is empty.

    Subclasses have the ``descriptor``, and say what its end means in :meth:`left`.
    """

    __slots__ = ()

    descriptor: int

    def left(self, outcome: Outcome) -> None:
        """The peer closed, half-closed, was reset, or stopped answering. Must lead to :meth:`HotLoop.end`."""
        raise NotImplementedError


class Watcher(Protocol):
    """The owner of sockets that are watched for more than their end."""

    def ready(self, descriptor: int, events: int) -> None:
        """Something that was asked for, or an error, happened on a socket; ``events`` are epoll's."""

    def fail(self) -> None:
        """A bug met you: end what you have, and give back what you were lent. Must not raise."""

    def stop(self) -> None:
        """Everything ends: close what you have, without a word to anybody."""


class Listener:
    """A listening socket, and what to do with those who come.

    :param accepted: called with each new descriptor, which is then the callee's to watch or to close, and the peer's address as
        ``accept`` gave it.
    :param cost: descriptors that each one who comes may take.
    """

    __slots__ = ("_accept", "_batch", "_loop", "_turn", "accepted", "cost", "sock")

    def __init__(self, loop: HotLoop, sock: socket.socket, accepted: Callable[[int, Any], None], cost: int) -> None:
        self.sock = sock
        self.accepted = accepted
        self.cost = cost
        self._loop = loop
        self._batch = 1
        self._turn = 0
        # what socket.accept is made of, less the socket object; CPython has had it since 3.2
        self._accept: Callable[[], tuple[int, Any]] = getattr(sock, "_accept", self._accept_and_detach)

    def _accept_and_detach(self) -> tuple[int, Any]:
        sock, address = self.sock.accept()
        return sock.detach(), address

    def ready(self, turn: int) -> int:
        """Take in those who wait; how many came.

        How many at a time is learnt: one call more than there are connections costs as much as a connection, so more than one
        is tried only when we are ready in several turns of the loop running.
        """
        accept, accepted, loop = self._accept, self.accepted, self._loop
        batch = min(2 * self._batch, MOST_ACCEPTED) if turn == self._turn + 1 else 1
        self._turn = turn
        free = loop.free() // self.cost
        if not free:
            loop.pause(self, "there are as many clients as its descriptors allow")
            return 0
        taken = 0
        for _ in range(min(batch, free)):
            try:
                descriptor, address = accept()
            except BlockingIOError:
                batch = max(1, taken)
                break
            except OSError as error:
                if error.errno in _ALREADY_GONE:
                    continue
                # out of descriptors or memory; whatever else it is, to ask again at once would not help
                loop.pause(self, str(error))
                break
            taken += 1
            try:
                accepted(descriptor, address)
            except Exception:  # noqa: BLE001 (a bug met one newcomer: the others must be taken in)
                loop.turn_out(descriptor)
        self._batch = batch
        return taken


@implementer(IReadDescriptor)
class HotLoop:
    """The epoll, and who is in it.

    :param reactor: polls us.
    :param room: how many connections to hold at most: beyond that the listeners wait until one ends. Leaves some descriptors
        for everything else (log files, the status port, a reload).
    :param keeping: who is to hold what we have, in case this process ends; None for nobody.
    """

    def __init__(self, reactor: IReactorFDSet, clock: IReactorTime, room: int, keeping: Keeping | None = None) -> None:
        self.room = room
        self.keeping = keeping
        self._close = os.close if keeping is None else shut_and_close
        self.log = Logger()
        self.complain = Complaints(self.log, clock.seconds)
        self._reactor = reactor
        self._clock = clock
        self._epoll = select.epoll()
        self._poll = self._epoll.poll
        self._register = self._epoll.register
        self._modify = self._epoll.modify
        self._unregister = self._epoll.unregister
        self._connections: dict[int, Connection] = {}
        self._watched: dict[int, Watcher] = {}
        #: descriptors that the owners of watched sockets may come to need
        self._reserved = 0
        self._serving = False
        self._later: list[Callable[[], None]] = []
        self._listeners: dict[int, Listener] = {}
        self._paused: list[Listener] = []
        self._turn = 0
        self._retry: IDelayedCall | None = None
        #: when accepting was last stopped
        self._short_at = -math.inf
        reactor.addReader(self)

    # -- listeners

    def listen(self, sock: socket.socket, accepted: Callable[[int, Any], None], cost: int = 1) -> Listener:
        """Serve a listening, non-blocking socket, which is then ours to close; see :class:`Listener`."""
        listener = Listener(self, sock, accepted, cost)
        self._listeners[sock.fileno()] = listener
        self._watch_listener(listener)
        return listener

    def stop_listening(self, listener: Listener) -> None:
        """Close a listening socket; connections that came by it stay."""
        if listener in self._paused:
            self._paused.remove(listener)
        else:
            self._epoll.unregister(listener.sock.fileno())
        del self._listeners[listener.sock.fileno()]
        listener.sock.close()

    def free(self) -> int:
        """How many more descriptors there is room for."""
        return max(0, self.room - len(self._connections) - self._reserved)

    def pause(self, listener: Listener, reason: str) -> None:
        """Stop accepting, until a connection ends or a moment has passed: a listener that cannot accept would spin."""
        now = self._clock.seconds()
        if now - self._short_at > ONE_SHORTAGE:
            self.complain("not accepting more clients for now: {reason}", reason=reason)
        self._short_at = now
        self._epoll.unregister(listener.sock.fileno())
        self._paused.append(listener)
        if self._retry is None:
            self._retry = self._clock.callLater(RETRY_ACCEPT, self._resume)

    def _resume(self) -> None:
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        self._retry = None
        paused, self._paused = self._paused, []
        for listener in paused:
            try:
                self._watch_listener(listener)
            except OSError as error:
                # no memory, or fs.epoll.max_user_watches: whoever ended a connection, or this timer, has no use for that
                self.complain("not accepting more clients for now: {reason}", reason=str(error))
                self._paused.append(listener)
        if self._paused:
            self._retry = self._clock.callLater(RETRY_ACCEPT, self._resume)

    def _watch_listener(self, listener: Listener) -> None:
        self._epoll.register(listener.sock.fileno(), select.EPOLLIN)

    # -- connections

    def watch(self, connection: Connection) -> None:
        """From now on ``connection.left`` is called when its peer leaves."""
        descriptor = connection.descriptor
        # first: it can fail (no memory, fs.epoll.max_user_watches), and then the connection is not ours
        self._register(descriptor, _LEAVING)
        self._connections[descriptor] = connection

    def end(self, connection: Connection) -> None:
        """Close a connection; nothing happens when it is closed already. The only place that does."""
        descriptor = connection.descriptor
        if self._connections.get(descriptor) is connection:
            del self._connections[descriptor]
            self._unregister(descriptor)
            self._close(descriptor)
            if self._paused:
                self._resume()

    # -- watched sockets

    def reserve(self, descriptors: int) -> None:
        """Somebody may come to need so many descriptors; a negative number gives them back."""
        self._reserved += descriptors
        if descriptors < 0 and self._paused:
            self._resume()

    def add(self, descriptor: int, events: int, watcher: Watcher) -> None:
        """Watch a socket, which does not block and is ours to close from now on: also when this raises, it is closed."""
        try:
            self._register(descriptor, events)
        except OSError:
            os.close(descriptor)
            raise
        self._watched[descriptor] = watcher

    def change(self, descriptor: int, before: int, events: int) -> None:
        """Watch it for other events than before. For none it is not watched at all: even an error would come for ever."""
        if not events:
            self._unregister(descriptor)
        elif not before:
            self._register(descriptor, events)
        else:
            self._modify(descriptor, events)

    def close(self, descriptor: int, events: int, *, reset: bool = False) -> None:
        """Close a watched socket.

        :param events: what it is watched for.
        :param reset: let the peer see that what it has is not all.
        """
        del self._watched[descriptor]
        if events:
            self._unregister(descriptor)
        if reset:
            # where a keeper has it too, it is reset when that lets go, as it is told to in a moment
            with contextlib.suppress(OSError), socket.socket(fileno=descriptor) as sock:
                listening.reset_at_close(sock)
                if self.keeping is not None and self.keeping.lets_nothing_go:
                    # an end that looks like one in order is better than none
                    sock.shutdown(socket.SHUT_RDWR)
        else:
            self._close(descriptor)

    def soon(self, call: Callable[[], None]) -> None:
        """Call it, as soon as new descriptors may be made."""
        if self._serving:
            self._later.append(call)
        else:
            call()

    # -- another process goes on

    @property
    def connections(self) -> list[Connection]:
        """Those whose leaving is waited for."""
        return list(self._connections.values())

    @property
    def watchers(self) -> list[Watcher]:
        """The owners of watched sockets."""
        return list(dict.fromkeys(self._watched.values()))

    def pause_all(self) -> None:
        """Serve nothing for now: what happens is found when it is gone on."""
        self._reactor.removeReader(self)

    def go_on(self) -> None:
        """Serve again."""
        self._reactor.addReader(self)

    # -- in need

    def turn_out(self, descriptor: int) -> None:
        """End a newcomer that a bug met while it was taken in."""
        bugs.met("connection", self.log, "a connection could not be taken in; it is closed")
        connection = self._connections.get(descriptor)
        if connection is not None:
            self._leave(connection, Outcome.CUT_OFF)
            self.end(connection)
        elif descriptor in self._watched:
            self._fail(self._watched[descriptor])
        else:
            with contextlib.suppress(OSError):  # it was closed before the bug showed
                os.close(descriptor)

    def stop(self) -> None:
        """Close everything, without a word to anybody."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._reactor.removeReader(self)
        for listener in list(self._listeners.values()):
            self.stop_listening(listener)
        for descriptor in self._connections:
            self._close(descriptor)
        self._connections.clear()
        for watcher in dict.fromkeys(self._watched.values()):
            watcher.stop()
        self._epoll.close()

    # -- for the reactor

    def fileno(self) -> int:
        return self._epoll.fileno()

    def logPrefix(self) -> str:
        return "hot loop"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops; :meth:`stop` closes what there is."""

    def doRead(self) -> None:
        """Serve what has happened, at most a batch of it.

        We look again before the reactor does: a look costs 1 us, a turn of the reactor ten.
        """
        served = 0
        try:
            while served < BATCH and (events := self._poll(0, BATCH - served)):
                served += self._serve(events)
            if self.keeping is not None:
                self.keeping.flush()
        except Exception:  # noqa: BLE001 (the reactor would let go of us, and nobody would be served any more)
            self._serving = False
            bugs.met("connection", self.log, "a turn of the hot loop met a bug; the next one comes")

    # -- the inside

    def _serve(self, events: list[tuple[int, int]]) -> int:
        """Serve these events; how much work that was: each of them, and each connection that came."""
        self._turn += 1
        connections, watched = self._connections, self._watched
        listeners = None
        work = len(events)
        self._serving = True
        for descriptor, what in events:
            connection = connections.get(descriptor)
            if connection is None:
                watcher = watched.get(descriptor)
                if watcher is not None:
                    try:
                        watcher.ready(descriptor, what)
                    except Exception:  # noqa: BLE001 (a bug in one session must not end the others)
                        bugs.met("session", self.log, "a session met a bug; it is ended")
                        self._fail(watcher)
                    work += WATCHED - 1
                    continue
                # accepted last, so that no new connection takes the number of one that still has an event in this batch
                listeners = [*listeners, descriptor] if listeners else [descriptor]
                continue
            try:
                # most events are an end; what else comes is dropped
                outcome = None if os.read(descriptor, _SINK) else Outcome.CLOSED
            except TimeoutError:
                outcome = Outcome.VANISHED
            except OSError:
                outcome = Outcome.RESET
            if outcome is not None:
                self._leave(connection, outcome)
        self._serving = False
        if self._later:
            self._call_later()
        return work + self._accept(listeners) if listeners else work

    def _fail(self, watcher: Watcher) -> None:
        try:
            watcher.fail()
        except Exception:  # noqa: BLE001 (the same)
            bugs.met("session", self.log, "a session that met a bug could not be ended")

    def _call_later(self) -> None:
        calls, self._later = self._later, []
        for call in calls:
            try:
                call()
            except Exception:  # noqa: BLE001 (the same)
                bugs.met("session", self.log, "something that was put off could not be done")

    def _accept(self, descriptors: list[int]) -> int:
        taken = 0
        for descriptor in descriptors:
            listener = self._listeners.get(descriptor)
            # none: the connection was ended by another one's event in this batch
            if listener is not None:
                try:
                    taken += listener.ready(self._turn)
                except Exception:  # noqa: BLE001 (the same)
                    bugs.met("connection", self.log, "a connection could not be taken in")
        return taken

    def _leave(self, connection: Connection, outcome: Outcome) -> None:
        try:
            connection.left(outcome)
        except Exception:  # noqa: BLE001 (a bug in one connection must not end the others)
            bugs.met("connection", self.log, "a connection's end could not be handled; it is closed")
            self.end(connection)
