"""A daemon with a crowd on 5656 and sessions in every phase, and what must be the same after it has become another one."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.crowds import CONNECTING, SERVED, WAITING, WAYS_TO_LEAVE, Crowd, Guest, Reports
from tests.integration.kept import Kept, kept
from tests.relayed import CONNECTING as SESSION_CONNECTING
from tests.relayed import PHASES, Relayed
from tests.rooms import Room, many_descriptors

#: clients of 5656, and sessions of the proxy, where descriptors are to be had
CLIENTS, SESSIONS = 2000, 200
#: of which so many come, and as many go, each time after a pause of so many seconds
NEW_ONES, PAUSE = 3, 0.01
LISTEN = "listen: {balance: '127.0.0.1:0', status: '127.0.0.1:0', update: '127.0.0.1:0', proxy: %s}\n"


@dataclass(frozen=True)
class Sight:
    """What the daemon says of each client of 5656, by ports: its lease's number, since when, and the order of those that wait.

    :ivar guests: whose the ports were: the port of one that has left may be another's by now.
    :ivar started: when the daemon says that it did.
    """

    leases: dict[int, int]
    ages: dict[int, float]
    order: list[int]
    guests: dict[int, Guest]
    started: float


@dataclass
class Scene:
    """All of it.

    :ivar number: how many clients there are of 5656: half have a slot, half wait.
    """

    room: Room
    daemon: Kept
    crowd: Crowd
    relayed: Relayed
    reports: Reports
    number: int
    dice: random.Random = field(repr=False)

    @property
    def scale(self) -> float:
        return self.number / CLIENTS

    # -- filling

    def fill(self) -> None:
        """The crowd comes, and sessions in every phase but one: a connect is given up after 3 s, so it begins when due."""
        self.crowd.come(self.number)
        self.room.until(lambda: self.crowd.counts(self.number // 2, self.number - self.number // 2), "everybody in his place")
        for phase in PHASES:
            if phase != SESSION_CONNECTING:
                self.relayed.begin(phase, self.a_phase)
        self.relayed.settle()
        self.agree()

    @property
    def a_phase(self) -> int:
        """Sessions in one phase."""
        return max(2, round(SESSIONS * self.scale / len(PHASES)))

    def begin_connecting(self) -> None:
        """Sessions to a server that does not answer yet, which it does when all go on."""
        self.relayed.begin(SESSION_CONNECTING, self.a_phase)
        self.relayed.settle()

    # -- looking

    def agree(self) -> None:
        """The daemon has everybody's view, and there were no faults."""
        self.check()
        self.room.until(lambda: not self.crowd.of(CONNECTING), "nobody on the way in")
        self.reports.agree(self.crowd, self.relayed.view())
        self.check()

    def check(self) -> None:
        self.daemon.assert_alive()
        self.crowd.check()
        self.relayed.check()

    def sight(self) -> Sight:
        guests = {guest.port: guest for guest in self.crowd.of(SERVED, WAITING)}
        return Sight(*self.reports.clients(), guests, self.reports.status()["started"])

    def same(self, before: Sight) -> None:
        """Whoever is still there has the lease, the place and the age that it had; and the counting goes on."""
        now = self.sight()
        assert abs(now.started - before.started) < 0.5
        still = {port for port, guest in before.guests.items() if now.guests.get(port) is guest}
        kept = [port for port in still if port in before.leases]
        others = {
            port: (before.leases[port], now.leases.get(port)) for port in kept if before.leases[port] != now.leases.get(port)
        }
        assert others == {}, f"{len(others)} leases have another number: {list(others.items())[:5]}"
        moved = {
            port: (before.ages[port], now.ages[port])
            for port in still
            # a waiter that was given a slot meanwhile counts from then on
            if (port in before.leases) == (port in now.leases) and abs(before.ages[port] - now.ages[port]) > 0.5
        }
        assert moved == {}, f"{len(moved)} clients have another age: {list(moved.items())[:5]}"
        # whoever waited before waits in the same order, and before all that have come since
        waited = [port for port in before.order if port in still and port not in now.leases]
        waits = [port for port in now.order if port in now.guests][: len(waited)]
        wrong = [place for place in range(len(waited)) if waits[place : place + 1] != waited[place : place + 1]]
        if wrong:
            was = [(port, before.ages[port]) for port in waited[wrong[0] :][:5]]
            now_is = [(port, now.ages.get(port)) for port in waits[wrong[0] :][:5]]
            raise AssertionError(f"from place {wrong[0]} of {len(waited)} on there waited {was}, and now {now_is}")
        numbers = list(now.leases.values())
        assert len(set(numbers)) == len(numbers)

    # -- what goes on meanwhile

    def come_and_go(self, number: int) -> None:
        """Some come, and as many of those that were there leave, in every way."""
        self.crowd.come(number)
        there = self.crowd.of(WAITING, SERVED)
        for guest in self.dice.sample(there, min(number, len(there))):
            self.crowd.leave([guest], self.dice.choice(WAYS_TO_LEAVE))

    def meanwhile(self, holds: Callable[[], bool], what: str, *others: Scene) -> None:
        """Clients come and go, here and elsewhere, until it holds."""
        due = 0.0

        def turned() -> bool:
            nonlocal due
            if (now := self.room.now()) >= due:
                due = now + PAUSE
                for scene in (self, *others):
                    scene.come_and_go(NEW_ONES)
            return holds()

        self.room.until(turned, what)

    def kill_in(self, seconds: float, *others: Scene) -> None:
        """Kill the daemon then, and wait for the next one; clients come and go all the time, here and elsewhere."""
        end = self.room.now() + seconds
        self.meanwhile(lambda: self.room.now() >= end, "the moment", *others)
        before = self.daemon.kill()
        assert before
        self.meanwhile(lambda: self.daemon.pid not in (0, before), "another daemon", *others)

    def all_end(self) -> None:
        """Everybody is served and leaves, and all sessions end as they should; then nothing is lent."""
        self.relayed.finish()
        while self.crowd.guests:
            self.crowd.leave(self.crowd.served)
            self.room.until(lambda: bool(self.crowd.served or not self.crowd.guests), "slots for those that waited")
        self.agree()
        totals = self.reports.status()["totals"]
        assert (totals["used"], totals["waiting"]) == (0, 0)


@contextmanager
def crowded(
    directory: Path,
    *,
    supervised: bool,
    clients: int = CLIENTS,
    seed: int = 1,
    room: Room | None = None,
    run: Callable[[Path, str], AbstractContextManager[Kept]] | None = None,
) -> Iterator[Scene]:
    """A daemon that is full, while the block runs.

    :param supervised: whether it has a keeper.
    :param clients: how many, where the process may have as many descriptors as that takes.
    :param room: where its clients live, if not in one of their own.
    :param run: runs it, with this directory and hosts.yaml, if somebody else is to.
    """
    with ExitStack() as stack:
        most = stack.enter_context(many_descriptors())
        if room is None:
            room = stack.enter_context(Room())
        relayed = stack.enter_context(Relayed(room))
        # the daemon keeps up to 800 for its other ports; there is a session for ten clients, which takes six descriptors
        number = min(clients, (most - min(800, most // 4) - 60) // 2)
        half = number // 2
        slots = {"alpha": half // 2, "beta": half // 4, "gamma": half - half // 2 - half // 4}
        hosts = "".join(f"  - {{name: {name}, slots: {count}}}\n" for name, count in slots.items())
        text = f"hosts:\n{hosts}{relayed.lines}{LISTEN % relayed.LISTEN}"
        with run(directory, text) if run else kept(directory, text, supervised=supervised) as daemon:
            relayed.serve(daemon.ports("proxy"))
            with Crowd(room, ("127.0.0.1", daemon.ports("balance")[0]), slots) as crowd:
                reports = Reports(room, daemon.admin)
                scene = Scene(room, daemon, crowd, relayed, reports, number, random.Random(seed))
                scene.fill()
                yield scene
