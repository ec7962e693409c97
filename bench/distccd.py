"""Real distccd servers of unequal speed on this machine, and what they say they have compiled.

The compiler of each is a script that sleeps, and then copies an object that is there already: what a build over them takes is a
matter of who gets which job and when, and hardly of this machine's processors.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.crew import Crew
from bench.processes import BenchError, Family, wait_until

#: where Debian's distccd looks up which compilers it may run
ALLOWED = Path("/usr/lib/distcc")
#: its account of one job: the source
COMPILED = re.compile(rb"COMPILE_OK exit:0 .* time:\d+ms \S+ (\S+)\n")

COMPILER = """\
#!/bin/sh
sleep {late}
while [ $# -gt 1 ] && [ "$1" != -o ]; do shift; done
exec cp '{ready}' "$2"
"""


@dataclass(frozen=True)
class Kind:
    """What a server is like.

    :ivar slots: how many jobs it runs at once; one too many waits until it gets to it.
    :ivar late: seconds that its compiler takes.
    """

    slots: int
    late: float

    def __str__(self) -> str:
        return f"{self.slots} slots of {self.late:g} s"


class Distccd:
    """One server, serving.

    :ivar name: as clients are told it.
    """

    def __init__(self, crew: Crew, kind: Kind, directory: Path, ready: Path, compilers: Sequence[str]) -> None:
        self.kind = kind
        directory.mkdir()
        for name in compilers:
            script = directory / name
            script.write_text(COMPILER.format(late=kind.late, ready=ready))
            script.chmod(0o755)
        self._log = directory / "log"
        port = crew.port()
        self.name = f"127.0.0.1:{port}"
        # every processor and no niceness: these would be machines of their own
        command = [
            *("distccd", "--daemon", "--no-detach", "--log-stderr", "--log-level", "info", "--nice", "0"),
            *("--listen", "127.0.0.1", "--allow", "127.0.0.1", "--port", str(port), "--jobs", str(kind.slots)),
        ]
        env = {"DISTCCD_PATH": f"{directory}:/usr/bin:/bin", "PATH": "/usr/bin:/bin", "TMPDIR": str(crew.directory / "tmp")}
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        process = crew.add(Family("distccd", command, core=None, log=self._log, env=env, **quiet))

        def serves() -> bool:
            process.check()
            return b"daemon started" in self._log.read_bytes()

        wait_until(serves, f"distccd should serve on port {port}", pause=0.02)

    def written(self) -> int:
        """How much it has written to its log: where its account of what comes now begins."""
        return self._log.stat().st_size

    def compiled(self, since: int) -> list[str]:
        """What it has compiled, by its own account.

        :param since: what :meth:`written` was.
        """
        with self._log.open("rb") as log:
            log.seek(since)
            return [source.decode() for source in COMPILED.findall(log.read())]


def start(crew: Crew, kinds: Sequence[Kind], compiler: str) -> tuple[list[Distccd], Path]:
    """Start one server of each kind.

    :param compiler: what makes the object that all of them send.
    :returns: the servers, and that object.
    """
    # started as root they go on as the user distccd, who has to get at their compilers
    crew.directory.chmod(0o755)
    temporary = crew.directory / "tmp"
    temporary.mkdir()
    temporary.chmod(0o1777)
    source, ready = crew.directory / "ready.c", crew.directory / "ready.o"
    source.write_text("int ready(void) { return 1; }\n")
    _said(compiler, "-c", str(source), "-o", str(ready))
    ready.chmod(0o644)
    # distcc asks for gcc by its full name where there is one
    compilers = ["gcc", f"{_said(compiler, '-dumpmachine')}-gcc"]
    if not any((ALLOWED / name).exists() for name in compilers):
        raise BenchError(f"{ALLOWED} does not list gcc, so distccd would not run it; as root: update-distcc-symlinks")
    servers = [
        Distccd(crew, kind, crew.directory / f"distccd-{number}", ready, compilers) for number, kind in enumerate(kinds, 1)
    ]
    return servers, ready


def _said(*command: str) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr}")
    return done.stdout.strip()
