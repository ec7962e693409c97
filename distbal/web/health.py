"""``/healthz``: is all well? Two questions, since those who ask do different things when it is not.

``/healthz`` is for whoever sends work here, or is called at night: 200 while a host of the farm may be given jobs, 503 when
none may, so that clients wait for nothing. ``/healthz/live`` is for whoever would restart the daemon: 200 while it answers at
all. To restart it when all hosts are down would help nobody, and those who wait would lose their places.
"""

from __future__ import annotations

from twisted.web.resource import IResource, Resource
from twisted.web.server import Request

from distbal.columns import many
from distbal.reporter import Reporter
from distbal.web.resources import Nowhere, text


class Healthz(Resource):
    """200 or 503, and one line that says why."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__()
        self._reporter = reporter

    def getChild(self, path: bytes, request: Request) -> IResource:
        return Nowhere()

    def render_GET(self, request: Request) -> bytes:
        usable, hosts = self._reporter.usable
        lent, waiting = self._reporter.activity
        rest = f"{many(lent, 'slot')} lent, {'1 client waits' if waiting == 1 else f'{waiting} clients wait'}"
        if not usable:
            return text(request, 503, f"no host can be given a job, of {hosts} in the file; {rest}")
        return text(request, 200, f"ok: {usable} of {hosts} hosts can be given jobs; {rest}")


class Live(Resource):
    """200: whoever reads this has been answered."""

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        return text(request, 200, "ok")
