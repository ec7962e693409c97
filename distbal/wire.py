"""The text of the three ports: what is said on 5656 and 5657, what is understood on 5658, Tcl's lists included.

Text in, values out, and back; nothing here opens a socket. docs/protocol.md is the authority. The original is a Tcl program, so
every value on the status port is a Tcl list, quoted as Tcl 8.6's ``list`` command quotes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from distbal.errors import LineTooLongError, WireError

if TYPE_CHECKING:  # only named in annotations: `distbal status` starts faster without the core
    from distbal.snapshot import ClientState, Snapshot

#: bytes of one update line without its end; a host's name is far shorter, and whoever sends more is not a status daemon
MAX_LINE = 1024

_LINE_END = re.compile(rb"[\r\n]")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


# -- 5656, balance ------------------------------------------------------------------------------------------------------------


def grant(reply: str, name: str, options: str) -> bytes:
    """What a client of the balance port is sent when it is given a host.

    :param reply: the template, in which ``{name}`` and ``{options}`` stand for the other two (``{name}/100{options}``).
    :param name: the host's name, as written in hosts.yaml.
    :param options: distcc's options with their commas (``,lzo``), or "".
    :return: one line, ended by CR LF as Tcl's sockets end it.
    :raises ValueError: the template does not make one line that names the host; the text says why.
    """
    known = {"name": name, "options": options}
    strange = [word for word in _PLACEHOLDER.findall(reply) if word not in known]
    if strange:
        raise ValueError(f'"{{{strange[0]}}}" means nothing in a reply: only {{name}} and {{options}} do')
    if "{name}" not in reply:
        raise ValueError("a reply without {name} does not tell clients which host they are given")
    text = _PLACEHOLDER.sub(lambda match: known[match[1]], reply)
    if not text.isprintable():
        raise ValueError(f"a reply is one line of printable text, not {text!r}")
    return text.encode() + b"\r\n"


# -- 5657, status -------------------------------------------------------------------------------------------------------------


def status(snapshot: Snapshot, balance_port: int, status_port: int) -> bytes:
    """The nine lines of the status port, each ended by CR LF.

    Linear in hosts and clients; words that need no quoting, nearly all of them, cost one regular expression each, and an
    address or a host that several clients share is looked at once. Hosts that were removed from the file are left out, as in
    a restarted original; the clients that they still serve are not.
    """
    hosts = [host for host in snapshot.hosts if not host.removed]
    names = [_word(host.spec.name) for host in hosts]
    # only the first word of a list is quoted for a leading "#"
    firsts = [word if word[0] != "#" else _word(host.spec.name, first=True) for host, word in zip(hosts, names, strict=True)]
    flat = [*firsts[:1], *names[1:]]
    free = [host.free for host in hosts]
    listed = " ".join([f"{{{name} {host.spec.slots}}}" for host, name in zip(hosts, firsts, strict=True)])
    idle = " ".join([f"{name} {slots}" for name, slots in zip(flat, free, strict=True)])
    states = " ".join([f"{name} up" if host.up else f"{name} down" for host, name in zip(hosts, flat, strict=True)])
    # a list of several words inside a list is always in braces: quoting leaves them balanced, and no lone backslash at the end
    words: dict[str, str] = {}
    waiting = [f"{{sock{client.id:x} {_cached(client.address, words)} {client.port}}}" for client in snapshot.waiters]
    return (
        f"BalanceTcpPort = {balance_port}, StatusTcpPort = {status_port}\r\n"
        f"ServerList = {listed}\r\n"
        f"IdleServers = {sum(free)}\r\n"
        f"DownServers = {sum([host.spec.slots for host in hosts if not host.up])}\r\n"
        f"WaitQueue = {' '.join(waiting)}\r\n"
        f"WaitQueueLen = {len(waiting)}\r\n"
        f"ServerStatus (available distcc servers) = {idle}\r\n"
        f"ServerUpState (distcc server up/down status) = {states}\r\n"
        f"ClientStatus (who's connected to what) = {_served(snapshot.leases)}\r\n"
    ).encode()


def _served(leases: Sequence[ClientState]) -> str:
    firsts: dict[str, str] = {}
    words: dict[str, str] = {}
    return " ".join(
        [
            f"sock{client.id:x} {{{_cached(client.address, firsts, first=True)} {client.port} {_cached(client.host, words)}}}"
            for client in leases
        ]
    )


def _cached(text: str, words: dict[str, str], *, first: bool = False) -> str:
    word = words.get(text)
    if word is None:
        word = words[text] = _word(text, first=first)
    return word


@dataclass(frozen=True, slots=True)
class ParsedHost:
    """A host as the status port shows it: its name, its slots in all, how many of them are free, whether it is up."""

    name: str
    slots: int
    free: int
    up: bool


@dataclass(frozen=True, slots=True)
class ParsedClient:
    """A client as the status port shows it.

    :ivar id: an opaque word, unique while the connection is open.
    :ivar address: where it comes from; "" for a unix socket. ``port``: its port there, or 0.
    :ivar host: what it was given; "" while it waits.
    """

    id: str
    address: str
    port: int
    host: str = ""


@dataclass(frozen=True, slots=True)
class ParsedStatus:
    """The status port's answer, taken apart.

    :ivar balance_port: where clients ask; ``status_port``: where this was asked.
    :ivar hosts: in the order of the file.
    :ivar idle: free slots of all hosts, those that are down included; ``down``: all slots of the hosts that are down.
    :ivar waiting: longest wait first.
    :ivar served: who has what; in the order of the grants from distbal, in none from the original.
    """

    balance_port: int
    status_port: int
    hosts: tuple[ParsedHost, ...]
    idle: int
    down: int
    waiting: tuple[ParsedClient, ...]
    served: tuple[ParsedClient, ...]


def parse_status(text: bytes | str) -> ParsedStatus:
    """Take the status port's answer apart: distbal's or the original's, ended by CR LF or LF, further lines ignored.

    :raises WireError: it is something else, or was cut short; the text says what is missing or wrong.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    if not text.endswith("\n"):
        raise WireError("this is not the whole answer of a status port: it ends within a line")
    values: dict[str, str] = {}
    for line in text.split("\n"):
        key, equals, value = line.rstrip("\r").partition(" = ")
        if equals:
            values[key.partition(" (")[0]] = value
    balance, _, status_port = _value(values, "BalanceTcpPort").partition(", StatusTcpPort = ")
    free = _pairs("ServerStatus", tcl_split(_value(values, "ServerStatus")))
    states = _pairs("ServerUpState", tcl_split(_value(values, "ServerUpState")))
    hosts = []
    for name, slots in _entries("ServerList", tcl_split(_value(values, "ServerList")), 2):
        if name not in free or name not in states:
            raise WireError(f"the status names {name!r} in ServerList, but not in ServerStatus and ServerUpState")
        hosts.append(ParsedHost(name, _number("ServerList", slots), _number("ServerStatus", free[name]), states[name] == "up"))
    waiting = _entries("WaitQueue", tcl_split(_value(values, "WaitQueue")), 3)
    clients = _pairs("ClientStatus", tcl_split(_value(values, "ClientStatus")))
    served = zip(clients, _entries("ClientStatus", clients.values(), 3), strict=True)
    return ParsedStatus(
        balance_port=_number("BalanceTcpPort", balance),
        status_port=_number("StatusTcpPort", status_port),
        hosts=tuple(hosts),
        idle=_number("IdleServers", _value(values, "IdleServers")),
        down=_number("DownServers", _value(values, "DownServers")),
        waiting=tuple(ParsedClient(sock, address, _number("WaitQueue", port)) for sock, address, port in waiting),
        served=tuple(ParsedClient(sock, entry[0], _number("ClientStatus", entry[1]), entry[2]) for sock, entry in served),
    )


def _value(values: dict[str, str], key: str) -> str:
    if key not in values:
        raise WireError(f"this is not the whole answer of a status port: it has no line {key}")
    return values[key]


def _number(key: str, text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise WireError(f"the status says {text!r} in {key}, where a number belongs")
    return int(text)


def _pairs(key: str, words: list[str]) -> dict[str, str]:
    if len(words) % 2:
        raise WireError(f"the status has an odd number of words in {key}, where pairs belong")
    return dict(zip(words[::2], words[1::2], strict=True))


def _entries(key: str, words: Iterable[str], size: int) -> list[list[str]]:
    entries = [tcl_split(word) for word in words]
    for entry in entries:
        if len(entry) != size:
            raise WireError(f"the status has {tcl_quote(entry)!r} in {key}, where {size} words belong")
    return entries


# -- 5658, update -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Update:
    """What one line of the update port says.

    :ivar name: the host meant, which need not exist; "" where the line starts with white space or is empty.
    :ivar state: what it now is, or None where the second word is neither: then the line means nothing.
    """

    name: str
    state: Literal["up", "down"] | None


class UpdateReader:
    """Reads the one line of one connection to the update port, however it is cut into pieces.

    LF, CR LF or CR end the line, and so does the end of the connection. What follows it is ignored, as is everything after a
    :class:`~distbal.errors.WireError`: a reader answers once.
    """

    __slots__ = ("_line", "_over")

    def __init__(self) -> None:
        self._line = b""
        self._over = False

    def feed(self, data: bytes) -> Update | None:
        """Take the next bytes.

        :return: what the line says, once it has ended; None where more is needed, or where it was answered before.
        :raises WireError: the line is longer than :data:`MAX_LINE` bytes (LineTooLongError), or one of its first two words is
            not printable text.
        """
        if self._over:
            return None
        end = _LINE_END.search(data)
        line = self._line + data[: end.start() if end else MAX_LINE + 1]
        if len(line) > MAX_LINE:
            self._over = True
            raise LineTooLongError(f"the line is longer than {MAX_LINE} bytes; HOST up or HOST down was expected")
        if end is None:
            self._line = line
            return None
        self._over = True
        return _update(line)

    def feed_eof(self) -> Update | None:
        """The peer has ended its side: the line ends here, as it does for the original's ``gets``.

        :return: what the line says; None where nothing came at all, or where it was answered before.
        :raises WireError: one of its first two words is not printable text.
        """
        if self._over or not self._line:
            return None
        self._over = True
        return _update(self._line)


def _update(line: bytes) -> Update:
    # Tcl's split: every white space separates, so two in a row make an empty word between them. What stands after the second
    # word is read by nobody, whatever it is.
    name, word, *_ = [*line.replace(b"\t", b" ").split(b" ", 2), b""]
    try:
        words = name.decode(), word.decode()
    except UnicodeDecodeError:
        raise WireError("the line is not text; HOST up or HOST down was expected") from None
    if not "".join(words).isprintable():
        raise WireError("the line has control characters in it; HOST up or HOST down was expected")
    return Update(words[0], "up" if word == b"up" else "down" if word == b"down" else None)


# -- Tcl lists ----------------------------------------------------------------------------------------------------------------

#: words that stand for themselves; the others, rare in host names and addresses, are looked at character by character
_plain = re.compile(r"[A-Za-z0-9_.:,/@%+=-]+").fullmatch
#: IPv6 addresses (``[fd00::7]:3632``): an opening bracket asks for braces, and nothing here forbids them
_bracketed = re.compile(r"[A-Za-z0-9_.:,/@%+=-]*\[[A-Za-z0-9_.:,/@%+=\[\]-]*").fullmatch

_SPACE = r" \t\n\v\f\r"
_ESCAPES = {"\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v"}
_SPECIAL = str.maketrans({char: f"\\{char}" for char in '][$; \\"'} | _ESCAPES)
_SPECIAL_AND_BRACES = _SPECIAL | str.maketrans({"{": r"\{", "}": r"\}"})

_SPACES = re.compile(rf"[{_SPACE}]*+")
_UNQUOTED = re.compile(rf"[^{_SPACE}]+")
_BARE = re.compile(rf"(?:[^{_SPACE}\\]++|\\\n[ \t]*|\\.|\\\Z)++", re.DOTALL)
_IN_QUOTES = re.compile(r'"((?:[^"\\]++|\\.)*+)"', re.DOTALL)
_IN_FLAT_BRACES = re.compile(r"\{([^{}\\]*+)\}")
_BRACE = re.compile(r"\\.|([{}])", re.DOTALL)
#: backslash sequences, as TclParseBackslash knows them
_SEQUENCE = re.compile(
    r"\\(?:x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{1,4})|U([0-9A-Fa-f]{1,8})|([0-3][0-7]{2}|[0-7]{1,2})|(\n[ \t]*)|(.))", re.DOTALL
)
_CONTROLS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def tcl_quote(words: Iterable[str]) -> str:
    """A Tcl list of these words, to the character as the ``list`` of Tcl 8.6 writes it.

    Bare where nothing in a word is special, else in braces, or with backslashes where braces would not balance.
    """
    return " ".join([_word(word, first=place == 0) for place, word in enumerate(words)])


def _word(word: str, *, first: bool = False) -> str:
    """One word of a list, quoted as TclScanElement and TclConvertElement (tclUtil.c, 8.6) do; ``first`` of its list?"""
    if _plain(word):
        return word
    if not word or _bracketed(word):
        return f"{{{word}}}"
    hash_first = first and word[0] == "#"
    braces = hash_first or word[0] in '{"'  # something asks for braces ...
    backslashes = False  # ... or is content with backslashes ...
    unbraceable = False  # ... or cannot stand in braces
    depth = at = 0
    while at < len(word):
        char, after = word[at], word[at + 1 : at + 2]
        if char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
            unbraceable |= depth < 0
        elif char in ']"':
            backslashes = True
        elif char == "\\":
            braces = True
            unbraceable |= after in ("", "\n")
            at += after in ("{", "}", "\\", "\n")
        elif char in "[$; \f\n\r\t\v":
            braces = True
        at += 1
    if unbraceable or depth:
        return ("\\" if hash_first else "") + word.translate(_SPECIAL_AND_BRACES)
    if braces:
        return f"{{{word}}}"
    return word.translate(_SPECIAL) if backslashes else word


def tcl_split(text: str) -> list[str]:
    """The words of a Tcl list, as ``lindex`` and ``foreach`` of Tcl 8.6 see them.

    :raises WireError: a brace or a quote is never closed, or is closed in the middle of a word.
    """
    if not any(char in text for char in '{"\\'):
        return _UNQUOTED.findall(text)
    words = []
    at = _skip(text, 0)
    while at < len(text):
        start = at
        if text[at] == "{":
            flat = _IN_FLAT_BRACES.match(text, at)
            at = flat.end() if flat else _after_closing_brace(text, at)
            words.append(text[start + 1 : at - 1])
        elif text[at] == '"':
            quoted = _IN_QUOTES.match(text, at)
            if quoted is None:
                raise WireError(f"a quote is never closed in the list, from {_excerpt(text, at)}")
            at = quoted.end()
            words.append(_unescape(quoted[1]))
        else:
            at = _end_of_bare(text, at)
            words.append(_unescape(text[start:at]))
        end, at = at, _skip(text, at)
        if end == at < len(text):
            raise WireError(f"a word of the list goes on after its closing brace or quote, at {_excerpt(text, at)}")
    return words


def _skip(text: str, at: int) -> int:
    match = _SPACES.match(text, at)
    return match.end() if match else at


def _end_of_bare(text: str, at: int) -> int:
    match = _BARE.match(text, at)
    return match.end() if match else len(text)


def _after_closing_brace(text: str, at: int) -> int:
    depth = 0
    for match in _BRACE.finditer(text, at):
        if match[1]:
            depth += 1 if match[1] == "{" else -1
            if depth == 0:
                return match.end()
    raise WireError(f"a brace is never closed in the list, from {_excerpt(text, at)}")


def _excerpt(text: str, at: int) -> str:
    return ascii(text[at : at + 40])


def _unescape(text: str) -> str:
    return _SEQUENCE.sub(_character, text) if "\\" in text else text


def _character(sequence: re.Match[str]) -> str:
    by_x, by_u, by_big_u, octal, newline, char = sequence.groups()
    if newline:
        return " "
    if char:
        return _CONTROLS.get(char, char)
    if octal:
        return chr(int(octal, 8))
    digits = by_x or by_u or by_big_u
    length = len(digits)
    while int(digits[:length], 16) > 0x10FFFF:  # Tcl stops before a digit that makes it too large
        length -= 1
    return chr(int(digits[:length], 16)) + digits[length:]
