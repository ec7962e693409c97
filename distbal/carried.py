"""What one process leaves to the next, so that this goes on where that stopped: values, their form for JSON, and back.

Clients, with their leases and their places, are told by the edges, which hold their connections (:class:`CarriedTicket`). What
is known of hosts and what was counted is noted from time to time (:func:`host_note`, :func:`totals_note`), and read again by
another process, perhaps of another version, perhaps after a crash: as strictly as what a stranger may have written, and with
ValueError for all that is wrong. Keys that are not known are passed over (checked.py).

Times are seconds on the scheduler's clock, which has to be one for both processes: the machine's, since it was started.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from distbal import checked
from distbal.checked import Fields, Wrong, kept
from distbal.evidence import Account
from distbal.health import FULL_WEIGHT, Verdict
from distbal.hosts import DEFAULT_POOL, AdminState, Host, HostSpec
from distbal.outcomes import FAILURES
from distbal.requests import Request
from distbal.scheduler import Scheduler
from distbal.waits import BOUNDS

#: slots and ranks of one host; beyond any there is
MOST_SLOTS = MOST_RANK = 1_000_000
#: sources that speak of one host, verdicts that follow each other, pools of one host, clients that had no answer, buckets
MOST_SOURCES, MOST_THEN, MOST_POOLS, MOST_CLIENTS, MOST_BUCKETS = 1000, 8, 1000, 1000, 1000

_FAILURES = {outcome.value for outcome in FAILURES}


@dataclass(frozen=True, slots=True)
class CarriedTicket:
    """One client of an earlier process: it waits, or has a slot.

    :ivar id: its ticket's number, at least 1.
    :ivar asked: when its job first asked.
    :ivar host: the name of the host that it has a slot of; "" where it waits.
    :ivar granted: since when; nothing where it waits.
    """

    id: int
    request: Request
    asked: float
    host: str = ""
    granted: float = 0.0


@dataclass(frozen=True, slots=True)
class CarriedHost:
    """One host, as an earlier process knew it.

    :ivar spec: with the number of slots that held then.
    :ivar position: its place in the file that there was.
    :ivar admin: what a person had decided, and ``decided`` why. Of hosts that the file names this is kept elsewhere too
        (state.py), and what stands there has the last word.
    :ivar removed: the file did not name it any more, and it had leases.
    :ivar verdicts: in the order in which their sources first spoke.
    :ivar leases: how many of its slots were lent; ``granted``: how many ever were; ``held``: seconds that those lasted which
        had ended.
    """

    spec: HostSpec
    position: int = 0
    admin: AdminState = AdminState.READY
    decided: str = ""
    removed: bool = False
    verdicts: tuple[Verdict, ...] = ()
    account: Account = field(default_factory=Account)
    leases: int = 0
    granted: int = 0
    held: float = 0.0


@dataclass(frozen=True, slots=True)
class CarriedTotals:
    """What was counted since the first start.

    :ivar counts: by the names that a snapshot has.
    :ivar bounds: upper bounds of the buckets of waits; ``waited``: how many fell in each, and beyond the last; ``seconds``:
        that they waited together.
    :ivar since: when counting began, on the scheduler's clock; None where that is not known.
    """

    asked: int = 0
    granted: int = 0
    ended: int = 0
    withdrawn: int = 0
    refused: int = 0
    bounds: tuple[float, ...] = ()
    waited: tuple[int, ...] = (0,)
    seconds: float = 0.0
    since: float | None = None


# -- hosts


def host_note(host: Host) -> dict[str, Any]:
    """A host as it is now; :func:`read_host` takes what this gives."""
    spec, account = host.spec, host.evidence.account()
    note: dict[str, Any] = {
        "name": spec.name,
        "slots": spec.slots,
        "rank": spec.rank,
        "options": spec.options,
        "address": list(spec.address),
        "pools": list(spec.pools),
        "auto": spec.auto,
        "position": host.position,
        "admin": host.admin.value,
        "decided": kept(host.decided),
        "removed": host.removed,
        "verdicts": [_verdict_note(verdict) for verdict in host.health.verdicts],
        "leases": host.leases,
        "granted": host.granted,
        "held": host.held,
    }
    if host.evidence.told:
        note["evidence"] = {
            "pause": account.pause,
            "failed": account.failed,
            "without": sorted(map(kept, account.without)),
            "sent": account.sent,
            "received": account.received,
            "connected": account.connected,
            "connecting": account.connecting,
            "failures": dict(account.failures or {}),
        }
    return note


def read_host(values: object) -> CarriedHost:
    """The same back; ValueError for anything else."""
    fields = Fields(values)
    fields.need("name", "slots", "rank", "address")
    address = fields.each("address", 2)
    if len(address) != 2:
        raise Wrong(f"address: a host and a port are wanted, not {checked.shown(address)}")
    pools = tuple(checked.text(pool, "pools") for pool in fields.each("pools", MOST_POOLS)) or (DEFAULT_POOL,)
    admin = fields.text("admin", AdminState.READY.value)
    spec = HostSpec(
        name=fields.word("name"),
        slots=fields.whole("slots", 1, MOST_SLOTS),
        rank=fields.whole("rank", 0, MOST_RANK),
        options=fields.word("options"),
        address=(checked.text(address[0], "address"), checked.whole(address[1], "address", 0, 65535)),
        pools=tuple(dict.fromkeys(pools)),
        auto=fields.truth("auto"),
    )
    if not spec.name:
        raise Wrong("name: a host has one")
    try:
        state = AdminState(admin)
    except ValueError:
        raise Wrong(f"admin: {checked.shown(admin)} is nothing that can be decided about a host") from None
    return CarriedHost(
        spec,
        position=fields.whole("position"),
        admin=state,
        decided=fields.text("decided"),
        # what earlier versions wrote does not say it
        removed=fields.truth("removed"),
        verdicts=tuple(_verdict(one, fields.at("verdicts"), MOST_THEN) for one in fields.each("verdicts", MOST_SOURCES)),
        account=_account(fields.fields("evidence")),
        leases=fields.whole("leases"),
        granted=fields.whole("granted"),
        held=fields.number("held"),
    )


def _verdict_note(verdict: Verdict) -> dict[str, Any]:
    note: dict[str, Any] = {"source": kept(verdict.source), "up": verdict.up, "at": verdict.at}
    if verdict.weight is not None:
        note["weight"] = verdict.weight
    if verdict.reason:
        note["reason"] = kept(verdict.reason)
    if verdict.expires is not None:
        note["expires"] = verdict.expires
    if verdict.then is not None:
        note["then"] = _verdict_note(verdict.then)
    return note


def _verdict(values: object, where: str, most: int) -> Verdict:
    """:param most: how many may follow each other, this one included."""
    if not most:
        raise Wrong(f"{where}: more than {MOST_THEN} verdicts follow each other")
    fields = Fields(values, where)
    fields.need("source", "up", "at")
    return Verdict(
        source=fields.text("source"),
        up=fields.truth("up"),
        at=fields.moment("at") or 0.0,
        weight=fields.whole("weight", 0, FULL_WEIGHT) if "weight" in fields else None,
        reason=fields.text("reason"),
        expires=fields.moment("expires"),
        then=_verdict(values["then"], fields.at("then"), most - 1) if isinstance(values, dict) and "then" in fields else None,
    )


def _account(fields: Fields) -> Account:
    failures = fields.fields("failures")
    return Account(
        pause=fields.number("pause"),
        failed=fields.moment("failed"),
        without=frozenset(checked.text(key, fields.at("without")) for key in fields.each("without", MOST_CLIENTS)),
        sent=fields.whole("sent"),
        received=fields.whole("received"),
        connected=fields.whole("connected"),
        connecting=fields.number("connecting"),
        # ways to fail that this version does not know are none of its counters
        failures={how: failures.whole(how) for how in sorted(_FAILURES) if how in failures} or None,
    )


# -- totals


def totals_note(scheduler: Scheduler, since: float | None = None) -> dict[str, Any]:
    """What was counted since then; :func:`read_totals` takes what this gives."""
    waited = scheduler.waited
    return {
        **scheduler.counts,
        "since": since,
        "waits": {"bounds": list(BOUNDS), "counts": list(waited.counts), "seconds": waited.seconds},
    }


def read_totals(values: object) -> CarriedTotals:
    """The same back; ValueError for anything else, such as more who waited for a slot than were granted one."""
    fields = Fields(values)
    waits = fields.fields("waits")
    bounds = tuple(checked.number(bound, waits.at("bounds")) for bound in waits.each("bounds", MOST_BUCKETS))
    if any(one >= other for one, other in pairwise(bounds)):
        raise Wrong(f"{waits.at('bounds')}: each is greater than the one before")
    waited = tuple(checked.whole(count, waits.at("counts")) for count in waits.each("counts", MOST_BUCKETS + 1)) or (0,)
    if len(waited) != len(bounds) + 1:
        raise Wrong(f"{waits.at('counts')}: one more than there are bounds ({len(bounds)}), not {len(waited)}")
    counts: Mapping[str, int] = {name: fields.whole(name) for name in ("asked", "granted", "ended", "withdrawn", "refused")}
    if sum(waited) > counts["granted"]:
        raise Wrong(f"{waits.at('counts')}: {sum(waited)} waited for a slot, and {counts['granted']} were granted one")
    return CarriedTotals(**counts, bounds=bounds, waited=waited, seconds=waits.number("seconds"), since=fields.moment("since"))
