"""The limit on open descriptors: raised as far as it may be, and shared between clients and everything else."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from distbal.descriptors import CROWDS, RESERVE, crowd, raise_limit, room_for_clients

LIMIT = resource.RLIMIT_NOFILE


@pytest.fixture
def soft() -> Iterator[int]:
    """A soft limit below the hard one, put back afterwards."""
    before = resource.getrlimit(LIMIT)
    lower = before[1] - 100
    resource.setrlimit(LIMIT, (lower, before[1]))
    yield lower
    resource.setrlimit(LIMIT, before)


def test_the_soft_limit_becomes_the_hard_one(soft: int) -> None:
    assert raise_limit() == soft + 100
    assert resource.getrlimit(LIMIT) == (soft + 100, soft + 100)
    assert raise_limit() == soft + 100, "nothing is left to raise"


def test_a_limit_that_may_not_be_raised_is_the_limit(soft: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS, which says that there is no hard limit, and then refuses to go there; Linux refuses it too."""
    ceiling = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, ceiling))
    assert raise_limit() == soft


def test_without_any_limit_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's number for "none" is -1."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert room_for_clients(raise_limit()) > 1_000_000


def test_what_is_open_now_and_a_reserve_are_not_for_clients() -> None:
    before = room_for_clients(10_000)
    kept = RESERVE + CROWDS * crowd(10_000)
    assert 10_000 - kept - 1000 < before < 10_000 - kept
    with ExitStack() as stack:
        for _ in range(10):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        assert room_for_clients(10_000) == before - 10
    assert room_for_clients(10_000) == before


def test_there_is_always_room_for_one() -> None:
    assert room_for_clients(0) == room_for_clients(RESERVE) == 1


def test_where_open_descriptors_cannot_be_counted_some_are_assumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where /proc is not mounted."""
    monkeypatch.setattr("distbal.descriptors.Path", lambda _: tmp_path / "fd")
    assert room_for_clients(1000) == 1000 - 16 - RESERVE - CROWDS * crowd(1000)


@pytest.mark.parametrize(("limit", "most"), [(0, 4), (64, 4), (160, 10), (1024, 64), (3200, 200), (524_288, 200)])
def test_what_the_brief_ports_may_take_is_kept_for_them(limit: int, most: int) -> None:
    """Neither a crowd on 5657 nor one on 5658 finds the descriptors used up by clients, or uses up theirs."""
    assert crowd(limit) == most


CHILD = """
import resource
from distbal.descriptors import raise_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 400))
print(raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_an_ordinary_process_may_do_it() -> None:
    said = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True, timeout=30)
    assert said.stdout.split() == ["400", "400", "400"]
