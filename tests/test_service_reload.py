"""A reload takes all of a file in, or nothing of it: shown on the running service, with clients that stay connected."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from distbal import config
from tests.services import LISTEN, ONE, Lines, balancer, connect, leave, said, takes_connections, until
from tests.support import LoggedErrors, alone, free_port


@pytest.fixture(autouse=True)
def reactor_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reactor's own clock comes back after each test."""
    monkeypatch.setattr(reactor, "seconds", reactor.seconds)


@pytest.fixture
def log() -> Iterator[Lines]:
    with Lines() as lines:
        yield lines


# -- hosts --------------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_new_host_joins_and_those_who_wait_get_it_at_once(tmp_path: Path, log: Lines) -> None:
    async with balancer(tmp_path, ONE + LISTEN) as one:
        first = await one.client(waits_behind=-1)
        second = await one.client(waits_behind=0)
        third = await one.client(waits_behind=1)
        assert await one.reload(f"hosts: [alpha/1, beta/1]\n{LISTEN}")
        await second.hears(b"beta\r\n")
        assert (third.heard, one.counts()) == (b"", (2, 1))
        assert f"{one.file} was taken in; hosts added: 1, removed: 0, changed: 0" in log
        await leave(one, third, first, second)


@pytest_twisted.ensureDeferred
async def test_slots_change(tmp_path: Path, log: Lines) -> None:
    async with balancer(tmp_path, f"hosts: [alpha/1]\n{LISTEN}") as one:
        clients = [await one.client(waits_behind=number - 1) for number in range(3)]
        assert await one.reload(f"hosts: [alpha/3]\n{LISTEN}")
        for client in clients:
            await client.hears(b"alpha\r\n")
        assert await one.reload(f"hosts: [alpha/2]\n{LISTEN}")
        # three run on, and the next one comes in when one of two slots is free
        waits = await one.client(waits_behind=0)
        await clients[0].leave()
        await one.await_leases(2)
        assert one.counts() == (2, 1)
        await clients[1].leave()
        await waits.hears(b"alpha\r\n")
        assert log.of("info").count(f"{one.file} was taken in; hosts added: 0, removed: 0, changed: 1") == 2
        await leave(one, *clients[2:], waits)


@pytest_twisted.ensureDeferred
async def test_ranks_change(tmp_path: Path) -> None:
    async with balancer(tmp_path, f"hosts: [alpha/1, beta/1]\n{LISTEN}") as one:
        assert await one.reload(f"hosts: [beta/1, alpha/1]\n{LISTEN}")
        first = await one.client()
        await first.hears(b"beta\r\n")
        second = await one.client()
        await second.hears(b"alpha\r\n")
        await leave(one, first, second)


@pytest_twisted.ensureDeferred
async def test_a_removed_host_drains_and_is_forgotten(tmp_path: Path, log: Lines) -> None:
    async with balancer(tmp_path, f"hosts: [alpha/2, beta/1]\n{LISTEN}") as one:
        runs = await one.client()
        await runs.hears(b"alpha\r\n")
        assert await one.reload(f"hosts: [beta/1]\n{LISTEN}")
        assert f"{one.file} was taken in; hosts added: 0, removed: 1, changed: 1" in log
        alpha = one.hosts()["alpha"]
        assert (alpha.removed, alpha.available, alpha.leases) == (True, False, 1)
        assert not runs.over
        other = await one.client()
        await other.hears(b"beta\r\n")
        waits = await one.client(waits_behind=0)
        await runs.leave()
        await until(lambda: "alpha" not in one.hosts(), "alpha's end")
        assert waits.heard == b""
        await one.say(b"alpha up\n")
        assert "no host 'alpha' in the file" in log
        await leave(one, waits, other)


@pytest_twisted.ensureDeferred
async def test_verdicts_outlive_a_reload(tmp_path: Path) -> None:
    async with balancer(tmp_path, f"hosts: [alpha/1, beta/1]\n{LISTEN}") as one:
        await one.say(b"alpha down\n")
        assert await one.reload(f"hosts: [alpha/4, beta/1]\n{LISTEN}")
        assert {name: host.up for name, host in one.hosts().items()} == {"alpha": False, "beta": True}


# -- everything else ----------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_the_policy_changes(tmp_path: Path) -> None:
    async with balancer(tmp_path, f"hosts: [alpha/4, beta/4]\n{LISTEN}") as one:
        clients = [await one.client(), await one.client()]
        for client in clients:
            await client.hears(b"alpha\r\n")
        assert await one.reload(f"hosts: [alpha/4, beta/4]\npolicy: least-loaded\n{LISTEN}")
        clients.append(await one.client())
        await clients[2].hears(b"beta\r\n")
        await leave(one, *clients)


@pytest_twisted.ensureDeferred
async def test_the_order_of_the_queue_changes_and_nobody_loses_a_place(tmp_path: Path) -> None:
    async with balancer(tmp_path, f"{ONE}queue: {{order: fair}}\n{LISTEN}") as one:
        holds = await one.client(waits_behind=-1)
        waits = [await one.client(waits_behind=number) for number in range(3)]
        assert await one.reload(f"{ONE}queue: {{order: fifo}}\n{LISTEN}")
        assert one.counts() == (1, 3)
        for client in waits:
            await holds.leave()
            await client.hears(b"alpha\r\n")
            holds = client
        await leave(one, holds)


@pytest_twisted.ensureDeferred
async def test_a_bound_on_waiting_holds_for_those_who_wait_already(tmp_path: Path) -> None:
    async with balancer(tmp_path, ONE + LISTEN) as one:
        holds = await one.client(waits_behind=-1)
        waits = await one.client(waits_behind=0)
        assert await one.reload(f"{ONE}queue: {{wait: 0.01}}\n{LISTEN}")
        await waits.ends()
        assert (waits.heard, one.counts()) == (b"", (1, 0))
        assert await one.reload(ONE + LISTEN)
        patient = await one.client(waits_behind=0)
        await holds.leave()
        await patient.hears(b"alpha\r\n")
        await leave(one, patient)


@pytest_twisted.ensureDeferred
async def test_the_reply_changes(tmp_path: Path) -> None:
    async with balancer(tmp_path, f"hosts: ['alpha/2,lzo']\n{LISTEN}") as one:
        first = await one.client()
        await first.hears(b"alpha,lzo\r\n")
        assert await one.reload(f"hosts: ['alpha/2,lzo']\nreply: '{{name}}/100{{options}}'\n{LISTEN}")
        second = await one.client()
        await second.hears(b"alpha/100,lzo\r\n")
        await leave(one, first, second)


@pytest_twisted.ensureDeferred
async def test_who_may_come_changes(tmp_path: Path, log: Lines) -> None:
    async with balancer(tmp_path, f"hosts: [alpha/2]\n{LISTEN}") as one:
        inside = await one.client()
        await inside.hears(b"alpha\r\n")
        assert await one.reload(f"hosts: [alpha/2]\nallow: {{clients: [10.0.0.0/8], update: [10.0.0.0/8]}}\n{LISTEN}")
        for kind in ("balance", "status", "update"):
            stranger = await connect(one.port(kind))
            await stranger.ends()
            assert stranger.heard == b""
        assert len([line for line in log.of("warn") if "turned away" in line]) == 3
        assert (inside.over, one.counts()) == (False, (1, 0))
        assert await one.reload(f"hosts: [alpha/2]\n{LISTEN}")
        second = await one.client()
        await second.hears(b"alpha\r\n")
        await leave(one, inside, second)


# -- files that cannot be used ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "first"),
    [
        (f"hosts: [beta/0]\n{LISTEN}", ":1: hosts[0]: a host has at least 1 slot"),
        (f"hosts: [beta/1\n{LISTEN}", ":"),
        ("", ": is empty"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_bad_file_changes_nothing(tmp_path: Path, logged_errors: LoggedErrors, text: str, first: str) -> None:
    async with balancer(tmp_path, ONE + LISTEN) as one:
        before = one.service.settings
        client = await one.client()
        await client.hears(b"alpha\r\n")
        assert not await one.reload(text)
        assert one.service.settings is before
        *mistakes, last = said(logged_errors)
        assert mistakes
        assert all(mistake.startswith(f"{one.file}:") for mistake in mistakes)
        if first != ": is empty":
            assert mistakes[0].startswith(f"{one.file}{first}")
        assert last == "{path} was not taken in: nothing has changed"
        assert (client.over, one.counts()) == (False, (1, 0))
        assert await one.reload(f"hosts: [alpha/2]\n{LISTEN}")
        await leave(one, client)


@pytest_twisted.ensureDeferred
async def test_a_file_that_is_gone_changes_nothing(tmp_path: Path, logged_errors: LoggedErrors) -> None:
    async with balancer(tmp_path, ONE + LISTEN) as one:
        one.file.unlink()
        assert not await one.service.reload()
        assert said(logged_errors)[0] == f"{one.file}: cannot be read: no such file or directory"


@pytest_twisted.ensureDeferred
async def test_a_bug_in_reading_is_told_and_changes_nothing(
    tmp_path: Path, logged_errors: LoggedErrors, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with balancer(tmp_path, ONE + LISTEN) as one:
        with monkeypatch.context() as planted:
            planted.setattr(config, "load", lambda path: 1 / 0)
            assert not await one.service.reload()
        (event,) = logged_errors.flush()
        assert isinstance(event["log_failure"].value, ZeroDivisionError)
        assert await one.service.reload()


# -- one at a time ------------------------------------------------------------------------------------------------------------


class Gate:
    """Whoever reads hosts.yaml waits until the test says what stands in it."""

    def __init__(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._texts: SimpleQueue[str] = SimpleQueue()
        load = config.load

        def wait_and_load(path: str) -> config.Loaded:
            file.write_text(alone(self._texts.get(timeout=20)))
            return load(path)

        monkeypatch.setattr(config, "load", wait_and_load)

    def feed(self, text: str) -> None:
        self._texts.put(text)


@pytest_twisted.ensureDeferred
async def test_reloads_come_one_after_the_other(tmp_path: Path, log: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    async with balancer(tmp_path, ONE + LISTEN) as one:
        gate = Gate(one.file, monkeypatch)
        results: list[bool] = []
        reloads = [one.service.reload().addCallback(results.append) for _ in range(2)]
        client = await one.client()
        await client.hears(b"alpha\r\n")  # jobs go on meanwhile
        gate.feed(f"hosts: [alpha/1, beta/1]\n{LISTEN}")
        await reloads[0]
        assert (results, set(one.hosts())) == ([True], {"alpha", "beta"})
        gate.feed(f"hosts: [alpha/1, beta/1, gamma/1]\n{LISTEN}")
        await reloads[1]
        assert (results, set(one.hosts())) == ([True, True], {"alpha", "beta", "gamma"})
        assert len([line for line in log.of("info") if "hosts added: 1," in line]) == 2
        await leave(one, client)


@pytest_twisted.ensureDeferred
async def test_a_reload_that_ends_after_the_stop_does_nothing(
    tmp_path: Path, log: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = free_port()
    async with balancer(tmp_path, ONE + LISTEN) as one:
        gate = Gate(one.file, monkeypatch)
        reloads = [one.service.reload(), one.service.reload()]
        await one.service.stopService()
        for reload in reloads:
            gate.feed(f"{ONE}listen: {{balance: '127.0.0.1:{fresh}', status: null, update: null}}\n")
            assert not await reload
        assert (one.service.serving.opened, "was taken in" in log, takes_connections(fresh)) == ([], False, False)


@pytest_twisted.ensureDeferred
async def test_sighup_reloads(tmp_path: Path, log: Lines) -> None:
    async with balancer(tmp_path, ONE + LISTEN) as one:
        one.file.write_text(alone(f"hosts: [alpha/1, beta/1]\n{LISTEN}"))
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: "was taken in" in log, "the reload")
        assert set(one.hosts()) == {"alpha", "beta"}
        await until(lambda: len(one.service.admin.changes) > 0, "the record of it")
        assert [(change.verb, change.where) for change in one.service.admin.changes] == [("reload", "SIGHUP")]


@pytest_twisted.ensureDeferred
async def test_sighup_again_and_again_is_at_most_one_reload_more(
    tmp_path: Path, log: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that has yet to begin reads what is there then; a file of 10,000 hosts takes a second each time."""
    async with balancer(tmp_path, ONE + LISTEN) as one:
        gate = Gate(one.file, monkeypatch)
        for _ in range(5):
            os.kill(os.getpid(), signal.SIGHUP)
            heard: Deferred[None] = Deferred()
            reactor.callFromThread(heard.callback, None)  # type: ignore[attr-defined]
            await heard
        waiting = len(one.service._reloading.waiting)
        for number in range(waiting + 1):
            gate.feed(f"hosts: [alpha/1, beta{number}/1]\n{LISTEN}")
        await until(lambda: not one.service._reloading.locked, "the end of all reloads")
        assert waiting == 1
        assert len([line for line in log.of("info") if "was taken in" in line]) == 2
        assert set(one.hosts()) == {"alpha", "beta1"}
