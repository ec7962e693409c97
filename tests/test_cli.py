"""``distbal`` and its commands ``check`` and ``schema``, as a person calls them; verbs are in test_verbcommand.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from distbal import __version__
from distbal.cli import COMMANDS, main
from distbal.config import Loaded
from distbal.errors import ListenError
from distbal.places import HOSTS_FILE
from distbal.schema import build
from distbal.verbs import VERBS, usage
from tests.support import ROOT


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_good_file_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("hosts.yaml").write_text(
        "hosts:\n  - box/4\n  - {name: arm1, slots: 24, pools: [arm]}\n"
        "listen: {balance: [5656, {at: '[::1]:5756', pool: arm}], update: null, web: null, admin: null}\n"
    )
    assert main(["check", "hosts.yaml"]) == 0
    assert capsys.readouterr() == (
        "hosts.yaml: good: 2 hosts with 28 slots in pools default and arm; balance on 5656 and [::1]:5756, status on 5657\n",
        "",
    )


def test_a_file_with_proxies(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("hosts.yaml").write_text(
        "hosts: [box/9]\nlisten: {balance: null, update: null, proxy: [3640, {at: 127.0.0.1:3641}], web: null, admin: null}\n"
    )
    assert main(["check", "hosts.yaml"]) == 0
    assert capsys.readouterr() == (
        "hosts.yaml: good: 1 host with 9 slots in pool default; status on 5657, proxy on 3640 and 127.0.0.1:3641\n",
        "",
    )


def test_a_file_that_listens_nowhere(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("hosts.yaml").write_text(
        "hosts: [box/1]\nlisten: {balance: null, status: null, update: null, web: null, admin: null}\n"
    )
    assert main(["check", "hosts.yaml"]) == 0
    assert capsys.readouterr() == (
        "hosts.yaml: good: 1 host with 1 slot in pool default; listens nowhere\n",
        "hosts.yaml:2: warning: listen.balance: nothing listens for clients, so no host is ever lent\n",
    )


def test_all_files_are_checked_and_one_bad_one_is_enough(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.yaml").write_text("hosts: [box/0]\npollicy: random\n")
    Path("good.yaml").write_text("hosts: [box]\n")
    assert main(["check", "bad.yaml", "good.yaml", "none.yaml"]) == 1
    out, err = capsys.readouterr()
    assert out == (
        "good.yaml: good: 1 host with 4 slots in pool default; balance on 5656, status on 5657, update on 127.0.0.1:5658,"
        " web on 5659, admin on unix:/run/distbal/admin.sock\n"
    )
    assert err.splitlines() == [
        "bad.yaml:1: hosts[0]: a host has at least 1 slot: leave it out of the file to send it nothing",
        "bad.yaml:2: pollicy: unknown key; did you mean policy?",
        "good.yaml:1: warning: hosts[0]: box has no number of slots, and so 4, as distcc takes it: say how many",
        "none.yaml: cannot be read: no such file or directory",
    ]


def test_without_a_file_it_is_the_installed_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("distbal.check.HOSTS_FILE", str(ROOT / "etc" / "hosts.yaml"))
    assert HOSTS_FILE == "/etc/distbal/hosts.yaml"
    assert main(["check"]) == 0
    assert capsys.readouterr().out.startswith(f"{ROOT}/etc/hosts.yaml: good: 1 host")


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == build()


def test_the_version_and_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"distbal {__version__}\n"
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"\n  {name} " in said
        assert command.help in said
    for verb in VERBS.values():
        assert f"\n  {usage(verb)}" in said
        assert verb.help in said or verb.name in COMMANDS
    headings = [line for line in said.splitlines() if line.endswith(":")]
    assert headings == ["look:", "change:", "file and installation:"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "distbal: say what to do; distbal --help lists the commands\n"),
        (["chek"], 'distbal: there is no command "chek": did you mean check?\n'),
        (["dran"], 'distbal: there is no command "dran": did you mean drain?\n'),
        (["\x1b[2J"], 'distbal: there is no command "?[2J"; distbal --help lists them\n'),
    ],
)
def test_a_command_that_is_none(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr() == ("", said)


def test_wrong_arguments_of_a_command() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["completion", "tcsh"])
    assert ended.value.code == 2


def test_it_runs_as_a_module_and_minds_no_closed_pipe() -> None:
    """As in `distbal schema | head -1`: the reader leaves long before the end."""
    with subprocess.Popen(
        [sys.executable, "-m", "distbal", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 1


def test_what_a_command_raises_is_said_in_its_own_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(raised: BaseException) -> int:
        def fail(_path: str) -> Loaded:
            raise raised

        monkeypatch.setattr("distbal.check.load", fail)
        return main(["check", "hosts.yaml"])

    assert run(ListenError("port 5656 is taken")) == 1
    assert capsys.readouterr().err == "distbal: port 5656 is taken\n"
    assert run(KeyboardInterrupt()) == 130


@pytest.mark.parametrize("words", ["schema", "--help"])
def test_a_full_disk_is_told(words: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "distbal", words], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "distbal: the output could not be written whole: No space left on device\n"


@pytest.mark.parametrize("errors", ["", "2>&-"])
@pytest.mark.parametrize(("words", "status"), [("schema", 0), ("nonsense", 2)])
def test_who_closed_the_output_is_told_nothing(words: str, status: int, errors: str) -> None:
    script = f'"$0" -m distbal {words} >&- {errors}'
    done = subprocess.run(["sh", "-c", script, sys.executable], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (status, "")
    assert "Traceback" not in done.stderr
