"""What is our own doing or our own machine's is not a host's fault, and is told in words."""

from __future__ import annotations

import errno
import os
import select
import socket
from typing import Any

import pytest
import pytest_twisted
from twisted.logger import capturedLogs

from distbal.outcomes import Outcome
from distbal.proxy import splice
from distbal.proxy.session import CONNECT_TIME, why_unreachable
from tests.peers import PATIENCE, until
from tests.ports import texts
from tests.proxies import Hole, House, Server, both_relays, heard, read, turns

pytestmark = pytest.mark.usefixtures("descriptors_stay")


def test_why_a_host_cannot_be_reached() -> None:
    assert why_unreachable(errno.EHOSTUNREACH) == "cannot be reached: No route to host"
    assert why_unreachable(errno.EHOSTUNREACH, "in other words") == "cannot be reached: No route to host"
    assert why_unreachable(None, "in other words") == "cannot be reached: in other words"
    ours = "cannot be reached: this machine has no address, or no port left, to connect to it from"
    assert why_unreachable(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL)) == ours


class NoPortLeft(socket.SocketType):
    """A socket of a machine all of whose ports are connected to that address."""

    def connect_ex(self, address: Any) -> int:
        return errno.EADDRNOTAVAIL


@both_relays
@pytest_twisted.ensureDeferred
async def test_a_machine_without_a_port_left_is_told_in_words(relay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as server, capturedLogs() as events:
        house = House(server.spec())
        async with house.serves(relay):
            monkeypatch.setattr(splice, "SocketType", NoPortLeft)
            monkeypatch.setattr(socket.socket, "connect_ex", NoPortLeft.connect_ex)
            with house.client(b"hello"):
                await until(lambda: house.counts["granted"] == 1, "a host")
                house.clock.advance(0)
                await house.becomes(lent=0, waiting=1)
        assert house.outcomes() == [Outcome.UNREACHABLE]
    why = "alpha cannot be reached: this machine has no address, or no port left, to connect to it from"
    assert any(line.startswith(f"{why}; no jobs go there for 5 s") for line in texts(events))


@both_relays
@pytest_twisted.ensureDeferred
async def test_a_host_that_answered_while_we_were_away_did_not_take_too_long(relay: str) -> None:
    """Away: stopped, swapped out, or busy with a crowd; timers come first when we are back."""
    with Hole() as hole:
        house = House(hole.spec())
        async with house.serves(relay):
            with house.client(b"hello") as client:
                await house.becomes(lent=1)
                await turns()
                await hole.open_up()
                # the reactor stands still until the system has asked again, after a second
                assert select.select([hole.sock], [], [], PATIENCE) == ([hole.sock], [], [])
                house.clock.advance(CONNECT_TIME + 0.1)
                with await hole.accept() as end:
                    assert await read(end, 5) == b"hello"
                    end.send(b"done")
                    end.close()
                    assert await heard(client) == (b"done", True)
        assert house.verdict() is None
        assert house.host().failures == {}
        assert house.outcomes() == [Outcome.ANSWERED]
