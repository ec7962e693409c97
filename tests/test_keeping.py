"""What the daemon hands to its keeper, and when it goes on: with real sockets, of which the test reads the other end."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from twisted.internet.testing import MemoryReactorClock

from distbal import keeperwire
from distbal.keeperwire import Beat, Journal, Keeper, Ready, Role, Stopping
from distbal.keeping import AGAIN, BEAT, PATIENCE, Keeping
from distbal.ledger import Ledger
from tests.loops import open_descriptors
from tests.support import LoggedErrors

KEEPER = Keeper("0.5.0", 17, 2, "was killed", 1.8e9)
#: bytes of a buffer that is full soon
SMALL = 4608


class Desk:
    """A daemon's side, and the keeper's end of the channel in the test's hands.

    :param buffer: bytes that the channel takes; 0 for the usual.
    """

    def __init__(self, sock: Callable[..., socket.socket] = socket.socket, buffer: int = 0) -> None:
        self.reactor = MemoryReactorClock()  # type: ignore[no-untyped-call]
        ours, self.other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if buffer:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        self.other.setblocking(False)
        self.left = 0
        self.keeping = Keeping(self.reactor, sock(fileno=ours.detach()), Ledger(), self._leave)
        #: what there is to hold
        self.thing, self._other_thing = os.pipe()

    def _leave(self) -> None:
        self.left += 1

    def close(self) -> None:
        self.keeping.stop()
        self.keeping.ledger.close()
        self.other.close()
        os.close(self.thing)
        os.close(self._other_thing)

    @property
    def is_watched(self) -> bool:
        return self.keeping in self.reactor.getReaders()  # type: ignore[no-untyped-call]

    def received(self) -> tuple[bytes, list[int]]:
        packet, descriptors, _, _ = socket.recv_fds(self.other, keeperwire.MAX_PACKET, keeperwire.MAX_DESCRIPTORS)
        return packet, descriptors

    def read(self) -> list[Any]:
        """What came: each packet as it is meant, None for the end; descriptors must be as many as are named."""
        came: list[Any] = []
        while True:
            try:
                packet, descriptors = self.received()
            except BlockingIOError:
                return came
            if not packet:
                return [*came, None]
            said = keeperwire.from_daemon(packet)
            came.append(said)
            assert len(descriptors) == (len(said.held) if isinstance(said, Journal) else 0)
            for descriptor in descriptors:
                os.close(descriptor)

    def journals(self) -> list[Journal]:
        return [said for said in self.read() if isinstance(said, Journal)]

    def fill(self) -> None:
        """Let the channel be full."""
        with suppress(BlockingIOError):
            while True:
                self.keeping._channel.send(keeperwire.BEAT)


class Waiter:
    """Notes when it is told, and what ``look`` gives then."""

    def __init__(self, look: Callable[[], object] = lambda: None) -> None:
        self.told: list[object] = []
        self._look = look

    def handed_over(self) -> None:
        self.told.append(self._look())


@pytest.fixture
def make() -> Iterator[Callable[..., Desk]]:
    with ExitStack() as stack:

        def make_one(*words: Any, **more: Any) -> Desk:
            desk = Desk(*words, **more)
            stack.callback(desk.close)
            return desk

        yield make_one


@pytest.fixture
def desk(make: Callable[..., Desk]) -> Desk:
    return make()


def gone(errors: LoggedErrors) -> list[str]:
    """What was said of the keeper's end."""
    return [event["why"] for event in errors.flush() if event["log_format"].startswith("the keeper is gone")]


# -- what is handed over


def test_descriptors_go_in_one_batch_and_whoever_waits_is_told_when_the_packet_is_in_the_socket(desk: Desk) -> None:
    first, second = Waiter(desk.journals), Waiter(desk.journals)
    desk.keeping.hold(1, Role.CLIENT, desk.thing, first)
    desk.keeping.hold(2, Role.CLIENT, desk.thing, second)
    desk.keeping.hold(3, Role.LISTENER, desk.thing)
    desk.keeping.let_go(9, Role.LISTENER)
    assert first.told == []
    assert not desk.keeping.is_idle
    desk.keeping.flush()
    assert first.told == [[Journal([(1, Role.CLIENT), (2, Role.CLIENT), (3, Role.LISTENER)], [(9, Role.LISTENER)])]]
    assert second.told == [[]]
    assert desk.keeping.is_idle
    desk.keeping.flush()
    assert desk.read() == []


def test_what_goes_is_the_descriptor_itself(desk: Desk) -> None:
    desk.keeping.hold(1, Role.PIPE_READ, desk.thing)
    desk.keeping.flush()
    _, (descriptor,) = desk.received()
    assert os.path.sameopenfile(descriptor, desk.thing)
    os.close(descriptor)


@pytest.mark.parametrize("number", [252, 253, 254, 506, 600])
def test_more_than_a_packet_can_carry_is_several(desk: Desk, number: int) -> None:
    waiters = [Waiter() for _ in range(number)]
    for ident, waiter in enumerate(waiters):
        desk.keeping.hold(ident, Role.CLIENT, desk.thing, waiter)
    desk.keeping.let_go(10_000, Role.LISTENER)
    desk.keeping.flush()
    journals = desk.journals()
    assert [key for journal in journals for key in journal.held] == [(ident, Role.CLIENT) for ident in range(number)]
    assert [len(journal.held) for journal in journals[:-1]] == [253] * (len(journals) - 1)
    assert [journal.let_go for journal in journals] == [[]] * (len(journals) - 1) + [[(10_000, Role.LISTENER)]]
    assert all(len(waiter.told) == 1 for waiter in waiters)


def test_any_number_is_let_go(desk: Desk) -> None:
    for ident in range(9000):
        desk.keeping.let_go(ident, Role.PIPE_READ)
    desk.keeping.flush()
    assert [key[0] for journal in desk.journals() for key in journal.let_go] == list(range(9000))


def test_what_is_closed_before_it_is_sent_is_not_sent(desk: Desk) -> None:
    kept, closed = Waiter(), Waiter()
    desk.keeping.hold(1, Role.CLIENT, 1 << 20, closed)
    desk.keeping.hold(1, Role.SESSION_CLIENT, desk.thing, kept)
    desk.keeping.forget(1, Role.CLIENT)
    desk.keeping.forget(5, Role.CLIENT)
    desk.keeping.flush()
    assert desk.journals() == [Journal([(1, Role.SESSION_CLIENT)], [])]
    assert (kept.told, closed.told) == ([None], [])


def test_what_is_let_go_before_it_is_sent_is_not_sent(desk: Desk) -> None:
    desk.keeping.hold(1, Role.LISTENER, 1 << 20)
    desk.keeping.let_go(1, Role.LISTENER)
    desk.keeping.flush()
    assert desk.journals() == [Journal([], [(1, Role.LISTENER)])]


def test_one_in_the_place_of_another_is_held(desk: Desk) -> None:
    desk.keeping.let_go(1, Role.SESSION_SERVER)
    desk.keeping.hold_instead(1, Role.SESSION_SERVER, desk.thing)
    desk.keeping.flush()
    assert desk.journals() == [Journal([(1, Role.SESSION_SERVER)], [])]


def test_soon_is_the_next_turn_and_once(desk: Desk) -> None:
    desk.keeping.hold(1, Role.LISTENER, desk.thing)
    desk.keeping.soon()
    desk.keeping.soon()
    assert desk.read() == []
    desk.reactor.advance(0)
    assert len(desk.journals()) == 1
    assert desk.reactor.getDelayedCalls() == []


def test_numbers_are_beyond_those_of_earlier_processes(desk: Desk) -> None:
    first = desk.keeping.new_id()
    desk.keeping.not_below(first + 10)
    assert desk.keeping.new_id() > first + 10
    desk.keeping.not_below(5)
    assert desk.keeping.new_id() > first + 11


def test_a_bug_in_one_who_is_told_keeps_nothing_from_the_others(desk: Desk, logged_errors: LoggedErrors) -> None:
    other = Waiter()
    desk.keeping.hold(1, Role.CLIENT, desk.thing, Waiter(lambda: 1 / 0))
    desk.keeping.hold(2, Role.CLIENT, desk.thing, other)
    desk.keeping.flush()
    assert other.told == [None]
    assert [event["log_failure"].type for event in logged_errors.flush()] == [ZeroDivisionError]


def test_who_is_told_may_hold_more(desk: Desk) -> None:
    last = Waiter()

    def more() -> None:
        desk.keeping.hold(2, Role.CLIENT, desk.thing, last)
        desk.keeping.let_go(3, Role.LISTENER)
        desk.keeping.flush()

    desk.keeping.hold(1, Role.CLIENT, desk.thing, Waiter(more))
    desk.keeping.flush()
    assert last.told == [None]
    assert [journal.held for journal in desk.journals()] == [[(1, Role.CLIENT)], [(2, Role.CLIENT)]]


# -- the ledger


def test_the_ledger_is_handed_over_and_its_notes_again_when_they_move(desk: Desk) -> None:
    desk.keeping.hold_ledger()
    assert desk.journals() == [Journal([(0, Role.LEDGER), (0, Role.NOTES)], [])]
    book = desk.keeping.ledger
    before = book.notes
    while book.notes == before:
        book.note("changes", b"x" * 50_000)
    _, (descriptor,) = desk.received()
    assert os.path.samestat(os.fstat(descriptor), os.fstat(book.notes))
    os.close(descriptor)
    assert desk.read() == []


def test_notes_that_move_again_before_they_could_be_sent_go_once(make: Callable[..., Desk]) -> None:
    desk = make(buffer=SMALL)
    desk.fill()
    book = desk.keeping.ledger
    desk.keeping.hold_ledger()
    moves = {os.fstat(book.notes).st_ino}
    for _ in range(200):
        book.note("changes", b"x" * 50_000)
        moves.add(os.fstat(book.notes).st_ino)
    assert len(moves) > 3
    assert desk.journals() == []
    desk.reactor.advance(AGAIN)
    packet, descriptors = desk.received()
    assert keeperwire.from_daemon(packet) == Journal([(0, Role.NOTES), (0, Role.LEDGER)], [])
    assert os.path.samestat(os.fstat(descriptors[0]), os.fstat(book.notes))
    assert os.path.samestat(os.fstat(descriptors[1]), os.fstat(book.slots))
    for descriptor in descriptors:
        os.close(descriptor)
    assert desk.read() == []


# -- a keeper that takes nothing


def test_a_full_channel_is_tried_again_and_the_order_stays(make: Callable[..., Desk]) -> None:
    desk = make(buffer=SMALL)
    desk.fill()
    first, second = Waiter(), Waiter()
    desk.keeping.hold(1, Role.CLIENT, desk.thing, first)
    desk.keeping.flush()
    desk.keeping.hold(2, Role.CLIENT, desk.thing, second)
    desk.keeping.flush()
    desk.reactor.advance(AGAIN)
    assert (first.told, second.told) == ([], [])
    desk.read()
    desk.reactor.advance(AGAIN)
    assert (first.told, second.told) == ([None], [None])
    assert desk.journals() == [Journal([(1, Role.CLIENT), (2, Role.CLIENT)], [])]
    assert desk.keeping.alone == ""
    assert desk.reactor.getDelayedCalls() == []


def test_patience_ends_and_everybody_is_told(make: Callable[..., Desk], logged_errors: LoggedErrors) -> None:
    desk = make(buffer=SMALL)
    desk.keeping.start()
    desk.fill()
    waiters = [Waiter() for _ in range(300)]
    for ident, waiter in enumerate(waiters):
        desk.keeping.hold(ident, Role.CLIENT, desk.thing, waiter)
    desk.keeping.flush()
    desk.reactor.pump([0.5] * int(PATIENCE / 0.5))
    assert not any(waiter.told for waiter in waiters)
    assert gone(logged_errors) == []
    desk.reactor.pump([0.1, 0.0])
    assert all(len(waiter.told) == 1 for waiter in waiters)
    (why,) = gone(logged_errors)
    assert "has taken nothing for 5 s" in why
    assert not desk.is_watched
    assert desk.reactor.getDelayedCalls() == []
    later = Waiter()
    desk.keeping.hold(999, Role.CLIENT, desk.thing, later)
    desk.keeping.let_go(1, Role.CLIENT)
    desk.keeping.flush()
    assert later.told == [None]
    assert desk.keeping.is_idle
    assert gone(logged_errors) == [], "it is said once"


def test_patience_begins_anew_when_nothing_waited_meanwhile(make: Callable[..., Desk]) -> None:
    desk = make(buffer=SMALL)
    desk.fill()
    desk.keeping.hold(1, Role.CLIENT, desk.thing, Waiter())
    desk.keeping.flush()
    desk.keeping.forget(1, Role.CLIENT)
    desk.reactor.advance(10 * PATIENCE)
    waiter = Waiter()
    desk.keeping.hold(2, Role.CLIENT, desk.thing, waiter)
    desk.keeping.flush()
    desk.keeping.flush()
    assert desk.keeping.alone == ""
    desk.read()
    desk.reactor.advance(AGAIN)
    assert waiter.told == [None]


def test_a_beat_that_finds_no_room_is_left_out(make: Callable[..., Desk]) -> None:
    desk = make(buffer=SMALL)
    desk.keeping.start()
    desk.fill()
    desk.reactor.pump([BEAT] * 20)
    assert desk.keeping.alone == ""
    desk.read()
    desk.reactor.advance(BEAT)
    assert desk.read() == [Beat()]


@pytest.mark.parametrize("number", [errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM])
def test_too_many_descriptors_on_their_way_are_a_matter_of_time(make: Callable[..., Desk], number: int) -> None:
    class Refusing(socket.socket):
        left = 3

        def sendmsg(self, *words: Any) -> int:
            if self.left:
                self.left -= 1
                raise OSError(number, os.strerror(number))
            return super().sendmsg(*words)

    desk = make(Refusing)
    waiter = Waiter()
    desk.keeping.hold(1, Role.CLIENT, desk.thing, waiter)
    desk.keeping.flush()
    desk.reactor.pump([AGAIN, AGAIN])
    assert waiter.told == []
    desk.reactor.pump([AGAIN])
    assert waiter.told == [None]
    assert desk.journals() == [Journal([(1, Role.CLIENT)], [])]


# -- a keeper that is gone


@pytest.mark.parametrize("packet", [None, b"", b"X", b"E{}", b"G\xff\xff", b"\xff" * 1000])
def test_a_keeper_that_ends_or_talks_nonsense_is_done_without(
    desk: Desk, packet: bytes | None, logged_errors: LoggedErrors
) -> None:
    waiter = Waiter()
    desk.keeping.start()
    desk.keeping.hold(1, Role.CLIENT, desk.thing, waiter)
    if packet is None:
        desk.other.close()
    else:
        desk.other.send(packet)
    desk.keeping.doRead()
    assert desk.keeping.alone
    assert len(gone(logged_errors)) == 1
    assert not desk.is_watched
    desk.keeping.flush()
    assert waiter.told == [None]
    desk.keeping.ready("1", "serves")
    desk.keeping.stopping()
    assert desk.reactor.getDelayedCalls() == []
    assert gone(logged_errors) == []


@pytest.mark.parametrize("what", ["flush", "beat", "ready", "let_go"])
def test_a_keeper_that_is_gone_shows_when_it_is_told_something(desk: Desk, what: str, logged_errors: LoggedErrors) -> None:
    desk.keeping.start()
    desk.other.close()
    waiter = Waiter()
    if what == "flush":
        desk.keeping.hold(1, Role.CLIENT, desk.thing, waiter)
    elif what == "let_go":
        desk.keeping.let_go(1, Role.CLIENT)
    elif what == "beat":
        desk.reactor.advance(BEAT)
    else:
        desk.keeping.ready("1", "serves")
    desk.keeping.flush()
    assert desk.keeping.alone
    assert waiter.told == ([None] if what == "flush" else [])
    assert len(gone(logged_errors)) == 1
    assert desk.reactor.getDelayedCalls() == []


def test_a_keeper_that_ends_before_it_is_listened_to_is_done_without(desk: Desk, logged_errors: LoggedErrors) -> None:
    desk.other.close()
    desk.keeping.hold_ledger()
    assert desk.keeping.alone
    desk.keeping.start()
    assert not desk.is_watched
    assert desk.reactor.getDelayedCalls() == []
    assert len(gone(logged_errors)) == 1


def test_a_channel_that_came_with_a_time_limit_holds_up_nobody(make: Callable[..., Desk]) -> None:
    """As it comes from inheritance.py."""

    def patient(fileno: int) -> socket.socket:
        sock = socket.socket(fileno=fileno)
        sock.settimeout(3600)
        return sock

    desk = make(patient, buffer=SMALL)
    desk.fill()
    desk.keeping.hold_ledger()
    desk.keeping.flush()
    assert desk.keeping.alone == ""


@pytest.mark.parametrize("reads", [True, False])
def test_before_an_exec_all_goes_or_it_is_known_that_it_did_not(make: Callable[..., Desk], reads: bool) -> None:
    desk = make(buffer=SMALL)
    desk.fill()
    waiter = Waiter()
    desk.keeping.hold(1, Role.CLIENT, desk.thing, waiter)
    reader = threading.Timer(0.05, desk.read)
    if reads:
        reader.start()
    assert desk.keeping.flushed(30 if reads else 0.05) is reads
    assert waiter.told == ([None] if reads else [])
    if reads:
        reader.join()
        assert desk.journals() == [Journal([(1, Role.CLIENT)], [])]


def test_a_slow_keeper_hears_that_there_is_to_be_no_other(make: Callable[..., Desk]) -> None:
    desk = make(buffer=SMALL)
    desk.fill()
    gone, _ = closed = os.pipe()
    desk.keeping.hold(1, Role.CLIENT, gone)
    desk.keeping.flush()
    for descriptor in closed:
        os.close(descriptor)
    came: list[Any] = []
    reader = threading.Timer(0.05, lambda: came.extend(desk.read()))
    reader.start()
    desk.keeping.stopping()
    reader.join()
    assert [*came, *desk.read()][-1] == Stopping()
    assert desk.keeping.alone == ""


def test_what_was_closed_by_a_bug_keeps_nothing_from_the_keeper(desk: Desk, logged_errors: LoggedErrors) -> None:
    gone, _ = closed = os.pipe()
    waiters = [Waiter(), Waiter(), Waiter()]
    desk.keeping.hold(1, Role.CLIENT, desk.thing, waiters[0])
    desk.keeping.hold(2, Role.CLIENT, gone, waiters[1])
    desk.keeping.hold(3, Role.CLIENT, desk.thing, waiters[2])
    for descriptor in closed:
        os.close(descriptor)
    desk.keeping.flush()
    assert desk.journals() == [Journal([(1, Role.CLIENT), (3, Role.CLIENT)], [])]
    assert [waiter.told for waiter in waiters] == [[None], [], [None]]
    assert desk.keeping.alone == ""
    (event,) = logged_errors.flush()
    assert "was closed before it was handed over" in event["log_format"]


# -- what both say


def test_beats_readiness_and_the_end(desk: Desk) -> None:
    desk.keeping.start()
    assert desk.read() == [Beat()]
    desk.keeping.ready("0.5.0", "serves 3 hosts")
    desk.reactor.pump([BEAT, BEAT])
    assert desk.read() == [Ready("0.5.0", "serves 3 hosts"), Beat(), Beat()]
    desk.keeping.let_go(1, Role.LISTENER)
    desk.keeping.soon()
    desk.keeping.stopping()
    desk.keeping.stop()
    assert desk.read() == [Journal([], [(1, Role.LISTENER)]), Stopping(), None]
    assert desk.reactor.getDelayedCalls() == []
    assert not desk.is_watched
    desk.keeping.stop()


def test_what_the_keeper_says_of_itself_and_that_we_leave(desk: Desk) -> None:
    desk.keeping.start()
    desk.other.send(keeperwire.news(KEEPER))
    desk.keeping.doRead()
    assert desk.keeping.keeper == KEEPER
    assert desk.keeping.report() == {"pid": 17, "version": "0.5.0", "restarts": 2, "last": "was killed", "gone": ""}
    desk.keeping.doRead()
    assert desk.left == 0
    desk.other.send(keeperwire.LEAVE)
    desk.keeping.doRead()
    assert desk.left == 1
    assert desk.keeping.alone == ""


def test_no_descriptor_is_left_of_what_was_not_asked_for(desk: Desk) -> None:
    desk.keeping.start()
    before = open_descriptors()
    socket.send_fds(desk.other, [keeperwire.give([(1, Role.CLIENT)])], [desk.thing])
    desk.keeping.doRead()
    assert open_descriptors() == before
