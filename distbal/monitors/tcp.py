"""``tcp``: does distccd's port take connections? As balance-status-daemon.tcl asks, but without a line in distccd's log.

The kernel of a host answers a connect before distccd knows of it, and where the connection then ends with a reset instead of a
close, distccd is never told: it listens with TCP_DEFER_ACCEPT, and is not woken for a connection that brings no byte. A close
in order would be a client without "magic fairy dust" to it, 8,640 times a day.

For the same reason an open port proves little: a distccd that is stopped or stuck has one. ``compile`` finds these.

A connect costs some 100 us of CPU by way of Twisted's endpoints and much less by hand, and there are many.
"""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from zope.interface import implementer

from distbal.errors import MonitorTrouble
from distbal.interfaces import IHostMonitor, IHostMonitorFactory, Reading, Target
from distbal.listening import reset_at_close
from distbal.lookup import Place
from distbal.monitors.kit import MonitorKind, MonitorOptions, Surroundings, Unreachable, found, why_not_connected

_TAKES = Reading(up=True, reason="takes connections")


class TcpOptions(MonitorOptions):
    """What stands behind ``tcp`` in hosts.yaml: nothing of its own."""


@implementer(IPlugin, IHostMonitorFactory)
class TcpKind(MonitorKind):
    """Makes monitors of this kind."""

    name = "tcp"
    description = "does distccd's port take connections?"
    options = TcpOptions
    most_at_once = 500
    silence_is_down = True

    def monitor(self, target: Target, options: TcpOptions, surroundings: Surroundings) -> TcpMonitor:
        """Make a monitor of one host."""
        return TcpMonitor(target, surroundings)


@implementer(IHostMonitor)
class TcpMonitor:
    """Connects to one host, and lets go."""

    def __init__(self, target: Target, surroundings: Surroundings) -> None:
        self._address = target.host, target.port
        self._lookup = surroundings.lookup
        self._reactor = surroundings.reactor

    def check(self) -> Deferred[Reading]:
        """Connect once; of several addresses of a name, to one after the other."""
        places = self._lookup.known(self._address)
        if places is not None and len(places) == 1:
            return self._try(places[0])
        return ensureDeferred(self._try_all())

    def stop(self) -> None:
        """Nothing is kept between two checks."""

    async def _try_all(self) -> Reading:
        try:
            places = self._lookup.known(self._address) or await found(self._lookup, *self._address)
        except Unreachable as problem:
            return problem.reading()
        reading = Reading(up=False, reason="has no address")
        for place in list(places):
            try:
                reading = await self._try(place)
            except CancelledError:
                self._lookup.missed(self._address, place)  # the next check begins with another
                raise
            if reading.up:
                self._lookup.reached(self._address, place)
                break
        return reading

    def _try(self, place: Place) -> Deferred[Reading]:
        family, address = place
        try:
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError as problem:
            return fail(MonitorTrouble(f"cannot be asked by this machine: {problem.strerror}"))
        reset_at_close(sock)
        number = sock.connect_ex(address)
        if number in (errno.EINPROGRESS, 0):
            return _Connecting(sock, self._reactor).outcome
        sock.close()
        return _told(number)


def _told(number: int) -> Deferred[Reading]:
    """The reading of a connect that came to this errno; 0: it succeeded."""
    if number == 0:
        return succeed(_TAKES)
    why = why_not_connected(number)
    return succeed(why.reading()) if isinstance(why, Unreachable) else fail(why)


@implementer(IReadWriteDescriptor)
class _Connecting:
    """One connect on its way.

    :ivar outcome: fires with the reading; cancelled, it closes the socket.
    """

    def __init__(self, sock: socket.socket, reactor: Any) -> None:
        self._sock = sock
        self._reactor = reactor
        self.outcome: Deferred[Reading] = Deferred(lambda _: self._close())
        reactor.addWriter(self)

    def fileno(self) -> int:
        return self._sock.fileno()

    def logPrefix(self) -> str:
        return "distbal.monitors.tcp"

    def doWrite(self) -> None:
        number = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._close()
        if number == 0:
            self.outcome.callback(_TAKES)
        else:
            _told(number).chainDeferred(self.outcome)

    def doRead(self) -> None:
        """Never asked for."""

    def connectionLost(self, reason: Failure) -> None:
        """The reactor found the socket broken, before it said so itself, or stops."""
        if not self.outcome.called:
            number = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if self._sock.fileno() >= 0 else 0
            self._close()
            why = why_not_connected(number or None, reason.getErrorMessage())
            if isinstance(why, Unreachable) and not reason.check(ConnectionDone):  # type: ignore[no-untyped-call]
                self.outcome.callback(why.reading())
            else:
                self.outcome.errback(why)

    def _close(self) -> None:
        if self._sock.fileno() >= 0:
            self._reactor.removeWriter(self)
            self._sock.close()
