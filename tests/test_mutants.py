"""The state machine bites: faults planted one at a time in a copy of the core are each caught, and the copy without one passes.

Each fault is one that somebody could have written. When a changed line of the core is not found any more, its test fails: then
say here how the same fault looks in the new code.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import ROOT

#: exit statuses of the run below; any other means that it could not run
PASSED, CAUGHT = 0, 42

#: runs the machine on the package in the first argument's directory, always with the same sequence of examples; the first
#: failure is enough, it need not be made small. What fails before the run (a syntax error, say) is not a catch.
RUN = f"""
import sys
copy, root = sys.argv[1:]
sys.path[:0] = [copy, root]
import distbal.scheduler
assert distbal.scheduler.__file__.startswith(copy), distbal.scheduler.__file__
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test
import pytest
from tests.test_scheduler_machine import SchedulerMachine
few = settings(
    max_examples=500, stateful_step_count=50, deadline=None, database=None, derandomize=True, print_blob=False,
    report_multiple_bugs=False, phases=[Phase.generate],
)
try:
    run_state_machine_as_test(SchedulerMachine, settings=few)
except (AssertionError, KeyError, pytest.fail.Exception) as caught:
    print(f"{{type(caught).__name__}}: {{caught}}")
    sys.exit({CAUGHT})
"""


@dataclass(frozen=True)
class Mutant:
    """One fault, as a change of one place in one file."""

    name: str
    file: str
    old: str
    new: str


MUTANTS = (
    Mutant(
        "a slot that is over capacity is handed on",
        "scheduler.py",
        "if self._waiters and host.leases < host.capacity:",
        "if self._waiters and host.leases <= host.capacity:",
    ),
    Mutant(
        "a grant is not noted in the index",
        "scheduler.py",
        "            self._grant(ticket, host, now)\n            self._reindex(host)\n",
        "            self._grant(ticket, host, now)\n",
    ),
    Mutant(
        "a slot that comes back is not noted in the index",
        "scheduler.py",
        "        self._reindex(host)\n        return []\n",
        "        return []\n",
    ),
    Mutant(
        "who came last is served first",
        "queues.py",
        "ticket_id, ticket = next(iter(client.lines[kind].items()))",
        "ticket_id, ticket = next(reversed(client.lines[kind].items()))",
    ),
    Mutant(
        "a client that was served keeps its turn",
        "queues.py",
        "        self._to_the_back(ticket.request.key)\n",
        "",
    ),
    Mutant(
        "a client in two pools has two turns",
        "queues.py",
        "            for kind in client.lines:\n                self._turns",
        "            for kind in list(client.lines)[:1]:\n                self._turns",
    ),
    Mutant(
        "a host that left the file is given jobs",
        "hosts.py",
        "if self.removed or self.admin is not AdminState.READY",
        "if self.admin is not AdminState.READY",
    ),
    Mutant(
        "a verdict does not expire",
        "scheduler.py",
        "        changed = host.health.hear(verdict)\n        self._verdicts_changed(host)\n",
        "        changed = host.health.hear(verdict)\n",
    ),
    Mutant(
        "a host that an earlier attempt failed on is chosen",
        "scheduler.py",
        "index.pick(request.exclude)",
        "index.pick(())",
    ),
    Mutant(
        "a waiter that left is still in the queue",
        "scheduler.py",
        "        self._line(ticket).remove(ticket)\n        self._patience.discard(ticket)\n        ticket.holder = None",
        "        self._patience.discard(ticket)\n        ticket.holder = None",
    ),
    Mutant(
        "a small weight leaves no slot at all",
        "hosts.py",
        "max(1, (self.spec.slots * weight + FULL_WEIGHT // 2) // FULL_WEIGHT)",
        "(self.spec.slots * weight + FULL_WEIGHT // 2) // FULL_WEIGHT",
    ),
    Mutant(
        "capacity is rounded down",
        "hosts.py",
        "self.spec.slots * weight + FULL_WEIGHT // 2)",
        "self.spec.slots * weight)",
    ),
    Mutant(
        "a refusal is not counted",
        "scheduler.py",
        '            self._counts["refused"] += 1\n',
        "",
    ),
    Mutant(
        "waiters are forgotten when the file is read again",
        "scheduler.py",
        "return self._serve(self._hosts.values(), now)",
        "return []",
    ),
    Mutant(
        "the first free host serves all waiters",
        "scheduler.py",
        "            self._reindex(best)\n            free.changed(best)\n",
        "",
    ),
    Mutant(
        "hosts of one rank do not share the load",
        "policies.py",
        "0.0 if host.alone else host.leases / host.capacity",
        "0.0",
    ),
    Mutant(
        "load is counted in leases, whatever the capacity",
        "policies.py",
        "return (host.suspect, host.leases / host.capacity, host.spec.rank",
        "return (host.suspect, host.leases, host.spec.rank",
    ),
    Mutant(
        "changed pools are not taken in by the indexes",
        "scheduler.py",
        "known.spec, known.position, known.removed = spec, position, False",
        "known.position, known.removed = position, False",
    ),
    # -- what jobs tell of their hosts
    Mutant(
        "after a pause all slots are lent",
        "health.py",
        "            if follows is not None:\n",
        "            if False:\n",
    ),
    Mutant(
        "a pause is as long as the first one",
        "evidence.py",
        "2 * self.pause or FIRST_PAUSE",
        "FIRST_PAUSE",
    ),
    Mutant(
        "every job that failed together lengthens the pause",
        "evidence.py",
        "if not self.is_news(granted):",
        "if False:",
    ),
    Mutant(
        "the end of a pause is not noted",
        "scheduler.py",
        "            changed = host.health.hear(verdict)\n            self._verdicts_changed(host)\n        elif",
        "            changed = host.health.hear(verdict)\n        elif",
    ),
    Mutant(
        "an old job that is answered ends a pause",
        "scheduler.py",
        "elif outcome is Outcome.ANSWERED and host.evidence.proves(lease.granted):",
        "elif outcome is Outcome.ANSWERED:",
    ),
    Mutant(
        "an old job that is answered ends a trial",
        "scheduler.py",
        "elif outcome is Outcome.ANSWERED and host.evidence.proves(lease.granted):",
        "elif outcome is Outcome.ANSWERED and host.health.up:",
    ),
    Mutant(
        "a host that was reached serves nobody who waits",
        "scheduler.py",
        "return self._changed([host], now) if self._reached(host) else []",
        "self._reached(host)\n        return []",
    ),
    Mutant(
        "a host that was reached begins with a long pause the next time",
        "evidence.py",
        "        had_failed = self.pause > 0\n        self.pause = 0.0\n",
        "        had_failed = self.pause > 0\n",
    ),
    Mutant(
        "a job that is tried again goes to the end of the queue",
        "scheduler.py",
        "return self._queue if request.since is None else self._again",
        "return self._queue",
    ),
    Mutant(
        "a job that is tried again is as young as a new one",
        "scheduler.py",
        "now if request.since is None else request.since",
        "now",
    ),
    Mutant(
        "when the discipline changes, jobs that are tried again are queued twice",
        "scheduler.py",
        "if ticket.request.since is None and not ticket.request.only:",
        "if not ticket.request.only:",
    ),
    Mutant(
        "one client alone makes a host suspect",
        "evidence.py",
        "            self._without |= {key}\n",
        '            self._without |= {f"{key} {len(self._without)}"}\n',
    ),
    Mutant(
        "a suspect host is chosen first when it is the fastest",
        "policies.py",
        "return (host.suspect, host.spec.rank, ",
        "return (host.spec.rank, ",
    ),
    Mutant(
        "a suspect host is drawn like any other",
        "policies.py",
        "(self._suspect, self._trusted) if host.suspect else (self._trusted, self._suspect)",
        "(self._trusted, self._suspect)",
    ),
    Mutant(
        "a host is suspect for ever",
        "evidence.py",
        "            self._answers.succeeded()\n",
        "            pass\n",
    ),
    # -- hosts that have another address
    Mutant(
        "a host that moved is still down",
        "scheduler.py",
        "                    known.health.forget(evidence.SOURCE)\n                    self._verdicts_changed(known)\n",
        "                    self._verdicts_changed(known)\n",
    ),
    Mutant(
        "a host that moved is still suspect",
        "scheduler.py",
        "                    known.suspect = False\n",
        "",
    ),
    Mutant(
        "what a host's old address told of three clients counts at the new one",
        "evidence.py",
        "        self._connects.moved(now)\n        self._answers = Answers()\n",
        "        self._connects.moved(now)\n",
    ),
    Mutant(
        "a host that moved begins with a long pause",
        "evidence.py",
        "        self.pause = 0.0\n        self._failed = now\n",
        "        self._failed = now\n",
    ),
    Mutant(
        "a job that could not connect to the old address takes the new one out",
        "evidence.py",
        "        self.pause = 0.0\n        self._failed = now\n",
        "        self.pause = 0.0\n",
    ),
    Mutant(
        "every reload is a move",
        "scheduler.py",
        "if known.spec.address != spec.address:",
        "if True:",
    ),
    # -- those for whom one host alone will do
    Mutant(
        "who needs one host waits behind those to whom any will do",
        "scheduler.py",
        "ticket = ticket or (self._again.take(host) if self._again else None) or self._queue.take(host)",
        "ticket = (self._again.take(host) if self._again else None) or self._queue.take(host) or ticket",
    ),
    Mutant(
        "who needs one host waits behind jobs that are tried again",
        "scheduler.py",
        "        ticket = self._only.take(host) if self._only else None\n"
        "        ticket = ticket or (self._again.take(host) if self._again else None) or",
        "        ticket = self._again.take(host) if self._again else None\n"
        "        ticket = ticket or (self._only.take(host) if self._only else None) or",
    ),
    Mutant(
        "who needs one host is lent a slot more than it has",
        "scheduler.py",
        "host = wanted if wanted.available else None",
        "host = wanted if wanted.up else None",
    ),
    Mutant(
        "who needs one host is given any",
        "scheduler.py",
        "        if request.only:\n            return self._only\n",
        "",
    ),
    Mutant(
        "of those who need one host the last one is first",
        "queues.py",
        "        ticket = next(iter(line.values()))\n",
        "        ticket = next(reversed(line.values()))\n",
    ),
    Mutant(
        "when the discipline changes, those who need one host are queued twice",
        "scheduler.py",
        "if ticket.request.since is None and not ticket.request.only:",
        "if ticket.request.since is None:",
    ),
    Mutant(
        "a host that has left is waited for",
        "scheduler.py",
        "wanted = self._in_file(request.only) if request.only else None",
        "wanted = self._hosts[request.only] if request.only else None",
    ),
    Mutant(
        "a request for a host that is not there is counted",
        "scheduler.py",
        "        wanted = self._in_file(request.only) if request.only else None\n",
        '        self._counts["asked"] += 1\n'
        "        wanted = self._in_file(request.only) if request.only else None\n"
        '        self._counts["asked"] -= 1\n',
    ),
    Mutant(
        "who was refused is still in the queue",
        "scheduler.py",
        "            self._line(ticket).remove(ticket)\n            self._patience.discard(ticket)\n",
        "            self._patience.discard(ticket)\n",
    ),
    # -- sources that have no opinion any more, and hosts that say how many slots they have
    Mutant(
        "what was forgotten frees nobody",
        "scheduler.py",
        "        return self._changed([host], now) if changed else []\n\n    def propose_slots",
        "        return []\n\n    def propose_slots",
    ),
    Mutant(
        "all sources are forgotten with one",
        "scheduler.py",
        "changed = host.health.forget(source)",
        "changed = any([host.health.forget(each.source) for each in host.health.verdicts])",
    ),
    Mutant(
        "a host overrules the file about its slots",
        "scheduler.py",
        "if not host.spec.auto or slots == host.spec.slots:",
        "if slots == host.spec.slots:",
    ),
    Mutant(
        "slots that a host says it has serve nobody who waits",
        "scheduler.py",
        "        host.spec = replace(host.spec, slots=slots)\n        return self._changed([host], now)",
        "        host.spec = replace(host.spec, slots=slots)\n        self._changed([host], now)\n        return []",
    ),
    Mutant(
        "a reload forgets the slots that a host said it has",
        "scheduler.py",
        "if spec.auto and known.spec.auto:",
        "if False:",
    ),
    Mutant(
        "slots that a host said it has stay when the file has a number",
        "scheduler.py",
        "if spec.auto and known.spec.auto:",
        "if known.spec.auto:",
    ),
    Mutant(
        "a number that the file had stays when it is left to the host",
        "scheduler.py",
        "if spec.auto and known.spec.auto:",
        "if spec.auto:",
    ),
    Mutant(
        "what leases keep is not told that a host filled up",
        "scheduler.py",
        "            self._board.turned(host)\n        for pool",
        "        for pool",
    ),
    Mutant(
        "how a host stood when it was last full is kept though something else changed",
        "standing.py",
        "            self._free[position] = self._full[position] = None\n",
        "",
    ),
    Mutant(
        "a host over its capacity stands as one that is just full",
        "standing.py",
        "if stands is None or (stands.leases != host.leases and not host.available):",
        "if stands is None:",
    ),
    Mutant(
        "a page of the board is not made anew",
        "standing.py",
        "        self._pages[page] = tuple(row)\n",
        "",
    ),
    # -- another process that goes on
    Mutant(
        "the next process gives turns by arrival",
        "takeup.py",
        "turns={key: turn for key, turn in carried.turns.items() if key in keys},",
        "turns={},",
    ),
    Mutant(
        "a client that comes to the next process has the first turn",
        "queues.py",
        "        self._last_turn = max(turns.values(), default=0)\n",
        "        pass\n",
    ),
    Mutant(
        "leases that are taken up are not counted at their hosts",
        "scheduler.py",
        "            lease.host.leases += 1\n",
        "",
    ),
    Mutant(
        "a lease of a host that left the file is lent anew by its host",
        "takeup.py",
        "            removed.append(host)\n",
        "            scheduler.farm\n",
    ),
    Mutant(
        "the next process does not hear what was said of hosts",
        "takeup.py",
        "        host.health.take_up((verdict for verdict in note.verdicts if verdict.source not in anew), now)\n",
        "",
    ),
    Mutant(
        "what should have expired before the next process holds there",
        "health.py",
        "        self.expire(now)\n        self._sum_up()\n",
        "        self._sum_up()\n",
    ),
    Mutant(
        "what was said to an earlier process never expires",
        "scheduler.py",
        "        for host in self._hosts.values():\n            self._verdicts_changed(host)\n        self._counts",
        "        self._counts",
    ),
    Mutant(
        "the next process trusts a suspect host",
        "takeup.py",
        "        host.suspect = host.evidence.suspect\n",
        "",
    ),
    Mutant(
        "the next process begins with a short pause",
        "evidence.py",
        "self.pause = min(account.pause, LONGEST_PAUSE)",
        "self.pause = 0.0",
    ),
    Mutant(
        "old jobs tell the next process of a host that has failed since",
        "evidence.py",
        'self._failed = float("-inf") if account.failed is None else account.failed',
        'self._failed = float("-inf")',
    ),
    Mutant(
        "waiters are taken up in the order in which they are told",
        "takeup.py",
        "[known[number] for number in sorted(known)]",
        "list(known.values())",
    ),
    Mutant(
        "the next process begins with numbers that were given out",
        "scheduler.py",
        "max(next(self._ids), past.last_id + 1)",
        "next(self._ids)",
    ),
    Mutant(
        "waiters are as young as the next process",
        "takeup.py",
        "        asked = _past(one.asked, now)\n",
        "        asked = now\n",
    ),
    Mutant(
        "the next process does not see that a host has moved",
        "takeup.py",
        "        host.spec = note.spec\n",
        "",
    ),
    Mutant(
        "a host's leases before the next process are not counted",
        "takeup.py",
        "        host.granted = max(note.granted, ended + lent.get(name, 0))\n",
        "        host.granted = lent.get(name, 0)\n",
    ),
    Mutant(
        "waiting before the next process is no waiting",
        "takeup.py",
        "            waiters.append(ticket)\n",
        "            scheduler.farm\n",
    ),
)


def run(directory: Path) -> tuple[int, str]:
    """Run the machine on the package in a directory: exit status and output."""
    # the copy is not what coverage is asked about
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN, str(directory), str(ROOT)],
        env=env | {"PYTHONDONTWRITEBYTECODE": "1"},
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package's Python files, to be spoilt."""
    package = tmp_path / "distbal"
    package.mkdir()
    for file in (ROOT / "distbal").glob("*.py"):
        shutil.copy(file, package)
    return package


def test_the_core_itself_passes(copy: Path) -> None:
    status, output = run(copy.parent)
    assert status == PASSED, output


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_planted_fault_is_caught(mutant: Mutant, copy: Path) -> None:
    file = copy / mutant.file
    text = file.read_text()
    found = text.count(mutant.old)
    assert found == 1, f"{mutant.file} has {found} places to plant “{mutant.name}” in: say in MUTANTS how it looks now"
    file.write_text(text.replace(mutant.old, mutant.new))
    status, output = run(copy.parent)
    assert status == CAUGHT, f"“{mutant.name}” was not caught: {output or 'the machine passes'}"
