"""Values as YAML that :mod:`distbal.yamlfile` reads as the same values: on one line, as people write them where that is safe.

What is not surely read as the text that it is stands in double quotes, as JSON has them.
"""

from __future__ import annotations

import json
import re

from distbal import addresses, hostspec, yamlfile
from distbal.hosts import DEFAULT_POOL, HostSpec
from distbal.hostspec import HostText

#: words that are plain everywhere; those with commas are so in block style only
_WORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_./:=-]*[A-Za-z0-9_])?")
_WORD_OF_BLOCK = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_./:=,-]*[A-Za-z0-9_])?")


def scalar(value: object, *, flow: bool = True) -> str:
    """A text, number, truth value or nothing; ``flow``: it stands between brackets."""
    if not isinstance(value, str):
        return json.dumps(value)
    word = _WORD if flow else _WORD_OF_BLOCK
    if word.fullmatch(value) and yamlfile.scalar(value) == value and len(value) < 1000:
        return value
    return json.dumps(value, ensure_ascii=not value.isprintable())


def one_line(value: object) -> str:
    """Any plain value, in flow style."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar(key)}: {one_line(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(one_line, value)) + "]"
    return scalar(value)


def host(spec: HostSpec, *, flow: bool = True) -> str:
    """A host that no file had yet: the short form where it says everything."""
    options = spec.options.removeprefix(",")
    keys: dict[str, object] = {"name": spec.name, "slots": hostspec.AUTO if spec.auto else spec.slots}
    if options:
        keys["options"] = options
    if spec.address != hostspec.address_of(spec.name):
        keys["address"] = addresses.join(*spec.address)
    if spec.pools != (DEFAULT_POOL,):
        keys["pools"] = list(spec.pools)
    if spec.auto or len(keys) > 2 + bool(options):
        return one_line(keys)
    return scalar(str(HostText(spec.name, spec.slots, options)), flow=flow)
