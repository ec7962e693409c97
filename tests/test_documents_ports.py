"""What operations.md says of strangers, files and the unit is what the code, and systemd, make of them."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from distbal import adminport, briefports, descriptors, listening, loop, wire
from distbal.bounds import BOUNDS
from distbal.listeners import FOR_ALL
from distbal.listenspec import KINDS
from distbal.proxy import session
from distbal.web import live, site
from tests.support import ROOT, need

OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
_, _, REST = OPERATIONS.partition("\n## What each port lets a stranger do\n")
CHAPTER = REST.partition("\n## ")[0]
UNIT = ROOT / "etc" / "distbal.service"
#: what the unit leaves open since the work is done with it, by systemd's names
LEFT = {
    "DeviceAllow=",
    "IPAddressDeny=",
    "PrivateNetwork=",
    "PrivateUsers=",
    "ProcSubset=",
    "RestrictAddressFamilies=~AF_(INET|INET6)",
    "RestrictAddressFamilies=~AF_UNIX",
    "RootDirectory=/RootImage=",
}
#: the first systemd of which all names are known; later ones look at more
KNOWN = 252


@pytest.mark.parametrize(
    "words",
    [
        f"| {descriptors.CROWD} each, or a sixteenth",
        f"{loop._SINK >> 10} KiB at a time",
        f"{wire.MAX_LINE:,} bytes, {briefports.PATIENCE:g} s in all",
        f"{site.PATIENCE:g} s in all, a body of {site.BODY >> 10} KiB",
        f"browsers that follow the page | {live.MOST_LISTENERS} |",
        f"takes nothing for {live.STUCK:g} s",
        f"reads 5657 | {briefports.READING_TIME:g} s",
        f"{session.STALL_TIME:g} s without taking",
        f"{adminport.CROWD} at once, lines of {adminport.MOST_REQUEST >> 10} KiB, {adminport.PATIENCE:g} s of silence",
        f"{listening.CLIENTS_MODE:04o} for 5656, 5657, the proxy and the page",
        f"{listening.ADMIN_MODE:04o} for 5658 and the admin socket",
    ],
)
def test_the_bounds_of_the_chapter_are_those_of_the_code(words: str) -> None:
    assert words in " ".join(CHAPTER.split())


def test_the_bounds_of_the_manhole_are_those_of_the_code() -> None:
    pytest.importorskip("bcrypt", reason="Twisted Conch's libraries are not here: pip install 'distbal[ssh]'")
    from distbal.manhole import factory, transport
    from distbal.manhole import session as session_of_ssh

    words = f"{factory.MOST_STRANGERS} that have not logged in, {factory.GRACE:g} s each, ten tries"
    assert f"{words}; {factory.MOST_CONNECTIONS} that have" in CHAPTER
    assert transport.MOST_TRIES == 10
    table = OPERATIONS.partition("\n## How the daemon itself is\n")[2]
    assert f"{factory.MOST_STRANGERS} SSH clients that have not logged in; {factory.MOST_CONNECTIONS} that have" in table
    assert f"{session_of_ssh.MOST_SESSIONS} sessions of one SSH client" in table
    unread = f"{transport.MOST_UNREAD >> 20} MiB of a session; {transport.MOST_HEARD >> 10} KiB that are sent before the login"
    assert unread in table


def test_every_port_has_its_line() -> None:
    first = [row.split("|")[1] for row in CHAPTER.partition("**Who gets in.**")[0].splitlines() if row.startswith("|")]
    assert {kind for kind in KINDS for words in first if kind in words} == set(KINDS)
    assert set(FOR_ALL) == {"balance", "status", "proxy", "web"}


def test_what_the_unit_leaves_is_in_the_manual_and_nothing_else_is_left() -> None:
    need("systemd-analyze")
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=14", "--json=short", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    exposed = {one["name"] for one in json.loads(done.stdout) if one["set"] is False}
    assert exposed >= LEFT
    version = int(
        subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    )
    if version <= KNOWN:
        assert exposed == LEFT
    for name in LEFT:
        assert f"`{name}`".replace("|", "\\|") in CHAPTER, name


def test_every_bound_that_is_counted_has_its_row() -> None:
    rows = OPERATIONS.partition("\n## How the daemon itself is\n")[2].partition("\n## ")[0].splitlines()
    first = [row.split("|")[1] for row in rows if row.startswith("| `")]
    assert sorted(name for words in first for name in re.findall("`([a-z-]+)`", words)) == sorted(BOUNDS)
    table = " ".join(rows)
    for words in (
        f"| {descriptors.CROWD} at once for each port",
        f"a line of {wire.MAX_LINE:,} bytes, within {briefports.PATIENCE:g} s",
        f"| {adminport.CROWD} callers at once",
        f"a request of {adminport.MOST_REQUEST >> 10} KiB",
        f"a body of {site.BODY >> 10} KiB",
        f"{live.MOST_LISTENERS} browsers that follow",
        f"{live.STUCK:g} s in which a browser takes nothing",
    ):
        assert words in table, words
