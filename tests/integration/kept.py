"""The daemon as it outlives itself: under ``distbal supervise``, from code that can be replaced, upgraded and killed.

The code that it runs is in a directory of the test's: a link to this checkout at first, and copies with a change in them when
new code is "installed". ``distbal`` and ``twistd`` are told by ``$PYTHONPATH`` to take it from there.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.daemons import ENVIRONMENT
from tests.integration.farm import PATIENCE, until
from tests.support import ROOT, alone, stop

PYTHON = sys.executable


@dataclass
class Kept:
    """A daemon and, if there is one, its keeper.

    :ivar directory: hosts.yaml, ``log`` and ``code`` are there.
    :ivar supervised: whether there is a keeper.
    :ivar dies: it is to die of errors of its own: what they leave in the log is no fault.
    :ivar process: what we started: the keeper, or the daemon where there is none.
    """

    directory: Path
    supervised: bool
    process: subprocess.Popen[bytes] | subprocess.Popen[str]
    environment: dict[str, str] = field(repr=False, default_factory=dict)
    dies: bool = False

    # -- what is to be seen

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    @property
    def admin(self) -> str:
        """The path of the admin socket."""
        return str(admin_socket(self.directory))

    @property
    def pid(self) -> int:
        """The daemon's process; 0 while there is none."""
        if not self.supervised:
            return self.process.pid
        return next(iter(self._children()), 0)

    @property
    def keeper(self) -> int:
        """The keeper's process; 0 while there is none."""
        return self.process.pid

    def _children(self) -> list[int]:
        """The keeper's children that run this program, zombies not counted."""
        found = []
        for pid in children_of(self.keeper):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if b"distbal" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    def ports(self, kind: str) -> list[int]:
        """Where it listens: the ports of this kind of listener, as they were when it first said so."""
        return [
            int(port) for port in re.findall(rf"\b{kind} (\d+)", next(iter(re.findall(r"listening on [^\n]*", self.log)), ""))
        ]

    @property
    def lost(self) -> int:
        """How many connections were lost in all kills, by the account of the daemons that came after."""
        return sum(map(int, re.findall(r"(\d+) that had just come were lost", self.log)))

    def assert_alive(self) -> None:
        assert self.process.poll() is None, self.log[-3000:]

    # -- what is done to it

    def cli(self, *words: str, patience: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """``distbal WORDS``, with the code that is installed."""
        with self.asking(*words) as process:
            out, err = process.communicate(timeout=patience)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    @contextlib.contextmanager
    def asking(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """The same, while the block runs."""
        process = subprocess.Popen(
            [PYTHON, "-m", "distbal", *words],
            cwd=self.directory,
            env=self.environment | {"DISTBAL_ADMIN": self.admin},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            stop(process)

    def kill(self) -> int:
        """``kill -9`` of the daemon, however far it has come; which process that was, 0 where none was there."""
        pid = self.pid
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return pid

    def install(self, **changes: str) -> None:
        """Put new code where the daemon finds it: this checkout's, with words added at the end of some files.

        :param changes: by the module's name.
        """
        new = Path(tempfile.mkdtemp(prefix="new-", dir=self.directory))
        shutil.copytree(ROOT / "distbal", new / "distbal", ignore=shutil.ignore_patterns("*.pyc"))
        for name, words in changes.items():
            with (new / "distbal" / f"{name}.py").open("a") as file:
                file.write(words)
        self._switch(new / "distbal")

    def install_ours(self) -> None:
        """Put this checkout's code there."""
        self._switch(ROOT / "distbal")

    def _switch(self, target: Path) -> None:
        """At once: there is never a moment without code."""
        link = self.directory / "code" / "distbal.new"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        link.rename(self.directory / "code" / "distbal")

    def write(self, text: str) -> None:
        """Change hosts.yaml; the admin socket, which the text has not, stays."""
        write(self.directory, text)

    def reload(self, text: str) -> None:
        """Serve another file."""
        self.write(text)
        answer = self.cli("reload")
        assert answer.returncode == 0, answer


def admin_socket(directory: Path) -> Path:
    """Where it is for a daemon with this directory."""
    return directory / "admin.sock"


def write(directory: Path, text: str) -> None:
    """Write hosts.yaml, with an admin socket."""
    text = text.replace("listen: {", f"listen: {{admin: 'unix:{admin_socket(directory)}', ")
    new = directory / "hosts.yaml.new"
    new.write_text(alone(text))
    # at once: it may be read at any moment
    new.rename(directory / "hosts.yaml")


def children_of(pid: int) -> list[int]:
    """The processes that this one has started."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, task.read_text().split())
    return found


def descendants(pid: int) -> list[int]:
    """Those, and theirs, and so on."""
    found = children_of(pid)
    return found + [grandchild for child in found for grandchild in descendants(child)]


def descriptors(pid: int) -> Counter[str]:
    """How many a process has open of each kind: ``socket``, ``pipe`` (two a pipe), ``anon_inode`` ..."""
    kinds: Counter[str] = Counter()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            kinds[str(path.readlink()).partition(":")[0]] += 1
    return kinds


def memory(pid: int) -> int:
    """How many kB of a process are in memory now."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1])


def installed(directory: Path) -> dict[str, str]:
    """Put this checkout's code into the directory, where it can be replaced; the environment that runs it from there."""
    code = directory / "code"
    (code / "twisted" / "plugins").mkdir(parents=True)
    shutil.copy2(ROOT / "twisted" / "plugins" / "distbal_plugin.py", code / "twisted" / "plugins")
    (code / "distbal").symlink_to(ROOT / "distbal")
    # what is measured of code that is replaced and killed could not be put together
    environment = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("COV")}
    return environment | {"PYTHONPATH": str(code)}


@contextlib.contextmanager
def kept(directory: Path, text: str, *, supervised: bool = True, patience: float = 30) -> Iterator[Kept]:
    """A daemon with this file, serving, while the block runs; with a keeper, or without.

    :param text: hosts.yaml; it needs a ``listen: {`` and gets an admin socket.
    :param patience: the keeper's, with a daemon that is silent.
    """
    environment = installed(directory)
    command = (
        [PYTHON, "-m", "distbal", "supervise", "-c", "hosts.yaml", "--patience", str(patience)]
        if supervised
        else [str(Path(PYTHON).with_name("twistd")), "-n", "--pidfile=", "distbal", "-c", "hosts.yaml"]
    )
    write(directory, text)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
        )
    one = Kept(directory, supervised, process, environment)
    try:
        until(lambda: process.poll() is not None or "listening on" in one.log, "the daemon")
        one.assert_alive()
        yield one
        one.assert_alive()
    finally:
        _end(one)
    # what a trial of new code met is not the daemon's
    own = [line for line in one.log.splitlines() if "the new code said:" not in line]
    assert one.dies or not any("Traceback" in line for line in own), "\n".join(own)[-6000:]


def _end(one: Kept) -> None:
    """The keeper ends its daemon; where it did not, that is ended too, and whatever it left behind."""
    left = descendants(one.process.pid)
    stop(one.process)
    for pid in left:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            if b"distbal" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
