"""The verbs as functions of the shell, made of the table: ``down('newbb:3632', 'fan broken')``, ``rank('x', before='alpha')``.

What they return is the answer, as the command line's ``--json`` has it, and shows itself as the table that people get.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from twisted.python.failure import Failure

from distbal import verbs
from distbal.manhole.interpreter import explained
from distbal.verbs import Verb, VerbError

#: words that stand before what they are about; ``with`` is Python's own
_BEFORE_VALUES = ("before", "with", "after", "pools", "address")
#: in a usage: what is to be replaced, and what is said as it stands
_PLACES, _LITERALS = re.compile(r"(?:^| )\[?([A-Z]+)"), re.compile(r"[a-z]+")


class Answer(dict[str, Any]):
    """What a verb answered: a dictionary, which shows itself as text."""

    def __init__(self, answer: Mapping[str, Any], show: Callable[[Mapping[str, Any]], str]) -> None:
        super().__init__(answer)
        self._show = show

    @property
    def answer(self) -> dict[str, Any]:
        """The same, as a dictionary that shows itself as one."""
        return dict(self)

    def __repr__(self) -> str:
        return self._show(self).rstrip("\n")


class Pending:
    """What a verb will answer.

    :ivar answer: the answer, None before it is there; ``error``: why there will be none.
    :ivar tell: shows text, once it is there.
    """

    def __init__(self, verb: Verb) -> None:
        self.answer: Answer | None = None
        self.error: BaseException | None = None
        self.tell: Callable[[str], None] | None = None
        self._shown = f"{verb.name}: its answer is shown when it is there"

    def __repr__(self) -> str:
        return self._shown

    def answered(self, answer: Answer) -> None:
        """It is there."""
        self.answer = answer
        self._show(repr(answer))

    def failed(self, failure: Failure) -> None:
        """It could not be done."""
        self.error = failure.value
        self._show(explained(failure))

    def _show(self, text: str) -> None:
        self._shown = text
        if self.tell is not None:
            self.tell(text)


class VerbCall:
    """A verb as a function.

    :param do: does a verb by its words.
    """

    def __init__(self, verb: Verb, do: Callable[[list[str]], Answer | Pending]) -> None:
        self._verb = verb
        self._do = do
        self.__name__ = verb.name
        self.__doc__ = help_text(verb)

    def __call__(self, *arguments: Any, **named: Any) -> Answer | Pending:
        return self._do(words(self._verb, arguments, named))

    def __repr__(self) -> str:
        return f"{self.__doc__}\n({self.__name__}() calls it)"


def words(verb: Verb, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> list[str]:
    """The words of a call.

    A host or a job of an answer stands for its name or number. ``True`` says the word alone (``now=True``), and a list is one
    word with commas. Capitals of the usage may be named, too (``why='...'``).
    """
    found = [verb.name, *map(_word, arguments)]
    places = [place.lower() for place in _PLACES.findall(verb.usage)]
    literal = _LITERALS.findall(verb.usage)
    for name, value in named.items():
        name = name.removesuffix("_")  # noqa: PLW2901
        if value is None or value is False:
            continue
        if name in literal:
            found.append(name)
            if value is not True:
                found.append(_word(value))
        elif name in places and places.index(name) == len(found) - 1:
            found.append(_word(value))
        else:
            raise VerbError(f"{name}= means nothing here: {call_usage(verb)}")
    return found


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        value = value.get("id", value.get("name", value))
    if isinstance(value, list | tuple | set):
        return ",".join(map(str, value))
    return "none" if value is None else str(value)


def call_usage(verb: Verb) -> str:
    """How it is said, and an example of the call."""
    return f"{verbs.usage(verb)}; for example {example(verb)}"


def example(verb: Verb) -> str:
    """A call of it, in Python."""
    arguments: list[str] = []
    rest = shlex.split(verb.example)
    while rest:
        word, *rest = rest
        if word in _BEFORE_VALUES and rest:
            value, *rest = rest
            arguments.append(f"{word}{'_' if word == 'with' else ''}={value!r}")
        elif word.replace(".", "", 1).isdigit() and word.count(".") < 2:
            arguments.append(word)
        else:
            arguments.append(repr(word))
    return f"{verb.name}({', '.join(arguments)})"


def help_text(verb: Verb) -> str:
    """All that is to be said of it."""
    return "\n".join(line for line in (verbs.usage(verb), verb.help, verb.more, f"for example: {example(verb)}") if line)


def help_list() -> str:
    """Every verb, with an example."""
    examples = [(example(verb), verb.help) for verb in verbs.VERBS.values()]
    size = min(44, max(len(call) for call, _ in examples))
    return "\n".join(
        f"{call:{size}}  {text}" if len(call) <= size else f"{call}\n{'':{size}}  {text}" for call, text in examples
    )
