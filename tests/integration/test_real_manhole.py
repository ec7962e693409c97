"""The manhole, with real OpenSSH clients: commands, the shell, and those who are not let in."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from distbal.hosts import Farm
from tests.farms import spec
from tests.manholes import Manhole, Running, Typist, environment, run
from tests.services import Lines, connect, until
from tests.sshd import Keys
from tests.support import LoggedErrors, free_port, need

pytest.importorskip("bcrypt", reason="Twisted Conch's libraries are not here: pip install 'distbal[ssh]'")
pytestmark = [pytest.mark.programs, pytest.mark.usefixtures("descriptors_stay")]


@pytest.fixture
def manhole(tmp_path: Path, keys: Keys, descriptors_stay: None) -> Iterator[Manhole]:
    need("ssh")
    one = Manhole(tmp_path, keys)
    one.listen()
    yield one
    pytest_twisted.blockon(Deferred.fromCoroutine(one.stop()))


# -- commands


@pytest.mark.parametrize("is_slow", [False, True])
@pytest_twisted.ensureDeferred
async def test_the_shell_says_what_cannot_be_kept(manhole: Manhole, is_slow: bool) -> None:
    daemon = manhole.balancer.daemon
    daemon.why_not = "the disk is full"
    daemon.is_slow = is_slow
    running = Deferred.fromCoroutine(manhole.run(said=b"drain('newbb:3632')"))
    if is_slow:
        await until(lambda: len(daemon.slow) == 1, "what is to be kept")
        daemon.catch_up()
    done = await running
    warning, answer = "warning: it holds until a restart, since the disk is full", "newbb:3632 is drained"
    assert sorted(done.out.splitlines()) == [answer, warning]
    daemon.why_not, daemon.is_slow = "", False
    assert (await manhole.run(said=b"up('newbb:3632')")).out == "newbb:3632 is ready\n"


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


@pytest_twisted.ensureDeferred
async def test_a_long_answer_is_read_to_its_end(manhole: Manhole) -> None:
    """The answer of a large farm is more than a client can have read when it is said."""
    pools = tuple(f"pool-{number:02}-{'long-' * 50}" for number in range(16))
    hosts = (replace(spec(f"box{number}", 4, number), pools=pools) for number in range(2000))
    manhole.balancer.admin.file_changed(Farm(tuple(hosts)))
    answer = await manhole.do("hosts", "--json")
    assert (answer.status, answer.err) == (0, "")
    assert len(answer.out) > 8_000_000
    assert len(json.loads(answer.out)["hosts"]) == 2000


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (("drain", "nobody"), 1, 'no host is called "nobody"; hosts lists them'),
        (("drain",), 2, "drain takes a host, and a reason if you like: drain HOST [WHY]"),
        (("drain", "alpha:3632", "x" * 9000), 2, "a command has at most 8192 characters"),
        (("drain", "alpha:3632", "x" * 400), 2, "a reason has at most 300 characters, and this one 400"),
        ((" ",), 2, "say what to do: status, hosts, "),
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
async def test_keys_of_each_type(manhole: Manhole) -> None:
    for key in manhole.users:
        done = await manhole.run("--", "up", "alpha:3632", key=key)
        assert (done.status, done.out, done.err) == (0, "alpha:3632 was ready already\n", "")


@pytest_twisted.ensureDeferred
async def test_keys_are_exchanged_anew_in_the_middle(manhole: Manhole) -> None:
    done = await manhole.run("-o", "RekeyLimit=300K", said=b"print('x' * 500_000)\n" * 6)
    assert done.status == 0
    assert done.out == ("x" * 500_000 + "\n") * 6


@pytest_twisted.ensureDeferred
async def test_several_sessions_on_one_connection(manhole: Manhole) -> None:
    control = ("-o", f"ControlPath={manhole.directory / 'c'}")
    first = Running(None)
    command = manhole.command("-o", "ControlMaster=yes", *control)
    reactor.spawnProcess(first, command[0], command, environment())
    first.transport.write(b"print('in')\n")
    await until(lambda: first.out == b"in\n", "the first")
    for _ in range(12):
        assert (await manhole.run(*control, "--", "up", "beta:3632")).out == "beta:3632 was ready already\n"
    assert len(manhole.factory.connections) == 1
    first.transport.closeStdin()
    assert (await first.ended).status == 0


@pytest_twisted.ensureDeferred
async def test_help_as_a_command(manhole: Manhole) -> None:
    everything = await manhole.do("help")
    assert everything.status == 0
    assert "drain HOST [WHY]\n    give it no new jobs; the running ones end by themselves\n" in everything.out
    one = await manhole.do("help", "drain")
    assert one.out.startswith("drain HOST [WHY]\ngive it no new jobs")
    assert one.out.endswith("for example: drain newbb:3632 'fan broken'\n")


@pytest_twisted.ensureDeferred
async def test_a_bug_in_a_verb_is_logged_and_said(
    manhole: Manhole, logged_errors: LoggedErrors, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(manhole.balancer.daemon, "save", broken)
    done = await manhole.do("drain", "alpha:3632")
    assert (done.status, done.out) == (1, "")
    assert done.err == "drain met a bug of distbal's, which is in its log\n"
    (event,) = logged_errors.flush()
    assert event["log_failure"].check(ZeroDivisionError)


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
    await until(lambda: not manhole.factory.connections)


@pytest_twisted.ensureDeferred
async def test_what_a_statement_raises_is_shown_and_harms_nothing(manhole: Manhole) -> None:
    one = Typist.at(manhole.command())
    assert (await one.enters("1 / 0")).endswith("ZeroDivisionError: division by zero")
    assert await one.enters("drain('nobody')") == 'no host is called "nobody"; hosts lists them'
    assert (await one.enters("raise BaseException('odd')")).endswith("BaseException: odd")
    assert (await one.enters("raise KeyboardInterrupt")).endswith("KeyboardInterrupt")
    assert await one.enters("input()") == "input() would wait, and the balancer with it"
    assert "SyntaxError" in await one.enters("1 +* 1")
    assert await one.enters("exit") == "exit() or Ctrl-D ends the session"
    one.type("import sys; print('last words'); sys.exit(7)\r")
    done = await one.ended
    assert done.status == 7
    assert "last words" in one.text
    assert (await manhole.do("status")).status == 0


@pytest_twisted.ensureDeferred
async def test_keys_of_the_shell(manhole: Manhole) -> None:
    one = Typist.at(manhole.command())
    await one.prompted()
    # Tab: a name, an attribute, a host
    one.type("sched\t")
    await one.prompted(">>> scheduler")
    one.type(".far\t")
    await one.prompted(">>> scheduler.farm")
    # Ctrl-C gives the line up
    one.type("\x03")
    await one.prompted()
    assert ">>> scheduler.farm^C" in one.text
    one.type("drain('ne\t")
    await one.prompted(">>> drain('newbb:3632")
    one.type("', 'fan')\r")
    await one.sees("newbb:3632 is drained: fan")
    # arrows: the line before, changed in the middle
    one.type("\x1b[A")
    await one.prompted(">>> drain('newbb:3632', 'fan')")
    one.type("\x1b[D" * 2 + " broken")
    await one.prompted(">>> drain('newbb:3632', 'fan broken')")
    one.type("\r")
    await one.sees("newbb:3632 is drained: fan broken")
    one.type("\x1b[A\x1b[A\x1b[B\x1b[B")
    await one.prompted()
    # several lines, and Ctrl-C in the middle of them
    one.type("for i in range(3):\r")
    await one.prompted("...")
    one.type("\t")
    one.type("print('line', i * 11)\r\r")
    await one.sees("line 22")
    await one.prompted()
    one.type("def f():\r")
    await one.prompted("...")
    one.type("\x03")
    await one.prompted()
    # letters of all the world
    one.type("'größe' + '数'\x0c")
    await one.prompted(">>> 'größe' + '数'")
    one.type("\r")
    await one.sees("'größe数'")
    # several possibilities are listed
    one.type("dr\t\x03")
    await one.prompted()
    one.type("\x0ch\t")
    await one.sees("history(")
    await one.prompted(">>> h")
    # Ctrl-D deletes, and ends the session where there is nothing
    one.type("\x01\x04")
    await one.prompted()
    one.type("\x04")
    assert (await one.ended).status == 0


@pytest_twisted.ensureDeferred
async def test_a_window_that_changes(manhole: Manhole) -> None:
    one = Typist.at(manhole.command(), columns=60)
    await one.prompted()
    one.type("'" + "a" * 100 + "z'")
    await one.prompted(">>> " + "a" * 53 + "z'")
    one.resize(150)
    await until(lambda: one.line == ">>> '" + "a" * 100 + "z'", "the whole line")
    one.resize(30)
    await until(lambda: one.line.endswith("z'") and len(one.line) < 30, "the end of the line")
    one.type("\x03\x04")
    await one.ended


@pytest_twisted.ensureDeferred
async def test_answers_that_come_later_leave_the_line_that_is_typed(manhole: Manhole) -> None:
    daemon = manhole.balancer.daemon
    one = Typist.at(manhole.command())
    daemon.is_slow = True
    assert await one.enters("reload()") == "reload: its answer is shown when it is there"
    one.type("1 + 1")
    await one.prompted(">>> 1 + 1")
    daemon.catch_up()
    await one.sees("the file was taken in\n>>> 1 + 1")
    one.type("\r")
    await one.sees("\n2\n>>>")
    assert await one.enters("answer = reload()") == ""
    daemon.mistakes = ["hosts.yaml:1: no"]
    daemon.catch_up()
    await one.sees("the file was taken in")
    await one.enters("answer = reload()")
    daemon.catch_up()
    await one.sees("hosts.yaml:1: no")
    one.type("\x04")
    await one.ended


@pytest_twisted.ensureDeferred
async def test_help_lists_the_verbs_with_an_example_each(manhole: Manhole) -> None:
    one = Typist.at(manhole.command(), columns=140)
    shown = await one.enters("help()")
    for line in ("drain('newbb:3632', 'fan broken')", "rank('newbb:3632', before='snookles:3632')", "slots('newbb:3632', 12)"):
        assert line in shown
    assert "The live objects: admin, leases, monitors, scheduler" in shown
    assert "drain HOST [WHY]" in await one.enters("help(drain)")
    assert "drain HOST [WHY]" in await one.enters("drain")
    assert "len(obj" in await one.enters("help(len)")
    one.type("\x04")
    await one.ended


@pytest_twisted.ensureDeferred
async def test_a_dumb_terminal_gets_no_control_sequences(manhole: Manhole) -> None:
    one = Typist.at(manhole.command(), term="dumb")
    await one.prompted()
    one.type("1 + 11\x7f\r")
    await one.sees("\n2\n>>>")
    one.type("\x04")
    assert "\x1b" not in (await one.ended).out


@pytest_twisted.ensureDeferred
async def test_lines_from_a_pipe(manhole: Manhole) -> None:
    daemon = manhole.balancer.daemon
    daemon.is_slow = True
    lines = b"for i in range(2):\n    print(i)\n\nup('alpha:3632')\n1/0\nexport()\ndrain('alpha:3632')"
    running = Deferred.fromCoroutine(manhole.run("-T", said=lines))
    await until(lambda: len(daemon.slow) == 3, "what up, export and drain wait for")
    daemon.catch_up()
    done = await running
    assert done.err == ""
    first, _, rest = done.out.partition("Traceback (most recent call last):\n")
    assert first == "0\n1\nalpha:3632 was ready already\n"
    assert "ZeroDivisionError: division by zero\nexport: its answer is shown when it is there\nalpha:3632 is drained\n" in rest
    assert done.status == 0
    assert (await manhole.run("-T", said=b"exit(3)\nprint('not any more')\n")).out == ""


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
@pytest_twisted.ensureDeferred
async def test_host_keys_of_other_types(tmp_path: Path, keys: Keys, kind: str) -> None:
    host_key = tmp_path / "ssh_host_ed25519_key"
    host_key.touch(0o600)
    host_key.write_bytes(keys.private(f"host_{kind}").read_bytes())
    one = Manhole(tmp_path, keys)
    one.listen()
    assert (await one.do("up", "alpha:3632")).out == "alpha:3632 was ready already\n"
    await one.stop()


@pytest_twisted.ensureDeferred
async def test_the_end_is_said(manhole: Manhole) -> None:
    one = Typist.at(manhole.command("-o", "LogLevel=INFO"))
    await one.prompted()
    await manhole.factory.close()
    done = await one.ended
    assert done.status == 255
    assert "the balancer stops" in done.out


@pytest_twisted.ensureDeferred
async def test_those_who_are_there_are_seen_off_and_may_come_again(manhole: Manhole) -> None:
    one = Typist.at(manhole.command("-o", "LogLevel=INFO"))
    await one.prompted()
    await manhole.factory.see_off(b"the balancer is upgraded: come again")
    done = await one.ended
    assert done.status == 255
    assert "the balancer is upgraded: come again" in done.out
    told = await manhole.do("upgrade")
    assert (told.status, told.out) == (
        0,
        "distbal 0.5.0 goes on as 0.6.0: the new code said yes; this connection ends with that\n",
    )
    await manhole.factory.see_off(b"")


@pytest_twisted.ensureDeferred
async def test_whoever_asked_for_the_upgrade_hears_its_answer_first(manhole: Manhole) -> None:
    daemon = manhole.balancer.daemon
    daemon.is_slow = True
    asked = Deferred.fromCoroutine(manhole.do("upgrade"))
    shell = Typist.at(manhole.command("-o", "LogLevel=INFO"))
    await shell.prompted()
    await until(lambda: bool(daemon.slow), "the question")
    daemon.is_slow = False
    daemon.catch_up()
    # as the daemon does it, in the very next turn
    await deferLater(reactor, 0)
    await manhole.factory.see_off(b"the balancer is upgraded: come again")
    told = await asked
    words = "distbal 0.5.0 goes on as 0.6.0: the new code said yes; this connection ends with that\n"
    assert (told.status, told.out, told.err) == (0, words, "")
    assert "come again" in (await shell.ended).out


@pytest_twisted.ensureDeferred
async def test_a_client_that_was_answered_and_stays_is_seen_off_too(manhole: Manhole) -> None:
    # a master of OpenSSH's, whose last session has ended
    path = manhole.directory / "master"
    master = Deferred.fromCoroutine(manhole.run("-M", "-N", "-S", str(path)))
    await until(path.exists, "the master")
    assert (await manhole.run("-S", str(path), "--", "up", "alpha:3632")).status == 0
    await manhole.factory.see_off(b"the balancer is upgraded: come again")
    assert (await master).status == 255


# -- those who are not let in


@pytest.mark.parametrize("settings", [(), ("-o", "PreferredAuthentications=password,keyboard-interactive")])
@pytest_twisted.ensureDeferred
async def test_without_the_right_key_nobody_is_let_in(manhole: Manhole, settings: tuple[str, ...]) -> None:
    with Lines() as lines:
        for key in ("host_ed25519", "host_ecdsa", "host_rsa", ""):
            done = await manhole.run(*settings, "--", "status", key=key)
            assert (done.status, done.out) == (255, "")
            assert "Permission denied (publickey)" in done.err
    wanted = "left without logging in" if settings else "is not let in as 'admin' with SHA256:"
    assert f"manhole: ssh from 127.0.0.1 {wanted}" in lines
    assert lines.of("error") == []


@pytest_twisted.ensureDeferred
async def test_a_key_counts_from_when_it_is_written_down(manhole: Manhole) -> None:
    manhole.authorize("host_rsa")
    assert (await manhole.run("--", "status", key="user_rsa")).status == 255
    assert (await manhole.run("--", "status", key="host_rsa", user="anybody")).status == 0
    manhole.authorized.chmod(0o666)
    with Lines() as lines:
        assert (await manhole.run("--", "status", key="host_rsa")).status == 255
    assert f"others may write {manhole.authorized}, and so let anybody in: chmod go-w {manhole.authorized}" in lines


@pytest_twisted.ensureDeferred
async def test_nothing_is_forwarded(manhole: Manhole) -> None:
    with Lines() as lines:
        for words in (("-R", "0:127.0.0.1:1"), ("-W", "127.0.0.1:1")):
            refused = await manhole.run("-o", "ExitOnForwardFailure=yes", *words, *(() if "-W" in words else ("--", "status")))
            assert refused.status == 255, words
        # what the client listens on itself leads nowhere, and what is sent along is not taken
        port = free_port()
        one = Running(None)
        command = manhole.command("-A", "-Y", "-L", f"{port}:127.0.0.1:{manhole.port.getHost().port}", "-o", "SendEnv=LC_*")
        reactor.spawnProcess(one, command[0], command, environment())
        one.transport.write(b"print('ready')\n")
        await until(lambda: one.out == b"ready\n", "the shell")
        forwarded = await connect(port)
        await forwarded.ends()
        assert forwarded.heard == b""
        one.transport.closeStdin()
        assert (await one.ended).status == 0
        # subsystems
        for protocol in ("-s", "-O"):
            done = await manhole.run(protocol, "--", "sftp") if protocol == "-s" else await run(sftp(manhole))
            assert done.status == 255
    assert [text for level, text in lines.all if level not in ("info", "debug")] == []


def sftp(manhole: Manhole) -> list[str]:
    settings = manhole.command()[3:-3]
    return ["sftp", "-F", "none", "-P", str(manhole.port.getHost().port), *settings, "admin@127.0.0.1"]


@pytest.mark.parametrize(
    ("restrictions", "works", "why"),
    [
        ('command="status --json",no-pty ', True, ""),
        ('from="10.0.0.0/8,!127.0.0.1" ', False, "may not be used from there (from)"),
        ('from="127.0.0.*" ', True, ""),
        ('expiry-time="20200101" ', False, "has expired (expiry-time)"),
        ('restrict,pty,command="" ', False, 'its option command wants a value: command="..."'),
        ("cert-authority ", False, "its option cert-authority is not known here"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_keys_with_options(manhole: Manhole, restrictions: str, works: bool, why: str) -> None:
    manhole.restrictions = restrictions
    manhole.authorize("user_ed25519")
    with Lines() as lines:
        done = await manhole.do("drain", "alpha:3632")
    assert (done.status == 0) is works
    assert why in lines
    forced = "command" in restrictions
    if works:
        assert ('"totals"' in done.out) is forced
    assert (manhole.balancer.state("alpha:3632") == "drain") is (works and not forced)


# -- crowds


@pytest_twisted.ensureDeferred
async def test_fifty_sessions_at_once(manhole: Manhole) -> None:
    running = []
    for _ in range(50):
        one = Running(None)
        command = manhole.command()
        reactor.spawnProcess(one, command[0], command, environment())
        one.transport.write(b"mine = []; print('in')\n")
        running.append(one)
    await until(lambda: all(one.out == b"in\n" for one in running), "fifty sessions")
    assert len(manhole.factory.connections) == 50
    # a client whose machine lost power does not stay for hours
    for transport in manhole.factory.connections:
        assert transport.transport.getHandle().getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert transport.transport.getHandle().getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
    for number, one in enumerate(running):
        one.transport.write(b"mine.append(%d); print(mine)\n" % number)
        one.transport.closeStdin()
    for number, one in enumerate(running):
        done = await one.ended
        assert (done.status, done.out, done.err) == (0, f"in\n[{number}]\n", "")


@pytest_twisted.ensureDeferred
async def test_one_that_never_reads_holds_up_nobody(manhole: Manhole) -> None:
    one = Running(None)
    command = manhole.command()
    reactor.spawnProcess(one, command[0], command, environment())
    one.transport.write(b"print('in'); said = []\n")
    await until(lambda: one.out == b"in\n", "the shell")
    one.transport.pauseProducing()
    before = resident()
    # more than everybody's buffers take
    one.transport.write(b"said.append(1); print('x' * 900_000)\n" * 40)
    (transport,) = manhole.factory.connections
    (session,) = transport.service.channels.values()
    await until(lambda: session.is_behind, "a full window")
    for _ in range(5):
        assert (await manhole.do("drain", "beta:3632")).status == 0
    assert resident() - before < 20_000_000
    # it waits for its client, which has all of it in the end
    one.transport.write(b"print(len(said))\n")
    one.transport.closeStdin()
    one.transport.resumeProducing()
    done = await one.ended
    assert done.status == 0
    assert done.out.endswith("x\n40\n")
    assert len(done.out) == len("in\n") + 40 * 900_001 + len("40\n")


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest_twisted.ensureDeferred
async def test_those_who_speak_something_else(manhole: Manhole) -> None:
    with Lines() as lines:
        for said in (
            b"GET / HTTP/1.0\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01",
            b"SSH-1.5-old\r\n",
            b"SSH-2.0-x\r\n" + b"\xff" * 5000,
        ):
            client = await connect(manhole.port.getHost().port)
            client.transport.write(said)
            await client.ends()
        silent = await connect(manhole.port.getHost().port)
        await until(lambda: silent.heard.startswith(b"SSH-2.0-distbal\r\n"))
        await silent.leave()
        await until(lambda: not manhole.factory.connections)
    assert "manhole: ssh from 127.0.0.1 does not speak SSH: 'GET / HTTP/1.0'" in lines
    assert "left without logging in" in lines
