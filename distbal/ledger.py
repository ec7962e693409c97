"""The ledger: an account of what each of the daemon's descriptors is, in memory that outlives the process.

It is two memory files (memfd_create(2)). The *slots* have records of one size, one for each client, session, pipe, and for the
turn of each key that waits; to change one is a store into memory, without a system call. The *notes* have what is larger and
changes less often, by key: hosts, totals, names. Whoever holds the two files, a keeper or the next image of this process, finds
in them what was true at the last instruction before the end, however that came.

So that nothing is ever half true, what decides that an entry holds is one store, and the last: a record's state (0: the slot is
free), and the length of the notes that are good. Struct.pack_into is no such store, since it clears all that it is to write and
then writes one field after the other; so it is used only where nothing counts yet. Times are seconds of CLOCK_MONOTONIC, which
goes on as long as the machine does; numbers are little endian. :data:`VERSION` says how it is laid out; a file of another
version is refused in words.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from collections.abc import Callable

from distbal.ledgerform import (
    AT_ASKED,
    AT_CONNECT,
    AT_END,
    AT_ERROR,
    AT_FLAGS,
    AT_GRANTED,
    AT_HOST,
    AT_TICKET,
    CLIENT,
    CONNECTING,
    DOWN,
    FREE,
    HEAD,
    HELD,
    IN_USE,
    LEASED,
    MAGIC,
    MOST_BYTES,
    NAME,
    NOTE,
    PARTING,
    PIPE,
    QUIET,
    RECORD,
    RELAYING,
    SESSION,
    SLOT,
    TOLD,
    TURN,
    VERSION,
    WAITING,
    Account,
    LedgerError,
    account_at,
    check,
    cut,
    entries,
    name_of,
)

#: what users of a ledger need of its form
__all__ = (
    "CLIENT",
    "CONNECTING",
    "DOWN",
    "FREE",
    "HELD",
    "IN_USE",
    "LEASED",
    "MOST_BYTES",
    "PARTING",
    "PIPE",
    "QUIET",
    "RELAYING",
    "SESSION",
    "SLOT",
    "TOLD",
    "TURN",
    "VERSION",
    "WAITING",
    "Account",
    "Ledger",
    "LedgerError",
)

_TICKET_JOB = struct.Struct("<QQ")
_TIMES = struct.Struct("<dddd")
_NUMBER, _TIME, _NAME_NUMBER = struct.Struct("<Q"), struct.Struct("<d"), struct.Struct("<I")
#: slots that there is room for at first; bytes of notes alike
_FIRST_SLOTS, _FIRST_NOTES = 1024, 1 << 16
#: bytes of notes that nobody needs any more, beyond as many as are needed, before they are written anew
_SLACK = 1 << 20


class Ledger:
    """The two files, written.

    :param slots: a memory file with records, or -1 for a new one; ``notes`` alike. Both are this object's from now on.
    :param moved: called when the notes are another file than before, so that whoever holds the old one can be given it.
    :raises LedgerError: these are no ledger.

    :ivar slots, notes: the files' descriptors.
    """

    def __init__(self, slots: int = -1, notes: int = -1, *, moved: Callable[[], None] | None = None) -> None:
        self.moved = moved
        if slots < 0:
            slots = _new_file("slots", SLOT * (1 + _FIRST_SLOTS), SLOT)
        if notes < 0:
            notes = _new_file("notes", _FIRST_NOTES, HEAD.size)
        self.slots, self.notes = slots, notes
        try:
            self._slots, self._notes = _mapped(slots), _mapped(notes)
            self._read()
        except (LedgerError, OSError):
            for descriptor in (slots, notes):
                os.close(descriptor)
            raise

    def _read(self) -> None:
        check(self._slots, SLOT)
        self._end = check(self._notes, HEAD.size)
        self._free = [
            offset for offset in range(len(self._slots) // SLOT * SLOT - SLOT, 0, -SLOT) if self._slots[offset] == FREE
        ]
        #: where each key's entry is in the notes: (from, to)
        self._where: dict[str, tuple[int, int]] = {}
        for key, start, _, end in entries(self._notes, self._end):
            self._place(key, start, end)
        self._live = sum(end - start for start, end in self._where.values())
        self._names: dict[str, int] = {}
        #: the same the other way; a text may have two numbers
        self._texts: dict[int, str] = {0: ""}
        for key, value in self.read_notes().items():
            if key.startswith(NAME):
                number, text = name_of(key[len(NAME) :], value)
                self._names[text], self._texts[number] = number, text
        self._last_name = max(self._texts)

    def close(self) -> None:
        """Let both files go."""
        for memory in (self._slots, self._notes):
            memory.close()
        for descriptor in (self.slots, self.notes):
            os.close(descriptor)

    # -- records

    def enter(
        self,
        kind: int,
        state: int,
        ident: int,
        *,
        listener: str = "",
        host: str = "",
        flags: int = 0,
        error: int = 0,
        ticket: int = 0,
        job: int = 0,
        asked: float = 0.0,
        granted: float = 0.0,
        since: float | None = None,
        address: str = "",
        peer_port: int = 0,
    ) -> int:
        """A new record; where it is."""
        offset = self._free.pop() if self._free else self._grow()
        memory = self._slots
        RECORD.pack_into(
            memory,
            offset,
            FREE,
            kind,
            peer_port,
            self.name(listener),
            self.name(host),
            flags,
            error,
            ident,
            ticket,
            job,
            asked,
            granted,
            math.nan if since is None else since,
            math.nan,
            cut(address),
        )
        memory[offset] = state
        return offset

    def enter_client(
        self, listener: int, host: str, ticket: int, asked: float, granted: float, address: str, peer_port: int
    ) -> int:
        """A new record of a client of 5656, which has a lease where a host is named: the same as :meth:`enter`, in less time.

        :param listener: the number of the :meth:`name` of what it came by.
        """
        offset = self._free.pop() if self._free else self._grow()
        memory = self._slots
        number = self._names.get(host)
        if number is None:
            number = self.name(host)
        RECORD.pack_into(
            *(memory, offset, FREE, CLIENT, peer_port, listener, number, 0, 0, ticket, ticket, 0, asked, granted),
            *(math.nan, math.nan, cut(address)),
        )
        memory[offset] = LEASED if host else WAITING
        return offset

    def leave(self, offset: int) -> None:
        """A record is needed no more."""
        self._slots[offset] = FREE
        self._free.append(offset)

    def set_state(self, offset: int, state: int) -> None:
        """Nothing but its state is another."""
        self._slots[offset] = state

    def mark(self, offset: int, flag: int) -> None:
        """A flag holds from now on."""
        self._slots[offset + AT_FLAGS] |= flag

    def asks(self, offset: int, ticket: int, job: int, asked: float, since: float | None) -> None:
        """It waits, with this ticket."""
        memory = self._slots
        _TICKET_JOB.pack_into(memory, offset + AT_TICKET, ticket, job)
        _TIMES.pack_into(memory, offset + AT_ASKED, asked, 0.0, math.nan if since is None else since, math.nan)
        memory[offset] = WAITING

    def grant(self, offset: int, host: str, granted: float, state: int = LEASED) -> None:
        """What it waited for is lent."""
        memory = self._slots
        _NAME_NUMBER.pack_into(memory, offset + AT_HOST, self.name(host))
        memory[offset + AT_ERROR : offset + AT_ERROR + 2] = b"\0\0"
        _TIME.pack_into(memory, offset + AT_GRANTED, granted)
        memory[offset] = state

    def connected(self, offset: int, seconds: float) -> None:
        """A session's server is connected."""
        _TIME.pack_into(self._slots, offset + AT_CONNECT, seconds)
        self._slots[offset] = RELAYING

    def broke(self, offset: int, error: int) -> None:
        """The way to a session's server broke, with this error of the system's."""
        self._slots[offset + AT_ERROR : offset + AT_ERROR + 2] = error.to_bytes(2, "little")

    def own(self, offset: int, owner: int, flags: int = 0) -> None:
        """A pipe is this session's, 0: nobody's; ``flags``: DOWN or none. Of a turn: its number."""
        memory, number = self._slots, _NUMBER.pack(owner)
        # while it has an owner, it has the flags that go with that
        if owner:
            memory[offset + AT_FLAGS] = flags
        memory[offset + AT_TICKET : offset + AT_TICKET + 8] = number
        if not owner:
            memory[offset + AT_FLAGS] = flags

    def accounts(self, wrong: Callable[[str], None] | None = None) -> list[Account]:
        """All records that hold.

        :param wrong: told of each that is none of ours, which is left out, and free from then on.
        :raises LedgerError: one is none of ours, and nobody wants to be told.
        """
        names, memory = self._texts, self._slots
        found = []
        for offset in range(SLOT, len(memory) // SLOT * SLOT, SLOT):
            if memory[offset] != FREE:
                try:
                    found.append(account_at(memory, offset, names))
                except LedgerError as error:
                    if wrong is None:
                        raise
                    wrong(str(error))
                    self.leave(offset)
        return found

    def _grow(self) -> int:
        before = len(self._slots)
        after = 2 * (before // SLOT) * SLOT
        if after > MOST_BYTES:
            raise MemoryError("there is no room for more accounts")
        os.ftruncate(self.slots, after)
        old, self._slots = self._slots, _mapped(self.slots)
        old.close()
        self._free = list(range(after - SLOT, before // SLOT * SLOT - SLOT, -SLOT))
        return self._free.pop()

    # -- notes

    def name(self, text: str) -> int:
        """A text's number in records; it is noted the first time. 0 for ""."""
        number = self._names.get(text)
        if number is None:
            if not text:
                return 0
            # taken before it is noted: whoever is told that the notes have moved may come here too
            number = self._last_name = self._last_name + 1
            self.note(f"{NAME}{number}", text.encode())
            self._names[text], self._texts[number] = number, text
        return number

    def note(self, key: str, value: bytes) -> None:
        """This holds under a key from now on, in place of what did; b"": nothing does."""
        head = key.encode()
        size = NOTE.size + len(head) + len(value)
        if self._end + size > len(self._notes):
            self._make_room(size)
        memory, start = self._notes, self._end
        NOTE.pack_into(memory, start, len(head), len(value))
        middle, end = start + NOTE.size + len(head), start + size
        memory[start + NOTE.size : middle] = head
        memory[middle:end] = value
        memory[AT_END : AT_END + 8] = _NUMBER.pack(end)
        self._end = end
        before = self._where.get(key, (0, 0))
        self._place(key, start, end if value else start)
        after = self._where.get(key, (0, 0))
        self._live += (after[1] - after[0]) - (before[1] - before[0])

    def read_notes(self) -> dict[str, bytes]:
        """All that holds, by its key, names included."""
        return {key: self.read_note(key) for key in sorted(self._where, key=self._where.__getitem__)}

    def read_note(self, key: str) -> bytes:
        """What holds under a key; b"" for nothing."""
        if key not in self._where:
            return b""
        start, end = self._where[key]
        return bytes(self._notes[start + NOTE.size + len(key.encode()) : end])

    def _place(self, key: str, start: int, end: int) -> None:
        if end - start > NOTE.size + len(key.encode()):
            self._where[key] = start, end
        else:
            self._where.pop(key, None)

    def _make_room(self, size: int) -> None:
        """Let there be room for so much: in this file, or in a new one where much of this is needed no more."""
        if self._end - self._live > self._live + _SLACK:
            self._write_anew(size)
            return
        room = len(self._notes)
        while room < self._end + size:
            room *= 2
        if room > MOST_BYTES:
            raise MemoryError("there is no room for more notes")
        os.ftruncate(self.notes, room)
        old, self._notes = self._notes, _mapped(self.notes)
        old.close()

    def _write_anew(self, size: int) -> None:
        room = _FIRST_NOTES
        while room < 2 * (HEAD.size + self._live + size):
            room *= 2
        if room > MOST_BYTES:
            raise MemoryError("there is no room for more notes")
        descriptor = _new_file("notes", room, HEAD.size)
        try:
            new = _mapped(descriptor)
        except OSError:
            os.close(descriptor)
            raise
        old, end = self._notes, HEAD.size
        where: dict[str, tuple[int, int]] = {}
        for key, (start, stop) in sorted(self._where.items(), key=lambda item: item[1]):
            new[end : end + stop - start] = old[start:stop]
            where[key] = end, end + stop - start
            end += stop - start
        new[AT_END : AT_END + 8] = _NUMBER.pack(end)
        gone = self.notes
        self.notes, self._notes, self._where, self._end = descriptor, new, where, end
        old.close()
        if self.moved is not None:
            self.moved()
        os.close(gone)


def _new_file(name: str, size: int, begins: int) -> int:
    descriptor = os.memfd_create(f"distbal-{name}", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, size)
        os.pwrite(descriptor, HEAD.pack(MAGIC, VERSION, begins, begins), 0)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _mapped(descriptor: int) -> mmap.mmap:
    size = os.fstat(descriptor).st_size
    if not HEAD.size <= size <= MOST_BYTES:
        raise LedgerError(f"a ledger's file has {size} bytes")
    return mmap.mmap(descriptor, size)
