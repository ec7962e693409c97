"""The page, live: what a frame holds, who gets it, and that readers who do not read cost nothing. In memory, and on sockets."""

from __future__ import annotations

import socket
import zlib
from collections.abc import Generator, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from distbal.bounds import bounds
from distbal.outcomes import Outcome
from distbal.web import live
from distbal.web.live import GZIP_HEADER, HEARTBEAT, MOST_LISTENERS, SHARE, STUCK, event
from distbal.web.pieces import in_pieces
from tests.peers import until
from tests.showcase import Served, Shown, farm
from tests.sites import Exchange, Transport, Website
from tests.support import LoggedErrors


@pytest.fixture
def shown() -> Iterator[Shown]:
    one = Shown(farm("snookles:3632/4", "newbb/2"))
    yield one
    one.stop()


@pytest.fixture
def website(shown: Shown) -> Iterator[Website]:
    one = Website(shown)
    one.feed.start()
    yield one
    one.feed.stop()


# -- what a frame holds


def test_the_first_frame_is_whole(website: Website) -> None:
    reader = website.listen()
    website.clock.advance(1)
    (frame,) = reader.answer.frames
    assert frame["order"] == list(frame["hosts"]) == ["snookles:3632", "newbb"]
    assert set(frame["parts"]) == {"totals", "chart", "queue", "jobs"}
    assert frame["dense"] is False
    assert frame["title"] == "0/6"
    assert f'data-version="{frame["page"]}"' in website.get().text
    assert reader.answer.text.startswith("retry: 2000\n\n")


def test_then_only_what_changed_is_sent(website: Website) -> None:
    reader = website.listen()
    website.clock.advance(1)
    job = website.shown.ask("10.0.0.9")
    website.clock.advance(1)
    website.clock.advance(1)
    website.shown.leases.release(job.lease, Outcome.CLOSED)  # type: ignore[arg-type]
    website.clock.advance(1)
    first, second, third = reader.answer.frames
    assert set(second["hosts"]) == {"snookles:3632"}
    assert "10.0.0.9" in second["hosts"]["snookles:3632"]
    assert set(second["parts"]) == {"totals"}
    assert "order" not in second
    assert set(third["hosts"]) == {"snookles:3632"}
    assert set(third["parts"]) == {"totals", "jobs"}
    assert first["at"] < second["at"] < third["at"]


def test_nothing_is_sent_while_nothing_happens(website: Website) -> None:
    website.shown.ask()
    reader = website.listen()
    website.clock.advance(1)
    for _ in range(8):
        website.clock.advance(1)
    assert len(reader.answer.events) == 1


def test_a_sign_of_life_comes_when_frames_are_far_apart(shown: Shown) -> None:
    spent = iter(range(10**6))
    website = Website(shown, cpu=lambda: float(next(spent)))
    website.feed.start()
    reader = website.listen()
    for _ in range(int(2 * HEARTBEAT) + 3):
        website.clock.advance(1)
    assert [name for name, _ in reader.answer.events] == ["message", "alive", "alive"]
    website.feed.stop()


def test_hosts_that_come_and_go(website: Website) -> None:
    reader = website.listen()
    website.clock.advance(1)
    shown = website.shown
    farm_now = shown.leases.scheduler.farm
    shown.leases.configure(type(farm_now)((*farm_now.hosts[1:], *farm("third/1"))))
    website.clock.advance(1)
    frame = reader.answer.frames[-1]
    assert frame["order"] == ["newbb", "third"]
    assert "third" in frame["hosts"]
    assert "snookles:3632" not in frame["hosts"]


def test_the_chart_comes_when_a_stretch_of_time_is_full(website: Website) -> None:
    reader = website.listen()
    for second in range(40):
        if second % 10 == 0:
            website.shown.ask()
        website.clock.advance(1)
    charts = [frame for frame in reader.answer.frames if "chart" in frame["parts"]]
    assert len(charts) == 5, "the first, and one each 10 s"
    assert len(website.shown.activity.hour()) == 5


# -- who gets it


def test_a_frame_is_made_once_however_many_listen(website: Website) -> None:
    readers = [website.listen() for _ in range(20)]
    website.clock.advance(1)
    website.shown.ask()
    website.clock.advance(1)
    assert website.feed.listeners == 20
    assert website.feed.made == 2
    assert len({reader.answer.body for reader in readers}) == 1
    assert len(readers[0].answer.frames) == 2


def test_no_frame_is_made_while_nobody_listens(website: Website) -> None:
    for _ in range(5):
        website.clock.advance(1)
    assert website.feed.made == 0
    website.listen().leave()
    website.clock.advance(1)
    assert website.feed.made == 0
    assert website.feed.listeners == 0


def test_who_comes_later_gets_all_of_it(website: Website) -> None:
    early = website.listen()
    website.clock.advance(1)
    website.shown.ask()
    late = website.listen()
    website.clock.advance(1)
    assert set(early.answer.frames[-1]["hosts"]) == {"snookles:3632"}
    (frame,) = late.answer.frames
    assert frame["order"] == ["snookles:3632", "newbb"]
    assert frame["hosts"]["snookles:3632"] == early.answer.frames[-1]["hosts"]["snookles:3632"]


def test_a_compressed_stream_is_the_same_stream(website: Website) -> None:
    plain = website.listen()
    website.clock.advance(1)
    packed, also = (website.listen(Accept_Encoding="gzip, deflate, br") for _ in range(2))
    for _ in range(3):
        website.shown.ask()
        website.clock.advance(1)
    assert packed.answer.headers["content-encoding"] == "gzip"
    assert packed.answer.frames[1:] == plain.answer.frames[2:]
    assert packed.answer.frames[0]["order"]
    assert packed.answer.body == also.answer.body, "compressed once for both"
    assert len(packed.answer.body) < len(packed.answer.text) / 2


def test_any_blocks_make_one_gzip_stream() -> None:
    blocks = [event(b'"%d"' % number * 50) for number in range(9)]
    stream = GZIP_HEADER + b"".join(block.compressed() for block in blocks[::2])
    unpacked = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(stream)
    assert unpacked == b"".join(block.plain for block in blocks[::2])


def test_too_many_readers_are_told_so(website: Website) -> None:
    readers = [website.listen() for _ in range(MOST_LISTENERS)]
    answer = website.get("/events", Accept_Encoding="gzip")
    assert answer.status == 503
    assert answer.headers["retry-after"] == "60"
    assert bounds.hits["web-streams"] == 1
    assert answer.text == "100 browsers follow this page already; read it without that.\n"
    readers[7].leave()
    assert website.listen().answer.status == 200


def test_it_is_not_cut_off_by_the_sites_timeout(website: Website) -> None:
    reader = website.listen()
    idle = website.exchange()
    for _ in range(200):
        website.clock.advance(1)
    assert not reader.transport.gone
    assert idle.transport.gone, "as somebody is who asks for nothing"
    website.shown.ask()
    website.clock.advance(1)
    assert website.feed.listeners == 1
    assert "local" not in reader.answer.frames[-1]["hosts"]["snookles:3632"]


def calls(website: Website, *names: str) -> list[str]:
    """The delayed calls of these."""
    every = [str(call) for call in website.clock.getDelayedCalls()]
    return [call for call in every if any(name in call for name in names)]


# -- those who do not read


def pause(reader: Exchange) -> None:
    """The transport's buffer is full."""
    producer: Any = reader.transport.producer
    producer.pauseProducing()


def test_who_does_not_take_frames_misses_them_and_gets_a_whole_one_later(website: Website) -> None:
    slow, quick = website.listen(), website.listen()
    website.clock.advance(1)
    pause(slow)
    had = len(slow.transport.value())
    for _ in range(5):
        website.shown.ask()
        website.clock.advance(1)
    assert len(slow.transport.value()) == had, "nothing is queued"
    assert website.feed.missed == 5
    producer: Any = slow.transport.producer
    producer.resumeProducing()
    website.clock.advance(1)
    assert slow.answer.frames[-1]["order"] == ["snookles:3632", "newbb"]
    assert len(slow.answer.frames) == 2
    assert slow.answer.frames[-1]["title"] == quick.answer.frames[-1]["title"] == "5/6"


def test_who_takes_nothing_for_a_minute_is_let_go(website: Website) -> None:
    stuck, reader = website.listen(), website.listen()
    website.clock.advance(1)
    pause(stuck)
    for _ in range(int(STUCK) - 1):
        website.clock.advance(1)
    assert not stuck.transport.gone
    website.clock.advance(2)
    assert stuck.transport.gone
    assert not reader.transport.gone
    assert website.feed.listeners == 1
    assert bounds.hits["web-slow"] == 1


def full_at_once(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    """Every transport asks for a pause at each write, and slices are so small."""
    write = Transport.writeSequence

    def and_pause(self: Transport, data: list[bytes]) -> None:
        write(self, data)
        if self.producer is not None:
            self.producer.pauseProducing()

    monkeypatch.setattr(Transport, "writeSequence", and_pause)
    monkeypatch.setattr(live, "SLICE", at_once)


def whole(reader: Exchange) -> int:
    """How many frames came to their end; how long to wait before one tries again stands before them."""
    heard: bytes = reader.transport.value()
    return heard.count(b"\n\n") - 1


def test_a_large_frame_goes_as_it_is_taken(website: Website, monkeypatch: pytest.MonkeyPatch) -> None:
    full_at_once(monkeypatch, 1000)
    reader = website.listen()
    producer: Any = reader.transport.producer
    producer.resumeProducing()
    before = len(reader.transport.value())
    website.clock.advance(1)
    assert before + 1000 <= len(reader.transport.value()) < before + 1100, "one slice of it, and nothing is queued"
    website.shown.ask()
    website.clock.advance(1)
    assert website.feed.missed == 1
    assert len(reader.transport.value()) < before + 1100
    while not whole(reader):
        had = len(reader.transport.value())
        producer.resumeProducing()
        assert had < len(reader.transport.value()) <= had + 1100
    producer.resumeProducing()
    (frame,) = reader.answer.frames
    assert frame["title"] == "0/6"
    website.clock.advance(1)
    assert website.feed.missed == 1
    while whole(reader) < 2:
        producer.resumeProducing()
    assert reader.answer.frames[1]["title"] == "1/6"
    assert reader.answer.frames[1]["order"]


def test_who_takes_a_frame_too_slowly_is_let_go(website: Website, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or many of them would keep as many frames in memory."""
    full_at_once(monkeypatch, 20)
    reader = website.listen()
    producer: Any = reader.transport.producer
    producer.resumeProducing()
    website.clock.advance(1)
    for _ in range(int(STUCK) - 1):
        website.clock.advance(1)
        producer.resumeProducing()
    assert not reader.transport.gone
    website.clock.advance(2)
    assert reader.transport.gone


def test_at_the_end_every_stream_is_closed(shown: Shown) -> None:
    website = Website(shown)
    website.feed.start()
    reader, stuck = website.listen(), website.listen()
    website.clock.advance(1)
    pause(stuck)
    website.feed.stop()
    assert reader.transport.gone
    assert reader.transport.value().endswith(b"0\r\n\r\n"), "in order"
    assert stuck.transport.gone
    assert website.listen().answer.status == 503
    website.feed.stop()
    website.feed.start()
    assert website.listen().answer.status == 200
    website.feed.stop()
    assert not calls(website, "Periodic", "piece")


def test_the_end_comes_while_a_frame_is_made(shown: Shown) -> None:
    website = Website(shown)
    website.feed.start()
    reader = website.listen()
    # the turn begins a frame, whose first piece is for the next turn of the reactor
    website.feed._turn()
    assert calls(website, "piece")
    website.feed.stop()
    assert not calls(website, "Periodic", "piece")
    website.clock.advance(5)
    assert reader.transport.gone
    assert reader.answer.frames == []


# -- what it costs


def test_where_frames_are_dear_there_are_fewer(shown: Shown) -> None:
    now = [0.0]

    def cpu() -> float:
        now[0] += 0.01
        return now[0]

    website = Website(shown, cpu=cpu)
    website.feed.start()
    website.listen()
    for _ in range(600):
        shown.ask()
        website.clock.advance(1)
    feed = website.feed
    assert feed.cost > 0.02
    assert 5 < feed.made <= 600 * SHARE / feed.cost + 1
    website.feed.stop()


def test_work_in_pieces_lets_others_in_between() -> None:
    clock, seen = Clock(), []

    def work() -> Generator[None, None, str]:
        for number in range(3):
            seen.append(f"piece {number}")
            clock.callLater(0, seen.append, "another's")
            yield
        return "done"

    ticks = iter(range(100))
    result: list[Any] = []
    in_pieces(work(), clock, lambda: float(next(ticks))).addCallback(result.append)
    assert seen == []
    clock.advance(0)
    assert seen == ["piece 0", "another's", "piece 1", "another's", "piece 2", "another's"]
    assert (result[0].value, result[0].cost) == ("done", 4.0)


def test_a_bug_in_a_frame_is_logged_and_the_next_one_comes(website: Website, logged_errors: LoggedErrors) -> None:
    reader = website.listen()
    hour = website.shown.activity.hour
    website.shown.activity.hour = lambda: 1 // 0  # type: ignore[assignment,return-value,method-assign]
    website.clock.advance(1)
    (failed,) = logged_errors.flush()
    assert failed["log_format"] == "the page could not be kept live"
    website.shown.activity.hour = hour  # type: ignore[method-assign]
    website.clock.advance(1)
    assert len(reader.answer.frames) == 1


# -- on sockets


@pytest_twisted.ensureDeferred
async def test_a_browser_that_never_reads_holds_up_nobody(descriptors_stay: None) -> None:
    shown = Shown(farm(*(f"host{number}/8" for number in range(200))))
    served = Served(shown)
    request = b"GET /events HTTP/1.1\r\nHost: balancer\r\n\r\n"
    never, reader = (socket.create_connection(("127.0.0.1", served.number)) for _ in range(2))
    try:
        reader.setblocking(False)
        never.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        never.sendall(request)
        reader.sendall(request)
        feed = served.feed
        await until(lambda: feed.listeners == 2, "two readers")
        heard = bytearray()
        sent = 0

        def missed() -> bool:
            nonlocal sent
            # every host changes, so that frames are large; a turn now, and not in a second
            for _ in range(400):
                shown.ask(f"10.0.0.{sent % 250}", seconds=2)
                sent += 1
            shown.go(1)
            feed._due = 0.0
            feed._turn()
            try:
                while chunk := reader.recv(1 << 20):
                    heard.extend(chunk)
            except BlockingIOError:
                pass
            return feed.missed >= 3

        await until(missed, "three frames that it missed")
        await until(lambda: missed() and heard.count(b"data: {") > 5, "frames for the other one")
        assert feed.listeners == 2
    finally:
        await served.stop()
        never.close()
        reader.close()
