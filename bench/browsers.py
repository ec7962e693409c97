"""Those who read the web port: a process of its own, with the page's events open so many times, and metrics scraped.

It is told what to do as generator.py is, and reads on between the lines:

- ``{"do": "open", "port": P, "events": "/events", "count": N, "metrics": "/metrics", "every": S}``: N connections ask for the
  events and stay; metrics are asked for every S seconds, by a connection each. The answer comes when all of them have one, and
  has the ``status`` that the events and the ``metrics`` came with. Events that are not there (404) are not asked for again.
- ``{"do": "close"}``: all of them leave. The answer has the ``least`` bytes that one of the events' readers got after its first
  ones, how many ``scrapes`` were whole, and the ``slowest`` of them in seconds.
"""

from __future__ import annotations

import selectors
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any, cast

from bench.generator import STUCK, obey

#: what a whole scrape has in it
WHOLE = b"distbal_grants_total"


class Browser:
    """One connection, which asked for something.

    :ivar status: HTTP's, of the answer; 0 before there is one.
    :ivar later: bytes that came after the first ones.
    """

    def __init__(self, port: int, path: str, *, keep: bool) -> None:
        self.began = time.monotonic()
        self.sock = socket.create_connection(("127.0.0.1", port), STUCK)
        self.sock.sendall(
            f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: {'keep-alive' if keep else 'close'}\r\n\r\n".encode()
        )
        self.sock.setblocking(False)
        self.status = self.later = 0
        self._keep = keep
        self.heard = b""

    def read(self) -> bool:
        """Read what there is; whether there will be more."""
        data = self.sock.recv(1 << 18)
        if not data:
            return False
        if self.status:
            self.later += len(data)
        if not self.status or not self._keep:
            self.heard += data
        if not self.status and b"\r\n" in self.heard:
            self.status = int(self.heard.split()[1])
        return True


class Browsers:
    """All of them."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._selector.register(sys.stdin, selectors.EVENT_READ)
        self._readers: list[Browser] = []
        self._scraper: Browser | None = None
        self._port, self._metrics, self._every, self._due = 0, "", 0.0, 0.0
        self._scrapes: list[float] = []
        self._status = 0

    def orders(self) -> Iterator[str]:
        """The lines of the standard input, one at a time; what comes meanwhile is read."""
        while line := sys.stdin.readline():
            yield line
            while not self._turn():
                pass

    def open(self, port: int, events: str, count: int, metrics: str, every: float) -> dict[str, Any]:
        self._port, self._metrics, self._every, self._due = port, metrics, every, time.monotonic()
        self._scrapes, self._status = [], 0
        for _ in range(count):
            self._readers.append(self._browse(events, keep=True))
            self._until(lambda: self._readers[-1].status != 0)
            if self._readers[-1].status != 200:
                break
        status = self._readers[-1].status if self._readers else 0
        if status != 200:
            for reader in self._readers:
                self._leave(reader)
            self._readers = []
        self._until(lambda: self._status != 0)
        return {"status": status, "metrics": self._status}

    def close(self) -> dict[str, Any]:
        answer = {
            "least": min((reader.later for reader in self._readers), default=0),
            "scrapes": len(self._scrapes),
            "slowest": max(self._scrapes, default=0.0),
        }
        for reader in self._readers:
            self._leave(reader)
        if self._scraper is not None:
            self._leave(self._scraper)
        self._readers, self._scraper, self._metrics = [], None, ""
        return answer

    def _browse(self, path: str, *, keep: bool) -> Browser:
        browser = Browser(self._port, path, keep=keep)
        self._selector.register(browser.sock, selectors.EVENT_READ, browser)
        return browser

    def _leave(self, browser: Browser) -> None:
        if browser.sock.fileno() >= 0:
            self._selector.unregister(browser.sock)
            browser.sock.close()

    def _until(self, holds: Any) -> None:
        end = time.monotonic() + STUCK
        while not holds():
            if time.monotonic() > end:
                raise ValueError(f"the web port did not answer within {STUCK:.0f} s")
            self._turn(0.05)

    def _turn(self, most: float = 60.0) -> bool:
        """Wait for what comes next, and read it; whether there is an order."""
        now = time.monotonic()
        if self._metrics and self._scraper is None and now >= self._due:
            self._scraper = self._browse(self._metrics, keep=False)
            self._due = max(self._due + self._every, now)
        wait = min(most, max(0.0, self._due - now)) if self._metrics and self._scraper is None else most
        ordered = False
        for key, _ in self._selector.select(wait):
            if key.data is None:
                ordered = True
            elif not key.data.read():
                self._leave(key.data)
                if key.data is self._scraper:
                    self._scraper = None
                    self._scraped(cast("Browser", key.data))
        return ordered

    def _scraped(self, scraper: Browser) -> None:
        self._status = scraper.status
        if scraper.status == 200 and WHOLE in scraper.heard:
            self._scrapes.append(time.monotonic() - scraper.began)


if __name__ == "__main__":
    browsers = Browsers()
    obey(browsers, browsers.orders())
