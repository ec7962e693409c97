"""Every parser of what comes from outside, and the property test that holds it; those that have no file of their own are here.

Whatever the text: a value, or the error that is documented, in words that can be printed; and soon.
"""

# an error is one of the two good ends of each of these
# ruff: noqa: PT017

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import re
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from distbal import access, addresses, cli, completion, hostspec, listenspec, status, wire
from distbal.adminclient import Connection, RefusedError
from distbal.adminport import _read
from distbal.columns import safe
from distbal.errors import DistbalError, MonitorTrouble, WireError
from distbal.forms import Unfit
from distbal.manhole.completion import completions
from distbal.monitors import exec as execmonitor
from distbal.monitors import ssh
from distbal.monitors.distccd import parse as parse_distccd
from distbal.monitors.programs import Ended
from distbal.monitors.readings import validate_reading
from distbal.notify import notify
from distbal.verbs import VERBS, VerbError
from tests.farms import scheduler, spec
from tests.showcase import Shown
from tests.sites import Website
from tests.support import ROOT

#: a parser, and the test with ``@given`` that says what it makes of anything
PARSERS = {
    # -- the ports
    "distbal.wire:UpdateReader": "test_wire.py:test_pieces_make_no_difference",
    "distbal.wire:tcl_split": "test_wire.py:test_tcl_itself_splits_the_same",
    "distbal.wire:parse_status": "test_parsers.py:test_any_answer_of_a_status_port",
    "distbal.adminport:_read": "test_parsers.py:test_any_request_on_the_admin_socket",
    "distbal.adminclient:Connection": "test_parsers.py:test_any_answer_of_an_admin_socket",
    "distbal.verbs:parse": "test_verbs.py:test_any_words_are_a_call_or_a_sentence",
    "distbal.admin:Admin": "test_admin_machine.py:AdminMachine",
    "distbal.web.site:Channel": "test_web_requests.py:test_nothing_that_is_said_leads_to_an_error",
    "distbal.web.api:parameters": "test_parsers.py:test_any_address_of_the_page",
    "distbal.manhole.transport:Transport": "test_manhole_strangers.py:test_noise",
    "distbal.manhole.session:Session": "test_manhole_strangers.py:test_whatever_is_asked_of_a_session",
    "distbal.manhole.command:Command": "test_manhole_strangers.py:test_any_command",
    "distbal.manhole.terminal:Terminal": "test_manhole_lines.py:test_whatever_is_typed",
    "distbal.manhole.completion:completions": "test_parsers.py:test_tab_behind_any_line",
    "distbal.proxy.session:Session": "test_proxy_relay.py:test",
    # -- files
    "distbal.config:load": "test_config.py:test_bytes_of_any_kind_never_crash_it",
    "distbal.yamlfile:parse": "test_config.py:test_yaml_of_any_kind_never_crashes_it",
    "distbal.model:FileModel": "test_config.py:test_values_of_any_kind_never_crash_it",
    "distbal.schema:build": "test_schema.py:test_what_the_checks_take_it_takes",
    "distbal.export:exported": "test_export.py:test_whatever_else_stands_in_the_file",
    "distbal.hostspec:parse": "test_hostspec.py:test_a_text_is_a_host_or_gets_a_reason",
    "distbal.hostspec:check_name": "test_parsers.py:test_any_part_of_a_host",
    "distbal.listenspec:parse": "test_parsers.py:test_anywhere_to_listen",
    "distbal.access:AccessList": "test_parsers.py:test_anybody_to_let_in",
    "distbal.endpointkeys:private_key": "test_rights.py:test_any_endpoint_has_a_key_or_none",
    "distbal.state:parsed": "test_state.py:test_bytes_that_were_damaged",
    "distbal.statejson:from_json": "test_state.py:test_values_that_are_others",
    "distbal.manhole.authorized:parse": "test_manhole_keys.py:test_whatever_stands_in_the_file",
    "distbal.manhole.hostkey:host_key": "test_parsers.py:test_any_file_with_a_key",
    "distbal.monitors.sshkeys:parsed_key": "test_parsers.py:test_any_file_with_a_key",
    "distbal.monitors.hostkeys:KnownHosts": "test_hostkeys.py:test_any_text_can_be_read",
    "distbal.monitors.snmpaccess:Credentials": "test_parsers.py:test_any_file_with_a_secret",
    # -- monitors
    "distbal.monitors.agent:parse": "test_monitor_agent.py:test_any_line_is_a_reading_or_trouble",
    "distbal.monitors.distccd:parse": "test_parsers.py:test_any_statistics",
    "distbal.monitors.distccwire:AnswerReader": "test_distccwire.py:test_garbage_is_refused_or_not_enough",
    "distbal.monitors.exec:facts": "test_monitor_exec.py:test_any_text_is_figures_or_none",
    "distbal.monitors.exec:judged": "test_parsers.py:test_any_program",
    "distbal.monitors.exec:_words": "test_parsers.py:test_any_command_of_a_monitor",
    "distbal.monitors.snmpmessages:answers": "test_monitor_snmp_messages.py:test_rubbish_is_refused_or_read",
    "distbal.monitors.ssh:parse": "test_parsers.py:test_any_answer_of_a_host",
    "distbal.monitors.sshtalk:Talk": "test_monitor_ssh_servers.py:test_whatever_a_server_sends_is_taken_calmly",
    "distbal.monitors.readings:one_line": "test_readings.py:test_any_text_becomes_a_line",
    "distbal.loads:CpuTimes": "test_loads.py:test_any_text_is_a_line_or_refused",
    # -- the command line, and what starts us
    "distbal.cli:main": "test_parsers.py:test_any_words_behind_a_command",
    "distbal.completion:candidates": "test_parsers.py:test_tab_behind_any_words",
    "distbal.status:where": "test_parsers.py:test_any_place_to_ask",
    "distbal.columns:safe": "test_columns.py:test_nothing_is_wider_than_it_may_be_nor_obeyed",
    "distbal.topmodel:Model": "test_topmodel.py:test_what_is_chosen_is_seen_whatever_is_pressed",
    "distbal.notify:notify": "test_parsers.py:test_any_address_of_systemd",
}

#: more digits than Python makes a number of (sys.get_int_max_str_digits)
MANY = "9" * 5000
WORDS = st.text(max_size=40) | st.sampled_from(["", MANY, "-1", "0", "a:3632", "[fd00::7]:3632", "unix:/run/x", "10.0.0.0/8"])
in_a_moment = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("parser", PARSERS)
def test_each_parser_has_its_test(parser: str) -> None:
    module, _, name = parser.partition(":")
    if module.startswith(("distbal.manhole", "distbal.monitors.ssh")):
        pytest.importorskip("bcrypt", reason="Twisted Conch's libraries are not here: pip install 'distbal[ssh]'")
    if module.startswith("distbal.monitors.snmp"):
        pytest.importorskip("pysnmp")
    assert callable(getattr(import_module(module), name))
    file, _, wanted = PARSERS[parser].partition(":")
    for node in ast.walk(ast.parse((ROOT / "tests" / file).read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == wanted:
            made = [ast.unparse(one) for one in [*node.decorator_list, *getattr(node, "bases", [])]]
            assert any("given(" in one or "StateMachine" in one for one in made), made
            return
    raise AssertionError(f"there is no {PARSERS[parser]}")


# -- the ports

STATUS = wire.status(scheduler(spec("fast", 4), spec("[fd00::7]:3632", 2, 1)).snapshot(0.0), 5656, 5657).splitlines(
    keepends=True
)


@given(
    st.binary(max_size=300)
    | st.lists(st.sampled_from(STATUS) | st.binary(max_size=40), max_size=12).map(b"".join)
    | st.builds(
        lambda at, what: b"".join(STATUS)[:at] + what + b"".join(STATUS)[at:], st.integers(0, 600), st.binary(max_size=9)
    )
)
def test_any_answer_of_a_status_port(text: bytes) -> None:
    try:
        farm = wire.parse_status(text)
    except WireError as error:
        assert str(error).isprintable()
        assert len(str(error)) < 1000
    else:
        assert isinstance(json.dumps(status.Farm(farm).as_json()), str)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from([*VERBS]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["words", "for", "ok", "answer", "error", "usage", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode())


@given(JSON | st.binary(max_size=200))
@example(b"[" * 60_000)
@example(b'{"words": [' + MANY.encode() + b"]}")
@example(b"\xff\xfe{\x00}\x00")
def test_any_request_on_the_admin_socket(line: bytes) -> None:
    try:
        words, on_behalf = _read(line)
    except VerbError as error:
        assert str(error).isprintable()
    else:
        assert all(isinstance(word, str) for word in words)
        assert on_behalf.isprintable()


@given(JSON | st.binary(max_size=200))
@example(b"[" * 60_000)
@example(b'{"ok": ' + MANY.encode() + b"}")
def test_any_answer_of_an_admin_socket(line: bytes) -> None:
    there = Connection.__new__(Connection)
    there.path = "/run/socket"
    try:
        answer = there._understood(line)
    except RefusedError:
        assert b"error" in line
    except WireError as error:
        assert str(error).startswith("/run/socket is not distbal's admin socket")
    else:
        assert isinstance(answer, dict)


@pytest.fixture(scope="module")
def website() -> Iterator[Website]:
    one = Website(Shown([spec("fast", 4), spec("slow", 2, 1)]))
    one.feed.start()
    yield one
    one.feed.stop()
    one.shown.stop()


PATHS = (
    "/",
    "/api/v1/",
    "/api/v1/hosts",
    "/api/v1/hosts/",
    "/api/v1/jobs",
    "/api/v1/jobs/",
    "/events",
    "/style.css",
    "/api/v1/schema/",
)
QUOTED = st.binary(max_size=12).map(lambda data: "".join(f"%{byte:02x}" for byte in data)) | st.from_regex(
    "[!-~]{0,20}", fullmatch=True
)


@given(
    st.sampled_from(PATHS),
    QUOTED,
    st.lists(st.tuples(st.sampled_from(["limit", "host", "pool", "state", "v", "x", ""]) | QUOTED, QUOTED), max_size=4),
)
@example("/api/v1/jobs", "", [("limit", MANY)])
@example("/api/v1/jobs/", MANY, [])
@in_a_moment
def test_any_address_of_the_page(website: Website, path: str, more: str, query: list[tuple[str, str]]) -> None:
    asked = path + more + ("?" + "&".join(f"{name}={value}" for name, value in query) if query else "")
    one = website.exchange()
    one.ask(asked)
    website.clock.advance(0)
    assert one.answer.status in range(200, 500)
    one.leave()


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from([*VERBS, "('", '("', "a", ".", ", ", "'", "[", "__"]), max_size=8).map("".join)
)
@example("drain('" * 5000)
@example("." * 20_000)
def test_tab_behind_any_line(text: str) -> None:
    start, found = completions(text, {"drain": print, "leases": object()}, ["alpha", "[fd00::7]:3632"])
    assert 0 <= start <= len(text)
    assert all(isinstance(one, str) for one in found)


# -- hosts.yaml


@given(WORDS)
def test_any_part_of_a_host(text: str) -> None:
    for check in (hostspec.check_name, hostspec.check_options):
        try:
            assert check(text) == text
        except ValueError as error:
            assert str(error).isprintable()
            assert "integer string conversion" not in str(error)
    for why in (hostspec.why_no_slots(text), addresses.why_no_host(text), addresses.why_no_port(text)):
        assert why.isprintable()


@given(WORDS | st.integers() | st.from_regex(listenspec.ADDRESS, fullmatch=True) | st.none() | st.booleans() | st.floats())
@example(10**5000)
@example(-(10**5000))
@example(f"tcp:{MANY}")
@example(f"127.0.0.1:{MANY}")
def test_anywhere_to_listen(value: object) -> None:
    try:
        place = listenspec.parse(value)
    except ValueError as error:
        assert str(error).isprintable()
        assert "integer string conversion" not in str(error)
    else:
        # what is shown can be written
        assert listenspec.parse(str(place)) == place


@given(
    st.lists(WORDS | st.ip_addresses().map(str) | st.sampled_from(["any", "loopback", "10.0.0.0/33", "::/0"]), max_size=4),
    WORDS,
)
@example([f"10.0.0.0/{MANY}"], "")
def test_anybody_to_let_in(words: list[str], address: str) -> None:
    try:
        made = access.AccessList.parse(words)
    except ValueError as error:
        assert str(error)
        assert "integer string conversion" not in str(error)
    else:
        assert access.AccessList.parse(made.words) == made
        assert isinstance(made.allows(address), bool)


# -- files with keys


@given(
    st.binary(max_size=200)
    | st.sampled_from([b"-----BEGIN OPENSSH PRIVATE KEY-----\n", b"ssh-ed25519 AAAA", b"-----BEGIN RSA"]).flatmap(
        lambda head: st.binary(max_size=100).map(lambda rest: head + rest)
    )
)
@in_a_moment
def test_any_file_with_a_key(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("bcrypt", reason="Twisted Conch's libraries are not here: pip install 'distbal[ssh]'")
    from distbal.manhole.hostkey import HostKeyError, host_key
    from distbal.monitors.sshkeys import parsed_key

    path = tmp_path / "key"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(HostKeyError) as refused:
        host_key(str(path))
    assert str(path) in str(refused.value)
    with contextlib.suppress(MonitorTrouble):
        found = parsed_key(str(path), content, path.stat())
        assert found is None or found.is_public


@given(st.binary(max_size=300))
@in_a_moment
def test_any_file_with_a_secret(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("pysnmp")
    from distbal.monitors.snmp import SnmpOptions
    from distbal.monitors.snmpaccess import Credentials

    path = tmp_path / "secret"
    path.touch(0o600)
    path.write_bytes(content)
    try:
        made = Credentials.of(SnmpOptions.model_validate({"community": f"file:{path}"}))
    except MonitorTrouble as error:
        assert str(error).startswith(f"cannot be asked: in the first line of {path}, ")
    else:
        assert made.community == content.split(b"\n")[0].rstrip(b"\r")


# -- monitors


@given(
    st.lists(
        st.binary(max_size=30)
        | st.sampled_from([b"<distccstats>\n", b"</distccstats>", b"dcc_max_kids 4\n", b"dcc_load1 ", b"\n"]),
        max_size=12,
    )
)
def test_any_statistics(parts: list[bytes]) -> None:
    try:
        reading = parse_distccd(b"".join(parts))
    except MonitorTrouble as error:
        assert str(error).isprintable()
    else:
        assert validate_reading(reading) == []


@given(st.integers(-64, 255), st.binary(max_size=200), st.binary(max_size=60), st.floats(0, 1))
def test_any_program(ended: int, output: bytes, errors: bytes, weight: float) -> None:
    try:
        reading = execmonitor.judged("check", Ended(ended, output, errors), weight)
    except MonitorTrouble as error:
        assert str(error).isprintable()
    else:
        assert validate_reading(reading) == []


@given(
    st.none()
    | st.integers()
    | st.text(max_size=60)
    | st.lists(st.text(max_size=20) | st.integers() | st.sampled_from(["{host}", "{", "/bin/true"]), max_size=4)
)
def test_any_command_of_a_monitor(value: object) -> None:
    try:
        words = execmonitor._words(value)
    except Unfit as error:
        assert str(error)
    else:
        assert words[0]
        assert not any("\0" in word for word in words)


@given(
    st.lists(
        st.binary(max_size=40)
        | st.sampled_from([b"cpu  1 2 3 4 5 6 7 8 9 10\n", b"0.1 0.2 0.3 1/2 3\n", b"4\n", b"cpu1\n", b"99999\n"]),
        max_size=8,
    )
)
def test_any_answer_of_a_host(parts: list[bytes]) -> None:
    look = ssh.parse(b"".join(parts))
    assert look is None or look.times is not None or look.load is not None


# -- the command line


@given(
    st.sampled_from(sorted(cli.COMMANDS)),
    st.lists(WORDS | st.sampled_from(["--json", "--help", "-h", "--", "--socket"]), max_size=4),
)
def test_any_words_behind_a_command(name: str, words: list[str]) -> None:
    parser = ArgumentParser(name)
    import_module(cli.COMMANDS[name].module).add_arguments(parser)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        try:
            parser.parse_args(words)
        except SystemExit as error:
            assert error.code in (0, 2)


@given(WORDS)
@example(f"a:{MANY}")
@example(MANY)
def test_any_place_to_ask(text: str) -> None:
    try:
        address, port = status.where(text)
    except ArgumentTypeError as error:
        assert text in str(error)
    else:
        assert address
        assert 1 <= port <= 65535


@given(st.lists(WORDS | st.sampled_from([*VERBS, *cli.COMMANDS, "--", "--socket", "before"]), max_size=5), WORDS)
def test_tab_behind_any_words(before: list[str], current: str) -> None:
    def nobody(words: Any) -> dict[str, Any]:
        raise DistbalError("nobody is there")

    for word, meaning in completion.candidates(before, current, nobody):
        assert safe(f"{word}{meaning}") == f"{word}{meaning}"


@given(st.text(max_size=200).filter(lambda text: "\0" not in text and _is_utf8(text)))
@example("@" + "x" * 300)
@example("/" + "x" * 5000)
def test_any_address_of_systemd(address: str) -> None:
    with mock.patch.dict(os.environ, {"NOTIFY_SOCKET": address}):
        notify("READY=1")


def _is_utf8(text: str) -> bool:
    return re.search("[\ud800-\udfff]", text) is None
