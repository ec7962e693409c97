"""Whose key opens the manhole, and the key that it shows itself."""

from __future__ import annotations

# half of Conch has no types
# mypy: disallow-untyped-calls=false
import os
import stat
from base64 import b64encode
from pathlib import Path

import pytest

from tests.services import Lines

pytest.importorskip("bcrypt", reason="Twisted Conch's libraries are not here: pip install 'distbal[ssh]'")

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from twisted.conch.ssh.common import MP, NS
from twisted.conch.ssh.keys import Key
from twisted.internet.task import Clock
from twisted.logger import Logger

from distbal import manhole
from distbal.complaints import Complaints
from distbal.manhole import authorized
from distbal.manhole.authorized import AuthorizedKeys, Entry
from distbal.manhole.hostkey import HostKeyError, host_key

ED = Key(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)))
EC = Key(ec.derive_private_key(7, ec.SECP256R1()))
RSA = Key(rsa.generate_private_key(65537, 2048))


def line(key: Key, comment: str = "chuck@desk") -> str:
    return f"{key.public().toString('openssh').decode().strip()} {comment}".strip()


def only(text: str) -> Entry:
    entries, wrong = authorized.parse(text)
    assert wrong == []
    (entry,) = entries.values()
    return entry


def why_not(text: str) -> str:
    entries, wrong = authorized.parse(text)
    assert entries == {}
    ((number, why),) = wrong
    assert number == 1
    return why


@pytest.mark.parametrize("key", [ED, EC, RSA], ids=["ed25519", "ecdsa", "rsa"])
def test_a_line_for_each_type_of_key(key: Key) -> None:
    entry = only(f"# people\n\n  {line(key)}\n")
    assert (entry.line, entry.blob, entry.name, entry.pty, entry.command) == (3, key.public().blob(), "chuck@desk", True, None)
    assert entry.why_not("10.0.0.9", 0.0) == ""
    assert only(line(key, "")).name.startswith("SHA256:")
    assert only(line(key, "a\x1b[31m  " + "b" * 200)).name == "a?[31m  " + "b" * 92


def test_the_first_line_of_a_key_counts() -> None:
    assert only(f'command="status" {line(ED)}\n{line(ED)}\n').command == "status"


def test_options_that_are_honoured() -> None:
    entry = only(f'restrict,command="drain \\"x, y\\" z",from="10.0.0.*,!10.0.0.7,fd00::/8",EXPIRY-time="20300101Z" {line(ED)}')
    assert entry.command == 'drain "x, y" z'
    assert not entry.pty
    assert only(f'restrict,pty,no-port-forwarding,permitopen="x:1" {line(ED)}').pty
    for address, allowed in (("10.0.0.9", True), ("10.0.0.7", False), ("10.0.1.9", False), ("fd00::9", True), ("", False)):
        assert (entry.why_not(address, 0.0) == "") is allowed
    assert entry.why_not("10.0.0.9", 1893455999.0) == ""
    assert entry.why_not("10.0.0.9", 1893456000.0) == "has expired (expiry-time)"
    local = only(f'expiry-time="203001011530" {line(ED)}').expires
    assert local is not None
    assert abs(local - 1893511800.0) <= 14 * 3600


SHORT_RSA = "ssh-rsa " + b64encode(NS(b"ssh-rsa") + MP(65537) + MP(1 << 1023 | 1)).decode()
HUGE_RSA = "ssh-rsa " + b64encode(NS(b"ssh-rsa") + MP(65537) + MP(1 << 20_000 | 1)).decode()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f'environment="A=b" {line(ED)}', "its option environment is not known here"),
        (f'principals="x" {line(ED)}', "its option principals is not known here"),
        (f"command {line(ED)}", 'its option command wants a value: command="..."'),
        (f'from="10.0.0.0/99" {line(ED)}', '"10.0.0.0/99" in its option from is no range of addresses'),
        (f'expiry-time="tomorrow" {line(ED)}', "its expiry-time is no time"),
        (f'command="status {line(ED)}', "it begins with neither a type of key nor options"),
        ("nonsense", "it begins with neither a type of key nor options"),
        ("ssh-dss AAAA x", '"ssh-dss" is no type of key that distbal takes: ssh-ed25519, '),
        ("sk-ssh-ed25519@openssh.com AAAA x", "a security key's, which distbal does not take"),
        ("ssh-ed25519 AAAA x", "it cannot be read"),
        ("ssh-ed25519 ?? x", "is no base64"),
        ("ssh-ed25519", "it cannot be read"),
        ("ecdsa-sha2-nistp384" + line(EC).removeprefix("ecdsa-sha2-nistp256"), "it says itself to be ecdsa-sha2-nistp256"),
        (SHORT_RSA, "an RSA key has 2048 to 16384 bits, and this one 1024"),
        (HUGE_RSA, "an RSA key has 2048 to 16384 bits, and this one 20001"),
        ("ssh-rsa AAAA", "it cannot be read"),
    ],
)
def test_lines_that_do_not_count(text: str, why: str) -> None:
    assert why in why_not(text)


def keys_in(path: Path) -> AuthorizedKeys:
    return AuthorizedKeys(str(path), Complaints(Logger(), Clock().seconds))


def test_the_file_counts_as_it_is_now(tmp_path: Path) -> None:
    path = tmp_path / "authorized_keys"
    keys = keys_in(path)
    with Lines() as lines:
        assert keys.find(ED.public().blob()) is None
    assert f"nobody can log in: {path}: No such file or directory; it has a line for each public key" in lines
    path.write_text(line(ED))
    path.chmod(0o644)
    assert keys.find(ED.public().blob()) is not None
    with Lines() as lines:
        path.write_text(f"\nnonsense\n{line(EC)}\n")
        assert keys.find(ED.public().blob()) is None
        assert keys.find(EC.public().blob()) is not None
    # once for each change of the file
    assert len(lines.of("warn")) == 1
    assert f"{path}:2: this key is not taken: it begins with neither" in lines


@pytest.mark.parametrize("mode", [0o666, 0o660, 0o602])
def test_a_file_that_others_may_write_is_not_taken(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "authorized_keys"
    path.write_text(line(ED))
    path.chmod(mode)
    with Lines() as lines:
        assert keys_in(path).read() == {}
    assert f"others may write {path}, and so let anybody in: chmod go-w {path}" in lines


def test_no_file_at_all(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    big = tmp_path / "big"
    big.write_text("#" * 300_000)
    big.chmod(0o600)
    for path, why in ((fifo, ": it is not a file"), (tmp_path, ": it is not a file"), (big, " has more than 262144 bytes")):
        with Lines() as lines:
            assert keys_in(path).read() == {}
        assert f"{path}{why}" in lines


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_somebody_else_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "authorized_keys"
    path.write_text(line(ED))
    os.chown(path, 4711, 4711)
    with Lines() as lines:
        assert keys_in(path).read() == {}
    assert f"{path} belongs to somebody else (user 4711), who could let anybody in: chown it" in lines


def test_no_more_keys_than_are_meant() -> None:
    keys = [Key(ed25519.Ed25519PrivateKey.generate()) for _ in range(authorized.MOST_KEYS + 2)]
    entries, wrong = authorized.parse("\n".join(map(line, keys)))
    assert len(entries) == authorized.MOST_KEYS
    assert wrong == [(1001, "the file has more than 1000 keys")]


# -- the host key


def test_a_host_key_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "host_key"
    mask = os.umask(0)
    try:
        with Lines() as lines:
            made = host_key(str(path))
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["host_key"]
    assert f"manhole: made a host key, {path}" in lines
    assert "manhole: its host key is SHA256:" in lines
    assert host_key(str(path)) == made
    assert made.type() == "Ed25519"


@pytest.mark.parametrize("key", [EC, RSA], ids=["ecdsa", "rsa"])
def test_a_host_key_of_another_type(tmp_path: Path, key: Key) -> None:
    path = tmp_path / "host_key"
    path.touch(0o600)
    path.write_bytes(key.toString("openssh"))
    assert host_key(str(path)) == key


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [
        (ED.toString("openssh"), 0o640, "others may read the manhole's host key"),
        (ED.toString("openssh", passphrase=b"x"), 0o600, "has a passphrase, which nobody is there to type"),
        (ED.public().toString("openssh"), 0o600, "is the public half of a key"),
        (b"nonsense", 0o600, "holds no private key; remove it, and the manhole makes a new one"),
        (b"", 0o600, "holds no private key"),
    ],
)
def test_a_host_key_that_cannot_be_used(tmp_path: Path, content: bytes, mode: int, why: str) -> None:
    path = tmp_path / "host_key"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(HostKeyError) as caught:
        host_key(str(path))
    assert why in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_host_key_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(HostKeyError, match=f"there is no directory {tmp_path}/none for the manhole's host key: make it"):
        host_key(str(tmp_path / "none" / "host_key"))
    with pytest.raises(HostKeyError, match="is not a file"):
        host_key(str(tmp_path))


def test_where_it_is_there() -> None:
    assert manhole.why_unavailable() == ""
