"""The page in a real browser, Debian's Chromium without a window: that it is live, sorts and filters.

One browser serves the whole module, and each test has a page with nothing of another's.
"""

from __future__ import annotations

import json

import pytest
import pytest_twisted

from distbal.interfaces import Reading
from distbal.web.live import MOST_LISTENERS
from tests.browser import Browser
from tests.browsing import LIVE, NAMES, PACE, SHOWN, page, served, set_value, three
from tests.peers import until
from tests.showcase import Served, Shown, farm

pytestmark = pytest.mark.programs

# -- live


@pytest_twisted.ensureDeferred
async def test_it_shows_a_job_that_starts_and_ends(browser: Browser) -> None:
    shown = three()
    async with served(shown, pace=1) as site, page(browser, site) as tab:
        assert await tab.js("document.title") == "0/7 · distbal"
        assert await tab.js(SHOWN) == NAMES
        job = shown.ask("10.0.0.9", seconds=5)
        await tab.until("document.querySelector('[data-n=\"snookles:3632\"] .c b')?.textContent === '10.0.0.9'")
        assert (await tab.text(".tile .big")).split() == ["1", "/", "7"]
        assert await tab.js("document.title") == "1/7 · distbal"
        # its time goes on by itself
        await tab.until("parseInt(document.querySelector('[data-n=\"snookles:3632\"] .c time').textContent) >= 2")
        shown.go(6)
        assert job.over
        await tab.until("document.querySelector('#jobs tbody').textContent.includes('10.0.0.9')")
        await tab.until("!document.querySelector('[data-n=\"snookles:3632\"] .c')")
        assert tab.loads == 1


@pytest_twisted.ensureDeferred
async def test_it_says_when_the_state_of_a_host_changes(browser: Browser) -> None:
    shown = three()
    async with served(shown) as site, page(browser, site) as tab:
        shown.decide("newbb", "admin", "drain", why="fan broken")
        await tab.until("document.querySelector('[data-n=newbb] .st').textContent === 'drain'")
        assert "fan broken" in await tab.text("[data-n=newbb]")
        await tab.until("document.querySelector('#said').textContent === 'newbb is now drain'")


@pytest_twisted.ensureDeferred
async def test_what_is_open_stays_open_and_the_keyboard_where_it_is(browser: Browser) -> None:
    shown = three()
    async with served(shown) as site, page(browser, site) as tab:
        await tab.js("document.querySelector('[data-n=\"snookles:3632\"] summary').focus()")
        await tab.press("Enter", "\r")
        await tab.until("document.querySelector('[data-n=\"snookles:3632\"] .more').offsetParent")
        assert not await tab.js("document.querySelector('[data-n=newbb] .more').offsetParent")
        shown.ask("10.0.0.9")
        await tab.until("document.querySelector('[data-n=\"snookles:3632\"] .c')")
        assert await tab.js("document.querySelector('[data-n=\"snookles:3632\"] details').open")
        assert await tab.js("document.activeElement === document.querySelector('[data-n=\"snookles:3632\"] summary')")


@pytest_twisted.ensureDeferred
async def test_jobs_are_held_while_somebody_reads_why(browser: Browser) -> None:
    shown = three()
    shown.decide("snookles:3632", "admin", "drain", why="fan broken")
    shown.ask("10.0.0.1", seconds=1)
    shown.go(2)
    async with served(shown) as site, page(browser, site) as tab:
        await tab.js("document.querySelector('#jobs summary').click()")
        assert "snookles:3632 was drained: fan broken" in await tab.text("#jobs details")
        shown.ask("10.0.0.2", seconds=1)
        shown.go(2)
        await tab.until("!document.querySelector('#held').hidden")
        assert "10.0.0.2" not in await tab.text("#jobs")
        await tab.js("document.querySelector('#jobs summary').click()")
        await tab.until("document.querySelector('#jobs').textContent.includes('10.0.0.2')")
        assert await tab.js("document.querySelector('#held').hidden")


@pytest_twisted.ensureDeferred
async def test_hosts_come_and_go(browser: Browser) -> None:
    shown = three()
    async with served(shown) as site, page(browser, site) as tab:
        now = shown.leases.scheduler.farm
        shown.leases.configure(type(now)((*farm("first/1"), *now.hosts[1:])))
        await tab.until(f"JSON.stringify({SHOWN}) === JSON.stringify({json.dumps(['first', *NAMES[1:]])})")


@pytest_twisted.ensureDeferred
async def test_it_goes_on_after_the_daemon_was_started_anew(browser: Browser) -> None:
    shown = three()
    site = Served(shown, pace=PACE)
    tab = await browser.tab(site.url)
    await tab.until(LIVE)
    await site.stop()
    await tab.until("document.querySelector('#live').className === 'gone'")
    other = Served(Shown(farm("another/3")), site.number, PACE)
    try:
        await tab.until(f"{LIVE} && document.querySelector('[data-n=another]')")
        assert await tab.js(SHOWN) == ["another"]
        assert tab.loads == 1
    finally:
        await tab.close()
        await other.stop()


@pytest_twisted.ensureDeferred
async def test_a_daemon_that_is_frozen_is_not_called_live(browser: Browser) -> None:
    """The kernel takes connections for it, and so nothing fails: it is only quiet."""
    async with served(three()) as site, page(browser, site) as tab:
        await tab.until(LIVE)
        site.port.stopReading()
        # a minute passes in the browser alone, and again where the daemon was heard just then
        later = "Date.now = (now => () => now() + 60000)(Date.now)"
        await tab.until(f"({later}, document.querySelector('#live').className === 'gone')")
        site.port.startReading()
        await tab.until(LIVE)
        assert tab.loads == 1


@pytest_twisted.ensureDeferred
async def test_where_no_stream_is_to_be_had_it_fetches_itself(browser: Browser) -> None:
    shown = three()
    site = Served(shown, pace=PACE)
    feed = site.feed
    try:
        site.feed.stop()  # and so there are none
        tab = await browser.tab(site.url)
        shown.ask("10.0.0.9")
        await tab.until("document.querySelector('#live').className === 'slow'")
        await tab.until("document.querySelector('[data-n=\"snookles:3632\"] .c b')?.textContent === '10.0.0.9'")
        site.feed.start()
        await tab.until(LIVE)
        await until(lambda: feed.listeners == 1 <= MOST_LISTENERS, "one reader")
        await tab.close()
    finally:
        await site.stop()


@pytest_twisted.ensureDeferred
async def test_without_a_script_it_is_whole_and_refreshes(browser: Browser) -> None:
    shown = three()
    shown.ask("10.0.0.9")
    shown.go(61)
    async with served(shown) as site, page(browser, site, script=False) as tab:
        # the protocol reads what is there even where the page may run nothing
        tree = await tab.ask("DOM.getDocument", depth=0)
        html = (await tab.ask("DOM.getOuterHTML", nodeId=tree["root"]["nodeId"]))["outerHTML"]
        assert "10.0.0.9</b><time" in html
        assert ">1 min</time>" in html
        assert not any("/events" in url for url in tab.requests)
        await tab.until_(lambda: tab.loads >= 2, "it to refresh itself")


# -- sorting and filtering


@pytest_twisted.ensureDeferred
async def test_it_filters_by_name_client_and_state_and_keeps_that_in_its_address(browser: Browser) -> None:
    shown = three()
    shown.decide("newbb", "admin", "down", why="moves")
    shown.ask("10.0.0.9")
    async with served(shown) as site, page(browser, site) as tab:
        await tab.type("#search", "FD00")
        assert await tab.js(SHOWN) == ["[fd00::7]:3632"]
        assert await tab.text("#shown") == "1 of 3 shown"
        assert await tab.js("location.hash") == "#q=FD00"
        await set_value(tab, "#search", "10.0.0.9")
        assert await tab.js(SHOWN) == ["snookles:3632"]
        await set_value(tab, "#search", "")
        await set_value(tab, "#states", "look")
        assert await tab.js(SHOWN) == ["newbb"]
        assert await tab.js("location.hash") == "#state=look"
        # what comes later is filtered too
        shown.decide("[fd00::7]:3632", "admin", "drain", why="moves too")
        await tab.until(f"{SHOWN}.length === 2")
        async with page(browser, site, "#q=new&state=look&sort=n&down=1") as other:
            assert await other.js(SHOWN) == ["newbb"]
            assert await other.js("document.querySelector('#search').value") == "new"


@pytest_twisted.ensureDeferred
async def test_it_sorts_by_every_column(browser: Browser) -> None:
    shown = three()
    half = Reading(up=True, weight=0.5, facts={"load": 3.5})
    shown.watch({"ssh": {"newbb": half, "snookles:3632": Reading(up=True, facts={"load": 0.5})}})
    shown.go(15)
    shown.ask(seconds=50)
    shown.decide("[fd00::7]:3632", "admin", "down")
    shown.go(1)
    async with served(shown) as site, page(browser, site) as tab:
        snookles, newbb, fd00 = NAMES
        wanted = {
            "Host": [fd00, newbb, snookles],
            "State": [fd00, snookles, newbb],
            "Slots": [snookles, newbb, fd00],
            "Load": [newbb, snookles, fd00],
            "Weight": [snookles, fd00, newbb],
            "Jobs": [snookles, newbb, fd00],
        }
        for title, order in wanted.items():
            button = f"[...document.querySelectorAll('#hosts thead button')].find((one) => one.textContent === '{title}')"
            await tab.js(f"{button}.click()")
            assert await tab.js(SHOWN) == order, title
            assert await tab.js(f"Boolean({button}.parentElement.getAttribute('aria-sort'))")
        await tab.js(f"{button}.click()")
        assert await tab.js("document.querySelector('[aria-sort]').getAttribute('aria-sort')") == "ascending"
        assert await tab.js("location.hash") == "#sort=4"
        await tab.js(f"{button}.click()")
        assert await tab.js(SHOWN) == NAMES, "the third time it is the file's order again"
        assert await tab.js("location.hash") == ""


@pytest_twisted.ensureDeferred
async def test_a_slash_leads_to_the_filter(browser: Browser) -> None:
    async with served(three()) as site, page(browser, site) as tab:
        await tab.press("/", "/")
        assert await tab.js("document.activeElement.id") == "search"
        assert await tab.js("document.activeElement.value") == ""
