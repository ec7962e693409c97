"""What monitors see of the scheduler: how much of each host is lent, and a slot of a host for those that run a job there.

A load average counts our own jobs too, and is an average over a minute: so what we lent is averaged alike
(:class:`~distbal.loads.LoadAverage`), and the difference is somebody else's.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from twisted.internet.defer import Deferred

from distbal.errors import MonitorTrouble
from distbal.leases import LocalLeases
from distbal.loads import LoadAverage
from distbal.logs import Logger
from distbal.outcomes import Outcome
from distbal.requests import Lease, Request, Ticket

#: what a lease of a monitor's has in place of a client's address
OWN_ADDRESS = "127.0.0.1"


@dataclass(slots=True)
class Loan:
    """A slot that a monitor has.

    :ivar lease: the scheduler's.
    """

    lease: Lease
    _leases: LocalLeases
    _over: bool = False

    def lost(self) -> None:
        """It ended without us: there is nothing to give back."""
        self._over = True

    def give_back(self, outcome: Outcome = Outcome.CLOSED) -> None:
        """The slot is free again; a second call does nothing."""
        if not self._over:
            self._over = True
            self._leases.release(self.lease, outcome)


class _Borrower:
    """Waits for one slot of one host."""

    log = Logger()

    def __init__(self, leases: LocalLeases, loan: Deferred[Loan]) -> None:
        self._leases = leases
        self._loan = loan
        self._lent: Loan | None = None

    def granted(self, lease: Lease) -> None:
        if self._loan.called:
            self._leases.release(lease, Outcome.UNDELIVERED)
        else:
            self._lent = Loan(lease, self._leases)
            self._loan.callback(self._lent)

    def refused(self, ticket: Ticket, reason: str) -> None:
        if not self._loan.called:
            self._loan.errback(MonitorTrouble(reason))

    def lost(self, lease: Lease, reason: str) -> None:
        if self._lent is not None:
            self._lent.lost()
        self.log.info("a monitor's {lease!r} is over: {reason}", lease=lease, reason=reason)


class Slots:
    """The hosts' slots, as monitors see them. All methods take a host's name, and raise KeyError for one not in the file."""

    def __init__(self, leases: LocalLeases) -> None:
        self._leases = leases
        self._averages: dict[str, LoadAverage] = {}

    def lent(self, name: str) -> int:
        """How many are lent now."""
        return self._leases.scheduler.host(name).leases

    def has_free(self, name: str) -> bool:
        """Whether one could be lent now."""
        return self._leases.scheduler.host(name).available

    def in_service(self, name: str) -> bool:
        """Whether any is lent at all: the host is neither down nor drained, and its weight is above 0."""
        return self._leases.scheduler.host(name).capacity > 0

    def take(self, name: str) -> Deferred[Loan]:
        """The next slot of that host that is free, before any client; cancel the Deferred to do without.

        It fails with MonitorTrouble where none was free for as long as queue.wait allows.
        """
        host = self._leases.scheduler.host(name)
        ticket: Ticket | None = None

        def withdraw(_: Deferred[Loan]) -> None:
            if ticket is not None and ticket.lease is None:
                with suppress(KeyError):  # its time was over, and it is about to be told
                    self._leases.withdraw(ticket)

        loan: Deferred[Loan] = Deferred(withdraw)
        request = Request(OWN_ADDRESS, 0, OWN_ADDRESS, host.spec.pools[0], only=name)
        ticket = self._leases.ask(request, _Borrower(self._leases, loan))
        return loan

    def average(self, name: str) -> float:
        """How many were lent, as an exponential average over one minute, as the kernel's load average is one.

        It is kept from the first call on; until then what is lent now stands for it.
        """
        host = self._leases.scheduler.host(name)
        average = self._averages.get(name)
        if average is None:
            average = self._averages[name] = LoadAverage(host.leases)
        return average.value

    def kept_average(self, name: str) -> float | None:
        """The average, where one is kept."""
        average = self._averages.get(name)
        return None if average is None else average.value

    def take_up(self, name: str, average: float, seconds: float) -> None:
        """Go on with an average that an earlier process kept, so many seconds ago; what is lent now was lent meanwhile."""
        taken = self._averages[name] = LoadAverage(average)
        taken.missed(seconds, self._leases.scheduler.host(name).leases)

    def sample(self) -> None:
        """Look at what is lent, for the averages; to be called every ``loads.SAMPLE`` seconds, as the kernel does."""
        hosts = self._leases.scheduler.hosts
        for name, average in list(self._averages.items()):
            if name in hosts:
                average.sample(hosts[name].leases)
            else:
                del self._averages[name]
