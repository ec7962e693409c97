"""``bench/profile``: where the daemon's time goes under one load. See README.md beside this file.

cProfile names every function, and slows small ones down most: good for finding what is called too often. perf stops the
daemon a thousand times a second and sees where it is, the kernel included: good for what it costs.
"""

from __future__ import annotations

import argparse
import io
import pstats
import shutil
import subprocess
import sys
from pathlib import Path

from bench.crew import ROOT, Crew
from bench.grants import listed
from bench.processes import BenchError, Server

#: loads: number of hosts, slots of each, clients at a time
LOADS = {
    "one": (100, 4, 1),
    "grant": (100, 4, 50),
    "crowd": (100, 4, 300),
    "many-hosts": (10_000, 1, 300),
    "queue": (10, 1, 300),
}


def main() -> int:
    """Profile, and print."""
    parser = argparse.ArgumentParser(prog="bench/profile", description="Show where the daemon's time goes under one load.")
    parser.add_argument("--load", choices=LOADS, default="grant", help="; ".join(f"{k}: {_words(k)}" for k in LOADS))
    parser.add_argument("--grants", type=int, default=20_000, help="how many (default: %(default)s)")
    parser.add_argument("--top", type=int, default=30, help="functions to show (default: %(default)s)")
    parser.add_argument("--cumulative", action="store_true", help="order by the time in a function and in what it calls")
    parser.add_argument("--perf", action="store_true", help="with perf, not with cProfile")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="whose code to profile (default: this one's)")
    arguments = parser.parse_args()
    if arguments.grants < 1 or arguments.top < 1:
        parser.error("--grants and --top are at least 1")
    if arguments.perf and shutil.which("perf") is None:
        parser.error("perf is not here (Debian: linux-perf)")
    hosts, slots, at_once = LOADS[arguments.load]
    try:
        with Crew() as crew:
            saved = crew.directory / "saved"
            options = [] if arguments.perf else [f"--profile={saved}", "--profiler=cprofile", "--savestats"]
            root = arguments.checkout.resolve()
            server = crew.distbal("distbal", listed(hosts, slots), root=root, options=options)
            watching = _perf(server, saved) if arguments.perf else None
            clients = crew.generator()
            clients.tell(do="load", port=server.port, source=crew.source(), grants=arguments.grants, at_once=at_once)
            clients.answer(within=600)
            server.wait_clients(0)
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
    print(f"{arguments.grants:,} grants, {_words(arguments.load)}: {used:.1f} s of CPU in all, start-up included")
    print(text)
    return 0


def _words(load: str) -> str:
    hosts, slots, at_once = LOADS[load]
    return f"{hosts:,} hosts of {slots}, {at_once} at a time"


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
