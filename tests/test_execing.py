"""How the process is started anew: the words, for every way in which it may have been started; what a failed exec undoes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbal.execing import (
    SIGNALS,
    Command,
    HeldSignals,
    Start,
    UpgradeError,
    command,
    read_start,
    replace,
    twistd_options,
    unblock,
)
from tests.loops import open_descriptors
from tests.support import ROOT

NOBODY = 65534
PYTHON, TWISTD = "/venv/bin/python", "/venv/bin/twistd"


def start(*original: str, arguments: int, twistd: bool = True) -> Start:
    """How a process was started.

    :param arguments: how many of the words are the program's own.
    """
    words = original[len(original) - arguments :]
    return read_start(PYTHON, original, words, twistd=twistd, directory="/srv", umask=0o22)


def anew(words: str, *, twistd: bool = True) -> str:
    """What is started for these words behind ``twistd``."""
    return " ".join(command(start(PYTHON, TWISTD, *words.split(), arguments=len(words.split()), twistd=twistd)).words[2:])


# -- how it was started


@pytest.mark.parametrize(
    ("original", "interpreter", "program"),
    [
        (f"{PYTHON} {TWISTD} -n distbal", "", TWISTD),
        (f"{PYTHON} -m twisted -n distbal", "", "-m twisted"),
        (f"{PYTHON} -mtwisted -n distbal", "", "-mtwisted"),
        (f"{PYTHON} -um twisted -n distbal", "", "-um twisted"),
        ("python3 -W error -Xdev -I -m distbal.daemon -n distbal", "-W error -Xdev -I", "-m distbal.daemon"),
        ("python3 -X importtime -Wignore::m bin/twistd -n distbal", "-X importtime -Wignore::m", "bin/twistd"),
        ("python3 --check-hash-based-pycs never bin/twistd -n distbal", "--check-hash-based-pycs never", "bin/twistd"),
        ("python3 -B -c run() -n distbal", "-B", "-c run()"),
        (f"python3 -m cProfile {TWISTD} -n distbal", "", f"-m cProfile {TWISTD}"),
    ],
)
def test_ways_to_start_it(original: str, interpreter: str, program: str) -> None:
    found = start(*original.split(), arguments=2)
    assert found == Start(PYTHON, tuple(interpreter.split()), tuple(program.split()), ("-n", "distbal"), True, "/srv", 0o22)
    assert command(found).words[:-2] == (PYTHON, *interpreter.split(), *program.split())


@pytest.mark.parametrize(
    ("executable", "original", "arguments", "why"),
    [
        (PYTHON, "python3 - -n distbal", "-n distbal", "from standard input"),
        (PYTHON, "python3", "", "from standard input"),
        (PYTHON, "python3 prog -n", "-n distbal", "cannot be told how distbal was started"),
        ("", "python3 prog -n", "-n", "cannot be told how distbal was started"),
    ],
)
def test_ways_that_cannot_be_used_twice(executable: str, original: str, arguments: str, why: str) -> None:
    with pytest.raises(UpgradeError, match=why):
        read_start(executable, original.split(), arguments.split(), twistd=True, directory="/", umask=0)


# -- what is started


@pytest.mark.parametrize(
    ("words", "anew_words"),
    [
        ("-n distbal -c hosts.yaml", "--nodaemon distbal -c hosts.yaml"),
        ("--nodaemon --pidfile= distbal", "--nodaemon --pidfile= distbal"),
        ("-no --reactor epoll distbal --verbose", "--nodaemon --no_save --reactor=epoll distbal --verbose"),
        ("--noda --pidf x distbal", "--nodaemon --pidfile=x distbal"),
        ("-nl - --pidfile x.pid -d /srv distbal", "--nodaemon --logfile=- --pidfile=x.pid --rundir=/srv distbal"),
        # twistd detached it: it logged to a file and set a umask
        ("distbal", "--nodaemon --logfile=twistd.log --umask=077 distbal"),
        ("-l a.log --umask 027 distbal", "--logfile=a.log --umask=027 --nodaemon distbal"),
        ("--syslog --prefix x distbal", "--syslog --prefix=x --nodaemon --umask=077 distbal"),
        ("--logger m.f distbal", "--logger=m.f --nodaemon --umask=077 distbal"),
        # it gave up its rights
        ("-n --uid distbal -g 100 --euid distbal", "--nodaemon distbal"),
        ("-n -u 5 distbal --uid 7", "--nodaemon distbal --uid 7"),
        ("-ny distbal.tac", "--nodaemon --python=distbal.tac"),
        ("-n --originalname --spew distbal", "--nodaemon --originalname --spew distbal"),
    ],
)
def test_words_of_twistd(words: str, anew_words: str) -> None:
    assert anew(words) == anew_words
    # and once more: what was started so is started in the same way
    assert anew(anew_words) == anew_words


def test_words_that_are_not_twistds_are_used_as_they_are() -> None:
    for words in ("--log-level=info distbal -c x", "-b --uid 5 distbal"):
        assert anew(words, twistd=False) == words


OPTIONS = st.sampled_from(
    [
        "-n",
        "--nodaemon",
        "-o",
        "-u5",
        "--uid=7",
        "--euid",
        "-d/srv",
        "--umask=027",
        "--syslog",
        "-l-",
        "--logf=x",
        "--pidfile=",
        "--pidfile=y",
    ]
)


@given(st.lists(OPTIONS, max_size=6), st.lists(st.text(min_size=1), max_size=4))
def test_any_words_mean_the_same_when_they_are_used_again(options: list[str], rest: list[str]) -> None:
    words = [*options, "distbal", *rest]
    first = command(start(PYTHON, TWISTD, *words, arguments=len(words)))
    again = first.words[2:]
    assert command(start(PYTHON, TWISTD, *again, arguments=len(again))) == first
    found, left, _ = twistd_options(again)
    assert left == ["distbal", *rest]
    names = {name for name, _ in found}
    assert "nodaemon" in names
    assert not names & {"uid", "gid", "euid"}
    once_more = twistd_options(first.without_pidfile[2:])
    assert (once_more[1], dict(once_more[0])["pidfile"]) == (left, "")


@given(st.binary(max_size=300) | st.lists(st.text()).map(lambda words: " ".join(words).encode()))
def test_whatever_twistd_was_told(text: bytes) -> None:
    words = text.decode(errors="replace").split()
    with suppress(UpgradeError):
        # what is left is said last, as it was
        rest = twistd_options(words)[1]
        assert words[len(words) - len(rest) :] == rest


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("-n --chroot /srv distbal", "behind --chroot"),
        ("-b distbal", "under --debug, where SIGUSR2 calls the debugger"),
        ("--debug distbal", "under --debug"),
        ("-n --chrooot /srv distbal", "does not understand the options that distbal was started with: option --chrooot"),
    ],
)
def test_words_that_cannot_be_used_twice(words: str, why: str) -> None:
    with pytest.raises(UpgradeError, match=why):
        anew(words)


@pytest.mark.parametrize(
    ("words", "pidfile"),
    [
        ("-n distbal", "/srv/twistd.pid"),
        ("-n --pidfile run/x.pid distbal", "/srv/run/x.pid"),
        ("-n --pidfile /run/x.pid distbal", "/run/x.pid"),
        ("-n --pidfile= distbal", ""),
        ("-n --pidfile a --pidfile b distbal --pidfile c", "/srv/b"),
    ],
)
def test_the_pidfile(words: str, pidfile: str) -> None:
    new = command(start(PYTHON, TWISTD, *words.split(), arguments=len(words.split())))
    assert new.pidfile == pidfile
    place = new.without_pidfile.index("--pidfile=", new.place)
    assert new.without_pidfile[place + 1] == "distbal"


# -- an exec


@contextmanager
def handled(one: signal.Signals) -> Iterator[list[int]]:
    """The signals of this kind that are handled."""
    came: list[int] = []
    before = signal.signal(one, lambda number, _: came.append(number))
    try:
        yield came
    finally:
        signal.signal(one, before)


def standing() -> tuple[object, ...]:
    """What an exec changes before: directory, umask, blocked signals, open descriptors."""
    umask = os.umask(0)
    os.umask(umask)
    return Path.cwd(), umask, signal.pthread_sigmask(signal.SIG_BLOCK, ()), open_descriptors()


def test_an_exec_that_fails_undoes_everything(tmp_path: Path) -> None:
    pidfile = tmp_path / "x.pid"
    pidfile.write_text(f"{os.getpid()}")
    before = standing()
    descriptor = os.open("/dev/null", os.O_RDONLY)
    new = Command(("/nonexistent/python", "-c", "pass"), str(tmp_path), 0o27, str(pidfile), 1)
    try:
        with handled(signal.SIGHUP) as came:
            held = HeldSignals()
            os.kill(os.getpid(), signal.SIGHUP)
            with pytest.raises(UpgradeError, match=r"could not be started: No such file or directory \(/nonexistent/python\)"):
                replace(new, {}, [descriptor], held)
            assert came == []
            held.release()
            assert came == [signal.SIGHUP]
            with pytest.raises(UpgradeError, match="Bad file descriptor"):
                replace(new, {}, [descriptor, 1_000_000])
            os.kill(os.getpid(), signal.SIGHUP)
            assert came == [signal.SIGHUP] * 2
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)
    assert pidfile.read_text() == f"{os.getpid()}"
    assert standing() == before


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    new = Command((sys.executable, "-c", "pass"), str(tmp_path / "gone"), 0o22)
    with pytest.raises(UpgradeError, match=r"No such file or directory \(.*gone\)"):
        replace(new, {}, [])


def test_signals_by_way_of_another_thread_wait_too() -> None:
    """The system gives a process's signal to any thread that does not block it."""
    over = threading.Event()
    other = threading.Thread(target=over.wait)
    other.start()
    try:
        with handled(signal.SIGUSR1) as came:
            held = HeldSignals()
            try:
                os.kill(os.getpid(), signal.SIGUSR1)
                for _ in range(1000):
                    if held.came:
                        break
                    threading.Event().wait(0.01)
                assert held.came == [signal.SIGUSR1]
                held.pass_on()
                assert signal.SIGUSR1 in signal.sigpending()
                assert came == []
            finally:
                held.release()
            assert came == [signal.SIGUSR1]
    finally:
        over.set()
        other.join()


def test_unblock_does_no_harm() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert not before & set(SIGNALS)
    unblock()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def execs(new: Command, before: str = "") -> str:
    """What a process says that another one is replaced by.

    :param before: what that one does first.
    """
    program = f"import os; from distbal.execing import Command, replace\n{before}\nreplace({new!r}, {{'A': 'b'}}, [])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    return done.stdout


def test_a_stream_that_is_closed_is_nobody_elses() -> None:
    program = (
        "import os; from distbal.execing import remember; remember(); print(os.open('/', 0), os.readlink('/proc/self/fd/2'))"
    )
    words = ["/bin/sh", "-c", 'exec "$@" <&- 2>&-', "sh", sys.executable, "-c", program]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    number, stream = done.stdout.split()
    assert int(number) > 2
    assert stream == "/dev/null"


SAYS = ("/bin/sh", "-c", 'pwd; umask; echo "$A $*"', "sh")


def test_the_new_program_has_the_directory_the_umask_and_the_variables(tmp_path: Path) -> None:
    new = Command((*SAYS, "words"), str(tmp_path), 0o27)
    assert execs(new, "os.umask(0); os.chdir('/')").splitlines() == [str(tmp_path.resolve()), "0027", "b words"]


@pytest.mark.parametrize("kind", ["own", "gone", "another's", "no number"])
def test_a_pidfile_is_out_of_the_way(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pid"
    text = {"own": "{os.getpid()}", "gone": "", "another's": "1", "no number": "x"}[kind]
    new = Command((*SAYS, "before", "behind"), str(tmp_path), 0o22, str(path), len(SAYS) + 1)
    said = execs(new, f"if {text!r}: open({str(path)!r}, 'w').write(f{text!r})").splitlines()[-1]
    if kind in ("own", "gone"):
        assert said == "b before behind"
        assert not path.exists()
    else:
        assert said == "b before --pidfile= behind"
        assert path.read_text() == text


@pytest.mark.parametrize("there", [True, False])
def test_a_pidfile_in_a_directory_of_somebody_elses_stays(there: bool, tmp_path: Path) -> None:
    """As in /run, when twistd wrote it as root and then became another user."""
    directory = tmp_path / "run"
    directory.mkdir()
    path = directory / "x.pid"
    new = Command((*SAYS, "before", "behind"), "/", 0o22, str(path), len(SAYS) + 1)
    write = f"open({str(path)!r}, 'w').write(str(os.getpid()))" if there else ""
    # root may write everywhere; an ordinary user keeps himself out
    shed = f"os.seteuid({NOBODY}) if os.geteuid() == 0 else os.chmod({str(directory)!r}, 0o500)"
    try:
        for parent in (tmp_path, *tmp_path.parents):
            if parent.owner() == Path(tmp_path).owner() and parent != Path("/") and "pytest" in parent.name:
                parent.chmod(0o755)
        said = execs(new, f"{write}\n{shed}").splitlines()[-1]
    finally:
        directory.chmod(0o755)
    assert said == "b before --pidfile= behind"
    assert path.exists() is there
