"""A C project that a farm builds, and what is run in it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.farm import PATIENCE, Farm, clean_environment
from tests.support import stop

MAKEFILE = """\
objects = $(patsubst %.c,%.o,$(wildcard part*.c))
all: $(objects)
%.o: %.c ; $(CC) -c $< -o $@
program: $(objects) main.o ; $(CC) -o $@ $^
"""


@dataclass
class Project:
    """A C project of some files, and the environment in which it is built.

    :ivar directory: where it is.
    :ivar files: how many parts it has; ``program`` links them and one more, main.c.
    :ivar env: for make; a test adds to it.
    """

    directory: Path
    files: int
    env: dict[str, str]

    def write(self) -> None:
        """Write the sources: each part has a header of its own, and one in common with the others."""
        self.directory.mkdir()
        calls = " + ".join(f"part{number}()" for number in range(self.files))
        declared = "".join(f"int part{number}(void);\n" for number in range(self.files))
        (self.directory / "parts.h").write_text("#define PART(number) int part##number(void) { return number; }\n")
        for number in range(self.files):
            (self.directory / f"part{number}.h").write_text(f'#include "parts.h"\nint part{number}(void);\n')
            (self.directory / f"part{number}.c").write_text(f'#include "part{number}.h"\nPART({number})\n')
        (self.directory / "main.c").write_text(f"{declared}int main(void) {{ return {calls}; }}\n")
        (self.directory / "Makefile").write_text(MAKEFILE)

    def start(self, *command: str | Path) -> subprocess.Popen[str]:
        """Start a command in it, in a process group of its own as a shell would."""
        return subprocess.Popen(
            command,
            cwd=self.directory,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command in it."""
        with self.building(*command) as process:
            return self.end(process)

    @contextmanager
    def building(self, *command: str | Path) -> Iterator[subprocess.Popen[str]]:
        """A command that runs in it while the block does; it is interrupted when it is not done by then."""
        process = self.start(*command)
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            stop(process)

    def end(self, process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
        """Wait until it ends by itself; what it said."""
        out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def objects(self) -> set[str]:
        """The parts that are built."""
        return {path.name for path in self.directory.glob("part*.o")}

    def contents(self) -> dict[str, bytes]:
        """What is in them."""
        return {name: (self.directory / name).read_bytes() for name in self.objects()}

    def clean(self) -> None:
        """Remove what was built."""
        for path in self.directory.glob("*.o"):
            path.unlink()

    def is_built(self) -> bool:
        """Whether each part is there."""
        return self.objects() == {f"part{number}.o" for number in range(self.files)}


def project(farm: Farm, directory: Path, wrap: Path, files: int, label: str = "project") -> Project:
    """A project that is built by the farm: distbal-wrap is on PATH, distcc's own files are the project's own.

    distcc's own list names no server of the farm, so that what is not balanced shows; and it has room for as many preprocessors
    as there are jobs: where there is none, distcc sleeps for a second.
    """
    env = clean_environment() | {
        "PATH": f"{wrap.parent}:{os.environ['PATH']}",
        "HOME": str(directory),
        "DISTBAL": farm.address,
        "DISTCC_DIR": str(directory / f"{label}.distcc"),
        "DISTCC_HOSTS": "--localslots=8 --localslots_cpp=16 localhost/2",
    }
    (directory / f"{label}.distcc").mkdir()
    one = Project(directory / label, files, env)
    one.write()
    return one


def proxied(farm: Farm, directory: Path, files: int, label: str = "project", options: str = "") -> Project:
    """A project whose distcc knows one server, which is the balancer's proxy.

    What cannot be compiled there is compiled nowhere. When a compile fails there it has failed, and is not tried again here: to
    distcc it would be a fault of its server, which it would not use for a minute.

    :param options: distcc's, for the server: ``,lzo`` and so on.
    """
    one = project(farm, directory, Path("/nowhere/distbal-wrap"), files, label)
    one.env |= {
        "DISTCC_HOSTS": f"--localslots=16 --localslots_cpp=16 127.0.0.1:{farm.proxy}/40{options}",
        "DISTCC_FALLBACK": "0",
        "DISTCC_SKIP_LOCAL_RETRY": "1",
    }
    return one
