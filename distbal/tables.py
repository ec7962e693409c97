"""Answers of the verbs, for people: aligned tables and sentences, from the values that ``--json`` prints.

Pure, and of the standard library alone: the command line makes its tables of what the daemon answers, the shell over SSH of
what it was returned, and both look the same. Hosts have a file of their own, :mod:`distbal.hosttables`.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distbal import insidewords
from distbal.columns import BOLD, age, coloured, cut, day_and_time, finished, many, names, place, safe, table
from distbal.hosttables import clients_lines, crowd, host_lines, hosts_lines
from distbal.verbs import Verb

__all__ = ["render", "table", "warnings", "whole"]

#: waiters that status lists, before it says how many more there are
MOST_WAITERS = 10
#: hosts that were passed over that have a line each; of more, those of one reason share one
MOST_PASSED = 24
#: hosts that a shared line names
MOST_NAMED = 4

Answer = Mapping[str, Any]
_Lines = list[str]


def render(verb: Verb, answer: Answer, *, width: int | None = None, colour: bool = False) -> str:
    """An answer as text, with a newline at its end.

    :param answer: what the verb returned.
    :param width: columns of the terminal, at which lines are cut; None for whole lines.
    :param colour: mark what is not well.
    """
    if verb.name == "export":
        return _file(answer["file"], terminal=width is not None or colour)
    if "text" in answer:
        # sentences are to be read whole: the terminal may wrap them
        return finished(str(answer["text"]).splitlines(), None)
    return finished(_LINES[verb.name](answer, width, colour), width)


def warnings(answer: Answer) -> str:
    """What is doubtful of something that was done: lines for stderr; "" for nothing."""
    return "".join(f"warning: {safe(str(warning))}\n" for warning in answer.get("warnings", ()))


def whole(status: Answer, hosts: Sequence[Answer], *, width: int | None = None, colour: bool = False) -> str:
    """The farm: totals, every host, and who waits; what ``distbal status`` shows."""
    table = hosts_lines(hosts, width=width, colour=colour)
    return finished([*_totals(status), "", *table, *_waiters(status["waiters"], width, colour)], width)


def _file(text: str, *, terminal: bool) -> str:
    """A file's text as it is, for a file; for a terminal without what it would obey."""
    if not terminal:
        return text
    return "".join(safe(line.expandtabs()) + "\n" for line in text.splitlines())


# -- the farm -----------------------------------------------------------------------------------------------------------------


def _totals(status: Answer) -> _Lines:
    totals, counts = status["totals"], status["counts"]
    out = f" ({totals['out']} out)" if totals["out"] else ""
    waiting = f"{totals['waiting']} wait" if totals["waiting"] else "nobody waits"
    longest = f", the longest for {age(totals['longest_wait'])}" if totals["waiting"] else ""
    reduced = "" if totals["capacity"] == totals["slots"] else f" (of {totals['slots']})"
    ports = [f"{kind} {' '.join(where)}" for kind, where in status["ports"].items() if where]
    told = [f"{number} {what}" for what, number in counts.items()]
    slots = f"{totals['used']} of {many(totals['capacity'], 'slot')}{reduced} lent"
    lines = [
        f"distbal {status['distbal']}, up {age(status['at'] - status['started'])}: {status['policy']}, {status['order']} queue",
        f"{many(totals['hosts'], 'host')}{out}: {slots}; {waiting}{longest}",
    ]
    if told:
        lines.append(f"since the start: {', '.join(told)}")
    if ports:
        lines.append(f"listens: {', '.join(ports)}")
    # a daemon of an earlier version does not say
    lines += image_lines(status.get("image", {}), status["at"])
    if inside := status.get("inside"):
        known = [part for part in (insidewords.lag(inside), insidewords.room(inside)) if part]
        lines += [f"event loop: {'; '.join(known)}", *insidewords.troubles(inside)]
    return lines


def image_lines(image: Answer, now: float) -> _Lines:
    """How the code that runs came to run, where that was no plain start, and why it is not another.

    :param now: seconds since 1970.
    """
    lines = []
    if image.get("began", "start") != "start":
        how = "upgraded" if image["began"] == "upgrade" else "after a crash"
        before = f" from {image['before']}" if image["began"] == "upgrade" else ""
        lines.append(f"{how}{before} {age(now - image['at'])} ago: {taken_up(image)}")
    if image.get("trouble"):
        lines.append(f"not upgraded: {safe('; '.join(image['trouble'].splitlines()))}")
    return lines


def taken_up(image: Answer) -> str:
    """What an image took up of the one before, as the end of a sentence."""
    counts = dict(image["taken_up"])
    left, lost = counts.pop("left", 0), counts.pop("lost", 0)
    found = [many(number, what.removesuffix("s")) for what, number in counts.items() if number]
    text = f"{', '.join(found) or 'nothing'} taken up"
    text += f"; {many(left, 'client')} had left meanwhile" if left else ""
    return text + (f"; {many(lost, 'connection')} that had just come lost" if lost else "")


def _waiters(waiters: Sequence[Answer], width: int | None, colour: bool) -> _Lines:
    if not waiters:
        return []
    more = len(waiters) - MOST_WAITERS
    rest = [f"and {more} more: queue lists them ({crowd(waiters[MOST_WAITERS:])})"] if more > 0 else []
    return ["", *_headed(clients_lines(waiters[:MOST_WAITERS], "WAITS"), width, colour), *rest]


def _status(answer: Answer, width: int | None, colour: bool) -> _Lines:
    return [*_totals(answer), *_waiters(answer["waiters"], width, colour)]


def _hosts(answer: Answer, width: int | None, colour: bool) -> _Lines:
    return hosts_lines(answer["hosts"], width=width, colour=colour)


def _show(answer: Answer, width: int | None, colour: bool) -> _Lines:
    return host_lines(answer["host"], answer["at"], width=width, colour=colour)


def _queue(answer: Answer, width: int | None, colour: bool) -> _Lines:
    if not answer["waiters"]:
        return ["nobody waits"]
    return _headed(clients_lines(answer["waiters"], "WAITS"), width, colour)


def _headed(lines: _Lines, width: int | None, colour: bool) -> _Lines:
    return [coloured(lines[0], BOLD, width), *lines[1:]] if colour else lines


# -- jobs ---------------------------------------------------------------------------------------------------------------------


def _jobs(answer: Answer, width: int | None, colour: bool) -> _Lines:
    if not answer["jobs"]:
        return ["no job has ended yet"]
    rows = []
    for job in answer["jobs"]:
        last = job["attempts"][-1] if job["attempts"] else None
        tries = "" if len(job["attempts"]) == 1 else f"{len(job['attempts'])} tries"
        ended = None if last is None else last["ended"]
        rows.append(
            (
                str(job["id"]),
                place(job["address"], job["port"]),
                "" if last is None else last["host"],
                age(sum(one["waited"] for one in job["attempts"])),
                "" if last is None else age(last["seconds"]),
                "" if last is None else last["outcome"] or "runs",
                "" if ended is None else f"{age(answer['at'] - ended)} ago",
                tries,
            )
        )
    return _headed(
        table(("JOB", "CLIENT", "HOST", "WAITED", "TOOK", "END", "ENDED", ""), rows, right=(0, 3, 4, 6)), width, colour
    )


def _why(answer: Answer, width: int | None, colour: bool) -> _Lines:
    job = answer["job"]
    first = f"job {job['id']} of {place(job['address'], job['port'])}, pool {job['pool']}"
    lines = [coloured(first, BOLD, width) if colour else first]
    for number, one in enumerate(job["attempts"], 1):
        attempt = f"attempt {number}: " if len(job["attempts"]) > 1 else ""
        lines += ["", f"{attempt}{one['host']}, since {day_and_time(one['granted'])}", f"  {_waited(one)}", f"  {_ended(one)}"]
        if "not_known" in one:
            lines.append(f"  {one['not_known']}")
        if "not_known" not in one or "passed_over" in one:
            lines += [f"  {line}" for line in _passed_over(one.get("passed_over", ()), width)]
    return lines


def _waited(attempt: Answer) -> str:
    if not attempt["waited_for"]:
        if "not_known" in attempt and attempt["waited"]:
            return f"waited {age(attempt['waited'])}"
        return "did not have to wait"
    reasons = ", ".join(f"{number} {reason}" for reason, number in attempt["waited_for"].items())
    return f"waited {age(attempt['waited'])}; the hosts, when it asked: {reasons}"


def _ended(attempt: Answer) -> str:
    if attempt["outcome"] is None:
        return f"has run for {age(attempt['seconds'])}"
    return f"ran for {age(attempt['seconds'])}, and ended: {attempt['outcome']}"


def _passed_over(passed: Sequence[Answer], width: int | None) -> _Lines:
    """Each host before it, in the order of rank; of a great many, those with the same words in one line."""
    if not passed:
        return ["no host stands before it"]
    title = f"passed over: {many(len(passed), 'host')} that {'stands' if len(passed) == 1 else 'stand'} before it"
    if len(passed) <= MOST_PASSED:
        called = names((one["host"] for one in passed), width)
        rows = [(name, str(one["words"])) for name, one in zip(called, passed, strict=True)]
        return [title, *(f"  {line}" for line in table(("HOST", "WHY"), rows))]
    groups = _grouped(passed, "words")
    more: _Lines = []
    if len(groups) > MOST_PASSED:
        groups = _grouped(passed, "reason")
        more = ["(in few words; --json has each host's own)"]
    shared = [(str(len(hosts)), _some(hosts, width), words) for words, hosts in groups]
    return [title, *(f"  {line}" for line in table(("NUMBER", "HOSTS", "WHY"), shared, right=(0,))), *more]


def _grouped(passed: Sequence[Answer], by: str) -> list[tuple[str, list[str]]]:
    groups: dict[str, list[str]] = {}
    for one in passed:
        groups.setdefault(str(one[by]), []).append(one["host"])
    return list(groups.items())


def _some(hosts: Sequence[str], width: int | None) -> str:
    named = ", ".join(hosts[:MOST_NAMED])
    text = f"{named}, ..." if len(hosts) > MOST_NAMED else named
    return cut(text, None if width is None else max(8, width // 2))


# -- changes ------------------------------------------------------------------------------------------------------------------


def _history(answer: Answer, width: int | None, colour: bool) -> _Lines:
    if not answer["changes"]:
        return ["nothing was changed"]
    rows = [
        (day_and_time(one["at"]), one["by"], one["where"], safe(shlex.join(one["words"])), one["what"])
        for one in answer["changes"]
    ]
    return _headed(table(("WHEN", "WHO", "FROM", "SAID", "WHAT CAME OF IT"), rows), width, colour)


_LINES: dict[str, Callable[[Answer, int | None, bool], _Lines]] = {
    "status": _status,
    "hosts": _hosts,
    "show": _show,
    "queue": _queue,
    "jobs": _jobs,
    "why": _why,
    "history": _history,
}
