"""``distbal status``: the farm as the status port shows it, as a table for people or as JSON for programs.

It is a client like any other, of distbal or of the Tcl original: it knows the wire and nothing of the daemon.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

from distbal import wire
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
_BAR = 10
_RED, _YELLOW, _BOLD, _PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[1m", "\x1b[0m"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "where",
        nargs="?",
        metavar="ADDRESS[:PORT]",
        type=where,
        default=(DEFAULT_ADDRESS, DEFAULT_PORT),
        help=f"the status port to ask; {DEFAULT_ADDRESS}:{DEFAULT_PORT} where not given",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run(args: Namespace) -> int:
    """Ask, and print what was answered.

    :return: the exit status, 0.
    :raises DistbalError: nobody answers there, or nobody who speaks this protocol; the text says which.
    """
    farm = Farm(wire.parse_status(ask(*args.where)))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if args.json:
        import json

        json.dump(farm.as_json(), sys.stdout, indent=1)
        sys.stdout.write("\n")
        return 0
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else None
    colour = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    sys.stdout.write(table(farm, spell(*args.where), width=width, colour=colour))
    return 0


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
    if port and not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
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
    names = [_cut(_safe(row.name), width // 2 if width else None) for row in farm.rows]
    slots = [f"{row.used}/{row.slots}" for row in farm.rows]
    columns = [
        max(map(len, ["HOST", *names])),
        max(len(state) for state in ("STATE", *(row.state for row in farm.rows))),
        max(map(len, ["SLOTS", *slots])) + 1 + _BAR + 2,
    ]
    heading = f"{'HOST':{columns[0]}}  {'STATE':{columns[1]}}  {'SLOTS':{columns[2]}}  CLIENTS"
    ask = f"; clients ask on port {farm.status.balance_port}" if farm.status.balance_port else ""
    lines = [f"distbal at {_safe(place)}{ask}", ""]
    lines.append(f"{_BOLD}{_cut(heading, width)}{_PLAIN}" if colour else _cut(heading, width))
    for row, name, used in zip(farm.rows, names, slots, strict=True):
        room = columns[2] - _BAR - 3
        line = f"{name:{columns[0]}}  {row.state:{columns[1]}}  {used:>{room}} {_bar(row)}  {_crowd(row.clients)}"
        line = _cut(line.rstrip(), width)
        lines.append(f"{_RED if row.state == 'down' else _YELLOW}{line}{_PLAIN}" if colour and row.state != "up" else line)
    if farm.status.waiting:
        lines += ["", _cut(f"waiting, longest first: {_crowd(farm.status.waiting)}", width)]
    lines += ["", _summary(farm.totals()), ""]
    return "\n".join(lines)


def _bar(row: Row) -> str:
    """How full the host is: something wherever anything is lent, all of it only where nothing is free."""
    filled = _BAR if row.used >= row.slots else min(_BAR - 1, -(-row.used * _BAR // row.slots))
    return f"[{'#' * filled}{'.' * (_BAR - filled)}]"


def _crowd(clients: Iterable[wire.ParsedClient]) -> str:
    """Who they are, one word for each address, in the order of the first from there."""
    count = Counter(_safe(client.address) or "local" for client in clients)
    return ", ".join(f"{address} x{number}" if number > 1 else address for address, number in count.items())


def _summary(totals: dict[str, int]) -> str:
    down = f" ({totals['down']} down)" if totals["down"] else ""
    waiting = f"{_many(totals['waiting'], 'client')} waiting"
    return (
        f"{_many(totals['hosts'], 'host')}{down}: {totals['used']} of {_many(totals['slots'], 'slot')} in use, "
        f"{totals['usable']} free on hosts that are up; {waiting}"
    )


def _many(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _safe(text: str) -> str:
    """The text without anything that a terminal would obey."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def _cut(text: str, width: int | None) -> str:
    return text if width is None or len(text) <= width else text[: max(0, width - 3)] + "..."
