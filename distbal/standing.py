"""How every host stood at one moment, kept with each lease so that "why there?" can be answered when the job is long over.

A host's :class:`Standing` is a value, made anew only when something about the host changes; as its slots are lent and come
back, it goes to and fro between two that are kept. The :class:`Board` has those of all hosts in the order of the file; a grant
keeps the whole of it, which is one :class:`Moment`, shared by all grants between which nothing changed. So a grant costs
a look, and what decided it is told exactly, and not pieced together afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

from distbal.health import Verdict
from distbal.hosts import Host, HostSpec

#: hosts that are kept: a lease must not grow with the farm for ever, and nobody reads a thousand reasons
MOST = 512
#: hosts of one page: what a change of one of them copies, and the rest is a list of pages
PAGE = 32


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
    :ivar pages: their standings in the order of the file, the first :data:`MOST`, in pages that are shared with other moments.
    """

    policy: str
    pages: tuple[tuple[Standing, ...], ...]

    @property
    def standings(self) -> tuple[Standing, ...]:
        """All of them, in the order of the file."""
        return tuple(chain.from_iterable(self.pages))


#: of what happened before distbal was started anew: how the hosts stood then is not known, and must not be made up
UNKNOWN = Moment("", ())


class Board:
    """How the hosts stand now.

    :param policy: by what they are chosen.
    :param hosts: those that the file names, in its order.
    """

    __slots__ = ("_free", "_full", "_moment", "_pages", "_policy", "_rows", "_size")

    def __init__(self, policy: str, hosts: list[Host]) -> None:
        self._policy = policy
        standings = [standing(host) for host in hosts[:MOST]]
        self._size = len(standings)
        #: to be changed, and as moments share them
        self._rows = [standings[start : start + PAGE] for start in range(0, self._size, PAGE)]
        self._pages = list(map(tuple, self._rows))
        #: by position, how it stood when it was last free, and last full, unless something else has changed since
        self._free: list[Standing | None] = [None] * self._size
        self._full: list[Standing | None] = [None] * self._size
        self._moment: Moment | None = None

    def note(self, host: Host) -> None:
        """Something about a host changed. One that the file does not name any more is nobody's alternative."""
        position = host.position
        if position < self._size and not host.removed:
            self._free[position] = self._full[position] = None
            self._put(position, standing(host))

    def said(self, host: Host) -> None:
        """What is said of a host changed. Of one that is free that is kept as soon as it is full."""
        if not host.available:
            self.note(host)
        elif host.position < self._size and not host.removed:
            self._full[host.position] = None

    def turned(self, host: Host) -> None:
        """Nothing but the number of its leases changed, and made it full or free."""
        position = host.position
        if position < self._size and not host.removed:
            known = self._free if host.available else self._full
            stands = known[position]
            if stands is None or (stands.leases != host.leases and not host.available):
                stands = known[position] = standing(host)
            self._put(position, stands)

    def moment(self) -> Moment:
        """All of it, as it is now."""
        moment = self._moment
        if moment is None:
            moment = self._moment = Moment(self._policy, tuple(self._pages))
        return moment

    def _put(self, position: int, stands: Standing) -> None:
        page, place = divmod(position, PAGE)
        row = self._rows[page]
        row[place] = stands
        self._pages[page] = tuple(row)
        self._moment = None
