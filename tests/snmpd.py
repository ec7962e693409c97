"""A real SNMP agent, net-snmp's, on a loopback port of its own, with users and values as a test wants them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support import need, spawn

AUTH, PRIVACY = "a phrase to sign with", "a phrase to hide with"
#: version 2c, and users of version 3; each lets in from the loopback only
COMMUNITY = "rocommunity letmein\nrocommunity6 letmein\n"
USERS = f"""
createUser plain
rouser plain noauth
createUser signs SHA-512 "{AUTH}"
rouser signs auth
createUser hides SHA "{AUTH}" AES "{PRIVACY}"
rouser hides priv
createUser hides256 SHA-256 "{AUTH}" AES "{PRIVACY}"
rouser hides256 priv
createUser hidesmost SHA-384 "{AUTH}" AES-256 "{PRIVACY}"
rouser hidesmost priv
"""
#: Debian's programs for root are not where everybody looks
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
#: modules of the agent that tell of this machine, and not what a test says
SAYS_ITSELF = "smux"
SAYS_NOTHING = "smux,vmstat,memory,loadave,hr_device,hr_proc"


def need_snmpd() -> None:
    """Skip where there is none."""
    if shutil.which("snmpd", path=PATH) is None:
        need("snmpd")


@dataclass
class Agent:
    """A running agent: its port, and its process."""

    port: int
    process: subprocess.Popen[str]


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def snmpd(directory: Path, *config: str, without: str = SAYS_ITSELF, ipv6: bool = False, port: int = 0) -> Iterator[Agent]:
    """An agent that runs, and answers, while the block does.

    :param without: modules that it is to leave out, with commas.
    """
    port = port or free_udp_port()
    file = directory / "snmpd.conf"
    address = f"udp:127.0.0.1:{port}" + (f",udp6:[::1]:{port}" if ipv6 else "")
    file.write_text("\n".join([f"agentaddress {address}", "dontLogTCPWrappersConnects yes", *config, ""]))
    program = shutil.which("snmpd", path=PATH)
    assert program is not None
    env = {"SNMP_PERSISTENT_DIR": str(directory / "state"), "MIBS": "", "SNMPCONFPATH": str(directory)}
    with spawn(program, "-f", "-Lo", "-C", "-c", file, "-I", f"-{without}", env=env) as process:
        assert process.stdout is not None
        said: list[str] = []
        while not (said and said[-1].startswith("NET-SNMP version")):
            said.append(process.stdout.readline())
            assert said[-1], f"snmpd ended: {said}"
        yield Agent(port, process)


def values(**numbers: int) -> list[str]:
    """Lines that make the agent say these, and let ``private`` change them; for one that says nothing of itself."""
    lines = [f"override -rw {OIDS[name]} {'counter' if name in COUNTERS else 'integer'} {n}" for name, n in numbers.items()]
    return ["rwcommunity private", *lines]


_UCD = ".1.3.6.1.4.1.2021"
_FIELDS = {"user": 50, "nice": 51, "system": 52, "idle": 53, "wait": 54, "irq": 56, "softirq": 61, "steal": 64}
COUNTERS = {name: f"{_UCD}.11.{number}.0" for name, number in _FIELDS.items()}
OIDS = COUNTERS | {
    "load": f"{_UCD}.10.1.5.1",
    "cpus": f"{_UCD}.11.67.0",
    "memory": f"{_UCD}.4.5.0",
    "free": f"{_UCD}.4.6.0",
    "cached": f"{_UCD}.4.15.0",
    "processor1": ".1.3.6.1.2.1.25.3.3.1.2.196608",
    "processor2": ".1.3.6.1.2.1.25.3.3.1.2.196609",
}
