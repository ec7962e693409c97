"""A plugin of coverage's: a process that ends itself by a signal, as twistd does after SIGTERM, keeps what it measured.

coverage writes its data when the interpreter ends, or from a SIGTERM handler of its own; twistd takes that handler's place,
shuts down, puts the default action back and sends itself the signal again. So the data is written just before.
"""

from __future__ import annotations

import os
from functools import wraps

import coverage


def coverage_init(_registry: object, _options: object) -> None:
    """Called by coverage when it starts, in every process that is measured."""
    real_kill = os.kill

    @wraps(real_kill)
    def kill(pid: int, signal: int) -> None:
        measuring = coverage.Coverage.current()
        if pid == os.getpid() and signal and measuring is not None:
            measuring.save()
        real_kill(pid, signal)

    os.kill = kill
