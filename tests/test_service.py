"""Composition: a start that works or says why not, and a stop that leaves nothing. What a reload does: test_service_reload.py.

The service runs in this process, made by makeService as twistd makes it, on ports that the system chose; clients are real ones.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import Clock

from distbal import descriptors, loop
from distbal.hostspec import MOST_SLOTS
from distbal.places import HOSTS_FILE
from distbal.process import never_back
from distbal.service import Options, not_yet
from tests.services import ANY, LISTEN, ONE, Balancer, Lines, balancer, make, taken_port, takes_connections, until
from tests.support import LoggedErrors, alone


@pytest.fixture(autouse=True)
def reactor_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reactor's own clock comes back after each test."""
    monkeypatch.setattr(reactor, "seconds", reactor.seconds)


@pytest.fixture
def log() -> Iterator[Lines]:
    with Lines() as lines:
        yield lines


# -- start --------------------------------------------------------------------------------------------------------------------


def test_options() -> None:
    options = Options()
    options.parseOptions([])  # type: ignore[no-untyped-call]
    assert (options["config"], options["verbose"]) == (HOSTS_FILE, 0)
    options.parseOptions(["--config", "x.yaml", "--verbose"])  # type: ignore[no-untyped-call]
    assert (options["config"], options["verbose"]) == ("x.yaml", 1)


def test_every_mistake_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "hosts.yaml"
    file.write_text("hosts: [box/0, box2/1, box2/2]\npollicy: random\nlisten: {balance: 70000}\n")
    with pytest.raises(SystemExit) as stopped:
        make(file)
    lines = str(stopped.value).splitlines()
    assert [line.removeprefix(f"distbal: {file}:").split(": ")[:2] for line in lines] == [
        ["1", "hosts[0]"],
        ["1", "hosts[2]"],
        ["2", "pollicy"],
        ["3", "listen.balance"],
    ]


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        make(tmp_path / "none.yaml")
    assert str(stopped.value) == f"distbal: {tmp_path}/none.yaml: cannot be read: no such file or directory"


@pytest.mark.parametrize("kind", ["balance", "status", "update"])
def test_a_port_in_use_stops_the_start_and_frees_the_others(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "hosts.yaml"
    path = tmp_path / "socket"
    with taken_port() as port:
        places = {"balance": f"['unix:{path}', '{ANY}']", "status": ANY, "update": ANY} | {
            kind: f"['{ANY}', '127.0.0.1:{port}']"
        }
        listen = ", ".join(f"{name}: {place if place[0] == '[' else repr(place)}" for name, place in places.items())
        file.write_text(alone(f"{ONE}listen: {{{listen}}}\n"))
        with pytest.raises(SystemExit) as stopped:
            make(file)
    assert str(stopped.value) == (
        f"distbal: cannot listen on 127.0.0.1:{port}: it is in use, perhaps by another distbal or by the Tcl daemon"
        " (ss -ltnp shows by whom)"
    )
    assert not path.exists()


@pytest_twisted.ensureDeferred
async def test_it_lends_shows_and_listens(tmp_path: Path, log: Lines) -> None:
    async with balancer(tmp_path, f"hosts: [alpha/1, beta/2]\n{LISTEN}") as one:
        ports = one.ports
        assert (
            f"hosts: 2, slots: 3, policy: fastest-first; listening on balance {ports['balance']}, status {ports['status']},"
            f" update {ports['update']}" in log
        )
        client = await one.client()
        await client.hears(b"alpha\r\n")
        await one.say(b"beta down\n")
        page = await one.page()
        assert (page.balance_port, page.status_port) == (ports["balance"], ports["status"])
        assert [(host.name, host.up) for host in page.hosts] == [("alpha", True), ("beta", False)]
        assert [(served.address, served.host) for served in page.served] == [("127.0.0.1", "alpha")]
        await client.leave()
        await one.await_leases(0)
    assert not any(takes_connections(port) for port in ports.values())
    assert "beta is now down, says the update port" in log


@pytest_twisted.ensureDeferred
async def test_stop_closes_connections_and_gives_sighup_back(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    async with balancer(tmp_path, f"{ONE}queue: {{wait: 1000}}\n{LISTEN}") as one:
        assert signal.getsignal(signal.SIGHUP) == one.service._hang_up
        served, waits = await one.client(), await one.client()
        await one.await_waiters(1)
    assert signal.signal(signal.SIGHUP, before) is not_yet
    await until(lambda: served.over and waits.over, "the end of both")
    assert sorted([served.heard, waits.heard]) == [b"", b"alpha\r\n"]


@pytest_twisted.ensureDeferred
async def test_stop_tells_what_became_of_those_who_came(tmp_path: Path, log: Lines) -> None:
    async with balancer(tmp_path, f"{ONE}queue: {{wait: 0.05}}\n{LISTEN}") as one:
        served = await one.client()
        await one.await_leases(1)
        await (await one.client()).ends()
        assert await one.reload(f"{ONE}{LISTEN}")
        for _ in range(2):
            await (await one.client(waits_behind=0)).leave()
            await one.await_waiters(0)
        await served.leave()
        await one.await_leases(0)
    (line,) = [text for text in log.of("info") if text.startswith("slots lent")]
    assert line == "slots lent since the start: 1; clients that left while they waited: 2; refused after queue.wait: 1"


@pytest_twisted.ensureDeferred
async def test_a_service_that_was_never_started_stops(tmp_path: Path) -> None:
    file = tmp_path / "hosts.yaml"
    file.write_text(alone(f"{ONE}listen: {{balance: '{ANY}', status: 'unix:{tmp_path}/status', update: null}}\n"))
    service = make(file)
    port = service.serving.opened[0].port
    assert takes_connections(port)
    await service.stopService()
    assert not takes_connections(port)
    assert not (tmp_path / "status").exists()


@pytest_twisted.ensureDeferred
async def test_what_is_doubtful_is_a_warning(tmp_path: Path, log: Lines) -> None:
    async with balancer(tmp_path, f"hosts: [alpha]\n{LISTEN}") as one:
        (warning,) = log.of("warn")
        assert warning.startswith(f"{one.file}:1: hosts[0]: alpha has no number of slots, and so 4")
        assert await one.reload(f"hosts:\n  - alpha\n{LISTEN}")
        assert log.of("warn")[1].startswith(f"{one.file}:2: hosts[0]: alpha has no number of slots")


@pytest_twisted.ensureDeferred
async def test_too_few_descriptors_for_the_slots(tmp_path: Path, log: Lines) -> None:
    limit = descriptors.raise_limit()
    hosts = limit // MOST_SLOTS + 1
    file = tmp_path / "hosts.yaml"
    file.write_text(alone(f"hosts: [{', '.join(f'box{number}/{MOST_SLOTS}' for number in range(hosts))}]\n{LISTEN}"))
    service = make(file)
    await service.stopService()
    slots = hosts * MOST_SLOTS
    (warning,) = [text for text in log.of("warn") if "limit on open descriptors" in text]
    room = int(warning.split("room for ")[1].split()[0])
    kept = descriptors.RESERVE + 2 * descriptors.crowd(limit)
    assert limit - kept - 1000 < room < limit - kept
    assert warning == (
        f"the limit on open descriptors is {limit}, which leaves room for {room} clients: for {slots} slots, and as many"
        f" waiting, raise it to {2 * slots + limit - room} (LimitNOFILE= in the unit, ulimit -Hn in a shell)"
    )


@pytest_twisted.ensureDeferred
async def test_enough_descriptors_are_no_warning(tmp_path: Path, log: Lines) -> None:
    file = tmp_path / "hosts.yaml"
    file.write_text(alone(ONE + LISTEN))
    await make(file).stopService()
    assert log.of("warn") == []


@pytest_twisted.ensureDeferred
async def test_the_clock_never_goes_back(tmp_path: Path) -> None:
    clock = Clock()
    never_back(clock)
    assert clock.seconds is time.monotonic
    busy = Clock()
    busy.callLater(1, int)
    before = busy.seconds
    never_back(busy)
    assert busy.seconds == before
    file = tmp_path / "hosts.yaml"
    file.write_text(alone(ONE + LISTEN))
    await make(file).stopService()
    assert reactor.seconds is time.monotonic


@pytest_twisted.ensureDeferred
async def test_hosts_that_do_not_exist_stop_nothing(tmp_path: Path, log: Lines) -> None:
    async with balancer(tmp_path, f"hosts: [no-such-host.invalid/1, '192.0.2.1:3632/1']\n{LISTEN}") as one:
        client = await one.client()
        await client.hears(b"no-such-host.invalid\r\n")
        assert await one.reload(f"hosts: [neither-this.invalid/1, no-such-host.invalid/1]\n{LISTEN}")
        other = await one.client()
        await other.hears(b"neither-this.invalid\r\n")
        await client.leave()
        await other.leave()


# -- Twisted's endpoints, and machines without epoll --------------------------------------------------------------------------

ENDPOINT = "tcp:0:interface=127.0.0.1"
ENDPOINTS = f"listen: {{balance: '{ENDPOINT}', status: '{ENDPOINT}:backlog=9', update: '{ENDPOINT}:backlog=8'}}\n"


@pytest_twisted.ensureDeferred
async def test_endpoints_serve_as_sockets_do(tmp_path: Path) -> None:
    async with balancer(tmp_path, ONE + ENDPOINTS) as one:
        await _talk_on_all_ports(one)
        ports = one.ports
    assert not any(takes_connections(port) for port in ports.values())


@pytest_twisted.ensureDeferred
async def test_without_epoll_the_reactor_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "available", False)
    async with balancer(tmp_path, ONE + LISTEN) as one:
        await _talk_on_all_ports(one)
        ports = one.ports
    assert not any(takes_connections(port) for port in ports.values())


async def _talk_on_all_ports(one: Balancer) -> None:
    first = await one.client()
    await first.hears(b"alpha\r\n")
    second = await one.client(waits_behind=0)
    page = await one.page()
    assert (page.balance_port, page.status_port) == (one.port("balance"), one.port("status"))
    assert ([client.host for client in page.served], len(page.waiting)) == (["alpha"], 1)
    await one.say(b"alpha down\n")
    assert not one.hosts()["alpha"].up
    await first.leave()
    await one.await_leases(0)
    await one.say(b"alpha up\n")
    await second.hears(b"alpha\r\n")
    await second.leave()
    await one.await_leases(0)


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("tcp:{port}:interface=127.0.0.1", "Address already in use"),
        ("nosuchkind:coop=3", "nosuchkind"),
        ("tcp:0:interface=192.0.2.77", "annot assign requested address"),
        ("systemd:domain=INET:index=77", "no such socket was handed over"),
        ("systemd:domain=INET:name=distbal", "no such socket was handed over"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_an_endpoint_that_cannot_listen_stops_the_start(
    tmp_path: Path, logged_errors: LoggedErrors, place: str, why: str
) -> None:
    with taken_port() as port:
        place = place.format(port=port)
        file = tmp_path / "hosts.yaml"
        file.write_text(alone(f"{ONE}listen: {{balance: '{ANY}', status: '{place}', update: null}}\n"))
        service = make(file)
        with pytest.raises(SystemExit) as stopped:
            service.startService()
        await service.stopService()
    sentence = f"cannot listen on {place}: "
    assert str(stopped.value).startswith(f"distbal: {sentence}")
    assert why in str(stopped.value)
    assert len(str(stopped.value)) > len(f"distbal: {sentence}") + 5
    assert [event["log_level"].name for event in logged_errors.flush()] == ["critical"]


@pytest_twisted.ensureDeferred
async def test_a_hang_up_before_the_start_is_over_ends_nothing(tmp_path: Path) -> None:
    """As when `systemctl reload` follows a start at once."""
    file = tmp_path / "hosts.yaml"
    file.write_text(alone(f"{ONE}{LISTEN}"))
    service = make(file)
    os.kill(os.getpid(), signal.SIGHUP)
    await service.stopService()
    assert signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN, "what we start would inherit that"


@pytest_twisted.ensureDeferred
async def test_systemd_hears_when_it_serves_and_when_it_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        async with balancer(tmp_path, f"{ONE}{LISTEN}"):
            assert systemd.recv(100) == b"READY=1"
            with pytest.raises(BlockingIOError):
                systemd.recv(100)
        assert systemd.recv(100) == b"STOPPING=1"
