"""The daemon as a process: how it is started, when it is silent for too long, and how it ended.

The clock is always an argument.
"""

from __future__ import annotations

import math
import os
import signal
import sys
from typing import TYPE_CHECKING, NamedTuple

from distbal.keeper import channel
from distbal.keeper.signals import FORWARDED
from distbal.keeperwire import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: what the daemon is not to find in its environment: systemd talks with the keeper
NOT_FOR_IT = {
    *("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "FDSTORE"),
    *("DISTBAL_FDSTORE", "DISTBAL_HANDOVER", VARIABLE),
}
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


def interpreter(module: str) -> list[str]:
    """The command that runs a module with this interpreter; a directory that this process imports nothing from stays so."""
    try:
        here = os.getcwd()  # noqa: PTH109 (pathlib is much to load for one word)
    except FileNotFoundError:
        here = ""
    return [sys.executable, *([] if sys.path[:1] in ([""], [here]) else ["-P"]), "-m", module]


def spawn(command: list[str], environment: dict[str, str], output: int | None = None, blocked: Iterable[int] = ()) -> int:
    """Start a process that has no signal ignored, and of this one's descriptors those that are inheritable.

    It is in a process group of its own, so that a terminal's Ctrl-C reaches it by way of the keeper alone.

    :param environment: beside what is not :data:`NOT_FOR_IT` of this process's.
    :param output: what its stdout and stderr are; None: this process's own.
    :param blocked: signals that wait until it lets them through.
    :returns: its process.
    :raises OSError: it cannot be started.
    """
    kept = {name: value for name, value in os.environ.items() if name not in NOT_FOR_IT}
    return os.posix_spawn(
        command[0],
        command,
        kept | environment,
        file_actions=[] if output is None else [(os.POSIX_SPAWN_DUP2, output, number) for number in (1, 2)],
        setpgroup=0,
        setsigmask=blocked,
        setsigdef=[number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)],
    )


def ended(status: int) -> str:
    """How a process ended, as the end of a sentence.

    :param status: of waitpid(2).
    """
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    why = _WHY.get(-code, "")
    return f"was killed by {name}{why}"


class Life(NamedTuple):
    """What is known of a running daemon; all times in seconds of the monotonic clock.

    :ivar started: when this image of it began.
    :ivar heard: when a packet last came.
    :ivar ready: when it began to serve; None: not yet.
    :ivar given: whether it has been given what was held.
    :ivar asked: whether it says that somebody asked it to end.
    :ivar killing: when it gets SIGKILL; None: not at all.
    :ivar silent: for how long it had said nothing when it was killed for that; 0 for not.
    """

    pid: int
    started: float
    heard: float
    ready: float | None = None
    given: bool = False
    asked: bool = False
    killing: float | None = None
    silent: float = 0.0

    def deadline(self, patience: float) -> float:
        """When its silence will have been too long."""
        deadline = self.heard + patience
        return deadline if self.ready is not None else max(deadline, self.started + LENIENT * patience)

    def served(self, now: float) -> float:
        """For how long it has served."""
        return 0.0 if self.ready is None else now - self.ready


class Daemon:
    """One that runs, or has just ended.

    :ivar life: what is known of it.
    :ivar channel: to it.
    """

    def __init__(self, life: Life, channel: channel.Channel) -> None:
        self.life = life
        self.channel = channel

    @classmethod
    def start(cls, command: list[str], complain: Callable[[str], None], now: float) -> Daemon:
        """Start one, with a channel.

        :raises OSError: it cannot be started.
        """
        ours, theirs = channel.pair()
        # sockets that systemd opened are inherited, and with them goes what they are
        environment = {name: os.environ[name] for name in ("LISTEN_FDS", "LISTEN_FDNAMES") if name in os.environ}
        with theirs:
            os.set_inheritable(theirs.fileno(), True)
            try:
                # what is forwarded would end one that has no handlers yet (the daemon: execing.unblock)
                pid = spawn(command, environment | {VARIABLE: str(theirs.fileno())}, blocked=FORWARDED)
            except OSError:
                ours.close()
                raise
        return cls(Life(pid, now, now), channel.Channel(ours, complain))

    def signal(self, number: int) -> None:
        """Send it a signal: as long as it is not reaped, its number is nobody else's."""
        os.kill(self.life.pid, number)

    def heard(self, now: float) -> None:
        """It gave a sign of life."""
        self.life = self.life._replace(heard=now)

    def excuse(self, seconds: float) -> None:
        """Nobody could have heard it for so long."""
        self.life = self.life._replace(heard=self.life.heard + seconds, started=self.life.started + seconds)

    @property
    def is_alone(self) -> bool:
        """Whether it serves and has hung up, as it does where the keeper was too slow for it: its silence means nothing."""
        return self.channel.ended and self.life.ready is not None and not self.life.asked

    def watch(self, patience: float, now: float) -> float:
        """Kill it where its silence is too long: first so that it can say where it was, and soon after for good.

        :returns: for how long it has been silent when that was too long just now; 0 for not.
        """
        life = self.life
        if life.killing is not None:
            if now >= life.killing:
                self.life = life._replace(killing=now + patience)
                self.signal(signal.SIGKILL)
        elif not self.is_alone and now >= life.deadline(patience):
            self.life = life._replace(killing=now + LAST_WORDS, silent=now - life.heard)
            self.signal(signal.SIGABRT)
            return self.life.silent
        return 0.0

    def due(self, patience: float) -> float:
        """When :meth:`watch` has something to do."""
        if self.life.killing is not None:
            return self.life.killing
        return math.inf if self.is_alone else self.life.deadline(patience)
