"""distcc's protocol, as much of it as a small compile takes: the request, and a strict reader of the answer. Pure.

Version 1, which every distccd takes (doc/protocol-1.txt in distcc's sources). Each packet is a word of four letters and eight
hexadecimal digits, which are a number, or the length of what follows. What lsdistcc sends (src/lsdistcc.c) was the model.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from distbal.errors import WireError

HEADER = 12
#: bytes of the compiler's words and of the object that a server may send; both are far below it
MOST_BODY = 1 << 20
#: bytes that are kept of the compiler's words
KEPT = 400
#: exit status of a distccd that could not run the compiler (EXIT_COMPILER_MISSING in exitcode.h)
COMPILER_MISSING = 110

#: needs no header, and the compiler makes something of it
SOURCE = b"int distbal_asks(int number) { return number + 1; }\n"

_DIGITS = frozenset(b"0123456789abcdefABCDEF")
#: what an answer is made of, in this order (src/clirpc.c)
_TOKENS = (b"DONE", b"STAT", b"SERR", b"SOUT", b"DOTO")


def request(compiler: str) -> bytes:
    """A request to compile :data:`SOURCE` with that compiler."""
    extension = "cc" if "++" in compiler else "c"
    arguments = [compiler, "-c", f"distbal.{extension}", "-o", "distbal.o"]
    packets = [_packet(b"DIST", 1), _packet(b"ARGC", len(arguments))]
    packets += [_body(b"ARGV", argument.encode()) for argument in arguments]
    return b"".join((*packets, _body(b"DOTI", SOURCE)))


def _packet(token: bytes, number: int) -> bytes:
    return token + b"%08x" % number


def _body(token: bytes, body: bytes) -> bytes:
    return _packet(token, len(body)) + body


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a server answered.

    :ivar exit_code: the compiler's; negative: the signal that ended it.
    :ivar words: what the compiler said, the first 400 bytes.
    :ivar size: bytes of the object.
    """

    exit_code: int
    words: bytes
    size: int


class AnswerReader:
    """Reads one answer as it comes; nothing of it is kept but what :class:`Compiled` has.

    :ivar compiled: the answer, once all of it is there.
    :ivar begun: a byte has come.
    """

    def __init__(self) -> None:
        self.compiled: Compiled | None = None
        self.begun = False
        self._tokens = list(_TOKENS)
        self._header = b""
        self._left = 0
        self._body = b""
        self._exit_code = 0
        self._words = b""

    def feed(self, data: bytes) -> bool:
        """Take the next piece; whether the answer is complete.

        :raises WireError: it is not distcc's protocol, or not this answer; the text is the end of a sentence that begins with
            the host's name.
        """
        self.begun = self.begun or bool(data)
        while data and self.compiled is None:
            if self._left:
                piece, data = data[: self._left], data[self._left :]
                self._left -= len(piece)
                self._body = (self._body + piece)[:KEPT]
                if not self._left:
                    self._complete()
                continue
            missing = HEADER - len(self._header)
            self._header, data = self._header + data[:missing], data[missing:]
            # a stranger's greeting is told apart by its first bytes: it may be shorter than a header
            if not self._tokens[0].startswith(self._header[:4]):
                raise WireError("does not speak distcc's protocol: something else listens there")
            if len(self._header) == HEADER:
                self._packet()
        return self.compiled is not None

    def _packet(self) -> None:
        """A whole header is there."""
        token, digits, self._header = self._header[:4], self._header[4:], b""
        if not _DIGITS.issuperset(digits):
            raise WireError(f"does not speak distcc's protocol: {token.decode()} has no number")
        number = int(digits, 16)
        if token == b"DONE" and number != 1:
            raise WireError(f"answered in version {number} of distcc's protocol, and was asked in version 1")
        if token == b"STAT":
            try:
                self._exit_code = os.waitstatus_to_exitcode(number & 0xFFFF)
            except ValueError:
                raise WireError(f"answered with {number:#x} for the compiler's exit status, which is none") from None
        if token in (b"DONE", b"STAT"):
            del self._tokens[0]
        elif number > MOST_BODY:
            raise WireError(f"answers a tiny compile with {number:,} bytes")
        else:
            self._size = self._left = number
            self._body = b""
            if not number:
                self._complete()

    def _complete(self) -> None:
        """A whole body is there."""
        token = self._tokens.pop(0)
        if token in (b"SERR", b"SOUT"):
            self._words = (self._words + self._body)[:KEPT]
        if not self._tokens:
            self.compiled = Compiled(self._exit_code, self._words, self._size)
