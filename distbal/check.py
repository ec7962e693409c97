"""``distbal check``: everything that is wrong or doubtful in a hosts.yaml, before anything listens."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from distbal import monitorconfig
from distbal.columns import many
from distbal.config import Settings, load
from distbal.errors import ConfigError, Mistake
from distbal.listenspec import KINDS
from distbal.places import HOSTS_FILE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE, several or none."""
    parser.description = "Say what is wrong or doubtful in hosts.yaml. Exit status: 0 when it can be used, 1 when it cannot."
    parser.add_argument("files", nargs="*", metavar="FILE", default=[HOSTS_FILE], help=f"default: {HOSTS_FILE}")


def run(args: argparse.Namespace) -> int:
    """Mistakes and warnings to stderr, one line a good file to stdout; 0, or 1 when one of the files cannot be used."""
    status = 0
    for path in args.files:
        try:
            loaded = load(path)
        except ConfigError as error:
            sys.stderr.write(f"{error}\n")
            status = 1
        else:
            for warning in loaded.warnings:
                sys.stderr.write(f"{_doubt(path, warning)}\n")
            sys.stdout.write(f"{path}: good: {summary(loaded.settings)}\n")
    return status


def summary(settings: Settings) -> str:
    """The farm in one line: hosts, slots, pools, listeners."""
    hosts = settings.farm.hosts
    pools = dict.fromkeys(pool for host in hosts for pool in host.pools)
    slots = sum(host.slots for host in hosts)
    places = (
        f"{kind} on {_joined(str(one.at) for one in settings.listen if one.kind == kind)}"
        for kind in KINDS
        if any(one.kind == kind for one in settings.listen)
    )
    counts = f"{many(len(hosts), 'host')} with {many(slots, 'slot')}"
    monitors = monitorconfig.summary(settings.monitors)
    asked = f"; monitors: {monitors}" if monitors else ""
    return f"{counts} in pool{'s' * (len(pools) > 1)} {_joined(pools)}; {', '.join(places) or 'listens nowhere'}{asked}"


def _joined(words: Iterable[str]) -> str:
    return " and ".join(words)


def _doubt(path: str, warning: Mistake) -> str:
    """As compilers write it, which editors know: ``FILE:LINE: warning: ...``."""
    place = f"{path}:{warning.line}" if warning.line else path
    return f"{place}: warning: {warning.where}: {warning.text}" if warning.where else f"{place}: warning: {warning.text}"
