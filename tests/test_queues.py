"""Which waiter: turns, places, departures, pools and excludes in both disciplines; and those who need one host."""

from __future__ import annotations

import itertools

import pytest

from distbal.hosts import Host, HostSpec
from distbal.queues import DISCIPLINES, FairQueue, FifoQueue, OneHostQueue, WaitQueue
from distbal.requests import Request, Ticket


def host(*pools: str, name: str = "snookles") -> Host:
    return Host(HostSpec(name, 1000, 0, pools=pools or ("default",)), 0)


class Office:
    """A queue, and tickets called ``a1`` (client a's first), ``b1`` ... by who they are."""

    def __init__(self, queue: WaitQueue) -> None:
        self.queue = queue
        self.tickets: dict[str, Ticket] = {}
        self.ids = itertools.count(1)

    def come(self, *names: str, pool: str = "default", exclude: tuple[str, ...] = (), only: str = "") -> None:
        for name in names:
            request = Request(name[0], 0, name[0], pool, exclude, only=only)
            self.tickets[name] = Ticket(next(self.ids), request, name, 0.0)
            self.queue.add(self.tickets[name])

    def go(self, *names: str) -> None:
        for name in names:
            self.queue.remove(self.tickets[name])

    def serve(self, times: int = 100, by: Host | None = None) -> str:
        served = []
        for _ in range(times):
            ticket = self.queue.take(by or host())
            if ticket is None:
                break
            served.append(str(ticket.holder))
        return " ".join(served)


@pytest.fixture
def fair() -> Office:
    return Office(DISCIPLINES["fair"]())


@pytest.fixture
def fifo() -> Office:
    return Office(DISCIPLINES["fifo"]())


@pytest.fixture(params=sorted(DISCIPLINES))
def office(request: pytest.FixtureRequest) -> Office:
    return Office(DISCIPLINES[request.param]())


# -- both


def test_nobody_waits(office: Office) -> None:
    assert office.serve() == ""


def test_one_client_is_served_in_order(office: Office) -> None:
    office.come("a1", "a2", "a3")
    assert office.serve() == "a1 a2 a3"
    assert office.serve() == ""


def test_who_leaves_is_forgotten(office: Office) -> None:
    office.come("a1", "b1", "a2", "c1")
    office.go("b1", "a1", "c1")
    assert office.serve() == "a2"
    with pytest.raises(KeyError):
        office.go("a2")
    office.come("b2")
    with pytest.raises(KeyError):
        office.go("b1")
    assert office.serve() == "b2"


def test_a_host_serves_its_own_pools_only(office: Office) -> None:
    office.come("a1", pool="arm")
    office.come("b1")
    office.come("c1", pool="mips")
    assert office.serve(by=host("sparc")) == ""
    assert office.serve(by=host("arm")) == "a1"
    assert office.serve(by=host("default", "arm")) == "b1"
    assert office.serve(by=host("arm", "mips")) == "c1"


def test_who_does_not_want_the_host_is_passed_over_and_keeps_the_place(office: Office) -> None:
    office.come("a1", exclude=("snookles",))
    office.come("a2", "b1")
    office.come("c1", exclude=("newbb", "snookles"))
    assert office.serve() == "a2 b1"
    office.come("b2")
    newbb = host(name="newbb")
    assert office.serve(by=newbb) == "a1 b2"
    assert office.serve(by=host(name="third")) == "c1"


def test_when_nobody_wants_the_host_nobody_is_lost(office: Office) -> None:
    office.come("a1", "b1", exclude=("snookles",))
    assert office.serve() == ""
    assert office.serve(by=host(name="newbb")) == "a1 b1"


# -- fifo


def test_fifo_goes_by_arrival_whoever_it_is(fifo: Office) -> None:
    fifo.come("a1", "a2", "b1", "a3", "c1")
    assert fifo.serve() == "a1 a2 b1 a3 c1"


def test_fifo_goes_by_arrival_over_all_pools_of_a_host(fifo: Office) -> None:
    fifo.come("a1", pool="arm")
    fifo.come("b1")
    fifo.come("c1", pool="arm")
    fifo.come("d1", pool="mips")
    fifo.come("e1")
    assert fifo.serve(by=host("default", "arm")) == "a1 b1 c1 e1"
    assert fifo.serve(by=host("arm", "mips")) == "d1"


# -- fair


def test_fair_takes_turns(fair: Office) -> None:
    fair.come("a1", "a2", "a3", "b1", "c1", "b2")
    assert fair.serve() == "a1 b1 c1 a2 b2 a3"


def test_fair_a_newcomer_gets_the_last_turn(fair: Office) -> None:
    fair.come("a1", "a2", "a3", "b1", "b2", "b3")
    assert fair.serve(1) == "a1"
    fair.come("c1", "c2")
    assert fair.serve() == "b1 a2 c1 b2 a3 c2 b3"


def test_fair_a_client_that_was_served_out_comes_back_as_a_newcomer(fair: Office) -> None:
    fair.come("a1", "b1", "b2", "c1")
    assert fair.serve(1) == "a1"
    fair.come("a2")
    assert fair.serve() == "b1 c1 a2 b2"


def test_fair_leaving_and_coming_back_wins_nothing(fair: Office) -> None:
    fair.come("a1", "b1", "c1")
    fair.go("a1")
    fair.come("a2")
    assert fair.serve() == "b1 c1 a2"


def test_fair_a_client_keeps_its_turn_when_one_of_its_waiters_leaves(fair: Office) -> None:
    fair.come("a1", "a2", "b1", "b2")
    fair.go("a1")
    assert fair.serve() == "a2 b1 b2"


def test_fair_one_turn_in_two_pools(fair: Office) -> None:
    """Waiting in two pools does not give two shares of a host that serves both."""
    fair.come("a1", "a2")
    fair.come("a3", "a4", pool="arm")
    fair.come("b1", "b2")
    assert fair.serve(by=host("default", "arm")) == "a1 b1 a2 b2 a3 a4"


def test_fair_a_turn_taken_in_one_pool_counts_in_the_other(fair: Office) -> None:
    fair.come("a1")
    fair.come("a2", pool="arm")
    fair.come("b1", pool="arm")
    assert fair.serve(1) == "a1"
    assert fair.serve(by=host("arm")) == "b1 a2"


def test_fair_a_client_that_waits_already_joins_another_pool_with_its_turn(fair: Office) -> None:
    fair.come("a1")
    fair.come("b1", pool="arm")
    fair.come("a2", pool="arm")
    assert fair.serve(by=host("arm")) == "a2 b1"


def test_fair_leaving_one_pool_leaves_the_other_alone(fair: Office) -> None:
    fair.come("a1")
    fair.come("a2", "b1", pool="arm")
    fair.go("a2")
    assert fair.serve(by=host("arm")) == "b1"
    assert fair.serve() == "a1"


def test_fair_the_longer_wait_decides_within_a_client(fair: Office) -> None:
    fair.come("a1", pool="arm")
    fair.come("a2")
    fair.come("a3", pool="arm")
    assert fair.serve(by=host("default", "arm")) == "a1 a2 a3"


def test_fair_being_passed_over_costs_no_turn(fair: Office) -> None:
    fair.come("a1", exclude=("snookles",))
    fair.come("b1", "b2", "b3")
    assert fair.serve(2) == "b1 b2"
    assert fair.serve(by=host(name="newbb")) == "a1 b3"


def test_fair_forgets_clients_that_are_gone(fair: Office) -> None:
    """A farm sees many addresses in a year."""
    for _ in range(50):
        fair.come("a1", "a2", "b1")
        fair.come("c1", pool="arm")
        fair.go("a2", "c1")
        fair.serve()
    queue = fair.queue
    assert isinstance(queue, FairQueue)
    assert not queue._clients
    assert not queue._turns


# -- those who need one host


@pytest.fixture
def picky() -> Office:
    return Office(OneHostQueue())


def test_one_host_whoever_needs_it_longest_is_first(picky: Office) -> None:
    picky.come("a1", "b1", "a2", only="snookles")
    assert picky.serve() == "a1 b1 a2"
    assert picky.serve() == ""


def test_one_host_serves_nobody_who_needs_another(picky: Office) -> None:
    picky.come("a1", "a2", only="newbb")
    picky.come("b1", only="snookles")
    assert picky.serve() == "b1"
    assert picky.serve(by=host("arm", name="newbb")) == "a1 a2"
    assert picky.serve(by=host(name="third")) == ""


def test_one_host_its_pools_and_the_hosts_left_out_do_not_matter(picky: Office) -> None:
    picky.come("a1", pool="arm", exclude=("snookles",), only="snookles")
    assert picky.serve() == "a1"


def test_one_host_who_leaves_is_forgotten(picky: Office) -> None:
    picky.come("a1", "b1", "a2", only="snookles")
    picky.come("c1", only="newbb")
    picky.go("a1", "c1")
    for name in ("a1", "c1"):
        with pytest.raises(KeyError):
            picky.go(name)
    assert picky.serve() == "b1 a2"
    with pytest.raises(KeyError):
        picky.go("b1")


@pytest.mark.parametrize("queue", [OneHostQueue(), FifoQueue()], ids=["one-host", "fifo"])
def test_a_queue_is_true_as_long_as_anybody_waits(queue: OneHostQueue | FifoQueue) -> None:
    office = Office(queue)
    assert not queue
    office.come("a1", "a2", "b1", only="snookles")
    assert queue
    office.go("a2")
    assert office.serve(1) == "a1"
    assert queue
    assert office.serve() == "b1"
    assert not queue, "no host that was once asked for is kept"
