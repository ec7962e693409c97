r"""The private key of an ``ssl:`` endpoint, which nobody else may read: Twisted itself reads whatever it finds.

What Twisted makes of the text is in twisted.internet.endpoints.serverFromString: words between colons, ``\`` before a colon
that is meant, ``NAME=VALUE`` for all that has a name, and for ``ssl`` the port and the private key by their places too.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path

from distbal.errors import ListenError

_WORDS = re.compile(r"((?:[^:\\]|\\.)*)(?::|$)", re.DOTALL)
_NAMED = re.compile(r"([A-Za-z]+)=(.*)", re.DOTALL)
#: where Twisted looks for a key that is not named
USUAL = "server.pem"


def private_key(description: str) -> str | None:
    """The file with the private key of an endpoint, as Twisted understands it; None for one that has none.

    :param description: the endpoint, as in hosts.yaml.
    """
    words = [re.sub(r"\\(.)", r"\1", word, flags=re.DOTALL) for word in _WORDS.findall(description)]
    if words[0] == "haproxy":
        words = words[1:]
    if words[0] != "ssl":
        return None
    found = [_NAMED.fullmatch(word) for word in words[1:]]
    named = {one[1]: one[2] for one in found if one}
    placed = [word for word, one in zip(words[1:], found, strict=True) if one is None and word]
    return named.get("privateKey", placed[1] if len(placed) > 1 else USUAL)


def check(description: str) -> None:
    """See that nobody else may use an endpoint's private key. Whether the file is there, and good, Twisted finds out.

    :raises ListenError: others may.
    """
    path = private_key(description)
    try:
        mode = 0 if path is None else Path(path).stat().st_mode
    except (OSError, ValueError):
        return
    if mode & stat.S_IRWXO:
        raise ListenError(f"cannot listen on {description}: everybody may read its private key {path}: chmod o= {path}")
