"""What the page's answers have beside those of programs: a policy that lets in our own script and style, and compression."""

from __future__ import annotations

import zlib

from twisted.web.server import Request

#: nothing is loaded from anywhere but here, and no script is run but ours; a data: image is the page's icon
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


def guard(request: Request) -> None:
    """Keep a browser from doing more with the answer than was meant."""
    request.setHeader(b"content-security-policy", POLICY)


def takes_gzip(request: Request) -> bool:
    """Whether it may be answered with gzip (RFC 9110, 12.5.3), as every browser may."""
    for header in request.requestHeaders.getRawHeaders(b"accept-encoding", []):
        for offer in header.split(b","):
            coding, _, weight = offer.partition(b";")
            if coding.strip().lower() == b"gzip":
                return weight.replace(b" ", b"").lower() not in (b"q=0", b"q=0.0", b"q=0.00", b"q=0.000")
    return False


def gzip(content: bytes) -> bytes:
    """Compressed, and the same bytes for the same content (gzip.compress would note the time)."""
    compressor = zlib.compressobj(5, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    return compressor.compress(content) + compressor.flush()
