"""What the keeper says: plain lines on stderr, of which none may stop it.

A line is left out rather than waited for: stderr may be closed, a full disk, or a pipe whose reader hangs.
"""

from __future__ import annotations

import os
import select
import time

PREFIX = "distbal supervise: "
#: bytes of a line: a pipe that takes some takes these at once (PIPE_BUF, pipe(7))
LONGEST = 4096
#: complaints that are said in a period of so many seconds
COMPLAINTS, PERIOD = 10, 60.0


class Voice:
    """The one who says it.

    :param verbose: whether :meth:`tell` says anything.
    :param descriptor: where to.
    """

    def __init__(self, verbose: bool = False, descriptor: int = 2) -> None:
        self.verbose = verbose
        self._descriptor = descriptor
        self._since = -PERIOD
        self._complaints = 0

    def say(self, text: str) -> None:
        """Say one sentence; what would break a line in it is replaced."""
        printable = "".join(char if char.isprintable() else "?" for char in text)
        line = (PREFIX + printable).encode(errors="replace")[: LONGEST - 1] + b"\n"
        try:
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            if poll.poll(0):
                os.write(self._descriptor, line)
        except OSError:
            # nobody to tell it to: what is said is all that is lost
            pass

    def tell(self, text: str) -> None:
        """Say what is of interest only to somebody who asked for all (``--verbose``)."""
        if self.verbose:
            self.say(text)

    def complain(self, text: str) -> None:
        """Say what another may cause as often as it likes: some in a minute, and the last says that there may be more."""
        now = time.monotonic()
        if now - self._since >= PERIOD:
            self._since, self._complaints = now, 0
        self._complaints += 1
        if self._complaints < COMPLAINTS:
            self.say(text)
        elif self._complaints == COMPLAINTS:
            self.say(f"{text} (more of this kind is not said for a minute)")
