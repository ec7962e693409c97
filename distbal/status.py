"""``distbal status``: the farm as a table for people or as JSON for programs.

On the balancer's own machine the admin socket is asked, which knows all. Elsewhere, or where an address is given, it is a
client of the status port like any other, of distbal or of the Tcl original: it knows the wire and nothing of the daemon.
"""

from __future__ import annotations

import os
import socket
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

from distbal import adminclient, tables, terminal, wire
from distbal.columns import BAR, BOLD, PLAIN, RED, YELLOW, bar, cut, many, safe
from distbal.errors import DistbalError, WireError

DEFAULT_ADDRESS = "127.0.0.1"
DEFAULT_PORT = 5657
#: seconds to connect, and to wait for the next bytes
PATIENCE = 5.0
#: seconds for the whole answer
READING_TIME = 30.0
#: bytes; 10,000 hosts and 20,000 clients make 1.5 MB
LARGEST_ANSWER = 64 << 20

_OPENING = b"BalanceTcpPort = "


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "where",
        nargs="?",
        metavar="ADDRESS[:PORT]",
        type=where,
        help="the status port to ask, distbal's or the Tcl original's; without it, the admin socket of this machine, and where"
        f" that is not there or not for you, {DEFAULT_ADDRESS}:{DEFAULT_PORT}, which knows less",
    )
    parser.add_argument(
        "--socket",
        metavar="PATH",
        help=f"the admin socket to ask; ${adminclient.VARIABLE} where not given, or {adminclient.DEFAULT_PATH}",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run(args: Namespace) -> int:
    """Ask, and print what was answered.

    :return: the exit status, 0.
    :raises DistbalError: nobody answers there, or nobody who speaks this protocol; the text says which.
    """
    if args.where is not None and args.socket is not None:
        raise DistbalError("an address is that of a status port, and --socket an admin socket: name one of them")
    why_not: DistbalError | None = None
    if args.where is None:
        why_not = _of_admin_socket(args)
        if why_not is None:
            return 0
    try:
        _of_status_port(*(args.where or (DEFAULT_ADDRESS, DEFAULT_PORT)), as_json=args.json)
    except DistbalError as error:
        if not isinstance(why_not, adminclient.NotPermittedError):
            raise
        raise DistbalError(f"{why_not}. The status port was asked instead: {error}") from error
    return 0


def _of_admin_socket(args: Namespace) -> DistbalError | None:
    """Show what it says; why it cannot be asked. Where somebody named it, that is raised."""
    try:
        with adminclient.Connection(args.socket or adminclient.default_path()) as daemon:
            farm, hosts = daemon.ask(["status"]), daemon.ask(["hosts"])
    except (adminclient.NoDaemonError, adminclient.NotPermittedError) as error:
        if args.socket or os.environ.get(adminclient.VARIABLE):
            raise
        return error
    if args.json:
        terminal.write_json({**farm, "hosts": hosts.get("hosts")})
    else:
        adminclient.check(farm)
        width, colour = terminal.kind()
        terminal.write(tables.whole(farm, hosts["hosts"], width=width, colour=colour))
    return None


def _of_status_port(address: str, port: int, *, as_json: bool) -> None:
    farm = Farm(wire.parse_status(ask(address, port)))
    if as_json:
        terminal.write_json(farm.as_json())
    else:
        width, colour = terminal.kind()
        terminal.write(table(farm, spell(address, port), width=width, colour=colour))


# -- asking -------------------------------------------------------------------------------------------------------------------


def where(text: str) -> tuple[str, int]:
    """An address and a port from ``ADDRESS``, ``ADDRESS:PORT``, ``[IPV6]:PORT``, a bare IPv6 address, ``:PORT`` or ``PORT``."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        colon, port = rest[:1], rest[1:]
    elif text.count(":") > 1:
        host, colon, port = text, "", ""
    elif text.isascii() and text.isdigit():
        host, colon, port = "", ":", text
    else:
        host, colon, port = text.partition(":")
    if colon not in ("", ":") or bool(colon) != bool(port):
        raise ArgumentTypeError(f'"{text}" should be ADDRESS or ADDRESS:PORT')
    if port and not (port.isascii() and port.isdigit() and len(port) <= 9 and 1 <= int(port) <= 65535):
        raise ArgumentTypeError(f'"{text}" should end in a port from 1 to 65535')
    return host or DEFAULT_ADDRESS, int(port or DEFAULT_PORT)


def spell(address: str, port: int) -> str:
    """Both as one text, IPv6 in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def ask(address: str, port: int) -> bytes:
    """What the status port there answers, whole.

    :raises DistbalError: it does not; the text says why.
    """
    place = spell(address, port)
    try:
        with socket.create_connection((address, port), PATIENCE) as sock:
            return _read(sock, place)
    except socket.gaierror as error:
        raise DistbalError(f"{address} cannot be looked up: {error.strerror}") from error
    except ConnectionRefusedError as error:
        raise DistbalError(f"nobody listens on {place}; is distbal running there?") from error
    except TimeoutError as error:
        raise DistbalError(f"{place} did not answer within {PATIENCE:g} s") from error
    except (OSError, UnicodeError) as error:
        raise DistbalError(f"{place}: {getattr(error, 'strerror', None) or error}") from error


def _read(sock: socket.socket, place: str) -> bytes:
    answer = bytearray()
    deadline = time.monotonic() + READING_TIME
    while piece := sock.recv(1 << 18):
        answer += piece
        # a balance port says one line and then waits for us to leave, with a slot that others want: so do not wait for its end
        if not (answer.startswith(_OPENING) or _OPENING.startswith(answer)):
            raise WireError(
                f"{place} is not a status port: it says {bytes(answer[:60])!r}; distbal's is {DEFAULT_PORT} by default"
            )
        if len(answer) > LARGEST_ANSWER:
            raise WireError(f"{place} says more than {LARGEST_ANSWER >> 20} MiB")
        if time.monotonic() > deadline:
            raise WireError(f"{place} did not come to an end within {READING_TIME:g} s")
    if not answer:
        raise WireError(f"{place} closed without an answer; does allow.clients in its hosts.yaml name this machine?")
    return bytes(answer)


# -- the farm -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """A host and who is in it.

    :ivar state: ``up``; ``down``, which a host is too that a person took out; ``removed`` where only its clients are left.
    :ivar used: slots lent; more than ``slots`` where the file gave it more before.
    :ivar clients: in the order of their grants.
    """

    name: str
    state: Literal["up", "down", "removed"]
    slots: int
    used: int
    free: int
    clients: tuple[wire.ParsedClient, ...]


class Farm:
    """What the status port said, host by host.

    :ivar rows: in the order of the file, then the removed ones that still serve somebody.
    """

    def __init__(self, status: wire.ParsedStatus) -> None:
        self.status = status
        served: dict[str, list[wire.ParsedClient]] = {}
        for client in status.served:
            served.setdefault(client.host, []).append(client)
        self.rows: list[Row] = []
        for host in status.hosts:
            clients = tuple(served.pop(host.name, ()))
            self.rows.append(Row(host.name, "up" if host.up else "down", host.slots, len(clients), host.free, clients))
        self.rows += [Row(name, "removed", 0, len(clients), 0, tuple(clients)) for name, clients in served.items()]

    def totals(self) -> dict[str, int]:
        """The sums, by the names that the JSON has."""
        return {
            "hosts": len(self.status.hosts),
            "down": sum(row.state == "down" for row in self.rows),
            "slots": sum(row.slots for row in self.rows),
            "used": sum(row.used for row in self.rows),
            "free": sum(row.free for row in self.rows),
            "usable": sum(row.free for row in self.rows if row.state == "up"),
            "waiting": len(self.status.waiting),
        }

    def as_json(self) -> dict[str, object]:
        """What ``--json`` prints; distbal(1) describes it, and ``version`` grows when something in it changes its meaning."""
        return {
            "version": 1,
            "ports": {"balance": self.status.balance_port, "status": self.status.status_port},
            "hosts": [asdict(row) | {"clients": [_client(client) for client in row.clients]} for row in self.rows],
            "waiting": [_client(client) for client in self.status.waiting],
            "totals": self.totals(),
        }


def _client(client: wire.ParsedClient) -> dict[str, object]:
    return {"id": client.id, "address": client.address, "port": client.port}


# -- the table ----------------------------------------------------------------------------------------------------------------


def table(farm: Farm, place: str, *, width: int | None = None, colour: bool = False) -> str:
    """The farm, for people.

    :param place: where it was asked.
    :param width: columns of the terminal, at which lines are cut; None for whole lines.
    :param colour: mark what is not up.
    """
    names = [cut(safe(row.name), width // 2 if width else None) for row in farm.rows]
    slots = [f"{row.used}/{row.slots}" for row in farm.rows]
    columns = [
        max(map(len, ["HOST", *names])),
        max(len(state) for state in ("STATE", *(row.state for row in farm.rows))),
        max(map(len, ["SLOTS", *slots])) + 1 + BAR + 2,
    ]
    heading = f"{'HOST':{columns[0]}}  {'STATE':{columns[1]}}  {'SLOTS':{columns[2]}}  CLIENTS"
    ask = f"; clients ask on port {farm.status.balance_port}" if farm.status.balance_port else ""
    lines = [f"distbal at {safe(place)}{ask}", ""]
    lines.append(f"{BOLD}{cut(heading, width)}{PLAIN}" if colour else cut(heading, width))
    for row, name, used in zip(farm.rows, names, slots, strict=True):
        room = columns[2] - BAR - 3
        line = (
            f"{name:{columns[0]}}  {row.state:{columns[1]}}  {used:>{room}} {bar(row.used, row.slots)}  {_crowd(row.clients)}"
        )
        line = cut(line.rstrip(), width)
        lines.append(f"{RED if row.state == 'down' else YELLOW}{line}{PLAIN}" if colour and row.state != "up" else line)
    if farm.status.waiting:
        lines += ["", cut(f"waiting, longest first: {_crowd(farm.status.waiting)}", width)]
    lines += ["", _summary(farm.totals()), ""]
    return "\n".join(lines)


def _crowd(clients: Iterable[wire.ParsedClient]) -> str:
    """Who they are, one word for each address, in the order of the first from there."""
    count = Counter(safe(client.address) or "local" for client in clients)
    return ", ".join(f"{address} x{number}" if number > 1 else address for address, number in count.items())


def _summary(totals: dict[str, int]) -> str:
    down = f" ({totals['down']} down)" if totals["down"] else ""
    waiting = f"{many(totals['waiting'], 'client')} waiting"
    return (
        f"{many(totals['hosts'], 'host')}{down}: {totals['used']} of {many(totals['slots'], 'slot')} in use, "
        f"{totals['usable']} free on hosts that are up; {waiting}"
    )
