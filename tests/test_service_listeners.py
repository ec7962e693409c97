"""A reload opens, keeps and closes listeners, and tells in words what it cannot open; connections stay."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from tests.services import (
    ANY,
    LISTEN,
    ONE,
    balancer,
    connect,
    leave,
    said,
    taken_port,
    takes_connections,
    until,
)
from tests.support import LoggedErrors, free_port


@pytest.fixture(autouse=True)
def reactor_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reactor's own clock comes back after each test."""
    monkeypatch.setattr(reactor, "seconds", reactor.seconds)


def modes(directory: Path) -> dict[str, int]:
    """Who may connect to each Unix socket there."""
    return {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir() if path.is_socket()}


# -- listeners ----------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_port_in_use_changes_nothing(tmp_path: Path, logged_errors: LoggedErrors) -> None:
    async with balancer(tmp_path, ONE + LISTEN) as one:
        ports = one.ports
        fresh = free_port()
        with taken_port() as port:
            listen = f"listen: {{balance: '127.0.0.1:{fresh}', status: '127.0.0.1:{port}', update: null}}\n"
            assert not await one.reload(f"hosts: [alpha/1, beta/1]\n{listen}")
        assert said(logged_errors)[0].startswith(f"cannot listen on 127.0.0.1:{port}: it is in use")
        assert (one.ports, set(one.hosts())) == (ports, {"alpha"})
        assert not takes_connections(fresh)
        client = await one.client()
        await client.hears(b"alpha\r\n")
        await leave(one, client)
        assert (await one.page()).status_port == ports["status"]
        # the same file is good when the other program has gone
        assert await one.service.reload()
        assert one.ports == {"balance": fresh, "status": port}


@pytest_twisted.ensureDeferred
async def test_listeners_come_and_go(tmp_path: Path) -> None:
    hosts = "hosts: [alpha/1, {name: tau, slots: 1, pools: [arm]}]\n"
    async with balancer(tmp_path, hosts + LISTEN) as one:
        ports = one.ports
        stays = await one.client()
        await stays.hears(b"alpha\r\n")
        fresh = free_port()
        more = f"listen: {{balance: ['{ANY}', {{at: '127.0.0.1:{fresh}', pool: arm}}], status: '{ANY}', update: null}}\n"
        assert await one.reload(hosts + more)
        assert [one.port("balance"), one.port("balance", 1), one.port("status")] == [ports["balance"], fresh, ports["status"]]
        assert not takes_connections(ports["update"])
        other = await connect(fresh)
        await other.hears(b"tau\r\n")
        assert await one.reload(hosts + LISTEN)
        assert not takes_connections(fresh)
        assert takes_connections(one.port("update"))
        assert (other.over, stays.over) == (False, False)
        await one.await_leases(2)
        await leave(one, other, stays)


@pytest_twisted.ensureDeferred
async def test_a_listener_goes_and_its_clients_stay(tmp_path: Path) -> None:
    async with balancer(tmp_path, ONE + LISTEN) as one:
        ports = one.ports
        served = await one.client(waits_behind=-1)
        waits = await one.client(waits_behind=0)
        fresh = free_port()
        assert await one.reload(f"{ONE}listen: {{balance: '127.0.0.1:{fresh}', status: '{ANY}', update: '{ANY}'}}\n")
        assert one.ports == ports | {"balance": fresh}
        assert not takes_connections(ports["balance"])
        assert (await one.page()).balance_port == fresh
        await served.leave()
        await waits.hears(b"alpha\r\n")
        await leave(one, waits)


@pytest.mark.parametrize("place", ["{port}", "0.0.0.0:{port}", "'[::]:{port}'"])
@pytest_twisted.ensureDeferred
async def test_a_listener_on_its_own_port_is_refused_in_words(tmp_path: Path, logged_errors: LoggedErrors, place: str) -> None:
    port = free_port()
    off = "status: null, update: null"
    async with balancer(tmp_path, f"{ONE}listen: {{balance: {port}, {off}}}\n") as one:
        moved = {"{port}": f"127.0.0.1:{port}"}.get(place, place.format(port=port))
        assert not await one.reload(f"{ONE}listen: {{balance: {moved}, {off}}}\n")
        first, second, _ = said(logged_errors)
        assert first.startswith(f"cannot listen on {moved.strip(chr(39))}: it is in use")
        assert second == f"distbal itself listens on {port}: to listen there otherwise, restart it"
        client = await one.client()
        await client.hears(b"alpha\r\n")
        await leave(one, client)


@pytest_twisted.ensureDeferred
async def test_unix_sockets_come_and_go(tmp_path: Path, logged_errors: LoggedErrors) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    text = f"{ONE}listen: {{balance: 'unix:{first}', status: 'unix:{tmp_path}/status', update: 'unix:{tmp_path}/update'}}\n"
    async with balancer(tmp_path, text) as one:
        # clients may be of any account; who changes something is of the owner's or the group's
        assert modes(tmp_path) == {"first": 0o666, "status": 0o666, "update": 0o660}
        client = await connect(str(first))
        await client.hears(b"alpha\r\n")
        page = await connect(str(tmp_path / "status"))
        await page.ends()
        assert page.heard.startswith(b"BalanceTcpPort = 0, StatusTcpPort = 0\r\n")
        update = await connect(str(tmp_path / "update"))
        update.transport.write(b"alpha down\n")
        await update.ends()
        assert not one.hosts()["alpha"].up
        # a path that somebody listens on, this very process included, stays whose it is
        assert not await one.reload(
            text.replace("status: 'unix:", f"status: ['unix:{first}', 'unix:").replace("status'", "status']")
        )
        said(logged_errors)
        assert first.exists()
        assert await one.reload(text.replace(str(first), str(second)))
        assert (first.exists(), second.exists(), client.over) == (False, True, False)
        await leave(one, client)
    assert modes(tmp_path) == {}


@pytest_twisted.ensureDeferred
async def test_an_endpoint_is_taken_in_later(tmp_path: Path) -> None:
    async with balancer(tmp_path, ONE + LISTEN) as one:
        place = "tcp:0:interface=127.0.0.1"
        assert await one.reload(f"{ONE}listen: {{balance: ['{ANY}', '{place}'], status: '{ANY}', update: '{ANY}'}}\n")
        await until(lambda: one.port("balance", 1) != 0, "the endpoint's port")
        client = await connect(one.port("balance", 1))
        await client.hears(b"alpha\r\n")
        await leave(one, client)


@pytest_twisted.ensureDeferred
async def test_an_endpoint_that_could_not_listen_is_tried_again(tmp_path: Path, logged_errors: LoggedErrors) -> None:
    async with balancer(tmp_path, ONE + LISTEN) as one:
        with taken_port() as port:
            place = f"tcp:{port}:interface=127.0.0.1"
            text = f"{ONE}listen: {{balance: ['{ANY}', '{place}'], status: '{ANY}', update: '{ANY}'}}\n"
            await one.reload(text)
            assert said(logged_errors)[0].startswith(f"cannot listen on {place}: ")
        assert await one.service.reload()
        client = await connect(port)
        await client.hears(b"alpha\r\n")
        await leave(one, client)


@pytest_twisted.ensureDeferred
async def test_an_endpoint_changes_on_its_own_port(tmp_path: Path) -> None:
    place = f"tcp:{free_port()}:interface=127.0.0.1"
    async with balancer(tmp_path, f"{ONE}listen: {{balance: '{place}', status: null, update: null}}\n") as one:
        stays = await one.client()
        await stays.hears(b"alpha\r\n")
        port = one.port("balance")
        assert await one.reload(f"hosts: [alpha/2]\nlisten: {{balance: '{place}:backlog=99', status: null, update: null}}\n")
        client = await connect(port)
        await client.hears(b"alpha\r\n")
        await leave(one, client, stays)
