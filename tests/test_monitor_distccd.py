"""``distccd``: its page, whole and cut and hostile, and the real one: served, denied, frozen, gone."""

from __future__ import annotations

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from twisted.internet.defer import CancelledError
from zope.interface.verify import verifyObject

from distbal.errors import MonitorTrouble
from distbal.interfaces import IHostMonitor, IHostMonitorFactory
from distbal.monitors.distccd import MOST_PAGE, NUMBERS, DistccdKind, DistccdMonitor, DistccdOptions, parse
from distbal.plugins import builtin
from tests.answering import answering, checked, full_port, given_up, is_connected, surroundings, target
from tests.distccds import distccd
from tests.peers import until
from tests.support import free_port

#: as distcc 3.4 serves it; the last line but one is of later ones
PAGE = b"""\
HTTP/1.0 200 OK
Content-Type: text/plain
Connection: close

argv /distccd
<distccstats>
dcc_tcp_accept 0
dcc_rej_bad_req 7
dcc_rej_overload 0
dcc_compile_ok 120
dcc_compile_error 6
dcc_compile_timeout 1
dcc_cli_disconnect 2
dcc_other 0
dcc_longest_job slow.cc
dcc_longest_job_compiler g++
dcc_longest_job_time_msecs 45210
dcc_max_kids 10
dcc_avg_kids1 3
dcc_avg_kids2 2
dcc_avg_kids3 1
dcc_current_load 13
dcc_load1 3.87
dcc_load2 1.61
dcc_load3 0.89
dcc_num_compiles1 12
dcc_num_compiles2 60
dcc_num_compiles3 99
dcc_num_procstate_D 0
dcc_max_RSS 72040
dcc_max_RSS_name (cc1plus)
dcc_io_rate -1
dcc_free_space 79838 MB
dcc_free_mem 8012 MB
</distccstats>
"""
FACTS = {
    "max_jobs": 10,
    "average_jobs": 3,
    "compiled": 120,
    "compiled_last_minute": 12,
    "failed": 6,
    "timed_out": 1,
    "clients_gone": 2,
    "bad_requests": 7,
    "running_processes": 13,
    "disk_free_mb": 79838,
    "memory_free_mb": 8012,
    "longest_job_ms": 45210,
    "load": 3.87,
    "longest_job": "slow.cc",
}


def monitor(port: int, **options: object) -> DistccdMonitor:
    return DistccdKind().monitor(target(), DistccdOptions.model_validate({"port": port, **options}), surroundings())


# -- the page


def test_what_the_page_says() -> None:
    reading = parse(PAGE)
    assert reading.up
    assert reading.weight is None
    assert not reading.certain
    assert reading.slots == 10
    assert reading.reason == "shows its statistics: 12 compiled in the last minute, load 3.87, 10 jobs at once at most"
    assert reading.facts == FACTS


@pytest.mark.parametrize(("least", "weight"), [(0, None), (79838, None), (79839, 0.0)])
def test_a_full_disk_wants_no_new_jobs(least: int, weight: float | None) -> None:
    reading = parse(PAGE, least)
    assert reading.up
    assert reading.weight == weight
    if weight == 0:
        assert reading.reason == "has only 79838 MB of disk left, and 79839 are wanted (no new jobs)"


def test_what_distccd_does_not_know_is_not_told() -> None:
    page = PAGE.replace(b"79838 MB", b"-1 MB").replace(b"45210", b"-1").replace(b"dcc_free_mem 8012 MB\n", b"")
    reading = parse(page, 1000)
    assert reading.weight is None
    assert set(FACTS) - set(reading.facts) == {"disk_free_mb", "memory_free_mb", "longest_job_ms", "longest_job"}


@pytest.mark.parametrize("kids", [b"0", b"-1", b"1000000", b"10.5", b"ten", b"", b"9" * 400])
def test_slots_are_a_number_that_can_be(kids: bytes) -> None:
    reading = parse(PAGE.replace(b"dcc_max_kids 10", b"dcc_max_kids " + kids))
    assert reading.up
    assert reading.slots is None


def test_a_page_cut_short_counts_up_to_its_last_whole_line() -> None:
    """So does distccd 3.4 where a job's file name is very long."""
    reading = parse(PAGE[: PAGE.index(b"_kids 10")])
    assert reading.up
    assert reading.reason == "shows its statistics"
    assert reading.slots is None
    assert reading.facts["compiled"] == 120
    assert parse(PAGE[: PAGE.index(b"dcc_max_kids 10") + len(b"dcc_max_kids 1")]).slots is None


def test_a_file_name_cannot_say_what_distccd_says() -> None:
    reading = parse(PAGE.replace(b"slow.cc", b"x\ndcc_max_kids 5000\n\x1b[2J"))
    assert reading.slots == 10
    assert parse(PAGE.replace(b"slow.cc", b"\x1b[2J" + b"y" * 900)).facts["longest_job"] == "[2J" + "y" * 54 + "..."


@pytest.mark.parametrize(
    "page",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"<distccstats>\n",
        b"<distccstats>\n</distccstats>\n",
        b"dcc_max_kids 4\n",
        b"\x00" * 9,
    ],
)
def test_another_page_says_nothing_of_the_host(page: bytes) -> None:
    with pytest.raises(MonitorTrouble) as caught:
        parse(page)
    assert str(caught.value).startswith("does not show distccd's statistics on that port, but \"")
    assert str(caught.value).isprintable()


@given(st.binary(max_size=300), st.sampled_from(sorted(NUMBERS.values())), st.integers(0, 10**9))
def test_any_value_is_a_reading(value: bytes, name: str, least: int) -> None:
    reading = parse(PAGE.replace(name.encode() + b" ", name.encode() + b" " + value), least)
    assert reading.up
    assert reading.slots is None or 1 <= reading.slots <= 999_999
    assert len(reading.facts) <= 20
    assert reading.reason.isprintable()


# -- what stands in hosts.yaml


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"interval": 5}, r"5 is none of 10 to 86400: seconds between two looks .* stop taking jobs \(distcc issue #275\)"),
        ({"port": 0}, "the port of the statistics is 1 to 65535, not 0"),
        ({"least_disk": -5}, "megabytes of disk are a whole number, not -5"),
        ({"least_disk": 0.5}, "megabytes of disk are a whole number, not 0.5"),
    ],
)
def test_mistakes_in_the_file(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        DistccdOptions.model_validate(options)


def test_the_kind_is_as_the_contract_has_it() -> None:
    assert verifyObject(IHostMonitorFactory, builtin.distccd)
    assert verifyObject(IHostMonitor, monitor(1))
    assert builtin.distccd.silence_is_down
    assert builtin.distccd.proposes_slots
    # also while a change is undecided, when others are asked three times as often
    assert builtin.distccd.least_interval == 10
    options = DistccdOptions()
    assert (options.interval, options.timeout, options.port, options.least_disk) == (15, 3, 3633, 0)


# -- ports that answer as they like


@pytest_twisted.ensureDeferred
async def test_the_page_is_enough_however_it_ends() -> None:
    for then in ("close", "reset", "hold"):
        async with answering(PAGE, after=b"\r\n\r\n", then=then) as server:
            assert (await monitor(server.port).check()).facts == FACTS
            await server.left()
            assert server.heard == b"GET / HTTP/1.0\r\n\r\n"


@pytest_twisted.ensureDeferred
async def test_a_connection_that_ends_early() -> None:
    async with answering(PAGE[:600]) as server:
        assert (await monitor(server.port).check()).up
    for then in ("close", "reset"):
        async with answering(b"", then=then) as server:
            with pytest.raises(
                MonitorTrouble, match=rf"^closed port {server.port} without a word: does distccd's --allow name"
            ):
                await monitor(server.port).check()


@pytest.mark.parametrize("begin", [b"", b"<distccstats>\ndcc_longest_job "])
@pytest_twisted.ensureDeferred
async def test_a_megabyte_is_cut_off(begin: bytes) -> None:
    async with answering(begin + b"y" * (1 << 20), then="hold") as server:
        with pytest.raises(MonitorTrouble, match=r"^does not show distccd's statistics on that port, but \".*yyy\.\.\.\"$"):
            await monitor(server.port).check()
        await server.left()
    assert MOST_PAGE < 1 << 20


@pytest_twisted.ensureDeferred
async def test_no_statistics_say_nothing_of_the_host() -> None:
    port = free_port()
    trouble = rf"^has no statistics on port {port}: start distccd with --stats, and --stats-port where the port differs$"
    with pytest.raises(MonitorTrouble, match=trouble):
        await monitor(port).check()


@pytest_twisted.ensureDeferred
async def test_a_port_that_drops_connects_means_something_once_a_page_came_from_it(descriptors_stay: None) -> None:
    async with answering(PAGE) as server:
        stranger, known = monitor(server.port), monitor(server.port)
        assert (await known.check()).up
        await server.left()
    with full_port(server.port):
        trouble = await given_up(checked(stranger.check()))
        assert isinstance(trouble, MonitorTrouble)
        assert str(trouble) == f"takes no connections on port {server.port}, for distccd's statistics: a firewall?"
        assert await given_up(checked(known.check())) is CancelledError


@pytest_twisted.ensureDeferred
async def test_no_connection_is_reset() -> None:
    """One that is reset before the request has come kills distccd 3.4: its page goes to nobody, and SIGPIPE comes back."""
    async with answering(b"", after=b"never", then="hold") as server:
        check = checked(monitor(server.port).check())
        await until(lambda: bool(server.connections), "a connection")
        assert await given_up(check) is CancelledError
        await server.left()
        assert server.ended == ["ConnectionDone"]


# -- the real one


@pytest.mark.programs
@pytest_twisted.ensureDeferred
async def test_distccd_tells_of_its_work_and_is_silent_when_frozen(descriptors_stay: None) -> None:
    with distccd("--stats", jobs=7) as server:
        asks = monitor(server.stats)
        for _ in range(3):
            reading = await asks.check()
            assert (reading.up, reading.weight, reading.slots) == (True, None, 7)
            assert reading.reason.startswith("shows its statistics: 0 compiled in the last minute, load ")
            assert set(FACTS) - set(reading.facts) == {"memory_free_mb", "longest_job_ms", "longest_job"} - set(reading.facts)
        assert (await monitor(server.stats, least_disk=10**9).check()).weight == 0.0
        server.freeze()
        frozen = checked(asks.check())
        await until(lambda: is_connected(server.stats), "the kernel's answer")
        assert await given_up(frozen) is CancelledError
        server.thaw()
        assert (await asks.check()).up
        server.kill()
        with pytest.raises(MonitorTrouble, match="has no statistics on port "):
            await asks.check()


@pytest.mark.programs
@pytest_twisted.ensureDeferred
async def test_distccd_denies_its_page_to_those_it_does_not_know() -> None:
    with distccd("--stats", allow="127.0.0.2") as server:
        with pytest.raises(MonitorTrouble, match="without a word: does distccd's --allow name this machine"):
            await monitor(server.stats).check()
        assert "denied by access list" in server.log
