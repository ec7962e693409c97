"""What one process notes and the next reads: everything that goes in comes out, and nothing that may stand there does harm."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbal.activity import Activity
from distbal.carried import (
    MOST_THEN,
    CarriedTotals,
    host_note,
    read_host,
    read_totals,
    totals_note,
)
from distbal.checked import MOST, MOST_CHARS, Wrong
from distbal.evidence import Account
from distbal.health import Verdict
from distbal.history import History, attempt
from distbal.hosts import AdminState, Farm, Host, HostSpec
from distbal.outcomes import FAILURES, Outcome
from distbal.remembered import history_note, read_history
from distbal.requests import Lease, Request, Ticket
from distbal.scheduler import Scheduler
from distbal.standing import UNKNOWN, Moment
from distbal.waits import BOUNDS

counts = st.integers(0, MOST)
moments = st.floats(-1e9, 1e12)
spans = st.floats(0, 1e12)
#: as a monitor may word it, halves of characters and all
texts = st.text(max_size=40)
names = st.from_regex(r"[a-z]{1,8}(:[0-9]{1,4})?", fullmatch=True)

specs = st.builds(
    HostSpec,
    names,
    st.integers(1, 999_999),
    st.integers(0, 10_000),
    st.sampled_from(["", ",lzo", ",lzo,cpp"]),
    st.tuples(names, st.integers(1, 65535)),
    st.lists(names, min_size=1, max_size=3, unique=True).map(tuple),
    st.booleans(),
)


def verdicts(source: str, then: st.SearchStrategy[Verdict | None]) -> st.SearchStrategy[Verdict]:
    return st.builds(
        Verdict,
        st.just(source),
        st.booleans(),
        moments,
        st.none() | st.integers(0, 1000),
        texts,
        st.none() | moments,
        then,
    )


chains = texts.flatmap(lambda source: verdicts(source, st.none() | verdicts(source, st.none() | verdicts(source, st.none()))))
accounts = st.builds(
    Account,
    st.sampled_from([0.0, 5.0, 300.0]),
    st.none() | moments,
    st.frozensets(texts, max_size=3),
    counts,
    counts,
    counts,
    spans,
    st.none() | st.dictionaries(st.sampled_from(sorted(one.value for one in FAILURES)), counts, min_size=1),
)
requests = st.builds(
    Request,
    texts,
    st.integers(0, 65535),
    texts,
    texts,
    st.lists(texts, max_size=3).map(tuple),
    counts,
    st.none() | moments,
    texts,
)
#: whatever JSON may hold, and Python's reader with it
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("x" * (MOST_CHARS + 1)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


def through_json(values: object) -> Any:
    return json.loads(json.dumps(values))


@st.composite
def hosts(draw: st.DrawFn) -> Host:
    """A host with a past."""
    host = Host(draw(specs), draw(st.integers(0, 9)))
    host.health.take_up(draw(st.lists(chains, max_size=3)), -float("inf"))
    host.evidence.take_up(draw(accounts))
    host.admin, host.decided = draw(st.sampled_from(AdminState)), draw(texts)
    host.leases, host.granted, host.held = draw(counts), draw(counts), draw(spans)
    return host


def a_host() -> Host:
    host = Host(HostSpec("box:3632", 8, 2, ",lzo", ("10.0.0.7", 3632), ("default", "arm"), auto=True), 3)
    trial = Verdict("connect", up=True, at=2.0, weight=1, reason="on trial", expires=9.0)
    host.health.hear(Verdict("connect", up=False, at=1.0, reason="refused", expires=2.0, then=trial))
    host.evidence.take_up(Account(5.0, 1.0, frozenset({"10.0.0.9"}), 1, 2, 3, 0.5, {"refused": 1}))
    host.granted, host.held, host.decided = 7, 1.5, "why not"
    return host


def a_scheduler() -> Scheduler:
    scheduler = Scheduler(Farm((HostSpec("box", 1, 0),)))
    first, second = (scheduler.ask(Request("10.0.0.9", 1, "10.0.0.9"), None, 5.0) for _ in range(2))
    assert first.lease is not None
    scheduler.release(first.lease, Outcome.CLOSED, 7.0)
    assert second.lease is not None
    return scheduler


def an_activity() -> Activity:
    activity = Activity()
    for number in range(40):
        activity.look(number, number % 7, number % 3)
    return activity


def read_activity(values: object) -> object:
    activity = Activity()
    activity.take_up(values)
    return activity.hour()


#: a note of each kind as it comes out of JSON, and its reader
NOTES: list[tuple[Any, Callable[[object], object]]] = [
    (through_json(host_note(a_host())), read_host),
    (through_json(totals_note(a_scheduler())), read_totals),
    (through_json(history_note(a_scheduler().history)), read_history),
    (through_json(an_activity().note()), read_activity),
]


# -- there and back


@given(hosts())
def test_a_host(host: Host) -> None:
    read = read_host(through_json(host_note(host)))
    assert read.spec == host.spec
    assert (read.position, read.admin, read.decided) == (host.position, host.admin, host.decided)
    assert read.verdicts == host.health.verdicts
    assert read.account == host.evidence.account()
    assert (read.leases, read.granted, read.held) == (host.leases, host.granted, host.held)


def test_a_host_of_which_nothing_is_known_yet_says_little() -> None:
    note = host_note(Host(HostSpec("box", 4, 0), 0))
    assert "evidence" not in note
    assert read_host(note).account == Account()


def test_what_an_older_version_did_not_say_is_as_usual_and_what_a_newer_one_says_is_passed_over() -> None:
    note = {"name": "box", "slots": 4, "rank": 0, "address": ["box", 3632], "colour": "red", "verdicts": []}
    read = read_host(note)
    assert read.spec == HostSpec("box", 4, 0, address=("box", 3632))
    assert (read.granted, read.admin, read.account) == (0, AdminState.READY, Account())
    newer = {"evidence": {"failures": {"refused": 2, "melted": 3}, "smell": "of smoke"}}
    assert read_host(note | newer).account.failures == {"refused": 2}
    assert read_totals({"asked": 3, "dreamt": 4}) == CarriedTotals(asked=3)


def test_texts_are_cut_to_what_is_read() -> None:
    host = a_host()
    host.health.hear(Verdict("talks", up=True, at=1.0, reason="bla" * MOST_CHARS))
    assert len(read_host(host_note(host)).verdicts[1].reason) == MOST_CHARS


@given(st.lists(counts.map(lambda count: count // 100), min_size=len(BOUNDS) + 1, max_size=len(BOUNDS) + 1), spans)
def test_totals(waited: list[int], seconds: float) -> None:
    note = totals_note(a_scheduler())
    note["granted"] = sum(waited)
    note["waits"] |= {"counts": waited, "seconds": seconds}
    read = read_totals(through_json(note))
    assert read == CarriedTotals(2, sum(waited), 1, 0, 0, BOUNDS, tuple(waited), seconds)


@given(
    st.lists(st.tuples(requests, names, st.integers(1, MOST), moments, spans, spans, st.sampled_from(Outcome), st.booleans()))
)
def test_the_history(past: list[tuple[Request, str, int, float, float, float, Outcome, bool]]) -> None:
    moment = Moment("fastest-first", ())
    old, new = History(), History()
    for request, name, number, asked, waited, took, outcome, had_to_wait in past:
        ticket = Ticket(number, request, None, asked)
        ticket.found = moment if had_to_wait else None
        lease = Lease(ticket, Host(HostSpec(name, 1, 0), 0), asked + waited, moment)
        old.ended(lease, outcome, asked + waited + took)
    new.take_up(read_history(through_json(history_note(old))))
    assert new.jobs() == old.jobs()
    for (mine, *_), (theirs, *_) in zip(new.entries, old.entries, strict=True):
        assert mine.found is UNKNOWN
        assert (mine.ticket.found is None) is (theirs.ticket.found is None)


def test_of_the_history_the_last_come_first_and_go_before_what_ended_since() -> None:
    old = a_scheduler().history
    for number in range(10, 15):
        old.ended(Lease(Ticket(number, Request("a", 1, "a"), None, 1.0), a_host(), 2.0, UNKNOWN), Outcome.CLOSED, 3.0)
    assert [one["lease"] for one in history_note(old, 2)] == [13, 14]
    assert [one["lease"] for one in history_note(old, 99)] == [1, *range(10, 15)]
    new = History(3)
    new.ended(Lease(Ticket(99, Request("a", 1, "a"), None, 1.0), a_host(), 2.0, UNKNOWN), Outcome.CLOSED, 3.0)
    new.take_up(read_history(history_note(old)))
    assert [entry[0].id for entry in new.entries] == [14, 99] or [entry[0].id for entry in new.entries] == [13, 14, 99]
    assert len(new.entries) == 3
    assert attempt(new.entries[0][0]).host == "box:3632"


def test_an_end_that_this_version_has_no_word_for_is_passed_over() -> None:
    note = history_note(a_scheduler().history) * 2
    note[0] = note[0] | {"outcome": "evaporated"}
    assert len(read_history(note)) == 1


def test_activity() -> None:
    old, new = an_activity(), Activity()
    new.take_up(through_json(old.note()))
    assert new.hour() == old.hour()
    assert [one.look(45.0, 6, 0) for one in (old, new)] == [True, True]
    assert new.hour() == old.hour()
    other = Activity(width=5.0)
    other.take_up(old.note())
    assert other.hour() == []
    short = Activity(bins=2)
    short.take_up(old.note())
    assert [one.number for one in short.hour()] == [3, 4], "as long as its own ring"
    unseen = Activity()
    unseen.take_up(Activity().note())
    assert unseen.hour() == []


# -- what may stand there instead


def read_or_refused(read: Callable[[object], object], values: object) -> None:
    """Nothing but a ValueError may come of it, with few words."""
    with suppress(ValueError):
        read(values)
        return
    with pytest.raises(ValueError, match=r"(?s)\A.{1,500}\Z"):
        read(values)


@given(st.sampled_from(NOTES), anything)
def test_anything_is_read_or_said_to_be_wrong(note: tuple[Any, Callable[[object], object]], values: object) -> None:
    read_or_refused(note[1], values)


@given(st.sampled_from(NOTES), st.data(), anything)
def test_a_note_with_anything_in_one_place_is_read_or_said_to_be_wrong(
    note: tuple[Any, Callable[[object], object]], data: st.DataObject, planted: object
) -> None:
    values = copy.deepcopy(note[0])
    place: Any = values
    while True:
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(st.sampled_from(keys))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            place[key] = planted
            break
        place = inner
    read_or_refused(note[1], values)


def chain(length: int) -> dict[str, Any]:
    verdict: dict[str, Any] = {"source": "a", "up": True, "at": 1}
    for _ in range(length - 1):
        verdict = verdict | {"then": verdict}
    return verdict


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": None}, "name is missing"),
        ({"name": ""}, "name: a host has one"),
        ({"name": "a b"}, "name: one word is wanted, not 'a b'"),
        ({"name": "a\n"}, r"name: one word is wanted, not 'a\n'"),
        ({"name": "bücher"}, "name: one word is wanted, not 'bücher'"),
        ({"slots": 0}, "slots: a whole number, 1 to 1000000, is wanted, not 0"),
        ({"slots": True}, "slots: a whole number, 1 to 1000000, is wanted, not True"),
        ({"slots": 4.0}, "slots: a whole number, 1 to 1000000, is wanted, not 4.0"),
        ({"held": float("nan")}, "held: a number, 0 at least, is wanted, not nan"),
        ({"held": 10**400}, "held: a number, 0 at least, is wanted, not 1000000000"),
        ({"held": -1}, "held: a number, 0 at least, is wanted, not -1"),
        ({"address": ["box"]}, "address: a host and a port are wanted, not ['box']"),
        ({"address": ["box", 70000]}, "address: a whole number, 0 to 65535, is wanted, not 70000"),
        ({"pools": ["a"] * 1001}, "pools: 1001 values are too many: 1000 at most"),
        ({"pools": "default"}, "pools: a list is wanted, not 'default'"),
        ({"pools": [3]}, "pools: a text is wanted, not 3"),
        ({"auto": 1}, "auto: true or false is wanted, not 1"),
        ({"admin": "tired"}, "admin: 'tired' is nothing that can be decided about a host"),
        ({"decided": "x" * 4001}, "decided: a text has at most 4000 characters, not 4001"),
        ({"verdicts": [{"source": "a", "up": True}]}, "verdicts.at is missing"),
        ({"verdicts": [5]}, "verdicts: a mapping is wanted, not 5"),
        ({"verdicts": [{"source": "a", "up": True, "at": 1, "weight": 1001}]}, "verdicts.weight: a whole number, 0 to 1000"),
        ({"verdicts": [chain(MOST_THEN + 1)]}, "more than 8 verdicts follow each other"),
        ({"evidence": {"failures": {"refused": -1}}}, "evidence.failures.refused: a whole number"),
    ],
)
def test_what_is_wrong_with_a_host_is_said(change: dict[str, object], words: str) -> None:
    note = host_note(a_host())
    with pytest.raises(Wrong) as caught:
        read_host(note | change)
    assert words in str(caught.value)


def test_a_chain_of_verdicts_as_long_as_allowed_is_read() -> None:
    (verdict,) = read_host(host_note(a_host()) | {"verdicts": [chain(MOST_THEN)]}).verdicts
    assert host_note(a_host())["verdicts"][0]["then"]["source"] == "connect"
    length = 1
    while verdict.then is not None:
        verdict, length = verdict.then, length + 1
    assert length == MOST_THEN


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([], "the whole: a mapping is wanted, not []"),
        ({"granted": -1}, "granted: a whole number"),
        ({"waits": {"bounds": [1, 1], "counts": [0, 0, 0]}}, "waits.bounds: each is greater than the one before"),
        ({"waits": {"bounds": [1], "counts": [0]}}, "waits.counts: one more than there are bounds (1), not 1"),
        (
            {"granted": 2, "waits": {"bounds": [1], "counts": [1, 2]}},
            "waits.counts: 3 waited for a slot, and 2 were granted one",
        ),
    ],
)
def test_what_is_wrong_with_totals_is_said(values: object, words: str) -> None:
    with pytest.raises(Wrong) as caught:
        read_totals(values)
    assert words in str(caught.value)


def test_what_is_wrong_with_activity_is_said_and_changes_nothing() -> None:
    activity = an_activity()
    before = activity.hour()
    note = activity.note()
    for change, words in (
        ({"looks": 0}, "looks: a whole number, 1 to"),
        ({"bins": [[1, 2, 3]]}, "bins: five numbers are wanted, not [1, 2, 3]"),
        ({"bins": [[5, 0, 0, 0, 0]]}, "bins: each is later than the one before"),
        ({"most_active": 1.5}, "most_active: a whole number"),
    ):
        with pytest.raises(Wrong) as caught:
            activity.take_up(note | change)
        assert words in str(caught.value)
    assert activity.hour() == before
