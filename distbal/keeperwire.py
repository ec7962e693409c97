"""What the daemon and its keeper say to each other, as packets: text and bytes alone, no socket and no clock.

The keeper (:mod:`distbal.keeper`) holds duplicates of the daemon's descriptors and gives them back to the process that comes
after a crash. Both talk over a pair of SOCK_SEQPACKET sockets, of which the daemon finds its end's number in $DISTBAL_KEEPER; a
packet carries up to :data:`MAX_DESCRIPTORS` descriptors (SCM_RIGHTS, unix(7)). The first byte is the packet's type::

    daemon to keeper                                keeper to daemon
    J  journal: hold these, let those go            G  give: take these back
    H  hello, JSON: a process image began           E  end of giving, JSON: who the keeper is
    R  ready, JSON: it serves                       K  news, JSON: who the keeper is now
    B  beat: it lives                               L  leave: write accounts, exit, close nothing
    S  stopping: somebody asked it to

A descriptor goes by its key, an id and a :class:`Role`; no two have the same one. Within a journal what is held comes first, in
the order of the descriptors, and what is let go is let go after that. Keys in JSON that are not known are passed over, so that
both sides need not be of one version.

Whatever the bytes are, they are parsed or ValueError is raised, with a sentence that says what is wrong.
"""

from __future__ import annotations

import json
import struct
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: where the daemon finds the number of its end of the channel
VARIABLE = "DISTBAL_KEEPER"
#: bytes of a packet, at most
MAX_PACKET = 65536
#: descriptors of a packet, at most: the kernel's SCM_MAX_FD
MAX_DESCRIPTORS = 253

#: descriptors that a keeper leaves for its own use, and for one packet more; and how many it holds where there is no limit
RESERVE, MANY = MAX_DESCRIPTORS + 64, 1 << 20

#: bodies that say all by their type
BEAT, STOPPING, LEAVE = b"B", b"S", b"L"

#: an id (64 bits, unique across restarts) and a role
Key: TypeAlias = tuple[int, int]

_KEY = struct.Struct("<QB")
_COUNT = struct.Struct("<H")
_HEAD = 1 + _COUNT.size
#: keys of a journal, at most
MAX_KEYS = (MAX_PACKET - _HEAD) // _KEY.size


class Role(IntEnum):
    """What a descriptor is."""

    #: the accounts in shared memory, and the notes; there is one of each, with id 0
    LEDGER = 1
    NOTES = 2
    LISTENER = 3
    #: a connection to 5656: the keeper drops it by itself when both its sides are shut down (EPOLLHUP)
    CLIENT = 4
    SESSION_CLIENT = 5
    SESSION_SERVER = 6
    PIPE_READ = 7
    PIPE_WRITE = 8
    #: the state directory's, with id 0
    LOCK = 9


ROLES = frozenset(map(int, Role))


class Journal(NamedTuple):
    """Descriptors to hold, and to let go.

    :ivar held: the keys of the descriptors that come with it, in their order; one that is held already is replaced.
    :ivar let_go: keys of descriptors that are not needed any more.
    """

    held: list[Key]
    let_go: list[Key]


class Hello(NamedTuple):
    """The first packet of a process image.

    :ivar version: its distbal.
    :ivar pid: its process.
    :ivar began: "start", or "upgrade" where it took the place of another image of the same process.
    :ivar give: whether it wants everything back.
    """

    version: str
    pid: int
    began: str
    give: bool


class Ready(NamedTuple):
    """It serves.

    :ivar status: what it does, in a few words ("serving 3 hosts").
    """

    version: str
    status: str


class Beat(NamedTuple):
    """It lives: once a second."""


class Stopping(NamedTuple):
    """It ends because somebody asked it to: nothing is to be held for another."""


class Give(NamedTuple):
    """Descriptors that are given back.

    :ivar keys: theirs, in their order.
    """

    keys: list[Key]


class Keeper(NamedTuple):
    """Who the keeper is, as it ends its giving, and when something of this is new.

    :ivar version: its distbal.
    :ivar pid: its process.
    :ivar restarts: how often it has started a daemon because the one before was gone.
    :ivar last: why the daemon before ended, a sentence; "" for none.
    :ivar since: when the keeper began, seconds since 1970; its replacing its own code does not change it.
    """

    version: str
    pid: int
    restarts: int
    last: str
    since: float


class End(NamedTuple):
    """All that was held has been given."""

    keeper: Keeper


class News(NamedTuple):
    """Something of what is known of the keeper is new."""

    keeper: Keeper


class Leave(NamedTuple):
    """Write all accounts and exit at once, closing nothing: everything will be taken up by the next daemon."""


FromDaemon: TypeAlias = Journal | Hello | Ready | Beat | Stopping
FromKeeper: TypeAlias = Give | End | News | Leave


def room_within(limit: int) -> int:
    """How many descriptors a keeper holds that may have so many open; a daemon has no use for clients beyond that."""
    limit = min(limit, MANY)
    return limit - min(RESERVE, limit // 2)


def journal(held: Sequence[Key], let_go: Sequence[Key] = ()) -> bytes:
    """A J packet.

    :param held: keys of the descriptors that are sent with it, in their order; at most :data:`MAX_DESCRIPTORS`.
    :param let_go: at most :data:`MAX_KEYS` with those before.
    :raises ValueError: there are more.
    """
    return _keys(b"J", held, let_go)


def journals(held: Sequence[Key], let_go: Sequence[Key] = ()) -> Iterator[tuple[bytes, int]]:
    """As few J packets as will do for any number of keys.

    :returns: each packet, and how many of the descriptors (from where the last packet ended) go with it.
    """
    gone = 0
    for start in range(0, len(held), MAX_DESCRIPTORS):
        some = held[start : start + MAX_DESCRIPTORS]
        more = let_go[gone : gone + MAX_KEYS - len(some)] if start + len(some) == len(held) else ()
        gone += len(more)
        yield journal(some, more), len(some)
    while gone < len(let_go):
        yield journal((), let_go[gone : gone + MAX_KEYS]), 0
        gone += MAX_KEYS


def give(keys: Sequence[Key]) -> bytes:
    """A G packet.

    :param keys: of the descriptors that are sent with it, in their order; at most :data:`MAX_DESCRIPTORS`.
    :raises ValueError: there are more.
    """
    return _keys(b"G", keys)


def hello(version: str, pid: int, began: str, give: bool) -> bytes:
    """An H packet; see :class:`Hello`."""
    return _json(b"H", {"version": version, "pid": pid, "began": began, "give": give})


def ready(version: str, status: str) -> bytes:
    """An R packet; see :class:`Ready`."""
    return _json(b"R", {"version": version, "status": status})


def end(keeper: Keeper) -> bytes:
    """An E packet."""
    return _json(b"E", {"keeper": keeper._asdict()})


def news(keeper: Keeper) -> bytes:
    """A K packet."""
    return _json(b"K", {"keeper": keeper._asdict()})


def from_daemon(packet: bytes | memoryview) -> FromDaemon:
    """What a packet says that came from the daemon.

    :raises ValueError: it says nothing that a daemon says.
    """
    kind, body = _parts(packet)
    if kind == b"J":
        return Journal(*_parse_keys(kind, body))
    if kind == b"H":
        said = _parse_json(kind, body)
        began = _text(said, "began")
        if began not in ("start", "upgrade"):
            raise ValueError(f'a hello began neither with "start" nor with "upgrade": {began[:40]!r}')
        return Hello(_text(said, "version"), _number(said, "pid"), began, _truth(said, "give"))
    if kind == b"R":
        said = _parse_json(kind, body)
        return Ready(_text(said, "version"), _text(said, "status"))
    if kind == BEAT:
        return Beat(*_nothing(kind, body))
    if kind == STOPPING:
        return Stopping(*_nothing(kind, body))
    raise ValueError(f"a packet of the type {kind!r} is none that a daemon sends")


def from_keeper(packet: bytes | memoryview) -> FromKeeper:
    """What a packet says that came from the keeper.

    :raises ValueError: it says nothing that a keeper says.
    """
    kind, body = _parts(packet)
    if kind == b"G":
        keys, rest = _parse_keys(kind, body)
        if rest:
            raise ValueError(f"a packet of the type b'G' has {len(rest)} keys without a descriptor")
        return Give(keys)
    if kind in (b"E", b"K"):
        said = _parse_json(kind, body).get("keeper")
        if type(said) is not dict:
            raise ValueError(f"a packet of the type {kind!r} does not say who the keeper is")
        since: Any = said.get("since")
        if type(since) not in (int, float) or not 0 <= since < 1e12:
            raise ValueError('the keeper\'s "since" is no time')
        keeper = Keeper(
            _text(said, "version"), _number(said, "pid"), _number(said, "restarts"), _text(said, "last"), float(since)
        )
        return End(keeper) if kind == b"E" else News(keeper)
    if kind == LEAVE:
        return Leave(*_nothing(kind, body))
    raise ValueError(f"a packet of the type {kind!r} is none that a keeper sends")


def _keys(kind: bytes, counted: Sequence[Key], rest: Sequence[Key] = ()) -> bytes:
    if len(counted) > MAX_DESCRIPTORS or len(counted) + len(rest) > MAX_KEYS:
        raise ValueError(f"{len(counted)} descriptors and {len(rest)} further keys are more than a packet can carry")
    numbers = [number for keys in (counted, rest) for key in keys for number in key]
    try:
        # one call for all of them: a batch of fifty is packed in the time of ten single keys
        return kind + _COUNT.pack(len(counted)) + _packer(len(counted) + len(rest)).pack(*numbers)
    except struct.error as error:
        raise ValueError(f"an id has 64 bits and a role 8: {error}") from error


@lru_cache(maxsize=512)
def _packer(keys: int) -> struct.Struct:
    return struct.Struct("<" + keys * "QB")


def _json(kind: bytes, content: dict[str, Any]) -> bytes:
    packet = kind + json.dumps(content, separators=(",", ":")).encode()
    if len(packet) > MAX_PACKET:
        raise ValueError(f"a packet has at most {MAX_PACKET} bytes, and this one would have {len(packet)}")
    return packet


def _parts(packet: bytes | memoryview) -> tuple[bytes, bytes | memoryview]:
    if not packet:
        raise ValueError("a packet is empty")
    if len(packet) > MAX_PACKET:
        raise ValueError(f"a packet has more than {MAX_PACKET} bytes")
    return bytes(packet[:1]), packet[1:]


def _parse_keys(kind: bytes, body: bytes | memoryview) -> tuple[list[Key], list[Key]]:
    length = len(body) - _COUNT.size
    if length < 0 or length % _KEY.size:
        raise ValueError(f"a packet of the type {kind!r} is cut off: {len(body)} bytes after its type")
    (count,) = _COUNT.unpack_from(body)
    keys: list[Key] = list(_KEY.iter_unpack(body[_COUNT.size :]))
    if count > min(len(keys), MAX_DESCRIPTORS):
        raise ValueError(f"a packet of the type {kind!r} with {len(keys)} keys cannot have {count} descriptors")
    strange = {role for _, role in keys} - ROLES
    if strange:
        raise ValueError(f"a packet of the type {kind!r} has a descriptor of a role that is not known: {min(strange)}")
    return keys[:count], keys[count:]


def _parse_json(kind: bytes, body: bytes | memoryview) -> dict[str, Any]:
    try:
        said = json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"a packet of the type {kind!r} is no JSON: {error}") from error
    if type(said) is not dict:
        raise ValueError(f"a packet of the type {kind!r} is no JSON object")
    return said


def _nothing(kind: bytes, body: bytes | memoryview) -> tuple[()]:
    if len(body):
        raise ValueError(f"a packet of the type {kind!r} has {len(body)} bytes after its type, which has no body")
    return ()


def _text(said: dict[str, Any], name: str) -> str:
    value = said.get(name)
    if type(value) is not str:
        raise ValueError(f'"{name}" is no text')
    return value


def _number(said: dict[str, Any], name: str) -> int:
    value = said.get(name)
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError(f'"{name}" is no number')
    return value


def _truth(said: dict[str, Any], name: str) -> bool:
    value = said.get(name)
    if type(value) is not bool:
        raise ValueError(f'"{name}" is neither true nor false')
    return value
