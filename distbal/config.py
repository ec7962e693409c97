"""hosts.yaml -> typed settings, or every mistake at once, each with its line and what would be right.

The file becomes plain values that know their places (:mod:`distbal.yamlfile`); the models check each value by itself
(:mod:`distbal.model`); what joins several values is checked here, on whatever of the file is good, so that one mistake does not
hide the next. Nothing is looked up and nothing is opened but the file.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from distbal import crosscheck, hostspec, mistakes, monitorconfig, yamlfile
from distbal.access import AccessList
from distbal.errors import ConfigError, Mistake
from distbal.hosts import Farm, HostSpec
from distbal.listenspec import Listener
from distbal.model import FileModel, HostModel, ListenModel
from distbal.monitors.watch import Assignment
from distbal.yamlfile import Document

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
    :ivar monitors: who is asked by what.
    """

    farm: Farm
    reply: str
    listen: tuple[Listener, ...]
    allow: dict[str, AccessList]
    monitors: tuple[Assignment, ...] = ()


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
    loaded = read(path, yamlfile.parse(path, yamlfile.read(path)))
    secrets = monitorconfig.secrets_in(loaded.settings.monitors)
    if secrets and _others_can_read(path):
        text = f"everybody can read this file, and {', '.join(secrets)} in it: chmod o-r, or write file:/PATH in their place"
        loaded = Loaded(loaded.settings, sorted([*loaded.warnings, Mistake(0, 0, "monitors", text)]))
    return loaded


def read(path: str, document: Document) -> Loaded:
    """The same of a file whose text is there already; nothing is opened.

    :param path: the file as the user named it, for the sentences.
    :param document: as :func:`distbal.yamlfile.parse` gives it.
    :raises ConfigError: something in it is wrong.
    """
    root, found = document.root, list(document.mistakes)
    values = root.plain()
    file: FileModel | None = None
    try:
        file = FileModel.model_validate(values)
    except ValidationError as error:
        # where YAML itself went wrong, what the models make of the rest would only confuse
        known = {(mistake.line, mistake.column) for mistake in found}
        of_models = [mistakes.of_model(root, FileModel, details) for details in error.errors(include_url=False)]
        found += [mistake for mistake in of_models if mistake is not None and (mistake.line, mistake.column) not in known]
    hosts, complete = crosscheck.good_hosts(values)
    listeners = crosscheck.good_listeners(values)
    found += crosscheck.mistakes(root, values, hosts, listeners, complete)
    monitors = monitorconfig.read(root, values, hosts)
    found += monitors.mistakes
    if found or file is None:
        raise ConfigError(path, found)
    warnings = crosscheck.warnings(root, file, hosts, listeners) + monitors.warnings
    return Loaded(_settings(file, monitors.assignments), sorted(warnings))


def _others_can_read(path: str) -> bool:
    try:
        return bool(Path(path).stat().st_mode & stat.S_IROTH)
    except OSError:
        return False  # it was there a moment ago; nobody can read it now


def _settings(file: FileModel, monitors: list[Assignment]) -> Settings:
    hosts = tuple(_spec(host, rank) for rank, hosts in enumerate(file.hosts) for host in hosts)
    farm = Farm(hosts, file.policy, file.queue.order, file.queue.wait)
    allow = {key: AccessList.parse(getattr(file.allow, key)) for key in type(file.allow).model_fields}
    return Settings(farm, file.reply, _listeners(file.listen), allow, tuple(monitors))


def _spec(host: HostModel, rank: int) -> HostSpec:
    address = hostspec.address_of(host.name if host.address is None else host.address)
    options = f",{host.options}" if host.options else ""
    auto = host.slots == hostspec.AUTO
    slots = hostspec.DISTCC_SLOTS if isinstance(host.slots, str) else host.slots
    return HostSpec(host.name, slots, rank, options, address, tuple(host.pools), auto)


def _listeners(listen: ListenModel) -> tuple[Listener, ...]:
    return tuple(one.listener(kind) for kind in LISTENER_KINDS for one in getattr(listen, kind))
