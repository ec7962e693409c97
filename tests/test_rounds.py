"""When hosts are asked, and what follows: on a clock, with monitors that do as they are told."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed

from distbal.errors import MonitorTrouble
from distbal.hosts import Farm, HostSpec
from distbal.interfaces import Reading
from distbal.monitors.rounds import BATCH, GRAIN, JITTER, SOONER
from tests.services import Lines
from tests.watchers import DOWN, PROOF, UP, counter, ground

SILENT = {"silence_is_down": True}


def gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(times)]


# -- when


def test_a_host_is_asked_every_interval() -> None:
    with ground() as one:
        kind = one.kind()
        one.watch(kind, interval=10)
        one.go(1000)
        assert 98 <= len(kind.times()) <= 101
        assert all(10 * (1 - 2 * JITTER) - GRAIN <= gap <= 10 * (1 + 2 * JITTER) + 2 * GRAIN for gap in gaps(kind.times()))
        # it is jittered, and does not drift
        assert len({round(gap, 3) for gap in gaps(kind.times())}) > 5


def test_checks_of_many_hosts_are_spread_evenly() -> None:
    hosts = tuple(f"h{number}" for number in range(200))
    with ground(*hosts) as one:
        kind = one.kind()
        one.watch(kind, interval=10)
        one.go(30)
        for second in range(10, 29):
            assert 14 <= sum(second <= at < second + 1 for _, at in kind.checks) <= 26, second


def test_each_host_has_its_turn_within_the_first_interval() -> None:
    hosts = tuple(f"h{number}" for number in range(50))
    with ground(*hosts) as one:
        kind = one.kind()
        one.watch(kind, interval=10)
        one.go(10 * (1 + JITTER) + 2 * GRAIN)
        assert {name for name, _ in kind.checks} == set(hosts)


def test_what_is_due_at_once_is_begun_a_few_at_a_time() -> None:
    hosts = tuple(f"h{number}" for number in range(100))
    with ground(*hosts) as one:
        kind = one.kind()
        seen: list[int] = []

        def a_job_comes() -> None:
            seen.append(len(kind.checks))
            if len(seen) < 5:
                one.clock.callLater(0, a_job_comes)

        one.watch(kind, interval=10)
        one.clock.callLater(10.99, a_job_comes)
        one.clock.advance(11)
        assert len(kind.checks) == len(hosts)
        assert all(later - earlier <= BATCH for earlier, later in itertools.pairwise(seen))
        assert seen[-1] > BATCH


def test_a_check_that_takes_longer_than_its_interval_is_not_made_twice_at_once() -> None:
    with ground() as one:
        running: list[Deferred[Reading]] = []

        def begin() -> Deferred[Reading]:
            assert all(check.called for check in running), "two at once"
            running.append(Deferred())
            one.clock.callLater(25, running[-1].callback, UP)
            return running[-1]

        kind = one.kind()
        kind.answer = begin
        one.watch(kind, interval=10, timeout=60)
        one.go(400)
        assert 10 <= len(running) <= 14


def test_of_one_kind_no_more_run_at_once_than_it_allows() -> None:
    hosts = tuple(f"h{number}" for number in range(20))
    with ground(*hosts) as one:
        kind = one.kind(most_at_once=3)
        running: set[Deferred[Reading]] = set()

        def begin() -> Deferred[Reading]:
            check: Deferred[Reading] = Deferred()
            running.add(check)
            assert len(running) <= 3

            def end() -> None:
                running.discard(check)
                check.callback(UP)

            one.clock.callLater(1, end)
            return check

        kind.answer = begin
        one.watch(kind, interval=10)
        one.go(60)
        # three at a time, a second each: all of them have had their turn, again and again
        assert {name for name, _ in kind.checks} == set(hosts)
        assert min(len(kind.times(name)) for name in hosts) >= 6


def test_a_crowd_of_checks_that_end_at_once_goes_no_deeper_with_each() -> None:
    hosts = tuple(f"h{number}" for number in range(3000))
    with ground(*hosts) as one:
        kind = one.kind(most_at_once=1)
        first: Deferred[Reading] = Deferred()
        kind.answer = lambda: first if len(kind.checks) == 1 else counter(UP)()
        one.watch(kind, interval=10, timeout=100)
        one.go(20)
        assert len(kind.checks) == 1
        first.callback(UP)
        assert len(kind.checks) > 2900


def test_while_a_change_is_undecided_the_next_check_comes_sooner() -> None:
    with ground() as one:
        kind = one.kind()
        one.watch(kind, interval=30, fall=3)
        one.go(60)
        kind.answer = DOWN
        one.go(60)
        failed = kind.times()[-4:]
        assert one.up() is False
        assert any(gap <= 30 * SOONER * (1 + JITTER) + 2 * GRAIN for gap in gaps(failed))


def test_a_kind_that_must_not_be_asked_often_is_not() -> None:
    with ground() as one:
        kind = one.kind(least_interval=10.0)
        kind.answer = counter(UP, UP, DOWN, UP, DOWN, UP, DOWN, DOWN, DOWN, UP, DOWN, UP, UP, UP)
        one.watch(kind, interval=10)
        one.go(300)
        assert min(gaps(kind.times())) >= 10.0
        assert len(kind.times()) > 20


# -- what follows


def test_a_host_falls_after_as_many_failures_and_rises_after_as_many_successes() -> None:
    with ground() as one, Lines() as lines:
        kind = one.kind()
        kind.answer = counter(UP, DOWN, DOWN, UP, DOWN, DOWN, DOWN, UP, DOWN, UP, UP)
        states: list[bool] = []
        one.watch(kind, interval=1, fall=3, rise=2)
        while len(kind.checks) < 11:
            one.go(0.1)
            if len(kind.checks) > len(states):
                states.append(one.up())
        assert states == [True] * 6 + [False, False, False, False, True]
        assert lines.of("warn") == ["a is down, says told: it is broken"]
        assert "a is up, says told: it is fine" in lines


def test_proof_counts_at_once() -> None:
    with ground() as one:
        kind = one.kind()
        kind.answer = PROOF
        one.watch(kind, interval=10, fall=3)
        one.go(11)
        assert one.up() is False
        assert one.says() == "refused the connection"


def test_silence_is_counted_where_it_tells_of_the_host() -> None:
    with ground() as one:
        kind = one.kind(**SILENT)
        kind.answer = Deferred
        one.watch(kind, interval=10, timeout=2, fall=2)
        one.go(11 + 2)
        assert one.up() is True
        assert one.state().failed == 1
        one.go(10)
        assert one.up() is False
        assert one.says() == "did not answer within 2 s"
        assert one.state().late == 2


def test_silence_is_trouble_where_it_does_not() -> None:
    with ground() as one, Lines() as lines:
        kind = one.kind(silence="is the agent there?")
        kind.answer = Deferred
        one.watch(kind, interval=10, timeout=2, fall=1)
        one.go(100)
        assert one.up() is True
        assert one.state().trouble == "did not answer within 2 s: is the agent there?"
        assert lines.of("warn") == ["told cannot ask: a did not answer within 2 s: is the agent there?"]


def test_what_a_check_ends_with_after_its_timeout_is_heard() -> None:
    with ground() as one:
        kind = one.kind(**SILENT)

        def begin() -> Deferred[Reading | None]:
            return Deferred(lambda check: check.callback(None))

        kind.answer = begin
        one.watch(kind, interval=10, timeout=2, fall=1)
        one.go(60)
        assert one.up() is True
        assert one.state().failed == 0


def test_trouble_is_not_down_but_where_it_is_required() -> None:
    for required in (False, True):
        with ground() as one:
            kind = one.kind()
            kind.answer = MonitorTrouble("cannot be logged in to: the key is wrong")
            one.watch(kind, interval=10, fall=2, required=required)
            one.go(40)
            assert one.up() is not required
            state = one.state()
            assert state.trouble == "cannot be logged in to: the key is wrong"
            assert state.troubled == state.checks


def test_trouble_is_told_once_and_so_is_its_end() -> None:
    with ground() as one, Lines() as lines:
        kind = one.kind()
        kind.answer = counter(MonitorTrouble("is odd"), MonitorTrouble("is odd"), MonitorTrouble("is odd"), UP)
        one.watch(kind, interval=10)
        one.go(100)
        assert lines.all == [("warn", "told cannot ask: a is odd"), ("info", "told can ask a again")]
        assert one.state().trouble == ""


def test_no_occasion_to_ask_keeps_what_was_said() -> None:
    with ground() as one:
        kind = one.kind()
        kind.answer = counter(Reading(up=True, weight=0.5), None)
        one.watch(kind, interval=10)
        one.go(300)
        assert one.weight() == 500


def test_no_occasion_to_ask_is_no_answer_even_after_silence() -> None:
    with ground() as one:
        kind = one.kind(**SILENT)
        answers = iter([Deferred(), *(succeed(None) for _ in range(100))])
        kind.answer = lambda: next(answers)
        one.watch(kind, interval=10, timeout=2, fall=2)
        one.go(300)
        assert one.up()
        assert one.state().failed == 1


def test_what_is_not_said_again_expires() -> None:
    with ground() as one, Lines() as lines:
        kind = one.kind()
        kind.answer = counter(PROOF, MonitorTrouble("cannot be asked"))
        one.watch(kind, interval=10, timeout=3)
        one.go(11)
        assert one.up() is False
        one.go(20)
        assert one.up() is False, "two checks that fail to come change nothing"
        one.go(30)
        assert one.up() is True
        assert "told could not ask for too long: that a is down holds no longer" in lines
        # and then it starts anew: one good check is enough, not rise of them
        kind.answer = Reading(up=True, weight=0.25)
        one.go(11)
        assert one.weight() == 250


def test_what_is_said_again_does_not_expire() -> None:
    with ground() as one:
        kind = one.kind()
        kind.answer = PROOF
        one.watch(kind, interval=10)
        one.go(500)
        assert one.up() is False


def test_weights_apply_and_running_leases_are_never_cut() -> None:
    with ground() as one:
        kind = one.kind()
        kind.answer = counter(Reading(up=True, weight=1.0), Reading(up=True, weight=0.5), Reading(up=True, weight=0.0), UP)
        one.watch(kind, interval=10)
        host = one.leases.scheduler.host("a")
        seen = []
        for _ in range(4):
            one.go(10)
            seen.append(host.capacity)
        assert seen == [4, 2, 0, 4]


def test_a_host_that_says_its_slots_has_them_where_the_file_leaves_that_to_it() -> None:
    with ground("a") as one, Lines() as lines:
        one.leases.configure(Farm((HostSpec("a", 4, 0, auto=True), HostSpec("b", 4, 1))))
        kind = one.kind()
        kind.answer = Reading(up=True, slots=10)
        one.watch(kind, "a", "b", interval=10)
        one.go(30)
        assert [one.leases.scheduler.host(name).spec.slots for name in "ab"] == [10, 4]
        assert [text for _, text in lines.all] == ["a runs 10 jobs at once, says told"]


# -- bugs


def explode() -> Deferred[Reading]:
    raise RuntimeError("of its own making")


def leave() -> Deferred[Reading]:
    sys.exit(3)


class Unreadable(dict[str, Any]):
    """Facts that are none, which shows when they are looked at."""

    def items(self) -> Any:
        raise RuntimeError("not to be looked at")


class Wordless(MonitorTrouble):
    def __str__(self) -> str:
        raise RuntimeError("not to be told")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (explode, "RuntimeError: of its own making"),
        (AssertionError(), "met a bug: AssertionError"),
        (leave, "SystemExit: 3"),
        (lambda: Deferred.fromCoroutine(raising(SystemExit(3))), "SystemExit: 3"),
        (counter(Reading(up=True, facts=Unreadable(load=1))), "not to be looked at"),
        (Wordless(), "not to be told"),
        (RuntimeError("later"), "later"),
        (lambda: "up", "check() returned str, not a Deferred"),
        (counter("up"), "a check ended with str, not with a Reading"),
        (counter(Reading(up=True, weight=float("nan"))), "a reading that is none"),
        (counter(Reading(up="yes")), "a reading that is none"),  # type: ignore[arg-type]
    ],
)
def test_a_monitor_with_a_bug_hurts_itself_alone(answer: object, words: str) -> None:
    with ground("a", "b") as one, Lines() as lines:
        kind = one.kind()
        kind.answers["a"] = answer
        one.watch(kind, interval=1)
        one.go(300)
        assert one.up("a")
        assert len(kind.times("b")) > 290
        state = one.state("a")
        assert state.bugs == state.checks
        assert "met a bug" in state.trouble
        assert words in state.trouble or words in str(lines.all)
        assert state.paused_until is not None
        # 10 s, then 20, 40, 80 ...
        assert [round(gap, -1) for gap in gaps(kind.times("a"))] == [10, 20, 40, 80]
        mine = [monitor for monitor in kind.made if monitor.target.name == "a"]
        assert [monitor.stopped for monitor in mine] == [1] * len(mine)
        assert len(mine) == state.checks


async def raising(problem: BaseException) -> Reading:
    raise problem


@pytest.mark.parametrize("words", ["x" * 100_000, "x\n" * 100_000, "x\x1b[31m" * 1000])
def test_what_is_logged_of_a_bug_is_bounded(words: str) -> None:
    with ground() as one, Lines() as lines:
        kind = one.kind()
        kind.answer = RuntimeError(words)
        one.watch(kind, interval=1)
        one.go(2)
        (said,) = lines.of("warn")
        assert "RuntimeError: x" in said
        assert len(said.splitlines()) < 60
        assert all(len(line) <= 300 and line.isprintable() for line in said.splitlines())


def test_a_monitor_that_mends_itself_is_asked_as_before() -> None:
    with ground() as one:
        kind = one.kind()
        kind.answer = counter(RuntimeError("once"), UP)
        one.watch(kind, interval=1)
        one.go(60)
        assert one.state().bugs == 1
        assert one.state().trouble == ""
        assert len(kind.times()) > 40


def test_a_check_that_does_not_end_when_it_is_cancelled_is_a_bug() -> None:
    with ground() as one:
        kind = one.kind(most_at_once=1, **SILENT)
        stuck: list[Deferred[Reading]] = []

        def begin() -> Deferred[Reading]:
            # a canceller that does nothing would let Twisted end it: this one waits for something else, which never comes
            inner: Deferred[None] = Deferred(lambda _: None)
            inner.cancel = lambda: None  # type: ignore[method-assign]
            outer: Deferred[Reading] = Deferred()
            outer.callback(UP)
            outer.addCallback(lambda _: inner)
            stuck.append(outer)
            return outer

        kind.answer = begin
        one.watch(kind, interval=1, timeout=1)
        one.go(10)
        assert one.up()
        assert one.state().bugs == 1
        assert one.state().late == 1
        assert kind.made[0].stopped == 1
        one.go(20)
        # it holds no place of its kind for ever
        assert len(kind.checks) >= 2


def test_a_canceller_that_raises_is_a_bug() -> None:
    with ground() as one:
        kind = one.kind()

        def broken(_: Deferred[Reading]) -> None:
            raise RuntimeError("in the canceller")

        kind.answer = lambda: Deferred(broken)
        one.watch(kind, interval=1, timeout=1)
        one.go(20)
        assert one.state().bugs >= 1
        assert one.up()


def test_a_monitor_that_cannot_be_stopped_is_told_of() -> None:
    with ground() as one, Lines() as lines:
        kind = one.kind()
        one.watch(kind, interval=1)
        one.go(3)
        kind.made[0].stop = explode  # type: ignore[method-assign]
        one.rounds.configure([])
        assert "the monitor told of a could not be stopped: RuntimeError: of its own making" in lines


def test_a_monitor_that_takes_for_ever_to_stop_is_told_of() -> None:
    with ground() as one, Lines() as lines:
        kind = one.kind()
        one.watch(kind, interval=1)
        one.go(3)
        kind.made[0].stop = Deferred  # type: ignore[method-assign]
        stopped = one.rounds.stop()
        one.clock.advance(5)
        assert stopped.called
        assert lines.of("warn") == ["the monitor told of a could not be stopped: it took more than 5 s"]


# -- changes


def test_monitors_that_stay_are_not_disturbed_and_what_the_others_said_is_forgotten() -> None:
    with ground("a", "b") as one:
        kind = one.kind()
        kind.answer = PROOF
        one.watch(kind, "a", "b", interval=10)
        one.go(11)
        assert (one.up("a"), one.up("b")) == (False, False)
        one.watch(kind, "a", interval=10)
        assert (one.up("a"), one.up("b")) == (False, True)
        assert [monitor.stopped for monitor in sorted(kind.made, key=lambda made: made.target.name)] == [0, 1]
        one.rounds.configure([])
        assert one.up("a")
        one.watch(kind, "a", interval=20)
        one.go(21)
        assert not one.up("a")


def test_a_host_that_is_down_does_not_come_up_because_an_option_changes() -> None:
    with ground() as one:
        kind = one.kind()
        kind.answer = PROOF
        one.watch(kind, interval=1)
        one.go(2)
        kind.answer = UP
        one.watch(kind, interval=100, rise=2)
        one.go(20)
        assert (one.state().checks, one.up()) == (0, False), "it holds for as long as the new interval wants"
        one.go(10)
        assert (one.state().checks, one.up()) == (1, False)
        one.go(100 * SOONER * (1 + JITTER) + 2 * GRAIN)
        assert one.up(), "rise counts as before"
        # another kind under the same name is somebody else
        kind.answer = PROOF
        one.go(200)
        assert not one.up()
        one.watch(one.kind(), interval=100)
        assert one.up()


def test_what_there_is_to_show_is_in_the_order_of_the_file() -> None:
    with ground("a", "b", "c") as one:
        kind = one.kind()
        one.watch(kind, "b", "c")
        one.watch(kind, "c", "a", "b")
        assert [state.host for state in one.rounds.states()] == ["c", "a", "b"]


def test_a_check_that_runs_when_its_monitor_goes_is_cancelled() -> None:
    with ground() as one:
        kind = one.kind(most_at_once=1)
        ended: list[object] = []
        kind.answer = lambda: Deferred(ended.append)
        one.watch(kind, interval=10, timeout=60)
        one.go(11)
        one.rounds.configure([])
        assert len(ended) == 1
        assert one.rounds.states() == ()
        kind.answer = UP
        one.watch(kind, interval=10)
        one.go(11)
        assert one.state().checks >= 1


def test_a_host_that_left_the_farm_while_it_was_asked_harms_nothing() -> None:
    with ground("a", "b") as one:
        kind = one.kind()
        answer: Deferred[Reading] = Deferred()
        kind.answers["b"] = answer
        one.watch(kind, interval=10, timeout=60)
        one.go(11)
        one.leases.configure(Farm((HostSpec("a", 4, 0),)))
        answer.callback(Reading(up=False, certain=True, slots=3))
        one.watch(kind, "a", interval=10)
        one.go(20)
        assert one.up("a")


def test_the_end_cancels_all_and_waits_for_the_monitors() -> None:
    with ground() as one:
        kind = one.kind()
        ended: list[object] = []
        kind.answer = lambda: Deferred(ended.append)
        one.watch(kind, interval=10, timeout=60)
        one.go(11)
        last: Deferred[None] = Deferred()
        kind.made[0].stop = lambda: last  # type: ignore[method-assign]
        over = one.rounds.stop()
        assert len(ended) == 1
        assert not over.called
        last.callback(None)
        assert over.called


def test_the_end_does_not_wait_for_ever() -> None:
    with ground() as one:
        kind = one.kind()
        one.watch(kind, interval=10)
        one.go(11)
        kind.made[0].stop = Deferred  # type: ignore[method-assign]
        over = one.rounds.stop()
        assert not over.called
        one.clock.advance(6)
        assert over.called


def test_a_monitor_that_holds_everybody_up_is_told_of() -> None:
    with ground() as one, Lines() as lines:
        kind = one.kind()

        def begin() -> Deferred[Reading]:
            one.clock.rightNow += 0.5
            return succeed(UP)

        kind.answer = begin
        one.watch(kind, interval=10)
        one.go(11)
        assert "told of a held up every job for 0.50 s" in lines
