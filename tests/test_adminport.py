"""The admin socket, over real Unix sockets: requests, who it was, and callers who behave badly."""

from __future__ import annotations

import contextlib
import getpass
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from distbal import adminport, listening
from distbal.acceptor import Acceptor
from distbal.admin import Who
from distbal.adminport import AdminFactory
from distbal.bounds import bounds
from distbal.complaints import Complaints
from distbal.hosts import Farm
from distbal.spells import Spells, Steps
from distbal.verbs import Call
from tests.admins import Desk
from tests.farms import spec
from tests.services import Client, Lines, connect, until
from tests.support import LoggedErrors

USER = getpass.getuser()


class Office:
    """A desk whose socket is open; its callers' patience is on a clock of the test's."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.desk = Desk()
        self.clock = Clock()
        self.spells = Spells(cast("IReactorTime", reactor))
        self.factory = AdminFactory(self.desk.admin, Complaints(Logger(), self.clock.seconds), self.clock, self.spells)

    async def caller(self) -> Client:
        return await connect(self.path)

    async def say(self, request: object) -> dict[str, Any]:
        """The answer to one request."""
        caller = await self.caller()
        caller.transport.write((request if isinstance(request, bytes) else json.dumps(request).encode()) + b"\n")
        (answer,) = await heard(caller, 1)
        await caller.leave()
        return answer


@asynccontextmanager
async def office(directory: Path) -> AsyncIterator[Office]:
    one = Office(directory / "admin.sock")
    acceptor = Acceptor(reactor, listening.listen_unix(one.path, listening.ADMIN_MODE), one.factory)
    try:
        yield one
    finally:
        acceptor.stop()
        one.spells.stop()
        one.factory.hang_up()
        await until(lambda: not one.factory.callers, "the end of the callers")


async def heard(caller: Client, number: int) -> list[dict[str, Any]]:
    """So many answers."""
    await until(lambda: caller.heard.count(b"\n") >= number or caller.over, f"{number} answers")
    return [json.loads(line) for line in caller.heard.splitlines()]


@pytest_twisted.ensureDeferred
async def test_a_verb_and_who_said_it(tmp_path: Path) -> None:
    async with office(tmp_path) as one:
        assert await one.say({"words": ["drain", "fast", "fan broken"]}) == {
            "ok": True,
            "answer": {"text": "fast is drained: fan broken"},
        }
        await one.say({"words": ["up", "fast"], "for": "alice"})
        assert [(change.by, change.where) for change in one.desk.admin.changes] == [
            (USER, "admin socket"),
            (f"{USER} for alice", "admin socket"),
        ]


@pytest_twisted.ensureDeferred
async def test_what_is_wrong_is_a_sentence(tmp_path: Path) -> None:
    form = 'a request is a line of JSON such as {"words": ["drain", "newbb:3632", "fan broken"]}'
    async with office(tmp_path) as one:
        for request, error, usage in [
            ({"words": ["drain", "fats"]}, 'no host is called "fats": did you mean fast?', False),
            ({"words": ["drian"]}, 'there is no "drian": did you mean drain?', True),
            (b"GET / HTTP/1.1", form, True),
            (b"[" * 60_000, form, True),
            ([], form, True),
            ({"words": "drain"}, form, True),
            ({"words": ["drain", 5]}, form, True),
            ({"words": ["up", "fast"], "for": "x\ny"}, '"for" is a name of at most 64 characters', True),
            (b"\xff\xfe", form, True),
        ]:
            assert await one.say(request) == {"ok": False, "error": error, "usage": usage}, request
        assert len(one.desk.admin.changes) == 0


@pytest_twisted.ensureDeferred
async def test_requests_follow_one_another_in_their_order(tmp_path: Path) -> None:
    async with office(tmp_path) as one:
        caller = await one.caller()
        requests = [{"words": ["slots", "fast", str(number)]} for number in range(5, 105)] + [{"words": ["show", "fast"]}]
        caller.transport.write(b"".join(json.dumps(request).encode() + b"\n" for request in requests))
        answers = await heard(caller, 101)
        assert [answer["answer"]["text"] for answer in answers[:-1]] == [f"fast has {number} slots" for number in range(5, 105)]
        assert answers[-1]["answer"]["host"]["slots"] == 104


@pytest_twisted.ensureDeferred
async def test_an_answer_comes_when_the_change_is_kept(tmp_path: Path) -> None:
    async with office(tmp_path) as one:
        kept: Deferred[str] = Deferred()
        one.desk.saved = lambda: kept  # type: ignore[method-assign]
        caller = await one.caller()
        caller.transport.write(b'{"words": ["drain", "fast"]}\n{"words": ["status"]}\n')
        await until(lambda: one.desk.hosts()["fast"]["state"] == "drain", "the drain")
        assert caller.heard == b""
        kept.callback("")
        assert [answer["ok"] for answer in await heard(caller, 2)] == [True, True]


@pytest_twisted.ensureDeferred
async def test_a_caller_that_leaves_before_its_answer(tmp_path: Path) -> None:
    async with office(tmp_path) as one:
        kept: Deferred[str] = Deferred()
        one.desk.saved = lambda: kept  # type: ignore[method-assign]
        caller = await one.caller()
        caller.transport.write(b'{"words": ["drain", "fast"]}\n{"words": ["drain", "slow"]}\n')
        await until(lambda: one.desk.hosts()["fast"]["state"] == "drain", "the drain")
        await caller.leave()
        kept.callback("")
        await until(lambda: not one.factory.callers, "its end")
        # what it had asked for is done
        assert one.desk.hosts()["slow"]["state"] == "drain"


@pytest_twisted.ensureDeferred
async def test_one_that_says_all_and_then_listens(tmp_path: Path) -> None:
    async with office(tmp_path) as one:
        caller = await one.caller()
        caller.transport.write(b'{"words": ["drain", "fast"]}\n{"words": ["show", "fast"]}\n')
        caller.transport.loseWriteConnection()
        await caller.ends()
        assert [answer["ok"] for answer in await heard(caller, 2)] == [True, True]


@pytest_twisted.ensureDeferred
async def test_a_line_without_an_end(tmp_path: Path) -> None:
    async with office(tmp_path) as one:
        caller = await one.caller()
        caller.transport.write(b"x" * 200_000)
        (answer,) = await heard(caller, 1)
        assert answer["error"] == "a request is a line of at most 65536 bytes"
        assert bounds.hits["admin-line"] == 1
        one.clock.advance(adminport.PATIENCE + 1)
        await caller.ends()


@pytest_twisted.ensureDeferred
async def test_one_that_says_nothing_is_cut_off(tmp_path: Path) -> None:
    async with office(tmp_path) as one:
        caller = await one.caller()
        await until(lambda: len(one.factory.callers) == 1, "the caller")
        one.clock.advance(adminport.PATIENCE - 1)
        caller.transport.write(b'{"words": ["status"]}\n')
        await heard(caller, 1)
        one.clock.advance(adminport.PATIENCE - 1)
        assert not caller.over
        one.clock.advance(2)
        await caller.ends()


@pytest_twisted.ensureDeferred
async def test_one_that_never_reads_is_asked_no_more_and_cut_off(tmp_path: Path) -> None:
    async with office(tmp_path) as one:
        asked: list[str] = []
        before = one.desk.admin.do

        def note(call: Call, who: Who) -> dict[str, Any] | Deferred[dict[str, Any]]:
            asked.append(call.verb.name)
            return before(call, who)

        one.desk.admin.do = note  # type: ignore[method-assign]
        with socket.socket(socket.AF_UNIX) as caller:
            caller.setblocking(False)
            caller.connect(one.path)
            caller.send(b'{"words": ["hosts"]}\n' * 1000)
            await until(lambda: stuck(one) > 0, "a stop")
            assert 0 < len(asked) < 1000
            one.clock.advance(adminport.PATIENCE + 1)
            await until(lambda: not one.factory.callers, "its end")


@pytest_twisted.ensureDeferred
async def test_those_who_never_read_keep_nobody_out(tmp_path: Path) -> None:
    async with office(tmp_path) as one:
        with contextlib.ExitStack() as crowd:
            for _ in range(adminport.CROWD):
                caller = crowd.enter_context(socket.socket(socket.AF_UNIX))
                caller.setblocking(False)
                caller.connect(one.path)
                caller.send(b'{"words": ["hosts"]}\n' * 1000)
            await until(lambda: stuck(one) == adminport.CROWD, "a stop")
            assert (await one.say({"words": ["drain", "fast"]}))["ok"]
            assert stuck(one) == adminport.CROWD - 1


def stuck(one: Office) -> int:
    """How many callers' answers wait to be read."""
    return sum(caller.leaves_unread for caller in one.factory.callers)


@pytest_twisted.ensureDeferred
async def test_a_crowd(tmp_path: Path) -> None:
    async with office(tmp_path) as one:
        with Lines() as log:
            crowd = [await one.caller() for _ in range(adminport.CROWD)]
            await until(lambda: len(one.factory.callers) == adminport.CROWD, "the crowd")
            late = await one.caller()
            (told,) = await heard(late, 1)
            assert told["error"] == f"{adminport.CROWD} callers are there at once already: try again when one of them has left"
            await late.ends()
        assert f"{adminport.CROWD} callers at once on the admin socket: one more is turned away" in log
        assert bounds.hits["admin"] == 1
        for caller in crowd:
            await caller.leave()
        assert (await one.say({"words": ["status"]}))["ok"]


@pytest_twisted.ensureDeferred
async def test_a_bug_is_told_and_logged(tmp_path: Path, logged_errors: LoggedErrors) -> None:
    async with office(tmp_path) as one:
        one.desk.reporter.status = lambda: 1 / 0  # type: ignore[method-assign,assignment,return-value]
        told = await one.say({"words": ["status"]})
        assert told == {"ok": False, "error": "a bug in distbal (ZeroDivisionError): its log tells more", "usage": False}
        assert len(logged_errors.flush()) == 1
        assert (await one.say({"words": ["hosts"]}))["ok"]


def test_an_account_without_a_name() -> None:
    assert adminport.account(3_999_999_999) == "uid 3999999999"


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(("line", "number"), [(b"x", 30_000), (b'{"words":["log"]}', 3000), (b'{"words":["hosts"]}', 500)])
async def test_thousands_of_requests_at_once_are_answered_in_turn(tmp_path: Path, line: bytes, number: int) -> None:
    async with office(tmp_path) as one:
        caller = await one.caller()
        caller.transport.write((line + b"\n") * number)
        assert len(await heard(caller, number)) == number


@pytest_twisted.ensureDeferred
async def test_a_long_answer_is_made_in_spells_and_says_the_same(tmp_path: Path) -> None:
    async with office(tmp_path) as one:
        one.desk.admin.file_changed(Farm(tuple(spec(f"box{number}", 1, number) for number in range(100))))
        one.desk.job()
        said = (["hosts"], ["hosts", "box1*", "box20"], ["show", "box0"], ["jobs"], ["history"])
        answers = {tuple(words): json.loads(json.dumps(one.desk.say(*words))) for words in said}
        one.desk.admin._spells = one.spells
        for words in said:
            assert await one.say({"words": words}) == {"ok": True, "answer": answers[tuple(words)]}
        assert not (await one.say({"words": ["hosts", "nix"]}))["ok"]
        assert not (await one.say({"words": ["show", "nix"]}))["ok"]


@pytest_twisted.ensureDeferred
async def test_nothing_is_changed_after_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The account of a caller may take long to be found; what it said must not be done when all is kept and closed."""
    async with office(tmp_path) as one:
        gate = Event()

        def slow(uid: int) -> str:
            gate.wait(20)
            return str(uid)

        monkeypatch.setattr(adminport, "account", slow)
        caller = await one.caller()
        caller.transport.write(b'{"words": ["drain", "fast"]}\n')
        await until(lambda: any(caller._busy for caller in one.factory.callers), "the request")
        one.factory.hang_up()
        gate.set()
        await caller.ends()
        await until(lambda: not one.factory.callers, "its end")
        await deferToThread(lambda: None)
        assert one.desk.hosts()["fast"]["state"] == "ready"


@pytest_twisted.ensureDeferred
async def test_nothing_is_made_for_callers_that_have_left(tmp_path: Path) -> None:
    async with office(tmp_path) as one:
        one.desk.admin._spells = one.spells
        made = 0
        steps = one.desk.admin._hosts_like

        def counted(wanted: Callable[[str], bool]) -> Steps[dict[str, Any]]:
            nonlocal made
            for _ in range(10_000):
                made += 1
                yield
            return (yield from steps(wanted))

        one.desk.admin._hosts_like = counted  # type: ignore[method-assign]
        one.spells._cpu = time.perf_counter
        callers = [await one.caller() for _ in range(20)]
        for caller in callers:
            caller.transport.write(b'{"words": ["hosts"]}\n' * 5)
        await until(lambda: made > 20, "a beginning")
        for caller in callers:
            await caller.leave()
        await until(lambda: not one.factory.callers, "their end")
        assert not one.spells._tasks
        assert (await one.say({"words": ["status"]}))["ok"]


@pytest_twisted.ensureDeferred
async def test_those_who_are_there_are_answered_before_they_are_let_go(tmp_path: Path) -> None:
    async with office(tmp_path) as one:
        kept: Deferred[str] = Deferred()
        one.desk.saved = lambda: kept  # type: ignore[method-assign]
        idle, busy = await one.caller(), await one.caller()
        busy.transport.write(b'{"words": ["upgrade"]}\n')
        await until(lambda: len(one.desk.admin.changes) == 1, "the verb")
        left: list[None] = []
        one.factory.take_leave().addCallback(left.append)
        await idle.ends()
        assert (busy.over, left) == (False, [])
        kept.callback("")
        await busy.ends()
        assert json.loads(busy.heard)["answer"]["after"] == "0.6.0"
        await until(lambda: left == [None], "the end of all that were there")
        # whoever comes now is answered too, and stays no longer
        late = await one.caller()
        late.transport.write(b'{"words": ["queue"]}\n')
        await late.ends()
        assert json.loads(late.heard)["ok"]
        one.factory.stay()
        assert (await one.say({"words": ["queue"]}))["ok"]
        assert one.factory.take_leave().called, "nobody is there"
