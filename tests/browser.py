"""A real browser: Debian's Chromium without a window, driven by its own DevTools protocol over a pipe, in the tests' reactor.

The protocol (chromedevtools.github.io/devtools-protocol) is JSON, each message ended by a zero byte: commands go to the
browser's descriptor 3 and answers and events come from its 4 (``--remote-debugging-pipe``). So there is no port, no driver and
no thread, and nothing waits for a while: whatever is awaited is asked for until it holds.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

#: seconds in which whatever is awaited has come, or never will
PATIENCE = 60.0
#: root cannot have Chromium's sandbox, nor can others in most containers; what it is shown here is ours
FLAGS = (
    "--no-sandbox",
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-sync",
    "--hide-scrollbars",
    "--mute-audio",
    "--password-store=basic",
)


class Browser(ProcessProtocol):
    """The process. :meth:`tab` opens a page of its own."""

    transport: IProcessTransport

    def __init__(self) -> None:
        self._number = 0
        self._answers: dict[int, Deferred[Any]] = {}
        self._buffer = bytearray()
        self._tabs: dict[str, Tab] = {}
        self.ended: Deferred[None] = Deferred()
        self.complaints = b""

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD != 4:
            self.complaints = (self.complaints + data)[-10_000:]
            return
        self._buffer += data
        *messages, rest = self._buffer.split(b"\0")
        self._buffer = bytearray(rest)
        for message in messages:
            self._heard(json.loads(message))

    def _heard(self, message: dict[str, Any]) -> None:
        if "id" in message:
            answer = self._answers.pop(message["id"])
            if "error" in message:
                answer.errback(RuntimeError(message["error"]["message"]))
            else:
                answer.callback(message["result"])
        elif (tab := self._tabs.get(message.get("sessionId", ""))) is not None:
            tab.heard(message["method"], message["params"])

    def processEnded(self, reason: Failure) -> None:
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            answer.errback(RuntimeError(f"the browser ended: {self.complaints.decode(errors='replace')}"))
        self.ended.callback(None)

    async def ask(self, method: str, session: str = "", **params: Any) -> Any:
        """Have the browser do something, and wait until it has."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        answer: Deferred[Any] = Deferred()
        self._answers[self._number] = answer
        self.transport.writeToChild(3, json.dumps(message).encode() + b"\0")
        return await answer.addTimeout(PATIENCE, reactor)

    async def tab(self, url: str, **view: Any) -> Tab:
        """A page with nothing of another one's: neither cache nor memory. It is open when this returns.

        :param view: see :meth:`Tab.look`; and ``script=False``.
        """
        context = (await self.ask("Target.createBrowserContext"))["browserContextId"]
        target = (await self.ask("Target.createTarget", url="about:blank", browserContextId=context))["targetId"]
        session = (await self.ask("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        tab = self._tabs[session] = Tab(self, session, context)
        for domain in ("Page", "Runtime", "Log", "Network"):
            await tab.ask(f"{domain}.enable")
        if not view.pop("script", True):
            await tab.ask("Emulation.setScriptExecutionDisabled", value=True)
        await tab.look(**view)
        await tab.go(url)
        return tab


class Tab:
    """One page.

    :ivar troubles: what its console was told of, exceptions included: warnings and worse.
    :ivar requests: the URLs that it asked for.
    """

    def __init__(self, browser: Browser, session: str, context: str) -> None:
        self._browser = browser
        self._session = session
        self._context = context
        self.troubles: list[str] = []
        self.requests: list[str] = []
        self.loads = 0

    def heard(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.troubles.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.troubles.append(f"{params['type']}: {params['args']}")
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.troubles.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Page.loadEventFired":
            self.loads += 1

    async def ask(self, method: str, **params: Any) -> Any:
        return await self._browser.ask(method, self._session, **params)

    async def go(self, url: str) -> None:
        loads = self.loads
        await self.ask("Page.navigate", url=url)
        await self.until_(lambda: self.loads > loads, f"{url} to be loaded")

    async def look(self, width: int = 1280, height: int = 900, *, dark: bool = False, scale: float = 1) -> None:
        """The size of its window in CSS pixels, and the theme that its user likes."""
        await self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=width < 500
        )
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.ask("Emulation.setEmulatedMedia", features=[theme])

    async def js(self, expression: str) -> Any:
        """The value of an expression of JavaScript there; what it promises, where it is a promise."""
        done = await self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until an expression of JavaScript holds there."""
        deadline = time.monotonic() + PATIENCE
        while not await self.js(f"Boolean({expression})"):
            assert time.monotonic() < deadline, f"{expression} did not come about: {self.troubles}"
            await deferLater(reactor, 0.02)

    async def until_(self, holds: Any, what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, f"waited in vain for {what}: {self.troubles}"
            await deferLater(reactor, 0.01)

    async def text(self, selector: str) -> str:
        """What is to be read there."""
        return str(await self.js(f"document.querySelector({json.dumps(selector)}).innerText"))

    async def press(self, key: str, text: str = "") -> None:
        """A key, down and up.

        :param text: what it enters.
        """
        entered = {"text": text} if text else {}
        await self.ask("Input.dispatchKeyEvent", type="keyDown", key=key, **entered)
        await self.ask("Input.dispatchKeyEvent", type="keyUp", key=key)

    async def type(self, selector: str, text: str) -> None:
        """Enter text into a field, as a person does."""
        await self.js(f"document.querySelector({json.dumps(selector)}).focus()")
        await self.ask("Input.insertText", text=text)

    async def picture(self, *, whole: bool = True) -> bytes:
        """What it looks like, as PNG.

        :param whole: all of it, not only what fits the window.
        """
        done = await self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(done["data"])

    async def close(self) -> None:
        await self._browser.ask("Target.disposeBrowserContext", browserContextId=self._context)


async def start() -> Browser:
    """A browser that has started."""
    program = shutil.which("chromium")
    assert program is not None
    home = tempfile.mkdtemp(prefix="chromium-")
    browser = Browser()
    flags = [*FLAGS, f"--user-data-dir={home}"]
    reactor.spawnProcess(
        browser,
        program,
        ["chromium", *flags],
        env={**os.environ, "HOME": home, "DBUS_SESSION_BUS_ADDRESS": "disabled:"},
        childFDs={1: "r", 2: "r", 3: "w", 4: "r"},
    )
    browser.ended.addCallback(lambda _: shutil.rmtree(home, ignore_errors=True))
    await browser.ask("Browser.getVersion")
    return browser


async def stop(browser: Browser) -> None:
    """End it, and wait until it has ended."""
    if not browser.ended.called:
        await browser.ask("Browser.close")
    await browser.ended.addTimeout(PATIENCE, reactor)


@asynccontextmanager
async def a_browser() -> AsyncIterator[Browser]:
    """A browser while the block runs."""
    browser = await start()
    try:
        yield browser
    finally:
        await stop(browser)
