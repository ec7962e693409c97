"""Every kind of monitor that distbal brings keeps the contract. A kind is a class here, which makes a host that answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType

from distbal.interfaces import Target
from distbal.monitors.exec import ExecKind
from distbal.monitors.tcp import TcpKind
from distbal.testing import MonitorContract
from tests.services import taken_port


class TestTcp(MonitorContract):
    factory = TcpKind()

    @contextmanager
    def host(self) -> Iterator[Target]:
        with taken_port() as port:
            yield Target("alpha:3632", "127.0.0.1", port)


class TestExec(MonitorContract):
    factory = ExecKind()
    options = MappingProxyType({"command": ["sh", "-c", "sleep 0.01; echo 'it is|a=1'"]})
    port_option = None

    @contextmanager
    def host(self) -> Iterator[Target]:
        yield Target("alpha:3632", "127.0.0.1", 3632)
