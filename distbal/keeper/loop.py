"""What happens to a keeper, and what it then does.

One turn waits for the channel, a signal or a time that has come. A turn in which packets came is followed by a nap, so that
those of the next milliseconds are served together: it is the waking that costs, not the packet. Nobody waits for the keeper
meanwhile; what a daemon has sent before its end is in the channel, and is read even when it is gone.
"""

from __future__ import annotations

import os
import select
import signal
import time
import traceback
from typing import TYPE_CHECKING, NamedTuple

from distbal import __version__, keeperwire
from distbal.keeper import past, replacing, systemd
from distbal.keeper.channel import Channel
from distbal.keeper.child import Daemon, Life, ended
from distbal.keeper.holding import Holdings
from distbal.keeper.past import Past
from distbal.keeper.signals import Signals
from distbal.keeperwire import Hello, Journal, Keeper, Ready, Stopping

if TYPE_CHECKING:
    import array

    from distbal.keeper.saying import Voice
    from distbal.keeper.systemd import Systemd
    from distbal.keeperwire import FromDaemon

#: at a thousand clients a second it halves what the keeper costs, and that is in seconds what a daemon's start may take longer
NAP = 0.02
LONGEST_WAIT = 1.0
#: so many seconds after the time for which it had asked, the keeper itself was stopped, or the machine was
LATE = 1.0
#: how long a daemon may take to end when it is asked to, and when it is told to leave, in seconds
TO_STOP, TO_LEAVE = 30.0, 10.0


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
        self._daemon: Daemon | None = None
        self._start: float | None = time.monotonic()  # when one is to be started
        self._past = Past(time.time())
        self._writing = False  # whether the channel is full
        self._full = False  # whether the last that came had no room
        self._stopping: float | None = None  # when patience with a daemon that is to end ends
        self._leaving = False  # whether it is to leave all to the next, by way of systemd
        self._trial: replacing.Trial | None = None
        self._upgraded = False  # the daemon has new code, and the keeper has yet to look for its own
        self._replace = False  # whether a trial said yes
        self._next_beat = 0.0  # of the watchdog
        self._woken = time.monotonic()
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
                except Exception as error:  # noqa: BLE001 (whatever it is, what is held has to be held on)
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
        timeout = self._timeout(time.monotonic())
        events = self._epoll.poll(timeout)
        now = time.monotonic()
        late = now - self._woken - timeout
        self._woken = now
        if self._daemon is not None and late > LATE:
            self._voice.tell(f"the keeper was away for {late:.1f} s: the daemon gets that time too")
            self._daemon.excuse(late)
        packets = False
        for descriptor, event in events:
            if descriptor == self._signals.fileno():
                for number in self._signals.come():
                    self._signal(number, now)
            elif event & ~select.EPOLLOUT and self._daemon is not None:
                self._receive(self._daemon, now)
                packets = True
        if self._daemon is not None:
            self._flush(self._daemon)
        self._holdings.sweep()
        self._due(now)
        if packets or self._writing:
            time.sleep(NAP)

    def _timeout(self, now: float) -> float:
        """How long to wait for something to happen, in seconds."""
        due = [now + LONGEST_WAIT, *[when for when in (self._start, self._stopping) if when is not None]]
        if self._daemon is not None and self._stopping is None:
            due.append(self._daemon.due(self._settings.patience))
        if self._trial is not None:
            due.append(self._trial.deadline)
        if self._systemd.watchdog is not None:
            due.append(self._next_beat)
        return max(0.0, min(due) - now)

    def _due(self, now: float) -> None:
        """Do what has its time."""
        if self._systemd.watchdog is not None and now >= self._next_beat:
            self._next_beat = now + self._systemd.watchdog
            self._systemd.tell("WATCHDOG=1")
        if self._trial is not None and now >= self._trial.deadline:
            self._trial = self._trial._replace(deadline=now + replacing.TRIAL, late=True)
            os.kill(self._trial.pid, signal.SIGKILL)
        if self._daemon is not None:
            self._watch(self._daemon, now)
        elif self._start is not None and now >= self._start and self._status is None:
            self._start_daemon(now)
        if self._replace and not self._writing:
            self._replace = False
            self._exec(now)

    def _watch(self, daemon: Daemon, now: float) -> None:
        """Kill a daemon that does not end, or that is silent."""
        if self._stopping is not None:
            if now >= self._stopping:
                self._stopping = now + TO_STOP
                self._voice.say(f"the daemon (process {daemon.life.pid}) does not end: it is killed")
                daemon.signal(signal.SIGKILL)
        elif silent := daemon.watch(self._settings.patience, now):
            self._voice.say(f"no sign of life of the daemon (process {daemon.life.pid}) for {silent:.0f} s: it is killed")

    # the daemon's beginning and end

    def _start_daemon(self, now: float) -> None:
        try:
            daemon = Daemon.start(self._settings.command, self._voice.complain, now)
        except OSError as error:
            self._start = now + 1.0
            self._voice.complain(f"the daemon cannot be started: {error.strerror}; again in 1 s")
            return
        self._start = None
        self._take(daemon)
        self._voice.tell(f"the daemon is process {daemon.life.pid}")

    def _take(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._epoll.register(daemon.channel, select.EPOLLIN)
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
            if self._daemon is not None and pid == self._daemon.life.pid:
                self._daemon_ended(self._daemon, status, now)
            elif self._trial is not None and pid == self._trial.pid:
                self._tried(self._trial, status)

    def _daemon_ended(self, daemon: Daemon, status: int, now: float) -> None:
        # first: whatever goes wrong in what follows, its number may be another's from now on, and there has to be a next one
        self._daemon, self._writing, self._start = None, False, now
        while not daemon.channel.ended and self._receive(daemon, now):
            pass  # all that it had sent counts
        if not daemon.channel.ended:
            self._epoll.unregister(daemon.channel)
        daemon.channel.close()
        life = daemon.life
        code = os.waitstatus_to_exitcode(status)
        if self._stopping is not None or life.asked:
            self._past = self._past.forgetting(life, now)
            self._end(0)
        elif code >= 0 and self._past.hopeless(life):
            self._voice.say(f"the daemon {ended(status)} before it served: there is nothing to supervise")
            self._end(code)
        else:
            self._past, how, pause = self._past.after(life, status, now)
            self._start = now + pause
            self._systemd.tell(f"STATUS=The daemon {how}; starting again")
            when = f"in {pause:g} s" if pause else "at once"
            self._voice.say(
                f"the daemon (process {life.pid}) {how}; a new one starts {when}, and gets {len(self._holdings)} descriptors"
            )
            if self._past.futile >= past.FUTILE:
                self._give_up_what_is_held(now)

    def _give_up_what_is_held(self, now: float) -> None:
        self._past, self._start = self._past._replace(futile=0, failures=1), now
        self._voice.say(
            f"{past.FUTILE} daemons in a row ended soon after they took up what was held: all {len(self._holdings)} descriptors"
            " are dropped, and with them the clients' leases; the next daemon starts at once, with nothing"
        )
        self._holdings.clear()

    def _stop(self, now: float) -> None:
        """Somebody asked for the end: the daemon goes first."""
        self._leaving = self._systemd.stores
        self._systemd.tell("STOPPING=1")
        self._stopping = now + (min(TO_LEAVE, self._settings.patience) if self._leaving else TO_STOP)
        daemon = self._daemon
        if daemon is None:
            self._end(0)
        elif not self._leaving:
            self._voice.tell("the daemon is asked to end")
            daemon.signal(signal.SIGTERM)
        elif daemon.life.ready is None or daemon.channel.ended:
            daemon.signal(signal.SIGKILL)  # it may not listen yet, and everything is held
        else:
            self._voice.tell("the daemon is told to leave")
            daemon.channel.put(keeperwire.LEAVE)

    def _end(self, status: int) -> None:
        """The end of the keeper; what is held is stored, where that was wanted."""
        self._holdings.sweep()
        number = len(self._holdings)
        if self._leaving and number:
            try:
                stored = self._systemd.store(self._holdings, replacing.write(self._state([])))
                self._voice.say(f"systemd has {stored} descriptors, for a restart")
                if stored < number:
                    self._voice.say(f"{number - stored} descriptors are more than may be under way (unix(7)): they are dropped")
            except OSError as error:
                self._voice.say(f"systemd does not keep the {number} descriptors, and they are dropped: {error.strerror}")
        self._holdings.clear()
        self._status = status

    def _receive(self, daemon: Daemon, now: float) -> bool:
        """Read and serve what is in the channel; whether there was anything."""
        came = False
        for said, descriptors in daemon.channel.receive():
            came = True
            self._serve(daemon, said, descriptors, now)
        if daemon.channel.ended:
            # its process ends, or is silent from now on
            self._epoll.unregister(daemon.channel)
        else:
            # of any kind: what is wrong is a sign of life too
            daemon.heard(now)
        return came

    def _serve(self, daemon: Daemon, said: FromDaemon, descriptors: array.array[int], now: float) -> None:
        if isinstance(said, Journal):
            refused = self._holdings.hold(said.held[: len(descriptors)], descriptors)
            self._holdings.let_go(said.let_go)
            if refused and not self._full:
                self._voice.complain(
                    f"the keeper is full: it holds {len(self._holdings)} descriptors and no more (RLIMIT_NOFILE, LimitNOFILE=);"
                    " what comes now would not survive the daemon"
                )
            self._full = refused > 0
        elif isinstance(said, Hello):
            self._greet(daemon, said, now)
        elif isinstance(said, Ready):
            daemon.life = daemon.life._replace(ready=now)
            if self._upgraded:
                # not before: clients wait for the daemon, which needs the processor more
                self._upgraded = False
                self._try_new_code(now)
            self._past = self._past._replace(served=True)
            self._voice.tell(f"the daemon, distbal {said.version}: {said.status}")
            self._systemd.tell("READY=1", f"STATUS={said.status}", f"MAINPID={os.getpid()}", patience=systemd.PATIENCE)
        elif isinstance(said, Stopping):
            daemon.life = daemon.life._replace(asked=True)

    def _greet(self, daemon: Daemon, said: Hello, now: float) -> None:
        self._past = self._past.forgetting(daemon.life, now)
        given = said.give and len(self._holdings) > 0
        daemon.life = Life(daemon.life.pid, now, now, given=given, killing=daemon.life.killing, silent=daemon.life.silent)
        daemon.channel.drop_queue()
        if given:
            self._holdings.sweep()
            daemon.channel.put_descriptors(self._holdings.keys())
            self._voice.tell(f"the daemon, distbal {said.version}, takes up {len(self._holdings)} descriptors")
        daemon.channel.put(keeperwire.end(self._news()))
        self._upgraded = said.began == "upgrade"

    def _news(self) -> Keeper:
        return Keeper(__version__, os.getpid(), self._past.restarts, self._past.last, self._past.since)

    def _flush(self, daemon: Daemon) -> None:
        """Send what is queued; wait for the channel where it is full."""
        if daemon.channel.ended:
            return
        writing = not daemon.channel.flush(self._holdings)
        if writing is not self._writing:
            self._writing = writing
            self._epoll.modify(daemon.channel, select.EPOLLIN | (select.EPOLLOUT if writing else 0))

    def _signal(self, number: int, now: float) -> None:
        if number == signal.SIGCHLD:
            self._reap(now)
        elif number in (signal.SIGHUP, signal.SIGUSR2):
            if self._daemon is not None:
                self._daemon.signal(number)
            elif number == signal.SIGUSR2:
                self._try_new_code(now)
        elif self._stopping is None and self._status is None:
            self._stop(now)

    # new code of the keeper

    def _state(self, signals: list[int]) -> replacing.State:
        daemon = self._daemon
        return replacing.State(
            held=self._holdings.table(),
            channel=None if daemon is None else daemon.channel.fileno(),
            life=None if daemon is None else daemon.life,
            start=self._start,
            past=self._past,
            signals=signals,
        )

    def _try_new_code(self, now: float) -> None:
        if self._trial is None and not self._replace and self._stopping is None:
            try:
                self._trial = replacing.start_trial(self._state([]), now)
            except OSError as error:
                self._go_on(f"the trial of new code cannot be started: {error.strerror}")

    def _tried(self, trial: replacing.Trial, status: int) -> None:
        self._trial = None
        words = trial.words(status)
        self._replace = status == 0
        if status:
            self._go_on(f"the trial of new code says no: {words}")

    def _go_on(self, why: str) -> None:
        self._voice.say(f"the keeper goes on as distbal {__version__}: {why}")

    def _exec(self, now: float) -> None:
        if self._stopping is not None:
            return
        self._signals.block()
        signals = self._signals.come()
        try:
            replacing.exec_new_code(self._state(signals), self._settings.arguments)
        except OSError as error:
            self._go_on(f"the new code cannot be started: {error.strerror}")
        finally:
            # however it failed: deaf to signals it would not see a daemon's end
            self._signals.unblock()
            for number in signals:
                self._signal(number, now)

    def resume(self, state: replacing.State) -> None:
        """Take up what the code before this one held; signals are blocked until :meth:`run`."""
        for number, role, descriptor in state.held:
            os.set_inheritable(descriptor, False)
            self._holdings.hold([(number, role)], [descriptor])
        self._past, self._start = state.past, state.start
        if state.channel is not None and state.life is not None:
            daemon = Daemon(state.life, Channel(replacing.inherited(state.channel), self._voice.complain))
            daemon.channel.put(keeperwire.news(self._news()))
            self._take(daemon)
        self._signals.add(state.signals)
        self._voice.say(f"the keeper goes on as distbal {__version__}, and holds {len(self._holdings)} descriptors")

    def take_up(self) -> None:
        """Take up what systemd has kept for this unit, if it did; signals are blocked until :meth:`run`."""
        # one that ended this process now would end with it what is in no store any more
        self._signals.block()
        stored = self._systemd.take_up()
        if stored is None:
            return
        try:
            self._past = replacing.read(stored.state).past
        except ValueError as error:
            self._voice.say(f"of what systemd kept only the descriptors are known: {error}")
        self._past = self._past._replace(served=True, last="the whole unit was restarted")
        refused = self._holdings.hold(stored.keys, stored.descriptors)
        lost = f"; for {refused} there is no room" if refused else ""
        self._voice.say(f"systemd kept {len(self._holdings)} descriptors{lost}")
