"""The last jobs that ended, as a note for the next process, and back: all of it but how the hosts stood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distbal import checked
from distbal.checked import Fields, Wrong, kept
from distbal.history import Entry, History
from distbal.hosts import DEFAULT_POOL, Host, HostSpec
from distbal.outcomes import Outcome
from distbal.requests import Lease, Request, Ticket
from distbal.standing import UNKNOWN

#: attempts of one note, beyond any that are remembered, and hosts that one request leaves out
MOST_ATTEMPTS, MOST_EXCLUDED = 100_000, 1000

_OUTCOMES = {outcome.value: outcome for outcome in Outcome}


def request_note(request: Request) -> dict[str, Any]:
    """A request, for JSON; :func:`read_request` takes what this gives. What is as usual is left out."""
    note: dict[str, Any] = {"address": request.address, "port": request.port}
    if request.key != request.address:
        note["key"] = request.key
    if request.pool != DEFAULT_POOL:
        note["pool"] = request.pool
    if request.exclude:
        note["exclude"] = list(request.exclude)
    if request.job:
        note["job"] = request.job
    if request.since is not None:
        note["since"] = request.since
    if request.only:
        note["only"] = request.only
    return note


def read_request(fields: Fields) -> Request:
    """The same back; ValueError for anything else."""
    address = fields.text("address")
    return Request(
        address,
        fields.whole("port", 0, 65535),
        fields.text("key", address),
        fields.text("pool", DEFAULT_POOL),
        tuple(checked.text(name, fields.at("exclude")) for name in fields.each("exclude", MOST_EXCLUDED)),
        fields.whole("job"),
        fields.moment("since"),
        fields.text("only"),
    )


def history_note(history: History, last: int | None = None) -> list[dict[str, Any]]:
    """The attempts that are remembered, the oldest first; :func:`read_history` takes what this gives.

    :param last: only so many, the last ones; None for all.
    """
    entries = history.entries
    left_out = 0 if last is None else max(0, len(entries) - last)
    return [_note(*entry) for number, entry in enumerate(entries) if number >= left_out]


def read_history(values: object) -> Sequence[Entry]:
    """The same back, for :meth:`~distbal.history.History.take_up`; ValueError for anything else."""
    if not isinstance(values, list) or len(values) > MOST_ATTEMPTS:
        raise Wrong(f"a list of {MOST_ATTEMPTS} attempts at most is wanted, not {checked.shown(values)}")
    # only its name is asked for: one for all attempts on it
    hosts: dict[str, Host] = {}
    entries = (_entry(Fields(one, f"[{number}]"), hosts) for number, one in enumerate(values))
    return [entry for entry in entries if entry is not None]


def _note(lease: Lease, outcome: Outcome, ended: float) -> dict[str, Any]:
    ticket = lease.ticket
    return {
        "lease": lease.id,
        "host": kept(lease.host_name),
        **request_note(ticket.request),
        "asked": ticket.asked,
        "granted": lease.granted,
        "ended": ended,
        "outcome": outcome.value,
        "waited": ticket.found is not None,
    }


def _entry(fields: Fields, hosts: dict[str, Host]) -> Entry | None:
    """None where it ended in a way that this version has no word for."""
    fields.need("lease", "host", "asked", "granted", "ended", "outcome")
    name, word = fields.word("host"), fields.text("outcome")
    if word not in _OUTCOMES:
        return None
    if name not in hosts:
        hosts[name] = Host(HostSpec(name, 1, 0), 0)
    asked, granted, ended = (fields.moment(key) or 0.0 for key in ("asked", "granted", "ended"))
    ticket = Ticket(fields.whole("lease", 1), read_request(fields), None, asked)
    ticket.found = UNKNOWN if fields.truth("waited") else None
    return Lease(ticket, hosts[name], granted, UNKNOWN), _OUTCOMES[word], ended
