"""What a grant costs as the farm grows: counted in executed lines and in compared keys, so the machine's speed does not matter.

Ten hosts and ten thousand, with as many leases and as many waiters: the lines that one job's calls execute stay the same (a
loop over hosts, leases or waiters would show), and the comparisons in the heaps grow with the logarithm.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Collection
from math import log2
from types import FrameType
from typing import Any

import pytest

from distbal import policies
from distbal.health import Verdict
from distbal.hosts import Farm, Host, HostSpec
from distbal.outcomes import Outcome
from distbal.policies import POLICIES, HostIndex
from distbal.queues import DISCIPLINES
from distbal.requests import Lease, Request
from distbal.scheduler import Scheduler

FEW, MANY = 10, 10_000
#: rounds that a figure is the mean of: enough for the heaps' sweeps to be among them
ROUNDS = 300


def farm(size: int, policy: str, order: str) -> Scheduler:
    """Hosts of one slot; half of them share their rank with one other."""
    hosts = tuple(HostSpec(f"host{number}", 1, number - number % 4 // 3, pools=("default", "arm")) for number in range(size))
    return Scheduler(Farm(hosts, policy, order, wait=1e9), draw=random.Random(5656))


def request(number: int) -> Request:
    client = f"client{number}"
    return Request(client, 0, client, "arm" if number % 2 else "default")


class Idle:
    """Every host is free: a job comes and goes."""

    def __init__(self, size: int, policy: str, order: str) -> None:
        self.farm = farm(size, policy, order)
        self.step = 0

    def job(self) -> None:
        self.step += 1
        ticket = self.farm.ask(request(self.step % 7), None, self.step)
        assert ticket.lease is not None
        assert self.farm.release(ticket.lease, Outcome.CLOSED, self.step) == []


class LastHost(Idle):
    """Every slot is lent but one."""

    def __init__(self, size: int, policy: str, order: str) -> None:
        super().__init__(size, policy, order)
        for number in range(size - 1):
            assert self.farm.ask(request(number), None, 0.0).lease is not None


class Busy(Idle):
    """Every slot is lent and as many clients wait: a slot comes back and is handed on, and another client comes and waits."""

    def __init__(self, size: int, policy: str, order: str) -> None:
        super().__init__(size, policy, order)
        self.leases: list[Lease] = []
        for number in range(2 * size):
            ticket = self.farm.ask(request(number), None, 0.0)
            if ticket.lease is not None:
                self.leases.append(ticket.lease)
        self.next = 2 * size
        assert (self.farm.lent, self.farm.waiting) == (size, size)

    def job(self) -> None:
        self.step += 1
        (lease,) = self.farm.release(self.leases[self.step % len(self.leases)], Outcome.CLOSED, self.step)
        self.leases[self.step % len(self.leases)] = lease
        ticket = self.farm.ask(request(self.next), None, self.step)
        assert ticket.lease is None
        self.next += 1


class Impatient(Busy):
    """The same, and clients leave before their turn."""

    def job(self) -> None:
        super().job()
        ticket = self.farm.ask(request(self.next - 1), None, self.step)
        self.farm.withdraw(ticket)


class Noisy(Busy):
    """The same, and the slot comes back while its host is down: with the host it goes to a waiter. All verdicts will expire."""

    def job(self) -> None:
        self.step += 1
        lease = self.leases[self.step % len(self.leases)]
        assert self.hear(lease.host_name, up=False) == []
        assert self.farm.release(lease, Outcome.CLOSED, self.step) == []
        (self.leases[self.step % len(self.leases)],) = self.hear(lease.host_name, up=True)
        assert self.farm.ask(request(self.next), None, self.step).lease is None
        self.next += 1

    def hear(self, name: str, *, up: bool) -> list[Lease]:
        return self.farm.report(name, Verdict("tcp", up, self.step, None, "", self.step + 1e6))


def lines(run: Callable[[], None]) -> float:
    """How many lines one call executes in the package (and in this file), on the average."""
    count = 0

    def trace(frame: FrameType, event: str, arg: object) -> Callable[..., Any] | None:
        nonlocal count
        if not frame.f_globals.get("__name__", "").startswith(("distbal.", __name__)):
            return None
        count += event == "line"
        return trace

    outer = sys.gettrace()
    sys.settrace(trace)
    try:
        for _ in range(ROUNDS):
            run()
    finally:
        sys.settrace(outer)
    return count / ROUNDS


@pytest.mark.parametrize("order", sorted(DISCIPLINES))
@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("state", [Idle, LastHost, Busy, Impatient, Noisy])
def test_ten_thousand_are_as_ten(state: type[Idle], policy: str, order: str) -> None:
    few, many = lines(state(FEW, policy, order).job), lines(state(MANY, policy, order).job)
    assert few > 20, "something was counted"
    # a few lines either way: an outdated entry more or less on top of a heap
    assert many <= 1.15 * few + 5, f"{few:.1f} lines at {FEW}, {many:.1f} at {MANY}"


class Compared(tuple[float, ...]):
    """A policy's key that counts how often it is compared."""

    __slots__ = ()
    times = 0

    def __lt__(self, other: tuple[float, ...]) -> bool:
        Compared.times += 1
        return tuple.__lt__(self, other)

    def __eq__(self, other: object) -> bool:
        Compared.times += 1
        return tuple.__eq__(self, other)

    def __hash__(self) -> int:
        return tuple.__hash__(self)


@pytest.mark.parametrize("key", [policies.fastest_first, policies.least_loaded])
@pytest.mark.parametrize("state", [Idle, LastHost, Busy])
def test_heaps_compare_as_the_logarithm(
    state: type[Idle], key: Callable[[Host], tuple[float, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(draw: random.Random) -> HostIndex:
        return policies.OrderedIndex(lambda host: Compared(key(host)))

    monkeypatch.setitem(POLICIES, "counted", make)
    for size in (FEW, 1_000, MANY):
        farm = state(size, "counted", "fair")
        Compared.times = 0
        for _ in range(ROUNDS):
            farm.job()
        each = Compared.times / ROUNDS
        # two pools' heaps, and in each a host leaves and comes: a pop and a push, comparing for order and for equality
        assert each <= 2 * 4 * (log2(size) + 2), f"{each:.1f} comparisons a job at {size} hosts"


def test_the_count_would_show_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that looks at every host is found out."""

    class Looking(policies.RandomIndex):
        def pick(self, exclude: Collection[str]) -> Host | None:
            best = None
            for host in self._trusted._hosts:
                if best is None or host.spec.rank < best.spec.rank:
                    best = host
            return best

    monkeypatch.setitem(POLICIES, "looking", Looking)
    few, many = lines(Idle(FEW, "looking", "fair").job), lines(Idle(10 * FEW, "looking", "fair").job)
    assert many > few + 9 * FEW
