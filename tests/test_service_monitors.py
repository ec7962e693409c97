"""Monitors in the whole service: hosts that go down and come back, reloads, two sources that disagree, and the end."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest_twisted

from tests.services import LISTEN, Balancer, Lines, balancer, said, until
from tests.support import LoggedErrors


@contextmanager
def listener(port: int = 0) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", port)) as sock:
        yield sock.getsockname()[1]


def text(port: int, monitors: str = "{tcp: {interval: 0.1, fall: 2, rise: 1}}") -> str:
    return f"hosts: ['127.0.0.1:{port}/2']\n{LISTEN}monitors: {monitors}\n"


def only(one: Balancer) -> bool:
    (host,) = one.hosts().values()
    return host.up


async def down(one: Balancer) -> None:
    await until(lambda: not only(one), "a host that is down")


async def up(one: Balancer) -> None:
    await until(lambda: only(one), "a host that is up")


@pytest_twisted.ensureDeferred
async def test_a_host_goes_down_and_comes_back(tmp_path: Path) -> None:
    with listener() as port:
        pass
    with Lines() as lines:
        async with balancer(tmp_path, text(port)) as one:
            assert "monitors: tcp of 1 host" in lines
            await down(one)
            page = await one.page()
            assert [host.up for host in page.hosts] == [False]
            client = await one.client(waits_behind=0)
            with listener(port):
                await client.hears(f"127.0.0.1:{port}\r\n".encode())
                assert only(one)
            # the lease that runs is not cut
            await down(one)
            assert one.counts() == (1, 0)
            await client.leave()
    assert f"127.0.0.1:{port} is down, says tcp: it refused the connection" in lines
    assert f"127.0.0.1:{port} is up, says tcp: it takes connections" in lines


@pytest_twisted.ensureDeferred
async def test_no_source_overrules_another(tmp_path: Path) -> None:
    with listener() as port:
        async with balancer(tmp_path, text(port)) as one:
            await until(lambda: one.service.monitors.states()[0].checks > 1, "a check")
            await one.say(f"127.0.0.1:{port} down\n".encode())
            await down(one)
            checks = one.service.monitors.states()[0].checks
            await until(lambda: one.service.monitors.states()[0].checks > checks + 2, "more checks")
            assert not only(one)
            await one.say(f"127.0.0.1:{port} up\n".encode())
            await up(one)
    async with balancer(tmp_path, text(port)) as one:
        await down(one)
        await one.say(f"127.0.0.1:{port} up\n".encode())
        assert not only(one)


@pytest_twisted.ensureDeferred
async def test_a_reload_changes_who_is_asked(tmp_path: Path, logged_errors: LoggedErrors) -> None:
    with listener() as port:
        pass
    async with balancer(tmp_path, text(port)) as one:
        await down(one)
        assert await one.reload(text(port, "{}"))
        assert only(one)
        assert one.service.monitors.states() == ()
        assert await one.reload(text(port))
        await down(one)
        assert not await one.reload(text(port, "{tcp: {interval: never}}"))
        assert "monitors.tcp.interval" in said(logged_errors)[0]
        assert not only(one)
        (before,) = one.service.monitors.states()
        assert await one.reload(text(port).replace("/2", "/3"))
        (after,) = one.service.monitors.states()
        assert after.checks >= before.checks, "a monitor that stays as it is goes on"


@pytest_twisted.ensureDeferred
async def test_the_end_leaves_nothing_behind(tmp_path: Path) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.create_connection(full.getsockname()):
            port = full.getsockname()[1]
            async with balancer(tmp_path, text(port, "{tcp: {interval: 0.1, timeout: 60}}")) as one:
                await until(lambda: one.service.monitors.states()[0].checks > 0, "a check")
