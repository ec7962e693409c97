"""An upgrade in place, step by step: the new code is tried, the service gets ready, whoever asked is told, and exec.

Until the exec nothing is lost: jobs go on while the new code is tried and while the service gets ready, and whatever fails, the
code that runs goes on and says why. What is handed over, and how, is the service's business (:class:`HandsOver`).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn, Protocol

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from distbal import __version__, execing
from distbal.bugs import bugs
from distbal.errors import DistbalError
from distbal.execing import Command, HeldSignals, Start, UpgradeError
from distbal.logs import Logger
from distbal.trying import Trying, Verdict

#: seconds for what was decided to be on the disk, and for those to be gone who cannot be carried
LONGEST_SAVE, LONGEST_LEAVE = 5.0, 8.0


class HandsOver(Protocol):
    """What an upgrade needs of the service as a whole, in the order in which it is called."""

    def copy_of_the_ledger(self) -> tuple[int, int]:
        """Descriptors of a copy of the ledger's two files, slots and notes, which the caller closes; the service goes on."""

    def prepare_to_hand_over(self) -> Deferred[None]:
        """Fires when all that is left can be carried: jobs that cannot be are drained, monitors have stopped. Leases go on."""

    def saved(self) -> Deferred[str]:
        """Fires when all that was to be kept is on the disk: with why it is not, or ""."""

    def take_leave(self) -> Deferred[None]:
        """Whoever cannot be carried, and has been answered, is seen off properly; fires when they have gone."""

    def hand_over(self) -> tuple[Mapping[str, str], Sequence[int]]:
        """Stop for good: variables of the environment, and the descriptors, that the next image is to have."""

    def go_on(self) -> None:
        """It came to nothing, at whatever step behind :meth:`copy_of_the_ledger`: serve as before."""


def started() -> Start | UpgradeError:
    """How this process was started; or why that cannot be told, to whoever wants to upgrade it."""
    try:
        return execing.remember()
    except UpgradeError as error:
        return error


@dataclass(frozen=True, slots=True)
class Going:
    """The new code said yes, and all is ready.

    :ivar before, after: versions.
    """

    before: str
    after: str

    def __str__(self) -> str:
        return f"distbal {self.before} goes on as {self.after}: the new code said yes"


class Upgrader:
    """Upgrades, one at a time.

    :param start: how the process was started; or why that cannot be told.
    :param path: hosts.yaml, absolute.
    :param by_signal: called with what is to be noted of an upgrade that SIGUSR2 asked for.
    :param tried: called with why an upgrade came to nothing, and with "" when one begins.
    :param try_out: starts a trial; ``replace``: execs, and returns only by UpgradeError.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        service: HandsOver,
        start: Start | UpgradeError,
        path: str,
        *,
        by_signal: Callable[[str], None],
        tried: Callable[[str], None],
        try_out: Callable[[Any, Start, str, tuple[int, int]], Trying] = Trying,
        replace: Callable[[Command, Mapping[str, str], Sequence[int], HeldSignals], NoReturn] = execing.replace,
    ) -> None:
        self._reactor = reactor
        self._service = service
        self._start = start
        self._path = path
        self._by_signal = by_signal
        self._tell_tried = tried
        self._try_out = try_out
        self._replace = replace
        self._trying: Trying | None = None
        #: the step that is waited for, once the new code said yes
        self._step: Deferred[Any] | None = None
        self._under_way = self._stopped = False
        self._signal_before: Any = None

    # -- start and stop

    def start(self) -> None:
        """Listen to SIGUSR2."""
        self._signal_before = signal.signal(signal.SIGUSR2, self._signalled)

    def stop(self) -> Deferred[None]:
        """The service stops: so does an upgrade that is under way; fires when nothing of it is left."""
        self._stopped = True
        if self._signal_before is not None:
            signal.signal(signal.SIGUSR2, self._signal_before)
            self._signal_before = None
        if self._step is not None:
            self._step.cancel()
        if self._trying is None:
            return succeed(None)
        gone = self._trying.when_gone()
        self._trying.verdict.cancel()
        return gone

    # -- an upgrade

    def upgrade(self) -> Deferred[Going]:
        """Try the new code, and get ready. What calls back on this Deferred is the last chance to tell anybody: exec follows.

        :returns: fires when all is ready; fails with UpgradeError where the code that runs goes on.
        """
        if self._stopped:
            return fail(UpgradeError("distbal stops"))
        if self._under_way:
            return fail(UpgradeError("an upgrade is under way already"))
        self._under_way = True
        self._tell_tried("")
        return Deferred.fromCoroutine(self._get_ready()).addCallbacks(self._is_ready, self._cannot)

    async def _get_ready(self) -> tuple[Command, Going]:
        if isinstance(self._start, UpgradeError):
            raise UpgradeError(str(self._start))
        command = execing.command(self._start)
        self.log.info("an upgrade: the new code is tried")
        verdict = await self._tried(self._start)
        for line in verdict.said:
            self.log.info("the new code said: {line}", line=line)
        if not verdict.yes:
            raise UpgradeError("\n".join(verdict.why))
        self.log.info("the new code, distbal {version}, said yes", version=verdict.version)
        try:
            await self._awaited(self._service.prepare_to_hand_over())
        except BaseException:
            self._go_on()
            raise
        return command, Going(__version__, verdict.version)

    async def _tried(self, start: Start) -> Verdict:
        ledger = self._service.copy_of_the_ledger()
        try:
            self._trying = self._try_out(self._reactor, start, self._path, ledger)
        finally:
            for descriptor in ledger:
                os.close(descriptor)
        try:
            return await self._trying.verdict
        finally:
            self._trying = None

    def _is_ready(self, ready: tuple[Command, Going]) -> Going:
        command, going = ready
        # whoever hears of it now has the rest of this turn to do what has to be done before
        self._step = deferLater(self._reactor, 0)
        Deferred.fromCoroutine(self._hand_over(command, self._step)).addErrback(self._failed)
        return going

    def _cannot(self, failure: Failure) -> Failure:
        self._under_way = False
        error = self._why(failure)
        if not self._stopped:
            for reason in str(error).splitlines():
                self.log.error("{reason}", reason=reason)
            self.log.error("distbal is not upgraded: version {version} goes on", version=__version__)
        self._tell_tried(str(error))
        return Failure(error)  # type: ignore[no-untyped-call]

    def _why(self, failure: Failure) -> UpgradeError:
        """In words."""
        error = failure.value
        if isinstance(error, UpgradeError):
            return error
        if self._stopped and isinstance(error, CancelledError):
            return UpgradeError("distbal stops")
        if isinstance(error, DistbalError):
            return UpgradeError(str(error))
        if isinstance(error, OSError):
            return UpgradeError(f"the system does not let it be: {error.strerror}")
        bugs.met("command", self.log, "a bug: an upgrade came to nothing", failure)
        return UpgradeError(f"a bug in distbal ({type(error).__name__}): its log tells more")

    # -- the exec

    async def _hand_over(self, command: Command, next_turn: Deferred[None]) -> None:
        await next_turn
        await self._within(self._service.saved(), LONGEST_SAVE, "what was decided is not on the disk yet")
        await self._within(self._service.take_leave(), LONGEST_LEAVE, "not everybody has gone who cannot be carried")
        held = HeldSignals()
        try:
            # what a signal asked for until now is done in this turn: it may be that we stop
            await self._awaited(deferLater(self._reactor, 0))
            variables, descriptors = self._service.hand_over()
            self.log.info("distbal {version} hands over", version=__version__)
            self._replace(command, variables, descriptors, held)
        finally:
            held.release()

    async def _within(self, step: Deferred[Any], seconds: float, otherwise: str) -> None:
        """Wait for a step, and no longer than so: the exec is not to hang on a disk, or on somebody who does not read."""
        try:
            await self._awaited(step.addTimeout(seconds, self._reactor))
        except DeferredTimeoutError:
            self.log.warn("{otherwise}, after {seconds:g} s: the upgrade goes on", otherwise=otherwise, seconds=seconds)

    async def _awaited(self, step: Deferred[Any]) -> None:
        if self._stopped:
            step.addErrback(lambda _: None).cancel()
            raise UpgradeError("distbal stops")
        self._step = step
        try:
            await step
        finally:
            self._step = None

    def _failed(self, failure: Failure) -> None:
        self._go_on()
        self._cannot(failure)

    def _go_on(self) -> None:
        if self._stopped:
            return
        try:
            self._service.go_on()
        except Exception:  # noqa: BLE001 (all that can still be done is to say so)
            bugs.met("command", self.log, "a bug: distbal cannot go on as before; restart it")

    # -- SIGUSR2

    def _signalled(self, signum: int, frame: FrameType | None) -> None:
        # the system called us between two instructions: the reactor does it when it can
        self._reactor.callFromThread(self._asked_by_signal)

    def _asked_by_signal(self) -> None:
        if self._under_way or self._stopped:
            self.log.warn("SIGUSR2: an upgrade is under way already")
            return
        # why not is in the log already
        self.upgrade().addCallbacks(lambda going: self._by_signal(str(going)), lambda _: None)
