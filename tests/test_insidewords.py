"""How the daemon itself is, in words, and where they are shown: status, top, the page."""

from __future__ import annotations

import pytest

from distbal import tables
from distbal.insidewords import lag, room, roughly, span, troubles
from distbal.topmodel import Model, View
from distbal.web import overview
from tests.reports import host, inside, status

CALM = {"mean": 0.001, "most": 0.003, "minute": 0.012, "worst": 0.2}
ILL = inside(
    bugs={"connection": 1, "page": 12, "reload": 0},
    bounds={"clients": 3, "web": 0},
    room=0,
    lag=CALM | {"minute": 2.5},
    log_lost=7,
    log_trouble="[Errno 28] No space left on device",
)
SENTENCES = [
    "bugs met: 12 page, 1 connection; the log has them",
    "no room for more clients: the limit on open descriptors is reached",
    "bounds hit: 3 clients",
    "the log cannot be written: [Errno 28] No space left on device",
    "7 lines of the log lost",
    "everybody was held up for 2.5 s in the last minute",
]


def test_where_all_is_well_nothing_is_to_be_looked_at() -> None:
    assert troubles(inside()) == []
    assert lag(inside()) == "late by 3 ms at most in the last 10 s, 12 ms in the last minute"
    assert lag(inside(), rough=True) == "late by 10 to 30 ms at most in the last minute"
    assert room(inside()) == "room for 900 more clients"
    assert room(inside(room=1)) == "room for 1 more client"
    assert room(inside(room=None)) == ""


def test_everything_that_is_not_well_has_a_sentence() -> None:
    assert troubles(ILL) == SENTENCES


@pytest.mark.parametrize(
    ("seconds", "exact", "rough"),
    [
        (0.0, "0 ms", "less than 10 ms"),
        (0.0123, "12 ms", "10 to 30 ms"),
        (0.05, "50 ms", "30 to 100 ms"),
        (0.2, "200 ms", "0.1 to 0.3 s"),
        (0.9994, "999 ms", "0.3 to 1 s"),
        (1.0, "1.0 s", "1 s"),
        (12.34, "12.3 s", "12 s"),
    ],
)
def test_a_lag(seconds: float, exact: str, rough: str) -> None:
    assert (span(seconds), roughly(seconds)) == (exact, rough)


def test_status_says_it() -> None:
    report = status()
    report["inside"] = ILL
    lines = tables.whole(report, [host("box")]).splitlines()
    first = lines.index("event loop: late by 3 ms at most in the last 10 s, 2.5 s in the last minute; room for 0 more clients")
    assert lines[first + 1 : first + 1 + len(SENTENCES)] == SENTENCES


def test_a_daemon_of_an_earlier_version_says_nothing_of_it() -> None:
    report = dict(status())
    del report["inside"]
    assert "event loop" not in tables.whole(report, [host("box")])


@pytest.mark.parametrize("height", [8, 24])
def test_top_has_a_line_for_it_only_where_there_is_something(height: int) -> None:
    from distbal.toplayout import frame

    model = Model()
    for told, there in ((inside(), False), (ILL, True)):
        report = status()
        report["inside"] = told
        model.heard(report, {"hosts": [host("box")]}, 1.0)
        lines = frame(model, View(), 100, height)
        shown = [("".join(text for text, _ in line), {style for _, style in line}) for line in lines]
        found = [styles for text, styles in shown if text.startswith("bugs met: 12 page, 1 connection; the log")]
        assert found == ([{"bad"}] if there else [])
        assert len(shown) == height
        assert ", lag 3 ms" in shown[1][0]


def test_the_page_says_it_and_safely() -> None:
    report = status()
    report["inside"] = inside(log_trouble="<b>")
    html = overview.totals(report, [host("box")], None)
    assert "The event loop is late by 10 to 30 ms at most in the last minute." in html
    assert "the log cannot be written: &lt;b&gt;" in html
    # what changes each second must not be a frame each second
    report["inside"] = inside(log_trouble="<b>", lag=CALM | {"mean": 0.002, "most": 0.009, "minute": 0.02})
    assert overview.totals(report, [host("box")], None) == html
