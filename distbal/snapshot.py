"""What readers are shown: the whole state of the scheduler at one moment, as values that nobody can change.

The status port, the page, the metrics and the verbs all read this, so that none of them reaches into the scheduler.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from distbal.health import Verdict
from distbal.hosts import Host, HostSpec
from distbal.requests import Ticket


@dataclass(frozen=True, slots=True)
class HostState:
    """One host.

    :ivar spec: the file's word: name, slots, rank, pools ...
    :ivar leases: slots lent now; ``capacity``: how many may be lent now.
    :ivar up: in service: no verdict says down, no person took it out, the file still names it.
    :ivar available: may be given a job now.
    :ivar admin: ``ready``, ``drain`` or ``down``; ``decided``: why, in the words of the person who decided it, or "".
    :ivar removed: no longer in the file; shown while its last leases run.
    :ivar verdicts: what each source says.
    :ivar granted: leases lent since start; ``held``: seconds that the ended ones lasted.
    :ivar suspect: used last, since it closed jobs of several clients without an answer.
    :ivar sent: bytes that proxied sessions sent there since start; ``received``: bytes that came back.
    :ivar connected: connects of the proxy that succeeded; ``connecting``: seconds that these took.
    :ivar failures: jobs that it failed, by how (``refused``, ``no-answer`` ...: outcomes.FAILURES).
    """

    spec: HostSpec
    leases: int
    capacity: int
    up: bool
    available: bool
    admin: str
    removed: bool
    verdicts: tuple[Verdict, ...]
    granted: int
    held: float
    suspect: bool = False
    sent: int = 0
    received: int = 0
    connected: int = 0
    connecting: float = 0.0
    failures: dict[str, int] = field(default_factory=dict)
    decided: str = ""

    @property
    def free(self) -> int:
        """Slots of the file that are not lent, at least 0, whether or not they may be lent now."""
        return max(0, self.spec.slots - self.leases)


@dataclass(frozen=True, slots=True)
class ClientState:
    """One client, waiting or served.

    :ivar id: of its ticket: unique across restarts.
    :ivar address: where it comes from (``10.0.0.9``; "" where it has none), ``port``: its port there, or 0.
    :ivar pool: what it asked for.
    :ivar since: when it asked, or for a served one when it was granted, in seconds on the scheduler's clock.
    :ivar host: the name of the host that it was given; "" while it waits.
    """

    id: int
    address: str
    port: int
    pool: str
    since: float
    host: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole.

    :ivar at: when, in seconds on the scheduler's clock.
    :ivar hosts: in the order of the file, then those that were removed from it.
    :ivar waiters: longest wait first.
    :ivar leases: in the order of their grants.
    :ivar counts: totals since start, by name (``asked``, ``granted``, ``withdrawn``, ``refused``, ``ended``).
    """

    at: float
    hosts: tuple[HostState, ...]
    waiters: tuple[ClientState, ...]
    leases: tuple[ClientState, ...]
    counts: dict[str, int]


def host_state(host: Host) -> HostState:
    """One host as it is now."""
    evidence = host.evidence
    return HostState(
        spec=host.spec,
        leases=host.leases,
        capacity=host.capacity,
        up=host.up,
        available=host.available,
        admin=host.admin.value,
        removed=host.removed,
        verdicts=host.health.verdicts,
        granted=host.granted,
        held=host.held,
        suspect=host.suspect,
        sent=evidence.sent,
        received=evidence.received,
        connected=evidence.connected,
        connecting=evidence.connecting,
        failures=dict(evidence.failures or ()),
        decided=host.decided,
    )


def client_state(ticket: Ticket) -> ClientState:
    """One client as it is now."""
    request, lease = ticket.request, ticket.lease
    return ClientState(
        id=ticket.id,
        address=request.address,
        port=request.port,
        pool=request.pool,
        since=ticket.asked if lease is None else lease.granted,
        host="" if lease is None else lease.host.spec.name,
    )
