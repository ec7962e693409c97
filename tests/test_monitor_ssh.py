"""The ``ssh`` kind against Debian's sshd: what it reads, and what it says of everything that can be wrong."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pydantic import ValidationError
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.protocol import Factory, Protocol
from zope.interface.verify import verifyObject

from distbal.errors import MonitorTrouble
from distbal.hosts import Farm
from distbal.interfaces import IHostMonitor, IHostMonitorFactory, Reading, Target
from distbal.leases import LocalLeases
from distbal.loads import CpuTimes
from distbal.lookup import Lookup, SystemResolver
from distbal.monitors.hostkeys import KnownHosts
from distbal.monitors.kit import Surroundings
from distbal.monitors.slots import Slots
from distbal.monitors.ssh import COMMAND, Look, SshKind, SshMonitor, SshOptions, parse
from distbal.monitors.sshlink import Files, SshLink
from distbal.scheduler import Scheduler
from tests.farms import spec
from tests.services import until
from tests.sshd import KINDS, USER, Keys, Sshd, agent, keygen, make_keys
from tests.support import free_port, need

pytest.importorskip("bcrypt", reason="Conch needs bcrypt, which is not installed here")
programs = pytest.mark.programs

NAME = "alpha:3632"
#: how a check ends that was cancelled
GIVEN_UP = (CancelledError, ConnectingCancelledError)


def target(host: str = "127.0.0.1") -> Target:
    return Target(NAME, host, 3632)


def surroundings() -> Surroundings:
    leases = LocalLeases(Scheduler(Farm((spec(NAME, 4),))), reactor)
    return Surroundings(reactor, Lookup(reactor, SystemResolver(reactor)), Slots(leases))


# -- what a host answers


@pytest.mark.parametrize(
    ("answer", "look"),
    [
        (
            b"cpu  1 2 3 4 5 6 7 8 9 10\n0.10 1.20 3.45 1/88 1998\n2\n",
            Look(CpuTimes(1, 2, 3, 4, 5, 6, 7, 8), 0.1, 2),
        ),
        (b"Welcome!\ncpu  1 2 3 4\n3.00 1.20 3.45 1/88 1998\n128\nbye\n", Look(CpuTimes(1, 2, 3, 4), 3.0, 128)),
        (b"0.10 1.20 3.45 1/88 1998\n0\n", Look(None, 0.1, None)),
        (b"cpu  one two three four\n0.10 1.20 3.45 1/88 1998\n4", Look(None, 0.1, 4)),
        (b"cpu  1 2 3 4\n", Look(CpuTimes(1, 2, 3, 4))),
        (b"cpu  1 2 3\n", None),
        (b"cpu  " + b"9" * 4000 + b" 2 3 4\n2\n", Look(CpuTimes(int("9" * 4000), 2, 3, 4), None, 2)),
        (b"4\n", None),
        (b"inf 1.20 3.45 1/88 1998\n2\n", None),
        (b"\xff\xfe\0\n", None),
        (b"", None),
    ],
)
def test_what_a_host_answers(answer: bytes, look: Look | None) -> None:
    assert parse(answer) == look


@programs
def test_the_command_prints_what_is_read() -> None:
    need("sshd")
    with os.popen(COMMAND) as pipe:  # noqa: S605 - as the other shell takes it
        look = parse(pipe.read().encode())
    assert look is not None
    assert look.times is not None
    assert look.times.user > 0
    assert look.load is not None
    assert look.cpus == len(re.findall(r"^cpu[0-9]", Path("/proc/stat").read_text(), re.MULTILINE))


# -- options


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("user", "", "is no name of a user"),
        ("user", "-oProxyCommand=x", "is no name of a user"),
        ("user", 5, "is no text"),
        ("port", 0, "a port is 1 to 65535, not 0"),
        ("port", "22", "a number has no quotes"),
        ("key", "id_ed25519", "a path is absolute, or begins with ~/"),
        ("key", "~other/.ssh/id_ed25519", "a path is absolute"),
        ("key", "/a\nb", "a path is absolute"),
        ("known_hosts", None, "a path is absolute"),
        ("agent", "yes", "is neither true nor false"),
        ("weight_by", "load", "none of cpu, loadavg"),
        ("password", "secret", "Extra inputs are not permitted"),
    ],
)
def test_options_that_are_wrong(key: str, value: object, words: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(words)):
        SshOptions.model_validate({key: value})


def test_options_that_are_left_out() -> None:
    options = SshOptions()
    assert (options.interval, options.timeout, options.user, options.port) == (15, 10, "distbal", 22)
    assert (options.key, options.agent, options.known_hosts) == (None, False, "~/.ssh/known_hosts")
    assert options.weight_by == "cpu"


def test_a_kind_keeps_the_contract() -> None:
    kind = SshKind()
    verifyObject(IHostMonitorFactory, kind)
    verifyObject(IHostMonitor, kind.monitor(target(), SshOptions(), surroundings()))
    assert kind.why_unavailable() == ""
    assert not kind.silence_is_down


# -- against a real server


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    need("sshd", "ssh-keygen", "ssh-agent")
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def sshd(tmp_path: Path, keys: Keys) -> Iterator[Sshd]:
    """A server that is not started yet, and whose ed25519 key is known."""
    server = Sshd(tmp_path, keys)
    server.know("ed25519")
    yield server
    server.stop()


@asynccontextmanager
async def asking(options: SshOptions, host: str = "127.0.0.1") -> AsyncIterator[SshMonitor]:
    monitor = SshKind().monitor(target(host), options, surroundings())
    try:
        yield monitor
    finally:
        await until_done(monitor.stop())


async def until_done(stopped: Deferred[None] | None) -> None:
    if stopped is not None:
        await stopped


async def trouble(monitor: SshMonitor) -> str:
    """What the monitor says when it cannot do its work, in one line that is not cut."""
    with pytest.raises(MonitorTrouble) as caught:
        await monitor.check()
    words = str(caught.value)
    assert words.isprintable()
    return words


async def trouble_with(options: SshOptions, host: str = "127.0.0.1") -> str:
    async with asking(options, host) as monitor:
        return await trouble(monitor)


def running(monitor: SshMonitor) -> Deferred[Reading]:
    return ensureDeferred(monitor.check())


@programs
@pytest_twisted.ensureDeferred
async def test_a_host_is_weighed_over_one_kept_connection(sshd: Sshd, descriptors_stay: None) -> None:
    await sshd.start()
    cpus = os.cpu_count()
    async with asking(sshd.options()) as monitor:
        first = await monitor.check()
        assert (first.up, first.weight, first.facts["cpus"]) == (True, None, cpus)
        assert first.reason == "has told its CPU times, and with the next ones a share can be said"
        for _ in range(5):
            reading = await monitor.check()
        await until(lambda: sshd.logins > 0)
        assert sshd.logins == 1
        assert sshd.log.count("Starting session") == 6
    assert reading.weight is not None
    assert 0.0 <= reading.weight <= 1.0
    assert set(reading.facts) == {"load", "cpus", "share", "by"} or reading.facts["by"] == "loadavg"
    await until(lambda: "Received disconnect" in sshd.log, "a connection that is closed in order")


@programs
@pytest_twisted.ensureDeferred
async def test_a_host_is_weighed_by_its_load_average(sshd: Sshd) -> None:
    await sshd.start()
    async with asking(sshd.options(weight_by="loadavg")) as monitor:
        reading = await monitor.check()
    assert reading.weight is not None
    assert re.fullmatch(r"has a load of [0-9.]+ on [0-9]+ CPUs?, 0 of it ours: [0-9]+% is left for us", reading.reason)
    assert set(reading.facts) == {"load", "cpus", "share", "by", "ours"}


@programs
@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_keys_of_every_type_log_in(sshd: Sshd, kind: str) -> None:
    await sshd.start()
    async with asking(sshd.options(key=str(sshd.keys.private(f"user_{kind}")))) as monitor:
        assert (await monitor.check()).up


@programs
@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_a_server_is_asked_for_the_key_that_is_known(sshd: Sshd, kind: str) -> None:
    await sshd.start()
    sshd.know(kind)
    async with asking(sshd.options()) as monitor:
        assert (await monitor.check()).up


@programs
@pytest_twisted.ensureDeferred
async def test_known_hosts_may_be_hashed(sshd: Sshd) -> None:
    await sshd.start()
    keygen("-H", "-f", str(sshd.known_hosts))
    assert "127.0.0.1" not in sshd.known_hosts.read_text()
    before = sshd.known_hosts.read_bytes()
    async with asking(sshd.options()) as monitor:
        assert (await monitor.check()).up
    assert sshd.known_hosts.read_bytes() == before


@programs
@pytest_twisted.ensureDeferred
async def test_a_host_that_is_not_known(sshd: Sshd) -> None:
    await sshd.start()
    sshd.know("ed25519", name="other.invalid")
    async with asking(sshd.options()) as monitor:
        words = await trouble(monitor)
        print_of_key = keygen("-l", "-f", str(sshd.keys.private("host_ed25519"))).split()[1]
        assert words == (
            f"has a host key that is not known: ssh-keyscan -p {sshd.port} 127.0.0.1 >>{sshd.known_hosts} adds it;"
            f" compare it first: ssh-ed25519 {print_of_key}"
        )
        sshd.know("ed25519")
        assert (await monitor.check()).up, "the file is read again"


@programs
@pytest_twisted.ensureDeferred
async def test_a_host_whose_key_has_changed(sshd: Sshd, tmp_path: Path) -> None:
    sshd.know("ed25519")
    keygen("-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "host_ed25519"))
    sshd.keys = Keys(tmp_path)
    sshd.host_kinds, sshd.user_keys = ("ed25519",), ()
    await sshd.start()
    words = await trouble_with(sshd.options(key=str(tmp_path / "host_ed25519")))
    assert words.startswith(f"shows another host key than {sshd.known_hosts}:1 has: ssh-ed25519 SHA256:")
    assert words.endswith(f". If that is right, replace the line (ssh-keyscan -p {sshd.port} 127.0.0.1)")
    assert sshd.logins == 0


@programs
@pytest_twisted.ensureDeferred
async def test_a_host_without_a_key_of_the_type_that_is_known(sshd: Sshd) -> None:
    sshd.host_kinds = ("ecdsa",)
    await sshd.start()
    assert "shows another host key" in await trouble_with(sshd.options())


@programs
@pytest_twisted.ensureDeferred
async def test_a_host_key_that_is_revoked(sshd: Sshd) -> None:
    await sshd.start()
    sshd.known_hosts.write_text(sshd.known_hosts.read_text() + "@revoked * " + sshd.keys.public("host_ed25519") + "\n")
    assert f"which {sshd.known_hosts}:2 has revoked" in await trouble_with(sshd.options())


@programs
@pytest_twisted.ensureDeferred
async def test_there_is_no_known_hosts(sshd: Sshd) -> None:
    sshd.known_hosts.unlink()
    words = await trouble_with(sshd.options())
    assert words.startswith(f"cannot be told from an impostor: there is no {sshd.known_hosts}; ssh-keyscan -p {sshd.port}")
    sshd.known_hosts.mkdir()
    assert await trouble_with(sshd.options()) == f"cannot be told from an impostor: {sshd.known_hosts}: is no file"


@programs
@pytest_twisted.ensureDeferred
async def test_a_key_that_is_not_authorized(sshd: Sshd) -> None:
    sshd.user_keys = ("user_rsa",)
    await sshd.start()
    async with asking(sshd.options()) as monitor:
        words = await trouble(monitor)
        key = sshd.keys.private("user_ed25519")
        print_of_key = keygen("-l", "-f", str(key)).split()[1]
        assert words == (
            f"does not let {USER} in with {key} ({print_of_key}): does the user exist, and is that key in its authorized_keys?"
        )
        with (sshd.directory / "authorized_keys").open("a") as file:
            file.write(sshd.keys.public("user_ed25519"))
        assert (await monitor.check()).up


@programs
@pytest_twisted.ensureDeferred
async def test_a_user_who_does_not_exist(sshd: Sshd) -> None:
    await sshd.start()
    assert (await trouble_with(sshd.options(user="nobody-of-that-name"))).startswith(
        "does not let nobody-of-that-name in with "
    )


@programs
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["PubkeyAuthentication no", "PasswordAuthentication yes"], "lets nobody in by key: PubkeyAuthentication"),
        (["AuthenticationMethods publickey,publickey"], "wants more of {user} than a key: publickey"),
        (["MaxSessions 0"], "opens no session for a command (MaxSessions in its sshd_config)"),
        (
            ["Ciphers aes256-gcm@openssh.com,chacha20-poly1305@openssh.com"],
            "has no cipher that distbal speaks: Ciphers +aes256-ctr in its sshd_config would do (aes256-gcm@openssh.com,",
        ),
        (
            ["Ciphers aes256-ctr", "MACs hmac-sha2-256-etm@openssh.com"],
            "has no MAC that distbal speaks: MACs +hmac-sha2-256 in its sshd_config would do (hmac-sha2-256-etm@openssh.com)",
        ),
        (
            ["KexAlgorithms diffie-hellman-group14-sha1"],
            "has no key exchange that distbal speaks: KexAlgorithms +curve25519-sha256 in its sshd_config would do",
        ),
        (["ForceCommand echo no >&2; exit 3"], "ended the command with status 3: no"),
        (["ForceCommand kill -9 $$"], "ended the command by signal KILL"),
        (["ForceCommand printf '\\033[2Jhello\\n'"], "answered neither CPU times nor a load average"),
        (["ForceCommand head -c 1000000 /dev/zero"], "answered with more than 4096 bytes"),
        (["ForceCommand head -c 1000000 /dev/zero >&2; exit 1"], "ended the command with status 1"),
        (["Banner /etc/passwd", "ForceCommand :"], "answered neither CPU times nor a load average"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_server_that_is_not_of_use(sshd: Sshd, settings: list[str], words: str) -> None:
    sshd.settings = settings
    await sshd.start()
    assert (await trouble_with(sshd.options())).startswith(words.format(user=USER))


@pytest_twisted.ensureDeferred
async def test_rsa_keys_sign_with_what_the_server_takes(tmp_path: Path) -> None:
    from distbal.monitors.sshkeys import parsed_key
    from distbal.monitors.sshtalk import Connection, Login, Talk

    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    options = options_without_server(tmp_path, 22, rsa.generate_private_key(65537, 2048))
    assert options.key is not None
    key = Files().read(options.key, 10_000, parsed_key)
    assert key is not None
    for taken, name in [
        ({}, b"rsa-sha2-512"),
        ({b"server-sig-algs": b"ssh-ed25519,rsa-sha2-256,rsa-sha2-512"}, b"rsa-sha2-512"),
        ({b"server-sig-algs": b"ssh-rsa,rsa-sha2-256"}, b"rsa-sha2-256"),
        ({b"server-sig-algs": b"ssh-rsa"}, None),
    ]:
        talk = Talk("127.0.0.1", 22, USER, KnownHosts("", ""), [key])
        talk.peerExtensions = taken
        login = Login(USER, Connection(), [key])  # type: ignore[no-untyped-call]
        login.transport = talk
        assert login._algorithm_of(key) == name
        if name is None:
            login.serviceStarted()
            with pytest.raises(MonitorTrouble, match=r"takes no RSA key that signs with SHA-2 \(PubkeyAcceptedAlgorithms"):
                await talk.run("true", 0)


@programs
@pytest_twisted.ensureDeferred
async def test_keys_are_exchanged_again_in_the_middle(sshd: Sshd) -> None:
    sshd.settings = ["RekeyLimit 1K", "LogLevel DEBUG1"]
    await sshd.start()
    async with asking(sshd.options()) as monitor:
        for _ in range(8):
            assert (await monitor.check()).up
    assert sshd.log.count("rekey") > 2
    assert sshd.logins == 1


# -- keys


@pytest.fixture
def other_key(keys: Keys, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of the user's ed25519 key that is changed somehow."""

    def copy(passphrase: str) -> Path:
        path = tmp_path / "key"
        shutil.copy(keys.private("user_ed25519"), path)
        if passphrase:
            keygen("-q", "-p", "-P", "", "-N", passphrase, "-f", str(path))
        return path

    return copy


@programs
@pytest_twisted.ensureDeferred
async def test_keys_that_cannot_be_used(sshd: Sshd, other_key: Callable[[str], Path], tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert await trouble_with(sshd.options(key=str(missing))) == (
        f"cannot be logged in to: there is no key {missing}; ssh-keygen -t ed25519 -N '' -f {missing} makes one"
    )
    key = other_key("")
    key.chmod(0o640)
    words = f"cannot be logged in to: others may read the private key {key}; chmod 600 {key}"
    assert await trouble_with(sshd.options(key=str(key))) == words
    encrypted = other_key("secret")
    words = await trouble_with(sshd.options(key=str(encrypted)))
    assert words.startswith(f"cannot be logged in to: the key {encrypted} has a passphrase, which nobody is there to type")
    public = sshd.keys.directory / "user_rsa.pub"
    words = await trouble_with(sshd.options(key=str(public)))
    assert words == f"cannot be logged in to: {public} is the public half of a key; key: names the private one"
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n")
    words = f"cannot be logged in to: {key} holds no private key that distbal can read"
    assert await trouble_with(sshd.options(key=str(key))) == words
    key.write_bytes(bytes(100_000))
    assert "is larger than 65536 bytes" in await trouble_with(sshd.options(key=str(key)))
    os.mkfifo(tmp_path / "pipe")
    assert "is no file" in await trouble_with(sshd.options(key=str(tmp_path / "pipe")))


@programs
@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_an_agent_logs_in(sshd: Sshd, kind: str, monkeypatch: pytest.MonkeyPatch, descriptors_stay: None) -> None:
    await sshd.start()
    with agent(sshd.directory, sshd.keys.private(f"user_{kind}")) as socket:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        async with asking(sshd.options(key=None, agent=True)) as monitor:
            assert (await monitor.check()).up
            assert (await monitor.check()).up
    assert sshd.logins == 1


@programs
@pytest_twisted.ensureDeferred
async def test_an_agent_has_the_key_whose_file_cannot_sign(
    sshd: Sshd, other_key: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sshd.user_keys = ("user_ed25519",)
    await sshd.start()
    encrypted = other_key("secret")
    with agent(sshd.directory, *(sshd.keys.private(f"user_{kind}") for kind in ("rsa", "ed25519"))) as socket:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        for key in (encrypted, sshd.keys.directory / "user_ed25519.pub", sshd.keys.private("user_ecdsa")):
            async with asking(sshd.options(key=str(key), agent=True)) as monitor:
                assert (await monitor.check()).up, key
        words = await trouble_with(sshd.options(key=str(sshd.keys.directory / "host_rsa.pub"), agent=True))
        assert words.startswith(f"cannot be logged in to: the agent does not hold {sshd.keys.directory / 'host_rsa.pub'}")


@programs
@pytest_twisted.ensureDeferred
async def test_agents_that_are_of_no_use(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    sshd.user_keys = ("user_ed25519",)
    await sshd.start()
    options = sshd.options(key=None, agent=True)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    assert await trouble_with(options) == "cannot be logged in to: $SSH_AUTH_SOCK is not set, so there is no agent to ask"
    monkeypatch.setenv("SSH_AUTH_SOCK", str(sshd.directory / "nothing"))
    assert (await trouble_with(options)).startswith(f"cannot be logged in to: no agent at {sshd.directory / 'nothing'}")
    with agent(sshd.directory) as socket:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        assert await trouble_with(options) == (
            "cannot be logged in to: the agent at $SSH_AUTH_SOCK holds no key; ssh-add gives it one"
        )
    socket.unlink(missing_ok=True)
    with agent(sshd.directory, *(sshd.keys.private(f"user_{kind}") for kind in ("rsa", "ecdsa"))) as socket:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        assert (await trouble_with(options)).startswith(f"does not let {USER} in with user or 1 more (SHA256:")


# -- connections that go wrong


@pytest.fixture
def gate(sshd: Sshd) -> Path:
    """The server's commands hang until this pipe is opened and closed."""
    path = sshd.directory / "gate"
    os.mkfifo(path)
    sshd.settings = [f"ForceCommand cat {path}"]
    return path


@asynccontextmanager
async def hanging(gate: Path) -> AsyncIterator[None]:
    """A command hangs as long as the block runs."""
    held: list[int] = []

    def is_read() -> bool:
        try:
            held.append(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return False
        return True

    await until(is_read, "a command that hangs")
    try:
        yield
    finally:
        os.close(held.pop())

    def is_over() -> bool:
        if is_read():
            os.close(held.pop())
            return False
        return True

    await until(is_over, "the command's end")


@programs
@pytest_twisted.ensureDeferred
async def test_a_check_that_is_given_up_takes_its_connection_along(sshd: Sshd, gate: Path, descriptors_stay: None) -> None:
    await sshd.start()
    async with asking(sshd.options()) as monitor:
        for number in (1, 2):
            check = running(monitor)
            async with hanging(gate):
                check.cancel()
                with pytest.raises(GIVEN_UP):
                    await check
            assert sshd.logins == number


@programs
@pytest_twisted.ensureDeferred
async def test_a_server_that_dies_in_the_middle(sshd: Sshd, gate: Path) -> None:
    await sshd.start()
    async with asking(sshd.options()) as monitor:
        check = running(monitor)
        async with hanging(gate):
            sshd.stop()
            with pytest.raises(MonitorTrouble, match=f"closed the connection to its port {sshd.port} before the command ended"):
                await check
        assert await trouble(monitor) == f"refused the connection at its SSH port {sshd.port}"
        sshd.settings = []
        await sshd.start()
        assert (await monitor.check()).up


@programs
@pytest_twisted.ensureDeferred
async def test_a_server_that_is_restarted_between_two_checks(sshd: Sshd) -> None:
    await sshd.start()
    async with asking(sshd.options()) as monitor:
        assert (await monitor.check()).up
        sshd.stop()
        await sshd.start()
        await until(lambda: monitor._link._talk.over, "the end of the kept connection")
        assert (await monitor.check()).weight is not None, "what was read before is remembered"
    assert sshd.logins == 2


@programs
@pytest.mark.parametrize("kept", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_server_that_is_frozen(sshd: Sshd, kept: bool, descriptors_stay: None) -> None:
    await sshd.start()
    async with asking(sshd.options()) as monitor:
        if kept:
            await monitor.check()
        sshd.signal(signal.SIGSTOP)
        check = running(monitor)
        for _ in range(5):
            await until(lambda: True)
        check.cancel()
        with pytest.raises(GIVEN_UP):
            await check
        sshd.signal(signal.SIGCONT)
        assert (await monitor.check()).up
        assert (await monitor.check()).up
    assert sshd.logins == 1 + kept


@pytest_twisted.ensureDeferred
async def test_a_port_that_nobody_listens_on(tmp_path: Path) -> None:
    port = free_port()
    options = options_without_server(tmp_path, port)
    assert await trouble_with(options) == f"refused the connection at its SSH port {port}"
    assert (await trouble_with(options, "no-such-host.invalid")).startswith("has no address: ")


def options_without_server(directory: Path, port: int, with_key: Any = None) -> SshOptions:
    """What leads to something that need not be an SSH server, with a key that is good."""
    from twisted.conch.ssh.keys import Key

    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    key = directory / "key"
    private = Key(with_key or ed25519.Ed25519PrivateKey.generate())  # type: ignore[no-untyped-call]
    key.touch(0o600)
    key.write_bytes(private.toString("openssh"))
    (directory / "known_hosts").write_text("")
    return SshOptions(port=port, key=str(key), known_hosts=str(directory / "known_hosts"))


class Says(Protocol):
    """A server that says this to whoever comes, and hangs up."""

    words = b""
    hangs_up = True

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.words)
        if self.hangs_up:
            self.transport.loseConnection()


@asynccontextmanager
async def saying(words: bytes, *, hangs_up: bool = True) -> AsyncIterator[int]:
    """The port of such a server."""

    def build() -> Says:
        says = Says()
        says.words, says.hangs_up = words, hangs_up
        return says

    factory: Any = Factory.forProtocol(build)
    port: Any = reactor.listenTCP(0, factory, interface="127.0.0.1")
    try:
        yield port.getHost().port
    finally:
        await port.stopListening()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (b"", "closed the connection to its port {port} without a word of SSH"),
        (b"220 mail.invalid ESMTP\r\n" * 1000, "does not speak SSH at its port {port}"),
        (b"x" * 1_000_000, "does not speak SSH at its port {port}"),
        (b"SSH-1.5-old\r\n", "does not speak SSH as it should: bad version 1.5"),
        (b"SSH-2.0-x\r\n", "closed the connection to its port {port}"),
        (b"SSH-2.0-x\r\n" + b"\xff" * 100, "does not speak SSH as it should: bad packet length"),
        (b"SSH-2.0-x\r\n" + b"\0\0\0\x0c\x0a\x15" + bytes(50), "does not speak SSH as it should"),
        (b"SSH-2.0-x\r\n" + b"\0\0\0\x0c\x0a\x14" + bytes(50), "does not speak SSH as it should"),
        (
            b"SSH-2.0-x\r\n\0\0\0\x24\x0a\x01\0\0\0\x0c\0\0\0\x0dtoo \x1b[2J many\0\0\0\0" + bytes(10),
            "ended the SSH connection: too [2J many",
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_server_that_speaks_no_ssh(tmp_path: Path, words: bytes, said: str, descriptors_stay: None) -> None:
    async with saying(words) as port:
        assert (await trouble_with(options_without_server(tmp_path, port))).startswith(said.format(port=port))


@pytest_twisted.ensureDeferred
async def test_a_server_that_says_nothing(tmp_path: Path, descriptors_stay: None) -> None:
    async with saying(b"", hangs_up=False) as port, asking(options_without_server(tmp_path, port)) as monitor:
        check = running(monitor)
        await until(lambda: True)
        check.cancel()
        with pytest.raises(GIVEN_UP):
            await check


# -- for others' monitors


@programs
@pytest_twisted.ensureDeferred
async def test_a_link_runs_any_command(sshd: Sshd) -> None:
    await sshd.start()
    link = SshLink(target(), sshd.options(), surroundings())
    assert await link.run("cat; id -un") == f"{USER}\n".encode(), "there is nothing to read"
    assert await link.run("head -c 100000 /dev/zero", 100_000) == bytes(100_000)
    with pytest.raises(MonitorTrouble, match="ended the command with status 7: out of order"):
        await link.run("echo out of order >&2; exit 7")
    assert await link.run("true") == b""
    assert sshd.logins == 2
    closed = link.close()
    assert closed is not None
    await closed
    assert link.close() is None
