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
from distbal.monitors.ssh import SshKind
from distbal.monitors.tcp import TcpKind
from distbal.testing import MonitorContract
from tests.services import taken_port
from tests.sshd import Sshd, make_keys
from tests.support import need


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
