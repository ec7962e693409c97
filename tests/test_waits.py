"""How long clients waited, beside a list that remembers every one of them."""

from __future__ import annotations

import operator
from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from distbal.outcomes import Outcome
from distbal.requests import Lease, Ticket
from distbal.waits import BOUNDS, Histogram, Waits
from tests.farms import ask, scheduler, spec

SECONDS = st.one_of(st.sampled_from(BOUNDS), st.floats(0, 1000))


def plainly(waits: list[float]) -> Histogram:
    """The same from a list of all waits, counted one by one."""
    counts = [sum(wait <= bound for wait in waits) for bound in (*BOUNDS, float("inf"))]
    # one after the other: Python's own sum, from 3.12 on, rounds once in the end
    return Histogram(tuple(counts), reduce(operator.add, waits, 0.0))


@given(st.lists(SECONDS), st.integers(0, 50))
def test_the_buckets_are_those_of_a_plain_list(waits: list[float], at_once: int) -> None:
    counted = Waits()
    for wait in waits:
        counted.note(wait)
    assert counted.histogram(len(waits) + at_once) == plainly(waits + [0.0] * at_once)


def test_nothing_was_seen_yet() -> None:
    assert Waits().histogram(0) == Histogram((0,) * (len(BOUNDS) + 1), 0.0)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.floats(0, 20)),
        st.tuples(st.just("again"), st.floats(0, 20)),
        st.tuples(st.just("release"), st.floats(0, 20)),
        st.tuples(st.just("withdraw"), st.floats(0, 20)),
        st.tuples(st.just("reload"), st.floats(0, 20)),
        st.tuples(st.just("wake"), st.floats(0, 200)),
    ),
    max_size=60,
)


@given(STEPS)
def test_the_scheduler_notes_every_grant_once(steps: list[tuple[str, float]]) -> None:
    farm = scheduler(spec("a", 1, 0), spec("b", 2, 1), wait=300.0)
    now, waits = 1000.0, []
    leases: list[Lease] = []
    waiting: list[Ticket] = []

    def came(grants: list[Lease]) -> None:
        for lease in grants:
            leases.append(lease)
            waiting.remove(lease.ticket)
            waits.append(now - lease.ticket.asked)

    for step, pause in steps:
        now += pause
        if step in ("ask", "again"):
            ticket = ask(farm, now=now, since=now - 1 if step == "again" else None)
            if ticket.lease is None:
                waiting.append(ticket)
            else:
                leases.append(ticket.lease)
                waits.append(0.0)
        elif step == "release" and leases:
            came(farm.release(leases.pop(0), Outcome.CLOSED, now))
        elif step == "withdraw" and waiting:
            farm.withdraw(waiting.pop())
        elif step == "reload":
            came(farm.configure(farm.farm, now))
        elif step == "wake":
            decisions = farm.wake(now)
            for ticket in decisions.refusals:
                waiting.remove(ticket)
            came(decisions.grants)
        assert farm.asked_first == min((ticket.asked for ticket in waiting), default=None)
    seen = farm.waits
    assert seen.counts == plainly(waits).counts
    assert abs(seen.seconds - sum(waits)) < 1e-6
    assert seen.counts[-1] == farm.counts["granted"]
