"""The alert rules in etc/prometheus: promtool reads them and tries them, and every metric in them is one that we tell."""

from __future__ import annotations

import re
import subprocess

import pytest
import pytest_twisted
import yaml

from tests.busy import busy
from tests.support import ROOT, LoggedErrors, need
from tests.web import listening

RULES = ROOT / "etc" / "prometheus" / "distbal-alerts.yml"
CASES = ROOT / "tests" / "alerts.yml"


def alerts() -> list[dict[str, str]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    rules: list[dict[str, str]] = group["rules"]
    return rules


@pytest.mark.programs
@pytest.mark.parametrize(
    "command",
    [
        ["check", "rules", str(RULES)],
        ["check", "config", str(RULES.with_name("prometheus.yml"))],
        ["test", "rules", str(CASES)],
    ],
)
def test_promtool(command: list[str]) -> None:
    need("promtool")
    done = subprocess.run(["promtool", *command], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def test_every_alert_is_tried_to_fire_and_not_to() -> None:
    tried: dict[str, set[bool]] = {}
    for case in yaml.safe_load(CASES.read_text())["tests"]:
        for one in case["alert_rule_test"]:
            tried.setdefault(one["alertname"], set()).add("exp_alerts" in one)
    assert tried == {rule["alert"]: {True, False} for rule in alerts()}


def test_every_alert_says_what_to_do() -> None:
    for rule in alerts():
        told = rule["annotations"]
        assert set(told) == {"summary", "description"}
        assert rule["labels"]["severity"] in ("critical", "warning", "info")  # type: ignore[index]


@pytest_twisted.ensureDeferred
async def test_every_metric_of_the_rules_is_in_a_scrape(logged_errors: LoggedErrors) -> None:
    pytest.importorskip("prometheus_client")
    with busy() as one:
        logged_errors.flush()
        async with listening(one.ground) as web:
            answer = await web.get("/metrics")
    there = {re.split(r"[{ ]", line)[0] for line in answer.text.splitlines() if not line.startswith("#")}
    used = {name for rule in alerts() for name in re.findall(r"\bdistbal_\w+", rule["expr"])}
    assert len(used) > 8
    assert used <= there
