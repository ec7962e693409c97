"""``distbal``: the commands for people, each in a module of its own that is imported only when it is asked for.

A command is a module with ``add_arguments(parser)`` and ``run(args) -> int`` (the exit status); and every verb of live
operation is a command, as :mod:`distbal.verbs` has it. Verbs, ``status`` and ``top`` import neither Twisted nor the daemon, and
nothing here may make them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module

from distbal import __version__
from distbal.errors import DistbalError
from distbal.verbs import VERBS, shown, usage

LOOK, CHANGE, FILE = "look", "change", "file and installation"


@dataclass(frozen=True, slots=True)
class Command:
    """One word behind ``distbal``.

    :ivar module: where its ``add_arguments`` and ``run`` are.
    :ivar help: what it does, in a line.
    :ivar usage: what stands behind it, for the list of commands.
    :ivar group: under which heading it is listed.
    """

    module: str
    help: str
    usage: str = ""
    group: str = FILE


COMMANDS: dict[str, Command] = {
    "status": Command("distbal.status", "show the farm: hosts, who is served, who waits", "[ADDRESS[:PORT]]", LOOK),
    "top": Command("distbal.top", "the same, live, on the whole screen", group=LOOK),
    "check": Command("distbal.check", "say what is wrong or doubtful in hosts.yaml", "[FILE...]"),
    "monitors": Command("distbal.kindlist", "list the kinds of monitors, and their options", "[KIND]"),
    "probe": Command("distbal.probe", "let the monitors ask the hosts once, now, and show what they say", "[FILE] [HOST...]"),
    "supervise": Command(
        "distbal.keeper.command", "run the daemon, and let what it serves outlive it", "[-c FILE] [-- OPTION...]"
    ),
    "schema": Command("distbal.schema", "print the JSON Schema of hosts.yaml, for editors"),
    "completion": Command("distbal.completion", "print what makes a shell complete these words", "bash|zsh|fish"),
}
#: usages that are longer get a line of their own
_COLUMN = 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    :param arguments: what stands behind ``distbal``; None for the process's own.
    :returns: the exit status: 0 good, 1 not, 2 wrong usage (by argparse it is raised as SystemExit), 130 interrupted.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    # whoever closed them wants nothing said, and none the less what he asked for done
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    try:
        status = _run(words)
        sys.stdout.flush()
    except DistbalError as error:
        sys.stderr.write(f"distbal: {error}\n")
        return 1
    except BrokenPipeError:
        # whoever read our output left (`| head`): nothing to say
        _write_no_more()
        return 1
    except OSError as error:
        if error.filename is not None:
            raise
        # stdout is a file on a full disk, say; what commands read they have sentences of their own for
        _write_no_more()
        sys.stderr.write(f"distbal: the output could not be written whole: {error.strerror}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def _write_no_more() -> None:
    """So that the interpreter's flush at exit says nothing either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(words: list[str]) -> int:
    name = words[0] if words else ""
    if name in ("-h", "--help"):
        sys.stdout.write(overview())
        return 0
    if name == "--version":
        sys.stdout.write(f"distbal {__version__}\n")
        return 0
    if name in COMMANDS:
        from argparse import ArgumentParser

        command = COMMANDS[name]
        module = import_module(command.module)
        parser = ArgumentParser(f"distbal {name}", description=f"{command.help[0].upper()}{command.help[1:]}.")
        module.add_arguments(parser)
        status: int = module.run(parser.parse_args(words[1:]))
        return status
    if name in VERBS:
        from distbal import verbcommand

        return verbcommand.run(words)
    if name == "__complete":
        # for the scripts of `distbal completion`
        from distbal import completion

        return completion.complete(words[1:])
    sys.stderr.write(f"distbal: {_no_command(name)}\n")
    return 2


def _no_command(name: str) -> str:
    if not name:
        return "say what to do; distbal --help lists the commands"
    near = get_close_matches(name.lower(), [*COMMANDS, *VERBS], 1)
    return f"there is no command {shown(name)}" + (f": did you mean {near[0]}?" if near else "; distbal --help lists them")


def overview() -> str:
    """What ``distbal --help`` says: every command in a line, under its heading."""
    groups: dict[str, list[tuple[str, str]]] = {LOOK: [], CHANGE: [], FILE: []}
    for name, command in COMMANDS.items():
        groups[command.group].append((f"{name} {command.usage}".rstrip(), command.help))
    for name, verb in VERBS.items():
        if name not in COMMANDS:
            groups[CHANGE if verb.changes else LOOK].append((usage(verb), verb.help))
    lines = ["usage: distbal COMMAND [WORD...]", "", "Lends each distcc job the best server that is free."]
    for group, commands in groups.items():
        lines += ["", f"{group}:"]
        for how, what in commands:
            if len(how) <= _COLUMN:
                lines.append(f"  {how:{_COLUMN}}  {what}")
            else:
                lines += [f"  {how}", f"  {'':{_COLUMN}}  {what}"]
    lines += ["", "distbal COMMAND --help tells more of one; distbal --version says which distbal this is. distbal(1)", ""]
    return "\n".join(lines)
