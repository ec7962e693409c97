"""Where hosts are, as sessions meet it: names that are looked up, several addresses of one host, and those without a way."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import capturedLogs

from distbal.hosts import HostSpec
from distbal.lookup import FRESH, NotFoundError, Place
from distbal.outcomes import Outcome
from distbal.proxy.session import CONNECT_TIME
from distbal.proxy.streams import ProxyFactory
from tests.peers import until
from tests.ports import texts
from tests.proxies import (
    NOWHERE,
    Accepted,
    Hole,
    House,
    Nobody,
    Server,
    both_relays,
    expect,
    heard,
    turns,
)

pytestmark = pytest.mark.usefixtures("descriptors_stay")


class Slow:
    """A resolver that answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[Deferred[list[Place]]] = []

    def __call__(self, host: str, port: int) -> Deferred[list[Place]]:
        self.asked.append(Deferred())
        return self.asked[-1]

    async def is_asked(self) -> Deferred[list[Place]]:
        await until(lambda: bool(self.asked), "the question")
        return self.asked.pop()


def named(name: str, rank: int = 0) -> HostSpec:
    """A host that has to be looked up."""
    return HostSpec(name, 1, rank, address=(f"{name}.invalid", 3632))


# -- names


@both_relays
@pytest_twisted.ensureDeferred
async def test_a_host_that_cannot_be_looked_up(relay: str) -> None:
    def resolve(host: str, port: int) -> Deferred[list[Place]]:
        return fail(NotFoundError("Name or service not known"))

    with Server() as server:
        house = House(named("lost"), server.spec("good", 1, 1), resolve=resolve)
        async with house.serves(relay):
            with house.client(b"hello") as client:
                await expect(house, server, client, b"hello")
        verdict = house.verdict("lost")
        assert verdict is not None
        assert verdict.reason == "cannot be looked up: Name or service not known"
        assert house.outcomes() == [Outcome.UNRESOLVED, Outcome.ANSWERED]


@both_relays
@pytest_twisted.ensureDeferred
async def test_a_resolver_that_takes_too_long(relay: str) -> None:
    slow = Slow()
    with Server() as server, Server() as late:
        house = House(named("slow"), server.spec("good", 1, 1), resolve=slow)
        async with house.serves(relay):
            with house.client(b"hello") as client:
                question = await slow.is_asked()
                house.clock.advance(CONNECT_TIME + 0.1)
                await expect(house, server, client, b"hello")
            with house.client(b"leaves") as leaver:
                await house.becomes(lent=1)
                (await server.accept()).close()
                await heard(leaver)
            question.callback([(socket.AF_INET, late.where)])
            await turns()
            assert late.nobody_came(), "the answer is for nobody any more"
        assert house.outcomes()[:2] == [Outcome.UNRESOLVED, Outcome.ANSWERED]


@both_relays
@pytest_twisted.ensureDeferred
async def test_an_answer_that_comes_late_is_not_taken_for_the_next_host_s(relay: str) -> None:
    slow = Slow()
    with Hole() as hole, Server() as late:
        house = House(named("slow"), hole.spec("hole", 1, 1), resolve=slow)
        async with house.serves(relay):
            with house.client(b"hello"):
                question = await slow.is_asked()
                house.clock.advance(CONNECT_TIME + 0.1)
                await until(lambda: house.host("hole").leases == 1, "the next host")
                await turns()
                question.callback([(socket.AF_INET, late.where)])
                await turns()
                assert late.nobody_came()


# -- several addresses


@both_relays
@pytest_twisted.ensureDeferred
async def test_of_several_addresses_the_next_is_tried_and_then_tried_first(relay: str) -> None:
    with Nobody() as nobody, Server() as server:
        places: list[Place] = [(socket.AF_INET, nobody.where), (socket.AF_INET, server.where)]
        house = House(named("alpha"), resolve=lambda host, port: succeed(list(places)))
        async with house.serves(relay):
            for _ in range(2):
                with house.client(b"hello") as client:
                    await expect(house, server, client, b"hello")
                await house.becomes(lent=0)
                assert house.lookup.known(("alpha.invalid", 3632)) == places[::-1]
                house.clock.advance(FRESH + 1)
        assert house.outcomes() == [Outcome.ANSWERED] * 2
        assert house.verdict() is None


@both_relays
@pytest_twisted.ensureDeferred
async def test_of_several_addresses_one_that_is_dark_costs_one_job_one_wait(relay: str) -> None:
    """There is no time to try another; the next job tries that one first, and this one goes to the next host."""
    with Hole() as hole, Server() as alive, Server() as good:
        places: list[Place] = [(socket.AF_INET, hole.where), (socket.AF_INET, alive.where)]
        house = House(named("alpha"), good.spec("good", 1, 1), resolve=lambda host, port: succeed(list(places)))
        house.clock.advance(7)  # at zero, what was not noted and what was would look alike
        async with house.serves(relay):
            with house.client(b"hello") as client:
                await house.becomes(lent=1)
                await turns()
                house.clock.advance(CONNECT_TIME + 0.1)
                await expect(house, good, client, b"hello")
            await house.becomes(lent=0)
            assert house.outcomes() == [Outcome.TIMED_OUT, Outcome.ANSWERED]
            assert house.host("good").connecting == 0.0, "the time of the second connect alone"
            assert house.lookup.known(("alpha.invalid", 3632)) == places[::-1]


@pytest_twisted.ensureDeferred
async def test_who_leaves_while_the_next_address_s_turn_comes_is_not_connected_to_it() -> None:
    """That the first is bad and that the client is gone is told in one batch of events."""
    slow = Slow()
    with Server() as bad, Server() as other:
        # with nothing to send, the handshake is done at once
        house = House(named("alpha"), resolve=slow, server_first=True)
        async with house.serves("spliced"):
            with house.client() as client:
                question = await slow.is_asked()
                question.callback([(socket.AF_INET, bad.where), (socket.AF_INET, other.where)])
                end, _ = bad.sock.accept()
                Accepted(end).reset()
                client.reset()
                await house.becomes(lent=0)
                await turns()
                assert other.nobody_came()
        assert house.outcomes() == [Outcome.RESET]


# -- addresses that lead nowhere


@both_relays
@pytest_twisted.ensureDeferred
async def test_where_no_way_leads_the_next_host_gets_the_job(relay: str) -> None:
    with Server() as server, capturedLogs() as events:
        house = House(HostSpec("far", 1, 0, address=NOWHERE), server.spec("good", 1, 1))
        async with house.serves(relay):
            with house.client(b"hello") as client:
                await house.becomes(lent=1)
                await turns()
                house.clock.advance(0)
                await expect(house, server, client, b"hello")
        assert house.outcomes() == [Outcome.UNREACHABLE, Outcome.ANSWERED]
        verdict = house.verdict("far")
        assert verdict is not None
        assert (verdict.up, verdict.reason) == (False, "cannot be reached: Network is unreachable")
        assert house.host("far").failures == {"unreachable": 1}
    assert "far cannot be reached: Network is unreachable; no jobs go there for 5 s, then one on trial" in texts(events)


@both_relays
@pytest_twisted.ensureDeferred
async def test_of_several_addresses_one_to_which_no_way_leads_is_passed_over(relay: str) -> None:
    with Server() as server:
        places: list[Place] = [(socket.AF_INET, NOWHERE), (socket.AF_INET, server.where)]
        house = House(named("alpha"), resolve=lambda host, port: succeed(list(places)))
        async with house.serves(relay):
            with house.client(b"hello") as client:
                await house.becomes(lent=1)
                await turns()
                house.clock.advance(0)
                await expect(house, server, client, b"hello")
        assert house.outcomes() == [Outcome.ANSWERED]
        assert house.host().failures == {}


@pytest_twisted.ensureDeferred
async def test_a_farm_of_which_nothing_can_be_reached_is_gone_through_one_after_another() -> None:
    """Each fails while it is connected to; they must not be as many calls deep."""
    with Server() as server, capturedLogs():
        far = [HostSpec(f"far{number}", 1, 0, address=NOWHERE) for number in range(3000)]
        house = House(*far, server.spec("good", 1, 1))
        async with house.serves("spliced"):
            with house.client(b"hello") as client:
                await house.becomes(lent=1)
                for _ in far:
                    house.clock.advance(0)
                await expect(house, server, client, b"hello")
        assert house.counts["granted"] == 3001


@pytest_twisted.ensureDeferred
async def test_who_leaves_before_a_failure_is_told_leaves_nothing_behind() -> None:
    house = House(HostSpec("far", 1, 0, address=NOWHERE))
    async with house.serves("spliced"):
        with house.client(b"hello") as client:
            await house.becomes(lent=1)
            await turns()
            client.close()
            await house.becomes(lent=0)
            house.clock.advance(0)
    assert house.outcomes() == [Outcome.CLOSED]


# -- what Twisted is asked for


class Wire(StringTransport):
    """A transport that has what a session asks of TCP's."""

    aborted = False

    def setTcpNoDelay(self, enabled: bool) -> None:
        """It has no packets."""

    def abortConnection(self) -> None:
        self.aborted = True


def dials(house: House) -> tuple[MemoryReactorClock, Any]:
    """A session by a reactor that does nothing, whose client has spoken: the reactor and the client's side."""
    reactor = MemoryReactorClock()  # type: ignore[no-untyped-call]
    client = ProxyFactory(house.port, reactor).buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
    assert client is not None
    client.makeConnection(Wire(peerAddress=IPv4Address("TCP", "127.0.0.1", 1)))  # type: ignore[no-untyped-call]
    client.dataReceived(b"hello")
    return reactor, client


@pytest.mark.parametrize(
    ("address", "asked"),
    [
        (("fe80::1", 3632, 0, 7), "fe80::1%7"),
        (("fe80::1%lo", 3632, 0, 1), "fe80::1%lo"),
        (("::1", 3632, 0, 0), "::1"),
        (("127.0.0.1", 3632), "127.0.0.1"),
    ],
)
def test_an_address_that_is_good_on_one_link_is_connected_to_there(address: Any, asked: str) -> None:
    house = House(named("alpha"), resolve=lambda host, port: succeed([(socket.AF_INET6, address)]))
    reactor, client = dials(house)
    ((host, port, *_),) = reactor.tcpClients
    assert (host, port) == (asked, 3632)
    client.session.stop()
    house.proxy.stop()


def test_a_connection_that_comes_about_when_it_is_not_wanted_any_more_is_ended() -> None:
    house = House(named("alpha"), resolve=lambda host, port: succeed([(socket.AF_INET, ("127.0.0.1", 3632))]))
    reactor, client = dials(house)
    ((_, _, dial, *_),) = reactor.tcpClients
    client.session.client_left(Outcome.CLOSED)
    server, wire = dial.buildProtocol(None), Wire()  # type: ignore[no-untyped-call]
    assert server is not None
    server.makeConnection(wire)
    assert wire.aborted
    assert house.outcomes() == [Outcome.CLOSED]
    house.proxy.stop()
