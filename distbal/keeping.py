"""The daemon's side of its keeper (``distbal supervise``): what it is given to hold, and when.

Descriptors are collected while the events of one turn of the loop are served, and go to the keeper together at its end. Only
then are those told who must not go on before the keeper has theirs: a client that is new gets its grant after its descriptor is
in safe hands. What is said *about* descriptors goes into the ledger (ledger.py), and costs no message.

A keeper that is gone, or that takes nothing for :data:`PATIENCE` seconds, is done without: the daemon says so and goes on
alone, and nobody waits any longer than that.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import time
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from distbal import keeperwire
from distbal.bugs import bugs
from distbal.keeperwire import End, Keeper, Key, Leave, News, Role
from distbal.ledger import Ledger
from distbal.logs import Logger
from distbal.periodic import Periodic
from distbal.report import KeeperReport

#: seconds for which a keeper that takes nothing is waited for
PATIENCE = 5.0
#: seconds until it is tried again
AGAIN = 0.005
#: seconds between two signs of life
BEAT = 1.0
#: seconds for the last word to a keeper that is slow
LAST_WORD = 1.0
#: keys of one packet that are let go, at the most
_MOST_LET_GO = 1000
#: the keeper's queue is full, or too many descriptors are on their way to it: it will take them in a moment
_FULL = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.ETOOMANYREFS, errno.ENOMEM})


class Handed(Protocol):
    """Whoever waits until the keeper has a descriptor."""

    def handed_over(self) -> None:
        """It has it, or there is no keeper any more. Must not raise."""


@implementer(IReadDescriptor)
class Keeping:
    """What the keeper is to hold.

    :param channel: a socket of packets, to the keeper; this object's from now on. None where that is gone.
    :param ledger: which it holds too.
    :param alone: why it is gone, where the process before was alone already. The ledger is kept true all the same: the keeper
        may still have it, and a process that takes it up is not to believe what was true before the upgrade.
    :param leave: called when the keeper wants this process to end, and the next one to go on.

    :ivar ledger: where what each descriptor is, is written.
    :ivar alone: the keeper is gone, and why; "" while it is there.
    :ivar lets_nothing_go: that is so, and it lives: what it holds it holds on, and closing is not enough any more.
    :ivar keeper: what it last said of itself.
    """

    log = Logger()

    def __init__(
        self, reactor: Any, channel: socket.socket | None, ledger: Ledger, leave: Callable[[], None], alone: str = ""
    ) -> None:
        self.ledger = ledger
        self.alone = alone
        # one that was left may be frozen, and not dead
        self.lets_nothing_go = bool(alone)
        self.keeper: Keeper | None = None
        self._reactor = reactor
        if channel is None:
            channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            channel.close()
        else:
            # nothing here waits for a keeper, also before the reactor runs
            channel.setblocking(False)
        self._channel = channel
        self._leave = leave
        # microseconds since 1970: greater than any number that an earlier process can have given out
        self._ids = itertools.count(time.time_ns() // 1000)
        #: what is to be handed over: the keys as they go into the packet, and for each its descriptor and who waits for that
        self._keys: list[Key] = []
        self._descriptors: list[int] = []
        self._waiting: list[Handed | None] = []
        self._gone: list[Key] = []
        self._stuck_since: float | None = None
        self._timer: IDelayedCall | None = None
        self._soon: IDelayedCall | None = None
        self._beats = Periodic(reactor, BEAT, lambda: self._say(keeperwire.BEAT), "to let the keeper hear that distbal lives")
        ledger.moved = self._notes_moved

    # -- the beginning and the end

    def start(self) -> None:
        """Listen to the keeper, and let it hear that we live."""
        if not self.alone:
            self._reactor.addReader(self)
            self._beats.start(now=True)
        elif self.lets_nothing_go:
            self.log.warn("the keeper is gone, since before the upgrade: {why}. distbal goes on alone", why=self.alone)

    def hold_ledger(self) -> None:
        """Let the keeper have the ledger's two files."""
        self.hold(0, Role.LEDGER, self.ledger.slots)
        self.hold(0, Role.NOTES, self.ledger.notes)
        self.flush()

    def ready(self, version: str, status: str) -> None:
        """We serve."""
        self._say(keeperwire.ready(version, status))

    def stopping(self) -> None:
        """We end, as somebody wished: there is to be no other after us, also where the keeper is slow to hear it."""
        # nothing is to be held for another, and what was on its way is closed
        self._keys, self._descriptors, self._waiting = [], [], []
        self.flush()
        ends = time.monotonic() + LAST_WORD
        while not self._say(keeperwire.STOPPING) and time.monotonic() < ends:
            time.sleep(AGAIN)

    def stop(self) -> None:
        """No more of this."""
        for call in (self._timer, self._soon):
            if call is not None and call.active():
                call.cancel()
        self._timer = self._soon = None
        self._beats.stop()
        if not self.alone:
            self._reactor.removeReader(self)
            self._channel.close()
            self.alone = "distbal stops"

    @property
    def is_idle(self) -> bool:
        """Whether the keeper has all that it was to be handed."""
        return not self._descriptors and not self._gone

    def report(self) -> KeeperReport:
        """For readers."""
        keeper = self.keeper or Keeper("", 0, 0, "", 0.0)
        pid, version, restarts, last = keeper.pid, keeper.version, keeper.restarts, keeper.last
        return {"pid": pid, "version": version, "restarts": restarts, "last": last, "gone": self.alone}

    # -- what it holds

    def new_id(self) -> int:
        """A number that no other thing has, in this process or an earlier one."""
        return next(self._ids)

    def not_below(self, ident: int) -> None:
        """Numbers begin above this one, which an earlier process gave out."""
        self._ids = itertools.count(max(next(self._ids), ident + 1))

    def hold(self, ident: int, role: int, descriptor: int, waits: Handed | None = None) -> None:
        """Hand a duplicate over, with the next batch.

        The caller sees to it that the batch goes (:meth:`flush`), or :meth:`soon` does; and, where the descriptor is closed
        before, that it does not (:meth:`forget`).
        """
        self._keys.append((ident, role))
        self._descriptors.append(descriptor)
        self._waiting.append(waits)

    def hold_instead(self, ident: int, role: int, descriptor: int, waits: Handed | None = None) -> None:
        """The same for one that comes in the place of another, which was let go of perhaps a moment ago."""
        # within a batch, what is let go comes after what is held
        if self._gone and (ident, role) in self._gone:
            self._gone.remove((ident, role))
        self.hold(ident, role, descriptor, waits)

    def let_go(self, ident: int, role: int) -> None:
        """The keeper need not hold this any more; it is told with the next batch."""
        if self._descriptors and (ident, role) in self._keys:
            self.forget(ident, role)
        self._gone.append((ident, role))

    def forget(self, ident: int, role: int) -> None:
        """What was to be handed over is closed before it was."""
        for place, key in enumerate(self._keys):
            if key == (ident, role):
                del self._keys[place], self._descriptors[place], self._waiting[place]
                return

    def soon(self) -> None:
        """See to it that the batch goes before long: for what happens outside of the hot loop's turn."""
        if self._soon is None:
            self._soon = self._reactor.callLater(0, self._soon_is_now)

    def _soon_is_now(self) -> None:
        self._soon = None
        self.flush()

    def flush(self) -> None:
        """Hand over what there is, now. Returns also when the keeper cannot take it yet: then it is tried again."""
        while self._descriptors or self._gone:
            if self.alone:
                waiting = self._waiting
                self._keys, self._descriptors, self._waiting, self._gone = [], [], [], []
                self._tell(waiting)
                continue
            descriptors = self._descriptors[: keeperwire.MAX_DESCRIPTORS]
            count = len(descriptors)
            gone = self._gone[:_MOST_LET_GO] if count == len(self._descriptors) else []
            packet = keeperwire.journal(self._keys[:count], gone)
            try:
                if descriptors:
                    socket.send_fds(self._channel, [packet], descriptors)
                else:
                    self._channel.send(packet)
            except OSError as error:
                if error.errno in _FULL:
                    self._wait(error)
                    return
                if error.errno == errno.EBADF and self._drop_closed():
                    continue
                self._go_on_alone(f"it cannot be told anything: {error.strerror}")
                continue
            waiting = self._waiting[:count]
            del self._keys[:count], self._descriptors[:count], self._waiting[:count], self._gone[: len(gone)]
            self._stuck_since = None
            self._tell(waiting)
        self._stuck_since = None

    def flushed(self, seconds: float) -> bool:
        """Hand over what there is, and wait for that so long at the most, while nobody is served; whether nothing is left."""
        end = time.monotonic() + seconds
        self.flush()
        while not (self.is_idle or self.alone) and time.monotonic() < end:
            time.sleep(AGAIN)
            self.flush()
        return self.is_idle or bool(self.alone)

    # -- the inside

    def _tell(self, waiting: list[Handed | None]) -> None:
        for who in waiting:
            if who is not None:
                try:
                    who.handed_over()
                except Exception:  # noqa: BLE001 (a bug in one connection: the others wait for this too)
                    bugs.met("connection", self.log, "a client could not be told that the keeper has its connection")

    def _drop_closed(self) -> int:
        """Forget what was closed and not forgotten, by a bug: the keeper is there for all others. How many those were."""
        closed = [place for place, descriptor in enumerate(self._descriptors) if not _is_open(descriptor)]
        for place in reversed(closed):
            del self._keys[place], self._descriptors[place], self._waiting[place]
        if closed:
            bugs.met("connection", self.log, "what the keeper was to hold was closed before it was handed over")
        return len(closed)

    def _wait(self, error: OSError) -> None:
        now = self._reactor.seconds()
        if self._stuck_since is None:
            self._stuck_since = now
        elif now - self._stuck_since > PATIENCE:
            self.lets_nothing_go = True
            self._go_on_alone(f"it has taken nothing for {PATIENCE:g} s ({error.strerror})")
            self.soon()
            return
        if self._timer is None:
            self._timer = self._reactor.callLater(AGAIN, self._try_again)

    def _try_again(self) -> None:
        self._timer = None
        self.flush()

    def _go_on_alone(self, why: str) -> None:
        self.alone = why
        self._reactor.removeReader(self)
        self._channel.close()
        self._beats.stop()
        self.log.error(
            "the keeper is gone: {why}. distbal goes on alone: jobs are served as before, but a crash would lose them."
            " Start it anew with distbal supervise when the farm is quiet",
            why=why,
        )

    def _say(self, packet: bytes) -> bool:
        """Whether it was said, or there is nobody to hear it; a keeper that is full will hear the next."""
        if self.alone:
            return True
        try:
            self._channel.send(packet)
        except OSError as error:
            if error.errno in _FULL:
                return False
            self._go_on_alone(f"it cannot be told anything: {error.strerror}")
        return True

    def _notes_moved(self) -> None:
        # the file before may still be on its way, and its number is another's in a moment
        self.forget(0, Role.NOTES)
        # at once, and before all else: the caller closes the old file next, and the keeper would go on with that one
        self._keys.insert(0, (0, Role.NOTES))
        self._descriptors.insert(0, self.ledger.notes)
        self._waiting.insert(0, None)
        self.flush()

    # -- for the reactor

    def fileno(self) -> int:
        return self._channel.fileno()

    def logPrefix(self) -> str:
        return "keeper"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops; :meth:`stop` closes what there is."""

    def doRead(self) -> None:
        """The keeper says something."""
        try:
            packet = self._channel.recv(keeperwire.MAX_PACKET)
        except BlockingIOError:
            return
        except OSError as error:
            self._go_on_alone(error.strerror or str(error))
            return
        if not packet:
            self._go_on_alone("it has ended")
            return
        try:
            said = keeperwire.from_keeper(packet)
        except ValueError as error:
            self._go_on_alone(f"it said what cannot be understood: {error}")
            return
        if isinstance(said, News | End):
            self.keeper = said.keeper
        elif isinstance(said, Leave):
            self._leave()


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
