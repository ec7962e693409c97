"""Who is not in ``allow`` gets nothing: at every port, however it is listened on; and what the defaults are.

The strangers are on this machine: they come from 127.0.0.2, or by IPv6, and only 127.0.0.1 is let in.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.protocol import Factory

from distbal import config, yamlfile
from distbal.listenspec import KINDS
from tests.peers import with_ipv6
from tests.services import Balancer, Client, Lines, balancer, connect, until

FRIEND, STRANGER = "127.0.0.1", "127.0.0.2"
#: what somebody would say who wants something: each alone, on a connection of its own
SAID: dict[str, list[bytes]] = {
    "balance": [b"", b"anything\r\n"],
    "status": [b"", b"GET / HTTP/1.0\r\n\r\n"],
    "update": [b"alpha down\r\n", b"alpha down"],
    # one that says nothing waits in the kernel for a while
    "proxy": [b"DIST00000001ARGC00000000"],
    "web": [
        *(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode() for path in ("/", "/api/v1/status", "/metrics", "/healthz/live")),
        b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /api/v1/hosts HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    ],
}
KEY = {"balance": "clients", "status": "clients", "proxy": "clients", "update": "update", "web": "web"}
WAYS = {
    "tcp": "127.0.0.1:0",
    "every address": "0",
    "endpoint": "tcp:0:interface=127.0.0.1",
    "endpoint of IPv6": r"tcp6:0:interface=\:\:",
    "wrapped endpoint": "haproxy:tcp:0:interface=127.0.0.1",
}


def text(place: str, allow: str = f"[{FRIEND}]") -> str:
    # no endpoint may stand twice
    more = [f":backlog={number}" if "interface" in place else "" for number, _ in enumerate(SAID, 100)]
    places = ", ".join(f"{kind}: '{place}{own}'" for kind, own in zip(SAID, more, strict=True))
    return (
        f"hosts: [alpha/4]\nlisten: {{{places}, admin: null}}\n"
        f"allow: {{clients: {allow}, update: {allow}, web: {allow}}}\nstate: null\n"
    )


async def comes(one: Balancer, kind: str, source: str) -> Client:
    # an endpoint listens a moment later
    await until(lambda: bool(one.port(kind)), "a port")
    port, made = one.port(kind), Factory.forProtocol(Client)
    if ":" in source:
        endpoint: Any = TCP6ClientEndpoint(reactor, "::1", port)  # type: ignore[no-untyped-call]
    else:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port, bindAddress=(source, 0))
    return cast("Client", await endpoint.connect(made))


async def assert_turned_away(one: Balancer, kind: str, source: str) -> None:
    for said in SAID[kind]:
        client = await comes(one, kind, source)
        client.transport.write(said)
        await client.ends()
        assert client.heard == b""
    assert one.counts() == (0, 0)
    assert one.hosts()["alpha"].available


@pytest.mark.parametrize("kind", SAID)
@pytest.mark.parametrize("way", WAYS)
@pytest_twisted.ensureDeferred
async def test_a_stranger_hears_nothing_and_changes_nothing(tmp_path: Path, way: str, kind: str) -> None:
    async with balancer(tmp_path, text(WAYS[way])) as one:
        with Lines() as lines:
            await assert_turned_away(one, kind, STRANGER)
        assert [line for line in lines.of("warn") if line.startswith(STRANGER)], lines.all
        friend = await comes(one, kind, FRIEND)
        if way != "wrapped endpoint":
            # there nobody speaks before it was told whom it stands for
            friend.transport.write(SAID[kind][0])
            if kind == "update":
                await until(lambda: not one.hosts()["alpha"].available, "what a friend said")
            elif kind == "proxy":
                await until(lambda: one.service.leases.snapshot().counts["asked"] >= 1, "a friend's job")
            else:
                await until(lambda: bool(friend.heard), "an answer")
        await friend.leave()
        await one.await_leases(0)


@with_ipv6
@pytest.mark.parametrize("kind", SAID)
@pytest.mark.parametrize("way", ["every address", "endpoint of IPv6"])
@pytest_twisted.ensureDeferred
async def test_by_ipv6_they_are_strangers_too(tmp_path: Path, way: str, kind: str) -> None:
    """An IPv4 address does not let in the IPv6 address of the same machine; nor does ::/0 let in IPv4, in either spelling."""
    async with balancer(tmp_path, text(WAYS[way])) as one:
        await assert_turned_away(one, kind, "::1")
        assert await one.reload(text(WAYS[way], "['::/0']"))
        await assert_turned_away(one, kind, FRIEND)
        friend = await comes(one, kind, "::1")
        friend.transport.write(SAID[kind][0])
        if kind in ("balance", "status", "web"):
            await until(lambda: bool(friend.heard), "an answer")
        await friend.leave()
        await one.await_leases(0)


@pytest.mark.parametrize("allow", ["[10.0.0.0/8]", "['::1']", "[private]"])
@pytest_twisted.ensureDeferred
async def test_a_list_that_names_others_lets_nobody_of_here_in(tmp_path: Path, allow: str) -> None:
    async with balancer(tmp_path, text("127.0.0.1:0", allow)) as one:
        for kind in SAID:
            await assert_turned_away(one, kind, FRIEND)


@pytest.mark.parametrize("form", ["unix:{}", "unix:{}:mode=600"], ids=["ours", "endpoint"])
@pytest_twisted.ensureDeferred
async def test_a_unix_socket_has_a_mode_instead(tmp_path: Path, form: str) -> None:
    """Clients' sockets are for every account, what changes something for the group; an endpoint has the mode it asks for."""
    paths = {kind: tmp_path / kind for kind in SAID}
    places = ", ".join(f"{kind}: '{form.format(path)}'" for kind, path in paths.items())
    admin = tmp_path / "admin"
    allow = ", ".join(f"{key}: [10.0.0.0/8]" for key in ("clients", "update", "web"))
    file = f"hosts: [alpha/4]\nlisten: {{{places}, admin: 'unix:{admin}'}}\nallow: {{{allow}}}\n"
    async with balancer(tmp_path, file) as one:
        await until(lambda: all(path.exists() for path in paths.values()), "the sockets")
        modes = {kind: stat.S_IMODE(path.stat().st_mode) for kind, path in paths.items()}
        usual = {"balance": 0o666, "status": 0o666, "proxy": 0o666, "web": 0o666, "update": 0o660}
        assert modes == (usual if form == "unix:{}" else dict.fromkeys(SAID, 0o600))
        assert stat.S_IMODE(admin.stat().st_mode) == 0o660
        client = await connect(str(paths["balance"]))
        await client.hears(b"alpha\r\n")
        await client.leave()
        await one.await_leases(0)


@pytest_twisted.ensureDeferred
async def test_who_was_let_in_may_hold_the_farm_until_it_is_kicked(tmp_path: Path) -> None:
    """There is no password on 5656; docs/operations.md says what to do about it."""
    everybody = text("127.0.0.1:0", "[loopback]").replace("admin: null", f"admin: 'unix:{tmp_path}/admin'")
    async with balancer(tmp_path, everybody) as one:
        greedy = [await comes(one, "balance", STRANGER) for _ in range(6)]
        await one.await_leases(4)
        honest = await comes(one, "balance", FRIEND)
        await one.await_waiters(3)
        # it is asked for its slots back, and whoever waits has its turn before more of the same address
        await said_by_an_admin(tmp_path / "admin", "kick", STRANGER)
        await honest.hears(b"alpha\r\n")
        for client in greedy:
            await client.ends()

        back = await comes(one, "balance", STRANGER)
        await until(lambda: bool(back.heard), "a slot")
        # a changed list counts from the next connection on
        assert await one.reload(everybody.replace("[loopback]", f"[{FRIEND}]"))
        await assert_no_more(one, STRANGER)
        assert not back.over
        await said_by_an_admin(tmp_path / "admin", "kick", STRANGER)
        await back.ends()
        await assert_no_more(one, STRANGER)
        assert one.counts() == (1, 0)
        await honest.leave()
        await one.await_leases(0)


async def assert_no_more(one: Balancer, source: str) -> None:
    client = await comes(one, "balance", source)
    await client.ends()
    assert client.heard == b""


async def said_by_an_admin(path: Path, *words: str) -> None:
    client = await connect(str(path))
    client.transport.write(json.dumps({"words": words}).encode() + b"\n")
    await until(lambda: client.heard.endswith(b"\n"), "an answer")
    assert json.loads(client.heard)["ok"] is True, client.heard
    await client.leave()


def test_by_default_what_changes_something_is_for_this_machine_alone() -> None:
    settings = config.read("hosts.yaml", yamlfile.parse("hosts.yaml", "hosts: [alpha/4]\n")).settings
    places = {kind: [one.at for one in settings.listen if one.kind == kind] for kind in KINDS}
    (update,), (admin,) = places["update"], places["admin"]
    assert (update.kind, update.host) == ("tcp", "127.0.0.1")
    assert settings.allow["update"].words == ("loopback",)
    assert (admin.kind, admin.path) == ("unix", "/run/distbal/admin.sock")
    assert places["manhole"] == []
    assert places["proxy"] == []
    internet = ("8.8.8.8", "100.64.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "?")
    for key, allowed in settings.allow.items():
        assert not any(allowed.allows(address) for address in internet), key
    # one that is reachable from elsewhere all the same is told so by the file's own check
    assert not settings.allow["update"].allows("192.168.0.9")
    assert settings.allow["clients"].allows("192.168.0.9")
