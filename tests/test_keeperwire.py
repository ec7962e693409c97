"""Packets between daemon and keeper; see distbal/keeperwire.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from distbal import keeperwire as wire

KEYS = st.tuples(st.integers(0, 2**64 - 1), st.sampled_from(sorted(wire.ROLES)))
NUMBERS = st.integers(0, 2**63 - 1)
TEXT = st.text(max_size=50)
KEEPERS = st.builds(wire.Keeper, TEXT, NUMBERS, NUMBERS, TEXT, st.floats(0, 1e11))


@given(st.lists(KEYS, max_size=wire.MAX_DESCRIPTORS), st.lists(KEYS, max_size=300))
def test_a_journal_is_read_as_it_was_written(held: list[wire.Key], let_go: list[wire.Key]) -> None:
    packet = wire.journal(held, let_go)
    assert wire.from_daemon(packet) == wire.Journal(held, let_go)
    assert wire.from_daemon(memoryview(packet)) == wire.Journal(held, let_go)


@given(st.lists(KEYS, max_size=wire.MAX_DESCRIPTORS))
def test_what_is_given_is_read_as_it_was_written(keys: list[wire.Key]) -> None:
    assert wire.from_keeper(wire.give(keys)) == wire.Give(keys)


@given(st.builds(wire.Hello, TEXT, NUMBERS, st.sampled_from(["start", "upgrade"]), st.booleans()))
def test_a_hello_is_read_as_it_was_written(said: wire.Hello) -> None:
    assert wire.from_daemon(wire.hello(*said)) == said


@given(TEXT, TEXT)
def test_ready_is_read_as_it_was_written(version: str, status: str) -> None:
    assert wire.from_daemon(wire.ready(version, status)) == wire.Ready(version, status)


@given(KEEPERS)
def test_the_keeper_is_read_as_it_was_written(keeper: wire.Keeper) -> None:
    assert wire.from_keeper(wire.end(keeper)) == wire.End(keeper)
    assert wire.from_keeper(wire.news(keeper)) == wire.News(keeper)


def test_packets_without_a_body() -> None:
    assert [type(wire.from_daemon(packet)) for packet in (wire.BEAT, wire.STOPPING)] == [wire.Beat, wire.Stopping]
    assert isinstance(wire.from_keeper(wire.LEAVE), wire.Leave)


def test_the_bytes_are_those_of_the_contract() -> None:
    assert wire.journal([(1, wire.Role.CLIENT)], [(2, wire.Role.LOCK)]) == (
        b"J\x01\x00" + b"\x01\0\0\0\0\0\0\0\x04" + b"\x02\0\0\0\0\0\0\0\x09"
    )
    assert [(role.name, role.value) for role in wire.Role] == [
        *(("LEDGER", 1), ("NOTES", 2), ("LISTENER", 3), ("CLIENT", 4), ("SESSION_CLIENT", 5), ("SESSION_SERVER", 6)),
        *(("PIPE_READ", 7), ("PIPE_WRITE", 8), ("LOCK", 9)),
    ]
    packet = wire.hello("0.5.0", 7, "start", True)
    assert packet[:1] == b"H"
    assert json.loads(packet[1:]) == {"version": "0.5.0", "pid": 7, "began": "start", "give": True}
    packet = wire.end(wire.Keeper("0.5.0", 7, 2, "why", 1.5))
    assert packet[:1] == b"E"
    assert json.loads(packet[1:]) == {"keeper": {"version": "0.5.0", "pid": 7, "restarts": 2, "last": "why", "since": 1.5}}


@given(st.integers(0, 600), st.integers(0, 16000))
@example(0, 0)
@example(wire.MAX_DESCRIPTORS, wire.MAX_KEYS - wire.MAX_DESCRIPTORS)
@example(wire.MAX_DESCRIPTORS, wire.MAX_KEYS)
def test_any_number_of_keys_goes_in_several_packets(held: int, let_go: int) -> None:
    held_keys, gone_keys = [(n, 4) for n in range(held)], [(n, 5) for n in range(let_go)]
    packets = list(wire.journals(held_keys, gone_keys))
    read = [wire.from_daemon(packet) for packet, _ in packets]
    journals = [one for one in read if isinstance(one, wire.Journal)]
    assert [len(one.held) for one in journals] == [number for _, number in packets]
    assert [key for one in journals for key in one.held] == held_keys
    assert [key for one in journals for key in one.let_go] == gone_keys
    assert all(len(packet) <= wire.MAX_PACKET and number <= wire.MAX_DESCRIPTORS for packet, number in packets)


#: bytes without sense, bodies without sense behind types with sense, and JSON that has the right words
PACKETS = (
    st.binary(max_size=200)
    | st.builds(bytes.__add__, st.sampled_from([bytes([byte]) for byte in b"JHRBSGEKL"]), st.binary(max_size=200))
    | st.builds(
        lambda kind, content: kind + json.dumps(content).encode(),
        st.sampled_from([b"H", b"R", b"E", b"K"]),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | TEXT,
            lambda inner: st.dictionaries(
                st.sampled_from(["version", "pid", "began", "give", "status", "keeper", "restarts", "last", "since"]) | TEXT,
                inner,
            ),
            max_leaves=12,
        ),
    )
)


@given(PACKETS)
@example(b"H" + b"[" * 60000)
@example(b"H" + b"9" * 60000)
def test_any_bytes_from_a_daemon_are_read_or_refused(packet: bytes) -> None:
    with suppress(ValueError):
        assert isinstance(wire.from_daemon(packet), wire.FromDaemon)


@given(PACKETS)
@example(b"E" + b'{"keeper":' * 6000)
@example(b'K{"keeper":{"since":NaN}}')
def test_any_bytes_from_a_keeper_are_read_or_refused(packet: bytes) -> None:
    with suppress(ValueError):
        assert isinstance(wire.from_keeper(packet), wire.FromKeeper)


@pytest.mark.parametrize(
    ("packet", "said"),
    [
        (b"", "a packet is empty"),
        (b"J" + bytes(wire.MAX_PACKET), "a packet has more than 65536 bytes"),
        (b"X", "a packet of the type b'X' is none that a daemon sends"),
        (b"G\0\0", "a packet of the type b'G' is none that a daemon sends"),
        (b"J\0", "a packet of the type b'J' is cut off: 1 bytes after its type"),
        (b"J\0\0" + bytes(8), "a packet of the type b'J' is cut off: 10 bytes after its type"),
        (b"J\x02\0" + b"\1" * 9, "a packet of the type b'J' with 1 keys cannot have 2 descriptors"),
        (
            b"J\xfe\0" + b"\1" * 9 * 254,
            "a packet of the type b'J' with 254 keys cannot have 254 descriptors",
        ),
        (b"J\0\0" + bytes(8) + b"\x0a", "a packet of the type b'J' has a descriptor of a role that is not known: 10"),
        (b"Bx", "a packet of the type b'B' has 1 bytes after its type, which has no body"),
        (b"R[]", "a packet of the type b'R' is no JSON object"),
        (b'R{"version": "1"}', '"status" is no text'),
        (b'H{"began": "x"}', 'a hello began neither with "start" nor with "upgrade": \'x\''),
        (b'H{"began": "start", "version": "1", "pid": true}', '"pid" is no number'),
        (b'H{"began": "start", "version": "1", "pid": 1, "give": 1}', '"give" is neither true nor false'),
    ],
)
def test_what_is_wrong_is_said(packet: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        wire.from_daemon(packet)
    assert str(raised.value) == said


@pytest.mark.parametrize(
    ("packet", "said"),
    [
        (b"J\0\0", "a packet of the type b'J' is none that a keeper sends"),
        (b"G\0\0" + bytes(8) + b"\x04", "a packet of the type b'G' has 1 keys without a descriptor"),
        (b"E{}", "a packet of the type b'E' does not say who the keeper is"),
        (b'E{"keeper": {"since": "x"}}', 'the keeper\'s "since" is no time'),
    ],
)
def test_what_a_keeper_says_wrong_is_said(packet: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        wire.from_keeper(packet)
    assert str(raised.value) == said


@pytest.mark.parametrize(
    "write",
    [
        lambda: wire.journal([(1, 4)] * 254),
        lambda: wire.journal([], [(1, 4)] * (wire.MAX_KEYS + 1)),
        lambda: wire.journal([(1 << 64, 4)]),
        lambda: wire.give([(-1, 4)]),
        lambda: wire.ready("1", "x" * wire.MAX_PACKET),
    ],
)
def test_what_does_not_fit_is_not_written(write: Callable[[], bytes]) -> None:
    with pytest.raises(ValueError, match=" "):
        write()
