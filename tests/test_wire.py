"""The text of the three ports: what is sent, what is understood, and Tcl's lists, checked against Tcl itself."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distbal import wire
from distbal.errors import WireError
from distbal.hosts import HostSpec
from distbal.snapshot import ClientState, HostState, Snapshot
from distbal.wire import ParsedClient, ParsedHost, Update, UpdateReader, tcl_quote, tcl_split
from tests.conversations import LINES, Line
from tests.support import need, stop

# -- 5656 ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "name", "options", "sent"),
    [
        ("{name}{options}", "snookles:3632", "", b"snookles:3632\r\n"),
        ("{name}{options}", "snookles:3632", ",lzo,cpp", b"snookles:3632,lzo,cpp\r\n"),
        ("{name}/100{options}", "snookles", ",lzo", b"snookles/100,lzo\r\n"),
        ("{name}", "[fd00::7]:3632", ",lzo", b"[fd00::7]:3632\r\n"),
        ("--localslots=2 {name} {name}", "a", "", b"--localslots=2 a a\r\n"),
        ("{name}{options}", "{options}", ",lzo", b"{options},lzo\r\n"),
        ("{name}", "schnökel", "", "schnökel\r\n".encode()),
    ],
)
def test_a_grant_is_the_template_filled(reply: str, name: str, options: str, sent: bytes) -> None:
    assert wire.grant(reply, name, options) == sent


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("{options}", "{name}"),
        ("", "{name}"),
        ("{name}{slots}", '"{slots}" means nothing'),
        ("{name}{}", '"{}" means nothing'),
        ("{name}\r\n", "one line"),
        ("{name}\0", "printable"),
    ],
)
def test_a_template_that_makes_no_answer_is_refused(reply: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        wire.grant(reply, "snookles", "")


# -- 5657 ---------------------------------------------------------------------------------------------------------------------


def host(name: str, slots: int, leases: int = 0, *, up: bool = True, removed: bool = False) -> HostState:
    capacity = slots if up else 0
    spec = HostSpec(name, slots, rank=0)
    return HostState(spec, leases, capacity, up, leases < capacity, "ready", removed, (), granted=0, held=0.0)


def client(number: int, port: int, given: str = "", address: str = "127.0.0.1") -> ClientState:
    return ClientState(number, address, port, "default", 0.0, given)


def snapshot(*hosts: HostState, waiters: tuple[ClientState, ...] = (), leases: tuple[ClientState, ...] = ()) -> Snapshot:
    return Snapshot(0.0, hosts, waiters, leases, {})


def test_the_nine_lines_are_those_of_the_original() -> None:
    # as observed: three servers, four leases, two waiters; only the order of hash tables and the socket words differ
    seen = snapshot(
        host("127.0.0.1:3701", 1, 1),
        host("127.0.0.1:3702", 2, 2),
        host("localhost", 1, 1),
        waiters=(client(0x55985A8DBEA0, 58378), client(0x55985A8D2180, 58390)),
        leases=(
            client(0x55985A8DAA20, 58332, "127.0.0.1:3701"),
            client(0x55985A8DB0A0, 58358, "127.0.0.1:3702"),
            client(0x55985A8DB0A1, 58359, "127.0.0.1:3702"),
            client(0x55985A8DB0A2, 58360, "localhost"),
        ),
    )
    assert wire.status(seen, 5656, 5657).decode() == (
        "BalanceTcpPort = 5656, StatusTcpPort = 5657\r\n"
        "ServerList = {127.0.0.1:3701 1} {127.0.0.1:3702 2} {localhost 1}\r\n"
        "IdleServers = 0\r\n"
        "DownServers = 0\r\n"
        "WaitQueue = {sock55985a8dbea0 127.0.0.1 58378} {sock55985a8d2180 127.0.0.1 58390}\r\n"
        "WaitQueueLen = 2\r\n"
        "ServerStatus (available distcc servers) = 127.0.0.1:3701 0 127.0.0.1:3702 0 localhost 0\r\n"
        "ServerUpState (distcc server up/down status) = 127.0.0.1:3701 up 127.0.0.1:3702 up localhost up\r\n"
        "ClientStatus (who's connected to what) = sock55985a8daa20 {127.0.0.1 58332 127.0.0.1:3701} "
        "sock55985a8db0a0 {127.0.0.1 58358 127.0.0.1:3702} sock55985a8db0a1 {127.0.0.1 58359 127.0.0.1:3702} "
        "sock55985a8db0a2 {127.0.0.1 58360 localhost}\r\n"
    )


def test_empty_lists_are_empty_strings() -> None:
    assert wire.status(snapshot(), 1, 2) == (
        b"BalanceTcpPort = 1, StatusTcpPort = 2\r\nServerList = \r\nIdleServers = 0\r\nDownServers = 0\r\n"
        b"WaitQueue = \r\nWaitQueueLen = 0\r\nServerStatus (available distcc servers) = \r\n"
        b"ServerUpState (distcc server up/down status) = \r\nClientStatus (who's connected to what) = \r\n"
    )


def test_down_hosts_count_as_idle_with_what_is_free_and_as_down_with_all_they_have() -> None:
    parsed = wire.parse_status(wire.status(snapshot(host("a", 4, 1, up=False), host("b", 2, 1), host("c", 8, 9)), 1, 2))
    assert (parsed.idle, parsed.down) == (3 + 1 + 0, 4)
    assert parsed.hosts == (ParsedHost("a", 4, 3, up=False), ParsedHost("b", 2, 1, up=True), ParsedHost("c", 8, 0, up=True))


def test_hosts_that_left_the_file_are_gone_and_their_clients_are_not() -> None:
    seen = snapshot(host("a", 1), host("old", 4, 1, up=False, removed=True), leases=(client(1, 9, "old"),))
    parsed = wire.parse_status(wire.status(seen, 1, 2))
    assert parsed.hosts == (ParsedHost("a", 1, 1, up=True),)
    assert (parsed.idle, parsed.down) == (1, 0)
    assert parsed.served == (ParsedClient("sock1", "127.0.0.1", 9, "old"),)


AWKWARD = st.text(st.sampled_from('ab{}[]"\\$; \t\n\r\f\v#x0127uU\0é~'), max_size=8) | st.text(
    st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=8
)
NUMBERS = st.integers(0, 2**63)
COUNTS = st.integers(0, 65535)
NAMES = AWKWARD.filter(lambda name: name and "\n" not in name and "\r" not in name)


@given(st.lists(st.tuples(NAMES, COUNTS, COUNTS, st.booleans()), unique_by=lambda drawn: drawn[0], max_size=4), st.data())
def test_what_status_writes_parse_status_reads(hosts: list[tuple[str, int, int, bool]], data: st.DataObject) -> None:
    clients = st.lists(st.tuples(NUMBERS, NAMES, COUNTS, NAMES), unique_by=lambda drawn: drawn[0], max_size=4)
    waiting, served = data.draw(clients), data.draw(clients)
    seen = snapshot(
        *(host(name, slots, leases, up=up) for name, slots, leases, up in hosts),
        waiters=tuple(client(number, port, "", address) for number, address, port, _ in waiting),
        leases=tuple(client(number, port, given, address) for number, address, port, given in served),
    )
    raw = wire.status(seen, 5656, 5657)
    assert raw.count(b"\r\n") == 9
    for text in (raw, raw.decode(), raw.replace(b"\r\n", b"\n"), raw + b"more = to come\r\n"):
        parsed = wire.parse_status(text)
        assert (parsed.balance_port, parsed.status_port) == (5656, 5657)
        assert [(h.name, h.slots, h.free, h.up) for h in parsed.hosts] == [(n, s, max(0, s - b), up) for n, s, b, up in hosts]
        assert parsed.waiting == tuple(ParsedClient(f"sock{n:x}", a, p) for n, a, p, _ in waiting)
        assert parsed.served == tuple(ParsedClient(f"sock{n:x}", a, p, h) for n, a, p, h in served)


@given(st.lists(NAMES, max_size=4), NAMES)
@example(["#a", "#b"], "#c")
def test_every_value_of_status_is_a_list_as_tcl_would_write_it(names: list[str], address: str) -> None:
    hosts = tuple(host(name, 2, 1) for name in names)
    leases = tuple(client(number, 9, name, address) for number, name in enumerate(names))
    seen = snapshot(*hosts, leases=leases, waiters=leases)
    values = [line.partition(" = ")[2] for line in wire.status(seen, 1, 2).decode().split("\r\n")]
    assert values[1] == tcl_quote(tcl_quote([name, "2"]) for name in names)
    assert values[4] == tcl_quote(tcl_quote([f"sock{n:x}", address, "9"]) for n in range(len(names)))
    assert values[6] == tcl_quote(word for name in names for word in (name, "1"))
    assert values[7] == tcl_quote(word for name in names for word in (name, "up"))
    assert values[8] == tcl_quote(
        word for n, name in enumerate(names) for word in (f"sock{n:x}", tcl_quote([address, "9", name]))
    )


GOOD = wire.status(snapshot(host("a", 1, 1), waiters=(client(2, 8),), leases=(client(1, 9, "a"),)), 5656, 5657).decode()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "ends within a line"),
        (GOOD[:-3], "ends within a line"),
        ("\n", "BalanceTcpPort"),
        ("snookles:3632\r\n", "BalanceTcpPort"),
        (GOOD[: GOOD.index("ServerUpState")], "ServerUpState"),
        (GOOD.replace("IdleServers = 0", "IdleServers = few"), "'few' in IdleServers"),
        (GOOD.replace("ServerList = {a 1}", "ServerList = {a 1} {b 1}"), "'b'"),
        (GOOD.replace("ServerList = {a 1}", "ServerList = {a 1"), "never closed"),
        (GOOD.replace("ServerList = {a 1}", "ServerList = {a one}"), "'one' in ServerList"),
        (GOOD.replace("{sock2 127.0.0.1 8}", "{sock2 127.0.0.1}"), "WaitQueue"),
        (GOOD.replace("servers) = a 0", "servers) = a"), "odd number of words in ServerStatus"),
        (GOOD.replace("StatusTcpPort = 5657", "StatusTcpPort = "), "StatusTcpPort"),
    ],
)
def test_what_is_no_status_is_said_so(text: str, why: str) -> None:
    with pytest.raises(WireError) as caught:
        wire.parse_status(text)
    assert why in str(caught.value)
    assert str(caught.value).isprintable()


def test_ten_thousand_hosts_and_twenty_thousand_clients_take_linear_work() -> None:
    # time is measured by the benchmark; here: no second pass over the hosts for a client, seen in the calls made
    def steps(size: int) -> int:
        names = [f"host{n}:3632" for n in range(size)]
        served = tuple(client(n, n % 65536, names[n]) for n in range(size))
        seen = snapshot(*(host(name, 8, 1) for name in names), leases=served, waiters=served)
        return _calls(lambda: wire.status(seen, 1, 2))

    assert steps(400) < 2.5 * steps(200)


def _calls(work: Callable[[], object]) -> int:
    count = 0

    def profile(*_: object) -> None:
        nonlocal count
        count += 1

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


# -- 5658 ---------------------------------------------------------------------------------------------------------------------


def heard(line: Line, *pieces: bytes) -> Update | WireError | None:
    """What a reader makes of these pieces, and of the end of the connection where the line needs it."""
    reader = UpdateReader()
    answers: list[Update | WireError] = []
    for feed in [*((lambda piece=piece: reader.feed(piece)) for piece in pieces), *([reader.feed_eof] if line.eof else [])]:
        try:
            answer = feed()
        except WireError as error:
            answers.append(error)
        else:
            if answer is not None:
                answers.append(answer)
    assert len(answers) <= 1  # a reader answers once
    assert reader.feed_eof() is None
    return answers[0] if answers else None


FED: dict[str, Callable[[bytes], list[bytes]]] = {
    "whole": lambda data: [data],
    "byte by byte": lambda data: [bytes([byte]) for byte in data],
    "with trailing bytes": lambda data: [data + b"newbb:3632 up\r\n\xff\0", b"newbb:3632 down\n"],
}


@pytest.mark.parametrize(
    ("line", "fed"),
    # nothing can follow a line that the end of the connection ends
    [
        pytest.param(line, fed, id=f"{line.id}, {fed}")
        for line in LINES
        for fed in FED
        if not (line.eof and fed == "with trailing bytes")
    ],
)
def test_a_line_of_the_update_port(line: Line, fed: str) -> None:
    answer = heard(line, *FED[fed](line.data))
    if line.garbage:
        assert isinstance(answer, WireError)
        assert str(answer).isprintable()
        assert "HOST up or HOST down" in str(answer)
    else:
        assert answer == (None if line.says is None else Update(*line.says))


@given(st.binary(max_size=40) | st.text("ab up\ndown\r\t ", max_size=20).map(str.encode), st.data())
def test_pieces_make_no_difference(data: bytes, draw: st.DataObject) -> None:
    cuts = sorted(draw.draw(st.sets(st.integers(0, len(data)))))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    line = Line("drawn", data, None, eof=True)
    assert repr(heard(line, data)) == repr(heard(line, *pieces))


def test_half_a_letter_ends_with_its_line() -> None:
    assert UpdateReader().feed(b"snookles:3632 down caf\xe9\n") == Update("snookles:3632", "down")


def test_a_line_is_as_long_as_its_limit_however_it_comes() -> None:
    reader = UpdateReader()
    assert reader.feed(b"x" * wire.MAX_LINE) is None
    assert reader.feed(b"\n") == Update("x" * wire.MAX_LINE, None)
    reader = UpdateReader()
    assert reader.feed(b"x" * wire.MAX_LINE) is None
    with pytest.raises(WireError, match="longer than 1024 bytes"):
        reader.feed(b"x")


# -- Tcl lists ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], ""),
        ([""], "{}"),
        (["a", "b"], "a b"),
        (["snookles:3632", "1"], "snookles:3632 1"),
        (["[fd00::7]:3632", "8"], "{[fd00::7]:3632} 8"),
        (["a b", ""], "{a b} {}"),
        (["#a", "#b"], "{#a} #b"),
        (["#{", "#{"], r"\#\{ #\{"),
        (["a]b", 'a"b', '"a', "a]b["], r"a\]b a\"b" + ' {"a} {a]b[}'),
        (["a{b", "a}b{", "{a}", "a{b}c"], r"a\{b a\}b\{ {{a}} a{b}c"),
        (["a\\", "a\\b", "\\\\", "a\\\nb"], r"a\\ {a\b} {\\} a\\\nb"),
        (["$x", "a;b", "a\tb"], "{$x} {a;b} {a\tb}"),
        (["a\tb}"], r"a\tb\}"),
    ],
)
def test_lists_are_quoted_as_tcl_does(words: list[str], text: str) -> None:
    assert tcl_quote(words) == text
    assert tcl_split(text) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("  a \t\n\v\f\r b ", ["a", "b"]),
        ("a\u2003b", ["a\u2003b"]),
        ('"a b" c', ["a b", "c"]),
        (r'"a\"b" a\ b', ['a"b', "a b"]),
        (r"\x41 \u20ac \101 \a\b\f\n\r\t\v", ["A", "€", "A", "\a\b\f\n\r\t\v"]),
        (r"\x \u \q \400 \37x", ["x", "u", "q", " 0", "\x1fx"]),
        (r"\U0001F600 \U00110000", ["\U0001f600", "\U000110000"]),
        ("a\\\n   b", ["a b"]),
        (r"{a\{b} {a {b} c}", [r"a\{b", "a {b} c"]),
        ('a{b a"b', ["a{b", 'a"b']),
        ("a\\", ["a\\"]),
    ],
)
def test_lists_are_taken_apart_as_tcl_does(text: str, words: list[str]) -> None:
    assert tcl_split(text) == words


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a {b", "brace is never closed"),
        ("{a {b}", "brace is never closed"),
        ('a "b', "quote is never closed"),
        ("{a}b", "goes on after"),
        ('"a"b', "goes on after"),
        (r"{a\}", "brace is never closed"),
    ],
)
def test_unbalanced_lists_are_refused(text: str, why: str) -> None:
    with pytest.raises(WireError, match=why):
        tcl_split(text)


@given(st.lists(AWKWARD))
def test_splitting_undoes_quoting(words: list[str]) -> None:
    assert tcl_split(tcl_quote(words)) == words


class Tcl:
    """A tclsh that quotes and splits lists, words going to and fro in hexadecimal."""

    SCRIPT = r"""
        fconfigure stdout -buffering line
        proc decoded {word} {encoding convertfrom utf-8 [binary format H* [string range $word 1 end]]}
        proc encoded {text} {return x[binary encode hex [encoding convertto utf-8 $text]]}
        while {[gets stdin line] >= 0} {
            set words {}
            foreach word [lrange [split $line] 1 end] {lappend words [decoded $word]}
            if {[string match quote* $line]} {
                puts [encoded [list {*}$words]]
            } elseif {[catch {llength [lindex $words 0]}]} {
                puts error
            } else {
                set out ok
                foreach word [lindex $words 0] {append out " " [encoded $word]}
                puts $out
            }
        }
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def quote(self, words: list[str]) -> str:
        return _plain(self._ask("quote", *words))

    def split(self, text: str) -> list[str] | None:
        kind, *words = self._ask("split", text).split()
        return None if kind == "error" else [_plain(word) for word in words]

    def _ask(self, *words: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(words[0], *(f"x{word.encode().hex()}" for word in words[1:]), file=self._process.stdin, flush=True)
        return self._process.stdout.readline().rstrip("\n")


def _plain(word: str) -> str:
    return bytes.fromhex(word[1:]).decode(errors="surrogatepass")


@pytest.fixture(scope="module")
def tcl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tcl]:
    need("tclsh")
    script = tmp_path_factory.mktemp("tcl") / "lists.tcl"
    script.write_text(Tcl.SCRIPT)
    process = subprocess.Popen(["tclsh", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Tcl(process)
    finally:
        stop(process)


@pytest.mark.programs
@settings(max_examples=300)
@given(words=st.lists(AWKWARD, max_size=4))
def test_tcl_itself_quotes_the_same(tcl: Tcl, words: list[str]) -> None:
    assert tcl_quote(words) == tcl.quote(words)


@pytest.mark.programs
@settings(max_examples=300)
@given(text=st.text(st.sampled_from('ab{}[]"\\$; \t\n\r\f\v#x0127u\0é~'), max_size=20))
def test_tcl_itself_splits_the_same(tcl: Tcl, text: str) -> None:
    try:
        words = tcl_split(text)
    except WireError:
        assert tcl.split(text) is None
    else:
        if not any("\ud800" <= char <= "\udfff" for word in words for char in word):  # Tcl 8.6 writes these as it likes
            assert tcl.split(text) == words


@pytest.mark.programs
@given(names=st.lists(NAMES, max_size=3, unique=True), address=NAMES)
def test_tcl_itself_reads_the_status(tcl: Tcl, names: list[str], address: str) -> None:
    leases = tuple(client(number, 9, name, address) for number, name in enumerate(names))
    seen = snapshot(*(replace(host(name, 2), leases=1) for name in names), leases=leases)
    values = [line.partition(" = ")[2] for line in wire.status(seen, 1, 2).decode().split("\r\n")]
    servers = tcl.split(values[1])
    assert servers is not None
    assert [tcl.split(server) for server in servers] == [[name, "2"] for name in names]
    clients = tcl.split(values[8])
    assert clients is not None
    assert [tcl.split(entry) for entry in clients[1::2]] == [[address, "9", name] for name in names]
