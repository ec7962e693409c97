"""``compile``: a tiny compile by each compiler named, through distcc's own protocol: the only proof that a server works.

An open port is none: the system of a host answers for a distccd that is stopped, stuck or full, and distccd never says "busy".
A host is up by this where one of the compilers works at least; which do is shown, and so are the others, with the reason.

A probe is a job: on a host in service it takes a slot, the next one that is free, before any client. Where none becomes free
while half of the timeout is left for the compile, there was no occasion to ask; but after five minutes without an answer the
next slot that becomes free is kept for the next check. On a host that is down or drained there is no slot to be had, and none
needed.
"""

from __future__ import annotations

import re
from typing import Annotated

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectingCancelledError
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from zope.interface import implementer

from distbal.errors import MonitorTrouble, WireError
from distbal.forms import Unfit, listed, setting, shown, text
from distbal.interfaces import IHostMonitor, IHostMonitorFactory, Reading, Target
from distbal.monitors.distccwire import COMPILER_MISSING, AnswerReader, Compiled, request
from distbal.monitors.exchange import Caller, Ending, printable
from distbal.monitors.kit import Count, Interval, MonitorKind, MonitorOptions, Surroundings, Timeout, Unreachable, connect
from distbal.monitors.slots import Loan, Slots

#: how a check ends that is cancelled, while connecting or later
_GIVEN_UP = (CancelledError, ConnectingCancelledError)

#: seconds without an answer after which a busy host's next free slot is kept for the next check
LONGEST = 300.0

_COMPILER = r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}"
_COMPILERS = "names of compilers, such as [gcc, g++]"


def _compiler(value: str) -> str:
    if re.fullmatch(_COMPILER, value):
        return value
    raise Unfit(f"{shown(value)} is no name of a compiler: it has neither a path nor options, as in [gcc, g++]")


class CompileOptions(MonitorOptions):
    """What stands behind ``compile`` in hosts.yaml."""

    interval: Interval = setting(30, "Seconds from one check of a host to the next.")
    timeout: Timeout = setting(10, "Seconds that a check may take, for a free slot and all compilers together.")
    fall: Count = setting(2, "Checks in a row that must fail before the host is down.")
    rise: Count = setting(1, "Checks in a row that must succeed before it is up again.")
    compilers: Annotated[list[Annotated[str, text(_COMPILER, _compiler, _COMPILERS)]], listed(f"{_COMPILERS}", unique=True)] = (
        setting(["gcc"], "The compilers that are tried, one after the other. The host is up where one of them works.")
    )


@implementer(IPlugin, IHostMonitorFactory)
class CompileKind(MonitorKind):
    """Makes monitors of this kind."""

    name = "compile"
    description = "does a tiny compile work, and by which compilers?"
    options = CompileOptions
    # silent ones hold their place for the whole timeout, and every verdict is to be renewed in time
    most_at_once = 200
    silence_is_down = True

    def monitor(self, target: Target, options: CompileOptions, surroundings: Surroundings) -> CompileMonitor:
        """Make a monitor of one host."""
        return CompileMonitor(target, options, surroundings)


class _CannotError(Exception):
    """A compiler does not work there; the text says why, as the end of a sentence that begins with the host's name."""


class _Reservation:
    """The next slot of a host, kept until it is wanted.

    :ivar loan: the slot, once it is there.
    :ivar refused: it will not come: queue.wait bounds this wait, too.
    """

    def __init__(self, slots: Slots, name: str) -> None:
        self.loan: Loan | None = None
        self.refused = False
        self._coming = slots.take(name).addCallbacks(self._came, self._refused)

    def _came(self, loan: Loan) -> None:
        self.loan = loan

    def _refused(self, _: Failure) -> None:
        self.refused = True

    def end(self) -> None:
        """It is not wanted any more."""
        self._coming.cancel()
        if self.loan is not None:
            self.loan.give_back()


@implementer(IHostMonitor)
class CompileMonitor:
    """Compiles on one host."""

    def __init__(self, target: Target, options: CompileOptions, surroundings: Surroundings) -> None:
        self._target = target
        self._compilers = options.compilers
        self._timeout = options.timeout
        self._surroundings = surroundings
        self._seconds = surroundings.reactor.seconds
        self._answered: float = surroundings.reactor.seconds()
        self._reservation: _Reservation | None = None

    async def check(self) -> Reading | None:
        """Compile once by each compiler; None where the host had no slot free."""
        slots, name = self._surroundings.slots, self._target.name
        began = self._seconds()
        loan: Loan | None = None
        try:
            if slots.in_service(name):
                loan = await self._borrow()
                if loan is None:
                    return None
            else:
                self.stop()
            waited = self._seconds() - began
            reading = await self._try_all()
        except KeyError:
            raise MonitorTrouble("is in the file no longer") from None
        except _GIVEN_UP:
            if waited > self._timeout / 2:
                return None  # most of the time went into waiting for a slot, and that is not the host's fault
            raise
        finally:
            if loan is not None:
                loan.give_back()
        self._answered = self._seconds()
        return reading

    def stop(self) -> None:
        """Let go of the slot that is kept for the next check, if there is one."""
        if self._reservation is not None:
            self._reservation.end()
            self._reservation = None

    async def _borrow(self) -> Loan | None:
        """A slot; None where none was free in time, which says nothing of the host."""
        slots, name = self._surroundings.slots, self._target.name
        if self._reservation is None and not slots.has_free(name) and self._seconds() > self._answered + LONGEST:
            self._reservation = _Reservation(slots, name)
        if self._reservation is not None:
            reservation = self._reservation
            if reservation.loan is not None or reservation.refused:
                self._reservation = None
            return reservation.loan
        try:
            return await slots.take(name)
        except (CancelledError, MonitorTrouble):
            return None

    async def _try_all(self) -> Reading:
        good: list[str] = []
        bad: dict[str, str] = {}
        for compiler in self._compilers:
            try:
                await self._compile(compiler)
            except Unreachable as problem:
                return problem.reading()
            except _CannotError as problem:
                bad[compiler] = str(problem)
            except _GIVEN_UP:
                if not good:
                    raise
                bad[compiler] = "did not answer in time"
                break
            else:
                good.append(compiler)
        facts = {"compilers": tuple(good)} | ({"missing": tuple(f"{name}: {why}" for name, why in bad.items())} if bad else {})
        if not good:
            return Reading(up=False, reason=next(iter(bad.values())), facts=facts)
        without = f", and not with {' or '.join(bad)}" if bad else ""
        return Reading(up=True, reason=f"compiles with {' and '.join(good)}{without}", facts=facts)

    async def _compile(self, compiler: str) -> None:
        """Compile once, or raise why that does not work."""
        caller = await connect(self._surroundings, self._target.host, self._target.port, Caller)
        reader = AnswerReader()
        try:
            ending: Ending = await caller.ask(request(compiler), reader.feed)
        except WireError as problem:
            raise _CannotError(str(problem)) from problem
        if reader.compiled is not None:
            _judge(compiler, reader.compiled)
        elif reader.begun:
            raise _CannotError("broke off its answer")
        else:
            # distccd's way of refusing a client, or a compiler that is not in its list
            how = "closed" if ending is Ending.CLOSED else "broke the connection"
            raise _CannotError(f"{how} without an answer: does its list have {compiler}, and may we use it? its log may say")


def _judge(compiler: str, compiled: Compiled) -> None:
    """Raise where that is no success."""
    said = f": {printable(compiled.words)}" if compiled.words.strip() else ""
    if compiled.exit_code == COMPILER_MISSING:
        raise _CannotError(f"has no {compiler}")
    if compiled.exit_code < 0:
        raise _CannotError(f"had its {compiler} killed by signal {-compiled.exit_code}{said}")
    if compiled.exit_code:
        raise _CannotError(f"cannot compile with {compiler}: exit status {compiled.exit_code}{said}")
    if not compiled.size:
        raise _CannotError(f"sent no object for a compile with {compiler}")
