"""Verbs on the command line, said to a real Admin over a real socket: tables, JSON, exit statuses, options and reasons."""

from __future__ import annotations

import json
import os
import pty
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from distbal import upgraded
from distbal.adminclient import NotPermittedError
from distbal.cli import main
from distbal.errors import DistbalError
from distbal.verbcommand import Line, split
from distbal.verbs import VERBS, VerbError
from tests.adminserver import serving
from tests.support import PATIENCE, ROOT

Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("admin") / "s") as path:
        yield path


@pytest.fixture(autouse=True)
def surroundings(farm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBAL_ADMIN", farm)
    monkeypatch.delenv("SUDO_USER", raising=False)


def said(capsys: Said, *words: str) -> str:
    assert main(list(words)) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


# -- options ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("drain newbb fan", Line(("drain", "newbb", "fan"))),
        ("drain newbb --json fan", Line(("drain", "newbb", "fan"), json=True)),
        ("hosts --socket /s", Line(("hosts",), socket="/s")),
        ("hosts --socket=/s -h", Line(("hosts",), socket="/s", help=True)),
        ("drain newbb -- --json -x --", Line(("drain", "newbb", "--json", "-x", "--"))),
        ("drain newbb -", Line(("drain", "newbb", "-"))),
    ],
)
def test_options_and_words(words: str, line: Line) -> None:
    assert split(words.split()) == line


@pytest.mark.parametrize(("words", "why"), [("hosts --socket", "a path"), ("drain a -x", 'no option "-x"; words that begin')])
def test_options_that_are_none(words: str, why: str, capsys: Said) -> None:
    with pytest.raises(VerbError, match=why):
        split(words.split())
    assert main(words.split()) == 2
    assert why in capsys.readouterr().err


# -- verbs --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(VERBS) - {"status"}))
def test_each_verb_has_help(name: str, capsys: Said) -> None:
    text = said(capsys, name, "--help")
    verb = VERBS[name]
    assert text.startswith(f"usage: distbal {name}")
    for part in (verb.usage, verb.help, verb.more, f"  distbal {name} {verb.example}".rstrip(), "--json"):
        assert part in text


def test_each_verb_that_only_tells_has_a_table_and_json(capsys: Said) -> None:
    words = {"show": ["snookles:3632"], "why": [json.loads(said(capsys, "jobs", "--json"))["jobs"][0]["id"]]}
    for verb in VERBS.values():
        if not verb.changes:
            call = [verb.name, *map(str, words.get(verb.name, []))]
            table = said(capsys, *call)
            assert table.endswith("\n")
            assert len(table) > 5
            answer = json.loads(said(capsys, *call, "--json"))
            assert answer["version"] == 1


def test_hosts_queue_and_why(capsys: Said) -> None:
    assert said(capsys, "hosts", "sn*").splitlines() == [
        "HOST           STATE  SLOTS                WEIGHT  JOBS  WHY",
        "snookles:3632  full     4/4  [##########]    1.00     5",
    ]
    assert said(capsys, "queue") == "nobody waits\n"
    job = json.loads(said(capsys, "jobs", "--json"))["jobs"][0]["id"]
    assert said(capsys, "why", str(job)).splitlines()[-3:] == [
        "  did not have to wait",
        "  ran for 0.0s, and ended: closed",
        "  no host stands before it",
    ]


def test_a_drain_and_its_reason(capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "alice")
    assert said(capsys, "drain", "newbb:3632", "--", "-f: fan", "broken") == (
        "newbb:3632 is drained: -f: fan broken; 1 job still runs there\n"
    )
    assert "newbb:3632  drain*    1/2  [#####.....]    1.00     1  -f: fan broken" in said(capsys, "hosts", "newbb*")
    assert "alice  admin socket  drain newbb:3632 '-f: fan' broken" in said(capsys, "history", "1")
    answer = json.loads(said(capsys, "up", "newbb:3632", "--json"))
    assert answer == {"text": "newbb:3632 is ready"}


def test_what_goes_wrong(capsys: Said) -> None:
    assert main(["drain", "newbb:3633"]) == 1
    assert capsys.readouterr() == ("", 'distbal: no host is called "newbb:3633": did you mean newbb:3632?\n')
    assert main(["slots", "newbb:3632", "0"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.startswith("distbal: a number of slots is 1 to")) == ("", True)
    assert main(["hosts", "--socket", "/nonexistent/s"]) == 1
    assert capsys.readouterr().err.startswith("distbal: there is no /nonexistent/s: is distbal running")


def answered_so(path: Path, *answers: bytes) -> threading.Thread:
    """A daemon of another version."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            for answer in answers:
                connection.recv(1000)
                connection.sendall(answer + b"\n")

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_an_answer_of_another_version(tmp_path: Path, capsys: Said) -> None:
    strange, asks_more = (
        b'{"ok": true, "answer": {"version": 2, "hosts": [{}]}}',
        b'{"ok": false, "error": "hosts WHAT", "usage": true}',
    )
    for number, (answers, words, status, text) in enumerate(
        [
            ([strange], ["hosts"], 1, "reports have version 2, and this distbal knows 1"),
            ([asks_more], ["hosts"], 2, "distbal: hosts WHAT\n"),
            ([strange, strange], ["status"], 1, "reports have version 2, and this distbal knows 1"),
        ]
    ):
        thread = answered_so(tmp_path / str(number), *answers)
        assert main([*words, "--socket", str(tmp_path / str(number))]) == status
        thread.join()
        assert text in capsys.readouterr().err


# -- an upgrade ---------------------------------------------------------------------------------------------------------------


def test_no_upgrade(capsys: Said) -> None:
    assert main(["upgrade"]) == 1
    assert capsys.readouterr() == ("", "distbal: not upgraded: its file is gone\n")


def images(path: Path, *answers: bytes) -> threading.Thread:
    """A daemon that answers one request on each connection; to an empty answer, the connection is cut, as an exec does."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with listener:
            for answer in answers:
                with listener.accept()[0] as connection:
                    connection.recv(1000)
                    if answer:
                        connection.sendall(answer + b"\n")

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def image(at: float, version: str = "0.6.0", trouble: str = "") -> dict[str, object]:
    counts = {"leases": 1000, "waiters": 1, "sessions": 200}
    return {"version": version, "pid": 5, "began": "upgrade", "at": at, "before": "", "taken_up": counts, "trouble": trouble}


def answer_of(**fields: object) -> bytes:
    return json.dumps({"ok": True, "answer": fields}).encode()


YES = answer_of(
    text="distbal 0.5.0 goes on as 0.6.0: the new code said yes", before="0.5.0", after="0.6.0", image=image(1.5, "0.5.0")
)


def test_an_upgrade_is_waited_for(tmp_path: Path, capsys: Said) -> None:
    old, new = answer_of(version=1, image=image(1.5, "0.5.0")), answer_of(version=1, image=image(2.5))
    thread = images(tmp_path / "s", YES, old, b"", new)
    assert main(["upgrade", "--socket", str(tmp_path / "s")]) == 0
    thread.join()
    out, err = capsys.readouterr()
    assert re.fullmatch(
        r"distbal 0\.5\.0 goes on as 0\.6\.0 after \d+\.\d\d s: 1000 leases, 1 waiter, 200 sessions taken up\n", out
    )
    assert err == ""
    thread = images(tmp_path / "json", YES, new)
    assert main(["upgrade", "--json", "--socket", str(tmp_path / "json")]) == 0
    thread.join()
    answer = json.loads(capsys.readouterr().out)
    assert (answer["before"], answer["after"], answer["image"]["at"]) == ("0.5.0", "0.6.0", 2.5)
    assert answer["seconds"] >= 0


def test_an_upgrade_that_comes_to_nothing_after_all(tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = answer_of(version=1, image=image(1.5, "0.5.0", "the new code could not be started: no"))
    thread = images(tmp_path / "s", YES, failed)
    assert main(["upgrade", "--socket", str(tmp_path / "s")]) == 1
    thread.join()
    assert capsys.readouterr().err == "distbal: not upgraded: the new code could not be started: no\n"
    with pytest.raises(DistbalError, match=r"the new code has not answered for 0\.2 s: nobody listens on "):
        # whoever listened is gone
        upgraded.wait(str(tmp_path / "s"), json.loads(YES)["answer"], 0.2)


# -- status -------------------------------------------------------------------------------------------------------------------


def test_status_over_the_admin_socket(capsys: Said) -> None:
    lines = said(capsys, "status").splitlines()
    assert lines[1].startswith("3 hosts: 5 of 8 slots lent; nobody waits")
    heads = lines.index("") + 1
    assert lines[heads].split()[:3] == ["HOST", "STATE", "SLOTS"]
    assert [line.split()[0] for line in lines[heads + 1 : heads + 4]] == ["snookles:3632", "newbb:3632", "[fd00::7]:3632"]
    answer = json.loads(said(capsys, "status", "--json"))
    assert (answer["version"], answer["totals"]["used"], len(answer["hosts"])) == (1, 5, 3)
    assert answer["hosts"][0]["clients"][0]["address"] == "10.0.0.9"


def test_status_where_no_admin_socket_is(capsys: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBAL_ADMIN", str(tmp_path / "none"))
    assert main(["status"]) == 1
    assert "there is no" in capsys.readouterr().err
    assert main(["status", "127.0.0.1:1", "--socket", "/s"]) == 1
    assert "name one of them" in capsys.readouterr().err
    # where nobody named one, the status port is asked
    monkeypatch.delenv("DISTBAL_ADMIN")
    monkeypatch.setattr("distbal.adminclient.DEFAULT_PATH", str(tmp_path / "none"))
    asked = []

    def ask(address: str, port: int) -> bytes:
        asked.append((address, port))
        raise DistbalError("nobody listens")

    monkeypatch.setattr("distbal.status.ask", ask)
    assert main(["status"]) == 1
    assert asked == [("127.0.0.1", 5657)]
    assert capsys.readouterr().err == "distbal: nobody listens\n"

    def keep_out(path: str, patience: float = 0) -> None:
        raise NotPermittedError("you may not")

    monkeypatch.setattr("distbal.adminclient.Connection", keep_out)
    assert main(["status"]) == 1
    assert capsys.readouterr().err == "distbal: you may not. The status port was asked instead: nobody listens\n"


# -- the real thing -----------------------------------------------------------------------------------------------------------


def test_on_a_terminal_lines_are_cut_and_coloured(farm: str) -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "30"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen([sys.executable, "-m", "distbal", "hosts"], stdout=theirs, cwd=ROOT, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:
        pass  # the other side of the terminal is closed
    finally:
        os.close(ours)
        status = process.wait(PATIENCE)
    assert status == 0
    first = shown.decode().splitlines()[0]
    assert first == "\x1b[1mHOST            STATE  SLOT...\x1b[0m"


def test_a_verb_needs_little(farm: str) -> None:
    """A verb starts in no time, since it loads next to nothing: not even what reads options."""
    program = "import sys; from distbal.cli import main; main(['hosts']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stderr.split())
    assert not loaded & {"argparse", "twisted", "yaml", "pydantic", "asyncio", "zope.interface", "distbal.admin", "curses"}
