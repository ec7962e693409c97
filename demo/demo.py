"""A build over three unequal distcc servers, from nothing to a table of what ran where. Read it from the top: it is the tour.

All of it runs on this machine, on ports that are free, in a temporary directory. Whatever happens, Ctrl-C included, all that
was started is stopped, and nothing stays but, after a failure, the logs. It ends with 0 only when, by the logs of the servers
themselves, every object was compiled by one of them, once.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import project
import report
from farm import DemoError, Farm, Server, end_all, environment, own_orphans

#: fastest first. What makes a server slow here is a compiler that starts late, and politeness (nice) on top
SERVERS = [
    Server("hare", slots=4, nice=0, late=0.0),
    Server("dog", slots=3, nice=5, late=0.15),
    Server("tortoise", slots=2, nice=10, late=0.5),
]
#: C files to compile
FILES = 72
#: what make is told: more jobs than the farm has slots, so that some have to wait
JOBS = sum(server.slots for server in SERVERS) + 5
#: seconds after which a build of this size is stuck
STUCK = 120.0


def tour(work: Path, screen: report.Screen) -> None:
    """The demo: four steps. Raises DemoError when something is not as it should be."""
    logs = work / "logs"
    farm = Farm(work, logs, SERVERS)

    screen.title(f"{len(SERVERS)} distcc servers on this machine, unequal on purpose")
    screen.line("$ distccd --daemon --port PORT --jobs SLOTS ...")
    farm.start_servers()
    for server in SERVERS:
        screen.line(f"{server.label:10}{server.address:17}  {server.slots} slots  {server.handicap()}")

    screen.title("The balancer, which is told of them")
    farm.start_balancer()
    screen.line("$ cat hosts.yaml", *farm.hosts_yaml.read_text().splitlines(), "$ twistd -n distbal -c hosts.yaml")
    screen.line(f"It serves clients on {farm.balance}, and shows what it does on {farm.status}.")

    sources = project.write(work / "project", FILES)
    screen.title(f"A build of {FILES} C files, with more jobs at once than the farm has slots")
    screen.line(f"$ export DISTBAL={farm.balance}", f"$ make -j{JOBS} CC='distbal-wrap distcc gcc'")
    before = screen.clock()
    make = farm.start(
        "make",
        ["make", f"-j{JOBS}", "CC=distbal-wrap distcc gcc"],
        cwd=work / "project",
        env=environment()
        | {
            "DISTBAL": farm.balance,
            # no quiet way out: without a lease, or when the server fails, the compile fails
            "DISTBAL_FALLBACK": "fail",
            "DISTCC_FALLBACK": "0",
            "DISTCC_DIR": str(farm.distcc_dir),
        },
    )
    report.watch(screen, farm, make, FILES, STUCK)
    if make.returncode != 0:
        raise DemoError(f"make ended with {make.returncode}:", *report.last_lines(logs / "make"))
    screen.line(f"Built in {screen.clock() - before:.1f} s, and {project.try_out(work / 'project', FILES)}.")

    screen.title("What ran where, by the servers' own logs")
    farm.settle(FILES)
    report.table(screen, farm)
    farm.verify(sources)
    screen.line(f"All {FILES} objects were compiled by the servers, none here. Every slot came back.")


def check_programs() -> None:
    """Say what is missing, all at once, and how to get it."""
    packages = {"distccd": "distcc", "distcc": "distcc", "gcc": "gcc libc6-dev", "make": "make"}
    missing = [program for program in packages if shutil.which(program) is None]
    if missing:
        wanted = " ".join(sorted({packages[program] for program in missing}))
        raise DemoError(f"not on this machine: {', '.join(missing)}. On Debian, as root: apt-get install {wanted}")
    absent = [program for program in ("twistd", "distbal-wrap") if shutil.which(program) is None]
    if absent:
        raise DemoError(f"not installed: {', '.join(absent)}. Run it as `make demo`, which sets them up in .venv")


@contextlib.contextmanager
def workplace(screen: report.Screen) -> Iterator[Path]:
    """A temporary directory, and the end of all that was started in it. After a failure its logs are kept."""
    # distccd that is started as root goes on as the user distccd, who must get at its files: root's TMPDIR may be closed to it
    work = Path(tempfile.mkdtemp(prefix="distbal-demo-", dir="/tmp" if os.geteuid() == 0 else None))
    work.chmod(0o755)
    (work / "logs").mkdir()
    kept = None
    try:
        yield work
    except Exception:
        kept = Path(tempfile.mkdtemp(prefix="distbal-demo-logs-"))
        raise
    finally:
        screen.clear()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is stopping already, and that takes a moment
        end_all()
        if kept:
            shutil.copytree(work / "logs", kept, dirs_exist_ok=True)
        shutil.rmtree(work)
        screen.line("", f"All that was started is stopped; {f'its logs are in {kept}' if kept else 'nothing is left behind'}.")


def interrupted(signum: int, _frame: object) -> NoReturn:
    """SIGTERM and SIGHUP stop the demo as Ctrl-C does."""
    raise SystemExit(128 + signum)


def main() -> int:
    """Run it; the exit status."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    own_orphans()
    screen = report.Screen()
    try:
        check_programs()
        with workplace(screen) as work:
            tour(work, screen)
    except DemoError as error:
        print("\nThe demo FAILED:", *error.args, sep="\n   ", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
