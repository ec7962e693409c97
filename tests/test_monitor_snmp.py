"""``snmp`` against a real agent, and against some that are none."""

from __future__ import annotations

import random
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, gatherResults
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import deferLater

from distbal.errors import MonitorTrouble
from distbal.hosts import Farm
from distbal.interfaces import Reading, Target
from distbal.leases import LocalLeases
from distbal.loads import CpuTimes
from distbal.lookup import Lookup, SystemResolver
from distbal.monitors.kit import Surroundings
from distbal.monitors.slots import Slots
from distbal.monitors.snmp import NOTHING_SHOWN, Engines, SnmpKind, SnmpMonitor, SnmpOptions
from distbal.monitors.snmpaccess import Credentials
from distbal.monitors.snmpvalues import ALL, WRAP, Look
from distbal.scheduler import Scheduler
from tests.farms import spec
from tests.peers import with_ipv6
from tests.services import until
from tests.snmpd import AUTH, COMMUNITY, OIDS, PRIVACY, SAYS_NOTHING, USERS, Agent, free_udp_port, need_snmpd, snmpd, values
from tests.support import spawn

pytest.importorskip("pysnmp")
pytestmark = pytest.mark.programs
need_snmpd()

LETMEIN: dict[str, Any] = {"community": "letmein"}
HIDES: dict[str, Any] = {"version": 3, "user": "hides", "auth_passphrase": AUTH, "privacy_passphrase": PRIVACY}


class Monitors:
    """Monitors that share their surroundings, and stop with the test."""

    def __init__(self) -> None:
        farm = Farm((spec("alpha", 4),))
        slots = Slots(LocalLeases(Scheduler(farm, draw=random.Random(1)), reactor))
        self.surroundings = Surroundings(reactor, Lookup(reactor, SystemResolver(reactor)), slots)
        self._made: list[SnmpMonitor] = []

    def of(self, port: int, host: str = "127.0.0.1", **options: Any) -> SnmpMonitor:
        given = SnmpOptions.model_validate({"port": port, **options})
        monitor = SnmpKind().monitor(Target("alpha", host, 3632), given, self.surroundings)
        self._made.append(monitor)
        return monitor

    async def stop(self) -> None:
        for monitor in self._made:
            await _now(monitor.stop())


async def _now(result: Deferred[None] | None) -> None:
    if result is not None:
        await result


@pytest_twisted.async_yield_fixture
async def monitors() -> AsyncIterator[Monitors]:
    monitors = Monitors()
    yield monitors
    await monitors.stop()
    assert "asyncio" not in [thread.name for thread in threading.enumerate()]


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """One that lets in whom COMMUNITY and USERS say, and shows all that it has."""
    with snmpd(tmp_path_factory.mktemp("snmpd"), COMMUNITY, USERS) as agent:
        yield agent


def begun(monitor: SnmpMonitor) -> Deferred[Reading]:
    return ensureDeferred(monitor.check())


async def is_given_up(check: Deferred[Reading], monitors: Monitors) -> None:
    """The check is cancelled once its question is on its way, as distbal does after the timeout."""
    await until(lambda: waiting(monitors) > 0, "the question")
    assert not check.called
    check.cancel()
    with pytest.raises(CancelledError):
        await check
    await until(lambda: waiting(monitors) == 0, "the end of the question")


def waiting(monitors: Monitors) -> int:
    """How many questions are on their way."""
    engines = Engines.of(monitors.surroundings)._engines
    return sum(len(way._asking) for engine in list(engines.values()) for way in list(engine._transports.values()))


def kernel_times() -> CpuTimes:
    return CpuTimes.parse(Path("/proc/stat").read_text().splitlines()[0])


# -- a real agent


@pytest.mark.parametrize(
    "access",
    [
        LETMEIN,
        HIDES,
        {"version": "3", "user": "plain"},
        {"version": 3, "user": "signs", "auth": "sha512", "auth_passphrase": AUTH},
        HIDES | {"user": "hides256", "auth": "SHA-256"},
        HIDES | {"user": "hidesmost", "auth": "sha384", "privacy": "AES-256"},
    ],
    ids=["v2c", "sha-aes", "noauth", "sha512-nopriv", "sha256-aes", "sha384-aes256"],
)
@pytest_twisted.ensureDeferred
async def test_ways_in(agent: Agent, monitors: Monitors, access: dict[str, Any]) -> None:
    reading = await monitors.of(agent.port, **access).check()
    assert reading.up
    assert not reading.certain
    assert reading.weight is None  # nothing can be said by one look
    assert reading.took is not None
    assert 0 < reading.took < 20


@pytest_twisted.ensureDeferred
async def test_it_tells_what_the_kernel_tells(tmp_path: Path, monitors: Monitors) -> None:
    before = kernel_times()
    with snmpd(tmp_path, COMMUNITY) as agent:
        monitor = monitors.of(agent.port, **LETMEIN)
        reading = await monitor.check()
        assert reading.weight is None
        engines, letmein = Engines.of(monitors.surroundings), Credentials("2c", community=b"letmein")
        look = Look()
        while look.times is None:  # net-snmp begins with zeros, for some seconds
            told = await engines.run(letmein, lambda engine: engine.get((socket.AF_INET, ("127.0.0.1", agent.port)), ALL))
            look = Look.parse(told)
            assert look.times or look.fresh
            await deferLater(reactor, 0.05)
        reading = await monitor.check()
        now = kernel_times()
        for field in ("user", "nice", "system", "idle", "irq", "softirq", "steal"):
            told_field = getattr(look.times, field)
            assert getattr(before, field) % WRAP <= told_field <= getattr(now, field) % WRAP or now.idle > WRAP
        assert isinstance(reading.facts["load"], float)
        assert isinstance(reading.facts["cpus"], int)
        assert isinstance(reading.facts["memory_mb"], int)
        assert isinstance(reading.facts["free_mb"], int)


@pytest_twisted.ensureDeferred
async def test_a_weight_by_cpu_times_over_the_end_of_the_counters(tmp_path: Path, monitors: Monitors) -> None:
    told = values(user=WRAP - 10, nice=0, system=0, idle=1000, load=100, cpus=2, memory=2048, free=1024)
    with snmpd(tmp_path, *told, without=SAYS_NOTHING) as agent:
        monitor = monitors.of(agent.port, community="private")
        first = await monitor.check()
        assert (first.up, first.weight) == (True, None)
        await change(agent, user=90, idle=1300)  # 100 of somebody else's, 300 idle
        second = await monitor.check()
        assert second.weight == pytest.approx(0.75)
        assert second.facts == {"load": 1.0, "cpus": 2, "by": "cpu", "share": 0.75, "memory_mb": 2, "free_mb": 1}
        assert second.reason == "has 75% of its CPU time left for us"
        third = await monitor.check()  # the counters have not moved: net-snmp reads them every 5 s
        assert third.weight == second.weight
        await change(agent, user=3, idle=10)  # the host was started anew
        fourth = await monitor.check()
        assert fourth.weight == second.weight


@pytest_twisted.ensureDeferred
async def test_a_weight_by_the_load_average(tmp_path: Path, monitors: Monitors) -> None:
    with snmpd(tmp_path, *values(load=150, cpus=2), without=SAYS_NOTHING) as agent:
        for weight_by in ("cpu", "loadavg"):
            reading = await monitors.of(agent.port, community="private", weight_by=weight_by).check()
            assert (reading.weight, reading.facts["by"]) == (0.25, "loadavg")


@pytest.mark.parametrize("weight_by", ["cpu", "loadavg"])
@pytest_twisted.ensureDeferred
async def test_a_weight_by_processors(tmp_path: Path, monitors: Monitors, weight_by: str) -> None:
    with snmpd(tmp_path, *values(processor1=50, processor2=100), without=SAYS_NOTHING) as agent:
        reading = await monitors.of(agent.port, community="private", weight_by=weight_by).check()
        assert reading.weight == pytest.approx(0.25)
        assert reading.facts == {"cpus": 2, "busy": 1.5, "by": "processors", "ours": 0.0, "share": 0.25}
        assert reading.reason == "has 1.5 of 2 CPUs busy, 0 of it ours: 25% is left for us"


@pytest_twisted.ensureDeferred
async def test_the_number_of_cpus_from_the_processors(tmp_path: Path, monitors: Monitors) -> None:
    told = values(load=100, processor1=50, processor2=100)
    with snmpd(tmp_path, *told, without=SAYS_NOTHING) as agent:
        reading = await monitors.of(agent.port, community="private", weight_by="loadavg").check()
        assert (reading.weight, reading.facts["by"], reading.facts["cpus"]) == (0.5, "loadavg", 2)


@pytest_twisted.ensureDeferred
async def test_an_agent_that_shows_nothing(tmp_path: Path, monitors: Monitors) -> None:
    view = ["view systemonly included .1.3.6.1.2.1.1", "rocommunity letmein default -V systemonly"]  # as Debian has it
    with snmpd(tmp_path, *view) as agent:
        with pytest.raises(MonitorTrouble) as caught:
            await monitors.of(agent.port, **LETMEIN).check()
        assert str(caught.value) == NOTHING_SHOWN


@with_ipv6
@pytest_twisted.ensureDeferred
async def test_ipv6_and_a_name(tmp_path: Path, monitors: Monitors) -> None:
    with snmpd(tmp_path, COMMUNITY, USERS, ipv6=True) as agent:
        for host in ("::1", "localhost", "127.0.0.1"):
            for access in (LETMEIN, HIDES):
                assert (await monitors.of(agent.port, host, **access).check()).up


# -- refused, or not answered


@pytest.mark.parametrize(
    ("access", "trouble"),
    [
        (HIDES | {"user": "nobody"}, "has no SNMP user nobody"),
        (HIDES | {"auth_passphrase": "another phrase"}, "does not accept the auth_passphrase of hides, or not with auth: sha"),
        (HIDES | {"auth": "sha256"}, "does not accept the auth_passphrase of hides, or not with auth: sha256"),
        (
            {"version": 3, "user": "hides", "auth_passphrase": AUTH},
            "does not let the user hides (auth: sha, no privacy_passphrase) read anything",
        ),
        (
            HIDES | {"user": "plain"},
            "does not let plain in like this (auth: sha, privacy: aes): other keys are set for this user there",
        ),
    ],
    ids=["no user", "wrong passphrase", "wrong algorithm", "not private", "no keys there"],
)
@pytest_twisted.ensureDeferred
async def test_refused_in_words(agent: Agent, monitors: Monitors, access: dict[str, Any], trouble: str) -> None:
    monitor = monitors.of(agent.port, **access)
    for _ in range(2):
        with pytest.raises(MonitorTrouble) as caught:
            await monitor.check()
        assert str(caught.value) == trouble


@pytest.mark.parametrize(
    "access", [{"community": "another"}, HIDES | {"privacy_passphrase": "another phrase"}], ids=["community", "privacy"]
)
@pytest_twisted.ensureDeferred
async def test_an_agent_is_silent_to_strangers(agent: Agent, monitors: Monitors, access: dict[str, Any]) -> None:
    await is_given_up(begun(monitors.of(agent.port, **access)), monitors)


@pytest_twisted.ensureDeferred
async def test_no_agent_is_silent_too(monitors: Monitors) -> None:
    monitor = monitors.of(free_udp_port(), **HIDES)
    for _ in range(3):
        await is_given_up(begun(monitor), monitors)


@pytest_twisted.ensureDeferred
async def test_a_wrong_passphrase_does_no_harm_to_the_right_one(agent: Agent, monitors: Monitors) -> None:
    wrong = [HIDES | {"auth_passphrase": "another phrase"}, HIDES | {"privacy_passphrase": "another phrase"}]
    good = [monitors.of(agent.port, **HIDES) for _ in range(5)]
    bad = [monitors.of(agent.port, **access) for access in wrong]
    for _ in range(3):
        failing = [begun(monitor) for monitor in bad]
        readings = await gatherResults([begun(monitor) for monitor in good])
        assert all(reading.up for reading in readings)
        for check in failing:
            check.cancel()
            with pytest.raises((MonitorTrouble, CancelledError)):
                await check


@pytest.mark.parametrize("access", [LETMEIN, HIDES], ids=["v2c", "v3"])
@pytest_twisted.ensureDeferred
async def test_frozen_in_the_middle_of_a_check(tmp_path: Path, monitors: Monitors, access: dict[str, Any]) -> None:
    with snmpd(tmp_path, COMMUNITY, USERS) as agent:
        monitor = monitors.of(agent.port, **access)
        assert (await monitor.check()).up
        agent.process.send_signal(signal.SIGSTOP)
        try:
            await is_given_up(begun(monitor), monitors)
        finally:
            agent.process.send_signal(signal.SIGCONT)
        for _ in range(3):  # the late answer to the question that was given up is none to these
            assert (await monitor.check()).up


@pytest_twisted.ensureDeferred
async def test_stopped_and_started_again(tmp_path: Path, monitors: Monitors) -> None:
    with snmpd(tmp_path, COMMUNITY, USERS) as agent:
        two = [monitors.of(agent.port, **access) for access in (LETMEIN, HIDES)]
        for monitor in two:
            assert (await monitor.check()).up
    for monitor in two:
        await is_given_up(begun(monitor), monitors)
    with snmpd(tmp_path, COMMUNITY, USERS, port=agent.port):  # with the same state: the engine was started once more
        for monitor in two:
            assert (await monitor.check()).up


@pytest_twisted.ensureDeferred
async def test_another_agent_in_its_place(tmp_path: Path, monitors: Monitors) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    with snmpd(one, COMMUNITY, USERS) as agent:
        monitor = monitors.of(agent.port, **HIDES)
        assert (await monitor.check()).up
    with snmpd(other, COMMUNITY, USERS, port=agent.port):  # installed anew: another engine ID
        with pytest.raises(MonitorTrouble, match="answers, but not what an SNMP agent would"):
            await monitor.check()
        assert (await monitor.check()).up


@pytest_twisted.ensureDeferred
async def test_a_question_is_sent_again(tmp_path: Path, monitors: Monitors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distbal.monitors.snmpclient.AGAIN", 0.3)
    port = free_udp_port()
    check = begun(monitors.of(port, **LETMEIN))
    await until(lambda: waiting(monitors) > 0)  # the first went to nobody
    with snmpd(tmp_path, COMMUNITY, port=port):
        assert (await check).up


@pytest_twisted.ensureDeferred
async def test_a_file_is_read_again_after_a_failure(agent: Agent, monitors: Monitors, tmp_path: Path) -> None:
    file = tmp_path / "community"
    file.touch(0o600)
    file.write_text("another\n")
    monitor = monitors.of(agent.port, community=f"file:{file}")
    await is_given_up(begun(monitor), monitors)
    file.write_text("letmein\n")
    assert (await monitor.check()).up
    file.unlink()
    assert (await monitor.check()).up  # it works, so nobody looks


@pytest_twisted.ensureDeferred
async def test_a_name_without_address(monitors: Monitors) -> None:
    with pytest.raises(MonitorTrouble, match="has no address"):
        await monitors.of(161, "nowhere.invalid").check()


# -- what is no agent


class Rubbish(DatagramProtocol):
    """Answers every datagram with the same, or itself."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer = answer

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        assert self.transport is not None
        self.transport.write(datagram if self._answer is None else self._answer, addr)


RUBBISH = [
    None,
    b"",
    b"HTTP/1.0 400 Bad Request\r\n\r\n",
    b"\0" * 60_000,
    b"\x30\x80" * 2000,
    b"\x30\x82\xff\xff",
    b"\x30\x0b\x02\x01\x01\x04\x06public",
    b"\x06\x81\xfa" + b"\xff" * 250,
    # a report of version 3, of an agent without a name
    bytes.fromhex("3024020103300d020101020205c0040100020103041030 0e0400020100020100040004000400".replace(" ", "")),
]


@pytest_twisted.ensureDeferred
async def test_rubbish(monitors: Monitors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distbal.monitors.snmpclient.AGAIN", 0.3)
    ports = [
        cast("Any", reactor).listenUDP(0, Rubbish(answer), interface="127.0.0.1", maxPacketSize=65536) for answer in RUBBISH
    ]
    try:
        made = [monitors.of(port.getHost().port, **access) for port in ports for access in (LETMEIN, HIDES)]
        checks = [begun(monitor) for monitor in made]
        for check in checks:
            with pytest.raises(MonitorTrouble, match="answers, but not what an SNMP agent would with these credentials"):
                await check
    finally:
        for port in ports:
            await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_strangers_are_not_heard(agent: Agent, monitors: Monitors) -> None:
    monitor = monitors.of(agent.port, **LETMEIN)
    await monitor.check()
    (engine,) = Engines.of(monitors.surroundings)._engines.values()
    way: Any
    (way,) = engine._transports.values()
    port = way.transport.get_extra_info("socket").getsockname()[1]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for answer in RUBBISH:
            stranger.sendto(answer or b"x", ("127.0.0.1", port))
        for _ in range(5):
            assert (await monitor.check()).up


# -- what it costs the agent


@pytest_twisted.ensureDeferred
async def test_clocks_are_not_forgotten_all_the_time(agent: Agent, monitors: Monitors) -> None:
    monitor = monitors.of(agent.port, **HIDES)
    await monitor.check()
    not_in_time = (1, 3, 6, 1, 6, 3, 15, 1, 1, 2, 0)  # usmStatsNotInTimeWindows
    place = socket.AF_INET, ("127.0.0.1", agent.port)
    told: list[Any] = []

    async def fifteen_minutes(engine: Any) -> None:
        for _ in range(45):
            told.append((await engine.get(place, (not_in_time,)))[not_in_time])
            for _ in range(2):  # 20 s
                engine.snmp.security_models[3].receive_timer_tick(engine.snmp, 0)

    (credentials,) = Engines.of(monitors.surroundings)._engines
    await Engines.of(monitors.surroundings).run(credentials, fifteen_minutes)
    assert told[-1] - told[0] <= 2


async def change(agent: Agent, **numbers: int) -> None:
    """Let the agent say other counters."""
    program = """
import asyncio, sys
from pysnmp.hlapi.v3arch.asyncio import *
async def change(port, *pairs):
    engine = SnmpEngine()
    target = await UdpTransportTarget.create(("127.0.0.1", int(port)))
    new = [ObjectType(ObjectIdentity(pair.split("=")[0]), Counter32(int(pair.split("=")[1]))) for pair in pairs]
    trouble, status, *_ = await set_cmd(engine, CommunityData("private"), target, ContextData(), *new, lookupMib=False)
    engine.close_dispatcher()
    assert not trouble and not status, (trouble, status)
asyncio.run(change(*sys.argv[1:]))
"""
    pairs = [f"{OIDS[name].lstrip('.')}={number}" for name, number in numbers.items()]
    with spawn(sys.executable, "-c", program, str(agent.port), *pairs) as process:
        await until(lambda: process.poll() is not None)
        assert process.returncode == 0, process.stdout and process.stdout.read()
