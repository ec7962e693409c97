"""A small service that goes on by exec, for ``twistd -y``: whoever connects to its socket hears who serves it, and as what.

Its directory, ``$UPGRADABLE``, has hosts.yaml for the trial, and the socket. What it does when it hands over, ``$LAST`` says:
a signal that it sends to itself then is for the other image.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.application.service import Application, Service
from twisted.internet import reactor as chosen_reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from distbal import execing
from distbal.ledger import Ledger
from distbal.process import never_back
from distbal.upgrade import Upgrader

reactor: Any = chosen_reactor
# the directory of the start, before twistd changes it
START = execing.remember()
DIRECTORY = Path(os.environ["UPGRADABLE"]).absolute()
GENERATION = int(os.environ.pop("GENERATION", "0"))


class Telling(Protocol):
    """One connection: it hears all there is to know."""

    def __init__(self, service: Going) -> None:
        self.service = service

    def connectionMade(self) -> None:
        assert self.transport is not None
        umask = os.umask(0)
        os.umask(umask)
        said = {
            "generation": GENERATION,
            "pid": os.getpid(),
            "directory": str(Path.cwd()),
            "umask": umask,
            "hups": self.service.hups,
            "blocked": [one.name for one in signal.pthread_sigmask(signal.SIG_BLOCK, ()) if isinstance(one, signal.Signals)],
            "noted": self.service.noted,
            "trouble": self.service.trouble,
        }
        self.transport.write(json.dumps(said).encode() + b"\n")
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It has heard it."""


class Said(Factory):
    """Makes them."""

    noisy = False

    def __init__(self, service: Going) -> None:
        self.service = service

    def buildProtocol(self, addr: IAddress | None) -> Telling:
        return Telling(self.service)


class Going(Service):
    """What hands over: a listening socket."""

    def __init__(self) -> None:
        self.hups = 0
        self.noted: list[str] = []
        self.trouble = ""
        self.upgrader = Upgrader(
            reactor, self, START, str(DIRECTORY / "hosts.yaml"), by_signal=self.noted.append, tried=self._tried
        )

    def _tried(self, why: str) -> None:
        self.trouble = why

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        if descriptor := os.environ.pop("DISTBAL_HANDOVER", ""):
            self.sock = socket.socket(fileno=int(descriptor))
            self.sock.set_inheritable(False)
        else:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.bind(str(DIRECTORY / "s"))
            self.sock.listen(50)
        self.sock.setblocking(False)
        self._listen()
        signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(self._hang_up))
        self.upgrader.start()
        reactor.callWhenRunning(execing.unblock)

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        return self.upgrader.stop()

    def _listen(self) -> None:
        self.port: IListeningPort = reactor.adoptStreamPort(self.sock.fileno(), socket.AF_UNIX, Said(self))

    def _hang_up(self) -> None:
        self.hups += 1

    def copy_of_the_ledger(self) -> tuple[int, int]:
        ledger = Ledger()
        copy = os.dup(ledger.slots), os.dup(ledger.notes)
        ledger.close()
        return copy

    def prepare_to_hand_over(self) -> Deferred[None]:
        return succeed(None)

    def saved(self) -> Deferred[str]:
        return succeed("")

    def take_leave(self) -> Deferred[None]:
        return succeed(None)

    def hand_over(self) -> tuple[Mapping[str, str], Sequence[int]]:
        if GENERATION == 0 and (name := os.environ.pop("LAST", "")):
            os.kill(os.getpid(), signal.Signals[name])
        return {"DISTBAL_HANDOVER": str(self.sock.fileno()), "GENERATION": str(GENERATION + 1)}, [self.sock.fileno()]

    def go_on(self) -> None:
        """It has stopped nothing."""


never_back(reactor)
application = Application("upgradable")  # type: ignore[no-untyped-call]
Going().setServiceParent(application)  # type: ignore[no-untyped-call]
