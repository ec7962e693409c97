"""The ports' protocols on transports in memory: what they do to a transport, and what lease sources may do to them.

The same on real sockets: test_ports.py and test_ports_brief.py.
"""

from __future__ import annotations

import socket
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransportWithDisconnection
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from distbal.briefports import PATIENCE, READING_TIME, BriefFactory, BriefProtocol
from distbal.complaints import Complaints
from distbal.hosts import Host
from distbal.loop import HotLoop
from distbal.outcomes import Outcome, Traffic
from distbal.ports import (
    BalanceClient,
    BalanceFactory,
    BalancePort,
    HotClient,
    peer_of,
    peer_of_transport,
    system_socket,
)
from distbal.requests import Lease, Request, Ticket
from distbal.standing import Moment
from tests.farms import spec
from tests.ports import Office

HERE = IPv4Address("TCP", "127.0.0.1", 4711)


def lose(protocol: Any, reason: type[Exception]) -> None:
    """Let a protocol hear that its connection is over."""
    protocol.connectionLost(Failure(reason()))  # type: ignore[no-untyped-call]


class Transport(StringTransportWithDisconnection):
    """A connection that is over when the protocol says so, and notes how it was ended."""

    def __init__(self, peer: object = HERE) -> None:
        super().__init__(peerAddress=peer)  # type: ignore[no-untyped-call]
        self.done: list[str] = []

    @property
    def written(self) -> bytes:
        return bytes(self.value())  # type: ignore[no-untyped-call]

    def loseWriteConnection(self) -> None:
        self.done.append("half-close")

    def loseConnection(self) -> None:
        if self.connected:
            self.done.append("close")
        super().loseConnection()  # type: ignore[no-untyped-call]

    def abortConnection(self) -> None:
        self.done.append("abort")
        self.connected = False
        lose(self.protocol, ConnectionLost)


def connect(factory: Any, peer: object = HERE) -> tuple[Any, Transport]:
    """A protocol that the factory makes, connected."""
    protocol = factory.buildProtocol(peer)
    assert protocol is not None
    transport = Transport(peer)
    transport.protocol = protocol
    protocol.makeConnection(transport)
    return protocol, transport


# -- 5656


def test_balance() -> None:
    office = Office()
    factory = BalanceFactory(office.balance)
    first, first_transport = connect(factory)
    second, second_transport = connect(factory)
    assert (first_transport.written, second_transport.written) == (b"fast\r\n", b"")
    first.dataReceived(b"whatever")
    lose(first, ConnectionDone)
    assert second_transport.written == b"fast\r\n"
    lose(second, ConnectionLost)
    assert (office.lent, office.waiting) == (0, 0)
    outcomes = [attempt.outcome for job in office.leases.scheduler.history.jobs() for attempt in job.attempts]
    assert outcomes == [Outcome.CLOSED, Outcome.RESET]


def test_balance_half_close() -> None:
    office = Office()
    protocol, transport = connect(BalanceFactory(office.balance))
    verifyObject(IHalfCloseableProtocol, protocol)
    protocol.readConnectionLost()
    protocol.writeConnectionLost()
    assert (office.lent, transport.written, transport.done) == (0, b"fast\r\n", ["close"])


def test_balance_refused() -> None:
    office = Office(wait=10)
    connect(BalanceFactory(office.balance))
    _, waiter = connect(BalanceFactory(office.balance))
    office.clock.advance(10.1)
    assert (waiter.written, waiter.done) == (b"", ["close"])
    assert office.lent == 1


def test_balance_strangers() -> None:
    office = Office()
    office.allow("10.0.0.0/8")
    factory = BalanceFactory(office.balance)
    mapped = IPv6Address("TCP", "::ffff:10.0.0.9", 4711)
    assert factory.buildProtocol(HERE) is None
    connect(factory, mapped)
    (client,) = office.leases.snapshot().leases
    assert client.address == "10.0.0.9"


class Remote:
    """A lease source that is somewhere else: it answers when the test says so."""

    def __init__(self) -> None:
        self.tickets: list[Ticket] = []
        self.withdrawn: list[Ticket] = []
        self.released: list[tuple[Lease, Outcome]] = []

    def ask(self, request: Request, taker: Any) -> Ticket:
        self.tickets.append(Ticket(len(self.tickets) + 1, request, taker, 0.0))
        return self.tickets[-1]

    def withdraw(self, ticket: Ticket) -> None:
        self.withdrawn.append(ticket)

    def connected(self, lease: Lease) -> None:
        raise AssertionError("a client of 5656 connects by itself")

    def release(self, lease: Lease, outcome: Outcome, traffic: Traffic | None = None) -> None:
        self.released.append((lease, outcome))

    def grant(self) -> Lease:
        ticket = self.tickets[-1]
        lease = ticket.lease = Lease(ticket, Host(spec("far"), 0), 0.0, Moment("fastest-first", ()))
        taker: Any = ticket.holder
        taker.granted(lease)
        return lease


def port_of(remote: Remote) -> BalancePort:
    return BalancePort(remote, Office().terms, "arm", Complaints(Logger(), Clock().seconds), verbose=True)


def test_a_lease_that_comes_later_from_elsewhere() -> None:
    remote = Remote()
    protocol, transport = connect(BalanceFactory(port_of(remote)))
    (ticket,) = remote.tickets
    assert ticket.request == Request("127.0.0.1", 4711, "127.0.0.1", "arm")
    assert transport.written == b""
    lease = remote.grant()
    assert transport.written == b"far\r\n"
    lose(protocol, ConnectionDone)
    lose(protocol, ConnectionDone)
    assert remote.released == [(lease, Outcome.CLOSED)]


def test_a_waiter_of_a_source_elsewhere() -> None:
    remote = Remote()
    protocol, _ = connect(BalanceFactory(port_of(remote)))
    lose(protocol, ConnectionLost)
    assert (remote.withdrawn, remote.released) == (remote.tickets, [])


def test_a_lease_that_is_lost_ends_the_connection_and_is_not_given_back() -> None:
    remote = Remote()
    protocol, transport = connect(BalanceFactory(port_of(remote)))
    protocol.lost(remote.grant(), "the central distbal has forgotten it")
    assert transport.done == ["close"]
    assert (remote.withdrawn, remote.released) == ([], [])


@pytest.mark.parametrize("gone", [False, True])
def test_a_hot_client_of_a_source_elsewhere(gone: bool) -> None:
    remote, reactor = Remote(), MemoryReactorClock()  # type: ignore[no-untyped-call]
    loop = HotLoop(reactor, reactor, 10)
    ours, theirs = socket.socketpair()
    try:
        client = HotClient(port_of(remote), loop, ours.detach())
        loop.watch(client)
        client.begin("10.0.0.9", 4711)
        if gone:
            theirs.close()
        lease = remote.grant()
        if gone:
            assert remote.released == [(lease, Outcome.UNDELIVERED)]
        else:
            assert theirs.recv(100) == b"far\r\n"
            client.lost(lease, "the central distbal has forgotten it")
            assert theirs.recv(100) == b""
            assert remote.released == []
        assert loop.free() == 10
    finally:
        theirs.close()
        loop.stop()


def test_a_client_must_know_its_socket() -> None:
    client = BalanceClient(port_of(Remote()))
    with pytest.raises(NotImplementedError):
        client.deliver(b"")
    with pytest.raises(NotImplementedError):
        client.hang_up()


# -- 5657 and 5658


def test_status() -> None:
    office = Office()
    protocol, transport = connect(office.status)
    assert transport.written.count(b"\r\n") == 9
    assert transport.done == ["half-close"]
    protocol.dataReceived(b"GET / HTTP/1.0\r\n\r\n")
    protocol.writeConnectionLost()
    office.clock.advance(READING_TIME - 1)
    assert (transport.done, office.status.crowd) == (["half-close"], 1)
    office.clock.advance(1)
    assert (transport.done, office.status.crowd) == (["half-close", "abort"], 0)


def test_status_half_close() -> None:
    office = Office()
    protocol, transport = connect(office.status)
    protocol.readConnectionLost()
    assert (transport.done, office.status.crowd, office.clock.getDelayedCalls()) == (["half-close", "close"], 0, [])


def test_update() -> None:
    office = Office()
    protocol, transport = connect(office.update)
    protocol.dataReceived(b"fast d")
    protocol.dataReceived(b"own\r")
    assert transport.done == ["half-close"]
    protocol.dataReceived(b"\nfast up\n")
    protocol.readConnectionLost()
    assert (transport.done, office.update.crowd, office.clock.getDelayedCalls()) == (["half-close", "close"], 0, [])
    assert [host.up for host in office.leases.snapshot().hosts] == [False]


@pytest.mark.parametrize("reason", [ConnectionDone, ConnectionLost])
def test_update_without_an_end(reason: type[Exception]) -> None:
    office = Office()
    protocol, transport = connect(office.update)
    protocol.dataReceived(b"fast down")
    lose(protocol, reason)
    assert (transport.done, transport.written) == ([], b"")
    assert [host.up for host in office.leases.snapshot().hosts] == [False]


def test_update_cut_off() -> None:
    office = Office()
    protocol, transport = connect(office.update)
    protocol.dataReceived(b"fast down")
    office.clock.advance(PATIENCE)
    protocol.dataReceived(b"\n")
    assert (transport.done, transport.written) == (["abort"], b"")
    assert [host.up for host in office.leases.snapshot().hosts] == [True]


def test_each_conversation_says_what_it_is() -> None:
    office = Office()
    factory = BriefFactory("brief", office.leases, office.terms, office.balance.complain, office.clock)
    with pytest.raises(NotImplementedError):
        factory.buildProtocol(HERE)
    protocol = BriefProtocol(factory)
    transport = Transport()
    transport.protocol = protocol
    protocol.makeConnection(transport)  # type: ignore[no-untyped-call]
    protocol.dataReceived(b"nobody listens")
    protocol.part()
    protocol.part()
    assert transport.done == ["half-close"]
    lose(protocol, ConnectionDone)
    assert factory.crowd == 0


# -- addresses


@pytest.mark.parametrize(
    ("accepted", "twisted", "expected"),
    [
        (("10.0.0.9", 4711), IPv4Address("TCP", "10.0.0.9", 4711), ("10.0.0.9", 4711)),
        (("::ffff:10.0.0.9", 4711, 0, 0), IPv6Address("TCP", "::ffff:10.0.0.9", 4711), ("10.0.0.9", 4711)),
        (("fe80::1%eth0", 4711, 0, 2), IPv6Address("TCP", "fe80::1%eth0", 4711), ("fe80::1%eth0", 4711)),
        ("", UNIXAddress(None), ("", 0)),
        (b"\0abstract", UNIXAddress(b"\0abstract"), ("", 0)),
        (None, None, ("", 0)),
    ],
)
def test_where_a_client_comes_from(accepted: object, twisted: Any, expected: tuple[str, int]) -> None:
    assert peer_of(accepted) == peer_of_transport(twisted) == expected


def test_a_socket_is_found_below_whatever_wraps_it(running_reactor: None) -> None:
    from twisted.internet import reactor
    from twisted.internet.protocol import Factory
    from twisted.internet.tcp import Connection

    with socket.socket() as sock:
        transport = Connection(sock, Protocol(), reactor)
        wrapper = ProtocolWrapper(WrappingFactory(Factory()), Protocol())  # type: ignore[no-untyped-call]
        wrapper.transport = transport
        assert system_socket(transport) is sock
        assert system_socket(wrapper) is sock
    assert system_socket(Transport()) is None
