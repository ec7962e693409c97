"""The ledger: what is written is read again by whoever has its files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from distbal import ledger
from distbal.ledger import Account, Ledger
from tests.books import (
    enter_one,
    taken_up,
    the_same,
)
from tests.loops import open_descriptors


@pytest.fixture
def book() -> Iterator[Ledger]:
    one = Ledger()
    yield one
    one.close()


def test_an_account_is_read_as_it_was_entered(book: Ledger) -> None:
    offset = enter_one(book)
    assert book.accounts() == [
        Account(
            offset,
            *(ledger.QUIET, ledger.SESSION, 7, "proxy default client cancel", "fe80::1%eth0", 65535, 9, 8, 1.5, 2.5, 0.5, None),
            *("alpha", ledger.HELD, 111),
        )
    ]
    assert the_same(book)


def test_a_client_is_the_same_entered_either_way(book: Ledger) -> None:
    listener = book.name("balance default")
    book.enter_client(listener, "", 3, 1.0, 0.0, "10.0.0.1", 4711)
    book.enter_client(listener, "alpha", 4, 1.0, 1.5, "10.0.0.1", 4712)
    words = {"listener": "balance default", "address": "10.0.0.1", "asked": 1.0}
    book.enter(ledger.CLIENT, ledger.WAITING, 3, ticket=3, peer_port=4711, **words)  # type: ignore[arg-type]
    book.enter(ledger.CLIENT, ledger.LEASED, 4, ticket=4, peer_port=4712, host="alpha", granted=1.5, **words)  # type: ignore[arg-type]
    quick, leased, waits, has = [replace(one, offset=0) for one in book.accounts()]
    assert (quick, leased) == (waits, has)


def test_what_changes_in_an_account_and_what_does_not(book: Ledger) -> None:
    before = book.accounts, enter_one(book)
    offset = before[1]

    def now() -> Account:
        (account,) = book.accounts()
        return account

    first = now()
    book.asks(offset, 20, 21, 3.0, None)
    asks = replace(first, state=ledger.WAITING, ticket=20, job=21, asked=3.0, granted=0.0, since=None)
    assert now() == asks
    book.mark(offset, ledger.TOLD)
    book.grant(offset, "beta", 4.0)
    granted = replace(asks, state=ledger.LEASED, host="beta", granted=4.0, flags=ledger.HELD | ledger.TOLD, error=0)
    assert now() == granted
    book.set_state(offset, ledger.CONNECTING)
    book.broke(offset, 110)
    assert now() == replace(granted, state=ledger.CONNECTING, error=110)
    book.connected(offset, 0.25)
    assert now() == replace(granted, state=ledger.RELAYING, error=110, connect=0.25)
    book.leave(offset)
    assert book.accounts() == []
    assert the_same(book)


def test_a_pipe_has_an_owner_and_a_turn_its_number(book: Ledger) -> None:
    pipe = book.enter(ledger.PIPE, ledger.IN_USE, 5, error=64)
    turn = book.enter(ledger.TURN, ledger.IN_USE, 0, ticket=2**63, address="10.0.0.1")
    book.own(pipe, 7, ledger.DOWN)
    book.own(turn, 2**64 - 1)
    assert [(one.ticket, one.flags, one.error, one.address) for one in book.accounts()] == [
        (7, ledger.DOWN, 64, ""),
        (2**64 - 1, 0, 0, "10.0.0.1"),
    ]
    book.own(pipe, 0)
    assert book.accounts()[0].flags == 0
    assert the_same(book)


@pytest.mark.parametrize("address", ["a" * 56, "a" * 200, "ä" * 40, "a" + "ä" * 40, "\U0001f600" * 20, ""])
def test_a_long_address_is_cut_and_harms_no_other(book: Ledger, address: str) -> None:
    book.enter(ledger.TURN, ledger.IN_USE, 0, ticket=1, address=address)
    book.enter_client(0, "", 3, 1.0, 0.0, address, 1)
    enter_one(book)
    told = [one.address for one in book.accounts()]
    assert address.startswith(told[0])
    assert len(address.encode()) - len(told[0].encode()) < 4 or len(told[0].encode()) > 52
    assert told[1:] == [told[0], "fe80::1%eth0"]


def test_it_grows_beyond_its_first_slots_and_uses_free_ones_again(book: Ledger) -> None:
    offsets = [book.enter_client(0, f"host{number}", number, 1.0, 2.0, "::1", 1) for number in range(1, 3001)]
    assert len(set(offsets)) == 3000
    with taken_up(book.slots, book.notes) as other:
        assert sorted((one.id, one.host) for one in other.accounts()) == [
            (number, f"host{number}") for number in range(1, 3001)
        ]
    size = os.fstat(book.slots).st_size
    for offset in offsets[::2]:
        book.leave(offset)
    for number in range(1500):
        book.enter_client(0, "", 10_000 + number, 1.0, 0.0, "::1", 1)
    assert os.fstat(book.slots).st_size == size
    assert len(book.accounts()) == 3000
    assert the_same(book)


def test_who_takes_it_up_goes_on_where_the_other_stopped(book: Ledger) -> None:
    kept, gone = enter_one(book), enter_one(book)
    book.leave(gone)
    book.note("host/alpha", b"1")
    with taken_up(book.slots, book.notes) as other:
        assert other.enter(ledger.TURN, ledger.IN_USE, 0, host="gamma", address="key") != kept
        assert other.name("alpha") == book.name("alpha")
        other.note("host/beta", b"2")
        assert [one.host for one in other.accounts() if one.offset != kept] == ["gamma"]
        assert other.read_notes()["host/alpha"] == b"1"
        assert the_same(other)


def test_there_is_an_end_to_growing(book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MOST_BYTES", ledger.SLOT * 1500)
    for _ in range(1024):
        enter_one(book)
    with pytest.raises(MemoryError):
        enter_one(book)
    assert len(book.accounts()) == 1024
    monkeypatch.setattr(ledger, "MOST_BYTES", 1 << 17)
    with pytest.raises(MemoryError):
        book.note("large", b"x" * (1 << 18))
    with pytest.raises(MemoryError):
        book.name("y" * (1 << 18))
    monkeypatch.undo()
    book.leave(book.accounts()[0].offset)
    enter_one(book)
    assert the_same(book), "what found no room left nothing behind"


# -- notes


def test_the_last_note_of_a_key_holds(book: Ledger) -> None:
    book.note("a", b"1")
    book.note("b", b"2")
    book.note("a", b"3")
    book.note("c", b"4")
    book.note("b", b"")
    book.note("never", b"")
    assert book.read_notes() == {"a": b"3", "c": b"4"}
    assert the_same(book)


def test_notes_grow(book: Ledger) -> None:
    large = {f"key{number}": bytes([number]) * 50_000 for number in range(30)}
    for key, value in large.items():
        book.note(key, value)
    assert book.read_notes() == large
    assert the_same(book)


def test_notes_are_written_anew_when_most_are_stale_and_whoever_holds_them_is_told_before_the_old_ones_go() -> None:
    moves: list[tuple[int, int]] = []

    def moved() -> None:
        os.fstat(held[-1])
        held.append(book.notes)
        moves.append((book.notes, os.fstat(book.notes).st_size))
        with taken_up(book.slots, book.notes) as other:
            assert other.read_notes()["stays"] == b"s"
            assert other.accounts()[0].host == "alpha"

    book: Ledger = Ledger(moved=moved)
    first = book.notes
    held = [first]
    enter_one(book)
    book.note("stays", b"s")
    before = open_descriptors()
    number = 0
    while not moves:
        number += 1
        book.note("changes", b"%d" % number + b"x" * 10_000)
    assert book.notes != first
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(first)
    assert open_descriptors() == before
    assert book.read_notes()["changes"].startswith(b"%d" % number)
    assert the_same(book)
    sizes = set()
    for number in range(2000):
        book.note("changes", b"%d" % number + b"x" * 10_000)
        sizes.add(os.fstat(book.notes).st_size)
    assert max(sizes) <= 1 << 22, "however often something changes"
    book.close()


def test_who_is_told_that_notes_moved_may_write_some() -> None:
    def moved() -> None:
        one.name("inner")
        one.name("outer")
        one.note("inner", b"i")

    one = Ledger(moved=moved)
    while os.fstat(one.notes).st_size < 1 << 21:
        one.note("changes", b"x" * 10_000)
    old = one.notes
    number = 0
    offsets = []
    while one.notes == old:
        number += 1
        offsets.append(one.enter(ledger.TURN, ledger.IN_USE, number, host="outer" if number > 100 else "x" * number * 500))
        assert number < 1000
        one.note("changes", b"x" * 10_000)
        if number == 100:
            one.note("name/99999", b"")
    with taken_up(one.slots, one.notes) as other:
        assert len(other.accounts()) == number
        assert other.read_notes()["inner"] == b"i"
        assert {has.host for has in other.accounts()} == {has.host for has in one.accounts()}
    one.close()
