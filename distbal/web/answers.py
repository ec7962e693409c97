"""What every answer of the page has: headers that keep a browser from doing more with it than was meant.

Twisted's own answers to what is not there, and to other methods than these, are HTML that repeats what was asked for; so they
are not used.
"""

from __future__ import annotations

from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import Request

#: nothing is loaded from anywhere but here, and no script is run but ours; a data: image is the page's icon
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


def guard(request: Request) -> None:
    """Set the headers."""
    request.setHeader(b"content-security-policy", POLICY)
    request.setHeader(b"x-content-type-options", b"nosniff")
    request.setHeader(b"referrer-policy", b"no-referrer")
    request.setHeader(b"cross-origin-resource-policy", b"same-origin")


def answer_text(request: Request, code: int, sentence: str) -> bytes:
    """A sentence as the answer."""
    request.setResponseCode(code)
    request.setHeader(b"content-type", b"text/plain; charset=utf-8")
    return sentence.encode() + b"\n"


def takes_gzip(request: Request) -> bool:
    """Whether it may be answered with gzip (RFC 9110, 12.5.3), as every browser may."""
    for header in request.requestHeaders.getRawHeaders(b"accept-encoding", []):
        for offer in header.split(b","):
            coding, _, weight = offer.partition(b";")
            if coding.strip().lower() == b"gzip":
                return weight.replace(b" ", b"").lower() not in (b"q=0", b"q=0.0", b"q=0.00", b"q=0.000")
    return False


class ReadOnly(Resource):
    """Something that can be read, and nothing else."""

    def render(self, request: Request) -> bytes | int:
        if request.method in (b"GET", b"HEAD"):
            answer: bytes | int = super().render(request)
            return answer
        guard(request)
        request.setHeader(b"allow", b"GET, HEAD")
        return answer_text(request, http.NOT_ALLOWED, "This can only be read: GET or HEAD.")


class Absent(ReadOnly):
    """What is not there, and nothing below it either."""

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        guard(request)
        return answer_text(request, http.NOT_FOUND, "Nothing is here.")


class Root(ReadOnly):
    """A site's root, or a directory of it: has its children, and nothing else."""

    def getChild(self, path: bytes, request: Request) -> Resource:
        return Absent()

    def render_GET(self, request: Request) -> bytes:
        return Absent().render_GET(request)
