"""The hosts of a file changed in its text, and nothing else of it: other slots, others in a rank, other places, fewer, more.

:func:`in_place` keeps what it can to the letter; :func:`anew` writes all of the hosts again from their values alone, for files
in which the first one does not come out right. Neither is trusted: who calls them reads the result, and compares.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from distbal import hostlines, yamlwrite
from distbal.hostlines import BREAK, HostLines, Item
from distbal.hosts import Farm, HostSpec
from distbal.yamlfile import Node

#: comments to be put above a host, by its name, each from its ``#``
Notes = Mapping[str, list[str]]


@dataclass(slots=True)
class _Piece:
    """One host as it is put into a rank that is written again.

    :ivar text: its own, and ``flat``: the same for between brackets, "" where that cannot be.
    :ivar column: the one, from 0, that its text began in.
    """

    text: str
    flat: str
    column: int = 0
    above: list[str] = field(default_factory=list)
    beside: str = ""


@dataclass(slots=True)
class _Rank:
    """One rank of the farm as it has to be.

    :ivar origin: the number of the entry of the file that it is made of; None for a new one.
    :ivar kept: it holds the very hosts of that entry.
    """

    specs: list[HostSpec]
    origin: int | None = None
    kept: bool = False


def ranks(farm: Farm) -> list[list[HostSpec]]:
    """The hosts by rank, the fastest first."""
    found: dict[int, list[HostSpec]] = {}
    for spec in farm.hosts:
        found.setdefault(spec.rank, []).append(spec)
    return [found[rank] for rank in sorted(found)]


def in_place(text: str, root: Node, file: Farm, wanted: Farm, notes: Notes) -> str:
    """The text with as little of it changed as can be.

    :param root: the text as it was parsed; ``file``: the farm that it describes.
    :param wanted: the farm that it has to describe; its hosts differ from the file's in slots, rank, and in which there are.
    :param notes: where no comments can stand beside hosts, they stand above all of them, or are left out: :func:`can_note`.
    :raises NotInPlace: it is written so that this cannot be done.
    """
    if file == wanted and not notes:
        return text
    lines = HostLines(text, root)
    work = _Rewriting(lines, file, wanted, notes)
    return work.of_flow() if lines.hosts.flow else work.of_block()


def can_note(text: str, root: Node) -> bool:
    """Whether there is a place for notes about hosts: not in a file that is one mapping between brackets, such as JSON."""
    lines = HostLines(text, root)
    return lines.key_begins_line or not lines.hosts.flow


def anew(text: str, root: Node, file: Farm, wanted: Farm, notes: Notes) -> str:
    """The text with all of its hosts written again from their values: without comments, anchors and aliases of their own."""
    before = {spec.name: spec for spec in file.hosts}
    lines = HostLines(text, root)
    assert lines.hosts.items is not None  # noqa: S101 (the file is good)
    start, end = lines.hosts.start, lines.end_of(lines.hosts)
    nodes: dict[str, Node] = {}
    for item in lines.hosts.items:
        nodes |= {hostlines.name_of(node): node for node in ([item] if item.items is None else item.items)}

    def written(spec: HostSpec, *, flow: bool) -> str:
        node = nodes.get(spec.name)
        if node is None:
            return yamlwrite.host(spec, flow=flow)
        return hostlines.anew(node, spec.slots if _differ(before[spec.name], spec) else None, flow=flow)

    line = lines.line_start(lines.line_of(start))
    if not lines.hosts.flow and not text[line:start].strip(" "):
        pad = lines.newline + " " * (start - line)
        block: list[str] = []
        for rank in ranks(wanted):
            block += [note for spec in rank for note in notes.get(spec.name, ())]
            block.append("- " + _flat_rank([written(spec, flow=len(rank) > 1) for spec in rank]))
        return text[:start] + pad.join(block) + text[end:]
    flat = [[written(spec, flow=True) for spec in rank] for rank in ranks(wanted)]
    made = "".join(f"{lines.newline}  {_flat_rank(rank)}," for rank in flat)
    return _noted_above(lines, text[:start], [note for spec in wanted.hosts for note in notes.get(spec.name, ())]) + (
        f"[{made}{lines.newline}]{text[end:]}"
    )


def _differ(before: HostSpec, spec: HostSpec) -> bool:
    """Whether a host has other slots than the file gives it."""
    return (before.slots, before.auto) != (spec.slots, spec.auto)


def _flat_rank(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


def _noted_above(lines: HostLines, before: str, notes: Iterable[str]) -> str:
    """What stands in front of the hosts, with the notes above the line of ``hosts:``."""
    if not lines.key_begins_line:
        return before
    start = lines.line_start(lines.line_of(lines.key.start))
    pad = before[start : lines.key.start]
    return before[:start] + "".join(f"{pad}{note}{lines.newline}" for note in notes) + before[start:]


def _unmoved(origins: list[int]) -> set[int]:
    """As many of the numbers as can be that stand in ascending order already (Schensted, 1961)."""
    #: the least number that an ascending row of each length ends with, and what stands before each number in its row
    ends: list[int] = []
    before: dict[int, int | None] = {}
    for number in origins:
        length = bisect_left(ends, number)
        before[number] = ends[length - 1] if length else None
        ends[length : length + 1] = [number]
    found: set[int] = set()
    number_or_none = ends[-1] if ends else None
    while number_or_none is not None:
        found.add(number_or_none)
        number_or_none = before[number_or_none]
    return found


class _Rewriting:
    """One text on its way to another farm."""

    def __init__(self, lines: HostLines, file: Farm, wanted: Farm, notes: Notes) -> None:
        self.lines = lines
        self.items = lines.items()
        self.notes = notes
        self.before = {spec.name: spec for spec in file.hosts}
        self.entries = {entry.name: (number, entry) for number, item in enumerate(self.items) for entry in item.entries}
        self.ranks = self.matched(ranks(wanted))

    def matched(self, wanted: list[list[HostSpec]]) -> list[_Rank]:
        """The wanted ranks, each with the entry of the file that it is made of: the one that it has the most hosts of."""
        found = [_Rank(specs) for specs in wanted]
        shared = []
        for place, rank in enumerate(found):
            numbers = [self.entries[spec.name][0] for spec in rank.specs if spec.name in self.entries]
            # of two that share as much the one that stands nearer to where it was
            shared += [(hosts, -abs(place - number), number, rank) for number, hosts in Counter(numbers).items()]
        taken = set()
        # no entry serves two
        for *_, number, rank in sorted(shared, key=lambda one: one[:2], reverse=True):
            if rank.origin is None and number not in taken:
                taken.add(number)
                # what stands elsewhere, behind an alias, cannot be changed there
                fixed = any(self.differs(spec) and not self.entries[spec.name][1].here for spec in rank.specs)
                rank.origin = number
                rank.kept = self.items[number].names == [spec.name for spec in rank.specs] and not fixed
        return found

    def differs(self, spec: HostSpec) -> bool:
        """Whether the file gives that host other slots."""
        before = self.before.get(spec.name)
        return before is not None and _differ(before, spec)

    def edits(self, specs: Iterable[HostSpec]) -> list[tuple[int, int, str]]:
        """The changes of slots within the text of entries, in its order."""
        return sorted(self.lines.edit(self.entries[spec.name][1].node, spec.slots) for spec in specs if self.differs(spec))

    def changed(self, start: int, end: int, edits: list[tuple[int, int, str]]) -> str:
        """A part of the text, with the changes in it; one behind its end stands at its end."""
        parts = []
        for begin, stop, new in edits:
            parts += [self.lines.text[start : min(begin, end)], new]
            start = min(stop, end)
        return "".join(parts) + self.lines.text[start:end]

    def piece(self, spec: HostSpec) -> _Piece:
        """A host for a rank that is written again."""
        if spec.name not in self.entries:
            return _Piece(yamlwrite.host(spec, flow=False), yamlwrite.host(spec))
        entry = self.entries[spec.name][1]
        node = entry.node
        if not entry.here:
            slots = spec.slots if self.differs(spec) else None
            return _Piece(hostlines.anew(node, slots, flow=False), hostlines.anew(node, slots), 0, entry.above, entry.beside)
        text = self.changed(node.start, self.lines.end_of(node), self.edits([spec]))
        flat = text
        if BREAK.search(text) or (node.entries is not None and not node.flow and not node.alias):
            flat = ""
        elif node.entries is None and not node.alias and text[0] not in "'\"":
            flat = "" if text[0] in "&!|>" else yamlwrite.scalar(text) if set(text) & set(",[]{}") else text
        column = node.start - self.lines.line_start(self.lines.line_of(node.start))
        return _Piece(text, flat, column, entry.above, entry.beside)

    def of_block(self) -> str:
        """Hosts with dashes."""
        stable = _unmoved([rank.origin for rank in self.ranks if rank.origin is not None])
        # what moved, or is new, stands behind what it follows
        behind: dict[int | None, list[str]] = {}
        place: int | None = None
        in_their_place: dict[int, str] = {}
        for rank in self.ranks:
            made = self.block_rank(rank)
            if rank.origin is not None and rank.origin in stable:
                place = rank.origin
                in_their_place[place] = made
            else:
                behind.setdefault(place, []).append(made)
        parts = [self.items[0].free, *behind.get(None, ())]
        for number, item in enumerate(self.items):
            if number:
                parts.append(item.free)
            if number in stable:
                parts += [in_their_place[number], *behind.get(number, ())]
        text, start, end = self.lines.text, self.items[0].begin - len(self.items[0].free), self.items[-1].end
        newline = self.lines.newline
        whole = [part if not part or BREAK.search(part[-1]) else part + newline for part in parts]
        block = "".join(whole)
        if end and not BREAK.search(text[end - 1]) and block.endswith(newline):
            block = block[: -len(newline)]
        return text[:start] + block + text[end:]

    def block_rank(self, rank: _Rank) -> str:
        """The lines of one rank."""
        pad, newline = self.pad, self.lines.newline
        notes = "".join(f"{pad}{note}{newline}" for spec in rank.specs for note in self.notes.get(spec.name, ()))
        if rank.kept and rank.origin is not None:
            item = self.items[rank.origin]
            return self.lines.text[item.begin : item.dash] + notes + self.changed(item.dash, item.end, self.edits(rank.specs))
        pieces = [self.piece(spec) for spec in rank.specs]
        above, beside = self.about(rank)
        flat = [piece.flat for piece in pieces if piece.flat and not piece.above and not piece.beside]
        if len(pieces) == 1:
            above, beside = [*above, *([beside] if beside else []), *pieces[0].above], pieces[0].beside
            made = f"{pad}- {_shifted(pieces[0], len(pad) + 2)}"
        elif len(flat) == len(pieces):
            made = f"{pad}- [{', '.join(flat)}]"
        else:
            above, beside = [*above, *([beside] if beside else []), *pieces[0].above], ""
            inner = f"{pad}  "
            made = f"{pad}- "
            for number, piece in enumerate(pieces):
                if number:
                    made += newline + "".join(f"{inner}{comment}{newline}" for comment in piece.above) + inner
                made += f"- {_shifted(piece, len(inner) + 2)}{_behind(piece.beside)}"
        return "".join(f"{pad}{comment}{newline}" for comment in above) + notes + made + _behind(beside) + newline

    @property
    def pad(self) -> str:
        """What stands before the dashes."""
        line = self.lines.text[self.items[0].dash : self.items[0].dash + 200]
        return line[: len(line) - len(line.lstrip(" "))]

    def about(self, rank: _Rank) -> tuple[list[str], str]:
        """The comments on the rank as a whole: (above, beside)."""
        item: Item | None = None if rank.origin is None else self.items[rank.origin]
        return ([], "") if item is None else (list(item.above), item.beside)

    def of_flow(self) -> str:
        """Hosts between brackets."""
        lines = self.lines
        start, end = lines.hosts.start, lines.end_of(lines.hosts)
        specs = [spec for rank in self.ranks for spec in rank.specs]
        if all(rank.kept for rank in self.ranks) and [rank.origin for rank in self.ranks] == list(range(len(self.items))):
            made = self.changed(start, end, self.edits(specs))
        else:
            made = self.flow_list(BREAK.search(lines.text, start, end) is not None)
        notes = [note for spec in specs for note in self.notes.get(spec.name, ())]
        return _noted_above(lines, lines.text[:start], notes) + made + lines.text[end:]

    def flow_list(self, several_lines: bool) -> str:
        """The list as a whole."""
        parts = []
        for rank in self.ranks:
            pieces = [self.piece(spec) for spec in rank.specs]
            above, beside = self.about(rank)
            if len(pieces) == 1 and not beside:
                beside = pieces[0].beside
            elif len(pieces) > 1 or beside:
                above += [piece.beside for piece in pieces if piece.beside]
            above += [comment for piece in pieces for comment in piece.above]
            parts.append((above, _flat_rank([piece.flat or piece.text for piece in pieces]), beside))
        if not several_lines:
            return f"[{', '.join(text for _, text, _ in parts)}]"
        newline = self.lines.newline
        pad = " " * max(1, self.items[0].node.column - 1)
        made = "".join(
            "".join(f"{pad}{comment}{newline}" for comment in above) + f"{pad}{text},{_behind(beside)}{newline}"
            for above, text, beside in parts
        )
        close = " " * (self.lines.key.column - 1)
        return f"[{newline}{made}{close}]"


def _behind(comment: str) -> str:
    return f"  {comment}" if comment else ""


def _shifted(piece: _Piece, column: int) -> str:
    """Its text, to begin in that column: the lines below the first move with it."""
    by = column - piece.column
    first, *more = piece.text.splitlines(keepends=True)
    for line in more:
        blank = not line.strip()
        gap = len(line) - len(line.lstrip(" "))
        first += line if blank else " " * by + line if by > 0 else line[min(-by, gap) :]
    return first
