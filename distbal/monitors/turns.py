"""Whose check may begin: of one kind no more at once than it allows, of one kind and one host never two. The others wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from distbal.monitors.watch import Watch


class Turns:
    """Lets checks begin.

    :param begin: begins one; :meth:`over` says when it has ended, perhaps before this returns.
    """

    def __init__(self, begin: Callable[[Watch], None]) -> None:
        self._begin = begin
        #: by kind: how many run, and who waits until fewer do
        self._running: dict[str, int] = {}
        self._crowd: dict[str, deque[Watch]] = {}
        #: by host and kind, where one runs: who waits for its end, if anybody
        self._busy: dict[tuple[str, str], list[Watch] | None] = {}
        self._letting_in: set[str] = set()

    def ask(self, watch: Watch) -> None:
        """Begin this one's check, now or when its turn comes."""
        kind = watch.assignment.kind
        if self._running.get(kind.name, 0) < kind.most_at_once:
            self._enter(watch)
        else:
            self._crowd.setdefault(kind.name, deque()).append(watch)

    def over(self, watch: Watch) -> None:
        """A check that was begun has ended: let in who waited for that."""
        kind = watch.assignment.kind
        self._running[kind.name] -= 1
        line = self._busy.pop(watch.turn)
        if line:
            self._crowd.setdefault(kind.name, deque()).extend(line)
        crowd = self._crowd.get(kind.name)
        if not crowd or kind.name in self._letting_in:
            return  # a check that ends at once comes here again: it must not go deeper with each
        self._letting_in.add(kind.name)
        try:
            while crowd and self._running[kind.name] < kind.most_at_once:
                following = crowd.popleft()
                if not following.gone:
                    self._enter(following)
        finally:
            self._letting_in.discard(kind.name)

    def _enter(self, watch: Watch) -> None:
        """There is room for it, unless its host is being asked by this kind already."""
        if watch.turn in self._busy:
            line = self._busy[watch.turn]
            if line is None:
                line = self._busy[watch.turn] = []
            line.append(watch)
            return
        self._busy[watch.turn] = None
        name = watch.assignment.kind.name
        self._running[name] = self._running.get(name, 0) + 1
        self._begin(watch)
