"""Ledgers for tests: their files, how somebody else finds them, and the stored example of each version."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distbal import ledger
from distbal.ledger import Account, Ledger

#: files of the layout's version 1, as :func:`write_example` once wrote them: whatever comes later has to read these
EXAMPLES = Path(__file__).parent / "ledgers"


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


def small() -> tuple[bytes, bytes]:
    """A ledger without room to spare."""
    head = struct.Struct("<8sIIQ")
    slots = head.pack(b"distbal\n", 1, ledger.SLOT, ledger.SLOT).ljust(2 * ledger.SLOT, b"\0")
    return slots, head.pack(b"distbal\n", 1, head.size, head.size).ljust(64, b"\0")


def write_example() -> None:
    """How the example was made: by the code that had version 1, with little room at first. It is never made again."""
    book = Ledger(*(memory_file(content) for content in small()))
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
