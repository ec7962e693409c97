"""A daemon's admin socket in a process of its own: real Admin, Scheduler and Rounds, and a farm in which something happens.

``python -m tests.adminserver SOCKET FARM`` says ``ready`` when it listens, and serves until it is ended. :func:`serving` runs
one.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distbal.changes import Changes
from distbal.decisions import Decisions
from distbal.hosts import Farm, HostSpec
from distbal.outcomes import Outcome
from distbal.requests import Lease, Request, Ticket
from tests.support import ROOT, spawn

#: three hosts and a job in each state; 500 with some jobs; 500 with more than they can do, and every tenth not well
FARMS = ("small", "crowd", "busy")


class Job:
    """A client that holds its slot until it is told to leave."""

    def __init__(self) -> None:
        self.lease: Lease | None = None

    def granted(self, lease: Lease) -> None:
        self.lease = lease

    def refused(self, ticket: Ticket, reason: str) -> None:
        pass

    def lost(self, lease: Lease, reason: str) -> None:
        self.lease = None


def small() -> Farm:
    return Farm((HostSpec("snookles:3632", 4, 0), HostSpec("newbb:3632", 2, 1), HostSpec("[fd00::7]:3632", 2, 2)))


def crowd(number: int = 500) -> Farm:
    return Farm(tuple(HostSpec(f"box{place:03}.example:3632", 4 + place % 13, place) for place in range(number)))


class Play:
    """Jobs that come and go.

    :param leases: asked.
    :param clock: calls later.
    """

    def __init__(self, leases: Any, clock: Any) -> None:
        self.leases = leases
        self.clock = clock
        self.draw = random.Random(5)
        self.jobs: list[Job] = []

    def ask(self, address: str, port: int = 4000) -> Job:
        job = Job()
        self.leases.ask(Request(address, port, address), job)
        return job

    def turn(self, most: int) -> None:
        """Some leave, some come."""
        for job in [job for job in self.jobs if job.lease is not None and self.draw.random() < 0.1]:
            self.jobs.remove(job)
            self.leases.release(job.lease, Outcome.CLOSED)
        while len(self.jobs) < most:
            self.jobs.append(self.ask(f"10.0.0.{self.draw.randrange(1, 12)}", self.draw.randrange(1024, 60000)))
        self.clock.callLater(0.2, self.turn, most)


def main(path: str, name: str) -> None:
    """Serve until SIGTERM."""
    import time

    from twisted.internet import reactor
    from twisted.internet.defer import Deferred, fail, succeed
    from twisted.internet.protocol import Factory
    from twisted.protocols.basic import LineOnlyReceiver
    from twisted.python.failure import Failure

    from distbal import verbs
    from distbal.admin import Admin, Who
    from distbal.execing import UpgradeError
    from distbal.inside import Inside
    from distbal.leases import LocalLeases
    from distbal.lookup import Lookup
    from distbal.monitors.kit import Surroundings
    from distbal.monitors.rounds import Rounds
    from distbal.monitors.slots import Slots
    from distbal.reporter import Reporter
    from distbal.scheduler import Scheduler
    from distbal.upgrade import Going
    from distbal.verbs import VerbError
    from tests.watchers import never

    class Server:
        """What the verbs need of the daemon."""

        def __init__(self, farm: Farm) -> None:
            self.file = farm
            self.leases = LocalLeases(Scheduler(farm, draw=random.Random(5656)), reactor)
            self.rounds = Rounds(self.leases, Surroundings(reactor, Lookup(reactor, never), Slots(self.leases)))
            reporter = Reporter(
                self.leases,
                self.rounds,
                seconds=reactor.seconds,
                wall=time.time,
                inside=Inside(reactor),
                decisions=lambda: self.admin.overlay.decisions,
                ports=lambda: {"balance": ["0.0.0.0:5656"], "admin": [f"unix:{path}"]},
            )
            self.admin = Admin(self, self.leases, reporter, time.time)
            self.admin.file_changed(farm)

        def serve(self, farm: Farm) -> None:
            self.leases.configure(farm)

        def reload_file(self) -> Deferred[tuple[list[str], list[str]]]:
            self.admin.file_changed(self.file)
            return succeed(([], []))

        def export(self, made: Decisions) -> Deferred[str]:
            return succeed("hosts:\n" + "".join(f"  - {spec.name}/{spec.slots}\n" for spec in self.file.hosts))

        def save(self, made: Decisions, changes: Changes) -> None:
            pass

        def saved(self) -> Deferred[str]:
            return succeed("")

        def log_jobs(self, each: bool) -> None:
            pass

        def upgrade(self) -> Deferred[Going]:
            return fail(UpgradeError("its file is gone"))

    server = Server(small() if name == "small" else crowd())
    play = Play(server.leases, reactor)

    class Asked(LineOnlyReceiver):
        delimiter = b"\n"
        MAX_LENGTH = 64 << 10

        def lineReceived(self, line: bytes) -> None:
            request = json.loads(line)
            who = Who(request.get("for", "root"), "admin socket")
            try:
                done = server.admin.carry_out(verbs.parse(request["words"]), who)
            except VerbError as error:
                self.reply({"ok": False, "error": str(error), "usage": True})
            else:
                done.addCallbacks(lambda answer: self.reply({"ok": True, "answer": answer}), self.failed)

        def failed(self, failure: Failure) -> None:
            failure.trap(VerbError)  # type: ignore[no-untyped-call]
            self.reply({"ok": False, "error": failure.getErrorMessage(), "usage": False})

        def reply(self, value: object) -> None:
            self.sendLine(json.dumps(value).encode())  # type: ignore[no-untyped-call]

    if name == "small":
        done = play.ask("10.0.0.9", 4711)
        assert done.lease is not None
        server.leases.release(done.lease, Outcome.CLOSED)
        for number in range(3):
            play.ask("10.0.0.9", 4712 + number)
        play.ask("10.0.0.12", 4801)
        play.ask("", 0)
    else:
        assert name in FARMS
        for spec in server.file.hosts[::10] if name == "busy" else ():
            server.leases.report(spec.name, "tcp", up=spec.rank % 20 != 0, weight=400, reason="took 3.2 s to answer")
        play.turn(1200 if name == "crowd" else 5200)
    reactor.listenUNIX(path, Factory.forProtocol(Asked))  # type: ignore[attr-defined]
    reactor.callWhenRunning(print, "ready", flush=True)
    reactor.run()


@contextmanager
def serving(path: Path, name: str = "small") -> Iterator[str]:
    """Such a server while the ``with`` block runs; the path of its socket."""
    with spawn(sys.executable, "-m", "tests.adminserver", path, name, cwd=ROOT) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first == "ready\n", first + process.stdout.read()
        yield str(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
