"""The screen of ``distbal top``: lines of signs and styles, of any size, from what the model knows and the user chose.

Pure. A line is a list of (text, style); a style is a word that :mod:`distbal.top` has an attribute for. Nothing is told by
colour alone: a state is a word, a client a letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distbal import insidewords
from distbal.columns import age, cut, day_and_time, many, padded, safe, width_of
from distbal.hosttables import BAD, DOUBTFUL, host_lines, load_of
from distbal.topmodel import BUCKET, SORTS, Model, Report, View

#: how many colours clients have between them
CLIENT_STYLES = tuple(f"client{number}" for number in range(6))
STYLES = ("", "bold", "dim", "bar", "bad", "doubtful", "good", "alarm", *CLIENT_STYLES)
#: lines of a screen from which on there is room for what is wrong with the daemon, for graphs and clients, and for the queue
ROOM_FOR_TROUBLES, ROOM_FOR_GRAPHS, ROOM_FOR_QUEUE = 8, 15, 24
#: lines of the queue
MOST_QUEUE = 4
#: signs of a graph, from little to much
BLOCKS, PLAIN_BLOCKS = "▁▂▃▄▅▆▇█", ".:-=+*%#"

Span = tuple[str, str]
Line = list[Span]

HELP = f"""\
distbal top: the farm, once a second, over the admin socket.

  arrows, j k        choose a host
  page up and down   a screen at a time; Home and End
  Enter              all there is to know of that host, and back
  s                  sort by {", ".join(SORTS)}
  r                  the other way round
  /                  only hosts with this in name, state or reason;
                     Enter keeps it, Escape takes it back
  space              stop the picture, and let it go on
  ?                  this, and back
  q                  leave

In a row of slots a letter is a client, and each client has the same
letter everywhere; . is a slot that is free, - one that is not lent
now, as the weight has it or the host is out. Where a host has more
slots than fit, a sign stands for several. * behind a state: the file
says otherwise. JOB/S: jobs it was given a second, lately.
The graphs go back {BUCKET} s a sign: slots lent, clients that wait."""


def frame(model: Model, view: View, width: int, height: int, *, blocks: bool = True) -> list[Line]:
    """The whole screen: at most ``height`` lines of at most ``width`` columns.

    :param blocks: whether the terminal knows Unicode's blocks.
    """
    top = [_title(model, view, width)]
    if model.status:
        top.append([(_totals(model, width), "bold")])
        if height >= ROOM_FOR_TROUBLES:
            top += _troubles(model)
    if view.shows != "hosts":
        body = _text(model, view, height - len(top) - 1)
    elif not model.status:
        body = [[("nothing was heard yet", "dim")]]
    else:
        if height >= ROOM_FOR_GRAPHS:
            top += [*_graphs(model, width, blocks), _clients(model, width)]
        queue = _queue(model, width) if height >= ROOM_FOR_QUEUE else []
        body = [*_table(model, view, width, height - len(top) - len(queue) - 1), *queue]
    room = max(0, height - len(top) - 1)
    body = body[:room] + [[] for _ in range(room - len(body))]
    lines = [*top, *body, _footer(model, view, width)]
    return [_fitted(line, width) for line in lines[:height]]


def _fitted(line: Line, width: int) -> Line:
    """What of it fits; all of it is safe."""
    fitted: Line = []
    for text, style in line:
        room = width - sum(width_of(done) for done, _ in fitted)
        if room <= 0:
            break
        fitted.append((cut(safe(text), room), style))
    return fitted


# -- above --------------------------------------------------------------------------------------------------------------------


def _title(model: Model, view: View, width: int) -> Line:
    if model.trouble:
        return [(padded(cut(safe(model.trouble), width), width), "alarm")]
    if not model.status:
        return [("distbal top", "bar")]
    status = model.status
    left = f"distbal {status['distbal']}, up {age(status['at'] - status['started'])}"
    right = "PAUSED" if view.paused else day_and_time(status["at"])[11:]
    middle = f": {status['policy']}, {status['order']} queue"
    if len(left) + len(middle) + len(right) + 1 <= width:
        left += middle
    left = cut(safe(left), max(0, width - len(right) - 1))
    return [(padded(left, width - len(right)), "bar"), (right, "alarm" if view.paused else "bar")]


def _troubles(model: Model) -> list[Line]:
    """What is to be looked at in the daemon itself, in one line, if there is anything."""
    inside = model.status.get("inside")
    told = insidewords.troubles(inside) if inside else []
    return [[("; ".join(told), "bad")]] if told else []


def _totals(model: Model, width: int) -> str:
    totals = model.status["totals"]
    out = f" ({totals['out']} out)" if totals["out"] else ""
    longest = f", longest {age(totals['longest_wait'])}" if totals["waiting"] else ""
    slots = f"{totals['used']} of {many(totals['capacity'], 'slot')} lent"
    lag = f", lag {insidewords.span(inside['lag']['most'])}" if (inside := model.status.get("inside")) else ""
    texts = (
        f"{many(totals['hosts'], 'host')}{out}, {slots}, {totals['waiting']} wait{longest}, {model.rate:.1f} jobs/s{lag}",
        f"{many(totals['hosts'], 'host')}{out}, {slots}, {totals['waiting']} wait{longest}, {model.rate:.1f} jobs/s",
        f"{many(totals['hosts'], 'host')}{out}, {totals['used']}/{totals['capacity']} lent, {totals['waiting']} wait",
        f"{totals['used']}/{totals['capacity']} lent, {totals['waiting']} wait",
    )
    return next((text for text in texts if width_of(text) <= width), texts[-1])


def _graphs(model: Model, width: int, blocks: bool) -> list[Line]:
    capacity = max(1, model.status["totals"]["capacity"])
    lent = [used for used, _ in model.graph]
    waiting = [number for _, number in model.graph]
    longest = max(1.0, *waiting) if waiting else 1.0
    most = f" {capacity}", f" {longest:.0f}"
    room = max(1, width - 6 - max(map(len, most)))
    return [
        [("lent  ", ""), (spark(lent, max(capacity, *lent), room, blocks), "good"), (most[0], "dim")],
        [("wait  ", ""), (spark(waiting, longest, room, blocks), "doubtful"), (most[1], "dim")],
    ]


def spark(values: Sequence[float], most: float, room: int, blocks: bool = True) -> str:
    """The last values as signs, the newest at the right end; nothing is a space, and anything above it a sign.

    :param most: what the highest sign stands for, above 0.
    :param room: columns.
    """
    signs = BLOCKS if blocks else PLAIN_BLOCKS
    shown = values[-room:] if room > 0 else []
    text = "".join(" " if value <= 0 else signs[min(len(signs) - 1, int(value * len(signs) / most))] for value in shown)
    return text.rjust(room)


def _clients(model: Model, width: int) -> Line:
    """Who each letter is; as many as fit."""
    line: Line = []
    left = width
    # by letter, so that they stay where they are while numbers change
    crowd = sorted(model.crowd().items(), key=lambda one: model.letters.get(one[0], 0))
    for number, (address, (slots, waiters, _)) in enumerate(crowd):
        name = f" {safe(address) or 'local'} {slots}" + (f"+{waiters}" if waiters else "") + "  "
        if width_of(name) + 1 > left - (0 if number == len(crowd) - 1 else 5):
            line.append((f"+{len(crowd) - number}", "dim"))
            break
        line += [(model.letter(address), _client_style(model, address)), (name, "")]
        left -= width_of(name) + 1
    return line


def _client_style(model: Model, address: str) -> str:
    return CLIENT_STYLES[model.letters.get(address, 0) % len(CLIENT_STYLES)]


def _queue(model: Model, width: int) -> list[Line]:
    waiting = [(address, number, longest) for address, (_, number, longest) in model.crowd().items() if number]
    if not waiting:
        return []
    waiting.sort(key=lambda one: -one[2])
    lines: list[Line] = [[(padded("WAITING, longest first", width), "bar")]]
    for address, number, longest in waiting[:MOST_QUEUE]:
        told = f" {safe(address) or 'local'}: {many(number, 'job')}, the longest for {age(longest)}"
        lines.append([(model.letter(address), _client_style(model, address)), (told, "")])
    if len(waiting) > MOST_QUEUE:
        lines[-1].append((f"  (and {len(waiting) - MOST_QUEUE} more addresses)", "dim"))
    return lines


def _footer(model: Model, view: View, width: int) -> Line:
    if view.typing:
        return [(padded(f"only hosts with: {view.like}_", width), "bar")]
    if view.shows != "hosts":
        return [(padded("Escape back  arrows scroll  q back", width), "bar")]
    rows = view.rows(model)
    last = min(len(rows), view.first + view.page)
    where = f"{view.first + 1 if rows else 0}-{last} of {len(rows)}"
    like = f' with "{view.like}"' if view.like else ""
    order = f"s sort: {view.sort}{' reversed' if view.backwards else ''}"
    for keys in (f"q quit  ? help  {order}  / filter  space pause  Enter details", f"q quit  ? help  {order}", "q ?"):
        text = f"{where}{like}  {keys}"
        if width_of(text) <= width:
            break
    return [(padded(cut(safe(text), width), width), "bar")]


# -- the hosts ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Columns:
    """Widths of the columns that fit; 0 for one that does not."""

    name: int
    bar: int
    slots: int
    gap: int
    weight: int = 0
    rate: int = 0
    load: int = 0
    jobs: int = 0
    failed: int = 0
    why: int = 0


#: room that the state takes, with its star
_STATE = 8
#: columns that come where there is room, the most wanted first; why takes what is left
_WANTED = (("rate", 5), ("weight", 6), ("why", 12), ("load", 6), ("jobs", 7), ("failed", 6))
_LONGEST_BAR = 34
_Cells = tuple[str, str, str, Line, str, str, str, str, str, str]
_HEADING: _Cells = ("HOST", "STATE", "SLOTS", [("WHO", "bar")], "JOB/S", "WEIGHT", "LOAD", "JOBS", "FAILED", "WHY")


def _columns(rows: Sequence[Report], width: int) -> _Columns:
    gap = 2 if width >= 80 else 1
    name = max([4, *(width_of(safe(host["name"])) for host in rows)])
    name = min(name, max(6, width // 3))
    slots = max([5, *(len(_slots(host)) for host in rows)])
    longest = max([2, *(max(host["slots"], host["used"]) for host in rows)])
    left = width - name - gap - _STATE
    # numbers tell more than a bar of two signs
    slots = slots if left >= slots + gap else 0
    left -= slots + gap if slots else 0
    bar = max(0, min(longest + 2, 12, left - gap))
    bar = bar if bar >= 5 else 0
    left -= bar + gap if bar else 0
    loads = any(load_of(host) is not None for host in rows)
    failures = any(host["failures"] for host in rows)
    there = {"load": loads, "failed": failures, "why": any(host["why"] for host in rows)}
    found: dict[str, int] = {}
    for column, size in _WANTED:
        if there.get(column, True) and left >= size + gap:
            found[column] = size
            left -= size + gap
    more = min(max(0, longest + 2 - bar), _LONGEST_BAR - bar, left // 2 if "why" in found else left) if bar else 0
    more = max(0, more)
    if "why" in found:
        found["why"] += left - more
    return _Columns(name, bar + more, slots, gap, **found)


def _slots(host: Report) -> str:
    return f"{host['used']}/{host['capacity'] or host['slots']}"


def _table(model: Model, view: View, width: int, height: int) -> list[Line]:
    rows = view.rows(model)
    columns = _columns(rows, width)
    view.follow(rows, height - 1)
    heading = _row(
        columns, ("HOST", "STATE", "SLOTS", [("WHO", "bar")], "JOB/S", "WEIGHT", "LOAD", "JOBS", "FAILED", "WHY"), "bar"
    )
    lines: list[Line] = [_filled(heading, width, "bar")]
    chosen = view.place(rows)
    for place, host in enumerate(rows[view.first : view.first + view.page], view.first):
        state = host["state"]
        style = "bad" if state in BAD else "doubtful" if state in DOUBTFUL else ""
        load = load_of(host)
        cells = (
            host["name"],
            state + ("*" if host["differs"] else ""),
            _slots(host),
            _bar(model, host, columns.bar),
            f"{model.rates.get(host['name'], 0.0):.1f}",
            f"{host['weight']:.2f}",
            "" if load is None else f"{load:.2f}",
            str(host["jobs"]),
            str(sum(host["failures"].values()) or ""),
            host["why"],
        )
        line = _row(columns, cells, style)
        lines.append(_filled(line, width, "bar", mark=True) if place == chosen else line)
    if not rows:
        lines.append([("no host is like that: / filters, Escape takes it back", "dim")])
    return lines


def _filled(line: Line, width: int, style: str, *, mark: bool = False) -> Line:
    """The line to the end of the screen; with ``mark``, in the style of what is chosen, but for its clients."""
    taken = sum(width_of(text) for text, _ in line)
    filled = [*line, (" " * (width - taken), style)]
    if not mark:
        return filled
    return [(text, old if old.startswith("client") else style) for text, old in filled]


def _row(columns: _Columns, cells: _Cells, style: str) -> Line:
    name, state, slots, bar, rate, weight, load, jobs, failed, why = cells
    gap = " " * columns.gap
    line: Line = [(padded(cut(safe(name), columns.name), columns.name) + gap, style), (padded(state, _STATE), style)]
    if columns.slots:
        line.append((gap + padded(slots, columns.slots, right=True), style))
    if columns.bar:
        taken = sum(width_of(text) for text, _ in bar)
        line += [(gap, style), *bar, (" " * (columns.bar - taken), style)]
    numbers = (
        (rate, columns.rate),
        (weight, columns.weight),
        (load, columns.load),
        (jobs, columns.jobs),
        (failed, columns.failed),
    )
    line += [(gap + padded(cut(text, size), size, right=True), style) for text, size in numbers if size]
    if columns.why:
        line.append((gap + cut(safe(why), columns.why), style))
    return line


def _bar(model: Model, host: Report, room: int) -> Line:
    """Who has each slot: letters, then those that are free, then those that are not lent now."""
    if room < 3:
        return []
    clients = sorted((client["address"] for client in host["clients"]), key=lambda address: model.letters.get(address, 0))
    signs: list[Span] = [(model.letter(address), _client_style(model, address)) for address in clients]
    lendable = 0 if host["state"] in BAD or host["state"] == "drain" else max(0, host["capacity"] - len(clients))
    signs += [(".", "dim")] * lendable
    signs += [("-", "dim")] * (host["slots"] - len(signs))
    cells = room - 2
    if len(signs) > cells:
        signs = [signs[place * len(signs) // cells] for place in range(cells)]
    return [("[", "dim"), *signs, ("]", "dim")]


# -- one host, or the help ----------------------------------------------------------------------------------------------------


def _text(model: Model, view: View, height: int) -> list[Line]:
    if view.shows == "help":
        lines = HELP.splitlines()
    else:
        rows = view.rows(model)
        lines = ["there is no host to show"]
        if rows:
            lines = host_lines(rows[view.place(rows)], model.status["at"], width=None, colour=False)
    view.page = max(1, height)
    view.line = min(view.line, max(0, len(lines) - view.page))
    return [[(line, "bold" if line and not line.startswith(" ") else "")] for line in lines[view.line : view.line + view.page]]
