"""What the model (model.py) knows of one host."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal

from distbal.health import Verdict
from distbal.hosts import AdminState, HostSpec
from distbal.outcomes import Outcome, Traffic


@dataclass
class ModelHost:
    """What is known of one host, and what follows from it."""

    spec: HostSpec
    position: int
    removed: bool = False
    admin: AdminState = AdminState.READY
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    granted: int = 0
    held: float = 0.0
    #: how often it could not be reached, one pause after the other; before when jobs began that tell nothing new
    failed: int = 0
    failed_at: float | None = None
    #: whose jobs ended without an answer since one was answered
    unanswered: list[str] = field(default_factory=list)
    #: what its connections came to, and the jobs that it failed
    traffic: list[Traffic] = field(default_factory=list)
    failures: list[Outcome] = field(default_factory=list)
    #: how many slots it said that it has, as long as the file leaves that to it
    said_slots: int | None = None

    @property
    def slots(self) -> int:
        """The host's own word, where the file leaves it to the host and the host has said it."""
        return self.said_slots or self.spec.slots

    @property
    def suspect(self) -> bool:
        """Jobs of three clients had no answer, and no other had one since."""
        return len(set(self.unanswered)) >= 3

    @property
    def up(self) -> bool:
        """In service: in the file, nobody says down, no person took it out."""
        return not self.removed and self.admin is AdminState.READY and all(said.up for said in self.verdicts.values())

    @property
    def capacity(self) -> int:
        """Slots x weight, half up, at least 1 while the weight is above 0; nothing when it is not in service."""
        weight = min((said.weight for said in self.verdicts.values() if said.weight is not None), default=1000)
        if not self.up or weight == 0:
            return 0
        return max(1, int((Decimal(self.slots * weight) / 1000).quantize(Decimal(1), ROUND_HALF_UP)))

    def take_in(self, spec: HostSpec, position: int, now: float) -> None:
        """The file was read, and names it.

        Where it has another address, what its jobs told was of the old one, and so is what those tell that it has now. What it
        said of its slots holds as long as the file leaves them to it, in this reading and the one before.
        """
        if self.spec.address != spec.address:
            self.failed = 0
            self.failed_at = now
            self.unanswered = []
            self.verdicts.pop("connect", None)
        if not spec.auto:
            self.said_slots = None
        self.spec, self.position, self.removed = spec, position, False

    def not_reached(self, granted: float, reason: str, now: float) -> None:
        """It could not be connected to: a pause, each twice as long as the one before, and after it one job at a time.

        What had been lent before the last such failure tells nothing new. A host that left the file has no pause.

        :param granted: when the job's slot was lent.
        """
        if self.failed_at is not None and granted <= self.failed_at:
            return
        self.failed += 1
        self.failed_at = now
        pause = min(5.0 * 2 ** (self.failed - 1), 300.0)
        back = now + pause
        words = f"on trial: one job at a time; it {reason}"
        trial = Verdict("connect", True, back, 1, words, back + max(60.0, pause))
        if not self.removed:
            self.verdicts["connect"] = Verdict("connect", False, now, None, reason, back, trial)

    def lifted(self) -> bool:
        """It was reached; whether that had been in doubt."""
        self.failed = 0
        return self.verdicts.pop("connect", None) is not None

    def expire(self, now: float) -> None:
        """What was said holds no longer where its time is over, or what follows it holds."""
        standing = {source: _at(now, said) for source, said in self.verdicts.items()}
        self.verdicts = {source: said for source, said in standing.items() if said is not None}


def _at(now: float, said: Verdict) -> Verdict | None:
    """What is left of a source's word by now."""
    left: Verdict | None = said
    while left is not None and left.expires is not None and left.expires <= now:
        left = left.then
    return left
