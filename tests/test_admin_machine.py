"""Any verbs, in any order, while jobs run and the file changes: what must hold afterwards, whatever was said."""

from __future__ import annotations

import json

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from distbal import statejson
from distbal.decisions import applied
from distbal.hosts import Farm, HostSpec
from distbal.outcomes import Outcome
from distbal.requests import Ticket
from distbal.verbs import VerbError
from tests.admins import Desk
from tests.farms import spec
from tests.takers import Client

NAMES = ("a", "b", "c", "d:3633", "e")
names = st.sampled_from(NAMES)
numbers = st.integers(1, 4)


@st.composite
def files(draw: st.DrawFn) -> Farm:
    """A file of some of the hosts, in any order."""
    order = draw(st.lists(names, min_size=1, unique=True))
    return Farm(tuple(spec(name, draw(numbers), rank) for rank, name in enumerate(order)))


places = st.tuples(st.sampled_from(["before", "with", "after"]), names).map(list)
calls = st.one_of(
    st.tuples(st.sampled_from(["drain", "down"]), names, st.sampled_from(["", "fan broken"])).map(list),
    st.tuples(st.sampled_from(["up", "ready", "remove", "show"]), names).map(list),
    st.tuples(st.just("remove"), names, st.just("now")).map(list),
    st.tuples(st.just("slots"), names, numbers.map(str) | st.just("file")).map(list),
    st.tuples(st.just("weight"), names, st.sampled_from(["0", "0.3", "1", "none"])).map(list),
    st.tuples(st.just("rank"), names).flatmap(lambda start: places.map(lambda place: [*start, *place])),
    st.tuples(st.just("rank"), names, st.just("file")).map(list),
    st.tuples(st.just("add"), names, numbers.map(str)).map(list),
    st.tuples(st.just("add"), names, numbers.map(str)).flatmap(lambda start: places.map(lambda place: [*start, *place])),
    st.tuples(st.just("kick"), st.sampled_from(["10.0.0.1", "10.0.0.2:7"])).map(list),
    st.sampled_from([["status"], ["hosts"], ["queue"], ["jobs"], ["history"]]),
)


class AdminMachine(RuleBasedStateMachine):
    """A desk, its clients, and whoever types."""

    @initialize(file=files())
    def open(self, file: Farm) -> None:
        self.desk = Desk(file)
        self.jobs: list[tuple[Client, Ticket]] = []

    @rule(words=calls)
    def say(self, words: list[str]) -> None:
        before = (self.desk.made, self.desk.leases.scheduler.farm, len(self.desk.admin.changes))
        try:
            answer = self.desk.say(*filter(None, words))
        except VerbError:
            assert (self.desk.made, self.desk.leases.scheduler.farm, len(self.desk.admin.changes)) == before
        else:
            json.dumps(answer)

    @rule(address=st.sampled_from(["10.0.0.1", "10.0.0.2"]), port=st.integers(7, 9))
    def ask(self, address: str, port: int) -> None:
        self.jobs.append(self.desk.job(address, port))

    @rule(number=st.integers(0, 30))
    def end(self, number: int) -> None:
        if self.jobs:
            client, ticket = self.jobs.pop(number % len(self.jobs))
            if ticket.lease is not None:
                self.desk.leases.release(ticket.lease, Outcome.CLOSED)
            elif not client.refusals and not client.losses:
                self.desk.leases.withdraw(ticket)

    @rule(file=files())
    def reload(self, file: Farm) -> None:
        self.desk.admin.file_changed(file)

    @rule(seconds=st.floats(0.1, 100))
    def wait(self, seconds: float) -> None:
        self.desk.clock.advance(seconds)

    @rule()
    def restart(self) -> None:
        """Another daemon takes up what this one kept."""
        made = json.loads(json.dumps(statejson.to_json(self.desk.made, tuple(self.desk.admin.changes))))
        decisions, changes = statejson.from_json(made)
        assert (decisions, changes) == (self.desk.made, list(self.desk.admin.changes))
        before = {one["name"]: (one["slots"], one["capacity"], one["rank"], one["why"]) for one in self.hosts()}
        self.desk = Desk(self.desk.admin.overlay.file, decisions)
        self.jobs = []
        assert {one["name"]: (one["slots"], one["capacity"], one["rank"], one["why"]) for one in self.hosts()} == before

    def hosts(self) -> list[dict[str, object]]:
        return [{**one} for one in self.desk.reporter.hosts()["hosts"] if one["state"] != "removed"]

    @invariant()
    def the_farm_is_what_the_file_and_people_say(self) -> None:
        scheduler, made = self.desk.leases.scheduler, self.desk.made
        assert scheduler.farm == applied(self.desk.admin.overlay.file, made)
        removed = {name for name, key, decision in made if key == "there" and decision.value is False}
        # no verb takes the last host away; a file may name none but those that were
        assert scheduler.farm.hosts or removed >= {one.name for one in self.desk.admin.overlay.file.hosts}
        for name, key, decision in made:
            host = scheduler.hosts.get(name)
            if key == "admin":
                assert host is not None
                assert (host.admin.value, host.decided) == (decision.value, decision.why)
            elif key == "weight":
                assert host is not None
                assert host.health.weight == decision.value
            elif key == "there" and isinstance(decision.value, HostSpec):
                assert host is not None
                assert not host.removed
        decided = {(name, key) for name, key, _ in made}
        for name, host in scheduler.hosts.items():
            assert host.admin.value == "ready" or (name, "admin") in decided or host.removed
            assert host.health.verdict("admin") is None or (name, "weight") in decided or host.removed
            assert host.leases <= host.spec.slots or host.leases > host.capacity

    @invariant()
    def nobody_waits_while_a_host_is_free(self) -> None:
        scheduler = self.desk.leases.scheduler
        assert not (scheduler.waiting and any(host.available for host in scheduler.hosts.values()))


TestAdmin = AdminMachine.TestCase
TestAdmin.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
