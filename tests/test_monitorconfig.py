"""``monitors`` in hosts.yaml: what holds for all hosts, what for one, and every mistake with its line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, ClassVar, NoReturn

import pytest
from jsonschema import Draft202012Validator
from twisted.plugin import IPlugin
from zope.interface import implementer

from distbal import config, monitorconfig, schema, yamlfile
from distbal.errors import ConfigError
from distbal.forms import setting, text
from distbal.interfaces import IHostMonitorFactory, Target
from distbal.monitors.kit import MonitorKind, MonitorOptions, Surroundings
from distbal.monitors.watch import Assignment
from tests.support import LoggedErrors

HOSTS = "hosts: [box/4, {name: old, slots: 2, address: '10.0.0.9:3633'%s}]\n"


class WordOptions(MonitorOptions):
    """One option that has to be there, and one of pydantic's own forms."""

    word: Annotated[str, text("[a-z]+", lambda word: word, "a word")] = setting(..., "A word.")
    number: int = setting(1, "A number.")


@implementer(IPlugin, IHostMonitorFactory)
class WordKind(MonitorKind):
    name = "word"
    description = "has options of its own"
    options = WordOptions
    proposes_slots = True

    def monitor(self, target: Target, options: WordOptions, surroundings: Surroundings) -> NoReturn:
        raise NotImplementedError


@implementer(IPlugin, IHostMonitorFactory)
class LackingKind(MonitorKind):
    name = "lacking"
    description = "lacks a library"
    requires: ClassVar = ("no_such_library.part",)
    extra = "lacking"

    def monitor(self, target: Target, options: MonitorOptions, surroundings: Surroundings) -> NoReturn:
        raise NotImplementedError


@pytest.fixture
def more_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two more kinds are installed."""
    found = monitorconfig.kinds()
    monkeypatch.setattr(monitorconfig, "kinds", lambda: found | {"word": WordKind(), "lacking": LackingKind()})


def load(directory: Path, text: str) -> config.Loaded:
    file = directory / "hosts.yaml"
    file.write_text(text)
    return config.load(str(file))


def assigned(directory: Path, monitors: str, own: str = "") -> dict[tuple[str, str], Assignment]:
    loaded = load(directory, HOSTS % (f", monitors: {own}" if own else "") + (f"monitors: {monitors}\n" if monitors else ""))
    return {one.key: one for one in loaded.settings.monitors}


def wrong(directory: Path, text: str) -> list[str]:
    """What is said of a file, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        load(directory, text)
    return [line.removeprefix(str(directory / "hosts.yaml")) for line in str(caught.value).splitlines()]


def test_nobody_is_asked_by_default(tmp_path: Path) -> None:
    assert assigned(tmp_path, "") == {}
    assert assigned(tmp_path, "{}") == {}


@pytest.mark.parametrize("written", ["{tcp: true}", "{tcp: {}}"])
def test_a_monitor_for_all_hosts(tmp_path: Path, written: str) -> None:
    found = assigned(tmp_path, written)
    assert list(found) == [("box", "tcp"), ("old", "tcp")]
    box, old = found.values()
    assert (box.target.host, box.target.port) == ("box", 3632)
    assert (old.target.host, old.target.port) == ("10.0.0.9", 3633)
    assert (box.options.interval, box.options.timeout, box.options.fall, box.options.rise) == (10, 3, 3, 2)
    # ten thousand hosts share one
    assert box.options is old.options


def test_one_host_has_other_options_or_none(tmp_path: Path) -> None:
    found = assigned(tmp_path, "{tcp: {interval: 20, fall: 5}}", "{tcp: {interval: 30}}")
    assert [(one.options.interval, one.options.fall) for one in found.values()] == [(20, 5), (30, 5)]
    assert list(assigned(tmp_path, "{tcp: true}", "{tcp: false}")) == [("box", "tcp")]
    assert list(assigned(tmp_path, "{tcp: false}")) == []
    assert list(assigned(tmp_path, "{tcp: false}", "{tcp: true}")) == [("old", "tcp")]
    assert list(assigned(tmp_path, "", "{tcp: {}}")) == [("old", "tcp")]
    assert list(assigned(tmp_path, "{tcp: {interval: 7}}", "{tcp: true}")) == [("box", "tcp"), ("old", "tcp")]


def test_two_of_one_kind_have_names_of_their_own(tmp_path: Path) -> None:
    found = assigned(tmp_path, "{tcp: true, slow-tcp: {kind: tcp, interval: 60}}", "{slow-tcp: {timeout: 9}}")
    assert list(found) == [("box", "tcp"), ("box", "slow-tcp"), ("old", "tcp"), ("old", "slow-tcp")]
    assert {one.kind.name for one in found.values()} == {"tcp"}
    assert found["old", "slow-tcp"].options.timeout == 9


@pytest.mark.usefixtures("more_kinds")
def test_what_has_to_be_there_may_stand_at_each_host(tmp_path: Path) -> None:
    file = "hosts:\n  - {name: box, slots: 4, monitors: {word: {word: left}}}\n"
    file += "  - {name: old, slots: 4, monitors: {word: {word: right}}}\nmonitors: {word: {interval: 30}}\n"
    found = load(tmp_path, file).settings.monitors
    assert [(one.options.word, one.options.interval) for one in found] == [("left", 30), ("right", 30)]  # type: ignore[attr-defined]


@pytest.mark.usefixtures("more_kinds")
@pytest.mark.parametrize(
    ("monitors", "said"),
    [
        ("{tpc: true}", ':2: monitors.tpc: no monitor is called "tpc": did you mean tcp?'),
        ("{disk: {kind: tpc}}", ':2: monitors.disk.kind: no monitor is called "tpc": did you mean tcp?'),
        ("{disk: {kind: 3}}", ":2: monitors.disk.kind: no monitor is called 3: there are"),
        ("{qqqqqqq: true}", "(a name of your own has kind: beside it)"),
        ("{tcp: {intervall: 3}}", ":2: monitors.tcp.intervall: unknown key; did you mean interval?"),
        ("{tcp: {interval: fast}}", ':2: monitors.tcp.interval: "fast" is none of 0.1 to 86400: seconds between two checks'),
        ("{tcp: {interval: 0}}", ":2: monitors.tcp.interval: 0 is none of 0.1 to 86400"),
        ("{tcp: {fall: 0}}", ":2: monitors.tcp.fall: checks in a row are a whole number, 1 to 100, not 0"),
        ("{tcp: {required: 1}}", ":2: monitors.tcp.required: 1 is neither true nor false"),
        ("{tcp: }", ":2: monitors.tcp: nothing: write {} or true: with its defaults; false: off; or a mapping of its options"),
        ("{tcp: 10}", ":2: monitors.tcp: 10: write {} or true"),
        ("[tcp]", ":2: monitors: a list where a mapping is wanted, such as {tcp: true}"),
        ("tcp", ':2: monitors: "tcp" where a mapping is wanted, such as {tcp: true}'),
        ("{Tcp: true}", ":2: monitors: \"Tcp\" is no name of a monitor: small letters, digits and '-', at most 31"),
        ("{update: true}", ":2: monitors.update: the name is the update port's: choose another, and write kind: beside it"),
        ("{connect: {kind: tcp}}", ":2: monitors.connect: the name is the proxy's"),
        ("{word: true}", ":2: monitors.word: word is missing: A word."),
        ("{word: {wrod: a}}", ":2: monitors.word.wrod: unknown key; did you mean word?"),
        ("{word: {word: a, number: x}}", ':2: monitors.word.number: "x": input should be a valid integer'),
        ("{lacking: true}", "lacking needs no_such_library.part, which is not installed: pip install 'distbal[lacking]'"),
    ],
)
def test_every_mistake_has_its_line(tmp_path: Path, monitors: str, said: str) -> None:
    found = wrong(tmp_path, HOSTS % "" + f"monitors: {monitors}\n")
    assert len(found) == 1, found
    assert said in found[0]


@pytest.mark.usefixtures("more_kinds")
def test_a_mistake_is_told_where_it_stands_and_once(tmp_path: Path) -> None:
    text = """\
hosts:
  - {name: a, slots: 4, monitors: {tcp: {timeout: 0}}}
  - {name: b, slots: 4, monitors: {word: {number: 3}}}
  - {name: c, slots: 4, monitors: {tcp: {fall: 2}}}
  - d/4
monitors:
  tcp: {interval: x}
"""
    assert wrong(tmp_path, text) == [
        ":2: hosts[0].monitors.tcp.timeout: 0 is none of 0.05 to 3600: seconds that a check may take",
        ":3: hosts[1].monitors.word: word is missing: A word.",
        ':7: monitors.tcp.interval: "x" is none of 0.1 to 86400: seconds between two checks of a host',
    ]


def test_a_host_s_own_monitors_are_checked_like_the_others(tmp_path: Path) -> None:
    assert wrong(tmp_path, HOSTS % ", monitors: [tcp]") == [
        ":1: hosts[1].monitors: a list where a mapping is wanted, such as {tcp: true}"
    ]


def test_the_schema_takes_and_rejects_the_same(tmp_path: Path) -> None:
    validator = Draft202012Validator(schema.build())

    def takes(monitors: str, own: str = "{}") -> bool:
        text = HOSTS % f", monitors: {own}" + f"monitors: {monitors}\n"
        return validator.is_valid(yamlfile.parse("hosts.yaml", text).root.plain())

    assert takes("{tcp: true, other: {kind: tcp, interval: 3}}", "{tcp: false}")
    assert takes("{tcp: {interval: 2.5, required: true}}")
    for bad in ("{tcp: {intervall: 3}}", "{tcp: {interval: x}}", "{tcp: 3}", "[tcp]", "{Tcp: true}", "{o: {kind: nothing}}"):
        assert not takes(bad), bad
        assert not takes("{}", bad), bad


def test_distccd_says_slots(tmp_path: Path) -> None:
    loaded = load(tmp_path, "hosts: [{name: box, slots: auto}]\nmonitors: {distccd: true}\n")
    assert not [warning for warning in loaded.warnings if "auto" in warning.text]


@pytest.mark.usefixtures("more_kinds")
def test_slots_that_the_host_says_need_somebody_who_asks_for_them(tmp_path: Path) -> None:
    file = "hosts: [{name: box, slots: auto}]\n"
    loaded = load(tmp_path, file)
    (host,) = loaded.settings.farm.hosts
    assert (host.slots, host.auto) == (4, True)
    assert [warning.text for warning in loaded.warnings if "auto" in warning.text] == [
        "auto, and no monitor of this host says them (distccd does): until one does it has 4"
    ]
    for who in ("{word: {word: a}}", "{distccd: true}", "{agent: {port: 9}}"):
        loaded = load(tmp_path, file + f"monitors: {who}\n")
        assert not [warning for warning in loaded.warnings if "auto" in warning.text], who
    loaded = load(tmp_path, file + "monitors: {tcp: true}\n")
    assert [warning for warning in loaded.warnings if "auto" in warning.text]


SAYS = "everybody can read this file, and {} in it: chmod o-r, or write file:/PATH in their place"


@pytest.mark.parametrize(
    ("mode", "snmp", "refused"),
    [
        (0o644, "{community: hidden}", "snmp.community"),
        (0o604, "{version: 3, user: me, auth_passphrase: hidden1234}", "snmp.auth_passphrase"),
        (0o640, "{community: hidden}", ""),
        (0o644, "{community: public}", ""),
        (0o644, "{community: 'file:/etc/distbal/community'}", ""),
        (0o644, "true", ""),
    ],
)
def test_secrets_in_a_file_that_everybody_can_read_are_refused(tmp_path: Path, mode: int, snmp: str, refused: str) -> None:
    pytest.importorskip("pysnmp")
    file = tmp_path / "hosts.yaml"
    file.touch(mode)
    file.chmod(mode)
    text = f"hosts: [box/4]\nmonitors:\n  snmp: {snmp}\n"
    if not refused:
        assert load(tmp_path, text).warnings == []
        return
    said = wrong(tmp_path, text)
    assert said == [f":3: monitors.{refused}: {SAYS.format(refused)}"]
    assert "hidden" not in said[0]


def test_a_secret_of_one_host_is_refused_there_too(tmp_path: Path) -> None:
    pytest.importorskip("pysnmp")
    (tmp_path / "hosts.yaml").touch(0o644)
    (tmp_path / "hosts.yaml").chmod(0o644)
    said = wrong(tmp_path, HOSTS % ", monitors: {other: {kind: snmp, community: hidden}}")
    assert said == [f": {SAYS.format('other.community')}"]


@pytest.mark.parametrize("mode", [0o666, 0o602])
def test_a_file_that_everybody_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    """Whoever writes it can have programs run by the daemon (exec), and take every host away."""
    (tmp_path / "hosts.yaml").touch(mode)
    (tmp_path / "hosts.yaml").chmod(mode)
    assert wrong(tmp_path, "hosts: [box/4]\n") == [
        ": everybody may write this file, and so have distbal run any program: chmod o-w"
    ]


PLUGIN = """\
from twisted.plugin import IPlugin
from zope.interface import implementer
from distbal.interfaces import IHostMonitorFactory
from distbal.monitors.kit import MonitorKind

@implementer(IPlugin, IHostMonitorFactory)
class Dropped(MonitorKind):
    name = "dropped"
    description = "was dropped in"
    def monitor(self, target, options, surroundings):
        raise NotImplementedError

dropped = Dropped()
"""


def test_a_file_that_is_dropped_in_brings_a_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors
) -> None:
    plugins = tmp_path / "path" / "distbal" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "dropped.py").write_text(PLUGIN)
    (plugins / "halved.py").write_text("import no_such_library\n")
    (plugins / "leaving.py").write_text("import sys\nsys.exit(4)\n")
    monkeypatch.setattr("distbal.plugins.__path__", [*sys.modules["distbal.plugins"].__path__, str(plugins)])
    assert monitorconfig.kinds()["dropped"].description == "was dropped in"
    assert any("No module named 'no_such_library'" in line for line in monitorconfig.broken_plugins())
    assert "distbal/plugins/leaving.py cannot be imported: SystemExit: 4" in monitorconfig.broken_plugins()
    said = wrong(tmp_path, HOSTS % "" + "monitors: {halved: true}\n")
    # Twisted logs it too, each time that it looks
    assert logged_errors.flush()
    assert "distbal/plugins/halved.py cannot be imported: No module named 'no_such_library'" in said[0]
    for name in ("dropped", "halved", "leaving"):
        sys.modules.pop(f"distbal.plugins.{name}", None)


WRONG = """\
from twisted.plugin import IPlugin
from zope.interface import implementer
from distbal.interfaces import IHostMonitorFactory
from distbal.monitors.kit import MonitorKind

@implementer(IPlugin, IHostMonitorFactory)
class Wrong(MonitorKind):
    description = "is not as it should be"
    def monitor(self, target, options, surroundings):
        raise NotImplementedError
{}
wrong = Wrong()
"""


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("", "name"),
        ("    name = 3", "its name is no text"),
        ("    name = 'tcp'", "its name, tcp, is that of another in distbal.monitors.tcp"),
        ("    name = 'wrong'; options = dict", "its options are no subclass of MonitorOptions"),
        ("    name = 'wrong'; most_at_once = 0", "most_at_once is no whole number of 1 or more"),
        ("    name = 'wrong'; least_interval = None", "least_interval is no number of seconds"),
        (
            "    name = 'wrong'; why_unavailable = lambda self: 1 / 0",
            "why_unavailable() raises ZeroDivisionError: division by zero",
        ),
        ("    name = 'wrong'; why_unavailable = lambda self: None", "why_unavailable() returns no text"),
    ],
)
def test_a_kind_that_breaks_its_contract_is_not_there_and_harms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, said: str
) -> None:
    plugins = tmp_path / "distbal" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "wrong.py").write_text(WRONG.format(lines))
    monkeypatch.setattr("distbal.plugins.__path__", [str(plugins), *sys.modules["distbal.plugins"].__path__])
    try:
        assert list(assigned(tmp_path, "{tcp: true}")) == [("box", "tcp"), ("old", "tcp")]
        assert monitorconfig.kinds()["tcp"].description == "does distccd's port take connections?"
        (told,) = monitorconfig.broken_plugins()
        assert told.startswith("the kind Wrong in distbal.plugins.wrong cannot be used: ")
        assert said in told
        assert told in wrong(tmp_path, HOSTS % "" + "monitors: {wrong: true}\n")[0]
    finally:
        sys.modules.pop("distbal.plugins.wrong", None)


def test_the_summary_counts() -> None:
    assert monitorconfig.summary([]) == ""
