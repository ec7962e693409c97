"""A verb on the command line: its words go to the daemon over the admin socket, and its answer is shown.

Which verbs there are, and what each takes, stands in :mod:`distbal.verbs` alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from distbal import adminclient, tables, terminal, upgraded, verbs
from distbal.errors import DistbalError
from distbal.verbs import Verb, VerbError

OPTIONS = (
    ("--json", "print JSON, for programs"),
    ("--socket PATH", f"the admin socket; ${adminclient.VARIABLE} where not given, or {adminclient.DEFAULT_PATH}"),
    ("--help", "show this"),
    ("--", "end of options: words behind it may begin with -"),
)


@dataclass(frozen=True, slots=True)
class Line:
    """What was said behind ``distbal``, options apart.

    :ivar words: the verb and what stands behind it; ``socket``: the path of the admin socket, None for the usual one.
    """

    words: tuple[str, ...]
    json: bool = False
    socket: str | None = None
    help: bool = False


def split(words: Sequence[str]) -> Line:
    """Options from words, wherever they stand before ``--``.

    :raises VerbError: an option that there is not, or half of one.
    """
    rest, kept = list(words), []
    found: dict[str, bool] = {}
    socket: str | None = None
    while rest:
        word = rest.pop(0)
        if word == "--":
            kept += rest
            break
        if word in ("--help", "-h"):
            found["help"] = True
        elif word == "--json":
            found["json"] = True
        elif word == "--socket":
            if not rest:
                raise VerbError("--socket is followed by a path")
            socket = rest.pop(0)
        elif word.startswith("--socket="):
            socket = word.partition("=")[2]
        elif word.startswith("-") and word != "-":
            raise VerbError(f"there is no option {verbs.shown(word)}; words that begin with - stand behind --")
        else:
            kept.append(word)
    return Line(tuple(kept), socket=socket, **found)


def run(words: Sequence[str]) -> int:
    """Do what these words say, the verb's name first.

    :returns: the exit status: 0 done, 1 not, 2 wrong usage.
    :raises DistbalError: the daemon cannot be asked, or cannot do it; the text says why.
    """
    verb = verbs.VERBS[words[0]]
    try:
        line = split(words)
        if line.help:
            terminal.write(help_of(verb))
            return 0
        verbs.parse(line.words)
    except VerbError as error:
        return _misused(error)
    try:
        patience = upgraded.PATIENCE if verb.name == "upgrade" else adminclient.PATIENCE
        with adminclient.Connection(line.socket or adminclient.default_path(), patience) as daemon:
            answer = daemon.ask(line.words)
    except adminclient.RefusedError as error:
        if error.usage:
            return _misused(error)
        raise
    if verb.name == "upgrade":
        answer = upgraded.wait(line.socket or adminclient.default_path(), answer)
    if line.json:
        terminal.write_json(answer)
        return 0
    adminclient.check(answer)
    width, colour = terminal.kind()
    terminal.write(tables.render(verb, answer, width=width, colour=colour))
    sys.stderr.write(tables.warnings(answer))
    return 0


def _misused(error: DistbalError) -> int:
    sys.stderr.write(f"distbal: {error}\n")
    return 2


def help_of(verb: Verb) -> str:
    """What ``--help`` behind a verb says."""
    said = [f"usage: distbal {verbs.usage(verb)} [--json] [--socket PATH]", "", f"{verb.help}."]
    if verb.more:
        said.append(verb.more)
    said += ["", f"  distbal {verb.name} {verb.example}".rstrip(), ""]
    return "\n".join([*said, *(f"  {option:14}  {what}" for option, what in OPTIONS), ""])
