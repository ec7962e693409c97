"""How many clients there is room for: the process's limit on open descriptors, raised as far as it may be.

A client of 5656 is one descriptor. The usual soft limit of 1,024 is a relic that daemons are expected to raise to the hard one.
"""

from __future__ import annotations

import errno
import os
import resource
import sys
from pathlib import Path

#: descriptors kept for what is none of the ports' business: log files, a reload, what libraries open
RESERVE = 24
#: the last of standard input, output and error
_STANDARD = 2
#: the numbers of errors that say that this machine lacks descriptors or memory, whatever the peer may be like
STARVED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
#: clients of 5657, and of 5658, that are served at once, where the limit allows it
CROWD = 200


def fill_standard() -> None:
    """Open ``/dev/null`` for what is closed of standard input, output and error.

    Else a socket would come to have the number 2, and whatever a library, or the Python of an upgraded daemon, takes for its
    standard error would be sent to a client. To be called before anything is opened that stays.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STANDARD:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def raise_limit() -> int:
    """Raise the soft limit to the hard one; the number of descriptors that this process may now have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            # macOS says "unlimited" and then refuses it: what we have must do
            hard = soft
    # no limit has a number below zero
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


#: of 5657, of 5658, of the page, and of those who administer
CROWDS = 4


def crowd(limit: int) -> int:
    """Clients of 5657 that may be served at once under a limit, and as many of 5658 and of the page: a sixteenth, 4 to 200."""
    return max(4, min(CROWD, limit // 16))


def room_for_clients(limit: int, *, less: int = 0) -> int:
    """Clients of 5656 that may be held at once under a limit, at least 1.

    :param less: descriptors that are open now and are theirs, of an earlier process.

    What is open now, a reserve and the crowds of the other ports are not theirs, so no port can starve another; those who
    administer, by socket and by SSH, are one crowd more.
    """
    return max(1, limit - _open_now() + less - RESERVE - CROWDS * crowd(limit))


def _open_now() -> int:
    try:
        return len(list(Path("/proc/self/fd").iterdir()))
    except OSError:
        return 16
