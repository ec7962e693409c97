"""hosts.yaml as a whole: what is wrong is reported at once and in full, what is right means what it should."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distbal import yamlfile
from distbal.access import AccessList
from distbal.config import Settings, load
from distbal.errors import ConfigError, Mistake, describe
from distbal.hosts import Farm, HostSpec
from distbal.listenspec import KINDS, ListenAddress, Listener
from distbal.model import FileModel, ListenModel, ManholeModel
from distbal.yamlwords import misprint
from tests.invalid_configs import FILES, LINES, UNREADABLE
from tests.invalid_hosts import HOST_ENTRIES, HOST_TEXTS
from tests.support import ROOT

FULL = ROOT / "etc" / "hosts-full.yaml"
SMALL = ROOT / "etc" / "hosts.yaml"

#: words of the libraries below, which no user should have to read
FOREIGN = (
    "Input should be",
    "pydantic",
    "str_type",
    "int_type",
    "_type",
    "Value error",
    "Traceback",
    "<class",
    "NoneType",
    "yaml.",
)


def all_invalid() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Every row of the tables: the file and what is said of it."""
    rows: dict[str, tuple[str, tuple[str, ...]]] = {}
    for text, said in HOST_TEXTS.items():
        rows[f"host {text[-50:]!r}"] = f"hosts:\n  - {json.dumps(text)}\n", (f":2: hosts[0]: {said}",)
    rows |= {entry: (f"hosts:\n  - {entry}\n", (f":2: {said}",)) for entry, said in HOST_ENTRIES.items()}
    rows |= {line: (f"hosts: [box/4]\n{line}\n", (f":2: {said}",)) for line, said in LINES.items()}
    rows |= {name: (row.text, row.mistakes) for name, row in FILES.items()}
    return rows | {repr(text): (text, (said,)) for text, said in UNREADABLE.items()}


INVALID = all_invalid()
assert len(INVALID) == len([*HOST_TEXTS, *HOST_ENTRIES, *LINES, *FILES, *UNREADABLE]), "two rows have one name"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text: str | bytes) -> Settings:
    """The settings of a file with that text, in the current directory; its warnings are not looked at."""
    Path("hosts.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    return load("hosts.yaml").settings


def warnings(text: str) -> list[str]:
    Path("hosts.yaml").write_text(text)
    return [describe("", warning) for warning in load("hosts.yaml").warnings]


def refused(text: str | bytes) -> str:
    with pytest.raises(ConfigError) as raised:
        read(text)
    return str(raised.value)


@pytest.mark.parametrize("name", INVALID)
def test_every_mistake_is_reported_with_its_line_and_what_would_be_right(here: Path, name: str) -> None:
    text, mistakes = INVALID[name]
    said = refused(text)
    assert said.split("\n") == [f"hosts.yaml{mistake}" for mistake in mistakes]
    assert not [word for word in FOREIGN if word in said.replace(text.strip(), "")]


def test_a_mistake_knows_its_column(here: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        read("hosts: [box/4, other/0]\nlisten: {balance: 5656, sttus: 7}\n")
    assert [(mistake.line, mistake.column, mistake.where) for mistake in raised.value.mistakes] == [
        (1, 16, "hosts[1]"),
        (2, 25, "listen.sttus"),
    ]


def test_all_that_a_file_can_say(here: Path) -> None:
    text = """
hosts:
  - snookles:3632/4,lzo
  - [box1/16, box2/16, "[fd00::7]:3632/8,lzo,cpp"]
  - name: newbb
    slots: 8
    address: 10.0.0.7:3700
    options: lzo,cpp
    pools: [arm, default]
  - {name: other, slots: 2, address: "[fe80::1%eth0]"}
policy: least-loaded
queue: {order: fifo, wait: 2.5}
reply: "{name}/100{options}"
listen:
  balance: [5656, {at: "[::1]:5756", pool: arm}, unix:/run/distbal/balance]
  status: "0"
  update: null
  proxy: [3640, {at: 10.0.0.1:3641, pool: arm}, {at: "tcp:3642", speaks_first: server, half_close: pass}]
  web: ["[::1]:5659", unix:/run/distbal/web]
  admin: unix:/run/distbal/a/../admin
  manhole: 127.0.0.1:5660
allow: {clients: [any], update: [10.1.0.0/16, "fd00::/8", loopback], web: [10.0.0.0/8]}
manhole: {authorized_keys: /root/.ssh/authorized_keys, host_key: /etc/ssh/key}
state: /srv/distbal
"""
    assert read(text) == Settings(
        farm=Farm(
            hosts=(
                HostSpec("snookles:3632", 4, 0, ",lzo", ("snookles", 3632)),
                HostSpec("box1", 16, 1, "", ("box1", 3632)),
                HostSpec("box2", 16, 1, "", ("box2", 3632)),
                HostSpec("[fd00::7]:3632", 8, 1, ",lzo,cpp", ("fd00::7", 3632)),
                HostSpec("newbb", 8, 2, ",lzo,cpp", ("10.0.0.7", 3700), ("arm", "default")),
                HostSpec("other", 2, 3, "", ("fe80::1%eth0", 3632)),
            ),
            policy="least-loaded",
            order="fifo",
            wait=2.5,
        ),
        reply="{name}/100{options}",
        listen=(
            Listener("balance", ListenAddress.tcp(None, 5656)),
            Listener("balance", ListenAddress.tcp("::1", 5756), "arm"),
            Listener("balance", ListenAddress.unix("/run/distbal/balance")),
            Listener("status", ListenAddress.tcp(None, 0)),
            Listener("proxy", ListenAddress.tcp(None, 3640)),
            Listener("proxy", ListenAddress.tcp("10.0.0.1", 3641), "arm"),
            Listener("proxy", ListenAddress.endpoint("tcp:3642"), speaks_first="server", half_close="pass"),
            Listener("web", ListenAddress.tcp("::1", 5659)),
            Listener("web", ListenAddress.unix("/run/distbal/web")),
            Listener("admin", ListenAddress.unix("/run/distbal/a/../admin")),
            Listener("manhole", ListenAddress.tcp("127.0.0.1", 5660)),
        ),
        allow={
            "clients": AccessList.parse(["any"]),
            "update": AccessList.parse(["10.1.0.0/16", "fd00::/8", "loopback"]),
            "web": AccessList.parse(["10.0.0.0/8"]),
        },
        manhole=ManholeModel(authorized_keys="/root/.ssh/authorized_keys", host_key="/etc/ssh/key"),
        state="/srv/distbal",
    )
    assert warnings(text) == []


def test_what_is_left_out_is_as_the_design_says(here: Path) -> None:
    assert read("hosts: [box/4]\n") == Settings(
        farm=Farm((HostSpec("box", 4, 0, "", ("box", 3632)),), "fastest-first", "fair", None),
        reply="{name}{options}",
        listen=(
            Listener("balance", ListenAddress.tcp(None, 5656)),
            Listener("status", ListenAddress.tcp(None, 5657)),
            Listener("update", ListenAddress.tcp("127.0.0.1", 5658)),
            Listener("web", ListenAddress.tcp(None, 5659)),
            Listener("admin", ListenAddress.unix("/run/distbal/admin.sock")),
        ),
        allow={
            "clients": AccessList.parse(["loopback", "private"]),
            "update": AccessList.parse(["loopback"]),
            "web": AccessList.parse(["loopback", "private"]),
        },
        manhole=ManholeModel(authorized_keys="/etc/distbal/authorized_keys", host_key="/var/lib/distbal/ssh_host_ed25519_key"),
        state="/var/lib/distbal",
    )
    # only what nobody asked for may be done without
    assert [one.kind for one in read("hosts: [box/4]\n").listen if one.optional] == ["admin"]
    assert not any(one.optional for one in read("hosts: [box/4]\nlisten: {admin: unix:/run/distbal/admin.sock}\n").listen)


@pytest.mark.parametrize(
    "text",
    [
        "hosts: [no/4, on/4, off/4, y/4]\n",  # YAML 1.1 would read truth values
        "hosts:\n  - &first box/4\nreply: &r '{name}'\npolicy: random\n",
        "%YAML 1.2\n---\nhosts: [box/4]\n...\n",
        "\ufeffhosts:\r\n  - box/4\r\n",
        "hosts: [{name: box, slots: 4.0}]\n",  # to JSON Schema that is a whole number
        "hosts: [box/4]\nqueue: {wait: 1e2}\n",
        'hosts: ["box/4"]\nlisten: {balance: "systemd:domain=INET:index=0", status: "tcp:5657:interface=127.0.0.1"}\n',
        "hosts: [box/4]\nlisten: {balance: [0, 127.0.0.1:0], status: 0, update: {at: 0}}\n",
        "hosts: [box/4]\nlisten: {balance: 127.0.0.1:7000, status: 127.0.0.2:7000}\n",
        'hosts: [box/4]\nlisten: {balance: "[::]:7000", status: "0.0.0.0:7000"}\n',
        "hosts: [box/4]\nlisten: {proxy: 3640}\n",
        "hosts: [box/4]\nlisten: {proxy: unix:/run/distbal/proxy}\n",
        "hosts: [box/4]\nlisten: {proxy: {at: '[::1]:3640'}}\n",
        "hosts: [box/4]\nlisten: {balance: 127.0.0.1:3640, proxy: 127.0.0.2:3640}\n",
        "hosts: [box/4]\nlisten: {proxy: [0, {at: 0, pool: default, speaks_first: client, half_close: cancel}]}\n",
        'hosts: [a.b-c_d.example.org.:3632/999999, "box2/1,auth=svc.x/y,lzo"]\n',
    ],
)
def test_these_are_right(here: Path, text: str) -> None:
    assert read(text.encode()).farm.hosts


def test_a_name_that_yaml_once_took_for_a_truth_value_is_a_name(here: Path) -> None:
    assert [host.name for host in read("hosts: [no/4, on/4, yes/4]\n").farm.hosts] == ["no", "on", "yes"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hosts:\n  - box\n", [":2: hosts[0]: box has no number of slots, and so 4, as distcc takes it: say how many"]),
        ("hosts:\n  - name: box\n", [":2: hosts[0]: box has no number of slots, and so 4, as distcc takes it: say how many"]),
        ("hosts:\n  - box/10001\n", [":2: hosts[0]: 10001 slots: distcc itself uses at most 10000 of one host"]),
        (
            "hosts:\n  - localhost/4\n",
            [":2: hosts[0]: localhost tells distcc to run the job on the client itself: write 127.0.0.1 for a distccd there"],
        ),
        (
            "hosts: ['localhost/4,lzo']\nreply: '{name}/9'\n",
            [
                ":1: hosts[0]: localhost tells distcc to run the job on the client itself: write 127.0.0.1 for a distccd there",
                ":2: reply: has no {options}, so clients are not told the options that hosts have",
            ],
        ),
        ("hosts: ['localhost/4,lzo', 'localhost:3633/4']\n", []),  # distcc reads neither as its word for "here"
        (
            "hosts:\n  - Box/4\n  - box:3632/4\n",
            [":3: hosts[1]: box:3632 has the address of Box on line 2: one distccd, the slots of both"],
        ),
        (
            "hosts:\n  - '[fd00::7]/4'\n  - {name: box, slots: 1, address: '[fd00:0::7]'}\n",
            [":3: hosts[1]: box has the address of [fd00::7] on line 2: one distccd, the slots of both"],
        ),
        (
            "hosts:\n  - box/4\n  - 127.0.0.1:3632/4\n",
            [":3: hosts[1]: to each client 127.0.0.1:3632 is its own machine: write the name that the others know this one by"],
        ),
        (
            "hosts:\n  - {name: box, slots: 4, pools: [default, arm]}\n",
            [":2: hosts[0].pools: no listener lends the pool arm: add one such as {at: 5756, pool: arm} to listen.balance"],
        ),
        (
            "hosts: [box/4]\nlisten:\n  balance: null\n",
            [":3: listen.balance: nothing listens for clients, so no host is ever lent"],
        ),
        (
            "hosts:\n  - {name: box, slots: 4, pools: [default, arm]}\nlisten: {balance: null, proxy: 3640}\n",
            [":2: hosts[0].pools: no listener lends the pool arm: add one such as {at: 3641, pool: arm} to listen.proxy"],
        ),
        (
            "hosts:\n  - {name: box, slots: 4, pools: [default, arm]}\nlisten: {proxy: 3640}\n",
            [
                (
                    ":2: hosts[0].pools: no listener lends the pool arm: "
                    "add one such as {at: 5756, pool: arm} to listen.balance or listen.proxy"
                )
            ],
        ),
        ("hosts: [{name: box, slots: 4, pools: [default, arm]}]\nlisten: {proxy: {at: 3641, pool: arm}}\n", []),
        # who comes by a proxy is told no names, and no slots
        ("hosts: [localhost/20000]\nlisten: {balance: null, proxy: 3640}\nreply: '{name}'\n", []),
        ("hosts: [box/4, 127.0.0.1:3632/4]\nlisten: {balance: null, proxy: 3640}\n", []),
        (
            "hosts: [box/4, {name: localhost, slots: 4, pools: [arm]}]\nlisten: {proxy: {at: 3641, pool: arm}}\n",
            [],
        ),
        (
            "hosts:\n  - 127.0.0.1/4\n  - {name: box, slots: 4, pools: [arm]}\nlisten: {proxy: {at: 3641, pool: arm}}\n",
            [":2: hosts[0]: to each client 127.0.0.1 is its own machine: write the name that the others know this one by"],
        ),
        (
            "hosts:\n  - localhost/4\nlisten: {proxy: 3640}\n",
            [":2: hosts[0]: localhost tells distcc to run the job on the client itself: write 127.0.0.1 for a distccd there"],
        ),
        (
            "hosts: ['box/4,lzo']\nreply: '{name}'\nlisten:\n  balance: null\n  proxy: 3640\n",
            [
                (
                    ":5: listen.proxy: a proxy tells clients no options of hosts: "
                    "they write their own, as in DISTCC_HOSTS=balancer:3640/40,lzo"
                )
            ],
        ),
        ("hosts: ['box/4,lzo']\nlisten: {proxy: 3640}\n", []),
        (
            "hosts: [box/4]\nlisten:\n  status: 'onion:80:x=y'\n",
            [
                (
                    ":3: listen.status: onion is no endpoint that Twisted brings: "
                    "this works only where a plug-in of that name is installed"
                )
            ],
        ),
    ],
)
def test_what_is_doubtful_is_a_warning(here: Path, text: str, said: list[str]) -> None:
    assert warnings(text) == said


@pytest.mark.parametrize(
    ("address", "proxy", "same"),
    [
        ("127.0.0.1:3640", "3640", True),
        ("127.0.0.1:3640", "127.0.0.1:3640", True),
        ("127.0.0.1:3640", "0.0.0.0:3640", True),
        ("127.1.2.3:3640", "3640", True),
        ("[::1]:3640", "3640", True),
        ("[::1]:3640", "[::]:3640", True),
        ("[::ffff:127.0.0.1]:3640", "127.0.0.1:3640", True),
        ("localhost:3640", "3640", True),
        ("LocalHost:3640", "[::1]:3640", True),
        ("127.0.0.1", "3632", True),
        ("10.0.0.7:3640", "10.0.0.7:3640", True),
        ("[fd00:0::7]:3640", "[fd00::7]:3640", True),
        ("127.0.0.1:3641", "3640", False),
        ("127.0.0.1:3640", "127.0.0.2:3640", False),
        ("127.0.0.1:3640", "[::]:3640", False),
        ("localhost:3640", "10.0.0.7:3640", False),
        ("10.0.0.7:3640", "3640", False),  # whose address that is does not show in the file
        ("box:3640", "3640", False),
        ("10.0.0.8:3640", "10.0.0.7:3640", False),
        ("127.0.0.1:3640", "0", False),
        ("127.0.0.1:3640", "unix:/run/distbal/proxy", False),
    ],
)
def test_a_host_that_is_the_proxy_itself_is_a_warning(here: Path, address: str, proxy: str, same: bool) -> None:
    text = f"hosts:\n  - name: box\n    slots: 4\n    address: '{address}'\nlisten:\n  proxy: [7000, '{proxy}']\n"
    place = address if ":" in address else f"{address}:3632"
    said = f"{place} is where distbal's own proxy ({proxy}) listens: a job sent there comes back, and wants a slot again"
    assert warnings(text) == [f":4: hosts[0].address: {said}"] * same


def test_a_host_of_another_listener_is_no_loop(here: Path) -> None:
    assert warnings("hosts: ['127.0.0.1:5656/4']\nlisten: {proxy: 3640}\n") == []
    said = "127.0.0.1:3640 is where distbal's own proxy (3640) listens: a job sent there comes back, and wants a slot again"
    assert warnings("hosts: ['127.0.0.1:3640/4']\nlisten: {proxy: 3640}\n") == [f":1: hosts[0]: {said}"]


def test_a_file_that_cannot_be_read(here: Path) -> None:
    for path, reason in [("none.yaml", "no such file or directory"), (".", "is a directory"), ("a\0b", "embedded null byte")]:
        with pytest.raises(ConfigError) as raised:
            load(path)
        assert str(raised.value) == f"{path}: cannot be read: {reason}"


@pytest.fixture
def alarm() -> Iterator[None]:
    """What blocks for 10 s fails."""

    def ring(*_: object) -> None:
        raise TimeoutError("it blocks")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(10)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", ["a pipe", "a pipe that somebody has open", "a device", "a socket"])
def test_what_is_no_file_is_refused_without_waiting_for_it(here: Path, alarm: None, kind: str) -> None:
    path = "/dev/zero" if kind == "a device" else "hosts.yaml"
    with ExitStack() as stack:
        if kind.startswith("a pipe"):
            os.mkfifo(path)
        if kind == "a pipe that somebody has open":
            stack.callback(os.close, os.open(path, os.O_RDWR | os.O_NONBLOCK))
        if kind == "a socket":
            stack.enter_context(socket.socket(socket.AF_UNIX)).bind(path)
        with pytest.raises(ConfigError) as raised:
            load(path)
    assert str(raised.value) == f"{path}: cannot be read: it is no regular file"


def test_what_a_parser_says_without_a_place_is_said_without_one() -> None:
    assert misprint(yaml.YAMLError("?"), "hosts: []") == Mistake(0, 0, "", "is not YAML")


def test_what_a_parser_says_that_nobody_foresaw_is_passed_on() -> None:
    mark = yaml.error.Mark("", 0, 1, 2, None, 0)
    assert misprint(yaml.MarkedYAMLError(problem="a new thing", problem_mark=mark), "hosts:\n  x\n") == Mistake(
        2, 3, "", "not YAML, here or on the line above: quotes may help (a new thing)"
    )


def test_a_character_that_was_written_as_two_escapes_is_one(here: Path) -> None:
    assert refused('hosts: [box/4]\npolicy: "\\ud83d\\ude00"\n').startswith('hosts.yaml:2: policy: "\U0001f600" is none of')


def test_a_file_that_is_no_text(here: Path) -> None:
    assert refused(b"hosts:\n  - b\xf8x/4\n") == "hosts.yaml:2: byte 0xf8 is not UTF-8: save the file as UTF-8"
    assert refused("hosts: [box/4]\n".encode("utf-16")) == "hosts.yaml:1: byte 0xff is not UTF-8: save the file as UTF-8"


def test_a_file_of_any_size_is_read_to_its_bound_only(here: Path) -> None:
    assert refused(b"#" * (yamlfile.MOST_BYTES + 1)) == "hosts.yaml: is larger than 2 MiB: is it the right file?"
    assert read(b"hosts: [box/4]\n" + b"#" * (yamlfile.MOST_BYTES - 15)).farm.hosts
    os.truncate("hosts.yaml", 1 << 40)
    with pytest.raises(ConfigError, match="is larger than 2 MiB"):
        load("hosts.yaml")


def test_the_small_example_is_one_distccd_on_this_machine() -> None:
    loaded = load(str(SMALL))
    assert loaded.settings.farm.hosts == (HostSpec("127.0.0.1:3632", 4, 0, "", ("127.0.0.1", 3632)),)
    assert loaded.warnings == []


def test_the_full_example_is_the_defaults(here: Path) -> None:
    loaded = load(str(FULL))
    assert loaded.settings == read("hosts: ['127.0.0.1:3632']\n")
    assert loaded.warnings == []


def test_the_full_example_shows_every_key_at_its_default() -> None:
    written = yaml.safe_load(FULL.read_text())
    sections: list[tuple[Any, Any]] = [
        (FileModel, written),
        (type(FileModel.model_validate(written).hosts[0][0]), written["hosts"][0]),
    ]
    for model, values in sections:
        assert list(values) == list(model.model_fields)
        for key, field in model.model_fields.items():
            if isinstance(field.default, dict) and not field.default and key != "monitors":
                sections.append((field.annotation, values[key]))
            elif not field.is_required():
                assert values[key] == field.default, key
    names = {"FileModel", "HostModel", "QueueModel", "ListenModel", "AllowModel", "ManholeModel"}
    assert {model.__name__ for model, _ in sections} == names


def test_the_file_has_a_key_for_each_kind_of_listener() -> None:
    assert tuple(ListenModel.model_fields) == KINDS


def complaint(path: Path, data: bytes) -> str:
    """What is said of the bytes; "" where they are a good file. Anything but ConfigError fails the test."""
    path.write_bytes(data)
    try:
        load(str(path))
    except ConfigError as error:
        return str(error)
    return ""


def assert_plain(said: str) -> None:
    """It can be shown on any terminal."""
    assert said.replace("\n", "").isprintable()
    assert not [word for word in FOREIGN if word in said]


#: the file's own words, so that chance finds the deeper checks
words = st.sampled_from(
    [
        *("hosts", "policy", "queue", "order", "wait", "reply", "listen", "balance", "status", "update", "proxy"),
        *("allow", "clients", "speaks_first", "half_close", "server", "pass"),
        *("name", "slots", "address", "options", "pools", "at", "pool", "box/4", "box1:3632/4,lzo", "[fd00::7]:3632", "fair"),
        *("5656", "127.0.0.1:5656", "unix:/x", "tcp:1", "loopback", "10.0.0.0/8", "{name}{options}", "arm", "", "-", "\ud800"),
    ]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | words | st.text(max_size=8)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words | st.text(max_size=4), inner, max_size=5),
    max_leaves=12,
)
files = st.fixed_dictionaries({}, optional=dict.fromkeys(FileModel.model_fields, values))
quick = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(st.binary(max_size=200))
def test_bytes_of_any_kind_never_crash_it(tmp_path: Path, data: bytes) -> None:
    assert_plain(complaint(tmp_path / "hosts.yaml", data).replace(str(tmp_path), ""))


yaml_pieces = st.sampled_from(
    [
        *"-:?,[]{}#&*!|>'\"%@` \n\t",
        "\n  ",
        "\n- ",
        ": ",
        "&a ",
        "*a",
        "<<",
        "---\n",
        "hosts",
        "box/4",
        "!!str ",
        "\\",
        "~",
        "\r",
        "é",
    ]
)


@quick
@given(st.lists(yaml_pieces, max_size=25).map("".join))
def test_yaml_of_any_kind_never_crashes_it(tmp_path: Path, text: str) -> None:
    said = complaint(tmp_path / "hosts.yaml", text.encode())
    assert said
    assert_plain(said.replace(str(tmp_path), ""))


@quick
@given(files | values)
def test_values_of_any_kind_never_crash_it(tmp_path: Path, value: object) -> None:
    assert_plain(complaint(tmp_path / "hosts.yaml", json.dumps(value).encode()).replace(str(tmp_path), ""))
