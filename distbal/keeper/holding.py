"""What is held: descriptors by their keys, and nothing of what they are but their role.

A client's connection goes by itself: the daemon shuts both its sides down before it closes it, which epoll reports to whoever
has a duplicate (EPOLLHUP); so does a reset by the client. Nobody has to say so in a packet, and nobody is woken for it: they
are looked for when there is something to do anyway (:meth:`Holdings.sweep`). Everything else is let go when the daemon says so.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
from typing import TYPE_CHECKING

from distbal.keeperwire import MANY, Role, room_within

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from distbal.keeperwire import Key

_CLIENT = int(Role.CLIENT)
#: there are a few of each, and the next daemon needs them before all else; all other roles are a crowd's
_FEW = frozenset({int(Role.LEDGER), int(Role.NOTES), int(Role.LISTENER), int(Role.LOCK)})
#: so many more than there is room for may be held of those
SPARE = 32
#: once: a connection that was closed here and is still open in the daemon would be reported for ever
_GONE = select.EPOLLHUP | select.EPOLLONESHOT
#: events of one call
_AT_ONCE = 1024


def raise_limit() -> int:
    """Let this process have as many descriptors as it may (RLIMIT_NOFILE).

    :returns: how many of them may be held.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # where even that is forbidden (a filter of system calls), it is as it is
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return room_within(soft if soft != resource.RLIM_INFINITY else MANY)


class Holdings:
    """Descriptors, each closed when it is let go.

    :param room: how many, at most; and :data:`SPARE` of those that all depends on.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self._held: dict[Key, int] = {}
        self._clients: dict[int, Key] = {}
        self._epoll = select.epoll()

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, keys: Sequence[Key], descriptors: Sequence[int]) -> int:
        """Take descriptors over; one whose key is held already takes that one's place.

        :returns: how many there was no room for: these are closed.
        """
        held, clients, register = self._held, self._clients, self._epoll.register
        refused = 0
        for key, descriptor in zip(keys, descriptors, strict=True):
            if key in held:
                self._drop(key)
            elif len(held) >= self.room + (SPARE if key[1] in _FEW else 0) and not self.sweep():
                os.close(descriptor)
                refused += 1
                continue
            held[key] = descriptor
            if key[1] == _CLIENT:
                clients[descriptor] = key
                try:
                    register(descriptor, _GONE)
                except FileExistsError:
                    # the same connection came before, and that duplicate, which had this number, is closed
                    self._epoll.modify(descriptor, _GONE)
                except OSError:
                    # epoll does not watch it, as it is no connection, say: the daemon has to let it go
                    del clients[descriptor]
        return refused

    def let_go(self, keys: Iterable[Key]) -> None:
        """Close these; a key that is not held is one that went by itself."""
        for key in keys:
            if key in self._held:
                self._drop(key)

    def sweep(self) -> int:
        """Close the clients' connections that have ended.

        :returns: how many those were.
        """
        gone, more = 0, bool(self._clients)
        while more:
            events = self._epoll.poll(0, _AT_ONCE)
            more = len(events) == _AT_ONCE
            for descriptor, event in events:
                if event & select.EPOLLHUP:
                    del self._held[self._clients.pop(descriptor)]
                    os.close(descriptor)
                    gone += 1
                else:
                    # an error that has not ended it: watched again, and looked at the next time
                    self._epoll.modify(descriptor, _GONE)
                    more = False
        return gone

    def keys(self) -> list[Key]:
        """All of them, in the order in which they came."""
        return list(self._held)

    def descriptor(self, key: Key) -> int | None:
        """The descriptor of a key; None where it is not held (any more)."""
        return self._held.get(key)

    def table(self) -> list[tuple[int, int, int]]:
        """All of it, as id, role and descriptor."""
        return [(*key, descriptor) for key, descriptor in self._held.items()]

    def clear(self) -> None:
        """Close all."""
        self.let_go(self.keys())

    def _drop(self, key: Key) -> None:
        descriptor = self._held.pop(key)
        if self._clients.pop(descriptor, None) is not None:
            # where the daemon has a duplicate, closing this one would leave it watched
            self._epoll.unregister(descriptor)
        os.close(descriptor)
