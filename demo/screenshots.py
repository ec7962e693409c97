"""Pictures of the status page: two farms that a morning has gone by, in both themes, on a wall, a desk and a phone.

`make screenshots` puts them into build/screenshots; ``--keep FILE`` makes the one for the README as well.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import react

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from distbal.errors import MonitorTrouble
from distbal.interfaces import Fact, Reading
from distbal.outcomes import Outcome
from distbal.requests import Lease
from tests.browser import Browser, a_browser
from tests.showcase import Served, Shown, farm

#: (name, width, height, dark)
VIEWS = (
    ("desk-light", 1440, 900, False),
    ("desk-dark", 1440, 900, True),
    ("wall-dark", 1920, 1080, True),
    ("phone-light", 390, 844, False),
    ("phone-dark", 390, 844, True),
)
PEOPLE = ("10.0.3.17", "10.0.3.21", "10.0.4.8", "10.0.4.40", "fd00:3::1c", "10.0.7.101")


def office() -> Shown:
    """A dozen hosts, each with its story."""
    shown = Shown(
        farm(
            *("threadripper:3632/16", "epyc1:3632/12", "epyc2:3632/12", "newbb:3632/8", "snookles:3632/8"),
            *("box1/6", "box2/6", "[fd00::7]:3632/4", "reception/4", "oldbb:3632/4", "attic/2", "laptop-of-joe/2"),
        )
    )
    names = [spec.name for spec in shown.leases.scheduler.farm.hosts]
    loads = (13.2, 9.4, 8.1, 6.1, 5.7, 4.2, 5.9, 2.2, 0.4, 0.1, 0.0, 1.1)
    ssh: dict[str, object] = {}
    for spec, load in zip(shown.leases.scheduler.farm.hosts, loads, strict=True):
        facts: dict[str, Fact] = {"load": load, "cpus": spec.slots, "by": "cpu", "share": 0.98}
        ssh[spec.name] = Reading(up=True, reason="98% of its CPUs are left for us", weight=1.0, facts=facts)
    facts = {"load": 5.9, "cpus": 6, "by": "cpu", "share": 0.54}
    ssh["box2"] = Reading(up=True, reason="54% of its 6 CPUs are left for us", weight=0.5, facts=facts)
    tcp: dict[str, object] = {name: Reading(up=True, reason="accepts connections", took=0.0004) for name in names}
    kinds = shown.watch({"tcp": tcp, "ssh": ssh})
    clock = iter(range(10**9))

    def ended(lease: Lease) -> Outcome:
        if lease.host_name == "box1" and shown.draw.random() < 0.01:
            return Outcome.BROKEN
        return Outcome.RESET if shown.draw.random() < 0.01 else Outcome.ANSWERED

    def builds() -> None:
        second = next(clock)
        for number, address in enumerate(PEOPLE):
            wanted = max(0.0, math.sin(second / (240 + 70 * number) + number * 1.9)) * (1.1 + number % 3)
            for _ in range(int(wanted + shown.draw.random())):
                shown.ask(address, shown.draw.choice((1.2, 2.5, 4, 6, 9, 14, 31)))

    shown.outcome = ended
    shown.go(2400, builds)
    shown.decide("reception", "admin", "drain", why="fan broken, Joe orders one")
    kinds["tcp"].answers["oldbb:3632"] = Reading(up=False, reason="refused the connection", certain=True)
    kinds["ssh"].answers["laptop-of-joe"] = MonitorTrouble("has another host key than the one that is known")
    shown.decide("snookles:3632", "slots", 6, 8, why="compiles Rust today", by="bob")
    shown.go(900, builds)
    shown.decide("attic", "admin", "down", why="moves to the new rack")
    shown.go(270, builds)
    # its disk is full: it takes jobs and closes them
    shown.outcome = lambda lease: Outcome.NO_ANSWER if lease.host_name == "[fd00::7]:3632" else ended(lease)
    shown.go(30, builds)
    return shown


def hall() -> Shown:
    """Five hundred."""
    shown = Shown(farm(*(f"rack{number // 25:02}-{number % 25:02}:3632/{(4, 8, 16)[number // 170]}" for number in range(500))))
    load: dict[str, object] = {
        spec.name: Reading(up=True, reason="is idle", weight=1.0, facts={"load": (spec.rank * 7 % 90) / 10, "cpus": spec.slots})
        for spec in shown.leases.scheduler.farm.hosts
    }
    for number in range(0, 500, 61):
        load[f"rack{number // 25:02}-{number % 25:02}:3632"] = Reading(up=False, reason="does not answer", certain=True)
    shown.watch({"snmp": load})
    shown.go(30)
    for number in range(7, 500, 89):
        shown.decide(f"rack{number // 25:02}-{number % 25:02}:3632", "admin", "drain", why="new kernel tonight")
    seconds = iter(range(10**9))

    def builds() -> None:
        for _ in range(int(150 + 60 * math.sin(next(seconds) / 60))):
            shown.ask(f"10.{shown.draw.randrange(3)}.0.{shown.draw.randrange(60)}", shown.draw.choice((3, 8, 14, 40)))

    shown.go(400, builds)
    return shown


async def farm_pictures(browser: Browser, name: str, served: Served, target: Path) -> None:
    """Every view of one farm's page."""
    for view, width, height, dark in VIEWS:
        tab = await browser.tab(served.url, width=width, height=height, dark=dark)
        await tab.until("document.querySelector('#live').className === 'live'")
        save(target / f"{name}-{view}.png", await tab.picture(whole=name == "office"))
        if view == "desk-light" and name == "office":
            await tab.js("document.querySelector('[data-n=\"oldbb:3632\"] summary').click()")
            await tab.js("document.querySelector('#jobs summary').click()")
            save(target / f"{name}-{view}-open.png", await tab.picture())
        elif view == "desk-light":
            await tab.type("#search", "rack0")
            await tab.js("document.querySelector('[data-k=\"2\"] button').click()")
            save(target / f"{name}-{view}-filtered.png", await tab.picture(whole=False))
        if tab.troubles:
            raise SystemExit(f"the page of {name} has troubles: {tab.troubles}")
        await tab.close()


async def pictures(target: Path, keep: Path | None) -> None:
    """All of them."""
    async with a_browser() as browser:
        for name, made in (("office", office), ("hall", hall)):
            served = Served(made())
            try:
                await farm_pictures(browser, name, served, target)
                if keep is not None and name == "office":
                    tab = await browser.tab(served.url, width=1440, height=1330)
                    await tab.until("document.querySelector('#live').className === 'live'")
                    save(keep, await tab.picture(whole=False))
                    await tab.close()
            finally:
                await served.stop()


def save(file: Path, picture: bytes) -> None:
    """Write a picture."""
    file.write_bytes(picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path, help="where the pictures go")
    parser.add_argument("--keep", type=Path, help="the picture for the README")
    options = parser.parse_args()
    options.target.mkdir(parents=True, exist_ok=True)
    react(lambda _: Deferred.fromCoroutine(pictures(options.target, options.keep)))


if __name__ == "__main__":
    main()
