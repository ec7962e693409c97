"""What ``distbal top`` knows: the last reports, what they were over the last minutes, and what its user chose to see.

Pure: moments come in as arguments, keys as names. :mod:`distbal.toplayout` makes lines of it, and :mod:`distbal.top` has the
terminal and the daemon.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distbal.hosttables import load_of
from distbal.report import STATES

Report = Mapping[str, Any]

#: seconds that one sign of a graph stands for, and signs that are remembered
BUCKET, MOST_BUCKETS = 2, 400
#: looks over which jobs a second are told
RATE_LOOKS = 10
#: seconds by which two reports may differ on when the daemon started: less than a restart takes, more than a clock is slewed
CLOCK = 0.2
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
#: for a client beyond those letters
NAMELESS = "+"
#: ways to sort: by the file's order, or what stands first
SORTS = ("file", "name", "load", "jobs", "state")


class Model:
    """What was heard.

    :ivar status: the last report, or empty; ``hosts``: of that moment.
    :ivar trouble: why nothing newer is heard; "" where it is.
    :ivar letters: of clients that are there, by address: a place in :data:`LETTERS`, or beyond.
    :ivar rate: jobs that end a second; ``rates``: jobs that a host was given a second, by its name.
    :ivar graph: (slots lent, clients that wait) in each bucket of time, oldest first; the means.
    """

    def __init__(self) -> None:
        self.status: Report = {}
        self.hosts: Sequence[Report] = ()
        self.trouble = ""
        self.letters: dict[str, int] = {}
        self.rate = 0.0
        self.rates: dict[str, float] = {}
        self.graph: deque[tuple[float, float]] = deque(maxlen=MOST_BUCKETS)
        self._bucket = -1
        self._in_bucket = 0
        self._looks: deque[tuple[float, int, dict[str, int]]] = deque(maxlen=RATE_LOOKS)

    def heard(self, status: Report, hosts: Report, now: float) -> None:
        """The daemon answered.

        :param now: seconds that never go back.
        """
        if self.status and abs(status["started"] - self.status["started"]) > CLOCK:
            # it was started anew, and counts from 0 again
            self._looks.clear()
        self.status, self.hosts, self.trouble = status, hosts["hosts"], ""
        self._count(now)
        self._draw(now)
        self._name()

    def failed(self, why: str) -> None:
        """It did not."""
        self.trouble = why

    def _count(self, now: float) -> None:
        ended = self.status["counts"].get("ended", 0)
        jobs = {host["name"]: host["jobs"] for host in self.hosts}
        self._looks.append((now, ended, jobs))
        then, ended_then, jobs_then = self._looks[0]
        seconds = now - then
        self.rate = max(0.0, (ended - ended_then) / seconds) if seconds > 0 else 0.0
        self.rates = {
            name: max(0.0, (number - jobs_then.get(name, number)) / seconds) if seconds > 0 else 0.0
            for name, number in jobs.items()
        }

    def _draw(self, now: float) -> None:
        totals = self.status["totals"]
        bucket = int(now // BUCKET)
        if bucket != self._bucket or not self.graph:
            # nothing is known of the time in which nothing was heard
            for _ in range(min(bucket - self._bucket - 1, MOST_BUCKETS) if self.graph else 0):
                self.graph.append((0.0, 0.0))
            self._bucket, self._in_bucket = bucket, 1
            self.graph.append((float(totals["used"]), float(totals["waiting"])))
            return
        used, waiting = self.graph[-1]
        self._in_bucket += 1
        self.graph[-1] = (
            used + (totals["used"] - used) / self._in_bucket,
            waiting + (totals["waiting"] - waiting) / self._in_bucket,
        )

    def _name(self) -> None:
        """Who is still there keeps the letter; who is new gets the first that is free."""
        there = self.crowd()
        self.letters = {address: place for address, place in self.letters.items() if address in there}
        taken = set(self.letters.values())
        free = (place for place in range(len(there)) if place not in taken)
        for address in there:
            if address not in self.letters:
                self.letters[address] = next(free)

    def crowd(self) -> dict[str, tuple[int, int, float]]:
        """Who is there, by address: slots, waiters, and how long the longest of those has waited. Most slots first."""
        slots = Counter(client["address"] for host in self.hosts for client in host["clients"])
        waiters: Counter[str] = Counter()
        longest: dict[str, float] = {}
        for one in self.status.get("waiters", ()):
            waiters[one["address"]] += 1
            longest[one["address"]] = max(longest.get(one["address"], 0.0), one["seconds"])
        order = sorted({*slots, *waiters}, key=lambda address: (-slots[address], -waiters[address], address))
        return {address: (slots[address], waiters[address], longest.get(address, 0.0)) for address in order}

    def letter(self, address: str) -> str:
        """A client's sign."""
        place = self.letters.get(address, len(LETTERS))
        return LETTERS[place] if place < len(LETTERS) else NAMELESS


@dataclass
class View:
    """What the user chose.

    :ivar sort: one of :data:`SORTS`; ``backwards``: the other way round.
    :ivar like: what hosts must have in name, state or reason; ``typing``: while that is being written.
    :ivar chosen: the name of the host that the bar is on; "" for the first.
    :ivar first: the first row, or the first line of a text, that is shown.
    :ivar page: rows that fitted when it was last shown.
    :ivar shows: the hosts, one host's details, or the help.
    """

    sort: str = SORTS[0]
    backwards: bool = False
    like: str = ""
    typing: bool = False
    chosen: str = ""
    first: int = 0
    page: int = 1
    paused: bool = False
    shows: str = "hosts"
    over: bool = False
    #: first line of a text
    line: int = field(default=0)

    def rows(self, model: Model) -> list[Report]:
        """The hosts to show, in order."""
        like = self.like.lower()
        found = [host for host in model.hosts if not like or any(like in host[key].lower() for key in ("name", "state", "why"))]
        if self.sort == "name":
            found.sort(key=lambda host: host["name"])
        elif self.sort == "load":
            found.sort(key=lambda host: (-_busy(host), -(load_of(host) or 0.0)))
        elif self.sort == "jobs":
            found.sort(key=lambda host: (-model.rates.get(host["name"], 0.0), -host["jobs"]))
        elif self.sort == "state":
            order = list(STATES)
            found.sort(key=lambda host: order.index(host["state"]) if host["state"] in order else len(order))
        return found[::-1] if self.backwards else found

    def place(self, rows: Sequence[Report]) -> int:
        """Where the chosen host is among the rows; the first where it is not."""
        return next((place for place, host in enumerate(rows) if host["name"] == self.chosen), 0)

    def follow(self, rows: Sequence[Report], page: int) -> None:
        """Scroll so that the chosen row is seen.

        :param page: rows that fit.
        """
        self.page = max(1, page)
        place = self.place(rows)
        self.first = max(min(self.first, place), place - self.page + 1, 0)
        self.first = min(self.first, max(0, len(rows) - self.page))

    def press(self, key: str, model: Model) -> None:
        """A key was pressed: a sign, or one of UP, DOWN, PAGEUP, PAGEDOWN, HOME, END, ENTER, ESCAPE, BACKSPACE."""
        if self.typing:
            self._type(key)
        elif key in _STEPS:
            self._move(_STEPS[key], model)
        elif key in _PRESSED:
            _PRESSED[key](self)

    def _type(self, key: str) -> None:
        if key in ("ENTER", "ESCAPE"):
            self.typing = False
            self.like = self.like if key == "ENTER" else ""
        elif key == "BACKSPACE":
            self.like = self.like[:-1]
        elif len(key) == 1 and key.isprintable() and len(self.like) < 60:
            self.like += key

    def _move(self, step: tuple[int, int], model: Model) -> None:
        """Rows, and pages; what is beyond the ends is at the end."""
        far = step[0] + step[1] * self.page
        if self.shows != "hosts":
            self.line = max(0, self.line + far)
            return
        rows = self.rows(model)
        if rows:
            self.chosen = rows[max(0, min(len(rows) - 1, self.place(rows) + far))]["name"]

    def _leave(self) -> None:
        if self.shows != "hosts":
            self.shows = "hosts"
        else:
            self.like = ""

    def _quit(self) -> None:
        if self.shows == "hosts":
            self.over = True
        self.shows = "hosts"

    def _details(self) -> None:
        self.shows, self.line = ("hosts" if self.shows == "details" else "details"), 0

    def _help(self) -> None:
        self.shows, self.line = ("hosts" if self.shows == "help" else "help"), 0

    def _sort(self) -> None:
        self.sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]

    def _turn(self) -> None:
        self.backwards = not self.backwards

    def _pause(self) -> None:
        self.paused = not self.paused

    def _filter(self) -> None:
        self.shows, self.typing, self.like = "hosts", True, ""


_FAR = 1 << 30
_STEPS = {
    "UP": (-1, 0),
    "k": (-1, 0),
    "DOWN": (1, 0),
    "j": (1, 0),
    "PAGEUP": (0, -1),
    "PAGEDOWN": (0, 1),
    "HOME": (-_FAR, 0),
    "END": (_FAR, 0),
}
_PRESSED = {
    "q": View._quit,  # noqa: SLF001 (its own keys)
    "ESCAPE": View._leave,  # noqa: SLF001
    "ENTER": View._details,  # noqa: SLF001
    "?": View._help,  # noqa: SLF001
    "s": View._sort,  # noqa: SLF001
    "r": View._turn,  # noqa: SLF001
    " ": View._pause,  # noqa: SLF001
    "/": View._filter,  # noqa: SLF001
}


def _busy(host: Report) -> float:
    """How much of what may be lent is lent."""
    used: float = host["used"]
    return used / host["capacity"] if host["capacity"] else float(used > 0)
