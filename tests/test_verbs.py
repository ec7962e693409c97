"""Words to calls: each verb's form, and what is said where the words are not of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbal.verbs import VERBS, VerbError, parse, usage


def wrong(*words: str) -> str:
    with pytest.raises(VerbError) as error:
        parse(words)
    return str(error.value)


def test_each_example_is_a_call() -> None:
    import shlex

    for name, verb in VERBS.items():
        call = parse([name, *shlex.split(verb.example)])
        assert call.verb is verb
        assert str(call) == f"{name} {verb.example}".strip()


def test_every_verb_says_what_it_does() -> None:
    for verb in VERBS.values():
        assert verb.help, verb.name
        assert usage(verb).startswith(verb.name)


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        (["drain", "a:3632", "fan", "broken"], {"host": "a:3632", "why": "fan broken"}),
        (["down", "a"], {"host": "a", "why": ""}),
        (["slots", "a", "12"], {"host": "a", "slots": 12}),
        (["slots", "a", "file"], {"host": "a", "slots": None}),
        (["weight", "a", "0.25"], {"host": "a", "weight": 250}),
        (["weight", "a", "1"], {"host": "a", "weight": 1000}),
        (["weight", "a", "none"], {"host": "a", "weight": None}),
        (["rank", "a", "before", "b"], {"host": "a", "place": ("before", "b")}),
        (["rank", "a", "file"], {"host": "a", "place": None}),
        (["remove", "a"], {"host": "a", "now": False}),
        (["remove", "a", "now"], {"host": "a", "now": True}),
        (["add", "a", "4"], {"host": "a", "slots": 4, "place": None, "pools": None, "address": None}),
        (
            ["add", "a,lzo", "4", "pools", "arm,x86", "with", "b", "address", "10.0.0.7:3632"],
            {"host": "a,lzo", "slots": 4, "place": ("with", "b"), "pools": ("arm", "x86"), "address": "10.0.0.7:3632"},
        ),
        (["jobs"], {"limit": 20}),
        (["history", "1000"], {"limit": 1000}),
        (["log"], {"level": None}),
        (["why", "1764231010123456"], {"job": 1764231010123456}),
        (["hosts", "a*", "b"], {"patterns": ("a*", "b")}),
    ],
)
def test_calls(words: list[str], arguments: dict[str, object]) -> None:
    assert parse(words).arguments == arguments


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "say what to do: status, hosts, show,"),
        (["drian", "a"], 'there is no "drian": did you mean drain?'),
        (["\x1b[2J"], 'there is no "?[2J"; there are status,'),
        (["status", "now"], 'nothing stands behind status, and here is "now": status'),
        (["drain"], "drain takes a host, and a reason if you like: drain HOST [WHY]"),
        (["drain", "a", "x\ny"], "a reason is one line of text, without control characters: drain HOST [WHY]"),
        (["drain", "a", "x" * 301], "a reason has at most 300 characters, and this one 301: drain HOST [WHY]"),
        (["up"], "up takes one host: up HOST"),
        (["up", "a", "b"], "up takes one host, and here are 2 words: up HOST"),
        (["slots", "a"], "slots takes a host and a number: slots HOST NUMBER|file"),
        (
            ["slots", "a", "0"],
            'a number of slots is 1 to 999999, not "0"; to give it no jobs, drain it: slots HOST NUMBER|file',
        ),
        (["slots", "a", "-1"], 'a number of slots is 1 to 999999, not "-1": slots HOST NUMBER|file'),
        (["slots", "a", "²"], 'a number of slots is 1 to 999999, not "²": slots HOST NUMBER|file'),
        (["weight", "a", "1.5"], 'a share is a number from 0 to 1, such as 0.5, not "1.5": weight HOST SHARE|none'),
        (["weight", "a", "nan"], 'a share is a number from 0 to 1, such as 0.5, not "nan": weight HOST SHARE|none'),
        (["weight", "a", "half"], 'a share is a number from 0 to 1, such as 0.5, not "half": weight HOST SHARE|none'),
        (
            ["rank", "a", "under", "b"],
            "rank takes a host, and where it is to stand beside another: rank HOST before|with|after OTHER",
        ),
        (["remove", "a", "soon"], "remove takes one host, and now if its jobs are to be cut: remove HOST [now]"),
        (["kick"], "kick takes one client: kick CLIENT"),
        (["why", "there"], "why takes the number of a job, which jobs shows: why JOB"),
        (["jobs", "0"], "jobs takes a number from 1 to 1000: jobs [NUMBER]"),
        (["jobs", "9" * 30], "jobs takes a number from 1 to 1000: jobs [NUMBER]"),
        (["log", "loud"], "a level is warn, info, debug: log [warn|info|debug]"),
    ],
)
def test_what_is_wrong(words: list[str], sentence: str) -> None:
    assert wrong(*words).startswith(sentence)


def test_what_is_wrong_with_an_added_host() -> None:
    form = ": " + usage(VERBS["add"])
    assert wrong("add", "a") == "add takes a host and its slots" + form
    assert wrong("add", "a", "4", "beside", "b") == '"beside" means nothing here' + form
    assert wrong("add", "a", "4", "before") == "something stands behind before" + form
    assert wrong("add", "a", "4", "before", "b", "after", "c") == '"after" is one too many' + form


@given(st.lists(st.text(max_size=12) | st.sampled_from([*VERBS, "a", "4", "now", "before", "file"]), max_size=6))
def test_any_words_are_a_call_or_a_sentence(words: list[str]) -> None:
    try:
        said = str(parse(words).words == tuple(words))
    except VerbError as error:
        said = str(error)
    assert said.isprintable()
    assert said not in ("", "False")
