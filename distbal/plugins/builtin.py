"""The kinds of monitors that distbal brings. Each is light to import: what only its checks need, it imports with the first."""

from __future__ import annotations

from distbal.monitors.snmp import SnmpKind
from distbal.monitors.ssh import SshKind
from distbal.monitors.tcp import TcpKind

snmp = SnmpKind()
ssh = SshKind()
tcp = TcpKind()
