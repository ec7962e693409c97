"""What top knows and what its user chose: rates, graphs, letters, sorting, and keys."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from distbal.topmodel import BUCKET, LETTERS, MOST_BUCKETS, NAMELESS, SORTS, Model, View
from tests.reports import client, host, monitor, status


def look(model: Model, now: float, *hosts: Any, ended: int = 0, waiters: Any = (), **changes: Any) -> None:
    report = status(*waiters, used=sum(one["used"] for one in hosts))
    report["counts"]["ended"] = ended
    report.update(changes)  # type: ignore[typeddict-item]
    model.heard(report, {"hosts": list(hosts)}, now)


def served(*addresses: str) -> Any:
    return host(used=len(addresses), slots=8, clients=[client(address) for address in addresses])


def test_jobs_a_second() -> None:
    model = Model()
    look(model, 100.0, host("a", jobs=7), ended=5)
    assert (model.rate, model.rates) == (0.0, {"a": 0.0})
    look(model, 102.0, host("a", jobs=17), host("new", jobs=3), ended=11)
    assert (model.rate, model.rates) == (3.0, {"a": 5.0, "new": 0.0})
    for number in range(20):
        look(model, 103.0 + number, host("a", jobs=17), ended=11)
    assert (model.rate, model.rates) == (0.0, {"a": 0.0})


def test_a_daemon_that_was_started_anew_counts_from_nothing() -> None:
    model = Model()
    look(model, 1.0, host("a", jobs=1000), ended=1000)
    model.failed("nobody listens")
    assert model.trouble == "nobody listens"
    look(model, 2.0, host("a", jobs=2), ended=2, started=1.0)
    look(model, 3.0, host("a", jobs=4), ended=3, started=1.0)
    assert (model.rate, model.rates, model.trouble) == (1.0, {"a": 2.0}, "")


def test_a_clock_that_is_set_right_is_no_new_start() -> None:
    """Moments are made of a clock that is slewed, and rounded: when the daemon started may change in its last digits."""
    model = Model()
    started = float(status()["started"])
    for number in range(4):
        look(model, 1.0 + number, host("a", jobs=2 * number), ended=number, started=started + number % 2 / 1000)
    assert (model.rate, model.rates) == (1.0, {"a": 2.0})


def test_the_graph_has_means_and_gaps() -> None:
    model = Model()
    at = 10.0 * BUCKET
    look(model, at, served("x"))
    look(model, at + BUCKET / 2, served("x", "x", "x"), waiters=[client()])
    assert list(model.graph) == [(2.0, 0.5)]
    look(model, at + 3 * BUCKET, served("x"))
    assert list(model.graph) == [(2.0, 0.5), (0.0, 0.0), (0.0, 0.0), (1.0, 0.0)]
    look(model, at + 10**6 * BUCKET, served("x"))
    assert len(model.graph) == MOST_BUCKETS


def test_clients_keep_their_letters() -> None:
    model = Model()
    look(model, 1.0, served("10.0.0.2", "10.0.0.1", "10.0.0.1"), waiters=[client("10.0.0.3")])
    assert [model.letter(f"10.0.0.{number}") for number in (1, 2, 3, 4)] == ["A", "B", "C", NAMELESS]
    look(model, 2.0, served("10.0.0.3", "10.0.0.2"))
    look(model, 3.0, served("10.0.0.4", "10.0.0.4", "10.0.0.3", "10.0.0.2"))
    assert [model.letter(f"10.0.0.{number}") for number in (2, 3, 4)] == ["B", "C", "A"]
    look(model, 4.0, served(*(f"10.0.1.{number}" for number in range(100))))
    letters = [model.letter(f"10.0.1.{number}") for number in range(100)]
    assert sorted(letters)[:38] == [NAMELESS] * 38
    assert set(letters) == {*LETTERS, NAMELESS}


HOSTS = (
    host("c", "ready", capacity=4, used=1, jobs=9, monitors=[monitor(facts={"load": 3.0})]),
    host("a", "failing", why="tcp: nobody listens"),
    host("b", "full", capacity=4, used=4, jobs=5),
)


def farm() -> Model:
    model = Model()
    look(model, 1.0, *HOSTS)
    return model


def names(view: View, model: Model) -> str:
    return "".join(one["name"] for one in view.rows(model))


def press(view: View, model: Model, *keys: str) -> View:
    for key in keys:
        view.press(key, model)
    return view


def test_sorting() -> None:
    model, view, orders = farm(), View(), {}
    for _ in SORTS:
        orders[view.sort] = names(view, model)
        press(view, model, "s")
    assert orders == {"file": "cab", "name": "abc", "load": "bca", "jobs": "cba", "state": "abc"}
    assert names(press(view, model, "r"), model) == "bac"


def test_filtering() -> None:
    model, view = farm(), View()
    assert names(press(view, model, "/", *"LISTen"), model) == "a"
    assert view.typing
    assert names(press(view, model, "BACKSPACE", *"nsq"), model) == ""
    assert names(press(view, model, "BACKSPACE", "ENTER"), model) == "a"
    assert not view.typing
    assert names(press(view, model, "ESCAPE"), model) == "cab"
    assert names(press(view, model, "/", "f", "ESCAPE", "q"), model) == "cab"
    assert view.over


def test_choosing_follows_the_host() -> None:
    model, view = farm(), View(page=1)
    press(view, model, "DOWN")
    assert view.chosen == "a"
    press(view, model, "s")
    assert view.place(view.rows(model)) == 0
    assert press(view, model, "END").chosen == "c"
    assert press(view, model, "PAGEDOWN", "j").chosen == "c"
    assert press(view, model, "PAGEUP").chosen == "b"
    assert press(view, model, "HOME", "UP").chosen == "a"
    press(view, model, "/", "z", "ENTER", "DOWN", "ENTER")
    assert view.chosen == "a"


def test_texts_and_the_way_back() -> None:
    model, view = farm(), View()
    assert press(view, model, "ENTER", "DOWN", "PAGEDOWN").shows == "details"
    assert view.line == 2
    assert press(view, model, "ENTER").shows == "hosts"
    assert press(view, model, "?").shows == "help"
    assert press(view, model, "ESCAPE").shows == "hosts"
    assert press(view, model, "?", "q").shows == "hosts"
    assert not view.over
    assert press(view, model, " ").paused
    assert not press(view, model, " ", "F17", "x").paused


keys = st.sampled_from(
    [*"qjk?sr /xz", "UP", "DOWN", "PAGEUP", "PAGEDOWN", "HOME", "END", "ENTER", "ESCAPE", "BACKSPACE", "OTHER", "RESIZE"]
)


@given(st.lists(keys, max_size=60), st.integers(1, 5))
def test_what_is_chosen_is_seen_whatever_is_pressed(pressed: list[str], page: int) -> None:
    model, view = farm(), View()
    for key in pressed:
        view.press(key, model)
        rows = view.rows(model)
        view.follow(rows, page)
        assert 0 <= view.first <= max(0, len(rows) - 1)
        assert not rows or view.first <= view.place(rows) < view.first + page
        assert view.sort in SORTS
        assert view.line >= 0
