"""``python -m tests.soak --minutes 5 --seed 1``: see the package. The seed of a run throws the same dice again."""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from distbal.proxy.pipes import KEPT
from tests.soak.faults import Faults
from tests.soak.jobs import KILLED, LOCAL, SERVED, WRONG, Jobs, prepare
from tests.soak.scene import Holdings, Scene, environment, missing, original, scene
from tests.support import ROOT

#: compiles that run at once
CLIENTS = 8
#: seconds of jobs alone, before anything is measured and anything happens
WARM = 6.0
#: seconds between two lines
EVERY = 5.0
#: ends of pipes that may be kept for the next sessions, and two pipes of a process's own
MOST_PIPES = 2 * (KEPT + 2)
#: kB that the daemon, and its keeper, may have more at the end: what the garbage collector has not come to, and the history
DAEMON_GROWTH, KEEPER_GROWTH = 25_000, 8_000


class Soak:
    """One run.

    :ivar wrong: what is not as it should be, in words.
    """

    def __init__(self, minutes: float, seed: int) -> None:
        self.wrong: list[str] = []
        self._seconds = minutes * 60
        self._seed = seed
        self._began = time.monotonic()
        self._said = 0.0

    def say(self, words: str) -> None:
        sys.stdout.write(f"{time.monotonic() - self._began:6.1f} s  {words}\n")
        sys.stdout.flush()

    def run(self) -> None:
        dice = random.Random(self._seed)
        with ExitStack() as stack:
            here = stack.enter_context(scene())
            directory = here.directory / "jobs"
            directory.mkdir()
            ways = here.ways(_wrap(), original())
            self.say(f"{len(here.servers)} servers, the daemon, and {len(ways)} ways in: {'; '.join(way.name for way in ways)}")
            expected = prepare(directory, environment(here))
            warm = Jobs(directory, ways, environment(here), expected, self._seed)
            stack.callback(warm.stop)
            first = self._warm(here, warm)
            jobs = Jobs(directory, ways, environment(here), expected, self._seed)
            stack.callback(jobs.stop)
            jobs.start(CLIENTS)
            faults = Faults(here, jobs, dice)
            end = time.monotonic() + self._seconds
            hangs = self._seconds >= 120
            while time.monotonic() < end:
                fault = faults.one()
                self._progress(here, jobs, f"{fault.kind} {fault.words}")
                if hangs and end - time.monotonic() < self._seconds / 2:
                    hangs = False
                    faults.hang()
                    self._progress(here, jobs, "daemon hung")
                time.sleep(dice.uniform(0, 1.0))
            self.say("no new jobs; waiting for those that run")
            jobs.finish()
            faults.finish()
            last = here.at_rest()
            self._table(here, jobs, faults, first, last)
            self._judge(jobs, faults, first, last)

    def _warm(self, here: Scene, jobs: Jobs) -> Holdings:
        """Some jobs by all ways, so that what is made at need is made; what is held then."""
        jobs.start(CLIENTS)
        time.sleep(WARM)
        jobs.finish()
        self.wrong += [
            f"before anything happened: job by {job.way.name}: {job.words}" for job in jobs.done if job.fate != SERVED
        ]
        self.say(f"{len(jobs.done)} jobs before anything happens")
        return here.at_rest()

    def _progress(self, here: Scene, jobs: Jobs, happened: str) -> None:
        now = time.monotonic()
        if now - self._said >= EVERY:
            self._said = now
            fates = {fate: sum(job.fate == fate for job in list(jobs.done)) for fate in (SERVED, LOCAL, KILLED, WRONG)}
            used, waiting = here.counts()
            counted = ", ".join(f"{number} {fate}" for fate, number in fates.items())
            self.say(f"{counted}; {used} lent, {waiting} wait; last: {happened}")

    def _table(self, here: Scene, jobs: Jobs, faults: Faults, first: Holdings, last: Holdings) -> None:
        counts = jobs.counts()
        self.say("the end:\n")
        sys.stdout.write(f"{'jobs by':28}{SERVED:>12}{LOCAL:>12}{KILLED:>14}{WRONG:>8}\n")
        for way in sorted({name for name, _ in counts}):
            row = [counts[way, fate] for fate in (SERVED, LOCAL, KILLED, WRONG)]
            sys.stdout.write("{:28}{:12}{:12}{:14}{:8}\n".format(way, *row))
        sys.stdout.write("\n")
        for kind, number in sorted(faults.counts.items()):
            sys.stdout.write(f"{kind:28}{number:12}\n")
        sys.stdout.write(f"\n{'':28}{'first':>12}{'last':>12}\n")
        for name, one, other in (
            ("daemon's sockets", first.daemon["socket"], last.daemon["socket"]),
            ("daemon's pipes' ends", first.daemon["pipe"], last.daemon["pipe"]),
            ("daemon's descriptors", sum(first.daemon.values()), sum(last.daemon.values())),
            ("keeper's descriptors", sum(first.keeper.values()), sum(last.keeper.values())),
            ("daemon's memory, kB", first.daemon_kb, last.daemon_kb),
            ("keeper's memory, kB", first.keeper_kb, last.keeper_kb),
        ):
            sys.stdout.write(f"{name:28}{one:12}{other:12}\n")
        sys.stdout.write("\n")

    def _judge(self, jobs: Jobs, faults: Faults, first: Holdings, last: Holdings) -> None:
        self.wrong += faults.wrong
        unexcused = 0
        for job in jobs.done:
            if job.fate == WRONG:
                self.wrong.append(f"job {job.number} by {job.way.name}: {job.words[:600]}")
            elif job.fate == LOCAL and not faults.excuses(job):
                unexcused += 1
                self.say(f"job {job.number} by {job.way.name} fell back, and its server was well: {job.words[:600]}")
        # a client that was accepted in the very turn of a kill is the one exception
        if unexcused > faults.kills:
            self.wrong.append(f"{unexcused} jobs fell back whose servers were well; the daemon was killed {faults.kills} times")
        if not any(job.fate == SERVED for job in jobs.done):
            self.wrong.append("no job was served")
        for who, before, after in (("daemon", first.daemon, last.daemon), ("keeper", first.keeper, last.keeper)):
            # a few pipes are kept for the next sessions, as many as were in use at once; the rest is as it was
            if after["pipe"] > MOST_PIPES or before - Counter(pipe=before["pipe"]) != after - Counter(pipe=after["pipe"]):
                self.wrong.append(f"the {who}'s descriptors were {dict(before)}, and are {dict(after)}")
        for who, one, other, growth in (
            ("daemon", first.daemon_kb, last.daemon_kb, DAEMON_GROWTH),
            ("keeper", first.keeper_kb, last.keeper_kb, KEEPER_GROWTH),
        ):
            if other > one + growth:
                self.wrong.append(f"the {who} had {one} kB in memory, and has {other} kB")


def _wrap() -> Path:
    return ROOT / "build" / "distbal-wrap"


def _interrupted(signum: int, frame: FrameType | None) -> None:
    """The first time: what follows is the end of all that was started, which is not to be interrupted."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 where all was as it should be, 1 where not, 130 interrupted."""
    parser = argparse.ArgumentParser("python -m tests.soak", description="Real jobs and random faults, for minutes.")
    parser.add_argument("--minutes", type=float, default=5.0, metavar="N", help="how long things happen (5)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30), metavar="S", help="of the dice")
    args = parser.parse_args(arguments)
    if lacking := missing():
        sys.stderr.write(f"not on this machine: {', '.join(lacking)}; on Debian: apt-get install gcc distcc\n")
        return 1
    if not _wrap().exists():
        sys.stderr.write("distbal-wrap is not built: make wrap\n")
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    soak = Soak(args.minutes, args.seed)
    soak.say(f"seed {args.seed}, {args.minutes:g} minutes")
    try:
        soak.run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; all that was started has been stopped\n")
        return 130
    except AssertionError as error:
        soak.wrong.append(str(error))
    for one in soak.wrong:
        soak.say(f"WRONG: {one}")
    soak.say("not all was as it should be" if soak.wrong else "all as it should be")
    return 1 if soak.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
