"""The hosts of a hosts.yaml as they stand in its text: which characters are whose, the comments around them included.

A comment on the line of an entry, or on the lines directly above it in the same column, belongs to the entry and goes where it
goes. Every other line between two entries is free: it stays where it is.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field

from distbal import hostspec, yamlwrite
from distbal.hostspec import HostText
from distbal.yamlfile import Node

#: what ends a line, and so a comment, to YAML 1.1
BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_COMMENT = re.compile("#[^\r\n\x85\u2028\u2029]*")
_REST = re.compile("[ \t]*(#[^\r\n\x85\u2028\u2029]*)?")


class NotInPlace(Exception):
    """The text has a form in which nothing can be changed by itself; the hosts have to be written anew."""


@dataclass(slots=True)
class Entry:
    """One host.

    :ivar here: its text stands where it is, and not where an alias leads.
    :ivar above: its comments, from their ``#``; ``beside``: the one on its last line, or "".
    """

    name: str
    node: Node
    here: bool = True
    above: list[str] = field(default_factory=list)
    beside: str = ""


@dataclass(slots=True)
class Item:
    """One entry of the list: a host, or several of one rank.

    :ivar above: comments of the whole rank, where it holds several; ``beside``: likewise.
    :ivar begin: where its first line begins, comments included; ``dash``: the line with its dash begins.
    :ivar end: the end of its last line.
    :ivar free: the text between the item before and this one that belongs to neither.
    """

    node: Node
    entries: list[Entry]
    above: list[str] = field(default_factory=list)
    beside: str = ""
    begin: int = 0
    dash: int = 0
    end: int = 0
    free: str = ""

    @property
    def names(self) -> list[str]:
        return [entry.name for entry in self.entries]


def name_of(node: Node) -> str:
    """The name of the host that is written there."""
    value = node.value if node.entries is None else node.entries["name"][1].value
    return hostspec.name_in(str(value)) if node.entries is None else str(value)


class HostLines:
    """The text of a good file, and its hosts.

    :param root: the text as :func:`distbal.yamlfile.parse` gives it.
    """

    def __init__(self, text: str, root: Node) -> None:
        if root.entries is None:
            raise NotInPlace
        self.text = text
        self.root = root
        self.key, self.hosts = root.entries["hosts"]
        self._starts = [0, *(found.end() for found in BREAK.finditer(text))]
        first = BREAK.search(text)
        #: how lines end here
        self.newline = first[0] if first and first[0] in ("\n", "\r\n", "\r") else "\n"

    @property
    def key_begins_line(self) -> bool:
        """Whether comments can stand above ``hosts:``."""
        return not self.root.flow and not self.text[self._starts[self.line_of(self.key.start)] : self.key.start].strip(" ")

    def line_of(self, index: int) -> int:
        """The number of the line, from 0, that the character stands on."""
        return bisect_right(self._starts, index) - 1

    def line_start(self, line: int) -> int:
        """Where a line begins; the end of the text where there is none."""
        return self._starts[line] if line < len(self._starts) else len(self.text)

    def end_of(self, node: Node) -> int:
        """The first character behind the value: a text in block style ends with its last word."""
        return node.start + len(self.text[node.start : node.end].rstrip())

    def source(self, node: Node) -> str:
        """The value's own text."""
        return self.text[node.start : self.end_of(node)]

    def rest(self, index: int) -> str:
        """The comment behind the character on its line, or ""; NotInPlace where something else stands there."""
        found = _REST.match(self.text, index)
        if found is None or (found.end() < len(self.text) and not BREAK.match(self.text, found.end())):
            raise NotInPlace
        return found[1] or ""

    def items(self) -> list[Item]:
        """Every entry of ``hosts``, in the order of the file."""
        assert self.hosts.items is not None  # noqa: S101 (the file is good)
        if self.hosts.alias:
            raise NotInPlace
        items = [self._item(node) for node in self.hosts.items]
        if self.hosts.flow:
            self._comments_between([self.hosts], [(item.node, self._owner(item)) for item in items])
            return items
        before = self._end_of_line(self.key.end)
        for item in items:
            self._place(item, before)
            before = self.end_of(item.node)
            if item.node.items is not None and item.node.flow:
                item.beside = self.rest(before)
            else:
                item.entries[-1].beside = self.rest(before)
        return items

    def edit(self, node: Node, slots: int) -> tuple[int, int, str]:
        """How a host's text is changed so that it has that many slots: (from, to, what stands there then)."""
        start, end, source = node.start, self.end_of(node), self.source(node)
        if node.entries is None:
            word = hostspec.parse(str(node.value))
            changed = str(HostText(word.name, slots, word.options))
            for quote in ("", '"', "'"):
                if source == f"{quote}{node.value}{quote}":
                    return start, end, f"{quote}{changed}{quote}"
        elif not node.alias and "slots" in node.entries:
            value = node.entries["slots"][1]
            return value.start, self.end_of(value), str(slots)
        elif not node.alias:
            key, value = node.entries["name"]
            behind = self.end_of(value)
            if node.flow:
                return behind, behind, f", slots: {slots}"
            comment = self.rest(behind)
            if comment and behind != end:
                behind = self._end_of_line(behind)
            return behind, behind, f"{self.newline}{' ' * (key.column - 1)}slots: {slots}"
        return start, end, anew(node, slots)

    def _end_of_line(self, index: int) -> int:
        found = BREAK.search(self.text, index)
        return found.start() if found else len(self.text)

    def _item(self, node: Node) -> Item:
        if node.items is None:
            return Item(node, [Entry(name_of(node), node)])
        item = Item(node, [Entry(name_of(inner), inner, not node.alias) for inner in node.items])
        if not node.alias:
            first = item.entries[0]
            self._comments_between([node], [(entry.node, entry) for entry in item.entries])
            # what stands behind the opening bracket, or above the first dash, is about all of them
            item.above, first.above = first.above, []
        return item

    @staticmethod
    def _owner(item: Item) -> Item | Entry:
        return item.entries[0] if item.node.items is None else item

    def _comments_between(self, whole: list[Node], nodes: list[tuple[Node, Item | Entry]]) -> None:
        """Give the comments between the values of one list to their owners: only brackets and dashes stand there else."""
        before = whole[0].start
        owner: Item | Entry | None = None
        for node, following in nodes:
            self._share(before, node.start, owner, following)
            before, owner = self.end_of(node), following
        if whole[0].flow and owner is not None:
            self._share(before, self.end_of(whole[0]), owner, owner)

    def _share(self, start: int, end: int, before: Item | Entry | None, following: Item | Entry) -> None:
        for found in _COMMENT.finditer(self.text, start, end):
            if before is not None and not before.beside and self.line_of(start) == self.line_of(found.start()):
                before.beside = found[0]
            else:
                following.above.append(found[0])

    def _place(self, item: Item, before: int) -> None:
        """Find an item's lines in block style.

        :param before: the end of what stands in front of it.
        """
        first = self.line_of(before) + 1
        last = self.line_of(item.node.start)
        lines = {number: self.text[self.line_start(number) : self.line_start(number + 1)] for number in range(first, last + 1)}
        dash = next((number for number, line in lines.items() if line.lstrip(" ").startswith("-")), None)
        if dash is None or any(lines[number].strip() and lines[number].lstrip()[0] != "#" for number in range(first, dash)):
            raise NotInPlace
        column = lines[dash].index("-")
        begin = dash
        while begin > first and lines[begin - 1].startswith(" " * column + "#"):
            begin -= 1
        own = [lines[number].strip() for number in range(begin, dash)]
        owner = self._owner(item)
        owner.above[:0] = own
        # a comment between the dash and the value
        owner.above += [found[0] for found in _COMMENT.finditer(self.text, self.line_start(dash), item.node.start)]
        item.begin, item.dash = self.line_start(begin), self.line_start(dash)
        item.end = self.line_start(self.line_of(max(item.node.start, self.end_of(item.node) - 1)) + 1)
        item.free = self.text[self.line_start(first) : item.begin]


def anew(node: Node, slots: int | None = None, *, flow: bool = True) -> str:
    """A host's text, on one line, from its values alone."""
    if node.entries is None:
        word = hostspec.parse(str(node.value))
        return yamlwrite.scalar(str(word if slots is None else HostText(word.name, slots, word.options)), flow=flow)
    values = node.plain()
    assert isinstance(values, dict)  # noqa: S101 (it has entries)
    return yamlwrite.one_line(values if slots is None else values | {"slots": slots})
