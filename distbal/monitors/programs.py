"""Programs that a monitor runs: no shell, a session of their own that ends as a whole, and never more output than is wanted.

Not by way of ``reactor.spawnProcess``: it puts nothing into a session of its own, so that what a program started would outlive
it; and how it tells that a program cannot be run differs with Twisted's version. subprocess does both, and a pidfd
(pidfd_open(2), Linux 5.3) tells the reactor of the end, with no signal handler that somebody might replace.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure
from zope.interface import implementer

#: where programs named without a path are looked for: the same for the daemon and for a person who tries
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/nagios/plugins:/usr/lib/monitoring-plugins"
#: bytes kept of the two outputs
MOST_OUTPUT, MOST_ERRORS = 4096, 1024
#: bytes read at a time, and how often at most once the program has ended: a pipe holds no more than a megabyte
_CHUNK, _LAST_READS = 65536, 16


@dataclass(frozen=True, slots=True)
class Ended:
    """A program that ran.

    :ivar status: its exit code, or the number of the signal that ended it, negative.
    :ivar output: how its output began, at most :data:`MOST_OUTPUT` bytes, and of its error output :data:`MOST_ERRORS`.
    """

    status: int
    output: bytes
    errors: bytes


def why_none_can_run() -> str:
    """Why this system runs no programs for us, as a sentence; "" when it does."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError) as problem:
        return f"programs cannot be watched here: pidfd_open of Linux 5.3 is needed ({problem})"
    return ""


class Program:
    """A running program; made, it runs.

    :param words: the program and its arguments. The program is an absolute path, or a name that is found in :data:`PATH`.
    :param directory: where it runs; ``variables``: its whole environment, None for the usual one.
    :param descriptors: what it has beside its inputs and outputs, under the same numbers.
    :param most: bytes kept of its output.
    :param last: bytes kept of its error output, the last ones, in place of the first :data:`MOST_ERRORS`; 0 for those.
    :raises OSError: it cannot be run.
    :ivar outcome: fires with :class:`Ended`, once the program itself has ended: what it left running does not count, and is
        killed. Cancelled, the Deferred fails at once, and all of it is killed.
    :ivar gone: no process of it is left.
    """

    def __init__(
        self,
        reactor: Any,
        words: Sequence[str],
        *,
        directory: str = "/",
        variables: Mapping[str, str] | None = None,
        descriptors: Sequence[int] = (),
        most: int = MOST_OUTPUT,
        last: int = 0,
    ) -> None:
        self._reactor = reactor
        self.gone = False
        self._who_waits: list[Deferred[None]] = []
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd=directory,
            # a program says the same under every daemon, in the language that its readers expect
            env={"PATH": PATH, "LC_ALL": "C", "HOME": os.environ.get("HOME", "/")} if variables is None else variables,
            pass_fds=descriptors,
            start_new_session=True,
        )
        self._output = _Output(reactor, cast("IO[bytes]", self._process.stdout), most)
        self._errors = _Output(reactor, cast("IO[bytes]", self._process.stderr), last or MOST_ERRORS, last=bool(last))
        try:
            self._end = _End(reactor, self._process.pid, self._ended, self._kill)
        except OSError:
            self._kill()
            self._process.wait()
            raise
        self.outcome: Deferred[Ended] = Deferred(lambda _: self._kill())

    def when_gone(self) -> Deferred[None]:
        """Fires when no process of it is left."""
        waiting: Deferred[None] = Deferred()
        if self.gone:
            waiting.callback(None)
        else:
            self._who_waits.append(waiting)
        return waiting

    def _kill(self, *, other_groups: bool = True) -> None:
        """Kill the whole session; the program itself is not reaped yet, so that its number is still its own.

        :param other_groups: also what left the session's first group, as timeout(1) does; to find that takes milliseconds.
        """
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if other_groups:
            _kill_session(self._process.pid)
        self._output.close()
        self._errors.close()

    def _ended(self) -> None:
        """The program has ended, and is still to be reaped."""
        at_ends = [self._output.read_the_rest(), self._errors.read_the_rest()]
        # whoever still runs has the outputs open, unless it has been made to stay, as a daemon
        self._kill(other_groups=not self.outcome.called and not all(at_ends))
        status = self._process.wait()
        self.gone = True
        if not self.outcome.called:
            self.outcome.callback(Ended(status, bytes(self._output.kept), bytes(self._errors.kept)))
        waiting, self._who_waits = self._who_waits, []
        for one in waiting:
            one.callback(None)


def _kill_session(leader: int) -> None:
    """Kill all processes of a session."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _session_of(process) == leader:
            with suppress(OSError):  # it has ended, or is another user's
                descriptor = os.pidfd_open(int(process.name))
                try:
                    if _session_of(process) == leader:  # still: the number may have become another's
                        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                finally:
                    os.close(descriptor)


def _session_of(process: Path) -> int | None:
    """The session of a process (the sixth field of its stat, proc(5)); None where there is no such process any more."""
    try:
        return int((process / "stat").read_bytes().rpartition(b")")[2].split()[3])
    except OSError:
        return None


@implementer(IReadDescriptor)
class _Output:
    """One output of a program: its beginning is kept, the rest is read and dropped, so that the program is not held up.

    :param last: its end is kept in place of its beginning.

    :ivar kept: that.
    """

    def __init__(self, reactor: Any, pipe: IO[bytes], most: int, *, last: bool = False) -> None:
        self.kept = bytearray()
        self._last = last
        self._reactor = reactor
        self._pipe = pipe
        self._most = most
        os.set_blocking(pipe.fileno(), False)
        reactor.addReader(self)

    def fileno(self) -> int:
        return -1 if self._pipe.closed else self._pipe.fileno()

    def logPrefix(self) -> str:
        return "distbal.monitors.programs"

    def doRead(self) -> Any:
        return None if self._read() else CONNECTION_DONE

    def connectionLost(self, reason: Failure) -> None:
        self.close()

    def read_the_rest(self) -> bool:
        """What the program left in the pipe; whether that was all. Else somebody may still write to it."""
        return any(self._pipe.closed or not self._read() for _ in range(_LAST_READS))

    def close(self) -> None:
        if not self._pipe.closed:
            self._reactor.removeReader(self)
            self._pipe.close()

    def _read(self) -> bool:
        """Read some; False at the end."""
        data = self._pipe.read(_CHUNK)
        if data:
            if self._last:
                self.kept += data
                del self.kept[: -self._most]
            else:
                self.kept += data[: self._most - len(self.kept)]
        return data != b""


@implementer(IReadDescriptor)
class _End:
    """Tells when a process has ended, once; or that the reactor stops before."""

    def __init__(self, reactor: Any, pid: int, ended: Callable[[], None], stopped: Callable[[], None]) -> None:
        self._reactor = reactor
        self._tell_ended = ended
        self._tell_stopped = stopped
        self._descriptor = os.pidfd_open(pid)
        reactor.addReader(self)

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "distbal.monitors.programs"

    def doRead(self) -> None:
        self._close()
        self._tell_ended()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops."""
        self._close()
        self._tell_stopped()

    def _close(self) -> None:
        if self._descriptor >= 0:
            self._reactor.removeReader(self)
            os.close(self._descriptor)
            self._descriptor = -1
