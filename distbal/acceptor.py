"""Accepts connections for the reactor on a Unix socket, in the few ways in which Twisted's own port will not do.

Twisted opens the socket's file to everybody, closes nothing when somebody has removed it, and wants more rights to it than a
daemon has that gave up root's. And when descriptors run out, it accepts and closes: here those who come wait in the kernel's
queue until there is one again.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from distbal.bugs import bugs
from distbal.complaints import Complaints
from distbal.descriptors import STARVED
from distbal.logs import Logger

#: connections that are taken in before others have their turn
BATCH = 16
#: seconds after which accepting is tried again when it failed
RETRY = 1.0


@implementer(IReadDescriptor)
class Acceptor:
    """Takes connections in, and lets a factory make a protocol of each.

    :param reactor: has adoptStreamConnection, timers and readers.
    :param sock: listens, and does not block; ours to close from now on.
    """

    log = Logger()

    def __init__(self, reactor: Any, sock: socket.socket, factory: Factory) -> None:
        self._reactor = reactor
        self._sock = sock
        self._factory = factory
        self._complain = Complaints(self.log, reactor.seconds, bound="connections")
        self._retry: IDelayedCall | None = None
        self._next: socket.socket | None = None  # accepted, and not taken in yet
        factory.doStart()  # type: ignore[no-untyped-call]
        reactor.addReader(self)

    def stop(self) -> None:
        """Listen no more."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._reactor.removeReader(self)
        self._sock.close()
        if self._next is not None:
            self._next.close()
        self._factory.doStop()  # type: ignore[no-untyped-call]

    def pause(self, paused: bool) -> None:
        """Let those who connect wait, or take them in again."""
        (self._reactor.removeReader if paused else self._reactor.addReader)(self)

    def fileno(self) -> int:
        return self._sock.fileno()

    def logPrefix(self) -> str:
        return "acceptor"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops; :meth:`stop` closes what there is."""

    def doRead(self) -> None:
        """Take in those who wait, a batch at most."""
        try:
            for _ in range(BATCH):
                if self._next is None:
                    self._next = self._sock.accept()[0]
                self._adopt(self._next)
                self._next.close()
                self._next = None
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            # out of descriptors or memory: to ask again at once would not help
            self._complain("not accepting connections for now: {reason}", reason=str(error))
            self._reactor.removeReader(self)
            self._retry = self._reactor.callLater(RETRY, self._resume)

    def _adopt(self, connection: socket.socket) -> None:
        try:
            # Twisted works on a duplicate of its own; where there is no descriptor for that, this one is next again
            self._reactor.adoptStreamConnection(connection.fileno(), connection.family, self._factory)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in STARVED:
                raise
            # a bug met one newcomer: the others must be taken in
            bugs.met("connection", self.log, "a connection could not be taken in")

    def _resume(self) -> None:
        self._retry = None
        self._reactor.addReader(self)
