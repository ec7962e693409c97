"""Taking in connections on a Unix socket: in batches, and patiently where descriptors run out."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from distbal import acceptor, listening
from distbal.acceptor import BATCH, Acceptor
from distbal.bounds import bounds
from tests.peers import until
from tests.ports import texts
from tests.support import LoggedErrors, descriptors_left


class Guest(Protocol):
    """Is there, until it leaves or is sent away."""

    factory: Guests

    def connectionMade(self) -> None:
        if self.factory.deaf:
            self.factory.deaf = False
            self.factory.broken.append(self)
            raise RuntimeError("a bug")
        self.factory.present.append(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self in self.factory.present:
            self.factory.present.remove(self)


class Guests(Factory):
    """Who was taken in, and is there still.

    :ivar deaf: a bug: the next one raises instead, and is in ``broken``.
    """

    noisy = False

    def __init__(self) -> None:
        self.present: list[Guest] = []
        self.broken: list[Guest] = []
        self.deaf = False

    def buildProtocol(self, addr: object) -> Protocol | None:
        guest = Guest()
        guest.factory = self
        return guest


class Inn:
    """An acceptor on a socket of its own, with the real reactor, and those who come to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.guests = Guests()
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.setblocking(False)
        self.sock.bind(str(path))
        self.sock.listen(listening.BACKLOG)
        self.acceptor = Acceptor(reactor, self.sock, self.guests)
        self.peers = ExitStack()

    def come(self) -> socket.socket:
        """A new one knocks."""
        peer = self.peers.enter_context(socket.socket(socket.AF_UNIX))
        peer.setblocking(False)
        peer.connect(str(self.path))
        return peer

    async def hosts(self, number: int) -> None:
        await until(lambda: len(self.guests.present) == number, f"{number} guests")


@pytest.fixture
def inn(tmp_path: Path) -> Iterator[Inn]:
    inn = Inn(tmp_path / "socket")
    yield inn
    inn.acceptor.stop()
    inn.peers.close()
    pytest_twisted.blockon(Deferred.fromCoroutine(inn.hosts(0)))


@pytest_twisted.ensureDeferred
async def test_everybody_is_taken_in(inn: Inn) -> None:
    for _ in range(2 * BATCH + 1):
        inn.come()
    await inn.hosts(2 * BATCH + 1)


@pytest_twisted.ensureDeferred
async def test_who_left_before_it_was_taken_in_is_no_matter(inn: Inn) -> None:
    with capturedLogs() as events:
        inn.come().close()
        inn.come()
        await inn.hosts(1)
    assert texts(events) == []


@pytest_twisted.ensureDeferred
async def test_a_bug_meets_one_alone(inn: Inn, logged_errors: LoggedErrors) -> None:
    inn.guests.deaf = True
    for _ in range(3):
        inn.come()
    await inn.hosts(2)
    (event,) = logged_errors.flush()
    assert "a bug" in str(event["log_failure"])
    # Twisted leaves it open
    inn.guests.broken[0].transport.connectionLost(connectionDone)  # type: ignore[union-attr]


@pytest.mark.parametrize("left", [0, 1], ids=["none to accept with", "none for Twisted's duplicate"])
@pytest_twisted.ensureDeferred
async def test_without_descriptors_they_wait_outside_and_nobody_spins(
    inn: Inn, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks again now and then, not at every turn of the reactor; and then those who waited are served."""
    monkeypatch.setattr(acceptor, "RETRY", 0.05)
    tries = []
    read = inn.acceptor.doRead

    def counted() -> None:
        tries.append(reactor.seconds())
        read()

    monkeypatch.setattr(inn.acceptor, "doRead", counted)
    peers = [inn.come() for _ in range(3)]
    with capturedLogs() as events, descriptors_left(left):
        await until(lambda: len(tries) == 4, "the fourth try")
        assert inn.guests.present == []
    assert tries[-1] - tries[0] >= 3 * 0.05 * 0.9, "there is a pause after each"
    assert set(texts(events)) == {"not accepting connections for now: [Errno 24] Too many open files"}
    assert bounds.hits["connections"] >= len(events) > 0
    await inn.hosts(3)
    for peer in peers:
        with pytest.raises(BlockingIOError):
            peer.recv(1)


@pytest_twisted.ensureDeferred
async def test_it_can_stop_while_it_has_no_descriptors(inn: Inn, tmp_path: Path) -> None:
    other = Inn(tmp_path / "other")
    other.come()
    with capturedLogs() as events, descriptors_left(0):
        await until(lambda: bool(texts(events)), "the complaint")
        other.acceptor.stop()
    other.peers.close()
    inn.come()
    await inn.hosts(1)
