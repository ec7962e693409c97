"""The daemon's other faces, opened and closed by its file: the page, the admin socket, the manhole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import pytest_twisted

from tests.manholes import run
from tests.services import Balancer, Lines, balancer, connect, said
from tests.sshd import Keys
from tests.support import LoggedErrors, need

HOSTS = "hosts: [alpha/1, beta/1]\n"


def text(directory: Path, **listen: str) -> str:
    places = {"balance": "127.0.0.1:0", "status": "null", "update": "null", "web": "null", "admin": "null", **listen}
    listed = ", ".join(f"{kind}: {place if place == 'null' else repr(place)}" for kind, place in places.items())
    keys = f"{{authorized_keys: {directory}/authorized_keys, host_key: {directory}/host_key}}"
    return f"{HOSTS}listen: {{{listed}}}\nmanhole: {keys}\n"


async def get(one: Balancer, path: str) -> bytes:
    client = await connect(one.port("web"))
    client.transport.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    await client.ends()
    return client.heard


@pytest_twisted.ensureDeferred
async def test_the_web_port_comes_and_goes_with_the_file(tmp_path: Path) -> None:
    async with balancer(tmp_path, text(tmp_path)) as one:
        assert await one.reload(text(tmp_path, web="127.0.0.1:0"))
        assert (await get(one, "/")).startswith(b"HTTP/1.1 200 OK\r\n")
        head, _, body = (await get(one, "/api/v1/status")).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        status = json.loads(body)
        assert status["ports"]["web"] == [f"127.0.0.1:{one.port('web')}"]
        assert (await get(one, "/healthz")).startswith(b"HTTP/1.1 200 OK\r\n")
        page = await connect(one.port("web"))
        page.transport.write(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await one.reload(text(tmp_path))
        # nobody is told anything any more by a port that is closed
        await page.ends()
        assert "web" not in one.ports
        assert await one.reload(text(tmp_path, web="127.0.0.1:0"))
        assert (await get(one, "/healthz/live")).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest_twisted.ensureDeferred
async def test_who_may_read_the_page_is_a_matter_of_the_file(tmp_path: Path) -> None:
    async with balancer(tmp_path, text(tmp_path, web="127.0.0.1:0")) as one:
        assert await one.reload(text(tmp_path, web="127.0.0.1:0") + "allow: {web: [10.0.0.0/8]}\n")
        with Lines() as log:
            assert await get(one, "/") == b""
        assert "127.0.0.1 is not in allow.web (10.0.0.0/8): turned away" in log


@pytest.mark.programs
@pytest_twisted.ensureDeferred
async def test_the_manhole_opens_by_a_reload_and_goes_by_the_keys_of_the_file(tmp_path: Path, keys: Keys) -> None:
    need("ssh")
    pytest.importorskip("bcrypt", reason="Twisted Conch's libraries are not here: pip install 'distbal[ssh]'")
    (tmp_path / "authorized_keys").write_text("# nobody yet\n")
    (tmp_path / "authorized_keys").chmod(0o600)
    async with balancer(tmp_path, text(tmp_path)) as one:
        with Lines() as log:
            assert await one.reload(text(tmp_path, manhole="127.0.0.1:0"))
        assert "manhole: its host key is SHA256:" in log
        assert (tmp_path / "host_key").stat().st_mode & 0o777 == 0o600
        ssh = ["ssh", "-F", "none", "-p", str(one.port("manhole")), "-i", str(keys.private("user_ed25519"))]
        for option in ("BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=accept-new"):
            ssh += ["-o", option]
        ssh += ["-o", f"UserKnownHostsFile={tmp_path}/known"]
        drain = [*ssh, "admin@127.0.0.1", "drain", "alpha", "fan broken"]
        refused = await run(drain)
        assert (refused.status, one.hosts()["alpha"].admin) == (255, "ready")
        other = tmp_path / "others"
        other.write_text(keys.public("user_ed25519") + "\n")
        other.chmod(0o600)
        moved = text(tmp_path, manhole="127.0.0.1:0").replace(f"{tmp_path}/authorized_keys", str(other))
        assert await one.reload(moved)
        done = await run(drain)
        assert (done.status, done.out) == (0, "alpha is drained: fan broken\n")
        assert one.hosts()["alpha"].decided == "fan broken"


@pytest.mark.programs
@pytest_twisted.ensureDeferred
async def test_a_manhole_without_a_place_for_its_key_is_told(tmp_path: Path, logged_errors: LoggedErrors) -> None:
    pytest.importorskip("bcrypt", reason="Twisted Conch's libraries are not here: pip install 'distbal[ssh]'")
    async with balancer(tmp_path, text(tmp_path)) as one:
        wanted = text(tmp_path, manhole="127.0.0.1:0").replace(f"{tmp_path}/host_key", f"{tmp_path}/no/such/key")
        assert await one.reload(wanted)
        assert said(logged_errors) == [
            f"there is no directory {tmp_path}/no/such for the manhole's host key: make it, or set manhole.host_key"
        ]
        assert "manhole" not in one.ports
        client = await one.client()
        await client.hears(b"alpha\r\n")
        await client.leave()
        await one.await_leases(0)
