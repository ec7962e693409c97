"""``bench/run``: the figures that the README gives, measured here. See README.md beside this file."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.builds import build_times
from bench.crew import Crew
from bench.fairness import beside_transfers
from bench.grants import Size, beside_the_original, by_hosts
from bench.held import WANTED, many_clients
from bench.monitors import grants_meanwhile, what_it_takes
from bench.outlived import pauses, with_a_keeper
from bench.processes import BenchError
from bench.proxying import LOADS, beside_idle, relayed
from bench.report import Part, Progress, as_json, machine, table
from bench.webread import while_read
from bench.wrapper import per_compile

WHOLE = Size(
    rounds=11,
    grants=2000,
    farms=(10, 1000, 10_000),
    held=WANTED,
    held_rounds=5,
    wraps=25,
    wrap_rounds=7,
    builds=240,
    build_rounds=5,
    proxied=1.0,
    proxy_rounds=7,
    monitored=1.0,
    monitor_rounds=3,
    paced=5000,
    read_rounds=5,
    read_grants=60_000,
)
QUICK = Size(
    rounds=3,
    grants=400,
    farms=(10, 1000),
    held=2000,
    held_rounds=2,
    wraps=5,
    wrap_rounds=2,
    builds=24,
    build_rounds=1,
    proxied=0.1,
    proxy_rounds=3,
    monitored=0.1,
    monitor_rounds=1,
    paced=500,
    read_rounds=1,
    read_grants=6000,
)

Measure = Callable[[Crew, Size, Progress], Part]

PARTS = ("grant", "hosts", "held", "wrap", "builds", "proxy", "proxy-idle", "proxy-fair", "monitors", "web", "kept")
#: those that take long, or need programs that not everyone has: only where they are named
NAMED = ("builds", "proxy", "proxy-idle", "proxy-fair", "monitors", "web", "kept")


def main() -> int:
    """Measure, and print. The exit status says whether it could be measured, never how fast it was."""
    parser = argparse.ArgumentParser(prog="bench/run", description="Measure distbal on this machine.")
    parser.add_argument("--quick", action="store_true", help="only see that it runs, in some 20 s: the figures mean little")
    parser.add_argument("--only", action="append", choices=PARTS, help="this part alone (may be given several times)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, with every round, here too")
    parser.add_argument("--against", type=Path, metavar="DIR", help="another checkout, measured beside this one (grant, proxy)")
    arguments = parser.parse_args()
    if arguments.against is not None and not (arguments.against / "distbal" / "service.py").exists():
        parser.error(f"{arguments.against} is no checkout of distbal")
    if arguments.json is not None:
        try:
            arguments.json.touch()
        except OSError as error:
            parser.error(f"--json {arguments.json}: {error.strerror}")
    size = QUICK if arguments.quick else WHOLE
    about = machine()
    began = time.monotonic()

    def progress(what: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {what}", file=sys.stderr, flush=True)

    parts: list[Part] = []
    trouble, status = "", 0
    try:
        with Crew() as crew:
            about["pinned"] = crew.server_core is not None
            for measure in chosen(arguments):
                parts.append(measure(crew, size, progress))  # noqa: PERF401 (what there is is shown, whatever comes)
    except KeyboardInterrupt:
        trouble, status = "interrupted; all that it had started is stopped", 130
    except BenchError as error:
        trouble, status = str(error), 1
    about["seconds"] = round(time.monotonic() - began)
    show(about, parts, quick=arguments.quick)
    if arguments.json is not None:
        arguments.json.write_text(as_json(about, parts))
    if trouble:
        print(f"bench/run: {trouble}", file=sys.stderr)
    return status


def chosen(arguments: argparse.Namespace) -> list[Measure]:
    """What to measure, in the order of the table."""
    against = None if arguments.against is None else arguments.against.resolve()
    every: dict[str, list[Measure]] = {
        "grant": [partial(beside_the_original, against=against)],
        "hosts": [by_hosts],
        "held": [many_clients],
        "wrap": [per_compile],
        "builds": [build_times],
        "proxy": [partial(relayed, load, against) for load in LOADS.values()],
        "proxy-idle": [partial(beside_idle, against)],
        "proxy-fair": [partial(beside_transfers, against)],
        "monitors": [what_it_takes, grants_meanwhile],
        "web": [while_read],
        "kept": [with_a_keeper, pauses],
    }
    wanted = arguments.only or [name for name in PARTS if name not in NAMED]
    return [measure for name, measures in every.items() if name in wanted for measure in measures]


def show(about: dict[str, Any], parts: Sequence[Part], *, quick: bool) -> None:
    """The machine, and the table, for people."""
    cores = "daemons on a processor of their own" if about["pinned"] else "one processor: daemons and load share it"
    print(
        f"distbal {about['distbal']}, Python {about['python']}, Twisted {about['twisted']}, Linux {about['kernel']},"
        f" {about['processors']} x {about['model']}; {cores}; load before {about['load']}; {about['at']}, {about['seconds']} s"
    )
    least = min((len(values) for part in parts for row in part.rows for values in row.rounds.values()), default=0)
    print(f"medians of at least {least} interleaved rounds{' (quick: these figures mean little)' if quick else ''}\n")
    print(table(parts))


if __name__ == "__main__":
    sys.exit(main())
