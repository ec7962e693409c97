"""One verb over SSH, for scripts: ``ssh -p 5660 admin@balancer drain newbb:3632 'fan broken'``. It is never taken for Python.

What it answers goes to standard output, what went wrong to standard error, and the exit status says which: 0 done, 1 could not
be done, 2 was not said as it should be.
"""

from __future__ import annotations

import json
import shlex
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from distbal import tables, verbs
from distbal.admin import Admin
from distbal.bugs import bugs
from distbal.logs import Logger
from distbal.manhole.session import Session
from distbal.spells import is_long
from distbal.verbs import Call, VerbError

DONE, CANNOT, WRONG = 0, 1, 2
#: characters of a command
MOST_COMMAND = 8192
#: asks for the answer as JSON, anywhere among the words
JSON = "--json"


class Command:
    """A command that runs; it has no use for what is typed."""

    log = Logger()

    def __init__(self, admin: Admin, session: Session, text: str) -> None:
        self._session = session
        #: what nobody has any use for when the client has left
        self._telling: Deferred[dict[str, Any]] | None = None
        if len(text) > MOST_COMMAND:
            self._fail(f"a command has at most {MOST_COMMAND} characters", WRONG)
            return
        try:
            words = shlex.split(text)
        except ValueError as error:
            self._fail(f"{error}: {text}", WRONG)
            return
        as_json = JSON in words
        words = [word for word in words if word != JSON]
        if words[:1] == ["help"]:
            self._help(words[1:])
            return
        try:
            call = verbs.parse(words)
        except VerbError as error:
            self._fail(str(error), WRONG)
            return
        done = admin.carry_out(call, session.transport.who)
        if not call.changes:
            self._telling = done
        done.addCallback(self._show, call, as_json).addErrback(self._failed, call)

    def _show(self, answer: dict[str, Any], call: Call, as_json: bool) -> Deferred[None]:
        pty = self._session.pty
        width, colour = (None, False) if pty is None else (pty.width, pty.colour)

        def text() -> str:
            if as_json:
                return json.dumps(answer, indent=2, ensure_ascii=False) + "\n"
            return tables.render(call.verb, answer, width=width, colour=colour)

        # of thousands of hosts, the text takes longer than jobs should wait
        made = deferToThread(text) if is_long(answer) else maybeDeferred(text)
        return made.addCallback(self._say, answer, as_json)

    def _say(self, text: str, answer: dict[str, Any], as_json: bool) -> None:
        self._session.say(text)
        if not as_json and (doubts := tables.warnings(answer)):
            self._session.say_error(doubts)
        self._session.end(DONE)

    def _help(self, words: list[str]) -> None:
        try:
            text = help_on(words)
        except VerbError as error:
            self._fail(str(error), WRONG)
        else:
            self._session.say(text)
            self._session.end(DONE)

    def _failed(self, failure: Failure, call: Call) -> None:
        if isinstance(failure.value, CancelledError):
            # there is nobody whom to tell
            return
        if isinstance(failure.value, VerbError):
            self._fail(failure.getErrorMessage(), CANNOT)
        else:
            bugs.met("command", self.log, "a bug: {call} could not be done", failure, call=str(call))
            self._fail(f"{call.verb.name} met a bug of distbal's, which is in its log", CANNOT)

    def _fail(self, sentence: str, status: int) -> None:
        self._session.say_error(sentence + "\n")
        self._session.end(status)

    # -- Program

    def received(self, data: bytes) -> None:
        """Nothing is read."""

    def no_more(self) -> None:
        """Nothing was to be."""

    def resized(self) -> None:
        """What is shown is shown once."""

    def go_on(self) -> None:
        """The rest is sent by itself."""

    def gone(self) -> None:
        """What was begun is done all the same, if it changes anything."""
        if self._telling is not None:
            self._telling.cancel()


def help_on(words: list[str]) -> str:
    """All verbs, or one of them."""
    if words:
        if words[0] not in verbs.VERBS:
            verbs.parse(words[:1])
        verb = verbs.VERBS[words[0]]
        example = f"for example: {verb.name} {verb.example}".rstrip()
        return "".join(f"{line}\n" for line in (verbs.usage(verb), verb.help, verb.more, example) if line)
    listed = [(verbs.usage(verb), verb.help) for verb in verbs.VERBS.values()]
    rows = [f"{usage}\n    {text}" for usage, text in listed]
    return "\n".join([*rows, "", f"{JSON} prints an answer as JSON; help VERB says more, and has an example", ""])
