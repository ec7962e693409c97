"""``exec``: any program, which answers as a Nagios plugin does: so every check of Debian's monitoring-plugins is a monitor.

The conventions are those of the Monitoring Plugins Development Guidelines (monitoring-plugins.org/doc/guidelines.html): the
exit code says how things are (0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN), the first line of the output says it to people, and
behind its ``|`` stand the figures ("performance data").
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from signal import Signals
from typing import Annotated, Any

from pydantic.json_schema import JsonSchemaValue
from twisted.internet.defer import Deferred
from twisted.plugin import IPlugin
from zope.interface import implementer

from distbal.errors import MonitorTrouble
from distbal.forms import Leaf, Unfit, between, setting, shown
from distbal.interfaces import Fact, IHostMonitor, IHostMonitorFactory, Reading, Target
from distbal.monitors.kit import Interval, MonitorKind, MonitorOptions, Surroundings, Timeout
from distbal.monitors.programs import MOST_OUTPUT, PATH, Ended, Program, why_none_can_run
from distbal.monitors.readings import MOST_FACTS, one_line

OK, WARNING, CRITICAL, UNKNOWN = range(4)
#: what may stand in the command's braces
PLACEHOLDERS = ("name", "host", "port")
#: characters of the program's own words in a reason or a trouble
MOST_SAID = 160

_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
#: one figure: 'label'=value[UOM];warn;crit;min;max, where the quotes are only needed around blanks, and '' is one of them
_FIGURE = re.compile(r"(?:'((?:[^']|'')+)'|([^\s'=]+))=(\S*)")
_VALUE = re.compile(r"([-+]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][-+]?[0-9]{1,3})?)([^0-9;]{0,10})(?:;|$)")
_BLANKS = re.compile(r"\s*")
_WORD = re.compile(r"\S*")


def _words(value: object) -> tuple[str, ...]:
    """The command's words; Unfit says what is wrong with it."""
    if isinstance(value, str):
        try:
            words: list[Any] = shlex.split(value)
        except ValueError as problem:
            raise Unfit(f"{shown(value)} cannot be split into words: {problem}") from problem
    elif isinstance(value, list):
        words = value
    else:
        raise Unfit(f"{shown(value)} is no command: a list of words is wanted, the program first")
    for word in words:
        if not isinstance(word, str):
            quoted = f'; in quotes, "{word}", it is one' if isinstance(word, int | float) else ""
            raise Unfit(f"{shown(word)} is no text{quoted}: a command is a list of texts")
        if "\0" in word or not _is_utf8(word):
            raise Unfit(f"{shown(word)} has characters that no argument may have")
        _filled(word, dict.fromkeys(PLACEHOLDERS, ""))
    if not words or not words[0]:
        raise Unfit("the command is empty: the program is wanted, and its arguments")
    if "/" in words[0] and not words[0].startswith("/"):
        raise Unfit(f"{shown(words[0])} depends on a directory: write the whole path, or the name alone of a program in {PATH}")
    return tuple(words)


def _is_utf8(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _filled(word: str, values: dict[str, str]) -> str:
    """A word with the placeholders' values in it; Unfit for one that there is not."""

    def value(found: re.Match[str]) -> str:
        whole, name = found[0], found[1]
        if whole in ("{{", "}}"):
            return whole[0]
        if name in values:
            return values[name]
        known = ", ".join(f"{{{known}}}" for known in values)
        raise Unfit(f"{shown(whole)} in {shown(word)} is none of {known}; a brace itself is written twice")

    return _BRACES.sub(value, word)


_COMMAND_SCHEMA: JsonSchemaValue = {
    "anyOf": [
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
        {"type": "string", "minLength": 1},
    ]
}


class ExecOptions(MonitorOptions):
    """What stands behind ``exec`` in hosts.yaml; ``command`` has to."""

    command: Annotated[tuple[str, ...], Leaf(_words, _COMMAND_SCHEMA)] = setting(
        ...,
        "The program and its arguments: a list of texts, or one text, which is split as a shell would; none is run."
        " {name}, {host} and {port} in them are the host's name, and where its distccd is reached. A program without a"
        f" path is looked for in {PATH}.",
    )
    warning_weight: Annotated[float, between(0, 1, "the share of its slots for a host at a warning")] = setting(
        1.0, "The weight of a host while the program ends with 1 (WARNING): 1.0 leaves it alone, 0.0 sends no new jobs."
    )
    interval: Interval = setting(30, "Seconds from one check of a host to the next.")
    timeout: Timeout = setting(10, "Seconds that a check may take; then the program is killed.")


@implementer(IPlugin, IHostMonitorFactory)
class ExecKind(MonitorKind):
    """Makes monitors of this kind."""

    name = "exec"
    description = "what does a program say that answers as Nagios plugins do?"
    options = ExecOptions
    # a program costs what hundreds of connects do
    most_at_once = 8
    silence_is_down = False
    silence = "the program had not ended, and was killed"

    def why_unavailable(self) -> str:
        """Only an old kernel stands in the way."""
        return why_none_can_run()

    def monitor(self, target: Target, options: ExecOptions, surroundings: Surroundings) -> ExecMonitor:
        """Make a monitor of one host."""
        return ExecMonitor(target, options, surroundings)


@implementer(IHostMonitor)
class ExecMonitor:
    """Runs the program for one host."""

    def __init__(self, target: Target, options: ExecOptions, surroundings: Surroundings) -> None:
        values = {"name": target.name, "host": target.host, "port": str(target.port)}
        self._words = [_filled(word, values) for word in options.command]
        self._called = one_line(Path(self._words[0]).name, 40)
        self._weight = options.warning_weight
        self._reactor = surroundings.reactor
        self._program: Program | None = None

    async def check(self) -> Reading:
        """Run it once."""
        if self._program is not None and not self._program.gone:
            # what was killed ends at once, unless the kernel holds it (a disk or a server of files that does not answer)
            raise MonitorTrouble(f"cannot be judged: the last {self._called} was killed, and has still not ended")
        try:
            self._program = Program(self._reactor, self._words)
        except OSError as problem:
            raise MonitorTrouble(f"cannot be judged: {self._called} cannot be run: {_why_not_run(problem)}") from problem
        return judged(self._called, await self._program.outcome, self._weight)

    def stop(self) -> Deferred[None] | None:
        """Wait for what was killed."""
        return None if self._program is None or self._program.gone else self._program.when_gone()


def judged(called: str, ended: Ended, warning_weight: float) -> Reading:
    """What a program said.

    :param called: the program's name.
    :raises MonitorTrouble: it could not tell: UNKNOWN, or an end that is none of the conventions'.
    """
    line, figures = first_line(ended)
    said = f": {line}" if line else ""
    if ended.status == OK:
        return Reading(up=True, reason=f"is fine{said}", facts=facts(figures))
    if ended.status == WARNING:
        weight = warning_weight if warning_weight < 1 else None
        return Reading(up=True, reason=f"is at a warning{said}", weight=weight, facts=facts(figures))
    if ended.status == CRITICAL:
        return Reading(up=False, reason=f"is critical{said}", facts=facts(figures))
    if ended.status == UNKNOWN:
        raise MonitorTrouble(f"cannot be judged by {called}{said}")
    how = f"ended with {ended.status}" if ended.status > 0 else f"was ended by {_signal(-ended.status)}"
    raise MonitorTrouble(f"cannot be judged: {called} {how}{said}")


def first_line(ended: Ended) -> tuple[str, str]:
    """What a program says to people, on one line, and its figures. Without output, its error output says something."""
    output = ended.output.lstrip()
    line, end, _ = output.partition(b"\n")
    text, bar, figures = line.decode(errors="replace").partition("|")
    if bar and not end and len(ended.output) >= MOST_OUTPUT:
        # the last figure may have been cut in two, and would be another
        figures = figures.rpartition(" ")[0]
    if not output:
        text = ended.errors.lstrip().partition(b"\n")[0].decode(errors="replace")
    return one_line(text, MOST_SAID), figures


def facts(figures: str) -> dict[str, Fact]:
    """The figures by their labels, at most :data:`distbal.monitors.readings.MOST_FACTS`: numbers; with a unit, texts."""
    return dict(islice(_figures(figures), MOST_FACTS))


def _figures(text: str) -> Iterator[tuple[str, Fact]]:
    position = 0
    while position < len(text):
        position = _end(_BLANKS, text, position)
        found = _FIGURE.match(text, position)
        if found is None:
            position = _end(_WORD, text, position)
            continue
        position = found.end()
        value = _VALUE.match(found[3])
        label = found[2] or (found[1] or "").replace("''", "'").strip()
        if value is not None and label:
            yield label, _number(value[1]) if value[2] in ("", "c") else value[1] + value[2]


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    found = pattern.match(text, position)
    return found.end() if found else len(text)


def _number(text: str) -> Fact:
    number = float(text)
    return int(text) if text.lstrip("+-").isdigit() and len(text) < 19 else number if math.isfinite(number) else text


def _signal(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _why_not_run(problem: OSError) -> str:
    if isinstance(problem, FileNotFoundError):
        named = str(problem.filename or "")
        if not named.startswith("/"):
            return f"there is none in {PATH}"
        if Path(named).exists():
            return "it is there, but not the interpreter that its first line names"
    return str(problem.strerror)
