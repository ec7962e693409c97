"""What somebody may ask for who is logged in: a session, with a command or a shell, and a terminal. Nothing else is there."""

from __future__ import annotations

# half of Conch has no types
# mypy: disallow-untyped-calls=false
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.conch.error import ConchError
from twisted.conch.ssh.channel import SSHChannel
from twisted.conch.ssh.common import getNS
from twisted.conch.ssh.connection import (
    EXTENDED_DATA_STDERR,
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_SUCCESS,
    OPEN_ADMINISTRATIVELY_PROHIBITED,
    OPEN_RESOURCE_SHORTAGE,
    SSHConnection,
)

from distbal.bugs import bugs
from distbal.logs import Logger
from distbal.manhole.transport import MOST_UNREAD, Transport, number
from distbal.monitors.sshtalk import SILENT

#: sessions on one connection (ControlMaster), as MaxSessions in sshd_config(5)
MOST_SESSIONS = 10
#: bytes of a packet, the least that a client may want: with less, there would be more packet than data
LEAST_PACKET = 256
#: columns of a terminal
LEAST_WIDTH, USUAL_WIDTH, MOST_WIDTH = 20, 80, 1000


@dataclass(slots=True)
class Pty:
    """A client's terminal.

    :ivar term: what kind ($TERM).
    :ivar width: columns now.
    """

    term: str
    width: int

    @property
    def plain(self) -> bool:
        """Whether it knows no control sequences."""
        return self.term in ("", "dumb", "unknown")

    @property
    def colour(self) -> bool:
        """Whether it shows colours."""
        return not self.plain and not self.term.startswith(("vt", "ansi-m")) and not self.term.endswith("-m")


class Program(Protocol):
    """What runs in a session."""

    def received(self, data: bytes) -> None:
        """Something was typed."""

    def no_more(self) -> None:
        """Nothing will be."""

    def resized(self) -> None:
        """The terminal has another size."""

    def go_on(self) -> None:
        """Something was sent of what had to wait."""

    def gone(self) -> None:
        """Nobody is there any more."""


class Connection(SSHConnection):
    """What sessions are opened on.

    :param start: runs a command, or the shell where it is None.
    """

    _log = SILENT
    transport: Transport

    def __init__(self, start: Callable[[Session, str | None], Program]) -> None:
        super().__init__()
        self.start = start

    def getChannel(self, channelType: bytes, windowSize: int, maxPacket: int, data: bytes) -> Session:
        if channelType != b"session":
            raise ConchError("there are sessions here, and nothing is forwarded", OPEN_ADMINISTRATIVELY_PROHIBITED)
        if len(self.channels) >= MOST_SESSIONS:
            self.transport.complain("has {most} sessions already", bound="manhole-session", most=MOST_SESSIONS)
        if len(self.channels) >= MOST_SESSIONS or maxPacket < LEAST_PACKET:
            raise ConchError(f"one connection has {MOST_SESSIONS} sessions at the most", OPEN_RESOURCE_SHORTAGE)
        return Session(remoteWindow=windowSize, remoteMaxPacket=min(maxPacket, 32_768), conn=self)

    def gotGlobalRequest(self, requestType: bytes, data: bytes) -> int:
        """Nothing is forwarded."""
        return 0

    def adjustWindow(self, channel: Session, bytesToAdd: int) -> None:
        """Conch's, at once when something came; here, when there is use for more."""
        if not channel.is_held:
            super().adjustWindow(channel, bytesToAdd)

    def go_on(self) -> None:
        """Something was sent."""
        for channel in list(self.channels.values()):
            channel.startWriting()

    def ssh_CHANNEL_REQUEST(self, packet: bytes) -> None:
        """As Conch's; but what is started says nothing before the client has heard that it is."""
        local = number(packet)
        kind, rest = getNS(packet[4:])
        channel = self.channels[local]
        answer = channel.asked(kind, rest[1:])
        if rest[:1] != b"\0" and not channel.localClosed:
            message = MSG_CHANNEL_SUCCESS if answer else MSG_CHANNEL_FAILURE
            self.transport.sendPacket(message, struct.pack(">L", self.localToRemoteChannel[local]))
        if callable(answer):
            answer()


class Session(SSHChannel):
    """A session (RFC 4254, 6).

    :ivar pty: the client's terminal, None where it wants none.
    :ivar is_held: the client is asked for no more for now.
    """

    name = b"session"
    log = Logger()
    _log = SILENT
    conn: Connection

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.pty: Pty | None = None
        self._program: Program | None = None
        self._started = False
        self.is_held = False

    @property
    def is_open(self) -> bool:
        """Whether there is anybody to be told anything."""
        return not (self.localClosed or self.closing or self.transport.over)

    @property
    def is_behind(self) -> bool:
        """Whether the client does not keep up with what it is sent."""
        return bool(self.buf or self.extBuf) or self.transport.is_behind

    @property
    def transport(self) -> Transport:
        """The connection."""
        return self.conn.transport

    def say(self, text: str) -> None:
        """Send text to the client's standard output."""
        self._send(text, self.write)

    def say_error(self, text: str) -> None:
        """Send text to the client's standard error."""
        self._send(text, lambda data: self.writeExtended(EXTENDED_DATA_STDERR, data))

    def end(self, status: int) -> None:
        """End it when what was said is sent.

        :param status: the exit status, 0 to 255.
        """
        if self.is_open:
            self.conn.sendRequest(self, b"exit-status", struct.pack(">L", status))
            self.loseConnection()

    def hold(self, is_held: bool) -> None:
        """Whether the client is asked for no more, for now."""
        before, self.is_held = self.is_held, is_held
        if before and not is_held and self.is_open and self.localWindowLeft < self.localWindowSize:
            self.conn.adjustWindow(self, self.localWindowSize - self.localWindowLeft)

    def asked(self, kind: bytes, data: bytes) -> bool | Callable[[], None]:
        """The client asks for something: whether it gets it, or what is to be done when it has heard that it does."""
        if kind == b"pty-req":
            return self._pty(data)
        if kind == b"window-change" and self.pty is not None:
            self.pty.width = _width(number(data))
            if self._program is not None:
                with self.alone():
                    self._program.resized()
            return True
        if kind == b"shell":
            return self._start(None)
        if kind == b"exec":
            return self._start(getNS(data)[0].decode("utf-8", "replace"))
        return False

    def _pty(self, data: bytes) -> bool:
        entry = self.transport.entry
        if self._started or entry is None or not entry.pty:
            return False
        term, rest = getNS(data)
        self.pty = Pty(term[:64].decode("ascii", "replace"), _width(number(rest)))
        return True

    def _start(self, command: str | None) -> bool | Callable[[], None]:
        if self._started:
            return False
        self._started = True
        entry = self.transport.entry
        forced = None if entry is None else entry.command

        def start() -> None:
            with self.alone():
                self._program = self.conn.start(self, command if forced is None else forced)

        return start

    def _send(self, text: str, write: Callable[[bytes], None]) -> None:
        if not text or not self.is_open:
            return
        # one answer, however long, is what it asked for: it has not had the time to read it
        if len(self.buf) + sum(len(waiting) for _, waiting in self.extBuf) > MOST_UNREAD:
            self.transport.cut("does not read what it asked for", bound="manhole-unread")
            return
        data = text.encode("utf-8", "backslashreplace")
        write(data.replace(b"\n", b"\r\n") if self.pty is not None else data)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """What the block raises is a bug of ours: it ends this session, and neither its connection nor another one."""
        try:
            yield
        except Exception:  # noqa: BLE001 (whatever it is; to Conch it would be the client's fault)
            bugs.met("command", self.log, "the session of {who} met a bug; it is ended", who=str(self.transport.who))
            self.say_error("distbal met a bug, which is in its log: this session ends\n")
            self.end(1)

    # -- what Conch calls

    def channelOpen(self, specificData: bytes) -> None:
        """The session is there."""

    def startWriting(self) -> None:
        if self._program is not None and self.is_open:
            with self.alone():
                self._program.go_on()

    def dataReceived(self, data: bytes) -> None:
        if self._program is not None and self.is_open:
            with self.alone():
                self._program.received(data)

    def extReceived(self, dataType: int, data: bytes) -> None:
        """Nothing is sent there."""

    def eofReceived(self) -> None:
        if self._program is not None and self.is_open:
            with self.alone():
                self._program.no_more()

    def closeReceived(self) -> None:
        # what it has not read by now, it never will
        self.buf, self.extBuf = b"", []
        self.loseConnection()

    def closed(self) -> None:
        program, self._program = self._program, None
        if program is not None:
            with self.alone():
                program.gone()


def _width(columns: int) -> int:
    return min(max(columns, LEAST_WIDTH), MOST_WIDTH) if columns else USUAL_WIDTH
