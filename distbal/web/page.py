"""The status page: read-only, whole without a script, and live with one. It needs nothing but Twisted."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.internet.interfaces import IReactorTime
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import Request

from distbal.activity import Activity
from distbal.report import STATES
from distbal.reporter import Reporter
from distbal.web import hostrows
from distbal.web.answers import guard, gzip, takes_gzip
from distbal.web.frames import Frames, Parts
from distbal.web.live import Events, Feed
from distbal.web.making import Answers, Pieces
from distbal.web.overview import sprite
from distbal.web.resources import Made
from distbal.web.words import text

#: seconds after which a page without a script refreshes itself
REFRESH = 5
#: the files beside this one that the page loads
ASSETS = {"style.css": b"text/css; charset=utf-8", "script.js": b"text/javascript; charset=utf-8"}
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><g fill="#3a7bd5">'
    '<rect x="1" y="2" width="9" height="3" rx="1"/>'
    '<rect x="1" y="6.5" width="14" height="3" rx="1"/><rect x="1" y="11" width="6" height="3" rx="1"/></g></svg>'
)
ICON = f"data:image/svg+xml,{quote(_ICON)}"


class Asset(Resource):
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


class Page(Made):
    """The page itself.

    :param links: where its assets are, by their names.
    """

    def __init__(self, answers: Answers, frames: Frames, version: str, links: dict[str, str]) -> None:
        super().__init__(answers)
        self._frames = frames
        self._version = version
        self._links = links

    def pieces(self, request: Request) -> tuple[tuple[Any, ...], Pieces]:
        guard(request)
        request.setHeader(b"content-type", b"text/html; charset=utf-8")
        request.setHeader(b"vary", b"accept-encoding")
        packed = takes_gzip(request)
        if packed:
            request.setHeader(b"content-encoding", b"gzip")
        return ("page", packed), partial(self._make, packed)

    def _make(self, packed: bool) -> Iterator[bytes]:
        parts = yield from self._frames.page()
        html = document(parts, self._version, self._links).encode()
        yield gzip(html) if packed else html


def install(
    root: Resource,
    answers: Answers,
    reporter: Reporter,
    activity: Activity,
    clock: IReactorTime,
    cpu: Callable[[], float] = time.thread_time,
) -> Feed:
    """Put the page and what belongs to it on a site's root.

    :param root: gets the children ``""``, ``events``, ``style.css`` and ``script.js``.
    :param answers: makes those that take long.
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
    root.putChild(b"", Page(answers, Frames(reporter, activity, version), version, links))
    feed = Feed(Frames(reporter, activity, version), activity, lambda: reporter.activity, clock, cpu)
    root.putChild(b"events", Events(feed))
    return feed


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


def _encoded(request: Request, plain: bytes, compressed: bytes | None) -> bytes:
    if compressed is not None and takes_gzip(request):
        request.setHeader(b"content-encoding", b"gzip")
        return compressed
    return plain
