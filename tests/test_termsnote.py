"""The terms by which slots are lent, noted for a process that has not read the file yet."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbal.access import AccessList
from distbal.checked import values
from distbal.hosts import Farm, HostSpec
from distbal.policies import POLICIES
from distbal.queues import DISCIPLINES
from distbal.termsnote import CarriedTerms, read_terms, terms_note

TERMS = CarriedTerms(Farm((), "random", "fifo", 2.5), "{name}/100{options}", AccessList.parse(["private", "10.1.0.0/16"]))
NOTE = terms_note(TERMS)


@given(
    st.sampled_from(sorted(POLICIES)),
    st.sampled_from(sorted(DISCIPLINES)),
    st.none() | st.floats(0, 1e9),
    st.sampled_from([[], ["any"], ["loopback", "fd00::/8"]]),
)
def test_they_come_back_as_they_were_without_hosts(policy: str, order: str, wait: float | None, allow: list[str]) -> None:
    farm = Farm((HostSpec("alpha", 4, 0),), policy, order, wait)
    read = read_terms(json.loads(json.dumps(terms_note(CarriedTerms(farm, "{name}", AccessList.parse(allow))))))
    assert read == CarriedTerms(Farm((), policy, order, wait), "{name}", AccessList.parse(allow))


def test_what_another_version_says_beside_it_is_passed_over() -> None:
    assert read_terms({**NOTE, "mood": "fine"}) == TERMS


@pytest.mark.parametrize("key", ["policy", "order", "reply", "allow"])
def test_nothing_may_be_missing(key: str) -> None:
    with pytest.raises(ValueError, match=f"{key} is missing"):
        read_terms({other: value for other, value in NOTE.items() if other != key})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("policy", "slowest-first"),
        ("policy", 7),
        ("order", "lifo"),
        ("wait", -1),
        ("wait", "long"),
        ("reply", "nothing"),
        ("reply", "{name}{mood}"),
        ("reply", "{name}\n{name}"),
        ("allow", "any"),
        ("allow", ["elsewhere"]),
        ("allow", [7]),
        ("allow", ["10.0.0.1"] * 10_001),
    ],
)
def test_what_cannot_be_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_terms({**NOTE, key: value})


_PLAIN = st.none() | st.booleans() | st.integers() | st.text()
_ANYTHING = st.recursive(_PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(sorted(NOTE)), inner))


@given(_ANYTHING)
def test_whatever_else_stands_there_is_told_in_a_sentence(said: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        # no text in it is a policy's name
        read_terms(said)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        values(data)
