"""The whole service with a keeper that the test plays: what it is told from the first word to the last."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from distbal import __version__, descriptors, inheritance, keeperwire, ledger
from distbal.execing import UpgradeError
from distbal.handover import FILE_NOTE, LOST_NOTE
from distbal.keeperwire import Beat, Hello, Journal, Keeper, Ready, Role, Stopping
from distbal.ledger import Ledger
from distbal.listeners import words
from tests.services import LISTEN, Balancer, Lines, balancer, leave, make, until
from tests.support import LoggedErrors, alone

KEEPER = Keeper(__version__, 17, 0, "", 1.8e9)
TEXT = f"hosts: [alpha/1]\n{LISTEN}"


class Played:
    """The keeper's end: what it heard, and what it holds."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.setblocking(False)
        self.heard: list[Any] = []
        self.held: dict[keeperwire.Key, int] = {}

    def hear(self) -> list[Any]:
        while True:
            try:
                packet, descriptors, _, _ = socket.recv_fds(self._sock, keeperwire.MAX_PACKET, keeperwire.MAX_DESCRIPTORS)
            except (BlockingIOError, OSError):
                return self.heard
            if not packet:
                return self.heard
            said = keeperwire.from_daemon(packet)
            self.heard.append(said)
            if isinstance(said, Journal):
                for key, descriptor in zip(said.held, descriptors, strict=True):
                    self._drop(key)
                    self.held[key] = descriptor
                for key in said.let_go:
                    self._drop(key)

    def of(self, role: Role) -> list[int]:
        self.hear()
        return [descriptor for key, descriptor in self.held.items() if key[1] == role]

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        self.hear()
        book = Ledger(os.dup(self.held[0, Role.LEDGER]), os.dup(self.held[0, Role.NOTES]))
        try:
            yield book
        finally:
            book.close()

    def hang_up(self) -> None:
        self._sock.close()

    def close(self) -> None:
        for key in list(self.held):
            self._drop(key)
        self._sock.close()

    def _drop(self, key: keeperwire.Key) -> None:
        descriptor = self.held.pop(key, -1)
        if descriptor >= 0:
            os.close(descriptor)


def accounts(keeper: Played) -> list[ledger.Account]:
    with keeper.ledger() as book:
        return book.accounts()


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> Iterator[Played]:
    """It has nothing to give."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    monkeypatch.setenv(keeperwire.VARIABLE, str(theirs.detach()))
    ours.send(keeperwire.end(KEEPER))
    played = Played(ours)
    yield played
    played.close()


@pytest_twisted.ensureDeferred
async def test_what_it_hears_from_the_first_word_to_the_last(tmp_path: Path, keeper: Played) -> None:
    async with balancer(tmp_path, TEXT) as one:
        assert keeperwire.VARIABLE not in os.environ
        first = await one.client()
        await first.hears(b"alpha\r\n")
        second = await one.client(waits_behind=0)
        await until(lambda: Beat() in keeper.hear() and len(keeper.of(Role.CLIENT)) == 2, "two clients, and a beat")
        opened = one.service.serving.opened
        assert len(keeper.of(Role.LISTENER)) == len(opened)
        with keeper.ledger() as book:
            notes = book.read_notes()
            assert sorted(value.decode() for key, value in notes.items() if key.startswith("listener/")) == sorted(
                words(each.spec) for each in opened
            )
            assert notes[FILE_NOTE].decode() == one.file.read_text()
            assert len([each for each in book.accounts() if each.address == "127.0.0.1" and each.ticket]) >= 2
        assert await one.reload(f"hosts: [alpha/1, beta/1]\n{LISTEN.replace('status', 'proxy')}")
        await until(lambda: len(keeper.of(Role.LISTENER)) == len(one.service.serving.opened))
        with keeper.ledger() as book:
            assert book.read_notes()[FILE_NOTE].decode() == one.file.read_text()
            noted = [value.decode().split()[3] for key, value in book.read_notes().items() if key.startswith("listener/")]
            assert sorted(noted) == sorted(each.spec.kind for each in one.service.serving.opened)
        await second.hears(b"beta\r\n")
        await leave(one, first, second)
        await until(lambda: not [each for each in accounts(keeper) if each.kind == ledger.CLIENT])
    heard = keeper.hear()
    assert heard[0] == Hello(__version__, os.getpid(), "start", True)
    assert heard[1].held[:2] == [(0, Role.LEDGER), (0, Role.NOTES)] or (0, Role.LEDGER) in heard[1].held
    assert Ready(__version__, "serves 1 hosts") in heard
    assert heard[-1] == Stopping()


@pytest_twisted.ensureDeferred
async def test_who_was_lost_is_told_of_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that found it out was killed before it could say so."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    monkeypatch.setenv(keeperwire.VARIABLE, str(theirs.detach()))
    book = Ledger()
    book.note(LOST_NOTE, b"3")
    keys: list[keeperwire.Key] = [(0, Role.LEDGER), (0, Role.NOTES)]
    socket.send_fds(ours, [keeperwire.give(keys)], [book.slots, book.notes])
    book.close()
    ours.send(keeperwire.end(KEEPER))
    keeper = Played(ours)
    with Lines() as lines:
        async with balancer(tmp_path, TEXT) as one:
            assert "taken up: 0 leases, 0 waiters and 0 sessions; 3 that had just come were lost" in lines
            assert one.service.succession.came.lost == 3
            keeping = one.service.succession._keeping
            assert keeping is not None
            assert LOST_NOTE not in keeping.ledger.read_notes()
    keeper.close()


@pytest_twisted.ensureDeferred
async def test_a_keeper_that_ends_while_the_daemon_starts_is_done_without(
    tmp_path: Path, keeper: Played, logged_errors: LoggedErrors
) -> None:
    file = tmp_path / "hosts.yaml"
    file.write_text(alone(TEXT))
    service = make(file)
    keeper.hang_up()
    service.startService()
    client = await Balancer(file, service).client()
    await client.hears(b"alpha\r\n")
    await leave(Balancer(file, service), client)
    await service.stopService()
    (event,) = logged_errors.flush()
    assert event["log_format"].startswith("the keeper is gone")


def test_a_keeper_that_ends_before_it_gave_anything_is_told_of_and_nothing_starts(tmp_path: Path, keeper: Played) -> None:
    keeper.hang_up()
    file = tmp_path / "hosts.yaml"
    file.write_text(alone(TEXT))
    with pytest.raises(SystemExit, match=r"what the process before left cannot be taken up: .*Broken pipe"):
        make(file)


@pytest_twisted.ensureDeferred
async def test_a_keeper_that_ends_while_it_serves_is_done_without(
    tmp_path: Path, keeper: Played, logged_errors: LoggedErrors
) -> None:
    async with balancer(tmp_path, TEXT) as one:
        first = await one.client()
        await first.hears(b"alpha\r\n")
        keeper.hang_up()
        second = await one.client(waits_behind=0)
        await first.leave()
        await second.hears(b"alpha\r\n")
        variables, _ = one.service.succession.hand_over()
        table = json.loads(os.pread(int(next(iter(variables.values()))), 1 << 20, 0))
        keeping = one.service.succession._keeping
        assert keeping is not None
        # what is closed is closed by that: its keeper is dead
        assert (table["channel"], table["alone"], table["frozen"]) == (-1, keeping.alone, False)
        one.service.succession.go_on()
        await leave(one, second)
    assert len(logged_errors.flush()) == 1


@pytest_twisted.ensureDeferred
async def test_after_an_upgrade_without_a_keeper_that_may_only_be_frozen_accounts_are_true_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors
) -> None:
    """It has the ledger, and would give it to who comes after a crash."""
    book = Ledger()
    duplicates = os.dup(book.slots), os.dup(book.notes)
    given = {(0, int(Role.LEDGER)): book.slots, (0, int(Role.NOTES)): book.notes}
    monkeypatch.setenv(
        inheritance.HANDOVER, str(inheritance.table(given, -1, 0.0, "it has taken nothing for 5 s", frozen=True))
    )
    async with balancer(tmp_path, TEXT) as one:
        client = await one.client()
        await client.hears(b"alpha\r\n")
        kept = Ledger(*duplicates)
        (account,) = kept.accounts()
        assert (account.state, account.host, account.flags) == (ledger.LEASED, "alpha", ledger.HELD | ledger.TOLD)
        keeping = one.service.succession._keeping
        assert keeping is not None
        assert (keeping.report()["gone"], keeping.lets_nothing_go) == ("it has taken nothing for 5 s", True)
        await leave(one, client)
        assert kept.accounts() == []
        kept.close()
        book._slots.close()
        book._notes.close()
    assert logged_errors.flush() == []


def test_no_more_are_taken_in_than_the_keeper_holds(tmp_path: Path, keeper: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others would be lost by a crash; in the listening socket's queue they are not."""
    limit = 640
    monkeypatch.setattr(descriptors, "raise_limit", lambda: limit)
    file = tmp_path / "hosts.yaml"
    file.write_text(alone(TEXT))
    service = make(file)
    assert service._room == keeperwire.room_within(limit) < descriptors.room_for_clients(limit)
    service.startService()
    service.stopService()


@pytest_twisted.ensureDeferred
async def test_an_upgrade_does_not_come_about_while_the_keeper_takes_nothing(tmp_path: Path, keeper: Played) -> None:
    """The next image would believe that the keeper has what it was never handed."""
    async with balancer(tmp_path, TEXT) as one:
        await until(lambda: Ready(__version__, "serves 1 hosts") in keeper.hear())
        channel = one.service._keeping._channel  # type: ignore[union-attr]
        with suppress(BlockingIOError):
            while True:
                channel.send(keeperwire.BEAT)
        first = await one.client()
        await until(lambda: one.service.leases.scheduler.lent == 1)
        with pytest.raises(UpgradeError, match="the keeper takes nothing"):
            one.service.succession.hand_over()
        one.service.succession.go_on()
        await until(lambda: len(keeper.of(Role.CLIENT)) == 1)
        await first.hears(b"alpha\r\n")
        await leave(one, first)
