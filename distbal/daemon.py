"""``python -m distbal.daemon``: twistd, as the keeper starts it.

A module and not the script ``twistd``, so that the same words start it again where the script is not on the path, and so that
an upgrade finds them in sys.orig_argv. What kills Python itself says on stderr where it was (faulthandler): a segmentation
fault, and the keeper's SIGABRT to one that is silent.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import sys
from collections.abc import MutableMapping

from distbal.keeperwire import VARIABLE


def take_listening_sockets(environment: MutableMapping[str, str]) -> None:
    """Make sockets that systemd opened ours: the keeper passes them on, and cannot know our process's number beforehand."""
    if VARIABLE in environment and "LISTEN_FDS" in environment:
        environment["LISTEN_PID"] = str(os.getpid())


def main() -> None:
    """Run twistd with this process's arguments."""
    if sys.stderr is not None:
        # a stderr without a descriptor: then nothing is told
        with contextlib.suppress(ValueError, OSError):
            faulthandler.enable()
    take_listening_sockets(os.environ)
    # clients may wait for us: what is loaded now stays, and to look for garbage in it takes a tenth of the time
    gc.set_threshold(100_000, 20, 100)
    # twistd reads the environment as it is imported
    from twisted.scripts.twistd import run

    sys.argv[0] = "twistd"
    run()  # type: ignore[no-untyped-call]  # as Twisted has it


if __name__ == "__main__":
    main()
