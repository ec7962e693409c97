"""What the daemon listens on: opened from the file, and changed with it.

Sockets are bound before anybody is served, so that a port in use stops the start with a sentence, and on a reload before
anything else changes. Each is then served by the hot loop where it can be, else by the reactor. A socket that an earlier
process listened on is taken over as it is: those who connected meanwhile wait in it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from twisted.internet import tcp
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from distbal import endpointkeys, listening
from distbal.acceptor import Acceptor
from distbal.errors import ListenError
from distbal.listenspec import KINDS, Listener, parse
from distbal.logs import Logger
from distbal.loop import HotLoop
from distbal.strangers import Door

#: words of what a listening socket is, those of its place, and characters of them all in a sentence
_WORDS, _PLACE, _MOST_SAID = 7, 3, 200
#: what anybody on this machine may use by a Unix socket; the rest changes something, and is for the owner and the group
FOR_ALL = ("balance", "status", "proxy", "web")


class Opened:
    """One place that is listened on.

    :param sock: listens there already; ours from now on.

    :ivar spec: what the file says.
    :ivar port: the number of its TCP port, also where the system chose it; 0 where it has none.
    :ivar ident: by which a keeper knows it; 0 where there is none. ``closed``: called when it is listened on no more.
    :raises ListenError: it cannot be bound; the text is for the user.
    """

    log = Logger()

    def __init__(self, spec: Listener, sock: socket.socket | None = None) -> None:
        self.spec = spec
        self.port = 0
        self.ident = 0
        self.closed: Callable[[], None] | None = None
        self._file: os.stat_result | None = None
        self._stop: Callable[[], object] | None = None
        self._sock = sock
        self._is_served = False
        self._port: IListeningPort | None = None
        self._acceptor: Acceptor | None = None
        if spec.at.kind == "tcp":
            if self._sock is None:
                relay, deferred = _carries(spec)
                self._sock = listening.listen_tcp(spec.at.host, spec.at.port, relay=relay, deferred=deferred)
            self.port = self._sock.getsockname()[1]
        elif spec.at.kind == "unix":
            if self._sock is None:
                self._sock = listening.listen_unix(spec.at.path, _mode(spec))
            self._file = _stat(spec.at.path)
        else:
            endpointkeys.check(spec.at.description)

    @property
    def is_socket(self) -> bool:
        """Whether there is a socket to be served, by the hot loop if need be (not so for Twisted endpoints)."""
        return self._sock is not None and not self._is_served

    @property
    def descriptor(self) -> int:
        """The listening socket's, to be handed to another process; -1 for a Twisted endpoint's."""
        return -1 if self._sock is None else self._sock.fileno()

    def serve_hot(self, loop: HotLoop, accepted: Callable[[int, Any], None], cost: int = 1) -> None:
        """Let the hot loop accept, and hand each connection to ``accepted``; each may take ``cost`` descriptors."""
        sock = self._sock
        if sock is None or self._is_served:
            raise ValueError(f"{self.spec.at} has no socket of ours, or is served already")
        self._is_served = True
        listener = loop.listen(sock, accepted, cost)
        self._stop = lambda: loop.stop_listening(listener)

    def serve(self, reactor: Any, factory: Factory) -> Deferred[None]:
        """Let the reactor accept, and a factory make a protocol of each connection.

        :returns: fires once it is served; fails with ListenError where a Twisted endpoint cannot listen.
        """
        sock = self._sock
        if sock is not None:
            self._is_served = True
        if sock is not None and sock.family == socket.AF_UNIX:
            self._acceptor = Acceptor(reactor, sock, factory)
            self._stop = self._acceptor.stop
            return succeed(None)
        if sock is not None:
            # the reactor works on a duplicate of its own; ours is there to be handed on
            self._port = port = reactor.adoptStreamPort(sock.fileno(), sock.family, factory)
            self._stop = port.stopListening
            return succeed(None)

        def listens(port: IListeningPort) -> None:
            self._port = port
            self.port = getattr(port.getHost(), "port", 0)
            self._stop = port.stopListening

        def cannot(failure: Failure) -> None:
            # Twisted looks for a socket of systemd's in a list and in a dictionary
            absent = isinstance(failure.value, LookupError)
            why = "no such socket was handed over" if absent else failure.getErrorMessage()
            raise ListenError(f"cannot listen on {self.spec.at}: {why}") from failure.value

        return maybeDeferred(_listen, reactor, self.spec.at.description, factory).addCallbacks(listens, cannot)

    def pause(self, paused: bool) -> None:
        """Let those who connect wait, or take them in again; of one that the hot loop serves nothing changes."""
        port = self._port
        if isinstance(port, tcp.Port):
            (port.stopReading if paused else port.startReading)()
        elif self._acceptor is not None:
            self._acceptor.pause(paused)

    def release(self) -> socket.socket:
        """Listen no more, though somebody goes on with the socket, which is the caller's; whoever waits in it waits on.

        For one that the hot loop serves, or that is not served yet. A keeper holds it still: ``closed`` is for the caller to
        call, as soon as it holds what comes in the place of this.
        """
        sock = self._sock
        if sock is None or self._port is not None or self._acceptor is not None:
            raise ValueError(f"{self.spec.at} has no socket that could be released")
        # socket.dup() would let one that an earlier process made non-blocking block again
        released = socket.fromfd(sock.fileno(), sock.family, sock.type)
        if self._stop is not None:
            self._stop()
        sock.close()
        self._stop = self._sock = None
        return released

    def close(self) -> Deferred[object]:
        """Listen no more. Connections that came by it stay."""
        if self.closed is not None and self._sock is not None:
            stop_listening(self._sock)
        if self._stop is not None:
            done = maybeDeferred(self._stop)
        else:
            done = succeed(None)
        if self.closed is not None:
            self.closed()
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


def words(spec: Listener) -> str:
    """What a listening socket is, in words that outlive the process; the first three say what it takes to be the same."""
    mode = "-" if spec.at.kind != "unix" else f"{_mode(spec):o}"
    relay, deferred = _carries(spec)
    return f"{spec.at} {relay:d}{deferred:d} {mode} {spec.kind} {spec.pool} {spec.speaks_first} {spec.half_close}"


def spec_of(said: str) -> Listener:
    """The listener that these :func:`words` are of; ValueError where they are none that this version says."""
    parts = _parts(said)
    if len(parts) != _WORDS:
        raise ValueError(f"no listener is {said[:_MOST_SAID]!r}")
    at, _, _, kind, pool, speaks_first, half_close = parts
    spec = Listener(kind, parse(int(at) if at.isascii() and at.isdecimal() else at), pool, speaks_first, half_close)
    if kind not in KINDS or words(spec) != said:
        raise ValueError(f"no listener is {said[:_MOST_SAID]!r}")
    return spec


def _parts(said: str) -> list[str]:
    """What :func:`words` are made of; a path may have spaces."""
    return said.rsplit(" ", 6)


def stop_listening(sock: socket.socket) -> None:
    """Let it take in nobody any more, whoever else has a duplicate; those who wait in it see a reset."""
    with contextlib.suppress(OSError):  # it listens on nothing: so be it
        sock.shutdown(socket.SHUT_RDWR)


class Left:
    """Listening sockets that an earlier process left.

    :param sockets: each with its :func:`words`; the sockets are this object's.
    """

    def __init__(self, sockets: Iterable[tuple[str, socket.socket]] = ()) -> None:
        self._sockets = list(sockets)

    def opened(self) -> list[Opened]:
        """All of them, as they were; ValueError where what one is cannot be understood, and then nothing has changed."""
        specs = [spec_of(said) for said, _ in self._sockets]
        sockets, self._sockets = self._sockets, []
        return [Opened(spec, sock) for spec, (_, sock) in zip(specs, sockets, strict=True)]

    def sort(self, specs: Iterable[Listener]) -> dict[int, socket.socket]:
        """Those that the file still wants, by the place of what it wants; they are the caller's from now on.

        The others are closed, so that their places can be listened on in another way.
        """
        found: dict[int, socket.socket] = {}
        # one whose file is gone is found by nobody any more
        wanted = {place: spec for place, spec in enumerate(specs) if not _has_lost_its_file(spec)}
        # what is the same in everything comes before what lends another pool now
        for depth in (_WORDS, _PLACE):
            for place, spec in wanted.items():
                if place not in found:
                    self._find(_parts(words(spec))[:depth], depth, place, found)
        self.close()
        return found

    def close(self) -> None:
        """Nobody wants the rest; their places are free at once, though a keeper may have a duplicate still."""
        for _, sock in self._sockets:
            stop_listening(sock)
            sock.close()
        self._sockets = []

    def _find(self, head: list[str], depth: int, place: int, found: dict[int, socket.socket]) -> None:
        for one in self._sockets:
            if _parts(one[0])[:depth] == head:
                self._sockets.remove(one)
                found[place] = one[1]
                return


def open_all(specs: Iterable[Listener], left: Left | None = None, *, leniently: bool = False) -> list[Opened]:
    """Bind all of them or, with a ListenError, none. What nobody asked for, and cannot be had, is done without.

    :param left: those that an earlier process left are used first; what of them is not wanted is closed.
    :param leniently: do without all that cannot be had: jobs of an earlier process are to go on.
    """
    specs = list(specs)
    there = {} if left is None else left.sort(specs)
    opened: list[Opened] = []
    try:
        for place, spec in enumerate(specs):
            try:
                opened.append(Opened(spec, there.pop(place, None)))
            except ListenError as error:
                if not (spec.optional or leniently):
                    raise
                log = Opened.log.warn if spec.optional else Opened.log.error
                log("{reason}; distbal does without it (listen.{kind})", reason=str(error), kind=spec.kind)
    except ListenError:
        for one in opened:
            one.close()
        for sock in there.values():
            sock.close()
        raise
    return opened


def sort_out(opened: list[Opened], specs: Iterable[Listener]) -> tuple[list[Opened], list[Opened], list[Listener]]:
    """What a changed file means for the listeners: those that stay, those to close, and those to open."""
    wanted = list(specs)
    kept = [one for one in opened if one.spec in wanted]
    there = [one.spec for one in kept]
    return kept, [one for one in opened if one not in kept], [spec for spec in wanted if spec not in there]


def same_place(one: Listener, other: Listener) -> bool:
    """Whether the socket of one could be the other's."""
    return _parts(words(one))[:_PLACE] == _parts(words(other))[:_PLACE]


def _carries(spec: Listener) -> tuple[bool, bool]:
    """Whether its connections carry more than a line, and whether the system may keep them until they have said something."""
    relay = spec.kind == "proxy"
    return relay, relay and spec.speaks_first == "client"


def _mode(spec: Listener) -> int:
    return listening.CLIENTS_MODE if spec.kind in FOR_ALL else listening.ADMIN_MODE


def _has_lost_its_file(spec: Listener) -> bool:
    return spec.at.kind == "unix" and _stat(spec.at.path) is None


def _stat(path: str) -> os.stat_result | None:
    try:
        return Path(path).stat()
    except FileNotFoundError:
        # somebody removed it while no process was there; those who have it open are served all the same
        return None


def _listen(reactor: Any, description: str, factory: Factory) -> Deferred[IListeningPort]:
    endpoint: IStreamServerEndpoint = serverFromString(reactor, description)  # type: ignore[no-untyped-call]
    listens: Deferred[IListeningPort] = endpoint.listen(Door(factory))
    return listens
