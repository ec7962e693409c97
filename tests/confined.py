"""A command under the restrictions of a systemd unit that need no systemd: ``python tests/confined.py UNIT COMMAND...``.

What is set here as systemd.exec(5) says: NoNewPrivileges=, CapabilityBoundingSet= (none), SystemCallFilter=,
SystemCallArchitectures=native, RestrictAddressFamilies=, MemoryDenyWriteExecute=, RestrictNamespaces=, UMask=. In one thing it
is stricter: a system call that the unit does not let through ends the process at once (SIGSYS), so that no call that is
filtered goes unnoticed. Left out is what concerns mounts: ProtectSystem=, PrivateTmp= and the like.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
from pathlib import Path

#: prctl(2) and linux/prctl.h
_SET_NO_NEW_PRIVS, _CAPBSET_DROP = 38, 24
#: seccomp.h of libseccomp, which systemd brings
_KILL_PROCESS, _ALLOW, _MASKED_EQ, _EQ = 0x80000000, 0x7FFF0000, 7, 4
_ERRNO = 0x00050000
_AF = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16, "AF_PACKET": 17}
_EAFNOSUPPORT = 97
#: every CLONE_NEW* of clone(2)
_NAMESPACES = 0x7E020080
_PROT_WRITE, _PROT_EXEC = 2, 4


class _Compare(ctypes.Structure):
    """``struct scmp_arg_cmp``."""

    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def directives(unit: Path) -> dict[str, list[str]]:
    """The values of each key of its [Service] section, in their order."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def calls_in(group: str) -> set[str]:
    """The system calls that a group such as ``@system-service`` stands for; of another name that name."""
    if not group.startswith("@"):
        return {group}
    done = subprocess.run(["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True)
    lines = (line.strip() for line in done.stdout.splitlines()[1:])
    return {call for line in lines if line and not line.startswith("#") for call in calls_in(line)}


def allowed(values: list[str]) -> set[str]:
    """What SystemCallFilter= lets through: lists, of which those that begin with ``~`` are taken off again."""
    calls = calls_in("@default")
    for value in values:
        named = {call for group in value.removeprefix("~").split() for call in calls_in(group)}
        calls = calls - named if value.startswith("~") else calls | named
    return calls


class _Filter:
    """A seccomp filter that is being made."""

    def __init__(self) -> None:
        self._lib = ctypes.CDLL("libseccomp.so.2")
        self._lib.seccomp_init.restype = ctypes.c_void_p
        self._lib.seccomp_load.argtypes = [ctypes.c_void_p]
        add = self._lib.seccomp_rule_add_array
        add.argtypes = (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Compare))
        self._context = self._lib.seccomp_init(ctypes.c_uint32(_KILL_PROCESS))

    def add(self, action: int, call: str, *compare: tuple[int, int, int, int]) -> None:
        number = self._lib.seccomp_syscall_resolve_name(call.encode())
        if number < 0:
            # this architecture has no such call
            return
        array = (_Compare * max(1, len(compare)))(*(_Compare(*one) for one in compare))
        done = self._lib.seccomp_rule_add_array(self._context, action, number, len(compare), array)
        if done:
            raise OSError(-done, os.strerror(-done), call)

    def load(self) -> None:
        done = self._lib.seccomp_load(self._context)
        if done:
            raise OSError(-done, os.strerror(-done), "seccomp_load")


def confine(unit: Path) -> None:
    """Put this process, and whatever it becomes and starts, under the unit's restrictions."""
    said = directives(unit)
    os.umask(int(said.get("UMask", ["022"])[-1], 8))
    libc = ctypes.CDLL(None, use_errno=True)
    if "" in said["CapabilityBoundingSet"]:
        # of another user than root the kernel takes no such wish, and there is nothing to drop
        for capability in range(64 if os.geteuid() == 0 else 0):
            libc.prctl(_CAPBSET_DROP, capability, 0, 0, 0)
    calls, rules = allowed(said["SystemCallFilter"]), _Filter()
    # what is asked by its arguments, below
    asked = {"socket", "mmap", "mprotect", "pkey_mprotect", "clone", "clone3", "unshare", "setns"}
    for call in sorted(calls - asked):
        rules.add(_ALLOW, call)
    for name in said["RestrictAddressFamilies"][-1].split():
        rules.add(_ALLOW, "socket", (0, _EQ, _AF[name], 0))
    # glibc asks by netlink which addresses this machine has, and takes it calmly that it may not
    rules.add(_ERRNO | _EAFNOSUPPORT, "socket", (0, _EQ, _AF["AF_NETLINK"], 0))
    rules.add(_ALLOW, "mmap", (2, _MASKED_EQ, _PROT_EXEC, 0))
    rules.add(_ALLOW, "mmap", (2, _MASKED_EQ, _PROT_WRITE | _PROT_EXEC, _PROT_EXEC))
    for call in ("mprotect", "pkey_mprotect"):
        rules.add(_ALLOW, call, (2, _MASKED_EQ, _PROT_EXEC, 0))
    rules.add(_ALLOW, "clone", (0, _MASKED_EQ, _NAMESPACES, 0))
    # its flags stand in memory, where no filter sees them: systemd says so too, and glibc then uses clone
    rules.add(_ERRNO | 38, "clone3")
    libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    rules.load()


def main(unit: str, *command: str) -> None:
    confine(Path(unit))
    with contextlib.suppress(FileNotFoundError):
        os.execvp(command[0], command)  # noqa: S606 (that is what it is for)
    sys.exit(f"there is no {command[0]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
