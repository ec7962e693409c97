"""What the soak plays in: real servers, the daemon under its keeper, all ways in, and what is measured of them."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distbal.adminclient import Connection
from distbal.errors import DistbalError
from tests.integration.farm import Server, clean_environment, until
from tests.integration.kept import Kept, descriptors, kept, memory
from tests.soak.jobs import Way
from tests.soak.strangers import Place
from tests.support import ROOT, free_port

#: label, slots, seconds by which its compiler is late: fastest first
SERVERS = (("quick", 4, 0.02), ("usual", 4, 0.1), ("slow", 3, 0.3), ("slowest", 2, 0.6))
PROGRAMS = ("gcc", "distcc", "distccd")
ANY = "127.0.0.1:0"
#: seconds for which a daemon may be silent before its keeper kills it
PATIENCE = 8
#: what daemon and keeper hold at rest is looked at for so many seconds, and so many are between two looks
LOOKED_AT, BETWEEN_LOOKS = 5.0, 0.02


@dataclass(frozen=True)
class Holdings:
    """What daemon and keeper have.

    :ivar daemon, keeper: descriptors by kind.
    :ivar daemon_kb, keeper_kb: memory.
    """

    daemon: Counter[str]
    keeper: Counter[str]
    daemon_kb: int
    keeper_kb: int


@dataclass
class Scene:
    """All of it.

    :ivar hosts: the servers as hosts.yaml first had them.
    """

    directory: Path
    servers: list[Server]
    daemon: Kept
    endpoints: tuple[int, int]

    def text(self, slots: dict[str, int] | None = None) -> str:
        return hosts_yaml(self.servers, self.endpoints, slots)

    def ask(self, *words: str, patience: float = 30.0) -> dict[str, Any]:
        """An answer over the admin socket; asks again while nobody answers."""
        answers: list[dict[str, Any]] = []

        def answered() -> bool:
            with suppress(DistbalError), Connection(self.daemon.admin, patience) as connection:
                answers.append(connection.ask(words))
            return bool(answers)

        until(answered, f"an answer to {' '.join(words)}", 60)
        return answers[0]

    def counts(self) -> tuple[int, int]:
        """Slots that are lent, and clients that wait."""
        totals = self.ask("status")["totals"]
        return totals["used"], totals["waiting"]

    def places(self) -> dict[str, Place]:
        """Where strangers may come to, by kinds of listener."""
        kinds = ("balance", "status", "update", "proxy", "web")
        ports: dict[str, Place] = {
            f"{kind} {number}" if number else kind: port
            for kind in kinds
            for number, port in enumerate(self.daemon.ports(kind))
        }
        return ports | {"admin": self.daemon.admin}

    def ways(self, wrap: Path, original: Path | None) -> list[Way]:
        """All ways in that there are here."""
        balance, proxy = (self.daemon.ports(kind)[0] for kind in ("balance", "proxy"))
        balance_endpoint, proxy_endpoint = self.endpoints
        local = "--localslots=16 --localslots_cpp=16"
        none = {"DISTCC_HOSTS": f"{local} localhost/2"}

        def through(port: int, options: str = "") -> dict[str, str]:
            return {"DISTCC_HOSTS": f"{local} 127.0.0.1:{port}/40{options}"}

        def asking(port: int) -> dict[str, str]:
            return none | {"DISTBAL": f"127.0.0.1:{port}"}

        ways = [
            Way("distbal-wrap", (str(wrap), "distcc"), asking(balance)),
            Way("proxy", ("distcc",), through(proxy)),
            Way("proxy, lzo", ("distcc",), through(proxy, ",lzo")),
            Way("distbal-wrap, endpoint", (str(wrap), "distcc"), asking(balance_endpoint), carried=False),
            Way("proxy, endpoint", ("distcc",), through(proxy_endpoint), carried=False),
        ]
        if original is not None:
            copy = self.directory / "bal-wrap.tcl"
            text = (original / "bal-wrap.tcl").read_text()
            # as it is, but for the port: 5656 may be somebody's
            copy.write_text(text.replace("set LbPort 5656", f"set LbPort {balance}").replace("localhost", "127.0.0.1"))
            ways.append(Way("bal-wrap.tcl", ("tclsh", str(copy), "distcc"), none))
        return ways

    def holdings(self) -> Holdings:
        pid, keeper = self.daemon.pid, self.daemon.process.pid
        return Holdings(descriptors(pid), descriptors(keeper), memory(pid), memory(keeper))

    def at_rest(self) -> Holdings:
        """Wait until nothing is lent and nobody waits; the least that daemon and keeper have in the seconds after that.

        What has leaked is there in each look. What comes and goes is not: monitors' connections, and a client's at the keeper,
        which looks once a second for those that have ended.
        """
        until(lambda: self.counts() == (0, 0), "the end of all leases", 60)
        looks: list[Holdings] = []
        end = time.monotonic() + LOOKED_AT
        while time.monotonic() < end:
            looks.append(self.holdings())
            time.sleep(BETWEEN_LOOKS)
        return Holdings(
            min((look.daemon for look in looks), key=Counter.total),
            min((look.keeper for look in looks), key=Counter.total),
            min(look.daemon_kb for look in looks),
            min(look.keeper_kb for look in looks),
        )


def hosts_yaml(servers: list[Server], endpoints: tuple[int, int], slots: dict[str, int] | None = None) -> str:
    """The file.

    :param endpoints: where the Twisted endpoints listen: a new process listens there anew.
    :param slots: of servers that shall have others than they should, by label.
    """
    hosts = "".join(f"  - {server.name}/{(slots or {}).get(server.label, server.slots)}\n" for server in servers)
    balance, proxy = (f"tcp:{port}:interface=127.0.0.1:backlog=1000" for port in endpoints)
    lending = f"balance: ['{ANY}', '{balance}'], proxy: ['{ANY}', '{proxy}']"
    listen = f"{lending}, status: '{ANY}', update: '{ANY}', web: '{ANY}'"
    return (
        f"hosts:\n{hosts}listen: {{{listen}}}\nmonitors: {{tcp: {{interval: 2, timeout: 1, fall: 2, rise: 1}}}}\nstate: null\n"
    )


def missing() -> list[str]:
    """Programs that are not here."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


def original() -> Path | None:
    """The directory of the Tcl original, where there is one and a tclsh to run it."""
    path = Path(os.environ.get("DISTBAL_ORIGINAL") or ROOT.parent / "shared" / "original")
    return path if (path / "bal-wrap.tcl").exists() and shutil.which("tclsh") else None


@contextmanager
def scene() -> Iterator[Scene]:
    """Everything, while the block runs."""
    # distccd that is started as root goes on as the user distccd, for whom other directories are closed
    directory = Path(tempfile.mkdtemp(prefix="distbal-soak-", dir="/tmp" if os.geteuid() == 0 else None))
    directory.chmod(0o755)
    (directory / "tmp").mkdir()
    (directory / "tmp").chmod(0o1777)
    servers = [Server(directory, *server) for server in SERVERS]
    try:
        for server in servers:
            server.start()
        home = directory / "daemon"
        home.mkdir()
        endpoints = free_port(), free_port()
        with kept(home, hosts_yaml(servers, endpoints), patience=PATIENCE) as daemon:
            yield Scene(directory, servers, daemon, endpoints)
    finally:
        for server in servers:
            server.thaw()
            server.kill()
        shutil.rmtree(directory, ignore_errors=True)


def environment(scene: Scene) -> dict[str, str]:
    """For compilers."""
    return clean_environment() | {"HOME": str(scene.directory), "TMPDIR": str(scene.directory / "tmp")}
