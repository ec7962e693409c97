"""Whatever is written to a ledger is read again, and whatever the bytes are, they are accounts or refused in words."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distbal import ledger
from distbal.ledger import Account, Ledger, LedgerError
from tests.books import (
    as_told,
    enter_one,
    memory_file,
    opened,
    small,
    stored,
    the_same,
)
from tests.loops import open_descriptors


@pytest.fixture
def book() -> Iterator[Ledger]:
    one = Ledger()
    yield one
    one.close()


WORDS = st.text(max_size=20)
TIMES = st.floats(-1e9, 1e9)
NUMBERS = st.integers(0, 2**64 - 1)


@given(st.data())
@settings(max_examples=60)
def test_any_operations(data: st.DataObject) -> None:
    book = Ledger(*(memory_file(content) for content in small()))
    model: dict[int, dict[str, Any]] = {}
    notes: dict[str, bytes] = {}
    try:
        for _ in range(data.draw(st.integers(1, 40))):
            what = data.draw(st.sampled_from(["enter", "client", "leave", "grant", "asks", "own", "mark", "note", "again"]))
            if what == "enter":
                fields: dict[str, Any] = data.draw(
                    st.fixed_dictionaries(
                        {
                            **dict.fromkeys(("listener", "host"), WORDS),
                            **dict.fromkeys(("ticket", "job"), NUMBERS),
                            **dict.fromkeys(("asked", "granted"), TIMES),
                            **dict.fromkeys(("error", "peer_port"), st.integers(0, 65535)),
                            "since": st.none() | TIMES,
                            "address": st.text("abc.:%0", max_size=56),
                        }
                    )
                )
                kind, state, ident = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 7)), data.draw(NUMBERS)
                offset = book.enter(kind, state, ident, **fields)
                assert offset not in model
                model[offset] = fields | {"kind": kind, "state": state, "id": ident, "flags": 0}
            elif what == "client":
                host, ticket = data.draw(WORDS), data.draw(NUMBERS)
                offset = book.enter_client(book.name("l"), host, ticket, 1.0, 2.0, "::1", 9)
                assert offset not in model
                model[offset] = {
                    "kind": 1,
                    "state": 2 if host else 1,
                    "host": host,
                    "ticket": ticket,
                    "listener": "l",
                    "flags": 0,
                }
            elif what == "note":
                key, value = (
                    data.draw(st.text(max_size=8).filter(lambda text: not text.startswith("name/"))),
                    data.draw(st.binary()),
                )
                book.note(key, value)
                notes.pop(key, None)
                if value:
                    notes[key] = value
            elif what == "again":
                slots, noted = os.dup(book.slots), os.dup(book.notes)
                book.close()
                book = Ledger(slots, noted)
            elif model:
                offset = data.draw(st.sampled_from(sorted(model)))
                if what == "leave":
                    book.leave(offset)
                    del model[offset]
                elif what == "grant":
                    host, at = data.draw(WORDS), data.draw(TIMES)
                    book.grant(offset, host, at)
                    model[offset] |= {"host": host, "granted": at, "state": ledger.LEASED, "error": 0}
                elif what == "asks":
                    ticket, job = data.draw(NUMBERS), data.draw(NUMBERS)
                    book.asks(offset, ticket, job, 1.0, None)
                    model[offset] |= {"ticket": ticket, "job": job, "asked": 1.0, "since": None, "state": 1, "granted": 0.0}
                elif what == "own":
                    ticket = data.draw(NUMBERS)
                    book.own(offset, ticket, ledger.DOWN)
                    model[offset] |= {"ticket": ticket, "flags": ledger.DOWN}
                else:
                    book.mark(offset, ledger.TOLD)
                    model[offset]["flags"] |= ledger.TOLD
            accounts = {one.offset: one for one in book.accounts()}
            assert accounts.keys() == model.keys()
            for offset, fields in model.items():
                assert {name: getattr(accounts[offset], name) for name in fields} == fields
            assert {key: value for key, value in book.read_notes().items() if not key.startswith("name/")} == notes
        assert the_same(book)
    finally:
        book.close()


def read_or_refused(slots: bytes, notes: bytes) -> None:
    before = open_descriptors()
    try:
        with opened(slots, notes) as found:
            found.read_notes()
            found.accounts()
    except LedgerError:
        refused = True
    else:
        refused = False
    with suppress(LedgerError), opened(slots, notes) as found:
        wrong: list[str] = []
        found.accounts(wrong.append)
        assert bool(wrong) is refused
        found.accounts()  # what was wrong is gone
    assert open_descriptors() == before


@given(st.binary(max_size=600), st.binary(max_size=600))
def test_any_bytes_are_accounts_or_refused(slots: bytes, notes: bytes) -> None:
    read_or_refused(slots, notes)
    (good_slots, good_notes) = small()
    read_or_refused(good_slots[: ledger.SLOT] + slots, good_notes)
    noted = good_notes[:16] + (24 + len(notes)).to_bytes(8, "little") + notes
    read_or_refused(good_slots, noted)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["name/1", "name/01", "name/x", "name/-1", "name/99999999999", "name/", "name/\u0966", "a"]),
            st.binary(max_size=5),
        ),
        max_size=5,
    )
)
def test_any_notes_of_names_are_names_or_refused(entries: list[tuple[str, bytes]]) -> None:
    slots, notes = small()
    body = b"".join(struct.pack("<II", len(key.encode()), len(value)) + key.encode() + value for key, value in entries)
    read_or_refused(slots, notes[:16] + (24 + len(body)).to_bytes(8, "little") + body)


@given(st.data())
def test_any_damage_to_a_real_one_is_accounts_or_refused(data: st.DataObject) -> None:
    files = [bytearray(content) for content in stored()]
    for _ in range(data.draw(st.integers(1, 4))):
        file = data.draw(st.sampled_from(files))
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    read_or_refused(*map(bytes, files))


def test_one_damaged_account_does_not_take_the_others_along(book: Ledger) -> None:
    first, second = enter_one(book), enter_one(book)
    os.pwrite(book.slots, b"\xff", first + 1)
    with pytest.raises(LedgerError, match=r"kind 255"):
        book.accounts()
    wrong: list[str] = []
    assert [one.offset for one in book.accounts(wrong.append)] == [second]
    assert len(wrong) == 1
    assert enter_one(book) == first, "its slot is free"


@pytest.mark.parametrize("which", [0, 1])
def test_another_version_is_refused_in_words(which: int) -> None:
    files = [bytearray(content) for content in small()]
    files[which][8] = 2
    with pytest.raises(LedgerError, match=r"its layout has version 2, and this distbal knows 1"), opened(*map(bytes, files)):
        raise AssertionError


@pytest.mark.parametrize(
    ("slots", "notes"), [(b"", b""), (b"x" * 4096, b"x" * 4096), (small()[0][:30], small()[1]), (small()[0], small()[0])]
)
def test_what_is_no_ledger_is_refused(slots: bytes, notes: bytes) -> None:
    read_or_refused(slots, notes)
    with pytest.raises(LedgerError), opened(slots, notes):
        raise AssertionError


def test_what_is_refused_is_closed() -> None:
    before = open_descriptors()
    with pytest.raises(LedgerError):
        Ledger(memory_file(b""), memory_file(b""))
    with pytest.raises(OSError, match=r"Permission|Bad file"):
        Ledger(_read_only(), memory_file(small()[1]))
    assert open_descriptors() == before


def _read_only() -> int:
    """A file of the right content that cannot be written to."""
    good = memory_file(small()[0])
    try:
        return os.open(f"/proc/self/fd/{good}", os.O_RDONLY)
    finally:
        os.close(good)


def test_the_stored_example_of_version_1_is_understood() -> None:
    with opened(*stored()) as book:
        accounts = sorted((replace(one, offset=0) for one in book.accounts()), key=lambda one: (one.kind, one.id))
        notes = as_told(book)[1]
    both = ledger.HELD | ledger.TOLD
    by, first = "balance default", 1_790_000_000_000_001
    assert accounts == [
        Account(
            0,
            ledger.LEASED,
            ledger.CLIENT,
            first,
            by,
            "192.0.2.1",
            40001,
            first,
            0,
            100.25,
            100.25,
            None,
            None,
            "alpha",
            both,
            0,
        ),
        Account(
            *(0, ledger.WAITING, ledger.CLIENT, first + 1, by, "2001:db8::2", 40002, first + 1, 0),
            *(101.5, 0.0, None, None, "", ledger.HELD, 0),
        ),
        Account(
            *(0, ledger.RELAYING, ledger.SESSION, 77, "proxy default client cancel", "192.0.2.3", 40003, first + 3, first + 2),
            *(103.0, 104.0, 102.5, 0.125, "beta", 0, 0),
        ),
        Account(0, ledger.IN_USE, ledger.PIPE, 78, "", "", 0, 77, 0, 0.0, 0.0, None, None, "", ledger.DOWN, 64),
        Account(0, ledger.IN_USE, ledger.TURN, 0, "", "2001:db8::2", 0, 3, 0, 0.0, 0.0, None, None, "", 0, 0),
    ]
    assert notes == {"file": b"hosts: [alpha/2, beta]\n", "host/alpha": b'{"name":"alpha"}'}
