"""``/metrics``: a real scrape of a busy farm, read by prometheus-client's own parsers and by promtool."""

# prometheus-client's parser has no types
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from distbal.outcomes import FAILURES, Outcome
from distbal.report import STATES
from distbal.requests import Request
from distbal.waits import BOUNDS
from tests.busy import HOSTS, Busy, busy, large
from tests.support import ROOT, LoggedErrors, need
from tests.takers import Client
from tests.watchers import ground
from tests.web import Answer, listening

pytest.importorskip("prometheus_client")

from prometheus_client import parser
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics_parser

OPENMETRICS = "Accept: application/openmetrics-text; version=1.0.0"


@pytest.fixture
def farm(logged_errors: LoggedErrors) -> Iterator[Busy]:
    with busy() as one:
        logged_errors.flush()
        yield one


def families(answer: Answer) -> dict[str, Metric]:
    assert answer.status == 200
    if answer.headers["content-type"].startswith("application/openmetrics-text"):
        found = list(openmetrics_parser.text_string_to_metric_families(answer.text))
    else:
        assert answer.headers["content-type"].startswith("text/plain")
        found = list(parser.text_string_to_metric_families(answer.text))
    assert len({one.name for one in found}) == len(found)
    return {one.name: one for one in found}


def value(found: dict[str, Metric], sample: str, **labels: str) -> float:
    """One sample; the labels that are named must tell it from others."""
    (one,) = [
        one
        for family in found.values()
        for one in family.samples
        if one.name == sample and all(one.labels[name] == label for name, label in labels.items())
    ]
    return one.value


@pytest.mark.parametrize("headers", [(), (OPENMETRICS,)])
@pytest_twisted.ensureDeferred
async def test_a_scrape_is_what_the_farm_is(headers: tuple[str, ...], farm: Busy) -> None:
    async with listening(farm.ground) as web:
        found = families(await web.get("/metrics", *headers))
        status, hosts = web.reporter.status(), web.reporter.hosts()["hosts"]
    for host in hosts:
        name = host["name"]
        for metric, field in {
            "slots": "slots",
            "capacity": "capacity",
            "weight_ratio": "weight",
            "leases": "used",
            "jobs_total": "jobs",
        }.items():
            assert value(found, f"distbal_host_{metric}", host=name) == host[field]  # type: ignore[literal-required]
        assert value(found, "distbal_host_lease_seconds_total", host=name) == pytest.approx(host["seconds"], abs=0.001)
        assert value(found, "distbal_host_up", host=name) == all(one["up"] for one in host["said"])
        if host["sent"]:
            assert value(found, "distbal_host_sent_bytes_total", host=name) == host["sent"]
            assert value(found, "distbal_host_received_bytes_total", host=name) == host["received"]
        for outcome, count in host["failures"].items():
            assert value(found, "distbal_host_failures_total", host=name, outcome=outcome) == count
        for monitor in host["monitors"]:
            where = {"host": name, "source": monitor["source"]}
            for field in ("checks", "failed", "troubled", "late", "bugs"):
                metric = field if field in ("checks", "bugs") else f"{field}_checks"
                told = value(found, f"distbal_monitor_{metric}_total", **where)
                assert told == monitor[field]  # type: ignore[literal-required]
            assert value(found, "distbal_monitor_troubled", **where) == bool(monitor["trouble"])
            if monitor["up"] is not None:
                assert value(found, "distbal_monitor_up", **where) == monitor["up"]
    assert value(found, "distbal_host_admin_ready", host="box1") == 0
    assert value(found, "distbal_host_admin_ready", host="box2") == 1
    assert value(found, "distbal_hosts", state="failing") == 1
    assert {one.labels["state"] for one in found["distbal_hosts"].samples} == set(STATES)
    assert value(found, "distbal_leases") == status["totals"]["used"]
    assert value(found, "distbal_waiting_clients") == status["totals"]["waiting"]
    assert value(found, "distbal_longest_wait_seconds") == pytest.approx(status["totals"]["longest_wait"])
    for metric, field in {"requests": "asked", "grants": "granted", "releases": "ended"}.items():
        assert value(found, f"distbal_{metric}_total") == status["counts"][field]
    assert value(found, "distbal_queue_wait_seconds_count") == status["counts"]["granted"]
    assert value(found, "distbal_queue_wait_seconds_bucket", le="+Inf") == status["counts"]["granted"]
    waited = value(found, "distbal_queue_wait_seconds_sum")
    assert waited > 0
    assert [float(one.labels["le"]) for one in found["distbal_queue_wait_seconds"].samples if "le" in one.labels] == [
        *BOUNDS,
        float("inf"),
    ]
    assert value(found, "process_resident_memory_bytes") > 1e6
    assert value(found, "distbal_scrape_seconds") >= 0
    assert value(found, "distbal_build_info") == 1


@pytest_twisted.ensureDeferred
async def test_every_metric_has_words_and_the_same_names_in_both_formats(farm: Busy) -> None:
    async with listening(farm.ground) as web:
        plain, openly = families(await web.get("/metrics")), families(await web.get("/metrics", OPENMETRICS))
    assert set(plain) == set(openly)
    for family in openly.values():
        assert family.documentation.endswith(".") or family.name == "distbal_build_info"
        assert family.type in ("gauge", "counter", "histogram")


@pytest_twisted.ensureDeferred
async def test_the_document_has_every_metric(farm: Busy) -> None:
    async with listening(farm.ground) as web:
        found = families(await web.get("/metrics", OPENMETRICS))
    document = (ROOT / "docs" / "api.md").read_text()
    for family in found.values():
        if family.name.startswith("distbal_"):
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = sorted({label for one in family.samples for label in one.labels} - {"le"})
            line = f"| `{name}` | {family.type} | {', '.join(labels)} | {family.documentation} |"
            assert line in document, f"docs/api.md lacks: {line}"


@pytest_twisted.ensureDeferred
async def test_labels_are_bounded_and_no_client_is_named(farm: Busy) -> None:
    """Whoever comes, and whatever a host's name is: the number of series stays."""
    async with listening(farm.ground) as web:
        before = families(await web.get("/metrics"))
        for number in range(50):
            farm.ask(f"10.1.2.{number}")
        answer = await web.get("/metrics")
    after = families(answer)
    assert {name: len(one.samples) for name, one in before.items()} == {name: len(one.samples) for name, one in after.items()}
    assert "10.1.2." not in answer.text
    names = {one.labels["host"] for family in after.values() for one in family.samples if "host" in one.labels}
    assert names == set(HOSTS)
    labels = {name for family in after.values() for one in family.samples for name in one.labels}
    assert labels == {"host", "source", "state", "outcome", "le", "where", "bound", "version", "python", "twisted"}


@pytest_twisted.ensureDeferred
async def test_a_host_shows_every_way_to_fail_from_its_first_proxied_job_on(farm: Busy) -> None:
    """And what the proxy counts; of a host that it never used all that would be noughts."""
    async with listening(farm.ground) as web:
        found = families(await web.get("/metrics"))
    first = [one for one in found["distbal_host_failures"].samples if one.labels["host"] == HOSTS[0]]
    assert {one.labels["outcome"] for one in first} == {outcome.value for outcome in FAILURES}
    for name in ("failures", "sent_bytes", "received_bytes", "connects", "connect_seconds"):
        hosts = {one.labels["host"] for one in found[f"distbal_host_{name}"].samples}
        assert HOSTS[0] in hosts
        assert "box3" not in hosts


@pytest.mark.parametrize("headers", [(), (OPENMETRICS,)])
@pytest_twisted.ensureDeferred
async def test_a_large_farm_comes_whole(headers: tuple[str, ...]) -> None:
    """It is made in pieces, and is none the less one answer."""
    with ground("box1") as farm:
        farm.leases.configure(large(400))
        async with listening(farm) as web:
            found = families(await web.get("/metrics", *headers))
    assert len(found["distbal_host_slots"].samples) == 400
    assert found["distbal_scrape_seconds"].samples


@pytest_twisted.ensureDeferred
async def test_a_farm_without_hosts() -> None:
    with ground("box1") as farm:
        farm.leases.configure(large(0))
        async with listening(farm) as web:
            found = families(await web.get("/metrics"))
    assert value(found, "distbal_hosts", state="ready") == 0
    assert found["distbal_host_slots"].samples == []


@pytest.mark.programs
@pytest_twisted.ensureDeferred
async def test_promtool_finds_nothing_to_complain_of(farm: Busy) -> None:
    need("promtool")
    async with listening(farm.ground) as web:
        answer = await web.get("/metrics")
    done = await deferToThread(
        subprocess.run, ["promtool", "check", "metrics"], input=answer.body, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest_twisted.ensureDeferred
async def test_is_all_well() -> None:
    with ground("box1", "box2") as farm:
        async with listening(farm) as web:
            assert (await web.get("/healthz/live")).text == "ok\n"
            answer = await web.get("/healthz")
            assert (answer.status, answer.text) == (200, "ok: 2 of 2 hosts can be given jobs; 0 slots lent, 0 clients wait\n")
            tickets = [farm.leases.ask(Request("10.0.0.1", 1, "a"), Client()) for _ in range(9)]
            # every slot is lent: that is what they are for
            answer = await web.get("/healthz")
            assert (answer.status, answer.text) == (200, "ok: 2 of 2 hosts can be given jobs; 8 slots lent, 1 client waits\n")
            for name in ("box1", "box2"):
                farm.leases.report(name, "update", up=False)
            answer = await web.get("/healthz")
            assert answer.status == 503
            assert answer.text == "no host can be given a job, of 2 in the file; 8 slots lent, 1 client waits\n"
            assert (await web.get("/healthz/live")).status == 200
            farm.leases.report("box2", "update", up=True)
            assert (await web.get("/healthz")).status == 200
            assert tickets[0].lease is not None
            farm.leases.release(tickets[0].lease, Outcome.CLOSED)


def test_without_prometheus_client_it_says_what_to_install() -> None:
    program = """
import sys
sys.modules["prometheus_client"] = None
import asyncio
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from tests.watchers import ground
from tests.web import reporter_of, site_of
with ground("a") as farm:
    site = site_of(reporter_of(farm), Clock())
    for path in ("/metrics", "/api/v1/status"):
        channel, wire = site.buildProtocol(None), StringTransport()
        channel.makeConnection(wire)
        channel.dataReceived(f"GET {path} HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n".encode())
        print(wire.value().split(b"\\r\\n")[0].decode(), wire.value().split(b"\\r\\n\\r\\n")[1].decode().strip()[:99])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    first, second = done.stdout.splitlines()
    assert first == (
        "HTTP/1.1 501 Not Implemented Metrics need prometheus-client, which is not installed here: pip install 'distbal[web]'"
    )
    assert second.startswith('HTTP/1.1 200 OK {"version":1')


def test_the_daemon_without_a_web_port_does_not_load_it() -> None:
    program = "import sys, distbal.balancer; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert not {"prometheus_client", "twisted.web.http"} & set(done.stdout.split())
