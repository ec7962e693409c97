"""The JSON Schema of hosts.yaml: it takes whatever the checks take, and refuses what its rules can reach."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from distbal import schema, yamlfile
from distbal.config import load
from distbal.errors import ConfigError
from tests.invalid_configs import FILES, UNREADABLE
from tests.test_config import FULL, INVALID, SMALL

SCHEMA = schema.build()
VALIDATOR = Draft202012Validator(SCHEMA)
#: the rows of the tables that a schema could be asked about
READABLE = {name: text for name, (text, _) in INVALID.items() if text not in UNREADABLE}


def rejects(text: str) -> bool:
    return not VALIDATOR.is_valid(yamlfile.parse("hosts.yaml", text).root.plain())


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_it_rejects_what_is_wrong() -> None:
    within = [name for name in READABLE if name not in FILES or not FILES[name].beyond_schema]
    assert len(within) > 200
    assert [name for name in within if not rejects(READABLE[name])] == []


def test_what_is_marked_as_beyond_it_is_beyond_it() -> None:
    beyond = [name for name, row in FILES.items() if row.beyond_schema]
    assert beyond
    assert [name for name in beyond if rejects(FILES[name].text)] == []


def test_what_cannot_be_read_gives_it_nothing_to_look_at() -> None:
    for text in UNREADABLE:
        with pytest.raises(ConfigError):
            yamlfile.parse("hosts.yaml", text)


@pytest.mark.parametrize("path", [SMALL, FULL], ids=lambda path: path.name)
def test_it_takes_the_examples(path: Path) -> None:
    assert not rejects(path.read_text())


def objects(part: Any) -> list[dict[str, Any]]:
    """Every schema of a mapping, anywhere in it."""
    inner = [
        found
        for value in (part.values() if isinstance(part, dict) else part)
        if isinstance(value, dict | list)
        for found in objects(value)
    ]
    return inner + ([part] if isinstance(part, dict) and "properties" in part and "additionalProperties" in part else [])


def test_editors_find_a_description_and_a_default_for_each_key() -> None:
    mappings = objects(SCHEMA)
    assert len(mappings) > 8
    for mapping in mappings:
        # monitors, and each of their options, may stand for all hosts, or for one: what holds without is said elsewhere
        of_monitors = mapping["title"] == "Monitors" or mapping["title"].startswith("options of")
        required = mapping["properties"] if of_monitors else mapping.get("required", [])
        for key, value in mapping["properties"].items():
            assert value.get("description"), key
            assert "default" in value or key in required, key


def test_a_default_is_one_that_the_schema_takes() -> None:
    for mapping in objects(SCHEMA):
        for value in mapping["properties"].values():
            if "default" in value:
                Draft202012Validator(value | {"$defs": SCHEMA["$defs"]}).validate(value["default"])


host_texts = st.from_regex(r"[a-c]{1,2}(:[0-9]{1,5})?(/[0-9]{1,2})?(,(lzo|cpp|auth)){0,3}", fullmatch=True)
hosts = host_texts | st.fixed_dictionaries(
    {"name": host_texts},
    optional={
        "slots": st.integers(-1, 9) | st.floats(0, 9),
        "address": st.none() | host_texts,
        "options": st.sampled_from(["", "lzo", "cpp", "cpp,lzo", "lzo,lzo"]),
        "pools": st.lists(st.sampled_from(["default", "arm", "a b"]), max_size=3),
    },
)
places = st.sampled_from(
    [0, 5656, "5657", "127.0.0.1:7", "[::1]:7", "unix:/x", "tcp:1", "systemd:a=b", "x:1", "x:1:2", None, -1, ""]
)
listeners = places | st.fixed_dictionaries(
    {"at": places},
    optional={
        "pool": st.sampled_from(["default", "arm", ""]),
        "speaks_first": st.sampled_from(["client", "server", "both"]),
        "half_close": st.sampled_from(["cancel", "pass", None]),
    },
)
files = st.fixed_dictionaries(
    {"hosts": st.lists(hosts | st.lists(hosts, max_size=3), max_size=4)},
    optional={
        "policy": st.sampled_from(["random", "fastest-first", "Random"]),
        "queue": st.fixed_dictionaries(
            {}, optional={"order": st.sampled_from(["fair", "x"]), "wait": st.none() | st.integers(-1, 9)}
        ),
        "reply": st.sampled_from(["{name}", "{name}/9{options}", "{name},lzo", "{options}"]),
        "listen": st.dictionaries(
            st.sampled_from(["balance", "status", "update", "proxy"]), listeners | st.lists(listeners, max_size=3), max_size=4
        ),
        "allow": st.dictionaries(
            st.sampled_from(["clients", "update"]),
            st.lists(st.sampled_from(["any", "loopback", "10.0.0.0/8", "10.0.0.1/8", "fd00::/7", "::1", "x"]), max_size=3),
            max_size=2,
        ),
    },
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files)
def test_what_the_checks_take_it_takes(tmp_path: Path, value: dict[str, Any]) -> None:
    path = tmp_path / "hosts.yaml"
    path.write_text(json.dumps(value))
    try:
        load(str(path))
    except ConfigError:
        return
    assert not rejects(path.read_text())
