"""How leases end, and what their connections came to: what an edge says when it gives a lease back."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """How a lease ended, as far as the edge can tell; the values are the words that people and metrics read."""

    # -- by the client's doing

    #: the client closed its connection, or its side of it
    CLOSED = "closed"
    #: the client's connection was reset
    RESET = "reset"
    #: the client's machine stopped answering
    VANISHED = "vanished"
    #: the client was gone before it could be told its host
    UNDELIVERED = "undelivered"

    # -- by ours

    #: we ended it: for want of descriptors or memory, or since a bug met it
    CUT_OFF = "cut-off"
    #: a person ended it
    KICKED = "kicked"

    # -- by the server's, which only the proxy sees

    #: the server answered, with a byte at least, and the session ended in order
    ANSWERED = "answered"
    #: the server closed, or reset, without a byte: distccd's way of refusing
    NO_ANSWER = "no-answer"
    #: the server had begun to answer when its connection broke
    BROKEN = "broken"
    #: the server's name could not be looked up
    UNRESOLVED = "unresolved"
    #: nobody listened there
    REFUSED = "refused"
    #: nobody answered in time
    TIMED_OUT = "timed-out"
    #: it could not be connected to for another reason, such as no route
    UNREACHABLE = "unreachable"


#: no connection came about: nothing was sent, and the job can be tried elsewhere
CONNECT_FAILURES = frozenset({Outcome.UNRESOLVED, Outcome.REFUSED, Outcome.TIMED_OUT, Outcome.UNREACHABLE})
#: the host had the job, and did not do it: its client hears of that
LOST = frozenset({Outcome.NO_ANSWER, Outcome.BROKEN})
#: the host failed the job
FAILURES = CONNECT_FAILURES | LOST


@dataclass(slots=True)
class Traffic:
    """What a lease's connection to its server came to, where the edge made that connection.

    :ivar sent: bytes that the server was sent; ``received``: bytes that came from it.
    :ivar connect: seconds that it took to connect; None where it never was connected.
    :ivar reason: where the server or the way to it failed: how, as the end of a sentence that begins with the host's name.
    """

    sent: int = 0
    received: int = 0
    connect: float | None = None
    reason: str = ""
