"""The verbs of live operation: what each is called, takes and does. One table for the command line, SSH and the shell.

A call is words: ``drain newbb:3632 'fan broken'``. :func:`parse` makes a :class:`Call` of them, or says what is wrong and what
would be right; it knows forms (a number, a share, a place) and nothing of the farm. :mod:`distbal.admin` does what a call says.
This file needs the standard library alone, since the command line starts anew for each word that a person types.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from distbal.columns import safe
from distbal.errors import DistbalError
from distbal.hostspec import MOST_SLOTS

#: jobs and changes that are shown where no number is given, and the most that can be asked for
DEFAULT_ROWS, MOST_ROWS = 20, 1000
#: characters of a reason: a sentence or two
MOST_WHY = 300
#: what of a decision takes it back: the file has the word again
FILE = "file"
LEVELS = {
    "warn": "only what goes wrong",
    "info": "what changes too",
    "debug": "each job too",
}
#: where a host is put in the order, beside another
SIDES = ("before", "with", "after")


class VerbError(DistbalError):
    """A verb that cannot be done as it was said: the text says why, and nothing has changed."""


@dataclass(frozen=True, slots=True)
class Verb:
    """One operation.

    :ivar name: the word.
    :ivar usage: what stands behind it, as a person would write it: capitals are to be replaced, brackets may be left out.
    :ivar help: what it does, in a line; ``more``: what else is worth knowing, or "".
    :ivar example: the words behind the verb in an example.
    :ivar changes: whether it changes anything, and so is noted.
    :ivar hosts: whether the first word behind it is a host's name (for completion).
    """

    name: str
    usage: str
    help: str
    example: str
    changes: bool = False
    hosts: bool = False
    more: str = ""


_TABLE = (
    Verb("status", "", "the farm in few words, and who waits", ""),
    Verb("hosts", "[PATTERN...]", "each host: its state and why, slots, weight, jobs, failures", "'box*'", hosts=True,
         more="PATTERN is a name, in which * stands for anything; * behind a state shows where the file says otherwise."),
    Verb("show", "HOST", "all there is to know of one host: who said what, monitors, clients", "newbb:3632", hosts=True),
    Verb("queue", "", "who waits, for how long, and for what", ""),
    Verb("jobs", "[NUMBER]", f"the jobs that ended last, the latest first ({DEFAULT_ROWS})", "50"),
    Verb("why", "JOB", "why a job went where it went, and not to each host before it", "1764231010123456"),
    Verb("drain", "HOST [WHY]", "give it no new jobs; the running ones end by themselves", "newbb:3632 'fan broken'",
         changes=True, hosts=True, more="It holds across restarts, until up or ready."),
    Verb("down", "HOST [WHY]", "the same, for a host that is not there", "newbb:3632 'in the workshop until Monday'",
         changes=True, hosts=True, more="It holds across restarts, until up or ready. Jobs that run there are not cut (kick)."),
    Verb("up", "HOST", "take back drain and down", "newbb:3632", changes=True, hosts=True,
         more="What monitors say of it still counts: they overrule no person, and no person overrules them."),
    Verb("ready", "HOST", "the same as up", "newbb:3632", changes=True, hosts=True),
    Verb("slots", "HOST NUMBER|file", "how many jobs it may run at once; file: what the file says", "newbb:3632 12",
         changes=True, hosts=True),
    Verb("weight", "HOST SHARE|none", "which share of its slots to use, 0 to 1; none: no opinion", "newbb:3632 0.5",
         changes=True, hosts=True, more="The least counts of what you and the monitors say."),
    Verb("rank", "HOST before|with|after OTHER", "where it stands in the order; HOST file: where the file says",
         "newbb:3632 before snookles:3632", changes=True, hosts=True),
    Verb("add", "HOST[,OPTIONS] SLOTS [before|with|after OTHER] [pools POOL,...] [address ADDRESS]",
         "a host that the file does not name", "spare:3632 8 after newbb:3632", changes=True,
         more="It holds across restarts, until the file names it; then the file has the word."),
    Verb("remove", "HOST [now]", "no new jobs, and out of the farm with its last; now: cut those that run", "spare:3632",
         changes=True, hosts=True, more="A host of the file stays out until it leaves the file, or add brings it back."),
    Verb("kick", "CLIENT", "end what a client has or waits for: ADDRESS, ADDRESS:PORT or a number from jobs or queue",
         "10.0.0.9", changes=True),
    Verb("reload", "", "read the file again, as on SIGHUP", "", changes=True),
    Verb("upgrade", "", "go on as the code that is on the disk now, as on SIGUSR2; no job is lost", "", changes=True,
         more="The new code is tried first: when it says no, the one that runs goes on. Installing is up to you (pip, apt)."),
    Verb("log", "[warn|info|debug]", "how much is logged; debug: each job", "debug", changes=True),
    Verb("history", "[NUMBER]", "who changed what, when and from where, the latest first", ""),
    Verb("export", "", "hosts.yaml as it would have to be to keep what was changed", ""),
)  # fmt: skip
VERBS: Mapping[str, Verb] = {verb.name: verb for verb in _TABLE}


@dataclass(frozen=True, slots=True)
class Call:
    """A verb with its arguments, right by themselves.

    :ivar words: as they came, for the record.
    :ivar arguments: by name; which are there depends on the verb.
    """

    verb: Verb
    words: tuple[str, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return shlex.join(self.words)

    @property
    def changes(self) -> bool:
        """Whether it changes anything: log alone only tells."""
        return self.verb.changes and ("level" not in self.arguments or self.arguments["level"] is not None)


def parse(words: Sequence[str]) -> Call:
    """Words to a call.

    :raises VerbError: there is no such verb, or its arguments are not of its form.
    """
    if not words:
        raise VerbError(f"say what to do: {', '.join(VERBS)}")
    name, *rest = words
    verb = VERBS.get(name)
    if verb is None:
        near = get_close_matches(name.lower(), VERBS, 1)
        right = f": did you mean {near[0]}?" if near else f"; there are {', '.join(VERBS)}"
        raise VerbError(f"there is no {shown(name)}{right}")
    return Call(verb, tuple(words), _PARSERS[name](verb, rest))


def usage(verb: Verb) -> str:
    """``drain HOST [WHY]``."""
    return f"{verb.name} {verb.usage}".rstrip()


def shown(word: str) -> str:
    """A word of somebody's, for a sentence: short, and without anything that a terminal would obey."""
    word = word if len(word) <= 80 else word[:77] + "..."
    return f'"{safe(word)}"'


# -- the forms of arguments ---------------------------------------------------------------------------------------------------

_Arguments = dict[str, Any]


def _wrong(verb: Verb, why: str) -> VerbError:
    return VerbError(f"{why}: {usage(verb)}")


def _none(verb: Verb, words: list[str]) -> _Arguments:
    if words:
        raise _wrong(verb, f"nothing stands behind {verb.name}, and here is {shown(words[0])}")
    return {}


def _patterns(_: Verb, words: list[str]) -> _Arguments:
    return {"patterns": tuple(words)}


def _host(verb: Verb, words: list[str]) -> _Arguments:
    if len(words) != 1:
        raise _wrong(verb, f"{verb.name} takes one host" + (f", and here are {len(words)} words" if words else ""))
    return {"host": words[0]}


def _host_and_why(verb: Verb, words: list[str]) -> _Arguments:
    if not words:
        raise _wrong(verb, f"{verb.name} takes a host, and a reason if you like")
    why = " ".join(words[1:]).strip()
    if len(why) > MOST_WHY:
        raise _wrong(verb, f"a reason has at most {MOST_WHY} characters, and this one {len(why)}")
    if not why.isprintable():
        raise _wrong(verb, "a reason is one line of text, without control characters")
    return {"host": words[0], "why": why}


def _host_and_slots(verb: Verb, words: list[str]) -> _Arguments:
    if len(words) != 2:
        raise _wrong(verb, "slots takes a host and a number")
    return {"host": words[0], "slots": None if words[1] == FILE else _number_of_slots(verb, words[1])}


def _number_of_slots(verb: Verb, word: str) -> int:
    number = _whole(word)
    if number is None or not 1 <= number <= MOST_SLOTS:
        hint = "; to give it no jobs, drain it" if number == 0 else ""
        raise _wrong(verb, f"a number of slots is 1 to {MOST_SLOTS}, not {shown(word)}{hint}")
    return number


def _host_and_weight(verb: Verb, words: list[str]) -> _Arguments:
    if len(words) != 2:
        raise _wrong(verb, "weight takes a host and a share")
    if words[1] in ("none", FILE):
        return {"host": words[0], "weight": None}
    try:
        share = float(words[1])
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise _wrong(verb, f"a share is a number from 0 to 1, such as 0.5, not {shown(words[1])}")
    return {"host": words[0], "weight": round(share * 1000)}


def _host_and_place(verb: Verb, words: list[str]) -> _Arguments:
    if len(words) == 2 and words[1] == FILE:
        return {"host": words[0], "place": None}
    if len(words) != 3 or words[1] not in SIDES:
        raise _wrong(verb, "rank takes a host, and where it is to stand beside another")
    return {"host": words[0], "place": (words[1], words[2])}


def _added(verb: Verb, words: list[str]) -> _Arguments:
    if len(words) < 2:
        raise _wrong(verb, "add takes a host and its slots")
    found: _Arguments = {"host": words[0], "slots": _number_of_slots(verb, words[1])}
    found |= dict.fromkeys(("place", "pools", "address"))
    rest = words[2:]
    while rest:
        word, *rest = rest
        key = "place" if word in SIDES else word
        if key not in ("place", "pools", "address"):
            raise _wrong(verb, f"{shown(word)} means nothing here")
        if not rest:
            raise _wrong(verb, f"something stands behind {word}")
        if found[key] is not None:
            raise _wrong(verb, f"{shown(word)} is one too many")
        value, *rest = rest
        found[key] = (word, value) if key == "place" else tuple(value.split(",")) if key == "pools" else value
    return found


def _removed(verb: Verb, words: list[str]) -> _Arguments:
    if not words or len(words) > 2 or words[1:] not in ([], ["now"]):
        raise _wrong(verb, "remove takes one host, and now if its jobs are to be cut")
    return {"host": words[0], "now": len(words) == 2}


def _client(verb: Verb, words: list[str]) -> _Arguments:
    if len(words) != 1 or not words[0]:
        raise _wrong(verb, "kick takes one client")
    return {"client": words[0]}


def _job(verb: Verb, words: list[str]) -> _Arguments:
    number = _whole(words[0]) if len(words) == 1 else None
    if number is None:
        raise _wrong(verb, "why takes the number of a job, which jobs shows")
    return {"job": number}


def _rows(verb: Verb, words: list[str]) -> _Arguments:
    if not words:
        return {"limit": DEFAULT_ROWS}
    number = _whole(words[0]) if len(words) == 1 else None
    if number is None or not 1 <= number <= MOST_ROWS:
        raise _wrong(verb, f"{verb.name} takes a number from 1 to {MOST_ROWS}")
    return {"limit": number}


def _level(verb: Verb, words: list[str]) -> _Arguments:
    if not words:
        return {"level": None}
    if len(words) > 1 or words[0] not in LEVELS:
        raise _wrong(verb, f"a level is {', '.join(LEVELS)}")
    return {"level": words[0]}


def _whole(word: str) -> int | None:
    return int(word) if word.isascii() and word.isdigit() and len(word) < 20 else None


_PARSERS: dict[str, Callable[[Verb, list[str]], _Arguments]] = {
    "status": _none,
    "hosts": _patterns,
    "show": _host,
    "queue": _none,
    "jobs": _rows,
    "why": _job,
    "drain": _host_and_why,
    "down": _host_and_why,
    "up": _host,
    "ready": _host,
    "slots": _host_and_slots,
    "weight": _host_and_weight,
    "rank": _host_and_place,
    "add": _added,
    "remove": _removed,
    "kick": _client,
    "reload": _none,
    "upgrade": _none,
    "log": _level,
    "history": _rows,
    "export": _none,
}
