"""``agent``: every word of HAProxy's agent-check, agents that speak as they like, and a real process that is one."""

from __future__ import annotations

import signal
import socket
import sys

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, succeed
from zope.interface.verify import verifyObject

from distbal.errors import MonitorTrouble
from distbal.interfaces import IHostMonitor, IHostMonitorFactory, Reading, Target
from distbal.lookup import Lookup
from distbal.monitors.agent import MOST_LINE, AgentKind, AgentMonitor, AgentOptions, parse
from distbal.monitors.answers import begin
from distbal.monitors.kit import Surroundings
from distbal.monitors.tcp import TcpKind, TcpOptions
from distbal.plugins import builtin
from tests.answering import NAME, answering, checked, full_port, given_up, is_connected, surroundings, target
from tests.peers import until
from tests.services import Lines
from tests.support import free_port, spawn


def monitor(port: int, **options: object) -> AgentMonitor:
    return AgentKind().monitor(target(), AgentOptions.model_validate({"port": port, **options}), surroundings())


# -- the words


@pytest.mark.parametrize(
    ("line", "up", "weight", "certain", "reason"),
    [
        (b"up\n", True, None, True, "says up"),
        (b"UP\r\n", True, None, True, "says up"),
        (b"up", True, None, True, "says up"),
        (b"ready\n", True, None, False, "says ready"),
        (b"75%\n", True, 0.75, False, "says 75%"),
        (b"0%\n", True, 0.0, False, "says 0%"),
        (b"up 75%\n", True, 0.75, True, "says up 75%"),
        (b"75%,up\n", True, 0.75, True, "says 75% up"),
        (b" \tup,\t 75% , ready \n", True, 0.75, True, "says up 75% ready"),
        (b"10% 20%\n", True, 0.2, False, "says 10% 20%"),
        (b"150%\n", True, 1.0, False, "says 150% (more than 100% is 100%)"),
        (b"drain\n", True, 0.0, False, "says drain (no new jobs)"),
        (b"up maint 50%\n", True, 0.0, True, "says up maint 50% (no new jobs)"),
        (b"drain ready\n", True, None, False, "says drain ready"),
        (b"down\n", False, None, True, "says down"),
        (b"down#disk full\n", False, None, True, "says down: disk full"),
        (b"down # disk  full\nand more", False, None, True, "says down: disk  full"),
        (b"stopped\n", False, None, True, "says stopped"),
        (b"failed\n", False, None, True, "says failed"),
        (b"fail 50%\n", False, None, True, "says fail 50%"),
        (b"down drain\n", False, None, True, "says down drain"),
        (b"up down\n", False, None, True, "says up down"),
        (b"down up\n", True, None, True, "says down up"),
        (b"up # all is well\n", True, None, True, "says up: all is well"),
        (b"75% # nobody is told\n", True, 0.75, False, "says 75%"),
        (
            b"down#" + b"\x1b[2J\xff" * 2 + b"\n",
            False,
            None,
            True,
            "says down: [2J\N{REPLACEMENT CHARACTER} [2J\N{REPLACEMENT CHARACTER}",
        ),
    ],
)
def test_what_a_line_says(line: bytes, up: bool, weight: float | None, certain: bool, reason: str) -> None:
    reading = parse(line)
    assert (reading.up, reading.weight, reading.certain, reading.reason) == (up, weight, certain, reason)
    assert reading.slots is None


@pytest.mark.parametrize(("word", "slots"), [(b"maxconn:8", 8), (b"MAXCONN:999999", 999_999), (b"maxconn:0", None)])
def test_the_most_connections_are_slots(word: bytes, slots: int | None) -> None:
    reading = parse(b"up " + word + b"\n")
    assert (reading.up, reading.slots, reading.facts.get("maxconn")) == (True, slots, slots)
    assert parse(word).reason == f"says {word.decode().lower()}"


def test_a_word_that_nobody_knows_is_shown_and_the_others_count() -> None:
    reading = parse(b"75.5% hello up maxconn:-1\n")
    assert reading.up
    assert reading.weight is None
    assert reading.facts == {"line": "75.5% hello up maxconn:-1", "unknown": "75.5%"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"\n", "has an agent that says nothing"),
        (b"", "has an agent that says nothing"),
        (b"\nup\n", "has an agent that says nothing"),
        (b"HTTP/1.0 200 OK\r\n", 'has an agent that says "HTTP/1.0 200 OK", which is none of up, ready, drain, '),
        (b"\x00\xff\x1b[31m\n", 'has an agent that says "\\u0000\\ufffd\\u001b[31m", which is none of '),
        (b"# a description\n", 'has an agent that says "# a description", which is none of '),
        (b"a" * 900 + b"\n", f'has an agent that says "{"a" * 57}...", which is none of '),
        (b"%\n", 'has an agent that says "%", '),
        (b"-1%\n", 'has an agent that says "-1%", '),
        (b"1000000%\n", 'has an agent that says "1000000%", '),
        (b"\xd9\xa7\xd9\xa5%\n", 'has an agent that says "\N{ARABIC-INDIC DIGIT SEVEN}\N{ARABIC-INDIC DIGIT FIVE}%", '),
        (b"maxconn:\n", 'has an agent that says "maxconn:", '),
    ],
)
def test_what_says_nothing_of_the_host(line: bytes, said: str) -> None:
    with pytest.raises(MonitorTrouble) as caught:
        parse(line)
    assert str(caught.value).startswith(said)
    assert str(caught.value).isprintable()


@given(st.binary(max_size=MOST_LINE) | st.text("upmaintdrwxco:#%0123456789 \t,\r\n").map(str.encode))
def test_any_line_is_a_reading_or_trouble(line: bytes) -> None:
    try:
        reading = parse(line)
    except MonitorTrouble as trouble:
        reading = Reading(up=False, reason=str(trouble))
    assert reading.weight is None or 0 <= reading.weight <= 1
    assert reading.slots is None or reading.slots >= 1
    assert reading.reason.isprintable()


# -- what stands in hosts.yaml


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"port": 0}, "the agent's port is 1 to 65535, not 0"),
        ({"port": "9"}, '"9" is a text: a number has no quotes'),
        ({"port": 1, "send": "x" * 1001}, "what is sent to the agent has 1001 characters: 1000 are the most"),
        ({"port": 1, "send": 5}, 'in quotes, "5", it is one: what the agent is sent first'),
        ({}, "Field required"),
    ],
)
def test_mistakes_in_the_file(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        AgentOptions.model_validate(options)


def test_the_kind_is_as_the_contract_has_it() -> None:
    assert verifyObject(IHostMonitorFactory, builtin.agent)
    assert verifyObject(IHostMonitor, monitor(1))
    assert builtin.agent.why_unavailable() == ""
    assert not builtin.agent.silence_is_down
    assert builtin.agent.proposes_slots
    options = AgentOptions(port=1)
    assert (options.interval, options.timeout, options.fall, options.rise) == (10, 3, 3, 2)


# -- agents that speak as they like


@pytest_twisted.ensureDeferred
async def test_an_agent_is_asked_again_and_again() -> None:
    async with answering(b"up 75%\n", b"down#no disk\n", b"up\n") as agent:
        asks = monitor(agent.port)
        assert [(await asks.check()).reason for _ in range(3)] == ["says up 75%", "says down: no disk", "says up"]
        assert agent.heard == b""
        await agent.left()
        asks.stop()


@pytest_twisted.ensureDeferred
async def test_a_check_that_goes_well_is_not_in_the_log() -> None:
    async with answering(b"up\n") as agent:
        with Lines() as lines:
            await monitor(agent.port).check()
            await agent.left()
        assert lines.all == []


@pytest_twisted.ensureDeferred
async def test_an_agent_that_wants_to_hear_something_first() -> None:
    async with answering(b"up\n", after=b"h\xc3\xa9llo\n") as agent:
        assert (await monitor(agent.port, send="h\N{LATIN SMALL LETTER E WITH ACUTE}llo\n").check()).up
        assert agent.heard == b"h\xc3\xa9llo\n"


@pytest_twisted.ensureDeferred
async def test_a_line_is_enough_and_so_is_its_end() -> None:
    async with answering(b"up\nand so on", then="hold") as agent:
        assert (await monitor(agent.port).check()).up
        await agent.left()
    async with answering(b"50%") as agent:
        assert (await monitor(agent.port).check()).weight == 0.5


@pytest.mark.parametrize("then", ["close", "reset", "hold"])
@pytest_twisted.ensureDeferred
async def test_a_megabyte_is_cut_off(then: str) -> None:
    async with answering(b"x" * (1 << 20), then=then) as agent:
        with pytest.raises(MonitorTrouble, match=r'^has an agent whose line does not end within 1000 bytes: "x{57}\.\.\."$'):
            await monitor(agent.port).check()
        await agent.left()


@pytest_twisted.ensureDeferred
async def test_an_agent_that_breaks_off() -> None:
    async with answering(b"dow", then="reset") as agent:
        with pytest.raises(MonitorTrouble, match=r'^has an agent that broke the connection, having said "dow"$'):
            await monitor(agent.port).check()
    async with answering(b"") as agent:
        with pytest.raises(MonitorTrouble, match=r"^has an agent that says nothing$"):
            await monitor(agent.port).check()


@pytest_twisted.ensureDeferred
async def test_no_agent_says_nothing_of_the_host() -> None:
    port = free_port()
    trouble = rf"^refused the connection \(port {port}, where its agent should be\)$"
    with pytest.raises(MonitorTrouble, match=trouble):
        await monitor(port).check()


@pytest_twisted.ensureDeferred
async def test_who_is_silent_is_let_go_of_at_once(descriptors_stay: None) -> None:
    async with answering(b"up", then="hold") as agent:
        check = checked(monitor(agent.port).check())
        await until(lambda: bool(agent.connections), "a connection")
        assert await given_up(check) is CancelledError
        await agent.left()


@pytest_twisted.ensureDeferred
async def test_a_connect_is_let_go_of_at_once(descriptors_stay: None) -> None:
    with full_port() as port:
        assert await given_up(checked(monitor(port).check())) is CancelledError


@pytest_twisted.ensureDeferred
async def test_of_two_addresses_the_one_that_is_silent_is_the_last_to_be_tried_again() -> None:
    """As of a host that has an address of IPv6 to which nothing leads: or it would never be reached."""
    async with answering(b"up\n") as agent:
        with full_port() as silent:
            places = [(socket.AF_INET, ("127.0.0.1", port)) for port in (silent, agent.port)]
            lookup = Lookup(reactor, lambda host, port: succeed(list(places)))
            around = Surroundings(reactor, lookup, surroundings().slots)
            here = Target(NAME, "alpha", 1)
            for one in (AgentKind().monitor(here, AgentOptions(port=1), around), TcpKind().monitor(here, TcpOptions(), around)):
                lookup.reached(("alpha", 1), places[0])
                assert await given_up(begin(one)) is CancelledError
                assert (await begin(one)).up


# -- an agent that is a process

AGENT = """
import socketserver, sys
class Agent(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(open(sys.argv[2], "rb").read())
socketserver.ThreadingTCPServer.daemon_threads = True
with socketserver.ThreadingTCPServer(("127.0.0.1", int(sys.argv[1])), Agent) as server:
    print("listens", flush=True)
    server.serve_forever()
"""


@pytest_twisted.ensureDeferred
async def test_a_real_agent_is_frozen_goes_on_and_dies(tmp_path_factory: pytest.TempPathFactory) -> None:
    line = tmp_path_factory.mktemp("agent") / "line"
    line.write_bytes(b"up 50% maxconn:6\n")
    port = free_port()
    asks = monitor(port)
    with spawn(sys.executable, "-c", AGENT, str(port), line) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listens\n", process.stdout.read()
        reading = await asks.check()
        assert (reading.reason, reading.weight, reading.slots) == ("says up 50% maxconn:6", 0.5, 6)
        assert reading.facts == {"line": "up 50% maxconn:6", "maxconn": 6}
        line.write_bytes(b"stopped#for tonight\n")
        assert await asks.check() == Reading(
            False, "says stopped: for tonight", certain=True, facts={"line": "stopped#for tonight"}
        )
        process.send_signal(signal.SIGSTOP)
        frozen = checked(asks.check())
        await until(lambda: is_connected(port), "the kernel's answer")
        assert await given_up(frozen) is CancelledError
        process.send_signal(signal.SIGCONT)
        line.write_bytes(b"ready up\n")
        assert (await asks.check()).up
    with pytest.raises(MonitorTrouble, match="refused the connection "):
        await asks.check()
