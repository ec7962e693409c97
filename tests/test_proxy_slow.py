"""Peers that take their time: who does not part, who takes nothing of an answer, and whose machine may have vanished."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from distbal.outcomes import Outcome
from distbal.proxy import flow
from distbal.proxy.session import CONNECT_TIME, PARTING_TIME, STALL_TIME
from tests.peers import until
from tests.ports import our_end, texts
from tests.proxies import (
    MUCH,
    SMALL,
    House,
    Server,
    both_relays,
    heard,
    noise,
    read,
    relayed,
    sends_all,
    stuck,
    turns,
)

pytestmark = pytest.mark.usefixtures("descriptors_stay")


@both_relays
@pytest_twisted.ensureDeferred
async def test_who_does_not_part_is_closed_after_a_moment_and_the_slot_was_free_before(relay: str) -> None:
    with Server() as server:
        house = House(server.spec())
        async with house.serves(relay), relayed(house, server) as (client, end):
            end.send(b"done")
            end.close()
            assert await heard(client) == (b"done", True)
            await house.becomes(lent=0)
            client.send(b"and what is dropped")
            await turns()
            async with relayed(house, server):
                house.clock.advance(PARTING_TIME - 0.1)
                await turns()
                assert len(house.sessions) == 2
                house.clock.advance(0.2)
                await until(lambda: len(house.sessions) == 1, "the end of the first")


@both_relays
@pytest_twisted.ensureDeferred
async def test_who_takes_nothing_is_cut_off(relay: str) -> None:
    with Server() as server, capturedLogs() as events:
        house = House(server.spec())
        async with house.serves(relay), relayed(house, server, window=SMALL) as (client, end):
            sending = Deferred.fromCoroutine(sends_all(end, noise(MUCH)))
            await stuck(house)
            house.clock.advance(STALL_TIME - 1)
            await read(client, 3_000_000)
            await stuck(house)
            house.clock.advance(2)
            await turns()
            assert house.lent == 1, "it took some"
            house.clock.advance(STALL_TIME + 1)
            await house.becomes(lent=0)
            await sending
            got, clean = await heard(client)
            assert not clean, "what it had is not all"
            assert len(got) < MUCH
    assert "127.0.0.1 took nothing of its answer for 300 s: cut off" in texts(events)


@both_relays
@pytest_twisted.ensureDeferred
async def test_who_catches_up_may_fall_behind_again_and_has_as_long(relay: str) -> None:
    with Server() as server:
        house = House(server.spec())
        async with house.serves(relay), relayed(house, server, window=SMALL) as (client, end):
            sending = Deferred.fromCoroutine(end.send_much(noise(MUCH)))
            await stuck(house)
            await read(client, MUCH)
            await sending
            # it has all that there is; and the server compiles
            for _ in range(3):
                house.clock.advance(STALL_TIME + 1)
                await turns()
            assert house.lent == 1
            sending = Deferred.fromCoroutine(sends_all(end, noise(MUCH)))
            await stuck(house)
            house.clock.advance(STALL_TIME - 1)
            await turns()
            assert house.lent == 1
            house.clock.advance(2)
            await turns()
            if house.lent:
                # on a busy machine the system may move some more bytes only now: then it has as long again
                house.clock.advance(STALL_TIME + 1)
            await house.becomes(lent=0)
            await sending
            assert not (await heard(client))[1]


@pytest_twisted.ensureDeferred
async def test_who_takes_nothing_of_what_is_left_of_an_answer_is_cut_off() -> None:
    """Its server is done, and the slot is free. (When a spliced session's server is done, the system has all.)"""
    with Server() as server, capturedLogs() as events:
        house = House(server.spec())
        async with house.serves("streams"), relayed(house, server, window=SMALL) as (client, end):
            sending = Deferred.fromCoroutine(sends_all(end, noise(6_000_000)))
            while house.lent:
                await read(client, 10_000)
                await stuck(house)
            await sending
            for _ in range(2):
                house.clock.advance(PARTING_TIME + 1)
                await turns()
            assert len(house.sessions) == 1, "what it has not taken yet is not in the system's hands"
            house.clock.advance(STALL_TIME)
            await until(lambda: not house.sessions, "the end of the session")
            assert not (await heard(client))[1]
    assert "127.0.0.1 took nothing of its answer for 300 s: cut off" in texts(events)


@both_relays
@pytest_twisted.ensureDeferred
async def test_who_cancels_without_having_read_is_not_waited_for(relay: str) -> None:
    with Server() as server:
        house = House(server.spec())
        async with house.serves(relay), relayed(house, server, window=5000) as (client, end):
            with our_end(client.sock) as ours:
                # so that the system's buffers do not hold what has been read of the answer
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 5000)
            sending = Deferred.fromCoroutine(sends_all(end, noise(MUCH)))
            await stuck(house)
            client.half_close()
            await until(lambda: not house.sessions, "the end of the session")
            await sending


@both_relays
@pytest_twisted.ensureDeferred
async def test_a_session_that_lasts_would_notice_a_server_that_vanished(relay: str) -> None:
    with Server() as server:
        house = House(server.spec())
        async with house.serves(relay), relayed(house, server) as (client, end):
            with our_end(end.sock) as ours:
                assert not ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), "most are over soon, and it costs"
                assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                house.clock.advance(CONNECT_TIME + 0.1)
                assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
                assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0, "it may live, and take nothing"
            with our_end(client.sock) as ours:
                assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0


@pytest.mark.parametrize("state", ["waiting", "relaying"])
@pytest_twisted.ensureDeferred
async def test_a_client_whose_machine_vanishes_has_not_been_reset(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keepalive finds that out after minutes; here it is the system's answer to the next splice."""
    splice = flow._splice
    vanished = -1

    def spliced(source: int, *how: Any) -> int:
        if source == vanished:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        return splice(source, *how)

    monkeypatch.setattr(flow, "_splice", spliced)
    with Server() as server, capturedLogs() as events:
        house = House(server.spec(), verbose=True)
        async with house.serves("spliced"), relayed(house, server) as (holder, _):
            with house.client(b"hello") as waiter:
                await house.becomes(lent=1, waiting=1)
                client = waiter if state == "waiting" else holder
                (session,) = [one for one in house.sessions if one.peer_port == client.port]
                vanished = session.up.source  # type: ignore[attr-defined]
                client.send(b"more")
                await until(lambda: session not in house.sessions, "its end")
                assert client is waiter or house.outcomes() == [Outcome.VANISHED]
    number = 2 if state == "waiting" else 1
    assert f"<Ticket {number} of 127.0.0.1 for default> is over: vanished" in texts(events)
