"""The shell's terminal: bytes that are typed become keys, keys change a line, and what changed is drawn.

Conch's insults takes the keys apart. Drawing needs a carriage return, backspace and, but on a terminal that knows none, one
control sequence: nothing that a terminal could be too old for.
"""

from __future__ import annotations

# half of Conch has no types
# mypy: disallow-untyped-calls=false
from codecs import getincrementaldecoder
from collections.abc import Callable
from typing import Any, Protocol

from twisted.conch.insults.insults import ServerProtocol

from distbal.manhole.editor import Editor, columns_of
from distbal.manhole.session import Pty

#: bytes of a control sequence, before it is none
_LONGEST = 64
#: characters to be shown that are gathered before they are sent
_GATHERED = 65_536
_ERASE, _CLEAR = "\x1b[K", "\x1b[H\x1b[2J"
PROMPT, MORE = ">>> ", "... "
INDENT = "    "


class User(Protocol):
    """Who gets what is typed."""

    def line(self, text: str) -> bool:
        """A line is there; whether more of them make a whole."""

    def cancelled(self) -> None:
        """What was begun is given up (Ctrl-C)."""

    def left(self) -> None:
        """The end (Ctrl-D)."""

    def completions(self, text: str) -> tuple[int, list[str]]:
        """What could stand before the cursor: from which place in the text on, and the possible texts."""


class _Keys(ServerProtocol):
    """Conch's, for keys alone, and with a bound."""

    def dataReceived(self, data: bytes) -> None:
        for start in range(0, len(data), _LONGEST):
            super().dataReceived(data[start : start + _LONGEST])
            if self.state == b"bracket-escaped" and len(self.escBuf) > _LONGEST:
                self.state = b"data"


class Terminal:
    """A line at the bottom, and what comes above it.

    :param send: sends text to the client; a newline is a line's end.
    """

    def __init__(self, user: User, pty: Pty, send: Callable[[str], None]) -> None:
        self.editor = Editor()
        self._user = user
        self._pty = pty
        self._send_text = send
        self._gathered: list[str] = []
        self._size = 0
        #: columns of what was drawn last
        self._drawn = 0
        self._prompt = PROMPT
        self._over = False
        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._text: list[str] = []
        self._keys = _Keys()
        self._keys.terminalProtocol = self
        self._at_line = False
        self._bind()

    def received(self, data: bytes) -> None:
        """Something was typed."""
        self._keys.dataReceived(data)
        self._insert()
        self._flush()

    def above(self, text: str) -> None:
        """Show something where the cursor stands, between two lines that are typed; it gets a newline at its end."""
        if text:
            self._put(text if text.endswith("\n") else text + "\n")

    def between(self, text: str) -> None:
        """Show something that comes while a line may be typed, above that line."""
        if self._at_line:
            self._erase()
            self.above(text)
            self.draw()
        else:
            self.above(text)
        self._flush()

    def begin(self) -> None:
        """Let a line be typed."""
        self._at_line = True
        self.draw()
        self._flush()

    def draw(self) -> None:
        """Draw the line anew."""
        shown, column = self.editor.view(self._pty.width - len(self._prompt))
        self._erase()
        self._put(self._prompt + shown)
        self._drawn = len(self._prompt) + columns_of(shown)
        self._put("\b" * (columns_of(shown) - column))

    def resized(self) -> None:
        """The window has another size."""
        if self._at_line:
            self.draw()
        self._flush()

    def stop(self) -> None:
        """Nothing is taken any more."""
        self._flush()
        self._over = True

    # -- keys

    def keystrokeReceived(self, key: Any, modifier: Any) -> None:
        """Conch's: a byte, or its name for a key, such as ``[HOME]``."""
        if self._over:
            return
        if modifier == b"[ALT]":
            key = self._with_alt.get(key)
        elif len(key) == 1 and (key >= b"\x80" or b" " <= key < b"\x7f"):
            self._text.append(self._decoder.decode(key))
            return
        self._insert()
        act = self._bound.get(key)
        if act is not None:
            act()

    def unhandledControlSequence(self, sequence: bytes) -> None:
        """Conch's: a key that it does not know."""
        if not self._over:
            self._insert()
            act = self._sequences.get(sequence)
            if act is not None:
                act()

    def _bind(self) -> None:
        edit = self.editor
        word_left, word_right = self._then_draw(edit.word_left), self._then_draw(edit.word_right)
        self._bound: dict[Any, Callable[[], None]] = {
            b"\r": self._enter,
            b"\n": self._enter,
            b"\t": self._complete,
            b"\x03": self._cancel,
            b"\x04": self._end,
            b"\x0c": self._clear,
            **dict.fromkeys((b"\x7f", b"\b"), self._then_draw(edit.backspace)),
            **dict.fromkeys((b"\x01", b"[HOME]"), self._then_draw(edit.home)),
            **dict.fromkeys((b"\x05", b"[END]"), self._then_draw(edit.end)),
            **dict.fromkeys((b"\x02", b"[LEFT_ARROW]"), self._then_draw(edit.left)),
            **dict.fromkeys((b"\x06", b"[RIGHT_ARROW]"), self._then_draw(edit.right)),
            **dict.fromkeys((b"\x10", b"[UP_ARROW]"), self._then_draw(edit.earlier)),
            **dict.fromkeys((b"\x0e", b"[DOWN_ARROW]"), self._then_draw(edit.later)),
            b"[DELETE]": self._then_draw(edit.delete),
            b"\x0b": self._then_draw(edit.cut_behind),
            b"\x15": self._then_draw(edit.cut_before),
            b"\x17": self._then_draw(edit.cut_word),
            "word left": word_left,
            "word right": word_right,
        }
        self._with_alt = {b"b": "word left", b"f": "word right", b"\x7f": b"\x17"}
        # Ctrl or Alt with an arrow, and the keys' other names
        self._sequences = {
            **dict.fromkeys((b"\x1b[1;5D", b"\x1b[1;3D"), word_left),
            **dict.fromkeys((b"\x1b[1;5C", b"\x1b[1;3C"), word_right),
            b"\x1b[OH": self._then_draw(edit.home),
            b"\x1b[OF": self._then_draw(edit.end),
            b"\x1b[OA": self._then_draw(edit.earlier),
            b"\x1b[OB": self._then_draw(edit.later),
        }

    def _then_draw(self, act: Callable[[], None]) -> Callable[[], None]:
        def both() -> None:
            act()
            self.draw()

        return both

    def _insert(self) -> None:
        """What was typed goes into the line."""
        text, self._text = "".join(self._text), []
        if not text or self._over:
            return
        at_end = self.editor.cursor == len(self.editor.text)
        if not self.editor.insert(text):
            self._put("\a")
        elif (
            at_end and text.isascii() and self._drawn + len(text) < self._pty.width and len(self.editor.text) < self._pty.width
        ):
            self._put(text)
            self._drawn += len(text)
        else:
            self.draw()

    def _enter(self) -> None:
        self.editor.end()
        self.draw()
        self._put("\n")
        self._at_line = False
        self._flush()
        more = self._user.line(self.editor.take())
        self._next(more)

    def _cancel(self) -> None:
        self.editor.clear()
        self._user.cancelled()
        self._put("^C\n")
        self._next(False)

    def _next(self, more: bool) -> None:
        if not self._over:
            self._prompt, self._drawn = MORE if more else PROMPT, 0
            self.begin()

    def _end(self) -> None:
        if self.editor.text:
            self.editor.delete()
            self.draw()
        else:
            self._put("\n")
            self._user.left()

    def _clear(self) -> None:
        self._put("\n" if self._pty.plain else _CLEAR)
        self._drawn = 0
        self.draw()

    def _complete(self) -> None:
        before = self.editor.text[: self.editor.cursor]
        if not before.strip():
            self.editor.insert(INDENT)
            self.draw()
            return
        start, texts = self._user.completions(before)
        common = _common(texts)
        if len(common) > len(before) - start and common.startswith(before[start:]):
            self._text.append(common[len(before) - start :])
            self._insert()
        elif len(texts) > 1:
            self._at_line = False
            self._put("\n")
            self.above("\n".join(in_columns(texts, self._pty.width)))
            self._drawn, self._at_line = 0, True
            self.draw()
        else:
            self._put("\a")

    # -- output

    def _erase(self) -> None:
        self._put("\r" + (" " * self._drawn + "\r" if self._pty.plain else _ERASE))
        self._drawn = 0

    def _put(self, text: str) -> None:
        if self._over or not text:
            return
        self._gathered.append(text)
        self._size += len(text)
        if self._size > _GATHERED:
            self._flush()

    def _flush(self) -> None:
        if self._gathered:
            text, self._gathered, self._size = "".join(self._gathered), [], 0
            self._send_text(text)


def in_columns(texts: list[str], width: int) -> list[str]:
    """Short texts side by side, as ls has them."""
    size = max(map(len, texts)) + 2
    across = max(1, (width - 1) // size)
    down = -(-len(texts) // across)
    return ["".join(text.ljust(size) for text in texts[row::down]).rstrip()[: width - 1] for row in range(down)]


def _common(texts: list[str]) -> str:
    """What all of them begin with."""
    if not texts:
        return ""
    first, last = min(texts), max(texts)
    at = 0
    while at < min(len(first), len(last)) and first[at] == last[at]:
        at += 1
    return first[:at]
