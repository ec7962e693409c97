"""A process is replaced: clients, leases, places in line and listening sockets go on, and nothing is said twice."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distbal import ledger
from distbal.handover import all_is_said, left_sockets, settle
from distbal.inheritance import Inheritance
from distbal.keeperwire import Role
from distbal.ledger import Ledger
from distbal.listenspec import Listener, parse
from tests.lives import ANY, Guest, Lives, lives
from tests.loops import open_descriptors
from tests.support import LoggedErrors

every_way = pytest.mark.parametrize("way", ["kept", "kept upgrade", "upgrade"])
WAYS = ["kept", "kept upgrade", "upgrade"]


def unix(path: Path) -> Listener:
    return Listener("balance", parse(f"unix:{path}"))


@pytest.fixture(params=["tcp", "unix"])
def at(request: pytest.FixtureRequest, tmp_path: Path) -> Listener:
    return ANY if request.param == "tcp" else unix(tmp_path / "socket")


@every_way
def test_leases_and_waiters_go_on_with_their_places(at: Listener, way: str) -> None:
    before = open_descriptors()
    with lives(at, way=way) as daemon:
        guests = []
        for _ in range(4):
            guests.append(Guest(daemon.port()))
            daemon.turn()
        assert [guest.hear() for guest in guests] == [b"alpha\r\n", b"", b"", b""]
        asked = [one.since for one in daemon.now.leases.snapshot().waiters]
        daemon.clock.advance(5)
        came = daemon.again()
        assert (came.leases, came.waiters, came.left, came.lost) == (1, 3, 0, 0)
        assert daemon.now.counts == (1, 3)
        assert [one.since for one in daemon.now.leases.snapshot().waiters] == asked
        daemon.again()
        for number, guest in enumerate(guests):
            assert [one.hear() for one in guests[number:]] == [b"alpha\r\n", *[b""] * (3 - number)]
            assert not any(one.closed for one in guests[number:])
            guest.leave()
            daemon.turn()
        assert daemon.now.counts == (0, 0)
        kept = daemon.now.keeping
        if kept is not None and daemon.holder is not None:
            assert kept.ledger.accounts() == []
            assert daemon.holder.of(Role.LISTENER) == [(daemon.now.serving.opened[0].ident, Role.LISTENER)]
    assert open_descriptors() == before


@every_way
def test_who_left_meanwhile_makes_room_for_one_who_waits_and_who_hears_of_it_once(at: Listener, way: str) -> None:
    with lives(at, way=way) as daemon, Guest(daemon.port()) as first:
        daemon.turn()
        with Guest(daemon.port()) as second, Guest(daemon.port()) as third:
            daemon.turn()
            left = daemon.kill()
            first.leave()
            daemon.begin(left)
            daemon.turn()
            assert (second.hear(), third.hear()) == (b"alpha\r\n", b"")
            assert daemon.now.counts == (1, 1)


@every_way
def test_a_host_that_got_slots_meanwhile_is_told_once_to_who_waited(way: str) -> None:
    with lives(way=way) as daemon, Guest(daemon.port()) as first:
        daemon.turn()
        with Guest(daemon.port()) as second, Guest(daemon.port()) as third:
            daemon.turn()
            daemon.farm = replace(daemon.farm, hosts=(replace(daemon.farm.hosts[0], slots=2),))
            came = daemon.again()
            assert (came.leases, came.waiters) == (1, 2), "as they were left"
            assert [one.hear() for one in (first, second, third)] == [b"alpha\r\n", b"alpha\r\n", b""]
            daemon.again()
            assert [one.hear() for one in (first, second, third)] == [b"alpha\r\n", b"alpha\r\n", b""]


def test_a_grant_that_was_not_written_is_written_once(at: Listener) -> None:
    with lives(at) as daemon, Guest(daemon.port()) as guest:
        keeping = daemon.now.keeping
        assert keeping is not None
        flush = keeping.flush
        keeping.flush = lambda: None  # type: ignore[method-assign]
        daemon.turn()
        assert daemon.now.counts == (1, 0)
        assert guest.hear() == b""
        # it was handed over, and there was the end
        keeping._waiting = [None] * len(keeping._waiting)
        keeping.flush = flush  # type: ignore[method-assign]
        came = daemon.again()
        assert (came.leases, came.lost) == (1, 0)
        assert guest.hear() == b"alpha\r\n"
        daemon.again()
        daemon.again(heard=False)
        assert guest.hear() == b"alpha\r\n"


def test_a_grant_that_was_written_and_not_noted_is_not_written_again() -> None:
    with lives() as daemon, Guest(daemon.port()) as guest:
        daemon.turn()
        assert guest.hear() == b"alpha\r\n"
        keeping = daemon.now.keeping
        assert keeping is not None
        (account,) = [one for one in keeping.ledger.accounts() if one.kind == ledger.CLIENT]
        keeping.ledger._slots[account.offset + 12] = 0
        daemon.again()
        assert guest.hear() == b"alpha\r\n"


def test_a_connection_of_the_very_turn_is_lost_and_counted_and_no_other(at: Listener) -> None:
    with lives(at, hosts={"alpha": 2}) as daemon, Guest(daemon.port()) as old:
        daemon.turn()
        with Guest(daemon.port()) as new, Guest(daemon.port()) as newer:
            keeping = daemon.now.keeping
            assert keeping is not None
            keeping.flush = lambda: None  # type: ignore[method-assign]
            daemon.turn()
            assert daemon.now.counts == (2, 1)
            came = daemon.again(heard=False)
            assert (came.leases, came.waiters, came.left, came.lost) == (1, 0, 0, 2)
            assert (new.hear(), new.closed, newer.hear(), newer.closed) == (b"", True, b"", True)
            assert (old.hear(), old.closed) == (b"alpha\r\n", False)
            # who is killed before it could say so leaves that to the next one
            assert daemon.again().lost == 2
            assert daemon.now.keeping is not None
            all_is_said(daemon.now.keeping.ledger)
            assert daemon.again().lost == 0
            with Guest(daemon.port()) as next_one:
                daemon.turn()
                assert next_one.hear() == b"alpha\r\n"


def test_who_left_before_the_keeper_swept_is_no_lease_for_long() -> None:
    with lives() as daemon, Guest(daemon.port()) as guest:
        daemon.turn()
        guest.leave()
        came = daemon.again()
        assert came.leases == 1
        assert daemon.now.counts == (0, 0)


def test_who_the_keeper_let_go_by_itself_is_counted(at: Listener) -> None:
    with lives(at) as daemon, Guest(daemon.port()) as guest:
        daemon.turn()
        left = daemon.kill()
        (key,) = [key for key in left if key[1] == Role.CLIENT]
        os.close(left.pop(key))
        assert daemon.holder is not None
        daemon.holder.drop(key)
        came = daemon.begin(left)
        assert (came.leases, came.left, came.lost) == (0, 1, 0)
        assert daemon.now.counts == (0, 0)
        assert guest.closed or guest.hear() == b"alpha\r\n"


def test_a_keeper_that_was_not_told_is_told_again_after_an_upgrade() -> None:
    """Its queue was full when the upgrade came, so the grant still waits, and the keeper has nothing yet."""
    with lives(way="kept upgrade") as daemon, Guest(daemon.port()) as guest:
        keeping = daemon.now.keeping
        assert keeping is not None
        keeping.flush = lambda: None  # type: ignore[method-assign]
        daemon.turn()
        assert guest.hear() == b""
        daemon.again(heard=False)
        assert guest.hear() == b"alpha\r\n"
        assert daemon.holder is not None
        assert len(daemon.holder.of(Role.CLIENT)) == 1
        daemon.way = "kept"
        daemon.again()
        assert (guest.hear(), guest.closed) == (b"alpha\r\n", False)
        assert daemon.now.counts == (1, 0)


# -- accounts that say what cannot be


@pytest.mark.parametrize(
    "listener", ["", "balance", "balance a b", "proxy default client cancel", "telnet x", "balance  default"]
)
def test_words_that_say_nothing_end_that_client_alone(listener: str, logged_errors: LoggedErrors) -> None:
    with lives(hosts={"alpha": 2}) as daemon, Guest(daemon.port()) as good:
        daemon.turn()
        with Guest(daemon.port()) as bad:
            daemon.turn()
            left = daemon.kill()
            book = Ledger(os.dup(left[0, Role.LEDGER]), os.dup(left[0, Role.NOTES]))
            account = max((one for one in book.accounts() if one.kind == ledger.CLIENT), key=lambda one: one.id)
            book._slots[account.offset + 4 : account.offset + 8] = book.name(listener).to_bytes(4, "little")
            book.close()
            daemon.begin(left)
            daemon.turn()
            assert daemon.now.counts == (1, 0)
            assert (good.hear(), good.closed) == (b"alpha\r\n", False)
            bad.hear()
            assert bad.closed
    assert [event["log_format"] for event in logged_errors.flush()] == ["a client cannot be taken up: {why}"]


def damaged(daemon: Lives, change: Callable[[Ledger, list[ledger.Account]], None]) -> dict[Any, int]:
    left = daemon.kill()
    book = Ledger(os.dup(left[0, Role.LEDGER]), os.dup(left[0, Role.NOTES]))
    change(book, sorted((one for one in book.accounts() if one.kind == ledger.CLIENT), key=lambda one: one.id))
    book.close()
    return left


def test_one_damaged_account_ends_that_client_alone(logged_errors: LoggedErrors) -> None:
    with lives(hosts={"alpha": 2}) as daemon, Guest(daemon.port()) as good:
        daemon.turn()
        with Guest(daemon.port()) as bad:
            daemon.turn()

            def break_one(book: Ledger, accounts: list[ledger.Account]) -> None:
                book._slots[accounts[1].offset + 1] = 99

            daemon.begin(damaged(daemon, break_one))
            daemon.turn()
            assert daemon.now.counts == (1, 0)
            assert (good.hear(), good.closed) == (b"alpha\r\n", False)
            assert daemon.holder is not None
            daemon.holder.read()
            bad.hear()
            assert bad.closed
    assert len(logged_errors.flush()) == 1


def test_two_with_one_number_are_one_and_the_other_ends(logged_errors: LoggedErrors) -> None:
    before = open_descriptors()
    with lives(hosts={"alpha": 3}) as daemon, Guest(daemon.port()) as good:
        daemon.turn()
        with Guest(daemon.port()) as bad:
            daemon.turn()

            def same(book: Ledger, accounts: list[ledger.Account]) -> None:
                book.own(accounts[1].offset, accounts[0].ticket, ledger.HELD | ledger.TOLD)

            daemon.begin(damaged(daemon, same))
            daemon.turn()
            assert daemon.now.counts == (1, 0)
            good.hear()
            bad.hear()
            assert [good.closed, bad.closed].count(True) == 1
        good.leave()
        daemon.turn()
        assert daemon.now.counts == (0, 0)
    assert open_descriptors() == before
    assert len(logged_errors.flush()) == 1


def test_one_that_cannot_be_watched_gives_its_lease_back(monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors) -> None:
    from distbal.loop import HotLoop

    before = open_descriptors()
    with lives() as daemon, Guest(daemon.port()) as first:
        daemon.turn()
        with Guest(daemon.port()) as second:
            daemon.turn()
            left = daemon.kill()
            real = HotLoop.watch
            failed: list[Any] = []

            def watch(self: HotLoop, connection: Any) -> None:
                if not failed:
                    failed.append(connection)
                    raise OSError(12, "Cannot allocate memory")
                real(self, connection)

            monkeypatch.setattr(HotLoop, "watch", watch)
            daemon.begin(left)
            daemon.turn()
            assert first.hear() == b"alpha\r\n"
            assert first.closed
            assert (second.hear(), second.closed) == (b"alpha\r\n", False)
            assert daemon.now.counts == (1, 0)
    assert open_descriptors() == before
    assert len(logged_errors.flush()) == 1


# -- listening sockets


@every_way
def test_who_connects_meanwhile_waits_in_the_socket(at: Listener, way: str) -> None:
    with lives(at, way=way) as daemon:
        where, left = daemon.port(), daemon.kill()
        with Guest(where) as guest:
            daemon.begin(left)
            assert daemon.port() == where
            daemon.turn()
            assert (guest.hear(), guest.closed) == (b"alpha\r\n", False)


@every_way
def test_ports_that_the_system_chose_stay_in_their_order(way: str) -> None:
    with lives(ANY, ANY, ANY, way=way) as daemon:
        ports = [daemon.port(number) for number in range(3)]
        for _ in range(3):
            daemon.again()
            assert [daemon.port(number) for number in range(3)] == ports
        daemon.specs.append(ANY)
        daemon.again()
        assert [daemon.port(number) for number in range(3)] == ports


@every_way
def test_a_socket_that_lends_another_pool_now_is_the_same(at: Listener, way: str) -> None:
    with lives(at, way=way) as daemon:
        where, left = daemon.port(), daemon.kill()
        with Guest(where):
            daemon.specs = [replace(at, pool="other")]
            daemon.begin(left)
            assert daemon.port() == where
            daemon.turn()
            assert daemon.now.counts == (0, 1), "no host is in that pool"


@every_way
def test_a_client_of_a_port_that_is_not_listened_on_any_more_keeps_its_lease(at: Listener, way: str) -> None:
    with lives(at, way=way) as daemon, Guest(daemon.port()) as guest:
        daemon.turn()
        where = daemon.port()
        daemon.specs = [Listener("balance", parse("127.0.0.1:0"), pool="other")] if at is not ANY else []
        daemon.again()
        assert daemon.now.counts == (1, 0)
        assert (guest.hear(), guest.closed) == (b"alpha\r\n", False)
        with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            Guest(where)
        guest.leave()
        daemon.turn()
        assert daemon.now.counts == (0, 0)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_wanted_in_another_way_can_be_listened_on_at_once(way: str, tmp_path: Path) -> None:
    """Though the keeper has the old sockets still."""
    path = f"unix:{tmp_path}/socket"
    with lives(Listener("balance", parse(path)), ANY, way=way) as daemon:
        number = daemon.port(1)[1]
        daemon.specs = [Listener("admin", parse(path)), Listener("proxy", parse(f"127.0.0.1:{number}"))]
        left = daemon.kill()
        daemon.specs = [
            Listener("proxy", parse(f"127.0.0.1:{number}"), speaks_first="server"),
            Listener("balance", parse(path.replace("socket", "other"))),
        ]
        daemon.begin(left)
        assert daemon.now.serving.opened[0].port == number


def test_a_listening_socket_that_is_closed_takes_in_nobody_though_the_keeper_has_it(at: Listener) -> None:
    with lives(at, Listener("balance", parse("127.0.0.1:0"), pool="other")) as daemon:
        where = daemon.port()
        daemon.now.serving.opened.pop(0).close()
        with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            Guest(where)
        daemon.turn()
        assert daemon.holder is not None
        assert len(daemon.holder.of(Role.LISTENER)) == 1


def test_a_process_that_ends_before_it_has_handed_its_sockets_over_leaves_them_to_the_next() -> None:
    with lives(ANY, ANY) as daemon:
        ports = [daemon.port(0), daemon.port(1)]
        left = daemon.kill()
        for _ in range(3):
            # the one that begins gets no further than to take them, and to note them anew
            daemon.begin(left, settles=False)
            left = daemon.kill(heard=False)
        daemon.begin(left)
        daemon.turn()
        assert [daemon.port(0), daemon.port(1)] == ports
        with Guest(ports[0]) as guest:
            daemon.turn()
            assert guest.hear() == b"alpha\r\n"
        assert daemon.holder is not None
        assert len(daemon.holder.of(Role.LISTENER)) == 2


def test_a_keeper_that_is_slow_when_a_process_begins_costs_no_socket() -> None:
    with lives() as daemon:
        port = daemon.port()
        daemon.begin(daemon.kill(), settles=False)
        now, holder = daemon.now, daemon.holder
        assert now.keeping is not None
        assert holder is not None
        holder.is_full(now.keeping)
        settle(now.left, now.keeping)
        assert not now.keeping.is_idle
        daemon.begin(daemon.kill(heard=False))
        assert daemon.port() == port
        assert len(holder.of(Role.LISTENER)) == 1
        with Guest(port) as guest:
            daemon.turn()
            assert guest.hear() == b"alpha\r\n"


def test_a_socket_that_is_served_later_is_the_keepers_from_the_beginning() -> None:
    """A process that is killed before it serves its status page leaves that page's port to the next."""
    with lives(ANY, Listener("status", parse("127.0.0.1:0"))) as daemon:
        ports = [daemon.port(0), daemon.port(1)]
        for _ in range(3):
            daemon.again()
            assert [daemon.port(0), daemon.port(1)] == ports
        assert daemon.holder is not None
        assert len(daemon.holder.of(Role.LISTENER)) == 2


def test_a_socket_that_listens_no_more_is_not_taken_over(at: Listener) -> None:
    """It was shut down, and the process was killed before it could say so."""
    with lives(at) as daemon:
        left = daemon.kill()
        (descriptor,) = (descriptor for (_, role), descriptor in left.items() if role == Role.LISTENER)
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            sock.shutdown(socket.SHUT_RDWR)
        daemon.begin(left)
        with Guest(daemon.port()) as guest:
            daemon.turn()
            assert guest.hear() == b"alpha\r\n"


@pytest.mark.parametrize("book", [True, False])
def test_a_socket_of_which_nothing_is_noted_keeps_its_place_from_nobody(book: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, socket.socket() as again:
        place = other.getsockname()
        left = Inheritance(descriptors={(5, Role.LISTENER): os.dup(other.fileno())}, ledger=Ledger() if book else None)
        left_sockets(left)
        # whoever else has a duplicate, as this test has, and the keeper
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(place)
        again.listen()
        assert not left.descriptors
        assert left.renumbered == [(5, Role.LISTENER)]
        if left.ledger is not None:
            left.ledger.close()


@pytest.mark.parametrize("note", ["listener/x", "listener/", "listener/" + "9" * 5000, "listener/-1"])
def test_notes_of_sockets_that_say_nothing_are_passed_over(note: str, logged_errors: LoggedErrors) -> None:
    with lives() as daemon:
        where, left = daemon.port(), daemon.kill()
        book = Ledger(os.dup(left[0, Role.LEDGER]), os.dup(left[0, Role.NOTES]))
        book.note(note, b"\xff\xfe")
        book.note("listener/12", b"127.0.0.1:0 00 - balance")
        book.close()
        here, there = os.pipe()
        left[12, Role.LISTENER] = here
        daemon.begin(left)
        os.close(there)
        assert daemon.port() == where
    logged_errors.flush()


def test_turns_are_written_down_and_taken_up() -> None:
    with lives(way="kept") as daemon, Guest(daemon.port()) as first:
        daemon.turn()
        guests: list[socket.socket] = []
        for source in ("127.0.0.2", "127.0.0.2", "127.0.0.3"):
            guest = socket.socket()
            guest.bind((source, 0))
            guest.connect(daemon.port())
            guest.setblocking(False)
            guests.append(guest)
            daemon.turn()
        turns = daemon.now.leases.scheduler.turns()
        assert turns.keys() == {"127.0.0.2", "127.0.0.3"}
        daemon.again()
        assert daemon.now.leases.scheduler.turns() == turns
        first.leave()
        daemon.turn()
        assert guests[0].recv(100) == b"alpha\r\n"
        daemon.again()
        assert (
            list(daemon.now.leases.scheduler.turns()) == ["127.0.0.3", "127.0.0.2"]
            or daemon.now.leases.scheduler.turns()["127.0.0.3"] < daemon.now.leases.scheduler.turns()["127.0.0.2"]
        )
        guests[0].close()
        daemon.turn()
        assert guests[2].recv(100) == b"alpha\r\n"
        for guest in guests:
            guest.close()
        daemon.turn()
        assert daemon.now.keeping is not None
        assert daemon.now.keeping.ledger.accounts() == []
