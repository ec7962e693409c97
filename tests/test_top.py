"""``distbal top`` in a real terminal (tmux), over a real socket: what is seen, keys, sizes, a daemon that goes and comes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from distbal.cli import main
from tests.adminserver import serving
from tests.support import PATIENCE, ROOT, need

COLOUR = re.compile(r"\x1b\[[\d;]*3[1-6]m")


class Tmux:
    """A terminal in which one command runs."""

    def __init__(self, directory: Path) -> None:
        self._socket = directory / "t"

    def do(self, *words: str) -> str:
        # pytest imports readline, which puts LINES and COLUMNS into the environment behind Python's back: not into this copy
        environment = dict(os.environ)
        command = ["tmux", "-S", str(self._socket), "-f", "/dev/null", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout

    def start(self, width: int, height: int, **environment: str) -> None:
        settings = [word for name, value in environment.items() for word in ("-e", f"{name}={value}")]
        # what it says at its end, and how it ended, stays to be read
        term = environment.get("TERM", "$TERM")
        command = f"cd {ROOT}; TERM={term} {sys.executable} -m distbal top; echo ended with $?; read nothing"
        self.do("new-session", "-d", "-x", str(width), "-y", str(height), *settings, command)

    def screen(self, *options: str) -> str:
        return self.do("capture-pane", "-p", *options)

    def shows(self, seen: Callable[[str], bool] | str) -> list[str]:
        """Wait for what is to be seen; the lines of the screen then."""
        deadline = time.monotonic() + 2 * PATIENCE
        while True:
            screen = self.screen()
            if seen in screen if isinstance(seen, str) else seen(screen):
                return screen.splitlines()
            assert time.monotonic() < deadline, f"{seen!r} is not on the screen:\n{screen}"
            time.sleep(0.05)

    def press(self, *keys: str) -> None:
        self.do("send-keys", *keys)


@contextmanager
def tmux() -> Iterator[Tmux]:
    need("tmux")
    # a socket's path has 107 characters at most
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        one = Tmux(Path(directory))
        try:
            yield one
        finally:
            one.do("kill-server")


def _is_of(height: int, last: str, screen: str) -> bool:
    return last in screen and screen.count("\n") == height


def settings(path: str, **others: str) -> dict[str, str]:
    return {"DISTBAL_ADMIN": path, "LC_ALL": "C.UTF-8", "NO_COLOR": "", **others}


@pytest.mark.programs
def test_three_hosts(tmp_path: Path) -> None:
    with serving(tmp_path / "s") as path, tmux() as terminal:
        terminal.start(80, 24, **settings(path))
        lines = terminal.shows("1-3 of 3")
        assert lines[0].startswith("distbal ")
        assert lines[1].startswith("3 hosts, 5 of 8 slots lent, 0 wait")
        assert lines[4].startswith("A 10.0.0.9 3  ")
        assert [line.split()[:4] for line in lines[5:9]] == [
            ["HOST", "STATE", "SLOTS", "WHO"],
            ["snookles:3632", "full", "4/4", "[AAAC]"],
            ["newbb:3632", "ready", "1/2", "[B.]"],
            ["[fd00::7]:3632", "ready", "0/2", "[..]"],
        ]
        assert COLOUR.search(terminal.screen("-e"))
        # what others do is seen
        assert main(["drain", "newbb:3632", "fan broken", "--socket", path]) == 0
        terminal.shows("drain*")
        terminal.press("Down", "Enter")
        lines = terminal.shows("differs from the file:")
        assert "newbb:3632: drain: fan broken" in lines
        terminal.press("?")
        terminal.shows("each client has the same")
        terminal.press("q")
        terminal.press("/", *"snoo", "Enter")
        assert not any("newbb" in line for line in terminal.shows('1-1 of 1 with "snoo"'))
        terminal.press("Space")
        terminal.shows("PAUSED")
        terminal.press("q")
        # the screen from before is back
        assert [line for line in terminal.shows("ended with") if line] == ["ended with 0"]


@pytest.mark.programs
def test_five_hundred_hosts_on_screens_of_all_sizes(tmp_path: Path) -> None:
    with serving(tmp_path / "s", "busy") as path, tmux() as terminal:
        terminal.start(100, 30, **settings(path, NO_COLOR="1"))
        lines = terminal.shows("1-18 of 500  q quit")
        assert any(line.startswith("box000.example:3632") for line in lines)
        assert not COLOUR.search(terminal.screen("-e"))
        terminal.press("NPage")
        terminal.shows(lambda screen: "2-19 of 500" in screen)
        terminal.press("End")
        lines = terminal.shows("483-500 of 500")
        assert any(line.startswith("box499.example:3632") for line in lines)
        for width, height, last in (
            (60, 16, "492-500 of 500"),
            (40, 10, "495-500 of 500"),
            (160, 50, "463-500 of 500"),
            (5, 2, ""),
        ):
            terminal.do("resize-window", "-x", str(width), "-y", str(height))
            lines = terminal.shows(partial(_is_of, height, last))
            assert all(len(line) <= width for line in lines)
        terminal.do("resize-window", "-x", "80", "-y", "24")
        terminal.shows("489-500 of 500")
        terminal.press("Home", "s", "s", "s", "s")
        terminal.shows(lambda screen: "sort: state" in screen and "\nbox000.example:3632  failing" in screen)
        terminal.press("C-c")
        terminal.shows("ended with 130")


@pytest.mark.programs
def test_a_daemon_that_goes_and_comes(tmp_path: Path) -> None:
    with tmux() as terminal:
        with serving(tmp_path / "s") as path:
            terminal.start(80, 24, **settings(path, LC_ALL="C"))
            terminal.shows("snookles:3632")
        terminal.shows(
            lambda screen: "snookles:3632" in screen and screen.startswith(("nobody listens on", "there is no", path))
        )
        (tmp_path / "s").unlink(missing_ok=True)
        with serving(tmp_path / "s"):
            terminal.shows(lambda screen: screen.startswith("distbal "))
            terminal.press("q")
            terminal.shows("ended with 0")


def test_no_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["top", "--socket", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err == "distbal: top needs a terminal; distbal status shows the same once\n"


@pytest.mark.programs
@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"DISTBAL_ADMIN": "/nonexistent/s"}, "distbal: there is no /nonexistent/s: is distbal running"),
        ({"TERM": "nonesuch"}, "distbal: the terminal (nonesuch) cannot be used"),
    ],
)
def test_what_top_cannot_do_without(environment: dict[str, str], said: str, tmp_path: Path) -> None:
    with serving(tmp_path / "s") as path, tmux() as terminal:
        terminal.start(120, 10, **settings(path) | environment)
        lines = terminal.shows("ended with 1")
        assert lines[0].startswith(said)


@pytest.mark.programs
def test_it_is_stopped_and_goes_on_as_other_programs(tmp_path: Path) -> None:
    """Ctrl-Z and fg of an interactive shell."""
    need("bash")
    with serving(tmp_path / "s") as path, tmux() as terminal:
        words = [word for name, value in settings(path).items() for word in ("-e", f"{name}={value}")]
        terminal.do("new-session", "-d", "-x", "80", "-y", "24", *words, f"cd {ROOT}; exec bash --norc --noprofile -i")
        terminal.press("PS1='here: '; clear", "Enter")
        terminal.shows("here:")
        terminal.press(f"{sys.executable} -m distbal top", "Enter")
        terminal.shows("snookles:3632")
        terminal.press("C-z")
        terminal.shows("Stopped")
        terminal.press("fg", "Enter")
        terminal.shows("1-3 of 3")
        terminal.press("q")
        terminal.shows(lambda screen: screen.rstrip().endswith("here:"))


@pytest.mark.programs
def test_it_leaves_the_terminal_in_order_when_it_is_ended(tmp_path: Path) -> None:
    with serving(tmp_path / "s") as path, tmux() as terminal:
        terminal.start(80, 24, **settings(path))
        terminal.shows("1-3 of 3")
        shell = int(terminal.do("display-message", "-p", "#{pane_pid}"))
        (child,) = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        assert [line for line in terminal.shows("ended with") if line] == ["ended with 143"]
