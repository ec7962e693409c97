"""How a ledger is laid out (ledger.py), and how it is read: as strictly as what a stranger may have written.

Slots are records of one size; notes are entries, one behind the other. A file of another version, or one that is none, is
refused in words.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass

#: of this layout
VERSION = 1
MAGIC = b"distbal\n"
HEAD = struct.Struct("<8sIIQ")

#: kinds of records
CLIENT, SESSION, PIPE, TURN = 1, 2, 3, 4
#: states: of a client WAITING or LEASED, of a session any but LEASED, of the others IN_USE; 0 is a free slot
FREE, WAITING, LEASED, QUIET, CONNECTING, RELAYING, PARTING, IN_USE = range(8)
#: flags: the client was sent its grant; the keeper has the descriptor; of a pipe: it carries what the server says
TOLD, HELD, DOWN = 1, 2, 4

#: state, kind, peer's port, listener, host, flags, error, id, ticket, job, asked, granted, since, connect, address
RECORD = struct.Struct("<BBHIIHHQQQdddd56s")
SLOT = RECORD.size
#: where a file's head has the length that is good
AT_END = 16
#: where these begin in a record
AT_HOST, AT_FLAGS, AT_ERROR, AT_TICKET, AT_ASKED, AT_GRANTED, AT_CONNECT = 8, 12, 14, 24, 40, 48, 64
#: an entry of the notes: the lengths of its key and its value, which follow
NOTE = struct.Struct("<II")
#: a ledger larger than this is none: 16 million records, 2 GiB of notes
MOST_BYTES = 1 << 31
NAME = "name/"
#: numbers of names that are read
MOST_NAMES = 1 << 31
#: bytes of an address
ADDRESS = 56


class LedgerError(ValueError):
    """What should be a ledger cannot be understood; the text says why."""


@dataclass(frozen=True, slots=True)
class Account:
    """One record.

    :ivar offset: where it stands in the slots.
    :ivar state, kind, flags: as above.
    :ivar id: of a client its first ticket's; of a session, a pipe its own.
    :ivar listener: what it came by, in the words of whoever entered it; ``host``: the name of the host that it was lent, or "".
    :ivar address, peer_port: where it comes from, as in a request; of a turn: the key.
    :ivar ticket: its number, 0 for none; of a pipe the session that has it, 0 for none; of a turn the turn.
    :ivar job: as in a request; ``since``: the same, or None.
    :ivar asked, granted: when.
    :ivar connect: seconds that it took to connect; None where it is not connected yet.
    :ivar error: the system's error that the way to the server broke with, or 0; of a pipe the bytes that it can hold, in KiB.
    """

    offset: int
    state: int
    kind: int
    id: int
    listener: str
    address: str
    peer_port: int
    ticket: int
    job: int
    asked: float
    granted: float
    since: float | None
    connect: float | None
    host: str
    flags: int
    error: int


def check(memory: mmap.mmap, begins: int) -> int:
    """Where the notes end, of a file that is one of ours."""
    magic, version, start, end = HEAD.unpack_from(memory)
    if magic != MAGIC:
        raise LedgerError("it is no ledger of distbal's")
    if version != VERSION:
        raise LedgerError(f"its layout has version {version}, and this distbal knows {VERSION}")
    if start != begins or not begins <= end <= len(memory):
        raise LedgerError("its head is damaged")
    return int(end)


def entries(memory: mmap.mmap, end: int) -> Iterator[tuple[str, int, int, int]]:
    """Each entry of the notes, as (key, where it begins, where its value does, where it ends)."""
    start = HEAD.size
    while start < end:
        if start + NOTE.size > end:
            raise LedgerError("a note is cut off")
        key_size, value_size = NOTE.unpack_from(memory, start)
        middle = start + NOTE.size + key_size
        if middle + value_size > end:
            raise LedgerError("a note is cut off")
        try:
            key = memory[start + NOTE.size : middle].decode()
        except UnicodeDecodeError as error:
            raise LedgerError("a note's key is no text") from error
        yield key, start, middle, middle + value_size
        start = middle + value_size


def name_of(number: str, text: bytes) -> tuple[int, str]:
    """A note that is a name's."""
    if not (number.isascii() and number.isdecimal() and len(number) < 12 and 0 < int(number) <= MOST_NAMES):
        raise LedgerError(f"a name has the number {number[:40]!r}")
    try:
        return int(number), text.decode()
    except UnicodeDecodeError as error:
        raise LedgerError("a name is no text") from error


def cut(address: str) -> bytes:
    """As much of it as there is room for, in whole characters."""
    data = address.encode()
    return data if len(data) <= ADDRESS else data[:ADDRESS].decode(errors="ignore").encode()


def account_at(memory: mmap.mmap, offset: int, names: dict[int, str]) -> Account:
    """The record that stands there, with the names that its numbers stand for."""
    record = RECORD.unpack_from(memory, offset)
    state, kind, peer_port, listener, host, flags, error, ident, ticket, job = record[:10]
    asked, granted, since, connect, address = record[10:]
    if state > IN_USE or kind not in (CLIENT, SESSION, PIPE, TURN):
        raise LedgerError(f"an account has state {state} and kind {kind}")
    try:
        return Account(
            offset,
            state,
            kind,
            ident,
            names[listener],
            address.rstrip(b"\0").decode(),
            peer_port,
            ticket,
            job,
            _finite(asked),
            _finite(granted),
            None if math.isnan(since) else _finite(since),
            None if math.isnan(connect) else _finite(connect),
            names[host],
            flags,
            error,
        )
    except KeyError as unknown:
        raise LedgerError(f"an account has the name {unknown}, which is not noted") from unknown
    except UnicodeDecodeError as no_text:
        raise LedgerError("an account's address is no text") from no_text


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise LedgerError(f"an account has the time {number}")
    return number
