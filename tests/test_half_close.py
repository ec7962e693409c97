"""A client may end its side as soon as it is connected (``nc -N host 5657 </dev/null``): it still hears what is its due."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from distbal import wire
from tests.services import ANY, balancer, until

ENDPOINT = "tcp:0:interface=127.0.0.1"


@pytest.fixture(autouse=True)
def reactor_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reactor's own clock comes back after each test."""
    monkeypatch.setattr(reactor, "seconds", reactor.seconds)


async def all_heard(port: int, said: bytes = b"") -> bytes:
    """What comes to a client whose end is there before the daemon has had its turn."""
    heard = b""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(said)
        sock.shutdown(socket.SHUT_WR)
        sock.setblocking(False)

        def ended() -> bool:
            nonlocal heard
            try:
                piece = sock.recv(65536)
            except BlockingIOError:
                return False
            heard += piece
            return not piece

        await until(ended, "the end")
    return heard


def farm(place: str, hosts: str = "[alpha/1]") -> str:
    # two of the same would be a mistake in the file
    backlog = [place, f"{place}:backlog=60", f"{place}:backlog=70"] if place == ENDPOINT else [place] * 3
    return f"hosts: {hosts}\nlisten: {{balance: '{backlog[0]}', status: '{backlog[1]}', update: '{backlog[2]}'}}\n"


@pytest.mark.parametrize("place", [ANY, ENDPOINT], ids=["socket", "endpoint"])
@pytest_twisted.ensureDeferred
async def test_a_grant_goes_out_before_the_end(tmp_path: Path, place: str) -> None:
    async with balancer(tmp_path, farm(place)) as one:
        for said in (b"", b"hello\n"):
            assert await all_heard(one.port("balance"), said) == b"alpha\r\n"
            await one.await_leases(0)


@pytest.mark.parametrize("place", [ANY, ENDPOINT], ids=["socket", "endpoint"])
@pytest_twisted.ensureDeferred
async def test_the_status_page_goes_out_whole(tmp_path: Path, place: str) -> None:
    names = [f"box{number}" for number in range(5000)]
    async with balancer(tmp_path, farm(place, str([f"{name}/1" for name in names]))) as one:
        for said in (b"", b"GET / HTTP/1.0\r\n\r\n"):
            page = await all_heard(one.port("status"), said)
            assert [host.name for host in wire.parse_status(page).hosts] == names
        await until(lambda: one.service._frontends.status.crowd == 0, "the end of the conversations")


@pytest.mark.parametrize("place", [ANY, ENDPOINT], ids=["socket", "endpoint"])
@pytest_twisted.ensureDeferred
async def test_an_update_is_heard_with_and_without_its_end(tmp_path: Path, place: str) -> None:
    async with balancer(tmp_path, farm(place)) as one:
        for said, up in ((b"alpha down\n", False), (b"alpha up", True), (b"alpha down", False), (b"", False)):
            assert await all_heard(one.port("update"), said) == b""
            await until(lambda up=up: one.hosts()["alpha"].up == up, f"{said!r}")  # type: ignore[misc]
        await until(lambda: one.service._frontends.update.crowd == 0, "the end of the conversations")
