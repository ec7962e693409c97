"""What the documents say of the wire and of hosts.yaml is what the code does: their examples and figures are read from them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from distbal import (
    access,
    briefports,
    cli,
    config,
    descriptors,
    evidence,
    listening,
    monitorconfig,
    report,
    schema,
    status,
    verbs,
    wire,
)
from distbal.errors import ConfigError
from distbal.proxy import pipes, session, splice
from tests.support import ROOT, need, spawn

PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
MAN = ROOT / "docs" / "man"


def test_the_status_page_of_the_protocol_is_one() -> None:
    example = re.search(r"^```\n(BalanceTcpPort.*?)```", PROTOCOL, re.MULTILINE | re.DOTALL)
    assert example is not None
    parsed = wire.parse_status(example[1].replace(" ...", ""))
    assert parsed.idle == sum(host.free for host in parsed.hosts)
    assert parsed.down == sum(host.slots for host in parsed.hosts if not host.up)
    assert [client.address for client in parsed.waiting] == ["10.0.0.9", "10.0.0.12"]


@pytest.mark.parametrize(
    "words",
    [
        f"more than {wire.MAX_LINE:,} bytes",
        f"no end of the line for {briefports.PATIENCE:g} s",
        f"{descriptors.CROWD} clients were on that port at once",
        f"has {briefports.READING_TIME:g} s to read them",
        f"the listening queue ({listening.BACKLOG:,})",
        f"after {listening.KEEPALIVE['TCP_KEEPIDLE']} s of silence",
        f"{listening.KEEPALIVE['TCP_KEEPCNT']} probes, {listening.KEEPALIVE['TCP_KEEPINTVL']} s apart",
        f"{listening.USER_TIMEOUT // 1000} s (TCP_USER_TIMEOUT)",
        f"with the lease; {session.CONNECT_TIME:g} s for it",
        f"no answer within {session.CONNECT_TIME:g} s | down, for {evidence.FIRST_PAUSE:g} s; then one job",
        f"for twice as long as before, {evidence.LONGEST_PAUSE:g} s at most",
        f"as long as the pause before it, {evidence.SHORTEST_TRIAL:g} s at least",
        f"does not close within {session.PARTING_TIME:g} s",
        f"nothing of what there is for it for {session.STALL_TIME:g} s",
    ],
)
def test_the_figures_of_the_protocol_are_those_of_the_code(words: str) -> None:
    assert words in PROTOCOL


@pytest.mark.parametrize(
    "words",
    [
        f"keeps {descriptors.RESERVE}",
        f"may take {['no', 'one', 'two', 'three', 'four', 'five', 'six'][splice.COST]}: two connections",
        f"hold {pipes.LARGE >> 20} MiB ({pipes.MOST_LARGE} of them at most",
        f"or {pipes.USUAL >> 10} KiB",
    ],
)
def test_the_figures_of_the_operator_s_manual_are_those_of_the_code(words: str) -> None:
    assert words in " ".join(OPERATIONS.split())


@pytest.mark.parametrize("text", [PROTOCOL, (MAN / "hosts.yaml.5").read_text()], ids=["protocol.md", "hosts.yaml.5"])
def test_the_words_of_allow_stand_for_what_the_code_takes_them_for(text: str) -> None:
    for ranges in access.WORDS.values():
        for network in ranges:
            assert network.removesuffix("/128") in text


def keys(part: object) -> set[str]:
    """Every key that a schema lets somebody write."""
    if isinstance(part, list):
        return {key for item in part for key in keys(item)}
    if not isinstance(part, dict):
        return set()
    return set(part.get("properties", {})) | {key for item in part.values() for key in keys(item)}


def test_the_manual_of_hosts_yaml_has_every_key() -> None:
    page = (MAN / "hosts.yaml.5").read_text()
    lines = re.findall(r"^\.It Ic (\w+(?: , \w+)*)$", page, re.MULTILINE)
    described = {key for line in lines for key in line.split(" , ")}
    # the long form of a listener stands in an example
    assert keys(schema.build()) == described | {"at", "pool"}


def test_the_examples_of_the_manual_can_be_used(tmp_path: Path) -> None:
    page = (MAN / "hosts.yaml.5").read_text()
    examples = re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed", page, re.MULTILINE | re.DOTALL)
    assert len(examples) == 5
    if not all(kind.why_unavailable() == "" for kind in monitorconfig.kinds().values()):
        # nobody can use this one without the extras
        examples = [example for example in examples if "ssh:" not in example]
    for number, example in enumerate(examples):
        file = tmp_path / f"{number}.yaml"
        file.write_text(example)
        try:
            config.load(str(file))
        except ConfigError as error:
            pytest.fail(f"{error}\n{example}")


def test_the_json_of_the_manual_has_the_keys_that_are_printed() -> None:
    page = (MAN / "distbal.1").read_text()
    example = re.search(r"^\.Bd -literal.*?\n(.*?)^\.Ed", page, re.MULTILINE | re.DOTALL)
    assert example is not None
    shown = json.loads(example[1])
    line = "BalanceTcpPort = 5656, StatusTcpPort = 5657\nServerList = {snookles:3632 8}\nIdleServers = 7\nDownServers = 0\n"
    line += "WaitQueue = \nWaitQueueLen = 0\nServerStatus = snookles:3632 7\nServerUpState = snookles:3632 up\n"
    line += "ClientStatus = sock64d1f20a3b7bf {10.0.0.9 58332 snookles:3632}\n"
    assert status.Farm(wire.parse_status(line)).as_json() == shown


def test_the_reports_of_the_manual_have_the_keys_that_are_printed() -> None:
    page = (MAN / "distbal.1").read_text()
    examples = re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed", page, re.MULTILINE | re.DOTALL)
    shown = json.loads(examples[1])
    (host,) = shown["hosts"]
    for found, fields in (
        (shown, {*report.StatusReport.__annotations__, "hosts"}),
        (shown["totals"], report.Totals.__annotations__),
        (host, report.HostReport.__annotations__),
        (host["differs"][0], report.Differs.__annotations__),
        (host["clients"][0], report.Client.__annotations__),
        (shown["waiters"][0], report.Client.__annotations__),
    ):
        assert set(found) == set(fields)
    for state in report.STATES:
        assert re.search(rf"^\.Li {state}( ,)?$", page, re.MULTILINE)


def test_the_manual_has_every_command_and_every_verb_with_what_stands_behind_it() -> None:
    page = (MAN / "distbal.1").read_text()
    lines = re.findall(r"^\.It Cm (\w+)(.*)$", page, re.MULTILINE)
    assert {name for name, _ in lines} == {*cli.COMMANDS, *verbs.VERBS}
    described = {name: re.sub(r"\b(Cm|Ar|Op|Oo|Oc|Ns)\b|\s", "", rest) for name, rest in lines}
    for name, verb in verbs.VERBS.items():
        if name not in cli.COMMANDS:
            assert described[name] == re.sub(r"[\s\[\]]", "", verb.usage)


@pytest.mark.programs
@pytest.mark.parametrize("page", sorted(MAN.iterdir()), ids=lambda page: page.name)
def test_man_can_show_the_page(page: Path) -> None:
    need("man")
    command = ["man", "--warnings", "-l", str(page)]
    with spawn(*command, env={"MANPAGER": "cat", "MANWIDTH": "80", "LC_ALL": "C.UTF-8"}) as process:
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "warning:" not in out
    assert "SEE ALSO" in out


def test_the_full_example_has_every_option_of_every_monitor_at_its_default() -> None:
    text = (ROOT / "etc" / "hosts-full.yaml").read_text()
    described = re.sub(r"\n#\s*", " ", text[text.index("# All kinds have interval") :])
    for name, kind in monitorconfig.kinds().items():
        own = described[described.index(f" {name}: {{") :].partition("}")[0] if name != "snmp" else described
        for option, field in kind.options.model_fields.items():
            if option in ("fall", "rise", "required"):
                continue
            assert re.search(rf"\b{option}\b", own), (name, option)
            if not field.is_required() and field.default not in (None, "") and f"{option}: " in own:
                default = ", ".join(field.default) if isinstance(field.default, list) else str(field.default)
                default = default.lower() if isinstance(field.default, bool) else default
                assert re.search(rf"\b{option}: \[?{re.escape(default)}", own), (name, option, default)
