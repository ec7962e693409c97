"""distcc's host syntax, and addresses to listen at: what is read is what was written, and distcc itself agrees."""

from __future__ import annotations

import ipaddress
import os
import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbal import addresses, hostspec, listenspec
from distbal.access import AccessList
from distbal.listenspec import ListenAddress
from distbal.model import ACCESS
from tests.invalid_hosts import HOST_TEXTS

VALID = {
    "box": hostspec.HostText("box"),
    "box/4": hostspec.HostText("box", 4),
    "box:3632/4,lzo": hostspec.HostText("box:3632", 4, "lzo"),
    "box,cpp,lzo": hostspec.HostText("box", None, "cpp,lzo"),
    "box/4,lzo,auth=distccd/box.example.org,cpp": hostspec.HostText("box", 4, "lzo,auth=distccd/box.example.org,cpp"),
    "box/4,auth": hostspec.HostText("box", 4, "auth"),
    "10.0.0.7:65535/999999": hostspec.HostText("10.0.0.7:65535", 999999),
    "[fd00::7]:3632/8": hostspec.HostText("[fd00::7]:3632", 8),
    "[::ffff:10.0.0.7]": hostspec.HostText("[::ffff:10.0.0.7]"),
    "[fe80::1%eth0.5]/1": hostspec.HostText("[fe80::1%eth0.5]", 1),
    "a_b.example-1.org./2": hostspec.HostText("a_b.example-1.org.", 2),
    "localhost/2": hostspec.HostText("localhost", 2),
    "lzo/2": hostspec.HostText("lzo", 2),
    "7box/2": hostspec.HostText("7box", 2),
}

labels = st.from_regex(r"[a-z_][a-z0-9_-]{0,5}[a-z0-9]", fullmatch=True)
ports = st.integers(1, 65535)
ipv4 = st.ip_addresses(v=4).map(str)
ipv6 = st.ip_addresses(v=6).map(str)
machines = st.lists(labels, min_size=1, max_size=3).map(".".join) | ipv4 | ipv6.map("[{}]".format)
options = st.sampled_from(["", "lzo", "lzo,cpp", "cpp,lzo", "auth", "auth=x", "auth,lzo", "cpp,auth=y/z,lzo"])


@pytest.mark.parametrize("text", VALID)
def test_a_host_is_taken_apart(text: str) -> None:
    assert hostspec.parse(text) == VALID[text]
    assert str(VALID[text]) == text


@given(machines, st.none() | ports, st.none() | st.integers(1, hostspec.MOST_SLOTS), options)
def test_what_is_put_together_is_taken_apart_the_same(machine: str, port: int | None, slots: int | None, told: str) -> None:
    host = hostspec.HostText(machine if port is None else f"{machine}:{port}", slots, told)
    assert hostspec.parse(str(host)) == host
    assert hostspec.address_of(host.name) == (machine.strip("[]"), port or 3632)


@given(st.text(max_size=12) | st.from_regex(r"[-a-z0-9:/,=@\[\]. %]{1,14}", fullmatch=True))
def test_a_text_is_a_host_or_gets_a_reason(text: str) -> None:
    try:
        found, reason = str(hostspec.parse(text)), ""
    except ValueError as error:
        found, reason = "", str(error)
    assert found == text if found else len(reason) > 10


def test_what_a_message_says_to_write_is_right() -> None:
    rights = [
        re.search(r"(?:: write|for '=':|in a host's text:|in YAML:) \"?([^\s\"]+)\"?$", said) for said in HOST_TEXTS.values()
    ]
    told = [right[1] for right in rights if right and right[1] != "HOST[:PORT]"]
    assert len(told) == 9
    for text in told:
        hostspec.parse(text)


@pytest.mark.programs
@pytest.mark.parametrize("text", [text for text in VALID if not text.startswith("localhost")])
def test_distcc_reads_what_is_taken_here(text: str) -> None:
    run = subprocess.run(
        ["distcc", "--show-hosts"],
        env=os.environ | {"DISTCC_HOSTS": text},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (run.returncode, run.stdout.split()) == (0, [text]), run.stderr


@given(
    ipv6
    | st.from_regex(r"[0-9a-f:]{2,20}", fullmatch=True)
    | st.from_regex(r"(::)?([0-9a-f]{1,4}:){0,8}(:|[0-9a-f]|10\.0\.0\.1)", fullmatch=True)
)
def test_the_pattern_of_ipv6_is_what_python_reads(text: str) -> None:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        assert not addresses.matches(addresses.IPV6, text)
    else:
        assert addresses.matches(addresses.IPV6, text)


@given(st.ip_addresses(v=4), st.integers(0, 33), st.booleans())
def test_the_pattern_of_ranges_is_what_access_lists_take(address: ipaddress.IPv4Address, bits: int, network: bool) -> None:
    if network and bits <= 32:
        address = ipaddress.ip_network((address, bits), strict=False).network_address  # type: ignore[assignment]
    text = f"{address}/{bits}"
    try:
        AccessList.parse([text])
    except ValueError:
        assert not addresses.matches(ACCESS, text)
    else:
        assert addresses.matches(ACCESS, text)


@pytest.mark.parametrize(
    ("value", "address"),
    [
        (5656, ListenAddress.tcp(None, 5656)),
        ("5656", ListenAddress.tcp(None, 5656)),
        (0, ListenAddress.tcp(None, 0)),
        ("127.0.0.1:5658", ListenAddress.tcp("127.0.0.1", 5658)),
        ("[::1]:5658", ListenAddress.tcp("::1", 5658)),
        ("[fe80::1%eth0]:1", ListenAddress.tcp("fe80::1%eth0", 1)),
        ("unix:/run/distbal/x.sock", ListenAddress.unix("/run/distbal/x.sock")),
        ("unix:/run/x:mode=660", ListenAddress.endpoint("unix:/run/x:mode=660")),
        ("systemd:domain=INET:index=0", ListenAddress.endpoint("systemd:domain=INET:index=0")),
        ("tcp:5656:interface=127.0.0.1", ListenAddress.endpoint("tcp:5656:interface=127.0.0.1")),
        ("tcp6:5656", ListenAddress.endpoint("tcp6:5656")),
        ("haproxy:tcp:5656", ListenAddress.endpoint("haproxy:tcp:5656")),
        ("onion:80:x=y", ListenAddress.endpoint("onion:80:x=y")),
    ],
)
def test_an_address_to_listen_at(value: object, address: ListenAddress) -> None:
    assert listenspec.parse(value) == address
    assert str(address) == str(value)


@given(st.none() | ipv4 | ipv6, st.integers(0, 65535))
def test_an_address_to_listen_at_is_shown_as_it_is_written(host: str | None, port: int) -> None:
    address = ListenAddress.tcp(host, port)
    assert listenspec.parse(str(address)) == address


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (7, 7, True),
        (7, 8, False),
        (0, 0, False),
        (7, "127.0.0.1:7", True),
        ("0.0.0.0:7", "10.0.0.1:7", True),
        ("0.0.0.0:7", "[::1]:7", False),
        ("[::]:7", "[fe80::1%eth0.5]:7", True),
        ("0.0.0.0:7", "[fe80::1%eth0.5]:7", False),
        ("127.0.0.1:7", "127.0.0.2:7", False),
        ("[::ffff:127.0.0.1]:7", "127.0.0.1:7", True),
        ("[0::1]:7", "[::1]:7", True),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "unix:/b", False),
        (7, "tcp:7", False),  # what an endpoint's text means is Twisted's to say
    ],
)
def test_two_that_cannot_both_be_listened_at(one: object, other: object, both: bool) -> None:
    assert listenspec.parse(one).overlaps(listenspec.parse(other)) is both
    assert listenspec.parse(other).overlaps(listenspec.parse(one)) is both


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("localhost", True), ("127.3.2.1", True), ("::1", True), ("::ffff:127.0.0.1", True), ("box", False), ("10.0.0.1", False)],
)
def test_the_machine_itself(host: str, loopback: bool) -> None:
    assert addresses.is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there is no name in front"),
        ("[::1", "it lacks the ] that ends an IPv6 address"),
        ("a:b", "an IPv6 address stands between brackets, as in [fd00::7]"),
        ("a\x01", "a name is made of letters, digits, '-', '_' and dots, not a control character"),
    ],
)
def test_why_a_text_is_no_host(text: str, reason: str) -> None:
    assert addresses.why_no_host(text) == reason
