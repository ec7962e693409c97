"""How twistd finds distbal: the daemon itself is imported only when it is asked for.

No ``__init__.py`` may stand beside this file or above it: Twisted passes over plugin directories that have one.
"""

from __future__ import annotations

from twisted.application.service import ServiceMaker

distbal = ServiceMaker(  # type: ignore[no-untyped-call]
    "distbal", "distbal.service", "Lend each distcc job the fastest free server.", "distbal"
)
