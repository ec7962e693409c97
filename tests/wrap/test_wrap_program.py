"""distbal-wrap's command line: its own options, odd arguments, commands that cannot be run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import distbal
from tests.support import ROOT
from tests.wrap.support import Wrap

pytestmark = pytest.mark.programs


def test_its_version_is_the_packages(wrap: Wrap) -> None:
    """Built without -DDISTBAL_VERSION, as these tests' is, it states its own."""
    result = wrap.run("--version")
    assert (result.returncode, result.stdout) == (0, f"distbal-wrap {distbal.__version__}\n")


def test_one_command_line_builds_it(tmp_path: Path) -> None:
    """No configure, no flags; a packager may state the version."""
    built = tmp_path / "distbal-wrap"
    sources = sorted((ROOT / "distbal" / "wrap").glob("*.c"))
    done = subprocess.run(
        ["cc", "-O2", '-DDISTBAL_VERSION="9.9"', "-o", built, *sources], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert subprocess.run([built, "--version"], capture_output=True, text=True, check=True).stdout == "distbal-wrap 9.9\n"


def test_help_names_what_it_reads(wrap: Wrap) -> None:
    result = wrap.run("--help")
    assert result.returncode == 0
    for word in ("DISTBAL ", "DISTBAL_FALLBACK", "/etc/distbal/client", "hosts, local, wait or fail", "--explain"):
        assert word in result.stdout


def test_the_man_page_names_every_variable_and_status() -> None:
    page = (ROOT / "docs" / "man" / "distbal-wrap.1").read_text()
    sources = "".join(path.read_text() for path in (ROOT / "distbal" / "wrap").glob("*.c"))
    names = set(re.findall(r'"(_?DIST[A-Z_]+)"', sources))
    assert len(names) >= 8
    for name in names:
        assert name in page
    for status in ("64", "75", "126", "127"):
        assert f".It {status}\n" in page


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 64, "no command to run; for example: distbal-wrap distcc gcc -c x.c -o x.o"),
        (["--"], 64, "no command to run; for example: distbal-wrap distcc gcc -c x.c -o x.o"),
        (["--explain"], 64, "no command to run; for example: distbal-wrap distcc gcc -c x.c -o x.o"),
        (["--explian", "true"], 64, "unknown option --explian; distbal-wrap --help names them"),
        (["-c", "x.c"], 64, "unknown option -c; distbal-wrap --help names them"),
        ([""], 127, '"": command not found'),
        (["no-such-command"], 127, "no-such-command: command not found"),
        (["/no/such/command"], 127, "/no/such/command: No such file or directory"),
        (["/etc/passwd"], 126, "/etc/passwd: Permission denied"),
        (["/"], 126, "/: Permission denied"),
    ],
)
def test_what_cannot_be_run_is_said(wrap: Wrap, arguments: list[str], status: int, said: str) -> None:
    result = wrap.run(*arguments)
    assert (result.returncode, result.stdout, result.stderr) == (status, "", f"distbal-wrap: {said}\n")


def test_a_directory_of_path_that_may_not_be_searched_is_passed_over(wrap: Wrap) -> None:
    """As in the shell: a command that is nowhere is not found, one that may not be run is denied."""
    (wrap.directory / "bin").mkdir()
    (wrap.directory / "bin" / "there").write_text("")
    (wrap.directory / "locked").mkdir(mode=0)
    path = f"/etc/passwd:{wrap.directory}/locked:{wrap.directory}/bin"
    for command, status, said in (("nowhere", 127, "command not found"), ("there", 126, "Permission denied")):
        result = wrap.run(command, env={"PATH": path})
        assert (result.returncode, result.stderr) == (status, f"distbal-wrap: {command}: {said}\n")


def test_two_dashes_end_the_options(wrap: Wrap) -> None:
    result = wrap.run("--", "--explain")
    assert (result.returncode, result.stderr) == (127, "distbal-wrap: --explain: command not found\n")


def test_arguments_pass_unchanged(wrap: Wrap) -> None:
    odd = ["", " ", "a b", "*", "$HOME", "@file", "-Wp,-MD,x", "\n", "\\", "'", "b\udcff", "x" * 100_000]
    show = "import os, sys; sys.stdout.buffer.write(b'\\0'.join(map(os.fsencode, sys.argv[1:])))"
    result = subprocess.run([wrap.program, sys.executable, "-c", show, *odd], env=wrap.env, stdout=subprocess.PIPE, check=True)
    assert result.stdout.split(b"\0") == [os.fsencode(word) for word in odd]


def test_a_script_without_a_first_line_runs_as_in_the_shell(wrap: Wrap) -> None:
    script = wrap.directory / "script"
    script.write_text("echo ran\n")
    script.chmod(0o755)
    assert wrap.run(script).stdout == "ran\n"


def test_an_empty_name_of_its_own(wrap: Wrap) -> None:
    for name in ("", "/"):
        # a session of its own keeps Python 3.13 from posix_spawn, which it lets start nothing whose name is empty
        result = subprocess.run(
            [name],
            executable=wrap.program,
            env=wrap.env,
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
        )
        assert (result.returncode, result.stderr.count("no command to run")) == (64, 1)


def test_stdout_that_is_full_is_no_success(wrap: Wrap) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with Path("/dev/full").open("w") as full:
        assert subprocess.run([wrap.program, "--help"], stdout=full, env=wrap.env, check=False).returncode == 1
