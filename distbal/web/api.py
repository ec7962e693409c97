"""``/api/v1``: the reports of :mod:`distbal.reporter` as JSON, and their schema.

Stable: a field that is there stays and means the same as long as ``version``, and the number in the path, are the same; new
ones may come.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from twisted.web.resource import IResource, Resource
from twisted.web.server import Request

from distbal.report import VERSION, JobReport
from distbal.reporter import Reporter, each_host, each_job
from distbal.web.making import Answers, Pieces
from distbal.web.resources import JSON, Made, ProblemError, send
from distbal.web.schema import ANSWERS, schema

#: jobs in an answer where the reader does not say how many, and at most
JOBS, MOST_JOBS = 50, 1000
#: what a parameter or a part of the path may have, in bytes
LONGEST = 300
#: items of a list that are made between two looks at the clock; jobs are made one by one: each may have hundreds of hosts in it
BATCH = 16


def make_api(reporter: Reporter, answers: Answers) -> Resource:
    """What is below ``/api``."""
    api, v1 = Missing(), Missing()
    api.putChild(b"v1", v1)
    v1.putChild(b"status", Status(reporter, answers))
    v1.putChild(b"hosts", Hosts(reporter, answers))
    v1.putChild(b"jobs", Jobs(reporter, answers))
    schemas = Missing()
    for name in ANSWERS:
        schemas.putChild(name.encode(), Schema(schema(name)))
    v1.putChild(b"schema", schemas)
    return api


def encode(value: object) -> bytes:
    """As JSON, in few bytes."""
    return json.dumps(value, separators=(",", ":")).encode()


def listed(head: dict[str, Any], name: str, items: Iterable[Any], batch: int = BATCH) -> Iterator[bytes]:
    """An object whose last value is a list, in pieces.

    :param head: its other values, at least one.
    :param batch: items in a piece.
    """
    yield encode(head)[:-1] + b"," + encode(name) + b":["
    part: list[bytes] = []
    first = True
    for item in items:
        part.append(encode(item))
        if len(part) == batch:
            yield (b"" if first else b",") + b",".join(part)
            part, first = [], False
    if part:
        yield (b"" if first else b",") + b",".join(part)
    yield b"]}"


def problem(request: Request, error: ProblemError) -> bytes:
    """A sentence about what is wrong, as JSON."""
    request.setResponseCode(error.status)
    request.setHeader(b"Content-Type", JSON)
    return encode({"error": str(error)})


class Missing(Resource):
    """What is not there."""

    def getChild(self, path: bytes, request: Request) -> IResource:
        return Missing()

    def render_GET(self, request: Request) -> bytes:
        there = "status, hosts, hosts/NAME, jobs, jobs/NUMBER, schema/status, schema/hosts and schema/jobs"
        return problem(request, ProblemError(404, f"There is nothing here. Below /api/v1 there are {there}."))


class Report(Made):
    """A report."""

    def problem(self, request: Request, error: ProblemError) -> bytes:
        return problem(request, error)

    def __init__(self, reporter: Reporter, answers: Answers) -> None:
        super().__init__(answers)
        self.reporter = reporter

    def pieces(self, request: Request) -> tuple[tuple[Any, ...], Pieces]:
        request.setHeader(b"Content-Type", JSON)
        return self.found(parameters(request, self.takes))

    #: names of parameters
    takes: tuple[str, ...] = ()

    def found(self, wanted: dict[str, str]) -> tuple[tuple[Any, ...], Pieces]:
        """What tells the answer from others, and how it is made."""
        raise NotImplementedError


def parameters(request: Request, known: Iterable[str]) -> dict[str, str]:
    """Those of the query, each once.

    :raises ProblemError: one is not known, given twice, too long or no text.
    """
    told = {}
    for name, values in request.args.items():
        word = name.decode("utf-8", "replace")
        if word not in known:
            may = f"those here are: {', '.join(known)}" if known else "there are none here"
            raise ProblemError(400, f"No parameter {word[:40]!a} is known; {may}.")
        if len(values) != 1:
            raise ProblemError(400, f"The parameter {word} was given {len(values)} times.")
        told[word] = decoded(values[0], f"The parameter {word}")
    return told


def decoded(value: bytes, what: str) -> str:
    """Text from the address.

    :raises ProblemError: it is too long, or no UTF-8.
    """
    if len(value) > LONGEST:
        raise ProblemError(400, f"{what} has more than {LONGEST} bytes.")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise ProblemError(400, f"{what} is no UTF-8.") from None


class Status(Report):
    """The farm in few words, and who waits."""

    def found(self, wanted: dict[str, str]) -> tuple[tuple[Any, ...], Pieces]:
        return ("status",), self._pieces

    def _pieces(self) -> Iterator[bytes]:
        head: dict[str, Any] = {**self.reporter.status()}
        waiters = head.pop("waiters")
        return listed(head, "waiters", waiters)


class Hosts(Report):
    """Every host; below it, each by its name."""

    isLeaf = False

    def found(self, wanted: dict[str, str]) -> tuple[tuple[Any, ...], Pieces]:
        return ("hosts",), self._pieces

    def _pieces(self) -> Iterator[bytes]:
        sight = self.reporter.sight()
        return listed(head_of(sight.snapshot.at + sight.epoch), "hosts", each_host(sight))

    def getChild(self, path: bytes, request: Request) -> IResource:
        return OneHost(self.reporter, self._answers, path)


class OneHost(Report):
    """One host, with nothing around it: what it has in the list of all."""

    def __init__(self, reporter: Reporter, answers: Answers, path: bytes) -> None:
        super().__init__(reporter, answers)
        self._path = path

    def pieces(self, request: Request) -> tuple[tuple[Any, ...], Pieces]:
        # a name may have a slash in it, if its client wrote one
        self._name = decoded(b"/".join([self._path, *(request.postpath or ())]), "The host's name")
        return super().pieces(request)

    def found(self, wanted: dict[str, str]) -> tuple[tuple[Any, ...], Pieces]:
        return ("host", self._name), self._pieces

    def _pieces(self) -> Iterator[bytes]:
        host = next(each_host(self.reporter.sight(), self._name), None) if self._name else None
        if host is None:
            raise ProblemError(404, f"There is no host {self._name!a}.")
        yield encode(host)


class Jobs(Report):
    """The last jobs that ended; below it, each by its number."""

    isLeaf = False
    takes = ("limit", "host", "address")

    def found(self, wanted: dict[str, str]) -> tuple[tuple[Any, ...], Pieces]:
        limit = number(wanted.get("limit", str(JOBS)), f"limit is a number from 1 to {MOST_JOBS}", MOST_JOBS)
        host, address = wanted.get("host", ""), wanted.get("address", "")
        return ("jobs", limit, host, address), lambda: self._pieces(limit, host, address)

    def _pieces(self, limit: int, host: str, address: str) -> Iterator[bytes]:
        jobs, epoch, now = self.reporter.ended(limit, host=host, address=address), self.reporter.epoch, self.reporter.now
        return listed(head_of(now + epoch), "jobs", each_job(jobs, epoch, now), 1)

    def getChild(self, path: bytes, request: Request) -> IResource:
        return OneJob(self.reporter, self._answers, path)


class OneJob(Report):
    """One job, running or ended, with nothing around it, and with all the hosts that were passed over."""

    def __init__(self, reporter: Reporter, answers: Answers, path: bytes) -> None:
        super().__init__(reporter, answers)
        self._path = path

    def found(self, wanted: dict[str, str]) -> tuple[tuple[Any, ...], Pieces]:
        job = number(decoded(self._path, "The job's number"), "A job has a number", 2**63)
        return ("job", job), lambda: self._pieces(job)

    def _pieces(self, number: int) -> Iterator[bytes]:
        job: JobReport | None = self.reporter.job(number)
        if job is None:
            raise ProblemError(404, f"Nothing is known of a job {number}, or nothing any more.")
        yield encode(job)


def number(word: str, what: str, most: int) -> int:
    """:raises ProblemError: it is none from 1 to so many."""
    if not (word.isascii() and word.isdigit() and len(word) <= 20 and 1 <= int(word) <= most):
        raise ProblemError(400, f"{what}, not {word[:40]!a}.")
    return int(word)


def head_of(at: float) -> dict[str, Any]:
    """What a list begins with."""
    return {"version": VERSION, "at": round(at, 3)}


class Schema(Resource):
    """A schema, which never changes while this version runs."""

    isLeaf = True

    def __init__(self, schema: dict[str, Any]) -> None:
        super().__init__()
        self._body = json.dumps(schema, indent=1).encode() + b"\n"

    def render_GET(self, request: Request) -> bytes | int:
        request.setHeader(b"Content-Type", b"application/schema+json")
        request.setHeader(b"Cache-Control", b"max-age=3600")
        return send(request, self._body)
