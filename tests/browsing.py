"""Pages of a real browser, and what each is held to: its console was told of nothing, and it asked nobody but the daemon."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.browser import Browser, Tab
from tests.showcase import Served, Shown, farm

LIVE = "document.querySelector('#live').className === 'live'"
#: the names of the hosts that are shown, as they are
SHOWN = "[...document.querySelector('#hosts').tBodies].filter((row) => !row.hidden).map((row) => row.dataset.n)"
NAMES = ["snookles:3632", "newbb", "[fd00::7]:3632"]
#: frames are made so many times as often as they would be
PACE = 10.0


def three() -> Shown:
    return Shown(farm("snookles:3632/4", "newbb/2", "[fd00::7]:3632/1"))


@asynccontextmanager
async def served(shown: Shown, pace: float = PACE) -> AsyncIterator[Served]:
    one = Served(shown, pace=pace)
    try:
        yield one
    finally:
        await one.stop()


@asynccontextmanager
async def page(browser: Browser, site: Served, address: str = "", **view: Any) -> AsyncIterator[Tab]:
    """A page that is open, and live unless it may run no script; afterwards nothing may have gone wrong in it."""
    tab = await browser.tab(site.url + address, **view)
    if view.get("script", True):
        await tab.until(LIVE)
    try:
        yield tab
        assert tab.troubles == []
        strangers = [url for url in tab.requests if not url.startswith((site.url, "data:image/svg+xml,"))]
        assert strangers == []
    finally:
        await tab.close()


async def set_value(tab: Tab, selector: str, value: str) -> None:
    """Have a field or a choice changed."""
    field = f"document.querySelector({json.dumps(selector)})"
    await tab.js(f"{field}.value = {json.dumps(value)}")
    await tab.js(f"['input', 'change'].forEach((what) => {field}.dispatchEvent(new Event(what)))")
