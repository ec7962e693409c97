"""The request of a tiny compile, and the reader of its answer: by example, cut anywhere, and garbage."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbal.errors import WireError
from distbal.monitors.distccwire import KEPT, MOST_BODY, SOURCE, AnswerReader, Compiled, request


def packet(token: str, number: int) -> bytes:
    return f"{token}{number:08x}".encode()


def answer(status: int = 0, errors: bytes = b"", output: bytes = b"", target: bytes = b"\x7fELF...") -> bytes:
    """What a distccd answers."""
    parts = [packet("DONE", 1), packet("STAT", status)]
    parts += [packet(token, len(body)) + body for token, body in (("SERR", errors), ("SOUT", output), ("DOTO", target))]
    return b"".join(parts)


def read(data: bytes, *cuts: int) -> AnswerReader:
    reader = AnswerReader()
    edges = [0, *sorted(cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        reader.feed(data[start:end])
    return reader


def test_the_request_is_distcc_s() -> None:
    assert request("gcc") == (
        b"DIST00000001ARGC00000005ARGV00000003gccARGV00000002-cARGV00000009distbal.cARGV00000002-oARGV00000009distbal.o"
        b"DOTI%08x" % len(SOURCE) + SOURCE
    )
    assert b"ARGV0000000adistbal.cc" in request("aarch64-linux-gnu-g++")


def test_it_is_what_distcc_itself_sends() -> None:
    """Taken from distcc 3.4, which was told to compile x.i by way of a port that listened."""
    taken = (
        b"DIST00000001ARGC00000005ARGV00000014x86_64-linux-gnu-gccARGV00000002-cARGV00000003x.iARGV00000002-oARGV00000003x.o"
    )
    ours = request("x86_64-linux-gnu-gcc").partition(b"DOTI")[0]
    assert ours.replace(b"00000009distbal.c", b"00000003x.i").replace(b"00000009distbal.o", b"00000003x.o") == taken


@pytest.mark.parametrize(
    ("data", "compiled"),
    [
        (answer(), Compiled(0, b"", 7)),
        (answer(256, b"error: no\n", target=b""), Compiled(1, b"error: no\n", 0)),
        (answer(110 << 8, target=b""), Compiled(110, b"", 0)),
        (answer(9, target=b""), Compiled(-9, b"", 0)),
        (answer(0, b"warning\n", b"note\n"), Compiled(0, b"warning\nnote\n", 7)),
        (answer(0, b"w" * 5000), Compiled(0, b"w" * KEPT, 7)),
        (answer(0, target=bytes(MOST_BODY)), Compiled(0, b"", MOST_BODY)),
        (answer() + b"more", Compiled(0, b"", 7)),
        (answer().replace(b"00000007", b"0000000" + b"7"), Compiled(0, b"", 7)),
    ],
)
def test_an_answer(data: bytes, compiled: Compiled) -> None:
    assert read(data).compiled == compiled


@given(st.data())
def test_an_answer_may_come_in_any_pieces(data: st.DataObject) -> None:
    whole = answer(256, b"some words", b"others", b"object")
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=8))
    assert read(whole, *cuts).compiled == Compiled(1, b"some wordsothers", 6)


@given(st.data())
def test_half_an_answer_is_none(data: st.DataObject) -> None:
    whole = answer(0, b"some words")
    end = data.draw(st.integers(0, len(whole) - 1))
    reader = read(whole[:end])
    assert reader.compiled is None
    assert reader.begun is (end > 0)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "does not speak distcc's protocol: something else listens there"),
        (b"H", "does not speak distcc's protocol: something else listens there"),
        (b"DONE0000000z", "does not speak distcc's protocol: DONE has no number"),
        (b"DONE+0000001", "does not speak distcc's protocol: DONE has no number"),
        (b"DONE00000002", "answered in version 2 of distcc's protocol, and was asked in version 1"),
        (packet("DONE", 1) + packet("SERR", 0), "something else listens there"),
        (packet("DONE", 1) + packet("STAT", 0x137F), "answered with 0x137f for the compiler's exit status, which is none"),
        (packet("DONE", 1) + packet("STAT", 0xFFFFFFFF), "which is none"),
        (packet("DONE", 1) + packet("STAT", 0) + packet("SERR", MOST_BODY + 1), "answers a tiny compile with 1,048,577 bytes"),
        (packet("DONE", 1) + packet("STAT", 0) + packet("SERR", 0xFFFFFFFF), "answers a tiny compile with 4,294,967,295 bytes"),
    ],
)
def test_what_is_no_answer_is_said(data: bytes, words: str) -> None:
    with pytest.raises(WireError, match="^" + words.replace("+", r"\+") if words[0] == "d" else words):
        read(data)


@given(st.binary(max_size=200), st.integers(0, 60))
def test_garbage_is_refused_or_not_enough(garbage: bytes, start: int) -> None:
    try:
        reader = read(answer()[:start] + garbage)
    except WireError as problem:
        assert str(problem).isprintable()  # noqa: PT017
    else:
        assert reader.compiled is None or reader.compiled.size <= MOST_BODY
