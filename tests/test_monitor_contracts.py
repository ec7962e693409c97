"""Every kind of monitor that distbal brings keeps the contract. A kind is a class here, which makes a host that answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from distbal.interfaces import Target
from distbal.monitors.exec import ExecKind
from distbal.monitors.kit import MonitorKind
from distbal.monitors.ssh import SshKind
from distbal.monitors.tcp import TcpKind
from distbal.plugins import builtin
from distbal.testing import MonitorContract
from tests.services import taken_port
from tests.sshd import Sshd, make_keys
from tests.support import need


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
    pytest.importorskip("bcrypt", reason="Twisted Conch's libraries are not here: pip install 'distbal[ssh]'")
    need("sshd", "ssh-keygen")
    server = Sshd(tmp_path_factory.mktemp("sshd"), make_keys(tmp_path_factory))
    server.know("ed25519")
    pytest_twisted.blockon(Deferred.fromCoroutine(server.start()))
    yield server
    server.stop()


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
