"""``distbal top``: the farm on the whole screen, once a second, over the admin socket.

The screen is ncurses, by Python's own ``curses``: there wherever Python is, imported in 10 ms (textual takes 300, urwid and
blessed 150), at home in every terminal that terminfo knows, and what icecream-sundae and htop use. What stands on the screen is
decided in :mod:`distbal.toplayout`; a thread asks the daemon, so that keys never wait for it.
"""

from __future__ import annotations

import locale
import os
import signal
import sys
import threading
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from distbal import adminclient
from distbal.adminclient import Connection
from distbal.columns import width_of
from distbal.errors import DistbalError
from distbal.toplayout import CLIENT_STYLES, Line, frame
from distbal.topmodel import Model, View

if TYPE_CHECKING:
    import curses

#: seconds between two questions, and for an answer
EVERY, PATIENCE = 1.0, 5.0
#: milliseconds in which a key is awaited, before it is looked whether the daemon has answered
TURN = 100


def add_arguments(parser: ArgumentParser) -> None:
    """--socket."""
    parser.add_argument(
        "--socket",
        metavar="PATH",
        default=adminclient.default_path(),
        help=f"the admin socket; ${adminclient.VARIABLE} where not given, or {adminclient.DEFAULT_PATH}",
    )


def run(args: Namespace) -> int:
    """Show it until q is pressed.

    :return: the exit status, 0.
    :raises DistbalError: there is no terminal, or no daemon at the start; the text says which.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise DistbalError("top needs a terminal; distbal status shows the same once")
    try:
        import curses
    except ImportError as error:
        raise DistbalError(
            f"this Python has no curses, which top needs ({error}); distbal status shows the same once"
        ) from error
    locale.setlocale(locale.LC_ALL, "")
    poller = Poller(args.socket)
    poller.look()
    poller.start()
    for number in (signal.SIGTERM, signal.SIGHUP):
        # so that the terminal is put in order first
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        curses.setupterm()
        curses.wrapper(lambda screen: Screen(screen, poller).run())
    except curses.error as error:
        raise DistbalError(f"the terminal ({os.environ.get('TERM') or 'TERM is not set'}) cannot be used: {error}") from error
    finally:
        poller.stop()
    return 0


class Poller(threading.Thread):
    """Asks the daemon once a second on one connection, and connects again where that is lost."""

    def __init__(self, path: str) -> None:
        super().__init__(name="poller", daemon=True)
        self._path = path
        self._connection: Connection | None = None
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._news: tuple[Mapping[str, Any], Mapping[str, Any]] | str | None = None

    def take(self) -> tuple[Mapping[str, Any], Mapping[str, Any]] | str | None:
        """What is new: the reports of status and hosts, or why there are none; None for nothing. Each is given out once."""
        with self._lock:
            news, self._news = self._news, None
        return news

    def look(self) -> None:
        """Ask once.

        :raises DistbalError: it does not answer.
        """
        try:
            if self._connection is None:
                self._connection = Connection(self._path, PATIENCE)
            news = self._connection.ask(["status"]), self._connection.ask(["hosts"])
            adminclient.check(news[0])
        except DistbalError:
            self._leave()
            raise
        with self._lock:
            self._news = news

    def run(self) -> None:
        """The thread."""
        while not self._over.wait(EVERY):
            try:
                self.look()
            except DistbalError as error:
                with self._lock:
                    self._news = f"{error} (tried again each second)"
        self._leave()

    def stop(self) -> None:
        """End: at once, or with the answer that is awaited, for which nobody waits."""
        self._over.set()

    def _leave(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Screen:
    """The terminal: keys come in, lines go out."""

    def __init__(self, screen: curses.window, poller: Poller) -> None:
        import curses

        self._curses = curses
        self._screen = screen
        self._poller = poller
        self._model = Model()
        self._view = View()
        self._encoding = locale.getpreferredencoding(False)
        self._blocks = self._encoding.lower().replace("-", "") == "utf8"
        self._styles = self._make_styles()
        self._keys = {
            curses.KEY_UP: "UP",
            curses.KEY_DOWN: "DOWN",
            curses.KEY_PPAGE: "PAGEUP",
            curses.KEY_NPAGE: "PAGEDOWN",
            curses.KEY_HOME: "HOME",
            curses.KEY_END: "END",
            curses.KEY_ENTER: "ENTER",
            curses.KEY_BACKSPACE: "BACKSPACE",
        }

    def run(self) -> None:
        """Until the user leaves."""
        curses = self._curses
        curses.set_escdelay(25)
        with suppress(curses.error):  # a terminal that cannot hide its cursor shows it
            curses.curs_set(0)
        self._screen.timeout(TURN)
        changed = True
        while not self._view.over:
            news = self._poller.take()
            if news is not None and not self._view.paused:
                changed = True
                if isinstance(news, str):
                    self._model.failed(news)
                else:
                    self._model.heard(*news, time.monotonic())
            if changed:
                self._show()
            key = self._key()
            changed = key != ""
            if key:
                self._view.press(key, self._model)

    def _key(self) -> str:
        """A key's name, "" for none; RESIZE where the terminal has another size."""
        curses = self._curses
        try:
            key = self._screen.get_wch()
        except curses.error:
            return ""
        if isinstance(key, int):
            return "RESIZE" if key == curses.KEY_RESIZE else self._keys.get(key, "OTHER")
        return {"\n": "ENTER", "\r": "ENTER", "\x1b": "ESCAPE", "\x7f": "BACKSPACE", "\b": "BACKSPACE"}.get(key, key)

    def _show(self) -> None:
        height, width = self._screen.getmaxyx()
        lines = frame(self._model, self._view, width, height, blocks=self._blocks)
        self._screen.erase()
        for row, line in enumerate(lines):
            self._write(row, line)
        self._screen.refresh()

    def _write(self, row: int, line: Line) -> None:
        column = 0
        for text, style in line:
            shown = text.encode(self._encoding, "replace").decode(self._encoding)
            try:
                self._screen.addstr(row, column, shown, self._styles[style])
            except self._curses.error:
                # the very last place of the screen is written, and the cursor has nowhere to go; or the window has just shrunk
                return
            column += width_of(text)

    def _make_styles(self) -> dict[str, int]:
        curses = self._curses
        styles = {
            "": curses.A_NORMAL,
            "bold": curses.A_BOLD,
            "dim": curses.A_DIM,
            "bar": curses.A_REVERSE,
            "bad": curses.A_BOLD,
            "doubtful": curses.A_NORMAL,
            "good": curses.A_NORMAL,
            "alarm": curses.A_REVERSE | curses.A_BOLD,
        }
        styles |= dict.fromkeys(CLIENT_STYLES, curses.A_BOLD)
        if not curses.has_colors():
            return styles
        curses.use_default_colors()
        if os.environ.get("NO_COLOR"):
            return styles
        client_colours = ("GREEN", "CYAN", "MAGENTA", "BLUE", "YELLOW", "RED")
        colours = {"bad": "RED", "doubtful": "YELLOW", "good": "GREEN", **dict(zip(CLIENT_STYLES, client_colours, strict=True))}
        for number, (style, colour) in enumerate(colours.items(), 1):
            curses.init_pair(number, getattr(curses, f"COLOR_{colour}"), -1)
            styles[style] |= curses.color_pair(number)
        return styles
