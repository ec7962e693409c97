"""The hot loop's watched sockets, whose owner wants more of them than to hear of their end; and the room that they take."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from twisted.logger import capturedLogs, formatEvent

from distbal import listening
from distbal.loop import BATCH, WATCHED
from tests.loops import Hand, hands, open_descriptors
from tests.peers import Peer
from tests.support import LoggedErrors

IN, OUT, LEFT = select.EPOLLIN, select.EPOLLOUT, select.EPOLLRDHUP


@pytest.fixture
def make() -> Iterator[Callable[..., Hand]]:
    before = open_descriptors()
    yield from hands()
    assert open_descriptors() == before


@pytest.fixture
def hand(make: Callable[..., Hand]) -> Hand:
    return make()


class Owner:
    """The owner of one socket, or of several; it notes what it hears.

    :ivar then: what it does when it hears something.
    """

    def __init__(self, hand: Hand) -> None:
        self.loop = hand.loop
        self.sockets: dict[int, int] = {}
        self.heard: list[tuple[int, int]] = []
        self.then: Callable[[int, int], object] | None = None
        self.when_failing: Callable[[], object] | None = None
        self.failures = self.stops = 0

    def owns(self, events: int) -> tuple[socket.socket, int]:
        """A socket to somebody, watched: (the other end, its descriptor)."""
        here, there = socket.socketpair()
        here.setblocking(False)
        descriptor = here.detach()
        self.loop.add(descriptor, events, self)
        self.sockets[descriptor] = events
        return there, descriptor

    def close(self, descriptor: int, *, reset: bool = False) -> None:
        self.loop.close(descriptor, self.sockets.pop(descriptor), reset=reset)

    def ready(self, descriptor: int, events: int) -> None:
        self.heard.append((descriptor, events))
        if self.then is not None:
            self.then(descriptor, events)

    def fail(self) -> None:
        self.failures += 1
        self.stop_all()
        if self.when_failing is not None:
            self.when_failing()

    def stop(self) -> None:
        self.stops += 1
        self.stop_all()

    def stop_all(self) -> None:
        for descriptor in list(self.sockets):
            self.close(descriptor)


def test_an_owner_hears_of_what_it_asked_for_until_it_is_done(hand: Hand) -> None:
    owner = Owner(hand)
    there, descriptor = owner.owns(IN | LEFT)
    with there:
        assert hand.quiet()
        there.send(b"hello")
        for _ in range(2):
            hand.happened(1)
            hand.loop._serve(hand.loop._poll(0))
        assert owner.heard == [(descriptor, IN)] * 2, "what is not served to its end comes again"
        os.read(descriptor, 100)
        assert hand.quiet()
        there.shutdown(socket.SHUT_WR)
        hand.happened(1)
        hand.loop._serve(hand.loop._poll(0))
        assert owner.heard[2:] == [(descriptor, IN | LEFT)]


def test_what_it_is_watched_for_can_change(hand: Hand) -> None:
    owner = Owner(hand)
    there, descriptor = owner.owns(IN)
    with there:
        there.send(b"hello")
        hand.loop.change(descriptor, IN, OUT)
        hand.happened(1)
        hand.loop._serve(hand.loop._poll(0))
        assert owner.heard == [(descriptor, OUT)]
        hand.loop.change(descriptor, OUT, 0)
        owner.sockets[descriptor] = 0
        assert hand.quiet()
        there.close()
        assert hand.quiet(), "not even its end is told, or it would be told for ever"
        hand.loop.change(descriptor, 0, IN)
        owner.sockets[descriptor] = IN
        hand.happened(1)
        owner.then = lambda descriptor, events: owner.close(descriptor)
        hand.loop.doRead()
        assert [events & IN for _, events in owner.heard[1:]] == [IN]


@pytest.mark.parametrize("events", [0, IN])
def test_who_is_closed_can_be_made_to_see_that_something_is_missing(hand: Hand, events: int) -> None:
    owner = Owner(hand)
    for reset in (False, True):
        with socket.create_server(("127.0.0.1", 0)) as server, Peer(server.getsockname()) as peer:
            accepted, _ = server.accept()
            descriptor = accepted.detach()
            hand.loop.add(descriptor, IN, owner)
            hand.loop.change(descriptor, IN, events)
            hand.loop.close(descriptor, events, reset=reset)
            assert select.select([peer.sock], [], [], 5)[0]
            if reset:
                with pytest.raises(ConnectionResetError):
                    peer.sock.recv(1)
            else:
                assert peer.sock.recv(1) == b""


def test_what_cannot_be_watched_is_closed(hand: Hand) -> None:
    read, write = os.pipe()
    os.close(write)
    before = open_descriptors()
    hand.loop.add(read, IN, Owner(hand))
    with pytest.raises(FileExistsError):
        hand.loop.add(read, IN, Owner(hand))
    assert open_descriptors() == before - 1
    del hand.loop._watched[read]


def test_who_is_closed_by_another_s_event_hears_no_more(hand: Hand) -> None:
    owner = Owner(hand)
    ends = [owner.owns(IN) for _ in range(2)]
    owner.then = lambda *_: owner.stop_all()
    for there, _ in ends:
        there.send(b"x")
    hand.serve(2)
    assert len(owner.heard) == 1
    for there, _ in ends:
        there.close()


def test_what_is_put_off_is_done_when_the_batch_is_over_and_else_at_once(hand: Hand) -> None:
    order: list[str] = []
    hand.loop.soon(lambda: order.append("at once"))
    assert order == ["at once"]
    owner = Owner(hand)
    ends = [owner.owns(IN) for _ in range(2)]

    def then(descriptor: int, events: int) -> None:
        os.read(descriptor, 10)
        order.append("event")
        # what is put off may put off more
        hand.loop.soon(lambda: hand.loop.soon(lambda: order.append("later")))

    owner.then = then
    for there, _ in ends:
        there.send(b"x")
    hand.serve(2)
    assert order == ["at once", "event", "event", "later", "later"]
    for there, _ in ends:
        there.close()


def test_a_bug_in_what_was_put_off_is_met_alone(hand: Hand, logged_errors: LoggedErrors) -> None:
    owner = Owner(hand)
    there, _ = owner.owns(IN)
    done: list[int] = []

    def then(descriptor: int, events: int) -> None:
        os.read(descriptor, 10)
        hand.loop.soon(lambda: done.append(1 // 0))
        hand.loop.soon(lambda: done.append(1))

    owner.then = then
    with there:
        there.send(b"x")
        hand.serve()
    assert done == [1]
    (event,) = logged_errors.flush()
    assert event["log_failure"].type is ZeroDivisionError


@pytest.mark.parametrize("twice", [False, True])
def test_a_bug_in_one_owner_ends_that_one_alone(hand: Hand, logged_errors: LoggedErrors, twice: bool) -> None:
    buggy, other = Owner(hand), Owner(hand)
    buggy.then = lambda *_: 1 // 0
    if twice:
        buggy.when_failing = lambda: int("nothing")
    (first, _), (second, descriptor) = buggy.owns(IN), other.owns(IN)
    other.then = lambda descriptor, _: os.read(descriptor, 10)
    with first, second:
        first.send(b"x")
        second.send(b"y")
        hand.serve(2)
        assert (buggy.failures, other.failures) == (1, 0)
        assert other.heard == [(descriptor, IN)]
        assert select.select([first], [], [], 5)[0]
        with pytest.raises(ConnectionResetError):
            first.recv(1)  # there was something that it had not read
    errors = [event["log_failure"].type for event in logged_errors.flush()]
    assert errors == ([ZeroDivisionError, ValueError] if twice else [ZeroDivisionError])
    buggy.then = buggy.when_failing = None


def test_a_bug_while_an_owner_is_taken_in_ends_it(hand: Hand, logged_errors: LoggedErrors) -> None:
    owner = Owner(hand)

    def accepted(descriptor: int, _: object) -> None:
        hand.loop.add(descriptor, IN, owner)
        owner.sockets[descriptor] = IN
        raise RuntimeError

    hand.listener.accepted = accepted
    with Peer(hand.where) as peer:
        hand.serve()
        assert select.select([peer.sock], [], [], 5)[0]
        assert peer.sock.recv(1) == b""
    assert owner.failures == 1
    assert len(logged_errors.flush()) == 1


def test_one_event_of_an_owner_counts_for_several_in_a_batch(hand: Hand) -> None:
    owner = Owner(hand)
    owner.then = lambda descriptor, _: os.read(descriptor, 1)
    number = BATCH // WATCHED + 10
    ends = [owner.owns(IN) for _ in range(number)]
    for there, _ in ends:
        there.send(b"xy")
    hand.happened(number)
    hand.loop.doRead()
    # what was told together is served together; but it was work, so that the rest has to wait until the reactor had its turn
    assert len(owner.heard) == number
    hand.happened(number)
    hand.loop.doRead()
    assert len(owner.heard) == 2 * number
    for there, _ in ends:
        there.close()


# -- room


def test_what_is_reserved_is_not_there_for_others(make: Callable[..., Hand]) -> None:
    hand = make(room=10)
    assert hand.loop.free() == 10
    hand.loop.reserve(4)
    assert hand.loop.free() == 6
    hand.loop.reserve(10)
    assert hand.loop.free() == 0
    hand.loop.reserve(-14)
    assert hand.loop.free() == 10


def test_each_listener_takes_in_as_many_as_there_is_room_for_at_its_cost(make: Callable[..., Hand]) -> None:
    hand = make(room=15)
    dear: list[int] = []

    def accepted(descriptor: int, _: object) -> None:
        dear.append(descriptor)
        hand.loop.reserve(6)

    listener = hand.loop.listen(listening.listen_tcp("127.0.0.1", 0), accepted, 6)
    with capturedLogs() as events, ExitStack() as stack:
        peers = [stack.enter_context(Peer(listener.sock.getsockname())) for _ in range(4)]
        for _ in range(5):
            hand.loop.doRead()
        assert (len(dear), hand.loop.free(), hand.quiet()) == (2, 3, True)
        # the others are as they were
        stack.enter_context(Peer(hand.where))
        hand.serve()
        assert len(hand.clients) == 1
        os.close(dear[0])
        hand.loop.reserve(-6)
        hand.serve()
        hand.loop.doRead()
        assert len(dear) == 3
        for descriptor in dear[1:]:
            os.close(descriptor)
        assert peers
    said = [formatEvent(event) for event in events]
    assert said[:1] == ["not accepting more clients for now: there are as many clients as its descriptors allow"]


# -- the end


def test_stop_tells_each_owner_once() -> None:
    before = open_descriptors()
    hand = Hand(room=10)
    owner, other = Owner(hand), Owner(hand)
    ends = [owner.owns(IN)[0], owner.owns(OUT)[0], other.owns(IN)[0]]
    hand.loop.stop()
    assert (owner.stops, other.stops, owner.heard) == (1, 1, [])
    for there in ends:
        assert there.recv(1) == b""
        there.close()
    assert open_descriptors() == before
