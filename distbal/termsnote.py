"""By which terms slots are lent, noted for a process that lends before it has read the file.

That process has the hosts from their own notes (carried.py). So this note says two things: what of the file it takes beside
them to serve a client; and, by being there at all, that the notes on hosts are complete, and say what people decided. Whoever
changes one of these takes it back first (:meth:`distbal.notebook.Notebook.terms_change`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distbal import checked, wire
from distbal.access import AccessList
from distbal.checked import Fields, Wrong
from distbal.hosts import Farm
from distbal.policies import POLICIES
from distbal.queues import DISCIPLINES

#: its key in the ledger
TERMS_NOTE = "terms"
#: ranges of addresses
MOST_ALLOWED = 10_000


@dataclass(frozen=True, slots=True)
class CarriedTerms:
    """What the earlier process went by.

    :ivar farm: without hosts: their order, and that of those who wait.
    :ivar reply: what 5656 answers, a template.
    :ivar allow: who may have a slot.
    """

    farm: Farm
    reply: str
    allow: AccessList


def terms_note(terms: CarriedTerms) -> dict[str, Any]:
    """The terms for JSON; :func:`read_terms` takes what this gives."""
    farm = terms.farm
    return {
        "policy": farm.policy,
        "order": farm.order,
        "wait": farm.wait,
        "reply": terms.reply,
        "allow": list(terms.allow.words),
    }


def read_terms(values: object) -> CarriedTerms:
    """The same back; ValueError for anything else, also for words that only another version knows."""
    fields = Fields(values)
    fields.need("policy", "order", "reply", "allow")
    policy, order, reply = fields.word("policy"), fields.word("order"), fields.text("reply")
    if policy not in POLICIES:
        raise Wrong(f"policy: {checked.shown(policy)} is none")
    if order not in DISCIPLINES:
        raise Wrong(f"order: {checked.shown(order)} is none")
    wire.grant(reply, "host", "")
    allow = AccessList.parse(checked.text(word, "allow") for word in fields.each("allow", MOST_ALLOWED))
    return CarriedTerms(Farm((), policy, order, fields.number("wait") if "wait" in fields else None), reply, allow)
