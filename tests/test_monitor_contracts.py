"""Every kind of monitor that distbal brings keeps the contract. A kind is a class here, which makes a host that answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import MappingProxyType
from typing import Any

import pytest

from distbal.interfaces import Target
from distbal.monitors.agent import AgentKind
from distbal.monitors.compile import CompileKind
from distbal.monitors.distccd import DistccdKind
from distbal.monitors.exec import ExecKind
from distbal.monitors.kit import MonitorKind
from distbal.monitors.snmp import SnmpKind
from distbal.monitors.ssh import SshKind
from distbal.monitors.tcp import TcpKind
from distbal.plugins import builtin
from distbal.testing import MonitorContract
from tests.answering import answering
from tests.distccds import Distccd, distccd
from tests.services import taken_port
from tests.snmpd import AUTH, COMMUNITY, PRIVACY, USERS, Agent, need_snmpd, snmpd
from tests.sshd import Sshd, serving


def builtin_kinds() -> list[MonitorKind]:
    return [one for one in vars(builtin).values() if isinstance(one, MonitorKind)]


@pytest.mark.parametrize("kind", builtin_kinds(), ids=lambda kind: kind.name)
def test_where_silence_proves_nothing_it_is_said_where_to_look(kind: MonitorKind) -> None:
    # it stands behind "did not answer within 3 s: "
    assert kind.silence_is_down or kind.silence
    assert "did not answer" not in kind.silence


class TestTcp(MonitorContract):
    factory = TcpKind()

    @contextmanager
    def host(self) -> Iterator[Target]:
        with taken_port() as port:
            yield Target("alpha:3632", "127.0.0.1", port)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serving(tmp_path_factory) as one:
        yield one


@pytest.mark.programs
class TestSsh(MonitorContract):
    factory = SshKind()
    port_option = "port"
    silence = 0.2

    @pytest.fixture(autouse=True)
    def server(self, sshd: Sshd) -> None:
        self.options = sshd.options().model_dump(include={"user", "port", "key", "known_hosts"})

    @contextmanager
    def host(self) -> Iterator[Target]:
        yield Target("alpha:3632", "127.0.0.1", 3632)


class TestExec(MonitorContract):
    factory = ExecKind()
    options = MappingProxyType({"command": ["sh", "-c", "sleep 0.01; echo 'it is|a=1'"]})
    port_option = None

    @contextmanager
    def host(self) -> Iterator[Target]:
        yield Target("alpha:3632", "127.0.0.1", 3632)


class TestAgent(MonitorContract):
    factory = AgentKind()
    port_option = "port"
    silence = 0.2

    @asynccontextmanager
    async def host(self) -> AsyncIterator[tuple[Target, Mapping[str, Any]]]:
        async with answering(b"up 75%\n") as server:
            yield Target("alpha:3632", "127.0.0.1", 3632), {"port": server.port}


@pytest.fixture(scope="module")
def server() -> Iterator[Distccd]:
    with distccd("--stats") as one:
        yield one


@pytest.mark.programs
class TestDistccd(MonitorContract):
    factory = DistccdKind()
    port_option = "port"
    silence = 0.2

    @pytest.fixture(autouse=True)
    def running(self, server: Distccd) -> None:
        self.options = MappingProxyType({"port": server.stats})

    @contextmanager
    def host(self) -> Iterator[Target]:
        yield Target("alpha:3632", "127.0.0.1", 3632)


@pytest.mark.programs
class TestCompile(MonitorContract):
    factory = CompileKind()
    silence = 0.2

    @pytest.fixture(autouse=True)
    def running(self, server: Distccd) -> None:
        self.port = server.port

    @contextmanager
    def host(self) -> Iterator[Target]:
        yield Target("alpha:3632", "127.0.0.1", self.port)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    pytest.importorskip("pysnmp", reason="pysnmp is not here: pip install 'distbal[snmp]'")
    need_snmpd()
    with snmpd(tmp_path_factory.mktemp("snmpd"), COMMUNITY, USERS) as one:
        yield one


@pytest.mark.programs
class TestSnmp(MonitorContract):
    factory = SnmpKind()
    port_option = "port"
    udp = True
    silence = 0.2
    access: Mapping[str, Any] = MappingProxyType({"community": "letmein"})

    @pytest.fixture(autouse=True)
    def running(self, agent: Agent) -> None:
        self.options = MappingProxyType({"port": agent.port, **self.access})

    @contextmanager
    def host(self) -> Iterator[Target]:
        yield Target("alpha:3632", "127.0.0.1", 3632)


class TestSnmpPrivate(TestSnmp):
    access = MappingProxyType({"version": 3, "user": "hides", "auth_passphrase": AUTH, "privacy_passphrase": PRIVACY})


def test_every_kind_is_here() -> None:
    tested = {one.factory.name for one in MonitorContract.__subclasses__() if one.__module__ == __name__}
    assert tested == {kind.name for kind in vars(builtin).values() if isinstance(kind, MonitorKind)}
