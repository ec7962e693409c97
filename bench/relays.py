"""What carries a job from its client to the server behind: distbal's proxy, and what it is measured beside.

They all listen on a port of their own, and lead to one backend (backend.py).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.crew import ROOT, Crew, environment
from bench.processes import Answering, Server, wait_until

DISTBAL, AGAINST = "distbal", "other checkout"
AUTO, TUNED, FORWARD = "HAProxy splice-auto", "HAProxy tuned", "Twisted's portforward"

#: how each HAProxy is set up: what it has in its global section, and in defaults
HAPROXIES = {
    AUTO: ("", "option splice-auto"),
    TUNED: ("tune.pipesize 262144", "option splice-request\n    option splice-response"),
}

HAPROXY = """\
global
    nbthread 1
    maxconn 1000
    {settings}
defaults
    mode tcp
    backlog 4096
    timeout connect 10s
    timeout client 1h
    timeout server 1h
    {options}
listen jobs
    bind 127.0.0.1:{port}
    server backend 127.0.0.1:{target}
"""

#: slots that it has at the backend: so many that no session waits
SLOTS = 10_000


@dataclass(frozen=True)
class Relay:
    """One of them, serving.

    :ivar port: where it takes jobs; its ``server`` may have others.
    :ivar idle: how many sockets it has open when there are no sessions.
    """

    name: str
    server: Server
    port: int
    idle: int

    def wait_sessions(self, number: int) -> None:
        """Until it has so many sessions, and has closed all others. Pipes are not counted: they may be kept for the next."""
        wanted = self.idle + 2 * number
        wait_until(lambda: self.server.sockets() == wanted, f"{self.name} should have {number} sessions", pause=0.005)


class Backend(Answering):
    """backend.py, serving.

    :ivar port: where it does.
    """

    def __init__(self, crew: Crew) -> None:
        command = [sys.executable, "-m", "bench.backend"]
        super().__init__("the backend", command, core=crew.load_core, log=crew.directory / "backend.log", env=environment())
        crew.add(self)
        self.port: int = self.answer()["port"]

    def wait_sessions(self, number: int) -> None:
        """Until so many are open."""
        wait_until(lambda: self.ask()["open"] == number, f"the backend should have {number} sessions", pause=0.005)


def clients(crew: Crew) -> Answering:
    """A process that sends jobs: jobs.py says what it can be told."""
    command = [sys.executable, "-m", "bench.jobs"]
    log = crew.directory / "jobs.log"
    return crew.add(Answering("the clients", command, core=crew.load_core, log=log, env=environment()))


def start(crew: Crew, target: int, names: Sequence[str], notes: list[str], against: Path | None = None) -> list[Relay]:
    """Start those that can be had here, distbal first.

    :param target: the backend's port.
    :param names: what is wanted beside it.
    :param notes: gets what is missing.
    :param against: another checkout of distbal, to be started as well.
    """
    # Debian has it where an ordinary user does not look
    haproxy = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/local/sbin:/usr/sbin")
    if haproxy is None:
        notes.append("HAProxy: not measured, there is none on this machine; Debian: apt-get install haproxy")
    started = [distbal(crew, target)]
    if against is not None:
        started.append(distbal(crew, target, AGAINST, against))
    for number, name in enumerate(names):
        port = crew.port()
        if name == FORWARD:
            command = [sys.executable, "-m", "bench.portforward", str(port), str(target)]
        elif haproxy is not None:
            settings, options = HAPROXIES[name]
            config = crew.directory / f"haproxy-{number}.cfg"
            config.write_text(HAPROXY.format(settings=settings, options=options, port=port, target=target))
            command = [haproxy, "-db", "-q", "-f", str(config)]
        else:
            continue
        log = crew.directory / f"relay-{number}.log"
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        server = Server(name, port, command, core=crew.server_core, log=log, env=environment(), **quiet)
        started.append(_serving(name, crew.add(server), port))
    return started


def distbal(crew: Crew, target: int, name: str = DISTBAL, root: Path = ROOT, options: Sequence[str] = ()) -> Relay:
    """Ours, as it is set up by default, with its proxy, and the backend as its only host.

    :param target: the backend's port.
    :param root: the checkout whose code it runs.
    :param options: further ones of twistd.
    """
    port = crew.port()
    server = crew.distbal(name, [f"127.0.0.1:{target}/{SLOTS}"], root=root, options=options, proxy=port)
    return _serving(name, server, port)


def _serving(name: str, server: Server, port: int) -> Relay:
    """When it takes connections, and has forgotten ours."""
    wait_until(lambda: server.answers(port), f"{name} should take jobs on port {port}", pause=0.02)
    server.settle()
    return Relay(name, server, port, server.sockets())
