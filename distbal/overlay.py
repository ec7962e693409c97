"""The farm that is served: what the file says, and on top of it what people decided.

:class:`Overlay` holds both. Whatever changes one of them, the farm is made anew, and the scheduler and the monitors are given
what became of it. What the file has no key for (a host is drained, a weight) it tells the scheduler itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from difflib import get_close_matches
from heapq import nlargest
from itertools import takewhile
from operator import eq
from typing import Any

from distbal import decisions, logs
from distbal.decisions import Decision, Decisions
from distbal.hosts import AdminState, Farm, HostSpec
from distbal.leases import LocalLeases
from distbal.verbs import VerbError, shown

#: names that a mistyped one is compared with: each takes some 30 microseconds
MOST_COMPARED = 300
NO_HOST = "no host is left, and nobody is served: people removed all that the file names; add brings one back"
#: whose verdict a weight is that a person set
SOURCE = "admin"


class Overlay:
    """File and decisions.

    :param serve: serves a farm from now on: scheduler and monitors.
    :param made: what was decided before the daemon started.

    :ivar decisions: what people decided, as far as the file has not overtaken it.
    :ivar file: what the file says.
    """

    log = logs.Logger()

    def __init__(self, leases: LocalLeases, serve: Callable[[Farm], None], made: Decisions) -> None:
        self.decisions = made
        self.file = Farm(())
        self._leases = leases
        self._serve = serve

    def file_changed(self, farm: Farm) -> bool:
        """The file was read: serve what it says, and what people decided as far as it holds.

        :param farm: the file's.
        :returns: whether it has overtaken anything.
        """
        self.file = farm
        still, overtaken = decisions.settled(self.decisions, farm, self._leases.scheduler.farm)
        for name, key, decision in overtaken:
            self.log.info(
                "the file has the word again about {host}: what {by} decided of its {key} holds no longer",
                host=name,
                by=decision.by,
                key="place in the farm" if key == "there" else key,
            )
        self.decide(still)
        if farm.hosts and not self.names:
            self.log.warn("{why}", why=NO_HOST)
        return bool(overtaken)

    def decide(self, made: Decisions) -> None:
        """Serve what the file and these make of the farm."""
        self.decisions = made
        farm = decisions.applied(self.file, made)
        if farm != self._leases.scheduler.farm:
            self._serve(farm)
        names = self.names
        self._take_back()
        for name, key, decision in made:
            if name in names:
                self._tell(name, key, decision)

    def _take_back(self) -> None:
        """What hosts still have of decisions that hold no longer.

        One that left, and came back before its last job ended, is the same host to the scheduler.
        """
        decided = {(name, key) for name, key, _ in self.decisions}
        hosts = [host for host in self._leases.scheduler.hosts.values() if not host.removed]
        for host in hosts:
            name = host.spec.name
            if host.admin is not AdminState.READY and (name, "admin") not in decided:
                self._leases.set_admin(name, AdminState.READY)
            if host.health.verdict(SOURCE) is not None and (name, "weight") not in decided:
                self._leases.forget(name, SOURCE)

    def _tell(self, name: str, key: str, decision: Decision) -> None:
        host = self._leases.scheduler.host(name)
        if key == "admin" and (host.admin.value, host.decided) != (decision.value, decision.why):
            self._leases.set_admin(name, AdminState(decision.value), decision.why)
        elif key == "weight":
            verdict = host.health.verdict(SOURCE)
            reason = f"set by {decision.by}"
            if verdict is None or (verdict.weight, verdict.reason) != (decision.value, reason):
                self._leases.report(name, SOURCE, up=True, weight=decision.value, reason=reason)

    # -- looking things up

    @property
    def names(self) -> set[str]:
        """Of the hosts that are served."""
        return {spec.name for spec in self._leases.scheduler.farm.hosts}

    def spec(self, name: str) -> HostSpec:
        """A host that is served; VerbError where there is none of that name."""
        for spec in self._leases.scheduler.farm.hosts:
            if spec.name == name:
                return spec
        removed = self.decisions.get(name, "there")
        if removed is not None and removed.value is False:
            raise VerbError(f"{name} was removed by {removed.by}; add brings it back")
        near = get_close_matches(name, _alike(name, self.names), 1)
        raise VerbError(f"no host is called {shown(name)}" + (f": did you mean {near[0]}?" if near else "; hosts lists them"))

    def of_file(self, name: str) -> HostSpec | None:
        """A host as the file has it; None where it has not."""
        return next((spec for spec in self.file.hosts if spec.name == name), None)

    def said(self, name: str, key: str, value: Any) -> Any:
        """What the file says of a key of a host, for a decision to remember."""
        return decisions.said_by_file(self.file, name, key, value)


def _alike(name: str, names: Collection[str]) -> Collection[str]:
    """Those that it may have been meant for: of many, those that begin like it."""
    if len(names) <= MOST_COMPARED:
        return names
    return nlargest(MOST_COMPARED, names, key=lambda other: sum(takewhile(bool, map(eq, name, other))))
