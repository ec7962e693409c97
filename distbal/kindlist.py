"""``distbal monitors``: which kinds of monitors there are, and what may stand behind each in hosts.yaml."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import textwrap
from typing import Any

from distbal.errors import DistbalError
from distbal.monitorconfig import broken_plugins, kinds
from distbal.monitors.kit import MonitorOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """KIND, or none."""
    parser.description = "List the kinds of monitors that are installed; with KIND, the options of one, with their defaults."
    parser.add_argument("kind", nargs="?", metavar="KIND", help="show the options of this one")


def run(args: argparse.Namespace) -> int:
    """Print them; 0, or 1 where a plugin cannot be imported."""
    found = kinds()
    if args.kind is None:
        sys.stdout.write("".join(_line(kind, max(map(len, found))) for kind in found.values()))
    elif args.kind in found:
        sys.stdout.write(_options(found[args.kind]))
    else:
        raise DistbalError(f"there is no kind {args.kind}: there are {', '.join(found)}")
    broken = broken_plugins()
    sys.stderr.write("".join(f"distbal: {line}\n" for line in broken))
    return 1 if broken else 0


def _line(kind: Any, width: int) -> str:
    why = kind.why_unavailable()
    return f"{kind.name:{width}}  {kind.description}{f' (not here: {why})' if why else ''}\n"


def _options(kind: Any) -> str:
    fields = kind.options.model_fields
    # its own first, then those that all have
    names = sorted(fields, key=lambda name: name in MonitorOptions.model_fields)
    lines = [f"{kind.name}: {kind.description}\n"]
    if why := kind.why_unavailable():
        lines.append(f"not here: {why}\n")
    lines.append("\n")
    defaults = {name: "(needed)" if fields[name].is_required() else json.dumps(fields[name].default) for name in names}
    columns = max(map(len, names)), max(map(len, defaults.values()))
    for name in names:
        head = f"  {name:{columns[0]}}  {defaults[name]:{columns[1]}}  "
        words = textwrap.wrap(fields[name].description or "", max(40, shutil.get_terminal_size((120, 24)).columns - len(head)))
        lines += [f"{head if number == 0 else ' ' * len(head)}{line}\n" for number, line in enumerate(words)]
    return "".join(lines)
