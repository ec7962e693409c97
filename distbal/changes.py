"""Who changed what, when and from where: a bounded record of the verbs that changed something."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

#: changes that are remembered; the oldest is forgotten first
DEFAULT_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Change:
    """One of them.

    :ivar at: when, in seconds since 1970.
    :ivar by: who: an account's name, or the comment of an SSH key; ``where``: by which way it came (``admin socket``).
    :ivar verb: the operation; ``words``: all of what was said, the verb included.
    :ivar what: what came of it, in words.
    """

    at: float
    by: str
    where: str
    verb: str
    words: tuple[str, ...]
    what: str


class Changes:
    """The last changes, in the order in which they were made.

    :param limit: how many to remember, at least 1.
    """

    def __init__(self, made: Iterable[Change] = (), limit: int = DEFAULT_LIMIT) -> None:
        if limit < 1:
            raise ValueError(f"a record of changes remembers at least one, not {limit}")
        self._made: deque[Change] = deque(made, maxlen=limit)

    def __iter__(self) -> Iterator[Change]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)

    def note(self, change: Change) -> None:
        """One was made."""
        self._made.append(change)

    def last(self, number: int) -> list[Change]:
        """The last ones, the latest first."""
        return list(self._made)[: -number - 1 : -1]
