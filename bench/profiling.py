"""``bench/profile``: where the daemon's time goes under one load. See README.md beside this file.

cProfile names every function, and slows small ones down most: good for finding what is called too often. perf stops the
daemon a thousand times a second and sees where it is, the kernel included: good for what it costs. cProfile sees the reactor's
thread alone, and pysnmp works in another.
"""

from __future__ import annotations

import argparse
import io
import pstats
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import monitors, proxying, relays
from bench.asked import why_not
from bench.crew import ROOT, Crew
from bench.grants import listed
from bench.processes import BenchError, Server

#: loads of 5656: number of hosts, slots of each, clients at a time
GRANTS = {
    "one": (100, 4, 1),
    "grant": (100, 4, 50),
    "crowd": (100, 4, 300),
    "many-hosts": (10_000, 1, 300),
    "queue": (10, 1, 300),
}
#: those of the proxy: what bench/run measures
JOBS = {f"proxy-{name}": load for name, load in proxying.LOADS.items()}
#: those of the monitors
ASKING = {f"monitors-{kind.name}": kind for kind in monitors.KINDS}
#: all of them, in words
LOADS = {
    **{name: f"{hosts:,} hosts of {slots}, {at_once} at a time" for name, (hosts, slots, at_once) in GRANTS.items()},
    **{name: str(load) for name, load in JOBS.items()},
    **{name: f"{kind}, every {kind.interval:g} s" for name, kind in ASKING.items()},
}
#: for so long nobody wants to wait
PATIENCE = 600


def main() -> int:
    """Profile, and print."""
    parser = argparse.ArgumentParser(prog="bench/profile", description="Show where the daemon's time goes under one load.")
    parser.add_argument("--load", choices=LOADS, default="grant", help="; ".join(f"{k}: {v}" for k, v in LOADS.items()))
    parser.add_argument(
        *("--grants", "--jobs", "--checks"),
        type=int,
        help="how many (default: 20000 grants, of jobs what five rounds have, two checks of each host beside the first)",
    )
    parser.add_argument("--top", type=int, default=30, help="functions to show (default: %(default)s)")
    parser.add_argument("--cumulative", action="store_true", help="order by the time in a function and in what it calls")
    parser.add_argument("--perf", action="store_true", help="with perf, not with cProfile")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="whose code to profile (default: this one's)")
    arguments = parser.parse_args()
    count = _usual(arguments.load) if arguments.grants is None else arguments.grants
    if count < 1 or arguments.top < 1:
        parser.error("--grants and --top are at least 1")
    if arguments.perf and shutil.which("perf") is None:
        parser.error("perf is not here (Debian: linux-perf)")
    try:
        with Crew() as crew:
            saved = crew.directory / "saved"
            options = [] if arguments.perf else [f"--profile={saved}", "--profiler=cprofile", "--savestats"]
            root = arguments.checkout.resolve()
            start = _relaying if arguments.load in JOBS else _asking if arguments.load in ASKING else _granting
            server, run = start(crew, arguments.load, root, options)
            watching = _perf(server, saved) if arguments.perf else None
            run(count)
            used = server.cpu()
            if watching is not None:
                watching.terminate()
                watching.wait(30)
                text = _perf_report(saved, arguments.top)
            else:
                # its profile is written when it ends
                crew.stop(server)
                text = _cprofile_report(saved, arguments.top, "cumulative" if arguments.cumulative else "tottime")
    except KeyboardInterrupt:
        print("bench/profile: interrupted; all that it had started is stopped", file=sys.stderr)
        return 130
    except BenchError as error:
        print(f"bench/profile: {error}", file=sys.stderr)
        return 1
    what = "jobs" if arguments.load in JOBS else "checks" if arguments.load in ASKING else "grants"
    print(f"{count:,} {what}, {LOADS[arguments.load]}: {used:.1f} s of CPU in all, start-up included")
    print(text)
    return 0


def _usual(load: str) -> int:
    """How many of what it consists of make a profile where nobody says."""
    return 5 * JOBS[load].jobs if load in JOBS else 2 * ASKING[load].hosts if load in ASKING else 20_000


def _granting(crew: Crew, load: str, root: Path, options: Sequence[str]) -> tuple[Server, Callable[[int], None]]:
    """A daemon that lends, and what lets so many clients ask it."""
    hosts, slots, at_once = GRANTS[load]
    server = crew.distbal("distbal", listed(hosts, slots), root=root, options=options)
    clients = crew.generator()

    def run(count: int) -> None:
        clients.tell(do="load", port=server.port, source=crew.source(), grants=count, at_once=at_once)
        clients.answer(within=PATIENCE)
        server.wait_clients(0)

    return server, run


def _relaying(crew: Crew, load: str, root: Path, options: Sequence[str]) -> tuple[Server, Callable[[int], None]]:
    """A daemon with its proxy, and what lets so many jobs go by way of it."""
    relay = relays.distbal(crew, relays.Backend(crew).port, root=root, options=options)
    sender = relays.clients(crew)

    def run(count: int) -> None:
        proxying.send(crew, sender, relay, JOBS[load], count, within=PATIENCE)
        relay.wait_sessions(0)

    return relay.server, run


def _asking(crew: Crew, load: str, root: Path, options: Sequence[str]) -> tuple[Server, Callable[[int], None]]:
    """A daemon that asks hosts, and what waits until it has done so that often."""
    kind = ASKING[load]
    if why := why_not(kind.name):
        raise BenchError(why)
    farm = monitors.Farm(crew, [kind], kind.hosts)
    server = farm.asking(root=root, options=options)
    return server, lambda count: farm.wait_checks(server, count, PATIENCE)


def _cprofile_report(saved: Path, top: int, order: str) -> str:
    if not saved.exists():
        raise BenchError("the daemon left no profile when it ended")
    text = io.StringIO()
    pstats.Stats(str(saved), stream=text).sort_stats(order).print_stats(top)
    return text.getvalue().replace(f"{ROOT}/", "")


def _perf(server: Server, saved: Path) -> subprocess.Popen[bytes]:
    command = ["perf", "record", "--quiet", "--freq=997", f"--pid={server.pid}", f"--output={saved}"]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)


def _perf_report(saved: Path, top: int) -> str:
    if not saved.exists():
        raise BenchError("perf has recorded nothing: is it allowed to (/proc/sys/kernel/perf_event_paranoid)?")
    tables = []
    for columns, most in (("dso", 5), ("dso,symbol", top)):
        command = ["perf", "report", "--stdio", f"--sort={columns}", f"--input={saved}"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise BenchError(f"perf report: {done.stderr}")
        lines = [line.rstrip(" -") for line in done.stdout.splitlines() if line and not line.startswith("#")]
        tables.append("\n".join(lines[:most]))
    return "\n\n".join(tables)


if __name__ == "__main__":
    sys.exit(main())
