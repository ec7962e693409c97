"""A new image lends before it knows more: by what the process before noted; then the file is taken in as by a reload.

The process before is a service in this very process, that has handed over and ended; the next one finds what it had.
"""

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
from twisted.internet import reactor

from distbal import inheritance, keeperwire, verbs
from distbal.admin import Who
from distbal.handover import FILE_NOTE
from distbal.hosts import AdminState
from distbal.inheritance import HANDOVER, inherited
from distbal.keeperwire import Journal, Role
from distbal.ledger import Ledger
from distbal.lending import Lending, lend_at_once
from distbal.listeners import spec_of, words
from distbal.listenspec import Listener, parse
from distbal.serving import LISTENER_NOTE
from distbal.termsnote import TERMS_NOTE
from tests.lives import Guest
from tests.services import ANY, LISTEN, Balancer, make, until
from tests.support import LoggedErrors, alone

TWO = f"hosts: [alpha/1, beta/1]\n{LISTEN}"


def start(directory: Path, text: str) -> Balancer:
    """A service that runs, and that :func:`leave` ends."""
    file = directory / "hosts.yaml"
    file.write_text(alone(text))
    return goes_on(file)


def goes_on(file: Path) -> Balancer:
    """The next process's, whole."""
    service = make(file)
    service.startService()
    return Balancer(file, service)


def do(one: Balancer, *line: str) -> None:
    """What somebody decides."""
    one.service.admin.do(verbs.parse(line), Who("ann", "test"))


async def leave(one: Balancer, *, keeper: socket.socket | None = None, notes: dict[str, bytes] | None = None) -> None:
    """The service ends, and the next process finds what it had.

    :param keeper: a channel to one, which the next process has.
    :param notes: what shall stand in the ledger in the place of what does.
    """
    succession = one.service.succession
    variables, _ = succession.hand_over()
    said = json.loads(os.pread(int(variables[HANDOVER]), 1 << 20, 0))
    given = {(ident, role): os.dup(descriptor) for ident, role, descriptor in said["table"]}
    if notes:
        book = Ledger(os.dup(given[0, Role.LEDGER]), os.dup(given[0, Role.NOTES]))
        for key, value in notes.items():
            book.note(key, value)
        book.close()
    succession.go_on()
    await one.service.stopService()
    table = inheritance.table(given, -1 if keeper is None else keeper.detach(), said["since"])
    os.environ[HANDOVER] = str(table)


@contextmanager
def lending() -> Iterator[Lending]:
    """The next process, before it has read the file."""
    found = lend_at_once(reactor, inherited(os.environ), room=100, verbose=False)
    assert found is not None
    assert found.early
    try:
        yield found
    finally:
        found.serving.stop()
        found.proxy.stop()
        found.leases.stop()
        if found.lock >= 0:
            os.close(found.lock)


def turn(found: Lending) -> None:
    assert found.serving.loop is not None
    for _ in range(4):
        found.serving.loop.doRead()


def counts(found: Lending) -> tuple[int, int]:
    now = found.leases.snapshot()
    return len(now.leases), len(now.waiters)


async def hears(guest: Guest, line: bytes) -> None:
    await until(lambda: bool(guest.hear()), f"{line!r}")
    assert guest.heard == line


@contextmanager
def guests(port: int, number: int) -> Iterator[list[Guest]]:
    came: list[Guest] = []
    try:
        came += [Guest(("127.0.0.1", port)) for _ in range(number)]
        yield came
    finally:
        for guest in came:
            guest.leave()


# -- before the file is read


@pytest_twisted.ensureDeferred
async def test_those_who_hold_and_want_slots_are_served_before_the_file_is_read(tmp_path: Path) -> None:
    one = start(tmp_path, f"hosts: [alpha/1]\nreply: '{{name}}/7{{options}}'\n{LISTEN}")
    port = one.port("balance")
    with guests(port, 1) as (first,):
        await hears(first, b"alpha/7\r\n")
        with guests(port, 2) as (second, third):
            await one.await_waiters(2)
            await leave(one)
            one.file.unlink()
            with lending() as found:
                assert counts(found) == (1, 2)
                first.leave()
                turn(found)
                assert sorted(guest.hear() for guest in (second, third)) == [b"", b"alpha/7\r\n"]
                with guests(port, 1) as (fourth,):
                    turn(found)
                    assert counts(found) == (1, 2)
                    second.leave()
                    third.leave()
                    turn(found)
                    assert fourth.hear() == b"alpha/7\r\n"


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    "decided", [("drain", "alpha", "fan"), ("down", "alpha"), ("weight", "alpha", "0"), ("remove", "alpha")]
)
async def test_what_a_person_took_out_gets_nothing_in_between(tmp_path: Path, decided: tuple[str, ...]) -> None:
    (tmp_path / "state").mkdir()
    one = start(tmp_path, f"{TWO}state: {tmp_path}/state\n")
    with guests(one.port("balance"), 1) as (first,):
        await hears(first, b"alpha\r\n")
        do(one, *decided)
        await leave(one)
        with lending() as found, guests(found.serving.port("balance"), 2) as more:
            first.leave()
            turn(found)
            assert sorted(guest.hear() for guest in more) == [b"", b"beta\r\n"]
            assert counts(found) == (1, 1)


@pytest_twisted.ensureDeferred
async def test_a_decision_holds_from_one_process_to_the_next_without_a_gap(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    one = start(tmp_path, f"{TWO}state: {tmp_path}/state\n")
    do(one, "drain", "alpha", "fan broken")
    do(one, "weight", "beta", "0.5")
    await leave(one)
    with pytest.MonkeyPatch.context() as patch:
        said: list[tuple[str, AdminState]] = []
        before = Lending.meanwhile

        def look(self: Lending, work: Any) -> Any:
            said.extend((host.spec.name, host.admin) for host in self.leases.scheduler.hosts.values())
            return before(self, work)

        patch.setattr(Lending, "meanwhile", look)
        one = goes_on(one.file)
    assert set(said) == {("alpha", AdminState.DRAIN), ("beta", AdminState.READY)}
    now = one.hosts()
    assert (now["alpha"].admin, now["alpha"].decided) == ("drain", "fan broken")
    assert [(each.source, each.weight) for each in now["beta"].verdicts] == [("admin", 500)]
    do(one, "up", "alpha")
    assert one.hosts()["alpha"].admin == "ready"
    await one.service.stopService()


@pytest_twisted.ensureDeferred
async def test_a_host_whose_decision_is_gone_does_not_stay_drained(tmp_path: Path) -> None:
    """Where nothing is kept, what people decided ends with the process."""
    one = start(tmp_path, TWO)
    do(one, "drain", "alpha", "fan broken")
    do(one, "weight", "beta", "0.5")
    await leave(one)
    one = goes_on(one.file)
    now = one.hosts()
    assert (now["alpha"].admin, now["alpha"].decided) == ("ready", "")
    assert now["beta"].verdicts == ()
    await one.service.stopService()


# -- beside the rest


@pytest_twisted.ensureDeferred
async def test_it_lends_while_the_rest_is_loaded(tmp_path: Path) -> None:
    one = start(tmp_path, TWO)
    port = one.port("balance")
    await leave(one)

    def ask() -> bytes:
        # in a thread: whoever lends is another
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            return client.recv(100)

    with lending() as found:
        assert found.meanwhile(ask) == b"alpha\r\n"
        with pytest.raises(ZeroDivisionError):
            found.meanwhile(lambda: 1 // 0)
        with pytest.raises(SystemExit, match="enough"):
            found.meanwhile(lambda: (_ for _ in ()).throw(SystemExit("enough")))
        turn(found)
        assert counts(found) == (0, 0)


# -- then the file


@pytest_twisted.ensureDeferred
async def test_a_file_that_changed_meanwhile_is_taken_in(tmp_path: Path) -> None:
    listen = f"listen: {{balance: [{{at: '{ANY}', pool: small}}, '127.0.0.2:0'], status: '{ANY}', update: '{ANY}'}}\n"
    small = (
        "hosts: [{name: alpha, slots: 1, pools: [small]}, {name: beta, slots: 1}, {name: gamma, slots: 1, pools: [small]}]\n"
    )
    one = start(tmp_path, small + listen)
    before = {one.spec.kind: one.port for one in one.service.serving.opened if one.spec.at.host == "127.0.0.1"}
    gone = one.port("balance", 1)
    with guests(before["balance"], 3) as came:
        await until(lambda: one.counts() == (2, 1))
        await until(lambda: sum(bool(guest.hear()) for guest in came) == 2)
        await leave(one)
        one.file.write_text(
            alone(
                "hosts: [beta/1, {name: gamma, slots: 2, pools: [small, default]}]\npolicy: random\n"
                f"listen: {{balance: '{ANY}', status: '{ANY}', proxy: '{ANY}', update: null}}\n"
            )
        )
        one = goes_on(one.file)
        assert one.service._lending.early
        assert {name: (host.spec.slots, host.removed, host.leases) for name, host in one.hosts().items()} == {
            "alpha": (1, True, 1),
            "beta": (1, False, 0),
            "gamma": (2, False, 2),
        }, "who waited for a small one has it"
        assert one.service.leases.scheduler.farm.policy == "random"
        assert sorted(guest.hear() for guest in came) == [b"alpha\r\n", b"gamma\r\n", b"gamma\r\n"]
        await until(lambda: one.port("status") > 0 and one.port("proxy") > 0)
        assert (one.port("balance"), one.port("status")) == (before["balance"], before["status"])
        assert [(each.spec.kind, each.spec.pool) for each in one.service.serving.opened] == [
            ("balance", "default"),
            ("status", "default"),
            ("proxy", "default"),
        ]
        for port, host in ((gone, "127.0.0.2"), (before["update"], "127.0.0.1")):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((host, port), 10)
        newcomer = await one.client()
        await newcomer.hears(b"beta\r\n")
        page = await one.page()
        assert page is not None
        await newcomer.leave()
    await one.await_leases(0)
    assert list(one.hosts()) == ["beta", "gamma"]
    await one.service.stopService()


@pytest_twisted.ensureDeferred
async def test_who_may_come_is_first_as_it_was(tmp_path: Path) -> None:
    one = start(tmp_path, f"{TWO}allow: {{clients: [10.0.0.0/8]}}\n")
    port = one.port("balance")
    await leave(one)
    with lending() as found, guests(port, 1) as (stranger,):
        turn(found)
        assert stranger.hear() == b""
        assert stranger.closed


@pytest_twisted.ensureDeferred
async def test_and_then_as_the_file_says(tmp_path: Path) -> None:
    one = start(tmp_path, f"{TWO}allow: {{clients: [10.0.0.0/8]}}\n")
    await leave(one)
    one.file.write_text(alone(f"{TWO}allow: {{clients: [loopback]}}\n"))
    one = goes_on(one.file)
    assert one.service._lending.early
    client = await one.client()
    await client.hears(b"alpha\r\n")
    await client.leave()
    await one.service.stopService()


@pytest_twisted.ensureDeferred
async def test_a_damaged_file_is_gone_on_without(tmp_path: Path, logged_errors: LoggedErrors) -> None:
    one = start(tmp_path, TWO)
    with guests(one.port("balance"), 1) as (first,):
        await hears(first, b"alpha\r\n")
        await leave(one)
        one.file.write_text("hosts: [alpha/x]\n")
        one = goes_on(one.file)
        assert one.service._lending.early
        assert one.counts() == (1, 0)
        assert list(one.hosts()) == ["alpha", "beta"]
    await one.await_leases(0)
    await one.service.stopService()
    assert len(logged_errors.flush()) == 2


# -- where the notes do not say all that it takes


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    "notes",
    [
        {TERMS_NOTE: b""},
        {TERMS_NOTE: b"{"},
        {TERMS_NOTE: b'{"policy": "best", "order": "fair", "reply": "{name}", "allow": ["any"]}'},
        {"host/alpha": b"{}"},
        {f"{LISTENER_NOTE}77": b"127.0.0.1:0 00 - telnet default client cancel"},
        {f"{LISTENER_NOTE}77": b"\xff"},
    ],
)
async def test_the_file_is_read_first(tmp_path: Path, notes: dict[str, bytes], logged_errors: LoggedErrors) -> None:
    one = start(tmp_path, TWO)
    with guests(one.port("balance"), 1) as (first,):
        await hears(first, b"alpha\r\n")
        await leave(one, notes=notes)
        one = goes_on(one.file)
        assert not one.service._lending.early
        assert one.counts() == (1, 0)
        second = await one.client()
        await second.hears(b"beta\r\n")
        await second.leave()
    await one.await_leases(0)
    await one.service.stopService()
    assert len(logged_errors.flush()) == ("host/alpha" in notes)


# -- with a keeper


@pytest_twisted.ensureDeferred
async def test_the_keeper_has_every_listening_socket_before_it_lets_go_of_those_of_before(tmp_path: Path) -> None:
    listen = f"listen: {{balance: '{ANY}', proxy: '{ANY}', status: '{ANY}', update: '{ANY}'}}\n"
    one = start(tmp_path, f"hosts: [alpha/1]\n{listen}")
    with guests(one.port("balance"), 1) as (first,):
        await hears(first, b"alpha\r\n")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        await leave(one, keeper=theirs)
        one.file.write_text(
            alone(
                "hosts: [{name: alpha, slots: 1, pools: [small]}]\n"
                f"listen: {{balance: {{at: '{ANY}', pool: small}}, update: null, status: '{ANY}', web: '{ANY}'}}\n"
            )
        )
        one = goes_on(one.file)
        assert one.service._lending.early
        held: dict[keeperwire.Key, int] = {}
        least: list[int] = []

        def hear() -> bool:
            while True:
                try:
                    packet, descriptors, _, _ = socket.recv_fds(ours, keeperwire.MAX_PACKET, keeperwire.MAX_DESCRIPTORS)
                except BlockingIOError:
                    return len([key for key in held if key[1] == Role.LISTENER]) == 3
                said = keeperwire.from_daemon(packet)
                if isinstance(said, Journal):
                    held.update(zip(said.held, descriptors, strict=True))
                    for key in said.let_go:
                        descriptor = held.pop(key, -1)
                        if descriptor >= 0:
                            os.close(descriptor)
                    least.append(len([key for key in held if key[1] == Role.LISTENER]))

        await until(hear, "three listening sockets")
        # the first batch has all that were there
        assert next(number for number in least if number) == 4
        assert min(least[least.index(4) :]) >= 3
        keeping = one.service._keeping
        assert keeping is not None
        notes = keeping.ledger.read_notes()
        noted = {int(key.removeprefix(LISTENER_NOTE)): said for key, said in notes.items() if key.startswith(LISTENER_NOTE)}
        assert {ident for ident, role in held if role == Role.LISTENER} == set(noted)
        assert sorted(spec_of(said.decode()).kind for said in noted.values()) == ["balance", "status", "web"]
        assert notes[FILE_NOTE].decode() == one.file.read_text()
        await until(lambda: TERMS_NOTE in keeping.ledger.read_notes(), "the terms")
        do(one, "slots", "alpha", "2")
        assert TERMS_NOTE not in keeping.ledger.read_notes(), "not before the host is noted with its slots"
        await until(lambda: TERMS_NOTE in keeping.ledger.read_notes(), "the terms again")
        assert json.loads(keeping.ledger.read_notes()["host/alpha"])["slots"] == 2
    await one.await_leases(0)
    await one.service.stopService()
    for descriptor in held.values():
        os.close(descriptor)
    ours.close()


# -- the words of listening sockets


@pytest.mark.parametrize(
    "spec",
    [
        Listener("balance", parse(5656)),
        Listener("balance", parse("[::1]:5656"), "small"),
        Listener("proxy", parse("127.0.0.1:0"), "small", "server", "pass"),
        Listener("status", parse("unix:/run/distbal/status")),
        Listener("admin", parse("unix:/run/distbal/admin")),
    ],
)
def test_words_are_understood_again(spec: Listener) -> None:
    assert spec_of(words(spec)) == spec


@pytest.mark.parametrize(
    "said",
    [
        "",
        "5656",
        "5656 00 - balance default client",
        "5656 01 - balance default client cancel",
        "5656 00 660 balance default client cancel",
        "5656 00 - telnet default client cancel",
        "+5656 00 - balance default client cancel",
        "nowhere 00 - balance default client cancel",
        "7 5656 00 - balance default client cancel",
    ],
)
def test_words_that_this_version_does_not_say_are_not(said: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        spec_of(said)
