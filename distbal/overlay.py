"""The farm that is served: what the file says, and on top of it what people decided.

:class:`Overlay` holds both. Whatever changes one of them, the farm is made anew, and the scheduler and the monitors are given
what became of it. What the file has no key for (a host is drained, a weight) it tells the scheduler itself.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from distbal import decisions, logs
from distbal.decisions import Decision, Decisions
from distbal.hosts import AdminState, Farm, HostSpec
from distbal.leases import LocalLeases
from distbal.verbs import VerbError, shown

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
        still, overtaken = decisions.settled(self.decisions, farm)
        for name, key, decision in overtaken:
            self.log.info(
                "the file has the word again about {host}: what {by} decided of its {key} holds no longer",
                host=name,
                by=decision.by,
                key="place in the farm" if key == "there" else key,
            )
        self.decide(still)
        return bool(overtaken)

    def decide(self, made: Decisions) -> None:
        """Serve what the file and these make of the farm."""
        before, self.decisions = self.decisions, made
        farm = decisions.applied(self.file, made)
        if farm != self._leases.scheduler.farm:
            self._serve(farm)
        names, still = self.names, {(name, key) for name, key, _ in made}
        for name, key, _ in before:
            if name not in names or (name, key) in still:
                continue
            if key == "admin":
                self._leases.set_admin(name, AdminState.READY)
            elif key == "weight":
                self._leases.forget(name, SOURCE)
        for name, key, decision in made:
            if name in names:
                self._tell(name, key, decision)

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
        near = get_close_matches(name, self.names, 1)
        raise VerbError(f"no host is called {shown(name)}" + (f": did you mean {near[0]}?" if near else "; hosts lists them"))

    def of_file(self, name: str) -> HostSpec | None:
        """A host as the file has it; None where it has not."""
        return next((spec for spec in self.file.hosts if spec.name == name), None)

    def said(self, name: str, key: str, value: Any) -> Any:
        """What the file says of a key of a host, for a decision to remember."""
        return decisions.said_by_file(self.file, name, key, value)
