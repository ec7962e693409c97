"""The schema of what ``/api/v1`` answers, and the tables of docs/api.md: both made of the types in report.py.

Pydantic would make the schema too, but not of ``typing.TypedDict`` before Python 3.12; and report.py is read where no library
is.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NotRequired

from distbal import report

#: what the answers are, by the last part of their address
ANSWERS: dict[str, Any] = {
    "status": report.StatusReport,
    "hosts": report.HostsReport,
    "jobs": report.JobsReport,
}
_SIMPLE: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of one answer; KeyError when there is none of that name."""
    found: dict[str, Any] = {}
    whole = _of(ANSWERS[name], found)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"distbal /api/v{report.VERSION}/{name}",
        **whole,
        "$defs": dict(sorted(found.items())),
    }


def _of(kind: Any, found: dict[str, Any]) -> dict[str, Any]:
    """The schema of a type; those of the TypedDicts in it are added to what was found."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if typing.is_typeddict(kind):
        if kind.__name__ not in found:
            found[kind.__name__] = _object(kind, found)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    if kind in _SIMPLE:
        return {"type": _SIMPLE[kind]}
    if kind is Any:
        return {}
    if origin is Literal:
        return {"enum": list(inner)}
    if origin is list:
        return {"type": "array", "items": _of(inner[0], found)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _of(inner[1], found)}
    if origin in (UnionType, typing.Union):
        if all(one in _SIMPLE for one in inner):
            return {"type": [_SIMPLE[one] for one in inner]}
        return {"anyOf": [_of(one, found) for one in inner]}
    raise TypeError(f"no schema is known for {kind}")


def _object(kind: Any, found: dict[str, Any]) -> dict[str, Any]:
    properties = {}
    required = []
    for name, (field, words, always) in fields(kind).items():
        properties[name] = {**_of(field, found), "description": words}
        if always:
            required.append(name)
    return {"type": "object", "description": kind.__doc__, "properties": properties, "required": required}


def fields(kind: Any) -> dict[str, tuple[Any, str, bool]]:
    """Of a TypedDict: each field's type, what it means, and whether it is always there."""
    told = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        always = typing.get_origin(hint) is not NotRequired
        inner = hint if always else typing.get_args(hint)[0]
        if typing.get_origin(inner) is not Annotated:
            raise TypeError(f"{kind.__name__}.{name} has no words")
        field, means = typing.get_args(inner)
        told[name] = field, means.words, always
    return told


def tables() -> str:
    """The fields of every answer, as Markdown for docs/api.md."""
    return "\n".join(_tables()).rstrip() + "\n"


def _tables() -> Iterator[str]:
    kinds: dict[str, Any] = {}
    for answer in ANSWERS.values():
        _collect(answer, kinds)
    yield "<!-- made by: python -m distbal.web.schema -->"
    for name, kind in kinds.items():
        yield f"### {name}\n\n{kind.__doc__}\n\n| field | type | is |\n|---|---|---|"
        for field, (hint, words, always) in fields(kind).items():
            yield f"| `{field}` | {_words(hint)} | {words}{'' if always else ' (not always there)'} |"
        yield ""
    yield "### The states of a host\n\n| state | is |\n|---|---|"
    for state, words in report.STATES.items():
        yield f"| `{state}` | {words} |"


def _collect(kind: Any, kinds: dict[str, Any]) -> None:
    """The TypedDicts that a type has in it, from the outside in."""
    if typing.is_typeddict(kind):
        if kind.__name__ in kinds:
            return
        kinds[kind.__name__] = kind
        for field, _, _ in fields(kind).values():
            _collect(field, kinds)
    for inner in typing.get_args(kind):
        _collect(inner, kinds)


def _words(kind: Any) -> str:
    """A type, for a table."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if typing.is_typeddict(kind):
        name: str = kind.__name__
        return f"[{name}](#{name.lower()})"
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    if origin is Literal:
        return ", ".join(f"`{one}`" for one in inner)
    if origin is list:
        return f"list of {_words(inner[0])}"
    if origin is dict:
        return f"object of {'anything' if inner[1] is Any else _words(inner[1])}"
    return " or ".join(map(_words, inner))


if __name__ == "__main__":
    print(tables(), end="")  # noqa: T201 (this is what it is run for)
