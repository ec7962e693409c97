"""A host whose CPUs work for us alone, then half for somebody else, then for us alone: what its weight does.

``make soak-weights``. With everything real, and the options that users have: distccd, which runs its compilers niced, sshd,
busy loops. It takes some minutes on a machine that does nothing else, so it is not in every run. The clients here are niced
too, since on a farm they would be other machines.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.integration.farm import Server, clean_environment, running_farm, start
from tests.services import Balancer, balancer
from tests.sshd import Sshd, make_keys
from tests.support import need

pytestmark = [
    pytest.mark.programs,
    pytest.mark.skipif("DISTBAL_SOAK" not in os.environ, reason="takes minutes and the whole machine: make soak-weights"),
]

CPUS = len(os.sched_getaffinity(0))
#: a source that takes a compiler some tenths of a second
HEAVY = "".join(
    f"double f{n}(double x) {{ return {' + '.join(f'x * {k}.5 / (x + {k})' for k in range(40))}; }}\n" for n in range(60)
)


class Weights:
    """The weight as it was looked at each second, in thousandths, with the seconds since the beginning."""

    def __init__(self, one: Balancer) -> None:
        self.seen: list[tuple[float, int]] = []
        self._one = one
        self._began = time.monotonic()

    async def watch(self, seconds: float) -> list[int]:
        """Watch for so long; the weights of that time."""
        first = len(self.seen)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await deferLater(reactor, 1.0)
            (host,) = self._one.hosts().values()
            weight = next((verdict.weight for verdict in host.verdicts if verdict.source == "ssh"), None)
            if weight is not None:
                self.seen.append((time.monotonic() - self._began, weight))
        return [weight for _, weight in self.seen[first:]]

    async def until(self, low: int, high: int, seconds: float) -> float:
        """Watch until it is within these; after how many seconds it was."""
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            if any(low <= weight <= high for weight in await self.watch(1.0)):
                return time.monotonic() - began
        states = self._one.service.monitors.states()
        raise AssertionError(f"not within {low} to {high} after {seconds:.0f} s: {self.changes()} {states}")

    def changes(self) -> list[tuple[int, int]]:
        """When it changed, and to what."""
        first, rest = self.seen[:1], itertools.pairwise(self.seen)
        return [(round(at), weight) for at, weight in (*first, *(new for old, new in rest if new[1] != old[1]))]


@contextmanager
def niced_builds(port: int, directory: Path, number: int) -> Iterator[Path]:
    """So many clients that compile without a pause by way of the proxy; gives the journal of what they did."""
    (directory / "heavy.c").write_text(HEAVY)
    (directory / "distcc").mkdir()
    journal = directory / "journal"
    journal.touch()
    script = f"while :; do distcc gcc -O2 -c heavy.c -o out$0.o && echo done >>{journal} || echo failed >>{journal}; done"
    env = clean_environment() | {
        "DISTCC_HOSTS": f"--localslots=9 --localslots_cpp=9 127.0.0.1:{port}/9",
        "DISTCC_FALLBACK": "0",
        "DISTCC_DIR": str(directory / "distcc"),
    }
    with ExitStack() as stack:
        for one in range(number):
            process = start(["nice", "-n", "5", "sh", "-c", script, str(one)], directory / "clients", env, directory)
            stack.callback(process.wait)
            stack.callback(os.killpg, process.pid, signal.SIGKILL)
        yield journal


@contextmanager
def busy_loops(number: int) -> Iterator[None]:
    """Somebody else's work, at the usual priority."""
    with ExitStack() as stack:
        for _ in range(number):
            process = start([sys.executable, "-c", "while True: pass"], Path(os.devnull), clean_environment(), Path("/"))
            stack.callback(process.wait)
            stack.callback(os.killpg, process.pid, signal.SIGKILL)
        yield


@asynccontextmanager
async def weighed(server: Server, sshd: Sshd, directory: Path) -> AsyncIterator[Balancer]:
    """The balancer, with one host that it weighs by SSH."""
    await sshd.start()
    sshd.know("ed25519")
    login = sshd.options()
    ssh = f"{{user: {login.user}, port: {login.port}, key: {login.key}, known_hosts: {login.known_hosts}}}"
    listen = "listen: {balance: null, status: '127.0.0.1:0', update: null, proxy: '127.0.0.1:0'}\n"
    text = f"hosts: ['{server.name}/{2 * CPUS}']\n{listen}monitors: {{tcp: true, ssh: {ssh}}}\n"
    async with balancer(directory, text) as one:
        yield one


@pytest_twisted.ensureDeferred
async def test_a_weight_follows_the_load_that_is_not_ours(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    need("distcc", "distccd", "gcc", "sshd", "ssh-keygen")
    sshd = Sshd(tmp_path_factory.mktemp("sshd"), make_keys(tmp_path_factory))
    with ExitStack() as stack:
        stack.callback(sshd.stop)
        farm = stack.enter_context(running_farm(("one", 2 * CPUS, 0.0)))
        async with weighed(farm.servers[0], sshd, tmp_path) as one:
            weights = Weights(one)
            with niced_builds(one.port("proxy"), tmp_path, CPUS + 1) as journal:
                assert await weights.watch(45), one.service.monitors.states()
                ours = await weights.watch(60)
                with busy_loops(max(1, CPUS // 2)):
                    fell = await weights.until(400, 620, 120)
                    both = await weights.watch(60)
                rose = await weights.until(950, 1000, 120)
                back = await weights.watch(30)
                jobs = journal.read_text().split()
            print(  # noqa: T201 (make soak-weights shows it)
                f"\n{len(jobs)} jobs; full work by us alone: {min(ours)} to {max(ours)}; with {max(1, CPUS // 2)} busy loops on"
                f" {CPUS} CPUs: about half after {fell:.0f} s, then {min(both)} to {max(both)}; alone again after {rose:.0f} s:"
                f" {min(back)} to {max(back)}; all changes, as (second, thousandths): {weights.changes()}"
            )
            assert min(ours) >= 900
            assert 350 <= min(both) <= max(both) <= 650
            assert min(back) >= 900
            assert "failed" not in jobs
            assert len(weights.changes()) <= 16, weights.changes()
