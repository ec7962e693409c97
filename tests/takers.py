"""Those who ask a lease source, for examples: what they were told, and when the source's timer goes off."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import Clock

from distbal.leases import LocalLeases
from distbal.requests import Lease, Request, Ticket
from tests.farms import scheduler, spec


class Client:
    """A taker that notes what it hears.

    :param when_granted: what it does then, if anything; ``when_lost``: and when its lease is ended without it.
    """

    def __init__(
        self, when_granted: Callable[[Lease], object] | None = None, when_lost: Callable[[], object] | None = None
    ) -> None:
        self.lease: Lease | None = None
        self.refusals: list[str] = []
        self.losses: list[str] = []
        self._when_granted = when_granted
        self._when_lost = when_lost

    def granted(self, lease: Lease) -> None:
        assert self.lease is None, "told twice"
        self.lease = lease
        if self._when_granted is not None:
            self._when_granted(lease)

    def refused(self, ticket: Ticket, reason: str) -> None:
        self.refusals.append(reason)

    def lost(self, lease: Lease, reason: str) -> None:
        assert self.lease in (None, lease)
        self.losses.append(reason)
        if self._when_lost is not None:
            self._when_lost()

    @property
    def host(self) -> str:
        """What it was given; "" for nothing."""
        return "" if self.lease is None else self.lease.host_name


def source(clock: Clock, *hosts: str, wait: float | None = None) -> LocalLeases:
    """A source that lends one slot of each host."""
    return LocalLeases(scheduler(*(spec(name, 1, rank) for rank, name in enumerate(hosts)), wait=wait), clock)


def ask(leases: LocalLeases, client: Client, key: str = "10.0.0.1") -> Ticket:
    return leases.ask(Request(key, 4711, key), client)


def due(clock: Clock) -> list[float]:
    """When timers of ours go off, in seconds from now."""
    return [call.getTime() - clock.seconds() for call in clock.getDelayedCalls()]
