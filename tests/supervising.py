"""Keepers for tests: real processes, whose daemons are :mod:`tests.fake_daemon` and do what the test says."""

from __future__ import annotations

import array
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distbal import keeperwire as wire
from tests.support import ROOT, stop

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from distbal.keeperwire import Key

#: how long a slow machine may take for one thing, in seconds
LONG = 60.0
_ANCILLARY = socket.CMSG_SPACE(wire.MAX_DESCRIPTORS * 4)


class Lines:
    """What a process says, line by line."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""
        #: all that was read
        self.read: list[str] = []

    def until(self, text: str) -> str:
        """The next line with this in it."""
        deadline = time.monotonic() + LONG
        while True:
            while b"\n" in self._rest:
                line, self._rest = self._rest.split(b"\n", 1)
                self.read.append(line.decode())
                if text in self.read[-1]:
                    return self.read[-1]
            poll = select.poll()
            poll.register(self._descriptor, select.POLLIN)
            ready = poll.poll(max(0, deadline - time.monotonic()) * 1000)
            some = os.read(self._descriptor, 65536) if ready else b""
            assert some, f"{text!r} was not said, but {self.read}"
            self._rest += some

    def close(self) -> None:
        """Listen no more."""
        os.close(self._descriptor)


class Daemon:
    """The test's side of a fake daemon."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.settimeout(LONG)
        self.began, _ = self.hears("start")
        self.pid: int = self.began["pid"]

    def hears(self, event: str) -> tuple[dict[str, Any], list[int]]:
        """The next thing that happens to it, which has to be of this kind; and descriptors that came with it."""
        try:
            line, ancillary, _, _ = self._sock.recvmsg(1 << 18, _ANCILLARY)
        except ConnectionResetError:
            line, ancillary = b"", []
        said: dict[str, Any] = json.loads(line or b'{"event": "its end"}')
        assert said["event"] == event, said
        return said, list(array.array("i", b"".join(data for _, _, data in ancillary)))

    def send(self, packet: bytes, descriptors: Sequence[int] = ()) -> None:
        """Let it send a packet to the keeper."""
        self._order({"do": "send", "packet": packet.hex()}, descriptors)

    def receive(self) -> tuple[wire.FromKeeper, list[int]]:
        """Let it receive a packet from the keeper; its descriptors are the test's."""
        self._order({"do": "receive"})
        said, descriptors = self.hears("packet")
        return wire.from_keeper(bytes.fromhex(said["packet"])), descriptors

    def hello(self, began: str = "start", give: bool = True) -> tuple[dict[Key, int], wire.Keeper]:
        """Let it say hello, and take what it is given: all of it, and who the keeper is. After an upgrade it serves at once."""
        self.send(wire.hello("7.0", self.pid, began, give))
        given: dict[Key, int] = {}
        while True:
            said, descriptors = self.receive()
            if isinstance(said, wire.End):
                if began == "upgrade":
                    self.send(wire.ready("7.0", "serving nobody"))
                return given, said.keeper
            assert isinstance(said, wire.Give)
            given.update(zip(said.keys, descriptors, strict=True))

    def serve(self) -> dict[Key, int]:
        """Let it say hello and that it is ready; what it was given."""
        given, _ = self.hello()
        self.send(wire.ready("7.0", "serving nobody"))
        self.sent()
        return given

    def hold(self, things: Mapping[Key, int], let_go: Sequence[Key] = ()) -> None:
        """Let it send its journal, and wait until the keeper has read it."""
        sent = 0
        for packet, number in wire.journals(list(things), let_go):
            self.send(packet, list(things.values())[sent : sent + number])
            sent += number
        self.sync()

    def sent(self) -> None:
        """Wait until it has sent all that it was to send."""
        self._order({"do": "tell"})
        self.hears("told")

    def sync(self) -> None:
        """Wait until the keeper has read all that it was sent."""
        self.hello(give=False)
        self.send(wire.ready("7.0", "serving nobody"))
        self.sent()

    def hang_up(self) -> None:
        """Let it close its end of the channel, and live on."""
        self._order({"do": "hang up"})
        self.hears("told")

    def end(self, status: int = 0) -> None:
        """Let it end, having read nothing more."""
        self._order({"do": "end", "status": status})
        self.gone()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Kill it."""
        os.kill(self.pid, number)
        self.gone()

    def keeper_is_gone(self) -> None:
        """Let it see that nothing more comes from the keeper, and say so: it lives."""
        self._order({"do": "receive"})
        said, _ = self.hears("packet")
        assert said["packet"] == ""

    def gone(self) -> None:
        """Wait for its end."""
        self.hears("its end")
        self.close()

    def close(self) -> None:
        """End it, in case it lives."""
        self._sock.close()

    def _order(self, order: dict[str, object], descriptors: Sequence[int] = ()) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self._sock.sendmsg([json.dumps(order).encode()], rights)


class Supervised:
    """A keeper that runs, and its daemons.

    :ivar lines: what it says.
    """

    def __init__(self, process: subprocess.Popen[bytes], lines: Lines, listener: socket.socket, stack: ExitStack) -> None:
        self.process = process
        self.lines = lines
        self._listener = listener
        self._stack = stack

    def daemon(self) -> Daemon:
        """The next daemon that is started."""
        sock, _ = self._listener.accept()
        self._stack.callback(sock.close)
        return Daemon(sock)

    def daemon_that_holds(self, things: Mapping[Key, int]) -> Daemon:
        """The next one, which serves, and has handed these descriptors over."""
        daemon = self.daemon()
        daemon.serve()
        daemon.hold(things)
        return daemon

    def descriptors(self) -> int:
        """How many it has."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def wait(self) -> int:
        """Its exit status, when it has ended."""
        return self.process.wait(LONG)


@contextmanager
def address(directory: Path) -> Iterator[tuple[str, socket.socket]]:
    """Where fake daemons connect."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.settimeout(LONG)
        path = directory / f"test-{len(list(directory.iterdir()))}"
        listener.bind(str(path))
        listener.listen()
        yield str(path), listener


@contextmanager
def supervised(
    directory: Path,
    *words: str,
    patience: float = 600,
    before: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    stderr: int | None = None,
) -> Iterator[Supervised]:
    """A keeper of fake daemons.

    :param words: further words behind ``distbal supervise``.
    :param before: what runs it.
    :param env: added to the environment.
    :param stderr: where what it says goes; None: to its ``lines``.
    """
    with ExitStack() as stack:
        path, listener = stack.enter_context(address(directory))
        reading, writing = os.pipe()
        lines = Lines(reading)
        stack.callback(lines.close)
        command = [*before, sys.executable, "-m", "distbal", "supervise", "-c", path, f"--patience={patience:g}", "--verbose"]
        try:
            process = subprocess.Popen(
                [*command, "--daemon=tests.fake_daemon", *words],
                cwd=ROOT,
                env=os.environ | (env or {}),
                stdin=subprocess.DEVNULL,
                stderr=writing if stderr is None else stderr,
                pass_fds=pass_fds,
            )
        finally:
            os.close(writing)
        stack.callback(stop, process)
        yield Supervised(process, lines, listener, stack)


@contextmanager
def connections(number: int) -> Iterator[tuple[list[socket.socket], list[socket.socket]]]:
    """Connections: the clients' ends, and the server's."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128))
        clients, served = [], []
        for _ in range(number):
            clients.append(stack.enter_context(socket.create_connection(listener.getsockname())))
            served.append(stack.enter_context(listener.accept()[0]))
            for sock in (clients[-1], served[-1]):
                sock.settimeout(LONG)
        yield clients, served


def inodes(descriptors: Mapping[Key, int]) -> dict[Key, int]:
    """What each is; they are closed."""
    found = {key: os.fstat(descriptor).st_ino for key, descriptor in descriptors.items()}
    for descriptor in descriptors.values():
        os.close(descriptor)
    return found
