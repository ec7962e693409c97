"""Makes the manhole: what the composition gives it, and the bounds on how many may come."""

from __future__ import annotations

# half of Conch has no types
# mypy: disallow-untyped-calls=false
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from twisted.conch.ssh.factory import SSHFactory
from twisted.conch.ssh.keys import Key
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress

from distbal.admin import Admin
from distbal.complaints import Complaints
from distbal.deadlines import Deadlines
from distbal.logs import Logger
from distbal.manhole.authorized import AuthorizedKeys
from distbal.manhole.command import Command
from distbal.manhole.hostkey import host_key
from distbal.manhole.session import Connection, Program, Session
from distbal.manhole.shell import start_shell
from distbal.manhole.transport import Login, Transport
from distbal.monitors.sshtalk import SILENT

#: people and scripts that are logged in at once, and clients that are not logged in yet
MOST_CONNECTIONS, MOST_STRANGERS = 100, 60
#: seconds that a client may take to log in, to take leave, and to leave by itself when it has heard all that it asked for
GRACE, LEAVE, HEARD = 30.0, 5.0, 1.0


class Settings(Protocol):
    """``manhole`` in hosts.yaml.

    :ivar authorized_keys: the path of a file, in OpenSSH's form.
    :ivar host_key: the path of a private key, which is made where there is none.
    """

    @property
    def authorized_keys(self) -> str: ...

    @property
    def host_key(self) -> str: ...


def make_factory(
    admin: Admin,
    settings: Settings,
    reactor: Any,
    namespace: Mapping[str, object],
    wall: Callable[[], float] = time.time,
) -> ManholeFactory:
    """A factory of connections, to listen with.

    :param reactor: its clock never goes back.
    :param namespace: the live objects that the shell has, by name; a verb's name is the verb.
    :param wall: seconds since 1970.
    :raises DistbalError: there can be no host key; the text is for the user.
    """
    return ManholeFactory(admin, settings, reactor, namespace, wall)


class ManholeFactory(SSHFactory):
    """All connections to the manhole.

    :ivar keys: who may log in; ``clock``: the reactor; ``wall``: seconds since 1970.
    """

    log = Logger()
    _log = SILENT
    protocol = Transport
    noisy = False
    services = {b"ssh-userauth": Login}  # noqa: RUF012 (Conch's)
    primes = None

    def __init__(
        self,
        admin: Admin,
        settings: Settings,
        reactor: Any,
        namespace: Mapping[str, object],
        wall: Callable[[], float],
    ) -> None:
        self.complain = Complaints(self.log, reactor.seconds)
        self.configure(settings)
        self.wall = wall
        self._admin = admin
        self.clock = reactor
        self._namespace = namespace
        #: in the order in which they came
        self._strangers: dict[Transport, None] = {}
        self._known: dict[Transport, None] = {}
        self._leaving: dict[Transport, None] = {}
        self._grace: Deadlines[Transport] = Deadlines(reactor, GRACE, self._too_slow)
        self._leave: Deadlines[Transport] = Deadlines(reactor, LEAVE, Transport.abort)
        self._heard: Deadlines[Transport] = Deadlines(reactor, HEARD, lambda one: one.take_leave(self._why))
        self._why = b""
        self._closed: Deferred[None] | None = None
        self._seen_off: Deferred[None] | None = None

    def configure(self, settings: Settings) -> None:
        """Go by these from now on, for whoever comes next.

        :raises DistbalError: there can be no host key; nothing has changed. The text is for the user.
        """
        key = host_key(settings.host_key)
        self.publicKeys: dict[bytes, Key] = {key.sshType(): key.public()}
        self.privateKeys: dict[bytes, Key] = {key.sshType(): key}
        self.keys = AuthorizedKeys(settings.authorized_keys, self.complain)
        self.log.info("manhole: {count} keys may log in ({path})", count=len(self.keys.read()), path=self.keys.path)

    @property
    def connections(self) -> list[Transport]:
        """All that there are."""
        return [*self._strangers, *self._known, *self._leaving]

    def close(self) -> Deferred[None]:
        """End all connections; fires when they have ended, in 5 s at the latest. New ones are turned away."""
        if self._closed is None:
            self._closed = Deferred()
        for one in self.connections:
            one.take_leave(b"the balancer stops")
        self._look_whether_closed()
        return succeed(None) if self._closed.called else self._closed

    def see_off(self, why: bytes) -> Deferred[None]:
        """End the connections that there are, saying why; fires when they have ended, in 6 s at the latest. More may come.

        Whoever has just been answered, such as one who asked for what this is done for, has time to read that and leave: a
        client that is sent away forgets what it has not shown yet.
        """
        seen_off: Deferred[None] = Deferred()
        self._seen_off, self._why = seen_off, why
        for one in self.connections:
            if one.was_answered:
                self._heard.add(one)
            else:
                one.take_leave(why)
        self._look_whether_closed()
        return seen_off

    # -- what connections say

    def begun(self, one: Transport) -> None:
        """One has come. If there are too many that have not logged in, the oldest of them goes: it is no honest client."""
        if len(self._strangers) >= MOST_STRANGERS:
            next(iter(self._strangers)).cut("makes room for others: it has not logged in", bound="manhole")
        self._strangers[one] = None
        self._grace.add(one)

    def logged_in(self, one: Transport) -> str:
        """One has logged in: why it cannot stay, or ""."""
        if len(self._known) >= MOST_CONNECTIONS:
            return f"distbal has {MOST_CONNECTIONS} SSH connections already"
        self._strangers.pop(one, None)
        self._grace.discard(one)
        self._known[one] = None
        return ""

    def closing(self, one: Transport) -> None:
        """One takes leave."""
        self._forget(one)
        self._leaving[one] = None
        self._leave.add(one)

    def ended(self, one: Transport) -> None:
        """One is gone."""
        self._forget(one)
        self._leaving.pop(one, None)
        self._leave.discard(one)
        self._heard.discard(one)
        if not self.connections:
            self._grace.stop()
            self._leave.stop()
            self._heard.stop()
        self._look_whether_closed()

    def connection(self) -> Connection:
        """What follows a login."""
        return Connection(self._start)

    # -- what Twisted and Conch call

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if self._closed is not None:
            return None
        made = super().buildProtocol(addr)
        made.supportedPublicKeys = [name for name in made.supportedPublicKeys if name != b"ssh-rsa"]
        return made

    def getService(self, transport: Any, service: bytes) -> Any:
        return self.services.get(service)

    # -- the inside

    def _start(self, session: Session, command: str | None) -> Program:
        if command is None:
            return start_shell(self._admin, session, self._namespace)
        return Command(self._admin, session, command)

    def _too_slow(self, one: Transport) -> None:
        one.cut("has not logged in within {seconds:.0f} s", seconds=GRACE)

    def _forget(self, one: Transport) -> None:
        self._strangers.pop(one, None)
        self._known.pop(one, None)
        self._grace.discard(one)

    def _look_whether_closed(self) -> None:
        if self._seen_off is not None and not self.connections:
            seen_off, self._seen_off = self._seen_off, None
            seen_off.callback(None)
        if self._closed is not None and not self.connections and not self._closed.called:
            self._closed.callback(None)
