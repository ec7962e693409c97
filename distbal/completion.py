"""``distbal completion``: what makes a shell complete the words of distbal, and the candidates that its scripts ask for.

The scripts are short and the same for every version: on each Tab they run ``distbal __complete`` with the words so far, and get
a line for each candidate, with a tab and what it means. What a verb takes is read from its usage in :mod:`distbal.verbs`. Of
the libraries, shtab makes static scripts of argparse's declarations, and argcomplete asks those at each Tab; neither knows
verbs, and both would be needed on every machine for what are twenty lines a shell.
"""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Any

from distbal import adminclient
from distbal.cli import COMMANDS
from distbal.columns import age, place, safe
from distbal.errors import DistbalError
from distbal.verbcommand import OPTIONS
from distbal.verbs import LEVELS, VERBS, Verb

SHELLS = ("bash", "zsh", "fish")
#: instead of candidates: the shell completes files, and does that better
FILES = ":files"
#: seconds for the daemon's answer, while somebody waits with a finger on Tab
PATIENCE = 1.0

#: a word, and what it means
Candidate = tuple[str, str]
#: what the daemon answers to a verb
Ask = Callable[[Sequence[str]], dict[str, Any]]


def add_arguments(parser: ArgumentParser) -> None:
    """SHELL."""
    parser.epilog = (
        "For one shell: source <(distbal completion bash), the same in zsh, and distbal completion fish | source. "
        "For good: make install puts the scripts where shells look for them."
    )
    parser.add_argument("shell", choices=SHELLS, help="which shell's script to print")


def run(args: Namespace) -> int:
    """Print the script."""
    from importlib.resources import files

    sys.stdout.write(files("distbal").joinpath("completions", f"distbal.{args.shell}").read_text(encoding="utf-8"))
    return 0


def complete(words: Sequence[str]) -> int:
    """Print candidates.

    :param words: what stands behind ``distbal``, the last of them begun, or "".
    """
    *before, current = map(_unquoted, words or [""])
    for word, meaning in candidates(before, current, _ask):
        if word == FILES:
            sys.stdout.write(f"{word}\n")
        elif word.startswith(current):
            sys.stdout.write(f"{safe(word)}\t{safe(meaning)}\n")
    return 0


def candidates(before: Sequence[str], current: str, ask: Ask) -> Iterable[Candidate]:
    """What may stand next.

    :param before: the words behind ``distbal``, without the one that is begun.
    :param current: how that one begins: this decides only whether options are meant.
    :param ask: asks the daemon; raises DistbalError where it cannot be asked.
    """
    if not before:
        if current.startswith("-"):
            return [("--help", "list the commands"), ("--version", "print the version")]
        return [(name, command.help) for name, command in COMMANDS.items()] + [
            (name, verb.help) for name, verb in VERBS.items() if name not in COMMANDS
        ]
    name, *rest = before
    if "--" not in rest:
        if rest[-1:] == ["--socket"]:
            return [(FILES, "")]
        if current.startswith("-"):
            return _options(name)
    words = _without_options(rest)
    try:
        return _next(name, words, ask)
    except DistbalError:
        # a person who presses Tab has asked nothing: the command itself will say what is wrong
        return []


def _next(name: str, words: list[str], ask: Ask) -> Iterable[Candidate]:
    if name == "completion":
        return [(shell, "") for shell in SHELLS] if not words else []
    if name in ("check", "probe"):
        return [(FILES, "")] if name == "check" or not words else _hosts(ask)
    if name in COMMANDS or name not in VERBS:
        return []
    verb = VERBS[name]
    found: list[Candidate] = []
    for form in _forms(verb, words):
        if form in ("OTHER", "PATTERN") or (form == "HOST" and verb.hosts):
            found += [one for one in _hosts(ask) if one[0] not in words]
        elif form == "JOB":
            found += _jobs(ask)
        elif form == "CLIENT":
            found += _clients(ask)
        elif form.islower():
            found.append((form, LEVELS.get(form, "")))
    return found


# -- what a verb takes --------------------------------------------------------------------------------------------------------


def _forms(verb: Verb, words: Sequence[str]) -> list[str]:
    """What may stand behind these words of a verb, as its usage says: words as they are, and capitals for what is replaced."""
    required: list[list[str]] = []
    groups: list[list[list[str]]] = []
    for part in re.findall(r"\[[^\]]*\]|\S+", verb.usage):
        if part.startswith("["):
            groups.append([_alternatives(token) for token in part[1:-1].split()])
        else:
            required.append(_alternatives(part))
    if len(words) < len(required):
        return required[len(words)]
    rest = list(words[len(required) :])
    while rest:
        word = rest.pop(0)
        group = next((group for group in groups if word in group[0]), None)
        if group is None:
            return groups[0][0] if "..." in verb.usage and len(groups) == 1 else []
        if len(rest) < len(group) - 1:
            return group[1 + len(rest)]
        del rest[: len(group) - 1]
        groups.remove(group)
    return [form for group in groups for form in group[0]]


def _alternatives(token: str) -> list[str]:
    return [re.split(r"[\[,.]", one)[0] for one in token.split("|")]


def _options(name: str) -> list[Candidate]:
    if name in VERBS and name not in COMMANDS:
        return [(option.split()[0], what) for option, what in OPTIONS]
    if name not in COMMANDS:
        return []
    parser = _Recording(add_help=False)
    import_module(COMMANDS[name].module).add_arguments(parser)
    return [*parser.options, ("--help", "show what it takes")]


class _Recording(ArgumentParser):
    """Notes the options that it is told of."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        self.options: list[Candidate] = []
        super().__init__(*args, **settings)

    def add_argument(self, *names: Any, **settings: Any) -> Any:
        self.options += [(name, str(settings.get("help", ""))) for name in names if name.startswith("--")]
        return super().add_argument(*names, **settings)


def _without_options(words: Sequence[str]) -> list[str]:
    rest = list(words)
    kept: list[str] = []
    while rest:
        word = rest.pop(0)
        if word == "--":
            return kept + rest
        if word == "--socket":
            del rest[:1]
        elif not word.startswith("-"):
            kept.append(word)
    return kept


def _unquoted(word: str) -> str:
    """A word as the shell would take it, where it is not finished either."""
    return re.sub(r"\\(.)", r"\1", word.lstrip("'\""))


# -- what the daemon knows ----------------------------------------------------------------------------------------------------


def _ask(words: Sequence[str]) -> dict[str, Any]:
    with adminclient.Connection(adminclient.default_path(), PATIENCE) as daemon:
        return daemon.ask(words)


def _hosts(ask: Ask) -> list[Candidate]:
    return [
        (host["name"], f"{host['state']}, {host['used']} of {host['slots']} lent" + (f": {host['why']}" if host["why"] else ""))
        for host in ask(["hosts"])["hosts"]
    ]


def _jobs(ask: Ask) -> list[Candidate]:
    return [
        (str(job["id"]), f"{place(job['address'], job['port'])} on {last['host']}, {age(last['seconds'])}")
        for job in ask(["jobs"])["jobs"]
        for last in job["attempts"][-1:]
    ]


def _clients(ask: Ask) -> list[Candidate]:
    served = [client for host in ask(["hosts"])["hosts"] for client in host["clients"]]
    found: dict[str, str] = {}
    for client in served + ask(["queue"])["waiters"]:
        if client["address"]:
            found.setdefault(client["address"], "")
    return list(found.items())
