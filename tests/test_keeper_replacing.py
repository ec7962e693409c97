"""The keeper replaces its own code; see distbal/keeper/replacing.py."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbal import keeperwire as wire
from distbal.keeper import loop, replacing, signals
from distbal.keeper.child import Life
from distbal.keeper.past import Past
from distbal.keeper.saying import Voice
from distbal.keeper.systemd import Systemd, memory_of
from distbal.keeperwire import Role
from tests.loops import open_descriptors
from tests.supervising import connections, inodes, supervised
from tests.support import ROOT

STATE = replacing.State(
    held=[(1 << 63, 4, 17), (0, 1, 9)],
    channel=5,
    life=Life(1234, 10.5, 11.5, ready=12.0, given=True),
    start=None,
    past=Past(1795793709.5, served=True, restarts=2, last="process 7 ended with status 1", failures=1),
    signals=[signal.SIGHUP],
)
#: as released in 0.5.0
STORED = (
    '{"held": [[9223372036854775808, 4, 17], [0, 1, 9]], "channel": 5, "life": {"pid": 1234, "started": 10.5, "heard": 11.5,'
    ' "ready": 12.0, "given": true, "asked": false, "killing": null, "silent": 0.0}, "start": null, "past": {"since":'
    ' 1795793709.5, "served": true, "restarts": 2, "last": "process 7 ended with status 1", "failures": 1, "futile": 0},'
    ' "signals": [1], "version": 1}'
)


def test_the_state_is_read_as_it_was_written() -> None:
    assert replacing.read(replacing.write(STATE)) == STATE
    none = STATE._replace(channel=None, life=None, start=20.0, held=[])
    assert replacing.read(replacing.write(none)) == none


def test_the_state_of_a_release_is_understood() -> None:
    assert replacing.read(STORED.encode()) == STATE


@given(
    st.binary(max_size=100)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*replacing.State._fields, "version", "pid"]), inner, max_size=8)
        ),
        max_leaves=10,
    ).map(lambda content: json.dumps(content).encode())
)
def test_what_is_no_state_is_refused_in_words(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        replacing.read(text)


def test_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match=r"version 2 of the keeper's state is not known, only 1"):
        replacing.read(STORED.replace('"version": 1', '"version": 2').encode())


def trial(text: bytes) -> subprocess.CompletedProcess[str]:
    memory = memory_of(text)
    try:
        return subprocess.run(
            [sys.executable, "-m", "distbal.keeper", "--trial"],
            cwd=ROOT,
            env=os.environ | {replacing.VARIABLE: str(memory)},
            pass_fds=[memory],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        os.close(memory)


def test_a_trial_says_yes_or_why_not() -> None:
    done = trial(STORED.encode())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = trial(b'{"version": 1}')
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "the keeper's state is not understood: KeyError: 'held'\n"


def test_a_trial_that_hangs_is_said_to_take_too_long() -> None:
    status = signal.SIGKILL
    assert replacing.Trial(7, memory_of(b"so far\n"), 0.0, late=True).words(status) == "it takes more than 20 s"
    assert replacing.Trial(7, memory_of(b""), 0.0).words(256) == "it ended with status 1"
    assert replacing.Trial(7, memory_of(b"x" * 9999 + b"\n no \n\nroom\n"), 0.0).words(256).endswith("x / no / room")


def test_an_upgraded_daemon_has_the_keeper_replaced_and_nothing_is_let_go(tmp_path: Path) -> None:
    with supervised(tmp_path) as keeper, connections(300) as (clients, served):
        daemon = keeper.daemon()
        daemon.serve()
        daemon.kill()
        daemon = keeper.daemon()
        _, before = daemon.hello()
        things: dict[wire.Key, int] = {(number, Role.CLIENT): sock.fileno() for number, sock in enumerate(served)}
        daemon.hold(things)
        expected = {key: os.fstat(descriptor).st_ino for key, descriptor in things.items()}
        for _ in range(2):
            given, _ = daemon.hello("upgrade", give=False)
            assert given == {}
            said, _ = daemon.receive()
            assert isinstance(said, wire.News)
            assert said.keeper == before
            keeper.lines.until("and holds 300 descriptors")
            command = Path(f"/proc/{keeper.process.pid}/cmdline").read_bytes().split(b"\0")
            assert b"distbal.keeper" in command
            assert command[-2] == b"--verbose"
        # it still knows its daemon, its clients and its signals
        for sock in served:
            sock.close()
        clients[7].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        clients[7].close()
        keeper.process.send_signal(signal.SIGHUP)
        assert daemon.hears("signal")[0]["number"] == signal.SIGHUP
        daemon.kill()
        given, told = keeper.daemon().hello()
        del expected[(7, Role.CLIENT)]
        assert inodes(given) == expected
        assert told.restarts == 2
        assert told.since == before.since


def test_it_replaces_itself_while_no_daemon_lives(tmp_path: Path) -> None:
    with supervised(tmp_path) as keeper, connections(1) as (_, served):
        daemon = keeper.daemon_that_holds({(1, Role.CLIENT): served[0].fileno()})
        for _ in range(3):
            daemon.kill()
            daemon = keeper.daemon()
        daemon.kill()
        keeper.lines.until("starts in 2 s")
        keeper.process.send_signal(signal.SIGUSR2)
        keeper.lines.until("and holds 1 descriptors")
        given, told = keeper.daemon().hello()
        assert told.restarts == 4
        assert list(inodes(given)) == [(1, Role.CLIENT)]


def test_new_code_that_says_no_or_hangs_changes_nothing(tmp_path: Path) -> None:
    """The code that is installed "now" is what PYTHONPATH has first: the keeper's own is loaded already."""
    shadow = tmp_path / "new"
    code = tmp_path / "code.py"
    shadow.mkdir()
    (shadow / "sitecustomize.py").write_text(
        f"import sys\nif '--trial' in sys.orig_argv:\n    exec(open({str(code)!r}).read())\n"
    )
    code.write_text("import os\nos.write(2, b'no room\\n at the inn\\n')\nos._exit(1)")
    with supervised(tmp_path, env={"PYTHONPATH": str(shadow)}) as keeper, connections(1) as (_, served):
        daemon = keeper.daemon_that_holds({(1, Role.CLIENT): served[0].fileno()})
        daemon.hello("upgrade", give=False)
        keeper.lines.until("the trial of new code says no: no room / at the inn")
        code.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
        daemon.hello("upgrade", give=False)
        keeper.lines.until("the trial of new code says no: it was killed by SIGKILL")
        code.write_text("import os\nos._exit(3)")
        daemon.hello("upgrade", give=False)
        keeper.lines.until("the trial of new code says no: it ended with status 3")
        daemon.kill()
        assert list(inodes(keeper.daemon().serve())) == [(1, Role.CLIENT)]


def test_whatever_keeps_it_from_its_new_code_it_hears_signals_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deaf to them it would never see that a daemon has ended."""
    before = open_descriptors()

    def no_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(os, "execve", no_memory)
    supervision = loop.Supervision(loop.Settings(["true"], 30.0, []), Voice(), Systemd({}), 10)
    there = open_descriptors()
    with pytest.raises(MemoryError):
        supervision._exec(0.0)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & {*signals.CAUGHT}
    assert open_descriptors() == there
    for descriptor in (supervision._signals._reading, supervision._signals._writing):
        os.close(descriptor)
    supervision._epoll.close()
    supervision._holdings._epoll.close()
    assert open_descriptors() == before
