"""A trial of the code that is on the disk: yes, and every kind of no; real processes, and packages with planted faults."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import CancelledError

import distbal
from distbal import __version__
from distbal.execing import Start, UpgradeError
from distbal.ledger import Ledger
from distbal.monitors.programs import Ended
from distbal.trying import LAST_LINES, MOST_CHARACTERS, MOST_REASONS, PATIENCE, Trying, Verdict, command, understood, variables
from tests.services import taken_port
from tests.support import alone

REAL = Path(distbal.__file__).parent
#: makes a planted package of the real one
WHOLE = f"__version__ = '9.9.9'\n__path__.append({str(REAL)!r})\n"


def started(directory: Path, *words: str, interpreter: tuple[str, ...] = ()) -> Start:
    """As by ``python -m twisted``, with twistd's options, in a directory in which modules may lie."""
    return Start(sys.executable, interpreter, ("-m", "twisted"), words, True, str(directory), 0o22)


def planted(directory: Path, **modules: str) -> Start:
    """A start in a directory with a package whose modules of these names have this text."""
    package = directory / "new" / "distbal"
    package.mkdir(parents=True)
    for name, text in {"__init__": WHOLE, **modules}.items():
        (package / f"{name}.py").write_text(text)
    return started(package.parent)


def real(module: str) -> str:
    """The text of a module as it is."""
    return (REAL / f"{module}.py").read_text()


def file(directory: Path, text: str = "hosts: [alpha/4]\n") -> str:
    path = directory / "hosts.yaml"
    path.write_text(alone(text))
    return str(path)


@contextmanager
def ledger(damage: bytes = b"") -> Iterator[tuple[int, int]]:
    one = Ledger()
    os.pwrite(one.notes, damage, 0)
    try:
        yield one.slots, one.notes
    finally:
        one.close()


async def verdict(start: Start, path: str, *, damage: bytes = b"", patience: float = PATIENCE) -> Verdict:
    with ledger(damage) as files:
        trying = Trying(reactor, start, path, files, patience=patience)
    found = await trying.verdict
    await trying.when_gone()
    return found


@pytest_twisted.ensureDeferred
async def test_yes(tmp_path: Path) -> None:
    """Though somebody listens on its port already, and nobody may have written anything."""
    with taken_port() as port:
        text = f"hosts: [alpha/4]\nlisten: {{balance: 127.0.0.1:{port}}}\nstate: {tmp_path / 'state'}\n"
        start = started(tmp_path, "-n", "--pidfile=", "distbal", "-c", "hosts.yaml", "--verbose")
        assert await verdict(start, file(tmp_path, text)) == Verdict(__version__)
    assert os.listdir(tmp_path) == ["hosts.yaml"]  # noqa: PTH208 (no path is wanted)


@pytest_twisted.ensureDeferred
async def test_yes_of_other_code_that_is_talkative(tmp_path: Path) -> None:
    start = planted(tmp_path, overlay=real("overlay") + "print('hello' * 1000)\n")
    found = await verdict(start, file(tmp_path))
    assert (found.yes, found.version) == (True, "9.9.9")
    assert [len(line) for line in found.said] == [MOST_CHARACTERS]
    assert found.said[0].startswith("hellohello")


@pytest_twisted.ensureDeferred
async def test_it_runs_as_the_daemon_does(tmp_path: Path) -> None:
    """Beside the script that was started is a package; where it was started is another, which counts for nothing."""
    wrong = planted(tmp_path, trial="raise SystemExit('the wrong one')")
    beside = tmp_path / "bin" / "distbal"
    beside.mkdir(parents=True)
    (beside / "__init__.py").write_text(WHOLE)
    start = Start(sys.executable, ("-W", "error::UserWarning"), ("../bin/prog",), (), False, wrong.directory, 0o22)
    assert (await verdict(start, file(tmp_path))).version == "9.9.9"
    (beside / "overlay.py").write_text(real("overlay") + "import warnings\nwarnings.warn('x')\n")
    (why,) = (await verdict(start, file(tmp_path))).why
    assert why.startswith("UserWarning: x (overlay.py:")


@pytest_twisted.ensureDeferred
async def test_no_a_file_that_is_wrong(tmp_path: Path) -> None:
    path = file(tmp_path, "hosts: [alpha/0, alpha/4]\npolicy: best\n")
    found = await verdict(started(tmp_path), path)
    assert [why.partition(": ")[0] for why in found.why] == [f"{path}:1", f"{path}:1", f"{path}:2"]
    assert found.why[2].endswith('policy: "best" is none of fastest-first, least-loaded, random')


@pytest_twisted.ensureDeferred
async def test_no_twistd_would_not_start_it(tmp_path: Path) -> None:
    path = file(tmp_path)
    for words, why in [
        (("-n", "distbal", "--quick"), "options that distbal was started with mean nothing to it any more: option --quick"),
        (("-n", "--quick", "distbal"), "twistd does not understand the options that distbal was started with: option --quick"),
    ]:
        (said,) = (await verdict(started(tmp_path, *words), path)).why
        assert why in said


@pytest_twisted.ensureDeferred
async def test_no_twistd_could_not_open_its_log_or_enter_its_directory(tmp_path: Path) -> None:
    """As when root opened them, and then became another user."""
    path = file(tmp_path)
    (tmp_path / "there" / "log").mkdir(parents=True)
    for words, why in [
        (
            ("-n", "--logfile", "there/log/x/y", "distbal"),
            f"log could not be written any more: {tmp_path}/there/log/x/y is not",
        ),
        (("-n", "--rundir", "gone", "distbal"), "twistd could not go to its --rundir any more: gone is not ours"),
    ]:
        (said,) = (await verdict(started(tmp_path, *words), path)).why
        assert why in said
    assert (await verdict(started(tmp_path, "-n", "-l", "there/log/x", "-d", "there", "distbal"), path)).yes
    assert (await verdict(started(tmp_path, "distbal"), path)).yes


@pytest_twisted.ensureDeferred
async def test_no_accounts_that_cannot_be_understood(tmp_path: Path) -> None:
    found = await verdict(started(tmp_path), file(tmp_path), damage=b"rubbish")
    assert len(found.why) == 1
    assert "ledger" in found.why[0] or "accounts" in found.why[0]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("service", "import neither\n", "ModuleNotFoundError: No module named 'neither' (service.py:1)"),
        ("service", "def f(:\n", "SyntaxError: invalid syntax (service.py, line 1)"),
        ("service", "raise SystemExit('enough')\n", "SystemExit: enough (service.py:1)"),
        ("config", "from distbal import nothing_of_this\n", "ImportError: cannot import name 'nothing_of_this'"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_no_code_that_cannot_be_loaded(name: str, text: str, why: str, tmp_path: Path) -> None:
    found = await verdict(planted(tmp_path, **{name: text}), file(tmp_path))
    assert len(found.why) == 1
    assert found.why[0].startswith(why)
    assert found.said[-1].startswith(why.partition(" (")[0]), "the log has all of it"


@pytest.mark.parametrize(
    ("name", "text", "first", "last"),
    [
        ("errors", "raise RuntimeError('half')", "the trial ended with status 1 and no answer", "RuntimeError: half"),
        ("handover", "import os\nos.kill(os.getpid(), 9)", "the trial was ended by SIGKILL", "the trial"),
        ("trial", "print('yes')", 'the trial answered what is no answer (status 0): "yes"', "the trial"),
        ("trial", 'print(\'{"yes": true, "version": "2"}\')\nexit(3)', "the trial answered what is no", "the trial"),
        ("trial", "print('x' * (1 << 20))", 'the trial answered what is no answer (status 0): "xxxx', "the trial"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_no_code_that_cannot_say_why(name: str, text: str, first: str, last: str, tmp_path: Path) -> None:
    found = await verdict(planted(tmp_path, **{name: text}), file(tmp_path))
    assert found.why[0].startswith(first)
    assert found.why[-1].startswith(last)
    assert len(found.why) <= 1 + LAST_LINES


@pytest_twisted.ensureDeferred
async def test_no_code_that_hangs(tmp_path: Path) -> None:
    start = planted(tmp_path, handover="import time\ntime.sleep(1000)")
    assert await verdict(start, file(tmp_path), patience=0.5) == Verdict(why=("the trial did not answer within 0.5 s",))


@pytest_twisted.ensureDeferred
async def test_a_trial_that_is_not_wanted_any_more(tmp_path: Path) -> None:
    start = planted(tmp_path, handover="import time\ntime.sleep(1000)")
    with ledger() as files:
        trying = Trying(reactor, start, file(tmp_path), files)
    trying.verdict.cancel()
    with pytest.raises(CancelledError):
        await trying.verdict
    await trying.when_gone()


def test_a_trial_that_cannot_be_started(tmp_path: Path) -> None:
    for start, why in [
        (Start("/nonexistent/python", (), ("x",), (), False, "/", 0), r"No such file or directory \(/nonexistent/python\)"),
        (started(tmp_path / "gone"), r"No such file or directory \(.*gone\)"),
    ]:
        with ledger() as files, pytest.raises(UpgradeError, match=f"the new code could not be tried: {why}"):
            Trying(reactor, start, "/x", files)


# -- pure


@pytest.mark.parametrize(
    "output",
    [b"", b"[]", b"null", b"{}", b'{"yes": true}', b'{"yes": true, "version": 5}', b'{"yes": false}', b"\xff", b"[" * 60_000,
     b'{"yes": false, "why": []}', b'{"yes": false, "why": [5]}', b'{"yes": 1, "version": "1"}',
     b'{"yes": true, "version": "1"} x'],
)  # fmt: skip
def test_answers_that_are_none(output: bytes) -> None:
    (why,) = understood(Ended(0, output, b"")).why
    assert why.startswith("the trial")


JSON = st.recursive(
    st.none() | st.booleans() | st.text(max_size=20) | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["yes", "version", "why", "x"]), inner, max_size=4)
    ),
)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()), st.binary(), st.integers(-70, 255))
def test_whatever_a_trial_says_is_yes_or_no_with_a_reason(output: bytes, errors: bytes, status: int) -> None:
    found = understood(Ended(status, output, errors))
    assert all(why.isprintable() for why in (*found.why, *found.said, found.version))
    if found.yes:
        assert status == 0
        assert found.version
        assert json.loads(output)["yes"] is True


def test_answers_have_bounds_and_nothing_that_a_terminal_obeys() -> None:
    reasons = '", "'.join(["\\u001b[31m" + "x" * 2 * MOST_CHARACTERS] * 2 * MOST_REASONS)
    found = understood(Ended(1, f'{{"yes": false, "why": ["{reasons}"]}}'.encode(), b"\x1b[0m\xff\n" * 10))
    assert len(found.why) == MOST_REASONS
    assert {len(why) for why in found.why} == {MOST_CHARACTERS}
    assert all(text.isprintable() for text in (*found.why, *found.said))


def test_how_a_trial_is_started() -> None:
    script = Start("/v/python", ("-W", "error"), ("/v/bin/twistd",), ("-n",), True, "/srv", 0)
    assert command(script) == ["/v/python", "-W", "error", "-P", "-m", "distbal.trial"]
    assert command(started(Path("/srv"), interpreter=("-B",))) == [sys.executable, "-B", "-m", "distbal.trial"]
    environment = {"A": "b", "NOTIFY_SOCKET": "x", "DISTBAL_KEEPER": "5", "PYTHONPATH": "/p"}
    assert variables(script, environment) == {"A": "b", "PYTHONPATH": "/v/bin:/p"}
    assert variables(started(Path("/srv")), environment) == {"A": "b", "PYTHONPATH": "/p"}
