"""``distbal probe``: every monitor asks every host once, here and now, and what they say is shown.

For whoever sets a farm up, or wonders why a host is down: the answers come from the same code that the daemon runs, with the
file's own options, and no daemon is needed. Nothing is reported to one. Weights that are worked out between two looks are not
known after one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from distbal import columns
from distbal.config import load
from distbal.errors import ConfigError, DistbalError
from distbal.interfaces import Reading
from distbal.monitors.answers import Answer, Bug, Trouble
from distbal.monitors.watch import Assignment
from distbal.places import HOSTS_FILE

#: hosts' names and reasons have their own columns; what is known beside stands behind these
_HEADS = ("HOST", "MONITOR", "STATE", "WEIGHT", "TOOK", "WHAT IT SAID")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE, and perhaps HOST, several or none."""
    parser.description = (
        "Let the monitors of hosts.yaml ask the hosts once, now, and show what they say."
        " Exit status: 0 when every host is up by all of them, 1 otherwise."
    )
    parser.add_argument("file", nargs="?", metavar="FILE", default=HOSTS_FILE, help=f"default: {HOSTS_FILE}")
    parser.add_argument("hosts", nargs="*", metavar="HOST", help="only these hosts, by their names in the file")
    parser.add_argument("--monitor", action="append", metavar="NAME", help="only this monitor (may be given several times)")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


@dataclass(frozen=True, slots=True)
class Asked:
    """One answer.

    :ivar took: seconds until it came.
    """

    assignment: Assignment
    answer: Answer
    took: float

    @property
    def state(self) -> str:
        """One word for it."""
        if isinstance(self.answer, Reading):
            return "up" if self.answer.up else "down"
        return {Trouble: "trouble", Bug: "bug"}.get(type(self.answer), "nothing")

    @property
    def words(self) -> str:
        """What was said."""
        if isinstance(self.answer, Reading):
            return self.answer.reason
        return self.answer.text if self.answer is not None else "had no occasion to ask"


def run(args: argparse.Namespace) -> int:
    """Ask, and print; 0 when every answer is "up", 1 otherwise."""
    try:
        loaded = load(args.file)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    wanted = choose(loaded.settings.monitors, [host.name for host in loaded.settings.farm.hosts], args)
    answers = _ask_all(loaded.settings, wanted)
    text = as_json(answers) if args.json else table(answers)
    sys.stdout.write(f"{text}\n")
    missing = len(wanted) - len(answers)
    if missing:
        sys.stderr.write(f"distbal: interrupted: {missing} of {len(wanted)} answers had not come\n")
    return 0 if not missing and all(one.state == "up" for one in answers) else 1


def choose(assignments: Iterable[Assignment], hosts: list[str], args: argparse.Namespace) -> list[Assignment]:
    """Those that the command line asks for.

    :raises DistbalError: there is none, in words.
    """
    assignments = list(assignments)
    for host in args.hosts:
        if host not in hosts:
            raise DistbalError(f"{args.file} has no host {host}; it has {', '.join(hosts[:20])}")
    sources = list(dict.fromkeys(one.source for one in assignments))
    for source in args.monitor or ():
        if source not in sources:
            raise DistbalError(f"{args.file} has no monitor {source}; it has {', '.join(sources) or 'none'}")
    if not assignments:
        raise DistbalError(f"{args.file} has no monitors: write some, such as monitors: {{tcp: true}}")
    chosen = [
        one
        for one in assignments
        if (not args.hosts or one.target.name in args.hosts) and (not args.monitor or one.source in args.monitor)
    ]
    if not chosen:
        monitors = f"monitor {' or '.join(args.monitor)}" if args.monitor else "monitor"
        raise DistbalError(f"{args.file}: no {monitors} asks {' or '.join(args.hosts)}")
    return chosen


def _ask_all(settings: Any, assignments: list[Assignment]) -> list[Asked]:
    """Run the reactor until all have answered, or somebody interrupts it; what came, in the order of the assignments."""
    from twisted.internet import reactor as any_reactor
    from twisted.internet.defer import gatherResults

    from distbal.leases import LocalLeases
    from distbal.lookup import Lookup, SystemResolver
    from distbal.monitors.kit import Surroundings
    from distbal.monitors.slots import Slots
    from distbal.scheduler import Scheduler

    reactor: Any = any_reactor
    leases = LocalLeases(Scheduler(settings.farm), reactor)
    asking = _Asking(Surroundings(reactor, Lookup(reactor, SystemResolver(reactor)), Slots(leases)))

    def begin() -> None:
        asked = gatherResults([asking.ask(one) for one in assignments], consumeErrors=True)
        # after an interrupt it has stopped already
        asked.addErrback(failures.append).addBoth(lambda _: reactor.stop() if reactor.running else None)

    failures: list[Any] = []
    reactor.callWhenRunning(begin)
    reactor.run()
    answers = [asking.answers[one.key] for one in assignments if one.key in asking.answers]
    asking.end()
    leases.stop()
    for failure in failures:
        failure.raiseException()
    return answers


class _Asking:
    """Asks hosts once each, of each kind no more at once than it allows.

    :ivar answers: those that came, by the assignments' keys.
    """

    def __init__(self, surroundings: Any) -> None:
        self.answers: dict[tuple[str, str], Asked] = {}
        self._surroundings = surroundings
        self._places: dict[str, Any] = {}
        self._running: list[Any] = []

    def ask(self, assignment: Assignment) -> Any:
        """Ask when its kind's turn comes; fires when the answer is there, and the monitor is stopped."""
        from twisted.internet.defer import DeferredSemaphore

        kind = assignment.kind
        if kind.name not in self._places:
            self._places[kind.name] = DeferredSemaphore(kind.most_at_once)
        return self._places[kind.name].run(self._ask_now, assignment)

    def end(self) -> None:
        """Let go of whatever still runs, after an interrupt."""
        for check in list(self._running):
            with suppress(BaseException):  # theirs
                check.cancel()

    def _ask_now(self, assignment: Assignment) -> Any:
        from twisted.internet.defer import fail, maybeDeferred
        from twisted.python.failure import Failure

        from distbal.monitors.answers import BugError, answer, begin
        from distbal.monitors.rounds import CANCEL_TIME
        from distbal.monitors.stops import STOP_TIME

        reactor, timeout = self._surroundings.reactor, assignment.options.timeout
        seconds: Callable[[], float] = reactor.seconds
        began = seconds()
        late: list[bool] = []
        monitor: Any = None
        try:
            monitor = assignment.kind.monitor(assignment.target, assignment.options, self._surroundings)
            check = begin(monitor)
        except BaseException:  # noqa: BLE001 (a bug of the monitor's: it is shown)
            check = fail(Failure())  # type: ignore[no-untyped-call]

        def too_late() -> None:
            late.append(True)
            # a canceller that raises leaves a check that does not end
            with suppress(Exception):
                check.cancel()

        def ended(result: Any) -> Any:
            if timer.active():
                timer.cancel()
            self._running.remove(check)
            said = answer(assignment, result, overdue=bool(late))
            self.answers[assignment.key] = Asked(assignment, said, seconds() - began)
            if monitor is not None:
                return _within(reactor, STOP_TIME, maybeDeferred(monitor.stop), None).addErrback(lambda _: None)
            return None

        self._running.append(check)
        timer = reactor.callLater(timeout, too_late)
        hangs = Failure(BugError("a check was cancelled and did not end"))  # type: ignore[no-untyped-call]
        return _within(reactor, timeout + CANCEL_TIME, check, hangs).addBoth(ended)


def _within(reactor: Any, seconds: float, waited: Any, otherwise: Any) -> Any:
    """Fires as that Deferred does, or after so many seconds with something else, whatever its own cancelling does."""
    from twisted.internet.defer import Deferred

    first: Deferred[Any] = Deferred()

    def tell(result: Any) -> None:
        if timer.active():
            timer.cancel()
        if not first.called:
            first.callback(result)

    timer = reactor.callLater(seconds, tell, otherwise)
    waited.addBoth(tell)
    return first


def table(answers: list[Asked]) -> str:
    """The answers for people, in the order of the file."""
    return "\n".join(columns.table(_HEADS, [_row(one) for one in answers], right=(3, 4)))


def _row(one: Asked) -> tuple[str, ...]:
    answer = one.answer
    weight, words = "", one.words
    if isinstance(answer, Reading):
        weight = "" if answer.weight is None else f"{answer.weight:.2f}"
        known = dict(answer.facts) | ({} if answer.slots is None else {"slots": answer.slots})
        if known:
            words += f" ({', '.join(f'{name} {_shown(fact)}' for name, fact in known.items())})"
    return one.assignment.target.name, one.assignment.source, one.state, weight, f"{one.took * 1000:.0f} ms", words


def _shown(fact: object) -> str:
    if isinstance(fact, tuple):
        return " ".join(fact) or "none"
    return f"{fact:.4g}" if isinstance(fact, float) else str(fact)


def as_json(answers: list[Asked]) -> str:
    """The answers for programs: a list, one object for each."""
    return json.dumps(
        [
            {
                "host": one.assignment.target.name,
                "monitor": one.assignment.source,
                "kind": one.assignment.kind.name,
                "state": one.state,
                "words": one.words,
                "took": round(one.took, 6),
                "weight": one.answer.weight if isinstance(one.answer, Reading) else None,
                "slots": one.answer.slots if isinstance(one.answer, Reading) else None,
                "facts": dict(one.answer.facts) if isinstance(one.answer, Reading) else {},
            }
            for one in answers
        ],
        indent=2,
    )
