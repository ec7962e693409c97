"""What the web port's answers are made of: text, what is not there, and answers that may take long."""

from __future__ import annotations

from io import BytesIO
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.protocols.basic import FileSender
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request

from distbal.briefports import READING_TIME
from distbal.web.making import Answers, Pieces

#: bytes of an answer that are sent as they are; longer ones go as they are read
AT_ONCE = 65536

TEXT = b"text/plain; charset=utf-8"
JSON = b"application/json"


class ProblemError(Exception):
    """A request that cannot be answered; the text says why.

    :ivar status: HTTP's.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def text(request: Request, status: int, sentence: str) -> bytes:
    """An answer in plain words."""
    request.setResponseCode(status)
    request.setHeader(b"Content-Type", TEXT)
    return f"{sentence}\n".encode()


class Tree(Resource):
    """A place that has others below it, and nothing of its own."""

    def getChild(self, path: bytes, request: Request) -> IResource:
        return Nowhere()

    def render_GET(self, request: Request) -> bytes:
        return Nowhere().render_GET(request)


class Nowhere(Resource):
    """What is asked for is not there."""

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        return text(request, 404, "There is nothing here. The status page is at /, JSON for programs at /api/v1/status.")


class Made(Resource):
    """An answer that is made when it is asked for, and may take long.

    Needs :meth:`pieces`.
    """

    isLeaf = True

    def __init__(self, answers: Answers) -> None:
        super().__init__()
        self._answers = answers

    def pieces(self, request: Request) -> tuple[tuple[Any, ...], Pieces]:
        """What tells the answer from all others of the site, and how it is made. Sets the headers.

        :raises ProblemError: what is asked for is not to be had; the pieces may raise it too.
        """
        raise NotImplementedError

    def problem(self, request: Request, error: ProblemError) -> bytes:
        """What is said then."""
        return text(request, error.status, str(error))

    def render_GET(self, request: Request) -> bytes | int:
        try:
            made = self._answers.get(*self.pieces(request))
        except ProblemError as error:
            return self.problem(request, error)
        if isinstance(made, bytes):
            return send(request, made)
        request.notifyFinish().addErrback(lambda _: made.cancel())
        made.addErrback(self._failed, request).addCallback(_deliver, request).addErrback(_undelivered, request)
        return NOT_DONE_YET

    def _failed(self, failure: Failure, request: Request) -> bytes:
        failure.trap(ProblemError)
        return self.problem(request, cast("ProblemError", failure.value))


def _deliver(body: bytes, request: Request) -> None:
    sent = send(request, body)
    if sent is not NOT_DONE_YET:
        request.setHeader(b"Content-Length", b"%d" % len(body))
        request.write(body)
        request.finish()


def _undelivered(failure: Failure, request: Request) -> None:
    """The client has left, or a bug was met."""
    if not failure.check(CancelledError):
        request.processingFailed(failure)


def send(request: Request, body: bytes) -> bytes | int:
    """Answer with this: a long one goes as it is read, so that many slow readers of one answer have it once in memory.

    :returns: what ``render_GET`` is to return.
    """
    if len(body) <= AT_ONCE or request.method == b"HEAD":
        return body
    request.setHeader(b"Content-Length", b"%d" % len(body))
    cast("Any", request.channel).hurry(READING_TIME)
    sent: Deferred[bytes] = FileSender().beginFileTransfer(BytesIO(body), request)
    # it fails when the client leaves, and then there is nobody to tell
    sent.addCallbacks(lambda _: request.finish(), lambda _: None)
    return NOT_DONE_YET
