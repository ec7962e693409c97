"""The writer of a ledger ends at any store: what is found is what was before, or what comes after."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from distbal import ledger
from distbal.ledger import Account, Ledger
from tests.books import (
    as_told,
    content_of,
    opened,
)


class Films:
    """Both files as whoever holds them would find them, after each store."""

    def __init__(self) -> None:
        self.book: Ledger | None = None
        self.held_notes = -1
        self.frames: list[tuple[bytes, bytes]] = []

    def take(self) -> None:
        if self.book is not None:
            self.frames.append((content_of(self.book.slots), content_of(self.held_notes)))

    def moved(self) -> None:
        assert self.book is not None
        self.take()
        self.hold()
        self.take()

    def hold(self) -> None:
        assert self.book is not None
        if self.held_notes >= 0:
            os.close(self.held_notes)
        self.held_notes = os.dup(self.book.notes)


@pytest.fixture
def films(monkeypatch: pytest.MonkeyPatch) -> Iterator[Films]:
    """Lets every store be seen, at the lowest level: bytes, slices in halves, and pack_into as CPython does it.

    That clears what it is about to write and then writes it. Eight bytes at once that are aligned are one store.
    """
    films = Films()
    plain: Callable[[mmap.mmap, Any, Any], None] = mmap.mmap.__setitem__

    class Memory(mmap.mmap):
        def __setitem__(self, where: Any, value: Any) -> None:
            size = where.stop - where.start if isinstance(where, slice) else 1
            if size > 8 or (size > 1 and where.start % size):
                middle = (where.start + where.stop) // 2
                plain(self, slice(where.start, middle), value[: middle - where.start])
                films.take()
            plain(self, where, value)
            films.take()

    class Torn:
        def __init__(self, real: struct.Struct) -> None:
            self.size = real.size
            self.pack, self.unpack_from, self._real = real.pack, real.unpack_from, real

        def pack_into(self, memory: mmap.mmap, offset: int, *values: Any) -> None:
            data = self._real.pack(*values)
            for done in sorted(at for at in {0, 1, 4, 8, len(data) // 2, len(data)} if at <= len(data)):
                written = data[:done] + bytes(len(data) - done)
                plain(memory, slice(offset, offset + len(data)), written)
                films.take()
            plain(memory, slice(offset, offset + len(data)), data)

    monkeypatch.setattr(mmap, "mmap", Memory)
    for name, value in vars(ledger).copy().items():
        if isinstance(value, struct.Struct):
            monkeypatch.setattr(ledger, name, Torn(value))
    monkeypatch.setattr(ledger, "_FIRST_SLOTS", 3)
    monkeypatch.setattr(ledger, "_FIRST_NOTES", 256)
    monkeypatch.setattr(ledger, "_SLACK", 300)
    yield films
    os.close(films.held_notes)


def meant(account: Account) -> Account:
    """An account without what means nothing in its state."""
    if account.state not in (ledger.LEASED, ledger.CONNECTING, ledger.RELAYING) and account.kind in (
        ledger.CLIENT,
        ledger.SESSION,
    ):
        account = replace(account, host="", granted=0.0, connect=None)
    if account.kind == ledger.SESSION and account.state == ledger.WAITING:
        account = replace(account, error=0)
    if account.state == ledger.QUIET:
        account = replace(account, ticket=0, job=0, asked=0.0, since=None)
    if account.state != ledger.RELAYING:
        account = replace(account, connect=None)
    if account.kind == ledger.PIPE and not account.ticket:
        account = replace(account, flags=0)
    return account


def test_a_writer_that_ends_at_any_store_leaves_what_was_before_or_what_comes_after(films: Films) -> None:
    book = films.book = Ledger(moved=films.moved)
    films.hold()
    where: dict[str, int] = {}

    def enter(name: str, *words: int, **more: Any) -> Callable[[], None]:
        return lambda: where.update({name: book.enter(*words, **more)})

    def client(name: str, *words: Any) -> Callable[[], None]:
        return lambda: where.update({name: book.enter_client(book.name("balance default"), *words)})

    steps: list[Callable[[], object]] = [
        client("waiter", "", 3, 1.0, 0.0, "10.0.0.1", 1),
        lambda: book.mark(where["waiter"], ledger.HELD),
        enter("turn", ledger.TURN, ledger.IN_USE, 0, ticket=5, address="10.0.0.1"),
        lambda: book.own(where["turn"], 6),
        lambda: book.grant(where["waiter"], "alpha", 2.0),
        lambda: book.mark(where["waiter"], ledger.TOLD),
        lambda: book.note("host/alpha", b"a" * 50),
        enter("session", ledger.SESSION, ledger.QUIET, 9, listener="proxy default client cancel", address="::1"),
        enter("pipe", ledger.PIPE, ledger.IN_USE, 10, error=64),
        lambda: book.own(where["pipe"], 9, ledger.DOWN),
        lambda: book.asks(where["session"], 11, 12, 3.0, 2.5),
        lambda: book.grant(where["session"], "beta", 4.0, ledger.CONNECTING),
        lambda: book.broke(where["session"], 0x0101),
        lambda: book.broke(where["session"], 0x006F),
        lambda: book.set_state(where["session"], ledger.QUIET),
        lambda: book.asks(where["session"], 13, 12, 5.0, 2.5),
        lambda: book.grant(where["session"], "gamma", 6.0, ledger.CONNECTING),
        lambda: book.connected(where["session"], 0.5),
        lambda: book.set_state(where["session"], ledger.PARTING),
        lambda: book.note("host/alpha", b"b" * 51),
        lambda: book.note("host/beta", b"c" * 300),
        lambda: book.note("host/alpha", b""),
        lambda: book.own(where["pipe"], 0),
        lambda: book.leave(where["waiter"]),
        client("leased", "gamma", 14, 7.0, 7.0, "10.0.0.2", 2),
        *(lambda: book.note("host/beta", b"d" * 300) for _ in range(8)),
        lambda: book.leave(where["turn"]),
        lambda: book.leave(where["session"]),
    ]
    moves = {book.notes}
    frames = 0
    for number, step in enumerate(steps):
        before = as_told(book)
        films.frames = []
        step()
        after = as_told(book)
        frames += len(films.frames)
        moves.add(os.fstat(book.notes).st_ino)
        for slots, notes in films.frames:
            with opened(slots, notes) as found:
                accounts, noted = as_told(found)
            assert noted in (before[1], after[1]), number
            assert list(map(meant, accounts)) in [list(map(meant, before[0])), list(map(meant, after[0]))], number
    assert frames > 200
    assert len(moves) > 2, "the notes were written anew"
    book.close()
