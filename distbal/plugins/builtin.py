"""The kinds of monitors that distbal brings. Each is light to import: what only its checks need, it imports with the first."""

from __future__ import annotations

from distbal.monitors.agent import AgentKind
from distbal.monitors.compile import CompileKind
from distbal.monitors.distccd import DistccdKind
from distbal.monitors.exec import ExecKind
from distbal.monitors.snmp import SnmpKind
from distbal.monitors.ssh import SshKind
from distbal.monitors.tcp import TcpKind

agent = AgentKind()
compile_kind = CompileKind()
distccd = DistccdKind()
exec_kind = ExecKind()
snmp = SnmpKind()
ssh = SshKind()
tcp = TcpKind()
