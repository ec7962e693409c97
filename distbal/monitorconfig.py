"""``monitors`` in hosts.yaml: which monitor asks which host, with which options.

What stands under ``monitors`` holds for all hosts; what a host has under its own ``monitors`` overrides that, key by key. A
name is that of a kind, a plugin (:class:`distbal.interfaces.IHostMonitorFactory`), unless ``kind`` stands beside it: so a host
can have two of one kind. The options are checked by the kind's own model, on whatever of the file is good.
"""

from __future__ import annotations

import math
import pkgutil
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from pydantic import SecretStr, ValidationError
from twisted.plugin import getPlugins
from zope.interface import Invalid
from zope.interface.verify import verifyObject

import distbal.plugins
from distbal import addresses, evidence, hostspec, mistakes, overlay
from distbal.columns import many
from distbal.crosscheck import PlacedHost, at
from distbal.errors import Mistake
from distbal.forms import shown
from distbal.hosts import HostSpec
from distbal.interfaces import IHostMonitorFactory, Target
from distbal.model import MONITOR
from distbal.monitors.kit import MonitorOptions
from distbal.monitors.watch import Assignment
from distbal.yamlfile import Node, Path

#: sources of verdicts that are no monitors
TAKEN = {"update": "the update port's", evidence.SOURCE: "the proxy's", overlay.SOURCE: "the admin's"}

Entry = bool | Mapping[str, Any]
#: the kind of each monitor that asks every host, and its options, by the name that stands in the file
Common = dict[str, tuple[Any, MonitorOptions]]


def kinds() -> dict[str, Any]:
    """Every kind of monitor that is installed and can be used, by its name, in the order of their names."""
    return _find()[0]


def _find() -> tuple[dict[str, Any], list[str]]:
    """The same, and what is wrong with the others. Of two with one name distbal's own is the one that counts."""
    found: dict[str, Any] = {}
    wrong = []
    ours_first = sorted(
        getPlugins(IHostMonitorFactory, distbal.plugins), key=lambda kind: not _module(kind).startswith("distbal.monitors.")
    )
    for kind in ours_first:
        why = _why_no_kind(kind)
        if not why and kind.name in found:
            why = f"its name, {kind.name}, is that of another in {_module(found[kind.name])}"
        if why:
            wrong.append(f"the kind {type(kind).__name__} in {_module(kind)} cannot be used: {why}")
        else:
            found[kind.name] = kind
    return dict(sorted(found.items())), wrong


def _module(kind: object) -> str:
    return type(kind).__module__


def _why_no_kind(kind: Any) -> str:
    """What of its contract a plugin breaks where it would hurt others; "" for nothing."""
    try:
        verifyObject(IHostMonitorFactory, kind)
    except Invalid as error:
        return " ".join(str(error).split())
    if not isinstance(kind.name, str) or not kind.name:
        return "its name is no text"
    if not (isinstance(kind.options, type) and issubclass(kind.options, MonitorOptions)):
        return "its options are no subclass of MonitorOptions"
    if not isinstance(kind.most_at_once, int) or kind.most_at_once < 1:
        return "most_at_once is no whole number of 1 or more"
    if not isinstance(kind.least_interval, int | float) or not 0 <= kind.least_interval < math.inf:
        return "least_interval is no number of seconds"
    try:
        why = kind.why_unavailable()
    except Exception as error:  # noqa: BLE001 (somebody else's code)
        return f"why_unavailable() raises {type(error).__name__}: {error}"
    return "" if isinstance(why, str) else "why_unavailable() returns no text"


def options_schemas() -> dict[str, dict[str, Any]]:
    """The JSON Schema of each kind's options, by the kind's name.

    No key has to be there in a mapping: it may stand for all hosts, or for one.
    """
    schemas = {}
    for name, kind in kinds().items():
        schema = kind.options.model_json_schema()
        schema.pop("required", None)
        schema["title"] = f"options of {name}"
        schema["description"] = kind.description
        schema["properties"]["kind"] = {"const": name, "description": "The kind of monitor, where the name is another."}
        schemas[name] = schema
    return schemas


def broken_plugins() -> list[str]:
    """The plugins that cannot be imported, or used, each with the reason: the search for kinds passes over them."""
    broken = _find()[1]
    for module in pkgutil.iter_modules(distbal.plugins.__path__):
        try:
            import_module(f"distbal.plugins.{module.name}")
        except (Exception, SystemExit) as error:  # noqa: BLE001 (somebody else's module)
            words = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
            broken.append(f"distbal/plugins/{module.name}.py cannot be imported: {words}")
    return broken


@dataclass(slots=True)
class Found:
    """What a file says of monitors.

    :ivar assignments: who is asked by what, in the order of the hosts.
    :ivar common: what asks the hosts that the file does not name.
    :ivar mistakes: what is wrong; the assignments are not to be used then.
    :ivar warnings: what is doubtful.
    """

    assignments: list[Assignment] = field(default_factory=list)
    common: Common = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    warnings: list[Mistake] = field(default_factory=list)


def read(root: Node, values: object, hosts: Iterable[PlacedHost]) -> Found:
    """Take the monitors of a file together.

    :param values: the whole file as plain values, whatever is wrong with it.
    :param hosts: the hosts that are right by themselves.
    """
    everywhere = _entries(values.get("monitors") if isinstance(values, dict) else None)
    own = [(placed, _entries(placed.host.monitors)) for placed in hosts]
    if not everywhere and not any(entries for _, entries in own):
        found = Found()
    else:
        found = _Reader(root, everywhere, kinds()).read(own)
    says_slots = {one.target.name for one in found.assignments if one.kind.proposes_slots}
    found.warnings += [
        at(root, (*placed.path, "slots"), "auto, and no monitor of this host says them (distccd does): until one does it has 4")
        for placed, _ in own
        if placed.host.slots == hostspec.AUTO and placed.host.name not in says_slots
    ]
    return found


def served(
    assignments: Iterable[Assignment], common: Common, named: Collection[str], hosts: Iterable[HostSpec]
) -> tuple[Assignment, ...]:
    """Who is asked by what, when the farm is not what the file says.

    :param assignments: the file's; ``named``: the hosts that it names.
    :param hosts: those that are served: one that the file does not name is asked by what asks every host.
    """
    by_host: dict[str, list[Assignment]] = {}
    for one in assignments:
        by_host.setdefault(one.target.name, []).append(one)
    found: list[Assignment] = []
    for spec in hosts:
        if spec.name not in named:
            found += [Assignment(Target(spec.name, *spec.address), name, *made) for name, made in common.items()]
        else:
            found += by_host.get(spec.name, [])
    return tuple(found)


def summary(assignments: Iterable[Assignment]) -> str:
    """Who is asked by what, in a few words: ``tcp of 3 hosts, ssh of 1 host``; "" for nobody."""
    counts = Counter(one.source for one in assignments)
    return ", ".join(f"{source} of {many(count, 'host')}" for source, count in counts.items())


def _is_secret(value: SecretStr, default: object) -> bool:
    """Whether the text itself must not be seen: it is neither what everybody has, nor the name of a file."""
    text = value.get_secret_value()
    return default not in (value, text) and not text.startswith("file:")


def secrets_in(assignments: Iterable[Assignment]) -> list[str]:
    """The options that are secrets and stand in the file itself, as ``snmp.community``; not those that name a file."""
    # ten thousand hosts share one and the same options, where they have none of their own
    distinct = {(one.source, id(one.options)): one.options for one in assignments}
    found = {
        f"{source}.{name}"
        for (source, _), options in distinct.items()
        for name, value in options
        if isinstance(value, SecretStr) and _is_secret(value, type(options).model_fields[name].default)
    }
    return sorted(found)


def _entries(value: object) -> dict[str, Entry]:
    """What of a ``monitors`` mapping is of the right form; the models say what is not."""
    if not isinstance(value, Mapping):
        return {}
    good = (name for name, entry in value.items() if isinstance(entry, bool | Mapping) and addresses.matches(MONITOR, name))
    return {name: value[name] for name in good}


class _Reader:
    """Reads one file."""

    def __init__(self, root: Node, everywhere: dict[str, Entry], kinds: dict[str, Any]) -> None:
        self._root = root
        self._everywhere = everywhere
        self._kinds = kinds
        self._found = Found()
        self._seen: set[Mistake] = set()
        #: the options of those that stand for all hosts, where no host has others
        self._common: dict[str, tuple[Any, MonitorOptions] | None] = {}

    def read(self, hosts: list[tuple[PlacedHost, dict[str, Entry]]]) -> Found:
        for name, entry in self._everywhere.items():
            # by itself it may lack what the hosts add
            completed = any(isinstance(own.get(name), Mapping) for _, own in hosts)
            self._common[name] = self._options(("monitors", name), name, entry, {}, completed=completed)
        for placed, own in hosts:
            for name in dict.fromkeys((*self._everywhere, *own)):
                self._assign(placed, name, own.get(name))
        self._found.common = {name: made for name, made in self._common.items() if made is not None}
        return self._found

    def _assign(self, placed: PlacedHost, name: str, own: Entry | None) -> None:
        common = self._everywhere.get(name, {})
        if own is False or (own is None and common is False):
            return
        if isinstance(own, Mapping) or name not in self._everywhere or common is False:
            path = (*placed.path, "monitors", name)
            made = self._options(path, name, own if isinstance(own, Mapping) else {}, common, completed=False)
        else:
            made = self._common.get(name)
        if made is not None:
            address = hostspec.address_of(placed.host.address or placed.host.name)
            self._found.assignments.append(Assignment(Target(placed.host.name, *address), name, *made))

    def _options(
        self, path: Path, name: str, entry: Entry, common: Entry, *, completed: bool
    ) -> tuple[Any, MonitorOptions] | None:
        """The kind, and the options that stand there; None where something is wrong, or nothing is wanted.

        :param common: what holds for all hosts.
        :param completed: what is missing here stands elsewhere.
        """
        if name in TAKEN:
            self._wrong(at(self._root, path, f"the name is {TAKEN[name]}: choose another, and write kind: beside it"))
            return None
        if entry is False:
            return None
        options = {**(common if isinstance(common, Mapping) else {}), **(entry if isinstance(entry, Mapping) else {})}
        kind = self._kind(path, name, options.pop("kind", name))
        if kind is None:
            return None
        try:
            made = kind.options.model_validate(options)
        except ValidationError as error:
            for details in error.errors(include_url=False):
                if details["type"] == "missing" and completed:
                    continue
                # of two places, the one where the key stands
                step = details["loc"][0] if details["loc"] else ""
                below = isinstance(entry, Mapping) and (step in entry or step not in options)
                place = path if below or path[0] == "monitors" or not isinstance(common, Mapping) else ("monitors", name)
                mistake = mistakes.of_model(self._root, kind.options, details, place)
                if mistake is not None:
                    self._wrong(mistake)
            return None
        return kind, made

    def _kind(self, path: Path, name: str, word: object) -> Any:
        kind = self._kinds.get(word) if isinstance(word, str) else None
        if kind is None:
            near = get_close_matches(str(word).lower(), self._kinds, 1)
            text = f"no monitor is called {shown(word)}: "
            text += f"did you mean {near[0]}?" if near else f"there are {', '.join(self._kinds)}"
            if word == name and not near:
                text += " (a name of your own has kind: beside it)"
            self._wrong(at(self._root, (*path, "kind"), "; ".join((text, *broken_plugins()))))
        elif why := kind.why_unavailable():
            self._wrong(at(self._root, path, why))
            kind = None
        return kind

    def _wrong(self, mistake: Mistake) -> None:
        # what stands once for all hosts is wrong once
        if mistake not in self._seen:
            self._seen.add(mistake)
            self._found.mistakes.append(mistake)
