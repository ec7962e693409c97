"""A new process goes on with what an earlier one had: leases, waiters with their places and ages, and what was known of hosts.

The scheduler is a new one, configured with the file as it is now and with what people decided, and nobody has asked yet. The
rules:

1. First everything is as the earlier process had it; then the file is read, as at a reload: so hosts of another address begin
   anew, ``slots: auto`` keeps what the host said of itself, and another discipline gives turns in the order of arrival.
2. No lease is lost, whatever is known of its host: a host that the file does not name is a removed one, and drains, even
   where nothing but its name is known. A host may have more leases than capacity. Hosts that are neither in the file nor have
   leases are not taken up.
3. What a source said holds as long as it would have; what the new process has heard already goes before it.
4. A waiter is in the queue that it was in, in the order of ids; its patience counts from when it asked.
5. Notes may be older than the clients are, by as long as they were not written before a crash. So what must agree is made to
   agree, and no total is less than what was noted. Granted is ended and lent: ended is as noted, and what is missing was
   granted and not noted; where more was granted than that, it has ended. Asked is granted, waiting, withdrawn and refused: who
   asked and is not to be found has withdrawn. The same goes for each host's granted and ended.
6. A ticket that cannot be taken up (its number is none, or another's) is left out, and told of; it takes no other with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

from distbal.carried import CarriedHost, CarriedTicket, CarriedTotals
from distbal.checked import MOST
from distbal.hosts import Host, HostSpec
from distbal.past import Past
from distbal.requests import Lease, Ticket
from distbal.scheduler import Scheduler
from distbal.standing import UNKNOWN
from distbal.waits import Waits

#: the rank of a host of which only the name is known: behind all others
LAST_RANK = 1_000_000


@dataclass(frozen=True, slots=True)
class Carried:
    """All that the earlier process left.

    :ivar tickets: its clients in any order, each with who holds it now.
    :ivar turns: of clients that wait, by their fairness keys; those that are missing come after the others.
    :ivar hosts: what was noted of hosts; of one that stands there twice, the last is taken.
    """

    tickets: Sequence[tuple[CarriedTicket, object]] = ()
    hosts: Sequence[CarriedHost] = ()
    totals: CarriedTotals = field(default_factory=CarriedTotals)
    turns: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A ticket that could not be taken up, with who holds it, and why not, in words."""

    ticket: CarriedTicket
    holder: object
    why: str


@dataclass(frozen=True, slots=True)
class TakenUp:
    """What came of it.

    :ivar tickets: those that were taken up, by their numbers: each waits, or has a lease.
    :ivar grants: leases to deliver, in their order: to waiters that a slot was free for, so that none waits while a host is
        available to it.
    :ivar left_out: those that were not.
    """

    tickets: dict[int, Ticket]
    grants: list[Lease]
    left_out: list[LeftOut]


def take_up(scheduler: Scheduler, carried: Carried, now: float, *, anew: Collection[str] = ()) -> TakenUp:
    """Make what the earlier process had this scheduler's.

    :param now: seconds on the clock that both processes have.
    :param anew: sources of verdicts that the new process hears from at its start, or else not at all: what they had said is not
        taken up.
    :raises ValueError: somebody has asked this scheduler already.
    """
    if scheduler.waiting or scheduler.lent:
        raise ValueError("what an earlier process had is taken up before anybody asks for a slot")
    sound, left_out = _sound(carried.tickets)
    lent = Counter(ticket.host for ticket, _ in sound if ticket.host)
    removed = _take_up_hosts(scheduler, carried.hosts, lent, now, anew)
    hosts = {**scheduler.hosts, **{host.spec.name: host for host in removed}}
    waiters, leases = [], []
    for one, holder in sound:
        asked = _past(one.asked, now)
        ticket = Ticket(one.id, one.request, holder, asked)
        if one.host:
            granted = max(asked, _past(one.granted, now))
            ticket.lease = Lease(ticket, hosts[one.host], granted, UNKNOWN)
            ticket.found = UNKNOWN if granted > asked else None
            leases.append(ticket.lease)
        else:
            ticket.found = UNKNOWN
            waiters.append(ticket)
    leases.sort(key=_by_grant)
    keys = {ticket.request.key for ticket in waiters if ticket.request.since is None and not ticket.request.only}
    tickets = {ticket.id: ticket for ticket in (*waiters, *(lease.ticket for lease in leases))}
    waits = Waits()
    waits.take_up(carried.totals.bounds, carried.totals.waited, carried.totals.seconds)
    past = Past(
        removed=removed,
        leases=leases,
        waiters=waiters,
        turns={key: turn for key, turn in carried.turns.items() if key in keys},
        counts=_counts(carried.totals, len(leases), len(waiters)),
        waits=waits,
        last_id=max(tickets, default=0),
    )
    return TakenUp(tickets, scheduler.resume(past, now), left_out)


def _sound(tickets: Iterable[tuple[CarriedTicket, object]]) -> tuple[list[tuple[CarriedTicket, object]], list[LeftOut]]:
    """Those that can be taken up, in the order of their numbers, and the others."""
    known: dict[int, tuple[CarriedTicket, object]] = {}
    left_out = []
    for ticket, holder in tickets:
        if not 0 < ticket.id <= MOST:
            left_out.append(LeftOut(ticket, holder, f"{ticket.id} is no number of a ticket"))
        elif ticket.id in known:
            left_out.append(LeftOut(ticket, holder, f"the number {ticket.id} is another ticket's"))
        else:
            known[ticket.id] = ticket, holder
    return [known[number] for number in sorted(known)], left_out


def _take_up_hosts(
    scheduler: Scheduler, carried: Iterable[CarriedHost], lent: Mapping[str, int], now: float, anew: Collection[str]
) -> list[Host]:
    """Give the scheduler's hosts what was known of them; those with leases that it does not have, made."""
    notes = {one.spec.name: one for one in carried}
    for name in lent:
        if name not in notes and name not in scheduler.hosts:
            notes[name] = CarriedHost(HostSpec(name, 1, LAST_RANK))
    removed = []
    for name, note in notes.items():
        host = scheduler.hosts.get(name)
        if host is None:
            if name not in lent:
                continue
            host = Host(note.spec, note.position)
            host.removed, host.admin, host.decided = True, note.admin, note.decided
            removed.append(host)
        # the file's word comes back with the reload: until then it is the one that the notes go with
        host.spec = note.spec
        host.health.take_up((verdict for verdict in note.verdicts if verdict.source not in anew), now)
        host.evidence.take_up(note.account)
        host.suspect = host.evidence.suspect
        ended = max(0, note.granted - note.leases)
        host.granted = max(note.granted, ended + lent.get(name, 0))
        host.held = note.held
    return removed


def _counts(noted: CarriedTotals, lent: int, waiting: int) -> dict[str, int]:
    """Totals that agree with the clients there are; none is less than what was noted."""
    granted = max(noted.granted, noted.ended + lent)
    found = granted + waiting + noted.withdrawn + noted.refused
    missing = max(0, noted.asked - found)
    return {
        "asked": found + missing,
        "granted": granted,
        "ended": granted - lent,
        "withdrawn": noted.withdrawn + missing,
        "refused": noted.refused,
    }


def _past(moment: float, now: float) -> float:
    """A moment that is not to come."""
    return moment if isfinite(moment) and moment <= now else now


def _by_grant(lease: Lease) -> tuple[float, int]:
    return lease.granted, lease.id
