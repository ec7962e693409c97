"""Jobs go on in the next process, wherever in its code the one before was killed: at any line, and again and again."""

from __future__ import annotations

import contextlib
import socket
import time
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.killed import Cut, Daemon
from tests.peers import PATIENCE
from tests.proxies import Server, noise


@dataclass
class Job:
    """A client's, and what came of it."""

    said: bytes
    answer: bytes
    passes: bool
    sock: socket.socket | None = None
    left: memoryview = field(default_factory=lambda: memoryview(b""))
    heard: bytearray = field(default_factory=bytearray)
    half_closed: bool = False
    done: bool = False
    #: how often it was not taken up, since it had been accepted in the very turn of the kill
    lost: int = 0

    def turn(self, where: tuple[str, int]) -> None:
        if self.sock is None:
            self.sock = socket.create_connection(where, PATIENCE)
            self.sock.setblocking(False)
            self.left, self.half_closed = memoryview(self.said), False
        with contextlib.suppress(BlockingIOError):
            try:
                while self.left:
                    self.left = self.left[self.sock.send(self.left) :]
                if self.passes and not self.half_closed:
                    self.half_closed = True
                    self.sock.shutdown(socket.SHUT_WR)
            except BlockingIOError:
                pass
            except OSError:
                self.left = memoryview(b"")  # it was reset
            reset = False
            try:
                data = self.sock.recv(1 << 16)
            except ConnectionResetError:
                data, reset = b"", True
            self.heard += data
            if not data:
                self.sock.close()
                self.sock = None
                if self.heard:
                    self.done = True
                else:
                    assert reset, "an end in order, which looks like a whole answer that is empty"
                    self.lost += 1


@dataclass
class Connection:
    """One that a server took in: it answers when it has heard all of one of the jobs."""

    sock: socket.socket
    passes: bool
    jobs: list[Job]
    heard: bytearray = field(default_factory=bytearray)
    left: memoryview | None = None
    ended: bool = False

    def turn(self) -> None:
        with contextlib.suppress(BlockingIOError):
            if not self.ended:
                data = self.sock.recv(1 << 16)
                self.heard += data
                if not data:
                    self.ended = True
        job = next((job for job in self.jobs if self.heard and self.heard[0] == job.said[0]), None)
        if job is None:
            return
        if self.left is None:
            self.left = memoryview(job.answer)
        with contextlib.suppress(BlockingIOError):
            while self.left:
                self.left = self.left[self.sock.send(self.left) :]
        if not self.left and len(self.heard) >= len(job.said) and (self.ended or not self.passes):
            self.sock.close()


def run(cuts: list[Cut], sizes: list[tuple[int, int]], passes: bool, server_first: bool = False) -> Daemon:
    """Let jobs of these sizes, each way, be done, while the daemon is killed."""
    jobs = [Job(bytes([number]) + noise(up, number), noise(down, number), passes) for number, (up, down) in enumerate(sizes)]
    with Server() as server:
        daemon = Daemon([server.spec("alpha", 2)], cuts, passes=passes, server_first=server_first)
        connections: list[Connection] = []
        try:
            daemon.start([server.sock])
            deadline = time.monotonic() + PATIENCE
            while not all(job.done for job in jobs):
                assert time.monotonic() < deadline, [(len(job.heard), job.lost) for job in jobs]
                peers = [job.sock for job in jobs if job.sock is not None]
                daemon.turn([server.sock, *peers, *(one.sock for one in connections if one.sock.fileno() >= 0)])
                for job in jobs:
                    if not job.done:
                        job.turn(daemon.where)
                with contextlib.suppress(BlockingIOError):
                    sock = server.sock.accept()[0]
                    sock.setblocking(False)
                    connections.append(Connection(sock, passes, jobs))
                for one in connections:
                    if one.sock.fileno() >= 0:
                        one.turn()
                time.sleep(0)
            for job in jobs:
                assert bytes(job.heard) == job.answer
                heard = [bytes(one.heard) for one in connections if one.heard[:1] == job.said[:1]]
                assert heard == [job.said], "a job came twice, or its bytes are others"
            # those that nobody goes on with had heard nothing
            assert len([one for one in connections if one.heard]) == len(jobs)
            _at_rest(daemon)
        finally:
            daemon.stop()
            for one in connections:
                one.sock.close()
            for job in jobs:
                if job.sock is not None:
                    job.sock.close()
    return daemon


def _at_rest(daemon: Daemon) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        while daemon._cuts:
            daemon._cuts.pop()
        daemon.turn([])
        try:
            said = daemon.asked()
        except (ConnectionError, ValueError):
            continue  # it was killed before it could say so
        if not (said["sessions"] or said["lent"]) or time.monotonic() > deadline:
            break
    assert (said["lent"], said["waiting"], said["sessions"], said["accounts"], said["leases"]) == (0, 0, 0, 0, [0])
    assert said["pipes"] == said["free"]
    assert len(daemon.holder.held) == 2 * said["free"] + 2


small = st.integers(0, 3000)
large = st.integers(0, 400_000)
cuts_of = st.tuples(st.just(True), st.integers(1, 1500)) | st.tuples(st.just(False), st.integers(1, 1500))
jobs_of = st.lists(st.tuples(small | large, (small | large).map(lambda size: size + 1)), min_size=1, max_size=4)


@given(st.lists(cuts_of, min_size=1, max_size=12), jobs_of, st.booleans(), st.booleans())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_bytes_and_leases_are_as_they_would_be(
    cuts: list[Cut], sizes: list[tuple[int, int]], passes: bool, server_first: bool
) -> None:
    run(cuts, sizes, passes, server_first)


def test_killed_at_one_line_after_the_other() -> None:
    jobs = [(100, 100), (2000, 3000), (10, 10)]
    assert sum(run([(True, line)] * 3, jobs, line % 2 == 0).kills for line in range(1, 1800, 29)) > 100
