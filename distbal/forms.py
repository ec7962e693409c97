"""How a value may be written: one description each that both checks the value and says the same to JSON Schema.

pydantic holds the structure (keys, lists, defaults); the forms here are its leaves. Each check raises ValueError with a whole
sentence for the user, so nothing has to be guessed from a validator's own error codes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from distbal import addresses


def setting(default: Any, description: str, **more: Any) -> Any:
    """A key that may be left out; its default is written as users write it."""
    return Field(default, description=description, validate_default=True, **more)


class Section(BaseModel):
    """A mapping of the file: unknown keys are mistakes, and nothing is converted in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)


class Unfit(ValueError):
    """A value cannot stand where it does; the text is a whole sentence for the user."""


class Leaf:
    """A value without parts: its check and its JSON Schema."""

    def __init__(self, parse: Callable[[Any], object], schema: Mapping[str, object]) -> None:
        """Put the two together; ``parse`` returns the value or raises ValueError with the sentence for the user."""
        self.parse = parse
        self.schema = schema

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.parse)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return dict(self.schema)


class Short:
    """A value that has a short form too: made long before the model looks at it, so that the model knows one form only."""

    def __init__(self, lengthen: Callable[[Any], object], schema: Callable[[JsonSchemaValue], JsonSchemaValue]) -> None:
        """Put the two together.

        :param lengthen: what stands in the file -> the long form; ValueError with the sentence for the user.
        :param schema: the long form's JSON Schema -> that of both.
        """
        self.lengthen = lengthen
        self.schema = schema

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.lengthen, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return self.schema(handler(schema))


def shown(value: object) -> str:
    """A value as it can be named in a sentence: texts in quotes, cut where they are long; lists and mappings by their kind."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str) and len(value) > 60:
        value = f"{value[:57]}..."
    return "nothing" if value is None else json.dumps(value, ensure_ascii=not str(value).isprintable())


def text(pattern: str, check: Callable[[str], str], what: str) -> Leaf:
    """A text of one pattern.

    :param pattern: the whole of it; without anchors.
    :param check: returns a text of that pattern and raises ValueError, with the reason, for any other.
    :param what: what is wanted, for values that are no texts, and for editors.
    """

    def parse(value: object) -> str:
        if not isinstance(value, str):
            quoted = f'; in quotes, "{value}", it is one' if isinstance(value, int | float) else ""
            raise Unfit(f"{shown(value)} is no text{quoted}: {what}")
        return check(value)

    return Leaf(parse, text_schema(pattern, what))


def text_schema(pattern: str, what: str) -> JsonSchemaValue:
    """JSON Schema of such a text; editors that know ``patternErrorMessage`` show it in place of the pattern."""
    return {"type": "string", "pattern": addresses.whole(pattern), "patternErrorMessage": what}


def choice(words: Sequence[str]) -> Leaf:
    """One of a few words."""

    def parse(value: object) -> str:
        if isinstance(value, str) and value in words:
            return value
        near = get_close_matches(value.lower().replace("_", "-"), words, 1) if isinstance(value, str) else []
        raise Unfit(f"{shown(value)} is none of {', '.join(words)}" + (f"; did you mean {near[0]}?" if near else ""))

    return Leaf(parse, {"type": "string", "enum": list(words)})


def whole_number(least: int, most: int, why_not: Callable[[str], str]) -> Leaf:
    """A whole number; ``why_not`` says what is wrong with a text or a number that is none."""

    def parse(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            if isinstance(value, str) and value.isascii() and value.isdigit() and not value.startswith("0"):
                raise Unfit(f"{shown(value)} is a text: a number has no quotes")
            raise Unfit(why_not(str(value)))
        raise Unfit(f"{shown(value)} is no number: {least} to {most} is wanted")

    return Leaf(parse, {"type": "integer", "minimum": least, "maximum": most})


def port_number(whose: str = "a port") -> Leaf:
    """A port; ``whose`` it is begins the sentence about a number that is none: ``the agent's port``."""
    return whole_number(1, 65535, lambda value: f"{whose} is 1 to 65535, not {value[:40]}")


def between(least: float, most: float, what: str) -> Leaf:
    """A number, whole or not; ``what`` says what is wanted, as the end of a sentence: ``seconds``."""

    def parse(value: object) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
            return float(value)
        raise Unfit(f"{shown(value)} is none of {least:g} to {most:g}: {what}")

    return Leaf(parse, {"type": "number", "minimum": least, "maximum": most})


def switch() -> Leaf:
    """Yes or no, as YAML has them: true or false."""

    def parse(value: object) -> bool:
        if isinstance(value, bool):
            return value
        raise Unfit(f"{shown(value)} is neither true nor false")

    return Leaf(parse, {"type": "boolean"})


def listed(what: str, *, unique: bool = False) -> Short:
    """A list of at least one value, where people write the one value alone.

    :param what: what is wanted, as the end of a sentence.
    :param unique: the same value may not stand in it twice.
    """

    def check(value: object) -> object:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            one = str(value)
            raise Unfit(f"a list is wanted, even of one: [{one}]" if one and one.isprintable() else f"a list is wanted: {what}")
        if not isinstance(value, list):
            raise Unfit(f"{shown(value)} where a list is wanted: {what}")
        if not value:
            raise Unfit(f"the list is empty: {what}")
        again = [item for number, item in enumerate(value) if item in value[:number]]
        if unique and again:
            raise Unfit(f"{shown(again[0])} stands twice")
        return value

    return Short(check, lambda schema: schema | {"minItems": 1} | ({"uniqueItems": True} if unique else {}))
