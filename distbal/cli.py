"""``distbal``: the commands for people, each in a module of its own that is imported only when it is asked for.

A command is a module with ``add_arguments(parser)`` and ``run(args) -> int`` (the exit status). ``status`` and its like import
neither Twisted nor the daemon, and nothing here may make them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from distbal import __version__
from distbal.errors import DistbalError


@dataclass(frozen=True, slots=True)
class Command:
    """One word behind ``distbal``.

    :ivar module: where its ``add_arguments`` and ``run`` are.
    :ivar help: what it does, in a line.
    """

    module: str
    help: str


COMMANDS: dict[str, Command] = {
    "check": Command("distbal.check", "say what is wrong or doubtful in hosts.yaml"),
    "monitors": Command("distbal.kindlist", "list the kinds of monitors, and their options"),
    "probe": Command("distbal.probe", "let the monitors ask the hosts once, now, and show what they say"),
    "schema": Command("distbal.schema", "print the JSON Schema of hosts.yaml, for editors"),
    "status": Command("distbal.status", "show the farm: hosts, who is served, who waits"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    :param arguments: what stands behind ``distbal``; None for the process's own.
    :returns: the exit status: 0 good, 1 not, 2 wrong usage (raised as SystemExit by argparse), 130 interrupted.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser("distbal", description="Lends each distcc job the best server that is free.")
    parser.add_argument("--version", action="version", version=f"distbal {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    asked = next((word for word in words if not word.startswith("-")), "")
    for name, command in COMMANDS.items():
        added = commands.add_parser(name, help=command.help)
        if name == asked:
            module = import_module(command.module)
            module.add_arguments(added)
            added.set_defaults(run=module.run)
    args = parser.parse_args(words)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except DistbalError as error:
        sys.stderr.write(f"distbal: {error}\n")
        return 1
    except BrokenPipeError:
        # whoever read our output left (`| head`): nothing to say, and the interpreter's flush at exit must not say it either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    return status
