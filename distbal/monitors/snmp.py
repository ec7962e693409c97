"""``snmp``: a host's load from its SNMP agent, with versions 2c and 3 of the protocol.

One question a check, of a dozen values. Silence proves nothing: an agent says nothing to whoever has the wrong community, and
many hosts have no agent. An answer proves that the host is there, and nothing of distccd.

pysnmp wants asyncio, and has a loop of its own in a thread: see ``asyncioloop.py``. What is asked there is in
``snmpclient.py``, and what the answers mean in ``snmpvalues.py``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, ClassVar, Self, TypeVar

from pydantic import model_validator
from twisted.internet.defer import CancelledError, Deferred
from twisted.plugin import IPlugin
from zope.interface import implementer

from distbal.errors import MonitorTrouble
from distbal.forms import Unfit, setting, whole_number
from distbal.interfaces import Fact, IHostMonitor, IHostMonitorFactory, Reading, Target
from distbal.loads import CpuTimes, Steady, share_by_load
from distbal.lookup import Place
from distbal.monitors import snmpvalues
from distbal.monitors.asyncioloop import loop_of
from distbal.monitors.kit import Interval, MonitorKind, MonitorOptions, Surroundings, Timeout, Unreachable, found
from distbal.monitors.snmpaccess import Auth, Community, Credentials, Passphrase, Privacy, User, Version
from distbal.monitors.snmpvalues import Look, Oid, Value
from distbal.monitors.weigher import CPU, Weighed, Weigher, WeightBy, weight_by_setting

if TYPE_CHECKING:
    from distbal.monitors.snmpclient import Engine

T = TypeVar("T")

#: its place in ``surroundings.shared``
SHARED = "snmp"
#: seconds for which CPU times may stand still
STANDSTILL = 60.0
#: the sentence's end that helps with Debian's snmpd, which shows little of itself
NOTHING_SHOWN = (
    "shows neither CPU times nor load: its snmpd.conf must let us see them"
    " (view systemonly included .1.3.6.1.4.1.2021, or a rocommunity or rouser without -V)"
)


def _why_no_port(value: str) -> str:
    return f"{value[:40]} is no port: 1 to 65535 is wanted"


class SnmpOptions(MonitorOptions):
    """What stands behind ``snmp`` in hosts.yaml."""

    interval: Interval = setting(15, "Seconds from one check of a host to the next.")
    timeout: Timeout = setting(5, "Seconds that a check may take. A question without an answer is sent again every 2 s.")
    port: Annotated[int, whole_number(1, 65535, _why_no_port)] = setting(161, "The agent's UDP port.")
    version: Version = setting("2c", "The protocol's version, 2c or 3.")
    community: Community = setting(
        "public", "Version 2c: what lets us in. file:/PATH: it is the first line of that file, which not everybody may read."
    )
    user: User = setting(None, "Version 3: the user's name.")
    auth: Auth = setting("sha", "Version 3: what signs messages, with auth_passphrase.")
    auth_passphrase: Passphrase = setting(None, "Version 3: the user's, or file:/PATH. Without one, messages are not signed.")
    privacy: Privacy = setting("aes", "Version 3: what encrypts messages, with privacy_passphrase.")
    privacy_passphrase: Passphrase = setting(
        None, "Version 3: the user's, or file:/PATH. Without one, messages are not encrypted."
    )
    weight_by: WeightBy = weight_by_setting()

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        given = {key for key in self.model_fields_set if getattr(self, key) is not None}
        if self.version == "2c":
            wrong = [key for key in ("user", "auth", "auth_passphrase", "privacy", "privacy_passphrase") if key in given]
            if wrong:
                raise Unfit(f"{wrong[0]} belongs to version 3 of the protocol: write version: 3, or leave {wrong[0]} out")
            if self.community is None:
                raise Unfit("community is missing: version 2c of the protocol needs one")
            return self
        if "community" in given:
            raise Unfit(
                "community belongs to version 2c of the protocol: version 3 has user, auth_passphrase, privacy_passphrase"
            )
        if self.user is None:
            raise Unfit("user is missing: version 3 of the protocol needs one")
        for key in ("auth", "privacy"):
            if key in given and f"{key}_passphrase" not in given:
                raise Unfit(f"{key}_passphrase is missing: {key}: {getattr(self, key)} does nothing without it")
        if self.privacy_passphrase is not None and self.auth_passphrase is None:
            raise Unfit("auth_passphrase is missing: SNMP does not encrypt what is not signed")
        return self


@implementer(IPlugin, IHostMonitorFactory)
class SnmpKind(MonitorKind):
    """Makes monitors of this kind."""

    name = "snmp"
    description = "how loaded is the host, by its SNMP agent?"
    options = SnmpOptions
    most_at_once = 100
    silence_is_down = False
    silence: ClassVar[str] = "is snmpd there, and does it know this community (or user and passphrases)?"
    requires = ("pysnmp", "cryptography")
    extra = "snmp"

    def monitor(self, target: Target, options: SnmpOptions, surroundings: Surroundings) -> SnmpMonitor:
        """Make a monitor of one host."""
        return SnmpMonitor(target, options, surroundings)


class Engines:
    """pysnmp's engines, one for each set of credentials that somebody holds, in the asyncio loop."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._loop = loop_of(surroundings)
        self._holders: Counter[Credentials] = Counter()
        #: only touched in the loop
        self._engines: dict[Credentials, Engine] = {}

    @classmethod
    def of(cls, surroundings: Surroundings) -> Engines:
        """Those that all monitors of this kind share."""
        engines: Engines = surroundings.shared.setdefault(SHARED, cls(surroundings))
        return engines

    def hold(self, credentials: Credentials) -> None:
        """Have an engine for these from now on; it is made when it is first asked."""
        self._loop.hold()
        self._holders[credentials] += 1

    def release(self, credentials: Credentials) -> Deferred[None]:
        """The holder is done with it; fires when all is let go of that nobody holds any more."""
        self._holders[credentials] -= 1
        if self._holders[credentials]:
            return self._loop.release()
        del self._holders[credentials]
        closed = self._loop.run(self._close(credentials))
        return closed.addBoth(lambda _: self._loop.release())

    def run(self, credentials: Credentials, ask: Callable[[Engine], Awaitable[T]]) -> Deferred[T]:
        """Ask by the engine for these, in the loop; for their holders only."""
        return self._loop.run(self._run(credentials, ask))

    async def _run(self, credentials: Credentials, ask: Callable[[Engine], Awaitable[T]]) -> T:
        engine = self._engines.get(credentials)
        if engine is None:
            # here, as this takes a third of a second and the reactor must not wait for it
            from distbal.monitors.snmpclient import Engine

            engine = self._engines[credentials] = Engine(credentials)
        return await ask(engine)

    async def _close(self, credentials: Credentials) -> None:
        engine = self._engines.pop(credentials, None)
        if engine is not None:
            engine.close()


@implementer(IHostMonitor)
class SnmpMonitor:
    """Asks one host's agent."""

    def __init__(self, target: Target, options: SnmpOptions, surroundings: Surroundings) -> None:
        self._target = target
        self._options = options
        self._surroundings = surroundings
        self._address = target.host, options.port
        self._engines = Engines.of(surroundings)
        self._held: Credentials | None = None
        #: the last check failed: what stands in the files may have changed
        self._in_doubt = True
        self._checks = 0
        self._often = snmpvalues.ALL
        self._counters = snmpvalues.Counters()
        self._weigher = Weigher(options.weight_by)
        self._steady = Steady()
        #: what the weigher was told last, and when; and what it said
        self._total: CpuTimes | None = None
        self._moved = 0.0
        self._weighed = Weighed(None, "", {})
        self._cpus: int | None = None
        self._memory: dict[str, int] = {}

    async def check(self) -> Reading:
        """Ask once, and again while nothing comes."""
        credentials = self._credentials()
        place = await self._place()
        self._in_doubt = True
        try:
            values, processors, took = await self._engines.run(credentials, lambda engine: self._ask(engine, place))
        except CancelledError:
            self._surroundings.lookup.missed(self._address, place)
            raise
        self._in_doubt = False
        self._checks += 1
        self._surroundings.lookup.reached(self._address, place)
        weighed = self._weigh(values, processors)
        return Reading(up=True, reason=weighed.reason, weight=weighed.weight, took=took, facts=weighed.facts | self._memory)

    def stop(self) -> Deferred[None] | None:
        """Let go of the engine, and of the loop with the last one."""
        held, self._held = self._held, None
        return None if held is None else self._engines.release(held)

    def _credentials(self) -> Credentials:
        if self._held is not None and not self._in_doubt:
            return self._held
        credentials = Credentials.of(self._options)
        if credentials != self._held:
            self._engines.hold(credentials)
            self.stop()
            self._held = credentials
        return credentials

    async def _place(self) -> Place:
        lookup = self._surroundings.lookup
        try:
            places = lookup.known(self._address) or await found(lookup, *self._address)
        except Unreachable as problem:
            raise MonitorTrouble(str(problem)) from problem
        return places[0]

    # -- in the loop's thread

    async def _ask(self, engine: Engine, place: Place) -> tuple[dict[Oid, Value], tuple[float, int] | None, float]:
        """What is asked for at each check, now and then the rest; the processors where they are needed; the time it took."""
        rarely = self._checks % snmpvalues.RARE == 0
        began = time.monotonic()
        values = await engine.get(place, snmpvalues.ALL if rarely else self._often)
        took = time.monotonic() - began
        if not self._lacking(values):
            return values, None, took
        return values, snmpvalues.busy(await engine.column(place, snmpvalues.PROCESSORS)), took

    def _lacking(self, values: dict[Oid, Value]) -> bool:
        """Whether what the weight is to come from is not among the values."""
        look = Look.parse(values)
        no_times = look.times is None and not look.fresh
        if self._options.weight_by == CPU and not no_times:
            return False
        cpus = snmpvalues.count(values.get(snmpvalues.CPUS)) or self._cpus
        return self._options.weight_by == CPU or look.load is None or not cpus

    # -- in the reactor's thread

    def _weigh(self, values: dict[Oid, Value], processors: tuple[float, int] | None) -> Weighed:
        now = self._surroundings.reactor.seconds()
        ours = self._surroundings.slots.average(self._target.name)
        self._cpus = snmpvalues.count(values.get(snmpvalues.CPUS)) or (processors[1] if processors else self._cpus)
        if snmpvalues.MEMORY in values:  # all was asked for
            self._memory = snmpvalues.memory(values)
            self._often = snmpvalues.often(values)
        look = Look.parse(values)
        total = self._counters.take(look.times, now)
        if look.fresh and total is None and self._options.weight_by == CPU:
            return Weighed(None, "has no CPU times yet: its agent was just started", {})
        times = total if look.times is not None or look.fresh else None
        if times is None and processors is not None and (self._options.weight_by == CPU or look.load is None):
            return self._weigh_processors(*processors, ours, now)
        if times is None and (look.load is None or self._cpus is None):
            raise MonitorTrouble(NOTHING_SHOWN)
        if times is not None and times == self._total and now - self._moved < STANDSTILL and self._options.weight_by == CPU:
            return self._weighed  # net-snmp reads the counters every 5 s; and over a restart, nothing is known
        self._total, self._moved = times, now
        self._weighed = self._weigher.weigh(times, look.load, self._cpus, ours, now)
        return self._weighed

    def _weigh_processors(self, busy: float, cpus: int, ours: float, now: float) -> Weighed:
        """By how busy each processor was: niced work is not told apart there, so what we lent is taken off, as of a load."""
        share = share_by_load(busy, ours, cpus)
        facts: dict[str, Fact] = {"cpus": cpus, "busy": round(busy, 2), "by": "processors", "ours": round(ours, 2)}
        facts["share"] = round(share, 3)
        reason = f"has {busy:.2g} of {cpus} CPUs busy, {min(ours, busy):.2g} of it ours: {share:.0%} is left for us"
        return Weighed(self._steady.take(share, now), reason, facts)
