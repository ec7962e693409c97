"""How many clients there is room for: the process's limit on open descriptors, raised as far as it may be.

A client of 5656 is one descriptor. The usual soft limit of 1,024 is a relic that daemons are expected to raise to the hard one.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

#: descriptors kept for everything but hot clients: log files, the status and update ports, a reload, what libraries open
RESERVE = 64


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


def room_for_clients(limit: int) -> int:
    """Clients that may be held at once under a limit, at least 1: what is open now and a reserve are not theirs."""
    return max(1, limit - _open_now() - RESERVE)


def _open_now() -> int:
    try:
        return len(list(Path("/proc/self/fd").iterdir()))
    except OSError:
        return 16
