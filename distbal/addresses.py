"""The text of network addresses: IPv4, IPv6, names, ports, as regular expressions and as checks that share them.

The patterns keep to what Python's ``re`` and ECMA-262 (which JSON Schema uses) read alike, carry no anchors and no groups, so
that larger ones are put together from them and an editor applies the very rule that the daemon does.
"""

from __future__ import annotations

import ipaddress
import re

#: a port to connect to, 1 to 65535, without leading zeros
PORT = r"(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
IPV4 = rf"(?:{_OCTET}(?:\.{_OCTET}){{3}})"


def _ipv6() -> str:
    """RFC 3986's grammar of an IPv6 address: up to 7 groups before and after one ``::``, the last two perhaps as IPv4."""
    group = "[0-9A-Fa-f]{1,4}"
    last = f"(?:{group}:{group}|{IPV4})"
    forms = [f"(?:{group}:){{6}}{last}"]
    for before in range(8):
        left = "" if before == 0 else f"(?:(?:{group}:){{0,{before - 1}}}{group})?"
        after = 5 - before
        right = f"(?:{group}:){{{after}}}{last}" if after > 0 else {0: last, -1: group, -2: ""}[after]
        forms.append(f"{left}::{right}")
    return f"(?:{'|'.join(forms)})"


#: an IPv6 address without brackets
IPV6 = _ipv6()
#: the interface that a link-local address needs: ``%eth0``
ZONE = r"(?:%[A-Za-z0-9_.-]{1,15})"
#: an IPv6 address as it stands before a port
BRACKETED = rf"(?:\[{IPV6}{ZONE}?\])"

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME_CHAR = "[A-Za-z0-9_.-]"
#: a name for the resolver: at most 253 characters, and not digits and dots alone, which old resolvers read as an IPv4 address
HOSTNAME = (
    rf"(?:(?={_NAME_CHAR}{{1,253}}(?!{_NAME_CHAR}))(?![0-9.]+(?!{_NAME_CHAR}))"
    rf"{_LABEL}(?:\.{_LABEL})*\.?)"
)
#: any way to say which machine, in front of a port
HOST = rf"(?:{IPV4}|{BRACKETED}|{HOSTNAME})"


def whole(pattern: str) -> str:
    """The pattern with anchors, for JSON Schema; ``$`` alone would let a trailing line end pass in Python."""
    return f"^(?:{pattern})$(?!\\n)"


def matches(pattern: str, text: str) -> bool:
    """Whether the whole text is of that form."""
    return re.fullmatch(pattern, text) is not None


def split(text: str, default_port: int) -> tuple[str, int]:
    """Take HOST[:PORT] apart: the host without brackets, and the port or the default one.

    The text must be of the form HOST or HOST:PORT already.
    """
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port[1:]
    else:
        host, _, port = text.partition(":")
    return host, int(port) if port else default_port


def join(host: str, port: int) -> str:
    """HOST:PORT, with brackets where the host is an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def canonical(host: str) -> str:
    """One spelling for each address: letters lower, IPv6 in its short form, IPv4 mapped into IPv6 as IPv4, no last dot."""
    bare, percent, zone = host.partition("%")
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return host.lower().removesuffix(".")
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address) + percent + zone


def is_loopback(host: str) -> bool:
    """Whether it is the machine's own address, as written: names are not looked up but ``localhost``."""
    spelled = canonical(host)
    if spelled == "localhost":
        return True
    try:
        return ipaddress.ip_address(spelled.partition("%")[0]).is_loopback
    except ValueError:
        return False


def why_no_host(text: str) -> str:
    """Why a text that is not of the form HOST is none, as the end of a sentence that began with it."""
    if not text:
        return "there is no name in front"
    if not text.isascii():
        return "names are ASCII: write an international one in its xn-- form"
    if text.startswith("["):
        inner = text.strip("[]")
        if matches(f"{IPV6}{ZONE}?", inner):
            return "it lacks the ] that ends an IPv6 address"
        return f"{_shown(inner)} is no IPv6 address"
    if ":" in text:
        return "an IPv6 address stands between brackets, as in [fd00::7]"
    if matches("[0-9.]+", text):
        return "an IPv4 address is four numbers of 0 to 255 with dots between"
    if len(text) > 253:
        return f"a name has at most 253 characters, not {len(text)}"
    strange = next((char for char in text if not matches(_NAME_CHAR, char)), "")
    if strange:
        return f"a name is made of letters, digits, '-', '_' and dots, not {_shown(strange)}"
    if any(len(label) > 63 for label in text.split(".")):
        return "between two dots stand at most 63 characters"
    if text.startswith(".") or ".." in text:
        return "nothing stands between two dots, or before the first"
    return "no part of it begins or ends with '-'"


def why_no_port(text: str) -> str:
    """Why a text that is not of the form PORT is none, as a sentence's end."""
    if not text:
        return "a port stands after the ':'"
    if matches("0+" + PORT, text):
        return f"the port is {text.lstrip('0')}, without a zero in front"
    return f"a port is 1 to 65535, not {_shown(text)}"


def _shown(text: str) -> str:
    return f'"{text[:40]}"' if text.isprintable() else "a control character"
