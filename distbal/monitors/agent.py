"""``agent``: what an agent on the host says, in the words of HAProxy's agent-check, so that agents people have already work.

The agent listens on a port of its own; whoever connects is told one line (HAProxy's configuration manual, "agent-check"):
words with spaces, tabs or commas between them, ``up 75%``, ``drain``, ``down # disk full``, ended by CR or LF. Of two words of
one sort the last counts, as there.

What differs from HAProxy 2.6, tried side by side:

- A line stands for itself. HAProxy keeps what a line leaves out: there a host that was drained stays so until ``ready``, here
  until the next line that does not say so. An agent that says each time how things are means the same to both.
- ``drain`` and ``maint`` are a weight of 0 here: no new jobs, those that run go on. What a person decided, no agent changes.
- A line that the agent's close ends counts too, and so does ``down#why`` without a space: HAProxy ignores the one and does not
  know the other.
- Over ``100%`` is 100%: a host has no more slots than the file gives it.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field
from twisted.plugin import IPlugin
from zope.interface import implementer

from distbal.errors import MonitorTrouble
from distbal.forms import port_number, setting, shown, text
from distbal.hostspec import MOST_SLOTS
from distbal.interfaces import Fact, IHostMonitor, IHostMonitorFactory, Reading, Target
from distbal.monitors.exchange import Caller, Ending, Text, printable
from distbal.monitors.kit import MonitorKind, MonitorOptions, Surroundings, Unreachable, connect

#: bytes of a line, its end included; a description may be long
MOST_LINE = 1000
#: characters that may be sent first
MOST_SENT = 1000

DOWN = ("down", "fail", "failed", "stopped")
NO_NEW_JOBS = ("drain", "maint")
KNOWN = "up, ready, drain, maint, down, fail, stopped, a weight such as 75%, maxconn:8"


def _sendable(value: str) -> str:
    if len(value) > MOST_SENT:
        raise ValueError(f"what is sent to the agent has {len(value)} characters: {MOST_SENT} are the most")
    return value


class AgentOptions(MonitorOptions):
    """What stands behind ``agent`` in hosts.yaml."""

    port: Annotated[int, port_number("the agent's port")] = Field(
        description="The port that the agent listens on, at the host's address (HAProxy's agent-port)."
    )
    send: Annotated[str, text(rf"[\s\S]{{0,{MOST_SENT}}}", _sendable, "what the agent is sent first")] = setting(
        "", 'What the agent is sent first, to the letter: with "hello\\n" a line (HAProxy\'s agent-send).'
    )


@implementer(IPlugin, IHostMonitorFactory)
class AgentKind(MonitorKind):
    """Makes monitors of this kind."""

    name = "agent"
    description = "what does an agent on the host say, in the words of HAProxy's agent-check?"
    options = AgentOptions
    silence = "does the agent say anything on that port, and does no firewall drop what is sent there?"
    proposes_slots = True

    def monitor(self, target: Target, options: AgentOptions, surroundings: Surroundings) -> AgentMonitor:
        """Make a monitor of one host."""
        return AgentMonitor(target, options, surroundings)


@implementer(IHostMonitor)
class AgentMonitor:
    """Reads one line of one host's agent."""

    def __init__(self, target: Target, options: AgentOptions, surroundings: Surroundings) -> None:
        self._host = target.host
        self._port = options.port
        self._words = options.send.encode()
        self._surroundings = surroundings

    async def check(self) -> Reading:
        """Ask the agent once."""
        try:
            caller: Caller = await connect(self._surroundings, self._host, self._port, Caller)
        except Unreachable as problem:
            raise MonitorTrouble(f"{problem} (port {self._port}, where its agent should be)") from problem
        line = Text(MOST_LINE, b"\n", b"\r")
        ending = await caller.ask(self._words, line.take)
        if not line.marked:
            if ending is Ending.ENOUGH:
                raise MonitorTrouble(f"has an agent whose line does not end within {MOST_LINE} bytes: {_quoted(line.text)}")
            if ending is Ending.BROKEN:
                raise MonitorTrouble(f"has an agent that broke the connection, having said {_quoted(line.text)}")
        return parse(line.text)

    def stop(self) -> None:
        """Nothing is kept between two checks."""


def parse(line: bytes) -> Reading:
    """What an agent's line says.

    :param line: what the agent sent; what follows the first CR or LF does not count.
    :raises MonitorTrouble: none of its words is known.
    """
    line = re.split(rb"[\r\n]", line, maxsplit=1)[0]
    said, _, description = line.partition(b"#")
    health = admin = ""
    weight: float | None = None
    slots: int | None = None
    known: list[str] = []
    unknown: list[str] = []
    for word in re.split(r"[ \t,]+", said.decode(errors="replace").strip(" \t,")):
        lower = word.lower()
        if lower == "up" or lower in DOWN:
            health = lower
        elif lower == "ready" or lower in NO_NEW_JOBS:
            admin = lower
        elif share := re.fullmatch(r"([0-9]{1,6})%", lower):
            weight = int(share[1]) / 100
        elif (most := re.fullmatch(r"maxconn:([0-9]{1,6})", lower)) and int(most[1]) <= MOST_SLOTS:
            slots = int(most[1]) or None  # 0 is "no limit" to HAProxy
        else:
            unknown += [word] if word else []
            continue
        known.append(lower)
    if not known:
        raise MonitorTrouble(
            f"has an agent that says {_quoted(line)}, which is none of {KNOWN}" if line else "has an agent that says nothing"
        )
    facts: dict[str, Fact] = {"line": printable(line)}
    if slots is not None:
        facts["maxconn"] = slots
    if unknown:
        facts["unknown"] = printable(unknown[0].encode(), 40)
    reason = f"says {' '.join(known)}"
    if health and (why := printable(description)):
        reason += f": {why}"
    # one word of its health is proof, as it is to HAProxy; a weight or a wish says nothing of it
    certain = bool(health)
    if health in DOWN:
        return Reading(up=False, reason=reason, certain=certain, slots=slots, facts=facts)
    if admin in NO_NEW_JOBS:
        weight = 0.0
        reason += " (no new jobs)"
    elif weight is not None and weight > 1:
        weight = 1.0
        reason += " (more than 100% is 100%)"
    return Reading(up=True, reason=reason, weight=weight, certain=certain, slots=slots, facts=facts)


def _quoted(words: bytes) -> str:
    return shown(words.decode(errors="replace"))
