"""What is installed, to the file; and that it works where it is installed, both ways, with a compiler and without.

The environments made here see the libraries of the one that runs the tests, so that nothing is fetched; .ci/run installs into
one that sees nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import ROOT, need

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = [pytest.mark.packaging, pytest.mark.programs]

VERSION = re.findall(r'^__version__ = "(.*)"', (ROOT / "distbal" / "__init__.py").read_text(), re.MULTILINE)[0]
PLATFORM = re.sub(r"\W", "_", sysconfig.get_platform())
DIST_INFO = f"distbal-{VERSION}.dist-info"
#: what of the checkout is built from; nothing that an earlier build left lying about
SOURCES = ("setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "NEWS", "README.md", "Makefile", "constraints-min.txt")
TREES = ("distbal", "twisted", "etc", "docs", "tests", "bench", "demo", ".ci")


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """A command's output, both streams; the test fails where the command does."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "DISTBAL_WRAP", "CC")}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=kept | {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"} | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout's sources."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, copy)
    for name in TREES:
        if (ROOT / name).exists():
            shutil.copytree(
                ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache", "*.egg-info")
            )
    return copy


def python_files(checkout: Path) -> set[str]:
    """The package's Python files, as the checkout has them."""
    return {str(path.relative_to(checkout)) for path in (checkout / "distbal").rglob("*.py")}


def build(kind: str, source: Path, target: Path, **environment: str) -> Path:
    """The one archive that setuptools makes (``build_wheel`` or ``build_sdist``), by the standard interface of builders."""
    target.mkdir()
    program = f"import setuptools.build_meta as builder; builder.{kind}({str(target)!r})"
    run(sys.executable, "-c", program, cwd=source, **environment)
    (archive,) = target.iterdir()
    return archive


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def expected(checkout: Path, *, client: bool) -> set[str]:
    """The files of a wheel."""
    metadata = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt", "licenses/LICENSE"}
    files = python_files(checkout) | {"distbal/py.typed", "twisted/plugins/distbal_plugin.py"}
    files |= {"distbal/web/script.js", "distbal/web/style.css"}
    files |= {f"distbal/completions/distbal.{shell}" for shell in ("bash", "zsh", "fish")}
    files |= {f"{DIST_INFO}/{name}" for name in metadata}
    return files | ({f"distbal-{VERSION}.data/scripts/distbal-wrap"} if client else set())


def metadata(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(f"{DIST_INFO}/METADATA").decode()


def environment_of(path: Path) -> Path:
    """A new environment that also sees the libraries of this one, but not this one's distbal; its bin directory."""
    run(sys.executable, "-m", "venv", "--without-pip", path, cwd=path.parent)
    bindir = path / "bin"
    site = run(bindir / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=path.parent).strip()
    # a directory named in a .pth file is only searched: the .pth files in it, an editable distbal's for one, are not read
    (Path(site) / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return bindir


def pip(bindir: Path, *words: str | Path, cwd: Path, **environment: str) -> str:
    return run(sys.executable, "-m", "pip", "--python", bindir / "python", *words, cwd=cwd, **environment)


def twistd_help(bindir: Path, cwd: Path) -> str:
    """What ``twistd --help`` prints there, away from the checkout."""
    return run(bindir / "python", "-c", "from twisted.scripts.twistd import run; run()", "--help", cwd=cwd)


def listed(text: str) -> bool:
    return bool(re.search(r"^ +distbal +Lend each distcc job", text, re.MULTILINE))


def test_the_wheel_holds_the_package_and_nothing_else(checkout: Path, tmp_path: Path) -> None:
    wheel = build("build_wheel", checkout, tmp_path / "dist", DISTBAL_WRAP="no")
    assert wheel.name == f"distbal-{VERSION}-py3-none-any.whl"
    assert names(wheel) == expected(checkout, client=False)
    head = metadata(wheel).partition("\n\n")[0].splitlines()
    assert "License-Expression: MIT" in head
    assert "License-File: LICENSE" in head
    assert "Requires-Python: >=3.11" in head
    needs = {
        re.split("[>=<;]", line.partition(": ")[2])[0]
        for line in head
        if line.startswith("Requires-Dist") and "extra" not in line
    }
    assert needs == {"twisted", "zope.interface", "pyyaml", "pydantic"}


def test_the_wheel_holds_the_client_where_a_compiler_is(checkout: Path, tmp_path: Path) -> None:
    need("cc")
    wheel = build("build_wheel", checkout, tmp_path / "dist", DISTBAL_WRAP="yes")
    assert wheel.name == f"distbal-{VERSION}-py3-none-{PLATFORM}.whl"
    assert names(wheel) == expected(checkout, client=True)
    with zipfile.ZipFile(wheel) as archive:
        info = archive.getinfo(f"distbal-{VERSION}.data/scripts/distbal-wrap")
        assert archive.read(info).startswith(b"\x7fELF")
        assert info.external_attr >> 16 & 0o111 == 0o111


def test_without_a_compiler_the_wheel_says_what_is_missing(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    target = tmp_path / "dist"
    program = f"import setuptools.build_meta as builder; builder.build_wheel({str(target)!r})"
    target.mkdir()
    said = run(sys.executable, "-c", program, cwd=checkout, PATH=str(tmp_path / "empty"))
    assert "distbal-wrap, the client for build machines, is left out: no C compiler was found." in said
    assert "apt-get install gcc libc6-dev" in said
    assert [path.name for path in target.iterdir()] == [f"distbal-{VERSION}-py3-none-any.whl"]


def test_a_compiler_that_fails_stops_the_build(checkout: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"distbal-wrap does not compile.*DISTBAL_WRAP=no"):
        build("build_wheel", checkout, tmp_path / "dist", CC="false")


def test_the_source_archive_builds_the_same_wheel(checkout: Path, tmp_path: Path) -> None:
    source = build("build_sdist", checkout, tmp_path / "source", DISTBAL_WRAP="no")
    assert source.name == f"distbal-{VERSION}.tar.gz"
    with tarfile.open(source) as archive:
        if hasattr(tarfile, "data_filter"):  # Python 3.11.4 and later
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(tmp_path / "unpacked")  # noqa: S202 (an archive of our own)
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    missing = {path for path in committed() if not (unpacked / path).exists()}
    assert missing == set()
    wheel = build("build_wheel", unpacked, tmp_path / "dist", DISTBAL_WRAP="no")
    assert names(wheel) == expected(checkout, client=False)


def committed() -> Iterable[str]:
    """What is under version control and belongs into the source archive: all but what only the repository needs."""
    if not (ROOT / ".git").exists():
        return []
    files = run("git", "-c", f"safe.directory={ROOT}", "ls-files", cwd=ROOT).split()
    return [name for name in files if name != ".gitignore" and (ROOT / name).exists()]


@pytest.mark.parametrize("editable", [False, True], ids=["plain", "editable"])
def test_pip_installs_a_twistd_that_knows_distbal(checkout: Path, tmp_path: Path, editable: bool) -> None:
    need("cc")
    bindir = environment_of(tmp_path / "venv")
    assert not listed(twistd_help(bindir, tmp_path)), "this environment is not clean, so it shows nothing"
    options = ["--no-deps", "--no-build-isolation", *(["-e"] if editable else [])]
    pip(bindir, "install", *options, checkout, cwd=tmp_path, DISTBAL_WRAP="yes")
    assert listed(twistd_help(bindir, tmp_path))
    where = run(bindir / "python", "-c", "import distbal; print(distbal.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(checkout if editable else tmp_path / "venv")
    assert VERSION in run(bindir / "distbal", "--version", cwd=tmp_path)
    assert run(bindir / "distbal", "completion", "zsh", cwd=tmp_path).startswith("#compdef distbal\n")
    assert (bindir / "distbal-wrap").read_bytes().startswith(b"\x7fELF")
    assert VERSION in run(bindir / "distbal-wrap", "--version", cwd=tmp_path)

    pip(bindir, "uninstall", "-y", "distbal", cwd=tmp_path)
    assert not listed(twistd_help(bindir, tmp_path))
    assert sorted(path.name for path in bindir.glob("distbal*")) == []
    assert "twisted" in run(bindir / "python", "-c", "import twisted.plugins as it; print(it.__name__)", cwd=tmp_path)


def test_the_client_needs_no_python(checkout: Path, tmp_path: Path) -> None:
    need("cc", "make")
    run("make", "build/distbal-wrap", cwd=checkout)
    environment = {"PATH": "/nonexistent", "DISTBAL": "", "DISTBAL_FALLBACK": "local"}
    assert VERSION in run(checkout / "build" / "distbal-wrap", "--version", cwd=tmp_path, **environment)
    assert run(checkout / "build" / "distbal-wrap", "/bin/echo", "balanced", cwd=tmp_path, **environment) == "balanced\n"


def test_make_install_places_what_packagers_need(checkout: Path, tmp_path: Path) -> None:
    need("cc", "make")
    target = tmp_path / "root"
    for _ in range(2):
        run("make", "install", f"DESTDIR={target}", "PREFIX=/usr", cwd=checkout)
    manual = {f"usr/share/man/man{path.suffix[1:]}/{path.name}" for path in (ROOT / "docs" / "man").iterdir()}
    assert {Path(path).name for path in manual} >= {"distbal.1", "distbal-wrap.1", "hosts.yaml.5"}
    assert {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()} == manual | {
        "etc/distbal/hosts.yaml",
        "usr/bin/distbal-wrap",
        "usr/lib/systemd/system/distbal.service",
        "usr/lib/sysusers.d/distbal.conf",
        "usr/share/bash-completion/completions/distbal",
        "usr/share/doc/distbal/examples/distbal-alerts.yml",
        "usr/share/doc/distbal/examples/hosts-full.yaml",
        "usr/share/doc/distbal/examples/hosts.yaml",
        "usr/share/doc/distbal/examples/prometheus.yml",
        "usr/share/fish/vendor_completions.d/distbal.fish",
        "usr/share/zsh/site-functions/_distbal",
    }
    (target / "etc/distbal/hosts.yaml").write_text("mine\n")
    run("make", "install", f"DESTDIR={target}", "PREFIX=/usr", cwd=checkout)
    assert (target / "etc/distbal/hosts.yaml").read_text() == "mine\n"


def test_the_unit_is_sound_and_gives_little_away(tmp_path: Path) -> None:
    need("systemd-analyze")
    unit = tmp_path / "distbal.service"
    # verify looks for the programs that the unit names; whether the pages are installed is none of its business
    text = (ROOT / "etc" / "distbal.service").read_text()
    unit.write_text(
        re.sub("^Documentation=.*\n", "", text.replace("/opt/distbal/bin/distbal", "/bin/true"), flags=re.MULTILINE)
    )
    assert run("systemd-analyze", "verify", unit, cwd=tmp_path) == ""
    said = run("systemd-analyze", "security", "--offline=yes", unit, cwd=tmp_path)
    exposure = re.search(r"Overall exposure level for distbal.service: ([\d.]+)", said)
    assert exposure is not None
    assert float(exposure[1]) < 3


def test_the_minimum_versions_are_those_that_ci_installs() -> None:
    _, install_requires = (ROOT / "setup.py").read_text().split("install_requires=[")
    asked = dict(re.findall(r'^ {8}"([\w.-]+)>=([\w.]+)",  # ', install_requires, re.MULTILINE))
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "constraints-min.txt").read_text(), re.MULTILINE))
    assert len(asked) == 4
    assert {name: pinned.get(name) for name in asked} == asked
