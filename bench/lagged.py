"""The daemon, whole, and beside it in the same reactor a probe that notices when the loop stands still.

For twistd's ``--python``; hosts.yaml is named by DISTBAL_BENCH_CONFIG. The probe is a timer of 1 ms that looks how late it is:
as long as one turn of the loop lasts no timer fires, so the greatest lateness is the longest that the loop did nothing for
anybody else. It runs between ``start`` and ``stop`` only, which come as lines on the standard input: nothing is added to the
daemon, and the probe costs nothing while something else is measured.

Late it is also when the processor was given to another program. The kernel counts how long we were ready to run and did not, so
that can be told apart.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from twisted.application.service import Application, IServiceCollection, Service
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.stdio import StandardIO
from twisted.protocols.basic import LineReceiver

from distbal.service import Options, makeService

#: seconds
PERIOD = 0.001


def waited() -> float:
    """Seconds that this process was ready and had no processor; 0 for ever where the kernel does not count them."""
    try:
        return int(Path("/proc/self/schedstat").read_bytes().split()[1]) / 1e9
    except FileNotFoundError:
        return 0.0


class Probe(Service):
    """The timer.

    :ivar late: the greatest lateness since it began, in seconds; ``own`` the greatest, less the wait for a processor in it.
    """

    name = "probe"

    def __init__(self) -> None:
        self.late = self.own = 0.0
        self._due = self._waited = 0.0
        self._timer: IDelayedCall | None = None

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        StandardIO(Ear(self))  # type: ignore[no-untyped-call]

    def begin(self) -> None:
        self.late = self.own = 0.0
        self._waited = waited()
        self._again()

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            # since the last look the loop may have stood still once more
            self._note()

    def _look(self) -> None:
        self._note()
        self._again()

    def _note(self) -> None:
        late, before, self._waited = time.monotonic() - self._due, self._waited, waited()
        self.late = max(self.late, late)
        self.own = max(self.own, late - (self._waited - before))

    def _again(self) -> None:
        from twisted.internet import reactor

        self._due = time.monotonic() + PERIOD
        self._timer = reactor.callLater(PERIOD, self._look)


class Ear(LineReceiver):
    """Hears ``start`` and ``stop``, and says what was noted."""

    delimiter = b"\n"

    def __init__(self, probe: Probe) -> None:
        self._probe = probe

    def lineReceived(self, line: bytes) -> None:
        answer: dict[str, float] = {}
        if json.loads(line)["do"] == "start":
            self._probe.begin()
        else:
            self._probe.end()
            answer = {"late": self._probe.late, "own": self._probe.own}
        self.sendLine(json.dumps(answer).encode())  # type: ignore[no-untyped-call]


def compose() -> Service:
    """What twistd is to run."""
    options = Options()
    options.parseOptions(["-c", os.environ["DISTBAL_BENCH_CONFIG"]])  # type: ignore[no-untyped-call]
    whole = Application("distbal")  # type: ignore[no-untyped-call]
    for service in (makeService(options), Probe()):
        service.setServiceParent(IServiceCollection(whole))  # type: ignore[no-untyped-call]
    return whole  # type: ignore[no-any-return]


application = compose()
