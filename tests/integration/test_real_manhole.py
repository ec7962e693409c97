"""The manhole, with real OpenSSH clients: commands, the shell, and those who are not let in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from tests.manholes import Manhole, Typist, quick_tables
from tests.services import Lines, until
from tests.sshd import Keys
from tests.support import need

pytest.importorskip("bcrypt", reason="Twisted Conch's libraries are not here: pip install 'distbal[ssh]'")
pytestmark = [pytest.mark.programs, pytest.mark.usefixtures("descriptors_stay")]


@pytest.fixture
def manhole(tmp_path: Path, keys: Keys, descriptors_stay: None) -> Iterator[Manhole]:
    need("ssh")
    one = Manhole(tmp_path, keys)
    with quick_tables():
        one.listen()
        yield one
        pytest_twisted.blockon(Deferred.fromCoroutine(one.stop()))


# -- commands


@pytest_twisted.ensureDeferred
async def test_a_verb_is_done_and_noted_with_the_comment_of_the_key(manhole: Manhole) -> None:
    with Lines() as lines:
        done = await manhole.do("drain", "newbb:3632", "'fan broken'")
    assert (done.status, done.out, done.err) == (0, "newbb:3632 is drained: fan broken\n", "")
    assert manhole.balancer.state("newbb:3632") == "drain"
    (change,) = manhole.balancer.admin.changes
    assert (change.by, change.where) == ("user@example", "ssh from 127.0.0.1")
    assert "user@example (ssh from 127.0.0.1): drain newbb:3632 'fan broken': newbb:3632 is drained: fan broken" in lines


@pytest_twisted.ensureDeferred
async def test_answers_are_tables_or_json(manhole: Manhole) -> None:
    table = await manhole.do("hosts")
    assert table.status == 0
    assert "newbb:3632" in table.out
    assert "\r" not in table.out
    for words in (("hosts", "--json"), ("--json", "hosts"), ("hosts", "'al*'", "--json")):
        answer = await manhole.do(*words)
        assert (answer.status, answer.err) == (0, "")
        assert json.loads(answer.out)["hosts"][0]["name"] == "alpha:3632"


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (("drain", "nobody"), 1, 'no host is called "nobody"; hosts lists them'),
        (("drain",), 2, "drain takes a host, and a reason if you like: drain HOST [WHY]"),
        (("1+1",), 2, 'there is no "1+1"'),
        (("drain", "'newbb"), 2, "No closing quotation: drain 'newbb"),
        (("help", "drian"), 2, 'there is no "drian": did you mean drain?'),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_cannot_be_done_is_said_on_stderr(
    manhole: Manhole, words: tuple[str, ...], status: int, sentence: str
) -> None:
    done = await manhole.do(*words)
    assert (done.status, done.out) == (status, "")
    assert sentence in done.err


@pytest_twisted.ensureDeferred
async def test_a_command_with_a_terminal(manhole: Manhole) -> None:
    one = Typist.at(manhole.command("-tt", "--", "drain", "newbb:3632"), columns=80)
    done = await one.ended
    assert done.status == 0
    assert done.out == "newbb:3632 is drained\r\n"


@pytest_twisted.ensureDeferred
async def test_the_shell(manhole: Manhole) -> None:
    one = Typist.at(manhole.command())
    await one.prompted()
    assert "A statement that blocks, blocks the balancer; no verb does." in one.text
    assert await one.enters("1 + 1") == "2"
    assert await one.enters("down('newbb:3632', 'fan broken')") == "newbb:3632 is down: fan broken"
    assert manhole.balancer.state("newbb:3632") == "down"
    assert await one.enters("hosts()['hosts'][0]['name']") == "'alpha:3632'"
    one.type("\x04")
    assert (await one.ended).status == 0
    await until(lambda: not len(manhole.factory))
