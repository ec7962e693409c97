"""Clients come, wait, are served and leave, and at any moment the process is replaced by another: both sides agree, always."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from distbal.handover import all_is_said
from distbal.listenspec import Listener, parse
from tests.lives import ANY, Guest, Lives
from tests.loops import open_descriptors

HOSTS = {"alpha": 2, "beta": 1}
LINES = {b"", *(f"{name}\r\n".encode() for name in HOSTS)}
MOST = 12


class Daemon(RuleBasedStateMachine):
    """What the clients hear, against what the scheduler says."""

    @initialize(kept=st.booleans())
    def begin(self, kept: bool) -> None:
        self.before = open_descriptors()
        self.kept = kept
        specs = [ANY, Listener("balance", parse("127.0.0.1:0"))]
        self.lives = Lives(*specs, hosts=HOSTS, way="kept" if kept else "upgrade")
        self.guests: list[Guest] = []
        #: those that have been served: the process knows them, and so does the keeper
        self.turned = True
        #: how many were lost of whom nobody was told
        self.unsaid = 0

    @precondition(lambda self: len(self.guests) < MOST)
    @rule(source=st.integers(1, 3), port=st.integers(0, 1))
    def come(self, source: int, port: int) -> None:
        self.guests.append(Guest(self.lives.port(port), f"127.0.0.{source}"))
        self.turned = False

    @precondition(lambda self: self.guests)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.guests.pop(data.draw(st.integers(0, len(self.guests) - 1))).leave()
        self.turned = False

    @rule(seconds=st.floats(0, 3))
    def pass_time(self, seconds: float) -> None:
        self.lives.clock.advance(seconds)

    @rule()
    def turn(self) -> None:
        self.lives.turn()
        self.turned = True

    @rule(upgrade=st.booleans())
    def replace(self, upgrade: bool) -> None:
        if self.kept:
            self.lives.way = "kept upgrade" if upgrade else "kept"
        assert self.lives.again().lost == self.unsaid
        self.lives.turn()
        self.turned = True

    @precondition(lambda self: self.unsaid > 0)
    @rule()
    def say(self) -> None:
        assert self.lives.now.keeping is not None
        all_is_said(self.lives.now.keeping.ledger)
        self.unsaid = 0

    @precondition(lambda self: self.kept)
    @rule()
    def kill_in_the_very_turn(self) -> None:
        self.lives.way = "kept"
        self.lives.turn()
        known = len(self.guests)
        late = [Guest(self.lives.port(0), "127.0.0.1") for _ in range(2)]
        with self.lives.unheard():
            self.lives.turn()
        came = self.lives.again(heard=False)
        self.lives.turn()
        for guest in late:
            assert guest.hear() == b""
            assert guest.closed
            guest.leave()
        self.unsaid += 2
        assert came.lost == self.unsaid
        assert len(self.guests) == known
        self.turned = True

    @invariant()
    def nobody_hears_two_lines_or_a_close(self) -> None:
        for guest in getattr(self, "guests", []):
            assert guest.hear() in LINES
            assert not guest.closed

    @invariant()
    def both_sides_agree(self) -> None:
        if not getattr(self, "turned", False):
            return
        held = Counter(guest.hear() for guest in self.guests)
        waiting = held.pop(b"", 0)
        for name, slots in HOSTS.items():
            assert held[f"{name}\r\n".encode()] <= slots
        assert self.lives.now.counts == (held.total(), waiting)
        assert not waiting or held.total() == sum(HOSTS.values()), "somebody waits while a slot is free"

    def teardown(self) -> None:
        if not hasattr(self, "lives"):
            return
        for guest in self.guests:
            guest.leave()
        self.lives.turn()
        assert self.lives.now.counts == (0, 0)
        keeping = self.lives.now.keeping
        if keeping is not None:
            assert keeping.ledger.accounts() == []
        self.lives.close()
        assert open_descriptors() == self.before


Daemon.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestDaemon = Daemon.TestCase
