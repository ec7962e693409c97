"""Where distbal listens: an address as the user writes it, and as the ports take it.

A text is a PORT (every address of the machine, IPv4 and IPv6), ADDRESS:PORT with a numeric address (names are looked up when
they are needed, and a listener needs its address at once), ``unix:/PATH``, or a server endpoint of Twisted
(``systemd:domain=INET:index=0``). A word and a number, ``box:5656``, is a name with a port and never an endpoint, but for
Twisted's own ``tcp:`` and its like.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from distbal import addresses
from distbal.addresses import BRACKETED, IPV4, IPV6, PORT, ZONE
from distbal.hosts import DEFAULT_POOL

#: what may be spoken at a listener, in the order in which it is shown
KINDS = ("balance", "status", "update", "proxy", "web", "admin", "manhole")
#: a port to listen on: 0 lets the system choose a free one
LISTEN_PORT = rf"(?:0|{PORT})"
TCP = rf"(?:(?:(?:{IPV4}|{BRACKETED}):)?{LISTEN_PORT})"
#: sun_path holds 107 bytes and a zero; a ":" would begin the options of an endpoint
UNIX = r"(?:unix:/[!-9;-~]{1,106})"
#: the kinds of server endpoint that Twisted brings; others come with packages of their own
KNOWN_ENDPOINTS = ("tcp", "tcp6", "ssl", "unix", "systemd", "haproxy")
#: those of them that put something between a connection and its bytes
WRAPPING_ENDPOINTS = ("ssl", "haproxy")
#: every address of one family
_EVERY = {"0.0.0.0", "::"}  # noqa: S104 - compared with, not bound to
_GRAPHIC = r"[!-~]{1,400}"
#: an IPv6 address without its brackets is no endpoint of a kind called ``fd00``
_NO_ADDRESS = r"(?![!-~]*::)(?![0-9a-f:]+(?![!-~]))"
ENDPOINT = (
    rf"(?:(?:tcp6?|ssl):{LISTEN_PORT}(?::{_GRAPHIC})?|unix:/[!-9;-~]{{1,106}}:{_GRAPHIC}|(?:systemd|haproxy):{_GRAPHIC}"
    rf"|(?!(?:tcp6?|ssl|unix|systemd|haproxy):){_NO_ADDRESS}[a-z][a-z0-9_]{{0,31}}:(?![0-9]+(?![!-~])){_GRAPHIC})"
)
ADDRESS = rf"(?:{TCP}|{UNIX}|{ENDPOINT})"


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Somewhere to listen; make one with :meth:`tcp`, :meth:`unix`, :meth:`endpoint` or :func:`parse`.

    :ivar kind: which of the three; the other fields belong to one kind each.
    :ivar host: tcp: the numeric address, without brackets; None for every address, IPv4 and IPv6.
    :ivar port: tcp: 0 to 65535, 0 for any that is free.
    :ivar path: unix: the absolute path of the socket.
    :ivar description: endpoint: the text for Twisted's serverFromString.
    """

    kind: Literal["tcp", "unix", "endpoint"]
    host: str | None = None
    port: int = 0
    path: str = ""
    description: str = ""

    @classmethod
    def tcp(cls, host: str | None, port: int) -> ListenAddress:
        """A TCP port on one address, or on every one."""
        return cls("tcp", host=host, port=port)

    @classmethod
    def unix(cls, path: str) -> ListenAddress:
        """A Unix socket."""
        return cls("unix", path=path)

    @classmethod
    def endpoint(cls, description: str) -> ListenAddress:
        """Whatever Twisted's plugins make of the text."""
        return cls("endpoint", description=description)

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix:{self.path}"
        if self.kind == "endpoint":
            return self.description
        return str(self.port) if self.host is None else addresses.join(self.host, self.port)

    def overlaps(self, other: ListenAddress) -> bool:
        """Whether the second of the two could not be listened on while the first is. Port 0 is never the same twice."""
        if self.kind != other.kind:
            return False
        if self.kind != "tcp":
            return self == other
        if self.port != other.port or self.port == 0:
            return False
        if self.host is None or other.host is None:
            return True
        one, two = addresses.canonical(self.host), addresses.canonical(other.host)
        same_family = (":" in one) == (":" in two)
        return one == two or (same_family and bool({one, two} & _EVERY))


@dataclass(frozen=True, slots=True)
class Listener:
    """One place to listen at, and for whom.

    :ivar kind: what is spoken there, one of :data:`KINDS`.
    :ivar at: where.
    :ivar pool: balance and proxy: the pool whose hosts are lent there.
    :ivar speaks_first: proxy: ``client``, whose slot is asked for at its first byte, or ``server``: at its connect.
    :ivar half_close: proxy: what it means that a client closes its side: ``cancel``, it has left; ``pass`` it on to the server.
    """

    kind: str
    at: ListenAddress
    pool: str = DEFAULT_POOL
    speaks_first: str = "client"
    half_close: str = "cancel"
    #: nobody asked for it: where it cannot be had, the daemon does without
    optional: bool = field(default=False, compare=False)

    @property
    def lends(self) -> bool:
        """Whether hosts are lent there."""
        return self.kind in ("balance", "proxy")


def parse(value: object) -> ListenAddress:
    """Read what stands in the file, a number or a text; ValueError says what is wrong and what would be right."""
    # of a number with thousands of digits Python makes no text
    is_number = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 64
    written = str(value) if isinstance(value, str) or is_number else ""
    if addresses.matches(TCP, written):
        host, _, port = written.rpartition(":")
        return ListenAddress.tcp(host.strip("[]") or None, int(port))
    if addresses.matches(UNIX, written):
        return ListenAddress.unix(written.removeprefix("unix:"))
    if addresses.matches(ENDPOINT, written):
        return ListenAddress.endpoint(written)
    raise ValueError(_why_not(written or value))


_FORMS = "a PORT, ADDRESS:PORT, unix:/PATH or a Twisted endpoint"


def _why_not(value: object) -> str:
    if value is False or (isinstance(value, str) and value.lower() in ("off", "no", "none", "false", "")):
        return "null is off"
    if not isinstance(value, str):
        return f"write {_FORMS}; null is off"
    if not addresses.matches("[!-~]{1,400}", value):
        return f"{_FORMS} has no spaces and no control characters, and at most 400 characters"
    if addresses.matches("-?[0-9]+", value):
        return f"a port is 0 to 65535 (0: any that is free), not {value[:40]}"
    if addresses.matches(f"{IPV6}{ZONE}?", value):
        return 'an IPv6 address stands between brackets and before a port: "[::1]:5656"'
    kind = value.partition(":")[0]
    if kind == "unix":
        return "unix:/PATH has an absolute path of at most 107 characters"
    if kind in KNOWN_ENDPOINTS:
        return f"{kind}:PORT has a port of 0 to 65535" if kind in ("tcp", "tcp6", "ssl") else f"something stands after {kind}:"
    return _why_not_tcp(value)


def _why_not_tcp(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not colon:
        return f'"{value[:60]}" lacks a port: {_FORMS}' if addresses.matches(addresses.HOST, value) else f"write {_FORMS}"
    if not addresses.matches(LISTEN_PORT, port):
        return f'a port is 0 to 65535, not "{port[:40]}"'
    if host in ("", "*"):
        return f"for every address write {port} alone"
    if addresses.matches(f"{IPV6}{ZONE}?", host):
        return f'an IPv6 address stands between brackets, and so in quotes: "[{host}]:{port}"'
    if host == "localhost":
        return f'write the address itself: 127.0.0.1:{port}, "[::1]:{port}" or both in a list'
    if addresses.matches(addresses.HOSTNAME, host):
        return f"{host} is a name: write an IP address of this machine, or {port} alone for every address"
    return f'"{host[:60]}" is no IP address: {addresses.why_no_host(host)}'
