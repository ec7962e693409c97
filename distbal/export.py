"""hosts.yaml as it would have to be to keep the present state: the file's own text, with what people decided since.

The daemon never edits the user's file: it tells what would have to stand there. Only what must change does: entries of hosts of
which nothing was decided keep their text to the letter. What the file has no key for (who drained a host and why, a weight)
becomes a comment at the host. The result is read again, and has to give the very farm that is there; where a change in place
does not reach that, all hosts are written anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from distbal import config, hostspec, rewrite, yamlfile
from distbal.config import Settings
from distbal.decisions import Decision, Decisions, applied
from distbal.errors import ConfigError, DistbalError
from distbal.hostlines import BREAK, NotInPlace
from distbal.hosts import Farm

#: keys of decisions that hosts.yaml does not have
NO_KEYS = ("admin", "weight")
#: longer words of people are cut
MOST_CHARS = 1000
#: how many decisions the head of the file names one by one
MOST_NAMED = 20

_HEAD = "# distbal exported this "
_FOOT = "# (Up to here distbal's words; below, the file.)"
_WHEN = r"[0-9]{4,}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2} UTC"
#: a comment of an earlier export, which is not to be kept as if somebody had written it
_OLD_NOTE = re.compile(
    rf"[ \t]*# \S{{1,400}}: (?:drained|down|weight [0-9.]+)(?: by .+)? since {_WHEN}(?:: .*)?(?:\r\n|[\r\n]|\Z)"
)


def exported(path: str, text: str, decisions: Decisions, at: float) -> str:
    """The file as it would have to be.

    It takes about two times what loading the file takes, which for thousands of hosts is seconds: not for the reactor's thread.

    :param path: the file as the user named it.
    :param text: what stands in it, as :func:`distbal.yamlfile.read` gives it.
    :param decisions: what people decided on top of it.
    :param at: now, in seconds since 1970.
    :raises ConfigError: the file itself is wrong.
    :raises DistbalError: no hosts.yaml can say this.
    """
    document = yamlfile.parse(path, text)
    before = config.read(path, document).settings
    wanted = applied(before.farm, decisions)
    if not wanted.hosts:
        raise DistbalError(f"{path}: every host was removed, and a hosts.yaml names one at least: nothing to export")
    body = without_export(text)
    if body != text:
        document = yamlfile.parse(path, body)
    newline = _newline(text)
    without_place = _notes(decisions)
    notes = {spec.name: without_place.pop(spec.name) for spec in wanted.hosts if spec.name in without_place}
    homeless = [note for found in without_place.values() for note in found]
    if not rewrite.can_note(body, document.root):
        homeless = [note for name in notes for note in notes[name]] + homeless
    head = [*_head(path, decisions, at), *homeless]
    ways: list[tuple[Callable[[], str], list[str]]] = [
        (lambda: rewrite.in_place(body, document.root, before.farm, wanted, notes), []),
        (
            lambda: rewrite.anew(body, document.root, before.farm, wanted, notes),
            ["# The hosts are written anew: as they stood they could not be changed."],
        ),
    ]
    why = ""
    for way, said in ways:
        try:
            made = "".join(line + newline for line in [*head, *said, _FOOT]) + way()
        except NotInPlace:
            continue
        why = _difference(path, made, before, wanted)
        if not why:
            return made
    raise DistbalError(f"{path} cannot be written so that it keeps the present state: {why}")


def without_export(text: str) -> str:
    """The text without what an earlier export put into it: its head, and its notes about hosts."""
    if text.startswith(_HEAD):
        _, foot, rest = text.partition(_FOOT)
        between = BREAK.split(text[: text.find(_FOOT)])
        if foot and all(line.startswith("#") or not line for line in between):
            text = rest[found.end() :] if (found := BREAK.match(rest)) else rest
    if " since " not in text:
        return text
    return "".join(line for line in _lines(text) if not _OLD_NOTE.fullmatch(line))


def _lines(text: str) -> list[str]:
    ends = [found.end() for found in BREAK.finditer(text)]
    starts = [0, *ends]
    return [text[start:end] for start, end in zip(starts, [*ends, len(text)], strict=True)]


def _newline(text: str) -> str:
    found = BREAK.search(text)
    return found[0] if found and found[0] in ("\n", "\r\n", "\r") else "\n"


def comment(words: str) -> str:
    """A person's words as they can stand in a comment: on one line, whatever they hold."""
    shown = "".join(char if char.isprintable() else " " if char.isspace() else "?" for char in words[: MOST_CHARS + 1])
    shown = " ".join(shown.split())
    return shown if len(shown) <= MOST_CHARS else f"{shown[:MOST_CHARS]}..."


def moment(at: float) -> str:
    """A time as comments have it: ``2026-11-27 12:00:00 UTC``."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return "0000-00-00 00:00:00 UTC"  # no time that there is: nothing that anybody decided at


def _head(path: str, decisions: Decisions, at: float) -> list[str]:
    found = [
        f"{_HEAD}at {moment(at)}: the file as it would have to be",
        f"# to keep what people decided since it was read. The file itself, {comment(path)}, is as it was.",
    ]
    no_keys = [f"{key} of {comment(name)}" for name, key, _ in decisions if key in NO_KEYS]
    if no_keys:
        more = f", and {len(no_keys) - MOST_NAMED} more" if len(no_keys) > MOST_NAMED else ""
        found += [
            "# There are no keys for these, so that they are comments here, and nothing to whom reads the file:",
            f"#   {', '.join(no_keys[:MOST_NAMED])}{more}",
        ]
    return found


def _notes(decisions: Decisions) -> dict[str, list[str]]:
    """What was decided that has no key, a comment each, by the name of the host."""
    found: dict[str, list[str]] = {}
    for name, key, decision in decisions:
        if key in NO_KEYS:
            found.setdefault(name, []).append(_note(name, key, decision))
    return found


def _note(name: str, key: str, decision: Decision) -> str:
    if key == "weight":
        said = f"weight {decision.value / 1000:g}"
    else:
        said = "drained" if decision.value == "drain" else "down"
    by, why = comment(decision.by), comment(decision.why)
    return f"# {comment(name)}: {said}{by and ' by '}{by} since {moment(decision.at)}{why and ': '}{why}"


def _difference(path: str, text: str, before: Settings, wanted: Farm) -> str:
    """How what the text says differs from what it should say; "" where it does not."""
    size = len(text.encode())
    if size > yamlfile.MOST_BYTES:
        return f"it would have {size} bytes, and a file has {yamlfile.MOST_BYTES} at most"
    try:
        found = config.read(path, yamlfile.parse(path, text)).settings
    except ConfigError as error:
        mistake = error.mistakes[0]
        return f"{mistake.where}: {mistake.text}" if mistake.where else mistake.text
    if _comparable(found.farm) != _comparable(wanted):
        pairs = zip(_comparable(found.farm).hosts, _comparable(wanted).hosts, strict=False)
        return f"{next((other.name for one, other in pairs if one != other), 'a host')} would not come out right"
    kept = {spec.name for spec in wanted.hosts} & {spec.name for spec in before.farm.hosts}
    here, there = ({one.key: one for one in said.monitors if one.key[0] in kept} for said in (before, found))
    if here != there or replace(before, farm=wanted, monitors=()) != replace(found, farm=wanted, monitors=()):
        return "what is beside the hosts would not come out right"
    return ""


def _comparable(farm: Farm) -> Farm:
    """The farm as a file can say it: where slots are auto, their number is not its business."""
    hosts = (replace(spec, slots=hostspec.DISTCC_SLOTS) if spec.auto else spec for spec in farm.hosts)
    return replace(farm, hosts=tuple(hosts))
