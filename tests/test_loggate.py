"""What stands between the log and where it goes: what cannot be written is lost and counted, and a bug passes once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LegacyLogObserverWrapper,
    LogEvent,
    Logger,
    LogPublisher,
    formatEvent,
    textFileLogObserver,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from distbal.bounds import bounds
from distbal.bugs import MARK, bugs
from distbal.loggate import Gate


@implementer(ILogObserver)
class Sink:
    """Writes into memory, or not."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.trouble: Exception | None = None

    def __call__(self, event: LogEvent) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.lines.append(str(formatEvent(event)))


class Log:
    def __init__(self, *observers: Any) -> None:
        self.publisher = LogPublisher(*observers)
        self.gate = Gate(self.publisher)
        self.gate.log = Logger(observer=self.publisher)  # type: ignore[assignment]
        self.gate.install()
        self.logger = Logger(namespace="tested", observer=self.publisher)
        bounds.begin()

    def fails(self, **more: object) -> None:
        self.logger.failure("met", Failure(ValueError("a bug")), **more)  # type: ignore[arg-type,no-untyped-call]


def test_lines_that_cannot_be_written_are_lost_and_counted_and_the_first_that_can_says_so() -> None:
    full, well = Sink(), Sink()
    log = Log(full, well)
    log.logger.info("one")
    full.trouble = OSError(28, "No space left on device")
    for _ in range(3):
        log.logger.info("two")
    assert (full.lines, well.lines) == (["one"], ["one", "two", "two", "two"])
    assert (log.gate.lost, log.gate.trouble) == (3, "[Errno 28] No space left on device")
    assert bounds.hits["log"] == 3
    full.trouble = None
    log.logger.info("three")
    assert full.lines[1:] == ["3 lines of the log before this one are lost: [Errno 28] No space left on device", "three"]
    assert well.lines[4:] == ["three"]
    assert (log.gate.lost, log.gate.trouble) == (3, "")


def test_an_observer_that_is_taken_out_is_gone_and_one_that_is_there_is_not_put_in_again() -> None:
    one, other = Sink(), Sink()
    log = Log(one, other)
    log.gate.install()
    log.publisher.addObserver(one)
    log.logger.info("for both")
    log.publisher.removeObserver(other)
    log.logger.info("for one")
    assert (one.lines, other.lines) == (["for both", "for one"], ["for both"])


def test_a_bound_method_is_known_by_its_name_too() -> None:
    sink = Sink()
    log = Log(sink.__call__)
    log.publisher.removeObserver(sink.__call__)  # type: ignore[arg-type]
    log.logger.info("for nobody")
    assert sink.lines == []


def test_a_bug_that_twisted_caught_passes_once_to_each_and_is_counted() -> None:
    one, other = Sink(), Sink()
    log = Log(one, other)
    for _ in range(1000):
        log.fails()
    assert (one.lines, other.lines) == (["met"], ["met"])
    assert bugs.counts["reactor"] == 1000


def test_what_is_counted_already_passes() -> None:
    sink = Sink()
    log = Log(sink)
    for _ in range(2):
        log.fails(**{MARK: True})
    assert sink.lines == ["met", "met"]
    assert bugs.counts["reactor"] == 0


@pytest.mark.parametrize(
    "observer",
    [
        LegacyLogObserverWrapper(lambda event: None),  # type: ignore[arg-type]
        FilteringLogObserver(Sink(), []),
        textFileLogObserver(None),  # type: ignore[arg-type]
    ],
)
def test_observers_of_every_kind(observer: Any) -> None:
    """Twisted's for syslog and others have no file; with a closed standard output its own writes to nothing."""
    log = Log(observer)
    log.logger.info("told")
    log.fails()


def test_a_file_that_is_full() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with Path("/dev/full").open("wb", buffering=0) as full:
        log = Log(textFileLogObserver(full))
        log.logger.info("told")
        assert (log.gate.lost, log.gate.trouble) == (1, "[Errno 28] No space left on device")


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


def test_a_pipe_that_nobody_reads_holds_up_nobody(pipe: tuple[int, int]) -> None:
    read, write = pipe
    with os.fdopen(os.dup(write), "w") as file:
        log = Log(textFileLogObserver(file))
        for number in range(20_000):
            log.logger.info("line {number}", number=number)
        assert log.gate.trouble == "whoever reads it does not"
        lost = log.gate.lost
        assert 0 < lost < 20_000
        heard = b""
        while heard.count(b"\n") < 20_000 - lost:
            heard += os.read(read, 65536)
        log.logger.info("the last")
        heard = os.read(read, 65536)
        assert b"%d lines of the log before this one are lost: whoever reads it does not" % lost in heard
        assert heard.endswith(b"the last\n")
        assert log.gate.trouble == ""


def test_a_pipe_whose_reader_is_gone() -> None:
    read, write = os.pipe()
    os.close(read)
    file = os.fdopen(write, "wb", buffering=0)
    log = Log(textFileLogObserver(file))
    log.logger.info("told")
    assert log.gate.trouble == "[Errno 32] Broken pipe"
    file.close()
