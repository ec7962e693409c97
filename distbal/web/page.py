"""The status page: read-only, whole without a script, and live with one. It needs nothing but Twisted.

A page that was just made is shown again for a while, the longer the more it took, so that readers, however many, take a tenth
of the time at the most.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from distbal.activity import Activity
from distbal.report import STATES
from distbal.reporter import Reporter
from distbal.web import hostrows
from distbal.web.answers import ReadOnly, answer_text, guard, takes_gzip
from distbal.web.frames import Frames, Parts
from distbal.web.live import Events, Feed
from distbal.web.overview import sprite
from distbal.web.pieces import Done, in_pieces
from distbal.web.words import text

#: seconds after which a page without a script refreshes itself
REFRESH = 5
#: for so many times as long as it took to make, a page is shown again; and for so many seconds at the least
AGAIN, AGAIN_AT_LEAST = 10.0, 0.5
#: the files beside this one that the page loads
ASSETS = {"style.css": b"text/css; charset=utf-8", "script.js": b"text/javascript; charset=utf-8"}
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><g fill="#3a7bd5">'
    '<rect x="1" y="2" width="9" height="3" rx="1"/>'
    '<rect x="1" y="6.5" width="14" height="3" rx="1"/><rect x="1" y="11" width="6" height="3" rx="1"/></g></svg>'
)
ICON = f"data:image/svg+xml,{quote(_ICON)}"


class Asset(ReadOnly):
    """A file that the page loads: kept by browsers until it is another one."""

    isLeaf = True

    def __init__(self, content: bytes, kind: bytes) -> None:
        super().__init__()
        self._content = content
        self._compressed = gzip(content)
        self._kind = kind
        self.digest = hashlib.sha256(content).hexdigest()[:16]

    def render_GET(self, request: Request) -> bytes:
        guard(request)
        request.setHeader(b"content-type", self._kind)
        # the page asks for it by its digest; without that, a browser asks whether it is the same
        asked = request.args.get(b"v") == [self.digest.encode()]
        request.setHeader(b"cache-control", b"public, max-age=31536000, immutable" if asked else b"no-cache")
        request.setHeader(b"vary", b"accept-encoding")
        if request.setETag(f'"{self.digest}"'.encode()) is http.CACHED:
            return b""
        return _encoded(request, self._content, self._compressed)


class Page(ReadOnly):
    """The page itself.

    :param clock: never goes back.
    :param cpu: seconds that this thread has computed.
    """

    isLeaf = True
    log = Logger()

    def __init__(
        self, frames: Frames, version: str, links: dict[str, str], clock: IReactorTime, cpu: Callable[[], float]
    ) -> None:
        super().__init__()
        self._frames = frames
        self._version = version
        self._links = links
        self._clock = clock
        self._cpu = cpu
        self._waiting: list[Request] = []
        self._making: Deferred[Any] | None = None
        self._plain = b""
        self._compressed: bytes | None = None
        self._fresh_until = float("-inf")

    def render_GET(self, request: Request) -> bytes | int:
        if self._clock.seconds() < self._fresh_until:
            return self._answer(request)
        self._waiting.append(request)
        request.notifyFinish().addErrback(self._left, request)
        if self._making is None:
            making = self._making = in_pieces(self._frames.page(), self._clock, self._cpu)
            making.addCallback(self._made).addErrback(self._trouble)
        return NOT_DONE_YET

    def stop(self) -> None:
        """Make no more of the page that is being made, and let go of those who wait for it."""
        if self._making is not None:
            self._making.cancel()

    def _left(self, _: Failure, request: Request) -> None:
        """Somebody who waited for the page is gone."""
        if request in self._waiting:
            self._waiting.remove(request)

    def _made(self, parts: Done[Parts]) -> None:
        self._making = None
        before = self._cpu()
        self._plain = document(parts.value, self._version, self._links).encode()
        self._compressed = gzip(self._plain)
        cost = parts.cost + self._cpu() - before
        self._fresh_until = self._clock.seconds() + max(AGAIN_AT_LEAST, AGAIN * cost)
        waiting, self._waiting = self._waiting, []
        for request in waiting:
            request.write(self._answer(request))
            request.finish()

    def _trouble(self, failure: Failure) -> None:
        self._making = None
        sentence = "distbal stops serving this page."
        if failure.check(CancelledError) is None:
            self.log.failure("the page could not be made", failure)
            sentence = "The page could not be made; the log says why."
        waiting, self._waiting = self._waiting, []
        for request in waiting:
            request.write(answer_text(request, http.INTERNAL_SERVER_ERROR, sentence))
            request.finish()

    def _answer(self, request: Request) -> bytes:
        guard(request)
        request.setHeader(b"content-type", b"text/html; charset=utf-8")
        request.setHeader(b"cache-control", b"no-store")
        request.setHeader(b"vary", b"accept-encoding")
        return _encoded(request, self._plain, self._compressed)


class Live:
    """The page as it is served.

    :ivar feed: those who read it live.
    """

    def __init__(self, page: Page, feed: Feed) -> None:
        self._page = page
        self.feed = feed

    def start(self) -> None:
        """From now on look at the farm once a second, and tell those who listen."""
        self.feed.start()

    def stop(self) -> None:
        """No more of that: every stream is closed. Nothing happens where it was not started."""
        self.feed.stop()
        self._page.stop()


def install(
    root: Resource,
    reporter: Reporter,
    activity: Activity,
    clock: IReactorTime,
    cpu: Callable[[], float] = time.thread_time,
) -> Live:
    """Put the page and what belongs to it on a site's root.

    :param root: gets the children ``""``, ``events``, ``style.css`` and ``script.js``.
    :param activity: the last hour's; whoever calls this keeps it, the feed looks once a second.
    :param clock: never goes back.
    :param cpu: seconds that this thread has computed.
    :returns: to be started when the site is served, and stopped when it no longer is: that closes every reader's stream.
    """
    assets = {name: Asset(Path(__file__).with_name(name).read_bytes(), kind) for name, kind in ASSETS.items()}
    for name, asset in assets.items():
        root.putChild(name.encode(), asset)
    links = {name: f"{name}?v={asset.digest}" for name, asset in assets.items()}
    version = hashlib.sha256("".join(links.values()).encode()).hexdigest()[:8]
    page = Page(Frames(reporter, activity, version), version, links, clock, cpu)
    root.putChild(b"", page)
    feed = Feed(Frames(reporter, activity, version), activity, lambda: reporter.activity, clock, cpu)
    root.putChild(b"events", Events(feed))
    return Live(page, feed)


def document(parts: Parts, version: str, links: dict[str, str]) -> str:
    """The page as HTML.

    :param links: where its assets are, by their names.
    """
    states = "".join(f'<option value="{state}">{state}</option>' for state in reversed(STATES))
    titles = "".join(
        f'<th scope="col"{kind}>{title}</th>'
        for title, kind in (
            ("Ended", ' class="n"'),
            ("Client", ""),
            ("Host", ""),
            ("Waited", ' class="n"'),
            ("Took", ' class="n"'),
            ("How it ended", ""),
            ("Why there?", ""),
        )
    )
    return f"""<!doctype html>
<html lang="en" data-version="{version}" data-at="{parts.at}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{text(parts.title)} · distbal</title>
<link rel="icon" href="{ICON}">
<link rel="stylesheet" href="{links["style.css"]}">
<script src="{links["script.js"]}" defer></script>
<noscript><meta http-equiv="refresh" content="{REFRESH}"></noscript>
</head>
<body>
{sprite()}
<header><h1>distbal</h1><p id="live">refreshes every {REFRESH} s</p></header>
<main>
<section id="totals" aria-label="The farm in figures">{parts.parts["totals"]}</section>
<section aria-labelledby="hour"><h2 id="hour">The last hour</h2><div id="chart">{parts.parts["chart"]}</div></section>
<section aria-labelledby="waits"><h2 id="waits">Who waits</h2><div id="queue">{parts.parts["queue"]}</div></section>
<section aria-labelledby="farm"><div class="bar"><h2 id="farm">Hosts</h2>
<form id="tools" hidden>
<label><span class="unseen">Filter by name, client, pool or state</span>
<input id="search" type="search" placeholder="filter: host, client, pool" autocomplete="off" spellcheck="false"></label>
<label><span class="unseen">State</span><select id="states"><option value="">any state</option>
<option value="look">wants a look</option>{states}</select></label>
<label class="sorter"><span class="unseen">Sort by</span>
<select id="sorter"><option value="">in the file's order</option></select></label>
<output id="shown"></output></form></div>
<table id="hosts"{' class="dense"' if parts.dense else ""}>
<caption class="unseen">The hosts, in the order of the file; a name opens what there is to tell of it</caption>
{hostrows.head()}
{"".join(parts.hosts.values())}
</table></section>
<section aria-labelledby="last"><div class="bar"><h2 id="last">The last jobs</h2>
<p id="held" hidden>held while you read</p></div>
<table id="jobs"><caption class="unseen">The last jobs that ended, the latest first</caption>
<thead><tr>{titles}</tr></thead>
<tbody>{parts.parts["jobs"]}</tbody></table></section>
</main>
<footer><p>{text(parts.about)} · as JSON: <a href="api/v1/status">status</a>, <a href="api/v1/hosts">hosts</a>,
<a href="api/v1/jobs">jobs</a></p></footer>
<p id="said" class="unseen" role="status" aria-live="polite"></p>
</body>
</html>
"""


def gzip(content: bytes) -> bytes:
    """Compressed, and the same bytes for the same content (gzip.compress would note the time)."""
    compressor = zlib.compressobj(5, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    return compressor.compress(content) + compressor.flush()


def _encoded(request: Request, plain: bytes, compressed: bytes | None) -> bytes:
    if compressed is not None and takes_gzip(request):
        request.setHeader(b"content-encoding", b"gzip")
        return compressed
    return plain
