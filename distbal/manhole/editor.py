"""A line that is typed: its text, where the cursor is, and the lines before it. Pure: keys come in as calls, a view goes out.

Conch's own line editor knows ASCII alone, and lines no longer than the terminal is wide.
"""

from __future__ import annotations

from collections import deque
from unicodedata import combining, east_asian_width

#: characters of a line, and of one that is remembered
MOST_LINE, MOST_REMEMBERED = 65_536, 4096
#: lines that are remembered
MOST_LINES = 500


class Editor:
    """The line.

    :ivar text: what is typed; ``cursor``: where the next character comes, from 0 to the length of the text.
    """

    def __init__(self) -> None:
        self.text = ""
        self.cursor = 0
        self._lines: deque[str] = deque(maxlen=MOST_LINES)
        #: how many lines back, 0 for the one that is typed; and that one, while another is shown
        self._back = 0
        self._typed = ""

    def insert(self, text: str) -> bool:
        """Type something; False where the line is full."""
        if len(self.text) + len(text) > MOST_LINE:
            return False
        self.text = self.text[: self.cursor] + text + self.text[self.cursor :]
        self.cursor += len(text)
        return True

    def backspace(self) -> None:
        """Take back the character before the cursor."""
        self._cut(self.cursor - 1, self.cursor)

    def delete(self) -> None:
        """Take away the character at the cursor."""
        self._cut(self.cursor, self.cursor + 1)

    def cut_word(self) -> None:
        """Take back the word before the cursor."""
        self._cut(self._word_before(), self.cursor)

    def cut_before(self) -> None:
        """Take back all before the cursor."""
        self._cut(0, self.cursor)

    def cut_behind(self) -> None:
        """Take away all from the cursor on."""
        self._cut(self.cursor, len(self.text))

    def left(self) -> None:
        """One character to the left."""
        self.cursor = max(0, self.cursor - 1)

    def right(self) -> None:
        """One character to the right."""
        self.cursor = min(len(self.text), self.cursor + 1)

    def home(self) -> None:
        """To the beginning."""
        self.cursor = 0

    def end(self) -> None:
        """To the end."""
        self.cursor = len(self.text)

    def word_left(self) -> None:
        """To the beginning of the word."""
        self.cursor = self._word_before()

    def word_right(self) -> None:
        """To the end of the word."""
        at = self.cursor
        while at < len(self.text) and not _is_word(self.text[at]):
            at += 1
        while at < len(self.text) and _is_word(self.text[at]):
            at += 1
        self.cursor = at

    def earlier(self) -> None:
        """The line before."""
        self._go(self._back + 1)

    def later(self) -> None:
        """The line after."""
        self._go(self._back - 1)

    def take(self) -> str:
        """The line is done: what was typed. It is remembered."""
        line = self.text
        if line.strip() and len(line) <= MOST_REMEMBERED and (not self._lines or self._lines[-1] != line):
            self._lines.append(line)
        self.clear()
        return line

    def clear(self) -> None:
        """Begin a new line, and forget what was typed."""
        self.text, self.cursor, self._back, self._typed = "", 0, 0, ""

    def view(self, columns: int) -> tuple[str, int]:
        """What of the line is shown, and the column of the cursor in it: of a long one the part around the cursor.

        :param columns: how many there are for it, at least 2; the last is left free, for the cursor.
        """
        room = columns - 1
        start = end = self.cursor
        used = 0
        # before the cursor first, then behind it
        while start and used + columns_of(self.text[start - 1]) <= room:
            start -= 1
            used += columns_of(self.text[start])
        column = used
        while end < len(self.text) and used + columns_of(self.text[end]) <= room:
            used += columns_of(self.text[end])
            end += 1
        return self.text[start:end], column

    def _cut(self, start: int, end: int) -> None:
        start = max(0, start)
        self.text = self.text[:start] + self.text[end:]
        self.cursor = start

    def _word_before(self) -> int:
        at = self.cursor
        while at and not _is_word(self.text[at - 1]):
            at -= 1
        while at and _is_word(self.text[at - 1]):
            at -= 1
        return at

    def _go(self, back: int) -> None:
        if not 0 <= back <= len(self._lines):
            return
        if not self._back:
            self._typed = self.text
        self._back = back
        self.text = self._lines[-back] if back else self._typed
        self.cursor = len(self.text)


def columns_of(text: str) -> int:
    """How many columns of a terminal it takes."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_"
