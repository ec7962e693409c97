"""The proxy within the daemon: one queue with the clients of 5656, one page on 5657, pools, and what a reload does to it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from distbal import verbs
from distbal.admin import Who
from distbal.outcomes import Outcome
from distbal.proxy import splice
from distbal.proxy.pipes import KEPT
from tests.peers import Peer, until
from tests.proxies import RELAYS, Server, both_relays, gone, heard, read
from tests.services import ANY, Balancer, balancer


@pytest.fixture(autouse=True)
def reactor_clock(monkeypatch: pytest.MonkeyPatch, descriptors_stay: None) -> None:
    """The reactor's own clock comes back after each test, and what it had opened is closed."""
    monkeypatch.setattr(reactor, "seconds", reactor.seconds)


def host(server: Server, name: str = "alpha", slots: int = 1, pool: str = "default") -> str:
    return f"  - {{name: {name}, slots: {slots}, address: '127.0.0.1:{server.where[1]}', pools: [{pool}]}}\n"


def farm(relay: str, *hosts: str, more: str = "") -> str:
    listen = f"listen: {{balance: '{ANY}', status: '{ANY}', update: '{ANY}', proxy: '{RELAYS[relay]}'}}\n"
    return f"hosts:\n{''.join(hosts)}{listen}{more}"


def client(one: Balancer, kind: str, source: str = "127.0.0.1", number: int = 0) -> Peer:
    """Somebody who wants a slot, by one port or the other."""
    peer = Peer(("127.0.0.1", one.port(kind, number)), source=source)
    if kind == "proxy":
        peer.send(b"hello")
    return peer


@both_relays
@pytest.mark.parametrize(
    ("order", "turns"),
    [("fifo", [0, 1, 2, 3, 4, 5]), ("fair", [0, 3, 5, 1, 4, 2])],
)
@pytest_twisted.ensureDeferred
async def test_sessions_and_clients_of_5656_wait_in_one_queue(relay: str, order: str, turns: list[int], tmp_path: Path) -> None:
    queue = [
        ("balance", "127.0.0.1"),
        ("proxy", "127.0.0.1"),
        ("balance", "127.0.0.1"),
        ("proxy", "127.0.0.2"),
        ("balance", "127.0.0.2"),
        ("proxy", "127.0.0.3"),
    ]
    with Server() as server, ExitStack() as stack:
        async with balancer(tmp_path, farm(relay, host(server), more=f"queue: {{order: {order}}}\n")) as one:
            holder = client(one, "balance", "127.0.0.4")
            await one.await_leases(1)
            waiters = []
            for number, (kind, source) in enumerate(queue):
                waiters.append(stack.enter_context(client(one, kind, source)))
                await one.await_waiters(number + 1)
            holder.close()
            for number in turns:
                kind, source = queue[number]
                waiter = waiters[number]
                await until(
                    lambda waiter=waiter: [lease.port for lease in one.service.leases.snapshot().leases] == [waiter.port],  # type: ignore[misc]
                    f"the turn of {number}",
                )
                (lease,) = one.service.leases.snapshot().leases
                assert (lease.address, lease.host) == (source, "alpha")
                if kind == "balance":
                    assert await waiter.line() == b"alpha\r\n"
                else:
                    with await server.accept() as end:
                        assert await read(end, 5) == b"hello"
                        end.send(b"done")
                        end.close()
                        assert await heard(waiter) == (b"done", True)
                waiter.close()
            await one.await_leases(0)


@both_relays
@pytest_twisted.ensureDeferred
async def test_on_5657_a_session_is_a_client_like_any_other(relay: str, tmp_path: Path) -> None:
    with Server() as server:
        async with balancer(tmp_path, farm(relay, host(server))) as one:
            with client(one, "proxy") as served, client(one, "proxy", "127.0.0.2") as waits:
                await one.await_waiters(1)
                waiting = {(peer.sock.getsockname()[0], peer.port) for peer in (served, waits)}
                page = await one.page()
                (lease,), (waiter,) = page.served, page.waiting
                assert {(lease.address, lease.port), (waiter.address, waiter.port)} == waiting
                assert (lease.host, waiter.host) == ("alpha", "")
                assert (page.balance_port, page.idle) == (one.port("balance"), 0)
            await one.await_leases(0)
            await one.await_waiters(0)


@pytest_twisted.ensureDeferred
async def test_where_bytes_cannot_be_spliced_sessions_run_over_twisted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a libc that has no splice, while there is an epoll: clients of 5656 are served in the hot loop all the same."""
    monkeypatch.setattr(splice, "available", False)
    with Server() as server:
        async with balancer(tmp_path, farm("spliced", host(server))) as one:
            with client(one, "proxy") as peer, await server.accept() as end:
                assert await read(end, 5) == b"hello"
                (factory,) = one.service.serving._streams
                assert len(factory.sessions) == 1
                end.send(b"done")
                end.close()
                assert await heard(peer) == (b"done", True)
            with client(one, "balance") as peer:
                assert await peer.line() == b"alpha\r\n"
                assert one.service.serving.loop is not None
                assert len(one.service.serving.loop._connections) == 1
            await one.await_leases(0)


@pytest_twisted.ensureDeferred
async def test_pipes_that_are_kept_take_room_from_clients_once(tmp_path: Path) -> None:
    with Server() as server:
        listen = f"balance: null, status: null, update: null, proxy: ['{ANY}', {{at: '{ANY}', half_close: pass}}]"
        async with balancer(tmp_path, f"hosts:\n{host(server)}listen: {{{listen}}}\n") as one:
            hot_loop = one.service.serving.loop
            assert hot_loop is not None
            assert hot_loop.room - hot_loop.free() == 2 * KEPT


@both_relays
@pytest_twisted.ensureDeferred
async def test_each_proxy_has_its_pool(relay: str, tmp_path: Path) -> None:
    # two of the same would be a mistake in the file
    at = (
        [RELAYS[relay]] * 3
        if relay == "spliced"
        else [f"tcp:0:interface=127.0.0.1:backlog={backlog}" for backlog in (60, 70, 80)]
    )
    with Server() as intel, Server() as arm, Server() as mail, ExitStack() as stack:
        text = (
            f"hosts:\n{host(intel, 'intel')}{host(arm, 'arm', pool='arm')}{host(mail, 'mail', pool='mail')}"
            f"listen:\n  balance: null\n  status: null\n  update: null\n  proxy:\n"
            f"  - '{at[0]}'\n"
            f"  - {{at: '{at[1]}', pool: arm, half_close: pass}}\n"
            f"  - {{at: '{at[2]}', pool: mail, speaks_first: server}}\n"
        )
        async with balancer(tmp_path, text) as one:
            peers = [stack.enter_context(client(one, "proxy", number=number)) for number in range(3)]
            ends = [stack.enter_context(await server.accept()) for server in (intel, arm, mail)]
            for end in ends:
                assert await read(end, 5) == b"hello"
            assert sorted(lease.host for lease in one.service.leases.snapshot().leases) == ["arm", "intel", "mail"]
            for peer in peers:
                peer.half_close()
            for end in (ends[0], ends[2]):
                assert (await heard(end))[0] == b"", "cancelled"
            assert await heard(ends[1]) == (b"", True), "passed on"
            await one.await_leases(1)
            ends[1].send(b"it goes on")
            ends[1].close()
            assert await heard(peers[1]) == (b"it goes on", True)
            await one.await_leases(0)


@both_relays
@pytest_twisted.ensureDeferred
async def test_sessions_outlive_a_reload_and_their_listener(relay: str, tmp_path: Path) -> None:
    with Server() as server:
        async with balancer(tmp_path, farm(relay, host(server))) as one:
            with client(one, "proxy") as peer, await server.accept() as end:
                assert await read(end, 5) == b"hello"
                with client(one, "proxy") as waits:
                    await one.await_waiters(1)
                    where = one.port("proxy")
                    assert await one.reload(f"hosts:\n{host(server)}listen: {{balance: '{ANY}', status: null, update: null}}\n")
                    with pytest.raises(ConnectionRefusedError):
                        Peer(("127.0.0.1", where))
                    end.send(b"done")
                    end.close()
                    assert await heard(peer) == (b"done", True)
                    with await server.accept() as second:
                        assert await read(second, 5) == b"hello"
                        waits.close()
                        await one.await_leases(0)


@both_relays
@pytest_twisted.ensureDeferred
async def test_a_host_that_leaves_the_file_keeps_its_session(relay: str, tmp_path: Path) -> None:
    with Server() as old, Server() as new:
        async with balancer(tmp_path, farm(relay, host(old, "old"))) as one:
            text = one.file.read_text()
            with client(one, "proxy") as peer, await old.accept() as end:
                assert await one.reload(text.replace(host(old, "old"), host(new, "new")))
                assert await read(end, 5) == b"hello"
                end.send(b"done")
                end.close()
                assert await heard(peer) == (b"done", True)
            with client(one, "proxy") as peer, await new.accept() as end:
                assert await read(end, 5) == b"hello"
            await one.await_leases(0)
            await until(lambda: list(one.hosts()) == ["new"], "the old one forgotten")


@both_relays
@pytest_twisted.ensureDeferred
async def test_sessions_that_are_kicked_end_on_both_sides(relay: str, tmp_path: Path) -> None:
    """One that runs, and one that waits; another client's is not touched."""
    with Server() as server:
        async with balancer(tmp_path, farm(relay, host(server, slots=2))) as one:
            with client(one, "proxy") as running, await server.accept() as end:
                assert await read(end, 5) == b"hello"
                with client(one, "proxy", "127.0.0.2") as other, await server.accept() as others_end:
                    assert await read(others_end, 5) == b"hello"
                    with client(one, "proxy") as waiting:
                        await one.await_waiters(1)
                        answer = one.service.admin.do(verbs.parse(["kick", "127.0.0.1"]), Who("alice", "here"))
                        assert answer == {"text": "127.0.0.1: 1 job cut, 1 waiter sent away"}
                        await gone(running)
                        await gone(waiting)
                        await gone(end)
                        assert one.counts() == (1, 0)
                        others_end.send(b"done")
                        assert await read(other, 4) == b"done"
            await one.await_leases(0)
            first, *_ = one.service.leases.scheduler.history.jobs()
            assert first.attempts[0].outcome is Outcome.KICKED
