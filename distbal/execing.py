"""How the running process is started anew, as the same process: exec, with the words that it was once started with.

What a person typed is the best account of what the daemon is; so those words are used again, changed only where what they ask
for has been done already (:func:`command`): twistd detached the process, gave up its rights, named itself in its pidfile. They
are read with twistd's own parser, not by guessing. Where the words cannot be used twice, UpgradeError says so.

execve(2) keeps the process's number, its directory, its umask, its ignored and its blocked signals, those that wait to be
delivered, and the descriptors that are marked so; all else is gone. A signal that came while nobody handles it yet would end
the new image: so they are held back before (:class:`HeldSignals`), and let through when its handlers stand (:func:`unblock`).
"""

from __future__ import annotations

import getopt
import os
import re
import signal
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from distbal.errors import DistbalError
from distbal.logs import Logger

#: what would end a process that does not handle it yet, and is somebody's ordinary word to a daemon. SIGUSR1 is twistd's
#: (another log file). Not SIGCHLD: it is ignored by whoever does not handle it, and whoever waits for a child looks first
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
#: twistd's umask for a process that it detaches, where no option says otherwise (twisted.scripts._twistd_unix)
_DETACHED_UMASK = "077"
#: and where that logs
DETACHED_LOG = "twistd.log"
#: what twistd has done once for good: rights that were given up are not there to be given up again
_SHED = ("uid", "gid", "euid")
#: options of the interpreter that have their value in the next word (python(1)), where it does not follow at once
_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")


class UpgradeError(DistbalError):
    """The new code cannot take over; the old goes on. The text says why, a line for each reason."""


@dataclass(frozen=True, slots=True)
class Start:
    """How this process was started.

    :ivar executable: the interpreter's path.
    :ivar interpreter: its options.
    :ivar program: what it runs: a script's path, or ``-m`` and a module's name, or ``-c`` and text.
    :ivar words: what stands behind that.
    :ivar twistd: whether those are twistd's options.
    :ivar directory: the working directory then; ``umask`` alike.
    """

    executable: str
    interpreter: tuple[str, ...]
    program: tuple[str, ...]
    words: tuple[str, ...]
    twistd: bool
    directory: str
    umask: int


@dataclass(frozen=True, slots=True)
class Command:
    """What to start, and what to see to before.

    :ivar words: all of them, the interpreter first.
    :ivar directory, umask: as at the start.
    :ivar pidfile: the absolute path of twistd's; "" for none.
    :ivar place: where in ``words`` an option may stand that takes it away.
    """

    words: tuple[str, ...]
    directory: str
    umask: int
    pidfile: str = ""
    place: int = 0

    @property
    def without_pidfile(self) -> tuple[str, ...]:
        """The words by which twistd neither looks at a pidfile nor writes one."""
        return (*self.words[: self.place], "--pidfile=", *self.words[self.place :])


# -- pure ---------------------------------------------------------------------------------------------------------------------


def read_start(
    executable: str, original: Sequence[str], arguments: Sequence[str], *, twistd: bool, directory: str, umask: int
) -> Start:
    """How a process was started.

    :param executable: sys.executable; ``original``: sys.orig_argv; ``arguments``: sys.argv without its first.
    :raises UpgradeError: it cannot be told.
    """
    before = list(original[1 : len(original) - len(arguments)])
    if not executable or list(original[len(original) - len(arguments) :]) != list(arguments):
        raise UpgradeError("it cannot be told how distbal was started: start it by twistd's own script, or python -m")
    options: list[str] = []
    while before and before[0].startswith("-") and before[0] not in ("-", "--") and not _is_program(before[0]):
        options.append(before.pop(0))
        if options[-1] in _WITH_VALUE and before:
            options.append(before.pop(0))
    if not before or before[0] in ("-", "--"):
        raise UpgradeError("distbal's program was read from standard input, where it is no more")
    return Start(executable, tuple(options), tuple(before), tuple(arguments), twistd, directory, umask)


def _is_program(word: str) -> bool:
    """Whether an option of the interpreter ends its options: -m and -c may stand behind other letters (``-um``)."""
    # the rest of -W and -X is their value
    return not word.startswith("--") and bool(re.match(r"-[^WX]*?[mc]", word))


def command(start: Start) -> Command:
    """What to exec.

    :raises UpgradeError: it was started in a way that cannot be used twice.
    """
    before = (start.executable, *start.interpreter, *start.program)
    if not start.twistd:
        return Command((*before, *start.words), start.directory, start.umask)
    options, rest, defaults = twistd_options(start.words)
    found = dict(options)
    if "chroot" in found:
        raise UpgradeError("distbal cannot be upgraded in place behind --chroot: the new code may not be there; restart it")
    if "debug" in found:
        raise UpgradeError("distbal cannot be upgraded in place under --debug, where SIGUSR2 calls the debugger; restart it")
    kept = [(name, value) for name, value in options if name not in _SHED]
    if "nodaemon" not in found:
        kept.append(("nodaemon", None))
        if not {"logfile", "syslog", "logger"} & found.keys():
            kept.append(("logfile", DETACHED_LOG))
        if "umask" not in found:
            kept.append(("umask", _DETACHED_UMASK))
    words = (*before, *(f"--{name}" if value is None else f"--{name}={value}" for name, value in kept))
    pidfile = found.get("pidfile", defaults["pidfile"])
    path = str(Path(start.directory) / pidfile) if pidfile else ""
    return Command((*words, *rest), start.directory, start.umask, path, len(words))


def twistd_options(words: Sequence[str]) -> tuple[list[tuple[str, str | None]], list[str], Mapping[str, Any]]:
    """Words behind ``twistd``: its options by their long names, and their values; the rest; and the defaults.

    :raises UpgradeError: twistd as it is now does not understand them.
    """
    from twisted.scripts._twistd_unix import ServerOptions

    # its tables alone are used: what it does with an option (install a reactor, trace every line) is not wanted
    parser = ServerOptions()  # type: ignore[no-untyped-call]
    try:
        found, rest = getopt.getopt(list(words), parser.shortOpt, parser.longOpt)
    except getopt.GetoptError as error:
        raise UpgradeError(f"twistd does not understand the options that distbal was started with: {error}") from error
    options: list[tuple[str, str | None]] = []
    for option, value in found:
        name: str = parser.synonyms[option.lstrip("-")]
        options.append((name, value if f"{name}=" in parser.longOpt else None))
    return options, rest, parser.defaults


# -- this process -------------------------------------------------------------------------------------------------------------


def remember() -> Start:
    """How this process was started. To be called before it changes its directory: where makeService is.

    Standard streams that are closed are /dev/null from now on: else a client's socket could get the number of one, and after
    an exec hear what is meant for the log.

    :raises UpgradeError: it cannot be told.
    """
    for stream in range(3):
        try:
            os.fstat(stream)
        except OSError:
            # the lowest number that is free is its own
            os.open(os.devnull, os.O_RDWR)
    umask = os.umask(0)
    os.umask(umask)
    try:
        directory = os.getcwd()  # noqa: PTH109 (Path.cwd() is the same, and this is what the system calls it)
    except OSError as error:
        raise UpgradeError(f"distbal was started in a directory that is gone: {error.strerror}") from error
    return read_start(
        sys.executable,
        sys.orig_argv,
        sys.argv[1:],
        # whoever parses twistd's options has loaded this; twist(1), and a program of somebody's own, have not
        twistd="twisted.scripts._twistd_unix" in sys.modules,
        directory=directory,
        umask=umask,
    )


class HeldSignals:
    """Signals that wait from now on, for the next image or for :meth:`release`. To be made in the main thread.

    Blocked in the main thread, a signal may still come by way of another one, whose Python handler then runs in the main
    thread: it is noted, and sent again to the main thread alone, where it waits. (A signal that comes so in the microseconds
    between the last look and the exec is lost.)
    """

    def __init__(self) -> None:
        self.came: list[int] = []
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self._handlers = {one: signal.getsignal(one) for one in SIGNALS}
        for one, handler in self._handlers.items():
            if callable(handler):
                signal.signal(one, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.came.append(signum)

    def pass_on(self) -> None:
        """Let those that came wait in the main thread."""
        came, self.came = self.came, []
        for one in came:
            signal.pthread_kill(threading.main_thread().ident or 0, one)

    def release(self) -> None:
        """All is as before; those that waited are handled."""
        for one, handler in self._handlers.items():
            if callable(handler):
                signal.signal(one, handler)
        self.pass_on()
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


def unblock() -> None:
    """Let signals through that were held back by an exec. To be called when whoever handles them is there.

    That is when the reactor runs (``reactor.callWhenRunning``): its own handlers for SIGTERM and SIGINT come with that. It
    does no harm where there was no exec.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def replace(
    new: Command, variables: Mapping[str, str], descriptors: Iterable[int], held: HeldSignals | None = None
) -> NoReturn:
    """Go on as another program, in this very process. To be called in the main thread.

    :param variables: of the environment, beside those that there are.
    :param descriptors: what the new image is to have, under the same numbers; everything else is closed.
    :param held: signals that are held back already.
    :raises UpgradeError: it could not be done; all is as before, but that signals are held back which the caller held.
    """
    with ExitStack() as undo:
        if held is None:
            held = HeldSignals()
            undo.callback(held.release)
        try:
            words = _leave_pidfile(new, undo)
            here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            undo.callback(os.close, here)
            _go_to(new.directory, here, undo)
            undo.callback(os.umask, os.umask(new.umask))
            for descriptor in descriptors:
                if not os.get_inheritable(descriptor):
                    os.set_inheritable(descriptor, True)
                    undo.callback(os.set_inheritable, descriptor, False)
            held.pass_on()
            os.execve(words[0], words, os.environ | variables)  # noqa: S606 (it is the same program)
        except OSError as error:
            place = f" ({error.filename})" if error.filename else ""
            raise UpgradeError(f"the new code could not be started: {error.strerror}{place}") from error


def _go_to(directory: str, here: int, undo: ExitStack) -> None:
    """Be where the process was started; where that is here, it need not be possible to come here again."""
    if not Path().samefile(directory):
        os.chdir(directory)
        undo.callback(os.chdir, here)


def _leave_pidfile(new: Command, undo: ExitStack) -> tuple[str, ...]:
    """Take the pidfile away, since twistd does not start where one names a living process, itself or not; the words to exec.

    Where it may not be taken away (/run is root's, and so is what twistd wrote there before it gave up its rights), or is
    another's, it stays as it is: it names the right process, and the new image is told to use none.
    """
    if not new.pidfile:
        return new.words
    path = Path(new.pidfile)
    try:
        text = path.read_bytes()
        if text.strip() != b"%d" % os.getpid():
            return new.without_pidfile
        path.unlink()
    except FileNotFoundError:
        # somebody else took it away
        return new.words if os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True) else new.without_pidfile
    except OSError:
        return new.without_pidfile
    undo.callback(_put_back, path, text)
    return new.words


def _put_back(path: Path, text: bytes) -> None:
    try:
        path.write_bytes(text)
    except OSError as error:
        # whoever looks for the process there misses it; no job does
        Logger(namespace="distbal.execing").error("{path} could not be put back: {why}", path=str(path), why=error.strerror)
