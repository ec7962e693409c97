"""Who changed what, when, and from where: a bounded record of what people did to the running farm."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

#: changes that are remembered; the oldest is forgotten first
DEFAULT_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that a person did.

    :ivar at: when, in seconds since 1970.
    :ivar by: who, as far as is known: a user of this machine, the comment of a key.
    :ivar where: from where: the port, or the client's address.
    :ivar verb: what was said: ``drain``; ``words``: all of it, the verb included.
    :ivar what: what came of it, one sentence.
    """

    at: float
    by: str
    where: str
    verb: str
    words: tuple[str, ...]
    what: str


class Changes:
    """The last changes, the oldest first.

    :param limit: how many to remember, at least 1.
    :param earlier: those that are known from before a restart.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT, earlier: Iterable[Change] = ()) -> None:
        if limit < 1:
            raise ValueError(f"a record of changes remembers at least one, not {limit}")
        self._last = deque(earlier, maxlen=limit)

    def __len__(self) -> int:
        return len(self._last)

    def __iter__(self) -> Iterator[Change]:
        return iter(tuple(self._last))

    def last(self, number: int) -> list[Change]:
        """The last ones, the latest first."""
        return list(self._last)[: -number - 1 : -1]

    def add(self, change: Change) -> None:
        """Note one more; the oldest may be forgotten."""
        self._last.append(change)
