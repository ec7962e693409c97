"""What a kind of monitor is made with: the options that all have, what surrounds a monitor, and how to connect to its host.

This is for those who write monitors, ours and others'; docs/monitors.md teaches it.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar

from twisted.internet import endpoints, error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from distbal.errors import MonitorTrouble
from distbal.forms import Section, between, setting, switch, whole_number
from distbal.interfaces import Reading, Target
from distbal.lookup import Lookup, NotFoundError, Place
from distbal.monitors.slots import Slots

#: seconds; a check more often than this would be load, not a look
LEAST_INTERVAL, MOST_INTERVAL = 0.1, 86_400.0
#: the words of it are not the host's doing: we lack descriptors, ports, memory
OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM, errno.EACCES, errno.EPERM})


def _why_no_count(text: str) -> str:
    return f"checks in a row are a whole number, 1 to 100, not {text[:40]}"


Interval = Annotated[float, between(LEAST_INTERVAL, MOST_INTERVAL, "seconds between two checks of a host")]
Timeout = Annotated[float, between(0.05, 3600, "seconds that a check may take")]
Count = Annotated[int, whole_number(1, 100, _why_no_count)]


class MonitorOptions(Section):
    """The options that every kind has. A kind's own come in a subclass, which may set other defaults for these.

    Where a kind asks less often than every 10 s, so do its defaults. Times are seconds.
    """

    interval: Interval = setting(10, "Seconds from one check of a host to the next.")
    timeout: Timeout = setting(3, "Seconds that a check may take.")
    fall: Count = setting(3, "Checks in a row that must fail before the host is down.")
    rise: Count = setting(2, "Checks in a row that must succeed before it is up again.")
    required: Annotated[bool, switch()] = setting(
        False, "true: a check that could not be made counts as one that failed. false: it says nothing of the host."
    )


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the daemon has for its monitors.

    :ivar reactor: Twisted's; its clock never goes back.
    :ivar lookup: finds the addresses of names; :func:`connect` uses it.
    :ivar slots: what is lent of each host, and slots for monitors that run jobs.
    :ivar shared: for what all monitors of a kind share, by the kind's name. It lives as long as the daemon.
    """

    reactor: Any
    lookup: Lookup
    slots: Slots
    shared: dict[str, Any] = field(default_factory=dict)


class MonitorKind:
    """A factory's usual parts: derive from it, and say ``@implementer(IPlugin, IHostMonitorFactory)``.

    :cvar requires: modules of other packages that the checks need, and ``extra`` distbal's extra that brings them.
    """

    options: ClassVar[type[MonitorOptions]] = MonitorOptions
    most_at_once: ClassVar[int] = 100
    silence_is_down: ClassVar[bool] = False
    silence: ClassVar[str] = ""
    least_interval: ClassVar[float] = 0.0
    proposes_slots: ClassVar[bool] = False
    requires: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""
    name: ClassVar[str]

    def why_unavailable(self) -> str:
        """What has to be installed; "" when nothing has."""
        missing = [module for module in self.requires if find_spec(module) is None]
        if not missing:
            return ""
        install = f": pip install 'distbal[{self.extra}]'" if self.extra else ""
        return f"{self.name} needs {' and '.join(missing)}, which is not installed{install}"


class QuietFactory(Factory):
    """For connections that are made again and again: Twisted's own would log two lines for each."""

    noisy = False


async def connect(surroundings: Surroundings, host: str, port: int, protocol: type[Protocol]) -> Any:
    """Connect to a port of the host, by the address that the balancer's own connects use.

    :param host: a name or an address, without brackets.
    :returns: the protocol, connected.
    :raises Refused: nobody listens there. What that means depends on whose port it is.
    :raises Unreachable: there is no such name, or no way there.
    :raises MonitorTrouble: we ourselves lack what it takes.
    """
    places = surroundings.lookup.known((host, port)) or await found(surroundings.lookup, host, port)
    last: Exception = Unreachable("has no address")
    for family, address in list(places):
        try:
            connected = await _endpoint(surroundings.reactor, address).connect(QuietFactory.forProtocol(protocol))
        except (CancelledError, error.ConnectingCancelledError):
            # the next check begins with another one, where there are several
            surroundings.lookup.missed((host, port), (family, address))
            raise
        except error.ConnectError as problem:
            last = why_not_connected(problem.osError, str(problem))
        else:
            surroundings.lookup.reached((host, port), (family, address))
            return connected
    raise last


class Unreachable(Exception):
    """The host's port could not be connected to; the text is the end of a sentence that begins with the host's name."""

    def reading(self) -> Reading:
        """The host is down by this, should the port be distccd's own."""
        return Reading(up=False, reason=str(self))


class Refused(Unreachable):
    """Nobody listens on that port: proof, where it is distccd's own."""

    def reading(self) -> Reading:
        return Reading(up=False, reason=str(self), certain=True)


def why_not_connected(number: int | None, words: str = "") -> Exception:
    """The exception for a connect that failed with this errno, or with these words where there is none."""
    if number == errno.ECONNREFUSED:
        return Refused("refused the connection")
    said = os.strerror(number) if number else words
    if number in OURS:
        return MonitorTrouble(f"cannot be asked by this machine: {said}")
    return Unreachable(f"cannot be reached: {said}")


async def found(lookup: Lookup, host: str, port: int) -> list[Place]:
    """The places of a name; Unreachable where it has none, and MonitorTrouble where nobody could tell."""
    answer: Deferred[list[Place]] = Deferred()

    def tell(result: list[Place] | Failure) -> None:
        if answer.called:
            return  # the check was given up meanwhile
        if isinstance(result, Failure):
            answer.errback(result)
        else:
            answer.callback(result)

    lookup.find((host, port), tell)
    try:
        return await answer
    except CancelledError:
        # the host was not even asked
        raise MonitorTrouble("has no address yet: this machine's resolver did not answer in time") from None
    except NotFoundError as problem:
        if problem.unasked:
            raise MonitorTrouble(f"has no address: {problem} (this machine's resolver)") from problem
        raise Unreachable(f"has no address: {problem}") from problem


def _endpoint(reactor: Any, address: Any) -> Any:
    # the monitor's own timeout is the bound: the endpoint's must not come before it
    kind = endpoints.TCP6ClientEndpoint if len(address) == 4 else endpoints.TCP4ClientEndpoint
    return kind(reactor, address[0], address[1], timeout=3600)


__all__ = [
    "Count",
    "Interval",
    "MonitorKind",
    "MonitorOptions",
    "QuietFactory",
    "Reading",
    "Refused",
    "Surroundings",
    "Target",
    "Timeout",
    "Unreachable",
    "connect",
    "found",
    "why_not_connected",
]
