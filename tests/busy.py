"""A farm in which everything happens that a report can tell: for those who read reports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from distbal.decisions import Decision, Decisions
from distbal.hosts import AdminState, Farm, HostSpec
from distbal.interfaces import Reading
from distbal.outcomes import Outcome, Traffic
from distbal.requests import Lease, Request, Ticket
from tests.takers import Client
from tests.watchers import Ground, ground

#: the first one's name is as bad as a name can be
HOSTS = ('<b>"q"&</b>', "box1", "box2", "box3", "old")
DECIDED = Decisions(
    (
        ("box1", "admin", Decision("drain", None, "ada", 1e9, "fan broken")),
        ("box2", "slots", Decision(2, 4, "ada", 1e9, "")),
        ("box2", "weight", Decision(500, None, "ada", 1e9, "")),
        ("gone", "there", Decision(False, True, "ada", 1e9, "")),
    )
)


@dataclass
class Busy:
    """The farm, and what runs in it."""

    ground: Ground
    leases: list[Lease] = field(default_factory=list)
    waiting: list[Ticket] = field(default_factory=list)

    def ask(self, address: str = "10.0.0.9", **wishes: object) -> Ticket:
        ticket = self.ground.leases.ask(Request(address, 4711, address, **wishes), Client())  # type: ignore[arg-type]
        if ticket.lease is None:
            self.waiting.append(ticket)
        else:
            self.leases.append(ticket.lease)
        return ticket

    def end(self, lease: Lease, outcome: Outcome, traffic: Traffic | None = None) -> None:
        self.leases.remove(lease)
        self.ground.leases.release(lease, outcome, traffic)
        for ticket in self.waiting[:]:
            if ticket.lease is not None:
                self.waiting.remove(ticket)
                self.leases.append(ticket.lease)


@contextmanager
def busy() -> Iterator[Busy]:
    """Hosts of every state; jobs that run, wait, have ended and failed, by way of the proxy too; monitors of every mood."""
    with ground(*HOSTS, slots=2) as farm:
        one = Busy(farm)
        leases = farm.leases
        kind = farm.kind()
        kind.answers = {
            "box2": Reading(up=True, weight=0.5, reason="half of it is busy", facts={"load": 1.5, "cpus": 4}),
            "box3": Reading(up=False, reason="<script>alert(1)</script>", certain=True),
            "old": ValueError("a bug"),
        }
        farm.watch(kind, interval=10, sources=("told", "second"))
        leases.report("box3", "update", up=False, reason="said on the update port by 10.0.0.1", ttl=600)
        for _ in range(12):
            one.ask()
            farm.clock.advance(0.1)
        # a host's connection fails, one answers, one breaks
        ends = [
            (Outcome.ANSWERED, Traffic(1000, 200, 0.01)),
            (Outcome.REFUSED, Traffic(reason="refused the connection")),
            (Outcome.NO_ANSWER, Traffic(300, 0, 0.02, "closed without an answer")),
            (Outcome.CLOSED, None),
        ]
        for outcome, traffic in ends:
            one.end(one.leases[0], outcome, traffic)
            farm.clock.advance(0.5)
        leases.set_admin("box1", AdminState.DRAIN, "fan broken")
        again = one.leases[-1]
        one.end(again, Outcome.UNREACHABLE, Traffic(reason="has no route"))
        one.ask(job=again.job, exclude=(again.host_name,), since=again.ticket.asked)
        # its last jobs run on
        gone = leases.scheduler.farm
        leases.configure(replace(gone, hosts=tuple(host for host in gone.hosts if host.name != "old")))
        for _ in range(4):
            one.ask("10.0.0.10")
        farm.go(15, 1)
        yield one


def large(hosts: int, slots: int = 1) -> Farm:
    return Farm(tuple(HostSpec(f"host{number}:3632", slots, number, address=("127.0.0.1", 3632)) for number in range(hosts)))
