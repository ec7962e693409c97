"""hosts.yaml -> typed settings, or every mistake at once, each with its line and what would be right.

The file becomes plain values that know their places (:mod:`distbal.yamlfile`); the models check each value by itself
(:mod:`distbal.model`); what joins several values is checked here, on whatever of the file is good, so that one mistake does not
hide the next. Nothing is looked up and nothing is opened but the file.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import ValidationError

from distbal import crosscheck, hostspec, mistakes, monitorconfig, yamlfile
from distbal.access import AccessList
from distbal.errors import ConfigError, Mistake
from distbal.hosts import Farm, HostSpec
from distbal.listenspec import KINDS, Listener
from distbal.model import FileModel, HostModel, ListenModel, ManholeModel
from distbal.monitors.watch import Assignment
from distbal.yamlfile import Document


@dataclass(frozen=True, slots=True)
class Settings:
    """What the daemon runs with.

    :ivar farm: hosts, policy, queue.
    :ivar reply: what 5656 answers: a template of ``{name}`` and ``{options}`` (with its comma in front).
    :ivar listen: where to listen, in the order of :data:`~distbal.listenspec.KINDS`.
    :ivar allow: who may connect, by ``clients`` (balance, status and proxy), ``update`` and ``web``.
    :ivar monitors: who is asked by what.
    :ivar common: what asks the hosts that the file does not name.
    :ivar manhole: the keys of the manhole.
    :ivar state: the directory of what people decided; None for nowhere. ``state_wanted``: the file itself says so.
    """

    farm: Farm
    reply: str
    listen: tuple[Listener, ...]
    allow: dict[str, AccessList]
    monitors: tuple[Assignment, ...] = ()
    common: monitorconfig.Common = field(default_factory=dict)
    manhole: ManholeModel = field(default_factory=ManholeModel)
    state: str | None = None
    state_wanted: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A good file.

    :ivar settings: what it says.
    :ivar text: the file itself, where it was read from one.
    :ivar warnings: what a person may want to look at again, in the order of the file.
    """

    settings: Settings
    warnings: list[Mistake]
    text: str = ""


def load(path: str) -> Loaded:
    """Read a hosts.yaml.

    :param path: the file as the user named it.
    :raises ConfigError: it cannot be read, something in it is wrong (every mistake that can be found at once), everybody may
        write it, or read the secrets in it.
    """
    text = yamlfile.read(path)
    document = yamlfile.parse(path, text)
    loaded = replace(read(path, document), text=text)
    refused = _open_to_others(path, document, monitorconfig.secrets_in(loaded.settings.monitors))
    if refused:
        raise ConfigError(path, refused)
    return loaded


def parsed(path: str, text: str) -> Loaded:
    """The same of a file's text.

    :param path: the file as the user named it, for the sentences.
    :raises ConfigError: something in it is wrong.
    """
    return replace(read(path, yamlfile.parse(path, text)), text=text)


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
    return Loaded(_settings(file, monitors), sorted(warnings))


def _open_to_others(path: str, document: Document, secrets: list[str]) -> list[Mistake]:
    """What everybody on this machine may do with the file, and should not.

    :param secrets: as :func:`distbal.monitorconfig.secrets_in` gives them.
    """
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return []  # it was there a moment ago; nobody can do anything with it now
    found = []
    if mode & stat.S_IWOTH:
        found.append(Mistake(0, 0, "", "everybody may write this file, and so have distbal run any program: chmod o-w"))
    if secrets and mode & stat.S_IROTH:
        why = f"everybody can read this file, and {', '.join(secrets)} in it: chmod o-r, or write file:/PATH in their place"
        place = ("monitors", *secrets[0].split("."))
        there, node = document.root.at(place)
        # one that stands at a host is named, and no more
        stands = there == place
        found.append(Mistake(node.line, node.column, yamlfile.where(place), why) if stands else Mistake(0, 0, "", why))
    return found


def _settings(file: FileModel, monitors: monitorconfig.Found) -> Settings:
    hosts = tuple(spec_of(host, rank) for rank, hosts in enumerate(file.hosts) for host in hosts)
    return Settings(
        farm=Farm(hosts, file.policy, file.queue.order, file.queue.wait),
        reply=file.reply,
        listen=_listeners(file.listen),
        allow={key: AccessList.parse(getattr(file.allow, key)) for key in type(file.allow).model_fields},
        monitors=tuple(monitors.assignments),
        common=monitors.common,
        manhole=file.manhole,
        state=file.state,
        state_wanted="state" in file.model_fields_set,
    )


def spec_of(host: HostModel, rank: int) -> HostSpec:
    """A host as the scheduler knows it; ``rank`` from 0."""
    address = hostspec.address_of(host.name if host.address is None else host.address)
    options = f",{host.options}" if host.options else ""
    auto = host.slots == hostspec.AUTO
    slots = hostspec.DISTCC_SLOTS if isinstance(host.slots, str) else host.slots
    return HostSpec(host.name, slots, rank, options, address, tuple(host.pools), auto)


def _listeners(listen: ListenModel) -> tuple[Listener, ...]:
    """Where to listen. The admin socket's default is in a directory that is there for a daemon of the system alone."""
    default = {"admin"} - listen.model_fields_set
    return tuple(replace(one.listener(kind), optional=kind in default) for kind in KINDS for one in getattr(listen, kind))
