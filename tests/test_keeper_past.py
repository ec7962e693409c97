"""What follows from how daemons ended; see distbal/keeper/past.py and child.py. Statuses are those of waitpid(2)."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from distbal.keeper.child import Life, ended, interpreter
from distbal.keeper.past import FUTILE, Past, pause


def test_pauses_grow_and_have_an_end() -> None:
    assert [pause(failures) for failures in range(10)] == [0, 0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_the_pause_is_forgotten_when_one_has_served() -> None:
    past, pauses = Past(0.0), []
    for served in (5.0, 0.0, 0.0, 0.9, 1.0, 0.0, 100.0, 100.0):
        past, _, seconds = past.after(Life(7, 0.0, 0.0, ready=50.0), 256, 50.0 + served)
        pauses.append(seconds)
    assert pauses == [0, 0.5, 1, 2, 0, 0.5, 0, 0]
    assert past.restarts == len(pauses)


def test_it_does_not_count_for_ever() -> None:
    past = Past(0.0)
    for _ in range(2000):
        past, _, seconds = past.after(Life(7, 0.0, 0.0), 256, 1.0)
    assert seconds == 30.0
    assert past.failures < 100


@pytest.mark.parametrize(
    ("life", "status", "counts"),
    [
        (Life(7, 0.0, 0.0, given=True), 256, True),
        (Life(7, 0.0, 0.0, given=True), signal.SIGSEGV, True),
        (Life(7, 0.0, 0.0, given=True, ready=9.5), signal.SIGSEGV, True),
        (Life(7, 0.0, 0.0, given=True, ready=8.0), signal.SIGSEGV, False),
        (Life(7, 0.0, 0.0, given=False), 256, False),
        (Life(7, 0.0, 0.0, given=True), signal.SIGKILL, False),
        (Life(7, 0.0, 0.0, given=True, silent=30.0), signal.SIGKILL, True),
    ],
    ids=["status", "crash", "soon after ready", "served", "had nothing", "kill -9", "killed for silence"],
)
def test_what_is_held_is_suspected_when_it_ends_one_after_another(life: Life, status: int, counts: bool) -> None:
    past = Past(0.0, served=True)
    for _ in range(FUTILE):
        past, _, _ = past.after(life, status, 10.0)
    assert past.futile == (FUTILE if counts else 0)


def test_one_that_serves_ends_the_suspicion() -> None:
    past, _, _ = Past(0.0).after(Life(7, 0.0, 0.0, given=True), 256, 1.0)
    assert past.futile == 1
    past, _, _ = past.after(Life(7, 0.0, 0.0, given=True, ready=1.0), signal.SIGSEGV, 3.0)
    assert past.futile == 0


def test_the_first_one_may_have_good_reasons() -> None:
    assert Past(0.0).hopeless(Life(7, 0.0, 0.0))
    assert not Past(0.0).hopeless(Life(7, 0.0, 0.0, ready=1.0))
    assert not Past(0.0, served=True).hopeless(Life(7, 0.0, 0.0))


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (256, "ended with status 1"),
        (0, "ended with status 0"),
        (
            signal.SIGKILL,
            "was killed by SIGKILL: somebody's kill -9, or the machine was out of memory (the kernel's log would say so)",
        ),
        (signal.SIGSEGV | 0x80, "was killed by SIGSEGV: a bug in a library that is not Python"),
        (signal.SIGTERM, "was killed by SIGTERM"),
        (40, "was killed by signal 40"),
    ],
)
def test_how_it_ended_is_said_in_words(status: int, said: str) -> None:
    assert ended(status) == said
    past, how, _ = Past(0.0).after(Life(7, 0.0, 0.0), status, 1.0)
    assert how == said
    assert past.last == f"process 7 {said}"


def test_silence_is_the_reason_of_a_kill_for_silence() -> None:
    past, how, _ = Past(0.0).after(Life(7, 0.0, 0.0, silent=30.4), signal.SIGABRT, 1.0)
    assert how == "gave no sign of life for 30 s, and was killed"
    assert past.last == f"process 7 {how}"


def test_there_is_more_patience_before_it_serves() -> None:
    life = Life(7, started=100.0, heard=101.0)
    assert life.deadline(30.0) == 220.0
    assert life._replace(heard=200.0).deadline(30.0) == 230.0
    assert life._replace(ready=101.0).deadline(30.0) == 131.0


def test_modules_are_imported_from_where_this_process_imports_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", ["/opt/distbal/bin", str(Path.cwd())])
    assert interpreter("distbal.daemon")[1:] == ["-P", "-m", "distbal.daemon"]
    for here in ("", str(Path.cwd())):
        monkeypatch.setattr("sys.path", [here])
        assert interpreter("distbal.daemon")[1:] == ["-m", "distbal.daemon"]
