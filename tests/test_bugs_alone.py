"""A bug, planted wherever one thing is served among others: it ends that one alone, is logged once, and is counted."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.logger import formatEvent
from twisted.python.failure import Failure

from distbal import wire
from distbal.bugs import bugs
from distbal.interfaces import Reading
from distbal.lookup import Lookup, Place
from distbal.proxy.session import CONNECT_TIME, Session
from tests.peers import Peer
from tests.ports import Office
from tests.proxies import House, Server, both_relays, expect
from tests.services import LISTEN, ONE, balancer, until
from tests.showcase import Shown, farm
from tests.sites import Website
from tests.support import LoggedErrors, alone
from tests.takers import Client, ask, due, source
from tests.watchers import UP, ground


def boom(*_: object, **__: object) -> NoReturn:
    raise ZeroDivisionError("planted")


def once(call: Callable[..., Any]) -> Callable[..., Any]:
    """The first call meets a bug, and the others do what they should."""
    met: list[bool] = []

    def planted(*args: Any, **more: Any) -> Any:
        if not met:
            met.append(True)
            boom()
        return call(*args, **more)

    return planted


def one_line(errors: LoggedErrors) -> str:
    """What the log has: one event, with its traceback."""
    (event,) = errors.flush()
    assert event["log_failure"].type is ZeroDivisionError
    assert "boom" in event["log_failure"].getTraceback()
    return str(formatEvent(event))


def counted() -> dict[str, int]:
    return {place: count for place, count in bugs.counts.items() if count}


# -- leases


def test_what_expires_is_looked_at_again_after_a_bug(monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors) -> None:
    clock = Clock()
    leases, waiter = source(clock, "fast", wait=10), Client()
    ask(leases, Client())
    ask(leases, waiter)
    monkeypatch.setattr(leases.scheduler, "wake", once(leases.scheduler.wake))
    clock.advance(10.01)
    assert waiter.refusals == []
    clock.advance(1)
    assert len(waiter.refusals) == 1
    assert one_line(logged_errors) == "what has expired could not be looked at; it is tried again"
    assert counted() == {"periodic": 1}
    leases.stop()


def test_while_that_bug_lasts_it_is_tried_once_a_second_and_not_without_end(
    monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors
) -> None:
    clock = Clock()
    leases = source(clock, "fast", wait=10)
    ask(leases, Client())
    ask(leases, Client())
    with monkeypatch.context() as planted:
        planted.setattr(leases.scheduler, "wake", boom)
        clock.advance(10.01)
        for _ in range(5):
            assert due(clock) == [1.0]
            # whoever asks, and whatever is said, makes it no sooner
            ask(leases, Client())
            leases.report("fast", "tcp", up=True, ttl=0.5)
            clock.advance(1)
    assert counted() == {"periodic": 6}
    assert len(logged_errors.flush()) == 1
    leases.stop()
    assert due(clock) == []


# -- monitors


def test_a_check_that_could_not_be_begun_is_made_the_next_time(
    monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors
) -> None:
    with ground("a", "b") as one:
        kind = one.kind()
        one.watch(kind, interval=1)
        monkeypatch.setattr(one.rounds._turns, "ask", once(one.rounds._turns.ask))
        one.go(10)
        assert min(len(kind.times("a")), len(kind.times("b"))) >= 8
    assert one_line(logged_errors).endswith("could not be asked; it is tried again")
    assert counted() == {"periodic": 1}


def test_what_could_not_be_heard_is_asked_again(monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors) -> None:
    with ground("a", "b") as one:
        kind = one.kind(most_at_once=1)
        kind.answers["a"] = Reading(up=False, reason="is broken")
        one.watch(kind, interval=1, fall=1)
        monkeypatch.setattr(one.leases, "report", once(one.leases.report))
        one.go(10)
        assert (one.up("a"), one.up("b")) == (False, True)
        assert len(kind.times("b")) >= 8
    assert "could not be heard" in one_line(logged_errors)
    assert counted() == {"monitor": 1}


def test_a_monitor_with_a_bug_is_counted() -> None:
    with ground("a") as one:
        kind = one.kind()
        kind.answer = boom
        one.watch(kind, interval=1)
        one.go(30)
        assert counted() == {"monitor": one.state("a").bugs}
        kind.answer = UP


def test_the_slots_that_are_lent_go_on_being_sampled(monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors) -> None:
    with ground("a") as one:
        sampler = one.rounds._sampler
        seen: list[float] = []
        monkeypatch.setattr(sampler, "_turn", once(lambda: seen.append(one.clock.seconds())))
        one.watch(one.kind())
        one.go(30, 1)
        assert len(seen) == 5
    assert one_line(logged_errors) == "to sample the slots that are lent met a bug; the next turn comes"
    assert counted() == {"periodic": 1}


# -- the page


@pytest.fixture
def website() -> Any:
    shown = Shown(farm("newbb/2"))
    one = Website(shown)
    one.feed.start()
    yield one
    one.feed.stop()
    shown.stop()


def test_a_bug_with_one_reader_ends_that_stream_alone(website: Website, logged_errors: LoggedErrors) -> None:
    readers = [website.listen() for _ in range(3)]
    second = list(website.feed._listeners.values())[1]
    second.send = boom  # type: ignore[method-assign]
    website.clock.advance(1)
    website.shown.ask()
    website.clock.advance(1)
    assert [len(reader.answer.frames) for reader in (readers[0], readers[2])] == [2, 2]
    assert (website.feed.listeners, readers[1].answer.frames) == (2, [])
    assert one_line(logged_errors) == "a browser's stream met a bug; it is ended"
    assert counted() == {"page": 1}


def test_an_hour_that_cannot_be_noted_keeps_no_frame_back(website: Website, logged_errors: LoggedErrors) -> None:
    website.shown.activity.look = boom  # type: ignore[method-assign]
    reader = website.listen()
    for _ in range(3):
        website.shown.ask()
        website.clock.advance(1)
    assert len(reader.answer.frames) == 3
    assert one_line(logged_errors) == "the last hour could not be noted"
    # one of them when the feed was started, before the bug was planted, was none
    assert counted() == {"page": 3}


# -- 5657, 5658


@pytest_twisted.ensureDeferred
async def test_a_page_that_cannot_be_made_ends_that_conversation(
    monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors
) -> None:
    office = Office()
    async with office.serves("status", "127.0.0.1:0"):
        monkeypatch.setattr(wire, "status", once(wire.status))
        with Peer(office.where) as peer:
            assert await peer.is_turned_away()
        await until(lambda: office.status.crowd == 0)
        with Peer(office.where) as peer:
            assert wire.parse_status(await peer.rest()).hosts
        await until(lambda: office.status.crowd == 0)
    assert one_line(logged_errors) == "a conversation on the status port met a bug; it is ended"
    assert counted() == {"connection": 1}


@pytest_twisted.ensureDeferred
async def test_what_is_said_and_cannot_be_heard_ends_that_conversation(
    monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors
) -> None:
    office = Office()
    async with office.serves("update", "127.0.0.1:0"):
        monkeypatch.setattr(office.leases, "report", once(office.leases.report))
        for up in (True, False):
            with Peer(office.where) as peer:
                peer.send(b"fast down\n")
                assert await peer.is_turned_away()
            assert office.leases.scheduler.host("fast").up is up
            await until(lambda: office.update.crowd == 0)
    assert one_line(logged_errors) == "a conversation on the update port met a bug; it is ended"
    assert counted() == {"connection": 1}


# -- the proxy, and where hosts are


@both_relays
@pytest_twisted.ensureDeferred
async def test_a_bug_at_a_deadline_ends_that_session_and_gives_its_slot_back(
    relay: str, monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors
) -> None:
    with Server() as server:
        house = House(server.spec())
        async with house.serves(relay):
            monkeypatch.setattr(Session, "_look_up", lambda session: house.proxy.young.add(session))  # noqa: PLW0108 (a method)
            monkeypatch.setattr(Session, "aged", boom)
            with house.client(b"hello"):
                await house.becomes(lent=1)
                house.clock.advance(CONNECT_TIME + 0.1)
                await house.becomes(lent=0)
            monkeypatch.undo()
            with house.client(b"hello") as client:
                await expect(house, server, client, b"hello")
    assert one_line(logged_errors) == "a session met a bug at a deadline; it is ended"
    assert counted() == {"session": 1}


def test_a_resolver_with_a_bug_is_no_end_of_looking_up(logged_errors: LoggedErrors) -> None:
    """Nor one that finds no thread to look in: whoever asks again is answered."""
    lookup = Lookup(Clock(), boom)
    told: list[list[Place] | Failure] = []
    for _ in range(2):
        lookup.find(("box.invalid", 3632), told.append)
    assert [str(one.value) for one in told if isinstance(one, Failure)] == ["planted"] * 2
    assert one_line(logged_errors) == "box.invalid could not be looked up, by a bug"
    assert counted() == {"session": 2}


# -- the daemon


@pytest_twisted.ensureDeferred
async def test_a_bug_in_taking_a_file_in_is_told_and_the_next_is_taken_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors
) -> None:
    async with balancer(tmp_path, ONE + LISTEN) as one:
        monkeypatch.setattr(one.service, "_take_in", once(one.service._take_in))
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: counted() == {"reload": 1}, "the bug")
        assert one_line(logged_errors).endswith("hosts.yaml could not be taken in, by a bug")
        one.file.write_text(alone(f"hosts: [alpha/1, beta/1]\n{LISTEN}"))
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: set(one.hosts()) == {"alpha", "beta"}, "the reload")


@pytest_twisted.ensureDeferred
async def test_what_twisted_caught_is_counted_and_logged_once(tmp_path: Path, logged_errors: LoggedErrors) -> None:
    async with balancer(tmp_path, ONE + LISTEN) as one:
        for _ in range(3):
            reactor.callLater(0, boom)
        await until(lambda: bugs.counts["reactor"] == 3, "three bugs")
        assert len(logged_errors.flush()) == 1
        status = one.service.reporter.status()
        assert status["inside"]["bugs"]["reactor"] == 3
        client = await one.client()
        await client.hears(b"alpha\r\n")
        await client.leave()
        await one.await_leases(0)


@pytest_twisted.ensureDeferred
async def test_where_there_is_no_more_room_it_is_said_and_counted(tmp_path: Path) -> None:
    async with balancer(tmp_path, ONE + LISTEN) as one:
        loop = one.service.serving.loop
        assert loop is not None
        loop.room = 2
        clients = [await one.client() for _ in range(3)]
        await until(lambda: one.service.reporter.status()["inside"]["bounds"]["clients"] > 0, "the bound")
        assert one.service.reporter.status()["inside"]["room"] == 0
        for client in clients:
            await client.leave()
        await until(lambda: one.service.reporter.status()["inside"]["room"] == 2, "room")
        await one.await_leases(0)
