"""A daemon whose log nobody can write: a full disk, closed standard output and error.

Jobs go on, the admin socket says what is wrong with the log, and where it can be written again the log says it too.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.unheard import MANY, starts, unheard


def test_a_full_disk_behind_standard_output_and_error(tmp_path: Path) -> None:
    with unheard(tmp_path, starts(tmp_path, 'exec "$@" >/dev/full 2>&1')) as daemon:
        daemon.assert_jobs_go_on("No space left on device")
        daemon.end()


def test_a_closed_standard_error(tmp_path: Path) -> None:
    with unheard(tmp_path, starts(tmp_path, 'exec "$@" >log 2>&-')) as daemon:
        daemon.jobs(MANY)
        assert daemon.inside["log_lost"] == 0
        assert daemon.standard()[2] == os.devnull
        daemon.end()
    assert (tmp_path / "log").read_text().count("is over: closed") == MANY


def test_everything_closed(tmp_path: Path) -> None:
    """And no socket takes the place of standard error, where a library would write to a client."""
    with unheard(tmp_path, starts(tmp_path, 'exec "$@" <&- >&- 2>&-')) as daemon:
        daemon.jobs(MANY)
        assert daemon.inside["log_lost"] > 0
        assert daemon.standard() == [os.devnull] * 3
        daemon.end()


def test_a_log_file_that_may_not_grow(tmp_path: Path) -> None:
    """For the file system it is the same as a full one: a write fails."""
    start = starts(tmp_path, 'ulimit -f 8 && exec "$@"')
    with unheard(tmp_path, start, "--logfile=log") as daemon:
        daemon.assert_jobs_go_on("File too large")
        daemon.end()
    assert (tmp_path / "log").stat().st_size <= 8 * 1024


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[None]:
    """A file system of 64 kB."""
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=777", "distbal-test", str(place)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("nothing may be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_log_file_on_a_full_disk_and_room_again(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk):
        with unheard(tmp_path, starts(tmp_path, 'exec "$@"'), f"--logfile={disk}/log") as daemon:
            with (disk / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
                while True:
                    ballast.write(b"x" * 4096)
            daemon.assert_jobs_go_on("No space left on device")
            lost = daemon.inside["log_lost"]
            (disk / "ballast").unlink()
            daemon.jobs(1)
            assert daemon.inside["log_trouble"] == ""
            daemon.end()
        assert f"{lost} lines of the log before this one are lost: [Errno 28] No space left" in (disk / "log").read_text()
