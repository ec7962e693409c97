"""The page in a real browser: that it can be read, with 3 hosts and with 500, in both themes, on a phone and by ear."""

from __future__ import annotations

import json

import pytest
import pytest_twisted

from distbal.interfaces import Reading
from distbal.web import words
from tests.browser import Browser
from tests.browsing import NAMES, SHOWN, page, served, three
from tests.showcase import Shown, farm

pytestmark = pytest.mark.programs


#: what cannot be seen without scrolling sideways
STICKING_OUT = """[...document.querySelectorAll('main *')]
    .filter((one) => one.getBoundingClientRect().right > innerWidth + 1 && !one.closest('.unseen, thead'))
    .map((one) => one.outerHTML.slice(0, 200))"""


@pytest.mark.parametrize(("count", "width"), [(3, 390), (3, 1280), (3, 1920), (500, 390), (500, 1280)])
@pytest_twisted.ensureDeferred
async def test_nothing_sticks_out(browser: Browser, count: int, width: int) -> None:
    names = [f"{'very-' * (number % 4)}long-name-of-host-{number}.example.org:3632" for number in range(count)]
    shown = Shown(farm(*(f"{name}/{1 + number % 12}" for number, name in enumerate(names))))
    shown.watch({"tcp": {"long-name-of-host-0.example.org:3632": Reading(up=False, reason="x" * 200, certain=True)}})
    shown.go(15)
    for number in range(count * 3):
        shown.ask(f"fd00:1234:5678:9abc:def0:{number % 97:x}::1", seconds=5)
    shown.go(9)
    for number in range(count * 7):
        shown.ask(f"10.0.{number % 250}.9")
    shown.decide("very-long-name-of-host-1.example.org:3632", "admin", "drain", why="y" * 300)
    async with served(shown) as site, page(browser, site, width=width) as tab:
        assert await tab.js("document.querySelector('#hosts').tBodies.length") == count
        for _ in range(2):
            assert await tab.js("document.documentElement.scrollWidth") == width
            assert await tab.js(STICKING_OUT) == []
            # and with some of it opened
            await tab.js("[...document.querySelectorAll('summary')].slice(0, 4).forEach((one) => one.click())")
            await tab.js("document.querySelector('#jobs summary').click()")


@pytest_twisted.ensureDeferred
async def test_five_hundred_hosts_stay_live(browser: Browser) -> None:
    shown = Shown(farm(*(f"host{number}/8" for number in range(500))))
    async with served(shown) as site, page(browser, site) as tab:
        assert await tab.js("document.querySelector('#hosts').className") == "dense"
        await tab.type("#search", "host49")
        assert len(await tab.js(SHOWN)) == 11
        for number in range(3990):
            shown.ask(f"10.0.{number % 7}.{number % 50}", seconds=1 + number % 5)
        shown.go(2)
        await tab.until("document.title.startsWith('2')")
        shown.ask("10.9.9.9")
        await tab.until("document.querySelector('#hosts').textContent.includes('10.9.9.9')")
        assert len(await tab.js(SHOWN)) == 11


@pytest_twisted.ensureDeferred
async def test_it_is_light_or_dark_as_its_reader_likes_and_can_be_read(browser: Browser) -> None:
    shown = three()
    for _ in range(9):
        shown.ask("10.0.0.9", seconds=3)
    shown.decide("newbb", "admin", "down", why="moves")
    shown.go(4)
    for _ in range(9):
        shown.ask("10.0.0.9")
    contrast = """(() => {
      const canvas = Object.assign(document.createElement('canvas'), {width: 1, height: 1});
      const pen = canvas.getContext('2d', {willReadFrequently: true});
      const light = (colours) => {
        pen.clearRect(0, 0, 1, 1);
        for (const one of colours) { pen.fillStyle = one; pen.fillRect(0, 0, 1, 1); }
        const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].map((v) => v / 255)
          .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const found = [];
      for (const one of document.querySelectorAll('main *, header *, footer *')) {
        const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
        if (!own || one.offsetParent === null || one.closest('.unseen') || one.tagName === 'OPTION') continue;
        const grounds = [];
        for (let up = one; up; up = up.parentElement) grounds.unshift(getComputedStyle(up).backgroundColor);
        const [a, b] = [light([...grounds]), light([...grounds, getComputedStyle(one).color])].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < 4.5) found.push([one.outerHTML.slice(0, 120), ratio]);
      }
      return found;
    })()"""
    async with served(shown) as site:
        grounds = []
        for dark in (False, True):
            async with page(browser, site, dark=dark) as tab:
                await tab.js("document.querySelector('summary').click()")
                # 4.5 to 1: WCAG 2.2, 1.4.3
                assert await tab.js(contrast) == []
                grounds.append(await tab.js("getComputedStyle(document.body).backgroundColor"))
    assert len(set(grounds)) == 2


@pytest_twisted.ensureDeferred
async def test_those_who_do_not_see_it_find_tables_and_names(browser: Browser) -> None:
    shown = three()
    shown.ask("10.0.0.9", seconds=1)
    shown.go(2)
    async with served(shown) as site, page(browser, site) as tab:
        nodes = (await tab.ask("Accessibility.getFullAXTree"))["nodes"]
        roles: dict[str, list[str]] = {}
        for node in nodes:
            roles.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
        assert len(roles["table"]) == 2
        assert all(roles["table"])
        assert set(NAMES) <= set(roles["rowheader"])
        assert {"Host", "State", "Slots", "Load"} <= set(roles["columnheader"])
        assert {"Filter by name, client, pool or state"} == set(roles["searchbox"])
        assert any(name.startswith("The last hour: at most") for name in roles["image"])
        assert len(roles["status"]) >= 1


@pytest_twisted.ensureDeferred
async def test_the_script_tells_times_as_the_daemon_does(browser: Browser) -> None:
    shown = three()
    ago = [0, 0.9, 59, 60, 61, 3599, 3600, 7261, 86399, 86400, 200000]
    async with served(shown) as site, page(browser, site) as tab:
        now = shown.reporter.status()["at"]
        times = "".join(f'<time data-t="{now - seconds}"></time>' for seconds in ago)
        await tab.js(f"document.querySelector('#queue').innerHTML = {json.dumps(times)}")
        await tab.until("document.querySelector('#queue time:last-child').textContent")
        told = await tab.js("[...document.querySelectorAll('#queue time')].map((time) => time.textContent)")
        # some seconds went by since the page heard what time it is
        late = range(40)
        assert [said for said, of in zip(told, ago, strict=True) if said not in {words.lasting(of + n) for n in late}] == []
