"""``twistd -n distbal -c hosts.yaml`` comes in here.

:func:`makeService` reads the file and binds the ports, so that every mistake is told before anything runs. Where a process
before left clients it has these served first: so what takes long to load is imported when that is done, or has come to nothing.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, ClassVar

from twisted.python import usage

from distbal import descriptors
from distbal.errors import DistbalError
from distbal.places import HOSTS_FILE

if TYPE_CHECKING:
    from distbal import config
    from distbal.balancer import BalancerService


class Options(usage.Options):
    """The words after ``distbal`` on twistd's command line."""

    synopsis = "[options]"
    longdesc = "Lends each distcc job the best server that is free now. distbal check FILE tells what is wrong with a file."
    optParameters: ClassVar = [["config", "c", HOSTS_FILE, "the file that lists the hosts"]]
    optFlags: ClassVar = [["verbose", None, "log each job, not only what changes"]]

    def __init__(self) -> None:
        # twistd makes these before it opens anything
        descriptors.fill_standard()
        super().__init__()  # type: ignore[no-untyped-call]


def not_yet(signum: int, frame: FrameType | None) -> None:
    """Nothing is there yet, or any more, that could be reloaded or upgraded."""


def composed(path: str, loaded: config.Loaded) -> BalancerService:
    """A service that serves nobody, to see that it can be made: nothing is bound, locked or written (trial.py)."""
    from twisted.internet import reactor

    from distbal.balancer import BalancerService
    from distbal.changes import Changes
    from distbal.decisions import Decisions
    from distbal.inheritance import Inheritance
    from distbal.lending import Lending
    from distbal.notebook import Notes
    from distbal.saver import Kept, Saver

    _load()
    lending = Lending(reactor, Inheritance(), Notes(), [], room=1)
    return BalancerService(reactor, path, loaded, Kept(Decisions(), Changes(), Saver()), lending, room=1)


def makeService(options: Options) -> BalancerService:
    """Read the file and bind its ports, and serve first whom the process before served.

    :raises SystemExit: with every mistake, in words.
    """
    from twisted.internet import reactor

    # until there is something to reload, a request for it must not end us (SIG_IGN would be inherited by what we start)
    for early in (signal.SIGHUP, signal.SIGUSR2):
        signal.signal(early, not_yet)
    try:
        return _make(reactor, options["config"], verbose=bool(options["verbose"]))
    except DistbalError as error:
        raise SystemExit("\n".join(f"distbal: {line}" for line in str(error).splitlines())) from None


def _make(reactor: object, path: str, *, verbose: bool) -> BalancerService:
    from distbal.inheritance import inherited
    from distbal.keeperwire import room_within
    from distbal.lending import lend_at_once
    from distbal.process import never_back, spare_the_collector

    never_back(reactor)
    # before what an earlier process left comes in: it may be more than the usual limit
    limit = descriptors.raise_limit()
    left = inherited(os.environ)
    room = descriptors.room_for_clients(limit, less=len(left.descriptors))
    if left.channel is not None:
        # nobody is taken in whom a crash would lose: the keeper, which has the same limit, holds all that we have of clients
        room = max(1, min(room, room_within(limit)))
    lending = lend_at_once(reactor, left, room=room, verbose=verbose)
    if lending is not None:
        lending.meanwhile(_load)
    from distbal.balancer import BalancerService
    from distbal.starting import prepare

    ready = prepare(reactor, path, left, lending, limit=limit, room=room, verbose=verbose)
    service = BalancerService(
        reactor,
        # twistd may change directories before the file is read again
        str(Path(path).absolute()),
        ready.loaded,
        ready.kept,
        ready.lending,
        room=room,
        crowd=descriptors.crowd(limit),
        verbose=verbose,
    )
    spare_the_collector()
    return service


def _load() -> None:
    """Import what all but lending takes."""
    import distbal.balancer
    import distbal.starting  # noqa: F401
