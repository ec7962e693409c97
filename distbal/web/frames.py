"""What the page shows, as parts: all of them for whoever opens it, and those that have changed for whoever keeps it open."""

from __future__ import annotations

import gc
import json
from collections.abc import Generator
from dataclasses import dataclass

from distbal.activity import Activity
from distbal.report import HostReport, HostsReport, JobsReport, StatusReport
from distbal.reporter import Reporter
from distbal.web import hostrows, jobrows, overview
from distbal.web.chart import chart

#: hosts whose rows are made without a pause: some 2 ms
PIECE = 20


@dataclass(frozen=True, slots=True)
class Parts:
    """What the page shows, as HTML.

    :ivar at: of when, in seconds since 1970.
    :ivar title: the window's.
    :ivar parts: by the id of the element that they are put into.
    :ivar hosts: by name, in the order of the file.
    :ivar dense: there are so many hosts that they are drawn small.
    :ivar about: of the daemon.
    """

    at: float
    title: str
    parts: dict[str, str]
    hosts: dict[str, str]
    dense: bool
    about: str


class Frames:
    """Makes the parts, and tells which of them have changed.

    :param version: of the page: a browser that has another one loads it anew.
    """

    def __init__(self, reporter: Reporter, activity: Activity, version: str) -> None:
        self._reporter = reporter
        self._activity = activity
        self._version = version
        self._gists: dict[str, str] = {}
        self._hosts: dict[str, str] = {}
        self._parts: dict[str, str] = {}
        self._at = 0.0
        self._title = ""
        self._drawn: tuple[int | None, str] | None = None

    def page(self) -> Generator[bytes, None, Parts]:
        """All of it, with times in words. Made in pieces: what it yields says only that somebody else may be served."""
        status, report = self._reports()
        yield b""
        at, hosts = status["at"], report["hosts"]
        parts = {
            "totals": overview.totals(status, hosts, at),
            "chart": self._chart(),
            "queue": overview.queue(status, at),
            "jobs": jobrows.jobs(self._jobs(), at),
        }
        rows = {}
        for number, host in enumerate(hosts):
            if number % PIECE == 0:
                yield b""
            rows[host["name"]] = hostrows.row(host, at, at)
        about = f"distbal {status['distbal']}, {status['policy']}, queue {status['order']}"
        return Parts(at, overview.in_words(status), parts, rows, len(hosts) > hostrows.ROOMY, about)

    def delta(self) -> Generator[None, None, bytes | None]:
        """What changed since the last one, as JSON; None for nothing. Made in pieces."""
        status, report = self._reports()
        yield
        now, hosts = status["at"], report["hosts"]
        parts = {
            "totals": overview.totals(status, hosts, None),
            "chart": self._chart(),
            "queue": overview.queue(status, None),
            "jobs": jobrows.jobs(self._jobs(), None),
        }
        yield
        changed = {}
        rows, gists = {}, {}
        for number, host in enumerate(hosts, 1):
            name = host["name"]
            gist = gists[name] = _gist(host)
            if self._gists.get(name) == gist:
                rows[name] = self._hosts[name]
            else:
                rows[name] = html = hostrows.row(host, now, None)
                if self._hosts.get(name) != html:
                    changed[name] = html
            if number % PIECE == 0:
                yield
        changed_parts = {name: html for name, html in parts.items() if self._parts.get(name) != html}
        order = list(rows) != list(self._hosts)
        self._gists = gists
        self._at, self._title, self._parts, self._hosts = now, overview.in_words(status), parts, rows
        if not (changed_parts or changed or order):
            return None
        return self._frame(changed_parts, changed, order)

    def whole(self) -> bytes:
        """All of it, as of the last call of ``delta``, as JSON."""
        return self._frame(self._parts, self._hosts, True)

    def _reports(self) -> tuple[StatusReport, HostsReport]:
        """What there is to tell.

        Most of the thousands of small objects that come about by that are gone at its end. A collection of garbage in between
        would move them to those that live long, and bring the next one forward that looks at all there is.
        """
        collects = gc.isenabled()
        gc.disable()
        try:
            return self._reporter.status_and_hosts()
        finally:
            if collects:
                gc.enable()

    def _chart(self) -> str:
        """Drawn anew when a stretch of time is full."""
        newest = self._activity.newest
        if self._drawn is None or self._drawn[0] != newest:
            self._drawn = newest, chart(self._activity)
        return self._drawn[1]

    def _jobs(self) -> JobsReport:
        return self._reporter.jobs(jobrows.MOST_JOBS, passed_over=jobrows.MOST_PASSED_OVER)

    def _frame(self, parts: dict[str, str], hosts: dict[str, str], order: bool) -> bytes:
        frame: dict[str, object] = {
            "page": self._version,
            "at": self._at,
            "title": self._title,
            "parts": parts,
            "hosts": hosts,
        }
        if order:
            frame |= {"order": list(self._hosts), "dense": len(self._hosts) > hostrows.ROOMY}
        return json.dumps(frame, separators=(",", ":")).encode()


def _gist(host: HostReport) -> str:
    """A text that changes when something happens there, and not when only time goes by. What is kept is text, as it costs the
    collection of garbage nothing.
    """
    what = [value for key, value in host.items() if key != "clients"]
    return f"{what}{[client['id'] for client in host['clients']]}"
