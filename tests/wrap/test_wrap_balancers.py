"""distbal-wrap and its balancers: which is asked, how long that may take, and what happens without one."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import reset_at_close, stop
from tests.wrap.conftest import flags_name_sanitizers
from tests.wrap.support import PATIENCE, Balancer, Wrap, compile_that, farm

pytestmark = pytest.mark.programs

CPUS = len(os.sched_getaffinity(0))
LOCAL = f"--localslots={CPUS} --localslots_cpp={CPUS}"
GOING_ON = "going on with distcc's own list of hosts"
SHOW_HOSTS = compile_that('printf %s "${DISTCC_HOSTS-unset}"')
#: what connecting may take in all, and what a busy machine may add
LONGEST = 2.0
SLACK = 0.6


# -- where the balancers' names come from --


def test_a_name_a_number_an_ipv6_number_a_path(wrap: Wrap) -> None:
    path = wrap.directory / "socket"
    for balancer, address in (
        (Balancer(), "localhost:{port}"),
        (Balancer(), "127.0.0.1:{port}"),
        (Balancer(socket.AF_INET6), "[::1]:{port}"),
        (Balancer(socket.AF_INET6), "localhost:{port}"),
        (Balancer(path=path), f"unix:{path}"),
    ):
        with farm_on(balancer, wrap, address) as process:
            balancer.grant()
            assert process.communicate(timeout=PATIENCE) == (f"{LOCAL} box:3632/100", "")
            stop(process)
        balancer.close()


def farm_on(balancer: Balancer, wrap: Wrap, address: str) -> subprocess.Popen[str]:
    """The program, asking this balancer."""
    port = balancer.port if "{port}" in address else 0
    return wrap.start(SHOW_HOSTS, env={"DISTBAL": address.format(port=port)})


def test_the_file_is_read_where_the_variable_names_nobody(wrap: Wrap) -> None:
    with farm(b"box\r\n") as served, farm(b"other\r\n") as other:
        (wrap.directory / "client").write_text(
            f"# our balancers\n\n  # nowhere:1\n{served.address}   # the first\n{other.address}"
        )
        for variable in ({}, {"DISTBAL": ""}, {"DISTBAL": " \t "}):
            assert wrap.run(*SHOW_HOSTS, env=variable).stdout == f"{LOCAL} box/100"
        assert wrap.run(*SHOW_HOSTS, env={"DISTBAL": other.address}).stdout == f"{LOCAL} other/100"
        served.replies[:] = [b"\r\n"]
        assert wrap.run(*SHOW_HOSTS).stdout == f"{LOCAL} other/100"


def test_a_file_that_cannot_be_read_is_reported(wrap: Wrap) -> None:
    (wrap.directory / "client").mkdir()
    result = wrap.run(*SHOW_HOSTS)
    assert result.stdout == "unset"
    assert result.stderr == f"distbal-wrap: {wrap.directory}/client cannot be read: Is a directory\n"


@pytest.mark.parametrize(
    "address", ["box:", "box:0", "box:65536", "box:abc", "box:123456789", ":5656", "[::1", "[::1]5", "[]", "unix:"]
)
def test_an_address_that_is_none_is_named_and_passed_over(wrap: Wrap, address: str) -> None:
    with farm(b"box\r\n") as served:
        assert wrap.run(*SHOW_HOSTS, env={"DISTBAL": f"{address} {served.address}"}).stdout == f"{LOCAL} box/100"
        result = wrap.run(*SHOW_HOSTS, env={"DISTBAL": address})
        assert result.stdout == "unset"
        assert result.stderr.startswith(f"distbal-wrap: no balancer ({address}: ")


def test_very_long_addresses_are_refused_in_words(wrap: Wrap) -> None:
    for address in ("h" * 5000, "unix:/" + "p" * 5000, "[" + "1" * 5000 + "]:1"):
        result = wrap.run(*SHOW_HOSTS, env={"DISTBAL": address})
        assert result.stdout == "unset"
        assert result.stderr.startswith(f"distbal-wrap: no balancer ({address[:100]}...: the ")
        assert "too long" in result.stderr


# -- bad balancers --

GARBAGE = [
    b"\r\n",
    b"\n",
    b"box:3632 other:3632\r\n",
    b"box\tother\r\n",
    b"box:3632\r\nother:3632\r\n",
    b" box\r\n",
    b"box \r\n",
    b"--randomize\r\n",
    b"--localslots=99\r\n",
    b"+zeroconf\r\n",
    b"user@box\r\n",
    b"@box\r\n",
    b"box:0\r\n",
    b"box:65536\r\n",
    b"box:99999999999999999999\r\n",
    b"box/0\r\n",
    b"box/x\r\n",
    b"box/4/4\r\n",
    b"box:3632:3632\r\n",
    b"box,lzo;rm\r\n",
    b"box,down\r\n",
    b"[fd00::7\r\n",
    b"[]\r\n",
    b"[gg::1]\r\n",
    b"fd00::7\r\n",
    b"b\x00x\r\n",
    b"box\x00\r\n",
    b"box\x1b[31m\r\n",
    b"b\xc3\xb6x\r\n",
    b"box\r\r\n",
    b"$(reboot)\r\n",
    b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
    b"HTTP/1.1 400 Bad Request\r\n",
    b"x" * 1023 + b"\r\n",
    b"x" * 100_000,
]


def test_garbage_is_refused_in_words_and_the_next_is_asked(wrap: Wrap) -> None:
    for garbage in GARBAGE:
        with farm(garbage) as bad, farm(b"box\r\n") as good:
            alone = wrap.run(*SHOW_HOSTS, env={"DISTBAL": bad.address})
            assert (garbage, alone.stdout) == (garbage, "unset")
            assert alone.stderr.startswith(f"distbal-wrap: no balancer ({bad.address}: sent "), alone.stderr
            assert alone.stderr.removesuffix("\n").isprintable()
            both = wrap.run(*SHOW_HOSTS, env={"DISTBAL": f"{bad.address} {good.address}"})
            assert (both.stdout, both.stderr) == (f"{LOCAL} box/100", "")
            assert bad.count_held() == 0


@given(
    st.binary(max_size=40)
    | st.text("box:3632/4,lzo[]@ -+", max_size=20).map(str.encode)
    | st.from_regex(r"[a-z]{1,9}(:[0-9]{1,6})?(/[0-9]{1,3})?(,lzo|,cpp){0,2}", fullmatch=True).map(str.encode)
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_reply(wrap: Wrap, reply: bytes) -> None:
    """It is a host that distcc takes for one, or refused in words; whatever it is, it becomes no second host and no option."""
    with farm(reply + b"\r\n") as balancer:
        done = wrap.run(*SHOW_HOSTS, env={"DISTBAL": balancer.address})
        assert done.returncode == 0
        if done.stdout == "unset":
            assert done.stderr.startswith(f"distbal-wrap: no balancer ({balancer.address}: sent "), done.stderr
            assert done.stderr.removesuffix("\n").isprintable()
        else:
            said = reply.partition(b"\n")[0].removesuffix(b"\r").decode()
            name, *_ = re.split("[/,]", said, maxsplit=1)
            given_host = done.stdout.removeprefix(f"{LOCAL} ")
            assert re.fullmatch(re.escape(name) + "/[0-9]+(,[\\w.=@,-]*)?", given_host, re.ASCII), (reply, done.stdout)


@pytest.mark.parametrize("sent", [b"", b"bo", b"box:3632", b"box\r"])
@pytest.mark.parametrize("reset", [False, True])
def test_one_that_closes_before_the_grant(wrap: Wrap, balancer: Balancer, sent: bytes, reset: bool) -> None:
    with (
        farm(b"next\r\n") as other,
        wrap.running(SHOW_HOSTS, env={"DISTBAL": f"{balancer.address} {other.address}"}) as process,
    ):
        client = balancer.accept()
        client.sendall(sent)
        if reset:
            reset_at_close(client)
        client.close()
        assert process.communicate(timeout=PATIENCE) == (f"{LOCAL} next/100", "")


def test_one_that_refuses(wrap: Wrap, refusing: str) -> None:
    with farm(b"next\r\n") as other:
        assert wrap.run(*SHOW_HOSTS, env={"DISTBAL": f"{refusing}\t{other.address}"}).stdout == f"{LOCAL} next/100"


def test_a_silent_one_is_waited_for(wrap: Wrap, balancer: Balancer) -> None:
    """Longer than connecting may take: from then on the balancer decides, and the next is not asked."""
    with (
        farm(b"next\r\n") as other,
        wrap.running(SHOW_HOSTS, env={"DISTBAL": f"{balancer.address} {other.address}"}) as process,
    ):
        client = balancer.accept()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(LONGEST + 0.2)
        client.sendall(b"box\r\n")
        assert process.communicate(timeout=PATIENCE)[0] == f"{LOCAL} box/100"
        assert other.granted == 0


def timed(wrap: Wrap, env: dict[str, str]) -> tuple[float, subprocess.CompletedProcess[str]]:
    """How many seconds a run took, and the run."""
    start = time.monotonic()
    result = wrap.run(*SHOW_HOSTS, env=env)
    return time.monotonic() - start, result


def test_a_dark_machine_costs_two_seconds(wrap: Wrap, dark: str) -> None:
    took, result = timed(wrap, {"DISTBAL": dark})
    assert result.stdout == "unset"
    assert result.stderr == f"distbal-wrap: no balancer ({dark}: no answer): {GOING_ON}\n"
    assert LONGEST - 0.1 <= took <= LONGEST + SLACK


def test_several_dark_machines_cost_no_more_and_leave_time_for_the_next(wrap: Wrap, dark: str, refusing: str) -> None:
    took, result = timed(wrap, {"DISTBAL": " ".join([dark] * 5)})
    assert result.stdout == "unset"
    assert took <= LONGEST + SLACK
    with farm(b"box\r\n") as served:
        took, result = timed(wrap, {"DISTBAL": f"{dark} {refusing} {dark} {served.address}"})
        assert result.stdout == f"{LOCAL} box/100"
        assert took <= LONGEST


def test_ctrl_c_while_connecting(wrap: Wrap, dark: str) -> None:
    with wrap.running(SHOW_HOSTS, env={"DISTBAL": dark}) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == -signal.SIGINT


DARK_NAME_SERVER = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <unistd.h>
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
    while (hints && !(hints->ai_flags & AI_NUMERICHOST)) pause();
    return real(node, service, hints, found);
}
"""


@pytest.fixture
def dark_name_server(tmp_path: Path) -> dict[str, str]:
    """The environment in which looking up a name never ends."""
    if flags_name_sanitizers():
        pytest.skip("a sanitizer wants to be the first library")
    (tmp_path / "dark.c").write_text(DARK_NAME_SERVER)
    library = tmp_path / "dark.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "dark.c", "-ldl"], check=True)
    return {"LD_PRELOAD": str(library)}


def test_a_dark_name_server_costs_two_seconds_at_most(wrap: Wrap, dark_name_server: dict[str, str]) -> None:
    """And the process that looked the name up is gone, before the command starts."""
    children = compile_that('read children </proc/$$/task/$$/children; echo "$children" "${DISTCC_HOSTS-unset}"')
    start = time.monotonic()
    result = wrap.run(*children, env={"DISTBAL": "balancer.example", **dark_name_server})
    assert time.monotonic() - start <= LONGEST + SLACK
    assert result.stdout == " unset\n"
    assert "balancer.example: looking up the name took too long" in result.stderr
    with farm(b"box\r\n") as served:
        result = wrap.run(*SHOW_HOSTS, env={"DISTBAL": f"balancer.example {served.address}", **dark_name_server})
        assert result.stdout == f"{LOCAL} box/100"


def runs(process: int) -> bool:
    """Whether it is there and not a zombie that nobody waits for."""
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_killed_while_looking_up_nothing_stays(wrap: Wrap, dark_name_server: dict[str, str]) -> None:
    """Even after kill -9 nobody holds the pipe that a build tool reads its output from."""
    with wrap.running(SHOW_HOSTS, env={"DISTBAL": "balancer.example", **dark_name_server}) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not children.read_text():
            assert process.poll() is None
            time.sleep(0.01)
        child = int(children.read_text())
        process.kill()
        assert process.communicate(timeout=1)[0] == ""
        deadline = time.monotonic() + PATIENCE
        while runs(child):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_name_is_looked_up(wrap: Wrap) -> None:
    """This machine's own name, where it has an address that the balancer can listen on."""
    try:
        listener = socket.create_server((socket.gethostname(), 0))
    except OSError as error:
        pytest.skip(f"this machine's name does not lead to it: {error}")
    address = f"{socket.gethostname()}:{listener.getsockname()[1]}"
    with listener:
        listener.settimeout(PATIENCE)
        for reply, out, said in (
            (b"box\r\n", f"{LOCAL} box/100", ""),
            (b"?\r\n", "unset", "sent what is not the name of a host"),
        ):
            with wrap.running(SHOW_HOSTS, env={"DISTBAL": address}) as process:
                client, _ = listener.accept()
                with client:
                    client.sendall(reply)
                    shown, complaint = process.communicate(timeout=PATIENCE)
            assert (shown, said in complaint, "look" in complaint) == (out, True, False)


def test_a_name_that_is_none_is_reported(wrap: Wrap) -> None:
    result = wrap.run(*SHOW_HOSTS, env={"DISTBAL": "no-such-host.invalid"})
    assert result.stdout == "unset"
    assert result.stderr.startswith("distbal-wrap: no balancer (no-such-host.invalid: ")


# -- without a balancer --


def test_nobody_named_is_no_news(wrap: Wrap) -> None:
    """Without a name, and without a file, the command runs as if the program were not there."""
    show = compile_that('env | grep -c DISTBAL_WRAPPED; printf %s "${DISTCC_HOSTS-unset}"')
    result = wrap.run(*show, env={"DISTCC_HOSTS": "mine/3"})
    assert (result.stdout, result.stderr) == ("0\nmine/3", "")


@pytest.mark.parametrize("mode", [None, "", "hosts"])
def test_fallback_hosts_leaves_the_list_alone(wrap: Wrap, refusing: str, mode: str | None) -> None:
    env = {"DISTBAL": refusing, "DISTCC_HOSTS": "mine/3 --localslots=1"} | ({} if mode is None else {"DISTBAL_FALLBACK": mode})
    result = wrap.run(*compile_that('echo "$DISTCC_HOSTS ${DISTCC_BACKOFF_PERIOD-unset} $(($$ - DISTBAL_WRAPPED))"'), env=env)
    assert result.stdout == "mine/3 --localslots=1 unset 0\n"
    assert result.stderr == f"distbal-wrap: no balancer ({refusing}: Connection refused): {GOING_ON}\n"


def test_fallback_local(wrap: Wrap, refusing: str) -> None:
    env = {"DISTBAL_FALLBACK": "local", "DISTCC_HOSTS": "mine/3 --localslots=5"}
    result = wrap.run(*SHOW_HOSTS, env={**env, "DISTBAL": refusing})
    assert result.stdout == f"--localslots=5 --localslots_cpp={CPUS} localhost/5"
    assert result.stderr.endswith("compiling on this machine\n")
    assert wrap.run(*SHOW_HOSTS, env=env).stdout == result.stdout


def test_fallback_fail(wrap: Wrap, refusing: str) -> None:
    result = wrap.run(*SHOW_HOSTS, env={"DISTBAL": refusing, "DISTBAL_FALLBACK": "fail"})
    assert (result.returncode, result.stdout) == (75, "")
    assert result.stderr == f"distbal-wrap: no balancer ({refusing}: Connection refused), and DISTBAL_FALLBACK=fail\n"


@pytest.mark.parametrize("mode", ["fail", "wait"])
def test_nobody_named_where_there_must_be_one(wrap: Wrap, mode: str) -> None:
    result = wrap.run(*SHOW_HOSTS, env={"DISTBAL_FALLBACK": mode})
    assert (result.returncode, result.stdout) == (75, "")
    assert result.stderr.startswith(f"distbal-wrap: no balancer is named in DISTBAL or {wrap.directory}/client")


def test_fallback_wait(wrap: Wrap) -> None:
    """It says once that it waits, and goes on when a balancer is there."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with wrap.running(SHOW_HOSTS, env={"DISTBAL": address, "DISTBAL_FALLBACK": "wait"}) as process:
            assert process.stderr is not None
            assert process.stderr.readline() == f"distbal-wrap: no balancer ({address}: Connection refused): waiting for one\n"
            listener.listen()
            listener.settimeout(PATIENCE)
            client, _ = listener.accept()
            with client:
                client.sendall(b"box\r\n")
                assert process.communicate(timeout=PATIENCE) == (f"{LOCAL} box/100", "")


def test_a_fallback_that_is_none_is_reported(wrap: Wrap, balancer: Balancer) -> None:
    """Before anybody is asked: not on the day on which the balancer is away."""
    result = wrap.run(*SHOW_HOSTS, env={"DISTBAL_FALLBACK": "Hosts"})
    assert (result.returncode, result.stdout) == (64, "")
    assert result.stderr == 'distbal-wrap: DISTBAL_FALLBACK is "Hosts"; it can be hosts, local, wait or fail\n'
    assert not balancer.asked()


def test_no_descriptor_for_the_lease(wrap: Wrap, balancer: Balancer) -> None:
    """With fewer descriptors than ten there is no room for a lease; the command runs all the same."""
    result = wrap.run("-c", 'ulimit -n 10; exec "$@"', "sh", wrap.program, *SHOW_HOSTS, program="sh")
    assert result.stdout == "unset"
    assert "no balancer" in result.stderr
