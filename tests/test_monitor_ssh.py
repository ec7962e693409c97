"""The ``ssh`` kind against Debian's sshd: what it reads, over a connection that is kept, lost and made anew."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_twisted
from pydantic import ValidationError
from twisted.internet.defer import ensureDeferred
from zope.interface.verify import verifyObject

from distbal.errors import MonitorTrouble
from distbal.interfaces import IHostMonitor, IHostMonitorFactory
from distbal.loads import CpuTimes
from distbal.monitors.ssh import COMMAND, Look, SshKind, SshOptions, parse
from distbal.monitors.sshlink import SshLink
from tests.services import until
from tests.sshd import (
    GIVEN_UP,
    USER,
    Sshd,
    asking,
    options_without_server,
    running,
    surroundings,
    target,
    trouble,
)
from tests.support import need

pytest.importorskip("bcrypt", reason="Conch needs bcrypt, which is not installed here")
programs = pytest.mark.programs


# -- what a host answers


@pytest.mark.parametrize(
    ("answer", "look"),
    [
        (
            b"cpu  1 2 3 4 5 6 7 8 9 10\n0.10 1.20 3.45 1/88 1998\n2\n",
            Look(CpuTimes(1, 2, 3, 4, 5, 6, 7, 8), 0.1, 2),
        ),
        (b"Welcome!\ncpu  1 2 3 4\n3.00 1.20 3.45 1/88 1998\n128\nbye\n", Look(CpuTimes(1, 2, 3, 4), 3.0, 128)),
        (b"0.10 1.20 3.45 1/88 1998\n0\n", Look(None, 0.1, None)),
        (b"cpu  one two three four\n0.10 1.20 3.45 1/88 1998\n4", Look(None, 0.1, 4)),
        (b"cpu  1 2 3 4\n", Look(CpuTimes(1, 2, 3, 4))),
        (b"cpu  1 2 3 4\ncpu0 1 2 3 4\ncpu1 1 2 3 4\n0.10 1.20 3.45 1/88 1998\n", Look(CpuTimes(1, 2, 3, 4), 0.1, 2)),
        (b"cpu  1 2 3\n", None),
        (b"cpu  " + b"9" * 19 + b" 2 3 4\n2\n", Look(CpuTimes(int("9" * 19), 2, 3, 4), None, 2)),
        (b"cpu  " + b"9" * 4000 + b" 2 3 4\n2\n", None),
        (b"cpu  1 -2 3 4\n", None),
        (b"cpu  1 2_0 3 4\n", None),
        (b"4\n", None),
        (b"inf 1.20 3.45 1/88 1998\n2\n", None),
        (b"\xff\xfe\0\n", None),
        (b"", None),
    ],
)
def test_what_a_host_answers(answer: bytes, look: Look | None) -> None:
    assert parse(answer) == look


@programs
def test_the_command_prints_what_is_read() -> None:
    need("sshd")
    with os.popen(COMMAND) as pipe:  # noqa: S605 - as the other shell takes it
        look = parse(pipe.read().encode())
    assert look is not None
    assert look.times is not None
    assert look.times.user > 0
    assert look.load is not None
    assert look.cpus == len(re.findall(r"^cpu[0-9]", Path("/proc/stat").read_text(), re.MULTILINE))


# -- options


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("user", "", "is no name of a user"),
        ("user", "-oProxyCommand=x", "is no name of a user"),
        ("user", 5, "is no text"),
        ("port", 0, "a port is 1 to 65535, not 0"),
        ("port", "22", "a number has no quotes"),
        ("key", "id_ed25519", "a path is absolute, or begins with ~/"),
        ("key", "~other/.ssh/id_ed25519", "a path is absolute"),
        ("key", "/a\nb", "a path is absolute"),
        ("known_hosts", None, "a path is absolute"),
        ("agent", "yes", "is neither true nor false"),
        ("weight_by", "load", "none of cpu, loadavg"),
        ("password", "secret", "Extra inputs are not permitted"),
    ],
)
def test_options_that_are_wrong(key: str, value: object, words: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(words)):
        SshOptions.model_validate({key: value})


def test_options_that_are_left_out() -> None:
    options = SshOptions()
    assert (options.interval, options.timeout, options.user, options.port) == (15, 10, "distbal", 22)
    assert (options.key, options.agent, options.known_hosts) == (None, False, "~/.ssh/known_hosts")
    assert options.weight_by == "cpu"


def test_a_kind_keeps_the_contract() -> None:
    kind = SshKind()
    verifyObject(IHostMonitorFactory, kind)
    verifyObject(IHostMonitor, kind.monitor(target(), SshOptions(), surroundings()))
    assert kind.why_unavailable() == ""
    assert not kind.silence_is_down


# -- against a real server


@programs
@pytest_twisted.ensureDeferred
async def test_a_host_is_weighed_over_one_kept_connection(sshd: Sshd, descriptors_stay: None) -> None:
    await sshd.start()
    cpus = os.cpu_count()
    async with asking(sshd.options()) as monitor:
        first = await monitor.check()
        assert (first.up, first.weight, first.facts["cpus"]) == (True, None, cpus)
        assert first.reason == "has told its CPU times, and with the next ones a share can be said"
        for _ in range(5):
            reading = await monitor.check()
        await until(lambda: sshd.logins > 0)
        assert sshd.logins == 1
        assert sshd.log.count("Starting session") == 6
    assert reading.weight is not None
    assert 0.0 <= reading.weight <= 1.0
    assert set(reading.facts) == {"load", "cpus", "share", "by"} or reading.facts["by"] == "loadavg"
    await until(lambda: "Received disconnect" in sshd.log, "a connection that is closed in order")


@programs
@pytest_twisted.ensureDeferred
async def test_a_host_is_weighed_by_its_load_average(sshd: Sshd) -> None:
    await sshd.start()
    async with asking(sshd.options(weight_by="loadavg")) as monitor:
        reading = await monitor.check()
    assert reading.weight is not None
    assert re.fullmatch(r"has a load of [0-9.]+ on [0-9]+ CPUs?, 0 of it ours: [0-9]+% is left for us", reading.reason)
    assert set(reading.facts) == {"load", "cpus", "share", "by", "ours"}


@programs
@pytest_twisted.ensureDeferred
async def test_keys_are_exchanged_again_in_the_middle(sshd: Sshd) -> None:
    sshd.settings = ["RekeyLimit 1K", "LogLevel DEBUG1"]
    await sshd.start()
    async with asking(sshd.options()) as monitor:
        for _ in range(8):
            assert (await monitor.check()).up
    assert sshd.log.count("rekey") > 2
    assert sshd.logins == 1


@programs
@pytest_twisted.ensureDeferred
async def test_a_key_that_may_run_one_command_only(sshd: Sshd) -> None:
    sshd.restrictions = 'restrict,command="grep -h -e ^cpu -e / /proc/stat /proc/loadavg" '
    await sshd.start()
    async with asking(sshd.options()) as monitor:
        assert (await monitor.check()).facts["cpus"] == os.cpu_count()
        assert (await monitor.check()).up


# -- connections that end


@pytest.fixture
def gate(sshd: Sshd) -> Path:
    """The server's commands hang until this pipe is opened and closed."""
    path = sshd.directory / "gate"
    os.mkfifo(path)
    sshd.settings = [f"ForceCommand cat {path}"]
    return path


@asynccontextmanager
async def hanging(gate: Path) -> AsyncIterator[None]:
    """A command hangs as long as the block runs."""
    held: list[int] = []

    def is_read() -> bool:
        try:
            held.append(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return False
        return True

    await until(is_read, "a command that hangs")
    try:
        yield
    finally:
        os.close(held.pop())

    def is_over() -> bool:
        if is_read():
            os.close(held.pop())
            return False
        return True

    await until(is_over, "the command's end")


@programs
@pytest_twisted.ensureDeferred
async def test_a_check_that_is_given_up_takes_its_connection_along(sshd: Sshd, gate: Path, descriptors_stay: None) -> None:
    await sshd.start()
    async with asking(sshd.options()) as monitor:
        for number in (1, 2):
            check = running(monitor)
            async with hanging(gate):
                check.cancel()
                with pytest.raises(GIVEN_UP):
                    await check
            assert sshd.logins == number


@programs
@pytest_twisted.ensureDeferred
async def test_a_server_that_dies_in_the_middle(sshd: Sshd, gate: Path) -> None:
    await sshd.start()
    async with asking(sshd.options()) as monitor:
        check = running(monitor)
        async with hanging(gate):
            sshd.stop()
            with pytest.raises(MonitorTrouble, match=f"closed the connection to its port {sshd.port} before the command ended"):
                await check
        assert await trouble(monitor) == f"refused the connection (ssh, port {sshd.port})"
        sshd.settings = []
        await sshd.start()
        assert (await monitor.check()).up


@programs
@pytest_twisted.ensureDeferred
async def test_a_server_that_is_restarted_between_two_checks(sshd: Sshd) -> None:
    await sshd.start()
    async with asking(sshd.options()) as monitor:
        assert (await monitor.check()).up
        sshd.stop()
        await sshd.start()
        await until(lambda: monitor._link._talk.trouble is not None, "the end of the kept connection")
        assert (await monitor.check()).weight is not None, "what was read before is remembered"
    assert sshd.logins == 2


@programs
@pytest.mark.parametrize("kept", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_server_that_is_frozen(sshd: Sshd, kept: bool, descriptors_stay: None) -> None:
    await sshd.start()
    async with asking(sshd.options()) as monitor:
        if kept:
            await monitor.check()
        sshd.signal(signal.SIGSTOP)
        check = running(monitor)
        for _ in range(5):
            await until(lambda: True)
        check.cancel()
        with pytest.raises(GIVEN_UP):
            await check
        sshd.signal(signal.SIGCONT)
        assert (await monitor.check()).up
        assert (await monitor.check()).up
    assert sshd.logins == 1 + kept


# -- for others' monitors


@programs
@pytest_twisted.ensureDeferred
async def test_a_link_runs_any_command(sshd: Sshd) -> None:
    await sshd.start()
    link = SshLink(target(), sshd.options(), surroundings())
    assert await link.run("cat; id -un") == f"{USER}\n".encode(), "there is nothing to read"
    assert await link.run("head -c 100000 /dev/zero", 100_000) == bytes(100_000)
    with pytest.raises(MonitorTrouble, match="ended the command with status 7: out of order"):
        await link.run("echo out of order >&2; exit 7")
    assert await link.run("true") == b""
    assert sshd.logins == 2
    first = ensureDeferred(link.run("true"))
    with pytest.raises(RuntimeError, match="one at a time"):
        await link.run("true")
    assert await first == b""
    closed = link.close()
    assert closed is not None
    await closed
    assert link.close() is None


@pytest_twisted.ensureDeferred
async def test_a_link_where_conch_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = options_without_server(tmp_path, 22)
    monkeypatch.setitem(sys.modules, "distbal.monitors.sshkeys", None)
    monkeypatch.delattr("distbal.monitors.sshkeys", raising=False)
    with pytest.raises(MonitorTrouble, match=r"cannot be logged in to: .*; pip install 'distbal\[ssh\]'"):
        await SshLink(target(), options, surroundings()).run("true")
