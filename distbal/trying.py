"""The daemon's side of a trial: starts :mod:`distbal.trial` by the code that is on the disk now, and hears what it says.

It runs as the new image would: by the same interpreter with the same options, in the same directory, as the same user, with the
same places to find modules in. Whatever becomes of it (it dies, hangs, talks nonsense) is a no with a reason.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from distbal.columns import safe
from distbal.execing import Start, UpgradeError
from distbal.monitors.programs import Ended, Program

#: seconds for an answer
PATIENCE = 30.0
#: bytes of an answer, and of what is said beside it, the last ones
MOST_ANSWER, MOST_SAID = 1 << 16, 1 << 14
#: lines of an answer, and of what a trial said that died; characters of one
MOST_REASONS, LAST_LINES, MOST_CHARACTERS = 40, 5, 500
#: variables of the environment that are the daemon's own: a trial speaks neither to systemd nor to a keeper
_OWN = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a trial.

    :ivar version: of the new code, where it said yes; "" where not.
    :ivar why: why not, at least one sentence; nothing where it said yes.
    :ivar said: what it said beside its answer, for the log: lines.
    """

    version: str = ""
    why: tuple[str, ...] = ()
    said: tuple[str, ...] = ()

    @property
    def yes(self) -> bool:
        """Whether the new code can go on."""
        return not self.why


class Trying:
    """A trial; made, it runs.

    :param start: how the daemon was started.
    :param path: hosts.yaml, absolute.
    :param ledger: descriptors of a copy of the ledger's two files; they are the caller's, who may close them at once.
    :param patience: seconds.
    :raises UpgradeError: it cannot be started.

    :ivar verdict: fires with a :class:`Verdict`; cancelled, it fails at once, and the trial is killed.
    """

    def __init__(self, reactor: Any, start: Start, path: str, ledger: tuple[int, int], *, patience: float = PATIENCE) -> None:
        words = [*command(start), path, *map(str, ledger), *(start.words if start.twistd else ())]
        try:
            self._program = Program(
                reactor,
                words,
                directory=start.directory,
                variables=variables(start, os.environ),
                descriptors=ledger,
                most=MOST_ANSWER,
                last=MOST_SAID,
            )
        except OSError as error:
            place = f" ({error.filename})" if error.filename else ""
            raise UpgradeError(f"the new code could not be tried: {error.strerror}{place}") from error
        self._patience = patience
        self._is_late = False
        self._late: IDelayedCall = reactor.callLater(patience, self._too_late)
        self.verdict: Deferred[Verdict] = self._program.outcome.addBoth(self._ended)

    def when_gone(self) -> Deferred[None]:
        """Fires when no process of it is left."""
        return self._program.when_gone()

    def _too_late(self) -> None:
        self._is_late = True
        self._program.outcome.cancel()

    def _ended(self, ended: Ended | Failure) -> Verdict | Failure:
        if self._late.active():
            self._late.cancel()
        if isinstance(ended, Ended):
            return understood(ended)
        if self._is_late and ended.check(CancelledError):  # type: ignore[no-untyped-call]
            return Verdict(why=(f"the trial did not answer within {self._patience:g} s",))
        return ended


def command(start: Start) -> list[str]:
    """What runs a trial, without its arguments."""
    # -P: not what happens to lie in the working directory, unless the daemon, too, was found by way of that (python -m)
    found_here = start.program[0].startswith("-")
    return [start.executable, *start.interpreter, *([] if found_here else ["-P"]), "-m", "distbal.trial"]


def variables(start: Start, environment: Mapping[str, str]) -> dict[str, str]:
    """A trial's environment."""
    found = {name: value for name, value in environment.items() if name not in _OWN and not name.startswith("DISTBAL_")}
    if not start.program[0].startswith("-") and not sys.flags.safe_path:
        # where the interpreter looks first when it runs a script
        beside = str(Path(start.directory, start.program[0]).resolve().parent)
        found["PYTHONPATH"] = os.pathsep.join([beside, *([found["PYTHONPATH"]] if found.get("PYTHONPATH") else [])])
    return found


def understood(ended: Ended) -> Verdict:
    """What a trial that has ended means."""
    said = tuple(_lines(ended.errors.decode(errors="replace").splitlines()))
    try:
        answer = json.loads(ended.output)
        yes, version, why = answer["yes"], answer.get("version", ""), answer.get("why", [])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Verdict(why=(_died(ended), *said[-LAST_LINES:]), said=said)
    if yes is True and ended.status == 0 and isinstance(version, str) and version:
        return Verdict(_line(version), said=said)
    if yes is False and isinstance(why, list) and why and all(isinstance(one, str) for one in why):
        return Verdict(why=tuple(_lines(why[:MOST_REASONS])), said=said)
    return Verdict(why=(_died(ended), *said[-LAST_LINES:]), said=said)


def _died(ended: Ended) -> str:
    if ended.status < 0:
        return f"the trial was ended by {_signal(-ended.status)}"
    if ended.output.strip():
        began = _line(ended.output[:80].decode(errors="replace"))
        return f'the trial answered what is no answer (status {ended.status}): "{began}"'
    return f"the trial ended with status {ended.status} and no answer"


def _signal(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"


def _lines(texts: Sequence[str]) -> list[str]:
    return [_line(text) for text in texts if text.strip()]


def _line(text: str) -> str:
    text = safe(" ".join(text.split()))
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 3] + "..."
