"""Pipes that are lent: large while there are few, small where the system says so, closed when they are of no use."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from distbal.proxy.pipes import KEPT, LARGE, MOST_LARGE, REFUSED, USUAL, Pipe, Pipes, StarvedError
from tests.loops import open_descriptors
from tests.ports import texts
from tests.support import descriptors_left
from tests.test_listening import ordinary_user

REFUSAL = f"pipes hold {USUAL} bytes instead of {LARGE}: [Errno {errno.EPERM}] Operation not permitted"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pipes(clock: Clock) -> Iterator[Pipes]:
    before = open_descriptors()
    one = Pipes(clock.seconds)
    yield one
    one.stop()
    assert open_descriptors() == before


def capacity(pipe: Pipe) -> int:
    return fcntl.fcntl(pipe.write, fcntl.F_GETPIPE_SZ)


def fill(pipe: Pipe, piece: bytes, pieces: int) -> None:
    for _ in range(pieces):
        pipe.held += os.write(pipe.write, piece)


def empty(pipe: Pipe) -> None:
    while pipe.held:
        pipe.held -= len(os.read(pipe.read, 1 << 20))


def test_a_pipe_is_lent_again_and_again(pipes: Pipes) -> None:
    pipe = pipes.borrow()
    assert (pipe.held, pipe.size, capacity(pipe)) == (0, LARGE, LARGE)
    assert not os.get_blocking(pipe.read)
    assert not os.get_blocking(pipe.write)
    assert not os.get_inheritable(pipe.read)
    pipes.give_back(pipe)
    assert pipes.borrow() is pipe
    other = pipes.borrow()
    assert other is not pipe
    pipes.give_back(pipe)
    pipes.give_back(other)


def test_one_with_something_in_it_is_not_lent_again(pipes: Pipes) -> None:
    pipe = pipes.borrow()
    before = open_descriptors()
    fill(pipe, b"of one client", 1)
    pipes.give_back(pipe)
    assert open_descriptors() == before - 2
    other = pipes.borrow()
    with pytest.raises(BlockingIOError):
        os.read(other.read, 1)
    pipes.give_back(other)


def test_only_so_many_are_large_and_only_so_many_are_kept(pipes: Pipes) -> None:
    before = open_descriptors()
    lent = [pipes.borrow() for _ in range(MOST_LARGE + 10)]
    assert [pipe.size for pipe in lent] == [LARGE] * MOST_LARGE + [USUAL] * 10
    assert all(capacity(pipe) == pipe.size for pipe in lent)
    for pipe in lent:
        pipes.give_back(pipe)
    assert open_descriptors() == before + 2 * min(KEPT, MOST_LARGE)
    # and these are the large ones
    again = [pipes.borrow() for _ in range(MOST_LARGE)]
    assert {pipe.size for pipe in again} == {LARGE}
    # one that is lost makes room for another
    fill(again[0], b"x", 1)
    for pipe in again:
        pipes.give_back(pipe)
    again = [pipes.borrow() for _ in range(MOST_LARGE)]
    assert {pipe.size for pipe in again} == {LARGE}
    for pipe in again:
        pipes.give_back(pipe)


def test_one_that_is_kept_for_long_shrinks_and_what_is_in_it_stays(pipes: Pipes) -> None:
    pipe = pipes.borrow()
    fill(pipe, b"hello", 1)
    pipes.shrink(pipe)
    assert (pipe.size, capacity(pipe)) == (USUAL, USUAL)
    pipes.shrink(pipe)
    assert os.read(pipe.read, 10) == b"hello"
    pipe.held = 0
    before = open_descriptors()
    pipes.give_back(pipe)
    assert open_descriptors() == before - 2, "the next may be large"
    pipe = pipes.borrow()
    assert pipe.size == LARGE
    pipes.give_back(pipe)


@pytest.mark.parametrize(("pieces", "size"), [(16, USUAL), (17, LARGE // 4), (64, LARGE // 4), (65, LARGE), (256, LARGE)])
def test_one_with_many_pieces_shrinks_as_far_as_it_can(pipes: Pipes, pieces: int, size: int) -> None:
    pipe = pipes.borrow()
    fill(pipe, bytes(4096), pieces)
    pipes.shrink(pipe)
    assert (pipe.size, capacity(pipe)) == (size, size)
    empty(pipe)
    pipes.give_back(pipe)
    lent = [pipes.borrow() for _ in range(MOST_LARGE)]
    assert [one.size for one in lent] == [LARGE] * MOST_LARGE, "what was given up is for others"
    for one in lent:
        pipes.give_back(one)


def test_a_hundred_that_wait_leave_the_large_ones_to_others(pipes: Pipes) -> None:
    waiting = []
    for _ in range(100):
        waiting.append(pipes.borrow())
        fill(waiting[-1], b"first bytes", 1)
        pipes.shrink(waiting[-1])
    moving = pipes.borrow()
    assert moving.size == LARGE
    for pipe in (*waiting, moving):
        pipes.give_back(pipe)


def test_without_a_descriptor_there_is_none(pipes: Pipes) -> None:
    with descriptors_left(0), pytest.raises(StarvedError, match=r"^there is no pipe for it: Too many open files$"):
        pipes.borrow()
    pipes.give_back(pipes.borrow())


@contextmanager
def budget_used_up() -> Iterator[None]:
    """Let all that an ordinary user's pipes may hold be held by others."""
    budget = int(Path("/proc/sys/fs/pipe-user-pages-soft").read_text()) * resource.getpagesize()
    if not 0 < budget <= 128 << 20:
        pytest.skip("there is no such budget here")
    with ExitStack() as stack:
        for _ in range(budget // LARGE + 1):
            for end in (ends := os.pipe()):
                stack.callback(os.close, end)
            try:
                fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, LARGE)
            except PermissionError:
                # an ordinary user may use up what there is, and no more
                break
        yield


def test_an_ordinary_user_s_budget_may_be_used_up(pipes: Pipes) -> None:
    with capturedLogs() as events, budget_used_up(), ordinary_user():
        lent = [pipes.borrow() for _ in range(5)]
        assert {pipe.size for pipe in lent} == {USUAL}
        # whatever it really holds, it works
        for pipe in lent:
            os.write(pipe.write, b"hello")
            assert os.read(pipe.read, 10) == b"hello"
            pipes.give_back(pipe)
    assert texts(events) == [REFUSAL], "once, not for each"


def test_what_is_refused_is_not_asked_for_again_at_once_and_usual_ones_do_meanwhile(pipes: Pipes, clock: Clock) -> None:
    with capturedLogs() as events:
        with budget_used_up(), ordinary_user():
            pipes.give_back(usual := pipes.borrow())
            before = open_descriptors()
            assert pipes.borrow() is usual, "as good as any that could be made"
            pipes.give_back(usual)
            assert open_descriptors() == before
        # the others are gone, but that is not known
        clock.advance(REFUSED - 0.1)
        lent = [pipes.borrow() for _ in range(3)]
        assert [pipe.size for pipe in lent] == [USUAL] * 3
        clock.advance(0.2)
        for pipe in lent:
            pipes.give_back(pipe)
        large = pipes.borrow()
        assert (large.size, capacity(large)) == (LARGE, LARGE)
        pipes.give_back(large)
        assert pipes.borrow() is large
        pipes.give_back(large)
    assert texts(events) == [REFUSAL]


def test_a_budget_that_stays_used_up_is_told_once(pipes: Pipes, clock: Clock) -> None:
    """Not for each job whose pipe was large once, and not each time that it is tried again."""
    with capturedLogs() as events:
        large = [pipes.borrow() for _ in range(5)]
        with budget_used_up(), ordinary_user():
            for pipe in large:
                fill(pipe, b"first bytes", 1)
                pipes.shrink(pipe)
                pipes.give_back(pipes.borrow())
            for _ in range(5):
                clock.advance(REFUSED + 0.1)
                lent = [pipes.borrow() for _ in range(3)]
                assert {pipe.size for pipe in lent} == {USUAL}
                for pipe in lent:
                    pipes.give_back(pipe)
        assert texts(events) == [REFUSAL]
        for pipe in large:
            pipes.give_back(pipe)
        # it may be told again when it was well in between
        clock.advance(REFUSED + 0.1)
        lent = [pipes.borrow() for _ in range(5)]
        assert LARGE in {pipe.size for pipe in lent}
        with budget_used_up(), ordinary_user():
            lent += [pipes.borrow() for _ in range(5)]
        for pipe in lent:
            pipes.give_back(pipe)
    assert texts(events) == [REFUSAL] * 2
