"""The lease source of this process: who is told what and when, its timer, and takers that misbehave."""

from __future__ import annotations

from dataclasses import replace

import pytest
from twisted.internet.task import Clock
from twisted.logger import formatEvent

from distbal.hosts import AdminState, Farm
from distbal.leases import LocalLeases
from distbal.outcomes import Outcome
from distbal.requests import Lease, Request, Ticket
from tests.farms import scheduler, spec
from tests.support import LoggedErrors
from tests.takers import Client, ask, due, source

#: more than Python lets calls be deep
MANY = 5000


@pytest.fixture
def clock() -> Clock:
    return Clock()


# -- who is told


def test_a_free_slot_is_granted_before_ask_returns(clock: Clock) -> None:
    leases, client = source(clock, "fast"), Client()
    ticket = ask(leases, client)
    assert client.lease is not None
    assert client.lease is ticket.lease
    assert client.host == "fast"


def test_a_waiter_is_told_when_a_slot_comes_back(clock: Clock) -> None:
    leases, first, second = source(clock, "fast"), Client(), Client()
    ask(leases, first)
    ticket = ask(leases, second)
    assert (second.host, ticket.lease) == ("", None)
    assert first.lease is not None
    clock.advance(5)
    leases.release(first.lease, Outcome.CLOSED)
    assert second.lease is not None
    assert second.lease is ticket.lease
    assert (second.host, second.lease.granted) == ("fast", 5)


def test_who_withdrew_is_not_told(clock: Clock) -> None:
    leases, first, second, third = source(clock, "fast"), Client(), Client(), Client()
    ask(leases, first)
    ticket = ask(leases, second)
    ask(leases, third)
    leases.withdraw(ticket)
    assert first.lease is not None
    leases.release(first.lease, Outcome.CLOSED)
    assert (second.host, third.host) == ("", "fast")


def test_waiters_are_told_when_a_host_comes_up(clock: Clock) -> None:
    leases, client = source(clock, "fast"), Client()
    leases.report("fast", "tcp", up=False)
    ask(leases, client)
    assert client.host == ""
    leases.report("fast", "tcp", up=True)
    assert client.host == "fast"


def test_waiters_are_told_when_a_person_lets_a_host_work_again(clock: Clock) -> None:
    leases, client = source(clock, "fast"), Client()
    leases.set_admin("fast", AdminState.DRAIN)
    ask(leases, client)
    assert client.host == ""
    leases.set_admin("fast", AdminState.READY)
    assert client.host == "fast"


def test_waiters_are_told_of_a_host_that_the_file_adds(clock: Clock) -> None:
    leases, first, second = source(clock, "fast"), Client(), Client()
    ask(leases, first)
    ask(leases, second)
    leases.configure(Farm((spec("fast"), spec("new"))))
    assert (first.host, second.host) == ("fast", "new")


def test_who_is_kicked_is_told_and_the_slot_goes_to_the_next(clock: Clock) -> None:
    leases, first, second, third = source(clock, "fast"), Client(), Client(), Client()
    tickets = [ask(leases, client) for client in (first, second, third)]
    assert leases.kick([tickets[1], tickets[0]], "kicked by an admin") == 2
    assert (first.losses, second.refusals, second.host) == (["kicked by an admin"], ["kicked by an admin"], "")
    assert third.host == "fast"
    assert (leases.scheduler.lent, leases.scheduler.waiting) == (1, 0)
    assert [job.attempts[0].outcome for job in leases.scheduler.history.jobs()] == [Outcome.KICKED]
    assert leases.scheduler.counts["withdrawn"] == 1
    assert leases.kick(tickets[:2], "again") == 0


def test_all_of_a_client_are_kicked_also_those_whose_turn_came_by_it(clock: Clock) -> None:
    leases, clients = source(clock, "fast"), [Client() for _ in range(3)]
    tickets = [ask(leases, client) for client in clients]
    assert leases.kick(tickets, "out") == 3
    assert [client.losses + client.refusals for client in clients] == [["out"]] * 3
    assert [client.host for client in clients] == ["fast", "", ""]
    assert (leases.scheduler.lent, leases.scheduler.waiting) == (0, 0)


def test_who_takes_another_along_when_it_is_kicked_or_cannot_be_told_harms_nobody(
    clock: Clock, logged_errors: LoggedErrors
) -> None:
    leases, second = source(clock, "fast", "slow", "old"), Client()

    def leave() -> None:
        assert second.lease is not None
        leases.release(second.lease, Outcome.CLOSED)

    def fail() -> None:
        raise RuntimeError("a bug")

    tickets = [ask(leases, client) for client in (Client(when_lost=leave), second, Client(when_lost=fail))]
    assert leases.kick(tickets, "out") == 2
    assert (second.losses, leases.scheduler.lent) == ([], 0)
    (event,) = logged_errors.flush()
    assert "could not be told" in (formatEvent(event) or "")


def test_only_news_is_worth_a_line(clock: Clock) -> None:
    leases = source(clock, "fast")
    assert not leases.report("fast", "update", up=True), "it was up before anybody spoke"
    assert leases.report("fast", "update", up=False)
    assert not leases.report("fast", "update", up=False)
    assert leases.report("fast", "tcp", up=False), "another source"
    assert leases.report("fast", "update", up=True)
    with pytest.raises(KeyError):
        leases.report("nobody", "update", up=True)
    with pytest.raises(KeyError):
        leases.set_admin("nobody", AdminState.DOWN)


def test_the_snapshot_is_of_now(clock: Clock) -> None:
    leases = source(clock, "fast")
    clock.advance(7)
    ask(leases, Client())
    snapshot = leases.snapshot()
    assert snapshot.at == 7
    assert [(client.host, client.since) for client in snapshot.leases] == [("fast", 7)]


# -- what monitors tell and ask


def test_who_needs_one_host_is_told_before_the_others(clock: Clock) -> None:
    leases, first, second, monitor = source(clock, "fast"), Client(), Client(), Client()
    ask(leases, first)
    ask(leases, second)
    leases.ask(Request("127.0.0.1", 0, "127.0.0.1", only="fast"), monitor)
    assert first.lease is not None
    leases.release(first.lease, Outcome.CLOSED)
    assert (monitor.host, second.host) == ("fast", "")
    with pytest.raises(KeyError):
        leases.ask(Request("127.0.0.1", 0, "127.0.0.1", only="nobody"), monitor)


def test_waiters_are_told_when_a_source_is_forgotten(clock: Clock) -> None:
    leases, client = source(clock, "fast"), Client()
    leases.report("fast", "tcp", up=False, ttl=30)
    ask(leases, client)
    leases.forget("fast", "ssh")
    assert client.host == ""
    leases.forget("fast", "tcp")
    assert client.host == "fast"
    clock.advance(30.1)
    assert due(clock) == []


def test_a_source_may_be_forgotten_that_spoke_of_a_host_that_is_gone(clock: Clock) -> None:
    leases = source(clock, "fast", "slow")
    running = Client()
    ask(leases, running)
    leases.report("fast", "tcp", up=False)
    leases.configure(Farm((spec("slow"),)))
    for name in ("fast", "nobody"):
        leases.forget(name, "tcp")


def test_a_forgotten_verdict_that_was_to_expire_moves_the_timer(clock: Clock) -> None:
    leases = source(clock, "fast")
    leases.report("fast", "tcp", up=False, ttl=30)
    leases.report("fast", "ssh", up=False, ttl=50)
    leases.forget("fast", "tcp")
    clock.advance(30.1)
    assert due(clock) == [pytest.approx(19.9, abs=0.01)], "a timer that is early harms nobody"
    leases.forget("fast", "ssh")
    clock.advance(20)
    assert due(clock) == []


def test_what_holds_was_heard(clock: Clock) -> None:
    leases = source(clock, "fast")
    assert not leases.heard("fast", "tcp")
    assert not leases.heard("nobody", "tcp")
    leases.report("fast", "tcp", up=True, ttl=30)
    assert leases.heard("fast", "tcp")
    assert not leases.heard("fast", "ssh")
    clock.advance(30.1)
    assert not leases.heard("fast", "tcp"), "it has expired"
    leases.report("fast", "tcp", up=False)
    leases.forget("fast", "tcp")
    assert not leases.heard("fast", "tcp")


def test_waiters_are_told_when_a_host_says_that_it_has_more_slots(clock: Clock) -> None:
    leases = LocalLeases(scheduler(replace(spec("fast"), auto=True), spec("slow", 1, 1)), clock)
    clients = [Client() for _ in range(4)]
    for client in clients:
        ask(leases, client)
    assert leases.propose_slots("fast", 3)
    assert [client.host for client in clients] == ["fast", "slow", "fast", "fast"]
    assert not leases.propose_slots("fast", 3), "no news"
    assert not leases.propose_slots("slow", 3), "the file has a number"
    assert not leases.propose_slots("nobody", 3)


# -- the timer


def test_without_a_time_to_wait_there_is_no_timer(clock: Clock) -> None:
    leases = source(clock, "fast")
    for _ in range(3):
        ask(leases, Client())
    assert due(clock) == []


def test_who_waited_too_long_is_refused(clock: Clock) -> None:
    leases, first, second = source(clock, "fast", wait=10), Client(), Client()
    ask(leases, Client())
    ask(leases, first)
    clock.advance(4)
    ask(leases, second)
    assert due(clock) == [pytest.approx(6, abs=0.01)], "one timer, for the first of them"
    clock.advance(6.01)
    assert (first.refusals, second.refusals) == (["no host was free for as long as queue.wait allows"], [])
    assert leases.scheduler.waiting == 1
    assert due(clock) == [pytest.approx(4, abs=0.02)]
    clock.advance(4)
    assert second.refusals == first.refusals
    assert (leases.scheduler.waiting, due(clock)) == (0, [])


def test_who_was_granted_is_not_refused(clock: Clock) -> None:
    leases, first, second = source(clock, "fast", wait=10), Client(), Client()
    ask(leases, first)
    ask(leases, second)
    assert first.lease is not None
    leases.release(first.lease, Outcome.CLOSED)
    clock.advance(11)
    assert (second.host, second.refusals, due(clock)) == ("fast", [], [])


def test_a_verdict_that_expires_gives_the_host_to_a_waiter(clock: Clock) -> None:
    leases, client = source(clock, "fast"), Client()
    leases.report("fast", "tcp", up=False, ttl=30)
    ask(leases, client)
    clock.advance(29.9)
    assert client.host == ""
    clock.advance(0.2)
    assert (client.host, due(clock)) == ("fast", [])


def test_the_timer_goes_by_what_comes_first(clock: Clock) -> None:
    leases = source(clock, "fast", wait=10)
    leases.report("fast", "tcp", up=False, ttl=30)
    assert due(clock) == [pytest.approx(30, abs=0.01)]
    ask(leases, Client())
    assert due(clock) == [pytest.approx(10, abs=0.01)]
    leases.report("fast", "ssh", up=False, ttl=3)
    assert due(clock) == [pytest.approx(3, abs=0.01)]
    clock.advance(3.01)
    assert due(clock) == [pytest.approx(7, abs=0.02)], "the next is the waiter"


def test_another_time_to_wait_moves_the_timer(clock: Clock) -> None:
    leases, client = source(clock, "fast", wait=100), Client()
    hosts = leases.scheduler.farm.hosts
    ask(leases, Client())
    ask(leases, client)
    leases.configure(Farm(hosts, wait=5))
    assert due(clock) == [pytest.approx(5, abs=0.01)]
    leases.configure(Farm(hosts))
    assert due(clock) == [], "for ever now"
    clock.advance(6)
    leases.configure(Farm(hosts, wait=5))
    assert due(clock) == [pytest.approx(0, abs=0.01)], "overdue: at once, and not in the past"
    clock.advance(0.01)
    assert len(client.refusals) == 1


def test_stop_stops_the_timer(clock: Clock) -> None:
    leases, client = source(clock, "fast", wait=10), Client()
    ask(leases, Client())
    ask(leases, client)
    leases.stop()
    leases.stop()
    assert due(clock) == []
    clock.advance(20)
    assert client.refusals == []


def test_nothing_is_delivered_after_the_stop(clock: Clock) -> None:
    # their connections are closed, and the numbers of their descriptors may be another's
    leases, first, second = source(clock, "fast", wait=10), Client(), Client()
    served = ask(leases, first).lease
    waits = ask(leases, second)
    assert served is not None
    leases.stop()
    leases.release(served, Outcome.CLOSED)
    leases.report("fast", "update", up=True, ttl=5)
    assert second.lease is None
    assert waits.lease is not None, "what the scheduler decides is its own"
    assert due(clock) == []


# -- takers that are gone, or broken


def test_thousands_of_dead_waiters_are_not_thousands_of_calls_deep(clock: Clock) -> None:
    leases, alive = source(clock, "fast"), Client()
    holder, dead = Client(), [Client(lambda lease: leases.release(lease, Outcome.UNDELIVERED)) for _ in range(MANY)]
    ask(leases, holder)
    for client in dead:
        ask(leases, client)
    ask(leases, alive)
    assert holder.lease is not None
    leases.release(holder.lease, Outcome.CLOSED)
    assert all(client.lease is not None for client in dead)
    assert alive.host == "fast"
    assert (leases.scheduler.lent, leases.scheduler.waiting) == (1, 0)


def test_who_is_gone_when_it_is_told_at_once_blocks_nobody(clock: Clock) -> None:
    leases, alive = source(clock, "fast"), Client()
    ask(leases, Client(lambda lease: leases.release(lease, Outcome.UNDELIVERED)))
    ask(leases, alive)
    assert alive.host == "fast"


def test_a_taker_may_ask_again_while_it_is_told(clock: Clock) -> None:
    leases, again = source(clock, "fast", "slow"), Client()
    ask(leases, Client(lambda lease: ask(leases, again)))
    assert again.host == "slow"


def test_who_gives_its_lease_back_before_it_was_told_is_not_told(clock: Clock) -> None:
    """As when one that is told of its lease takes another connection with it."""
    leases, other, third = source(clock, "fast", "slow"), Client(), Client()
    tickets: list[Ticket] = []

    def take_the_other_along(_: Lease) -> None:
        lease = tickets[0].lease
        assert lease is not None
        leases.release(lease, Outcome.CLOSED)

    for name in ("fast", "slow"):
        leases.report(name, "tcp", up=False, ttl=10)
    first = Client(take_the_other_along)
    ask(leases, first)
    tickets.append(ask(leases, other))
    clock.advance(11)
    assert (first.host, other.lease) == ("fast", None)
    ask(leases, third)
    assert third.host == "slow"


def broken(_: object) -> None:
    raise RuntimeError("a bug in a taker")


def test_a_taker_that_raises_keeps_nobody_waiting(clock: Clock, logged_errors: LoggedErrors) -> None:
    leases, clients = source(clock, "one", "two", "three"), [Client(), Client(broken), Client()]
    for name in ("one", "two", "three"):
        leases.report(name, "tcp", up=False, ttl=10)
    for client in clients:
        ask(leases, client)
    clock.advance(11)
    assert [client.host for client in clients] == ["one", "two", "three"]
    (event,) = logged_errors.flush()
    assert event["log_failure"].type is RuntimeError
    assert "could not be told" in event["log_format"]
    # it can still be told of others' leases
    later = Client()
    ask(leases, later)
    assert clients[1].lease is not None
    leases.release(clients[1].lease, Outcome.CLOSED)
    assert later.host == "two"


def test_a_refusal_that_raises_stops_neither_the_timer_nor_the_others(clock: Clock, logged_errors: LoggedErrors) -> None:
    leases, second, third = source(clock, "fast", wait=10), Client(), Client()
    first = Client()
    ask(leases, Client())
    first.refused = lambda ticket, reason: broken(ticket)  # type: ignore[method-assign]
    ask(leases, first)
    ask(leases, second)
    clock.advance(5)
    ask(leases, third)
    clock.advance(5.01)
    (event,) = logged_errors.flush()
    assert event["log_failure"].type is RuntimeError
    assert (len(second.refusals), len(third.refusals)) == (1, 0)
    clock.advance(5)
    assert len(third.refusals) == 1
