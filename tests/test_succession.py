"""What an upgrade asks of the whole service, up to the exec and back from it; and a start whose file is damaged by now."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from distbal import config, inheritance, ledger, succession
from distbal.errors import ConfigError
from distbal.handover import FILE_NOTE, HandoverError, dry_run, left_sockets
from distbal.inheritance import HANDOVER, Inheritance
from distbal.keeperwire import Role
from distbal.ledger import Ledger
from distbal.starting import load
from distbal.succession import copied
from tests.loops import open_descriptors
from tests.peers import Peer
from tests.services import LISTEN, Lines, balancer, connect, leave, until
from tests.support import LoggedErrors

FARM = f"hosts: [alpha/1]\n{LISTEN}"
LINE = b"alpha\r\n"


def fired(deferred: Deferred[Any]) -> list[Any]:
    came: list[Any] = []
    deferred.addBoth(came.append)
    return came


# -- copies


@pytest.mark.parametrize("size", [0, 1, 4096, (1 << 20) - 1, 1 << 20, (3 << 20) + 17])
def test_a_copy_is_the_same_and_another(size: int) -> None:
    content = os.urandom(size)
    one = os.memfd_create("one")
    os.write(one, content)
    os.lseek(one, 3, os.SEEK_SET)
    other = copied(one)
    os.pwrite(one, b"changed", 0)
    assert os.pread(other, size + 1, 0) == content
    assert not os.get_inheritable(other)
    os.close(one)
    os.close(other)


def test_a_copy_that_cannot_be_made_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    one = os.memfd_create("one")
    os.write(one, b"content")
    before = open_descriptors()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        copied(one)
    assert open_descriptors() == before
    os.close(one)


@pytest_twisted.ensureDeferred
async def test_a_copy_of_all_accounts_is_made_while_the_service_goes_on(tmp_path: Path) -> None:
    async with balancer(tmp_path, FARM) as one:
        leased = await one.client()
        await leased.hears(LINE)
        await one.client(waits_behind=0)
        before = open_descriptors()
        for _ in range(2):
            slots, notes = one.service.succession.copy_of_the_ledger()
            book = Ledger(slots, notes)
            states = [account.state for account in book.accounts() if account.kind == ledger.CLIENT]
            assert sorted(states) == [ledger.WAITING, ledger.LEASED]
            assert FILE_NOTE in book.read_notes()
            dry_run(one.service.settings, book)
            book.close()
        assert open_descriptors() == before
        assert one.counts() == (1, 1)


# -- a dry run


@contextmanager
def book_of(*changes: tuple[str, bytes]) -> Iterator[Ledger]:
    book = Ledger()
    book.enter_client(book.name("balance default"), "gone", 7, 1.0, 2.0, "::1", 1)
    for key, value in changes:
        book.note(key, value)
    try:
        yield book
    finally:
        book.close()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ([("totals", b"{")], "totals"),
        ([("host/alpha", b"{}"), ("history", b"17")], "host/alpha.*\n.*history"),
        ([], ""),
        ([("a key of another version", b"\xff")], ""),
    ],
)
def test_what_could_not_be_taken_up_is_refused_a_line_for_each(changes: list[tuple[str, bytes]], why: str) -> None:
    settings = config.parsed("hosts.yaml", FARM).settings
    with book_of(*changes) as book:
        if not why:
            dry_run(settings, book)
            return
        with pytest.raises(HandoverError, match=f"(?s){why}"):
            dry_run(settings, book)


def test_accounts_that_cannot_be_read_are_refused() -> None:
    settings = config.parsed("hosts.yaml", FARM).settings
    with book_of() as book:
        os.pwrite(book.slots, b"\xee", ledger.SLOT + 1)
        with pytest.raises(HandoverError, match="the accounts of the running daemon cannot be read: an account has"):
            dry_run(settings, book)
    with book_of() as book:
        book.enter_client(0, "gone", 7, 1.0, 2.0, "::1", 1)
        with pytest.raises(HandoverError, match="cannot be taken up: the number 7 is another ticket's"):
            dry_run(settings, book)


# -- up to the exec, and back from it


@pytest_twisted.ensureDeferred
async def test_after_an_exec_that_failed_all_is_as_before(tmp_path: Path) -> None:
    async with balancer(tmp_path, FARM) as one:
        leased, waits = await one.client(), await one.client(waits_behind=0)
        before = open_descriptors()
        for _ in range(3):
            variables, descriptors = one.service.succession.hand_over()
            assert list(variables) == [HANDOVER]
            table = json.loads(os.pread(int(variables[HANDOVER]), 1 << 20, 0))
            roles = sorted(role for _, role, _ in table["table"])
            listeners = [Role.LISTENER] * len(one.service.serving.opened)
            assert roles == sorted([Role.LEDGER, Role.NOTES, *listeners, Role.CLIENT, Role.CLIENT])
            assert {descriptor for _, _, descriptor in table["table"]} | {int(variables[HANDOVER])} == set(descriptors)
            for descriptor in descriptors:
                os.fstat(descriptor)
            with Peer(("127.0.0.1", one.port("balance"))) as late:
                await until(lambda: True)
                assert one.counts() == (1, 1), "nobody is served meanwhile"
                one.service.succession.go_on()
                await one.await_waiters(2)
                assert late.silence()
            await one.await_waiters(1)
            assert open_descriptors() == before
        await leased.leave()
        await waits.hears(LINE)
        assert not waits.over


@pytest_twisted.ensureDeferred
async def test_monitors_stop_and_ask_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as host:
        host.setblocking(False)
        port = host.getsockname()[1]
        text = f"hosts: ['127.0.0.1:{port}/2']\n{LISTEN}monitors: {{tcp: {{interval: 0.1, fall: 2, rise: 1}}}}\n"

        def asked() -> bool:
            try:
                host.accept()[0].close()
            except BlockingIOError:
                return False
            return True

        async with balancer(tmp_path, text) as one:
            await until(asked, "a check")
            (verdict,) = [host.health.verdicts for host in one.service.leases.scheduler.hosts.values()]
            await until(lambda: bool(next(iter(one.service.leases.scheduler.hosts.values())).health.verdicts), "a verdict")
            await one.service.succession.prepare_to_hand_over()
            while asked():
                pass
            verdicts = next(iter(one.service.leases.scheduler.hosts.values())).health.verdicts
            assert [verdict.up for verdict in verdicts] == [True], "what was said holds"
            one.service.succession.hand_over()
            one.service.succession.go_on()
            await until(asked, "another check")
            assert len(verdict) <= 1


ENDPOINT = "hosts: [alpha/1, beta/1]\nlisten: {balance: ['127.0.0.1:0', 'tcp:0:interface=127.0.0.1']}\n"


@pytest_twisted.ensureDeferred
async def test_clients_of_endpoints_are_waited_for_and_nobody_else_is_taken_in_there(tmp_path: Path) -> None:
    async with balancer(tmp_path, ENDPOINT) as one:
        await until(lambda: one.port("balance", 1) != 0, "the endpoint's port")
        job = await connect(one.port("balance", 1))
        await job.hears(LINE)
        came = fired(one.service.succession.prepare_to_hand_over())
        late = await connect(one.port("balance", 1))
        other = await one.client()
        await other.hears(b"beta\r\n")
        assert one.counts() == (2, 0)
        assert came == []
        await job.leave()
        await until(lambda: bool(came), "all that cannot be carried gone")
        assert came == [None]
        assert late.heard == b""
        one.service.succession.go_on()
        await late.hears(LINE)
        await leave(one, late, other)


@pytest_twisted.ensureDeferred
async def test_clients_of_endpoints_are_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(succession, "DRAIN_TIME", 0.05)
    with Lines() as lines:
        async with balancer(tmp_path, ENDPOINT) as one:
            await until(lambda: one.port("balance", 1) != 0, "the endpoint's port")
            job = await connect(one.port("balance", 1))
            await job.hears(LINE)
            await one.service.succession.prepare_to_hand_over()
            assert "1 clients of Twisted endpoints have not finished: they are cut off" in lines
            one.service.succession.go_on()
            assert not job.over
            await leave(one, job)


@pytest_twisted.ensureDeferred
async def test_a_line_that_has_begun_is_heard_and_nobody_else_is_taken_in(tmp_path: Path) -> None:
    async with balancer(tmp_path, f"hosts: [alpha/1]\n{LISTEN}") as one:
        says = await connect(one.port("update"))
        says.transport.write(b"alpha do")
        await until(lambda: one.service._frontends.conversations == 1, "a conversation")
        came = fired(one.service.succession.take_leave())
        late = await connect(one.port("status"))
        await (await one.client()).hears(LINE)
        assert (came, late.heard) == ([], b"")
        says.transport.write(b"wn\n")
        await until(lambda: bool(came), "the end of the conversation")
        assert came == [None]
        assert not one.service.leases.scheduler.hosts["alpha"].up
        assert late.heard == b""
        one.service.succession.go_on()
        await late.ends()
        assert b"alpha" in late.heard


@pytest_twisted.ensureDeferred
async def test_what_is_prepared_can_be_broken_off(tmp_path: Path) -> None:
    async with balancer(tmp_path, ENDPOINT) as one:
        await until(lambda: one.port("balance", 1) != 0, "the endpoint's port")
        job = await connect(one.port("balance", 1))
        await job.hears(LINE)
        preparing = one.service.succession.prepare_to_hand_over()
        preparing.addErrback(lambda _: None)
        preparing.cancel()
        one.service.succession.go_on()
        late = await connect(one.port("balance", 1))
        await late.hears(b"beta\r\n")
        await leave(one, job, late)


@pytest_twisted.ensureDeferred
async def test_without_a_hot_loop_there_are_sockets_to_hand_over_and_jobs_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distbal import loop

    monkeypatch.setattr(loop, "available", False)
    async with balancer(tmp_path, FARM) as one:
        assert one.service.serving.loop is None
        client = await one.client()
        await client.hears(LINE)
        came = fired(one.service.succession.prepare_to_hand_over())
        await until(lambda: one.service.serving.carried_by_transports == 1)
        assert came == []
        await client.leave()
        await until(lambda: bool(came))
        before = open_descriptors()
        variables, _ = one.service.succession.hand_over()
        table = json.loads(os.pread(int(variables[HANDOVER]), 1 << 20, 0))["table"]
        assert Role.CLIENT not in [role for _, role, _ in table]
        assert Role.LISTENER in [role for _, role, _ in table]
        one.service.succession.go_on()
        assert open_descriptors() == before
        again = await one.client()
        await again.hears(LINE)
        await leave(one, again)


@pytest_twisted.ensureDeferred
async def test_the_next_image_finds_all_of_it(tmp_path: Path) -> None:
    """What is handed over, read as the next image would: of its own duplicates."""
    async with balancer(tmp_path, FARM) as one:
        client = await one.client()
        await client.hears(LINE)
        variables, _ = one.service.succession.hand_over()
        content = json.loads(os.pread(int(variables[HANDOVER]), 1 << 20, 0))
        content["table"] = [[ident, role, os.dup(descriptor)] for ident, role, descriptor in content["table"]]
        file = os.memfd_create("table")
        os.write(file, json.dumps(content).encode())
        found = inheritance.inherited({HANDOVER: str(file)})
        one.service.succession.go_on()
        assert found.began == "upgrade"
        assert found.ledger is not None
        (account,) = [entry for entry in found.ledger.accounts() if entry.kind == ledger.CLIENT]
        assert (account.state, account.host, account.flags) == (ledger.LEASED, "alpha", ledger.TOLD)
        left = left_sockets(found)
        specs = [opened.spec for opened in one.service.serving.opened]
        there = left.sort(specs)
        assert sorted(there) == list(range(len(specs)))
        for sock in there.values():
            sock.close()
        found.close()
        found.ledger.close()


# -- a file that is damaged by now


def kept_text(text: bytes | None) -> Inheritance:
    book = Ledger()
    if text is not None:
        book.note(FILE_NOTE, text)
    return Inheritance(ledger=book)


def test_a_damaged_file_is_gone_on_without(tmp_path: Path, logged_errors: LoggedErrors) -> None:
    file = tmp_path / "hosts.yaml"
    left = kept_text(b"hosts: [alpha/3]\n")
    assert left.ledger is not None
    for damage in ("hosts: [alpha/x", "hosts: []", None):
        if damage is None:
            file.unlink()
        else:
            file.write_text(damage)
        assert [host.slots for host in load(str(file), left.ledger.read_notes().get(FILE_NOTE)).settings.farm.hosts] == [3]
        said = [event.get("reason") or event["log_format"] for event in logged_errors.flush()]
        assert len(said) >= 2
        assert said[-1].endswith("distbal goes on by what it said when it was last taken in")
    file.write_text("hosts: [beta/2]\n")
    assert [host.name for host in load(str(file), left.ledger.read_notes().get(FILE_NOTE)).settings.farm.hosts] == ["beta"]
    left.ledger.close()


@pytest.mark.parametrize("note", [None, b"\xff\xfe", b"hosts: [gamma/y]"])
def test_where_nothing_better_was_left_a_damaged_file_is_refused_for_what_is_wrong_with_it(
    tmp_path: Path, note: bytes | None
) -> None:
    file = tmp_path / "hosts.yaml"
    file.write_text("hosts: [alpha/x]\n")
    left = kept_text(note)
    assert left.ledger is not None
    with pytest.raises(ConfigError, match=r"not .x."):
        load(str(file), left.ledger.read_notes().get(FILE_NOTE))
    with pytest.raises(ConfigError, match=r"not .x."):
        load(str(file), None)
    left.ledger.close()
