"""The daemon, changed while it runs: over its admin socket, with its file, its state and its monitors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from distbal.decisions import Decisions
from tests.services import ONE, Balancer, Lines, balancer, connect, leave, make, until
from tests.support import LoggedErrors, alone

TWO = "hosts: [alpha/1, beta/1]\n"


def text(directory: Path, hosts: str = TWO, more: str = "") -> str:
    """A file whose daemon has an admin socket and a state of its own."""
    (directory / "state").mkdir(exist_ok=True)
    at = f"balance: '127.0.0.1:0', status: '127.0.0.1:0', update: '127.0.0.1:0', admin: 'unix:{directory}/admin'"
    return f"{hosts}listen: {{{at}}}\nstate: {directory}/state\n{more}"


async def say(directory: Path, *words: str) -> Any:
    """The answer to a verb; an AssertionError with the sentence where there is none."""
    caller = await connect(f"{directory}/admin")
    caller.transport.write(json.dumps({"words": words}).encode() + b"\n")
    await until(lambda: caller.heard.endswith(b"\n") or caller.over, "an answer")
    await caller.leave()
    told = json.loads(caller.heard)
    assert told["ok"], told["error"]
    return told["answer"]


def state(one: Balancer, host: str) -> tuple[str, str]:
    found = one.hosts()[host]
    return found.admin, found.decided


@pytest_twisted.ensureDeferred
async def test_what_a_person_decided_survives_a_restart(tmp_path: Path) -> None:
    async with balancer(tmp_path, text(tmp_path)) as one:
        client = await one.client()
        await client.hears(b"alpha\r\n")
        assert (await say(tmp_path, "drain", "alpha", "fan broken"))["text"] == (
            "alpha is drained: fan broken; 1 job still runs there"
        )
        other = await one.client()
        await other.hears(b"beta\r\n")
        await say(tmp_path, "slots", "beta", "3")
        await say(tmp_path, "add", "gamma,lzo", "2", "before", "alpha")
        third = await one.client()
        await third.hears(b"gamma,lzo\r\n")
        await leave(one, client, other, third)
    with Lines() as log:
        async with balancer(tmp_path, text(tmp_path)) as one:
            assert state(one, "alpha") == ("drain", "fan broken")
            assert [(name, host.spec.slots) for name, host in one.hosts().items()] == [("gamma", 2), ("alpha", 1), ("beta", 3)]
            assert "taken out: alpha (fan broken); 3 more decided by hand" in log
            changes = (await say(tmp_path, "history"))["changes"]
            assert [change["verb"] for change in changes] == ["add", "slots", "drain"]
            await say(tmp_path, "up", "alpha")
    async with balancer(tmp_path, text(tmp_path)) as one:
        assert state(one, "alpha") == ("ready", "")


@pytest_twisted.ensureDeferred
async def test_a_change_holds_until_that_very_key_changes_in_the_file(tmp_path: Path) -> None:
    async with balancer(tmp_path, text(tmp_path)) as one:
        await say(tmp_path, "slots", "beta", "3")
        await say(tmp_path, "drain", "beta")
        assert await one.reload(text(tmp_path, "hosts: [alpha/5, beta/1]\n"))
        assert [host.spec.slots for host in one.hosts().values()] == [5, 3]
        assert await one.reload(text(tmp_path, "hosts: [alpha/5, beta/2]\n"))
        assert [host.spec.slots for host in one.hosts().values()] == [5, 2]
        assert state(one, "beta") == ("drain", "")
        (beta,) = (await say(tmp_path, "hosts", "beta"))["hosts"]
        assert [one["key"] for one in beta["differs"]] == ["admin"]


@pytest_twisted.ensureDeferred
async def test_reload_by_verb_says_what_is_wrong_with_the_file(tmp_path: Path, logged_errors: LoggedErrors) -> None:
    async with balancer(tmp_path, text(tmp_path)) as one:
        one.file.write_text("hosts: [alpha/0]\n")
        with pytest.raises(AssertionError, match=r"the file was not taken in.*\n.*hosts.yaml:1: .*at least 1 slot"):
            await say(tmp_path, "reload")
        logged_errors.flush()
        one.file.write_text(alone(text(tmp_path, "hosts: [alpha/4]\n")))
        assert (await say(tmp_path, "reload"))["text"] == "the file was taken in"
        assert [host.spec.slots for host in one.hosts().values()] == [4]


@pytest_twisted.ensureDeferred
async def test_export_is_a_file_that_keeps_the_state(tmp_path: Path) -> None:
    written = text(tmp_path, "hosts:   # of the cellar\n  - alpha/1\n  - beta/1\n")
    async with balancer(tmp_path, written) as one:
        await say(tmp_path, "slots", "beta", "7")
        await say(tmp_path, "add", "gamma", "2", "before", "alpha")
        before = one.service.leases.scheduler.farm
        exported = (await say(tmp_path, "export"))["file"]
        assert "# of the cellar" in exported
        assert one.file.read_text() == alone(written)
        assert await one.reload(exported)
        assert one.service.leases.scheduler.farm == before
        assert all(not host["differs"] for host in (await say(tmp_path, "hosts"))["hosts"])


@pytest_twisted.ensureDeferred
async def test_an_added_host_is_asked_by_what_asks_every_host(tmp_path: Path) -> None:
    more = "monitors: {tcp: {interval: 1, timeout: 1, fall: 1}}\n"
    hosts = "hosts:\n  - name: alpha\n    monitors: {tcp: false}\n  - name: beta\n    monitors: {tcp: false}\n"
    async with balancer(tmp_path, text(tmp_path, hosts, more)) as one:
        assert one.service.monitors.states() == ()
        await say(tmp_path, "add", "gamma", "2", "address", "127.0.0.1:1")
        await until(lambda: not one.hosts()["gamma"].up, "a verdict")
        assert [watch.host for watch in one.service.monitors.states()] == ["gamma"]
        await say(tmp_path, "remove", "gamma")
        assert one.service.monitors.states() == ()


@pytest_twisted.ensureDeferred
async def test_two_daemons_do_not_share_a_state(tmp_path: Path) -> None:
    async with balancer(tmp_path, text(tmp_path)):
        other = tmp_path / "other"
        other.mkdir()
        (other / "hosts.yaml").write_text(text(other, more="").replace(f"{other}/state", f"{tmp_path}/state"))
        with pytest.raises(SystemExit, match=f"distbal: another distbal uses the state directory {tmp_path}/state"):
            make(other / "hosts.yaml")


def test_a_state_that_cannot_be_understood_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "hosts.yaml"
    file.write_text(alone(text(tmp_path).replace(f"'unix:{tmp_path}/admin'", "null")))
    (tmp_path / "state" / "decisions.json").write_text('{"version": 1, "decis')
    with pytest.raises(SystemExit, match=r"decisions.json.*move it away"):
        make(file)


def test_a_state_directory_that_cannot_be_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "hosts.yaml"
    file.write_text(alone(f"{ONE}state: {tmp_path}/no/such\n"))
    with pytest.raises(SystemExit, match=f"the state directory {tmp_path}/no/such cannot be had: no such file or directory"):
        make(file)


@pytest_twisted.ensureDeferred
async def test_a_disk_that_is_full_is_told(tmp_path: Path, logged_errors: LoggedErrors) -> None:
    async with balancer(tmp_path, text(tmp_path)) as one:
        for name in ("decisions.json", "decisions.json.new"):
            (tmp_path / "state" / name).mkdir()  # as good as one: nothing can be written there
        answer = await say(tmp_path, "drain", "alpha")
        assert state(one, "alpha")[0] == "drain"
        assert answer["warnings"][0].startswith(f"it holds until a restart, since {tmp_path}/state/decisions.json")
        assert len(logged_errors.flush()) == 1


@pytest_twisted.ensureDeferred
async def test_jobs_are_logged_when_somebody_wants_it(tmp_path: Path) -> None:
    async with balancer(tmp_path, text(tmp_path)) as one:
        for level, logged in (("info", False), ("debug", True), ("warn", False), ("info", False)):
            await say(tmp_path, "log", level)
            with Lines() as log:
                client = await one.client()
                await client.hears(b"alpha\r\n")
                await leave(one, client)
            assert any("127.0.0.1" in line and "alpha" in line for line in log.of("info")) is logged, level


@pytest_twisted.ensureDeferred
async def test_kick_on_the_wire(tmp_path: Path) -> None:
    async with balancer(tmp_path, text(tmp_path, ONE)) as one:
        first = await one.client()
        await first.hears(b"alpha\r\n")
        second = await one.client(waits_behind=0)
        lease = one.service.leases.snapshot().leases[0]
        await say(tmp_path, "kick", f"127.0.0.1:{lease.port}")
        await first.ends()
        await second.hears(b"alpha\r\n")
        await say(tmp_path, "kick", "127.0.0.1")
        await second.ends()
        await one.await_leases(0)


@pytest.mark.skipif(
    any(Path(path).exists() for path in ("/run/distbal", "/var/lib/distbal")), reason="a distbal is installed on this machine"
)
@pytest_twisted.ensureDeferred
async def test_the_default_socket_and_state_are_done_without(tmp_path: Path) -> None:
    file = tmp_path / "hosts.yaml"
    file.write_text(f"{ONE}listen: {{balance: 'unix:{tmp_path}/balance', status: null, update: null, web: null}}\n")
    with Lines() as log:
        service = make(file)
    assert log.of("warn")[-2:] == [
        "the state directory /var/lib/distbal cannot be had: no such file or directory; decisions hold until a restart",
        "cannot listen on unix:/run/distbal/admin.sock: No such file or directory; distbal does without it (listen.admin)",
    ]
    service.startService()
    await service.stopService()


@pytest_twisted.ensureDeferred
async def test_what_no_file_can_say_is_told_as_a_sentence(tmp_path: Path) -> None:
    async with balancer(tmp_path, text(tmp_path)) as one:
        await say(tmp_path, "remove", "alpha")
        assert await one.reload(text(tmp_path, "hosts: [alpha/1]\n"))
        with pytest.raises(AssertionError, match="every host was removed, and a hosts"):
            await say(tmp_path, "export")


@pytest_twisted.ensureDeferred
async def test_reload_by_verb_says_what_is_doubtful_of_the_file(tmp_path: Path) -> None:
    elsewhere = text(tmp_path).replace(f"state: {tmp_path}/state", f"state: {tmp_path}/other")
    async with balancer(tmp_path, text(tmp_path)) as one:
        assert await say(tmp_path, "reload") == {"text": "the file was taken in"}
        one.file.write_text(alone(elsewhere + "queue: {wait: 0.1}\n"))
        for _ in range(2):
            told = await say(tmp_path, "reload")
            assert f"state is {tmp_path}/state until a restart, and from then on where the file says" in told["warnings"]
        one.file.write_text(alone(text(tmp_path)))
        assert await say(tmp_path, "reload") == {"text": "the file was taken in"}


@pytest_twisted.ensureDeferred
async def test_many_exports_leave_threads_for_others(tmp_path: Path) -> None:
    async with balancer(tmp_path, text(tmp_path)) as one:
        exports = [one.service.export(Decisions()) for _ in range(40)]
        assert len(one.service._exporting.waiting) == 39
        await say(tmp_path, "drain", "alpha")
        assert all(["hosts: [alpha/1, beta/1]" in await export for export in exports])
