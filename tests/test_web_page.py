"""The status page: what it tells, that nothing in it is more than text, and how it is served. In memory, without a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from distbal.activity import Activity
from distbal.carried import CarriedTicket
from distbal.errors import MonitorTrouble
from distbal.interfaces import Fact, Reading
from distbal.outcomes import Outcome
from distbal.report import STATES
from distbal.requests import Request
from distbal.takeup import Carried
from distbal.web import words
from distbal.web.chart import HEIGHT, WIDTH, chart, nice
from distbal.web.hostrows import MOST_SLOTS, ROOMY
from distbal.web.overview import ICONS, MOST_WAITERS, TINTS, tint
from distbal.why import LENT_BEFORE
from tests.showcase import Shown, farm
from tests.sites import Outline, Website
from tests.support import LoggedErrors

HOSTILE = "</td><script>alert(1)</script>&\"'`"


@pytest.fixture
def shown() -> Iterator[Shown]:
    one = Shown(farm("snookles:3632/4", "newbb/2", "[fd00::7]:3632/1"))
    yield one
    one.stop()


def row(html: str, name: str) -> str:
    """A host's part of the page."""
    (found,) = re.findall(rf'<tbody data-n="{re.escape(name)}".*?</tbody>', html, re.DOTALL)
    return str(found)


def read(html: str) -> str:
    """Its text."""
    return Outline(html).text


# -- what it tells


def test_who_is_in_each_slot_and_for_how_long(shown: Shown) -> None:
    shown.ask("10.0.0.9")
    shown.go(65)
    shown.ask("10.0.0.12")
    shown.go(3)
    html = Website(shown).get().text
    assert "2 /4 10.0.0.9 1 min 10.0.0.12 3 s" in read(row(html, "snookles:3632"))
    assert row(html, "snookles:3632").count('<i class="f">') == 2
    assert "0 /2" in read(row(html, "newbb"))


def test_the_figures_at_the_top(shown: Shown) -> None:
    for _ in range(9):
        shown.ask()
    shown.decide("newbb", "admin", "down", why="moves")
    shown.go(12)
    html = Website(shown).get().text
    totals = read(html[html.index('<section id="totals"') : html.index("</section>") + 10])
    assert totals.startswith("Slots in use 7 / 5")
    assert "Waiting 2 the longest for 12 s" in totals
    assert "Hosts in service 2 / 3 2 full 1 down" in totals
    assert "Jobs 7 in 12 s" in totals
    assert Outline(html).texts[0] == "7/5, 2 waiting · distbal"


def test_why_a_host_is_as_it_is_and_who_said_so_and_when(shown: Shown) -> None:
    refused = Reading(up=False, reason="refused the connection", certain=True)
    half = Reading(up=True, reason="half of it is left for us", weight=0.5, facts={"load": 2.25, "cpus": 4, "by": "cpu"})
    kinds = shown.watch({"tcp": {"newbb": refused}, "ssh": {"snookles:3632": half}})
    shown.go(30)
    kinds["ssh"].answers["[fd00::7]:3632"] = MonitorTrouble("has another host key")
    shown.decide("[fd00::7]:3632", "admin", "drain", why="fan broken", by="joe")
    shown.go(20)
    html = Website(shown).get().text
    failing, weighed, drained = (read(row(html, name)) for name in ("newbb", "snookles:3632", "[fd00::7]:3632"))
    assert re.search(r"failing .*tcp: refused the connection \d+ s ago", failing)
    assert re.search(r"tcp down : refused the connection .*\d+ s ago", failing)
    assert "2.2 /4 50%" in weighed
    assert "ssh: half of it is left for us" in weighed
    assert "load 2.25, cpus 4, by cpu" in weighed
    assert "drain" in drained
    assert "fan broken joe, 20 s ago" in drained
    assert "ssh cannot ask: has another host key" in drained


def test_what_differs_from_the_file(shown: Shown) -> None:
    shown.decide("newbb", "slots", 1, 2, why="is weak", by="ann")
    shown.decide("newbb", "weight", 500)
    shown.go(61)
    text = read(row(Website(shown).get().text, "newbb"))
    assert "slots 1; the file says 2: is weak ann, 1 min ago" in text
    assert "weight 50% alice, 1 min ago" in text


def test_hosts_that_a_person_added_and_removed(shown: Shown) -> None:
    shown.decide("newbb", "there", replace(farm("newbb/2")[0]), file=False)
    shown.ask()
    shown.decide("snookles:3632", "there", False, file=True)
    html = Website(shown).get().text
    assert "was added to those of the file alice" in read(row(html, "newbb"))
    assert "was removed; the file has it alice" in read(row(html, "snookles:3632"))


def test_monitors_that_have_not_asked_yet_and_one_that_has_a_bug(shown: Shown, logged_errors: LoggedErrors) -> None:
    kinds = shown.watch({"tcp": {}, "odd": {"newbb": ZeroDivisionError("oh")}}, interval=30)
    assert "tcp none yet never 0" in read(row(Website(shown).get().text, "newbb"))
    shown.go(40)
    assert kinds["odd"].checks
    assert re.search(r"odd cannot ask: .*oh", read(row(Website(shown).get().text, "newbb")))
    assert re.search(r"\d bugs? ; the last took", read(row(Website(shown).get().text, "newbb")))
    logged_errors.flush()


def test_of_many_hosts_passed_over_the_first_are_named() -> None:
    shown = Shown(farm(*(f"full{number}/1" for number in range(20)), "last/1"))
    for _ in range(20):
        shown.ask()
    shown.ask(seconds=1)
    shown.go(2)
    text = read(Website(shown).get().text)
    assert "20 passed over" in text
    assert "full11 was full: 1 of 1 slots lent and 8 more" in text
    shown.stop()


def test_a_job_that_was_there_before_distbal_was_started_anew() -> None:
    shown = Shown(farm("box/1", "slow/1"))
    request = Request("10.0.0.9", 4711, "10.0.0.9")
    lent = CarriedTicket(5, request, shown.clock.seconds() - 9, "slow", shown.clock.seconds() - 7)
    ticket = shown.leases.take_up(Carried([(lent, None)])).tickets[5]
    assert ticket.lease is not None
    shown.leases.release(ticket.lease, Outcome.CLOSED)
    text = read(Website(shown).get().text)
    assert "not known" in text
    assert re.search(rf"It waited 2[.0]* s\. {LENT_BEFORE.capitalize()}\.", text)
    assert "first in rank" not in text
    shown.stop()


def test_jobs_seconds_and_failures(shown: Shown) -> None:
    ends = iter([Outcome.ANSWERED, Outcome.REFUSED, Outcome.BROKEN, Outcome.BROKEN])
    shown.outcome = lambda lease: next(ends)
    for _ in range(4):
        shown.ask(seconds=10)
    shown.go(10)
    html = Website(shown).get().text
    figures = Outline(row(html, "snookles:3632"))
    assert "4 40 10.0 s 3" in figures.text
    assert figures.with_("td", **{"data-l": "failed"})[0]["title"] == "2 broken, 1 refused"


def test_the_queue_tells_who_waits_the_longest_first(shown: Shown) -> None:
    for _ in range(7):
        shown.ask("10.0.0.1")
    shown.ask("10.0.0.2")
    shown.go(100)
    shown.ask("10.0.0.3", pool="arm")
    html = Website(shown).get().text
    queue = html[html.index('<div id="queue">') : html.index("</section>", html.index('<div id="queue">'))]
    assert read(queue.removesuffix("</div>") + "</div>") == "10.0.0.2 1 min 10.0.0.3 arm 0 s"


def test_a_long_queue_is_counted(shown: Shown) -> None:
    for number in range(7 + MOST_WAITERS + 500):
        shown.ask(f"10.0.0.{number % 3}")
    html = Website(shown).get().text
    assert html.count("<li><span") == MOST_WAITERS
    assert re.search(r"and 500 more. Most are of 10\.0\.0\.\d \(\d+\), ", read(html))


def test_the_last_jobs_and_why_they_went_there(shown: Shown) -> None:
    shown.decide("snookles:3632", "admin", "drain", why="fan broken")
    kinds = shown.watch({"tcp": {}})
    kinds["tcp"].answers["newbb"] = Reading(up=False, reason="is dark", certain=True)
    shown.go(15)
    first = shown.ask("10.0.0.1", seconds=5)
    shown.ask("10.0.0.2", seconds=3)
    shown.go(9)
    assert first.over
    html = Website(shown).get().text
    jobs = html[html.index('<table id="jobs">') : html.index("</table>", html.index('<table id="jobs">'))]
    second, earlier = (read(part) for part in re.findall(r"<tr data-j.*?</tr>", jobs))
    assert second.startswith("1 s ago 10.0.0.2 [fd00::7]:3632 5.00 s 3.00 s answered 2 passed over")
    assert "It waited 5.00 s, as hosts were: 1 drained, 1 down, 1 full." in second
    assert "snookles:3632 was drained: fan broken newbb was down: tcp says so (is dark)" in second
    assert earlier.startswith(f"4 s ago 10.0.0.1 [fd00::7]:3632 {words.NONE} 5.00 s answered")


def test_a_host_with_very_many_slots_is_drawn_in_part() -> None:
    shown = Shown(farm("giant/65535", "dwarf/65535"))
    for _ in range(MOST_SLOTS + 36):
        shown.ask("10.0.0.9")
    shown.decide("dwarf", "weight", 1)
    html = Website(shown).get().text
    giant, dwarf = row(html, "giant"), row(html, "dwarf")
    assert giant.count('class="c ') == MOST_SLOTS
    assert "and 36 in use, 65,435 free".replace(",435", "\N{NARROW NO-BREAK SPACE}435") in read(giant)
    assert giant.count("<i ") == 0
    assert dwarf.count("<i ") == MOST_SLOTS
    assert len(html) < 60_000
    shown.stop()


def test_many_hosts_are_drawn_small() -> None:
    for count in (ROOMY, ROOMY + 1):
        shown = Shown(farm(*(f"host{number}" for number in range(count))))
        assert bool(Outline(Website(shown).get().text).with_("table", **{"class": "dense"})) is (count > ROOMY)
        shown.stop()


def test_nothing_has_happened_yet(shown: Shown) -> None:
    text = read(Website(shown).get().text)
    assert "Nobody waits." in text
    assert "No job has ended yet." in text
    assert "Nobody says anything of it, and so it is up." in text


def test_every_state_has_a_shape_of_its_own() -> None:
    assert set(ICONS) == set(STATES)
    assert len(set(ICONS.values())) == len(STATES)


# -- nothing in it is more than text


def test_what_others_say_stays_text(shown: Shown) -> None:
    facts: dict[str, Fact] = {HOSTILE: HOSTILE, "list": (HOSTILE,), "load": 1.0, "cpus": HOSTILE}
    bad = Reading(up=False, reason=HOSTILE, certain=True, facts=facts)
    shown.watch({"tcp": {"newbb": bad}, "ssh": {"newbb": MonitorTrouble(HOSTILE)}})
    shown.go(15)
    shown.decide("snookles:3632", "admin", "drain", why=HOSTILE, by=HOSTILE)
    shown.decide("newbb", "slots", 1, 2, why=HOSTILE, by=HOSTILE)
    shown.ask(HOSTILE, seconds=2)
    shown.ask(HOSTILE, pool=HOSTILE)
    shown.go(3)
    shown.ask(HOSTILE)
    shown.ask(HOSTILE)
    website = Website(shown)
    website.feed.start()
    page = website.get().text
    reader = website.listen()
    website.clock.advance(1)
    (frame,) = reader.answer.frames
    website.feed.stop()
    fragments = "".join([*frame["parts"].values(), *frame["hosts"].values()])
    for html in (page, fragments):
        outline = Outline(html)
        assert outline.text.count("alert(1)") > 8
        assert [str(have.get("src"))[:12] for have in outline.with_("script")] == ["script.js?v="] * (html == page)
        assert not any(name.startswith("on") or name == "style" for _, have in outline.tags for name in have)
        assert "<script>" not in html
    for have in Outline(page).with_("tbody"):
        if "data-n" in have:
            assert set(have) == {"data-n", "data-s", "data-v", "data-w"}


def test_names_of_hosts_are_text_too() -> None:
    # the file lets no such name in; who makes a farm of his own may have one
    shown = Shown([replace(spec, name=HOSTILE, pools=(HOSTILE,), options=f",{HOSTILE}") for spec in farm("a/1")])
    outline = Outline(Website(shown).get().text)
    assert outline.with_("tbody")[0]["data-n"] == HOSTILE
    assert HOSTILE in outline.texts
    shown.stop()


# -- how it is served


@pytest.mark.parametrize("path", ["/", "/style.css", "/script.js"])
def test_a_browser_is_kept_from_doing_more_than_was_meant(shown: Shown, path: str) -> None:
    headers = Website(shown).get(path).headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_nothing_comes_from_elsewhere(shown: Shown) -> None:
    website = Website(shown)
    outline = Outline(website.get().text)
    links = [have[name] for _, have in outline.tags for name in ("src", "href") if have.get(name)]
    assert links
    assert all(re.match(r"(style\.css|script\.js)\?v=|data:image/svg|#i-|api/v1/", str(link)) for link in links)
    for name in ("/style.css", "/script.js"):
        assert not re.search(r"https?:|//[a-z]|@import|url\(", website.get(name).text)


def test_it_refreshes_itself_only_without_a_script(shown: Shown) -> None:
    html = Website(shown).get().text
    assert '<noscript><meta http-equiv="refresh" content="5"></noscript>' in html
    assert html.count("refresh") == html.count("<noscript>") + 1, "and the words that say so"


@pytest.mark.parametrize("path", ["/", "/style.css", "/script.js", "/events"])
def test_it_can_only_be_read(shown: Shown, path: str) -> None:
    website = Website(shown)
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert website.get(path, method).status in (405, 501)
    head = website.get(path, "HEAD")
    assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize("path", ["/nothing", "/style.css/..", "/../etc/passwd", "/%2e%2e/%00", "/events/x", "/?a=<b>"])
def test_other_places_are_not_there_or_the_same(shown: Shown, path: str) -> None:
    answer = Website(shown).get(path)
    assert answer.status in (200, 404, 503)
    assert "<b>" not in answer.text or answer.status == 200


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0" * 100_000,
        b"\x16\x03\x01\x02\x00" + bytes(range(256)) * 20,  # somebody speaks TLS
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 1000,
        b"GET /?v=%ff%00&v=<script> HTTP/1.1\r\nIf-None-Match: \xff\r\nAccept-Encoding: ;;,=q\xff\r\n\r\n",
        b"HEAD /events HTTP/0.9\r\n\r\n",
    ],
)
def test_garbage_harms_nobody(shown: Shown, garbage: bytes) -> None:
    website = Website(shown)
    website.feed.start()
    one = website.exchange()
    for start in range(0, len(garbage), 10_000):
        one.send(garbage[start : start + 10_000])
    website.clock.advance(0)
    assert b"<script>" not in one.transport.value().replace(b"<script src", b"")
    assert website.get().status == 200
    website.clock.advance(120)
    website.clock.advance(120)
    assert one.transport.gone, "and it is let go"
    website.feed.stop()


def test_who_asks_very_slowly_is_let_go(shown: Shown) -> None:
    website = Website(shown)
    one = website.exchange()
    for char in b"GET / HTTP/1.1\r\nHost:":
        one.send(bytes([char]))
        website.clock.advance(1)
    for _ in range(10):
        website.clock.advance(10)
    assert one.transport.gone


def test_assets_are_kept_by_browsers_until_they_change(shown: Shown) -> None:
    website = Website(shown)
    links = re.findall(r'"((?:style|script)\.\w+\?v=\w+)"', website.get().text)
    assert len(links) == 2
    for link in links:
        answer = website.get(f"/{link}")
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        again = website.get(f"/{link}", If_None_Match=answer.headers["etag"])
        assert (again.status, again.body) == (304, b"")
        assert website.get(f"/{link.split('?')[0]}").headers["cache-control"] == "no-cache"
        assert website.get(f"/{link.split('?')[0]}?v=other").headers["cache-control"] == "no-cache"
    assert website.get().headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/", "/style.css", "/script.js"])
def test_it_is_compressed_for_whoever_takes_that(shown: Shown, path: str) -> None:
    website = Website(shown)
    plain = website.get(path)
    assert "content-encoding" not in plain.headers
    packed = website.get(path, Accept_Encoding="br, gzip")
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.text == plain.text
    assert len(packed.body) < len(plain.body) / 2
    assert "content-encoding" not in website.get(path, Accept_Encoding="gzip;q=0, br").headers


def test_a_page_that_is_dear_is_made_in_spells_and_once_for_all(shown: Shown) -> None:
    spent = iter(range(10**6))
    website = Website(shown, cpu=lambda: float(next(spent)))
    first, other, gone = (website.exchange() for _ in range(3))
    for one in (first, other, gone):
        one.ask("/")
    assert first.answer.status == 0
    gone.leave()
    for _ in range(20):
        website.clock.advance(100)
    assert first.answer.status == other.answer.status == 200
    assert first.answer.body == other.answer.body
    assert gone.transport.value() == b""


def test_a_bug_in_a_page_is_said_and_logged(shown: Shown, logged_errors: LoggedErrors) -> None:
    website = Website(shown)
    shown.activity.hour = lambda: 1 // 0  # type: ignore[assignment,return-value,method-assign]
    answer = website.get(Accept_Encoding="gzip")
    assert (answer.status, answer.text) == (500, "This answer met a bug; the log of distbal has it.\n")
    (event,) = logged_errors.flush()
    assert event["log_format"] == "a request for {path} met a bug"


# -- its words, and the chart


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-3, "0 s"),
        (0.99, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3660, "1 h 01"),
        (86399, "23 h 59"),
        (2e5, "2 d"),
    ],
)
def test_how_long(seconds: float, said: str) -> None:
    assert words.lasting(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-1, "0.0 ms"), (0.0042, "4.2 ms"), (0.05, "50 ms"), (9.5, "9.50 s"), (12.34, "12.3 s"), (61, "1 min")],
)
def test_how_long_it_took(seconds: float, said: str) -> None:
    assert words.precise(seconds) == said


def test_facts_of_every_type() -> None:
    assert [words.fact(value) for value in (True, 0.12345, 7, "a<b", ("a", "b"))] == ["yes", "0.123", "7", "a&lt;b", "a, b"]


def test_clients_have_a_tint_each() -> None:
    tints = {tint(f"10.0.{number // 250}.{number % 250}") for number in range(500)}
    assert tints == set(range(TINTS))


@pytest.mark.parametrize(
    ("most", "top"), [(0, 2), (1, 2), (2, 2), (3, 4), (4, 4), (5, 10), (11, 20), (21, 40), (41, 100), (1001, 2000)]
)
def test_the_scale_has_a_whole_half(most: int, top: int) -> None:
    assert nice(most) == top


def test_the_chart_shows_an_hour_with_its_gaps() -> None:
    activity = Activity()
    for second in [*range(600), *range(1200, 3600)]:
        activity.look(second, 10, 20 if second >= 3590 else 0)
    outline = Outline(chart(activity))
    (area,) = outline.with_("path", **{"class": "area"})
    (line,) = outline.with_("path", **{"class": "waiting"})
    assert str(area["d"]).count("M") == 2, "what nobody looked at is left out"
    points = [tuple(map(float, point.split())) for point in re.findall(r"[\d.e+-]+ [\d.e+-]+", str(area["d"]))]
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)
    assert str(line["d"]) == f"M718 {HEIGHT}L{WIDTH} 0", "it rises to the top, which is 20, at the end"
    assert "The last hour: at most 10 slots in use at once, and 20 clients waiting" in str(
        outline.with_("svg")[0]["aria-label"]
    )


def test_the_chart_of_nothing() -> None:
    outline = Outline(chart(Activity()))
    assert not outline.with_("path", **{"class": "area"})
    one = Activity()
    one.look(0, 1, 0)
    assert Outline(chart(one)).with_("path", **{"class": "area"})
