"""What is known of hosts and what was counted, noted as it changes, for a process that goes on after this one.

A :class:`Notebook` walks the hosts, a tenth of them at a time, and notes those that have changed; so no turn of the loop is
long, however many there are. What is noted is a second old at the most, and more only where thousands of hosts change at once.
That a source or a person says something else of a host is noted at once, since it decides where jobs go. :func:`read_notes` is
the other end: of a note that cannot be read it says so, and goes on without it.

Where the notes go, and that they outlive this process, is the business of whoever gives ``put``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorTime

from distbal import checked
from distbal.activity import Activity
from distbal.bugs import bugs
from distbal.carried import CarriedHost, CarriedTotals, host_note, read_host, read_totals, totals_note
from distbal.checked import Fields, Wrong
from distbal.history import Entry
from distbal.hosts import Host
from distbal.leases import LocalLeases
from distbal.logs import Logger
from distbal.periodic import Periodic
from distbal.remembered import history_note, read_history
from distbal.termsnote import TERMS_NOTE, CarriedTerms, terms_note

if TYPE_CHECKING:
    from distbal.monitors.slots import Slots

#: seconds of one turn, and turns in which every host is looked at once
TURN, TURNS = 0.1, 10
#: notes on hosts in one turn, at about 25 microseconds each
MOST_NOTES = 50
#: ended attempts that are noted from second to second; all of them are where there is time for it, at an upgrade
LAST_ATTEMPTS = 100
#: where in a host's state (:meth:`Notebook._state`) is what a person decided
_ADMIN = 5
#: what the keys of notes on hosts begin with
HOST = "host/"
#: sentences about notes that cannot be read
MOST_WRONG = 20


class Notebook:
    """Notes what changes, from :meth:`start` to :meth:`stop`.

    :param put: takes a note: its key, and JSON, or ``b""`` where there is none any more. May raise: then it is tried again.
    :param slots: has averages of what was lent.
    :param activity: the last hour.
    :param began: when the first of these processes did, on the scheduler's clock.
    :param terms: by which slots are lent now; they are noted as long as the notes on all hosts are there. None: never.
    :param noted: keys of notes that are there already, from an earlier process.
    """

    log = Logger()

    def __init__(
        self,
        leases: LocalLeases,
        put: Callable[[str, bytes], None],
        clock: IReactorTime,
        *,
        slots: Slots | None = None,
        activity: Activity | None = None,
        began: float | None = None,
        terms: Callable[[], CarriedTerms] | None = None,
        noted: Iterable[str] = (),
    ) -> None:
        self._leases = leases
        self._scheduler = leases.scheduler
        self._put_note = put
        self._seconds: Callable[[], float] = clock.seconds
        self._slots = slots
        self._activity = activity
        self._began = began
        self._terms = terms
        #: the terms are noted; and all hosts were, since they changed, when those in line are
        self._terms_stand = self._all_in_line = False
        #: by the host's name: the state that was noted; None for one that only an earlier process noted
        self._noted: dict[str, tuple[Any, ...] | None] = {key.removeprefix(HOST): None for key in noted if key.startswith(HOST)}
        #: hosts that are still to be looked at in this round, the next one last
        self._line: list[Host] = []
        self._step = 0
        self._turns = 0
        self._counts: dict[str, int] = {}
        self._last_attempt: Entry | None = None
        self._bin: int | None = None
        #: keys of notes that could not be put
        self._failing: set[str] = set()
        self._call = Periodic(clock, TURN, self._turn, "to note what is known")

    def start(self) -> None:
        """Begin: the first turn is now."""
        self._leases.said = self.said
        self._call.start(now=True)

    def stop(self) -> None:
        """The end; does nothing where it has not begun."""
        self._leases.said = None
        self._call.stop()

    def write_all(self) -> None:
        """Note everything that is not noted as it is now: before another process takes over, in order."""
        hosts = self._scheduler.hosts
        for host in hosts.values():
            self._note_host(host)
        self._drop_gone()
        self._note_terms()
        self._note_totals()
        self._note_rest(last=None)

    def terms_change(self) -> None:
        """The farm or the terms are about to change: until all is noted as it is then, a new process reads the file first."""
        self._all_in_line = False
        if self._terms is not None:
            # where not even that can be noted, it is tried again with the next host that cannot be
            self._terms_stand = not self._put(TERMS_NOTE)

    def said(self, name: str) -> None:
        """Something was said of a host: note it now, where it changes what the host is given."""
        host = self._scheduler.hosts.get(name)
        if host is None:
            return
        state = self._noted.get(name)
        try:
            if state is None or _gist(state[0]) != _gist(host.health.verdicts) or state[_ADMIN] is not host.admin:
                self._note_host(host)
        except Exception:  # noqa: BLE001 (whoever said it has nothing to do with it)
            self._bug()

    def _turn(self) -> None:
        """One turn; an exception here would be a bug, and must not be the last turn."""
        try:
            if self._turns % TURNS == 0:
                if not self._line:
                    self._drop_gone()
                    self._line = list(self._scheduler.hosts.values())
                    self._all_in_line = True
                    self._step = ceil(len(self._line) / TURNS)
                self._note_totals()
                self._note_rest(last=LAST_ATTEMPTS)
            self._turns += 1
            self._walk()
            if self._all_in_line and not self._line:
                self._note_terms()
        except Exception:  # noqa: BLE001 (see above)
            self._bug()

    def _walk(self) -> None:
        left = MOST_NOTES
        line = self._line
        for _ in range(min(self._step, len(line))):
            left -= self._note_host(line.pop())
            if not left:
                return

    def _note_host(self, host: Host) -> bool:
        """Note it where it has changed; whether that was so."""
        name = host.spec.name
        state = self._state(host)
        if state == self._noted.get(name):
            return False
        if self._scheduler.hosts.get(name) is not host:
            return False  # it left while it stood in line
        if self._put(HOST + name, lambda: self._host(host, state[-1])):
            self._noted[name] = state
        elif self._terms_stand:
            # what is noted of this host is not so any more
            self.terms_change()
        return True

    def _host(self, host: Host, average: float | None) -> dict[str, Any]:
        note = host_note(host)
        if average is not None:
            note["average"] = [average, self._seconds()]
        return note

    def _state(self, host: Host) -> tuple[Any, ...]:
        """What its note depends on: whatever jobs told of it came with the end of a lease, or is said by a verdict."""
        name = host.spec.name
        average = None if self._slots is None else self._slots.kept_average(name)
        return (
            host.health.verdicts,
            host.granted,
            host.leases,
            host.spec,
            host.position,
            host.admin,
            host.decided,
            host.removed,
            None if average is None else round(average, 3),
        )

    def _drop_gone(self) -> None:
        for name in self._noted.keys() - self._scheduler.hosts.keys():
            if self._put(HOST + name):
                del self._noted[name]

    def _note_terms(self) -> None:
        """All hosts are noted, unless some could not be."""
        terms = self._terms
        if terms is not None and not self._terms_stand and not self._failing:
            self._terms_stand = self._put(TERMS_NOTE, lambda: terms_note(terms()))

    def _note_totals(self) -> None:
        counts = self._scheduler.counts
        if counts != self._counts and self._put("totals", lambda: totals_note(self._scheduler, self._began)):
            self._counts = counts

    def _note_rest(self, last: int | None) -> None:
        """:param last: how many ended attempts; None for all, and then the bin that fills is noted too."""
        history, activity = self._scheduler.history, self._activity
        latest = history.entries[-1] if history.entries else None
        if latest is not None and (latest is not self._last_attempt or last is None):
            if self._put("history", lambda: history_note(history, last)):
                self._last_attempt = latest
        if activity is not None and (activity.newest != self._bin or last is None):
            if self._put("activity", activity.note):
                self._bin = activity.newest

    def _put(self, key: str, make: Callable[[], object] | None = None) -> bool:
        """Put one note, or that there is none any more; whether that could be done."""
        try:
            self._put_note(key, b"" if make is None else json.dumps(make(), separators=(",", ":")).encode())
        except Exception as error:  # noqa: BLE001 (a full disk, a bound that is hit: other notes may still find room)
            if not self._failing:
                self.log.failure(
                    "the note {key} could not be written: {error}; a process that goes on after this one would not know (others"
                    " that cannot be are not told of)",
                    key=key,
                    error=error,
                    distbal_bug=True,  # bugs.MARK: a disk that is full twice is no bug that is known
                )
            self._failing.add(key)
            return False
        if self._failing:
            self._failing.discard(key)
            if not self._failing:
                self.log.info("everything can be noted again")
        return True

    def _bug(self) -> None:
        bugs.met(
            "periodic",
            self.log,
            "a bug: what is known could not be noted; a process that goes on after this would not know",
        )


def _gist(verdicts: Sequence[Any]) -> list[tuple[str, bool, int | None]]:
    """What of verdicts decides about a host."""
    return [(verdict.source, verdict.up, verdict.weight) for verdict in verdicts]


@dataclass(slots=True)
class Notes:
    """What an earlier process noted.

    :ivar hosts: as :mod:`distbal.takeup` takes them.
    :ivar averages: of slots lent, by the host's name, each with when that was: :meth:`give_averages` hands them on.
    :ivar history: for :meth:`distbal.history.History.take_up`.
    :ivar activity: a new one, with what was seen before.
    :ivar wrong: a sentence about each note that could not be read, and was left out; :data:`MOST_WRONG` at most.
    """

    hosts: list[CarriedHost] = field(default_factory=list)
    averages: dict[str, tuple[float, float]] = field(default_factory=dict)
    totals: CarriedTotals = field(default_factory=CarriedTotals)
    history: Sequence[Entry] = ()
    activity: Activity = field(default_factory=Activity)
    wrong: list[str] = field(default_factory=list)

    def give_averages(self, slots: Slots, names: Iterable[str], now: float) -> None:
        """Let the slots of the hosts with these names, which the file has, go on with their averages.

        After the leases were taken up, since what is lent now was lent meanwhile.
        """
        for name in names:
            if name in self.averages:
                value, at = self.averages[name]
                slots.take_up(name, value, now - at)


def read_notes(notes: Mapping[str, bytes]) -> Notes:
    """Whatever can be read of the notes of an earlier process; keys that mean nothing here are passed over."""
    read = Notes()
    for key, data in notes.items():
        if not (key in ("totals", "history", "activity") or key.startswith(HOST)):
            continue
        try:
            _read(read, key, checked.values(data))
        except ValueError as error:
            if len(read.wrong) < MOST_WRONG:
                read.wrong.append(f"the note {checked.shown(key)} is left out: {error}")
    return read


def _read(read: Notes, key: str, values: object) -> None:
    if key == "totals":
        read.totals = read_totals(values)
    elif key == "history":
        read.history = read_history(values)
    elif key == "activity":
        read.activity.take_up(values)
    else:
        host = read_host(values)
        name = host.spec.name
        if HOST + name != key:
            raise Wrong(f"it is about {checked.shown(name)}")
        average = Fields(values).each("average", 2)
        if average:
            if len(average) != 2:
                raise Wrong("average: a number and a time are wanted")
            at = checked.number(average[1], "average", -float(checked.MOST))
            read.averages[name] = checked.number(average[0], "average"), at
        read.hosts.append(host)
