"""distbal-wrap, compiled once, and a balancer for it."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT, need
from tests.wrap.support import Balancer, Wrap

SOURCES = ROOT / "distbal" / "wrap"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program as its Makefile builds it, a warning being a mistake; ``$DISTBAL_WRAP_CFLAGS`` adds, say, sanitizers."""
    need("cc", "make")
    build = tmp_path_factory.mktemp("wrap")
    flags = f"-O2 -g -std=c11 -pedantic -Werror {os.environ.get('DISTBAL_WRAP_CFLAGS', '')}"
    subprocess.run(["make", "-s", "-C", SOURCES, f"BUILD={build}", f"CFLAGS={flags}"], check=True)
    return build / "distbal-wrap"


@pytest.fixture
def wrap(program: Path, tmp_path: Path) -> Wrap:
    """The program, with an empty home."""
    return Wrap(program, tmp_path)


@pytest.fixture
def balancer(wrap: Wrap) -> Iterator[Balancer]:
    """A balancer that the test answers by hand, and that ``wrap`` asks."""
    one = Balancer()
    wrap.env["DISTBAL"] = one.address
    yield one
    one.close()


@pytest.fixture
def refusing() -> Iterator[str]:
    """An address of this machine that is taken, and refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def dark() -> Iterator[str]:
    """An address that answers a connection neither yes nor no, as a machine without power does: its queue is full."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second, socket.socket() as third:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for client in (first, second, third):
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        yield f"127.0.0.1:{full.getsockname()[1]}"


def flags_name_sanitizers() -> bool:
    """Whether the program was built in a way that a preloaded library disturbs."""
    return "sanitize" in " ".join(shlex.split(os.environ.get("DISTBAL_WRAP_CFLAGS", "")))
