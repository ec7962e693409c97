"""hosts.yaml -> typed settings, or every mistake at once, each with its line and what would be right.

The file becomes plain values that know their places (:mod:`distbal.yamlfile`); the models check each value by itself
(:mod:`distbal.model`); what joins several values is checked here, on whatever of the file is good, so that one mistake does not
hide the next. Nothing is looked up and nothing is opened but the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from distbal import crosscheck, hostspec, yamlfile
from distbal.access import AccessList
from distbal.errors import ConfigError, Mistake
from distbal.forms import shown
from distbal.hosts import Farm, HostSpec
from distbal.listenspec import Listener
from distbal.model import HOST_FORM, FileModel, HostModel, ListenModel, ProxyListenerModel
from distbal.yamlfile import Node, Path

DEFAULT_PATH = "/etc/distbal/hosts.yaml"
#: what ``listen`` may hold, in the order in which it is shown
LISTENER_KINDS = tuple(ListenModel.model_fields)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the daemon runs with.

    :ivar farm: hosts, policy, queue.
    :ivar reply: what 5656 answers: a template of ``{name}`` and ``{options}`` (with its comma in front).
    :ivar listen: where to listen, in the order balance, status, update, proxy.
    :ivar allow: who may connect, by ``clients`` (balance, status and proxy) and ``update``.
    """

    farm: Farm
    reply: str
    listen: tuple[Listener, ...]
    allow: dict[str, AccessList]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A good file.

    :ivar settings: what it says.
    :ivar warnings: what a person may want to look at again, in the order of the file.
    """

    settings: Settings
    warnings: list[Mistake]


def load(path: str) -> Loaded:
    """Read a hosts.yaml.

    :param path: the file as the user named it.
    :raises ConfigError: it cannot be read, or something in it is wrong: every mistake that can be found at once.
    """
    document = yamlfile.parse(path, yamlfile.read(path))
    root, mistakes = document.root, document.mistakes
    values = root.plain()
    file: FileModel | None = None
    try:
        file = FileModel.model_validate(values)
    except ValidationError as error:
        # where YAML itself went wrong, what the models make of the rest would only confuse
        known = {(mistake.line, mistake.column) for mistake in mistakes}
        found = [_mistake(root, details) for details in error.errors(include_url=False) if not _is_mistyped(details)]
        mistakes += [mistake for mistake in found if (mistake.line, mistake.column) not in known]
    hosts, complete = crosscheck.good_hosts(values)
    listeners = crosscheck.good_listeners(values)
    mistakes += crosscheck.mistakes(root, values, hosts, listeners, complete)
    if mistakes or file is None:
        raise ConfigError(path, mistakes)
    return Loaded(_settings(file), sorted(crosscheck.warnings(root, file, hosts, listeners)))


def _settings(file: FileModel) -> Settings:
    hosts = tuple(_spec(host, rank) for rank, hosts in enumerate(file.hosts) for host in hosts)
    farm = Farm(hosts, file.policy, file.queue.order, file.queue.wait)
    allow = {key: AccessList.parse(getattr(file.allow, key)) for key in type(file.allow).model_fields}
    return Settings(farm, file.reply, _listeners(file.listen), allow)


def _spec(host: HostModel, rank: int) -> HostSpec:
    address = hostspec.address_of(host.name if host.address is None else host.address)
    options = f",{host.options}" if host.options else ""
    return HostSpec(host.name, host.slots, rank, options, address, tuple(host.pools))


def _listeners(listen: ListenModel) -> tuple[Listener, ...]:
    return tuple(one.listener(kind) for kind in LISTENER_KINDS for one in getattr(listen, kind))


def _mistake(root: Node, details: ErrorDetails) -> Mistake:
    """What a model found, in our words. The forms bring theirs; only what concerns keys and mappings is said here."""
    path: Path = tuple(details["loc"])
    kind = details["type"]
    if kind == "value_error":
        return crosscheck.at(root, path, str(details["ctx"]["error"]))
    if kind == "extra_forbidden":
        node = root.key_at(path)
        parent, _ = root.at(path[:-1])
        return Mistake(node.line, node.column, yamlfile.where((*parent, path[-1])), _why_unknown(path, details["input"]))
    if kind == "missing":
        text = _MISSING[str(path[-1])]
        return crosscheck.at(root, path[:-1], text)
    if kind == "model_type":
        keys = ", ".join(_section_at(path).model_fields)
        text = f"{shown(details['input'])} where a mapping is wanted, with any of the keys {keys}"
        found, node = root.at(path)
        return Mistake(node.line, node.column, yamlfile.where(found), text)
    raise AssertionError(f"nobody has said what {kind} means")


_MISSING = {
    "hosts": "hosts is missing: list one distcc server at least, such as - 127.0.0.1:3632/4",
    "name": f"a name is missing: {HOST_FORM}",
    "at": "at is missing: it says where to listen",
}


def _why_unknown(path: Path, value: object) -> str:
    key = str(path[-1])
    known = _section_at(path[:-1]).model_fields
    if key == "pool" and path[0] == "listen":
        return "only listen.balance and listen.proxy have pools"
    if key in ProxyListenerModel.model_fields and key != "at" and path[0] == "listen":
        return f"{key} is the proxy's: only listen.proxy has it"
    if key in ("lzo", "cpp", "auth") and value is None:
        return f"{key} is an option: between {{ and }} a comma ends a text, so put the whole in quotes"
    near = _nearest(key, known)
    right = f"did you mean {near}?" if near else f"the keys here are {', '.join(known)}"
    return f"unknown key; {right}"


def _nearest(key: str, known: Iterable[str]) -> str | None:
    return next(iter(get_close_matches(key.lower(), list(known), 1)), None)


def _is_mistyped(details: ErrorDetails) -> bool:
    """Whether a key is missing because it stands there as another, which is reported as such."""
    if details["type"] != "missing" or not isinstance(details["input"], dict):
        return False
    path: Path = tuple(details["loc"])
    known = _section_at(path[:-1]).model_fields
    return any(_nearest(str(key), known) == path[-1] for key in details["input"] if key not in known)


def _section_at(path: Path) -> type[BaseModel]:
    """The model of the mapping that stands there: follows the names and passes over indexes."""
    section: type[BaseModel] = FileModel
    for step in path:
        if isinstance(step, str) and step in section.model_fields:
            section = _section_in(section.model_fields[step].annotation) or section
    return section


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)
