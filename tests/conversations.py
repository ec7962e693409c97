"""Conversations on the three ports, as data: what is said, what is answered, what the status port shows in between.

One table for three uses: the lines of the update port are fed to the parser alone (test_wire.py); whole conversations are held
with the Tcl original and with distbal (integration/test_original.py), where both must give the same bytes. Rows with a
``fault`` tell where the original fails: there ``steps`` is what distbal does, and ``original`` what the original does.
docs/protocol.md says in words what stands here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Port = Literal["balance", "status", "update"]


@dataclass(frozen=True)
class Connect:
    """Somebody connects; later steps call the connection by this name."""

    who: str
    port: Port = "balance"
    address: str = "127.0.0.1"


@dataclass(frozen=True)
class Send:
    """Bytes are sent, in the pieces that the way of feeding makes of them."""

    who: str
    data: bytes


@dataclass(frozen=True)
class Expect:
    """These very bytes come."""

    who: str
    data: bytes


@dataclass(frozen=True)
class Waits:
    """The status port shows the connection in its WaitQueue, and it has been sent nothing."""

    who: str


@dataclass(frozen=True)
class Ended:
    """The daemon ends the connection, and has sent nothing more."""

    who: str


@dataclass(frozen=True)
class CutOff:
    """The daemon ends the connection, with a reset if it likes, and has sent nothing."""

    who: str


@dataclass(frozen=True)
class HalfClose:
    """The client ends its side and goes on listening."""

    who: str


@dataclass(frozen=True)
class Close:
    """The client closes."""

    who: str


@dataclass(frozen=True)
class Reset:
    """The client is gone with a reset, as when its process is killed with bytes unread."""

    who: str


@dataclass(frozen=True)
class Status:
    """The status port says exactly this, as soon as what went before has arrived.

    :ivar served: who has which host; ``waiting``: the others, longest wait first; ``down``: hosts that are down.
    """

    served: tuple[tuple[str, str], ...] = ()
    waiting: tuple[str, ...] = ()
    down: tuple[str, ...] = ()


Step = Connect | Send | Expect | Waits | Ended | CutOff | HalfClose | Close | Reset | Status


@dataclass(frozen=True)
class Conversation:
    """One row of the table.

    :ivar id: its name.
    :ivar steps: what happens, one after the other.
    :ivar farm: the hosts that it is about, a key of :data:`FARMS`.
    :ivar fault: what is wrong with the original here; "" where it is right.
    :ivar original: where it is wrong, what it does instead.
    """

    id: str
    steps: tuple[Step, ...]
    farm: str = "office"
    fault: str = ""
    original: tuple[Step, ...] = ()

    @property
    def sends(self) -> bool:
        """Whether it makes a difference how bytes are fed."""
        return any(isinstance(step, Send) for step in self.steps)


#: name and slots of each host, fastest first
FARMS: dict[str, tuple[tuple[str, int], ...]] = {
    "office": (("snookles:3632", 1), ("newbb:3632", 2), ("10.1.1.143", 1)),
    "ipv6": (("[fd00::7]:3632", 1), ("newbb", 1)),
    "large": (("snookles:3632", 2000),),
}

SNOOKLES, NEWBB, THIRD = (name for name, _ in FARMS["office"])
SIX = FARMS["ipv6"][0][0]


# -- lines of the update port -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One line sent to the update port, and what it says.

    :ivar says: the host and its state; a state of None where the second word is none; None for nothing at all.
    :ivar garbage: it is refused; ``says`` is then None.
    :ivar eof: it is the end of the connection that ends it.
    """

    id: str
    data: bytes
    says: tuple[str, Literal["up", "down"] | None] | None
    garbage: bool = False
    eof: bool = False


LINES = (
    Line("down", b"snookles:3632 down\n", (SNOOKLES, "down")),
    Line("up", b"snookles:3632 up\n", (SNOOKLES, "up")),
    Line("ended by CR LF", b"snookles:3632 down\r\n", (SNOOKLES, "down")),
    Line("ended by CR", b"snookles:3632 down\r", (SNOOKLES, "down")),
    Line("ended by LF CR", b"snookles:3632 down\n\r", (SNOOKLES, "down")),
    Line("two lines, the second ignored", b"snookles:3632 down\nsnookles:3632 up\n", (SNOOKLES, "down")),
    Line("more words", b"snookles:3632 down since 9:00, said Scott\n", (SNOOKLES, "down")),
    Line("more words, not UTF-8", b"snookles:3632 down caf\xe9 since 9:00\n", (SNOOKLES, "down")),
    Line("more words, not UTF-8, up", b"snookles:3632 up \xff\xfe\xc3\r\n", (SNOOKLES, "up")),
    Line("more words, with a NUL", b"snookles:3632 down \0\n", (SNOOKLES, "down")),
    Line("more words, with a bell", b"snookles:3632 down bell\x07\n", (SNOOKLES, "down")),
    Line("more words, with an end of file character", b"snookles:3632\tdown\t\x1a\n", (SNOOKLES, "down")),
    Line("more words, with an escape sequence", b"snookles:3632 down \x1b[31m\n", (SNOOKLES, "down")),
    Line("more words, with a line end of Unicode", "snookles:3632 down \u2028\x85 up\n".encode(), (SNOOKLES, "down")),
    Line("more words, with a vertical tab", b"snookles:3632 down \x0b\x0c\n", (SNOOKLES, "down")),
    # (the original waits for more where a letter of UTF-8 seems to be cut off by the line's end)
    Line("more words, not UTF-8, ended by the connection", b"snookles:3632 down \xe9", (SNOOKLES, "down"), eof=True),
    Line("white space after it", b"snookles:3632 down \t\n", (SNOOKLES, "down")),
    Line("a tab between", b"snookles:3632\tdown\n", (SNOOKLES, "down")),
    Line("two spaces make an empty word", b"snookles:3632  down\n", (SNOOKLES, None)),
    Line("a space and a tab too", b"snookles:3632 \tdown\n", (SNOOKLES, None)),
    Line("white space before it", b" snookles:3632 down\n", ("", None)),
    Line("other case, state", b"snookles:3632 Down\n", (SNOOKLES, None)),
    Line("other case, host", b"Snookles:3632 down\n", ("Snookles:3632", "down")),
    Line("other word", b"snookles:3632 downwards\n", (SNOOKLES, None)),
    Line("host alone", b"snookles:3632\n", (SNOOKLES, None)),
    Line("state alone", b"down\n", ("down", None)),
    Line("host without its port", b"snookles down\n", ("snookles", "down")),
    Line("quoted", b"{snookles:3632} down\n", ("{snookles:3632}", "down")),
    Line("Tcl's own", b"[exit] $x; down\n", ("[exit]", None)),
    Line("a pattern", b"* down\n", ("*", "down")),
    Line("other letters", "schnökel down\n".encode(), ("schnökel", "down")),
    Line("empty", b"\n", ("", None)),
    Line("empty, CR LF", b"\r\n", ("", None)),
    Line("ended by the connection", b"snookles:3632 down", (SNOOKLES, "down"), eof=True),
    Line("cut off in its second word", b"snookles:3632 dow", (SNOOKLES, None), eof=True),
    Line("cut off in its first", b"snook", ("snook", None), eof=True),
    Line("nothing at all", b"", None, eof=True),
    Line("1024 bytes", b"snookles:3632 down ".ljust(1024, b"x") + b"\n", (SNOOKLES, "down")),
    Line("1025 bytes", b"down down".rjust(1025, b"x") + b"\n", None, garbage=True),
    Line("long", b"x" * 100_000 + b" down\n", None, garbage=True),
    Line("garbage that the connection ends", b"\xff\xfe", None, garbage=True, eof=True),
    Line("a NUL", b"snookles:3632 down\0\n", None, garbage=True),
    Line("a NUL between", b"snookles:3632\0down\n", None, garbage=True),
    Line("a NUL before the third", b"snookles:3632 down\0 \n", None, garbage=True),
    Line("a second word that is not UTF-8", b"snookles:3632 down\xa0 at 9:00\n", None, garbage=True),
    Line("an end of file character", b"\x1asnookles:3632 down\n", None, garbage=True),
    Line("a vertical tab is no separator", b"snookles:3632\x0bdown\n", None, garbage=True),
    Line("an escape sequence", b"\x1b[31msnookles:3632 down\n", None, garbage=True),
    Line("white space of Unicode is none of Tcl's", "snookles:3632\u2003down\n".encode(), None, garbage=True),
    Line("not UTF-8", b"sn\xf6\xf6kles:3632 down\n", None, garbage=True),
    Line("HTTP", b"GET / HTTP/1.1\r\nHost: snookles\r\n\r\n", ("GET", None)),
    Line("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", None, garbage=True),
)


def _told(line: Line) -> Conversation:
    """What a line does to the host that it may be about: snookles, down before where the line would raise it."""
    raises = line.says == (SNOOKLES, "up")
    falls = line.says == (SNOOKLES, "down")
    first: tuple[Step, ...] = _update("before", b"snookles:3632 down\n") if raises else ()
    end: tuple[Step, ...] = (HalfClose("agent"),) if line.eof else ()
    return Conversation(
        f"update: {line.id}",
        (
            *first,
            Connect("agent", "update"),
            Send("agent", line.data),
            *end,
            Ended("agent"),
            Status(down=(SNOOKLES,) if falls else ()),
        ),
    )


def _update(who: str, line: bytes) -> tuple[Step, ...]:
    return Connect(who, "update"), Send(who, line), Ended(who)


# -- conversations ------------------------------------------------------------------------------------------------------------

#: four clients take all there is
ALL_TAKEN: tuple[Step, ...] = (
    *(Connect("a"), Expect("a", b"snookles:3632\r\n")),
    *(Connect("b"), Expect("b", b"newbb:3632\r\n")),
    *(Connect("c"), Expect("c", b"newbb:3632\r\n")),
    *(Connect("d"), Expect("d", b"10.1.1.143\r\n")),
)
A, B, C, D = ("a", SNOOKLES), ("b", NEWBB), ("c", NEWBB), ("d", THIRD)
A_WAITER_LEFT = "a waiter that closes is not noticed: at its turn a slot is granted to the dead socket, and comes back"

CONVERSATIONS: tuple[Conversation, ...] = (
    Conversation("at rest", (Status(),)),
    Conversation("a grant", (Connect("a"), Expect("a", b"snookles:3632\r\n"), Status(served=(A,)))),
    Conversation("fastest first", (*ALL_TAKEN, Status(served=(A, B, C, D)))),
    Conversation(
        "the slot that came free is the next one given",
        (*ALL_TAKEN, Close("b"), Status(served=(A, C, D)), Connect("e"), Expect("e", b"newbb:3632\r\n")),
    ),
    Conversation(
        "none free: silence, then a turn",
        (*ALL_TAKEN, Connect("e"), Waits("e"), Close("a"), Expect("e", b"snookles:3632\r\n")),
    ),
    Conversation(
        "first come, first served",
        (
            *ALL_TAKEN,
            *(Connect("e"), Waits("e"), Connect("f"), Waits("f"), Connect("g"), Waits("g")),
            Status(served=(A, B, C, D), waiting=("e", "f", "g")),
            *(Close("d"), Expect("e", b"10.1.1.143\r\n")),
            *(Close("a"), Expect("f", b"snookles:3632\r\n")),
            Status(served=(("f", SNOOKLES), B, C, ("e", THIRD)), waiting=("g",)),
            *(Close("c"), Expect("g", b"newbb:3632\r\n")),
        ),
    ),
    Conversation(
        "a half-close ends a lease",
        (*ALL_TAKEN, Connect("e"), Waits("e"), HalfClose("a"), Ended("a"), Expect("e", b"snookles:3632\r\n")),
    ),
    Conversation(
        "a half-close at once",
        (Connect("a"), HalfClose("a"), Expect("a", b"snookles:3632\r\n"), Ended("a"), Status()),
    ),
    Conversation(
        "a reset ends a lease",
        (*ALL_TAKEN, Connect("e"), Waits("e"), Reset("b"), Expect("e", b"newbb:3632\r\n")),
    ),
    Conversation("a reset at once", (Connect("a"), Reset("a"), Status())),
    Conversation("a close at once", (Connect("a"), Close("a"), Status())),
    Conversation(
        "bytes after the grant are ignored",
        (
            *(Connect("a"), Expect("a", b"snookles:3632\r\n"), Send("a", b"hello\r\nthere\n"), Status(served=(A,))),
            *(Send("a", b"\0\xff" * 3000), Status(served=(A,)), HalfClose("a"), Ended("a"), Status()),
        ),
    ),
    Conversation(
        "bytes before the grant are ignored",
        (
            *(*ALL_TAKEN, Connect("e"), Waits("e"), Send("e", b"GET / HTTP/1.0\r\n\r\n"), Waits("e")),
            *(Close("a"), Expect("e", b"snookles:3632\r\n"), HalfClose("e"), Ended("e"), Status(served=(B, C, D))),
        ),
    ),
    Conversation(
        "over IPv6",
        (Connect("a", address="::1"), Expect("a", b"snookles:3632\r\n"), Status(served=(A,)), HalfClose("a"), Ended("a")),
    ),
    Conversation(
        "names that Tcl quotes",
        (
            *(Connect("a"), Expect("a", b"[fd00::7]:3632\r\n"), Connect("b"), Expect("b", b"newbb\r\n")),
            *(Connect("c"), Waits("c"), *_update("agent", b"[fd00::7]:3632 down\n")),
            Status(served=(("a", SIX), ("b", "newbb")), waiting=("c",), down=(SIX,)),
        ),
        farm="ipv6",
    ),
    Conversation("status: gone before the answer", (Connect("s", "status"), Close("s"), Status())),
    Conversation("status: reset before the answer", (Connect("s", "status"), Reset("s"), Status())),
    *(_told(line) for line in LINES),
    Conversation(
        "update: by a reset in place of an end",
        (Connect("agent", "update"), Send("agent", b"snookles:3632 down"), Reset("agent"), Status(down=(SNOOKLES,))),
    ),
    Conversation("update: gone without a word", (Connect("agent", "update"), Close("agent"), Status())),
    Conversation("update: reset without a word", (Connect("agent", "update"), Reset("agent"), Status())),
    Conversation(
        "update: said twice",
        (
            *(*_update("one", b"newbb:3632 down\n"), *_update("two", b"newbb:3632 down\n"), Status(down=(NEWBB,))),
            *(*_update("three", b"newbb:3632 up\n"), *_update("four", b"newbb:3632 up\n"), Status()),
        ),
    ),
    Conversation(
        "a host that is down is passed over",
        (
            *(*_update("agent", b"snookles:3632 down\n"), Connect("a"), Expect("a", b"newbb:3632\r\n")),
            Status(served=(("a", NEWBB),), down=(SNOOKLES,)),
            *(*_update("agent", b"snookles:3632 up\n"), Connect("b"), Expect("b", b"snookles:3632\r\n")),
        ),
    ),
    Conversation(
        "all down: silence until one is up",
        (
            *_update("agent", b"snookles:3632 down\n"),
            *_update("agent", b"newbb:3632 down\n"),
            *_update("agent", b"10.1.1.143 down\n"),
            *(Connect("a"), Waits("a"), Connect("b"), Waits("b"), Connect("c"), Waits("c")),
            *_update("agent", b"newbb:3632 up\n"),
            *(Expect("a", b"newbb:3632\r\n"), Expect("b", b"newbb:3632\r\n"), Waits("c")),
            *_update("agent", b"10.1.1.143 up\n"),
            Expect("c", b"10.1.1.143\r\n"),
        ),
    ),
    Conversation(
        "a busy host goes down: its lease runs on, no new ones",
        (
            *(*ALL_TAKEN, *_update("agent", b"snookles:3632 down\n"), Connect("e"), Waits("e")),
            Status(served=(A, B, C, D), waiting=("e",), down=(SNOOKLES,)),
            *(Close("a"), Status(served=(B, C, D), waiting=("e",), down=(SNOOKLES,)), Waits("e")),
            *(*_update("agent", b"snookles:3632 up\n"), Expect("e", b"snookles:3632\r\n")),
        ),
    ),
    # -- where the original is wrong
    Conversation(
        "a busy host goes down: another is idle",
        (
            *(*ALL_TAKEN, Close("d"), Status(served=(A, B, C)), *_update("agent", b"newbb:3632 down\n")),
            *(Connect("e"), Expect("e", b"10.1.1.143\r\n")),
            Status(served=(A, B, C, ("e", THIRD)), down=(NEWBB,)),
        ),
        fault="all slots of a busy host that is down are taken off everyone's idle ones: waiters starve beside an idle host",
        original=(
            *(*ALL_TAKEN, Close("d"), Status(served=(A, B, C)), *_update("agent", b"newbb:3632 down\n")),
            *(Connect("e"), Waits("e"), Status(served=(A, B, C), waiting=("e",), down=(NEWBB,))),
        ),
    ),
    *(
        Conversation(
            f"a waiter leaves: {way}",
            (
                *(*ALL_TAKEN, Connect("e"), Waits("e"), Connect("f"), Waits("f"), leave, *told),
                Status(served=(A, B, C, D), waiting=("f",)),
                *(Close("a"), Expect("f", b"snookles:3632\r\n"), Status(served=(("f", SNOOKLES), B, C, D))),
            ),
            fault=A_WAITER_LEFT,
            original=(
                *(*ALL_TAKEN, Connect("e"), Waits("e"), Connect("f"), Waits("f"), leave),
                Status(served=(A, B, C, D), waiting=("e", "f")),
                *(Close("a"), Expect("f", b"snookles:3632\r\n"), Status(served=(("f", SNOOKLES), B, C, D))),
            ),
        )
        for way, leave, told in (
            ("close", Close("e"), ()),
            ("half-close", HalfClose("e"), (Ended("e"),)),
            ("reset", Reset("e"), ()),
        )
    ),
    Conversation(
        "update: peers that never end their line",
        (
            *(Connect("silent", "update"), Connect("slow", "update"), Send("slow", b"10.1.1.143 do")),
            *(Connect("a"), Expect("a", b"snookles:3632\r\n"), *_update("agent", b"newbb:3632 down\n")),
            *(Status(served=(A,), down=(NEWBB,)), CutOff("silent"), CutOff("slow"), Status(served=(A,), down=(NEWBB,))),
        ),
        fault="a peer that ends no line holds up all three ports until it leaves",
        original=(
            *(Connect("silent", "update"), Connect("slow", "update"), Send("slow", b"10.1.1.143 do"), Connect("a")),
            *(Close("silent"), Close("slow"), Expect("a", b"snookles:3632\r\n"), Status(served=(A,))),
        ),
    ),
    Conversation(
        "update: a peer that says too much",
        (Connect("loud", "update"), Send("loud", b"10.1.1.143 down" * 70), Ended("loud"), Status()),
        fault="a line may be of any length, and holds up all three ports until it ends",
        original=(Connect("loud", "update"), Send("loud", b"10.1.1.143 down" * 70), Close("loud"), Status()),
    ),
)
