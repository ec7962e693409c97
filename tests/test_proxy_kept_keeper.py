"""What spliced sessions do when the keeper is slow, full or gone; and accounts of those that were half ended."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
import pytest_twisted

from distbal import keeping, ledger
from distbal.keeperwire import Role
from distbal.ledger import Account
from distbal.outcomes import Outcome
from distbal.proxy.keptpipes import MARKED
from distbal.proxy.lasting import CUT
from distbal.proxy.session import CONNECTING, RELAYING
from tests.keepers import KeptHouse
from tests.peers import Peer, until
from tests.ports import texts
from tests.proxies import MUCH, Server, heard, noise, read, relayed, rests, turns
from tests.support import LoggedErrors


async def a_job(house: KeptHouse, server: Server) -> None:
    """One from its beginning to its end: it leaves a pipe behind."""
    async with relayed(house, server) as (client, end):
        end.close()
        assert await heard(client) == (b"", True)
    await house.idle()


async def answered(server: Server, client: Peer, said: bytes) -> None:
    with await server.accept() as end:
        assert await read(end, len(said)) == said
        end.send(b"done")
        end.close()
        assert await heard(client) == (b"done", True)


@pytest_twisted.ensureDeferred
async def test_a_pipe_is_used_when_the_keeper_has_it() -> None:
    with Server() as server:
        house = KeptHouse(server.spec())
        async with house.lasts():
            assert house.holder is not None
            assert house.keeping is not None
            house.holder.is_full(house.keeping)
            with house.client(b"hello") as client:
                await until(lambda: len(house.sessions) == 1)
                await rests(house)
                (session,) = house.spliced
                assert (session.up.taken, len(house.proxy.pipes._coming)) == (0, 1)  # type: ignore[attr-defined]
                house.holder.starts()
                await answered(server, client, b"hello")


@pytest_twisted.ensureDeferred
async def test_who_leaves_meanwhile_is_noticed() -> None:
    with Server() as server:
        house = KeptHouse(server.spec())
        async with house.lasts():
            assert house.holder is not None
            assert house.keeping is not None
            house.holder.is_full(house.keeping)
            with house.client(b"hello"):
                await until(lambda: len(house.sessions) == 1)
                await turns()
            await until(lambda: not house.sessions)
            house.holder.starts()
        assert house.counts["asked"] == 0


@pytest_twisted.ensureDeferred
async def test_nothing_is_sent_to_a_server_that_the_keeper_does_not_have() -> None:
    with Server() as server:
        house = KeptHouse(server.spec())
        async with house.lasts():
            await a_job(house, server)
            assert house.holder is not None
            assert house.keeping is not None
            await until(lambda: house.keeping is not None and house.keeping.is_idle)
            house.holder.is_full(house.keeping)
            with house.client(b"hello") as client, await server.accept() as end:
                await rests(house)
                assert (house.sessions[0].state, end.silence()) == (CONNECTING, True)
                # its time to connect is not over for that
                house.clock.advance(4)
                await rests(house)
                assert (house.sessions[0].state, end.silence()) == (CONNECTING, True)
                house.holder.starts()
                assert await read(end, 5) == b"hello"
                end.send(b"done")
                end.close()
                assert await heard(client) == (b"done", True)


@pytest_twisted.ensureDeferred
async def test_both_directions_wait_for_their_pipes() -> None:
    said, answer = noise(MUCH, 1), noise(MUCH, 2)
    with Server() as server:
        house = KeptHouse(server.spec(), passes=True)
        async with house.lasts(), relayed(house, server) as (client, end):
            assert house.holder is not None
            assert house.keeping is not None
            house.holder.is_full(house.keeping)
            # the one that there is is somebody else's
            pipe = house.proxy.pipes.borrow()
            client.send(said[:1000])
            end.send(answer[:1000])
            await rests(house)
            assert client.silence()
            assert end.silence()
            assert house.sessions[0].state == RELAYING
            house.holder.starts()
            assert await read(end, 1000) == said[:1000]
            assert await read(client, 1000) == answer[:1000]
            house.proxy.pipes.give_back(pipe)
            end.close()
            client.half_close()
            assert await heard(client) == (b"", True)


@pytest_twisted.ensureDeferred
async def test_a_keeper_that_is_gone_is_done_without(logged_errors: LoggedErrors) -> None:
    with Server() as server:
        house = KeptHouse(server.spec())
        async with house.lasts():
            async with relayed(house, server) as (client, end):
                assert house.holder is not None
                house.holder.close()
                end.send(b"done")
                end.close()
                assert await heard(client) == (b"done", True)
            with house.client(b"hello") as client:
                await answered(server, client, b"hello")
            await house.idle()
            assert house.keeping is not None
            assert house.keeping.alone
        assert "the keeper is gone" in str(texts(logged_errors.flush()))


@pytest_twisted.ensureDeferred
async def test_a_client_sees_its_end_though_a_keeper_that_is_frozen_has_it_for_ever(
    monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors
) -> None:
    monkeypatch.setattr(keeping, "PATIENCE", 0.01)
    with Server() as server:
        house = KeptHouse(server.spec())
        async with house.lasts():
            assert house.holder is not None
            desk = house.keeping
            assert desk is not None
            async with relayed(house, server) as (client, _):
                await until(lambda: bool(house.holder is not None and house.holder.of(Role.SESSION_CLIENT)))
                house.holder.is_full(desk)
                desk.let_go(17, Role.PIPE_READ)
                desk.flush()
                await until(lambda: bool(desk.alone), "the daemon goes on alone")
                (session,) = house.spliced
                session.fail()
                data, _ = await heard(client)
                assert data == b""
            await house.idle()
    assert "the keeper is gone" in str(texts(logged_errors.flush()))


# -- killed in the middle


@pytest_twisted.ensureDeferred
async def test_one_that_was_being_reset_is_reset() -> None:
    """An answer that is cut short must not look whole: whoever comes after the one that cut it short has to see to it."""
    with Server() as server:
        house = KeptHouse(server.spec())
        async with house.lasts(), relayed(house, server) as (client, _):
            house.kill()
            house.ledger.mark(_account(house, ledger.SESSION).offset, CUT)
            taken = house.live_again()
            assert (taken.sessions, len(taken.ended), house.lent) == ([], 1, 0)
            assert await heard(client) == (b"", False)


@pytest_twisted.ensureDeferred
async def test_one_of_which_a_byte_may_be_missing_ends() -> None:
    with Server() as server:
        house = KeptHouse(server.spec())
        async with house.lasts(), relayed(house, server) as (client, _):
            house.kill()
            owner = _account(house, ledger.SESSION).id
            house.ledger.own(_account(house, ledger.PIPE).offset, owner, MARKED)
            house.live_again()
            assert await heard(client) == (b"", False)
        assert house.all_outcomes() == [Outcome.CUT_OFF]


@pytest_twisted.ensureDeferred
async def test_a_mark_is_passed() -> None:
    """A byte that is marked urgent stops a splice, and is left out."""
    with Server() as server:
        house = KeptHouse(server.spec())
        async with house.lasts(), relayed(house, server) as (client, end):
            client.send(b"before")
            client.sock.send(b"!", socket.MSG_OOB)
            client.send(b"after")
            assert await read(end, 11) == b"beforeafter"
            end.close()
            assert await heard(client) == (b"", True)


@pytest_twisted.ensureDeferred
async def test_a_session_between_two_attempts_asks_again() -> None:
    """Its lease had gone back, and the next was not asked for yet."""
    with Server() as server:
        house = KeptHouse(server.spec())
        async with house.lasts(), relayed(house, server) as (first, first_end):
            with house.client(b"second") as second:
                await house.becomes(1, 1)
                house.kill()
                (account,) = [one for one in house.ledger.accounts() if one.state == ledger.WAITING]
                house.ledger.set_state(account.offset, ledger.QUIET)
                house.live_again()
                await house.becomes(1, 1)
                (ticket,) = house.leases.scheduler._waiters.values()
                assert (ticket.request.job, ticket.request.since) == (account.ticket, account.asked)
                first_end.close()
                assert await heard(first) == (b"", True)
                await answered(server, second, b"second")


@pytest_twisted.ensureDeferred
async def test_one_that_was_killed_before_it_ended_the_server_s_side() -> None:
    """The lease is over, the account says so, and the connection to the server is still there."""
    with Server() as server:
        house = KeptHouse(server.spec())
        async with house.lasts(), relayed(house, server) as (client, end):
            house.kill()
            house.ledger.set_state(_account(house, ledger.SESSION).offset, ledger.PARTING)
            house.live_again()
            assert house.lent == 0
            assert await heard(client) == (b"", True)
            assert await heard(end) == (b"", True)


@pytest_twisted.ensureDeferred
async def test_what_belongs_to_nobody_is_let_go_of() -> None:
    with Server() as server:
        house = KeptHouse(server.spec())
        async with house.lasts():
            async with relayed(house, server) as (client, _):
                house.kill()
                house.ledger.leave(_account(house, ledger.SESSION).offset)
                assert house.live_again().sessions == []
                # its own end closed with the process, and the keeper's now
                assert await heard(client) == (b"", True)
            assert house.holder is not None
            assert house.holder.of(Role.SESSION_SERVER) == []


@pytest_twisted.ensureDeferred
async def test_a_session_of_a_port_that_is_not_known_ends(logged_errors: LoggedErrors) -> None:
    with Server() as server:
        house = KeptHouse(server.spec())
        async with house.lasts(), relayed(house, server) as (client, _):
            house.kill()
            known: Callable[[str], object] = house._the_port
            house._the_port = _unknown  # type: ignore[method-assign]
            assert len(house.live_again().ended) == 1
            house._the_port = known  # type: ignore[method-assign,assignment]
            assert await heard(client) == (b"", False)
        assert "cannot be taken up" in str(texts(logged_errors.flush()))


@pytest_twisted.ensureDeferred
async def test_keys_whose_turns_change_are_noted() -> None:
    with Server() as server:
        house = KeptHouse(server.spec())
        async with house.lasts(), relayed(house, server) as (first, end):
            assert house.noted == []
            with house.client(b"second", source="127.0.0.2"):
                await house.becomes(1, 1)
                assert house.noted == ["127.0.0.2"]
            await house.becomes(1, 0)
            assert house.noted == ["127.0.0.2"] * 2
            with house.client(b"third", source="127.0.0.3") as third:
                await house.becomes(1, 1)
                end.close()
                assert await heard(first) == (b"", True)
                await answered(server, third, b"third")
                assert house.noted[2:] == ["127.0.0.3"] * 2


def _unknown(words: str) -> object:
    raise ValueError(f"no session comes by {words!r}")


def _account(house: KeptHouse, kind: int) -> Account:
    (account,) = [account for account in house.ledger.accounts() if account.kind == kind]
    return account
