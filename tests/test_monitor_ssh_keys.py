"""The ``ssh`` kind: whose host key is trusted, and who logs in with which key. Against Debian's sshd and ssh-agent."""

from __future__ import annotations

import os
import shutil
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from distbal.errors import MonitorTrouble
from distbal.monitors.hostkeys import KnownHosts, fingerprint
from distbal.monitors.readings import MOST_REASON, one_line
from distbal.monitors.sshlink import Files
from tests.services import Lines
from tests.sshd import (
    KINDS,
    USER,
    Keys,
    Sshd,
    agent,
    asking,
    keygen,
    options_without_server,
    trouble,
    trouble_with,
)

pytest.importorskip("bcrypt", reason="Conch needs bcrypt, which is not installed here")
programs = pytest.mark.programs


@programs
@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_keys_of_every_type_log_in(sshd: Sshd, kind: str) -> None:
    await sshd.start()
    async with asking(sshd.options(key=str(sshd.keys.private(f"user_{kind}")))) as monitor:
        assert (await monitor.check()).up


@programs
@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_a_server_is_asked_for_the_key_that_is_known(sshd: Sshd, kind: str) -> None:
    await sshd.start()
    sshd.know(kind)
    async with asking(sshd.options()) as monitor:
        assert (await monitor.check()).up


@programs
@pytest_twisted.ensureDeferred
async def test_known_hosts_may_be_hashed(sshd: Sshd) -> None:
    await sshd.start()
    keygen("-H", "-f", str(sshd.known_hosts))
    assert "127.0.0.1" not in sshd.known_hosts.read_text()
    before = sshd.known_hosts.read_bytes()
    async with asking(sshd.options()) as monitor:
        assert (await monitor.check()).up
    assert sshd.known_hosts.read_bytes() == before


@programs
@pytest_twisted.ensureDeferred
async def test_a_host_that_is_not_known(sshd: Sshd) -> None:
    await sshd.start()
    sshd.know("ed25519", name="other.invalid")
    async with asking(sshd.options()) as monitor:
        words = await trouble(monitor)
        print_of_key = keygen("-l", "-f", str(sshd.keys.private("host_ed25519"))).split()[1]
        assert words == (
            f"has a host key that is not known, ssh-ed25519 {print_of_key}: compare it with the host's own, and add it"
            f" (ssh-keyscan -p {sshd.port} 127.0.0.1 >>{sshd.known_hosts})"
        )
        sshd.know("ed25519")
        assert (await monitor.check()).up, "the file is read again"


def test_what_is_shown_of_a_trouble_has_the_whole_fingerprint() -> None:
    """Or nobody could compare it: the end of a long sentence is cut."""
    path, host = "/var/lib/distbal-of-the-farm/.ssh/known_hosts", "build-server-17.engineering.example.org"
    key = "AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43
    for text in ("", f"[{host}]:2222 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{'B' * 43}"):
        words = KnownHosts(path, text).why_not(host, 2222, b64decode(key))
        assert fingerprint(b64decode(key)) in one_line(words, MOST_REASON)


@programs
@pytest_twisted.ensureDeferred
async def test_a_host_whose_key_has_changed(sshd: Sshd, tmp_path: Path) -> None:
    sshd.know("ed25519")
    keygen("-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "host_ed25519"))
    sshd.keys = Keys(tmp_path)
    sshd.host_kinds, sshd.user_keys = ("ed25519",), ()
    await sshd.start()
    words = await trouble_with(sshd.options(key=str(tmp_path / "host_ed25519")))
    assert words.startswith(f"shows another host key than {sshd.known_hosts}:1 has: ssh-ed25519 SHA256:")
    assert words.endswith(f". If that is right, replace the line (ssh-keyscan -p {sshd.port} 127.0.0.1)")
    assert sshd.logins == 0


@programs
@pytest_twisted.ensureDeferred
async def test_a_host_without_a_key_of_the_type_that_is_known(sshd: Sshd) -> None:
    sshd.host_kinds = ("ecdsa",)
    await sshd.start()
    assert "shows another host key" in await trouble_with(sshd.options())


@programs
@pytest_twisted.ensureDeferred
async def test_a_host_key_that_is_revoked(sshd: Sshd) -> None:
    await sshd.start()
    sshd.known_hosts.write_text(sshd.known_hosts.read_text() + "@revoked * " + sshd.keys.public("host_ed25519") + "\n")
    assert f"which {sshd.known_hosts}:2 has revoked" in await trouble_with(sshd.options())


@programs
@pytest_twisted.ensureDeferred
async def test_there_is_no_known_hosts(sshd: Sshd) -> None:
    sshd.known_hosts.unlink()
    words = await trouble_with(sshd.options())
    assert words.startswith(f"cannot be told from an impostor: there is no {sshd.known_hosts}; ssh-keyscan -p {sshd.port}")
    sshd.known_hosts.mkdir()
    assert await trouble_with(sshd.options()) == f"cannot be told from an impostor: {sshd.known_hosts}: is no file"


@programs
@pytest_twisted.ensureDeferred
async def test_a_key_that_is_not_authorized(sshd: Sshd) -> None:
    sshd.user_keys = ("user_rsa",)
    await sshd.start()
    async with asking(sshd.options()) as monitor:
        words = await trouble(monitor)
        key = sshd.keys.private("user_ed25519")
        print_of_key = keygen("-l", "-f", str(key)).split()[1]
        assert words == (
            f"does not let {USER} in with {key} ({print_of_key}): does the user exist, and is that key in its authorized_keys?"
        )
        with (sshd.directory / "authorized_keys").open("a") as file:
            file.write(sshd.keys.public("user_ed25519"))
        assert (await monitor.check()).up


@programs
@pytest_twisted.ensureDeferred
async def test_a_user_who_does_not_exist(sshd: Sshd) -> None:
    await sshd.start()
    assert (await trouble_with(sshd.options(user="nobody-of-that-name"))).startswith(
        "does not let nobody-of-that-name in with "
    )


@pytest_twisted.ensureDeferred
async def test_rsa_keys_sign_with_what_the_server_takes(tmp_path: Path) -> None:
    from distbal.monitors.sshkeys import parsed_key
    from distbal.monitors.sshtalk import Connection, Login, Talk

    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    options = options_without_server(tmp_path, 22, rsa.generate_private_key(65537, 2048))
    assert options.key is not None
    key = Files().read(options.key, 10_000, parsed_key)
    assert key is not None
    for taken, name in [
        ({}, b"rsa-sha2-512"),
        ({b"server-sig-algs": b"ssh-ed25519,rsa-sha2-256,rsa-sha2-512"}, b"rsa-sha2-512"),
        ({b"server-sig-algs": b"ssh-rsa,rsa-sha2-256"}, b"rsa-sha2-256"),
        ({b"server-sig-algs": b"ssh-rsa"}, None),
    ]:
        talk = Talk("127.0.0.1", 22, USER, KnownHosts("", ""), [key])
        talk.peerExtensions = taken
        login = Login(USER, Connection(), [key])  # type: ignore[no-untyped-call]
        login.transport = talk
        assert login._algorithm_of(key) == name
        if name is None:
            login.serviceStarted()
            with pytest.raises(MonitorTrouble, match=r"takes no RSA key that signs with SHA-2 \(PubkeyAcceptedAlgorithms"):
                await talk.run("true", 0)


@pytest_twisted.ensureDeferred
async def test_each_key_signs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often a server says that it would take it: a signature costs milliseconds, in which nothing else runs."""
    from distbal.monitors.sshkeys import parsed_key
    from distbal.monitors.sshtalk import Connection, Login, Talk

    options = options_without_server(tmp_path, 22)
    assert options.key is not None
    key = Files().read(options.key, 10_000, parsed_key)
    assert key is not None
    talk = Talk("127.0.0.1", 22, USER, KnownHosts("", ""), [key])
    login = Login(USER, Connection(), [key])  # type: ignore[no-untyped-call]
    login.instance = login
    login.name = b"ssh-connection"
    login.transport = talk
    sent: list[bytes] = []
    monkeypatch.setattr(login, "askForAuth", lambda kind, extra: sent.append(extra))
    login.serviceStarted()
    login.ssh_USERAUTH_PK_OK_publickey(b"")
    assert [extra[:1] for extra in sent] == [b"\0", b"\1"]
    login.ssh_USERAUTH_PK_OK_publickey(b"")
    assert len(sent) == 2
    with pytest.raises(MonitorTrouble, match="does not speak SSH as it should: it wants the same signature twice"):
        await talk.run("true", 0)


# -- keys


@pytest.fixture
def other_key(keys: Keys, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of the user's ed25519 key that is changed somehow."""

    def copy(passphrase: str) -> Path:
        path = tmp_path / "key"
        shutil.copy(keys.private("user_ed25519"), path)
        if passphrase:
            keygen("-q", "-p", "-P", "", "-N", passphrase, "-f", str(path))
        return path

    return copy


@programs
@pytest_twisted.ensureDeferred
async def test_keys_that_cannot_be_used(sshd: Sshd, other_key: Callable[[str], Path], tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert await trouble_with(sshd.options(key=str(missing))) == (
        f"cannot be logged in to: there is no key {missing}; ssh-keygen -t ed25519 -N '' -f {missing} makes one"
    )
    key = other_key("")
    key.chmod(0o640)
    words = f"cannot be logged in to: others may read the private key {key}; chmod 600 {key}"
    assert await trouble_with(sshd.options(key=str(key))) == words
    encrypted = other_key("secret")
    words = await trouble_with(sshd.options(key=str(encrypted)))
    assert words.startswith(f"cannot be logged in to: the key {encrypted} has a passphrase, which nobody is there to type")
    public = sshd.keys.directory / "user_rsa.pub"
    words = await trouble_with(sshd.options(key=str(public)))
    assert words == f"cannot be logged in to: {public} is the public half of a key; key: names the private one"
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n")
    words = f"cannot be logged in to: {key} holds no private key that distbal can read"
    assert await trouble_with(sshd.options(key=str(key))) == words
    key.write_bytes(bytes(100_000))
    assert "is larger than 65536 bytes" in await trouble_with(sshd.options(key=str(key)))
    os.mkfifo(tmp_path / "pipe")
    assert "is no file" in await trouble_with(sshd.options(key=str(tmp_path / "pipe")))


def test_the_file_that_is_looked_at_is_the_one_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was put in its place meanwhile is not taken with the permissions of the other."""
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text("good")
    good.chmod(0o600)
    bad.write_text("bad")
    bad.chmod(0o644)
    path = tmp_path / "link"

    def modes(_: str, content: bytes, status: os.stat_result) -> tuple[bytes, int]:
        return content, status.st_mode & 0o777

    looked = os.stat

    def look_and_swap(*words: Any, **more: Any) -> os.stat_result:
        status = looked(*words, **more)
        if words[0] == str(path):
            path.unlink()
            path.symlink_to(bad)
        return status

    path.symlink_to(good)
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", look_and_swap)
        assert Files().read(str(path), 100, modes) in ((b"good", 0o600), (b"bad", 0o644))


@programs
@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_an_agent_logs_in(sshd: Sshd, kind: str, monkeypatch: pytest.MonkeyPatch, descriptors_stay: None) -> None:
    await sshd.start()
    with agent(sshd.directory, sshd.keys.private(f"user_{kind}")) as socket:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        with Lines() as lines:
            async with asking(sshd.options(key=None, agent=True)) as monitor:
                assert (await monitor.check()).up
                assert (await monitor.check()).up
        assert lines.all == []
    assert sshd.logins == 1


@programs
@pytest_twisted.ensureDeferred
async def test_an_agent_has_the_key_whose_file_cannot_sign(
    sshd: Sshd, other_key: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sshd.user_keys = ("user_ed25519",)
    await sshd.start()
    encrypted = other_key("secret")
    with agent(sshd.directory, *(sshd.keys.private(f"user_{kind}") for kind in ("rsa", "ed25519"))) as socket:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        for key in (encrypted, sshd.keys.directory / "user_ed25519.pub", sshd.keys.private("user_ecdsa")):
            async with asking(sshd.options(key=str(key), agent=True)) as monitor:
                assert (await monitor.check()).up, key
        words = await trouble_with(sshd.options(key=str(sshd.keys.directory / "host_rsa.pub"), agent=True))
        assert words.startswith(f"cannot be logged in to: the agent does not hold {sshd.keys.directory / 'host_rsa.pub'}")


@programs
@pytest_twisted.ensureDeferred
async def test_agents_that_are_of_no_use(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    sshd.user_keys = ("user_ed25519",)
    await sshd.start()
    options = sshd.options(key=None, agent=True)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    assert await trouble_with(options) == "cannot be logged in to: $SSH_AUTH_SOCK is not set, so there is no agent to ask"
    monkeypatch.setenv("SSH_AUTH_SOCK", str(sshd.directory / "nothing"))
    assert (await trouble_with(options)).startswith(f"cannot be logged in to: no agent at {sshd.directory / 'nothing'}")
    with agent(sshd.directory) as socket:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        assert await trouble_with(options) == (
            "cannot be logged in to: the agent at $SSH_AUTH_SOCK holds no key; ssh-add gives it one"
        )
    socket.unlink(missing_ok=True)
    with agent(sshd.directory, *(sshd.keys.private(f"user_{kind}") for kind in ("rsa", "ecdsa"))) as socket:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        assert (await trouble_with(options)).startswith(f"does not let {USER} in with user or 1 more (SHA256:")
