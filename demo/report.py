"""What the demo shows: titles, a line that lives on a terminal (and some plain ones elsewhere), and the table at the end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from farm import DemoError, Farm

#: characters
BAR = 18


class Screen:
    """Where it is shown: a terminal, or a file or pipe."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self.clock = time.monotonic
        self._steps = 0
        self._shown = False

    def title(self, text: str) -> None:
        """Begin the next step."""
        self._steps += 1
        text = f"{self._steps}. {text}"
        print(f"\n\x1b[1m{text}\x1b[0m" if self.live and "NO_COLOR" not in os.environ else f"\n{text}", flush=True)

    def line(self, *lines: str) -> None:
        """Lines that stay."""
        self.clear()
        for line in lines:
            print(f"   {line}".rstrip(), flush=True)

    def now(self, line: str) -> None:
        """The line that lives: it takes the place of the one before."""
        width = shutil.get_terminal_size().columns - 1
        print(f"\r{f'   {line}'[:width]}\x1b[K", end="", flush=True)
        self._shown = True

    def clear(self) -> None:
        """Take the line that lives away."""
        if self._shown:
            print("\r\x1b[K", end="", flush=True)
        self._shown = False


def watch(screen: Screen, farm: Farm, make: subprocess.Popen[bytes], files: int, stuck: float) -> None:
    """Show the build until make ends. DemoError when it takes longer than ``stuck`` seconds."""
    deadline = screen.clock() + stuck
    told = 0
    while make.poll() is None:
        if screen.clock() > deadline:
            raise DemoError(f"the build is not done after {stuck:.0f} s:", *last_lines(farm.logs / "make"))
        done = sum(len(server.compiled()) for server in farm.servers)
        if screen.live or done >= told + files // 6:
            (screen.now if screen.live else screen.line)(_progress(farm, done, files))
            told = done
        time.sleep(0.05)
    screen.clear()


def _progress(farm: Farm, done: int, files: int) -> str:
    """One line: how far it is, which slots are taken (#) and free (.), how many wait."""
    free, waiting = farm.free_slots()
    filled = BAR * done // files
    slots = [f"{server.label} {'#' * (server.slots - free[server.address]):.<{server.slots}}" for server in farm.servers]
    return f"[{'=' * filled:{BAR}}] {done:2}/{files}  {'  '.join(slots)}  {waiting} waiting"


def table(screen: Screen, farm: Farm) -> None:
    """What ran where, and how long jobs waited."""
    total = sum(len(server.compiled()) for server in farm.servers) or 1
    screen.line(f"{'server':10}slots  compiled  {'share':{BAR + 6}}  time of a job (median)")
    for server in farm.servers:
        times = sorted(seconds for _, seconds in server.compiled())
        share = len(times) / total
        took = f"{times[len(times) // 2]:.2f} s" if times else "-"
        bar = "=" * round(BAR * share)
        screen.line(f"{server.label:10}{server.slots:5}  {len(times):8}  {share:4.0%}  {bar:{BAR}}  {took:>8}")
    waits = farm.waits()
    waited = [seconds for seconds in waits if seconds >= 0.001]
    screen.line("", f"{len(waits)} leases: {len(waits) - len(waited)} at once, {len(waited)} after a wait" + _waits(waited))


def _waits(waited: list[float]) -> str:
    if not waited:
        return "."
    return f" of {sum(waited) / len(waited):.2f} s on average, {max(waited):.2f} s at most."


def last_lines(log: Path, count: int = 15) -> list[str]:
    """The end of a log."""
    return log.read_text(errors="replace").splitlines()[-count:]
