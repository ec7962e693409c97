"""What the daemon asks of its process: a clock that never goes back, a collector that rarely looks, room for its clients."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from distbal.proxy import pipes, splice

if TYPE_CHECKING:
    from distbal import config


def spare_the_collector() -> None:
    """Let the garbage collector leave alone what lives as long as the daemon, and look less often at the rest.

    What a job leaves behind is freed by itself; a collection over 20,000 clients would only stall them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def never_back(reactor: Any) -> None:
    """Let the reactor's timers go by the monotonic clock. Its own is the wall clock, and a step of that fires every timer.

    To be called before the first timer is set; a reactor that has timers already keeps its clock.
    """
    if not reactor.getDelayedCalls():
        reactor.seconds = time.monotonic


def warn_of_little_room(log: Logger, settings: config.Settings, limit: int, room: int) -> None:
    """Say so where the farm has more slots than half of the clients that there is room for."""
    proxied = any(spec.kind == "proxy" for spec in settings.listen)
    each, kept = (splice.COST, 2 * pipes.KEPT) if proxied else (1, 0)
    slots = sum(host.slots for host in settings.farm.hosts)
    wanted = 2 * slots * each + kept
    if room < wanted:
        log.warn(
            "the limit on open descriptors is {limit}, which leaves room for {room} clients: for {slots} slots, and as many"
            " waiting, raise it to {wanted} (LimitNOFILE= in the unit, ulimit -Hn in a shell)",
            limit=limit,
            room=max(0, room - kept) // each,
            slots=slots,
            wanted=wanted + limit - room,
        )
