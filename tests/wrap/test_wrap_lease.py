"""distbal-wrap with a lease: what the command is given, and what it is spared."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.wrap.support import PATIENCE, SOURCE, Balancer, Wrap, compile_that

pytestmark = pytest.mark.programs

CPUS = len(os.sched_getaffinity(0))
LOCAL = f"--localslots={CPUS} --localslots_cpp={CPUS}"
SHOW_HOSTS = compile_that('printf %s "$DISTCC_HOSTS"')


def granted(
    wrap: Wrap, balancer: Balancer, command: list[str], reply: bytes = b"box:3632\r\n"
) -> subprocess.CompletedProcess[str]:
    """Run a command with a lease, to its end."""
    with wrap.running(command) as process:
        balancer.grant(reply)
        out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(command, process.returncode, out, err)


@pytest.mark.parametrize(
    ("reply", "host"),
    [
        (b"snookles:3632\r\n", "snookles:3632/100"),
        (b"snookles\n", "snookles/100"),
        (b"snookles:3632/4\r\n", "snookles:3632/4"),
        (b"snookles=4\r\n", "snookles=4"),
        (b"snookles/4:3632\r\n", "snookles/4:3632"),
        (b"snookles,lzo\r\n", "snookles/100,lzo"),
        (b"snookles:3632,lzo,cpp\r\n", "snookles:3632/100,lzo,cpp"),
        (b"snookles:3632/8,lzo,cpp\r\n", "snookles:3632/8,lzo,cpp"),
        (b"10.0.0.7:3632,auth=kdc.example\r\n", "10.0.0.7:3632/100,auth=kdc.example"),
        (b"[fd00::7]:3632\r\n", "[fd00::7]:3632/100"),
        (b"[fd00::7]\r\n", "[fd00::7]/100"),
        (b"[fe80::1%eth0]:3632,lzo\r\n", "[fe80::1%eth0]:3632/100,lzo"),
        (b"localhost\r\n", "localhost/100"),
        (b"b" * 250 + b"\r\n", "b" * 250 + "/100"),
    ],
)
def test_reply_becomes_hosts(wrap: Wrap, balancer: Balancer, reply: bytes, host: str) -> None:
    result = granted(wrap, balancer, SHOW_HOSTS, reply)
    assert (result.stdout, result.stderr) == (f"{LOCAL} {host}", "")


@pytest.mark.parametrize(
    ("hosts", "local"),
    [
        ("--localslots=3 --localslots_cpp=7 old/4", (3, 7)),
        ("old/4 --localslots_cpp=7", (CPUS, 7)),
        ("--localslots/5\told", (5, CPUS)),
        ("--localslots=3 --localslots=4", (4, CPUS)),
        ("# --localslots=9\n--localslots=3 # --localslots=8", (3, CPUS)),
        ("old# --localslots=9\n--localslots_cpp=2", (CPUS, 2)),
        ("--localslots=0 --localslots_cpp=-3", (CPUS, CPUS)),
        ("--localslots=99999999999999999999", (10000, CPUS)),
        ("--localslots", (CPUS, CPUS)),
        ("", (CPUS, CPUS)),
    ],
)
@pytest.mark.parametrize("place", ["DISTCC_HOSTS", "DISTCC_DIR", "HOME"])
def test_local_slots_are_kept(wrap: Wrap, balancer: Balancer, place: str, hosts: str, local: tuple[int, int]) -> None:
    if place == "DISTCC_HOSTS":
        wrap.env["DISTCC_HOSTS"] = hosts
        (wrap.directory / "distcc" / "hosts").write_text("--localslots=77 --localslots_cpp=77")
    elif place == "DISTCC_DIR":
        (wrap.directory / "distcc" / "hosts").write_text(hosts)
        (wrap.directory / ".distcc").mkdir()
        (wrap.directory / ".distcc" / "hosts").write_text("--localslots=77 --localslots_cpp=77")
    else:
        del wrap.env["DISTCC_DIR"]
        (wrap.directory / ".distcc").mkdir()
        (wrap.directory / ".distcc" / "hosts").write_text(hosts)
    result = granted(wrap, balancer, SHOW_HOSTS)
    assert result.stdout == f"--localslots={local[0]} --localslots_cpp={local[1]} box:3632/100"


def test_the_system_list_is_the_last_resort(tmp_path: Path) -> None:
    """Built with another place for the system's list, as for a distcc that is not Debian's."""
    sources = Path(__file__).parents[2] / "distbal" / "wrap"
    system = tmp_path / "system-hosts"
    system.write_text("127.0.0.1 --localslots=6\n")
    built = tmp_path / "distbal-wrap"
    subprocess.run(["cc", f'-DDISTCC_SYSTEM_HOSTS="{system}"', "-o", built, *sorted(sources.glob("*.c"))], check=True)
    wrap = Wrap(built, tmp_path)
    balancer = Balancer()
    wrap.env["DISTBAL"] = balancer.address
    assert granted(wrap, balancer, SHOW_HOSTS).stdout == f"--localslots=6 --localslots_cpp={CPUS} box:3632/100"
    (tmp_path / "distcc" / "hosts").write_text("old")
    assert granted(wrap, balancer, SHOW_HOSTS).stdout == f"{LOCAL} box:3632/100"
    balancer.close()


def test_cpus_are_those_that_it_may_run_on(wrap: Wrap, balancer: Balancer) -> None:
    one = min(os.sched_getaffinity(0))
    wrap.env["DISTCC_HOSTS"] = ""
    command = ["-c", str(one), str(wrap.program), *SHOW_HOSTS]
    process = wrap.start(command, program="taskset")
    balancer.grant()
    assert process.communicate(timeout=PATIENCE)[0] == "--localslots=1 --localslots_cpp=1 box:3632/100"


@pytest.mark.parametrize(("name", "ours"), [("DISTCC_BACKOFF_PERIOD", "1"), ("DISTCC_PAUSE_TIME_MSEC", "20")])
def test_what_distcc_waits_is_the_users_where_they_said_so(wrap: Wrap, balancer: Balancer, name: str, ours: str) -> None:
    show = compile_that(f'printf %s "${name}"')
    assert granted(wrap, balancer, show).stdout == ours
    wrap.env[name] = "30"
    assert granted(wrap, balancer, show).stdout == "30"


SURROUNDINGS = """
import json, os, sys
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
fds = {}
for fd in sorted(map(int, os.listdir("/proc/self/fd"))):
    try:
        fds[fd] = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        pass
print(json.dumps({
    "pid": os.getpid(), "parent": os.getppid(), "group": os.getpgrp(), "session": os.getsid(0), "umask": os.umask(0),
    "cwd": os.getcwd(), "argv": sys.orig_argv[3:], "env": dict(os.environ), "fds": fds,
    "signals": [status[name] for name in ("SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd")],
    "children": open(f"/proc/self/task/{os.getpid()}/children").read(), "threads": status["Threads"],
}))
"""


def test_nothing_else_changes(wrap: Wrap, balancer: Balancer) -> None:
    """The command sees the process that it would see without the program in front, but for the lease and five variables."""
    command = [sys.executable, "-c", SURROUNDINGS, "an argument", "", "x.c"]
    plain = json.loads(wrap.start(command[1:], program=command[0]).communicate(timeout=PATIENCE)[0])
    with wrap.running(command) as process:
        lease = balancer.grant()
        leased = json.loads(process.communicate(timeout=PATIENCE)[0])
        assert leased["pid"] == process.pid
        assert lease.recv(1) == b""
    env, plain_env = leased.pop("env"), plain.pop("env")
    assert {name: env[name] for name in env if env[name] != plain_env.get(name)} == {
        "DISTCC_HOSTS": f"{LOCAL} box:3632/100",
        "DISTCC_BACKOFF_PERIOD": "1",
        "DISTCC_PAUSE_TIME_MSEC": "20",
        "DISTBAL_WRAPPED": str(leased["pid"]),
    }
    assert plain_env.keys() <= env.keys()
    fds, plain_fds = leased.pop("fds"), plain.pop("fds")
    new = {int(fd): what for fd, what in fds.items() if fd not in plain_fds}
    assert [what.split(":")[0] for what in new.values()] == ["socket"]
    assert min(new) >= 10
    del leased["pid"], plain["pid"]
    assert leased == plain


def test_inherited_dispositions_and_masks_stay(wrap: Wrap, balancer: Balancer) -> None:
    """What the parent ignores or blocks stays ignored and blocked (nohup, a shell's background jobs)."""
    read = [sys.executable, "-S", "-c", "print(open('/proc/self/status').read())", SOURCE]

    set_up = f"""
import os, signal
for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
    signal.signal(ignored, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
os.execv({str(wrap.program)!r}, {[str(wrap.program), *read]!r})
"""
    process = wrap.start(["-S", "-c", set_up], program=sys.executable)
    balancer.grant()
    out, _ = process.communicate(timeout=PATIENCE)
    values = dict(line.split(":", 1) for line in out.splitlines() if line.startswith("Sig"))
    assert int(values["SigBlk"], 16) == 1 << (signal.SIGUSR1 - 1)
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        assert int(values["SigIgn"], 16) & 1 << (ignored - 1)


def test_the_jobserver_keeps_its_descriptors(wrap: Wrap, balancer: Balancer) -> None:
    """GNU make's tokens are on 3 and 4: the command reads them there, and the lease is elsewhere."""
    script = 'IFS= read -r token <&3; printf "%s" "$token" >&4; ls /proc/$$/fd'
    command = [str(wrap.program), *compile_that(script)]
    (ours, theirs), (tokens_out, tokens_in) = os.pipe(), os.pipe()
    os.write(theirs, b"token\n")
    as_make_does = f"import os; os.dup2({ours}, 3); os.dup2({tokens_in}, 4); os.execv({command[0]!r}, {command!r})"
    process = wrap.start(["-c", as_make_does], program=sys.executable, pass_fds=(ours, tokens_in))
    balancer.grant()
    out, _ = process.communicate(timeout=PATIENCE)
    assert os.read(tokens_out, 10) == b"token"
    assert {"3", "4"} <= set(out.split())
    for fd in (ours, theirs, tokens_out, tokens_in):
        os.close(fd)


@pytest.mark.parametrize("status", [0, 1, 3, 42, 255])
def test_exit_status_and_both_streams_are_the_commands(wrap: Wrap, balancer: Balancer, status: int) -> None:
    result = granted(wrap, balancer, compile_that(f"echo out; echo err >&2; exit {status}"))
    assert (result.returncode, result.stdout, result.stderr) == (status, "out\n", "err\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL, signal.SIGSEGV])
def test_a_signal_ends_command_and_lease(wrap: Wrap, balancer: Balancer, number: signal.Signals) -> None:
    with wrap.running(compile_that("echo ready; exec sleep 60")) as process:
        lease = balancer.grant()
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert lease.recv(1) == b""
        assert process.wait(PATIENCE) == -number


def test_the_lease_ends_with_the_command_and_not_before(wrap: Wrap, balancer: Balancer) -> None:
    os.mkfifo(wrap.directory / "go")
    with wrap.running(compile_that("echo ready; read go <go")) as process:
        lease = balancer.grant()
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        lease.setblocking(False)
        with pytest.raises(BlockingIOError):
            lease.recv(1)
        (wrap.directory / "go").write_text("\n")
        lease.settimeout(PATIENCE)
        assert lease.recv(1) == b""


def test_a_daemon_that_inherits_the_lease_keeps_it(wrap: Wrap, balancer: Balancer) -> None:
    """What the man page warns of: a process that the command leaves behind holds the connection too."""
    with wrap.running(compile_that("sleep 60 >/dev/null 2>&1 & echo $!")) as process:
        lease = balancer.grant()
        assert process.stdout is not None
        daemon = int(process.stdout.readline())
        process.wait(PATIENCE)
        lease.setblocking(False)
        with pytest.raises(BlockingIOError):
            lease.recv(1)
        os.kill(daemon, signal.SIGKILL)
        lease.settimeout(PATIENCE)
        assert lease.recv(1) == b""


def test_waiting_for_a_free_host_ends_at_ctrl_c(wrap: Wrap, balancer: Balancer) -> None:
    with wrap.running(compile_that("echo never")) as process:
        client = balancer.accept()
        process.send_signal(signal.SIGINT)
        assert client.recv(1) == b""
        assert process.wait(PATIENCE) == -signal.SIGINT


def test_waiting_survives_being_stopped(wrap: Wrap, balancer: Balancer) -> None:
    """Job control: stopped and continued while it waits, it still waits."""
    with wrap.running(compile_that("echo done")) as process:
        client = balancer.accept()
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        process.send_signal(signal.SIGCONT)
        client.sendall(b"box\r\n")
        assert process.communicate(timeout=PATIENCE) == ("done\n", "")


def test_keepalive_finds_a_balancer_that_lost_power(wrap: Wrap, balancer: Balancer) -> None:
    """It is on before there is a connection, so it is while the program waits; the command inherits it and can tell."""
    look = """
import os, socket
for fd in map(int, os.listdir("/proc/self/fd")):
    try:
        lease = socket.socket(fileno=fd)
    except OSError:
        continue
    times = [lease.getsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_KEEP{name}")) for name in ("IDLE", "INTVL", "CNT")]
    print(lease.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), *times, os.get_blocking(fd))
    lease.detach()
"""
    assert granted(wrap, balancer, [sys.executable, "-c", look, SOURCE]).stdout == "1 30 10 3 True\n"


def test_a_reply_may_come_byte_by_byte(wrap: Wrap, balancer: Balancer) -> None:
    with wrap.running(SHOW_HOSTS) as process:
        client = balancer.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"box:3632,lzo\r\n":
            client.sendall(bytes([byte]))
        assert process.communicate(timeout=PATIENCE)[0] == f"{LOCAL} box:3632/100,lzo"


def test_closed_standard_descriptors_stay_closed(wrap: Wrap, balancer: Balancer) -> None:
    """The connection must not become somebody's stdin or stderr."""
    process = subprocess.Popen(
        ["sh", "-c", 'exec "$@" 0<&- 2>&-', "sh", wrap.program, *compile_that("ls /proc/$$/fd")],
        env=wrap.env,
        stdout=subprocess.PIPE,
        text=True,
    )
    balancer.grant()
    out, _ = process.communicate(timeout=PATIENCE)
    low = {int(fd) for fd in out.split() if int(fd) < 10}
    assert low <= {1}
