"""What people decided and did, as plain values for JSON, and back, checked as strictly as what a stranger may have written.

Whatever goes in comes out as it was, but for texts that are no text (halves of characters) or longer than anybody means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from distbal import addresses, hostspec
from distbal.changes import Change
from distbal.decisions import KEYS, Decision, Decisions, Place
from distbal.forms import shown
from distbal.hosts import HostSpec
from distbal.model import POOL

T = TypeVar("T")

VERSION = 1
#: what the file says that it is
KIND = "distbal's decisions"
#: characters that are kept of what a person said
MOST_CHARS = 4000
#: words of one change, and pools of one host
MOST_WORDS = 1000
#: the end of the year 9999, in seconds since 1970: no time is later
LAST_SECOND = 253_402_300_799
#: beyond any number of hosts
MOST_RANK = 1_000_000

_SIDES = ("before", "with", "after")


class Wrong(ValueError):
    """The values are not what :func:`to_json` gives; the text says where and how."""


class Unknown(Wrong):
    """The values are those of another version; the text says which."""


def to_json(decisions: Decisions, changes: Iterable[Change]) -> dict[str, object]:
    """Both as dictionaries, lists and scalars; :func:`from_json` takes whatever this gives."""
    return {
        "kind": KIND,
        "version": VERSION,
        "decisions": [
            {
                "host": name,
                "key": key,
                "value": _value_to_json(one.value),
                "file": one.file,
                "by": _kept(one.by),
                "at": _kept_time(one.at),
                "why": _kept(one.why),
            }
            for name, key, one in decisions
        ],
        "changes": [
            {
                "at": _kept_time(one.at),
                "by": _kept(one.by),
                "where": _kept(one.where),
                "verb": _kept(one.verb),
                "words": [_kept(word) for word in one.words[:MOST_WORDS]],
                "what": _kept(one.what),
            }
            for one in changes
        ],
    }


def from_json(values: object) -> tuple[Decisions, list[Change]]:
    """The same back.

    :raises Unknown: they are of another version.
    :raises Wrong: something in them is; the text says where and what.
    """
    if not isinstance(values, dict) or values.get("kind") != KIND:
        raise Wrong(f'it does not say "kind": "{KIND}", so it is something else')
    version = _int("version", values.get("version"), 0, MOST_RANK)
    if version != VERSION:
        raise Unknown(f"it is of version {version}, and this distbal knows version {VERSION} alone")
    _keys("", values, "kind", "version", "decisions", "changes")
    decisions = Decisions(tuple(_each("decisions", values["decisions"], _decision)))
    seen = set()
    for number, (name, key, _) in enumerate(decisions):
        if (name, key) in seen:
            raise Wrong(f"decisions[{number}]: {key} of {name} stands twice")
        seen.add((name, key))
    return decisions, _each("changes", values["changes"], _change)


def _kept(text: str) -> str:
    return text[:MOST_CHARS].encode("utf-8", "replace").decode() if not text.isascii() else text[:MOST_CHARS]


def _kept_time(at: float) -> float:
    return min(max(at, 0), LAST_SECOND)


def _value_to_json(value: object) -> object:
    if isinstance(value, Place):
        return {"side": value.side, "host": value.host}
    if isinstance(value, HostSpec):
        return {
            "name": value.name,
            "slots": value.slots,
            "rank": value.rank,
            "options": value.options,
            "address": list(value.address),
            "pools": list(value.pools),
            "auto": value.auto,
        }
    return value


def _decision(where: str, values: object) -> tuple[str, str, Decision]:
    mapping = _keys(where, values, "host", "key", "value", "file", "by", "at", "why")
    name = _name(f"{where}.host", mapping["host"])
    key = _one_of(f"{where}.key", mapping["key"], *KEYS)
    value, file = _READ[key](f"{where}.value", mapping["value"]), _FILE[key](f"{where}.file", mapping["file"])
    if isinstance(value, HostSpec) and value.name != name:
        raise Wrong(f"{where}.value.name: {value.name} is not {name}, whose decision this is")
    by, why = _text(f"{where}.by", mapping["by"]), _text(f"{where}.why", mapping["why"])
    return name, key, Decision(value, file, by, _time(f"{where}.at", mapping["at"]), why)


def _change(where: str, values: object) -> Change:
    mapping = _keys(where, values, "at", "by", "where", "verb", "words", "what")
    return Change(
        _time(f"{where}.at", mapping["at"]),
        _text(f"{where}.by", mapping["by"]),
        _text(f"{where}.where", mapping["where"]),
        _text(f"{where}.verb", mapping["verb"]),
        tuple(_each(f"{where}.words", mapping["words"], _text, MOST_WORDS)),
        _text(f"{where}.what", mapping["what"]),
    )


def _place(where: str, values: object) -> Place:
    mapping = _keys(where, values, "side", "host")
    side = _one_of(f"{where}.side", mapping["side"], *_SIDES)
    return Place(side, _name(f"{where}.host", mapping["host"]))  # type: ignore[arg-type]  # it is one of them


def _host_or_false(where: str, values: object) -> HostSpec | bool:
    if values is False:
        return False
    mapping = _keys(where, values, "name", "slots", "rank", "options", "address", "pools", "auto")
    options = _text(f"{where}.options", mapping["options"])
    if options and not addresses.matches(f",{hostspec.OPTIONS}", options):
        raise Wrong(f"{where}.options: {shown(options)} is neither empty nor a comma and distcc's options")
    address = mapping["address"]
    if not isinstance(address, list) or len(address) != 2:
        raise Wrong(f"{where}.address: a list of a host and a port is wanted, not {shown(address)}")
    host, port = _text(f"{where}.address[0]", address[0]), _int(f"{where}.address[1]", address[1], 1, 65535)
    if not addresses.matches(addresses.HOST, f"[{host}]" if ":" in host else host):
        raise Wrong(f"{where}.address[0]: {shown(host)} is no host")
    pools = tuple(_each(f"{where}.pools", mapping["pools"], _pool, MOST_WORDS))
    if not pools or len(set(pools)) < len(pools):
        raise Wrong(f"{where}.pools: one pool at least is wanted, and each once")
    return HostSpec(
        _name(f"{where}.name", mapping["name"]),
        _slots(f"{where}.slots", mapping["slots"]),
        _int(f"{where}.rank", mapping["rank"], 0, MOST_RANK),
        options,
        (host, port),
        pools,
        _truth(f"{where}.auto", mapping["auto"]),
    )


def _keys(where: str, values: object, *wanted: str) -> Mapping[str, Any]:
    """The mapping, which has these keys and no others."""
    begin = f"{where}: " if where else ""
    if not isinstance(values, dict):
        raise Wrong(f"{begin}a mapping is wanted, not {shown(values)}")
    for key in wanted:
        if key not in values:
            raise Wrong(f"{begin}{key} is missing")
    for key in values:
        if key not in wanted:
            raise Wrong(f"{begin}{shown(key)} means nothing here")
    return values


def _each(where: str, values: object, read: Callable[[str, object], T], most: int | None = None) -> list[T]:
    if not isinstance(values, list):
        raise Wrong(f"{where}: a list is wanted, not {shown(values)}")
    if most is not None and len(values) > most:
        raise Wrong(f"{where}: {len(values)} are too many: {most} at most")
    return [read(f"{where}[{number}]", value) for number, value in enumerate(values)]


def _text(where: str, value: object) -> str:
    if not isinstance(value, str):
        raise Wrong(f"{where}: a text is wanted, not {shown(value)}")
    if len(value) > MOST_CHARS or value != _kept(value):
        raise Wrong(f"{where}: a text has at most {MOST_CHARS} characters, all of them whole")
    return value


def _name(where: str, value: object) -> str:
    text = _text(where, value)
    try:
        return hostspec.check_name(text)
    except ValueError as error:
        raise Wrong(f"{where}: {error}") from None


def _pool(where: str, value: object) -> str:
    if not addresses.matches(POOL, _text(where, value)):
        raise Wrong(f"{where}: {shown(value)} is no name of a pool")
    return str(value)


def _one_of(where: str, value: object, *words: str) -> str:
    if not isinstance(value, str) or value not in words:
        raise Wrong(f"{where}: {shown(value)} is none of {', '.join(words)}")
    return value


def _int(where: str, value: object, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Wrong(f"{where}: a whole number, {least} to {most}, is wanted, not {shown(value)}")
    return value


def _time(where: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= LAST_SECOND:
        raise Wrong(f"{where}: seconds since 1970 are wanted, not {shown(value)}")
    return float(value)


def _truth(where: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise Wrong(f"{where}: true or false is wanted, not {shown(value)}")
    return value


def _slots(where: str, value: object) -> int:
    return _int(where, value, 1, hostspec.MOST_SLOTS)


def _nothing(where: str, value: object) -> None:
    if value is not None:
        raise Wrong(f"{where}: null is wanted, not {shown(value)}: the file has no such key")


#: how the value of each key is read, and what the file may have said of it
_READ: dict[str, Callable[[str, object], Any]] = {
    "admin": lambda where, value: _one_of(where, value, "down", "drain"),
    "weight": lambda where, value: _int(where, value, 0, 1000),
    "slots": _slots,
    "rank": _place,
    "there": _host_or_false,
}
_FILE: dict[str, Callable[[str, object], Any]] = {
    "admin": _nothing,
    "weight": _nothing,
    "slots": lambda where, value: value if value is None or value == hostspec.AUTO else _slots(where, value),
    "rank": lambda where, value: None if value is None else _one_of(where, value, *_SIDES),
    "there": lambda where, value: None if value is None else _truth(where, value),
}
