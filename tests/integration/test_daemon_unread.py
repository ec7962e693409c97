"""A daemon whose log nobody reads: its reader is gone, or stopped. Jobs go on, and so does the daemon's own end."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.farm import until
from tests.integration.unheard import starts, unheard


def _pipe() -> tuple[int, int]:
    return os.pipe()


def _stream() -> tuple[int, int]:
    """As journald has it."""
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


@pytest.mark.parametrize("make", [_pipe, _stream])
def test_a_reader_that_is_gone(make: Callable[[], tuple[int, int]], tmp_path: Path) -> None:
    """``twistd -n distbal | head -1``; or journald was started anew and has lost its end."""
    read, write = make()
    with unheard(tmp_path, starts(tmp_path, 'exec "$@"', stdout=write, stderr=write)) as daemon:
        os.close(write)
        assert os.read(read, 100)
        os.close(read)
        daemon.assert_jobs_go_on("Broken pipe")
        daemon.end()


@pytest.mark.parametrize("make", [_pipe, _stream])
def test_a_reader_that_is_stopped(make: Callable[[], tuple[int, int]], tmp_path: Path) -> None:
    """``twistd -n distbal | less``, and nobody turns the page. When it reads on, it is told what it has missed."""
    read, write = make()
    try:
        with unheard(tmp_path, starts(tmp_path, 'exec "$@"', stdout=write, stderr=write)) as daemon:
            os.close(write)
            while not daemon.inside["log_lost"]:
                daemon.jobs(100)
            daemon.assert_jobs_go_on("whoever reads it does not")
            heard = b""
            while b"lines of the log before this one are lost: whoever reads it does not" not in heard:
                if not _readable(read):
                    daemon.jobs(1)
                    continue
                heard = heard[-200:] + os.read(read, 65536)
            assert daemon.inside["log_trouble"] == ""
            daemon.end()
    finally:
        os.close(read)


def test_one_that_is_stopped_does_not_keep_the_daemon_from_its_end(tmp_path: Path) -> None:
    read, write = os.pipe()
    try:
        with unheard(tmp_path, starts(tmp_path, 'exec "$@"', stdout=write, stderr=write)) as daemon:
            os.close(write)
            while not daemon.inside["log_lost"]:
                daemon.jobs(100)
            daemon.end()
    finally:
        os.close(read)


def _readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0.05)[0])


def test_one_that_was_held_up_says_for_how_long(tmp_path: Path) -> None:
    """Whatever it was: here it is stopped, as by a machine that swaps."""
    with unheard(tmp_path, starts(tmp_path, 'exec "$@" >log 2>&1')) as daemon:
        daemon.jobs(1)  # it serves, and so measures
        daemon.process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        daemon.process.send_signal(signal.SIGCONT)
        until(lambda: daemon.inside["lag"]["minute"] > 1, "the lag")
        until(lambda: "everybody was held up for" in (tmp_path / "log").read_text(), "the complaint")
        inside = daemon.inside
        assert inside["lag"]["worst"] >= inside["lag"]["minute"]
        daemon.end()
