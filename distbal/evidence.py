"""What jobs themselves tell of a host: connects that fail, and servers that close without an answer.

Only the proxy sees either; :class:`Evidence` is what it told of one host.

A failed connect takes the host out for a while (:class:`Connects`). Then one job is sent there on trial, and when that fails
too the next pause is twice as long; so a host that comes back is found again without any monitor.

A server that takes connections and closes them without a byte (distccd's way of refusing a client or a compiler) looks free for
ever and would eat the farm's jobs. Such a host becomes *suspect* (:class:`Answers`) and is used last, until one job succeeds.
It is never down by that alone, since one client's odd compiler must not empty the farm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from distbal.health import Verdict
from distbal.outcomes import CONNECT_FAILURES, FAILURES, Outcome, Traffic

#: the source of these verdicts
SOURCE = "connect"
#: seconds for which the first failed connect takes a host out, and the longest that such a pause becomes
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0
#: seconds for which a host is on trial at least; a farm whose jobs all come by 5656 never learns how the trial went
SHORTEST_TRIAL = 60.0
#: answers that fail to come, one after the other and to as many clients, after which a host is suspect
SUSPECT_AFTER = 3


@dataclass(frozen=True, slots=True)
class Account:
    """All that the jobs of one host told, as a value: what a process leaves to the next.

    The other names are those of the classes below.

    :ivar failed: when the last connect failed, in seconds on the scheduler's clock; None for never.
    :ivar without: the clients whose jobs had no answer since one was answered.
    """

    pause: float = 0.0
    failed: float | None = None
    without: frozenset[str] = frozenset()
    sent: int = 0
    received: int = 0
    connected: int = 0
    connecting: float = 0.0
    failures: Mapping[str, int] | None = None


class Connects:
    """Failed connects to one host, and how long it is left alone after them.

    :ivar pause: seconds of the last pause; 0.0 since a connect succeeded.
    """

    __slots__ = ("_failed", "pause")

    def __init__(self) -> None:
        self.pause = 0.0
        self._failed = float("-inf")

    def is_news(self, granted: float) -> bool:
        """Whether a job with a lease of that moment began after the last failure, and so can tell something new."""
        return granted > self._failed

    def failed(self, granted: float, reason: str, now: float) -> Verdict | None:
        """A connect failed.

        :param granted: when its lease was. Many may fail at once; those that had begun before the first of them failed tell
            nothing new.
        :returns: the verdict that follows: down for a pause, then one job on trial; None where the last one stands.
        """
        if not self.is_news(granted):
            return None
        self._failed = now
        self.pause = min(LONGEST_PAUSE, 2 * self.pause or FIRST_PAUSE)
        back = now + self.pause
        over = back + max(self.pause, SHORTEST_TRIAL)
        # the least weight there is: room for one job
        trial = Verdict(SOURCE, up=True, at=back, weight=1, reason=f"on trial: one job at a time; it {reason}", expires=over)
        return Verdict(SOURCE, up=False, at=now, reason=reason, expires=back, then=trial)

    def succeeded(self) -> bool:
        """A connect succeeded, or a job was answered; True when there had been a failure to forget."""
        had_failed = self.pause > 0
        self.pause = 0.0
        return had_failed

    def moved(self, now: float) -> None:
        """The host has another address: what began before tells nothing of it."""
        self.pause = 0.0
        self._failed = now

    @property
    def failed_at(self) -> float | None:
        """When the last one failed; None for never."""
        return self._failed if self._failed > float("-inf") else None

    def take_up(self, account: Account) -> None:
        """Go on with what an earlier process knew."""
        self.pause = min(account.pause, LONGEST_PAUSE)
        self._failed = float("-inf") if account.failed is None else account.failed


class Answers:
    """Clients whose jobs a host closed without an answer, one after the other."""

    __slots__ = ("_without",)

    def __init__(self) -> None:
        self._without: frozenset[str] = frozenset()

    @property
    def suspect(self) -> bool:
        """Whether the host is to be used last."""
        return len(self._without) >= SUSPECT_AFTER

    def failed(self, key: str) -> None:
        """A job of this client got no answer; many of one client count once."""
        if not self.suspect:
            self._without |= {key}

    def succeeded(self) -> None:
        """A job was answered."""
        if self._without:
            self._without = frozenset()

    @property
    def without(self) -> frozenset[str]:
        """These clients."""
        return self._without

    def take_up(self, account: Account) -> None:
        """Go on with what an earlier process knew."""
        self._without = account.without


class Evidence:
    """What the ended jobs of one host told.

    :ivar sent: bytes that the server was sent since start; ``received``: bytes that came from it.
    :ivar connected: connects that succeeded; ``connecting``: seconds that these took.
    :ivar failures: jobs that it failed, by the outcome's value; None where there was none.
    """

    __slots__ = ("_answers", "_connects", "connected", "connecting", "failures", "received", "sent")

    def __init__(self) -> None:
        self._connects = Connects()
        self._answers = Answers()
        self.sent = self.received = self.connected = 0
        self.connecting = 0.0
        self.failures: dict[str, int] | None = None

    @property
    def suspect(self) -> bool:
        """Whether the host is to be used last."""
        return self._answers.suspect

    @property
    def unreachable(self) -> bool:
        """Whether the last connect failed, so that one that succeeds is news."""
        return self._connects.pause > 0

    def ended(self, outcome: Outcome, traffic: Traffic, key: str, granted: float, now: float) -> Verdict | None:
        """A job ended.

        :param key: its client's, for fairness and here.
        :param granted: when its lease was.
        :returns: the verdict that follows, if one does.
        """
        self.sent += traffic.sent
        self.received += traffic.received
        if traffic.connect is not None:
            self.connected += 1
            self.connecting += traffic.connect
        if outcome is Outcome.ANSWERED:
            self._answers.succeeded()
        elif outcome in FAILURES:
            if self.failures is None:
                self.failures = {}
            self.failures[outcome.value] = self.failures.get(outcome.value, 0) + 1
            if outcome is Outcome.NO_ANSWER:
                self._answers.failed(key)
            elif outcome in CONNECT_FAILURES:
                return self._connects.failed(granted, traffic.reason, now)
        return None

    def proves(self, granted: float) -> bool:
        """Whether a job that was answered shows that the host can be connected to; one from before that failed does not."""
        return self._connects.is_news(granted)

    def moved(self, now: float) -> None:
        """The host has another address: nothing is known of it."""
        self._connects.moved(now)
        self._answers = Answers()

    def reached(self) -> bool:
        """The host could be connected to; True when it could not before."""
        return self._connects.succeeded()

    @property
    def told(self) -> bool:
        """Whether anything was told since start."""
        connects = self._connects
        return bool(
            connects.pause
            or connects.failed_at is not None
            or self._answers.without
            or self.sent
            or self.received
            or self.connected
            or self.connecting
            or self.failures
        )

    def account(self) -> Account:
        """All of it, for the next process."""
        return Account(
            self._connects.pause,
            self._connects.failed_at,
            self._answers.without,
            self.sent,
            self.received,
            self.connected,
            self.connecting,
            None if self.failures is None else dict(self.failures),
        )

    def take_up(self, account: Account) -> None:
        """Go on with what an earlier process knew."""
        self._connects.take_up(account)
        self._answers.take_up(account)
        self.sent, self.received = account.sent, account.received
        self.connected, self.connecting = account.connected, account.connecting
        self.failures = dict(account.failures) if account.failures else None
