"""Completion: what may stand next, and bash, zsh and fish that ask for it when somebody presses Tab."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from distbal.adminclient import NoDaemonError
from distbal.cli import COMMANDS, main
from distbal.completion import FILES, SHELLS, candidates
from distbal.verbs import VERBS
from tests.adminserver import serving
from tests.reports import NOW, client, host
from tests.support import PATIENCE, ROOT, need

FARM: dict[str, dict[str, Any]] = {
    "hosts": {"hosts": [host("snookles:3632", clients=[client()]), host("newbb:3632", "drain", why="fan broken")]},
    "queue": {"waiters": [client("10.0.0.12"), client("10.0.0.9"), client("", 0)]},
    "jobs": {
        "jobs": [{"id": 17, "address": "10.0.0.9", "port": 47, "attempts": [{"host": "newbb", "seconds": 3.0}]}],
        "at": NOW,
    },
}
HOSTS = ["snookles:3632", "newbb:3632"]


def ask(words: Sequence[str]) -> dict[str, Any]:
    return FARM[words[0]]


def words_after(line: str, current: str = "") -> list[str]:
    return [word for word, _ in candidates(line.split(), current, ask)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("hosts", HOSTS),
        ("hosts newbb:3632", ["snookles:3632"]),
        ("show", HOSTS),
        ("show newbb:3632", []),
        ("drain", HOSTS),
        ("drain newbb:3632 fan", []),
        ("drain --json", HOSTS),
        ("drain --socket /s", HOSTS),
        ("drain --", HOSTS),
        ("drain --socket", [FILES]),
        ("slots newbb:3632", ["file"]),
        ("weight newbb:3632", ["none"]),
        ("rank", HOSTS),
        ("rank newbb:3632", ["before", "with", "after"]),
        ("rank newbb:3632 before", ["snookles:3632"]),
        ("rank newbb:3632 before snookles:3632", []),
        ("add", []),
        ("add spare", []),
        ("add spare 8", ["before", "with", "after", "pools", "address"]),
        ("add spare 8 after", HOSTS),
        ("add spare 8 after newbb:3632", ["pools", "address"]),
        ("add spare 8 pools", []),
        ("add spare 8 pools arm", ["before", "with", "after", "address"]),
        ("add spare 8 nonsense x", []),
        ("remove newbb:3632", ["now"]),
        ("remove newbb:3632 now", []),
        ("kick", ["10.0.0.9", "10.0.0.12"]),
        ("why", ["17"]),
        ("log", ["warn", "info", "debug"]),
        ("jobs", []),
        ("reload", []),
        ("status", []),
        ("completion", ["bash", "zsh", "fish"]),
        ("completion zsh", []),
        ("check a.yaml", [FILES]),
        ("probe", [FILES]),
        ("probe a.yaml", HOSTS),
        ("nonsense", []),
    ],
)
def test_what_may_stand_next(line: str, expected: list[str]) -> None:
    assert words_after(line) == expected


def test_commands_and_options() -> None:
    assert set(words_after("")) == set(COMMANDS) | set(VERBS)
    assert words_after("", "-") == ["--help", "--version"]
    assert words_after("drain", "--") == ["--json", "--socket", "--help", "--"]
    assert words_after("status", "-") == ["--socket", "--json", "--help"]
    assert words_after("probe", "-") == ["--monitor", "--json", "--help"]
    assert words_after("nonsense", "-") == []


def test_meanings() -> None:
    assert dict(candidates(["drain"], "", ask)) == {
        "snookles:3632": "ready, 0 of 4 lent",
        "newbb:3632": "drain, 0 of 4 lent: fan broken",
    }
    assert list(candidates(["why"], "", ask)) == [("17", "10.0.0.9:47 on newbb, 3.0s")]


def test_where_nobody_answers_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DISTBAL_ADMIN", str(tmp_path / "none"))
    assert main(["__complete", "drain", ""]) == 0
    assert main(["__complete", "rank", "newbb", "b"]) == 0
    assert capsys.readouterr() == ("before\t\n", "")

    def refuse(words: Sequence[str]) -> dict[str, Any]:
        raise NoDaemonError(words[0])

    assert list(candidates(["drain"], "", refuse)) == []


def test_words_that_the_shell_has_not_finished(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["__complete", '"dr']) == 0
    assert main(["__complete", "\\h"]) == 0
    assert main(["__complete"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("\t")[0] for line in lines[:3]] == ["drain", "hosts", "history"]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_scripts_are_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    said = capsys.readouterr().out
    assert said == (ROOT / "distbal" / "completions" / f"distbal.{shell}").read_text()
    assert "__complete" in said


# -- real shells --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("admin") / "s") as path:
        yield path


@pytest.fixture
def environment(farm: str, tmp_path: Path) -> dict[str, str]:
    """A home with nothing in it but a distbal on the PATH, and files to complete."""
    programs = tmp_path / "bin"
    programs.mkdir()
    script = programs / "distbal"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m distbal "$@"\n')
    script.chmod(0o755)
    (tmp_path / "farm-hosts.yaml").touch()
    return {
        "PATH": f"{programs}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "DISTBAL_ADMIN": farm,
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
    }


class Typist:
    """Somebody who types in a shell, and reads what is on the screen."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal

    def types(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def sees(self, text: str) -> str:
        """Wait for it; all that came until then."""
        seen = ""
        deadline = time.monotonic() + 2 * PATIENCE
        while text not in seen:
            ready, _, _ = select.select([self._terminal], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{text!r} did not come, but {seen!r}"
            seen += os.read(self._terminal, 65536).decode(errors="replace")
        return seen


@contextmanager
def typing(environment: dict[str, str], *command: str) -> Iterator[Typist]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        cwd=environment["HOME"],
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Typist(ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.programs
@pytest.mark.parametrize("way", ["bash", "zsh", "zsh-fpath"])
def test_somebody_presses_tab(way: str, environment: dict[str, str]) -> None:
    """As by ``source``, and from a directory where zsh looks, as `make install` leaves it."""
    shell = way.partition("-")[0]
    need(shell)
    home = Path(environment["HOME"])
    shutil.copy(ROOT / "distbal" / "completions" / "distbal.zsh", home / "_distbal")
    start = {"bash": ["--norc", "--noprofile", "-i"], "zsh": ["-f", "-i"]}[shell]
    compinit = "autoload -Uz compinit && compinit -u -d ~/dump; unset zle_bracketed_paste; PS1='> '"
    setting_up = {
        "bash": "bind 'set enable-bracketed-paste off'; PS1='> '; source <(distbal completion bash)",
        "zsh": f"{compinit}; source <(distbal completion zsh)",
        "zsh-fpath": f"fpath=(~ $fpath); {compinit}",
    }[way]
    with typing(environment, shutil.which(shell) or shell, *start) as typist:
        typist.types(f"{setting_up}; echo is-$((40 + 2))\n")
        typist.sees("is-42")
        # a command, a host with its colon, and the middle of one behind the colon
        for begun, whole in (
            ("dra", "drain "),
            ("show snoo", "show snookles:3632 "),
            ("show snookles:3", "show snookles:3632 "),
            ("rank newbb:3632 bef", "rank newbb:3632 before "),
            ("check farm-h", "check farm-hosts.yaml "),
        ):
            typist.types(f"distbal {begun}\t")
            typist.sees(whole)
            typist.types("\x15")  # the line is taken back


@pytest.mark.programs
def test_bash_offers_the_rest_of_what_has_a_bracket(environment: dict[str, str]) -> None:
    need("bash")
    for line, expected in (
        ("distbal show \\[fd00", ["\\[fd00::7\\]:3632"]),
        ("distbal show ", ["snookles:3632", "newbb:3632", "\\[fd00::7\\]:3632"]),
        ("distbal log ", ["warn", "info", "debug"]),
        ("distbal drain newbb:3632 ", []),
    ):
        program = (
            'source <(distbal completion bash); COMP_WORDBREAKS=" "; COMP_LINE=$1; COMP_POINT=${#1}; _distbal; '
            'for word in "${COMPREPLY[@]}"; do echo "$word"; done'
        )
        done = subprocess.run(
            ["bash", "-c", program, "bash", line], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stdout.splitlines() == expected


@pytest.mark.programs
def test_fish_shows_candidates_and_what_they_mean(environment: dict[str, str]) -> None:
    need("fish")

    def completes(line: str) -> list[str]:
        program = "distbal completion fish | source; complete -C $argv[1]"
        done = subprocess.run(
            ["fish", "--no-config", "-c", program, line],
            env=environment,
            cwd=environment["HOME"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout.splitlines()

    assert completes("distbal dra") == ["drain\tgive it no new jobs; the running ones end by themselves"]
    assert [line.split("\t")[0] for line in completes("distbal show ")] == ["snookles:3632", "newbb:3632", "[fd00::7]:3632"]
    assert completes("distbal show snookles:") == ["snookles:3632\tfull, 4 of 4 lent"]
    assert completes("distbal log w") == ["warn\tonly what goes wrong"]
    assert completes("distbal check farm") == ["farm-hosts.yaml"]
    assert completes("distbal reload ") == []
