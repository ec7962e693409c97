"""The hot loop, turned by hand: who left and how, bugs that meet one connection alone, and an end that leaves nothing."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import capturedLogs

from distbal import listening
from distbal.loop import BATCH, RETRY_ACCEPT, Connection
from distbal.outcomes import Outcome
from tests.loops import Client, Hand, hands, open_descriptors
from tests.peers import PATIENCE, Peer
from tests.support import LoggedErrors


@pytest.fixture
def make() -> Iterator[Callable[..., Hand]]:
    yield from hands()


@pytest.fixture
def hand(make: Callable[..., Hand]) -> Hand:
    return make()


# -- who leaves, and how


@pytest.mark.parametrize(
    ("leave", "outcome"),
    [(Peer.close, Outcome.CLOSED), (Peer.half_close, Outcome.CLOSED), (Peer.reset, Outcome.RESET)],
    ids=["close", "half-close", "reset"],
)
@pytest.mark.parametrize("junk", [b"", b"junk\n", b"\0\xff" * 50_000], ids=["silent", "word", "100 kB"])
def test_who_leaves_is_noticed(hand: Hand, leave: Callable[[Peer], None], outcome: Outcome, junk: bytes) -> None:
    peer, client = hand.connect()
    with peer:
        if junk:
            peer.send(junk)
            hand.serve()
            assert client.outcomes == []
            assert hand.quiet(), "it was read and dropped"
        leave(peer)
        hand.serve()
        assert client.outcomes == [outcome]
        assert hand.loop.free() == 1000


def test_who_leaves_with_junk_unread_is_noticed(hand: Hand) -> None:
    peer, client = hand.connect()
    peer.send(b"junk" * 10_000)
    peer.close()
    hand.serve()
    assert client.outcomes == [Outcome.CLOSED]


def test_a_unix_peer_s_leaving_is_noticed(hand: Hand, tmp_path: Path) -> None:
    hand.listener = hand.listen(listening.listen_unix(str(tmp_path / "socket")))
    peer, client = hand.connect()
    peer.close()
    hand.serve()
    assert client.outcomes == [Outcome.CLOSED]


def test_who_stops_answering_has_vanished(hand: Hand) -> None:
    """The system gives up on a peer: here one that never takes a connection, since its queue is full."""
    with socket.socket() as deaf, socket.socket() as first, socket.socket() as second:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        first.connect(deaf.getsockname())
        second.setblocking(False)
        second.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1)
        assert second.connect_ex(deaf.getsockname()) == errno.EINPROGRESS
        client = Client(hand.loop, second.detach())
        hand.loop.watch(client)
        hand.serve()
        assert client.outcomes == [Outcome.VANISHED]


def test_any_reactor_can_poll_it(hand: Hand) -> None:
    assert hand.readers == [hand.loop]
    peer, _ = hand.connect()
    assert hand.quiet()
    peer.close()
    hand.happened(1)
    assert select.select([hand.loop], [], [], 0)[0] == [hand.loop]
    poll = select.poll()
    poll.register(hand.loop, select.POLLIN)
    assert poll.poll(0) == [(hand.loop.fileno(), select.POLLIN)]
    hand.loop.doRead()
    assert poll.poll(0) == []
    assert hand.loop.logPrefix()


def test_a_crowd_that_leaves_is_served_in_batches(make: Callable[..., Hand]) -> None:
    hand = make()
    number = BATCH + 50
    peers = [Peer(hand.where) for _ in range(number)]
    while len(hand.clients) < number:
        hand.serve()
    for peer in peers:
        peer.close()
    hand.happened(number)
    hand.loop.doRead()
    assert sum(len(client.outcomes) for client in hand.clients) == BATCH
    hand.loop.doRead()
    assert [client.outcomes for client in hand.clients] == [[Outcome.CLOSED]] * number
    assert hand.quiet()


# -- events that came too late


def test_who_is_ended_by_another_s_event_does_not_take_the_newcomer_along(hand: Hand) -> None:
    """In one batch: one leaves and takes another along, somebody comes, and the other one's own leaving is still to be served.

    The newcomer gets the other one's number, so that late event must not be taken for the newcomer's.
    """
    other_peer, other = hand.connect()
    first_peer, first = hand.connect()
    first.when_left = lambda: hand.loop.end(other)

    def accepted(descriptor: int, address: Any) -> None:
        os.set_blocking(descriptor, False)  # to read from it for no reason is an error then, and does not wait
        hand.accepted(descriptor, address)

    hand.listener.accepted = accepted
    first_peer.close()
    hand.happened(1)
    with other_peer, Peer(hand.where) as newcomer:
        hand.happened(2)
        other_peer.half_close()
        hand.serve(3)
        client = hand.clients[2]
        assert client.descriptor == other.descriptor, "the case that this test is about"
        assert (first.outcomes, other.outcomes, client.outcomes) == ([Outcome.CLOSED], [], [])
        # ending those who are gone again does not touch who has their number now
        hand.loop.end(first)
        hand.loop.end(other)
        assert newcomer.silence()
        newcomer.close()
        hand.serve()
        assert client.outcomes == [Outcome.CLOSED]


def test_a_connection_that_lives_on_elsewhere_is_watched_no_more(hand: Hand) -> None:
    peer, client = hand.connect()
    elsewhere = os.dup(client.descriptor)
    try:
        hand.loop.end(client)
        peer.close()
        assert select.select([elsewhere], [], [], PATIENCE)[0] == [elsewhere]
        assert hand.quiet()
    finally:
        os.close(elsewhere)


# -- bugs


@pytest.mark.parametrize("watched", [False, True])
def test_a_bug_meets_one_newcomer_alone(hand: Hand, logged_errors: LoggedErrors, watched: bool) -> None:
    def accepted(descriptor: int, address: Any) -> None:
        if not watched:
            raise RuntimeError("a bug before it is watched")
        hand.accepted(descriptor, address)
        if len(hand.clients) == 2:
            raise RuntimeError("a bug after it is watched")

    with ExitStack() as peers:
        first = peers.enter_context(Peer(hand.where))
        hand.serve()
        hand.listener.accepted = accepted
        second = peers.enter_context(Peer(hand.where))
        hand.serve()
        assert select.select([second.sock], [], [], PATIENCE)[0] == [second.sock]
        assert second.sock.recv(1) == b"", "nobody is left hanging"
        hand.listener.accepted = hand.accepted
        third = peers.enter_context(Peer(hand.where))
        hand.serve()
        assert first.silence()
        assert third.silence()
        assert hand.loop.free() == 998
        if watched:
            assert len(hand.clients[1].outcomes) == 1, "it hears of its end, so that it gives back what it had"
    (event,) = logged_errors.flush()
    assert event["log_failure"].type is RuntimeError


def test_a_newcomer_that_fails_twice_is_closed_all_the_same(hand: Hand, logged_errors: LoggedErrors) -> None:
    def accepted(descriptor: int, address: Any) -> None:
        hand.accepted(descriptor, address)
        hand.clients[-1].when_left = lambda: 1 // 0
        raise RuntimeError

    def closed_already(descriptor: int, address: Any) -> None:
        os.close(descriptor)
        raise RuntimeError

    before = open_descriptors()
    for bug in (accepted, closed_already):
        hand.listener.accepted = bug
        with Peer(hand.where):
            hand.serve()
            assert open_descriptors() == before + 1, "the peer's own"
    assert hand.loop.free() == 1000
    assert [event["log_failure"].type for event in logged_errors.flush()] == [RuntimeError, ZeroDivisionError, RuntimeError]


def test_a_bug_in_an_end_meets_that_connection_alone(hand: Hand, logged_errors: LoggedErrors) -> None:
    connections = [hand.connect() for _ in range(3)]
    connections[1][1].when_left = lambda: 1 // 0
    for peer, _ in connections:
        peer.close()
    hand.serve(3)
    assert [client.outcomes for client in hand.clients] == [[Outcome.CLOSED]] * 3
    assert hand.loop.free() == 1000
    assert hand.quiet()
    (event,) = logged_errors.flush()
    assert event["log_failure"].type is ZeroDivisionError


def test_a_connection_must_say_what_its_end_means(hand: Hand) -> None:
    with pytest.raises(NotImplementedError):
        Connection().left(Outcome.CLOSED)


# -- the end


@pytest.mark.parametrize("paused", [False, True])
def test_who_came_by_a_listener_outlives_it(make: Callable[..., Hand], paused: bool) -> None:
    hand = make(room=1 if paused else 10)
    peer, client = hand.connect()
    where = hand.where
    with capturedLogs():
        if paused:
            waits = Peer(where)
            hand.serve()
        hand.loop.stop_listening(hand.listener)
    with pytest.raises(ConnectionRefusedError):
        Peer(where)
    assert peer.silence()
    assert client.outcomes == []
    peer.close()
    hand.serve()
    assert client.outcomes == [Outcome.CLOSED]
    if paused:
        hand.reactor.advance(RETRY_ACCEPT)
        waits.close()
    assert hand.quiet()


def test_a_listener_that_another_event_closes_is_accepted_from_no_more(hand: Hand) -> None:
    other = hand.loop.listen(listening.listen_tcp("127.0.0.1", 0), hand.accepted)

    def accepted(descriptor: int, address: Any) -> None:
        hand.accepted(descriptor, address)
        hand.loop.stop_listening(other)

    hand.listener.accepted = accepted
    with Peer(hand.where) as peer, Peer(other.sock.getsockname()) as late:
        hand.serve(2)
        assert len(hand.clients) == 1
        assert peer.silence()
        with pytest.raises(ConnectionResetError):
            late.sock.recv(1)


@pytest.mark.parametrize("paused", [False, True])
def test_stop_leaves_nothing(paused: bool) -> None:
    before = open_descriptors()
    hand = Hand(room=3)
    with capturedLogs(), ExitStack() as peers:
        connections = [hand.connect() for _ in range(3)]
        for peer, _ in connections:
            peers.enter_context(peer)
        if paused:
            peers.enter_context(Peer(hand.where))
            hand.serve()
            assert len(hand.reactor.getDelayedCalls()) == 1
        hand.loop.stop()
        assert all(peer.sock.recv(1) == b"" for peer, _ in connections)
        assert all(client.outcomes == [] for client in hand.clients)
    assert open_descriptors() == before
    assert hand.reactor.getDelayedCalls() == []
    assert hand.readers == []
