"""How distbal is built and installed: the Python package, the twistd plugin, and the client where a C compiler is.

``distbal-wrap`` runs once a compile, so it is a small C program. It becomes a script of the wheel, whose tag then names the
platform; without a compiler the wheel is pure and everything but the client is there. ``$DISTBAL_WRAP`` decides: ``no`` leaves
the client out, ``yes`` insists on it, anything else builds it where that can be done.

Tools' settings are in pyproject.toml; the metadata is here.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from setuptools import find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.errors import CompileError

# setuptools has no name of its own for this command; it must be imported after setuptools
from distutils.command.build_scripts import build_scripts  # isort: skip

HERE = Path(__file__).resolve().parent
WRAP_SOURCES = [str(path.relative_to(HERE)) for path in sorted((HERE / "distbal" / "wrap").glob("*.c"))]

NO_COMPILER = """distbal-wrap, the client for build machines, is left out: no C compiler was found.
The balancer is complete without it. For the client, install one (apt-get install gcc libc6-dev) and install distbal again,
or name yours in $CC. DISTBAL_WRAP=no leaves the client out without this warning."""


def version() -> str:
    """The version that distbal/__init__.py states, read without importing it."""
    text = (HERE / "distbal" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise SystemExit("distbal/__init__.py states no __version__")
    return found[1]


def compiler() -> list[str] | None:
    """The C compiler's command, or None where the client is not to be built or cannot be."""
    if os.environ.get("DISTBAL_WRAP") == "no" or not WRAP_SOURCES:
        return None
    named = shlex.split(os.environ.get("CC", ""))
    if named:
        return named
    return next(([path] for path in map(shutil.which, ("cc", "gcc", "clang")) if path), None)


class BuildScripts(build_scripts):
    """Compile distbal-wrap to where scripts are collected, instead of copying its sources there."""

    def run(self) -> None:
        self.mkpath(self.build_dir)
        target = str(Path(self.build_dir) / "distbal-wrap")
        Path(target).unlink(missing_ok=True)
        command = compiler()
        if command is None:
            if os.environ.get("DISTBAL_WRAP") == "yes":
                raise CompileError(NO_COMPILER)
            if os.environ.get("DISTBAL_WRAP") != "no":
                self.warn(NO_COMPILER)
            return
        flags = shlex.split(os.environ.get("CFLAGS", "-O2"))
        define = f'-DDISTBAL_VERSION="{version()}"'
        link = shlex.split(os.environ.get("LDFLAGS", ""))
        try:
            subprocess.run([*command, *flags, define, "-o", target, *WRAP_SOURCES, *link], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise CompileError(
                f"distbal-wrap does not compile: {error}. Where the compiler has no C library to include, install it"
                " (apt-get install libc6-dev); DISTBAL_WRAP=no installs distbal without its client."
            ) from error


class BdistWheel(bdist_wheel):
    """The client is compiled for a platform and for no Python: py3-none-PLATFORM with it, py3-none-any without."""

    def get_tag(self) -> tuple[str, str, str]:
        python, abi, platform = super().get_tag()
        if compiler() is not None and not self.plat_name_supplied:
            platform = re.sub(r"[^0-9A-Za-z_]", "_", sysconfig.get_platform())
        return python, abi, platform


#: what not everybody needs, by what it is needed for
EXTRAS = {
    "ssh": [
        "twisted[conch]",  # its SSH, in the version that install_requires has
    ],
    "web": [
        "prometheus-client>=0.16",  # /metrics in both of Prometheus's formats; Debian 12's, which is from 2023
    ],
    "snmp": [
        "pysnmp>=7.1.30",  # speaks the protocol, version 3 too; older ones make today's cryptography warn at each message
        "cryptography>=47",  # what pysnmp encrypts with, without asking for it; the first that has CFB where pysnmp looks
    ],
}
ALL = sorted({library for libraries in EXTRAS.values() for library in libraries})

OPTIONS: dict[str, Any] = {"cmdclass": {"build_scripts": BuildScripts, "bdist_wheel": BdistWheel}}
if WRAP_SOURCES:
    OPTIONS["scripts"] = WRAP_SOURCES

setup(
    name="distbal",
    version=version(),
    description="One place that knows every distcc server of a farm, and lends each job the best one free now",
    long_description=(HERE / "README.md").read_text(encoding="utf-8") if (HERE / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    author="The distbal authors",
    license_expression="MIT",
    license_files=["LICENSE"],
    keywords="distcc compile farm load balancer scheduler",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: No Input/Output (Daemon)",
        "Framework :: Twisted",
        "Intended Audience :: Developers",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: C",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: Software Development :: Build Tools",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    # constraints-min.txt holds these minimum versions, and CI runs the tests with exactly those
    install_requires=[
        "twisted>=22.10.0",  # the event loop, twistd, its logging and its endpoints
        "zope.interface>=5.5.2",  # the interfaces that Twisted's plugins, and later the monitors, declare
        "pyyaml>=6.0",  # reads hosts.yaml and knows on which line everything stands
        "pydantic>=2.0",  # the settings' types and their JSON Schema from one source
    ],
    extras_require={
        **EXTRAS,
        "all": ALL,
        "dev": [
            *ALL,  # every kind of monitor is tested
            "coverage>=7.10",  # the first that counts subprocesses by itself
            "hypothesis",
            "jsonschema",
            "mypy<2.5",  # as mypy-zope has it
            "mypy-zope",
            "pyte",  # a terminal, to see what the shell over SSH shows
            "pytest>=9.0",
            "pytest-twisted>=1.14.3",
            "ruff",
            "setuptools>=77",  # the packaging tests build without fetching it again
            "twisted[tls]",  # for the tests of ssl: endpoints
            "types-PyYAML",
            "types-jsonschema",
        ],
    },
    # "" is the checkout itself: with it, `pip install -e` puts the checkout on the path, and twisted/plugins is found there
    package_dir={"": "."},
    packages=[*find_packages(include=["distbal", "distbal.*"]), "twisted.plugins"],
    package_data={"distbal": ["py.typed", "completions/*"], "distbal.web": ["*.css", "*.js"]},
    include_package_data=False,
    entry_points={"console_scripts": ["distbal = distbal.cli:main"]},
    zip_safe=False,
    **OPTIONS,
)
