"""What goes between the edges and the scheduler: a request, the ticket for it, and the lease that it ends in.

A job is not a lease: a job may take several attempts, each with its own ticket and lease, all naming the job. Ids are unique
across restarts, because the first one comes from the clock when the daemon starts.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from distbal.hosts import DEFAULT_POOL, Host
from distbal.standing import Moment


@dataclass(slots=True)
class Request:
    """Who wants a slot, and of what kind. Never changed once it was asked.

    :ivar address: where the client comes from (``10.0.0.9``); "" where it has no address.
    :ivar port: its port there; 0 where it has none.
    :ivar key: what fairness goes by: today the client's address.
    :ivar pool: the pool that must serve it.
    :ivar exclude: names of hosts to leave out: those where an earlier attempt failed.
    :ivar job: the job that this is an attempt of; 0 for a new one.
    :ivar only: the name of the one host that will do; "" for any. It is served before those to whom any will do.
    :ivar since: for a job whose turn had come, but whose host could not be reached: when it first asked, in seconds on the
        scheduler's clock. It has waited already, and is served before all that wait for their first turn. None for others.
    """

    address: str
    port: int
    key: str
    pool: str = DEFAULT_POOL
    exclude: Collection[str] = ()
    job: int = 0
    since: float | None = None
    only: str = ""


class Ticket:
    """A request that was accepted: it waits, or was granted, or is over.

    :ivar id: unique across restarts, and growing: the order of arrival.
    :ivar holder: whoever asked, as the edge knows it; the scheduler only hands it back.
    :ivar asked: when its job first asked, in seconds on the scheduler's clock.
    :ivar lease: once granted.
    :ivar found: how the hosts stood when it had to wait, which may be ``standing.UNKNOWN``; None where it had not.
    """

    __slots__ = ("asked", "found", "holder", "id", "lease", "request")

    def __init__(self, ticket_id: int, request: Request, holder: object, asked: float) -> None:
        self.id = ticket_id
        self.request = request
        self.holder = holder
        self.asked = asked
        self.lease: Lease | None = None
        self.found: Moment | None = None

    def __repr__(self) -> str:
        return f"<Ticket {self.id} of {self.request.address} for {self.request.pool}>"


class Lease:
    """One slot of one host, lent to one client.

    :ivar ticket: what it answers; ``id`` and ``holder`` are the ticket's.
    :ivar granted: when, in seconds on the scheduler's clock.
    :ivar found: how all hosts stood just before; ``standing.UNKNOWN`` for one that an earlier process lent.
    """

    __slots__ = ("found", "granted", "host", "ticket")

    def __init__(self, ticket: Ticket, host: Host, granted: float, found: Moment) -> None:
        self.ticket = ticket
        self.host = host
        self.granted = granted
        self.found = found

    def __repr__(self) -> str:
        return f"<Lease {self.ticket.id} on {self.host.spec.name}>"

    @property
    def id(self) -> int:
        return self.ticket.id

    @property
    def host_name(self) -> str:
        return self.host.spec.name

    @property
    def job(self) -> int:
        """The job that it belongs to: the one named in the request, or a new one with the ticket's number."""
        return self.ticket.request.job or self.ticket.id
