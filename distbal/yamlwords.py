"""What a YAML parser's complaints mean, in the words of someone who only wanted to write a list of hosts."""

from __future__ import annotations

import re

import yaml

from distbal.errors import Mistake

_QUOTE = "put the text in quotes"

#: (what PyYAML says, what it means); the first that fits is taken, with the fitting groups filled in
_MEANINGS: tuple[tuple[str, str], ...] = (
    (r"found character '\\t'", "a tab stands where only spaces may: YAML indents with spaces"),
    (
        r"found character '@'",
        "no text begins with '@' in YAML, and @host is a host over ssh, which distbal does not do: run distccd there",
    ),
    (r"found character '(.)' that cannot start", f"no text begins with '{{0}}' in YAML: {_QUOTE}"),
    (r"mapping values are not allowed", f"a ': ' makes a key, and none can stand here: {_QUOTE}, or mend the indentation"),
    (r"sequence entries are not allowed", "a '- ' begins a list, and none can stand here: begin it on a line of its own"),
    (r"could not find expected ':'", "a key has a ':' and a space behind it"),
    (r"found unknown escape character '(.)'", "\\{0} means nothing between double quotes: use single quotes"),
    (r"expected ',' or '\]'", "a list that begins with [ on line {line} has no , or ] where one must be"),
    (r"expected ',' or '\}'", "a mapping that begins with {{ on line {line} has no , or }} where one must be"),
    (r"found unexpected end of stream", "the quote that begins on line {line} never ends"),
    (r"found unexpected document (?:separator|indicator)", "the quote that begins on line {line} never ends"),
    (r"expected '<document start>'", "what stands above is complete by itself: a ':' is missing, or the indentation is wrong"),
    (r"mapping keys are not allowed", f"a '? ' makes a key, and none can stand here: {_QUOTE}"),
    (r"expected escape sequence", "between double quotes a backslash begins an escape, and this is none: use single quotes"),
    (r"expected <block end>, but found '(\]|\})'", "a {0} that closes nothing"),
    (r"expected <block end>", "the indentation does not fit the lines above: what belongs together begins in one column"),
    (r"expected (?:chomping or indentation|a comment or a line break)", f"'|' and '>' begin several lines of text: {_QUOTE}"),
    (r"expected the node content", f"a value is missing, or begins with a character that means something to YAML: {_QUOTE}"),
    (r"incompatible YAML document", "the file claims a version of YAML that is not known here: leave the %YAML line out"),
    (r"expected alphabetic or numeric character", f"'&' and '*' begin names of anchors: {_QUOTE}"),
    (r"expected URI|undefined tag handle|expected '[!>]'", f"'!' begins a tag, which means nothing here: {_QUOTE}"),
)


def misprint(error: yaml.YAMLError, text: str) -> Mistake:
    """The mistake that made the parser stop, at the place where it was noticed.

    :param error: what the parser raised.
    :param text: what it was reading.
    """
    if isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        return Mistake(line, column, "", f"a character that YAML does not allow (U+{error.character:04X}): take it out")
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return Mistake(0, 0, "", "is not YAML")
    mark, begun = error.problem_mark, error.context_mark or error.problem_mark
    if error.context == "while scanning a simple key":  # noticed only when the next line came
        mark = begun
    line, column = mark.line + 1, mark.column + 1
    source = (text.splitlines() or [""])[min(mark.line, len(text.splitlines()) - 1)] if text.strip() else ""
    address = re.match(r"\s*(?:[^#]*?[\s\[{,])?(\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\][^\s,\]}]*)", source)
    if address:
        return Mistake(line, address.start(1) + 1, "", f'[...] is a list to YAML: write "{address[1]}", with the quotes')
    template = re.search(r":\s+(\{(?:name|options)\}[^\s#]+)", source)
    if template:
        return Mistake(line, template.start(1) + 1, "", f'{{...}} is a mapping to YAML: write "{template[1]}", with the quotes')
    for said, meaning in _MEANINGS:
        found = re.search(said, error.problem or "")
        if found:
            return Mistake(line, column, "", meaning.format(*found.groups(), line=begun.line + 1))
    return Mistake(line, column, "", f"not YAML, here or on the line above: quotes may help ({error.problem})")
