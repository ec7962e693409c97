"""What may stand in hosts.yaml: the keys, their forms, their defaults. The checks and the JSON Schema both come from here.

The models hold the long form; the short ones (a host as one text, a listener as a port) are made long first. Rules that join
several values, such as a name that stands twice, are in :mod:`distbal.crosscheck`.
"""

from __future__ import annotations

import re
from typing import Annotated, cast

from pydantic import ConfigDict, Field
from pydantic.json_schema import JsonSchemaValue

from distbal import addresses, hostspec, listenspec
from distbal.access import ANY, WORDS, AccessList
from distbal.addresses import HOST, IPV6, PORT
from distbal.forms import Leaf, Section, Short, Unfit, choice, listed, setting, shown, text, text_schema, whole_number
from distbal.hosts import DEFAULT_POOL
from distbal.listenspec import ListenAddress, Listener
from distbal.policies import POLICIES
from distbal.queues import DISCIPLINES

#: seconds in a year: no one waits longer, and infinity is not a number of seconds
MOST_SECONDS = 31_536_000
HOST_FORM = "a host is NAME[/SLOTS][,OPTIONS], NAME being HOST[:PORT], or a mapping with a name"
LISTEN_FORM = "PORT, ADDRESS:PORT, unix:/PATH or a Twisted endpoint; null is off"
POOL = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"
_ADDRESS = rf"(?:{HOST}(?::{PORT})?)"
#: an absolute path
PATH = r"/[^\x00-\x1f\x7f]{0,4000}"
DEFAULT_ADMIN = "unix:/run/distbal/admin.sock"
DEFAULT_STATE = "/var/lib/distbal"
_REPLY_FORM = "{name}, then /SLOTS or nothing, then {options} or nothing"
_REPLY = rf"\{{name\}}(?:/[1-9][0-9]{{0,4}})?(?:\{{options\}}|,{hostspec.OPTIONS})?"


def _address(value: object) -> str | None:
    """Where a host really is: HOST[:PORT]; None for "as the name says"."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise Unfit(f"{shown(value)} is no address: HOST[:PORT], such as 10.0.0.7:3632")
    if len(value) > hostspec.MOST_CHARS or not addresses.matches(_ADDRESS, value):
        raise Unfit(_why_no_address(value))
    return value


def _why_no_address(value: str) -> str:
    if addresses.matches(f"{IPV6}{addresses.ZONE}?", value):
        return f'an IPv6 address needs brackets, and so quotes in YAML: "[{value}]"'
    bracket = re.fullmatch(r"(\[[^\]]*\])(:?)(.*)", value)
    if value.startswith("[") and not bracket:
        return f"{shown(value)} lacks the ] that ends an IPv6 address"
    host, colon, port = bracket.groups() if bracket else value.partition(":")
    if not addresses.matches(HOST, host):
        return f"{shown(host)} is no host: {addresses.why_no_host(host)}"
    return f"{shown(value)}: {addresses.why_no_port(port) if colon else 'after the ] stands nothing, or :PORT'}"


def _pool(value: str) -> str:
    if addresses.matches(POOL, value):
        return value
    raise Unfit(f"{shown(value)} is no name of a pool: letters, digits, '-', '_' and dots, at most 64")


def _reply(value: str) -> str:
    if addresses.matches(_REPLY, value):
        return value
    for word in re.findall(r"\{[^{}]*\}", value):
        if word not in ("{name}", "{options}"):
            raise Unfit(f"{shown(word)} means nothing in a reply: only {{name}} and {{options}} do")
    if "{name}" not in value:
        raise Unfit("a reply without {name} does not tell clients which host they are given")
    raise Unfit(f"{shown(value)} would not be a host to distcc: {_REPLY_FORM}")


def _path(value: str) -> str:
    if addresses.matches(PATH, value):
        return value
    raise Unfit(f"{shown(value)} is no absolute path: it begins with /, and has no control characters")


def _state(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise Unfit(f"{shown(value)} is no directory: an absolute path, or null for nowhere")
    return _path(value)


def _wait(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= MOST_SECONDS:
        return float(value)
    raise Unfit(f"{shown(value)} is no time: seconds, a number above 0 and at most {MOST_SECONDS}, or null for ever")


def _ipv4_ranges() -> str:
    """Every IPv4 range with no bits set beyond its prefix: the octet in which it ends, by its length."""
    octet = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
    forms = []
    for bits in range(32):
        before, inside = divmod(bits, 8)
        starts = "|".join(str(start) for start in range(0, 256, 256 >> inside))
        forms.append(rf"(?:{octet}\.){{{before}}}(?:{starts})(?:\.0){{{3 - before}}}/{bits}")
    return f"(?:{'|'.join(forms)}|{addresses.IPV4}(?:/32)?)"


ACCESS = rf"(?:{'|'.join((*WORDS, ANY))}|{_ipv4_ranges()}|{IPV6}(?:/(?:[0-9]|[1-9][0-9]|1[01][0-9]|12[0-8]))?)"


def _access(value: str) -> str:
    if len(value) > 60 or value != value.strip() or not value.isprintable():
        raise Unfit(f"{shown(value)} is no address or range; those are one word without spaces")
    AccessList.parse([value])
    if not addresses.matches(ACCESS, value):
        raise Unfit(f"{shown(value)}: numbers have no zeros in front")
    return value


def _slots(value: object) -> int | str:
    return hostspec.AUTO if value == hostspec.AUTO else _number_of_slots(value)


_SLOTS = whole_number(1, hostspec.MOST_SLOTS, hostspec.why_no_slots)
_SLOTS_SCHEMA: JsonSchemaValue = {"anyOf": [dict(_SLOTS.schema), {"const": hostspec.AUTO}]}


def _number_of_slots(value: object) -> int:
    return cast("int", _SLOTS.parse(value))


#: names of monitors
MONITOR = "[a-z][a-z0-9-]{0,30}"
_MONITOR_FORM = "{} or true: with its defaults; false: off; or a mapping of its options"


def _check_monitors(value: object) -> object:
    if isinstance(value, list):
        raise Unfit("a list where a mapping is wanted, such as {tcp: true}")
    if not isinstance(value, dict):
        raise Unfit(f"{shown(value)} where a mapping is wanted, such as {{tcp: true}}")
    for name in value:
        if not addresses.matches(MONITOR, name):
            raise Unfit(f"{shown(name)} is no name of a monitor: small letters, digits and '-', at most 31")
    return value


def _monitor_entry(value: object) -> object:
    if isinstance(value, bool | dict):
        return value
    raise Unfit(f"{shown(value)}: write {_MONITOR_FORM}")


_MONITOR_SCHEMA: JsonSchemaValue = {"type": ["boolean", "object"]}
#: what asks hosts; the options are the business of each kind: distbal.monitorconfig
Monitors = Annotated[
    dict[str, Annotated[object, Leaf(_monitor_entry, _MONITOR_SCHEMA)]],
    Short(_check_monitors, lambda schema: schema | {"propertyNames": {"pattern": addresses.whole(MONITOR)}}),
]


class HostModel(Section):
    """A distcc server, in the long form."""

    model_config = ConfigDict(title="host")

    name: Annotated[str, text(hostspec.NAME, hostspec.check_name, "a name is HOST[:PORT]")] = Field(
        description="What clients are told, to the letter: HOST[:PORT]. An IPv6 address stands in brackets."
    )
    slots: Annotated[int | str, Leaf(_slots, _SLOTS_SCHEMA)] = setting(
        hostspec.DISTCC_SLOTS,
        "How many jobs it runs at once; auto: what its distccd says (monitors). distcc takes 4 where nothing is said.",
    )
    address: Annotated[
        str | None, Leaf(_address, {"anyOf": [text_schema(_ADDRESS, "an address is HOST[:PORT]"), {"type": "null"}]})
    ] = setting(None, "Where it is reached, HOST[:PORT] (port 3632 where none is given); null: where the name says.")
    options: Annotated[
        str, text(f"(?:{hostspec.OPTIONS})?", hostspec.check_options, 'options are lzo, lzo,cpp or auth, or ""')
    ] = setting("", "distcc's options for it, by commas: lzo (compress), cpp (pump mode, needs lzo), auth (GSSAPI).")
    pools: Annotated[
        list[Annotated[str, text(POOL, _pool, "the name of a pool")]],
        listed(f"the pools that the host serves, such as [{DEFAULT_POOL}]", unique=True),
    ] = setting([DEFAULT_POOL], "The pools that it serves: one for each kind of work, such as a toolchain.")
    monitors: Monitors = setting({}, "What asks this host how it is, where that differs from the other hosts.")


def _lengthen_host(value: object) -> object:
    if isinstance(value, str):
        word = hostspec.parse(value)
        return {"name": word.name, "options": word.options} | ({} if word.slots is None else {"slots": word.slots})
    if isinstance(value, dict):
        if len(value) == 1:
            (key, inner), *_ = value.items()
            split_up = f"{key}:{inner}"
            if key not in HostModel.model_fields and addresses.matches(hostspec.SPEC, split_up):
                raise Unfit(f'"{key}: {inner}" is a mapping to YAML, because of the space: write {split_up}')
            # anything else behind it makes a mistyped key more likely than a host
            by_accident = inner is None or isinstance(inner, int | dict)
            if by_accident and key not in HostModel.model_fields and addresses.matches(hostspec.SPEC, key):
                raise Unfit(f'"{key}:" makes a mapping: write {key} alone, or - name: {hostspec.parse(key).name}')
        return value
    if isinstance(value, list):
        raise Unfit("a list inside a rank: a rank holds hosts, which are as fast as each other, and no lists")
    if value is None:
        raise Unfit(f"nothing stands here: {HOST_FORM}")
    raise Unfit(f"{shown(value)} is {'a truth value' if isinstance(value, bool) else 'a number'} to YAML: {HOST_FORM}")


def _host_schema(schema: JsonSchemaValue) -> JsonSchemaValue:
    return {"anyOf": [text_schema(hostspec.SPEC, HOST_FORM), schema]}


def _lengthen_rank(value: object) -> object:
    if isinstance(value, list) and not value:
        raise Unfit("an empty rank: put hosts into it, or leave it out")
    return value if isinstance(value, list) else [value]


def _rank_schema(schema: JsonSchemaValue) -> JsonSchemaValue:
    rank = schema | {"minItems": 1, "uniqueItems": True, "description": "Hosts as fast as each other: one rank."}
    return {"anyOf": [*schema["items"]["anyOf"], rank]}


HostEntry = Annotated[HostModel, Short(_lengthen_host, _host_schema)]
Rank = Annotated[list[HostEntry], Short(_lengthen_rank, _rank_schema)]


def _check_hosts(value: object) -> object:
    if isinstance(value, dict):
        names = [key for key in value if addresses.matches(hostspec.SPEC, key)]
        example = f", as in - {names[0]}" if names else ""
        raise Unfit(f"a mapping where a list is wanted: write each host behind a '- '{example}")
    if not isinstance(value, list):
        raise Unfit(f"{shown(value)} where a list of hosts is wanted: write each behind a '- '")
    if not value:
        raise Unfit("no hosts: name one at least, such as - 127.0.0.1:3632/4")
    return value


class QueueModel(Section):
    """Who is next, and for how long one waits."""

    model_config = ConfigDict(title="queue")

    order: Annotated[str, choice(tuple(DISCIPLINES))] = setting(
        "fair", "fair: round robin over client addresses, first come first served within one; fifo: first come first served."
    )
    wait: Annotated[float | None, Leaf(_wait, {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": MOST_SECONDS})] = (
        setting(None, "Seconds that a client may wait before it is refused; null: for ever.")
    )


_LISTEN_SCHEMA: JsonSchemaValue = {
    "type": ["integer", "string"],
    "minimum": 0,
    "maximum": 65535,
    "pattern": addresses.whole(listenspec.ADDRESS),
    "patternErrorMessage": LISTEN_FORM,
}
At = Annotated[ListenAddress, Leaf(listenspec.parse, _LISTEN_SCHEMA)]


class ListenerModel(Section):
    """A place to listen at."""

    model_config = ConfigDict(title="listener")

    at: At = Field(description=LISTEN_FORM)

    def listener(self, kind: str) -> Listener:
        """The same for the ports, which know what is not said here by its default; ``kind`` is the key that it stands under."""
        return Listener(kind, **dict(self))


class LendingListenerModel(ListenerModel):
    """A place to listen at where hosts are lent, those of one pool."""

    pool: Annotated[str, text(POOL, _pool, "the name of a pool")] = setting(DEFAULT_POOL, "The pool whose hosts are lent here.")


class BalanceListenerModel(LendingListenerModel):
    """A place to listen at for clients, and the pool that they are lent hosts of."""

    model_config = ConfigDict(title="listener for clients")


class ProxyListenerModel(LendingListenerModel):
    """A place to listen at for clients that are connected to a host of the pool, and how the service behind it behaves."""

    model_config = ConfigDict(title="listener of the proxy")

    speaks_first: Annotated[str, choice(("client", "server"))] = setting(
        "client", "client: a slot is asked for at the client's first byte; server: at its connect, for servers that greet."
    )
    half_close: Annotated[str, choice(("cancel", "pass"))] = setting(
        "cancel", "What a client that closes its side wants: cancel: it has left, and its job ends; pass: the server is told."
    )


def _unix(value: object) -> ListenAddress:
    place = listenspec.parse(value)
    if place.kind != "unix":
        raise Unfit(f"{shown(value)}: whoever can connect there can do everything, so it is a file with a mode: unix:/PATH")
    return place


_UNIX_SCHEMA: JsonSchemaValue = text_schema(listenspec.UNIX, "unix:/PATH")


class AdminListenerModel(ListenerModel):
    """A Unix socket, mode 660, over which distbal is told what to do."""

    model_config = ConfigDict(title="admin socket")

    at: Annotated[ListenAddress, Leaf(_unix, _UNIX_SCHEMA)] = Field(description="unix:/PATH")


def _lengthen_listeners(value: object) -> object:
    if value is None:
        return []
    if isinstance(value, list):
        if not value:
            raise Unfit("an empty list: null is off")
        again = [item for number, item in enumerate(value) if item in value[:number]]
        if again:
            raise Unfit(f"{shown(again[0])} stands twice")
        return [item if isinstance(item, dict) else {"at": item} for item in value]
    return [value if isinstance(value, dict) else {"at": value}]


def _listeners_schema(schema: JsonSchemaValue, place: JsonSchemaValue = _LISTEN_SCHEMA) -> JsonSchemaValue:
    one = [place, schema["items"]]
    return {"anyOf": [*one, {"type": "array", "items": {"anyOf": one}, "minItems": 1, "uniqueItems": True}, {"type": "null"}]}


def _admin_schema(schema: JsonSchemaValue) -> JsonSchemaValue:
    return _listeners_schema(schema, _UNIX_SCHEMA)


class ListenModel(Section):
    """Where distbal listens: PORT, ADDRESS:PORT, unix:/PATH or a Twisted endpoint; a list is several, null is off."""

    model_config = ConfigDict(title="listen")

    balance: Annotated[list[BalanceListenerModel], Short(_lengthen_listeners, _listeners_schema)] = setting(
        5656, "Where clients ask for a host. {at: 5756, pool: arm} lends the hosts of one pool."
    )
    status: Annotated[list[ListenerModel], Short(_lengthen_listeners, _listeners_schema)] = setting(
        5657, "Where the state of the farm is told to whoever connects."
    )
    update: Annotated[list[ListenerModel], Short(_lengthen_listeners, _listeners_schema)] = setting(
        "127.0.0.1:5658", "Where a status daemon says that a host is up or down."
    )
    proxy: Annotated[list[ProxyListenerModel], Short(_lengthen_listeners, _listeners_schema)] = setting(
        None,
        "Where clients are connected to a host: DISTCC_HOSTS=balancer:3640/40. {at: 3641, pool: arm} takes one of that pool.",
    )
    web: Annotated[list[ListenerModel], Short(_lengthen_listeners, _listeners_schema)] = setting(
        5659, "Where the page, /api/v1, /metrics and /healthz are read, by HTTP."
    )
    admin: Annotated[list[AdminListenerModel], Short(_lengthen_listeners, _admin_schema)] = setting(
        DEFAULT_ADMIN, "The socket, mode 660, over which the distbal command changes things: unix:/PATH."
    )
    manhole: Annotated[list[ListenerModel], Short(_lengthen_listeners, _listeners_schema)] = setting(
        None, "Where an admin logs in by SSH, with a key: 127.0.0.1:5660. A manhole can do all that distbal can."
    )


_ALLOWED = f"{', '.join(WORDS)}, {ANY}, addresses or ranges such as 10.0.0.0/8"
Allowed = Annotated[
    list[Annotated[str, text(ACCESS, _access, _ALLOWED)]],
    listed(f"{_ALLOWED}; null in listen is how to switch a port off"),
]


class AllowModel(Section):
    """Who may connect: loopback, private, any, addresses and ranges."""

    model_config = ConfigDict(title="allow")

    clients: Allowed = setting(["loopback", "private"], "Who may ask for hosts, use the proxy and read the state.")
    update: Allowed = setting(["loopback"], "Who may say that a host is up or down.")
    web: Allowed = setting(["loopback", "private"], "Who may read the page, /api/v1 and /metrics.")


class ManholeModel(Section):
    """Whose keys open the manhole, and by which key it is known."""

    model_config = ConfigDict(title="manhole")

    authorized_keys: Annotated[str, text(PATH, _path, "an absolute path")] = setting(
        "/etc/distbal/authorized_keys", "Public keys of those who may log in, one a line, as OpenSSH has them."
    )
    host_key: Annotated[str, text(PATH, _path, "an absolute path")] = setting(
        "/var/lib/distbal/ssh_host_ed25519_key", "The daemon's own key; made at the first start, mode 0600."
    )


class FileModel(Section):
    """The hosts of a farm of distcc servers, and how distbal lends them."""

    model_config = ConfigDict(title="distbal's hosts.yaml")

    hosts: Annotated[list[Rank], Short(_check_hosts, lambda schema: schema | {"minItems": 1, "uniqueItems": True})] = Field(
        description="The distcc servers, fastest first: NAME[/SLOTS][,OPTIONS] each, NAME being HOST[:PORT]; "
        "a list inside the list is one rank of equally fast hosts."
    )
    policy: Annotated[str, choice(tuple(POLICIES))] = setting(
        "fastest-first", "Which free host a client gets: the first of the list, the least busy one, or any."
    )
    queue: QueueModel = setting({}, "Who is next when every host is busy, and for how long one waits.")
    reply: Annotated[str, text(_REPLY, _reply, _REPLY_FORM)] = setting(
        "{name}{options}",
        "What a client is told. {name}/100{options} lets clients that know nothing of limits use more than 4 jobs a host.",
    )
    listen: ListenModel = setting({}, "Where distbal listens.")
    allow: AllowModel = setting({}, "Who may connect.")
    manhole: ManholeModel = setting({}, "The keys of the manhole, where listen.manhole opens one.")
    state: Annotated[str | None, Leaf(_state, {"anyOf": [text_schema(PATH, "an absolute path"), {"type": "null"}]})] = setting(
        DEFAULT_STATE, "The directory where what people decided (drained, why) survives a restart; null: nowhere."
    )
    monitors: Monitors = setting({}, "What asks the hosts how they are; a host's own monitors override these.")
