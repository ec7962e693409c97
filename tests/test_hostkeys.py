"""known_hosts: whose line is whose, and what is said of a key that is not there."""

from __future__ import annotations

from base64 import b64decode, b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbal.monitors.hostkeys import SSH_PORT, HostKey, KnownHosts, fingerprint, kind_of, name_of, scan
from tests.sshd import keygen
from tests.support import need


def key(kind: str, secret: bytes = b"1") -> bytes:
    """A public key as it goes over the wire."""
    return len(kind).to_bytes(4) + kind.encode() + len(secret).to_bytes(4) + secret


def line(names: str, blob: bytes, kind: str = "") -> str:
    return f"{names} {kind or kind_of(blob)} {b64encode(blob).decode()} somebody's comment\n"


ONE, TWO, RSA = key("ssh-ed25519"), key("ssh-ed25519", b"2"), key("ssh-rsa")


@pytest.mark.parametrize(
    ("names", "host", "port", "matches"),
    [
        ("box", "box", 22, True),
        ("box", "BOX", 22, True),
        ("BOX", "box", 22, True),
        ("box", "box", 2222, False),
        ("[box]:2222", "box", 2222, True),
        ("[box]:2222", "box", 22, False),
        ("[box]:22", "box", 22, False),
        ("10.0.0.7,box,other", "box", 22, True),
        ("[fd00::7]:2222", "fd00::7", 2222, True),
        ("fd00::7", "fd00::7", 22, True),
        ("box", "boxes", 22, False),
        ("*", "box", 22, True),
        ("*", "box", 2222, True),
        ("*.farm", "box.farm", 22, True),
        ("*.farm", "boxfarm", 22, False),
        ("box?", "box1", 22, True),
        ("box?", "box", 22, False),
        ("[b?x]:2222", "box", 2222, True),
        ("*,!box", "box", 22, False),
        ("!box,*", "box", 22, False),
        ("*,!box", "other", 22, True),
        ("b.x", "box", 22, False),
        ("|1|AAAA|AAAA", "box", 22, False),
        ("|1|AAAA", "box", 22, False),
        ("|1|é|AAAA", "box", 22, False),
    ],
)
def test_whose_a_line_is(names: str, host: str, port: int, matches: bool) -> None:
    known = KnownHosts("known_hosts", line(names, ONE))
    assert known.kinds(host, port) == (["ssh-ed25519"] if matches else [])
    assert (known.why_not(host, port, ONE) == "") is matches


@pytest.mark.programs
def test_hashed_names_are_those_of_ssh_keygen(tmp_path: Path) -> None:
    need("ssh-keygen")
    keygen("-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key"))
    public = " ".join((tmp_path / "key.pub").read_text().split()[:2])
    path = tmp_path / "known_hosts"
    path.write_text(f"box {public}\n[box]:2222,[10.0.0.7]:2222 {public}\n")
    keygen("-H", "-f", str(path))
    text = path.read_text()
    assert "box" not in text
    known = KnownHosts(str(path), text)
    for host, port, kinds in [("box", 22, 1), ("Box", 2222, 1), ("10.0.0.7", 2222, 1), ("10.0.0.7", 22, 0), ("other", 22, 0)]:
        assert len(known.kinds(host, port)) == kinds, (host, port)
    blob = b64decode(public.split()[1])
    assert keygen("-l", "-f", str(tmp_path / "key")).split()[1] == fingerprint(blob)


@pytest.mark.parametrize(
    "bad",
    [
        "\n",
        "# box ssh-ed25519 AAAA\n",
        "#box ssh-ed25519 AAAA\n",
        "box\n",
        "box ssh-ed25519\n",
        "box ssh-ed25519 not-base64\n",
        "box ssh-ed25519 AAAA\n",
        line("box", ONE, "ssh-rsa"),
        f"@cert-authority {line('box', ONE)}",
        f"@unheard-of {line('box', ONE)}",
        "@revoked\n",
        "\x00\xff\n",
    ],
)
def test_lines_that_say_nothing_are_passed_over(bad: str) -> None:
    known = KnownHosts("known_hosts", bad)
    assert known.kinds("box", 22) == []
    known = KnownHosts("known_hosts", bad + line("box", ONE))
    assert known.why_not("box", 22, ONE) == ""
    assert "known_hosts:2 has" in known.why_not("box", 22, TWO)


def test_the_types_are_in_the_file_s_order() -> None:
    text = line("box", RSA) + line("other", key("ecdsa-sha2-nistp256")) + line("box", ONE) + line("*", TWO)
    assert KnownHosts("known_hosts", text).kinds("box", 22) == ["ssh-rsa", "ssh-ed25519"]


def test_one_of_several_keys_will_do() -> None:
    known = KnownHosts("known_hosts", line("box", RSA) + line("box", ONE) + line("box", TWO))
    assert [known.why_not("box", 22, blob) for blob in (RSA, ONE, TWO)] == ["", "", ""]


def test_what_is_said_of_a_host_that_is_not_known() -> None:
    known = KnownHosts("/etc/distbal/known_hosts", line("box", ONE))
    words = known.why_not("box", 2222, ONE)
    assert words == (
        f"has a host key that is not known, ssh-ed25519 {fingerprint(ONE)}: compare it with the host's own, and add it"
        " (ssh-keyscan -p 2222 box >>/etc/distbal/known_hosts)"
    )
    assert len(words) <= 200
    assert "(ssh-keyscan other >>" in known.why_not("other", SSH_PORT, ONE)


def test_what_is_said_of_another_key() -> None:
    known = KnownHosts("/var/lib/distbal/.ssh/known_hosts", line("other", ONE) + line("box", RSA) + line("box", ONE))
    words = known.why_not("box", 22, TWO)
    assert words == (
        f"shows another host key than /var/lib/distbal/.ssh/known_hosts:3 has: ssh-ed25519 {fingerprint(TWO)}."
        " If that is right, replace the line (ssh-keyscan box)"
    )
    assert len(words) <= 200
    ecdsa = key("ecdsa-sha2-nistp256")
    assert known.why_not("box", 22, ecdsa).startswith(
        "shows another host key than /var/lib/distbal/.ssh/known_hosts:2 has: ecdsa-"
    )


def test_a_revoked_key_is_refused_wherever_the_line_stands() -> None:
    for text in (line("box", ONE) + "@revoked " + line("*", ONE), "@revoked " + line("*", ONE) + line("box", ONE)):
        known = KnownHosts("known_hosts", text + line("box", TWO))
        assert "has revoked" in known.why_not("box", 22, ONE)
        assert known.why_not("box", 22, TWO) == ""
    known = KnownHosts("known_hosts", "@revoked " + line("box", ONE))
    assert known.kinds("box", 22) == []
    assert "is not known" in known.why_not("box", 22, TWO)


@given(st.binary(max_size=60))
def test_any_key_has_a_type_that_can_be_shown(blob: bytes) -> None:
    kind = kind_of(blob)
    assert kind.isprintable()
    assert len(kind) <= 40


@given(st.text(max_size=80), st.text(max_size=20))
def test_any_text_can_be_read(text: str, name: str) -> None:
    known = KnownHosts("known_hosts", text)
    assert known.kinds(name, 22) == []
    assert known.why_not(name, 22, ONE) != ""
    HostKey(1, text, "ssh-rsa", RSA, revoked=False).is_of(name)


def test_names() -> None:
    assert [name_of("Box", 22), name_of("box", 2222), scan("box", 22)] == ["box", "[box]:2222", "ssh-keyscan box"]
