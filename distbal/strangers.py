"""Hang up on whoever a factory does not take, also where something stands between the connection and the factory.

A factory that gives no protocol for a connection has it closed, says Twisted, and does so itself on plain sockets. What wraps
connections (``ssl:``, ``haproxy:``) wraps the nothing too: an exception for each stranger, and a connection that stays.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol
from zope.interface import alsoProvides, implementer, providedBy


class TurnedAway(Protocol):
    """Nobody speaks to this one."""

    transport: Any  # whatever wraps it has its abortConnection

    def connectionMade(self) -> None:
        self.transport.abortConnection()


@implementer(IProtocolFactory)
class Door:
    """A factory that takes in the same as another, and hangs up on all others by itself.

    It provides what the other provides: a site says which protocols it speaks over TLS.
    """

    def __init__(self, factory: Factory) -> None:
        self._factory = factory
        alsoProvides(self, providedBy(factory))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._factory, name)

    def doStart(self) -> None:
        self._factory.doStart()  # type: ignore[no-untyped-call]

    def doStop(self) -> None:
        self._factory.doStop()  # type: ignore[no-untyped-call]

    def buildProtocol(self, addr: IAddress | None) -> IProtocol:
        return self._factory.buildProtocol(addr) or TurnedAway()
