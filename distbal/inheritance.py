"""What an earlier process left to this one: descriptors, and the ledger that says what each of them is.

There are two ways to come by it, and nothing that follows differs between them. A process that was upgraded in place finds a
table of its own descriptors in a memory file, whose number stands in $DISTBAL_HANDOVER. One that a keeper started says hello to
it ($DISTBAL_KEEPER), and is given what the keeper held for the process before. A process that was started by hand has nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Literal

from distbal import __version__, checked, keeperwire
from distbal.errors import DistbalError
from distbal.keeperwire import End, Give, Keeper, Key, Role
from distbal.ledger import Ledger, LedgerError

#: the number of the memory file with the table
HANDOVER = "DISTBAL_HANDOVER"
#: of the table's form
VERSION = 1
#: seconds within which the keeper has to have given everything
GIVING_TIME = 10.0
#: seconds within which it has to hear of an upgrade, or will not
HELLO_TIME = 1.0
#: no descriptor has such a number
_MOST_NUMBER = 1 << 31
#: characters of what is wrong with a table
_MOST_SAID = 300
#: a table larger than this is none: a million descriptors take 30 MB
_MOST_BYTES = 1 << 26


class InheritanceError(DistbalError):
    """What was left cannot be taken up; the text says why."""


@dataclass(slots=True)
class Inheritance:
    """What there is. Descriptors that nobody takes are closed at the end (:meth:`close`).

    :ivar began: how this process came to be: "start", or "upgrade".
    :ivar descriptors: by (id, role).
    :ivar ledger: what they are; None where nothing was left.
    :ivar channel: to the keeper; None without one.
    :ivar keeper: what it said of itself.
    :ivar alone: there was one, and why the process before did without it by then; "" for none, and for one that is there.
    :ivar since: when the process before stopped serving, in seconds of CLOCK_MONOTONIC; None where it did not say.
    :ivar renumbered: what the keeper has under another number from now on, and need not hold under this one.
    :ivar last_id: the greatest id of what was left.
    :ivar version: the distbal of the process before; "" where that is not known.
    """

    began: Literal["start", "upgrade"] = "start"
    descriptors: dict[Key, int] = field(default_factory=dict)
    ledger: Ledger | None = None
    channel: socket.socket | None = None
    keeper: Keeper | None = None
    alone: str = ""
    since: float | None = None
    renumbered: list[Key] = field(default_factory=list)
    last_id: int = 0
    version: str = ""

    def take(self, ident: int, role: int) -> int:
        """One descriptor, which is the caller's from now on; -1 where there is none."""
        return self.descriptors.pop((ident, role), -1)

    def close(self) -> None:
        """Nobody needs the rest."""
        while self.descriptors:
            _, descriptor = self.descriptors.popitem()
            with contextlib.suppress(OSError):
                os.close(descriptor)


def table(descriptors: Mapping[Key, int], channel: int, since: float, alone: str = "") -> int:
    """A memory file with a table for the next image of this process.

    :param descriptors: by (id, role); the ledger's are among them.
    :param channel: to the keeper, or -1; ``alone``: why it is done without, where there was one.
    """
    rows = [[ident, int(role), descriptor] for (ident, role), descriptor in descriptors.items()]
    content = {"version": VERSION, "table": rows, "channel": channel, "since": since, "alone": alone, "distbal": __version__}
    file = os.memfd_create("distbal-table", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(file), "wb") as out:
        out.write(json.dumps(content).encode())
    return file


def inherited(environ: MutableMapping[str, str]) -> Inheritance:
    """What there is for this process; the two variables are taken out of the environment, so that no child sees them.

    :raises InheritanceError: it cannot be understood. All of it is closed then.
    """
    handover, keeper = environ.pop(HANDOVER, ""), environ.pop(keeperwire.VARIABLE, "")
    found = Inheritance()
    try:
        if handover:
            _from_table(found, _number(HANDOVER, handover))
        elif keeper:
            found.channel = _channel(_number(keeperwire.VARIABLE, keeper))
            _from_keeper(found, found.channel)
        found.last_id = max((ident for ident, _ in found.descriptors), default=0)
        if (0, Role.LEDGER) in found.descriptors and (0, Role.NOTES) in found.descriptors:
            found.ledger = Ledger(found.take(0, Role.LEDGER), found.take(0, Role.NOTES))
    except (LedgerError, OSError) as error:
        _close_all(found)
        raise InheritanceError(f"what the process before left cannot be taken up: {error}") from error
    except InheritanceError:
        _close_all(found)
        raise
    return found


def _close_all(found: Inheritance) -> None:
    found.close()
    if found.channel is not None:
        found.channel.close()


def _number(variable: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 9:
        raise InheritanceError(f"${variable} is no descriptor's number: {text[:40]!r}")
    return int(text)


def _from_table(found: Inheritance, file: int) -> None:
    with os.fdopen(file, "rb") as table_file:
        table_file.seek(0)
        content = table_file.read(_MOST_BYTES)
    channel = _read_table(found, content)
    found.began = "upgrade"
    if channel >= 0:
        found.channel = _channel(channel)
    for descriptor in found.descriptors.values():
        os.set_inheritable(descriptor, False)
    if found.channel is not None:
        # one that is gone, or full for so long, is seen to be when there is somebody to go on alone (keeping.py)
        found.channel.settimeout(HELLO_TIME)
        with contextlib.suppress(OSError):
            found.channel.send(keeperwire.hello(__version__, os.getpid(), "upgrade", give=False))


def _read_table(found: Inheritance, content: bytes) -> int:
    """What a table says, written into ``found``; the number of the channel, or -1."""
    try:
        said = json.loads(content)
        if said["version"] != VERSION:
            raise InheritanceError(
                f"the table of descriptors has version {said['version']!r}, and this distbal knows {VERSION}"
            )
        rows = [(_whole(ident), _whole(role), _whole(descriptor)) for ident, role, descriptor in said["table"]]
        channel = -1 if said["channel"] == -1 else _whole(said["channel"])
        # not there in what earlier versions wrote
        found.alone = checked.text(said.get("alone", ""), "alone")
        found.since, found.version = checked.number(said["since"], "since"), checked.text(said["distbal"], "distbal")
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise InheritanceError(f"the table of descriptors cannot be understood: {error!r}"[:_MOST_SAID]) from error
    keys = [(ident, role) for ident, role, _ in rows]
    numbers = [*(descriptor for _, _, descriptor in rows), *([channel] if channel >= 0 else [])]
    if len(set(keys)) < len(keys) or len(set(numbers)) < len(numbers) or not all(2 < one < _MOST_NUMBER for one in numbers):
        raise InheritanceError("the table of descriptors names one twice, or one that is none")
    found.descriptors.update({(ident, role): descriptor for ident, role, descriptor in rows})
    return channel


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise ValueError("a number is wanted")
    return value


def _channel(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)


def _from_keeper(found: Inheritance, channel: socket.socket) -> None:
    channel.send(keeperwire.hello(__version__, os.getpid(), "start", give=True))
    deadline = time.monotonic() + GIVING_TIME
    while True:
        channel.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            packet, descriptors, _, _ = socket.recv_fds(channel, keeperwire.MAX_PACKET, keeperwire.MAX_DESCRIPTORS)
        except TimeoutError as error:
            raise InheritanceError(f"the keeper did not give everything within {GIVING_TIME:g} s") from error
        try:
            if _given(found, packet, descriptors):
                return
        except InheritanceError:
            for descriptor in descriptors:
                os.close(descriptor)
            raise


def _given(found: Inheritance, packet: bytes, descriptors: list[int]) -> bool:
    """What a packet of the keeper's brings; whether it is the last."""
    if not packet:
        raise InheritanceError("the keeper ended while it gave")
    try:
        said = keeperwire.from_keeper(packet)
    except ValueError as error:
        raise InheritanceError(f"the keeper said what cannot be understood: {error}") from error
    keys = said.keys if isinstance(said, Give) else []
    if len(keys) != len(descriptors):
        # less than were given come in where this process may have no more (RLIMIT_NOFILE)
        raise InheritanceError(f"{len(descriptors)} descriptors came from the keeper, which named {len(keys)}")
    if len({*keys, *found.descriptors}) < len(keys) + len(found.descriptors):
        raise InheritanceError("the keeper gave one thing twice")
    for key, descriptor in zip(keys, descriptors, strict=True):
        os.set_inheritable(descriptor, False)
        found.descriptors[key] = descriptor
    if isinstance(said, End):
        found.keeper = said.keeper
    return isinstance(said, End)
