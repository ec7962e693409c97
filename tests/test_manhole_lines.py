"""The shell's parts that need no connection: the line that is typed, its terminal, Tab, and verbs as functions."""

from __future__ import annotations

import sys
from typing import Any

import pytest

pytest.importorskip("bcrypt", reason="Twisted Conch's libraries are not here: pip install 'distbal[ssh]'")

import pyte
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from distbal.errors import DistbalError
from distbal.manhole import interpreter, verbcalls
from distbal.manhole.completion import completions
from distbal.manhole.editor import MOST_LINE, MOST_LINES, Editor
from distbal.manhole.interpreter import Interpreter
from distbal.manhole.session import Pty
from distbal.manhole.terminal import Terminal, in_columns
from distbal.verbs import VERBS, VerbError, parse
from tests.manholes import Balancer

# -- the line


def edited(*acts: str | tuple[str, str]) -> str:
    """What stands there after these, with | for the cursor: texts are typed in brackets."""
    editor = Editor()
    for act in acts:
        if isinstance(act, tuple):
            assert editor.insert(act[1])
        else:
            getattr(editor, act)()
    return f"{editor.text[: editor.cursor]}|{editor.text[editor.cursor :]}"


def typed(text: str) -> tuple[str, str]:
    return "insert", text


@pytest.mark.parametrize(
    ("acts", "line"),
    [
        ([typed("ab"), "left", typed("x"), "right", "right", typed("y")], "axby|"),
        ([typed("ab"), "backspace", "backspace", "backspace", typed("c")], "c|"),
        ([typed("ab"), "home", "delete", "end", "delete"], "b|"),
        ([typed("drain('newbb:3632'"), "word_left", "word_left", "word_right"], "drain('newbb|:3632'"),
        ([typed("drain newbb "), "cut_word"], "drain |"),
        ([typed("abcd"), "left", "left", "cut_before"], "|cd"),
        ([typed("abcd"), "left", "left", "cut_behind"], "ab|"),
        ([typed("one"), "take", typed("two"), "take", "earlier", "earlier", "earlier"], "one|"),
        ([typed("one"), "take", typed("ha"), "earlier", typed("!"), "later", "later"], "ha|"),
        ([typed("one"), "take", typed("one"), "take", typed(" "), "take", "earlier", "earlier"], "one|"),
    ],
)
def test_a_line_is_edited(acts: list[Any], line: str) -> None:
    assert edited(*acts) == line


@pytest.mark.parametrize(
    ("text", "back", "columns", "view"),
    [
        ("abc", 0, 10, ("abc", 3)),
        ("abc", 2, 10, ("abc", 1)),
        ("abcdefghij", 0, 5, ("ghij", 4)),
        ("abcdefghij", 10, 5, ("abcd", 0)),
        ("数数数", 0, 6, ("数数", 4)),
        ("äöü", 1, 10, ("äöü", 2)),
        ("e\u0301x", 0, 10, ("e\u0301x", 2)),
        ("", 0, 2, ("", 0)),
    ],
)
def test_what_of_a_line_is_shown(text: str, back: int, columns: int, view: tuple[str, int]) -> None:
    editor = Editor()
    editor.insert(text)
    for _ in range(back):
        editor.left()
    assert editor.view(columns) == view


def test_a_line_and_the_lines_before_it_are_bounded() -> None:
    editor = Editor()
    assert editor.insert("x" * MOST_LINE)
    assert not editor.insert("y")
    assert len(editor.take()) == MOST_LINE
    for number in range(2 * MOST_LINES):
        editor.insert(str(number))
        editor.take()
    for _ in range(2 * MOST_LINES):
        editor.earlier()
    assert editor.text == str(MOST_LINES)


# -- the terminal


class User:
    """Whoever types."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.heard: list[str] = []
        self.possible: tuple[int, list[str]] = (0, [])

    def line(self, text: str) -> bool:
        self.lines.append(text)
        return text.endswith(":")

    def cancelled(self) -> None:
        self.heard.append("cancelled")

    def left(self) -> None:
        self.heard.append("left")

    def completions(self, text: str) -> tuple[int, list[str]]:
        return self.possible


class Screen:
    """A terminal, and what it shows."""

    def __init__(self, term: str = "xterm", width: int = 40) -> None:
        self.screen = pyte.Screen(width, 10)
        self.stream = pyte.Stream(self.screen)
        self.sent = ""
        self.user = User()
        self.pty = Pty(term, width)
        self.terminal = Terminal(self.user, self.pty, self.send)
        self.terminal.begin()

    def send(self, text: str) -> None:
        self.sent += text
        self.stream.feed(text.replace("\n", "\r\n"))

    def type(self, data: bytes | str) -> None:
        self.terminal.received(data.encode() if isinstance(data, str) else data)

    @property
    def shown(self) -> list[str]:
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip().split("\n")


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_what_is_typed_is_shown(term: str) -> None:
    one = Screen(term)
    one.type("1 + 22")
    assert one.shown == [">>> 1 + 22"]
    one.type("\x1b[D\x1b[D\x7f\x01x\x05yäß\x1b[1;5D\x1b[1;5C")
    assert one.shown == [">>> x1 +22yäß"]
    for byte in "数\r".encode():
        one.type(bytes([byte]))
    assert one.user.lines == ["x1 +22yäß数"]
    one.type("for:\r")
    assert one.shown[1:] == [">>> for:", "..."]
    one.type("\tx\x03")
    assert one.shown[2:] == ["...     x^C", ">>>"]
    one.type("a\x1b[Ab\x04\x15\x04")
    assert one.user.heard == ["cancelled", "left"]
    assert ("\x1b" in one.sent) is (term == "xterm")


@pytest.mark.parametrize("width", [20, 80])
def test_a_long_line_scrolls(width: int) -> None:
    one = Screen(width=width)
    text = "".join(chr(65 + number % 26) for number in range(200))
    for char in text:
        one.type(char)
        assert len(one.shown) == 1
    assert one.shown == [">>> " + text[5 - width :]]
    one.type("\x01")
    assert one.shown == [">>> " + text[: width - 5]]
    assert one.screen.cursor.x == 4
    one.type("\r")
    assert one.user.lines == [text]


def test_tab() -> None:
    one = Screen()
    one.user.possible = (0, ["drain("])
    one.type("dr\t")
    assert one.shown == [">>> drain("]
    one.user.possible = (6, ["'alpha", "'alpine"])
    one.type("'a\t")
    assert one.shown == [">>> drain('alp"]
    one.type("\t")
    assert one.shown == [">>> drain('alp", "'alpha   'alpine", ">>> drain('alp"]
    one.user.possible = (0, [])
    one.type("\t")
    assert one.sent.endswith("\a")


def test_output_comes_above_the_line_that_is_typed() -> None:
    one = Screen()
    one.type("1 + 1")
    one.terminal.between("it is there")
    assert one.shown == ["it is there", ">>> 1 + 1"]
    one.pty.width = 80
    one.terminal.resized()
    assert one.shown == ["it is there", ">>> 1 + 1"]


def test_a_control_sequence_without_end() -> None:
    one = Screen()
    one.type(b"\x1b[" + b"1" * 10_000)
    one.type(b"\x15ok\r")
    assert one.user.lines == ["ok"]
    one.type(b"\x1b[999x\x1b[1;1R\x1b[24~\x1bOP\x1bz\x00\x1f\xff\r")
    assert one.user.lines == ["ok", "\ufffd"]


@given(
    st.lists(
        st.one_of(st.binary(max_size=40), st.sampled_from([b"\x1b[A", b"\x1b[3~", b"\t", b"\r", "数".encode()])), max_size=20
    )
)
def test_whatever_is_typed(typed: list[bytes]) -> None:
    one = Screen(width=20)
    one.user.possible = (0, ["ab", "abc"])
    for data in typed:
        one.type(data)
        assert 0 <= one.terminal.editor.cursor <= len(one.terminal.editor.text)
        # the terminal is asked for nothing that it does not know
        assert one.screen.cursor.x < 20
    assert all("\n" not in line and "\r" not in line for line in one.user.lines)


def test_texts_side_by_side() -> None:
    assert in_columns(["a", "bb", "c", "d"], 9) == ["a   c", "bb  d"]
    assert in_columns(["x" * 50], 20) == ["x" * 19]


# -- Tab


class Thing:
    speed = 1

    @property
    def angry(self) -> int:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("text", "start", "found"),
    [
        ("dra", 0, ["drain("]),
        ("x = thi", 4, ["thing"]),
        ("thing.sp", 0, ["thing.speed"]),
        ("thing.angry.x", 0, []),
        ("nothing.at.all", 0, []),
        ("drain('", 7, ["alpha:3632", "beta:3632"]),
        ('drain("be', 7, ["beta:3632"]),
        ("drain('beta:3632', 'al", 22, []),
        ("drain('beta:3632'", 17, []),
        ("rank('beta:3632', before='al", 26, ["alpha:3632"]),
        ("rank('beta:3632', 'after', 'al", 28, ["alpha:3632"]),
        ("add('spare', 8, with_='", 23, ["alpha:3632", "beta:3632"]),
        ("print('al", 9, []),
        ("1 + ", 4, []),
        ("a" * 100_000, 99_000, []),
    ],
)
def test_completions(text: str, start: int, found: list[str]) -> None:
    names: dict[str, Any] = {"thing": Thing(), "drain": len, "__builtins__": {}}
    assert completions(text, names, ["beta:3632", "alpha:3632"]) == (start, found)


# -- verbs as functions


@pytest.mark.parametrize(
    ("verb", "arguments", "named", "words"),
    [
        ("drain", ("x", "fan broken"), {}, ["drain", "x", "fan broken"]),
        ("drain", ("x",), {"why": "fan"}, ["drain", "x", "fan"]),
        ("drain", ({"name": "x", "slots": 4},), {}, ["drain", "x"]),
        ("slots", ("x", 12), {}, ["slots", "x", "12"]),
        ("weight", ("x", None), {}, ["weight", "x", "none"]),
        ("rank", ("x",), {"before": "alpha"}, ["rank", "x", "before", "alpha"]),
        ("rank", ("x",), {"with_": "alpha"}, ["rank", "x", "with", "alpha"]),
        ("remove", ("x",), {"now": True}, ["remove", "x", "now"]),
        ("remove", ("x",), {"now": False}, ["remove", "x"]),
        (
            "add",
            ("x", 8),
            {"after": "y", "pools": ["a", "b"], "address": None},
            ["add", "x", "8", "after", "y", "pools", "a,b"],
        ),
        ("why", ({"id": 7, "attempts": []},), {}, ["why", "7"]),
        ("jobs", (), {"number": 5}, ["jobs", "5"]),
    ],
)
def test_a_call_in_words(verb: str, arguments: tuple[Any, ...], named: dict[str, Any], words: list[str]) -> None:
    assert verbcalls.words(VERBS[verb], arguments, named) == words
    parse(words)


def test_a_call_with_a_name_that_means_nothing() -> None:
    with pytest.raises(VerbError, match=r"^reason= means nothing here: drain HOST \[WHY\]; for example drain\('newbb"):
        verbcalls.words(VERBS["drain"], ("x",), {"reason": "fan"})


@pytest.mark.parametrize("verb", VERBS.values(), ids=list(VERBS))
def test_the_example_of_each_verb_is_a_call_of_it(verb: Any) -> None:
    said: list[list[str]] = []

    def do(words: list[str]) -> Any:
        said.append(words)

    exec(verbcalls.example(verb), {verb.name: verbcalls.VerbCall(verb, do)})  # noqa: S102
    assert parse(said[0]).verb is verb
    wide, narrow = verbcalls.help_list(None).splitlines(), verbcalls.help_list(80).splitlines()
    (line,) = [line for line in wide if line.startswith(verbcalls.example(verb))]
    assert line.endswith(f"  {verb.help}")
    assert narrow[narrow.index(verbcalls.example(verb)) + 1] == f"    {verb.help}"
    assert max(map(len, wide)) < 160
    assert verbcalls.example(verb) in verbcalls.help_text(verb)


# -- statements


class Session:
    """Statements, and what came of them."""

    def __init__(self, **names: Any) -> None:
        self.told: list[str] = []
        self.ended: list[int] = []
        self.interpreter = Interpreter(names, self.told.append, self.ended.append)

    def run(self, *lines: str) -> str:
        return "".join(self.interpreter.push(line)[1] for line in lines)


def test_statements() -> None:
    one = Session()
    out, err, hook = sys.stdout, sys.stderr, sys.displayhook
    assert one.run("x = 6", "x * 7", "_ + 1", "None") == "42\n43\n"
    assert one.run("import sys; print('a'); print('b', file=sys.stderr); n = sys.stdout.write('c')") == "a\nb\nc"
    assert one.run("sys.stdout = sys.stderr = sys.displayhook = None") == ""
    assert (sys.stdout, sys.stderr, sys.displayhook) == (out, err, hook)
    assert one.interpreter.push("if x:") == (True, "")
    assert one.run("    print('yes')", "") == "yes\n"
    one.run("if x:")
    one.interpreter.reset()
    assert one.run("x") == "6\n"


@pytest.mark.parametrize(
    ("line", "ends", "last"),
    [
        ("raise SystemExit", [0], ""),
        ("import sys; sys.exit('why')", [1], "why"),
        ("import sys; sys.exit(257)", [1], ""),
        ("raise KeyboardInterrupt", [], "KeyboardInterrupt"),
        ("raise GeneratorExit", [], "GeneratorExit"),
        ("raise BaseException('x')", [], "BaseException: x"),
        ("raise Mistake('a sentence')", [], "a sentence"),
        ("raise Odd", [], "Odd: <exception str() failed>"),
        ("f = lambda: f(); f()", [], "RecursionError: maximum recursion depth exceeded"),
        ("-" * 60_000 + "1", [], ""),
        ("nobody\0", [], ""),
        ("Odd()", [], "ZeroDivisionError: no"),
        ("1 +* 1", [], "SyntaxError: invalid syntax"),
        ("'\\ud800'", [], "'\\ud800'"),
    ],
)
def test_what_a_statement_raises(line: str, ends: list[int], last: str) -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError

        def __repr__(self) -> str:
            raise ZeroDivisionError("no")

    one = Session(Mistake=DistbalError, Odd=Odd)
    assert last in (one.run(line).splitlines() or [""])[-1]
    assert one.ended == ends
    assert one.run("1 + 1") == "2\n"


def test_a_flood_is_cut() -> None:
    one = Session()
    most = interpreter.MOST_PRINTED
    for line in ("print('x' * 5_000_000)", "'x' * 5_000_000", "for _ in range(100_000): print('x' * 50)\n"):
        printed = one.run(*line.split("\n"))
        assert most <= len(printed) <= most + 200
        assert printed.endswith(f"... cut: a statement may print {most} characters\n")
    # and what is that big is not kept
    one.run("7", "b'x' * 5_000_000")
    assert one.run("_") == "7\n"
    assert "a statement has at most" in one.run("'''", *["x" * 60_000] * 20)


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError


def test_deferreds_are_shown_when_they_are_there() -> None:
    late: Deferred[str] = Deferred()
    wrong: Deferred[str] = Deferred()
    unshowable: Deferred[object] = Deferred()
    one = Session(now=succeed(5), late=late, wrong=wrong, unshowable=unshowable, failed=fail(DistbalError("a sentence")))
    assert one.run("now") == "5\n"
    assert one.run("failed") == "a sentence\n"
    assert one.run("late") == "it is shown when it is there\n"
    one.run("wrong")
    assert one.run("unshowable") == "it is shown when it is there\n"
    unshowable.callback(Unshowable())
    late.callback("there")
    wrong.errback(ZeroDivisionError("no"))
    assert one.told[0].startswith("<Unshowable instance at 0x")
    assert one.told[1] == "'there'"
    assert one.told[2].strip().endswith("ZeroDivisionError: no")


def test_an_answer_is_a_value_and_a_table() -> None:
    balancer = Balancer(Clock())
    answer = verbcalls.Answer({"text": "done", "n": 1}, lambda one: f"{one['text']}!\n")
    assert repr(answer) == "done!"
    assert answer["n"] == 1
    assert repr(answer.answer) == "{'text': 'done', 'n': 1}"
    balancer.leases.stop()
