"""When to ask, and what no answer means: every monitor of every host, one check after the other.

- Checks come every ``interval`` seconds, spread evenly over it and jittered. While a change is undecided (``fall``, ``rise``),
  the next one comes after a third of that.
- Of one kind and one host never two run at once, and of one kind no more than it allows (``turns.py``). What is too much waits.
- The timeout is enforced here: the check is cancelled, and what that means its kind says. One that does not end even then has a
  bug.
- A monitor that raises, hangs or answers nonsense hurts itself alone: it is stopped, counted and shown, and made anew after a
  pause that grows.
- What a monitor says of a host is a verdict that expires; so a monitor that says nothing any more holds nobody down, or up.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from distbal.bugs import bugs
from distbal.complaints import Complaints
from distbal.deadlines import Deadlines
from distbal.interfaces import Reading
from distbal.judge import Opinion
from distbal.leases import LocalLeases
from distbal.loads import SAMPLE
from distbal.logs import Logger
from distbal.monitors.answers import Bug, BugError, Trouble, answer, begin
from distbal.monitors.kit import Surroundings
from distbal.monitors.stops import Stops
from distbal.monitors.turns import Turns
from distbal.monitors.watch import Assignment, Watch, WatchState
from distbal.periodic import Periodic
from distbal.ranking import Ranking

#: how far a check may be from its place in the interval, as a share of that
JITTER = 0.05
#: the part of the interval after which the next check comes while a change is undecided
SOONER = 1 / 3
#: seconds between two looks at what is due: checks that lie closer together are begun together, since a daemon that wakes up
#: for each of them would spend most of its time on waking up
GRAIN = 0.1
#: checks that are begun together at the most, and seconds that this may take before jobs are served in between
BATCH, SPELL = 8, 0.001
#: seconds that a cancelled check may take to end
CANCEL_TIME = 5.0
#: seconds for which a check may hold the reactor up before that is a complaint
LONG = 0.1
#: multiples of this, less whole numbers, are spread evenly however many there are (the golden ratio)
_SPREAD = 0.6180339887498949


class Rounds:
    """The monitors of a farm.

    :param leases: told what the monitors say.
    :param surroundings: what monitors get; its reactor's clock is the scheduler's.
    :param draw: randomness, for the jitter.
    """

    log = Logger()

    def __init__(self, leases: LocalLeases, surroundings: Surroundings, draw: random.Random | None = None) -> None:
        self._leases = leases
        self._surroundings = surroundings
        self._clock = surroundings.reactor
        self._seconds: Callable[[], float] = surroundings.reactor.seconds
        self._draw = random.Random() if draw is None else draw
        self._complain = Complaints(self.log, self._seconds)
        self._watches: dict[tuple[str, str], Watch] = {}
        self._due: Ranking[Watch] = Ranking()
        self._timer: IDelayedCall | None = None
        self._timer_due = 0.0
        #: while those that are due are begun: what is planned meanwhile needs no timer
        self._looking = False
        self._sampler = Periodic(self._clock, SAMPLE, surroundings.slots.sample, "to sample the slots that are lent")
        self._turns = Turns(self._begin)
        #: by timeout
        self._timeouts: dict[float, Deadlines[Watch]] = {}
        self._cancelled: Deadlines[Watch] = Deadlines(self._clock, CANCEL_TIME, self._hangs)
        #: by source: how many there were, so that the next one is spread among them
        self._serials: dict[str, int] = {}
        self._stops = Stops(self._clock, self._complain)
        self._stopped = False

    # -- what the service calls

    def configure(self, assignments: Iterable[Assignment]) -> None:
        """Have these monitors from now on.

        Those that stay as they are go on. One of which only the options change begins anew, with what was said last: a host
        that is down does not come up by that. What the others said is forgotten.
        """
        wanted = {one.key: one for one in assignments}
        before, self._watches = self._watches, {}
        gone = [watch for key, watch in before.items() if wanted.get(key) != watch.assignment]
        self._retire(gone)
        for watch in gone:
            if not _same(watch.assignment, wanted.get(watch.assignment.key)):
                self._leases.forget(*watch.assignment.key)
        now = self._seconds()
        for key, assignment in wanted.items():
            known = before.get(key)
            if known is None or known.gone:
                watch = Watch(assignment, now + self._place(assignment))
                self._due.put(watch, watch.base)
                if known is not None and _same(known.assignment, assignment) and self._leases.heard(*key):
                    watch.judge.opinion = known.judge.opinion
                    self._tell(watch, watch.judge.opinion)
                elif known is None and (verdict := self._leases.verdict(*key)) is not None:
                    # an earlier process heard that
                    watch.judge.opinion = Opinion(verdict.up, verdict.weight, verdict.reason)
                known = watch
            self._watches[key] = known
        self._set_timer()
        if self._watches:
            self._sampler.start()

    def suspend(self) -> Deferred[Any]:
        """Ask nobody until :meth:`configure` is called; what was said holds. Fires when no check runs on."""
        watches, self._watches = list(self._watches.values()), {}
        self._retire(watches)
        return self._stops.all_over()

    def stop(self) -> Deferred[Any]:
        """The end: no check runs on, and every monitor has been stopped when this fires, or has had its time."""
        self._stopped = True
        watches, self._watches = list(self._watches.values()), {}
        self._retire(watches)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._sampler.stop()
        for deadlines in self._timeouts.values():
            deadlines.stop()
        return self._stops.all_over().addCallback(self._end)

    def _end(self, _: object) -> None:
        """Whoever still leaves has had its time."""
        for watch in list(self._stops.leaving):
            self._hangs(watch)
        self._cancelled.stop()

    def states(self) -> tuple[WatchState, ...]:
        """What there is to show, in the order of the file."""
        return tuple(watch.state() for watch in self._watches.values())

    # -- when

    def _place(self, assignment: Assignment) -> float:
        """Where in the interval its checks are, in seconds from the interval's beginning."""
        serial = self._serials[assignment.source] = self._serials.get(assignment.source, 0) + 1
        return (serial * _SPREAD) % 1.0 * assignment.options.interval

    def _plan(self, watch: Watch, now: float) -> None:
        """Say when the next check of this one comes."""
        interval = watch.assignment.options.interval
        jitter = interval * JITTER * (2.0 * self._draw.random() - 1.0)
        if watch.paused_until is not None:
            due = watch.paused_until
        elif watch.judge.undecided:
            due = now + (interval + jitter) * SOONER
        else:
            # the next place that is more than half an interval away from the last check
            turns = (max(now, watch.began + interval / 2) - watch.base) // interval + 1
            due = max(now, watch.base + turns * interval + jitter)
        self._due.put(watch, max(due, watch.began + watch.assignment.kind.least_interval))
        self._set_timer()

    def _set_timer(self) -> None:
        first = self._due.first()
        if first is None or self._stopped or self._looking:
            return
        due = self._due.key(first)
        now = self._seconds()
        due = max(due, now + GRAIN)
        if self._timer is not None:
            if due >= self._timer_due:
                return
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._clock.callLater(self._timer_due - now, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._seconds()
        self._looking = True
        try:
            begun = 0
            while (watch := self._due.first()) is not None and self._due.key(watch) <= now:
                if begun == BATCH or self._seconds() - now > SPELL:
                    self._timer_due = now
                    self._timer = self._clock.callLater(0, self._look)
                    break
                self._due.discard(watch)
                self._ask(watch)
                begun += 1
        finally:
            self._looking = False
            self._set_timer()

    def _ask(self, watch: Watch) -> None:
        """Let its check begin when its turn comes. If that cannot be, its next one comes all the same."""
        try:
            self._turns.ask(watch)
        except Exception:  # noqa: BLE001 (whatever it is, no monitor dies of it)
            bugs.met("periodic", self.log, "{source} of {host} could not be asked; it is tried again", **watch.names)
            watch.began = self._seconds()
            self._plan(watch, watch.began)

    # -- one check

    def _begin(self, watch: Watch) -> None:
        assignment = watch.assignment
        watch.began = began = self._seconds()
        watch.checks += 1
        watch.paused_until = None
        watch.overdue = False
        try:
            if watch.monitor is None:
                watch.monitor = assignment.kind.monitor(assignment.target, assignment.options, self._surroundings)
            check = begin(watch.monitor)
        except (Exception, SystemExit):  # noqa: BLE001 (whatever it is, it is the monitor's alone)
            self._over(watch, Failure())  # type: ignore[no-untyped-call]
            return
        took = self._seconds() - began
        if took > LONG:
            self._complain("{source} of {host} held up every job for {took:.2f} s", took=took, **watch.names)
        watch.check = check
        if not check.called or check.paused:
            self._timeout(assignment.options.timeout).add(watch)
        check.addBoth(self._ended, watch, check)

    def _timeout(self, seconds: float) -> Deadlines[Watch]:
        deadlines = self._timeouts.get(seconds)
        if deadlines is None:
            deadlines = self._timeouts[seconds] = Deadlines(self._clock, seconds, self._too_late)
        return deadlines

    def _too_late(self, watch: Watch) -> None:
        watch.overdue = True
        watch.late += 1
        self._cancelled.add(watch)
        self._cancel(watch)

    def _cancel(self, watch: Watch) -> None:
        check = watch.check
        try:
            if check is not None:
                check.cancel()
        except Exception:  # noqa: BLE001 (a canceller of the monitor's own)
            if watch.check is check:
                # that is no silence of the host's
                watch.overdue = False
                self._give_up(watch, Failure())  # type: ignore[no-untyped-call]

    def _hangs(self, watch: Watch) -> None:
        """It was cancelled, and does not end: what still comes from it is not heard."""
        if watch.check is not None:
            self._give_up(watch, Failure(BugError("a check was cancelled and did not end")))  # type: ignore[no-untyped-call]

    def _ended(self, result: Any, watch: Watch, check: Deferred[Any]) -> None:
        """A check's Deferred fired."""
        if watch.check is check:  # else it was given up
            self._give_up(watch, result)

    def _give_up(self, watch: Watch, result: Any) -> None:
        """Nothing more is expected of the check that runs."""
        watch.check = None
        self._timeout(watch.assignment.options.timeout).discard(watch)
        self._cancelled.discard(watch)
        self._over(watch, result)

    def _over(self, watch: Watch, result: Any) -> None:
        """A check has ended, however it did: hear what it says, plan the next one, and let one begin that waited."""
        try:
            with bugs.survived("monitor", self.log, "what {source} says of {host} could not be heard", **watch.names):
                if watch.gone:
                    self._stops.check_ended(watch)
                else:
                    self._hear(watch, result)
        finally:
            if not watch.gone:
                self._plan(watch, self._seconds())
            self._turns.over(watch)

    # -- what it says

    def _hear(self, watch: Watch, result: Any) -> None:
        self._note_expiry(watch)
        # many answers are one and the same object, which was looked at before
        known = watch.reading if result is not None and result is watch.answer else None
        said = answer(watch.assignment, result, overdue=watch.overdue) if known is None else known
        if isinstance(said, Reading):
            # one that had to be cut is not kept whole
            watch.answer = result if said == result else None
            self._read(watch, said)
        elif said is None:
            self._fine(watch)
            self._tell(watch, watch.judge.opinion)
        elif isinstance(said, Trouble):
            self._missed(watch, said.text)
        else:
            self._met_bug(watch, said)

    def _read(self, watch: Watch, reading: Reading) -> None:
        now = self._seconds()
        watch.reading, watch.read_at = reading, now
        watch.took = now - watch.began if reading.took is None else reading.took
        watch.failed += not reading.up
        self._fine(watch)
        # a host that the file no longer names will be followed here in a moment
        if reading.slots is not None and self._leases.propose_slots(watch.assignment.target.name, reading.slots):
            self.log.info("{host} runs {slots} jobs at once, says {source}", slots=reading.slots, **watch.names)
        self._tell(watch, watch.judge.hear(reading))

    def _missed(self, watch: Watch, trouble: str) -> None:
        """A check could not be made."""
        watch.troubled += 1
        if not watch.trouble:
            watch.told = self._complain("{source} cannot ask: {host} {trouble}", trouble=trouble, **watch.names)
        watch.trouble = trouble
        self._tell(watch, watch.judge.miss(trouble))

    def _fine(self, watch: Watch) -> None:
        """A check was made."""
        watch.bugs_in_a_row = 0
        if watch.trouble:
            watch.trouble = ""
            if watch.told:
                self.log.info("{source} can ask {host} again", **watch.names)

    def _met_bug(self, watch: Watch, bug: Bug) -> None:
        """The monitor broke its contract: stop it, and leave it alone for a while."""
        bugs.count("monitor")
        pause = watch.pause(self._seconds()) - self._seconds()
        watch.told = self._complain(
            "the monitor {source} of {host} has a bug, and is made anew in {pause:g} s: {details}",
            pause=round(pause, 1),
            details=bug.details,
            **watch.names,
        )
        watch.trouble = bug.text
        self._stops.dismiss(watch)
        self._tell(watch, watch.judge.miss(watch.trouble))

    def _tell(self, watch: Watch, opinion: Opinion | None) -> None:
        """Say it to the scheduler; None: nothing."""
        if opinion is None:
            return
        host, source = watch.assignment.key
        try:
            changed = self._leases.report(
                host, source, up=opinion.up, reason=opinion.reason, weight=opinion.weight, ttl=watch.holds_for(self._seconds())
            )
        except KeyError:
            return  # the file no longer names it, and will be followed here in a moment
        if changed:
            log = self.log.info if opinion.up else self.log.warn
            state = "up" if opinion.up else "down"
            log("{host} is {state}, says {source}: it {reason}", state=state, host=host, source=source, reason=opinion.reason)

    def _note_expiry(self, watch: Watch) -> None:
        """What it said may hold no longer, since it was not heard again: then it starts anew."""
        opinion = watch.judge.opinion
        if opinion is None or self._leases.heard(*watch.assignment.key):
            return
        watch.judge.forget()
        if not opinion.up:
            self.log.warn("{source} could not ask for too long: that {host} is down holds no longer", **watch.names)

    # -- the end of one

    def _retire(self, watches: list[Watch]) -> None:
        """These are no longer wanted."""
        for watch in watches:
            watch.gone = True
        for watch in watches:
            self._due.discard(watch)
            if watch.check is not None and not watch.overdue:
                self._timeout(watch.assignment.options.timeout).discard(watch)
                self._cancelled.add(watch)
                self._cancel(watch)
            if watch.check is None:
                self._stops.dismiss(watch)
            else:
                # its monitor is stopped when the check has ended
                self._stops.dismiss_later(watch)


def _same(one: Assignment, other: Assignment | None) -> bool:
    """Whether the same is asked, be it with other options."""
    return other is not None and one.target == other.target and one.kind is other.kind
