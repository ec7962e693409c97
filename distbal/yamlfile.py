"""A YAML file as plain values that remember where they stand.

The text is read event by event, not with a loader: so nothing is ever constructed but texts, numbers, lists and mappings, every
value keeps its line, a key that stands twice is seen, and depth and size are bounded before anything is built. Scalars are
taken as JSON has them (true, false, null, numbers in decimal), and everything else is text: ``no``, ``on`` and ``1:30`` are
what they look like. Anchors and aliases work; tags and several documents in one file are mistakes.
"""

from __future__ import annotations

import errno
import math
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NoReturn, TypeAlias, cast

import yaml

from distbal.errors import ConfigError, Mistake
from distbal.yamlwords import misprint

#: a farm of 10,000 hosts in the long form takes about 1 MB
MOST_BYTES = 2 * 1024 * 1024
#: values in the file, aliases counted as what they stand for
MOST_VALUES = 200_000
#: the deepest value that means anything stands at 5
MOST_DEPTH = 20

#: a path from the root: keys and indexes, from 0
Path: TypeAlias = tuple[str | int, ...]

#: pipes, devices, sockets (of which the system says ENXIO)
_NO_FILE = "it is no regular file"

_INT = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,40})?(?:[eE][-+]?[0-9]{1,3})?")
_WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS_TRUE = ("true", "True", "TRUE")
_WORDS_FALSE = ("false", "False", "FALSE")


@dataclass(slots=True)
class Node:
    """One value of the file.

    :ivar line: from 1, as is ``column``.
    :ivar value: a scalar's value; unused for lists and mappings.
    :ivar items: of a list; None for everything else.
    :ivar entries: of a mapping, by key: (the key's own place, the value); None for everything else.
    :ivar size: how many values it holds, itself included; ``depth``: how many stand inside each other.
    :ivar open: it is still being read: an alias to it would be inside itself.
    :ivar start: where its text begins, in characters from 0, its anchor included; ``end``: the first one behind it.
    :ivar flow: a list or mapping between brackets.
    :ivar alias: what stands here is an alias to it; the places of what it holds are those of the original.
    """

    line: int
    column: int
    value: str | int | float | bool | None = None
    items: list[Node] | None = None
    entries: dict[str, tuple[Node, Node]] | None = None
    size: int = 1
    depth: int = 1
    open: bool = False
    start: int = 0
    end: int = 0
    flow: bool = False
    alias: bool = False

    def plain(self) -> object:
        """The value alone, as lists, dictionaries with texts as keys, and scalars."""
        if self.items is not None:
            return [item.plain() for item in self.items]
        if self.entries is not None:
            return {key: value.plain() for key, (_, value) in self.entries.items()}
        return self.value

    def at(self, path: Path) -> tuple[Path, Node]:
        """Follow the path as far as the file goes: (what of it exists here, the value there).

        Steps that fit no list or mapping are left out: the models see a short form in its long form.
        """
        found: list[str | int] = []
        node = self
        for step in path:
            if isinstance(step, int) and node.items is not None and step < len(node.items):
                node = node.items[step]
            elif isinstance(step, str) and node.entries is not None and step in node.entries:
                node = node.entries[step][1]
            else:
                continue
            found.append(step)
        return tuple(found), node

    def key_at(self, path: Path) -> Node:
        """The place of the last key of the path; of the value where it ends in an index or does not exist."""
        found, node = self.at(path[:-1])
        if found == path[:-1] and node.entries is not None and path[-1] in node.entries:
            return node.entries[str(path[-1])][0]
        return self.at(path)[1]


@dataclass(slots=True)
class Document:
    """A file that could be read.

    :ivar root: what stands in it.
    :ivar mistakes: what is wrong with its YAML, where that did not end the reading.
    """

    root: Node
    mistakes: list[Mistake] = field(default_factory=list)


def read(path: str) -> str:
    """The text of the file, at most :data:`MOST_BYTES` of UTF-8; ConfigError where there is none to be had.

    It never waits for somebody to write: only a regular file is read.
    """
    try:
        with open(path, "rb", opener=_open) as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)).lower()
        if isinstance(error, OSError) and error.errno == errno.ENXIO:
            reason = _NO_FILE
        raise ConfigError(path, [Mistake(0, 0, "", f"cannot be read: {reason}")]) from error
    if len(data) > MOST_BYTES:
        raise ConfigError(path, [Mistake(0, 0, "", f"is larger than {MOST_BYTES // 1024 // 1024} MiB: is it the right file?")])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        good = data[: error.start].decode("utf-8", "replace")
        line, column = good.count("\n") + 1, len(good) - good.rfind("\n")
        text = f"byte 0x{data[error.start]:02x} is not UTF-8: save the file as UTF-8"
        raise ConfigError(path, [Mistake(line, column, "", text)]) from error


def _open(path: str, flags: int) -> int:
    # without O_NONBLOCK the open itself waits for a pipe's writer; open() of Python refuses a directory
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        os.close(descriptor)
        raise OSError(_NO_FILE)
    return descriptor


def parse(path: str, text: str) -> Document:
    """The text as a tree; ConfigError where it cannot be read to its end."""
    try:
        events = yaml.parse(text, Loader=yaml.SafeLoader)
        return _Composer(path, events).document()
    except yaml.YAMLError as error:
        raise ConfigError(path, [misprint(error, text)]) from error


def where(path: Path) -> str:
    """The path as a reader would say it: ``hosts[2].slots``."""
    said = ""
    for step in path:
        if isinstance(step, int):
            said += f"[{step}]"
        elif re.fullmatch("[A-Za-z0-9_-]{1,60}", step):
            said += f".{step}" if said else step
        else:
            said += f"[{_name(step)}]"
    return said


def scalar(text: str) -> str | int | float | bool | None:
    """What an unquoted word of the file means.

    A number with nothing behind its point is a whole one, as JSON Schema counts it. What is no number of JSON's, or longer
    than anything here can be, stays a text and is refused as one.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text in _WORDS_TRUE or text in _WORDS_FALSE:
        return text in _WORDS_TRUE
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if math.isfinite(number):
            return int(number) if number.is_integer() and abs(number) < 1e15 else number
    return text


class _Composer:
    """Builds the tree; remembers anchors, and what was wrong on the way."""

    def __init__(self, path: str, events: Iterator[yaml.Event]) -> None:
        self.path = path
        self.events = events
        self.anchors: dict[str, Node] = {}
        self.mistakes: list[Mistake] = []
        self.values = 0

    def document(self) -> Document:
        root: Node | None = None
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    self.end(event, "", "a second document begins here: the file holds one, so leave out the ---")
                root = self.value(next(self.events), ())
        if root is None or (root.items is None and root.entries is None and root.value is None):
            raise ConfigError(self.path, [Mistake(0, 0, "", "is empty: it needs hosts at least")])
        return Document(root, self.mistakes)

    def value(self, event: yaml.Event, path: Path) -> Node:
        """The value that begins with the event, read to its end."""
        node = _node(event)
        self.values += 1
        if isinstance(event, yaml.AliasEvent):
            node = self.alias(event, path)
            self.values += node.size
        if len(path) + node.depth > MOST_DEPTH:
            self.end(event, where(path[:3]), f"lists and mappings inside each other more than {MOST_DEPTH} deep")
        if self.values > MOST_VALUES:
            self.end(event, "", f"more than {MOST_VALUES} values, counting aliases as what they stand for")
        if isinstance(event, yaml.AliasEvent):
            return node
        event = cast("yaml.ScalarEvent | yaml.CollectionStartEvent", event)
        if event.tag is not None and event.tag != "!":
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self.wrong(node, path, f"the tag {_name(tag)} means nothing here: leave it out")
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        node.open = True
        if isinstance(event, yaml.ScalarEvent):
            text = _joined(event.value)
            node.value = scalar(text) if event.style is None and event.tag is None else text
        else:
            node.flow = bool(event.flow_style)
            if isinstance(event, yaml.SequenceStartEvent):
                self.sequence(node, path)
            else:
                self.mapping(node, path)
        node.open = False
        return node

    def sequence(self, node: Node, path: Path) -> None:
        node.items = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            item = self.value(event, (*path, len(node.items)))
            node.items.append(item)
            node.size += item.size
            node.depth = max(node.depth, item.depth + 1)
            node.end = item.end
        _close(node, event)

    def mapping(self, node: Node, path: Path) -> None:
        node.entries = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.value(event, path)
            written = _joined(event.value) if isinstance(event, yaml.ScalarEvent) else None
            value = self.value(next(self.events), (*path, written or "?"))
            node.size += key.size + value.size
            node.depth = max(node.depth, key.depth + 1, value.depth + 1)
            if written is None:
                self.wrong(key, path, _why_no_key(key))
            elif written in node.entries:
                first = node.entries[written][0].line
                self.wrong(key, (*path, written), f"{_name(written)} stands twice, first on line {first}: keep one of them")
            else:
                node.entries[written] = (key, value)
            node.end = value.end
        _close(node, event)

    def alias(self, event: yaml.AliasEvent, path: Path) -> Node:
        node = _node(event)
        anchor = str(event.anchor)
        target = self.anchors.get(anchor)
        if target is None:
            self.wrong(node, path, f"*{anchor[:60]} stands for &{anchor[:60]}, which no line above has")
        elif target.open:
            self.end(event, where(path), f"*{anchor[:60]} stands for a value that it is itself a part of")
        else:
            return replace(target, line=node.line, column=node.column, start=node.start, end=node.end, alias=True)
        return node

    def wrong(self, node: Node, path: Path, text: str) -> None:
        self.mistakes.append(Mistake(node.line, node.column, where(path), text))

    def end(self, event: yaml.Event, place: str, text: str) -> NoReturn:
        """Give up: what follows would only be confusing, or too much."""
        self.mistakes.append(Mistake(*_place(event), place, text))
        raise ConfigError(self.path, self.mistakes)


def _place(event: yaml.Event) -> tuple[int, int]:
    """Line and column, from 1."""
    mark = cast("yaml.error.Mark", event.start_mark)
    return mark.line + 1, mark.column + 1


def _node(event: yaml.Event) -> Node:
    """A value that begins with the event, and ends with it as far as is known yet."""
    start, end = cast("yaml.error.Mark", event.start_mark), cast("yaml.error.Mark", event.end_mark)
    return Node(start.line + 1, start.column + 1, start=start.index, end=end.index)


def _close(node: Node, event: yaml.Event) -> None:
    """A list or mapping ends with its bracket; in block style with its last value (YAML notices its end only behind it)."""
    if node.flow:
        node.end = cast("yaml.error.Mark", event.end_mark).index


def _joined(text: str) -> str:
    """Two escapes that are halves of one character, as JSON writes some, as that character; a half alone as U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _name(text: str) -> str:
    return f'"{text}"' if text.isprintable() and len(text) <= 60 else ascii(text[:60])


def _why_no_key(key: Node) -> str:
    inner = key.items[0].value if key.items else None
    if isinstance(inner, str) and ":" in inner:
        return f'[{inner}] is a list to YAML: put the whole text in quotes, as in "[{inner}]:3632"'
    return "a key is one word, not a list, a mapping or an alias"
