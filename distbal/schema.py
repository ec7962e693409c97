"""``distbal schema``: the JSON Schema of hosts.yaml, for editors that complete and check the file while it is written.

It is made from the models that check the file, and so has the options of every kind of monitor that is installed. What JSON
Schema cannot say is left to ``distbal check``: rules that join several values, and YAML's own (keys that stand twice, tags).
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from distbal.model import FileModel

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def build() -> dict[str, Any]:
    """The schema of the file as users write it, short forms included: draft 2020-12."""
    schema = FileModel.model_json_schema()
    shared = schema["$defs"]
    _add_monitors(schema)
    listeners = schema["$defs"]["ListenModel"]["properties"]["balance"]["anyOf"]
    shared["HostText"] = schema["properties"]["hosts"]["items"]["anyOf"][0]
    shared["ListenAddress"] = listeners[0]
    names = {_key(body): name for name, body in shared.items() if name in ("HostText", "ListenAddress")}
    return {"$schema": DIALECT, **_shortened(schema, names, top=True)}


def _add_monitors(schema: dict[str, Any]) -> None:
    """Put in what the kinds of monitors that are installed take."""
    from distbal import monitorconfig

    options = monitorconfig.options_schemas()
    for name, body in options.items():
        schema["$defs"] |= body.pop("$defs", {})
        schema["$defs"][f"Monitor-{name}"] = body
    by_name = {
        name: {"anyOf": [{"type": "boolean"}, {"$ref": f"#/$defs/Monitor-{name}"}], "description": body["description"]}
        for name, body in options.items()
    }
    named = {"anyOf": [{"type": "boolean"}, {"type": "object", "properties": {"kind": {"enum": list(options)}}}]}
    for holder in (schema, schema["$defs"]["HostModel"]):
        holder["properties"]["monitors"] |= {"properties": by_name, "additionalProperties": named}


def _key(body: object) -> str:
    return json.dumps(body, sort_keys=True)


def _shortened(part: Any, names: dict[str, str], *, top: bool = False) -> Any:
    """The schema with references where one of the long bodies stands a second time."""
    if isinstance(part, list):
        return [_shortened(item, names) for item in part]
    if not isinstance(part, dict):
        return part
    name = names.get(_key(part)) if "pattern" in part else None
    if name:
        return {"$ref": f"#/$defs/{name}"}
    return {
        key: {inner: body if inner in names.values() else _shortened(body, names) for inner, body in value.items()}
        if top and key == "$defs"
        else _shortened(value, names)
        for key, value in part.items()
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what it prints; it takes nothing."""
    parser.description = (
        "Print the JSON Schema of hosts.yaml. Editors with a YAML language server use it by a first line such as: "
        "# yaml-language-server: $schema=/etc/distbal/hosts.schema.json"
    )


def run(_args: argparse.Namespace) -> int:
    """Print it; 0."""
    sys.stdout.write(json.dumps(build(), indent=2) + "\n")
    return 0
