"""What the log says of a start and of a reload, in words."""

from __future__ import annotations

from collections.abc import Iterable

from distbal.config import Settings
from distbal.decisions import Decisions
from distbal.listeners import Opened


def decided(made: Decisions) -> str:
    """What people decided before the start, as the end of a line; "" for nothing."""
    taken_out = [f"{name} ({decision.why or decision.value})" for name, key, decision in made if key == "admin"]
    others = len(list(made)) - len(taken_out)
    more = f"{others} more" if taken_out else f"{others}"
    said = [f"taken out: {', '.join(taken_out)}"] if taken_out else []
    said += [f"{more} decided by hand (distbal hosts shows what differs from the file)"] if others else []
    return f"; {'; '.join(said)}" if said else ""


def changes(before: Settings, after: Settings, closed: Iterable[Opened], opened: Iterable[Opened]) -> str:
    """What another file led to, as the end of a line."""
    old = {host.name: host for host in before.farm.hosts}
    new = {host.name: host for host in after.farm.hosts}
    changed = sum(old[name] != new[name] for name in old.keys() & new.keys())
    told = f"hosts added: {len(new.keys() - old.keys())}, removed: {len(old.keys() - new.keys())}, changed: {changed}"
    told += "".join(f"; no longer listening: {one.spec.kind} ({one.spec.at})" for one in closed)
    return told + "".join(f"; listening now: {one.spec.kind} ({one.spec.at})" for one in opened)
