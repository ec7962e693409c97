"""What may happen to a farm, done by chance: each kind once at least, then whatever the dice say."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from tests.integration.farm import Server, until
from tests.soak.jobs import Job, Jobs
from tests.soak.scene import Scene
from tests.soak.strangers import STRANGERS, visit

#: seconds that a server stays frozen, or dead, at most
AWAY = 3.0
#: for how long a frozen daemon is left alone: its keeper is more patient than the shorter time, and less than the longer
SHORT_FREEZE, LONG_FREEZE = 1.5, 60.0
#: seconds in which a new process listens at Twisted endpoints again
ANEW = 5.0
#: what takes a job's server from it, and what its connection to the daemon may not outlive
SERVER = ("server killed", "server frozen", "server slow")
DAEMON = ("upgrade", "daemon killed", "daemon frozen", "daemon hung")


@dataclass
class Fault:
    """One that happened.

    :ivar kind: which; ``ended``: 0.0 while it lasts.
    """

    kind: str
    began: float
    ended: float = 0.0
    words: str = ""


class Faults:
    """Those of this run.

    :ivar happened: in the order in which they began.
    :ivar wrong: what went otherwise than it should: an upgrade that was refused, say.
    """

    def __init__(self, scene: Scene, jobs: Jobs, dice: random.Random) -> None:
        self.happened: list[Fault] = []
        self.wrong: list[str] = []
        self.kills = 0
        self._scene = scene
        self._jobs = jobs
        self._dice = dice
        self._visits: list[threading.Thread] = []
        self._kinds: dict[str, tuple[int, Callable[[Fault], None]]] = {
            "server killed": (3, self._kill_server),
            "server frozen": (2, self._freeze_server),
            "server slow": (2, self._slow_server),
            "client killed": (4, self._kill_client),
            "reload": (3, self._reload),
            "host drained": (2, self._drain),
            "upgrade": (3, self._upgrade),
            "daemon killed": (4, self._kill_daemon),
            "daemon frozen": (1, self._freeze_daemon),
            **{how: (2, lambda fault, how=how: self._visit(fault, how)) for how in STRANGERS},  # type: ignore[misc]
        }
        self._first = list(self._kinds)
        dice.shuffle(self._first)

    @property
    def counts(self) -> Counter[str]:
        return Counter(fault.kind for fault in self.happened)

    def one(self) -> Fault:
        """Let one happen, to its end; strangers' visits go on beside what comes next."""
        if self._first:
            kind = self._first.pop()
        else:
            kind = self._dice.choices(list(self._kinds), [weight for weight, _ in self._kinds.values()])[0]
        fault = Fault(kind, time.monotonic())
        self.happened.append(fault)
        self._kinds[kind][1](fault)
        fault.ended = time.monotonic()
        return fault

    def hang(self) -> None:
        """Freeze the daemon until its keeper has had enough and has started another."""
        fault = Fault("daemon hung", time.monotonic())
        self.happened.append(fault)
        before = self._scene.daemon.pid
        os.kill(before, signal.SIGSTOP)
        until(lambda: self._scene.daemon.pid not in (0, before), "the keeper's kill of a daemon that hangs", LONG_FREEZE)
        self._scene.counts()
        fault.ended = time.monotonic()
        self.kills += 1

    def finish(self) -> None:
        """Wait for the strangers to leave, and put everything right."""
        for visit_ in self._visits:
            visit_.join(60)
        self._scene.daemon.reload(self._scene.text())
        for server in self._scene.servers:
            self._scene.ask("up", server.name)

    def excuses(self, job: Job) -> bool:
        """Whether this job may have had to be compiled where its client is.

        Something must have happened to its server while it ran, if it is known which one it had: distcc says so, but for the
        proxy's jobs. A connection that does not outlive the daemon is excused by what happens to that, too.
        """
        names = re.findall(r"\b127\.0\.0\.1:(\d+)", job.words)
        labels = {server.label for server in self._scene.servers if str(server.port) in names}
        for fault in self.happened:
            after = ANEW if fault.kind in DAEMON else 0.0
            if fault.began > job.ended or job.began > (fault.ended or job.ended) + after:
                continue
            if fault.kind in SERVER and (not labels or fault.words in labels):
                return True
            if fault.kind in DAEMON and not job.way.carried:
                return True
        return False

    # -- the kinds

    def _server(self, fault: Fault) -> Server:
        server = self._dice.choice(self._scene.servers)
        fault.words = server.label
        return server

    def _kill_server(self, fault: Fault) -> None:
        server = self._server(fault)
        server.kill()
        time.sleep(self._dice.uniform(0, AWAY))
        server.start()

    def _freeze_server(self, fault: Fault) -> None:
        server = self._server(fault)
        server.freeze()
        time.sleep(self._dice.uniform(0, AWAY))
        server.thaw()

    def _slow_server(self, fault: Fault) -> None:
        """It works for a tenth of the time."""
        server = self._server(fault)
        for _ in range(5):
            server.freeze()
            time.sleep(0.27)
            server.thaw()
            time.sleep(0.03)

    def _kill_client(self, fault: Fault) -> None:
        fault.words = self._jobs.kill_one(self._dice)

    def _reload(self, fault: Fault) -> None:
        slots = {server.label: self._dice.randint(1, server.slots) for server in self._scene.servers}
        fault.words = f"slots {slots}"
        self._scene.daemon.write(self._scene.text(slots))
        if self._dice.randrange(2):
            self._scene.daemon.process.send_signal(signal.SIGHUP)
        else:
            self._must("reload", fault)

    def _drain(self, fault: Fault) -> None:
        server = self._server(fault)
        self._scene.ask("drain", server.name, "a soak")
        time.sleep(self._dice.uniform(0, AWAY / 2))
        self._scene.ask("up", server.name)

    def _upgrade(self, fault: Fault) -> None:
        self._must("upgrade", fault)

    def _must(self, verb: str, fault: Fault) -> None:
        answer = self._scene.daemon.cli(verb, patience=120)
        ends = time.monotonic() + 60
        while "callers are there at once already" in answer.stderr and time.monotonic() < ends:
            # strangers, who flood the admin socket
            time.sleep(0.1)
            answer = self._scene.daemon.cli(verb, patience=120)
        if answer.returncode != 0:
            self.wrong.append(f"{verb} ended with {answer.returncode}: {(answer.stdout + answer.stderr).strip()}")

    def _kill_daemon(self, fault: Fault) -> None:
        before = self._scene.daemon.kill()
        self.kills += 1
        fault.words = f"process {before}"
        until(lambda: self._scene.daemon.pid not in (0, before), "another daemon", 60)
        if self._dice.randrange(4):
            self._scene.counts()  # now and then the next one is killed before it serves

    def _freeze_daemon(self, fault: Fault) -> None:
        pid = self._scene.daemon.pid
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(self._dice.uniform(0, SHORT_FREEZE))
            os.kill(pid, signal.SIGCONT)

    def _visit(self, fault: Fault, how: str) -> None:
        kind, place = self._dice.choice(list(self._scene.places().items()))
        fault.words = f"to {kind}"
        thread = threading.Thread(target=visit, args=(how, place, self._dice.randrange(1 << 30)), daemon=True)
        thread.start()
        self._visits = [one for one in self._visits if one.is_alive()] + [thread]
