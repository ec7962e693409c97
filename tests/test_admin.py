"""The verbs, done: on a real scheduler, with clients whose jobs run meanwhile."""

from __future__ import annotations

import json
from typing import Any

import pytest

from distbal.admin import Who
from distbal.carried import CarriedTicket
from distbal.decisions import Decisions
from distbal.execing import UpgradeError
from distbal.hosts import Farm, HostSpec
from distbal.outcomes import Outcome
from distbal.requests import Request
from distbal.takeup import Carried
from distbal.verbs import VERBS, VerbError
from distbal.why import LENT_BEFORE
from tests.admins import ALICE, EPOCH, FILE, Desk
from tests.farms import spec


def wrong(desk: Desk, *words: str) -> str:
    """What is said of a verb that cannot be done; nothing has changed then."""
    before = (desk.made, desk.applied(), len(desk.admin.changes), len(desk.kept))
    with pytest.raises(VerbError) as error:
        desk.say(*words)
    assert (desk.made, desk.applied(), len(desk.admin.changes), len(desk.kept)) == before
    return str(error.value)


# -- taking hosts out, and back


def test_drain_lets_jobs_end_and_gives_no_new_ones() -> None:
    desk = Desk()
    first, ticket = desk.job()
    assert first.host == "fast"
    assert desk.text("drain", "fast", "fan broken") == "fast is drained: fan broken; 1 job still runs there"
    assert (first.losses, desk.job()[0].host) == ([], "slow")
    host = desk.hosts()["fast"]
    assert (host["state"], host["why"], host["used"]) == ("drain", "fan broken", 1)
    assert [(one["key"], one["value"], one["by"], one["why"]) for one in host["differs"]] == [
        ("admin", "drain", "alice", "fan broken")
    ]
    assert ticket.lease is not None
    desk.leases.release(ticket.lease, Outcome.CLOSED)
    assert desk.text("up", "fast") == "fast is ready"
    assert desk.job()[0].host == "fast"
    assert desk.hosts()["fast"]["differs"] == []
    assert desk.text("ready", "fast") == "fast was ready already"


def test_up_overrules_no_monitor() -> None:
    desk = Desk()
    desk.leases.report("fast", "tcp", up=False, reason="refused the connection")
    desk.say("down", "fast")
    said = "fast is ready, and yet gets no jobs: tcp says so (refused the connection)"
    assert desk.text("up", "fast") == said
    assert desk.hosts()["fast"]["state"] == "failing"
    assert desk.job()[0].host == "slow"


def test_a_waiter_gets_the_host_that_comes_back() -> None:
    desk = Desk(Farm((spec("fast"),)))
    desk.say("down", "fast")
    waiter, _ = desk.job()
    assert waiter.host == ""
    desk.say("up", "fast")
    assert waiter.host == "fast"


def test_what_was_decided_holds_after_a_restart() -> None:
    before = Desk()
    before.say("drain", "fast", "fan broken")
    before.say("weight", "slow", "0.5")
    before.say("add", "new", "3", "before", "slow")
    after = Desk(made=before.made)
    assert (after.hosts()["fast"]["state"], after.hosts()["fast"]["why"]) == ("drain", "fan broken")
    assert after.hosts()["slow"]["capacity"] == 1
    assert after.order() == ["fast", "new", "slow", "old"]
    assert after.hosts() == before.hosts()


# -- slots, weight, rank


def test_slots_hold_until_the_file_says_something_else_about_them() -> None:
    desk = Desk()
    assert desk.text("slots", "slow", "6") == "slow has 6 slots"
    assert desk.hosts()["slow"]["differs"][0] == {
        "key": "slots", "value": 6, "file": 2, "by": "alice", "at": EPOCH, "why": ""
    }  # fmt: skip
    desk.admin.file_changed(Farm((spec("fast", 9, 0), spec("slow", 2, 1))))
    assert (desk.hosts()["slow"]["slots"], desk.hosts()["fast"]["slots"]) == (6, 9)
    kept = len(desk.kept)
    desk.admin.file_changed(Farm((spec("fast", 9, 0), spec("slow", 3, 1))))
    assert (desk.hosts()["slow"]["slots"], desk.hosts()["slow"]["differs"]) == (3, [])
    assert desk.kept[kept:] == [(Decisions(), 1)]


def test_slots_as_the_file_has_them_are_no_difference() -> None:
    desk = Desk()
    desk.say("slots", "slow", "6")
    assert desk.text("slots", "slow", "2") == "slow has 2 slots, as the file says"
    assert desk.made == Decisions()
    desk.say("slots", "slow", "1")
    assert desk.text("slots", "slow", "file") == "slow has 2 slots, as the file says"
    assert desk.made == Decisions()


def test_fewer_slots_cut_nobody() -> None:
    desk = Desk()
    clients = [desk.job()[0] for _ in range(3)]
    assert desk.text("slots", "fast", "1") == "fast has 1 slot; 3 jobs still run there"
    assert [client.losses for client in clients] == [[], [], []]
    assert desk.job()[0].host == "slow"


def test_a_weight_by_hand_is_one_of_several() -> None:
    desk = Desk()
    assert desk.text("weight", "fast", "0.5") == "fast has weight 0.5: 2 of its 4 slots may be lent"
    desk.leases.report("fast", "ssh", up=True, weight=250)
    assert desk.hosts()["fast"]["capacity"] == 1
    assert desk.text("weight", "fast", "none") == "nobody sets a weight of fast by hand: 1 of its 4 slots may be lent"
    assert [one["source"] for one in desk.hosts()["fast"]["said"]] == ["ssh"]
    assert desk.text("weight", "fast", "0") == "fast has weight 0: 0 of its 4 slots may be lent"
    assert desk.hosts()["fast"]["state"] == "off"


def test_rank() -> None:
    desk = Desk()
    assert desk.text("rank", "old", "before", "fast") == "old stands before fast"
    assert desk.order() == ["old", "fast", "slow"]
    assert desk.job()[0].host == "old"
    assert desk.text("rank", "old", "file") == "old stands where the file has it"
    assert desk.order() == ["fast", "slow", "old"]
    assert wrong(desk, "rank", "old", "before", "old") == "old cannot stand before itself"
    assert wrong(desk, "rank", "old", "before", "fats") == 'no host is called "fats": did you mean fast?'


# -- hosts that come and go


def test_add() -> None:
    desk = Desk(Farm((spec("fast", 1),)))
    desk.job()
    waiter, _ = desk.job()
    assert desk.text("add", "spare:3633,lzo", "8", "before", "fast", "address", "10.0.0.7") == (
        "spare:3633 is in the farm, with 8 slots, before fast"
    )
    assert waiter.host == "spare:3633"
    assert desk.leases.scheduler.host("spare:3633").spec == HostSpec("spare:3633", 8, 0, ",lzo", ("10.0.0.7", 3632))
    assert desk.hosts()["spare:3633"]["differs"][0]["key"] == "there"
    desk.admin.file_changed(Farm((spec("fast", 1, 0), spec("spare:3633", 2, 1))))
    assert desk.leases.scheduler.host("spare:3633").spec == spec("spare:3633", 2, 1)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["fast", "4"], "fast is there already: slots, weight and rank change it"),
        (["x/4", "4"], "the slots stand by themselves: add x 4"),
        (["x,zstd", "4"], "zstd is not an option of any distcc release so far: lzo is"),
        (
            ["x@y", "4"],
            '"x@y" is a host over ssh, which distbal does not do: run distccd there and write its name, HOST[:PORT]',
        ),
        (["x", "4", "pools", "a b"], "\"a b\" is no name of a pool: letters, digits, '-', '_' and dots, at most 64"),
        (["x", "4", "address", "::1"], 'an IPv6 address needs brackets, and so quotes in YAML: "[::1]"'),
        (["x", "4", "after", "nobody"], 'no host is called "nobody"; hosts lists them'),
        (["x", "4", "after", "x"], "x cannot stand after itself"),
    ],
)
def test_what_cannot_be_added(words: list[str], sentence: str) -> None:
    assert wrong(Desk(), "add", *words) == sentence


def test_remove_lets_jobs_end() -> None:
    desk = Desk()
    client, ticket = desk.job()
    assert desk.text("remove", "fast") == "fast is removed; 1 job still runs there"
    assert desk.hosts()["fast"]["state"] == "removed"
    assert client.losses == []
    assert ticket.lease is not None
    desk.leases.release(ticket.lease, Outcome.CLOSED)
    assert "fast" not in desk.hosts()
    assert wrong(desk, "drain", "fast") == "fast was removed by alice; add brings it back"
    assert desk.text("add", "fast", "4") == "fast is in the farm, with 4 slots, where the file has it"
    assert desk.made == Decisions()
    assert desk.order() == ["fast", "slow", "old"]


def test_remove_now_cuts_jobs() -> None:
    desk = Desk()
    clients = [desk.job()[0] for _ in range(2)]
    assert desk.text("remove", "fast", "now") == "fast is removed; 2 jobs cut"
    assert [client.losses for client in clients] == [["fast was removed by alice"]] * 2
    assert "fast" not in desk.hosts()
    ended = desk.say("jobs")["jobs"]
    assert [job["attempts"][0]["outcome"] for job in ended] == ["kicked", "kicked"]


def test_an_added_host_that_is_removed_leaves_nothing() -> None:
    desk = Desk()
    desk.say("add", "new", "3")
    desk.say("drain", "new")
    desk.say("remove", "new")
    assert desk.made == Decisions()


def test_the_last_host_stays() -> None:
    desk = Desk(Farm((spec("fast"),)))
    said = "fast is the last host: without one nobody could be served; drain it, or add another first"
    assert wrong(desk, "remove", "fast") == said


# -- clients


def test_kick_by_address_port_and_number() -> None:
    desk = Desk(Farm((spec("fast", 2),)))
    one, two = desk.job("10.0.0.1", 1), desk.job("10.0.0.1", 2)
    waiter, _ = desk.job("10.0.0.1", 3)
    other, ticket = desk.job("10.0.0.2", 1)
    assert desk.text("kick", "10.0.0.1:2") == "10.0.0.1:2: 1 job cut, 0 waiters sent away"
    assert (one[0].losses, two[0].losses, waiter.host) == ([], ["kicked by alice"], "fast")
    assert desk.text("kick", str(ticket.id)) == f"{ticket.id}: 0 jobs cut, 1 waiter sent away"
    assert other.refusals == ["kicked by alice"]
    assert desk.text("kick", "10.0.0.1") == "10.0.0.1: 2 jobs cut, 0 waiters sent away"
    many = "9" * 5000
    assert wrong(desk, "kick", many).startswith('no client "999')
    assert wrong(desk, "kick", "10.0.0.1") == 'no client "10.0.0.1" has a slot or waits for one: status and hosts show who does'


# -- what they tell


def test_what_is_told_is_json_for_each_verb() -> None:
    desk = Desk()
    clients = [desk.job() for _ in range(9)]
    desk.leases.report("slow", "ssh", up=False, reason="is broken")
    lease = clients[0][1].lease
    assert lease is not None
    desk.leases.release(lease, Outcome.CLOSED)
    desk.say("drain", "old", "fan")
    for name, rest in {"show": ["old"], "why": [str(lease.id)], "hosts": ["*"]}.items():
        json.dumps(desk.say(name, *rest))
    for name in ("status", "queue", "jobs", "history", "export", "hosts"):
        assert json.loads(json.dumps(desk.say(name)))["version"] == 1


def test_hosts_by_pattern() -> None:
    desk = Desk()
    assert [one["name"] for one in desk.say("hosts", "s?o*", "fast")["hosts"]] == ["fast", "slow"]
    assert wrong(desk, "hosts", "x*", "y") == 'no host is called "x*" or "y"; hosts alone lists them'
    assert wrong(desk, "show", "fats") == 'no host is called "fats": did you mean fast?'


def test_why_of_a_job_that_runs_and_of_one_that_ended() -> None:
    desk = Desk(Farm((spec("fast", 1, 0), spec("slow", 1, 1))))
    desk.job("10.0.0.1")
    client, ticket = desk.job("10.0.0.2")
    assert client.host == "slow"
    desk.clock.advance(2)

    def told() -> tuple[Any, ...]:
        attempt = desk.say("why", str(ticket.id))["job"]["attempts"][0]
        return attempt["host"], attempt["outcome"], attempt["seconds"], [one["words"] for one in attempt["passed_over"]]

    assert told() == ("slow", None, 2.0, ["was full: 1 of 1 slots lent"])
    assert ticket.lease is not None
    desk.leases.release(ticket.lease, Outcome.CLOSED)
    desk.clock.advance(5)
    assert told() == ("slow", "closed", 2.0, ["was full: 1 of 1 slots lent"])
    assert wrong(desk, "why", "7") == (
        "nothing is known of a job 7: it has not been given a host yet, or is forgotten; jobs lists the last"
    )


def test_why_of_a_job_that_was_there_before_distbal_was_started_anew() -> None:
    desk = Desk(Farm((spec("fast", 1, 0), spec("slow", 1, 1))))
    now = desk.clock.seconds()
    lent = CarriedTicket(5, Request("10.0.0.1", 4711, "10.0.0.1"), now - 9, "slow", now - 9)
    taken = desk.leases.take_up(Carried([(lent, None)]))
    assert taken.left_out == []
    told = desk.say("why", "5")["job"]["attempts"][0]
    assert (told["host"], told["not_known"]) == ("slow", LENT_BEFORE)
    assert "passed_over" not in told, "that none was is not known"


def test_history_says_who_did_what_when_and_from_where() -> None:
    desk = Desk()
    desk.say("drain", "fast", "fan", "broken")
    desk.clock.advance(60)
    desk.say("up", "fast", who=Who("bob@laptop", "ssh from 10.0.0.9"))
    desk.say("hosts")
    with pytest.raises(VerbError):
        desk.say("up", "nobody")
    assert desk.say("history")["changes"] == [
        {"at": EPOCH + 60, "by": "bob@laptop", "where": "ssh from 10.0.0.9", "verb": "up", "words": ("up", "fast"),
         "what": "fast is ready"},
        {"at": EPOCH, "by": "alice", "where": "admin socket", "verb": "drain", "words": ("drain", "fast", "fan", "broken"),
         "what": "fast is drained: fan broken"},
    ]  # fmt: skip
    assert len(desk.say("history", "1")["changes"]) == 1


# -- the rest


def test_reload() -> None:
    desk = Desk()
    assert desk.text("reload") == "the file was taken in"
    desk.reasons = ["hosts.yaml:3: no such thing", "hosts.yaml:4: nor this"]
    assert wrong(desk, "reload") == (
        "the file was not taken in, and nothing has changed:\nhosts.yaml:3: no such thing\nhosts.yaml:4: nor this"
    )


def test_upgrade() -> None:
    desk = Desk()
    answer = desk.say("upgrade")
    assert (answer["before"], answer["after"]) == ("0.5.0", "0.6.0")
    assert answer["text"] == "distbal 0.5.0 goes on as 0.6.0: the new code said yes"
    assert answer["image"] == desk.reporter.image
    over_ssh = desk.say("upgrade", who=Who("bob", "ssh from 10.0.0.9"))
    assert over_ssh["text"] == f"{answer['text']}; this connection ends with that"
    desk.admin.upgraded_by(Who("-", "SIGUSR2"), "it goes on")
    noted = [(one.by, one.where, one.verb, one.words, one.what) for one in desk.admin.changes.last(3)]
    assert noted == [
        ("-", "SIGUSR2", "upgrade", ("upgrade",), "it goes on"),
        ("bob", "ssh from 10.0.0.9", "upgrade", ("upgrade",), over_ssh["text"]),
        ("alice", "admin socket", "upgrade", ("upgrade",), answer["text"]),
    ]
    # all of it is kept before other code goes on
    assert desk.kept[-1] == (Decisions(), 3)


def test_an_upgrade_that_is_none() -> None:
    desk = Desk()
    for reasons, said in [
        ("an upgrade is under way already", "not upgraded: an upgrade is under way already"),
        ("x.yaml:1: no\nx.yaml:2: nor this", "not upgraded:\nx.yaml:1: no\nx.yaml:2: nor this"),
    ]:
        desk.no_upgrade = UpgradeError(reasons)
        assert wrong(desk, "upgrade") == said


def test_log() -> None:
    desk = Desk()
    assert desk.text("log") == "the log has what changes too (info)"
    assert len(desk.admin.changes) == 0
    try:
        assert desk.text("log", "debug") == "the log has each job too (debug)"
        assert desk.each_job
        assert desk.text("log", "warn") == "the log has only what goes wrong (warn)"
        assert not desk.each_job
    finally:
        desk.say("log", "info")


def test_what_cannot_be_kept_is_said() -> None:
    desk = Desk()
    desk.why_not = "/var/lib/distbal: no space left on device"
    answer = desk.say("drain", "fast")
    assert answer["text"] == "fast is drained"
    assert answer["warnings"] == ["it holds until a restart, since /var/lib/distbal: no space left on device"]


def test_each_verb_is_done_by_a_method_of_its_name() -> None:
    admin = Desk().admin
    for name in VERBS:
        assert callable(getattr(admin, f"_{name}"))


def test_the_verbs_that_change_something_are_those_that_are_noted() -> None:
    desk = Desk(Farm((*FILE.hosts, spec("more", 1, 3))))
    examples = {
        "drain": "fast", "down": "fast", "up": "fast", "ready": "fast", "slots": "fast 3", "weight": "fast 0.5",
        "rank": "fast after slow", "add": "new 3", "remove": "more", "kick": "10.0.0.9", "reload": "", "log": "info",
            "upgrade": "",
    }  # fmt: skip
    desk.job()
    for name, verb in VERBS.items():
        before = len(desk.admin.changes)
        if verb.changes:
            desk.say(name, *examples[name].split())
            assert [change.verb for change in desk.admin.changes.last(1)] == [name]
        assert len(desk.admin.changes) == before + verb.changes
    assert {change.by for change in desk.admin.changes} == {ALICE.name}


# -- what must not go wrong silently


def test_kick_0_is_nobody() -> None:
    desk = Desk()
    first, _ = desk.job()
    assert wrong(desk, "kick", "0").startswith('no client "0" has a slot')
    assert first.losses == []


@pytest.mark.parametrize("words", [("drain", "fast", "broken"), ("weight", "fast", "0")])
def test_a_host_that_comes_back_while_its_last_job_runs_brings_no_decision_back(words: tuple[str, ...]) -> None:
    desk = Desk()
    desk.job()
    desk.say(*words)
    desk.say("remove", "fast")
    desk.say("add", "fast", "4")
    assert (desk.hosts()["fast"]["state"], desk.hosts()["fast"]["weight"]) == ("ready", 1.0)
    desk.say(*words)
    desk.admin.file_changed(Farm(FILE.hosts[1:]))
    desk.admin.file_changed(FILE)
    assert (desk.hosts()["fast"]["state"], desk.hosts()["fast"]["differs"]) == ("ready", [])
    assert desk.job()[0].host == "fast"


def test_a_mistyped_name_is_compared_with_few_of_many() -> None:
    desk = Desk(Farm(tuple(spec(f"box{number}", 1, number) for number in range(5000))))
    assert wrong(desk, "drain", "box499x").endswith(("did you mean box4999?", "did you mean box499?"))


def test_a_file_that_names_only_what_was_removed_is_told_of() -> None:
    desk = Desk()
    desk.say("remove", "slow")
    desk.admin.file_changed(Farm((spec("slow", 2, 0),)))
    assert desk.order() == []
    assert desk.say("reload")["warnings"] == [
        "no host is left, and nobody is served: people removed all that the file names; add brings one back"
    ]
    assert desk.text("add", "slow", "2") == "slow is in the farm, with 2 slots, where the file has it"


def test_up_says_what_else_keeps_jobs_away() -> None:
    desk = Desk()
    desk.say("weight", "fast", "0")
    desk.say("drain", "fast")
    desk.leases.report("fast", "disk", up=False, reason="")
    assert desk.text("up", "fast") == "fast is ready, and yet gets no jobs: disk says so; admin gives it weight 0"
