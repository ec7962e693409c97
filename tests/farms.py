"""Small farms for examples: a scheduler, what is asked of it and what it answered, in few words."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from distbal.health import Verdict
from distbal.hosts import DEFAULT_POOL, Farm, HostSpec
from distbal.requests import Lease, Request, Ticket
from distbal.scheduler import Scheduler
from distbal.snapshot import HostState

NOW = 1000.0


def spec(name: str, slots: int = 1, rank: int = 0, *pools: str) -> HostSpec:
    return HostSpec(name, slots, rank, pools=pools or (DEFAULT_POOL,))


def scheduler(*hosts: HostSpec, **settings: Any) -> Scheduler:
    return Scheduler(Farm(hosts, **settings), draw=random.Random(5656))


def ask(to: Scheduler, key: str = "10.0.0.1", now: float = NOW, **wishes: Any) -> Ticket:
    return to.ask(Request(key, 4711, key, **wishes), object(), now)


def granted(ticket: Ticket) -> Lease:
    assert ticket.lease is not None
    return ticket.lease


def host_of(ticket: Ticket) -> str:
    """The name of the host that it was given; "" while it waits."""
    return "" if ticket.lease is None else ticket.lease.host_name


def given(grants: Iterable[Lease]) -> list[tuple[int, str]]:
    return [(lease.id, lease.host_name) for lease in grants]


def shown(by: Scheduler, name: str) -> HostState:
    (state,) = [host for host in by.snapshot(NOW).hosts if host.spec.name == name]
    return state


def says(
    *, up: bool = True, weight: int | None = None, source: str = "tcp", at: float = NOW, expires: float | None = None
) -> Verdict:
    return Verdict(source, up, at, weight, "", expires)
