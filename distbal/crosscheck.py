"""The rules of hosts.yaml that join several values: names and addresses used twice, pools that do not meet, doubtful things.

They look at whatever of the file is good by itself, so a slip in one host does not hide that two others have one name.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from pydantic import TypeAdapter, ValidationError

from distbal import addresses, hostspec
from distbal.errors import Mistake
from distbal.forms import shown
from distbal.listenspec import KNOWN_ENDPOINTS, WRAPPING_ENDPOINTS, ListenAddress, Listener
from distbal.model import FileModel, HostEntry, HostModel, ListenModel
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
    entries = _entries(values)
    hosts = []
    for path, entry in entries or ():
        try:
            hosts.append(PlacedHost(path, _HOST.validate_python(entry)))
        except ValidationError:  # the models say so themselves
            continue
    return hosts, entries is not None and len(hosts) == len(entries)


def names(values: object) -> list[tuple[Path, str]]:
    """Where each host stands and its name; those too in which only something else is wrong."""
    found = []
    for path, entry in _entries(values) or ():
        text = entry.get("name") if isinstance(entry, dict) else entry
        if isinstance(text, str) and (name := hostspec.name_in(text)):
            found.append((path, name))
    return found


def _entries(values: object) -> list[tuple[Path, object]] | None:
    ranks = values.get("hosts") if isinstance(values, dict) else None
    if not isinstance(ranks, list):
        return None
    entries: list[tuple[Path, object]] = []
    for number, rank in enumerate(ranks):
        if isinstance(rank, list):
            entries += [(("hosts", number, inner), entry) for inner, entry in enumerate(rank)]
        else:
            entries.append((("hosts", number), rank))
    return entries


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
            placed.append(PlacedListener(("listen", kind, number), model.listener(kind), kind in listen))
    return placed


def mistakes(
    root: Node, values: object, hosts: list[PlacedHost], listeners: list[PlacedListener], complete: bool
) -> list[Mistake]:
    """What cannot be, taken together; ``complete`` says that the hosts are all that the file has."""
    found = _names_twice(root, names(values)) + _addresses_twice(root, listeners) + _ends_not_to_be_passed_on(root, listeners)
    return found + _pools_without_hosts(root, hosts, listeners) if complete else found


def warnings(root: Node, file: FileModel, hosts: list[PlacedHost], listeners: list[PlacedListener]) -> list[Mistake]:
    """What can be, and yet is probably not meant."""
    found = [at(root, placed.path, text) for placed in hosts if (text := _why_no_number(placed.host))]
    found += _one_machine_twice(root, hosts) + _pools_without_listeners(root, hosts, listeners)
    found += _doubts_of_what_is_told(root, file, hosts, listeners) + _loops(root, hosts, listeners)
    for placed in listeners:
        if placed.listener.kind == "manhole" and not _is_for_this_machine(placed.listener.at):
            text = (
                "whoever has a key can do everything, from anywhere: 127.0.0.1:PORT would do, by way of the machine's own SSH"
            )
            found.append(at(root, placed.path, text))
        kind = placed.listener.at.description.partition(":")[0]
        if kind and kind not in KNOWN_ENDPOINTS:
            text = f"{kind} is no endpoint that Twisted brings: this works only where a plug-in of that name is installed"
            found.append(at(root, placed.path, text))
    return found


def _names_twice(root: Node, hosts: list[tuple[Path, str]]) -> list[Mistake]:
    first: dict[str, Path] = {}
    found = []
    for path, name in hosts:
        earlier = first.setdefault(name, path)
        if earlier is not path:
            line = root.at(earlier)[1].line
            found.append(at(root, path, f"{name} stands twice, first on line {line}: keep one, with all of its slots"))
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


def _ends_not_to_be_passed_on(root: Node, listeners: list[PlacedListener]) -> list[Mistake]:
    found = []
    for placed in listeners:
        kind = placed.listener.at.description.partition(":")[0]
        if placed.listener.half_close == "pass" and kind in WRAPPING_ENDPOINTS:
            text = f"{kind} knows no end of one side alone, so it can pass none on"
            found.append(at(root, (*placed.path, "half_close"), text))
    return found


def _pools_without_hosts(root: Node, hosts: list[PlacedHost], listeners: list[PlacedListener]) -> list[Mistake]:
    served = sorted({pool for placed in hosts for pool in placed.host.pools})
    found = []
    for placed in listeners:
        pool = placed.listener.pool
        if not placed.listener.lends or pool in served or not hosts:
            continue
        near = get_close_matches(pool, served, 1)
        right = f"did you mean {near[0]}?" if near else f"the pools here are {', '.join(served)}"
        own = (*placed.path, "pool")
        if root.at(own)[0] != root.at(placed.path)[0]:
            text = f"no host serves the pool {pool}: {right}"
        else:
            text = f"no host serves the pool {pool}, which {placed} lends: {_how_to_lend(root, placed, served[0])}"
        found.append(at(root, own, text))
    return found


def _how_to_lend(root: Node, placed: PlacedListener, pool: str) -> str:
    """What to write so that a listener, of which the file says no pool, lends that one."""
    _, node = root.at(placed.path)
    if node.entries is not None and "at" in node.entries:
        return f"add pool: {pool}"
    place = str(placed.listener.at)
    return f"write {{at: {shown(place) if place.startswith('[') else place}, pool: {pool}}}"


def _why_no_number(host: HostModel) -> str:
    """Why nobody seems to have thought of how many slots a host has; "" where somebody has."""
    if "slots" in host.model_fields_set:
        return ""
    return f"{host.name} has no number of slots, and so {hostspec.DISTCC_SLOTS}, as distcc takes it: say how many"


def _doubts_of_what_is_told(
    root: Node, file: FileModel, hosts: list[PlacedHost], listeners: list[PlacedListener]
) -> list[Mistake]:
    """What clients of balance would make of what they are told. Those of a proxy are told nothing."""
    told = _lent_by("balance", hosts, listeners)
    found = [at(root, placed.path, text) for placed in told for text in _doubts_of_a_reply(placed.host, file)]
    if not all(map(_is_here, hosts)):
        found += _loopback_among_others(root, told)
    if any(placed.host.options for placed in told) and "{options}" not in file.reply and "," not in file.reply:
        found.append(at(root, ("reply",), "has no {options}, so clients are not told the options that hosts have"))
    told_paths = {placed.path for placed in told}
    if any(placed.host.options and placed.path not in told_paths for placed in _lent_by("proxy", hosts, listeners)):
        text = "a proxy tells clients no options of hosts: they write their own, as in DISTCC_HOSTS=balancer:3640/40,lzo"
        found.append(at(root, ("listen", "proxy"), text))
    return found


def _lent_by(kind: str, hosts: list[PlacedHost], listeners: list[PlacedListener]) -> list[PlacedHost]:
    """The hosts that are lent by listeners of that kind."""
    pools = {placed.listener.pool for placed in listeners if placed.listener.kind == kind}
    return [placed for placed in hosts if not pools.isdisjoint(placed.host.pools)]


def _doubts_of_a_reply(host: HostModel, file: FileModel) -> list[str]:
    """What is doubtful of a host that distcc is told of."""
    found = []
    if isinstance(host.slots, int) and host.slots > hostspec.DISTCC_MOST_SLOTS:
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


def _is_here(placed: PlacedHost) -> bool:
    return addresses.is_loopback(hostspec.address_of(placed.host.name)[0])


def _loopback_among_others(root: Node, told: list[PlacedHost]) -> list[Mistake]:
    """A farm on one machine is a trial and fine; but clients elsewhere take 127.0.0.1 for themselves."""
    text = "to each client {} is its own machine: write the name that the others know this one by"
    return [
        at(root, placed.path, text.format(placed.host.name))
        for placed in filter(_is_here, told)
        if hostspec.address_of(placed.host.name)[0] != "localhost" or ":" in placed.host.name
    ]


def _loops(root: Node, hosts: list[PlacedHost], listeners: list[PlacedListener]) -> list[Mistake]:
    """Hosts that are a proxy of this very daemon, as far as it shows without looking names up."""
    proxies = [placed for placed in listeners if placed.listener.kind == "proxy"]
    found = []
    for placed in hosts:
        name, port = hostspec.address_of(placed.host.address or placed.host.name)
        for proxy in proxies:
            if port == proxy.listener.at.port and _is_at(name, proxy.listener.at):
                where_to = addresses.join(name, port)
                text = f"{where_to} is where distbal's own {proxy} listens: a job sent there comes back, and wants a slot again"
                found.append(at(root, (*placed.path, "address"), text))
                break
    return found


def _is_for_this_machine(place: ListenAddress) -> bool:
    """Whether only who is on this machine can connect there, as far as it shows."""
    if place.kind == "tcp":
        return place.host is not None and addresses.is_loopback(place.host)
    return place.kind == "unix" or place.description.startswith("unix:") or "127.0.0.1" in place.description


def _is_at(name: str, place: ListenAddress) -> bool:
    """Whether who connects to the port of that place, on the host of that name, arrives there."""
    if not addresses.is_loopback(name):
        # which of the addresses are this machine's shows only where one is listened on by itself
        return place.host is not None and addresses.canonical(place.host) == addresses.canonical(name)
    numeric = ("127.0.0.1", "::1") if addresses.canonical(name) == "localhost" else (name,)
    return any(ListenAddress.tcp(address, place.port).overlaps(place) for address in numeric)


def _pools_without_listeners(root: Node, hosts: list[PlacedHost], listeners: list[PlacedListener]) -> list[Mistake]:
    lent = {placed.listener.pool for placed in listeners if placed.listener.lends}
    if not lent:
        return [at(root, ("listen", "balance"), "nothing listens for clients, so no host is ever lent")]
    first: dict[str, Path] = {}
    for placed in hosts:
        for pool in placed.host.pools:
            first.setdefault(pool, placed.path)
    kinds = dict.fromkeys(f"listen.{placed.listener.kind}" for placed in listeners if placed.listener.lends)
    example = 5756 if "listen.balance" in kinds else 3641
    text = f"no listener lends the pool {{0}}: add one such as {{{{at: {example}, pool: {{0}}}}}} to {' or '.join(kinds)}"
    return [at(root, (*path, "pools"), text.format(pool)) for pool, path in first.items() if pool not in lent]
