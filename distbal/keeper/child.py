"""The daemon as a process: how it is started, how it ended, how long to wait with the next, when it is silent for too long.

The clock is always an argument.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NamedTuple

from distbal.keeperwire import VARIABLE

#: what the daemon is not to find in its environment: systemd talks with the keeper
NOT_FOR_IT = {
    *("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "FDSTORE"),
    *("DISTBAL_FDSTORE", "DISTBAL_HANDOVER", VARIABLE),
}
#: seconds of serving after which an end counts as the first
A_WHILE = 1.0
SHORTEST, LONGEST = 0.5, 30.0
#: how much more patience there is until it serves: 120 s where it is 30
LENIENT = 4
#: what a signal tells of its cause
_WHY: dict[int, str] = {
    signal.SIGKILL: ": somebody's kill -9, or the machine was out of memory (the kernel's log would say so)",
    signal.SIGSEGV: ": a bug in a library that is not Python",
    signal.SIGBUS: ": a bug in a library that is not Python, or no memory for what is shared",
}
#: from SIGABRT, at which Python can tell where it was, to SIGKILL, in seconds
LAST_WORDS = 2.0
#: further than this after the time for which it had asked, the keeper itself was stopped or frozen
JUMP = 5.0


def interpreter(module: str) -> list[str]:
    """The command that runs a module with this interpreter; a directory that this process imports nothing from stays so."""
    try:
        here = os.getcwd()  # noqa: PTH109 (pathlib is much to load for one word)
    except FileNotFoundError:
        here = ""
    return [sys.executable, *([] if sys.path[:1] in ([""], [here]) else ["-P"]), "-m", module]


def start(command: list[str], channel: int, environment: dict[str, str]) -> int:
    """Start the daemon.

    It is in a process group of its own, so that a terminal's Ctrl-C reaches it by way of the keeper alone.

    :param channel: the daemon's end; made inheritable here.
    :param environment: added to this process's.
    :returns: its process.
    :raises OSError: it cannot be started.
    """
    os.set_inheritable(channel, True)
    kept = {name: value for name, value in os.environ.items() if name not in NOT_FOR_IT}
    return os.posix_spawn(
        command[0],
        command,
        kept | {VARIABLE: str(channel)} | environment,
        setpgroup=0,
        setsigmask=[],
        setsigdef=[number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)],
    )


def ended(status: int) -> str:
    """How a process ended, as the end of a sentence.

    :param status: of waitpid(2).
    """
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended with status {code}" if code else "ended, though nobody had asked it to"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    why = _WHY.get(-code, "")
    return f"was killed by {name}{why}"


class Pauses:
    """How long to wait before the next start: not at all the first time, and longer each time that it does not last."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures

    def after(self, served: float) -> float:
        """The pause after an end, in seconds.

        :param served: how long the daemon had served, in seconds; 0 where it did not come to it.
        """
        if served >= A_WHILE:
            self.failures = 0
        pause = min(LONGEST, SHORTEST * 2.0 ** (self.failures - 1)) if self.failures else 0.0
        # beyond some, the pause does not grow, nor need the power
        self.failures = min(self.failures + 1, 20)
        return pause


class Life(NamedTuple):
    """What is known of a running daemon; all times in seconds of the monotonic clock.

    :ivar started: when this image of it began.
    :ivar heard: when a packet last came.
    :ivar ready: when it began to serve; None: not yet.
    :ivar given: whether it has been given what was held.
    :ivar killing: when it gets SIGKILL; None: not at all.
    :ivar silent: for how long it had said nothing when it was killed for that; 0 for not.
    """

    pid: int
    started: float
    heard: float
    ready: float | None = None
    given: bool = False
    killing: float | None = None
    silent: float = 0.0

    def deadline(self, patience: float) -> float:
        """When its silence will have been too long."""
        deadline = self.heard + patience
        return deadline if self.ready is not None else max(deadline, self.started + LENIENT * patience)

    def served(self, now: float) -> float:
        """For how long it has served."""
        return 0.0 if self.ready is None else now - self.ready
