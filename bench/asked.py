"""What the hosts of a farm are here: one real server of each kind, which all addresses of the loopback lead to.

None of them runs on the daemon's processor. How many checks came to it, each says by a count that is not the daemon's own: so a
check that was not made, or did not get there, does not pass for a cheap one.
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bench.crew import Crew
from bench.processes import BenchError, Process, wait_until
from distbal.listening import listen_tcp
from distbal.monitorconfig import kinds

#: the program behind each kind, and Debian's package
PROGRAMS = {"tcp": ("", ""), "ssh": ("sshd", "openssh-server"), "snmp": ("snmpd", "snmpd")}
#: where Debian has them, and an ordinary user does not look
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"

SSHD = """\
# of the loopback alone (SO_BINDTODEVICE)
ListenAddress 0.0.0.0:{port} rdomain lo
HostKey {directory}/host
AuthorizedKeysFile {directory}/user.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
PidFile none
UseDNS no
# each session is a line of its log
LogLevel VERBOSE
# bash takes itself for one inside another, and passes over ~/.bashrc, which may take longer than all the rest
SetEnv SHLVL=1
# no login is turned away for the number of them
MaxStartups 1000
"""

SNMPD = """\
agentaddress udp:0.0.0.0:{port}
createUser bench SHA {auth} AES {privacy}
rouser bench priv .1
"""


def address(number: int) -> str:
    """Of a host. All of them are this machine."""
    return f"127.0.{1 + number // 250}.{1 + number % 250}"


def why_not(kind: str) -> str:
    """Why it cannot be measured here; "" where it can."""
    found = kinds().get(kind)
    if found is None:
        return f"{kind}: not measured, this checkout has no such kind of monitor"
    if why := found.why_unavailable():
        return f"{kind}: not measured, {why}"
    program, package = PROGRAMS[kind]
    if program and not _found(program):
        return f"{kind}: not measured, there is no {program} on this machine; Debian: apt-get install {package}"
    return ""


class Asked:
    """A server that is asked, serving.

    :ivar options: what its monitors are told in hosts.yaml, but for the interval.
    """

    def __init__(self, crew: Crew) -> None:
        self.options: dict[str, object] = {}
        self._crew = crew
        self._processes: list[Process] = []

    def checks(self) -> int:
        """How many came to it so far."""
        raise NotImplementedError

    def give_way(self) -> None:
        """Run from now on only when nobody else wants the processor. There is no way back."""
        for process in self._processes:
            for pid in (process.pid, *_descendants(process.pid)):
                with suppress(ProcessLookupError):
                    os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))

    def stop(self) -> None:
        self._crew.stop(*self._processes)
        self._processes = []

    def _start(self, process: Process) -> None:
        self._processes.append(self._crew.add(process))


class AskedTcp(Asked):
    """A port that takes connections as distccd's does (TCP_DEFER_ACCEPT). It takes no process: the kernel answers.

    :ivar port: all hosts have it.
    """

    def __init__(self, crew: Crew) -> None:
        super().__init__(crew)
        self.port = crew.port()
        self._listener = listen_tcp("0.0.0.0", self.port, deferred=True)

    def checks(self) -> int:
        # connections of which the listener is not told, since they brought no byte: nobody else here makes such
        return _kernel_count("TCPDeferAcceptDrop")

    def stop(self) -> None:
        super().stop()
        self._listener.close()


class AskedSsh(Asked):
    """Debian's sshd, which lets in the user who runs this."""

    def __init__(self, crew: Crew, hosts: int) -> None:
        super().__init__(crew)
        directory = crew.fresh_directory()
        port = crew.port()
        for name in ("host", "user"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        key = " ".join((directory / "host.pub").read_text().split()[:2])
        known = directory / "known_hosts"
        known.write_text("".join(f"[{address(number)}]:{port} {key}\n" for number in range(hosts)))
        config = directory / "sshd_config"
        config.write_text(SSHD.format(port=port, directory=directory))
        if os.geteuid() == 0:
            # where it locks itself in; Debian makes it at boot
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self._log = directory / "sshd.log"
        self.options = {
            "user": getpass.getuser(),
            "port": port,
            "key": str(directory / "user"),
            "known_hosts": str(known),
        }
        command = [_found("sshd"), "-D", "-e", "-f", str(config)]
        sshd = Sshd("sshd", command, core=crew.load_core, log=self._log, stdin=subprocess.DEVNULL)
        self._start(sshd)
        _wait_ready(sshd, lambda: _lines_with(self._log, b"Server listening on") > 0)

    def checks(self) -> int:
        return _lines_with(self._log, b"Starting session: command")


class AskedSnmp(Asked):
    """Debian's snmpd, with one user of version 3, whose messages are signed (SHA) and encrypted (AES)."""

    def __init__(self, crew: Crew) -> None:
        super().__init__(crew)
        directory = crew.fresh_directory()
        port = crew.port()
        auth, privacy = secrets.token_hex(8), secrets.token_hex(8)
        self.options = {
            "port": port,
            "version": "3",
            "user": "bench",
            "auth": "sha",
            "auth_passphrase": auth,
            "privacy": "aes",
            "privacy_passphrase": privacy,
        }
        config = directory / "snmpd.conf"
        config.touch(mode=0o600)
        config.write_text(SNMPD.format(port=port, auth=auth, privacy=privacy))
        self._log = directory / "snmpd.log"
        # -a: each datagram that comes is a line of its log
        command = [_found("snmpd"), "-f", "-a", "-C", "-c", str(config), "-Lf", str(self._log), "-p", str(directory / "pid")]
        env = os.environ | {"SNMP_PERSISTENT_DIR": str(directory)}
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        snmpd = Process("snmpd", command, core=crew.load_core, log=self._log, env=env, **options)
        self._start(snmpd)
        _wait_ready(snmpd, lambda: _lines_with(self._log, b"NET-SNMP version") > 0)

    def checks(self) -> int:
        return _lines_with(self._log, b"Received SNMP packet")


class Sshd(Process):
    """A listener, and the processes that serve its connections, each in a session of its own."""

    def stop(self) -> None:
        """End them all."""
        # their clients have gone: they end by themselves, and are waited for by whoever started them
        with suppress(BenchError):
            wait_until(lambda: not _descendants(self.pid), "they should have ended", within=3, pause=0.02)
        # as long as it lives, their numbers are not given to others
        for pid in _descendants(self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        super().stop()


def _found(program: str) -> str:
    return shutil.which(program) or shutil.which(program, path=SBIN) or ""


def _wait_ready(process: Process, ready: Callable[[], bool]) -> None:
    def ready_or_dead() -> bool:
        process.check()
        return ready()

    wait_until(ready_or_dead, f"{process.name} should serve", pause=0.02)


def _descendants(pid: int) -> list[int]:
    """The processes that this one has started, and those that they have."""
    found = [pid]
    for one in found:
        with suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
    return found[1:]


def _lines_with(log: Path, words: bytes) -> int:
    return log.read_bytes().count(words)


def _kernel_count(name: str) -> int:
    """One of the kernel's counts of what its TCP did (/proc/net/netstat)."""
    names, values = (line.split() for line in Path("/proc/net/netstat").read_text().splitlines() if line.startswith("TcpExt:"))
    if name not in names:
        raise BenchError(f"this kernel does not count {name}")
    return int(values[names.index(name)])
