"""distbal-wrap under another name: a directory of links named gcc, g++ ... at the front of PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.wrap.support import PATIENCE, Balancer, Wrap

pytestmark = pytest.mark.programs

TELL = """#!/bin/sh
echo "$(basename "$0") $*"
echo "PATH=$PATH"
echo "hosts=${DISTCC_HOSTS-unset} mark=${DISTBAL_WRAPPED-unset} pid=$$"
"""


@pytest.fixture
def tools(wrap: Wrap) -> Path:
    """A directory with a distcc and a gcc that tell how they were called."""
    directory = wrap.directory / "tools"
    directory.mkdir()
    for name in ("distcc", "gcc"):
        (directory / name).write_text(TELL)
        (directory / name).chmod(0o755)
    return directory


def masquerade(wrap: Wrap, name: str, *tools: str) -> Path:
    """A masquerade directory for these tools."""
    directory = wrap.directory / name
    directory.mkdir()
    for tool in tools:
        (directory / tool).symlink_to(wrap.program)
    return directory


def path(*entries: Path | str) -> str:
    """These, and what a shell script needs."""
    return ":".join(map(str, (*entries, "/usr/bin", "/bin")))


def granted(wrap: Wrap, balancer: Balancer, program: Path | str, arguments: list[str], where: str) -> tuple[int, list[str]]:
    """Run a compile as ``program``; its process id and what it told."""
    process = wrap.start(arguments, program=program, env={"PATH": where})
    balancer.grant()
    out, err = process.communicate(timeout=PATIENCE)
    assert err == ""
    return process.pid, out.splitlines()


@pytest.mark.parametrize("called", ["found", "by its path"])
def test_gcc_becomes_distcc_gcc(
    wrap: Wrap, balancer: Balancer, tools: Path, called: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = masquerade(wrap, "links", "gcc")
    if called == "found":
        # the program itself is looked for on this process's PATH
        monkeypatch.setenv("PATH", path(links, tools))
    program = "gcc" if called == "found" else links / "gcc"
    pid, told = granted(wrap, balancer, program, ["-c", "x.c", "-DX=a b"], path(links, tools))
    assert told[0] == "distcc gcc -c x.c -DX=a b"
    assert told[1] == f"PATH={path(tools)}"
    assert told[2].endswith(f"box:3632/100 mark={pid} pid={pid}")


def test_every_directory_where_it_would_find_itself_leaves_path(wrap: Wrap, balancer: Balancer, tools: Path) -> None:
    """However the directory is spelt, and whatever else leads to this program under that name; others stay, in their order."""
    links = masquerade(wrap, "links", "gcc")
    (wrap.directory / "alias").symlink_to(links)
    again = masquerade(wrap, "again", "gcc", "cc")
    harmless = masquerade(wrap, "harmless", "g++")
    bare = wrap.directory / "bare"
    bare.mkdir()
    everything = path(f"{links}/", wrap.directory / "alias", bare, f"{links}/../links", again, harmless, "/nowhere", tools, "")
    _, told = granted(wrap, balancer, links / "gcc", ["-c", "x.c"], everything)
    assert told[1] == f"PATH={path(bare, harmless, '/nowhere', tools, '')}"


def test_its_directory_leaves_path_even_when_the_file_was_replaced(wrap: Wrap, balancer: Balancer, tools: Path) -> None:
    """As by an upgrade in the middle of a build: what stands there now is another file than the one that runs."""
    links = wrap.directory / "links"
    links.mkdir()
    shutil.copy(wrap.program, links / "gcc")
    process = subprocess.Popen(
        [links / "gcc", "-c", "x.c"],
        executable=wrap.program,
        env={**wrap.env, "PATH": path(links, tools)},
        stdout=subprocess.PIPE,
        text=True,
    )
    balancer.grant()
    assert process.communicate(timeout=PATIENCE)[0].splitlines()[1] == f"PATH={path(tools)}"


def test_a_path_of_nothing_else_becomes_the_systems(wrap: Wrap) -> None:
    """And not an empty one, which would mean the working directory."""
    links = masquerade(wrap, "links", "env")
    result = wrap.run(program=links / "env", env={"PATH": str(links), "_DISTCC_SAFEGUARD": "1"})
    assert result.returncode == 0
    assert f"HOME={wrap.directory}" in result.stdout.splitlines()
    assert not [line for line in result.stdout.splitlines() if line.startswith("PATH=")]


def test_links_and_probes_ask_nobody(wrap: Wrap, balancer: Balancer, tools: Path) -> None:
    links = masquerade(wrap, "links", "gcc")
    for arguments in (["x.o", "-o", "x"], ["--version"], ["-E", "x.c"], ["-c", "conftest.c"]):
        told = wrap.run(*arguments, program=links / "gcc", env={"PATH": path(links, tools)}).stdout.splitlines()
        assert told[0] == " ".join(["distcc gcc", *arguments])
        mark, process = (word.partition("=")[2] for word in told[2].split()[1:])
        assert told[2].startswith("hosts=unset ")
        assert mark == process
    assert not balancer.asked()


def test_as_distcc_itself(wrap: Wrap, balancer: Balancer, tools: Path) -> None:
    """A link named distcc serves whatever calls distcc by name (CCACHE_PREFIX, say)."""
    links = masquerade(wrap, "links", "distcc")
    pid, told = granted(wrap, balancer, links / "distcc", ["gcc", "-c", "x.c"], path(links, tools))
    assert told[0] == "distcc gcc -c x.c"
    assert told[2].endswith(f"box:3632/100 mark={pid} pid={pid}")


def test_one_that_finds_itself_again_does_not_ask_twice(wrap: Wrap, balancer: Balancer, tools: Path) -> None:
    """A second copy of the program is not seen to be the same; by its mark it knows all the same, and calls the compiler."""
    links = masquerade(wrap, "links", "gcc")
    copies = wrap.directory / "copies"
    copies.mkdir()
    shutil.copy(wrap.program, copies / "gcc")
    (tools / "distcc").write_text('#!/bin/sh\n"$@"\n')  # its local fallback
    pid, told = granted(wrap, balancer, links / "gcc", ["-c", "x.c"], path(links, copies, tools))
    assert told[0] == "gcc -c x.c"
    assert told[1] == f"PATH={path(tools)}"
    assert f"box:3632/100 mark={pid} " in told[2]
    assert not balancer.asked()


@pytest.mark.parametrize("inner", ["distbal-wrap", "gcc"])
def test_a_mark_is_void_when_its_process_is_gone(wrap: Wrap, balancer: Balancer, tools: Path, inner: str) -> None:
    """A compile server that was started by a compile asks for those that it runs later."""
    links = masquerade(wrap, "links", "gcc", "distbal-wrap")
    gone = subprocess.Popen(["true"])
    gone.wait()
    arguments = ["-c", "x.c"] if inner == "gcc" else ["distcc", "gcc", "-c", "x.c"]
    for mark in (str(gone.pid), "0", "-1", "", "nonsense", "99999999999999999999"):
        process = wrap.start(arguments, program=links / inner, env={"PATH": path(links, tools), "DISTBAL_WRAPPED": mark})
        balancer.grant()
        out, _ = process.communicate(timeout=PATIENCE)
        assert out.startswith("distcc gcc -c x.c\n")
        assert f"mark={process.pid} " in out
    alive = {"PATH": path(links, tools), "DISTBAL_WRAPPED": str(os.getpid())}
    assert wrap.run(*arguments, program=links / inner, env=alive).stdout.splitlines()[2].startswith("hosts=unset mark=")
    assert not balancer.asked()


def test_the_compiler_that_is_missing_is_named(wrap: Wrap, tools: Path) -> None:
    links = masquerade(wrap, "links", "no-such-gcc")
    result = wrap.run("-c", "x.c", program=links / "no-such-gcc", env={"PATH": path(links), "_DISTCC_SAFEGUARD": "1"})
    assert (result.returncode, result.stderr) == (127, "distbal-wrap: no-such-gcc: command not found\n")
