"""The scheduler in any sequence of requests, departures, failures, verdicts, decisions, reloads, waiting and new processes,
against a model.

After every step: leases do not exceed capacity at a grant, no waiter waits while a host is available to it, each grant is the
one that policy and discipline ask for, counters add up, ``due`` is not late, and readers see what the model knows. In the end
everything that was lent comes back.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from distbal.carried import CarriedTicket, host_note, read_host, read_totals, totals_note
from distbal.health import Verdict
from distbal.history import History, attempt
from distbal.hosts import AdminState, Farm, HostSpec
from distbal.outcomes import CONNECT_FAILURES, Outcome, Traffic
from distbal.policies import POLICIES
from distbal.queues import DISCIPLINES
from distbal.remembered import history_note, read_history
from distbal.requests import Lease, Request, Ticket
from distbal.scheduler import Scheduler
from distbal.standing import Standing, standing
from distbal.takeup import Carried, take_up
from tests.model import Model

NAMES = ("alpha", "beta", "gamma", "delta", "epsilon")
POOLS = ("default", "arm")
CLIENTS = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
#: where a host may be
ADDRESSES = (("10.0.1.1", 3632), ("10.0.1.2", 3632))
#: a host that says itself how many slots it has, and how many that is until it does
AUTO, UNSAID = 0, 4
#: as if an earlier process had given out some
FIRST_ID = 42
#: attempts that the history remembers: few, so that some are forgotten
REMEMBERED = 10

names = st.sampled_from(NAMES)
policies = st.sampled_from(sorted(POLICIES))
orders = st.sampled_from(sorted(DISCIPLINES))
#: halves of seconds: sums of them are exact; mostly shorter than a pause after a failed connect, or as long as a trial
seconds = st.sampled_from([*(halves / 2 for halves in range(13)), 10.0, 60.0])
waits = st.sampled_from([None, None, 0.5, 8.0])
clients = st.lists(st.sampled_from(CLIENTS), min_size=1, max_size=8)
#: what came of a lease's connection, or None where the edge did not make one; any of them with any outcome
traffics = st.sampled_from(
    [
        None,
        Traffic(),
        Traffic(300, 60, 0.5),
        Traffic(7, 0, 0.0, "closed without an answer"),
        Traffic(reason="refused connections"),
    ]
)
#: what happens to a host in a breakdown
SCRIPT = ("fails all", "fails one", "pauses", "pauses", "is reached", "answers", "another build", "another order", "moves")
#: rare turns of events, each of which has its own rule: an old job that is answered during a trial; a host that moves after it
#: had failed more than once, and fails again; one that failed many clients while others come that could go elsewhere
STORIES = (
    ["fails one", "pauses", "answers"],
    ["fails one", "pauses", "fails all", "pauses", "moves", "another build", "fails one", "pauses"],
    ["fails all", "another build", "fails all", "another build"],
)
#: where a job that could not be connected is tried again, if it is
retries = st.sampled_from(["never", "anywhere", "anywhere", "elsewhere"])


def essence(one: Standing) -> Standing:
    """How many are lent of a free host, and by whose leave, is not kept."""
    return replace(one, leases=0, verdicts=()) if one.available else one


def through_json(values: object) -> object:
    return json.loads(json.dumps(values))


def carried_ticket(ticket: Ticket) -> CarriedTicket:
    """As the edges know it."""
    lease = ticket.lease
    if lease is None:
        return CarriedTicket(ticket.id, ticket.request, ticket.asked)
    return CarriedTicket(ticket.id, ticket.request, ticket.asked, lease.host_name, lease.granted)


@st.composite
def host_lists(draw: st.DrawFn) -> tuple[HostSpec, ...]:
    """One to five hosts, fastest first: some share a rank, some are in two pools, some say themselves what slots they have."""
    rank = 0
    hosts = []
    for name in draw(st.lists(names, min_size=1, max_size=len(NAMES), unique=True)):
        rank += draw(st.integers(0, 1))
        pools = draw(st.sampled_from([("default",), ("default",), ("arm",), ("default", "arm"), ("arm", "default")]))
        address = draw(st.sampled_from([ADDRESSES[0], *ADDRESSES]))
        slots = draw(st.sampled_from([1, 2, 3, 4, AUTO]))
        hosts.append(HostSpec(name, slots or UNSAID, rank, address=address, pools=pools, auto=slots == AUTO))
    return tuple(hosts)


class SchedulerMachine(RuleBasedStateMachine):
    """A scheduler, its model, and what the outside holds: tickets that wait, leases that run."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.waiters: dict[int, Ticket] = {}
        self.leases: dict[int, Lease] = {}
        self.jobs = [0]

    @initialize(hosts=host_lists(), policy=policies, order=orders, wait=waits, seed=st.integers(0, 7), crowd=st.integers(0, 16))
    def start(self, *, hosts: tuple[HostSpec, ...], policy: str, order: str, wait: float | None, seed: int, crowd: int) -> None:
        farm = Farm(hosts, policy, order, wait)
        self.history = History(REMEMBERED)
        self.scheduler = Scheduler(farm, first_id=FIRST_ID, draw=random.Random(seed), history=self.history)
        self.model = Model(farm, FIRST_ID, REMEMBERED)
        self.ask([CLIENTS[number % 3] for number in range(crowd)], "default", (), 0)

    # -- clients

    @rule(
        callers=clients,
        pool=st.sampled_from([*POOLS, "default", "nobody's"]),
        exclude=st.sampled_from([(), (), (), *((name,) for name in NAMES), NAMES[:2]]),
        job=st.integers(0, 3),
    )
    def ask(self, callers: list[str], pool: str, exclude: tuple[str, ...], job: int) -> None:
        for port, client in enumerate(callers):
            self.come(Request(client, port, client, pool, exclude, self.jobs[-job % len(self.jobs)]))

    @rule(
        callers=clients,
        pool=st.sampled_from(POOLS),
        name=names,
        again=st.booleans(),
        ends=st.booleans(),
        how=st.sampled_from(["waits", "drains", "leaves", "speaks", "another order"]),
    )
    def ask_for_one(self, callers: list[str], pool: str, name: str, how: str, *, again: bool, ends: bool) -> None:
        """One host alone will do for some, whatever its pools; others wait before them; and then something happens to it."""
        if name in self.in_file():
            self.ask(callers, pool, (), 0)
        for port, client in enumerate(callers[:2]):
            since = self.now - 1.0 if again else None
            # what else such a request says of hosts does not matter
            self.come(Request(client, port, client, pool, (name,) if again else (), since=since, only=name))
        farm = self.scheduler.farm
        if how == "drains":
            self.decide(name, AdminState.DRAIN)
            self.decide(name, AdminState.READY)
        elif how == "leaves":
            self.edit_a_host(name, None)
            self.configure(farm)
        elif how == "speaks":
            self.propose(name, 6)
        elif how == "another order":
            self.change_order()
        if ends:
            self.on_its_first_lease(name, lambda number: self.end(number, Outcome.ANSWERED, None, "never"))

    @rule(which=st.integers(0, 30), number=st.integers(1, 3))
    def withdraw(self, which: int, number: int) -> None:
        for _ in range(min(number, len(self.waiters))):
            ticket = self.waiters.pop(list(self.waiters)[which % len(self.waiters)])
            self.scheduler.withdraw(ticket)
            self.model.withdrawn(ticket.id)
            with pytest.raises(KeyError):
                self.scheduler.withdraw(ticket)
        if self.leases:
            lease = self.leases[list(self.leases)[which % len(self.leases)]]
            with pytest.raises(KeyError):
                self.scheduler.withdraw(lease.ticket)

    @rule(
        which=st.integers(0, 30),
        number=st.integers(1, 8),
        outcome=st.sampled_from([*Outcome, Outcome.ANSWERED, Outcome.ANSWERED]),
        traffic=traffics,
        retry=retries,
        one_host=st.booleans(),
    )
    def release(
        self, which: int, number: int, outcome: Outcome, traffic: Traffic | None, retry: str, *, one_host: bool = False
    ) -> None:
        """Leases end, of any hosts or all of one; a job whose host could not be connected to may be tried again at once."""
        name = ""
        for _ in range(number):
            leases = [lease for lease in self.leases.values() if name in ("", lease.host_name)]
            if not leases:
                return
            lease = leases[which % len(leases)]
            name = lease.host_name if one_host else ""
            self.end(lease.id, outcome, traffic, retry)

    @rule(
        callers=clients,
        pool=st.sampled_from(POOLS),
        which=st.integers(0, 30),
        outcome=st.sampled_from([Outcome.REFUSED, Outcome.TIMED_OUT, Outcome.NO_ANSWER, Outcome.NO_ANSWER]),
        retry=retries,
        script=st.sampled_from(STORIES) | st.lists(st.sampled_from(SCRIPT), min_size=3),
    )
    def breakdown(self, callers: list[str], pool: str, which: int, outcome: Outcome, retry: str, script: list[str]) -> None:
        """While clients wait a host fails its jobs, and when it has paused those on trial; or it is found to be well again."""
        self.ask(callers, pool, (), 0)
        busy = sorted(self.in_file() & {lease.host_name for lease in self.leases.values()})
        if not busy:
            return
        name = busy[which % len(busy)]
        for word in script:
            verdict = self.scheduler.verdict(name, "connect")
            if word == "another build":
                self.begin_anew(callers, pool, 1)
            elif word == "another order":
                self.change_order()
            elif word == "moves":
                self.move(name)
            elif word == "pauses" and verdict is not None and verdict.expires is not None:
                self.pass_time(max(0.0, verdict.expires - self.now), "in time")
            for _ in range({"fails all": 8, "fails one": 1}.get(word, 0)):
                self.on_its_first_lease(name, lambda number: self.end(number, outcome, Traffic(1, 0, None, "failed"), retry))
            if word == "is reached":
                self.on_its_first_lease(name, self.connect)
            elif word == "answers":
                self.on_its_first_lease(name, lambda number: self.end(number, Outcome.ANSWERED, Traffic(5, 2, 0.5), "never"))

    @rule(which=st.integers(0, 30))
    def recover(self, which: int) -> None:
        """A host is connected to: one for which that is news, if there is one."""
        news = [number for number, lease in self.leases.items() if lease.host.evidence.unreachable] or list(self.leases)
        if news:
            self.connect(news[which % len(news)])

    @rule(callers=clients, pool=st.sampled_from(POOLS), busy=st.integers(0, 3))
    def begin_anew(self, callers: list[str], pool: str, busy: int) -> None:
        """A build is broken off: nobody waits and almost nothing runs, so that the next one has its choice of hosts."""
        self.withdraw(0, len(self.waiters))
        self.release(0, max(0, len(self.leases) - busy), Outcome.CLOSED, None, "never")
        self.ask(callers, pool, (), 0)

    # -- what is heard of hosts

    @rule(
        name=names,
        source=st.sampled_from(["update", "tcp"]),
        says=st.sampled_from(
            [None, (True, None), (False, None), (False, 500), *((True, part) for part in (0, 1, 375, 500, 875, 1000))]
        ),
        lasts=st.sampled_from([None, 0.0, 1.0, 2.0, 4.0, 4.0]),
    )
    def report(self, name: str, source: str, says: tuple[bool, int | None] | None, lasts: float | None) -> None:
        """A source says something, or (None) that it has nothing to say any more."""
        if says is None:
            self.forget(name, source)
            return
        up, weight = says
        verdict = Verdict(source, up, self.now, weight, "", None if lasts is None else self.now + lasts)
        if name in self.in_file():
            grants = self.scheduler.report(name, verdict)
            self.model.reported(name, verdict, grants, self.now)
            self.take(grants)
            assert self.scheduler.verdict(name, source) == verdict
        else:
            with pytest.raises(KeyError):
                self.scheduler.report(name, verdict)
            with pytest.raises(KeyError):
                self.scheduler.verdict(name, source)

    def forget(self, name: str, source: str) -> None:
        if name in self.in_file():
            grants = self.scheduler.forget(name, source, self.now)
            self.model.forgotten(name, source, grants, self.now)
            self.take(grants)
            assert self.scheduler.verdict(name, source) is None
        else:
            with pytest.raises(KeyError):
                self.scheduler.forget(name, source, self.now)

    @rule(name=names, slots=st.integers(1, 6))
    def propose(self, name: str, slots: int) -> None:
        if name in self.in_file():
            grants = self.scheduler.propose_slots(name, slots, self.now)
            self.model.proposed(name, slots, grants, self.now)
            self.take(grants)
        else:
            with pytest.raises(KeyError):
                self.scheduler.propose_slots(name, slots, self.now)

    @rule(callers=clients, pool=st.sampled_from(POOLS), then=st.sampled_from(["in time", "late", "forgotten"]))
    def outage(self, callers: list[str], pool: str, then: str) -> None:
        """A monitor finds every host down, clients come all the same, and the monitor falls silent, or leaves the file."""
        for name in sorted(self.in_file()):
            self.report(name, "tcp", (False, None), 2.0)
        self.ask(callers, pool, (), 0)
        if then != "forgotten":
            self.pass_time(2.0, then)
            return
        for name in sorted(self.in_file()):
            self.forget(name, "tcp")

    @rule(name=names, state=st.sampled_from([AdminState.READY, AdminState.READY, *AdminState]))
    def decide(self, name: str, state: AdminState) -> None:
        if name in self.in_file():
            grants = self.scheduler.set_admin(name, state, self.now)
            self.model.decided(name, state, grants, self.now)
            self.take(grants)
        else:
            with pytest.raises(KeyError):
                self.scheduler.set_admin(name, state, self.now)

    @rule(after=seconds, timer=st.sampled_from(["in time", "late", "overtaken"]))
    def pass_time(self, after: float, timer: str) -> None:
        """Time passes; the loop wakes the scheduler when it wants to be woken, or late, or something else happens first."""
        until = self.now + after
        if timer == "in time":
            while self.scheduler.due is not None and self.scheduler.due <= until:
                self.now = max(self.now, self.scheduler.due)
                self.wake()
        self.now = until
        if timer == "late":
            self.wake()

    def wake(self) -> None:
        decisions = self.scheduler.wake(self.now)
        self.model.woken(decisions.grants, decisions.refusals, self.now)
        self.take(decisions.grants)
        for ticket in decisions.refusals:
            del self.waiters[ticket.id]
        assert self.scheduler.due is None or self.scheduler.due > self.now, "it would be woken again and again"

    # -- the file

    @rule(hosts=st.none() | host_lists(), policy=policies, order=orders, wait=waits)
    def reload(self, hosts: tuple[HostSpec, ...] | None, policy: str, order: str, wait: float | None) -> None:
        self.configure(Farm(self.scheduler.farm.hosts if hosts is None else hosts, policy, order, wait))

    @rule(name=names, slots=st.sampled_from([None, AUTO, 1, 2, 3, 4]))
    def edit_a_host(self, name: str, slots: int | None) -> None:
        """Take it out (None), give it other slots or leave these to it, or put it in as the slowest."""
        farm = self.scheduler.farm
        if slots is None:
            hosts = tuple(spec for spec in farm.hosts if spec.name != name)
        elif name in self.in_file():
            known = next(spec for spec in farm.hosts if spec.name == name)
            edited = replace(known, slots=slots or UNSAID, auto=slots == AUTO)
            hosts = tuple(edited if spec is known else spec for spec in farm.hosts)
        else:
            last = HostSpec(name, slots or UNSAID, len(NAMES), address=ADDRESSES[0], pools=POOLS, auto=slots == AUTO)
            hosts = (*farm.hosts, last)
        self.configure(replace(farm, hosts=hosts))

    @rule(name=names)
    def move(self, name: str) -> None:
        """Give it its other address, if it is in the file."""
        farm = self.scheduler.farm
        hosts = (
            replace(spec, address=ADDRESSES[spec.address == ADDRESSES[0]]) if spec.name == name else spec for spec in farm.hosts
        )
        self.configure(replace(farm, hosts=tuple(hosts)))

    def change_order(self) -> None:
        farm = self.scheduler.farm
        self.configure(replace(farm, order="fifo" if farm.order == "fair" else "fair"))

    @rule(hosts=st.none() | host_lists(), policy=policies, order=orders, wait=waits, seed=st.integers(0, 7), same=st.booleans())
    def replace_the_process(
        self, hosts: tuple[HostSpec, ...] | None, policy: str, order: str, wait: float | None, seed: int, *, same: bool
    ) -> None:
        """A new process goes on with everything that the old one had, and with the file of now, the same or another."""
        farm = self.scheduler.farm
        if not same:
            farm = Farm(farm.hosts if hosts is None else hosts, policy, order, wait)
        old = self.scheduler
        history = History(REMEMBERED)
        history.take_up(read_history(through_json(history_note(old.history))))
        self.history = history
        # a clock sees to it that numbers grow, and those that are carried do, should it be slow
        known = self.model.last_id in self.waiters.keys() | self.leases.keys()
        first_id = FIRST_ID if known else self.model.last_id + 1
        self.scheduler = Scheduler(farm, first_id=first_id, draw=random.Random(seed), history=history)
        for name, host in old.hosts.items():
            # decisions are kept elsewhere, and told before
            if name in self.in_file():
                self.scheduler.set_admin(name, host.admin, self.now, host.decided)
        tickets = [*self.waiters.values(), *(lease.ticket for lease in self.leases.values())]
        random.Random(seed).shuffle(tickets)
        taken = take_up(
            self.scheduler,
            Carried(
                [(carried_ticket(ticket), ticket.holder) for ticket in tickets],
                [read_host(through_json(host_note(host))) for host in old.hosts.values()],
                read_totals(through_json(totals_note(old))),
                {key: turn for key in CLIENTS if (turn := old.turn(key)) is not None},
            ),
            self.now,
        )
        assert taken.left_out == []
        for ticket in tickets:
            mine = taken.tickets.pop(ticket.id)
            assert (mine.request, mine.asked, mine.holder) == (ticket.request, ticket.asked, ticket.holder)
            if ticket.lease is None:
                self.waiters[mine.id] = mine
            else:
                assert mine.lease is not None
                self.leases[mine.id] = mine.lease
        assert taken.tickets == {}
        if farm.order == old.farm.order and not taken.grants:
            assert self.scheduler.turns() == old.turns()
        self.model.replaced(farm, taken.grants, self.now)
        self.take(taken.grants)

    def configure(self, farm: Farm) -> None:
        grants = self.scheduler.configure(farm, self.now)
        self.model.configured(farm, grants, self.now)
        self.take(grants)
        assert self.scheduler.farm is farm

    # -- what holds

    @invariant()
    def the_model_agrees(self) -> None:
        self.model.check(self.scheduler.snapshot(self.now), self.now)
        assert self.scheduler.waiting == len(self.waiters)
        assert self.scheduler.lent == len(self.leases)

    @invariant()
    def its_hosts_can_be_looked_at(self) -> None:
        assert self.scheduler.hosts.keys() == self.model.hosts.keys()
        for name, host in self.scheduler.hosts.items():
            if not host.removed:
                assert self.scheduler.host(name) is host
            else:
                with pytest.raises(KeyError):
                    self.scheduler.host(name)

    @invariant()
    def what_leases_keep_is_how_the_hosts_stand(self) -> None:
        named = sorted((host for host in self.scheduler.hosts.values() if not host.removed), key=lambda host: host.position)
        now = [standing(host) for host in named]
        kept = self.scheduler.moment
        assert kept.policy == self.scheduler.farm.policy
        assert list(map(essence, kept.standings)) == list(map(essence, now))

    @invariant()
    def each_lease_is_where_it_has_to_be(self) -> None:
        """A faster host had a reason not to get it; to have been free as well is one only where the policy says so."""
        for lease in self.leases.values():
            ranks = {one.spec.name: one.spec.rank for one in lease.found.standings}
            for passed in attempt(lease).passed_over:
                same = ranks[passed.host] == ranks.get(lease.host_name)
                assert passed.reason != "busier" or same or lease.found.policy == "least-loaded", passed

    @invariant()
    def due_is_not_late(self) -> None:
        expected = self.model.due()
        if expected is not None:
            assert self.scheduler.due is not None, f"nothing is due; {expected} was expected"
            assert self.scheduler.due <= expected, f"it wants to be woken at {self.scheduler.due}, {expected} was expected"

    def teardown(self) -> None:
        """Whatever was lent comes back, and whatever waited for it gets its turn."""
        if sys.exc_info()[0] is not None:
            return  # something is wrong already: that is what should be shown
        while self.leases:
            self.now += 0.5
            self.release(0, 1, Outcome.CLOSED, None, "never")
            self.the_model_agrees()
        snapshot = self.scheduler.snapshot(self.now)
        assert snapshot.leases == ()
        assert snapshot.counts["granted"] == snapshot.counts["ended"]
        assert all(host.leases == 0 and not host.removed for host in snapshot.hosts)
        assert self.history.jobs() == self.model.jobs()

    # -- helpers

    def come(self, request: Request) -> None:
        holder = object()
        if request.only and request.only not in self.in_file():
            with pytest.raises(KeyError):
                self.scheduler.ask(request, holder, self.now)
            return
        ticket = self.scheduler.ask(request, holder, self.now)
        assert ticket.holder is holder
        self.model.asked(ticket, request, self.now)
        if ticket.lease is None:
            self.waiters[ticket.id] = ticket
        else:
            self.leases[ticket.id] = ticket.lease
            self.jobs.append(ticket.lease.job)

    def end(self, number: int, outcome: Outcome, traffic: Traffic | None, retry: str) -> None:
        lease = self.leases.pop(number)
        grants = self.scheduler.release(lease, outcome, self.now, traffic)
        self.model.released(number, outcome, traffic, grants, self.now)
        self.take(grants)
        assert lease.ticket.holder is None
        with pytest.raises(KeyError):
            self.scheduler.release(lease, outcome, self.now, traffic)
        if outcome in CONNECT_FAILURES and retry != "never":
            exclude = () if retry == "anywhere" else (lease.host_name,)
            self.come(replace(lease.ticket.request, exclude=exclude, job=lease.job, since=lease.ticket.asked))

    def on_its_first_lease(self, name: str, do: Callable[[int], None]) -> None:
        number = next((number for number, lease in self.leases.items() if lease.host_name == name), None)
        if number is not None:
            do(number)

    def connect(self, number: int) -> None:
        lease = self.leases[number]
        grants = self.scheduler.connected(lease, self.now)
        self.model.connected(number, grants, self.now)
        self.take(grants)
        assert not lease.host.evidence.unreachable

    def take(self, grants: list[Lease]) -> None:
        for lease in grants:
            ticket = self.waiters.pop(lease.id)
            assert ticket.lease is lease
            assert ticket is lease.ticket
            assert ticket.holder is not None
            self.leases[lease.id] = lease

    def in_file(self) -> set[str]:
        return {spec.name for spec in self.scheduler.farm.hosts}


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
