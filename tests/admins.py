"""The verbs in memory: an Admin over a real scheduler on a clock of the test's, and a daemon that does what it must."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from distbal import decisions, verbs
from distbal.admin import Admin, Who
from distbal.changes import Changes
from distbal.decisions import Decisions
from distbal.execing import UpgradeError
from distbal.hosts import Farm
from distbal.inside import Inside
from distbal.leases import LocalLeases
from distbal.lookup import Lookup
from distbal.monitors.kit import Surroundings
from distbal.monitors.rounds import Rounds
from distbal.monitors.slots import Slots
from distbal.reporter import Reporter
from distbal.requests import Request, Ticket
from distbal.scheduler import Scheduler
from distbal.upgrade import Going
from tests.farms import spec
from tests.takers import Client

#: what the wall says when the clock says 0
EPOCH = 1_764_000_000.0
ALICE = Who("alice", "admin socket")
FILE = Farm((spec("fast", 4, 0), spec("slow", 2, 1), spec("old", 1, 2)))


def nobody(host: str, port: int) -> Deferred[Any]:
    """A resolver where nothing is looked up."""
    raise AssertionError(f"{host}:{port} is looked up")


class Desk:
    """Whoever types the verbs, and all that is behind them; a daemon as :class:`distbal.admin.Daemon` wants it.

    :ivar kept: what was to be kept, each time.
    :ivar why_not: why it cannot be kept; "" where it can.
    :ivar no_upgrade: why it is not upgraded.
    :ivar reasons: why the file is not taken in when it is read again.
    """

    def __init__(self, file: Farm = FILE, made: Decisions | None = None) -> None:
        self.clock = Clock()
        self.leases = LocalLeases(Scheduler(Farm(()), first_id=1000), self.clock)
        lookup = Lookup(self.clock, nobody)
        self.monitors = Rounds(self.leases, Surroundings(self.clock, lookup, Slots(self.leases)))
        self.reporter = Reporter(
            self.leases,
            self.monitors,
            seconds=self.clock.seconds,
            wall=self.wall,
            inside=Inside(self.clock),
            decisions=lambda: self.made,
        )
        self.kept: list[tuple[Decisions, int]] = []
        self.why_not = ""
        self.reasons: list[str] = []
        self.each_job = False
        self.no_upgrade: UpgradeError | None = None
        self.admin = Admin(self, self.leases, self.reporter, self.wall, made=made or Decisions())
        self.admin.file_changed(file)

    def wall(self) -> float:
        return EPOCH + self.clock.seconds()

    @property
    def made(self) -> Decisions:
        return self.admin.overlay.decisions

    # -- a daemon

    def serve(self, farm: Farm) -> None:
        self.leases.configure(farm)

    def reload_file(self) -> Deferred[tuple[list[str], list[str]]]:
        return succeed((self.reasons, []))

    def export(self, made: Decisions) -> Deferred[str]:
        return succeed(f"# {len(list(made))} decisions\n")

    def save(self, made: Decisions, changes: Changes) -> None:
        self.kept.append((made, len(changes)))

    def saved(self) -> Deferred[str]:
        return succeed(self.why_not)

    def log_jobs(self, each: bool) -> None:
        self.each_job = each

    def upgrade(self) -> Deferred[Going]:
        return fail(self.no_upgrade) if self.no_upgrade else succeed(Going("0.5.0", "0.6.0"))

    # -- whoever types

    def say(self, *words: str, who: Who = ALICE) -> dict[str, Any]:
        """The answer; VerbError where there is none."""
        done = self.admin.carry_out(verbs.parse(words), who)
        found: list[Any] = []
        done.addBoth(found.append)
        if hasattr(found[0], "raiseException"):
            found[0].raiseException()
        assert isinstance(found[0], dict)
        return found[0]

    def text(self, *words: str) -> str:
        return str(self.say(*words)["text"])

    def job(self, address: str = "10.0.0.9", port: int = 4711, pool: str = "default") -> tuple[Client, Ticket]:
        """A client asks."""
        client = Client()
        return client, self.leases.ask(Request(address, port, address, pool), client)

    def hosts(self) -> dict[str, dict[str, Any]]:
        return {one["name"]: {**one} for one in self.reporter.hosts()["hosts"]}

    def order(self) -> list[str]:
        return [one.name for one in self.leases.scheduler.farm.hosts]

    def applied(self) -> Farm:
        return decisions.applied(self.admin.overlay.file, self.made)
