"""What happens to a keeper, and what it then does.

One turn waits for the channel, a signal or a time that has come. A turn in which packets came is followed by a nap, so that
those of the next milliseconds are served together: it is the waking that costs, not the packet. Nobody waits for the keeper
meanwhile; what a daemon has sent before its end is in the channel, and is read even when it is gone.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
import traceback
from typing import TYPE_CHECKING, NamedTuple

from distbal import __version__, keeperwire
from distbal.keeper import channel, child, replacing
from distbal.keeper.holding import Holdings
from distbal.keeper.signals import Signals
from distbal.keeperwire import Hello, Journal, Keeper, Ready, Role, Stopping

if TYPE_CHECKING:
    import array

    from distbal.keeper.saying import Voice
    from distbal.keeper.systemd import Systemd
    from distbal.keeperwire import FromDaemon

#: seconds
NAP = 0.005
LONGEST_WAIT = 1.0
#: how long a daemon may take to end when it is asked to, and when it is told to leave, in seconds
TO_STOP, TO_LEAVE = 30.0, 10.0
#: so many daemons in a row did not live with what they were given: the next one gets nothing
FUTILE = 5


class Settings(NamedTuple):
    """What ``distbal supervise`` was asked for.

    :ivar command: what starts the daemon.
    :ivar patience: how long it may be silent, in seconds.
    :ivar arguments: the keeper's own, for the code that follows this one.
    """

    command: list[str]
    patience: float
    arguments: list[str]


class Supervision:
    """The keeper.

    :param room: how many descriptors it may hold.
    """

    def __init__(self, settings: Settings, voice: Voice, systemd: Systemd, room: int) -> None:
        self._settings = settings
        self._voice = voice
        self._systemd = systemd
        self._holdings = Holdings(room)
        self._signals = Signals()
        self._epoll = select.epoll()
        self._epoll.register(self._signals, select.EPOLLIN)
        self._channel: channel.Channel | None = None
        self._writing = False
        self._life: child.Life | None = None
        self._start: float | None = time.monotonic()
        self._pauses = child.Pauses()
        self._futile = 0
        self._served = False
        self._restarts = 0
        self._last = ""
        self._since = time.time()
        self._asked = False  # the daemon says that somebody asked it to end
        self._stopping: float | None = None  # when patience with a daemon that is to end ends
        self._leaving = False
        self._full = False
        self._trial: replacing.Trial | None = None
        self._replace = False
        self._beat = 0.0  # when systemd is next told that all is well
        self._status: int | None = None

    def run(self) -> int:
        """Supervise until somebody asks for the end.

        :returns: the exit status.
        """
        self._signals.catch()
        try:
            while self._status is None:
                try:
                    self._turn()
                except Exception as error:  # noqa: BLE001  # whatever it is, what is held has to be held on
                    where = traceback.extract_tb(error.__traceback__)[-1]
                    self._voice.complain(
                        f"a mistake in the keeper itself, which goes on: {type(error).__name__}: {error}"
                        f" ({where.filename}:{where.lineno})"
                    )
                    time.sleep(NAP)
        finally:
            self._signals.release()
        return self._status

    def _turn(self) -> None:
        before = time.monotonic()
        timeout = self._timeout(before)
        events = self._epoll.poll(timeout)
        now = time.monotonic()
        if self._life is not None and now - before - timeout > child.JUMP:
            self._voice.say(f"the keeper did not run for {now - before:.0f} s: the daemon gets that time too")
            self._life = self._life._replace(heard=now)
        packets = False
        for descriptor, event in events:
            if descriptor == self._signals.fileno():
                for number in self._signals.come():
                    self._signal(number, now)
            elif self._channel is not None and descriptor == self._channel.fileno():
                packets = bool(event & ~select.EPOLLOUT)
                if packets:
                    self._receive(now)
        self._flush()
        self._holdings.sweep()
        self._due(now)
        if packets or self._writing:
            time.sleep(NAP)

    def _timeout(self, now: float) -> float:
        """How long to wait for something to happen, in seconds."""
        due = [now + LONGEST_WAIT, *[when for when in (self._start, self._stopping) if when is not None]]
        if self._life is not None:
            due.append(self._life.killing or self._life.deadline(self._settings.patience))
        if self._trial is not None:
            due.append(self._trial.deadline)
        if self._systemd.watchdog is not None:
            due.append(self._beat)
        return max(0.0, min(due) - now)

    def _due(self, now: float) -> None:
        """Do what has its time."""
        if self._systemd.watchdog is not None and now >= self._beat:
            self._beat = now + self._systemd.watchdog
            self._systemd.tell("WATCHDOG=1")
        if self._trial is not None and now >= self._trial.deadline:
            os.kill(self._trial.pid, signal.SIGKILL)
            self._trial = self._trial._replace(deadline=now + replacing.TRIAL)
        if self._life is not None:
            self._watch(self._life, now)
        elif self._start is not None and now >= self._start and self._status is None:
            self._start_daemon(now)
        if self._replace and self._trial is None and not self._writing:
            self._replace = False
            self._exec(now)

    def _watch(self, life: child.Life, now: float) -> None:
        """Kill a daemon that does not end, or that is silent."""
        if self._stopping is not None and now >= self._stopping:
            self._stopping = now + TO_STOP
            if not self._leaving:
                self._voice.say("the daemon does not end: it is killed")
            self._kill(life, signal.SIGKILL)
        elif life.killing is not None:
            if now >= life.killing:
                self._life = life._replace(killing=now + self._settings.patience)
                self._kill(life, signal.SIGKILL)
        elif now >= life.deadline(self._settings.patience):
            silent = now - life.heard
            self._voice.say(f"no sign of life of the daemon (process {life.pid}) for {silent:.0f} s: it is killed")
            self._life = life._replace(killing=now + child.LAST_WORDS, silent=silent)
            self._kill(life, signal.SIGABRT)

    # the daemon's beginning and end

    def _start_daemon(self, now: float) -> None:
        ours, theirs = channel.pair()
        environment = {name: os.environ[name] for name in ("LISTEN_FDS", "LISTEN_FDNAMES") if name in os.environ}
        try:
            pid = child.start(self._settings.command, theirs.fileno(), environment)
        except OSError as error:
            ours.close()
            pause = self._pauses.after(0.0)
            self._start = now + max(pause, child.SHORTEST)
            self._voice.say(f"{self._settings.command[0]} cannot be started: {error.strerror}; again in {pause:g} s")
            return
        finally:
            theirs.close()
        self._start = None
        self._life = child.Life(pid, now, now)
        self._asked = False
        self._take_channel(ours)
        self._voice.tell(f"the daemon is process {pid}")

    def _take_channel(self, sock: socket.socket) -> None:
        self._channel = channel.Channel(sock, self._voice.complain)
        self._epoll.register(sock, select.EPOLLIN)
        self._writing = False

    def _end_channel(self) -> None:
        if self._channel is not None:
            if not self._channel.ended:
                self._epoll.unregister(self._channel.sock)
            self._channel.close()
            self._channel = None
            self._writing = False

    def _reap(self, now: float) -> None:
        """Take notice of every process that has ended; as PID 1 of a container those of others too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._life is not None and pid == self._life.pid:
                self._daemon_ended(self._life, status, now)
            elif self._trial is not None and pid == self._trial.pid:
                self._tried(self._trial, status)

    def _daemon_ended(self, life: child.Life, status: int, now: float) -> None:
        while self._channel is not None and not self._channel.ended and self._receive(now):
            pass  # all that it had sent counts
        self._end_channel()
        self._life = None
        code = os.waitstatus_to_exitcode(status)
        if self._stopping is not None or self._asked:
            self._end(0)
            return
        how = child.ended(status)
        if life.silent:
            how = f"gave no sign of life for {life.silent:.0f} s, and was killed"
        if code >= 0 and life.ready is None and not self._served:
            # as twistd by itself: it has said why
            self._voice.say(f"the daemon {how} before it served: there is nothing to supervise")
            self._end(code)
            return
        self._last = f"process {life.pid} {how}"
        pause = self._pauses.after(life.served(now))
        self._count_futile(life, code, now)
        self._restarts += 1
        self._start = now + pause
        when = f"in {pause:g} s" if pause else "at once"
        self._voice.say(
            f"the daemon (process {life.pid}) {how}; a new one starts {when}, and gets {len(self._holdings)} descriptors"
        )
        self._systemd.tell(f"STATUS=The daemon {how}; starting again", f"MAINPID={os.getpid()}")

    def _count_futile(self, life: child.Life, code: int, now: float) -> None:
        """Whether what is held may be what ends them: each took it up, and did not live long. A kill -9 is no sign of it."""
        if life.served(now) >= child.A_WHILE:
            self._futile = 0
        elif life.given and (code != -signal.SIGKILL or life.silent):
            self._futile += 1
        if self._futile >= FUTILE:
            self._futile = 0
            self._voice.say(
                f"{FUTILE} daemons in a row ended soon after they took up what was held: all {len(self._holdings)} descriptors"
                " are dropped, and with them the clients' leases, and the next one starts with nothing"
            )
            self._holdings.clear()

    def _end(self, status: int) -> None:
        """The end of the keeper; what is held is stored, where that was wanted."""
        self._systemd.tell("STOPPING=1")
        if self._leaving and len(self._holdings):
            self._holdings.sweep()
            number = len(self._holdings)
            try:
                stored = self._systemd.store(self._holdings, replacing.write(self._state([])))
                self._voice.say(f"systemd keeps {stored} descriptors for the next start")
                if stored < number:
                    self._voice.say(f"{number - stored} descriptors are more than can be under way (unix(7)), and are dropped")
            except OSError as error:
                self._voice.say(f"systemd does not keep the {number} descriptors, and they are dropped: {error.strerror}")
        self._holdings.clear()
        self._status = status

    # what comes

    def _receive(self, now: float) -> bool:
        """Read and serve what is in the channel; whether there was anything."""
        assert self._channel is not None  # noqa: S101
        came = False
        for said, descriptors in self._channel.receive():
            came = True
            self._serve(said, descriptors, now)
        if self._channel.ended:
            # its process ends, or is silent from now on
            self._epoll.unregister(self._channel.sock)
        elif self._life is not None:
            # of any kind: what is wrong is a sign of life too
            self._life = self._life._replace(heard=now)
        return came

    def _serve(self, said: FromDaemon, descriptors: array.array[int], now: float) -> None:
        if isinstance(said, Journal):
            refused = self._holdings.hold(said.held[: len(descriptors)], descriptors)
            self._holdings.let_go(said.let_go)
            if refused and not self._full:
                self._voice.complain(
                    f"the keeper is full: it holds {len(self._holdings)} descriptors and no more (RLIMIT_NOFILE, LimitNOFILE=);"
                    " what comes now would not survive the daemon"
                )
            self._full = refused > 0
        elif self._life is None:
            pass  # it has ended: nothing else that it had to say counts, but for what follows
        elif isinstance(said, Hello):
            self._hello(said, now)
        elif isinstance(said, Ready):
            self._life = self._life._replace(ready=now)
            self._served = True
            self._voice.tell(f"the daemon, distbal {said.version}, is {said.status}")
            self._systemd.tell("READY=1", f"STATUS={said.status}", f"MAINPID={os.getpid()}")
        elif isinstance(said, Stopping):
            self._asked = True

    def _hello(self, said: Hello, now: float) -> None:
        assert self._channel is not None  # noqa: S101
        assert self._life is not None  # noqa: S101
        self._channel.drop_queue()
        given = said.give and len(self._holdings) > 0
        self._life = child.Life(self._life.pid, now, now, given=given, killing=self._life.killing)
        if said.give:
            self._holdings.sweep()
            self._channel.put_descriptors(self._holdings.keys())
        self._channel.put(keeperwire.end(self._news()))
        if given:
            self._voice.tell(f"the daemon, distbal {said.version}, takes up {len(self._holdings)} descriptors")
        if said.began == "upgrade":
            self._try_new_code(now)

    def _news(self) -> Keeper:
        return Keeper(__version__, os.getpid(), self._restarts, self._last, self._since)

    def _flush(self) -> None:
        """Send what is queued; wait for the channel where it is full."""
        if self._channel is None or self._channel.ended:
            self._writing = False
            return
        writing = not self._channel.flush(self._holdings)
        if writing is not self._writing:
            self._writing = writing
            self._epoll.modify(self._channel.sock, select.EPOLLIN | (select.EPOLLOUT if writing else 0))

    def _signal(self, number: int, now: float) -> None:
        if number == signal.SIGCHLD:
            self._reap(now)
        elif number in (signal.SIGHUP, signal.SIGUSR2):
            if self._life is not None:
                self._kill(self._life, number)
            elif number == signal.SIGUSR2:
                self._try_new_code(now)
        elif self._stopping is None:
            self._stop(now)

    def _kill(self, life: child.Life, number: int) -> None:
        # it is not reaped yet, so that its number is nobody else's
        os.kill(life.pid, number)

    def _stop(self, now: float) -> None:
        """Somebody asked for the end: the daemon goes first."""
        self._leaving = self._systemd.stores
        self._systemd.tell("STOPPING=1")
        self._stopping = now + (TO_LEAVE if self._leaving else TO_STOP)
        if self._life is None:
            self._end(0)
        elif not self._leaving:
            self._voice.tell("the daemon is asked to end")
            self._kill(self._life, signal.SIGTERM)
        elif self._life.ready is None or self._channel is None or self._channel.ended:
            self._kill(self._life, signal.SIGKILL)
        else:
            self._voice.tell("the daemon is told to leave")
            self._channel.put(keeperwire.LEAVE)
            self._flush()

    # new code of the keeper

    def _state(self, signals: list[int]) -> replacing.State:
        return replacing.State(
            held=self._holdings.table(),
            channel=self._channel.fileno() if self._channel is not None and not self._channel.ended else None,
            life=self._life,
            start=self._start,
            failures=self._pauses.failures,
            futile=self._futile,
            served=self._served,
            restarts=self._restarts,
            last=self._last,
            since=self._since,
            signals=signals,
        )

    def _try_new_code(self, now: float) -> None:
        if self._trial is not None or self._stopping is not None:
            return
        try:
            self._trial = replacing.start_trial(self._state([]), now)
        except OSError as error:
            self._voice.say(
                f"the keeper goes on as distbal {__version__}: the trial of new code cannot be started: {error.strerror}"
            )

    def _tried(self, trial: replacing.Trial, status: int) -> None:
        self._trial = None
        words = trial.words()
        if status == 0:
            self._replace = True
            return
        why = f"it {child.ended(status)}" if os.waitstatus_to_exitcode(status) >= 0 else "it took too long"
        self._voice.say(f"the keeper goes on as distbal {__version__}: the trial of new code says no: {words or why}")

    def _exec(self, now: float) -> None:
        if self._stopping is not None:
            return
        self._signals.block()
        state = self._state(self._signals.come())
        try:
            replacing.exec_new_code(state, self._settings.arguments)
        except OSError as error:
            self._voice.say(f"the keeper goes on as distbal {__version__}: the new code cannot be started: {error.strerror}")
            self._signals.unblock()
            for number in state.signals:
                self._signal(number, now)

    def resume(self, state: replacing.State) -> None:
        """Take up what the code before this one held; signals are blocked until :meth:`run`."""
        for number, role, descriptor in state.held:
            os.set_inheritable(descriptor, False)
            self._holdings.hold([(number, role)], [descriptor])
        self._remember(state)
        self._life, self._start = state.life, state.start
        if state.channel is not None:
            os.set_inheritable(state.channel, False)
            self._take_channel(socket.socket(fileno=state.channel))
            assert self._channel is not None  # noqa: S101
            self._channel.put(keeperwire.news(self._news()))
        self._signals.add(state.signals)
        self._voice.say(f"the keeper goes on as distbal {__version__}, and holds {len(self._holdings)} descriptors")

    def take_up(self) -> None:
        """Take up what systemd has kept for this unit, if it did."""
        stored = self._systemd.take_up()
        if stored is None:
            return
        try:
            self._remember(replacing.read(stored.state))
        except ValueError as error:
            self._voice.say(f"of what systemd kept only the descriptors are known: {error}")
        self._last = "the whole unit was restarted"
        self._served = True
        refused = self._holdings.hold(stored.keys, stored.descriptors)
        lost = f"; for {refused} there is no room" if refused else ""
        listeners = sum(key[1] == Role.LISTENER for key in stored.keys)
        self._voice.say(f"systemd kept {len(self._holdings)} descriptors, {listeners} of them ports{lost}")

    def _remember(self, state: replacing.State) -> None:
        self._pauses.failures, self._futile, self._served = state.failures, state.futile, state.served
        self._restarts, self._last, self._since = state.restarts, state.last, state.since
