"""The extension points, written as contracts: how somebody else's code tells distbal how a host is.

A *monitor* asks one host how it is. Its *factory* is a plugin (twisted.plugin, in a directory ``distbal/plugins``), named and
configured in hosts.yaml under ``monitors``. distbal decides when to ask, for how long to wait, and what follows from the
answers (``monitors/rounds.py``); a monitor only answers. docs/monitors.md teaches how to write one, and ``distbal.testing``
holds the contracts below as tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zope.interface import Attribute, Interface

#: what may be told beside the verdict: shown to people and programs, and never decided by
Fact = str | int | float | bool | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """The host that a monitor asks.

    :ivar name: as hosts.yaml has it (``newbb:3632``); what clients are told.
    :ivar host: where it is reached: a name for the resolver, or an address without brackets.
    :ivar port: distccd's port there.
    """

    name: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Reading:
    """A monitor's answer to one check.

    :ivar up: the host can take jobs, as far as this monitor sees.
    :ivar reason: why, as the end of a sentence that begins with the host's name: ``refused the connection``, ``is idle``. One
        line for a person; what is longer than 200 characters is cut.
    :ivar weight: the share of its slots that it should be given now, 0.0 to 1.0; 0.0 is "no new jobs, and not down". None: no
        opinion.
    :ivar certain: one reading like this is proof, and ``fall`` or ``rise`` more of them need not be waited for: a refused
        connection is, silence is not.
    :ivar took: seconds that the host took to answer, where that was measured; None: the time of the whole check.
    :ivar slots: how many jobs the host itself says that it runs at once, at least 1: taken where hosts.yaml has
        ``slots: auto``.
    :ivar facts: whatever else was learnt, by short names: ``{"load": 0.5}``. Shown; at most 20 are.
    """

    up: bool
    reason: str = ""
    weight: float | None = None
    certain: bool = False
    took: float | None = None
    slots: int | None = None
    facts: Mapping[str, Fact] = field(default_factory=dict)


class IHostMonitor(Interface):
    """Asks one host how it is. It lives as long as the host is in the file with the same options.

    All methods are called in the reactor's thread, where none may block: jobs wait meanwhile.
    """

    def check() -> Any:
        """Ask once.

        Called every ``interval`` seconds or so, and never before the last check of this kind at this host has ended. What may
        be kept between two checks (a connection, counters to compare with) is the monitor's own business; so is to notice that
        it is stale.

        :returns: a Deferred that fires with a :class:`Reading`; an ``async def`` method does that. Or with None: there was no
            occasion to ask, and what was said last holds on.

        The timeout is distbal's: after ``timeout`` seconds it cancels the Deferred. The monitor must then let go of whatever
        the check held (sockets, processes, timers), and let the Deferred end, soon and however it likes. It needs no timer of
        its own. What the silence means, the factory says (``silence_is_down``).

        What goes wrong:

        - the host is found to be down: a Reading with ``up=False``, no exception;
        - :class:`distbal.errors.MonitorTrouble`: the monitor could not do its own work (a wrong key, a program that is
          missing). This says nothing of the host: what the monitor said before holds until it expires, and the text is shown.
          With ``required: true`` in hosts.yaml it counts as a check that failed;
        - any other exception, or anything but a Reading: a bug in the monitor. It is logged, counted and shown; the monitor is
          stopped, and a new one is made after a pause that grows with each such failure.
        """

    def stop() -> Any:
        """The last call: let go of everything, kept connections included. No check runs then.

        :returns: None, or a Deferred that fires when that is done.
        """


class IHostMonitorFactory(Interface):
    """A kind of monitor. A plugin provides this and ``twisted.plugin.IPlugin``; it is made when its module is imported.

    :class:`distbal.monitors.kit.MonitorKind` has defaults for all but ``name``, ``description`` and ``monitor``.
    """

    name = Attribute("""The word that hosts.yaml knows it by, a str: letters, digits and '-'.""")
    description = Attribute("""What it asks, a str of one line: shown by ``distbal monitors``.""")
    options = Attribute(
        """What may stand behind the name in hosts.yaml: a subclass of distbal.monitors.kit.MonitorOptions, a pydantic model.

        Every mistake that it finds is told with its file and line. Defaults for ``interval``, ``timeout``, ``fall`` and
        ``rise`` are its own. It must be importable without the libraries that only the checks need.
        """
    )
    most_at_once = Attribute("""How many checks of this kind may run at once, on all hosts together: an int, at least 1.""")
    silence_is_down = Attribute(
        """What it means when a check does not end within its timeout, a bool.

        True: the host does not answer, so the check has failed, and ``fall`` of these in a row take the host down. False: the
        monitor could not do its work, which says nothing of the host (an agent that may not be there, a server that is
        silent to those it does not know).
        """
    )

    silence = Attribute(
        """What may be wrong where a check does not end within its timeout, as a str that follows "did not answer within 3 s: ".

        "" where there is nothing to say.
        """
    )
    least_interval = Attribute(
        """Seconds between the beginnings of two checks of a host at the least, a float; 0.0 where it does not matter.

        While a change is undecided distbal asks more often than every ``interval`` seconds, but never more often than this.
        """
    )
    proposes_slots = Attribute("""Whether its readings can have ``slots``, a bool.""")

    def why_unavailable() -> Any:
        """Why no monitor of this kind can work in this installation: a sentence that says what to install. "" when one can."""

    def monitor(target: Target, options: Any, surroundings: Any) -> Any:
        """Make a monitor of one host. It opens nothing yet, and does not raise.

        :param target: the host.
        :param options: an instance of ``options``.
        :param surroundings: a :class:`distbal.monitors.kit.Surroundings`.
        :returns: an :class:`IHostMonitor`.
        """
