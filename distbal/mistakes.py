"""What pydantic's models find wrong with hosts.yaml, in our words and with the place in the file."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from distbal import crosscheck, yamlfile
from distbal.errors import Mistake
from distbal.forms import shown
from distbal.model import HOST_FORM, ProxyListenerModel
from distbal.yamlfile import Node, Path


def of_model(root: Node, model: type[BaseModel], details: ErrorDetails, prefix: Path = ()) -> Mistake | None:
    """What a model found, in our words. The forms bring theirs; only what concerns keys and mappings is said here.

    :param model: that of what stands at the prefix.
    :returns: None where it is reported already: a key is missing that stands there mistyped.
    """
    inner: Path = tuple(details["loc"])
    path = (*prefix, *inner)
    kind = details["type"]
    if kind == "missing" and _is_mistyped(model, details):
        return None
    if kind == "value_error":
        return crosscheck.at(root, path, str(details["ctx"]["error"]))
    if kind == "extra_forbidden":
        node = root.key_at(path)
        parent, _ = root.at(path[:-1])
        text = _why_unknown(model, inner, details["input"])
        return Mistake(node.line, node.column, yamlfile.where((*parent, path[-1])), text)
    if kind == "missing":
        said = _MISSING.get(str(path[-1])) or f"{path[-1]} is missing: {_described(model, inner)}"
        return crosscheck.at(root, path[:-1], said)
    if kind == "model_type":
        keys = ", ".join(_section_at(model, inner).model_fields)
        text = f"{shown(details['input'])} where a mapping is wanted, with any of the keys {keys}"
        found, node = root.at(path)
        return Mistake(node.line, node.column, yamlfile.where(found), text)
    # a form that is not ours: pydantic's own words
    return crosscheck.at(root, path, f"{shown(details['input'])}: {details['msg'][:1].lower()}{details['msg'][1:]}")


_MISSING = {
    "hosts": "hosts is missing: list one distcc server at least, such as - 127.0.0.1:3632/4",
    "name": f"a name is missing: {HOST_FORM}",
    "at": "at is missing: it says where to listen",
}


def _described(model: type[BaseModel], path: Path) -> str:
    """What the model says of a key."""
    return _section_at(model, path[:-1]).model_fields[str(path[-1])].description or "it has to be there"


def _why_unknown(model: type[BaseModel], path: Path, value: object) -> str:
    key = str(path[-1])
    known = _section_at(model, path[:-1]).model_fields
    if key == "pool" and path[0] == "listen":
        return "only listen.balance and listen.proxy have pools"
    if key in ProxyListenerModel.model_fields and key != "at" and path[0] == "listen":
        return f"{key} is the proxy's: only listen.proxy has it"
    if key in ("lzo", "cpp", "auth") and value is None:
        return f"{key} is an option: between {{ and }} a comma ends a text, so put the whole in quotes"
    near = _nearest(key, known)
    right = f"did you mean {near}?" if near else f"the keys here are {', '.join(known)}"
    return f"unknown key; {right}"


def _nearest(key: str, known: Iterable[str]) -> str | None:
    return next(iter(get_close_matches(key.lower(), list(known), 1)), None)


def _is_mistyped(model: type[BaseModel], details: ErrorDetails) -> bool:
    """Whether a key is missing because it stands there as another, which is reported as such."""
    if not isinstance(details["input"], dict):
        return False
    path: Path = tuple(details["loc"])
    known = _section_at(model, path[:-1]).model_fields
    return any(_nearest(str(key), known) == path[-1] for key in details["input"] if key not in known)


def _section_at(section: type[BaseModel], path: Path) -> type[BaseModel]:
    """The model of the mapping that stands there: follows the names and passes over indexes."""
    for step in path:
        if isinstance(step, str) and step in section.model_fields:
            section = _section_in(section.model_fields[step].annotation) or section
    return section


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)
