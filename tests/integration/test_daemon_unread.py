"""A daemon whose log nobody reads: its reader is gone, or stopped. Jobs go on, and so does the daemon's own end."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

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
