"""Items kept in order while their keys change: a heap in which an outdated entry is skipped when it comes to the top.

The scheduler asks the same question in three places (which host is best, whose turn is it, what expires next), and each time
the answer must not slow down with the number of items. ``put`` and ``first`` cost O(log n), amortised: every entry is pushed
once and popped once, and the outdated ones are swept out when they outnumber the others.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)

#: below this many entries a sweep is not worth its while
_SMALL = 64


class Ranking(Generic[Item]):
    """Items, each with one key; the least key comes first, and of equal keys the one that was put first."""

    __slots__ = ("_heap", "_keys", "_serial")

    def __init__(self) -> None:
        self._heap: list[tuple[Any, int, Item]] = []
        self._keys: dict[Item, tuple[Any, int]] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, item: Item) -> bool:
        return item in self._keys

    def put(self, item: Item, key: Any) -> None:
        """Take an item in, or move it to another key; an unchanged key costs nothing and keeps its place."""
        keys = self._keys
        current = keys.get(item)
        if current is not None and current[0] == key:
            return
        self._serial = serial = self._serial + 1
        keys[item] = (key, serial)
        heap = self._heap
        if len(heap) > _SMALL and len(heap) > 2 * len(keys):
            heap[:] = [(key, serial, item) for item, (key, serial) in keys.items()]
            heapq.heapify(heap)
        else:
            heapq.heappush(heap, (key, serial, item))

    def discard(self, item: Item) -> None:
        """Forget an item; nothing happens when it is not there."""
        self._keys.pop(item, None)

    def key(self, item: Item) -> Any:
        """The key that it was put with; KeyError when it is not there."""
        return self._keys[item][0]

    def first(self, skip: Callable[[Item], bool] | None = None) -> Item | None:
        """The item with the least key, or None.

        :param skip: items for which it is true are passed over; each one costs O(log n).
        """
        heap, keys = self._heap, self._keys
        passed_over: list[tuple[Any, int, Item]] = []
        found = None
        while heap:
            _, serial, item = entry = heap[0]
            current = keys.get(item)
            if current is None or current[1] != serial:
                heapq.heappop(heap)
            elif skip is not None and skip(item):
                passed_over.append(heapq.heappop(heap))
            else:
                found = entry[2]
                break
        for entry in passed_over:
            heapq.heappush(heap, entry)
        return found
