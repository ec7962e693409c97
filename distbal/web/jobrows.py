"""The last jobs, each with the record of why it went where it went."""

from __future__ import annotations

from distbal.outcomes import FAILURES
from distbal.report import AttemptReport, JobReport, JobsReport
from distbal.web.words import NONE, number, precise, since, text

#: jobs that are shown, and hosts that were passed over of each attempt; the rest is counted
MOST_JOBS, MOST_PASSED_OVER = 25, 12
#: outcomes that are no failure of the host, but worth a look
ODD = ("reset", "vanished", "undelivered", "cut-off", "kicked")
_FAILURES = {outcome.value for outcome in FAILURES}
#: the words for what kept several hosts from serving a job that had to wait
KEPT = {
    "excluded": "left out",
    "taken-down": "taken down",
    "weight": "without capacity",
    "busier": "busier",
    "not-drawn": "not drawn",
}


def jobs(report: JobsReport, at: float | None) -> str:
    """The table's rows, the latest first."""
    shown = [_job(job, at) for job in report["jobs"]]
    return "".join(shown) or '<tr><td colspan="7" class="none">No job has ended yet.</td></tr>'


def _job(job: JobReport, at: float | None) -> str:
    return "".join(_attempt(job, one, number_, at) for number_, one in enumerate(job["attempts"], 1))


def _attempt(job: JobReport, one: AttemptReport, try_: int, at: float | None) -> str:
    outcome = one["outcome"] or "runs"
    how = "bad" if outcome in _FAILURES else "odd" if outcome in ODD else ""
    again = f' <small title="this job was tried before">try {try_}</small>' if try_ > 1 else ""
    ended = "now" if one["ended"] is None else since(one["ended"], at, ago=True)
    return (
        f'<tr data-j="{one["lease"]}"><td class="n">{ended}</td>'
        f"<td>{text(job['address'] or 'local')}{again}</td><td>{text(one['host'])}</td>"
        f'<td class="n{" low" if one["waited"] >= 1 else ""}">{precise(one["waited"]) if one["waited"] else NONE}</td>'
        f'<td class="n">{precise(one["seconds"])}</td><td class="{how}">{text(outcome)}</td>'
        f"<td>{_why(job, one)}</td></tr>"
    )


def _why(job: JobReport, one: AttemptReport) -> str:
    passed = one.get("passed_over", [])
    more = one.get("more", 0)
    count = len(passed) + more
    not_known = one.get("not_known", "")
    if not_known and "passed_over" not in one:
        short = "not known"
    else:
        short = f"{number(count)} passed over" if count else "the first in rank"
    waited = ", ".join(f"{number(count)} {KEPT.get(reason, reason)}" for reason, count in one["waited_for"].items())
    lines = [f"<li><b>{text(over['host'])}</b> {text(over['words'])}</li>" for over in passed]
    if more:
        lines.append(f"<li>and {number(more)} more</li>")
    told = f"<p>Job {job['id']} of pool {text(job['pool'])}."
    if one["waited"]:
        told += f" It waited {precise(one['waited'])}{f', as hosts were: {text(waited)}' if waited else ''}."
    if not_known:
        told += f" {text(not_known[:1].upper() + not_known[1:])}."
    elif not lines:
        told += f" {text(one['host'])} stands first in rank, and was free."
    listed = f"<p>Not given to</p><ol>{''.join(lines)}</ol>" if lines else ""
    return f"<details><summary>{short}</summary>{told}</p>{listed}</details>"
