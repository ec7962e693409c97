"""What people decided, across restarts: it comes back as it was, or is refused with a sentence."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distbal.changes import Change, Changes
from distbal.decisions import Decision, Decisions, Place
from distbal.errors import DistbalError
from distbal.hosts import HostSpec
from distbal.state import MOST_BYTES, StateFile, parsed, read, write
from distbal.statejson import LAST_SECOND, from_json, to_json
from tests.support import ROOT

ADDED = HostSpec("[fd00::7]:3633", 8, 2, ",lzo,cpp", ("fd00::7", 3633), ("default", "arm"))
DECISIONS = (
    Decisions()
    .with_("newbb:3632", "admin", Decision("drain", None, "mbp", 1_795_780_800.5, "fan broken: 雪\n🧊"))
    .with_("newbb:3632", "weight", Decision(500, None, "mbp", 1.0))
    .with_("auto", "slots", Decision(6, "auto", "mbp", 2.0, ""))
    .with_("b", "rank", Decision(Place("with", "newbb:3632"), "after"))
    .with_(ADDED.name, "there", Decision(ADDED, False))
    .with_("old", "there", Decision(False, True))
)
CHANGES = [
    Change(1_795_780_800.5, "mbp", "127.0.0.1:5660", "drain", ("newbb:3632", "fan broken"), "newbb:3632 is drained"),
    Change(3.0, "", "admin socket", "reload", (), "read again: 3 hosts"),
]


def names(directory: Path) -> list[str]:
    return sorted(one.name for one in directory.iterdir())


def saved() -> dict[str, Any]:
    """What stands in the file, to be damaged."""
    values: dict[str, Any] = json.loads(json.dumps(to_json(DECISIONS, CHANGES)))
    return values


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    state = StateFile(str(tmp_path))
    assert state.load() == (Decisions(), [])
    state.save(DECISIONS, CHANGES)
    assert state.load() == (DECISIONS, CHANGES)
    state.save(Decisions(), CHANGES[1:])
    assert StateFile(str(tmp_path)).load() == (Decisions(), CHANGES[1:])
    assert names(tmp_path) == ["decisions.json"]


def test_nobody_else_reads_it(tmp_path: Path) -> None:
    state = StateFile(str(tmp_path))
    before = os.umask(0)
    try:
        state.save(DECISIONS, CHANGES)
    finally:
        os.umask(before)
    assert stat.S_IMODE(Path(state.path).stat().st_mode) == 0o600


def test_the_record_of_changes_is_bounded() -> None:
    changes = Changes(2, earlier=CHANGES)
    newest = Change(4.0, "mbp", "here", "up", ("a",), "a is up")
    changes.add(newest)
    assert (list(changes), len(changes)) == ([CHANGES[1], newest], 2)
    assert len(Changes(earlier=CHANGES * 1000)) == 1000
    with pytest.raises(ValueError, match="at least one, not 0"):
        Changes(0)


def test_what_readers_hold_of_the_record_stays_as_it_is() -> None:
    changes = Changes(earlier=CHANGES)
    for change in changes:
        changes.add(change)
    assert list(changes) == CHANGES * 2


def refused(values: object) -> str:
    """What is said of a file that holds these values."""
    with pytest.raises(DistbalError) as caught:
        parsed("/var/lib/distbal/decisions.json", json.dumps(values).encode())
    return str(caught.value)


AWAY = "move it away (mv /var/lib/distbal/decisions.json /var/lib/distbal/decisions.json.bad) to start without it"


def test_sentences_about_files_that_are_none(tmp_path: Path) -> None:
    begin = "/var/lib/distbal/decisions.json is no state of distbal's, or damaged: "
    foreign = f'it does not say "kind": "distbal\'s decisions", so it is something else. Mend it, or {AWAY}'
    assert refused({}) == begin + foreign
    assert refused([]) == begin + foreign
    assert refused(saved() | {"version": 2}) == (
        "/var/lib/distbal/decisions.json: it is of version 2, and this distbal knows version 1 alone: "
        f"run the distbal that wrote it, or {AWAY}"
    )
    for data, why in {
        b"": "line 1, column 1: no JSON",
        b'{"kind": "distbal': "line 1, column 10: no JSON",
        b"\xff": "byte 0 is not UTF-8",
        b"[" * 100_000: "lists and mappings inside each other too deep",
        b'{"a": 1, "a": 1}': "a key stands twice in one mapping",
        b"NaN": "NaN is no number",
    }.items():
        with pytest.raises(DistbalError) as caught:
            parsed("p", data)
        assert str(caught.value) == (
            f"p is no state of distbal's, or damaged: {why}. Mend it, or move it away (mv p p.bad) to start without it"
        )


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("version", "1", 'version: a whole number, 0 to 1000000, is wanted, not "1"'),
        ("more", 1, '"more" means nothing here'),
        ("changes", {}, "changes: a list is wanted, not a mapping"),
        ("decisions", None, "decisions: a list is wanted, not nothing"),
        ("decisions.0", "drain", 'decisions[0]: a mapping is wanted, not "drain"'),
        ("decisions.0.host", "a b", "decisions[0].host: 2 words: a host has no spaces, and an entry of its own"),
        ("decisions.0.host", 7, "decisions[0].host: a text is wanted, not 7"),
        ("decisions.0.key", "speed", 'decisions[0].key: "speed" is none of admin, weight, slots, rank, there'),
        ("decisions.0.value", "up", 'decisions[0].value: "up" is none of down, drain'),
        ("decisions.0.file", 1, "decisions[0].file: null is wanted, not 1: the file has no such key"),
        ("decisions.0.by", "x" * 4001, "decisions[0].by: a text has at most 4000 characters, all of them whole"),
        ("decisions.0.by", "\ud800", "decisions[0].by: a text has at most 4000 characters, all of them whole"),
        ("decisions.0.at", -1, "decisions[0].at: seconds since 1970 are wanted, not -1"),
        ("decisions.0.at", True, "decisions[0].at: seconds since 1970 are wanted, not true"),
        ("decisions.0.at", 1e300, "decisions[0].at: seconds since 1970 are wanted, not 1e+300"),
        ("decisions.0.why", None, "decisions[0].why: a text is wanted, not nothing"),
        ("decisions.1.value", 1001, "decisions[1].value: a whole number, 0 to 1000, is wanted, not 1001"),
        ("decisions.1.value", True, "decisions[1].value: a whole number, 0 to 1000, is wanted, not true"),
        ("decisions.1.key", "admin", "decisions[1].value: 500 is none of down, drain"),
        ("decisions.1.host", "auto", None),
        ("decisions.2.value", 0, "decisions[2].value: a whole number, 1 to 999999, is wanted, not 0"),
        ("decisions.2.file", "many", 'decisions[2].file: a whole number, 1 to 999999, is wanted, not "many"'),
        ("decisions.2.file", None, None),
        ("decisions.3.value.side", "under", 'decisions[3].value.side: "under" is none of before, with, after'),
        ("decisions.3.value.host", "", "decisions[3].value.host: a host has a name: HOST[:PORT][/SLOTS][,OPTIONS]"),
        ("decisions.3.file", "left", 'decisions[3].file: "left" is none of before, with, after'),
        ("decisions.4.value", True, "decisions[4].value: a mapping is wanted, not true"),
        ("decisions.4.value.name", "b", "decisions[4].value.name: b is not [fd00::7]:3633, whose decision this is"),
        (
            "decisions.4.value.options",
            "lzo",
            'decisions[4].value.options: "lzo" is neither empty nor a comma and distcc\'s options',
        ),
        ("decisions.4.value.address", "b", 'decisions[4].value.address: a list of a host and a port is wanted, not "b"'),
        ("decisions.4.value.address.0", "a b", 'decisions[4].value.address[0]: "a b" is no host'),
        ("decisions.4.value.address.1", 0, "decisions[4].value.address[1]: a whole number, 1 to 65535, is wanted, not 0"),
        ("decisions.4.value.pools", [], "decisions[4].value.pools: one pool at least is wanted, and each once"),
        ("decisions.4.value.pools", ["a", "a"], "decisions[4].value.pools: one pool at least is wanted, and each once"),
        ("decisions.4.value.pools.0", "-", 'decisions[4].value.pools[0]: "-" is no name of a pool'),
        ("decisions.4.value.auto", 0, "decisions[4].value.auto: true or false is wanted, not 0"),
        ("changes.0.words", ["x"] * 1001, "changes[0].words: 1001 are too many: 1000 at most"),
        ("changes.0.words.0", 3, "changes[0].words[0]: a text is wanted, not 3"),
    ],
)
def test_every_value_is_looked_at(path: str, value: object, said: str | None) -> None:
    values: Any = saved()
    *steps, last = (int(step) if step.isdigit() else step for step in path.split("."))
    inner = values
    for step in steps:
        inner = inner[step]
    inner[last] = value
    if said is None:
        from_json(values)
    else:
        assert f"or damaged: {said}. Mend it" in refused(values)


def test_every_key_has_to_be_there_and_no_decision_twice() -> None:
    for where in ("changes", "decisions"):
        for key in saved()[where][0]:
            values = saved()
            del values[where][0][key]
            assert f"{where}[0]: {key} is missing" in refused(values)
    values = saved()
    values["decisions"].append(values["decisions"][0])
    assert "decisions[6]: admin of newbb:3632 stands twice" in refused(values)


def test_what_cannot_be_read_is_no_empty_state(tmp_path: Path) -> None:
    def said() -> str:
        with pytest.raises(DistbalError) as caught:
            StateFile(str(tmp_path)).load()
        return str(caught.value).replace(str(tmp_path), "")

    path = tmp_path / "decisions.json"
    path.mkdir()
    assert said() == "/decisions.json cannot be read: it is no regular file"
    path.rmdir()
    os.mkfifo(path)
    assert said() == "/decisions.json cannot be read: it is no regular file"
    path.unlink()
    path.symlink_to(path)
    assert said() == "/decisions.json cannot be read: too many levels of symbolic links"
    path.unlink()
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    assert said() == f"/decisions.json is larger than {MOST_BYTES} bytes: it is no state of distbal's. Move it away"


def test_where_it_cannot_be_written_the_old_one_stays(tmp_path: Path) -> None:
    def said(path: Path, data: bytes = b"x") -> str:
        with pytest.raises(DistbalError) as caught:
            write(str(path), data)
        return str(caught.value).replace(str(tmp_path), "")

    end = ". A restart will not know what was decided now"
    assert said(tmp_path / "none" / "s") == f"/none/s cannot be written: its directory is not there{end}"
    (tmp_path / "there").mkdir()
    assert said(tmp_path / "there") == f"/there cannot be written: is a directory{end}"
    assert names(tmp_path) == ["there"], "what was begun is taken away"
    # a link that somebody put there is not followed
    (tmp_path / "s.new").symlink_to(tmp_path / "victim")
    assert said(tmp_path / "s") == f"/s cannot be written: too many levels of symbolic links{end}"
    assert not (tmp_path / "victim").exists()


def test_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "decisions.json"
    write(str(path), b"before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # as a disk that is full: part of it is written, then nothing more is (setrlimit(2): EFBIG, as Python ignores SIGXFSZ)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(DistbalError, match=r"cannot be written: file too large\. A restart will not know"):
            write(str(path), b"x" * 20_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (names(tmp_path), path.read_bytes()) == (["decisions.json"], b"before")
    write(str(path), b"y" * 20_000)
    assert path.read_bytes() == b"y" * 20_000


def test_a_state_that_is_too_large_is_not_written(tmp_path: Path) -> None:
    state = StateFile(str(tmp_path))
    state.save(DECISIONS, CHANGES)
    large = Change(1.0, "x" * 4000, "x" * 4000, "x", (), "x" * 4000)
    with pytest.raises(DistbalError, match=rf"would have [0-9]+ bytes, more than {MOST_BYTES}: it is not written"):
        state.save(DECISIONS, [large] * 3000)
    assert state.load() == (DECISIONS, CHANGES)


CHILD = """
import sys
from distbal.state import write
for number in range(10**9):
    write(sys.argv[1], b"%d" % (number % 2) * (100_000 + number % 7 * 10_000))
    if not number:
        print("begun", flush=True)
"""


def test_a_process_that_is_killed_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "decisions.json"
    draw = random.Random(5)
    for _ in range(12):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], cwd=ROOT, stdout=subprocess.PIPE)
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == b"begun\n"
            time.sleep(draw.random() / 50)  # any moment will do
        finally:
            child.kill()
            assert child.wait() == -signal.SIGKILL
            child.stdout.close()
        data = read(str(path))
        assert data is not None
        assert len(data) in range(100_000, 170_000, 10_000)
        assert len(set(data)) == 1
    # what the last one may have left beside it is taken over
    write(str(path), b"after")
    assert (names(tmp_path), path.read_bytes()) == (["decisions.json"], b"after")


def test_several_that_write_at_once_mix_nothing(tmp_path: Path) -> None:
    path = tmp_path / "decisions.json"
    contents = [b"%d" % number * (50_000 + number) for number in range(4)]

    def work(content: bytes) -> None:
        for _ in range(20):
            write(str(path), content)

    threads = [threading.Thread(target=work, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert read(str(path)) in (None, *contents)
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert names(tmp_path) == ["decisions.json"]


# anything that can be decided, and anything that can happen to the file

TEXTS = st.text(st.characters(codec="utf-8"), max_size=50)
NAMES = st.sampled_from(["a", "b:3632", "[fd00::7]:1", "x.example.org"])
TIMES = st.floats(0, LAST_SECOND)
SLOTS = st.integers(1, 999_999)
SPECS = st.builds(
    HostSpec,
    NAMES,
    SLOTS,
    st.integers(0, 100),
    st.sampled_from(["", ",lzo", ",lzo,cpp", ",auth=x"]),
    st.tuples(st.sampled_from(["a", "10.0.0.7", "fd00::7", "fe80::1%eth0"]), st.integers(1, 65535)),
    st.lists(st.sampled_from(["default", "arm"]), min_size=1, unique=True).map(tuple),
    st.booleans(),
)
SIDES = st.sampled_from(["before", "with", "after"])
VALUES = {
    "admin": (st.sampled_from(["down", "drain"]), st.none()),
    "weight": (st.integers(0, 1000), st.none()),
    "slots": (SLOTS, st.none() | st.just("auto") | SLOTS),
    "rank": (st.builds(Place, SIDES, NAMES), st.none() | SIDES),
    "there": (st.just(False) | SPECS, st.booleans()),
}


@st.composite
def decisions_made(draw: st.DrawFn, texts: st.SearchStrategy[str] = TEXTS) -> Decisions:
    made = Decisions()
    for key in draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=6)):
        value, file = (draw(strategy) for strategy in VALUES[key])
        name = value.name if isinstance(value, HostSpec) else draw(NAMES)
        made = made.with_(name, key, Decision(value, file, draw(texts), draw(TIMES), draw(texts)))
    return made


def changes_made(texts: st.SearchStrategy[str] = TEXTS) -> st.SearchStrategy[list[Change]]:
    one = st.builds(Change, TIMES, texts, texts, texts, st.lists(texts, max_size=3).map(tuple), texts)
    return st.lists(one, max_size=4)


def outcome(data: bytes) -> tuple[Decisions, list[Change]] | str:
    """What such a file says, or the sentence why it says nothing."""
    try:
        return parsed("p", data)
    except DistbalError as error:
        return str(error)


def good_or_refused(data: bytes) -> None:
    found = outcome(data)
    if isinstance(found, str):
        assert found.startswith("p")
        assert "move it away (mv p p.bad) to start without it" in found
    else:
        # another letter in a text is not seen; what is there is good all the same
        assert from_json(to_json(*found)) == found


EASY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@EASY
@given(decisions_made(), changes_made())
def test_anything_comes_back_as_it_was(decisions: Decisions, changes: list[Change]) -> None:
    data = StateFile("d").content(decisions, changes)
    assert parsed("p", data) == (decisions, changes)


ODD = st.text(st.characters(), max_size=20) | st.just("x" * 5000) | st.just("\ud800\udc00\udc00")


@EASY
@given(decisions_made(ODD), changes_made(ODD))
def test_whatever_people_say_can_be_read_again(decisions: Decisions, changes: list[Change]) -> None:
    again, changes_again = parsed("p", StateFile("d").content(decisions, changes))
    assert [one[:2] for one in again] == [one[:2] for one in decisions]
    assert [one[2].value for one in again] == [one[2].value for one in decisions]
    assert [one.at for one in changes_again] == [one.at for one in changes]


WHOLE = StateFile("d").content(DECISIONS, CHANGES)


@settings(deadline=None, max_examples=500)
@given(st.integers(0, len(WHOLE)), st.integers(0, 30), st.binary(max_size=10))
def test_bytes_that_were_damaged(start: int, length: int, instead: bytes) -> None:
    good_or_refused(WHOLE[:start] + instead + WHOLE[start + length :])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, max_examples=500)
@given(st.data())
def test_values_that_are_others(data: st.DataObject) -> None:
    values: Any = saved()
    inner: Any = values
    while True:
        step = data.draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
        if not inner[step] or not isinstance(inner[step], dict | list) or data.draw(st.integers(0, 3)) == 0:
            inner[step] = data.draw(JSON)
            break
        inner = inner[step]
    good_or_refused(json.dumps(values).encode())
