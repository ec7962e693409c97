"""``compile``: what a server answers and what that says of it, slots that are borrowed, and a real distccd in all its moods."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from pydantic import ValidationError
from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater
from zope.interface.verify import verifyObject

from distbal.errors import MonitorTrouble
from distbal.hosts import AdminState
from distbal.interfaces import IHostMonitor, IHostMonitorFactory, Reading, Target
from distbal.leases import LocalLeases
from distbal.monitors.compile import CompileKind, CompileMonitor, CompileOptions
from distbal.outcomes import Outcome
from distbal.requests import Request
from tests.answering import NAME, answering, checked, given_up, leases, surroundings, target
from tests.integration.farm import Farm, running_farm
from tests.peers import until
from tests.support import free_port
from tests.test_distccwire import answer

#: what a whole request of ours ends with
END = b"+ 1; }\n"


def monitor(port: int, *compilers: str, lending: LocalLeases | None = None, name: str = NAME) -> CompileMonitor:
    options = CompileOptions(compilers=list(compilers or ["gcc"]))
    return CompileKind().monitor(Target(name, "127.0.0.1", port), options, surroundings(lending))


class Holder:
    """A client that keeps what it is given."""

    def __init__(self) -> None:
        self.leases: list[object] = []

    def granted(self, lease: object) -> None:
        self.leases.append(lease)

    def refused(self, ticket: object, reason: str) -> None:
        raise AssertionError(reason)

    lost = refused


def test_it_keeps_the_contract() -> None:
    kind = CompileKind()
    verifyObject(IHostMonitorFactory, kind)
    verifyObject(IHostMonitor, kind.monitor(target(), CompileOptions(), surroundings()))
    assert (kind.silence_is_down, kind.why_unavailable()) == (True, "")


@pytest.mark.parametrize("compilers", [[], ["/usr/bin/gcc"], ["gcc -O2"], ["-gcc"], [""], ["gcc", "gcc"], "gcc", [3]])
def test_compilers_are_names(compilers: object) -> None:
    with pytest.raises(ValidationError):
        CompileOptions.model_validate({"compilers": compilers})
    assert CompileOptions(compilers=["gcc-12", "aarch64-linux-gnu-g++"]).compilers


# -- what it says


@pytest.mark.parametrize(
    ("answers", "up", "reason"),
    [
        ([answer()], True, "compiles with gcc"),
        ([answer(110 << 8, target=b"")], False, "has no gcc"),
        ([answer(256, b"error: \x1b[1mno\n", target=b"")], False, "cannot compile with gcc: exit status 1: error:  [1mno"),
        ([answer(9, target=b"")], False, "had its gcc killed by signal 9"),
        ([answer(target=b"")], False, "sent no object for a compile with gcc"),
        ([b""], False, "closed without an answer: does its list have gcc, and may we use it? its log may say"),
        ([answer()[:40]], False, "broke off its answer"),
        ([b"220 mail.example.org\r\n"], False, "does not speak distcc's protocol: something else listens there"),
        ([b"DONE00000001STAT00000000SERRffffffff" + b"x" * 100_000], False, "answers a tiny compile with 4,294,967,295 bytes"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_a_server_answers(answers: list[bytes], up: bool, reason: str) -> None:
    async with answering(*answers, after=END) as server:
        reading = await monitor(server.port).check()
        assert reading is not None
        assert (reading.up, reading.reason, reading.certain) == (up, reason, False)
        await server.left()


@pytest_twisted.ensureDeferred
async def test_a_reset_is_told_from_a_close() -> None:
    async with answering(b"", after=END, then="reset") as server:
        reading = await monitor(server.port).check()
        assert reading is not None
        assert reading.reason.startswith("broke the connection without an answer")


@pytest_twisted.ensureDeferred
async def test_a_server_that_refuses_connections_is_down_for_certain() -> None:
    assert await monitor(free_port()).check() == Reading(up=False, reason="refused the connection", certain=True)


@pytest_twisted.ensureDeferred
async def test_each_compiler_is_tried_and_one_is_enough() -> None:
    async with answering(answer(110 << 8, target=b""), answer(), b"", after=END) as server:
        reading = await monitor(server.port, "clang", "gcc", "icc").check()
        assert reading is not None
        assert reading.up
        assert reading.reason == "compiles with gcc, and not with clang or icc"
        assert reading.facts["compilers"] == ("gcc",)
        missing = reading.facts["missing"]
        assert isinstance(missing, tuple)
        assert [word.split(":")[0] for word in missing] == ["clang", "icc"]
        assert server.met == 3


@pytest_twisted.ensureDeferred
async def test_silence_ends_with_the_check() -> None:
    async with answering(then="hold", after=b"never") as server:
        lending = leases()
        check = checked(monitor(server.port, lending=lending).check())
        await until(lambda: server.heard.endswith(END), "the request")
        assert lending.scheduler.lent == 1
        assert await given_up(check) is CancelledError
        assert lending.scheduler.lent == 0
        await server.left()


# -- slots


@pytest_twisted.ensureDeferred
async def test_it_takes_a_slot_and_gives_it_back() -> None:
    async with answering(answer(), after=END, then="hold") as server:
        lending = leases()
        seen = []
        server.after = END
        check = checked(monitor(server.port, lending=lending).check())
        seen.append(lending.scheduler.lent)
        assert (await check).up
        assert (seen, lending.scheduler.lent) == ([1], 0)


@pytest_twisted.ensureDeferred
async def test_on_a_busy_host_it_gets_the_next_slot_before_all_clients() -> None:
    async with answering(answer(), after=END) as server:
        lending = leases()
        first, waiting = Holder(), Holder()
        for _ in range(2):
            lending.ask(Request("10.0.0.1", 1, "10.0.0.1"), first)
        lending.ask(Request("10.0.0.2", 1, "10.0.0.2"), waiting)
        check = checked(monitor(server.port, lending=lending).check())
        assert (len(first.leases), len(waiting.leases), server.met) == (2, 0, 0)
        lending.release(first.leases.pop(), Outcome.CLOSED)  # type: ignore[arg-type]
        assert waiting.leases == []
        assert (await check).up
        assert len(waiting.leases) == 1


@pytest_twisted.ensureDeferred
async def test_where_no_slot_becomes_free_there_was_no_occasion() -> None:
    lending = leases()
    for _ in range(2):
        lending.ask(Request("10.0.0.1", 1, "10.0.0.1"), Holder())
    check = checked(monitor(free_port(), lending=lending).check())
    assert await given_up(check) is None
    assert (lending.scheduler.lent, lending.scheduler.waiting) == (2, 0)


@pytest_twisted.ensureDeferred
async def test_a_slot_that_came_late_leaves_no_time_to_tell_silence() -> None:
    async with answering(then="hold", after=b"never") as server:
        lending = leases()
        holder = Holder()
        for _ in range(2):
            lending.ask(Request("10.0.0.1", 1, "10.0.0.1"), holder)
        asked = monitor(server.port, lending=lending)
        asked._timeout = 0.1
        check = checked(asked.check())
        await deferLater(reactor, 0.06)
        lending.release(holder.leases.pop(), Outcome.CLOSED)  # type: ignore[arg-type]
        await until(lambda: server.heard.endswith(END), "the request")
        assert await given_up(check) is None
        assert lending.scheduler.lent == 1


@pytest_twisted.ensureDeferred
async def test_where_a_busy_host_gave_no_slot_for_long_the_next_one_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(answer(), after=END) as server:
        lending, holder = leases(), Holder()
        asked = monitor(server.port, lending=lending)
        for _ in range(2):
            lending.ask(Request("10.0.0.1", 1, "10.0.0.1"), holder)
        monkeypatch.setattr("distbal.monitors.compile.LONGEST", -1.0)
        assert await asked.check() is None
        assert await asked.check() is None
        assert (lending.scheduler.waiting, server.met) == (1, 0)
        lending.release(holder.leases.pop(), Outcome.CLOSED)  # type: ignore[arg-type]
        # between two checks it is kept
        assert (lending.scheduler.waiting, lending.scheduler.lent) == (0, 2)
        assert (await asked.check() or Reading(up=False)).up
        assert lending.scheduler.lent == 1
        # with a free slot there is nothing to wait for
        assert (await asked.check() or Reading(up=False)).up
        assert lending.scheduler.lent == 1


@pytest_twisted.ensureDeferred
async def test_a_slot_that_is_kept_comes_back_at_the_end_and_where_the_host_goes_out_of_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("distbal.monitors.compile.LONGEST", -1.0)
    lending, holder = leases(), Holder()
    asked = monitor(free_port(), lending=lending)
    for _ in range(2):
        lending.ask(Request("10.0.0.1", 1, "10.0.0.1"), holder)
    assert await asked.check() is None
    asked.stop()
    assert lending.scheduler.waiting == 0
    assert await asked.check() is None
    lending.release(holder.leases.pop(), Outcome.CLOSED)  # type: ignore[arg-type]
    assert lending.scheduler.lent == 2
    asked.stop()
    assert lending.scheduler.lent == 1
    lending.ask(Request("10.0.0.1", 1, "10.0.0.1"), holder)
    assert await asked.check() is None
    lending.set_admin(NAME, AdminState.DRAIN)
    assert not (await asked.check() or Reading(up=True)).up
    assert lending.scheduler.waiting == 0


@pytest_twisted.ensureDeferred
async def test_a_slot_that_is_refused_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distbal.monitors.compile.LONGEST", -1.0)
    lending = leases(wait=0.01)
    asked = monitor(free_port(), lending=lending)
    for _ in range(2):
        lending.ask(Request("10.0.0.1", 1, "10.0.0.1"), Holder())
    assert await asked.check() is None
    await until(lambda: lending.scheduler.waiting == 0, "the end of its patience")
    assert await asked.check() is None
    assert await asked.check() is None
    assert lending.scheduler.waiting == 1
    asked.stop()
    lending.stop()


@pytest_twisted.ensureDeferred
async def test_one_compiler_that_worked_is_enough_even_where_the_next_one_hangs() -> None:
    async with answering(answer(), b"", after=END, then="hold") as server:
        check = checked(monitor(server.port, "gcc", "icc").check())
        await until(lambda: server.met == 2, "the second request")
        reading = await given_up(check)
        assert (reading.up, reading.reason) == (True, "compiles with gcc, and not with icc")
        assert reading.facts["missing"] == ("icc: did not answer in time",)


@pytest_twisted.ensureDeferred
async def test_a_host_that_is_out_of_service_is_asked_without_a_slot() -> None:
    async with answering(answer(), after=END) as server:
        lending = leases()
        lending.report(NAME, "compile", up=False)
        assert (await monitor(server.port, lending=lending).check() or Reading(up=False)).up
        lending.report(NAME, "compile", up=True)
        lending.set_admin(NAME, AdminState.DRAIN)
        assert (await monitor(server.port, lending=lending).check() or Reading(up=False)).up
        assert lending.scheduler.counts["granted"] == 0


@pytest_twisted.ensureDeferred
async def test_a_host_that_left_the_file_is_no_business_of_its() -> None:
    with pytest.raises(MonitorTrouble, match="is in the file no longer"):
        await monitor(free_port(), name="gone").check()


# -- the real thing


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    with running_farm(("one", 2, 0.0)) as one:
        yield one


@pytest.mark.programs
@pytest_twisted.ensureDeferred
async def test_a_real_distccd_compiles(farm: Farm) -> None:
    reading = await monitor(farm.servers[0].port, "gcc", "no-such-compiler").check()
    assert reading is not None
    assert reading.up, reading
    assert reading.facts["compilers"] == ("gcc",)
    # one that is not in its list of allowed compilers is refused without a word
    assert str(reading.facts["missing"]).startswith("('no-such-compiler: closed without an answer: does its list have")


@pytest.mark.programs
@pytest_twisted.ensureDeferred
async def test_a_real_distccd_compiles_c_plus_plus(farm: Farm) -> None:
    reading = await monitor(farm.servers[0].port, "g++").check()
    assert reading is not None
    assert reading.up, reading


@pytest.mark.programs
@pytest_twisted.ensureDeferred
async def test_a_real_compiler_that_does_not_come_back_is_silent_and_is_let_go(farm: Farm) -> None:
    (server,) = farm.servers
    with farm.held():
        check = checked(monitor(server.port).check())
        await until(lambda: server.running() > 0, "a compiler")
        assert await given_up(check) is CancelledError
        # its client has gone, so distccd ends the job
        await until(lambda: server.alive() == 0, "the end of the compiler")


@pytest.mark.programs
@pytest_twisted.ensureDeferred
async def test_a_real_distccd_that_is_frozen_has_an_open_port_and_compiles_nothing() -> None:
    with running_farm(("ice", 1, 0.0)) as farm:
        (server,) = farm.servers
        asked = monitor(server.port)
        assert (await asked.check() or Reading(up=False)).up
        server.freeze()
        try:
            socket.create_connection(("127.0.0.1", server.port), 5).close()
            check = checked(asked.check())
            await until(lambda: _sent_all(server.port), "a request that is on its way")
            assert not check.called
            assert await given_up(check) is CancelledError
        finally:
            server.thaw()
        assert (await asked.check() or Reading(up=False)).up
        server.kill()
        # its workers are killed as well, but each of them dies when it does
        await until(lambda: not _listens(server.port), "the end of the last worker")
        assert await asked.check() == Reading(up=False, reason="refused the connection", certain=True)


def _sockets(port: int) -> list[list[str]]:
    """The sockets on that port of this machine, as /proc/net/tcp has them: state in the fourth column, queues in the fifth."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [row for row in rows if row[1].endswith(f":{port:04X}")]


def _sent_all(port: int) -> bool:
    """Whether a connection to that port has bytes that nobody has read."""
    return any(row[3] == "01" and int(row[4].split(":")[1], 16) > 0 for row in _sockets(port))


def _listens(port: int) -> bool:
    return any(row[3] == "0A" for row in _sockets(port))


@pytest.mark.programs
@pytest_twisted.ensureDeferred
async def test_a_real_distccd_that_does_not_know_us_says_nothing() -> None:
    with running_farm(("shy", 1, 0.0, "10.9.8.7")) as farm:
        reading = await monitor(farm.servers[0].port).check()
        assert reading is not None
        assert (reading.up, reading.certain) == (False, False)
        assert "without an answer: does its list have gcc, and may we use it?" in reading.reason
