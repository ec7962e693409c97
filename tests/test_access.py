"""Who may connect: the words of ``allow``, the spellings of an address, the answers kept."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbal import access
from distbal.access import AccessList, plain

LOOPBACK = ("127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1")
PRIVATE = (
    "10.0.0.9",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.3.4",
    "fd00::7",
    "fe80::1%eth0",
    "fe80::1",
    "::ffff:10.0.0.9",
    "::ffff:a00:9",
)
STRANGERS = (
    "8.8.8.8",
    "172.32.0.1",
    "172.15.255.255",
    "11.0.0.0",
    "100.64.0.1",
    "2001:db8::1",
    "::ffff:8.8.8.8",
    "::",
    "::7f00:1",  # the long deprecated IPv4-compatible form is not mapped
    "0.0.0.0",
)


@pytest.mark.parametrize(
    ("words", "allowed", "refused"),
    [
        (["loopback"], LOOPBACK, PRIVATE + STRANGERS),
        (["private"], PRIVATE, LOOPBACK + STRANGERS),
        (["loopback", "private"], LOOPBACK + PRIVATE, STRANGERS),
        (["any"], LOOPBACK + PRIVATE + STRANGERS, ()),
        ([], (), LOOPBACK + PRIVATE + STRANGERS),
        (["10.0.0.0/8"], ("10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"), ("9.255.255.255", "11.0.0.0", "::a00:0")),
        (["10.0.0.7"], ("10.0.0.7", "::ffff:10.0.0.7"), ("10.0.0.6", "10.0.0.8")),
        (["fd00::7"], ("fd00::7", "fd00:0::7", "fd00::7%eth1"), ("fd00::8", "10.0.0.7")),
        (["2001:db8::/32"], ("2001:db8:1::1",), ("2001:db9::1",)),
        (["::ffff:10.0.0.0/104"], ("10.1.2.3", "::ffff:10.1.2.3"), ("11.0.0.0",)),
        (["0.0.0.0/0"], ("8.8.8.8", "::ffff:8.8.8.8"), ("::1",)),
        (["::/0"], ("::1", "2001:db8::1"), ("8.8.8.8", "::ffff:8.8.8.8")),
        (["100.64.0.0/10"], ("100.64.0.1", "100.127.255.255"), ("100.128.0.0",)),
        ([" 10.0.0.7 "], ("10.0.0.7",), ("10.0.0.8",)),
    ],
)
def test_who_is_let_in(words: list[str], allowed: tuple[str, ...], refused: tuple[str, ...]) -> None:
    guests = AccessList.parse(words)
    for _ in range(2):  # worked out, then remembered
        assert [a for a in allowed if not guests.allows(a)] == []
        assert [a for a in refused if guests.allows(a)] == []


@pytest.mark.parametrize("words", [[], ["loopback"], ["any"], ["10.0.0.0/8"]])
def test_unix_sockets_are_guarded_by_their_file_modes(words: list[str]) -> None:
    assert AccessList.parse(words).allows("")


@pytest.mark.parametrize("address", ["build1", "/run/distbal.sock", "10.0.0", "10.0.0.9:5656", "[::1]", "%eth0"])
def test_what_is_no_address_is_in_no_range(address: str) -> None:
    assert not AccessList.parse(["loopback", "private", "0.0.0.0/0", "::/0"]).allows(address)


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("10.0.0.1/8", '"10.0.0.0/8"'),
        ("fd00::7/8", '"fd00::/8"'),
        ("10.0.0.0/33", "from 0 to 32"),
        ("10.0.0.0/", "from 0 to 32"),
        ("fd00::/129", "from 0 to 128"),
        ("10.0.0.0/255.0.0.0", "from 0 to 32"),
        ("10.0.0.0/-1", "from 0 to 32"),
        ("10.0.0.0/٨", "from 0 to 32"),
        ("Private", '"private"'),
        ("ANY", '"any"'),
        ("fe80::1%eth0", '"fe80::1"'),
        ("[fd00::7]", '"fd00::7"'),
        ("[fd00::]/8", '"fd00::/8"'),
        ("build1.example.com", "neither an address"),
        ("10.0.0", "neither an address"),
        ("010.0.0.1", "neither an address"),
        ("", "neither an address"),
        ("all", "loopback, private, any"),
    ],
)
def test_a_bad_word_is_told_what_would_be_right(word: str, hint: str) -> None:
    with pytest.raises(ValueError, match=r"^\"") as caught:
        AccessList.parse(["loopback", word])
    assert hint in str(caught.value)
    assert f'"{word}"' in str(caught.value)
    assert "\n" not in str(caught.value)


def test_it_is_its_words() -> None:
    one, other = AccessList.parse(["loopback", "10.0.0.0/8"]), AccessList.parse(["loopback", "10.0.0.0/8"])
    assert one.allows("10.0.0.1")
    assert one == other
    assert hash(one) == hash(other)
    assert one != AccessList.parse(["loopback"])
    assert str(one) == "loopback, 10.0.0.0/8"
    assert str(AccessList.parse([])) == "nobody"


def test_the_answers_kept_are_bounded_and_stay_right() -> None:
    guests = AccessList.parse(["10.0.0.0/16"])
    addresses = [str(ipaddress.IPv4Address(0x0A000000 + 37 * i)) for i in range(3 * access._KEPT)]
    for address in addresses:
        assert guests.allows(address) is address.startswith("10.0.")
        assert len(guests._answers) <= access._KEPT
    assert guests.allows(addresses[0])
    assert not guests.allows(addresses[-1])


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("::ffff:10.0.0.9", "10.0.0.9"),
        ("::FFFF:10.0.0.9", "10.0.0.9"),
        ("::ffff:a00:9", "10.0.0.9"),
        ("10.0.0.9", "10.0.0.9"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("::1", "::1"),
        ("::ffff:1:2:3", "::ffff:1:2:3"),
        ("::ffff:none", "::ffff:none"),
        ("", ""),
    ],
)
def test_mapped_addresses_are_shown_as_ipv4(address: str, shown: str) -> None:
    assert plain(address) == shown


@given(st.ip_addresses(v=4), st.integers(0, 32), st.ip_addresses(v=4))
def test_both_spellings_of_an_ipv4_address_get_the_same_answer(
    base: ipaddress.IPv4Address, prefix: int, guest: ipaddress.IPv4Address
) -> None:
    network = ipaddress.ip_network((base, prefix), strict=False)
    guests = AccessList.parse([str(network)])
    assert guests.allows(str(guest)) is (guest in network)
    assert guests.allows(f"::ffff:{guest}") is (guest in network)
    assert plain(f"::ffff:{guest}") == str(guest)


@given(st.ip_addresses() | st.ip_addresses(network="::ffff:0:0/96"), st.data())
def test_a_range_with_stray_bits_is_refused_and_its_correction_taken(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, data: st.DataObject
) -> None:
    prefix = data.draw(st.integers(0, address.max_prefixlen))
    network = ipaddress.ip_network((address, prefix), strict=False)
    # a mapped address is an IPv4 one, and in no wider range of IPv6
    inside = getattr(address, "ipv4_mapped", None) is None or prefix >= 96
    if network.network_address == address:
        assert AccessList.parse([f"{address}/{prefix}"]).allows(str(address)) is inside
    else:
        with pytest.raises(ValueError, match="bits set") as caught:
            AccessList.parse([f"{address}/{prefix}"])
        assert f'"{network}"' in str(caught.value)
        assert AccessList.parse([str(network)]).allows(str(address)) is inside
