"""How every host stood at one moment, kept with each lease so that "why there?" can be answered when the job is long over.

A host's :class:`Standing` is a value, made anew only when something about the host changes. The :class:`Board` has those of all
hosts in the order of the file; a grant keeps the whole of it, which is one :class:`Moment`, shared by all grants between which
nothing changed. So a grant costs a look, and what decided it is told exactly, and not pieced together afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

from distbal.health import Verdict
from distbal.hosts import Host, HostSpec

#: hosts that are kept: a lease must not grow with the farm for ever, and nobody reads a thousand reasons
MOST = 512


@dataclass(frozen=True, slots=True)
class Standing:
    """How one host stood.

    :ivar spec: the file's word: name, slots, rank, pools.
    Of a host that was available, how many were lent and who said so is not kept up to date.

    :ivar leases: slots that were lent.
    :ivar capacity: how many might be lent.
    :ivar available: it might be given a job.
    :ivar admin: ``ready``, ``drain`` or ``down``, and ``decided`` why, in the words of the person who decided it, or "".
    :ivar verdicts: what each source said.
    :ivar suspect: it was to be used last.
    """

    spec: HostSpec
    leases: int
    capacity: int
    available: bool
    admin: str
    decided: str
    verdicts: tuple[Verdict, ...]
    suspect: bool


def standing(host: Host) -> Standing:
    """How a host stands now."""
    return Standing(
        spec=host.spec,
        leases=host.leases,
        capacity=host.capacity,
        available=host.available,
        admin=host.admin.value,
        decided=host.decided,
        verdicts=host.health.verdicts,
        suspect=host.suspect,
    )


@dataclass(frozen=True, slots=True)
class Moment:
    """How the hosts stood, and by what they were chosen.

    :ivar policy: its name in hosts.yaml.
    :ivar standings: in the order of the file, the first :data:`MOST`.
    """

    policy: str
    standings: tuple[Standing, ...]


class Board:
    """How the hosts stand now.

    :param policy: by what they are chosen.
    :param hosts: those that the file names, in its order.
    """

    __slots__ = ("_moment", "_policy", "_standings")

    def __init__(self, policy: str, hosts: list[Host]) -> None:
        self._policy = policy
        self._standings = [standing(host) for host in hosts[:MOST]]
        self._moment: Moment | None = None

    def note(self, host: Host) -> None:
        """Something about a host changed. One that the file does not name any more is nobody's alternative."""
        if host.position < len(self._standings) and not host.removed:
            self._standings[host.position] = standing(host)
            self._moment = None

    def moment(self) -> Moment:
        """All of it, as it is now."""
        moment = self._moment
        if moment is None:
            moment = self._moment = Moment(self._policy, tuple(self._standings))
        return moment
