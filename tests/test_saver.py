"""What is to be kept is written in turn, and whoever waits for it waits for no more than that."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Event

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from distbal.changes import Changes
from distbal.decisions import Decision, Decisions
from distbal.errors import DistbalError
from distbal.saver import Saver, keep
from distbal.state import StateFile
from tests.loops import open_descriptors
from tests.services import Lines
from tests.support import LoggedErrors


def fired(deferred: Deferred[str]) -> list[str]:
    came: list[str] = []
    deferred.addCallback(came.append)
    return came


@pytest_twisted.ensureDeferred
async def test_who_waits_does_not_wait_for_what_others_do_later() -> None:
    saver, written = Saver(), []
    gates = [Event() for _ in range(3)]

    def write(number: int) -> None:
        gates[number].wait(20)
        written.append(number)

    waits: list[Deferred[str]] = []
    for number in (0, 1):
        saver.save(lambda number=number: write(number))  # type: ignore[misc]
        waits.append(saver.saved())
    gates[0].set()
    assert await waits[0] == ""
    # the second is being written, and others are to be after it, again and again
    saver.save(lambda: write(2))
    gates[1].set()
    assert await waits[1] == ""
    assert written == [0, 1]
    last = saver.saved()
    gates[2].set()
    assert await last == ""
    assert written == [0, 1, 2]


@pytest_twisted.ensureDeferred
async def test_each_hears_of_its_own_write(logged_errors: LoggedErrors) -> None:
    saver, gate = Saver(), Event()

    def full() -> None:
        gate.wait(20)
        raise DistbalError("the disk is full")

    saver.save(full)
    first = saver.saved()
    saver.save(lambda: None)
    second = saver.saved()
    gate.set()
    assert (await first, await second) == ("the disk is full", "")
    assert len(logged_errors.flush()) == 1


@pytest_twisted.ensureDeferred
async def test_what_comes_after_the_end_is_not_written_where_another_daemon_may_be(tmp_path: Path) -> None:
    made = Decisions().with_("a", "admin", Decision("down"))
    first = keep(str(tmp_path), wanted=True)
    first.save(made, Changes())
    assert await first.saved() == ""
    first.close()
    second = keep(str(tmp_path), wanted=True)
    first.save(Decisions(), Changes())
    assert await first.saved() == ""
    assert StateFile(str(tmp_path)).load()[0] == made
    second.close()


def test_a_directory_that_this_account_cannot_write_in_is_told_of_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = keep(str(tmp_path), wanted=True)
    with Lines() as log:
        kept.look()
        assert log.all == []
        # root may write anywhere
        monkeypatch.setattr("os.access", lambda path, mode: False)
        kept.look()
    assert log.of("warn") == [f"uid {os.geteuid()} cannot write in {tmp_path}: decisions hold until a restart"]
    kept.close()


def test_a_lock_that_was_handed_on_keeps_the_directory(tmp_path: Path) -> None:
    first = keep(str(tmp_path / "state"), wanted=True)
    handed_on = os.dup(first.lock)
    os.close(first.lock)
    first.lock = -1
    second = keep(str(tmp_path / "state"), wanted=True, lock=handed_on)
    assert second.lock == handed_on
    with pytest.raises(DistbalError, match="another distbal uses"):
        keep(str(tmp_path / "state"), wanted=True)
    second.close()
    keep(str(tmp_path / "state"), wanted=True).close()


@pytest.mark.parametrize("where", ["elsewhere", None])
def test_a_lock_of_another_directory_is_let_go(tmp_path: Path, where: str | None) -> None:
    before = open_descriptors()
    first = keep(str(tmp_path / "state"), wanted=True)
    handed_on = os.dup(first.lock)
    first.close()
    second = keep(None if where is None else str(tmp_path / where), wanted=True, lock=handed_on)
    keep(str(tmp_path / "state"), wanted=True).close()
    second.close()
    assert open_descriptors() == before


def test_a_lock_that_was_handed_on_is_let_go_where_what_was_kept_cannot_be_read(tmp_path: Path) -> None:
    before = open_descriptors()
    first = keep(str(tmp_path / "state"), wanted=True)
    (tmp_path / "state" / "decisions.json").write_text("{")
    handed_on = os.dup(first.lock)
    first.close()
    with pytest.raises(DistbalError):
        keep(str(tmp_path / "state"), wanted=True, lock=handed_on)
    assert open_descriptors() == before


@pytest.mark.parametrize("damage", ["decisions.json", "lock", "directory"])
def test_where_jobs_are_to_go_on_nothing_that_is_wrong_with_it_is_a_reason_to_stop(
    tmp_path: Path, damage: str, logged_errors: LoggedErrors
) -> None:
    before = open_descriptors()
    state = tmp_path / "state"
    keep(str(state), wanted=True).close()
    if damage == "decisions.json":
        (state / damage).write_text("{")
    elif damage == "lock":
        (state / damage).unlink()
        (state / damage).mkdir()
    else:
        state.chmod(0o777)
    with pytest.raises(DistbalError):
        keep(str(state), wanted=True)
    kept = keep(str(state), wanted=True, leniently=True)
    (event,) = logged_errors.flush()
    assert event["log_format"].endswith("until a restart")
    # what is damaged is not written over
    kept.save(kept.decisions, kept.changes)
    assert fired(kept.saved()) == [event["why"]]
    kept.close()
    assert open_descriptors() == before
