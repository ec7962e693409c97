"""Clients of 5656 with a keeper: what it has, what is written down, and what they hear, in this order."""

from __future__ import annotations

import os
import select
from typing import Any

import pytest

from distbal import ledger
from distbal.keeperwire import Role
from distbal.keeping import AGAIN, PATIENCE, Keeping
from distbal.keptclients import Turns
from distbal.ledger import Account, Ledger
from distbal.loop import HotLoop
from distbal.outcomes import Outcome
from tests.lives import Guest, Lives, lives
from tests.loops import open_descriptors
from tests.support import LoggedErrors, reset_at_close

LINE = b"alpha\r\n"


def keeping_of(daemon: Lives) -> Keeping:
    assert daemon.now.keeping is not None
    return daemon.now.keeping


def accounts(daemon: Lives, kind: int = ledger.CLIENT) -> list[Account]:
    return [one for one in keeping_of(daemon).ledger.accounts() if one.kind == kind]


def flags(daemon: Lives) -> list[tuple[int, int]]:
    return [(one.state, one.flags) for one in accounts(daemon)]


def held(daemon: Lives) -> int:
    assert daemon.holder is not None
    return len(daemon.holder.of(Role.CLIENT))


def hang_up(daemon: Lives) -> None:
    """The keeper's end is closed, with what is in it."""
    holder = daemon.holder
    assert holder is not None
    assert holder._sock is not None
    holder._sock.close()
    holder._sock = None


def test_a_grant_is_written_when_the_keeper_has_the_descriptor_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    with lives() as daemon, Guest(daemon.port()) as guest:
        seen: list[Any] = []
        real = Keeping.flush

        def flush(self: Keeping) -> None:
            if not self.is_idle:
                seen.append((guest.hear(), flags(daemon), held(daemon)))
                real(self)
                seen.append((guest.hear(), flags(daemon), held(daemon)))

        daemon.clock.advance(0)
        monkeypatch.setattr(Keeping, "flush", flush)
        daemon.now.loop.doRead()
        monkeypatch.undo()
        assert seen == [(b"", [(ledger.LEASED, 0)], 0), (LINE, [(ledger.LEASED, ledger.HELD | ledger.TOLD)], 1)]


def test_one_who_waits_is_written_down_and_its_grant_is_written_at_once() -> None:
    with lives() as daemon, Guest(daemon.port()) as first:
        daemon.turn()
        with Guest(daemon.port()) as second:
            daemon.turn()
            (_, waits) = accounts(daemon)
            assert (waits.state, waits.flags, waits.host) == (ledger.WAITING, ledger.HELD, "")
            assert (waits.address, waits.peer_port) == second.sock.getsockname()
            assert waits.ticket == waits.id == daemon.now.leases.snapshot().waiters[0].id
            assert len(accounts(daemon, ledger.TURN)) == 1
            daemon.clock.advance(7)
            first.leave()
            daemon.turn()
            assert second.hear() == LINE
            (has,) = accounts(daemon)
            assert (has.state, has.flags, has.host) == (ledger.LEASED, ledger.HELD | ledger.TOLD, "alpha")
            assert has.granted - has.asked == 7
            assert accounts(daemon, ledger.TURN) == []
        daemon.turn()
        assert keeping_of(daemon).ledger.accounts() == []


def test_one_that_leaves_before_the_keeper_has_it_is_not_handed_over() -> None:
    before = open_descriptors()
    with lives(hosts={"alpha": 2}) as daemon:
        with Guest(daemon.port()) as guest, Guest(daemon.port()) as other:
            with daemon.unheard():
                daemon.turn()
                assert daemon.now.counts == (2, 0)
                guest.leave()
                daemon.turn()
                assert daemon.now.counts == (1, 0)
            daemon.turn()
            assert keeping_of(daemon).alone == ""
            assert held(daemon) == 1
            assert other.hear() == LINE
        daemon.turn()
        assert daemon.now.counts == (0, 0)
    assert open_descriptors() == before


def test_one_that_waits_and_is_granted_before_the_keeper_has_it() -> None:
    with lives() as daemon, Guest(daemon.port()) as first:
        daemon.turn()
        with Guest(daemon.port()) as second:
            with daemon.unheard():
                daemon.turn()
                first.leave()
                daemon.turn()
                assert daemon.now.counts == (1, 0)
                assert second.hear() == b""
            daemon.turn()
            assert second.hear() == LINE


def test_one_whose_grant_cannot_be_written_gives_it_to_the_next() -> None:
    with lives() as daemon, Guest(daemon.port()) as first:
        with daemon.unheard():
            daemon.turn()
        with Guest(daemon.port()) as second:
            with daemon.unheard():
                daemon.turn()
            assert daemon.now.counts == (1, 1)
            reset_at_close(first.sock)
            first.leave()
            # the keeper is sent both before the loop looks
            keeping_of(daemon).flush()
            assert daemon.now.counts == (1, 0)
            assert second.hear() == LINE
            daemon.turn()
            assert [one.id for one in accounts(daemon)] == [one.id for one in daemon.now.leases.snapshot().leases]


def test_with_a_keeper_that_is_gone_all_go_on(logged_errors: LoggedErrors) -> None:
    with lives(hosts={"alpha": 2}) as daemon, Guest(daemon.port()) as first:
        daemon.turn()
        hang_up(daemon)
        with Guest(daemon.port()) as second, Guest(daemon.port()) as third:
            daemon.turn()
            assert (first.hear(), second.hear(), third.hear()) == (LINE, LINE, b"")
            assert keeping_of(daemon).alone
            first.leave()
            daemon.turn()
            assert third.hear() == LINE
            # nobody is left but in an upgrade
            daemon.way = "kept upgrade"
            assert daemon.now.counts == (2, 0)
    assert len(logged_errors.flush()) == 1


def test_with_a_keeper_that_takes_nothing_they_wait_so_long(logged_errors: LoggedErrors) -> None:
    with lives() as daemon:
        keeping = keeping_of(daemon)
        daemon.turn()
        keeping._channel.setsockopt(1, 7, 4608)
        try:
            while True:
                keeping._channel.send(b"B")
        except BlockingIOError:
            pass
        with Guest(daemon.port()) as guest:
            daemon.turn()
            assert daemon.now.counts == (1, 0)
            for _ in range(int(PATIENCE / 0.5)):
                daemon.clock.advance(0.5)
            assert guest.hear() == b""
            daemon.clock.pump([1, AGAIN])
            assert guest.hear() == LINE
            assert keeping.alone
            daemon.turn()
            assert daemon.now.counts == (1, 0)
        hang_up(daemon)
    assert len(logged_errors.flush()) == 1


@pytest.mark.parametrize("how", ["kick a waiter", "kick a lease", "queue.wait"])
def test_who_is_ended_by_us_sees_it_though_the_keeper_has_a_duplicate(how: str) -> None:
    with lives(wait=5.0) as daemon, Guest(daemon.port()) as first:
        daemon.turn()
        with Guest(daemon.port()) as second:
            daemon.turn()
            leases = daemon.now.leases
            victim, other = (first, second) if how == "kick a lease" else (second, first)
            if how == "queue.wait":
                daemon.clock.pump([5, 1])
            else:
                number = (leases.snapshot().leases if how == "kick a lease" else leases.snapshot().waiters)[0].id
                tickets = [client.ticket for client in daemon.now.loop.connections if client.ticket.id == number]
                assert leases.kick(tickets, "because") == 1
            assert held(daemon) == 2, "the keeper has not looked"
            victim.hear()
            assert victim.closed
            other.hear()
            assert not other.closed
            assert daemon.now.counts == (1, 0)
            assert len(accounts(daemon)) == 1
            assert accounts(daemon, ledger.TURN) == []


def test_the_keeper_sees_that_a_connection_is_over() -> None:
    """Its duplicate is hung up on both sides: that is what it goes by."""
    with lives() as daemon, Guest(daemon.port()) as guest:
        daemon.turn()
        held(daemon)
        assert daemon.holder is not None
        (duplicate,) = [descriptor for key, descriptor in daemon.holder.held.items() if key[1] == Role.CLIENT]
        with select.epoll() as watch:
            watch.register(duplicate, select.EPOLLHUP)
            assert watch.poll(0) == []
            guest.leave()
            daemon.turn()
            assert watch.poll(1) == [(duplicate, select.EPOLLHUP)]


def test_the_loop_hears_no_more_of_a_connection_that_lives_on_elsewhere() -> None:
    with lives(hosts={"alpha": 3}) as daemon:
        for _ in range(3):
            with Guest(daemon.port()) as guest:
                daemon.turn()
                client = daemon.now.loop.connections[0]
                client.left(Outcome.CUT_OFF)
                number = client.descriptor
                with pytest.raises(OSError, match="Bad file"):
                    os.fstat(number)
                guest.sock.send(b"words")
            daemon.turn()
            assert daemon.now.loop._epoll.poll(0) == []
        assert daemon.now.counts == (0, 0)


def test_a_bug_in_the_account_ends_that_client_alone(monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors) -> None:
    before = open_descriptors()
    with lives(hosts={"alpha": 2}) as daemon, Guest(daemon.port()) as guest:
        daemon.turn()
        monkeypatch.setattr(ledger.Ledger, "enter_client", lambda *_: 1 / 0)
        with Guest(daemon.port()) as other:
            daemon.turn()
            other.hear()
            assert other.closed
            assert daemon.now.counts == (1, 0)
        monkeypatch.undo()
        with Guest(daemon.port()) as other:
            daemon.turn()
            assert (guest.hear(), other.hear()) == (LINE, LINE)
    assert open_descriptors() == before
    assert len(logged_errors.flush()) == 1


def test_strangers_are_turned_away_and_written_nowhere() -> None:
    from distbal.access import AccessList

    with lives() as daemon:
        daemon.now.terms.allow_clients = AccessList.parse(["10.0.0.0/8"])
        with Guest(daemon.port()) as guest:
            daemon.turn()
            guest.hear()
            assert guest.closed
            assert accounts(daemon) == []
            assert held(daemon) == 0


def test_who_is_in_stays_though_the_next_process_would_not_let_it_in() -> None:
    from distbal.access import AccessList

    with lives() as daemon, Guest(daemon.port()) as guest:
        daemon.turn()
        daemon.again()
        daemon.now.terms.allow_clients = AccessList.parse(["10.0.0.0/8"])
        assert isinstance(daemon.now.loop, HotLoop)
        daemon.turn()
        assert (guest.hear(), guest.closed) == (LINE, False)
        assert daemon.now.counts == (1, 0)


def test_a_key_has_one_turn_though_it_came_to_wait_again_before_the_one_of_before_was_taken_up() -> None:
    book, turn = Ledger(), 7
    book.enter(ledger.TURN, ledger.IN_USE, 0, ticket=3, address="127.0.0.2")
    (before,) = book.accounts()
    turns = Turns(book, lambda key: turn)
    # a session that was taken up asks, and there is no slot
    turns.note("127.0.0.2")
    turns.take_up(before)
    assert [one.ticket for one in book.accounts()] == [7]
    book.close()
