"""The screen of top: exact ones, and of any size one that fits and harms no terminal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbal.columns import day_and_time, width_of
from distbal.toplayout import STYLES, Line, frame, spark
from distbal.topmodel import Model, View
from tests.reports import NOW, client, host, status, texts
from tests.test_tables import clients, hosts

DRAINED = {"key": "admin", "value": "drain", "file": None, "by": "alice", "at": NOW - 60, "why": "fan broken"}


def text_of(line: Line) -> str:
    return "".join(text for text, _ in line).rstrip()


def screen(model: Model, view: View, width: int, height: int, **how: Any) -> list[str]:
    lines = [text_of(line) for line in frame(model, view, width, height, **how)]
    assert len(lines) == height
    return lines


@pytest.fixture
def model() -> Model:
    model = Model()
    waiters = client("10.0.0.12", 4800, 192.0), client("10.0.0.9", 4801, 3.0), client("10.0.0.12", 4802, 1.0)
    farm = [
        host("snookles:3632", "full", used=4, jobs=1200, clients=[client(), client("10.0.0.12"), client(), client()]),
        host("newbb:3632", "drain", why="fan broken", used=1, clients=[client("", 0)], differs=[DRAINED]),
        host("[fd00::7]:3632", "ready", slots=16, capacity=8, weight=0.5, why="ssh: busy"),
    ]
    for second in range(6):
        report = status(*waiters[: second // 2], used=5)
        report["counts"]["ended"] = 3 * second
        model.heard(report, {"hosts": farm}, 100.0 + second)
    return model


def test_a_wide_screen(model: Model) -> None:
    assert screen(model, View(), 100, 23) == [
        "distbal 1.2, up 4h33m: fastest-first, fair queue                                            " + clock(),
        "3 hosts (1 out), 5 of 12 slots lent, 2 wait, longest 3m12s, 3.0 jobs/s, lag 3 ms",
        "lent                                                                                          ▄▄▄ 12",
        "wait                                                                                           ▅█ 2",
        "A 10.0.0.9 3+1  B local 1  C 10.0.0.12 1+1",
        "HOST            STATE     SLOTS  WHO                 JOB/S  WEIGHT     JOBS  WHY",
        "snookles:3632   full        4/4  [AAAC]                0.0    1.00     1200",
        "newbb:3632      drain*      1/4  [B---]                0.0    1.00        0  fan broken",
        "[fd00::7]:3632  ready       0/8  [........--------]    0.0    0.50        0  ssh: busy",
        *[""] * 13,
        "1-3 of 3  q quit  ? help  s sort: file  / filter  space pause  Enter details",
    ]


def clock() -> str:
    return day_and_time(NOW)[11:]


def test_the_queue_has_room_on_a_high_screen(model: Model) -> None:
    lines = screen(model, View(), 80, 24)
    assert lines[9:12] == [
        "WAITING, longest first",
        "C 10.0.0.12: 1 job, the longest for 3m12s",
        "A 10.0.0.9: 1 job, the longest for 3.0s",
    ]


def test_a_small_screen(model: Model) -> None:
    assert screen(model, View(), 40, 10) == [
        "distbal 1.2, up 4h33m           " + clock(),
        "3 hosts (1 out), 5/12 lent, 2 wait",
        "HOST          STATE    SLOTS WHO",
        "snookles:3632 full       4/4 [AAAC]",
        "newbb:3632    drain*     1/4 [B---]",
        "[fd00::7]:... ready      0/8 [.....----]",
        *[""] * 3,
        "1-3 of 3  q quit  ? help  s sort: file",
    ]


def test_other_screens(model: Model) -> None:
    view = View(like="zzz")
    assert "no host is like that" in screen(model, view, 80, 20)[6]
    assert screen(model, view, 80, 20)[-1].startswith('0-0 of 0 with "zzz"  q quit')
    view = View(like="new", typing=True)
    assert screen(model, view, 80, 20)[-1] == "only hosts with: new_"
    assert screen(model, View(shows="help"), 80, 30)[2] == "distbal top: the farm, once a second, over the admin socket."
    details = screen(model, View(shows="details", chosen="newbb:3632"), 80, 30)
    assert (
        details[2:4] == ["newbb:3632: drain: fan broken", "  slots     1 of 4 lent, 4 may be [###.......]"][:1] + details[3:4]
    )
    scrolled = screen(model, View(shows="details", chosen="newbb:3632", line=99), 80, 8)
    assert scrolled[-2].endswith("3.0s")
    assert screen(model, View(paused=True), 80, 8)[0].endswith(" PAUSED")
    model.failed("nobody listens on /s")
    assert screen(model, View(), 80, 20)[0] == "nobody listens on /s"
    assert screen(Model(), View(), 80, 5)[1] == "nothing was heard yet"


def test_what_is_chosen_is_marked_and_its_clients_keep_their_colours(model: Model) -> None:
    line = frame(model, View(chosen="snookles:3632"), 100, 25)[6]
    assert [(text, style) for text, style in line if style.startswith("client")] == [
        ("A", "client0"),
        ("A", "client0"),
        ("A", "client0"),
        ("C", "client2"),
    ]
    assert {style for _, style in line if not style.startswith("client")} == {"bar"}


def test_sparks() -> None:
    assert spark([0, 1, 4, 8], 8, 6) == "   ▂▅█"
    assert spark([0, 1, 4, 8], 8, 2, blocks=False) == "+#"
    assert spark([], 8, 3) == "   "
    assert spark([1, 2], 8, 0) == ""


@given(
    st.lists(hosts, max_size=6),
    st.lists(clients, max_size=6),
    st.integers(1, 180),
    st.integers(1, 40),
    st.sampled_from(["hosts", "details", "help"]),
    texts,
    st.booleans(),
)
def test_every_screen_fits_and_harms_no_terminal(
    farm: list[Any], waiting: list[Any], width: int, height: int, shows: str, trouble: str, typing: bool
) -> None:
    model = Model()
    model.heard(status(*waiting), {"hosts": farm}, 5.0)
    for wrong in ("", trouble):
        model.failed(wrong)
        lines = frame(model, View(shows=shows, like=trouble if typing else "", typing=typing), width, height)
        assert len(lines) == height
        for line in lines:
            assert sum(width_of(text) for text, _ in line) <= width
            assert all(text.isprintable() and style in STYLES for text, style in line)
