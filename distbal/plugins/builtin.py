"""The kinds of monitors that distbal brings. Each is light to import: what only its checks need, it imports with the first."""

from __future__ import annotations

from distbal.monitors.ssh import SshKind
from distbal.monitors.tcp import TcpKind

ssh = SshKind()
tcp = TcpKind()
