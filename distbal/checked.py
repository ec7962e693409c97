"""Values out of JSON, looked at before they are believed: whoever reads them gets what it wanted, or a sentence.

What one version of distbal writes another may read. So a key that is not known is passed over, and one that is missing has its
default; but a value that is there is what it has to be, or :class:`Wrong` says where it is not.
"""

from __future__ import annotations

import json
import reprlib
from math import isfinite

#: no count, time or number of a thing is beyond it: a microsecond's count since 1970 has room, and so has a 64-bit number
MOST = (1 << 63) - 1
#: bytes of JSON that are read at once
MOST_BYTES = 64 << 20
#: characters of one text
MOST_CHARS = 4000
#: characters of a value in a sentence about it
MOST_SHOWN = 100


class Wrong(ValueError):
    """A value is not what was wanted; the text says where, and what would be right."""


_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = 60


def shown(value: object) -> str:
    """Any value in few characters, for a sentence."""
    words = _shown.repr(value)
    return words if len(words) <= MOST_SHOWN else f"{words[:MOST_SHOWN]}..."


def kept(text: str) -> str:
    """As much of a text as :meth:`Fields.text` takes."""
    return text if len(text) <= MOST_CHARS else text[:MOST_CHARS]


class Fields:
    """A mapping's values, by their keys. Each method raises Wrong for a value that is not what it promises.

    :param values: what stands there.
    :param where: what to call it in a sentence; "" for the whole.
    """

    __slots__ = ("_values", "_where")

    def __init__(self, values: object, where: str = "") -> None:
        if not isinstance(values, dict):
            raise Wrong(f"{where or 'the whole'}: a mapping is wanted, not {shown(values)}")
        self._values = values
        self._where = where

    def __contains__(self, key: str) -> bool:
        """Whether there is a value, other than null."""
        return self._values.get(key) is not None

    def at(self, key: str) -> str:
        """What to call the value of a key in a sentence."""
        return f"{self._where}.{key}" if self._where else key

    def need(self, *keys: str) -> None:
        """These may not be missing."""
        for key in keys:
            if key not in self:
                raise Wrong(f"{self.at(key)} is missing")

    def whole(self, key: str, least: int = 0, most: int = MOST, default: int = 0) -> int:
        """A whole number in these bounds."""
        value = self._values.get(key)
        return default if value is None else whole(value, self.at(key), least, most)

    def number(self, key: str, least: float = 0.0, default: float = 0.0) -> float:
        """A finite number, not below the least."""
        value = self._values.get(key)
        return default if value is None else number(value, self.at(key), least)

    def moment(self, key: str) -> float | None:
        """Seconds on the scheduler's clock, which may lie before its beginning; None where there are none."""
        value = self._values.get(key)
        return None if value is None else number(value, self.at(key), -float(MOST))

    def truth(self, key: str, *, default: bool = False) -> bool:
        value = self._values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise Wrong(f"{self.at(key)}: true or false is wanted, not {shown(value)}")
        return value

    def text(self, key: str, default: str = "") -> str:
        value = self._values.get(key)
        return default if value is None else text(value, self.at(key))

    def word(self, key: str, default: str = "") -> str:
        """A text that can stand in a line among others: visible characters of ASCII alone, no spaces."""
        value = self.text(key, default)
        if value and not (value.isascii() and value.isprintable() and " " not in value):
            raise Wrong(f"{self.at(key)}: one word is wanted, not {shown(value)}")
        return value

    def each(self, key: str, most: int) -> list[object]:
        """A list's values, so many at most."""
        value = self._values.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise Wrong(f"{self.at(key)}: a list is wanted, not {shown(value)}")
        if len(value) > most:
            raise Wrong(f"{self.at(key)}: {len(value)} values are too many: {most} at most")
        return value

    def fields(self, key: str) -> Fields:
        """A mapping in it; an empty one where it is missing."""
        value = self._values.get(key)
        return Fields({} if value is None else value, self.at(key))


def values(data: bytes) -> object:
    """What JSON says; ValueError where it is none, or too much of it."""
    if len(data) > MOST_BYTES:
        raise Wrong(f"it has {len(data)} bytes, and {MOST_BYTES} at most are read")
    try:
        return json.loads(data)
    except RecursionError:
        raise Wrong("it is nested too deeply") from None


def text(value: object, where: str) -> str:
    """A text that is not too long; Wrong says where it is not."""
    if not isinstance(value, str):
        raise Wrong(f"{where}: a text is wanted, not {shown(value)}")
    if len(value) > MOST_CHARS:
        raise Wrong(f"{where}: a text has at most {MOST_CHARS} characters, not {len(value)}")
    return value


def whole(value: object, where: str, least: int = 0, most: int = MOST) -> int:
    """A whole number in these bounds; Wrong says where it is not."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Wrong(f"{where}: a whole number, {least} to {most}, is wanted, not {shown(value)}")
    return value


def number(value: object, where: str, least: float = 0.0) -> float:
    """A finite number, not below the least and not beyond :data:`MOST`; Wrong says where it is not."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= MOST or not isfinite(value):
        raise Wrong(f"{where}: a number, {least:g} at least, is wanted, not {shown(value)}")
    return float(value)
