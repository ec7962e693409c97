"""The kind exec: what programs say is understood as Nagios understands it, and none of them outlives its check."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, ensureDeferred
from twisted.internet.task import deferLater

from distbal.errors import MonitorTrouble
from distbal.interfaces import Reading, Target
from distbal.monitors.exec import ExecKind, ExecMonitor, ExecOptions, facts, first_line, judged
from distbal.monitors.programs import MOST_ERRORS, MOST_OUTPUT, PATH, Ended, Program, why_none_can_run
from distbal.monitors.readings import MOST_FACTS, validate_reading
from distbal.testing import surroundings
from tests.services import taken_port, until
from tests.support import descriptors_left, free_port, need

TARGET = Target("alpha:3632", "127.0.0.1", 3632)
PLUGINS = "/usr/lib/nagios/plugins/"


def command(value: object) -> tuple[str, ...]:
    return ExecOptions.model_validate({"command": value}).command


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (["/bin/check", "-w", "10%", ""], ("/bin/check", "-w", "10%", "")),
        ("check_disk -w '10 %' -p /", ("check_disk", "-w", "10 %", "-p", "/")),
        ("check_tcp -H {host} -p {port} {{}} {name}", ("check_tcp", "-H", "{host}", "-p", "{port}", "{{}}", "{name}")),
    ],
)
def test_commands(value: object, words: tuple[str, ...]) -> None:
    assert command(value) == words


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "the command is empty"),
        ([], "the command is empty"),
        (["", "x"], "the command is empty"),
        (7, "7 is no command: a list of words is wanted"),
        ("a 'b", "cannot be split into words: No closing quotation"),
        (["check_tcp", "-p", 3632], '3632 is no text; in quotes, "3632", it is one'),
        (["check", ["x"]], "a list is no text: a command is a list of texts"),
        ("bin/check", '"bin/check" depends on a directory: write the whole path, or the name alone of a program in /usr/local'),
        ("check {nmae}", '"{nmae}" in "{nmae}" is none of {name}, {host}, {port}; a brace itself is written twice'),
        ("check {", '"{" in "{" is none of'),
        ("check }x", '"}" in "}x" is none of'),
        ("check {host!r}", '"{host!r}" in "{host!r}" is none of'),
        (["check", "a\0b"], "has characters that no argument may have"),
        (["check", "\ud800"], "has characters that no argument may have"),
    ],
)
def test_commands_that_are_none(value: object, said: str) -> None:
    with pytest.raises(ValidationError) as wrong:
        command(value)
    assert said in wrong.value.errors()[0]["msg"]


def test_the_command_has_to_be_there() -> None:
    with pytest.raises(ValidationError, match="command"):
        ExecOptions.model_validate({})


@pytest.mark.parametrize(
    ("text", "figures"),
    [
        ("", {}),
        ("load1=0.010;5.000;4.000;0; load5=1;;", {"load1": 0.01, "load5": 1}),
        ("'C:\\ it''s free'=12%;; /=123MB;1;2;0;3", {"C:\\ it's free": "12%", "/": "123MB"}),
        ("time=0.000021s;;;0.000000;10.000000", {"time": "0.000021s"}),
        ("requests=7c  errors=-3", {"requests": 7, "errors": -3}),
        ("unknown=U bad =3 x= y=z nan=nan a=1", {"a": 1}),
        ("'=1 ''=2 b=2", {"b": 2}),
        ("big=1e400 long=1234567890123456789012", {"big": "1e400", "long": 1234567890123456789012.0}),
    ],
)
def test_figures(text: str, figures: dict[str, Any]) -> None:
    assert facts(text) == figures


@given(st.text(max_size=200) | st.text("'= ;.1aU%e", max_size=200))
def test_any_text_is_figures_or_none(text: str) -> None:
    assert validate_reading(Reading(up=True, facts=facts(text))) == []


def test_only_so_many_figures() -> None:
    assert len(facts(" ".join(f"x{number}={number}" for number in range(1000)))) == MOST_FACTS


@pytest.mark.parametrize("text", ["a" * MOST_OUTPUT, "'" * MOST_OUTPUT, "'a''" * 1024, "=" * MOST_OUTPUT, "1=1;" * 1024])
def test_figures_that_are_made_to_take_long(text: str) -> None:
    assert len(facts(text)) <= 1


@pytest.mark.parametrize(
    ("output", "errors", "line", "figures"),
    [
        (b"DISK OK - free: / 9 MB (3%)|/=9MB;;\nmore | x=1\n", b"", "DISK OK - free: / 9 MB (3%)", "/=9MB;;"),
        (b"\n\nlate\n", b"", "late", ""),
        (b"", b"Traceback\nmore", "Traceback", ""),
        (b"|a=1", b"not this", "", "a=1"),
        (b"\xff\x1b[31mred\n", b"", "\ufffd?[31mred", ""),
        (b"x" * 500, b"", "x" * 157 + "...", ""),
        (b"ok|" + b"a=1 " * 1023 + b"b", b"", "ok", "a=1 " * 1022 + "a=1"),
    ],
)
def test_what_is_read_of_an_output(output: bytes, errors: bytes, line: str, figures: str) -> None:
    assert first_line(Ended(0, output, errors)) == (line, figures)


@pytest.mark.parametrize(
    ("status", "weight", "reading"),
    [
        (0, 0.5, Reading(up=True, reason="is fine: said|"[:-1])),
        (1, 1.0, Reading(up=True, reason="is at a warning: said")),
        (1, 0.5, Reading(up=True, reason="is at a warning: said", weight=0.5)),
        (2, 0.5, Reading(up=False, reason="is critical: said")),
    ],
)
def test_the_verdicts(status: int, weight: float, reading: Reading) -> None:
    assert judged("check", Ended(status, b"said\n", b""), weight) == reading


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (3, "cannot be judged by check: said"),
        (4, "cannot be judged: check ended with 4: said"),
        (255, "cannot be judged: check ended with 255: said"),
        (-11, "cannot be judged: check was ended by SIGSEGV: said"),
        (-40, "cannot be judged: check was ended by signal 40: said"),
    ],
)
def test_what_says_nothing_of_the_host(status: int, said: str) -> None:
    with pytest.raises(MonitorTrouble) as trouble:
        judged("check", Ended(status, b"said\n", b""), 1.0)
    assert str(trouble.value) == said


def test_programs_can_run_here() -> None:
    assert why_none_can_run() == ""
    assert ExecKind().why_unavailable() == ""


# -- real programs


def script(directory: Path, text: str, first: str = "#!/bin/sh") -> str:
    path = directory / "check_it"
    path.write_text(f"{first}\n{text}\n")
    path.chmod(0o755)
    return str(path)


def monitor(*words: str, target: Target = TARGET, **options: Any) -> ExecMonitor:
    made = ExecOptions.model_validate({"command": list(words)} | options)
    return ExecKind().monitor(target, made, surroundings(reactor, target))


async def answer(*words: str, target: Target = TARGET, **options: Any) -> Reading:
    one = monitor(*words, target=target, **options)
    try:
        reading = await one.check()
    finally:
        await stopped(one)
    assert validate_reading(reading) == []
    return reading


async def trouble(*words: str) -> str:
    with pytest.raises(MonitorTrouble) as found:
        await answer(*words)
    return str(found.value)


async def stopped(one: ExecMonitor) -> None:
    waiting = one.stop()
    if waiting is not None:
        await waiting


def is_running(pid: int) -> bool:
    """Whether it is more than a zombie that somebody else has to reap."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.usefixtures("descriptors_stay")
@pytest_twisted.ensureDeferred
async def test_a_script(tmp_path: Path) -> None:
    path = script(tmp_path, 'echo "IT WARNING - $*|temp=40.5;50 fan=3c"; exit 1')
    reading = await answer(path, "{name}", "{host}:{port}", "{{x}}", "a b", warning_weight=0.25)
    facts = {"temp": 40.5, "fan": 3}
    said = "is at a warning: IT WARNING - alpha:3632 127.0.0.1:3632 {x} a b"
    assert reading == Reading(up=True, reason=said, weight=0.25, facts=facts)


@pytest_twisted.ensureDeferred
async def test_no_shell_runs(tmp_path: Path) -> None:
    path = script(tmp_path, 'echo "$*"')
    assert (await answer(path, "$(id)", ";", "*", "`id`")).reason == "is fine: $(id) ; * `id`"


@pytest_twisted.ensureDeferred
async def test_its_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("HOME", "/home/alpha")
    path = script(tmp_path, 'read line; echo "$PATH $LC_ALL $HOME $SECRET<$line>"; pwd; ulimit -n')
    assert (await answer(path)).reason.endswith(f"{PATH[-20:]} C /home/alpha <>")
    path = script(tmp_path, "ls -l /proc/self/fd | grep -c -- '->'")
    # its three, and the directory that ls reads
    assert (await answer(path)).reason == "is fine: 4"


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_run(tmp_path: Path) -> None:
    assert await trouble("/nowhere/check") == "cannot be judged: check cannot be run: No such file or directory"
    assert await trouble("check_of_nothing") == f"cannot be judged: check_of_nothing cannot be run: there is none in {PATH}"
    path = script(tmp_path, "", "#!/nowhere/sh")
    said = "it is there, but not the interpreter that its first line names"
    assert await trouble(path) == f"cannot be judged: check_it cannot be run: {said}"
    path = script(tmp_path, "", "no line that names any")
    assert await trouble(path) == "cannot be judged: check_it cannot be run: Exec format error"
    assert await trouble(str(tmp_path)) == f"cannot be judged: {tmp_path.name} cannot be run: Permission denied"
    os.chmod(path, 0o644)  # noqa: PTH101 (an async def is to know no Path)
    assert await trouble(path) == "cannot be judged: check_it cannot be run: Permission denied"


@pytest.mark.parametrize("left", range(8))
@pytest_twisted.ensureDeferred
async def test_without_descriptors(left: int) -> None:
    gc.collect()
    with descriptors_left(left):
        if left < 6:
            assert (await trouble("true")).startswith("cannot be judged: true cannot be run: ")
    assert (await answer("true")).up


@pytest_twisted.ensureDeferred
async def test_one_that_is_killed(tmp_path: Path) -> None:
    path = script(tmp_path, "echo bye; kill -SEGV $$")
    assert await trouble(path) == "cannot be judged: check_it was ended by SIGSEGV: bye"


@pytest_twisted.ensureDeferred
async def test_a_megabyte_is_fine(tmp_path: Path) -> None:
    path = script(tmp_path, "echo 'first|a=1'; head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2; exit 2")
    assert await answer(path) == Reading(up=False, reason="is critical: first", facts={"a": 1})


@pytest_twisted.ensureDeferred
async def test_no_more_is_kept_than_is_wanted() -> None:
    program = Program(reactor, ["sh", "-c", "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2"])
    ended = await program.outcome
    assert (ended.status, len(ended.output), len(ended.errors)) == (0, MOST_OUTPUT, MOST_ERRORS)


#: leads a process group of its own, once it has written this file
OWN_GROUP = "timeout 1000 sh -c 'echo x >{file}; sleep 1000' & until [ -s {file} ]; do sleep 0.01; done"


@pytest.mark.parametrize("text", ["sleep 1000 &", OWN_GROUP])
@pytest_twisted.ensureDeferred
async def test_its_children_hold_nothing_up_and_end_with_it(tmp_path: Path, text: str) -> None:
    path = script(tmp_path, text.format(file=tmp_path / "there") + '\necho "$!"')
    child = int((await answer(path)).reason.removeprefix("is fine: "))
    await until(lambda: not is_running(child), "the end of the child")


@pytest_twisted.ensureDeferred
async def test_a_child_that_floods_on_holds_nothing_up(tmp_path: Path) -> None:
    path = script(tmp_path, "echo said; yes & exit 0")
    assert (await answer(path)).reason == "is fine: said"


@pytest.mark.usefixtures("descriptors_stay")
@pytest.mark.parametrize(
    "text",
    [
        "sleep 1000 & echo $! $$ >{file}; wait",
        "trap '' TERM; yes & echo $! $$ >{file}; yes >&2",
        OWN_GROUP.replace("{file}", "{file}.there") + "; echo $! $$ >{file}; wait",
    ],
)
@pytest_twisted.ensureDeferred
async def test_cancelled_all_of_it_is_killed(tmp_path: Path, text: str) -> None:
    file = tmp_path / "pids"
    one = monitor(script(tmp_path, text.format(file=file)))
    check = ensureDeferred(one.check())
    await until(lambda: file.exists() and file.read_text().endswith("\n"), "the script's children")
    await deferLater(reactor, 0.01)
    check.cancel()
    with pytest.raises(CancelledError):
        await check
    await stopped(one)
    for pid in map(int, file.read_text().split()):
        await until(lambda pid=pid: not is_running(pid), "the end of a process")  # type: ignore[misc]


@pytest.mark.usefixtures("descriptors_stay")
@pytest_twisted.ensureDeferred
async def test_cancelled_at_once() -> None:
    one = monitor("sleep", "1000")
    for _ in range(5):
        check = ensureDeferred(one.check())
        check.cancel()
        with pytest.raises(CancelledError):
            await check
        await stopped(one)


@pytest_twisted.ensureDeferred
async def test_one_that_cannot_be_killed_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the kernel holds it; here, the signal is lost."""
    one = monitor("sleep", "1000")
    check = ensureDeferred(one.check())
    killed: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", lambda group, _: killed.append(group))
        check.cancel()
        with pytest.raises(CancelledError):
            await check
    with pytest.raises(MonitorTrouble, match=r"^cannot be judged: the last sleep was killed, and has still not ended$"):
        await one.check()
    os.killpg(killed[0], 9)
    await stopped(one)
    assert one.stop() is None


# -- the checks of Debian's package


@pytest.mark.programs
@pytest_twisted.ensureDeferred
async def test_check_dummy() -> None:
    need(PLUGINS + "check_dummy")
    assert await answer("check_dummy", "0", "{name}") == Reading(up=True, reason="is fine: OK: alpha:3632")
    assert (await answer("check_dummy", "1", warning_weight=0)).weight == 0.0
    assert not (await answer("check_dummy", "2")).up
    assert await trouble("check_dummy", "3", "who knows") == "cannot be judged by check_dummy: UNKNOWN: who knows"


@pytest.mark.programs
@pytest_twisted.ensureDeferred
async def test_check_tcp() -> None:
    need(PLUGINS + "check_tcp")
    words = PLUGINS + "check_tcp", "-H", "{host}", "-p", "{port}"
    with taken_port() as port:
        reading = await answer(*words, target=Target("alpha", "127.0.0.1", port))
    assert reading.up
    assert reading.reason.startswith("is fine: TCP OK - ")
    assert str(reading.facts["time"]).endswith("s")
    reading = await answer(*words, target=Target("alpha", "127.0.0.1", free_port()))
    assert not reading.up
    assert "refused" in reading.reason


@pytest.mark.programs
@pytest_twisted.ensureDeferred
async def test_check_load_and_check_disk() -> None:
    need(PLUGINS + "check_load", PLUGINS + "check_disk")
    reading = await answer("check_load", "-w", "0,0,0", "-c", "9999,9999,9999", warning_weight=0.5)
    assert reading.up
    assert isinstance(reading.facts["load1"], float)
    reading = await answer("check_disk", "-w", "0", "-c", "0", "-p", "/")
    assert reading.up
    assert str(reading.facts["/"]).endswith("B")
