"""distcc's own words for a TCP host, ``NAME[/SLOTS][,OPTIONS]``: one regular expression decides, the rest says why not.

NAME is ``HOST[:PORT]`` and is sent to clients as it is written. What distcc reads: src/hosts.c in distcc 3.4
(dcc_parse_tcp_host, dcc_parse_multiplier, dcc_parse_options), tried against Debian's package. Refused here although distcc
takes it: the old order ``HOST/LIMIT:PORT`` and ``=`` for ``/`` (one way to write a thing is enough), ``,down`` (a list of such
hosts alone makes the client wait for ever), ssh hosts, and whatever else is not a host but an instruction to one client.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import permutations

from distbal import addresses
from distbal.addresses import BRACKETED, HOST, HOSTNAME, IPV4, IPV6, PORT, ZONE

#: distccd's own port, where a name has none
DISTCC_PORT = 3632
#: how many jobs distcc gives a host whose text has no SLOTS (n_slots in dcc_parse_hosts)
DISTCC_SLOTS = 4
#: where.c of distcc looks at no slot beyond this one
DISTCC_MOST_SLOTS = 10000
MOST_SLOTS = 999999
#: for a host that says itself how many it has
AUTO = "auto"
#: longer than any text that the pattern takes
MOST_CHARS = 400

_AUTH = r"auth(?:=[A-Za-z0-9_./-]{1,64})?"
#: what may be told of a host, in any order: ``cpp`` (pump mode) needs ``lzo``, and none stands twice
_SETS: tuple[tuple[str, ...], ...] = (("lzo",), ("lzo", "cpp"), (_AUTH,), ("lzo", _AUTH), ("lzo", "cpp", _AUTH))
#: OPTIONS without the comma in front
OPTIONS = "(?:" + "|".join(",".join(order) for options in _SETS for order in permutations(options)) + ")"
NAME = rf"(?:{HOST}(?::{PORT})?)"
SLOTS = r"(?:[1-9][0-9]{0,5})"
#: an option alone is no host: ``[box/4,lzo]`` is two texts to YAML
SPEC = rf"(?:(?!(?:lzo|cpp|auth)(?![!-~])){NAME}(?:/{SLOTS})?(?:,{OPTIONS})?)"


@dataclass(frozen=True, slots=True)
class HostText:
    """What one text says.

    :ivar name: HOST[:PORT], as written.
    :ivar slots: the number after ``/``, or None where there is none.
    :ivar options: without the comma in front (``lzo,cpp``), or "".
    """

    name: str
    slots: int | None = None
    options: str = ""

    def __str__(self) -> str:
        slots = "" if self.slots is None else f"/{self.slots}"
        return f"{self.name}{slots}{self.options and ','}{self.options}"


def parse(text: str) -> HostText:
    """Take one host's text apart; ValueError says what is wrong with it and what would be right."""
    if len(text) > MOST_CHARS or not addresses.matches(SPEC, text):
        raise ValueError(_why_no_spec(text))
    left, _, options = text.partition(",")
    name, _, slots = left.partition("/")
    return HostText(name, int(slots) if slots else None, options)


def name_in(text: str) -> str:
    """The NAME that one host's text begins with, whatever is wrong behind it; "" where there is none."""
    name = text[:MOST_CHARS].partition(",")[0].partition("/")[0]
    return name if addresses.matches(NAME, name) else ""


def check_name(text: str) -> str:
    """Return the text where it is a NAME; ValueError says why not."""
    if len(text) <= MOST_CHARS and addresses.matches(NAME, text):
        return text
    if len(text) <= MOST_CHARS and addresses.matches(SPEC, text):
        word = parse(text)
        keys = [f"slots: {word.slots}"] * (word.slots is not None) + [f"options: {word.options}"] * bool(word.options)
        raise ValueError(f"the name is {word.name} alone; write {' and '.join(keys)} beside it")
    raise ValueError(_why_no_spec(text))


def check_options(text: str) -> str:
    """Return the text where it is "" or OPTIONS; ValueError says why not."""
    if text.startswith(",") and addresses.matches(OPTIONS, text[1:]):
        raise ValueError(f"no comma in front of the options here: {text[1:]}")
    if text and not addresses.matches(OPTIONS, text):
        raise ValueError(_why_no_options(text))
    return text


def address_of(name: str) -> tuple[str, int]:
    """Where a host with that NAME is reached: (host without brackets, port)."""
    return addresses.split(name, DISTCC_PORT)


def _why_no_spec(text: str) -> str:
    """The sentence for a text that is not SPEC: first what people are known to write, then part by part."""
    return _known_mistake(text) or _wrong_part(text)


def _known_mistake(text: str) -> str:
    if not text.strip():
        return "a host has a name: HOST[:PORT][/SLOTS][,OPTIONS]"
    if len(text) > MOST_CHARS:
        return f"a host's text has at most {MOST_CHARS} characters, not {len(text)}"
    if not text.isprintable():
        return "a host's text is one word without line ends or control characters"
    if text.startswith("--randomize"):
        return "--randomize is no host: write policy: random"
    if text.startswith("--localslots"):
        return f"{text.split(maxsplit=1)[0]} belongs to the clients' own DISTCC_HOSTS, where distbal-wrap keeps it"
    if text.startswith("+zeroconf"):
        return "distbal does not look for hosts by zeroconf: name each of them"
    if text in ("lzo", "cpp", "auth"):
        return f'"{text}" is an option, not a host: between [ and ] a comma ends a text, so put the whole in quotes'
    if " " in text:
        joined = re.sub(" *([,/:]) *", r"\1", text.strip())
        if addresses.matches(SPEC, joined):
            return f"no spaces in a host's text: {joined}"
        words = text.split()
        return (
            f"no spaces around a host: {words[0]}"
            if len(words) == 1
            else f"{len(words)} words: a host has no spaces, and an entry of its own"
        )
    if text.startswith("-"):
        return f'"{text}" is an option, not a host'
    if "#" in text:
        return "a host's text holds no '#'; a YAML comment has a space in front of it"
    if "@" in text:
        return f'"{text}" is a host over ssh, which distbal does not do: run distccd there and write its name, HOST[:PORT]'
    if "://" in text:
        return f'"{text}" is a URL: write HOST[:PORT] alone'
    bare = re.fullmatch(rf"({IPV6}{ZONE}?)(/{SLOTS})?(,{OPTIONS})?", text)
    if bare:
        right = f"[{bare[1]}]{bare[2] or ''}{bare[3] or ''}"
        return f'an IPv6 address needs brackets, and so quotes in YAML: "{right}"'
    return ""


def _wrong_part(text: str) -> str:
    left, comma, options = text.partition(",")
    old = re.fullmatch(rf"({IPV4}|{BRACKETED}|{HOSTNAME})[/=]([0-9]+):([0-9]+)", left)
    if old:
        return f"distcc's old order, HOST/SLOTS:PORT: write {old[1]}:{old[3]}/{old[2]}{comma}{options}"
    if "=" in left:
        return f"write '/' for '=': {left.replace('=', '/', 1)}{comma}{options}"
    name, slash, slots = left.partition("/")
    closing = name.rfind("]")
    host, colon, port = name.partition(":") if closing < 0 else (name[: closing + 1], name[closing + 1 : closing + 2], "")
    if closing >= 0:
        port = name[closing + 2 :]
    if name.startswith("[") and closing < 0:
        return f'"{name}" lacks the ] that ends an IPv6 address'
    if colon not in ("", ":"):
        return f'"{name}": after the ] stands nothing, or :PORT'
    if not host:
        return f'"{text}" has no name: HOST[:PORT][/SLOTS][,OPTIONS]'
    if not addresses.matches(HOST, host):
        return f'"{host}" is no host: {addresses.why_no_host(host)}'
    if colon and not addresses.matches(PORT, port):
        return f'"{name}": {addresses.why_no_port(port)}'
    if slash and not addresses.matches(SLOTS, slots):
        return why_no_slots(slots)
    return _why_no_options(options)


def why_no_slots(text: str) -> str:
    """Why that is no number of slots."""
    if not text.isprintable():
        return f"slots are a whole number, 1 to {MOST_SLOTS}, without line ends or control characters"
    if text.strip("0") == "" and text:
        return "a host has at least 1 slot: leave it out of the file to send it nothing"
    if addresses.matches("0+" + SLOTS, text):
        return f"the slots are {text.lstrip('0')}, without a zero in front"
    if "/" in text:
        return "only one /SLOTS stands in a host's text"
    return f'slots are a whole number, 1 to {MOST_SLOTS}, not "{text[:40]}"'


def _why_no_options(text: str) -> str:
    if not text.isprintable():
        return "options are words, without line ends or control characters"
    words = text.split(",")
    known = "the options are lzo, cpp (with lzo) and auth"
    for number, word in enumerate(words):
        option = word.partition("=")[0]
        if addresses.matches(_AUTH, word) or word in ("lzo", "cpp"):
            if option in [earlier.partition("=")[0] for earlier in words[:number]]:
                return f"{option} stands twice"
        elif not word.strip():
            return f"no option between two commas, or after the last: {known}"
        elif word != word.strip():
            return f"no spaces between options: {','.join(part.strip() for part in words)}"
        elif option == "auth":
            return 'auth=NAME has a NAME of letters, digits and "_./-"'
        elif option == "down":
            return "clients that are sent a host marked down wait for ever: leave the host out instead"
        elif option == "zstd":
            return "zstd is not an option of any distcc release so far: lzo is"
        elif option.lower() in ("lzo", "cpp", "auth"):
            return f"options are written in small letters: {option.lower()}"
        else:
            return f'"{word[:40]}" is no option of distcc: {known}'
    return "cpp (pump mode) needs lzo beside it: lzo,cpp"
