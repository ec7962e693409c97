"""Answers for people: exact tables of examples, and of anything lines that fit and harm no terminal."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbal import tables
from distbal.columns import width_of
from distbal.report import STATES
from distbal.verbs import VERBS
from distbal.why import ASKED_BEFORE, LENT_BEFORE
from tests.reports import NOW, client, host, monitor, status, texts

COLOUR = re.compile(r"\x1b\[\d+m")


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def render(verb: str, answer: Any, **how: Any) -> list[str]:
    text = tables.render(VERBS[verb], answer, **how)
    assert text.endswith("\n")
    return text.removesuffix("\n").split("\n")


FARM = [
    host(
        "snookles:3632",
        "full",
        used=2,
        capacity=2,
        weight=0.5,
        why="ssh: half of it is ours",
        jobs=1200,
        monitors=[monitor()],
        failures={"refused": 2, "timed-out": 1},
        clients=[client(), client("10.0.0.12")],
    ),
    host("newbb:3632", "drain", why="fan broken", jobs=3, used=1, differs=[{"key": "admin"}]),
    host("[fd00::7]:3632", "failing", why="tcp: nobody listens"),
]


def test_hosts() -> None:
    assert render("hosts", {"hosts": FARM}) == [
        "HOST            STATE     SLOTS                WEIGHT  LOAD  JOBS  FAILED  WHY",
        "snookles:3632   full     2/2(4)  [##########]    0.50  1.25  1200       3  ssh: half of it is ours",
        "newbb:3632      drain*      1/4  [###.......]    1.00           3          fan broken",
        "[fd00::7]:3632  failing     0/4  [..........]    1.00           0          tcp: nobody listens",
    ]


def test_on_a_narrow_terminal_reasons_are_worth_more_than_numbers() -> None:
    assert render("hosts", {"hosts": FARM}, width=80) == [
        "HOST            STATE     SLOTS  WEIGHT  LOAD  FAILED  WHY",
        "snookles:3632   full     2/2(4)    0.50  1.25       3  ssh: half of it is ours",
        "newbb:3632      drain*      1/4    1.00                fan broken",
        "[fd00::7]:3632  failing     0/4    1.00                tcp: nobody listens",
    ]
    assert render("hosts", {"hosts": FARM}, width=50) == [
        "HOST            STATE     SLOTS  WHY",
        "snookles:3632   full     2/2(4)  ssh: half of i...",
        "newbb:3632      drain*      1/4  fan broken",
        "[fd00::7]:3632  failing     0/4  tcp: nobody li...",
    ]
    assert render("hosts", {"hosts": [host("box", used=1)]}, width=40) == [
        "HOST  STATE  SLOTS  WEIGHT  JOBS  WHY",
        "box   ready    1/4    1.00     0",
    ]


def test_colour_marks_whole_lines() -> None:
    plain = render("hosts", {"hosts": FARM}, width=60)
    marked = render("hosts", {"hosts": FARM}, width=60, colour=True)
    assert [COLOUR.sub("", line) for line in marked] == plain
    assert [(COLOUR.findall(line) or [""])[0] for line in marked] == ["\x1b[1m", "", "\x1b[33m", "\x1b[31m"]


def test_status_and_queue() -> None:
    waiters = client("10.0.0.9", 4800, 192.0, 21), client("", 0, 0.4, 122)
    assert render("status", status(*waiters)) == [
        "distbal 1.2, up 4h33m: fastest-first, fair queue",
        "3 hosts (1 out): 5 of 12 slots (of 16) lent; 2 wait, the longest for 3m12s",
        "since the start: 10 asked, 8 granted, 3 ended, 0 withdrawn, 0 refused",
        "listens: balance 0.0.0.0:5656 [::]:5656, admin unix:/run/distbal/admin.sock",
        "event loop: late by 3 ms at most in the last 10 s, 12 ms in the last minute; room for 900 more clients",
        "",
        "NUMBER  CLIENT         POOL     WAITS",
        "    21  10.0.0.9:4800  default  3m12s",
        "   122  local          default   0.4s",
    ]
    assert render("queue", {"waiters": waiters})[0] == "NUMBER  CLIENT         POOL     WAITS"
    assert render("queue", {"waiters": []}) == ["nobody waits"]
    crowd = [client(f"10.0.0.{number % 12}") for number in range(40)]
    assert render("status", status(*crowd))[-1] == (
        "and 30 more: queue lists them (10.0.0.10 x3, 10.0.0.11 x3, 10.0.0.0 x3, 10.0.0.1 x3, 10.0.0.2 x3, 10.0.0.3 x3, "
        "10.0.0.4 x2, 10.0.0.5 x2 and 4 more)"
    )
    assert len(render("queue", {"waiters": crowd})) == 41


@pytest.mark.parametrize(
    ("image", "lines"),
    [
        ({}, []),
        (
            {"began": "upgrade", "before": "1.1", "taken_up": {"leases": 1000, "waiters": 1, "sessions": 0}},
            ["upgraded from 1.1 2m00s ago: 1000 leases, 1 waiter taken up"],
        ),
        (
            {"began": "recovery", "taken_up": {"leases": 2, "left": 3, "lost": 1}},
            ["after a crash 2m00s ago: 2 leases taken up; 3 clients had left meanwhile; 1 connection that had just come lost"],
        ),
        ({"trouble": "x.yaml:1: no\nx.yaml:2: \x1b[31m"}, ["not upgraded: x.yaml:1: no; x.yaml:2: ?[31m"]),
    ],
)
def test_how_the_code_that_runs_came_to_run(image: dict[str, Any], lines: list[str]) -> None:
    report = status()
    report["image"] = {**report["image"], "at": NOW - 120, **image}  # type: ignore[typeddict-item]
    assert render("status", report)[4:-1] == lines


def test_the_whole_farm() -> None:
    text = tables.whole(status(out=0, hosts=1, slots=12), [host("box")])
    assert text.splitlines()[1:2] == ["1 host: 5 of 12 slots lent; nobody waits"]
    assert text.splitlines()[5:] == [
        "",
        "HOST  STATE  SLOTS                WEIGHT  JOBS  WHY",
        "box   ready    0/4  [..........]    1.00     0",
    ]


def test_one_host() -> None:
    one = host(
        "newbb:3632",
        "drain",
        why="fan broken",
        used=1,
        weight=0.5,
        options="lzo,cpp",
        jobs=31,
        seconds=192,
        failures={"refused": 2},
        sent=2048,
        received=10,
        said=[
            {"source": "tcp", "up": True, "weight": None, "reason": "", "at": NOW - 9, "expires": NOW + 31},
            {"source": "ssh", "up": True, "weight": 0.5, "reason": "busy", "at": NOW - 70, "expires": None},
        ],
        monitors=[
            monitor(facts={"load": 1.25, "compilers": ["gcc", "clang"]}),
            monitor(source="tcp", up=None, weight=None, reason="", facts={}, at=0, trouble="no route", paused_until=NOW + 60),
        ],
        differs=[
            {"key": "admin", "value": "drain", "file": None, "by": "alice", "at": NOW - 3600, "why": "fan broken"},
            {"key": "slots", "value": 4, "file": 12, "by": "bob", "at": NOW - 60, "why": ""},
        ],
        clients=[client()],
    )
    assert render("show", {"host": one, "at": NOW}) == [
        "newbb:3632: drain: fan broken",
        "  slots     1 of 4 lent, 0 may be [###.......]",
        "  weight    0.5",
        "  load      1.25",
        "  rank      0",
        "  pools     default",
        "  address   10.0.0.7:3632",
        "  options   lzo,cpp",
        "  jobs      31, those that ended took 3m12s",
        "  failures  2 refused",
        "  traffic   2.0 KiB to it, 10 B from it",
        "",
        "differs from the file:",
        "  KEY    IS     FILE  BY          WHEN  WHY",
        "  admin  drain        alice  1h00m ago  fan broken",
        "  slots  4      12    bob    1m00s ago",
        "",
        "said:",
        "  SOURCE  SAYS  WEIGHT       WHEN  FOR  WHY",
        "  tcp     up             9.0s ago  31s",
        "  ssh     up      0.50  1m10s ago       busy",
        "",
        "monitors:",
        "  MONITOR  FOUND  WEIGHT  ANSWERED     TOOK  CHECKS  BAD  WHAT",
        "  ssh      up       0.50  4.0s ago  12.3 ms      20    1  half of it is ours",
        "    load 1.25, compilers gcc clang",
        "  tcp      -                 never  12.3 ms      20    1",
        "    cannot ask: no route",
        "    pauses after a bug, for 1m00s",
        "",
        "clients:",
        "  NUMBER  CLIENT         POOL      FOR",
        "       7  10.0.0.9:4711  default  3.0s",
    ]


def attempt(name: str, **others: Any) -> dict[str, Any]:
    return {
        "lease": 5,
        "host": name,
        "asked": NOW - 20,
        "granted": NOW - 17,
        "waited": 3.0,
        "ended": NOW - 10,
        "seconds": 7.0,
        "outcome": "closed",
        "waited_for": {},
    } | others


def test_jobs() -> None:
    jobs = [
        {"id": 12, "address": "10.0.0.9", "port": 4711, "pool": "default", "attempts": [attempt("box"), attempt("newbb:3632")]},
        {"id": 5, "address": "", "port": 0, "pool": "default", "attempts": [attempt("box", outcome=None, ended=None)]},
        {"id": 4, "address": "", "port": 0, "pool": "default", "attempts": []},
    ]
    assert render("jobs", {"at": NOW, "jobs": jobs}) == [
        "JOB  CLIENT         HOST        WAITED  TOOK  END       ENDED",
        " 12  10.0.0.9:4711  newbb:3632    6.0s  7.0s  closed  10s ago  2 tries",
        "  5  local          box           3.0s  7.0s  runs",
        "  4  local                        0.0s                         0 tries",
    ]
    assert render("jobs", {"at": NOW, "jobs": []}) == ["no job has ended yet"]


def why(*attempts: Any) -> dict[str, Any]:
    return {"job": {"id": 12, "address": "10.0.0.9", "port": 4711, "pool": "arm", "attempts": list(attempts)}}


def passed(number: int, reason: str, words: str) -> dict[str, str]:
    return {"host": f"box{number}", "reason": reason, "words": words}


def test_why_a_job_went_where_it_went() -> None:
    first = attempt("snookles:3632", outcome="no-answer", waited_for={"full": 3, "down": 1}, passed_over=[])
    second = attempt(
        "newbb:3632",
        outcome=None,
        passed_over=[
            passed(1, "taken-down", "was taken down: in the workshop"),
            passed(2, "down", "was down: tcp says so (nobody listens)"),
            passed(33, "full", "was full: 8 of 8 slots lent"),
            passed(4, "pool", "serves other pools (default)"),
        ],
    )
    assert render("why", why(first, second)) == [
        "job 12 of 10.0.0.9:4711, pool arm",
        "",
        "attempt 1: snookles:3632, since 2025-11-27 07:53:03",
        "  waited 3.0s; the hosts, when it asked: 3 full, 1 down",
        "  ran for 7.0s, and ended: no-answer",
        "  no host stands before it",
        "",
        "attempt 2: newbb:3632, since 2025-11-27 07:53:03",
        "  did not have to wait",
        "  has run for 7.0s",
        "  passed over: 4 hosts that stand before it",
        "    HOST   WHY",
        "    box1   was taken down: in the workshop",
        "    box2   was down: tcp says so (nobody listens)",
        "    box33  was full: 8 of 8 slots lent",
        "    box4   serves other pools (default)",
    ]


def test_why_of_a_job_that_was_there_before_distbal_was_started_anew() -> None:
    lent = attempt("box", not_known=LENT_BEFORE)
    waited = attempt("box", not_known=ASKED_BEFORE, passed_over=[passed(1, "full", "was full: 8 of 8 slots lent")])
    at_once = attempt("box", waited=0.0, not_known=LENT_BEFORE)
    told = render("why", why(lent, waited, at_once))
    assert told[3:6] == ["  waited 3.0s", "  ran for 7.0s, and ended: closed", f"  {LENT_BEFORE}"]
    assert told[8:14] == [
        "  waited 3.0s",
        "  ran for 7.0s, and ended: closed",
        f"  {ASKED_BEFORE}",
        "  passed over: 1 host that stands before it",
        "    HOST  WHY",
        "    box1  was full: 8 of 8 slots lent",
    ]
    assert told[16:] == ["  did not have to wait", "  ran for 7.0s, and ended: closed", f"  {LENT_BEFORE}"]


def test_why_of_five_hundred_hosts_is_told_by_what_they_have_in_common() -> None:
    crowd = [
        passed(number, "down", "was down: tcp says so") if number % 10 == 0 else passed(number, "full", "was full: 8 of 8")
        for number in range(500)
    ]
    told = render("why", why(attempt("last", passed_over=crowd)))
    assert told[5:] == [
        "  passed over: 500 hosts that stand before it",
        "    NUMBER  HOSTS                           WHY",
        "        50  box0, box10, box20, box30, ...  was down: tcp says so",
        "       450  box1, box2, box3, box4, ...     was full: 8 of 8",
    ]
    each = [passed(number, "full", f"was full: {number} of {number}") for number in range(500)]
    told = render("why", why(attempt("last", passed_over=each)))
    assert told[-2:] == [
        "       500  box0, box1, box2, box3, ...  full",
        "  (in few words; --json has each host's own)",
    ]


def test_history_changes_and_the_file() -> None:
    change = {"at": NOW, "by": "alice", "where": "ssh from 10.0.0.9", "verb": "drain"}
    change |= {"words": ["drain", "newbb", "fan broken"], "what": "newbb is drained: fan broken"}
    assert render("history", {"changes": [change]}) == [
        "WHEN                 WHO    FROM               SAID                      WHAT CAME OF IT",
        "2025-11-27 07:53:20  alice  ssh from 10.0.0.9  drain newbb 'fan broken'  newbb is drained: fan broken",
    ]
    assert render("history", {"changes": []}) == ["nothing was changed"]
    answer = {"text": "newbb is drained: \x1b[2J", "warnings": ["it holds until a restart, since \x1b"]}
    assert render("drain", answer, width=10) == ["newbb is drained: ?[2J"]
    assert tables.warnings(answer) == "warning: it holds until a restart, since ?\n"
    assert tables.warnings({"text": "newbb is drained"}) == ""
    file = "hosts:\n\t- \x1b[2J # a long comment that is kept whole\n"
    assert tables.render(VERBS["export"], {"file": file}) == file
    assert tables.render(VERBS["export"], {"file": file}, width=10) == (
        "hosts:\n        - ?[2J # a long comment that is kept whole\n"
    )


# -- anything -----------------------------------------------------------------------------------------------------------------

numbers = st.integers(0, 10**9)
moments = st.floats(0, 4e9)
shares = st.floats(0, 1)
clients = st.builds(client, texts, st.integers(0, 65535), st.floats(0, 1e6), numbers, texts)
said = st.fixed_dictionaries(
    {
        "source": texts,
        "up": st.booleans(),
        "weight": st.none() | shares,
        "reason": texts,
        "at": moments,
        "expires": st.none() | moments,
    }
)
facts = st.dictionaries(texts, texts | shares | numbers | st.booleans() | st.lists(texts, max_size=3), max_size=3)
monitors = st.builds(
    monitor,
    source=texts,
    up=st.none() | st.booleans(),
    reason=texts,
    trouble=texts,
    facts=facts,
    at=moments,
    paused_until=st.none() | moments,
)
differs = st.fixed_dictionaries(
    {
        "key": texts,
        "value": texts | shares | st.booleans(),
        "file": st.none() | texts | numbers,
        "by": texts,
        "at": moments,
        "why": texts,
    }
)
hosts = st.builds(
    host,
    texts,
    st.sampled_from(list(STATES)),
    why=texts,
    slots=st.integers(1, 10**6),
    used=st.integers(0, 10**6),
    capacity=st.integers(0, 10**6),
    weight=shares,
    options=texts,
    address=texts,
    pools=st.lists(texts, max_size=3),
    jobs=numbers,
    seconds=moments,
    failures=st.dictionaries(texts, numbers, max_size=3),
    sent=numbers,
    said=st.lists(said, max_size=2),
    monitors=st.lists(monitors, max_size=2),
    differs=st.lists(differs, max_size=2),
    clients=st.lists(clients, max_size=4),
)
passes = st.fixed_dictionaries({"host": texts, "reason": texts, "words": texts})
attempts = st.builds(
    attempt,
    texts,
    outcome=st.none() | texts,
    ended=st.none() | moments,
    waited_for=st.dictionaries(texts, numbers, max_size=3),
    passed_over=st.lists(passes, max_size=40),
)
jobs = st.fixed_dictionaries(
    {"id": numbers, "address": texts, "port": st.integers(0, 65535), "pool": texts, "attempts": st.lists(attempts, max_size=3)}
)
changes = st.fixed_dictionaries(
    {"at": moments, "by": texts, "where": texts, "verb": texts, "words": st.lists(texts, max_size=3), "what": texts}
)
answers = st.one_of(
    st.tuples(st.just("hosts"), st.fixed_dictionaries({"hosts": st.lists(hosts, max_size=4)})),
    st.tuples(st.just("show"), st.fixed_dictionaries({"host": hosts, "at": moments})),
    st.tuples(st.just("status"), st.lists(clients, max_size=15).map(lambda waiters: status(*waiters))),
    st.tuples(st.just("queue"), st.fixed_dictionaries({"waiters": st.lists(clients, max_size=4)})),
    st.tuples(st.just("jobs"), st.fixed_dictionaries({"jobs": st.lists(jobs, max_size=3), "at": moments})),
    st.tuples(st.just("why"), st.fixed_dictionaries({"job": jobs})),
    st.tuples(st.just("history"), st.fixed_dictionaries({"changes": st.lists(changes, max_size=3)})),
)


@given(answers, st.integers(1, 200), st.booleans())
def test_lines_fit_and_harm_no_terminal(answer: tuple[str, Any], width: int, colour: bool) -> None:
    lines = render(*answer, width=width, colour=colour)
    for line in lines:
        shown = COLOUR.sub("", line) if colour else line
        assert width_of(shown) <= width
        assert shown.isprintable()
    assert [COLOUR.sub("", line) for line in lines] == render(*answer, width=width)
