"""A balancer of a few lines for distbal-wrap's tests, and the ways to run the program."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import stop

#: how long anything may take that should take no time, in seconds
PATIENCE = 20.0

#: what makes a shell script a compile in distcc's eyes: there is -c, and its $0 is a source
SOURCE = "x.c"


def compile_that(script: str) -> list[str]:
    """A command that distcc would send to a server, and that runs this shell script instead."""
    return ["sh", "-c", script, SOURCE]


class Balancer:
    """A listening socket that the test answers by hand, so that every step happens when the test says so."""

    def __init__(self, family: socket.AddressFamily = socket.AF_INET, path: Path | None = None) -> None:
        self._listener = socket.socket(socket.AF_UNIX if path else family)
        self._listener.bind(str(path) if path else ("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        self._listener.listen(100)
        self._listener.settimeout(PATIENCE)
        self._clients: list[socket.socket] = []

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    @property
    def address(self) -> str:
        """As ``$DISTBAL`` takes it."""
        return f"127.0.0.1:{self.port}"

    def accept(self) -> socket.socket:
        """The next client."""
        client, _ = self._listener.accept()
        client.settimeout(PATIENCE)
        self._clients.append(client)
        return client

    def grant(self, reply: bytes = b"box:3632\r\n") -> socket.socket:
        """Answer the next client with this line; its connection is the lease."""
        client = self.accept()
        client.sendall(reply)
        return client

    def asked(self) -> bool:
        """Whether a client connected that was not accepted yet."""
        self._listener.settimeout(0)
        try:
            self.accept()
        except BlockingIOError:
            return False
        finally:
            self._listener.settimeout(PATIENCE)
        return True

    def close(self) -> None:
        """Refuse from now on, and drop every client."""
        for one in (*self._clients, self._listener):
            one.close()


@dataclass
class Farm:
    """A balancer that grants every client a host as soon as it comes, in a thread of its own.

    :ivar replies: the lines it sends, in turn; the last one for ever.
    :ivar granted: how many it sent; ``held``: the connections now open; ``most``: the most at one time.
    """

    replies: list[bytes]
    granted: int = 0
    held: list[socket.socket] = field(default_factory=list)
    most: int = 0
    address: str = ""
    #: the farm's own thread counts too
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def count_held(self) -> int:
        """Leases that have not ended: what has ended is found readable."""
        with self._counting:
            for client in list(self.held):
                try:
                    if client.recv(1) == b"":
                        client.close()
                        self.held.remove(client)
                except BlockingIOError:
                    pass
                except ConnectionResetError:
                    client.close()
                    self.held.remove(client)
            return len(self.held)


@contextmanager
def farm(*replies: bytes) -> Iterator[Farm]:
    """A :class:`Farm` that serves while the block runs."""
    served = Farm(list(replies))
    listener = socket.create_server(("127.0.0.1", 0), backlog=100)
    served.address = f"127.0.0.1:{listener.getsockname()[1]}"

    def serve() -> None:
        while True:
            client, _ = listener.accept()
            if served.address == "":
                client.close()
                return
            client.setblocking(False)
            client.send(served.replies[min(served.granted, len(served.replies) - 1)])
            served.granted += 1
            served.held.append(client)
            served.most = max(served.most, served.count_held())

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield served
    finally:
        host, port = served.address.split(":")
        served.address = ""
        socket.create_connection((host, int(port))).close()
        thread.join()
        listener.close()
        for client in served.held:
            client.close()


class Wrap:
    """The compiled program, with an environment in which nothing of the user's own set-up is seen.

    :ivar env: what it is run with; tests add to it.
    """

    def __init__(self, program: Path, directory: Path) -> None:
        self.program = program
        self.directory = directory
        self.env = {
            name: value for name, value in os.environ.items() if not name.startswith(("DIST", "_DIST", "CCACHE", "MAKE"))
        }
        self.env |= {
            "HOME": str(directory),
            "DISTCC_DIR": str(directory / "distcc"),
            "DISTBAL_CLIENT_FILE": str(directory / "client"),
            "LC_ALL": "C",
        }
        (directory / "distcc").mkdir()

    def start(
        self,
        command: Sequence[str | Path],
        program: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.Popen[str]:
        """Start it with this command; the caller stops it."""
        return subprocess.Popen(
            [str(program or self.program), *map(str, command)],
            env={**self.env, **(env or {})},
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=pass_fds,
        )

    @contextmanager
    def running(
        self, command: Sequence[str | Path], env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()
    ) -> Iterator[subprocess.Popen[str]]:
        """It runs this command while the block does."""
        process = self.start(command, env=env, pass_fds=pass_fds)
        try:
            yield process
        finally:
            stop(process)

    def run(
        self, *command: str | Path, program: str | Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        process = self.start(command, program, env)
        try:
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.communicate()
        return subprocess.CompletedProcess(command, process.returncode, out, err)
