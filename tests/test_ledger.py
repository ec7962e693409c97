"""The ledger: what is written is read again, at whatever instruction the writer ended, and whatever the bytes are."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distbal import ledger
from distbal.ledger import Account, Ledger, LedgerError
from tests.loops import open_descriptors

#: files of the layout's version 1, as :func:`write_example` once wrote them: whatever comes later has to read these
EXAMPLES = Path(__file__).parent / "ledgers"


@pytest.fixture
def book() -> Iterator[Ledger]:
    one = Ledger()
    yield one
    one.close()


def memory_file(content: bytes) -> int:
    descriptor = os.memfd_create("test")
    os.write(descriptor, content)
    return descriptor


def content_of(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


@contextmanager
def taken_up(slots: int, notes: int) -> Iterator[Ledger]:
    """The two files, as somebody else finds them."""
    other = Ledger(os.dup(slots), os.dup(notes))
    try:
        yield other
    finally:
        other.close()


@contextmanager
def opened(slots: bytes, notes: bytes) -> Iterator[Ledger]:
    other = Ledger(memory_file(slots), memory_file(notes))
    try:
        yield other
    finally:
        other.close()


def as_told(book: Ledger) -> tuple[list[Account], dict[str, bytes]]:
    """All that it says, but for how its names are numbered."""
    return book.accounts(), {key: value for key, value in book.read_notes().items() if not key.startswith("name/")}


def the_same(book: Ledger) -> bool:
    """Whether somebody else finds in it what its writer does."""
    with taken_up(book.slots, book.notes) as other:
        return as_told(other) == as_told(book)


# -- records


def enter_one(book: Ledger) -> int:
    return book.enter(
        ledger.SESSION,
        ledger.QUIET,
        7,
        listener="proxy default client cancel",
        host="alpha",
        flags=ledger.HELD,
        error=111,
        ticket=9,
        job=8,
        asked=1.5,
        granted=2.5,
        since=0.5,
        address="fe80::1%eth0",
        peer_port=65535,
    )


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


# -- the writer ends at any instruction


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


# -- whatever is written, and whatever there is to be read

WORDS = st.text(max_size=20)
TIMES = st.floats(-1e9, 1e9)
NUMBERS = st.integers(0, 2**64 - 1)


@given(st.data())
@settings(max_examples=60)
def test_any_operations(data: st.DataObject) -> None:
    book = Ledger(*(memory_file(content) for content in _small()))
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


def _small() -> tuple[bytes, bytes]:
    """A ledger without room to spare."""
    head = struct.Struct("<8sIIQ")
    slots = head.pack(b"distbal\n", 1, ledger.SLOT, ledger.SLOT).ljust(2 * ledger.SLOT, b"\0")
    return slots, head.pack(b"distbal\n", 1, head.size, head.size).ljust(64, b"\0")


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
    (good_slots, good_notes) = _small()
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
    slots, notes = _small()
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
    files = [bytearray(content) for content in _small()]
    files[which][8] = 2
    with pytest.raises(LedgerError, match=r"its layout has version 2, and this distbal knows 1"), opened(*map(bytes, files)):
        raise AssertionError


@pytest.mark.parametrize(
    ("slots", "notes"), [(b"", b""), (b"x" * 4096, b"x" * 4096), (_small()[0][:30], _small()[1]), (_small()[0], _small()[0])]
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
        Ledger(_read_only(), memory_file(_small()[1]))
    assert open_descriptors() == before


def _read_only() -> int:
    """A file of the right content that cannot be written to."""
    good = memory_file(_small()[0])
    try:
        return os.open(f"/proc/self/fd/{good}", os.O_RDONLY)
    finally:
        os.close(good)


# -- the stored example of version 1


def write_example() -> None:
    """How the example was made: by the code that had version 1, with little room at first. It is never made again."""
    book = Ledger(*(memory_file(content) for content in _small()))
    book.note("file", b"hosts: [alpha/2, beta]\n")
    book.note("host/alpha", b"old")
    listener = book.name("balance default")
    told = book.enter_client(listener, "alpha", 1_790_000_000_000_001, 100.25, 100.25, "192.0.2.1", 40001)
    book.mark(told, ledger.HELD | ledger.TOLD)
    waits = book.enter_client(listener, "", 1_790_000_000_000_002, 101.5, 0.0, "2001:db8::2", 40002)
    book.mark(waits, ledger.HELD)
    left = book.enter_client(listener, "", 1_790_000_000_000_003, 102.0, 0.0, "", 0)
    book.leave(left)
    book.enter(ledger.TURN, ledger.IN_USE, 0, ticket=3, address="2001:db8::2")
    session = book.enter(
        *(ledger.SESSION, ledger.QUIET, 77), listener="proxy default client cancel", address="192.0.2.3", peer_port=40003
    )
    book.asks(session, 1_790_000_000_000_004, 1_790_000_000_000_003, 103.0, 102.5)
    book.grant(session, "beta", 104.0, ledger.CONNECTING)
    book.connected(session, 0.125)
    book.own(book.enter(ledger.PIPE, ledger.IN_USE, 78, error=64), 77, ledger.DOWN)
    book.note("host/alpha", b'{"name":"alpha"}')
    book.note("gone", b"")
    for name, descriptor in (("slots", book.slots), ("notes", book.notes)):
        (EXAMPLES / f"version-1.{name}").write_bytes(content_of(descriptor))
    book.close()


def stored() -> tuple[bytes, bytes]:
    return (EXAMPLES / "version-1.slots").read_bytes(), (EXAMPLES / "version-1.notes").read_bytes()


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
