"""When to ask, and what no answer means: every monitor of every host, one check after the other.

- Checks come every ``interval`` seconds, spread evenly over it and jittered. While a change is undecided (``fall``, ``rise``),
  the next one comes after a third of that.
- Of one monitor and one host never two run at once; of one kind no more than it allows. What is too much waits.
- The timeout is enforced here: the check is cancelled, and what that means its kind says. One that does not end even then has a
  bug.
- A monitor that raises, hangs or answers nonsense hurts itself alone: it is stopped, counted and shown, and made anew after a
  pause that grows.
- What a monitor says of a host is a verdict that expires; so a monitor that says nothing any more holds nobody down, or up.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from distbal.complaints import Complaints
from distbal.deadlines import Deadlines
from distbal.interfaces import Reading
from distbal.judge import Opinion
from distbal.leases import LocalLeases
from distbal.loads import SAMPLE
from distbal.monitors.answers import Bug, BugError, Trouble, answer, begin, named
from distbal.monitors.kit import Surroundings
from distbal.monitors.watch import Assignment, Watch, WatchState
from distbal.ranking import Ranking

#: how far a check may be from its place in the interval, as a share of that
JITTER = 0.05
#: the part of the interval after which the next check comes while a change is undecided
SOONER = 1 / 3
#: seconds between two looks at what is due: checks that lie closer together are begun together, since a daemon that wakes up
#: for each of them would spend most of its time on waking up
GRAIN = 0.1
#: checks that are begun together at the most: jobs are served in between
BATCH = 8
#: seconds that a cancelled check may take to end
CANCEL_TIME = 5.0
#: seconds that monitors have to stop
STOP_TIME = 5.0
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
        self._sampler: IDelayedCall | None = None
        #: by kind: how many checks run, and who waits until fewer do
        self._running: dict[str, int] = {}
        self._crowd: dict[str, deque[Watch]] = {}
        self._letting_in: set[str] = set()
        #: by timeout
        self._timeouts: dict[float, Deadlines[Watch]] = {}
        self._cancelled: Deadlines[Watch] = Deadlines(self._clock, CANCEL_TIME, self._hangs)
        #: by source: how many there were, so that the next one is spread among them
        self._serials: dict[str, int] = {}
        self._stopping: set[Deferred[Any]] = set()
        self._stopped = False

    # -- what the service calls

    def configure(self, assignments: Iterable[Assignment]) -> None:
        """Have these monitors from now on. Those that stay as they are go on; what the others said is forgotten."""
        wanted = {one.key: one for one in assignments}
        for key, watch in list(self._watches.items()):
            if wanted.get(key) != watch.assignment:
                del self._watches[key]
                self._retire(watch)
                self._leases.forget(*key)
        now = self._seconds()
        for key, assignment in wanted.items():
            if key not in self._watches:
                watch = self._watches[key] = Watch(assignment, now + self._place(assignment))
                self._due.put(watch, watch.base)
        self._set_timer()
        if self._watches and self._sampler is None:
            self._sampler = self._clock.callLater(SAMPLE, self._sample)

    def stop(self) -> Deferred[Any]:
        """The end: no check runs on, and every monitor has been stopped when this fires, or has had its time."""
        self._stopped = True
        for watch in self._watches.values():
            self._retire(watch)
        self._watches.clear()
        for call in (self._timer, self._sampler):
            if call is not None:
                call.cancel()
        self._timer = self._sampler = None
        for deadlines in self._timeouts.values():
            deadlines.stop()
        self._cancelled.stop()
        stopping = list(self._stopping)
        together: Deferred[Any] = DeferredList(stopping)
        if all(one.called for one in stopping):
            return together
        return together.addTimeout(STOP_TIME, self._clock).addErrback(lambda _: None)

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
            for _ in range(BATCH):
                watch = self._due.first()
                if watch is None or self._due.key(watch) > now:
                    break
                self._due.discard(watch)
                self._begin_or_wait(watch)
            else:
                self._timer_due = now
                self._timer = self._clock.callLater(0, self._look)
        finally:
            self._looking = False
            self._set_timer()

    def _begin_or_wait(self, watch: Watch) -> None:
        kind = watch.assignment.kind
        if self._running.get(kind.name, 0) < kind.most_at_once:
            self._begin(watch)
        else:
            self._crowd.setdefault(kind.name, deque()).append(watch)

    def _sample(self) -> None:
        self._sampler = self._clock.callLater(SAMPLE, self._sample)
        self._surroundings.slots.sample()

    # -- one check

    def _begin(self, watch: Watch) -> None:
        assignment = watch.assignment
        name = assignment.kind.name
        self._running[name] = self._running.get(name, 0) + 1
        watch.began = began = self._seconds()
        watch.checks += 1
        watch.paused_until = None
        watch.overdue = False
        try:
            if watch.monitor is None:
                watch.monitor = assignment.kind.monitor(assignment.target, assignment.options, self._surroundings)
            check = begin(watch.monitor)
        except BaseException:  # noqa: BLE001 (whatever it is, sys.exit() included, it is the monitor's alone)
            self._over(watch, Failure())  # type: ignore[no-untyped-call]
            return
        took = self._seconds() - began
        if took > LONG:
            self._complain("{source} of {host} held up every job for {took:.2f} s", took=took, **_names(watch))
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
        if watch.check is None:
            return
        try:
            watch.check.cancel()
        except BaseException:  # noqa: BLE001 (a canceller of the monitor's own)
            self._met_bug(watch, Bug.of(Failure()))  # type: ignore[no-untyped-call]

    def _hangs(self, watch: Watch) -> None:
        """It was cancelled, and does not end: what still comes from it is not heard."""
        if watch.check is not None:
            watch.check = None
            self._over(watch, Failure(BugError("a check was cancelled and did not end")))  # type: ignore[no-untyped-call]

    def _ended(self, result: Any, watch: Watch, check: Deferred[Any]) -> None:
        """A check's Deferred fired."""
        if watch.check is not check:
            return  # it was given up
        watch.check = None
        self._timeout(watch.assignment.options.timeout).discard(watch)
        if watch.overdue:
            self._cancelled.discard(watch)
        self._over(watch, result)

    def _over(self, watch: Watch, result: Any) -> None:
        """A check has ended, however it did: hear what it says, plan the next one, and let one begin that waited."""
        name = watch.assignment.kind.name
        self._running[name] -= 1
        if not watch.gone:
            try:
                self._hear(watch, result)
            finally:
                if not watch.gone:
                    self._plan(watch, self._seconds())
        self._let_in(name, watch.assignment.kind.most_at_once)

    def _let_in(self, name: str, most: int) -> None:
        """Let those begin that waited for a check of this kind to end."""
        crowd = self._crowd.get(name)
        if not crowd or name in self._letting_in:
            return  # a check that ends at once comes here again: it must not go deeper with each
        self._letting_in.add(name)
        try:
            while crowd and not self._stopped and self._running[name] < most:
                following = crowd.popleft()
                if not following.gone:
                    self._begin(following)
        finally:
            self._letting_in.discard(name)

    # -- what it says

    def _hear(self, watch: Watch, result: Any) -> None:
        self._note_expiry(watch)
        # many answers are one and the same object, which was looked at before
        known = watch.reading if result is not None and result is watch.answer else None
        said = answer(watch.assignment, result, overdue=watch.overdue) if known is None else known
        if isinstance(said, Reading):
            watch.answer = result if isinstance(result, Reading) else None
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
        if reading.slots is not None and self._leases.propose_slots(watch.assignment.target.name, reading.slots):
            self.log.info("{host} runs {slots} jobs at once, says {source}", slots=reading.slots, **_names(watch))
        self._tell(watch, watch.judge.hear(reading))

    def _missed(self, watch: Watch, trouble: str) -> None:
        """A check could not be made."""
        watch.troubled += 1
        if not watch.trouble:
            watch.told = self._complain("{source} cannot ask: {host} {trouble}", trouble=trouble, **_names(watch))
        watch.trouble = trouble
        self._tell(watch, watch.judge.miss(trouble))

    def _fine(self, watch: Watch) -> None:
        """A check was made."""
        watch.bugs_in_a_row = 0
        if watch.trouble:
            watch.trouble = ""
            if watch.told:
                self.log.info("{source} can ask {host} again", **_names(watch))

    def _met_bug(self, watch: Watch, bug: Bug) -> None:
        """The monitor broke its contract: stop it, and leave it alone for a while."""
        pause = watch.pause(self._seconds()) - self._seconds()
        watch.told = self._complain(
            "the monitor {source} of {host} has a bug, and is made anew in {pause:g} s: {details}",
            pause=round(pause, 1),
            details=bug.details,
            **_names(watch),
        )
        watch.trouble = bug.text
        self._dismiss(watch)
        self._tell(watch, watch.judge.miss(watch.trouble))

    def _tell(self, watch: Watch, opinion: Opinion | None) -> None:
        """Say it to the scheduler; None: nothing."""
        if opinion is None:
            return
        host, source = watch.assignment.key
        try:
            changed = self._leases.report(
                host, source, up=opinion.up, reason=opinion.reason, weight=opinion.weight, ttl=watch.holds_for
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
            self.log.warn("{source} could not ask for too long: that {host} is down holds no longer", **_names(watch))

    # -- the end of one

    def _retire(self, watch: Watch) -> None:
        """It is no longer wanted."""
        watch.gone = True
        self._due.discard(watch)
        self._timeout(watch.assignment.options.timeout).discard(watch)
        self._cancelled.discard(watch)
        if watch.check is not None:
            self._cancel(watch)
        if watch.check is not None:
            # it does not end at once; whatever comes of it is not heard
            watch.check = None
            self._over(watch, None)
        self._dismiss(watch)

    def _dismiss(self, watch: Watch) -> None:
        """Stop the monitor; a new one is made for the next check."""
        monitor, watch.monitor = watch.monitor, None
        if monitor is None:
            return

        def failed(failure: Failure) -> None:
            text = f"it took more than {STOP_TIME:g} s" if isinstance(failure.value, CancelledError) else named(failure)
            self._complain("the monitor {source} of {host} could not be stopped: {text}", text=text, **_names(watch))

        stopping = maybeDeferred(monitor.stop).addErrback(failed)
        self._stopping.add(stopping)
        stopping.addBoth(lambda _: self._stopping.discard(stopping))


def _names(watch: Watch) -> dict[str, str]:
    """For a line of the log."""
    return {"host": watch.assignment.target.name, "source": watch.assignment.source}
