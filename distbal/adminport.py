"""The admin socket: the verbs for whoever may open a Unix socket on this machine. No key, no password, no SSH.

A request is one line of JSON, ``{"words": ["drain", "newbb:3632", "fan broken"]}``; so is its answer, ``{"ok": true,
"answer": {...}}`` or ``{"ok": false, "error": "a sentence", "usage": true}``; ``usage``: these words are no verb, or not of its
form. Requests may follow one another. Who it is, the kernel says (SO_PEERCRED, unix(7)); ``"for"`` is what the
caller adds to that: the person behind sudo.
"""

from __future__ import annotations

import json
import pwd
import socket
import struct
from collections import deque
from collections.abc import Mapping
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IPushProducer, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.threads import deferToThread
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from distbal import verbs
from distbal.admin import Admin, Who
from distbal.bugs import bugs
from distbal.complaints import Complaints
from distbal.logs import Logger
from distbal.spells import BATCH, Spells, Steps, at_once, is_long
from distbal.verbs import VerbError

T = TypeVar("T")

#: bytes of a request: a reason and some
MOST_REQUEST = 1 << 16
#: seconds that a caller may stay and say nothing, or leave unread what it was told
PATIENCE = 60.0
#: callers at once
CROWD = 32
_CREDENTIALS = "3i"


@implementer(IPushProducer, IHalfCloseableProtocol)
class AdminProtocol(LineOnlyReceiver):
    """One caller: its requests are done one after the other, and none while it leaves answers unread."""

    transport: Any  # Twisted has no one interface of what a Unix transport can do
    delimiter = b"\n"
    MAX_LENGTH = MOST_REQUEST

    def __init__(self, factory: AdminFactory) -> None:
        self.factory = factory
        self._requests: deque[bytes] = deque()
        self._busy = self._clogged = self._over = self._all_said = self._going_on = False
        self._uid = -1
        #: what nobody has any use for when the caller has left
        self._telling: Deferred[Any] | None = None

    def connectionMade(self) -> None:
        self.factory.callers[self] = None
        self._cut_off = self.factory.clock.callLater(PATIENCE, self._out_of_patience)
        sock: socket.socket = self.transport.getHandle()
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(_CREDENTIALS))
        self._uid = struct.unpack(_CREDENTIALS, credentials)[1]
        self.transport.registerProducer(self, True)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.left(self)
        self._over = True
        self._requests.clear()
        if self._cut_off.active():
            self._cut_off.cancel()
        if self._telling is not None:
            self._telling.cancel()

    def take_leave(self) -> None:
        """End it when what was asked by now is answered."""
        self._next()

    @property
    def leaves_unread(self) -> bool:
        """Whether it has been told more than it has read."""
        return self._clogged

    def make_room(self) -> None:
        """Let it go at once, for another's sake."""
        self.factory.callers.pop(self, None)
        self._over = True
        self.transport.abortConnection()

    # -- a producer: of answers

    def pauseProducing(self) -> None:
        self._clogged = True

    def resumeProducing(self) -> None:
        self._clogged = False
        self._next()

    def stopProducing(self) -> None:
        self._over = True

    # -- requests

    def dataReceived(self, data: bytes) -> None:
        if not self._over:
            super().dataReceived(data)  # type: ignore[no-untyped-call]

    def readConnectionLost(self) -> None:
        # what was asked is done, and answered where somebody listens still
        self._all_said = True
        self._next()

    def writeConnectionLost(self) -> None:
        """Nobody reads our answers: the next one ends the connection."""

    def lineReceived(self, line: bytes) -> None:
        self._cut_off.reset(PATIENCE)
        self._requests.append(line)
        # those that came with this one wait; no more are read meanwhile
        self.transport.pauseProducing()
        self._next()

    def lineLengthExceeded(self, line: bytes) -> None:
        # what it says from now on is nothing; to close at once would destroy what it has not read
        self._over = True
        self.factory.complain(
            "a request on the admin socket is longer than {most} bytes: cut off", bound="admin-line", most=MOST_REQUEST
        )
        self.transport.write(_refusal(f"a request is a line of at most {MOST_REQUEST} bytes", usage=True))

    @property
    def _may_go_on(self) -> bool:
        return not (self._busy or self._clogged or self._over)

    def _next(self) -> None:
        if self._going_on:
            # an answer that was there at once: thousands of them must not stand in each other
            return
        self._going_on = True
        while self._may_go_on and self._requests:
            self._busy = True
            Deferred.fromCoroutine(self._do(self._requests.popleft())).addErrback(self._failed).addCallback(self._done)
        self._going_on = False
        if self._may_go_on and (self._all_said or self.factory.takes_leave):
            self.transport.unregisterProducer()
            self.transport.loseConnection()
        elif self._may_go_on:
            self.transport.resumeProducing()

    async def _do(self, line: bytes) -> bytes:
        try:
            words, on_behalf = _read(line)
            call = verbs.parse(words)
        except VerbError as error:
            return _refusal(str(error), usage=True)
        # an account may have to be asked for over the network
        name = await deferToThread(account, self._uid) if call.changes else ""
        if self.factory.stopped:
            # it could not be kept any more
            raise VerbError("distbal stops")
        who = Who(f"{name} for {on_behalf}" if on_behalf else name, "admin socket")
        done = self.factory.admin.carry_out(call, who)
        answer = await (done if call.changes else self._told(done))
        return await self._told(self.factory.spells.do(_in_steps(answer))) if is_long(answer) else at_once(_in_steps(answer))

    async def _told(self, telling: Deferred[T]) -> T:
        """What it comes to, unless the caller leaves."""
        self._telling = telling
        try:
            return await telling
        finally:
            self._telling = None

    def _failed(self, failure: Failure) -> bytes:
        error = failure.value
        if isinstance(error, VerbError):
            return _refusal(str(error))
        if isinstance(error, CancelledError):
            return _refusal("the caller has left")
        bugs.met("command", self.factory.log, "a verb met a bug", failure)
        return _refusal(f"a bug in distbal ({type(error).__name__}): its log tells more")

    def _done(self, told: bytes) -> None:
        self._busy = False
        if not self._over:
            self.transport.write(told)
            self._next()

    def _out_of_patience(self) -> None:
        if self._busy:
            # it is we who take so long
            self._cut_off = self.factory.clock.callLater(PATIENCE, self._out_of_patience)
        else:
            self.transport.abortConnection()


class TurnedAway(Protocol):
    """One too many: it is told so, whatever it says."""

    transport: Any

    def connectionMade(self) -> None:
        self.transport.write(_refusal(f"{CROWD} callers are there at once already: try again when one of them has left"))
        self.transport.loseConnection()


class AdminFactory(Factory):
    """Makes the admin socket's conversations.

    :param spells: in which long answers become JSON.

    :ivar callers: those who are there now, in the order in which they came.
    :ivar stopped: nothing is done any more.
    :ivar takes_leave: whoever has been answered is let go of.
    """

    noisy = False
    log = Logger()

    def __init__(self, admin: Admin, complain: Complaints, clock: IReactorTime, spells: Spells) -> None:
        self.admin = admin
        self.spells = spells
        self.stopped = self.takes_leave = False
        #: those whose end is waited for, and who waits for it
        self._leaving: set[AdminProtocol] = set()
        self._when_left: Deferred[None] | None = None
        self.clock = clock
        self.callers: dict[AdminProtocol, None] = {}
        self.complain = complain

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        if len(self.callers) >= CROWD:
            # they come in the order in which they came
            frozen = next((caller for caller in self.callers if caller.leaves_unread), None)
            if frozen is None:
                self.complain(
                    "{crowd} callers at once on the admin socket: one more is turned away", bound="admin", crowd=CROWD
                )
                return TurnedAway()
            self.complain(
                "{crowd} callers at once on the admin socket: one that does not read makes room", bound="admin", crowd=CROWD
            )
            frozen.make_room()
        return AdminProtocol(self)

    def take_leave(self) -> Deferred[None]:
        """Let go of whoever is there, once it is answered, until :meth:`stay`; fires when they have gone."""
        self.takes_leave = True
        self._leaving = set(self.callers)
        left: Deferred[None] = Deferred()
        self._when_left = left
        for caller in list(self._leaving):
            caller.take_leave()
        self._look_whether_left()
        return left

    def stay(self) -> None:
        """Whoever comes from now on may stay."""
        self.takes_leave = False

    def left(self, caller: AdminProtocol) -> None:
        """One has gone."""
        self.callers.pop(caller, None)
        self._leaving.discard(caller)
        self._look_whether_left()

    def _look_whether_left(self) -> None:
        if self._when_left is not None and not self._leaving:
            left, self._when_left = self._when_left, None
            left.callback(None)

    def hang_up(self) -> None:
        """The end: whoever is there is let go of."""
        self.stopped = True
        for caller in list(self.callers):
            caller.transport.abortConnection()


def account(uid: int) -> str:
    """The name of an account, or its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _refusal(why: str, *, usage: bool = False) -> bytes:
    return json.dumps({"ok": False, "error": why, "usage": usage}).encode() + b"\n"


def _in_steps(answer: Mapping[str, Any]) -> Steps[bytes]:
    """An answer as JSON: its lists, of which each item may be long, some items at a time."""
    parts = [b'{"ok": true, "answer": {']
    for number, (name, value) in enumerate(answer.items()):
        parts.append((b", " if number else b"") + json.dumps(name).encode() + b": ")
        if isinstance(value, list):
            for begin in range(0, len(value), BATCH):
                parts.append((b", " if begin else b"[") + json.dumps(value[begin : begin + BATCH]).encode()[1:-1])
                yield
            parts.append(b"]" if value else b"[]")
        else:
            parts.append(json.dumps(value).encode())
    parts.append(b"}}\n")
    return b"".join(parts)


def _read(line: bytes) -> tuple[list[str], str]:
    """The words of a request, and for whom they are said."""
    form = 'a request is a line of JSON such as {"words": ["drain", "newbb:3632", "fan broken"]}'
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise VerbError(form) from None
    words = request.get("words") if isinstance(request, dict) else None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise VerbError(form)
    on_behalf = request.get("for", "")
    if not isinstance(on_behalf, str) or len(on_behalf) > 64 or not on_behalf.isprintable():
        raise VerbError('"for" is a name of at most 64 characters')
    return words, on_behalf
