"""``/api/v1``: a farm in which everything happens, held to its schema; what is asked wrongly gets a sentence."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

import jsonschema
import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from distbal.leases import LocalLeases
from distbal.outcomes import Outcome
from distbal.report import STATES, VERSION, Means
from distbal.reporter import MOST_PASSED_OVER
from distbal.requests import Request
from distbal.web.schema import ANSWERS, fields, schema, tables
from tests.busy import DECIDED, HOSTS, Busy, busy, large
from tests.support import ROOT, LoggedErrors, need
from tests.takers import Client
from tests.watchers import ground
from tests.web import Answer, Web, listening

DOCUMENT = ROOT / "docs" / "api.md"


def strict(told: Any) -> Any:
    """A schema that takes no field that it does not name: what we send is all documented."""
    if isinstance(told, dict):
        inner = {name: strict(value) for name, value in told.items()}
        return inner | {"additionalProperties": False} if "properties" in told else inner
    return [strict(one) for one in told] if isinstance(told, list) else told


def held_to(answer: Answer, name: str, definition: str = "") -> Any:
    """The answer's JSON, which is as the schema says.

    :param definition: of one of its parts.
    """
    assert answer.status == 200
    told = strict(schema(name))
    if definition:
        told = {**told["$defs"][definition], "$defs": told["$defs"]}
    validator = jsonschema.Draft202012Validator(told)
    validator.validate(answer.json)
    return answer.json


@pytest.fixture
def farm(logged_errors: LoggedErrors) -> Iterator[Busy]:
    with busy() as one:
        # one of its monitors has a bug
        logged_errors.flush()
        yield one


async def at_once(web: Web, path: str) -> Answer:
    web.decisions[0] = DECIDED
    return await web.get(path)


@pytest_twisted.ensureDeferred
async def test_status(farm: Busy) -> None:
    async with listening(farm.ground) as web:
        told = held_to(await at_once(web, "/api/v1/status"), "status")
    assert told["version"] == VERSION
    assert told["totals"] == web.reporter.status()["totals"]
    assert len(told["waiters"]) == told["totals"]["waiting"] == len(farm.waiting) > 1
    assert told["ports"]["web"] == ["0.0.0.0:5659"]


@pytest_twisted.ensureDeferred
async def test_hosts_of_many_states(farm: Busy) -> None:
    async with listening(farm.ground) as web:
        told = held_to(await at_once(web, "/api/v1/hosts"), "hosts")
        assert told == web.reporter.hosts()
        states = {host["name"]: host["state"] for host in told["hosts"]}
        assert states == dict(zip(HOSTS, ("full", "drain", "full", "failing", "removed"), strict=True))
        hosts = {host["name"]: host for host in told["hosts"]}
        assert {one["key"] for one in hosts["box2"]["differs"]} == {"slots", "weight"}
        assert [one["source"] for one in hosts["box3"]["said"] if not one["up"]] == ["update", "told", "second"]
        assert hosts["old"]["monitors"][0]["bugs"] > 0
        assert hosts["box2"]["monitors"][0]["facts"] == {"load": 1.5, "cpus": 4}
        assert all(host["clients"] for host in told["hosts"] if host["used"])
        one = held_to(await web.get("/api/v1/hosts/box2"), "hosts", "HostReport")
        assert one == hosts["box2"]
        odd = held_to(await web.get("/api/v1/hosts/%3Cb%3E%22q%22%26%3C%2Fb%3E"), "hosts", "HostReport")
        assert odd["name"] == HOSTS[0]


@pytest_twisted.ensureDeferred
async def test_jobs_and_one_job(farm: Busy) -> None:
    async with listening(farm.ground) as web:
        told = held_to(await web.get("/api/v1/jobs"), "jobs")
        assert told == web.reporter.jobs()
        assert {one["outcome"] for job in told["jobs"] for one in job["attempts"]} == {
            *("answered", "refused", "no-answer", "closed", "unreachable")
        }
        newest = told["jobs"][0]
        assert held_to(await web.get("/api/v1/jobs?limit=1"), "jobs")["jobs"] == [newest]
        there = held_to(await web.get("/api/v1/jobs?host=box1"), "jobs")["jobs"]
        assert {one["host"] for job in there for one in job["attempts"]} == {"box1"}
        assert held_to(await web.get("/api/v1/jobs?address=10.0.0.9"), "jobs")["jobs"] == told["jobs"]
        assert held_to(await web.get("/api/v1/jobs?address=10.0.0.11"), "jobs")["jobs"] == []
        for number in (newest["id"], farm.leases[0].id):
            job = held_to(await web.get(f"/api/v1/jobs/{number}"), "jobs", "JobReport")
            assert number in (job["id"], *(one["lease"] for one in job["attempts"]))
            assert all("passed_over" in one for one in job["attempts"])
        assert job["attempts"][-1]["ended"] is None


@pytest_twisted.ensureDeferred
async def test_an_empty_farm() -> None:
    with ground("box1") as farm:
        farm.leases.configure(large(0))
        async with listening(farm) as web:
            for name in ANSWERS:
                held_to(await web.get(f"/api/v1/{name}"), name)


WRONG = {
    "/api/v1/jobs?limit=0": (400, "limit is a number from 1 to 1000, not '0'"),
    "/api/v1/jobs?limit=1001": (400, "limit is a number from 1 to 1000, not '1001'"),
    "/api/v1/jobs?limit=": (400, "limit is a number from 1 to 1000, not ''"),
    "/api/v1/jobs?limit=-1": (400, "limit is a number"),
    "/api/v1/jobs?limit=1e2": (400, "limit is a number"),
    "/api/v1/jobs?limit=%C2%B2": (400, "limit is a number"),
    "/api/v1/jobs?limit=" + "9" * 299: (400, "limit is a number"),
    "/api/v1/jobs?limit=5&limit=6": (400, "The parameter limit was given 2 times"),
    "/api/v1/jobs?lmit=5": (400, "No parameter 'lmit' is known; those here are: limit, host, address"),
    "/api/v1/jobs?host=%FF": (400, "The parameter host is no UTF-8"),
    "/api/v1/jobs?host=" + "x" * 301: (400, "The parameter host has more than 300 bytes"),
    "/api/v1/jobs/x": (400, "A job has a number, not 'x'"),
    "/api/v1/jobs/0": (400, "A job has a number, not '0'"),
    "/api/v1/jobs/4711": (404, "Nothing is known of a job 4711"),
    "/api/v1/jobs/": (400, "A job has a number, not ''"),
    "/api/v1/status?x=1": (400, "No parameter 'x' is known; there are none here"),
    "/api/v1/status?<script>=1": (400, "No parameter '<script>' is known"),
    "/api/v1/hosts?limit=1": (400, "No parameter 'limit' is known"),
    "/api/v1/hosts/nowhere": (404, "There is no host 'nowhere'"),
    "/api/v1/hosts/": (404, "There is no host ''"),
    "/api/v1/hosts/%FF": (400, "The host's name is no UTF-8"),
    "/api/v1/hosts/a/b": (404, "There is no host 'a/b'"),
    "/api/v1/nothing": (404, "Below /api/v1 there are status, hosts"),
    "/api": (404, "Below /api/v1 there are status, hosts"),
    "/api/v1": (404, "Below /api/v1 there are status, hosts"),
    "/api/v2/status": (404, "Below /api/v1 there are status, hosts"),
    "/api/v1/schema/nothing": (404, "Below /api/v1 there are status, hosts"),
}


@pytest_twisted.ensureDeferred
async def test_what_is_asked_wrongly_gets_a_sentence() -> None:
    with ground("box1") as farm:
        async with listening(farm) as web:
            for path, (status, sentence) in WRONG.items():
                answer = await web.get(path)
                assert answer.status == status, path
                assert list(answer.json) == ["error"]
                assert sentence in answer.json["error"]
                assert answer.json["error"].endswith(".")


@pytest_twisted.ensureDeferred
async def test_the_schema_is_served() -> None:
    with ground("box1") as farm:
        async with listening(farm) as web:
            for name in ANSWERS:
                answer = await web.get(f"/api/v1/schema/{name}")
                assert answer.headers["content-type"] == "application/schema+json"
                assert answer.json == schema(name)
                jsonschema.Draft202012Validator.check_schema(answer.json)


@pytest_twisted.ensureDeferred
async def test_many_hosts_and_jobs_come_whole_and_in_bounds() -> None:
    with ground("box1") as farm:
        leases: LocalLeases = farm.leases
        leases.configure(large(600))
        running = [leases.ask(Request(f"10.0.0.{number % 200}", 1, "a"), Client()) for number in range(600)]
        for ticket in running[:]:
            assert ticket.lease is not None
            leases.release(ticket.lease, Outcome.CLOSED)
        async with listening(farm) as web:
            hosts = held_to(await web.get("/api/v1/hosts"), "hosts")["hosts"]
            assert len(hosts) == 600
            answer = await web.get("/api/v1/jobs?limit=1000")
            jobs = held_to(answer, "jobs")["jobs"]
            assert len(jobs) == 600
            told = [len(one["passed_over"]) for job in jobs for one in job["attempts"] if "passed_over" in one]
            assert MOST_PASSED_OVER <= sum(told) < MOST_PASSED_OVER + 600
            assert len(answer.body) < 2_000_000
            last = jobs[-1]
            assert "passed_over" not in last["attempts"][0]
            alone = held_to(await web.get(f"/api/v1/jobs/{jobs[1]['id']}"), "jobs", "JobReport")
            assert len(alone["attempts"][0]["passed_over"]) > 500


def test_every_field_has_words_and_they_stand_in_the_document() -> None:
    text = DOCUMENT.read_text()
    assert tables() in text, "docs/api.md: put in what `python -m distbal.web.schema` prints"
    for name in ANSWERS:
        for kind in schema(name)["$defs"].values():
            for field in kind["properties"].values():
                assert field["description"]


def test_the_tables_are_printed() -> None:
    done = subprocess.run([sys.executable, "-m", "distbal.web.schema"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == tables()
    assert all(f"| `{state}` |" in done.stdout for state in STATES)


class Bare(TypedDict):
    name: str


class Odd(TypedDict):
    name: Annotated[set[str], Means("odd")]


def test_a_type_without_words_or_schema_is_a_mistake() -> None:
    with pytest.raises(TypeError, match=r"Bare\.name has no words"):
        fields(Bare)
    ANSWERS["odd"] = Odd
    try:
        with pytest.raises(TypeError, match="no schema is known for set"):
            schema("odd")
    finally:
        del ANSWERS["odd"]


def examples() -> list[tuple[str, str]]:
    """The commands of docs/api.md, and what each is said to print; "" where that is not told."""
    blocks = re.findall(r"^    \$ (curl .*)\n((?:    .+\n)*)", DOCUMENT.read_text(), re.MULTILINE)
    return [(command, re.sub(r"^    ", "", output, flags=re.MULTILINE)) for command, output in blocks]


@pytest.mark.programs
@pytest_twisted.ensureDeferred
async def test_the_examples_of_the_document_are_true(farm: Busy) -> None:
    need("curl")
    assert len(examples()) >= 5
    async with listening(farm.ground) as web:
        for command, expected in examples():
            line = command.replace("balancer:5659", f"127.0.0.1:{web.port}").split("  #")[0]
            words = [word.strip("'") for word in line.split(" ")]
            done = await deferToThread(subprocess.run, words, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 0, (command, done)
            if expected.startswith(("{", "[")):
                assert shape(json.loads(done.stdout)) >= shape(json.loads(expected.replace(", ...", ""))), command
            elif expected:
                assert re.fullmatch(re.sub(r"\d+", r"\\d+", re.escape(expected)).replace(r"\\d+", r"\d+"), done.stdout), command


def shape(value: Any) -> set[str]:
    """The names in it, with their places."""
    if isinstance(value, dict):
        return set(value) | {f"{name}.{inner}" for name, one in value.items() for inner in shape(one)}
    return set().union(*map(shape, value)) if isinstance(value, list) else set()
