"""The rules of hosts.yaml that join several values: names and addresses used twice, pools that do not meet, doubtful things.

They look at whatever of the file is good by itself, so a slip in one host does not hide that two others have one name.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from pydantic import TypeAdapter, ValidationError

from distbal import addresses, hostspec
from distbal.errors import Mistake
from distbal.hosts import DEFAULT_POOL
from distbal.listenspec import KNOWN_ENDPOINTS, Listener
from distbal.model import BalanceListenerModel, FileModel, HostEntry, HostModel, ListenModel
from distbal.yamlfile import Node, Path, where

_HOST: TypeAdapter[HostModel] = TypeAdapter(HostEntry)


@dataclass(frozen=True, slots=True)
class PlacedHost:
    """A good host and where it stands."""

    path: Path
    host: HostModel


@dataclass(frozen=True, slots=True)
class PlacedListener:
    """A good listener and where it stands, or would stand: ``written`` is False for a default."""

    path: Path
    listener: Listener
    written: bool

    def __str__(self) -> str:
        return f"{self.listener.kind} ({self.listener.at}{'' if self.written else ', the default'})"


def at(root: Node, path: Path, text: str) -> Mistake:
    """A mistake at the path, or as near to it as the file goes."""
    found, node = root.at(path)
    return Mistake(node.line, node.column, where(found), text) if found else Mistake(0, 0, where(path[:2]), text)


def good_hosts(values: object) -> tuple[list[PlacedHost], bool]:
    """The hosts that are right by themselves, in the order of the file, and whether they are all that the file has."""
    ranks = values.get("hosts") if isinstance(values, dict) else None
    if not isinstance(ranks, list):
        return [], False
    entries: list[tuple[Path, object]] = []
    for number, rank in enumerate(ranks):
        if isinstance(rank, list):
            entries += [(("hosts", number, inner), entry) for inner, entry in enumerate(rank)]
        else:
            entries.append((("hosts", number), rank))
    hosts = []
    for path, entry in entries:
        try:
            hosts.append(PlacedHost(path, _HOST.validate_python(entry)))
        except ValidationError:  # the models say so themselves
            continue
    return hosts, len(hosts) == len(entries)


def good_listeners(values: object) -> list[PlacedListener]:
    """The listeners that are right by themselves, defaults included."""
    listen = values.get("listen", {}) if isinstance(values, dict) else None
    if not isinstance(listen, dict):
        return []
    placed = []
    for kind in ListenModel.model_fields:
        try:
            models = getattr(ListenModel.model_validate({kind: listen[kind]} if kind in listen else {}), kind)
        except ValidationError:  # the models say so themselves
            continue
        for number, model in enumerate(models):
            pool = model.pool if isinstance(model, BalanceListenerModel) else DEFAULT_POOL
            path: Path = ("listen", kind, number)
            placed.append(PlacedListener(path, Listener(kind, model.at, pool), kind in listen))
    return placed


def mistakes(root: Node, hosts: list[PlacedHost], listeners: list[PlacedListener], complete: bool) -> list[Mistake]:
    """What cannot be, taken together; ``complete`` says that the hosts are all that the file has."""
    found = _names_twice(root, hosts) + _addresses_twice(root, listeners)
    return found + _pools_without_hosts(root, hosts, listeners) if complete else found


def warnings(root: Node, file: FileModel, hosts: list[PlacedHost], listeners: list[PlacedListener]) -> list[Mistake]:
    """What can be, and yet is probably not meant."""
    found = [at(root, placed.path, text) for placed in hosts for text in _doubts(placed.host, file)]
    found += _one_machine_twice(root, hosts) + _loopback_among_others(root, hosts)
    found += _pools_without_listeners(root, hosts, listeners)
    for placed in listeners:
        kind = placed.listener.at.description.partition(":")[0]
        if kind and kind not in KNOWN_ENDPOINTS:
            text = f"{kind} is no endpoint that Twisted brings: this works only where a plug-in of that name is installed"
            found.append(at(root, placed.path, text))
    if "{options}" not in file.reply and "," not in file.reply and any(placed.host.options for placed in hosts):
        found.append(at(root, ("reply",), "has no {options}, so clients are not told the options that hosts have"))
    return found


def _names_twice(root: Node, hosts: list[PlacedHost]) -> list[Mistake]:
    first: dict[str, Path] = {}
    found = []
    for placed in hosts:
        path = first.setdefault(placed.host.name, placed.path)
        if path is not placed.path:
            line = root.at(path)[1].line
            text = f"{placed.host.name} stands twice, first on line {line}: keep one, with all of its slots"
            found.append(at(root, placed.path, text))
    return found


def _addresses_twice(root: Node, listeners: list[PlacedListener]) -> list[Mistake]:
    found = []
    for number, placed in enumerate(listeners):
        for earlier in listeners[:number]:
            if placed.listener.at.overlaps(earlier.listener.at) and (placed.written or earlier.written):
                here, other = (placed, earlier) if placed.written else (earlier, placed)
                text = f"{here.listener.at} is taken: {other} listens there"
                found.append(at(root, here.path, text))
    return found


def _pools_without_hosts(root: Node, hosts: list[PlacedHost], listeners: list[PlacedListener]) -> list[Mistake]:
    served = sorted({pool for placed in hosts for pool in placed.host.pools})
    found = []
    for placed in listeners:
        pool = placed.listener.pool
        if placed.listener.kind != "balance" or pool in served or not hosts:
            continue
        near = get_close_matches(pool, served, 1)
        right = f"did you mean {near[0]}?" if near else f"the pools here are {', '.join(served)}"
        own = (*placed.path, "pool")
        if root.at(own)[0] != root.at(placed.path)[0]:
            text = f"no host serves the pool {pool}: {right}"
        else:
            write = f"{{at: {placed.listener.at}, pool: {served[0]}}}"
            text = f"no host serves the pool {pool}, which {placed} lends: write {write}"
        found.append(at(root, own, text))
    return found


def _doubts(host: HostModel, file: FileModel) -> list[str]:
    """What is doubtful of a host by itself."""
    found = []
    if "slots" not in host.model_fields_set:
        found.append(f"{host.name} has no number of slots, and so {hostspec.DISTCC_SLOTS}, as distcc takes it: say how many")
    if host.slots > hostspec.DISTCC_MOST_SLOTS:
        found.append(f"{host.slots} slots: distcc itself uses at most {hostspec.DISTCC_MOST_SLOTS} of one host")
    options = f",{host.options}" if host.options else ""
    told = file.reply.replace("{name}", host.name).replace("{options}", options)
    if told == "localhost" or told.startswith("localhost/"):
        found.append("localhost tells distcc to run the job on the client itself: write 127.0.0.1 for a distccd there")
    return found


def _one_machine_twice(root: Node, hosts: list[PlacedHost]) -> list[Mistake]:
    first: dict[tuple[str, int], PlacedHost] = {}
    found = []
    for placed in hosts:
        name, port = hostspec.address_of(placed.host.address or placed.host.name)
        earlier = first.setdefault((addresses.canonical(name), port), placed)
        if earlier is not placed:
            line = root.at(earlier.path)[1].line
            text = f"{placed.host.name} has the address of {earlier.host.name} on line {line}: one distccd, the slots of both"
            found.append(at(root, placed.path, text))
    return found


def _loopback_among_others(root: Node, hosts: list[PlacedHost]) -> list[Mistake]:
    """A farm on one machine is a trial and fine; but clients elsewhere take 127.0.0.1 for themselves."""
    near = [placed for placed in hosts if addresses.is_loopback(hostspec.address_of(placed.host.name)[0])]
    if len(near) == len(hosts):
        return []
    text = "to each client {} is its own machine: write the name that the others know this one by"
    return [
        at(root, placed.path, text.format(placed.host.name))
        for placed in near
        if hostspec.address_of(placed.host.name)[0] != "localhost" or ":" in placed.host.name
    ]


def _pools_without_listeners(root: Node, hosts: list[PlacedHost], listeners: list[PlacedListener]) -> list[Mistake]:
    lent = {placed.listener.pool for placed in listeners if placed.listener.kind == "balance"}
    if not lent:
        return [at(root, ("listen", "balance"), "nothing listens for clients, so no host is ever lent")]
    first: dict[str, Path] = {}
    for placed in hosts:
        for pool in placed.host.pools:
            first.setdefault(pool, placed.path)
    text = "no listener lends the pool {0}: add one such as {{at: 5756, pool: {0}}} to listen.balance"
    return [at(root, (*path, "pools"), text.format(pool)) for pool, path in first.items() if pool not in lent]
