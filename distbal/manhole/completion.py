"""What Tab completes: names and attributes as Python's rlcompleter does, and hosts within a string that a verb takes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from rlcompleter import Completer
from typing import Any

from distbal import verbs

#: possibilities that are shown
MOST = 200
#: characters before the cursor that matter
MOST_LOOKED_AT = 1000
#: the last string of a call, not ended yet, and what stands before it; a host may hold nothing that would end it
_IN_STRING = re.compile(r"""\b(\w+)\(([^()]*?)(['"])([^'"\\]*)$""")
#: what stands before a host: nothing, or the word for a place
_BEFORE_HOST = re.compile(r"""(?:^|[(,\s](?:before|after|with_|host)\s*=|['"](?:before|after|with)['"]\s*,)\s*$""")
_NAME = re.compile(r"[\w.]*$")


def completions(text: str, namespace: dict[str, Any], hosts: Iterable[str]) -> tuple[int, list[str]]:
    """What could stand there.

    :param text: what stands before the cursor.
    :returns: from which place of the text on, and the texts.
    """
    skipped = max(0, len(text) - MOST_LOOKED_AT)
    start, found = _completions(text[skipped:], namespace, hosts)
    return skipped + start, found


def _completions(text: str, namespace: dict[str, Any], hosts: Iterable[str]) -> tuple[int, list[str]]:
    call = _IN_STRING.search(text)
    if call is not None:
        verb = verbs.VERBS.get(call[1])
        if verb is None or not (verb.hosts or verb.name == "add") or not _BEFORE_HOST.search(call[2]):
            return len(text), []
        return call.start(4), sorted(host for host in hosts if host.startswith(call[4]))[:MOST]
    name = _NAME.search(text)
    if name is None or not name[0]:
        return len(text), []
    completer = Completer(namespace)
    try:
        # it may run what an attribute does
        found = completer.attr_matches(name[0]) if "." in name[0] else completer.global_matches(name[0])
    except Exception:  # noqa: BLE001 - of whatever object that is: there is nothing to complete
        found = []
    # a call that takes nothing is not to be made by chance
    return name.start(), sorted({one.removesuffix(")").removesuffix(" ") for one in found})[:MOST]
