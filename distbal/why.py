"""Why there? What a job's record says of each host that was passed over, and of what it waited for. In words, and in one word.

Read from the :class:`~distbal.standing.Moment` that the lease keeps; the rules are those of hosts.py and policies.py, told in
the order in which a person would ask: could it have served this job at all, did somebody take it out, was it down, was it full.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from distbal.health import FULL_WEIGHT, Verdict
from distbal.requests import Request
from distbal.standing import UNKNOWN, Moment, Standing

#: each reason's one word, and how many hosts it kept out: "3 full"
REASONS = ("pool", "asked-for", "excluded", "taken-down", "drained", "down", "weight", "full", "suspect", "busier", "not-drawn")


#: what is said of a job that was there before distbal was started anew
LENT_BEFORE = "it was lent before distbal was started anew; how the hosts stood then is not known"
ASKED_BEFORE = "it asked before distbal was started anew; how the hosts stood then is not known"


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A host that did not get the job.

    :ivar host: its name.
    :ivar reason: one of :data:`REASONS`.
    :ivar words: the same as the end of a sentence that begins with its name.
    """

    host: str
    reason: str
    words: str


def passed_over(request: Request, host: str, found: Moment, most: int | None = None) -> tuple[PassedOver, ...]:
    """Why a job went where it went, and not to one of those before it.

    :param host: where it went.
    :param found: how the hosts stood when it was granted.
    :param most: how many to tell of; None for all.
    :returns: each host that stands before it in rank, in that order; of a host that has left the file since, every other.
    """
    passed: list[PassedOver] = []
    for one in found.standings:
        if one.spec.name == host or len(passed) == most:
            break
        reason, words = _why_not(request, one, found.policy)
        passed.append(PassedOver(one.spec.name, reason, words))
    return tuple(passed)


def hosts_before(host: str, found: Moment) -> int:
    """How many there are before a host in rank; of one that has left the file since, all."""
    return next((number for number, one in enumerate(found.standings) if one.spec.name == host), len(found.standings))


def not_known(found: Moment, waited: Moment | None) -> str:
    """What is not known, as a sentence: of how the hosts stood when a job was granted its slot, or when it asked; or "".

    :param waited: None where it had not to wait.
    """
    if found is UNKNOWN:
        return LENT_BEFORE
    return ASKED_BEFORE if waited is UNKNOWN else ""


def waited_for(request: Request, found: Moment) -> dict[str, int]:
    """What a job waited for: how many hosts of its pool could not serve it when it asked, by reason.

    Hosts of other pools are left out, since no waiting would have made them serve it.
    """
    reasons = Counter(_why_not(request, one, found.policy)[0] for one in found.standings)
    return {reason: reasons[reason] for reason in REASONS if reasons[reason] and reason not in ("pool", "asked-for")}


def _why_not(request: Request, one: Standing, policy: str) -> tuple[str, str]:
    if request.only and one.spec.name != request.only:
        return "asked-for", f"was not asked for: {request.only} alone would do"
    if request.pool not in one.spec.pools and not request.only:
        return "pool", f"serves other pools ({', '.join(one.spec.pools)})"
    if one.spec.name in request.exclude:
        return "excluded", "was left out: this job had failed there"
    if one.admin != "ready":
        reason, what = ("drained", "was drained") if one.admin == "drain" else ("taken-down", "was taken down")
        return reason, what + (f": {one.decided}" if one.decided else "")
    if down := [verdict for verdict in one.verdicts if not verdict.up]:
        return "down", "was down: " + "; ".join(map(_said, down))
    if one.capacity == 0:
        return "weight", f"had no capacity: {_weighed(one)}"
    if one.leases >= one.capacity:
        lent = f"was full: {one.leases} of {one.capacity} slots lent"
        return "full", lent if one.capacity >= one.spec.slots else f"{lent} (of {one.spec.slots}: {_weighed(one)})"
    if one.suspect:
        return "suspect", "was to be used last: it closed jobs of several clients without an answer"
    if policy == "random":
        return "not-drawn", "was free too: the draw fell elsewhere"
    return "busier", "was free too, and no less busy"


def _said(verdict: Verdict) -> str:
    return f"{verdict.source} says so" + (f" ({verdict.reason})" if verdict.reason else "")


def _weighed(one: Standing) -> str:
    """Who gave it its weight."""
    given = [(verdict.weight, verdict) for verdict in one.verdicts if verdict.weight is not None]
    if not given:
        return f"weight {1:g}"
    weight, least = min(given, key=lambda pair: pair[0])
    return f"weight {weight / FULL_WEIGHT:g}, {_said(least)}"
