"""A host: what the file says of it, what was said of it since, and what follows: may it be given a job now?

:class:`HostSpec` is the file's word and never changes. :class:`Host` is the living thing: its running leases, the verdicts of
its sources, what a person decided, what its jobs told. Everything that decides whether it is *available* stands in this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from distbal.evidence import Evidence
from distbal.health import FULL_WEIGHT, Health

DEFAULT_POOL = "default"


@dataclass(frozen=True, slots=True)
class HostSpec:
    """A host as hosts.yaml describes it.

    :ivar name: the exact text that clients are sent and that 5657 and 5658 use (``snookles:3632``).
    :ivar slots: how many jobs it may run at once, at least 1 (distcc's LIMIT).
    :ivar rank: 0 is the fastest; hosts of one rank are as fast as each other.
    :ivar options: distcc's options with their commas (``,lzo,cpp``), or "".
    :ivar address: where it really is, (host, port), for what connects to it.
    :ivar pools: the pools that it serves, at least one.
    :ivar auto: the file leaves the number of slots to the host (``slots: auto``): as long as it has not said it, distcc's 4.
    """

    name: str
    slots: int
    rank: int
    options: str = ""
    address: tuple[str, int] = ("", 3632)
    pools: tuple[str, ...] = (DEFAULT_POOL,)
    auto: bool = False


@dataclass(frozen=True, slots=True)
class Farm:
    """What the scheduler is configured with.

    :ivar hosts: in the order of the file, names unique.
    :ivar policy: which host: a name in :data:`distbal.policies.POLICIES`.
    :ivar order: which waiter: a name in :data:`distbal.queues.DISCIPLINES`.
    :ivar wait: seconds that a waiter may wait before it is refused; None for ever.
    """

    hosts: tuple[HostSpec, ...]
    policy: str = "fastest-first"
    order: str = "fair"
    wait: float | None = None


class AdminState(Enum):
    """What a person decided; no monitor changes it."""

    READY = "ready"
    #: no new leases; the running ones end by themselves
    DRAIN = "drain"
    DOWN = "down"


class Host:
    """One server of the farm, alive.

    :ivar spec: the file's word, replaced when the file is reloaded.
    :ivar position: its place in the file, from 0: the last tie-breaker.
    :ivar alone: no other host has its rank.
    :ivar leases: how many of its slots are lent now; may exceed capacity after a change, never at a grant.
    :ivar admin: what a person decided; ``decided``: why, in their words, or "".
    :ivar removed: the file no longer names it: it drains, and is forgotten with its last lease.
    :ivar capacity: slots x weight in integer thousandths, rounded half up, at least 1 while the weight is above 0.
    :ivar available: may be given a job now.
    :ivar evidence: what its jobs told.
    :ivar suspect: to be used last, says the evidence.
    :ivar granted: leases lent since start; ``held`` seconds that the ended ones lasted.
    """

    __slots__ = (
        "admin",
        "alone",
        "available",
        "capacity",
        "decided",
        "evidence",
        "granted",
        "health",
        "held",
        "leases",
        "position",
        "removed",
        "spec",
        "suspect",
    )

    def __init__(self, spec: HostSpec, position: int) -> None:
        self.spec = spec
        self.position = position
        self.alone = False
        self.leases = 0
        self.removed = False
        self.admin = AdminState.READY
        self.decided = ""
        self.health = Health()
        self.evidence = Evidence()
        self.suspect = False
        self.granted = 0
        self.held = 0.0
        self.capacity = 0
        self.available = False
        self.weigh()

    def __repr__(self) -> str:
        return f"<Host {self.spec.name} {self.leases}/{self.capacity}>"

    def weigh(self) -> None:
        """Work out ``capacity`` and ``available`` again: call after anything but the number of leases changed."""
        weight = self.health.weight
        if self.removed or self.admin is not AdminState.READY or not self.health.up or weight == 0:
            self.capacity = 0
        else:
            self.capacity = max(1, (self.spec.slots * weight + FULL_WEIGHT // 2) // FULL_WEIGHT)
        self.available = self.leases < self.capacity

    @property
    def up(self) -> bool:
        """Whether it is in service: no source says down, and no person took it out."""
        return not self.removed and self.admin is AdminState.READY and self.health.up

    @property
    def free(self) -> int:
        """Slots of the file that are not lent, at least 0, whether or not they may be lent now."""
        return max(0, self.spec.slots - self.leases)
