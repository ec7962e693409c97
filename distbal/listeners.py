"""What the daemon listens on: opened from the file, and changed with it.

Sockets are bound before anybody is served, so that a port in use stops the start with a sentence, and on a reload before
anything else changes. Each is then served by the hot loop where it can be, else by the reactor.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from distbal import endpointkeys, listening
from distbal.acceptor import Acceptor
from distbal.errors import ListenError
from distbal.listenspec import Listener
from distbal.logs import Logger
from distbal.loop import HotLoop
from distbal.strangers import Door

#: what anybody on this machine may use by a Unix socket; the rest changes something, and is for the owner and the group
FOR_ALL = ("balance", "status", "proxy", "web")


class Opened:
    """One place that is listened on.

    :ivar spec: what the file says.
    :ivar port: the number of its TCP port, also where the system chose it; 0 where it has none.
    :raises ListenError: it cannot be bound; the text is for the user.
    """

    log = Logger()

    def __init__(self, spec: Listener) -> None:
        self.spec = spec
        self.port = 0
        self._file: os.stat_result | None = None
        self._stop: Callable[[], object] | None = None
        self._sock: socket.socket | None = None
        if spec.at.kind == "tcp":
            relay = spec.kind == "proxy"
            deferred = relay and spec.speaks_first == "client"
            self._sock = listening.listen_tcp(spec.at.host, spec.at.port, relay=relay, deferred=deferred)
            self.port = self._sock.getsockname()[1]
        elif spec.at.kind == "unix":
            mode = listening.CLIENTS_MODE if spec.kind in FOR_ALL else listening.ADMIN_MODE
            self._sock = listening.listen_unix(spec.at.path, mode)
            self._file = Path(spec.at.path).stat()
        else:
            endpointkeys.check(spec.at.description)

    @property
    def is_socket(self) -> bool:
        """Whether there is a socket that the hot loop can serve (not so for Twisted endpoints)."""
        return self._sock is not None

    def serve_hot(self, loop: HotLoop, accepted: Callable[[int, Any], None], cost: int = 1) -> None:
        """Let the hot loop accept, and hand each connection to ``accepted``; each may take ``cost`` descriptors."""
        sock, self._sock = self._sock, None
        if sock is None:
            raise ValueError(f"{self.spec.at} has no socket of ours, or is served already")
        listener = loop.listen(sock, accepted, cost)
        self._stop = lambda: loop.stop_listening(listener)

    def serve(self, reactor: Any, factory: Factory) -> Deferred[None]:
        """Let the reactor accept, and a factory make a protocol of each connection.

        :returns: fires once it is served; fails with ListenError where a Twisted endpoint cannot listen.
        """
        sock, self._sock = self._sock, None
        if sock is not None and sock.family == socket.AF_UNIX:
            self._stop = Acceptor(reactor, sock, factory).stop
            return succeed(None)
        if sock is not None:
            # the reactor works on a duplicate of its own
            port = reactor.adoptStreamPort(sock.fileno(), sock.family, factory)
            sock.close()
            self._stop = port.stopListening
            return succeed(None)

        def listens(port: IListeningPort) -> None:
            self.port = getattr(port.getHost(), "port", 0)
            self._stop = port.stopListening

        def cannot(failure: Failure) -> None:
            # Twisted looks for a socket of systemd's in a list and in a dictionary
            absent = isinstance(failure.value, LookupError)
            why = "no such socket was handed over" if absent else failure.getErrorMessage()
            raise ListenError(f"cannot listen on {self.spec.at}: {why}") from failure.value

        return maybeDeferred(_listen, reactor, self.spec.at.description, factory).addCallbacks(listens, cannot)

    def close(self) -> Deferred[object]:
        """Listen no more. Connections that came by it stay."""
        if self._stop is not None:
            done = maybeDeferred(self._stop)
        else:
            done = succeed(None)
            if self._sock is not None:
                self._sock.close()
        self._stop = self._sock = None

        def remove(result: object) -> object:
            self._remove_file()
            return result

        return done.addBoth(remove)

    def _remove_file(self) -> None:
        """Remove a Unix socket's file, unless it is another's by now."""
        path = Path(self.spec.at.path)
        try:
            if self._file is not None and os.path.samestat(path.stat(), self._file):
                path.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            # bound by root, closed by the user of twistd --uid; the next start replaces it
            self.log.warn("{path} stays behind: {why}", path=str(path), why=error.strerror)


def open_all(specs: Iterable[Listener]) -> list[Opened]:
    """Bind all of them or, with a ListenError, none. What nobody asked for, and cannot be had, is done without."""
    opened: list[Opened] = []
    try:
        for spec in specs:
            try:
                opened.append(Opened(spec))
            except ListenError as error:
                if not spec.optional:
                    raise
                Opened.log.warn("{reason}; distbal does without it (listen.{kind})", reason=str(error), kind=spec.kind)
    except ListenError:
        for one in opened:
            one.close()
        raise
    return opened


def sort_out(opened: list[Opened], specs: Iterable[Listener]) -> tuple[list[Opened], list[Opened], list[Listener]]:
    """What a changed file means for the listeners: those that stay, those to close, and those to open."""
    wanted = list(specs)
    kept = [one for one in opened if one.spec in wanted]
    there = [one.spec for one in kept]
    return kept, [one for one in opened if one not in kept], [spec for spec in wanted if spec not in there]


def _listen(reactor: Any, description: str, factory: Factory) -> Deferred[IListeningPort]:
    endpoint: IStreamServerEndpoint = serverFromString(reactor, description)  # type: ignore[no-untyped-call]
    listens: Deferred[IListeningPort] = endpoint.listen(Door(factory))
    return listens
