"""What distbal-wrap asks no lease for, side by side with what distcc really runs on its own machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import need
from tests.wrap.support import PATIENCE, Balancer, Wrap

pytestmark = pytest.mark.programs

REMOTE = [
    "cc -c x.c",
    "cc -c x.c -o x.o",
    "cc -c x.c -ox.o",
    "cc -o x.o -c x.c",
    "cc -S x.c",
    "cc -S x.c -o x.s",
    "cc -c -S x.c",
    "cc -c -c x.c",
    "cc x.c -c",
    "cc -c dir.d/x.cc",
    "cc -c /abs/x.cpp -O2 -g -Wall -DX=1 -Iinclude -isystem /usr/include -fPIC -pthread",
    "cc -c x.cxx",
    "cc -c x.c++",
    "cc -c x.cp",
    "cc -c x.C",
    "cc -c x.m",
    "cc -c x.mm",
    "cc -c x.M",
    "cc -c x.i",
    "cc -c x.ii",
    "cc -c x.mi",
    "cc -c x.mii",
    "cc -MD -c x.c",
    "cc -MMD -MP -MG -c x.c",
    "cc -MD -MF x.d -c x.c",
    "cc -MD -MFx.d -MTx.o -MQx.o -c x.c",
    "cc -MD -MT x.o -MF x.d -c x.c -o x.o",
    "cc -MD -MF -E -c x.c",
    "cc -MT other.c -c x.c",
    "cc -Wp,-MD,x.d -c x.c",
    "cc -Wp,-MMD,.x.o.d -c x.c -o x.o",
    "cc -Wp,-DX=1,-UY -c x.c",
    "cc -Wp,-MD -c x.c",
    "cc -Wp,-MD,y.c -c x.c",
    "cc -Wa,--noexecstack -c x.c",
    "cc -Wa,-march=armv7 -c x.c",
    "cc -march=x86-64 -mtune=generic -c x.c",
    "cc -flto=auto -c x.c",
    "cc -fno-lto -c x.c",
    "cc -fplugin=p.so -c x.c",
    "cc -fprofile-dir=p -c x.c",
    "cc -specs -c x.c",
    "cc -x c x.c -c",
    "cc -x c++ -c x.c",
    "cc -x objective-c -c x.m",
    "cc -x objective-c++ -c x.mm",
    "cc -x go -c x.c",
    "cc -x cpp-output -c x.c",
    "cc -c x.c -x",
    "cc -xc conf -c x.c",
    "cc -c conftest/x.c",
    "cc -c xconftest.c",
    "cc -c conftest-x.c",
    "cc -c x.c -l m",
    "cc -c x.c archive.a libx.so",
    "cc -c x.c -o x.out",
    "cc -c x.c -o dir/x.o",
    "cc -dD -c x.c",
    "cc -da -c x.c",
    "cc -c x.c -save-temps",
    "cc -gsplit-dwarf -c x.c",
    "cc -c x.c -###",
    "-c x.c",
    "x.c -c",
    "-c x.c -o x.o",
    "--param x -c x.c",
    "@plain",
    "cc @plain",
    "cc @nested",
    "cc @quoted",
    "cc @escaped",
    "cc @large",
    "cc @absent -c x.c",
    "cc @empty -c x.c",
]
LOCAL = [
    "cc",
    "cc x.c",
    "cc x.c -o x",
    "cc x.o -o x",
    "cc -o x a.o b.o -lm",
    "cc -shared -o libx.so x.o",
    "cc -c",
    "cc -c x.o",
    "cc -c x.s",
    "cc -c x.S",
    "cc -c x.f90",
    "cc -c x.go",
    "cc -c x",
    "cc -c .c/x",
    "cc -c x.",
    "cc -c a.c b.c",
    "cc -c a.c -o a.o b.o",
    "cc -c a.c b.o -o a.o",
    "cc -c x.c -o a.o -o b.o",
    "cc -c x.c -obj -o x.o",
    "cc -E x.c",
    "cc -E -c x.c",
    "cc -c x.c -E",
    "cc -M x.c",
    "cc -MM -c x.c",
    "cc -MX -c x.c",
    "cc -MDx -c x.c",
    "cc -Wp,-MM -c x.c",
    "cc -Wp,-E -c x.c",
    "cc -Wp,y.c -c x.c",
    "cc -Wp,-MD,-MD,y.c -c x.c",
    "cc -Wa,-al -c x.c",
    "cc -Wa,-alh,-L -c x.c",
    "cc -Wa,--noexecstack,-a=x.lst -c x.c",
    "cc -Wa,--MD,x.d -c x.c",
    "cc -march=native -c x.c",
    "cc -mtune=native -O3 -c x.c",
    "cc -flto -c x.c",
    "cc -specs=s -c x.c",
    "cc -fprofile-arcs -c x.c",
    "cc -ftest-coverage -c x.c",
    "cc --coverage -c x.c",
    "cc -fprofile-generate -c x.c",
    "cc -fprofile-generate=dir -c x.c",
    "cc -fprofile-use -c x.c",
    "cc -fprofile-use=x.gcda -c x.c",
    "cc -fauto-profile=x -c x.c",
    "cc -fprofile-correction -c x.c",
    "cc -frepo -c x.c",
    "cc -x assembler x.c -c",
    "cc -x assembler-with-cpp -c x.c",
    "cc -xc -c x.c",
    "cc -x none -c x.c",
    "cc -c x.c -xc++ -O2",
    "cc -dr -c x.c",
    "cc -drx -c x.c",
    "cc -c conftest.c",
    "cc -c dir/conftest.cpp -o y.o",
    "cc -c tmp.conftest.c",
    "cc -c conftest.dir.c",
    "cc -c x.c -o -",
    "cc -c x.c -o-",
    "cc -c .c",
    "cc -c dir/.c",
    "cc --version",
    "cc -v",
    "cc -dumpmachine",
    "cc -print-search-dirs",
    "cc -",
    "cc -c -",
    "x.o -o x",
    "x.c -o x",
    "@links",
    "cc @links",
    "cc @plain @plain",
    "cc @directs",
]
RESPONSE_FILES = {
    "plain": "-c x.c\n",
    "nested": "-O2 @plain",
    "quoted": "'-c' \"x\\.c\" -D\\ X '-DY=a b'",
    "escaped": '"-DX=\\" y.c\\"" -c x.c',
    "large": "-DX " * 5000 + "-c x.c",
    "empty": " \n\t ",
    "links": "x.o\n-o\nx\n",
    "directs": "-c x.c '@links'",
}
#: the last words of an option that wants one more: distcc 3.4 reads past the end of its arguments there
UNFINISHED = ("-o", "-MF", "-MT", "-MQ")

Verdict = Callable[[list[str]], str]


def write_response_files(directory: Path) -> None:
    for name, text in RESPONSE_FILES.items():
        (directory / name).write_text(text)


@pytest.fixture
def ours(wrap: Wrap) -> Verdict:
    """What the program says of ``distcc`` with these arguments: remote, or local."""
    write_response_files(wrap.directory)

    def verdict(arguments: list[str]) -> str:
        result = wrap.run("--explain", "distcc", *arguments)
        assert (result.returncode, result.stderr) == (0, "")
        word, _, reason = result.stdout.removesuffix("\n").partition(": ")
        assert bool(reason) == (word == "local")
        return word

    return verdict


@pytest.fixture(scope="session")
def distcc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verdict]:
    """What the real distcc does with these arguments, its only host being one that refuses, its compilers doing nothing."""
    need("distcc")
    home = tmp_path_factory.mktemp("distcc")
    write_response_files(home)
    compilers = home / "compilers"
    compilers.mkdir()
    (compilers / "cc").symlink_to(shutil.which("true") or "/bin/true")
    log = home / "log"
    with socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))
        env = {
            "PATH": f"{compilers}:{os.environ['PATH']}",
            "DISTCC_HOSTS": f"127.0.0.1:{refusing.getsockname()[1]}",
            "DISTCC_DIR": str(home / "state"),
            "DISTCC_FALLBACK": "0",
            "DISTCC_VERBOSE": "1",
            "DISTCC_LOG": str(log),
            "DISTCC_NO_REWRITE_CROSS": "1",
        }

        def verdict(arguments: list[str]) -> str:
            shutil.rmtree(home / "state", ignore_errors=True)  # or it remembers that the host refused
            (home / "state").mkdir()
            log.unlink(missing_ok=True)
            subprocess.run(["distcc", *arguments], env=env, cwd=home, capture_output=True, timeout=PATIENCE, check=False)
            said = log.read_text(errors="replace")
            assert "elapsed compilation time" in said, said
            return "remote" if "(dcc_connect_by_name) connecting to" in said else "local"

        yield verdict


@pytest.mark.parametrize(("arguments", "expected"), [*((a, "remote") for a in REMOTE), *((a, "local") for a in LOCAL)])
def test_it_agrees_with_distcc(ours: Verdict, distcc: Verdict, arguments: str, expected: str) -> None:
    words = arguments.split()
    assert (ours(words), distcc(words)) == (expected, expected)


WORDS = """
    -c -c -c -S -E -o -o -ox.o -o- - -MD -MMD -MP -MF -MT -MQ -MFx.d -M -MM -Wp,-MD,x.d -Wp,-MD -Wp,-E,-c -Wp, -Wp,,, -Wa,-al
    -Wa,-x -x -xc c c++ go assembler -dr -dD -flto -flto=2 -march=native -march=i686 -specs=x -specs --coverage -fprofile-use=x
    -fprofile -frepo -O2 -g x.c x.c x.c y.cc x.i x.S x.s x.o y.o conftest.c d/conftest.x.c .c d.c/x a/.i x. .o x.c.o @plain
    @links @quoted @empty @absent -DX=x.c -I. x cc"""


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(
    words=st.lists(st.sampled_from(WORDS.split()), max_size=7).filter(lambda words: not words or words[-1] not in UNFINISHED)
)
def test_it_agrees_with_distcc_whatever_the_words(ours: Verdict, distcc: Verdict, words: list[str]) -> None:
    arguments = ["cc", *words]
    assert ours(arguments) == distcc(arguments)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("distcc", "local: distcc answers this itself"),
        ("distcc --version", "local: distcc answers this itself"),
        ("distcc --show-hosts", "local: distcc answers this itself"),
        ("distcc -j", "local: distcc answers this itself"),
        ("/opt/bin/distcc-3.4 gcc -c x.c", "remote"),
        ("/usr/lib/distcc/gcc -c x.c", "remote"),
        ("gcc -c x.c", "remote"),
        ("ccache gcc -c x.c", "remote"),
        ("gcc x.o", "local: it does not compile: there is neither -c nor -S"),
        ("make -j8", "local: it does not compile: there is neither -c nor -S"),
        ("distcc gcc -c x.c -o", "local: -o names no file"),
        ("distcc gcc @itself -c x.c", "local: it has too many response files"),
    ],
)
def test_what_is_not_in_distccs_hands(wrap: Wrap, command: str, expected: str) -> None:
    (wrap.directory / "itself").write_text("@itself @itself")
    assert wrap.run("--explain", *command.split()).stdout == expected + "\n"


def test_unfinished_options_are_no_trouble(wrap: Wrap) -> None:
    for word in (*UNFINISHED, "-x", "-Wp,", "-Wp", "-Wa,", "-", "--", "", "@", "-M", "-d"):
        result = wrap.run("--explain", "distcc", "gcc", "-c", "x.c", word)
        assert result.returncode == 0
        assert result.stdout.startswith(("remote", "local: "))


def test_distcc_that_runs_already_gets_no_lease(wrap: Wrap) -> None:
    result = wrap.run("--explain", "distcc", "gcc", "-c", "x.c", env={"_DISTCC_SAFEGUARD": "1"})
    assert result.stdout == "local: distcc is running this already\n"


@pytest.mark.parametrize("command", ["distcc gcc x.o", "distcc gcc -E x.c", "distcc gcc -c conftest.c", "true"])
def test_nobody_is_asked_for_what_stays_here(wrap: Wrap, balancer: Balancer, command: str) -> None:
    stand_in = wrap.directory / "bin"
    stand_in.mkdir()
    (stand_in / "distcc").write_text('#!/bin/sh\necho "$@" "${DISTCC_HOSTS-unset} ${DISTBAL_WRAPPED-unset}"\n')
    (stand_in / "distcc").chmod(0o755)
    result = wrap.run(*command.split(), env={"PATH": f"{stand_in}:{os.environ['PATH']}"})
    assert result.stderr == ""
    assert result.stdout in ("", command.removeprefix("distcc ") + " unset unset\n")
    assert not balancer.asked()


def test_a_pipe_is_left_to_the_compiler(wrap: Wrap) -> None:
    """``cc -c x.c @<(options)``: what we read of it, the compiler would miss; and nobody may be writing."""
    os.mkfifo(wrap.directory / "pipe")
    result = wrap.run("--explain", "distcc", "cc", "-c", "x.c", "@pipe")
    assert (result.returncode, result.stdout, result.stderr) == (0, "remote\n", "")
