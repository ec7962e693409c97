"""``tcp``: ports that take connections and ports that do not, and a real distccd that does not notice."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.protocol import Protocol

from distbal.errors import MonitorTrouble
from distbal.hosts import Farm, HostSpec
from distbal.interfaces import Reading, Target
from distbal.leases import LocalLeases
from distbal.lookup import Lookup, NotFoundError, Place
from distbal.monitors.kit import MonitorOptions, Surroundings, connect
from distbal.monitors.slots import Slots
from distbal.monitors.tcp import TcpKind, TcpMonitor, TcpOptions
from distbal.scheduler import Scheduler
from tests.integration.farm import running_farm
from tests.loops import open_descriptors
from tests.services import until
from tests.support import descriptors_left, need


def resolver(places: dict[str, list[str]]) -> Lookup:
    """A resolver that knows these names."""

    def resolve(host: str, port: int) -> Deferred[list[Place]]:
        if host not in places:
            return fail(NotFoundError("Name or service not known"))
        return succeed([(socket.AF_INET, (address, port)) for address in places[host]])

    return Lookup(reactor, resolve)


def around(lookup: Lookup) -> Surroundings:
    return Surroundings(reactor, lookup, Slots(LocalLeases(Scheduler(Farm((HostSpec("a", 1, 0),))), reactor)))


def monitor(port: int, host: str = "127.0.0.1", lookup: Lookup | None = None, **places: list[str]) -> TcpMonitor:
    return TcpKind().monitor(Target(f"{host}:{port}", host, port), TcpOptions(), around(lookup or resolver(places)))


@contextmanager
def listener(address: str = "127.0.0.1", port: int = 0) -> Iterator[socket.socket]:
    with socket.create_server((address, port)) as sock:
        yield sock


@contextmanager
def black_hole() -> Iterator[int]:
    """A port that answers nothing: its queue is full."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        fillers = []
        try:
            for _ in range(4):
                filler = socket.socket()
                filler.setblocking(False)
                fillers.append(filler)
                filler.connect_ex(sock.getsockname())
            yield sock.getsockname()[1]
        finally:
            for filler in fillers:
                filler.close()


@pytest_twisted.ensureDeferred
async def test_a_port_that_takes_connections_is_up() -> None:
    with listener() as sock:
        asked = monitor(sock.getsockname()[1])
        before = open_descriptors()
        for _ in range(3):
            assert await asked.check() == Reading(up=True, reason="takes connections")
        assert open_descriptors() == before
        asked.stop()


@pytest_twisted.ensureDeferred
async def test_the_connection_ends_with_a_reset() -> None:
    with listener() as sock:
        await monitor(sock.getsockname()[1]).check()
        sock.settimeout(5)
        accepted, _ = sock.accept()
        with accepted, pytest.raises(ConnectionResetError):
            accepted.recv(1)


@pytest_twisted.ensureDeferred
async def test_a_refused_connection_is_proof() -> None:
    with listener() as sock:
        port = sock.getsockname()[1]
    assert await monitor(port).check() == Reading(up=False, reason="refused the connection", certain=True)


@pytest_twisted.ensureDeferred
async def test_silence_is_left_to_who_asked() -> None:
    assert TcpKind.silence_is_down
    with black_hole() as port:
        asked = monitor(port)
        before = open_descriptors()
        check = asked.check()
        assert not check.called
        check.cancel()
        with pytest.raises(CancelledError):
            await check
        assert open_descriptors() == before


@pytest_twisted.ensureDeferred
async def test_a_name_without_an_address_is_down() -> None:
    reading = await monitor(3632, "nowhere").check()
    assert reading == Reading(up=False, reason="has no address: Name or service not known")


@pytest_twisted.ensureDeferred
async def test_a_resolver_that_cannot_tell_says_nothing_of_the_host() -> None:
    lookup = Lookup(reactor, lambda *_: fail(NotFoundError("Temporary failure in name resolution", unasked=True)))
    with pytest.raises(MonitorTrouble, match=r"Temporary failure in name resolution \(this machine's resolver\)"):
        await monitor(3632, "somewhere", lookup).check()


@pytest_twisted.ensureDeferred
async def test_a_resolver_that_is_silent_says_nothing_of_the_host() -> None:
    check = monitor(3632, "somewhere", Lookup(reactor, lambda *_: Deferred())).check()
    check.cancel()
    with pytest.raises(MonitorTrouble, match="has no address yet: this machine's resolver did not answer in time"):
        await check


@pytest_twisted.ensureDeferred
async def test_of_several_addresses_one_is_enough() -> None:
    with listener("127.0.0.2") as sock:
        asked = monitor(sock.getsockname()[1], "both", both=["127.0.0.1", "127.0.0.2"])
        assert (await asked.check()).up
        # the one that answered is asked first from now on
        assert _first(asked._lookup, sock.getsockname()[1]) == "127.0.0.2"


def _first(lookup: Lookup, port: int) -> str:
    """Which of its addresses the host is asked at first."""
    places = lookup.known(("both", port))
    assert places is not None
    return str(places[0][1][0])


@contextmanager
def half_silent() -> Iterator[int]:
    """A port that answers at 127.0.0.2, and nothing at 127.0.0.1."""
    with black_hole() as port, listener("127.0.0.2", port):
        yield port


@pytest_twisted.ensureDeferred
async def test_after_silence_the_next_of_several_addresses_comes_first() -> None:
    with half_silent() as port:
        asked = monitor(port, "both", both=["127.0.0.1", "127.0.0.2"])
        check = asked.check()
        check.cancel()
        with pytest.raises(CancelledError):
            await check
        assert _first(asked._lookup, port) == "127.0.0.2"
        assert (await asked.check()).up


@pytest_twisted.ensureDeferred
async def test_after_silence_the_next_of_several_addresses_comes_first_for_kinds_that_talk() -> None:
    with half_silent() as port:
        lookup = resolver({"both": ["127.0.0.1", "127.0.0.2"]})
        connecting = Deferred.fromCoroutine(connect(around(lookup), "both", port, Protocol))
        connecting.cancel()
        with pytest.raises(ConnectingCancelledError):
            await connecting
        assert _first(lookup, port) == "127.0.0.2"
        protocol = await connect(around(lookup), "both", port, Protocol)
        protocol.transport.abortConnection()
        await until(lambda: not protocol.transport.connected, "the end of the connection")


@pytest_twisted.ensureDeferred
async def test_an_address_that_this_machine_cannot_ask_is_no_reason_to_ask_no_other() -> None:
    # a machine without IPv6 has no such sockets; this family no machine has
    strange: list[Place] = [(255, ("::1", 3632, 0, 0))]

    def asked(port: int, *more: Place) -> TcpMonitor:
        return monitor(port, "both", Lookup(reactor, lambda host, port: succeed([*strange, *more])))

    with listener() as sock:
        port = sock.getsockname()[1]
        assert (await asked(port, (socket.AF_INET, ("127.0.0.1", port))).check()).up
    with pytest.raises(MonitorTrouble, match="cannot be asked by this machine: Address family not supported"):
        await asked(port, *strange).check()


@pytest_twisted.ensureDeferred
async def test_none_of_several_addresses_is_not() -> None:
    with listener("127.0.0.2") as sock:
        port = sock.getsockname()[1]
    reading = await monitor(port, "both", both=["127.0.0.1", "127.0.0.2"]).check()
    assert (reading.up, reading.reason) == (False, "refused the connection")


@pytest_twisted.ensureDeferred
async def test_no_way_there_is_down_but_no_proof() -> None:
    # 240.0.0.0/4 is nobody's: Linux refuses to send anything there
    asked = monitor(3632, "far", far=["255.255.255.255"])
    reading = None
    try:
        reading = await asked.check()
    except MonitorTrouble as trouble:
        assert "cannot be asked by this machine" in str(trouble)  # noqa: PT017
    if reading is not None:
        assert not reading.up
        assert not reading.certain
        assert reading.reason.startswith("cannot be reached: ")


@pytest_twisted.ensureDeferred
async def test_our_own_want_of_descriptors_says_nothing_of_the_host() -> None:
    with listener() as sock:
        asked = monitor(sock.getsockname()[1])
        await asked.check()
        with descriptors_left(0):
            check = asked.check()
        with pytest.raises(MonitorTrouble, match=f"cannot be asked by this machine: {os.strerror(errno.EMFILE)}"):
            await check


def test_it_has_no_options_of_its_own() -> None:
    assert set(TcpOptions.model_fields) == set(MonitorOptions.model_fields)


@pytest.mark.programs
@pytest_twisted.ensureDeferred
async def test_distccd_does_not_notice() -> None:
    need("distccd", "gcc")
    with running_farm(("one", 2, 0.0)) as farm:
        (server,) = farm.servers
        asked = monitor(server.port)
        log = server.directory / "log"
        before = log.read_text()
        for _ in range(50):
            assert (await asked.check()).up
        # a client that closes in order is noticed, so what distccd notices does get into this log
        socket.create_connection(("127.0.0.1", server.port)).close()
        await until(lambda: "fairy dust" in log.read_text(), "a line in distccd's log")
        said = log.read_text().removeprefix(before)
        assert said.count("fairy dust") == 1
        assert said.count("connection from") == 1
