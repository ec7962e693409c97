"""The Python shell over SSH, in which the verbs are functions and the live objects are there.

A statement runs in the reactor: one that blocks, blocks the balancer, and no verb does. What it prints goes to whoever typed
it, up to a bound; what it raises is shown there, and harms nothing. Every session has names of its own.
"""

from __future__ import annotations

import builtins
import codecs
import platform
import pydoc
import socket
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred

from distbal import __version__, tables, verbs
from distbal.admin import Admin
from distbal.errors import DistbalError
from distbal.manhole import verbcalls
from distbal.manhole.completion import completions
from distbal.manhole.feed import Feed
from distbal.manhole.interpreter import MOST_PRINTED, MOST_SOURCE, Interpreter
from distbal.manhole.session import Session
from distbal.manhole.terminal import Terminal
from distbal.manhole.verbcalls import Answer, Pending, VerbCall

INTERRUPT = b"\x03"


class Shell:
    """A session's shell, as far as it does not matter how it is typed to."""

    def __init__(self, admin: Admin, session: Session, live: Mapping[str, object]) -> None:
        self._admin = admin
        self._session = session
        self._who = session.transport.who
        #: the exit status, when it is to end; and whether it has ended
        self._status: int | None = None
        self._over = False
        #: answers that are waited for
        self._waiting = 0
        own = self._own_names()
        self._live = sorted(set(live) - set(own))
        self.names = {**live, **own}
        self._feed = Feed(session, self._take, self._typed_all)
        self._interpreter = Interpreter(self.names, self._tell, self._end)

    def received(self, data: bytes) -> None:
        """Something was typed."""
        if not self._over:
            self._feed.add(data)

    def resized(self) -> None:
        """The terminal has another size."""

    def go_on(self) -> None:
        """Something was sent of what had to wait."""
        self._feed.go_on()

    def no_more(self) -> None:
        """Nothing more will be typed."""
        if not self._over:
            self._feed.end()

    def gone(self) -> None:
        """Nobody is there any more."""
        self._over = True
        self._feed.stop()

    def _take(self, line: bytes) -> None:
        """A line was typed, or a part of one."""
        raise NotImplementedError

    def _typed_all(self) -> None:
        """That was the last of them."""
        raise NotImplementedError

    def _tell(self, text: str) -> None:
        """Show text while no statement runs."""
        raise NotImplementedError

    def _end(self, status: int) -> None:
        """It ends, when what the statement printed is shown."""
        self._status = status

    def _leave(self) -> None:
        """It ends now."""
        if not self._over:
            self._over = True
            self._feed.stop()
            self._session.end(self._status or 0)

    def _answered(self, text: str) -> None:
        """An answer has come that was waited for; "": there is nothing to tell."""
        self._waiting -= 1
        if text:
            self._tell(text)

    def _own_names(self) -> dict[str, Any]:
        return {
            "__name__": "__console__",
            "__builtins__": builtins,
            "help": Help(self._help),
            "exit": Leave(),
            "quit": Leave(),
            "input": _refusal("input"),
            "breakpoint": _refusal("breakpoint"),
            **{verb.name: VerbCall(verb, self._do) for verb in verbs.VERBS.values()},
        }

    def _do(self, said: list[str]) -> Answer | Pending:
        call = verbs.parse(said)
        answer = self._admin.do(call, self._who)

        def made(answer: Mapping[str, Any]) -> Answer:
            return Answer(answer, lambda one: self._table(call.verb, one))

        if not isinstance(answer, Deferred):
            if call.changes:
                self._warn_unless_kept()
            return made(answer)
        pending = Pending(call.verb)
        answer.addCallback(made).addCallbacks(pending.answered, pending.failed)
        if pending.error is not None:
            raise pending.error
        if pending.answer is not None:
            return pending.answer
        self._waiting += 1
        pending.tell = self._answered
        return pending

    def _warn_unless_kept(self) -> None:
        """Say so when the change just made could not be kept: now, where that is known, or else then."""
        running, fired = True, False

        def looked(doubt: str) -> None:
            nonlocal fired
            fired = True
            text = f"warning: {doubt}" if doubt else ""
            if not running:
                self._answered(text)
            elif text:
                print(text)  # noqa: T201 (it goes to the session)

        self._admin.kept().addCallback(looked)
        running = False
        if not fired:
            self._waiting += 1

    def _table(self, verb: verbs.Verb, answer: Mapping[str, Any]) -> str:
        pty = self._session.pty
        width, colour = (None, False) if pty is None else (pty.width, pty.colour)
        return tables.render(verb, answer, width=width, colour=colour) + tables.warnings(answer)

    def _help(self, *about: object) -> None:
        if not about:
            text = verbcalls.help_list(None if self._session.pty is None else self._session.pty.width)
            if self._live:
                text += f"\n\nThe live objects: {', '.join(self._live)}. help(drain) says more of one verb."
        elif isinstance(about[0], VerbCall):
            text = about[0].__doc__ or ""
        elif isinstance(about[0], str) and about[0] in verbs.VERBS:
            text = verbcalls.help_text(verbs.VERBS[about[0]])
        else:
            text = pydoc.plain(pydoc.render_doc(about[0], "%s:"))
        print(text)  # noqa: T201 (it goes to the session)


class TypedShell(Shell):
    """A shell for somebody at a terminal: a Program of :mod:`distbal.manhole.session`, and its terminal's user."""

    def __init__(self, admin: Admin, session: Session, live: Mapping[str, object]) -> None:
        super().__init__(admin, session, live)
        pty = session.pty
        if pty is None:
            raise ValueError("there is no terminal")
        self._terminal = Terminal(self, pty, session.say)
        self._terminal.above(banner(str(self._who)))
        self._terminal.begin()

    # -- Program

    def received(self, data: bytes) -> None:
        _, interrupt, behind = data.rpartition(INTERRUPT)
        if interrupt:
            # as a terminal has it: what was typed before, and has not been taken yet, is gone
            self._feed.interrupt()
        super().received(interrupt + behind if interrupt else data)

    def resized(self) -> None:
        self._terminal.resized()

    def gone(self) -> None:
        super().gone()
        self._terminal.stop()

    # -- the terminal's user

    def line(self, text: str) -> bool:
        """A line is there; whether more of them make a statement."""
        more, printed = self._interpreter.push(text)
        self._terminal.above(printed)
        if self._status is not None or not self._session.is_open:
            self.left()
        return more

    def cancelled(self) -> None:
        """Ctrl-C."""
        self._interpreter.reset()

    def left(self) -> None:
        """Ctrl-D, or a statement that ends the session."""
        self._terminal.stop()
        self._leave()

    def completions(self, text: str) -> tuple[int, list[str]]:
        """Tab."""
        return completions(text, self.names, self._admin.overlay.names)

    # -- the inside

    def _take(self, line: bytes) -> None:
        self._terminal.received(line)

    def _typed_all(self) -> None:
        self._leave()

    def _tell(self, text: str) -> None:
        if not self._over:
            self._terminal.between(text[:MOST_PRINTED])


class PipedShell(Shell):
    """A shell for a program, or a file: no prompt, no banner, and lines as they come."""

    def __init__(self, admin: Admin, session: Session, live: Mapping[str, object]) -> None:
        super().__init__(admin, session, live)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def _take(self, line: bytes) -> None:
        self._rest += self._decoder.decode(line)
        if self._rest.endswith("\n"):
            text, self._rest = self._rest.rstrip("\r\n"), ""
            self._line(text)
        elif len(self._rest) > MOST_SOURCE:
            self._tell(f"a line has at most {MOST_SOURCE} characters")
            self._end(1)
            self._leave()

    def _typed_all(self) -> None:
        # a last line without a newline, and the end of a block
        for line in (self._rest, ""):
            self._line(line)
        if self._status is None:
            self._end(0)
        # what is waited for is shown before it ends
        if not self._waiting:
            self._leave()

    def _line(self, line: str) -> None:
        if not self._over:
            _, printed = self._interpreter.push(line)
            self._session.say(printed)
            if self._status is not None:
                self._leave()

    def _tell(self, text: str) -> None:
        if not self._over:
            self._session.say(text[:MOST_PRINTED] + "\n")

    def _answered(self, text: str) -> None:
        super()._answered(text)
        if self._status is not None and not self._waiting:
            self._leave()


def start_shell(admin: Admin, session: Session, live: Mapping[str, object]) -> TypedShell | PipedShell:
    """A shell, by whether there is a terminal."""
    return (PipedShell if session.pty is None else TypedShell)(admin, session, live)


def banner(who: str) -> str:
    """What somebody sees first."""
    return (
        f"distbal {__version__} on {socket.gethostname()}, Python {platform.python_version()}; you are {who}\n"
        "A statement that blocks, blocks the balancer; no verb does.\n"
        "help() lists the verbs, Tab completes, Ctrl-D ends.\n"
    )


class Help:
    """``help()``, and ``help`` alone."""

    def __init__(self, show: Callable[..., None]) -> None:
        self._show = show

    def __call__(self, *about: object) -> None:
        self._show(*about)

    def __repr__(self) -> str:
        return "help() lists the verbs; help(drain) says more of one"


class Leave:
    """``exit()``: ends the session, and nothing else. Python's own would close the daemon's standard input."""

    def __call__(self, status: object = None) -> None:
        raise SystemExit(status)

    def __repr__(self) -> str:
        return "exit() or Ctrl-D ends the session"


def _refusal(name: str) -> Callable[..., None]:
    def refuse(*_: object) -> None:
        raise DistbalError(f"{name}() would wait, and the balancer with it")

    refuse.__name__ = name
    return refuse
