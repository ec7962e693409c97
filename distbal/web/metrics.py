"""``/metrics``, for Prometheus: filled when it is scraped, from what is counted anyway; nothing is done for a job.

It is made family by family, so that a farm of a thousand hosts holds nobody up either. Labels are bounded: hosts and sources
are those of hosts.yaml; no client is named.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from twisted.web.server import Request

import twisted
from distbal import __version__
from distbal.health import FULL_WEIGHT
from distbal.hosts import AdminState
from distbal.lag import BOUNDS as LAGS
from distbal.monitors.watch import WatchState
from distbal.outcomes import FAILURES
from distbal.report import STATES
from distbal.reporter import Figures, Reporter, state_of
from distbal.snapshot import HostState
from distbal.waits import BOUNDS
from distbal.web.making import Answers, Pieces
from distbal.web.resources import Made

#: what OpenMetrics ends with: each family comes with one
_END = b"# EOF\n"


def _weight(host: HostState) -> float:
    weights = (verdict.weight for verdict in host.verdicts if verdict.weight is not None)
    return min(weights, default=FULL_WEIGHT) / FULL_WEIGHT


def _is_up(host: HostState) -> bool:
    return all(verdict.up for verdict in host.verdicts)


#: of each host: name, what it is, its value
_GAUGES: tuple[tuple[str, str, Callable[[HostState], float]], ...] = (
    ("slots", "Jobs that the host may run at once.", lambda host: host.spec.slots),
    ("capacity", "Slots that may be lent now: slots times weight, 0 while it is down or drained.", lambda host: host.capacity),
    ("weight_ratio", "Share of its slots that its sources give it, 0 to 1.", _weight),
    ("leases", "Slots that are lent now.", lambda host: host.leases),
    ("up", "1 while no source says that the host is down, whatever a person decided.", _is_up),
    (
        "admin_ready",
        "0 while a person has drained the host or taken it down.",
        lambda host: host.admin == AdminState.READY.value,
    ),
    (
        "suspect",
        "1 while it is used last, since it closed jobs of several clients without an answer.",
        lambda host: host.suspect,
    ),
)
_COUNTERS: tuple[tuple[str, str, Callable[[HostState], float]], ...] = (
    ("jobs", "Slots of the host that were lent, to this moment's included.", lambda host: host.granted),
    ("lease_seconds", "Seconds that its leases lasted, of those that ended.", lambda host: host.held),
)
_PROXY_COUNTERS: tuple[tuple[str, str, Callable[[HostState], float]], ...] = (
    ("sent_bytes", "Bytes that the proxy sent to the host.", lambda host: host.sent),
    ("received_bytes", "Bytes that the proxy received from the host.", lambda host: host.received),
    ("connects", "Connects of the proxy to the host that succeeded.", lambda host: host.connected),
    ("connect_seconds", "Seconds that these connects took.", lambda host: host.connecting),
)
_WATCH_COUNTERS: tuple[tuple[str, str, Callable[[WatchState], float]], ...] = (
    ("checks", "Checks that were made.", lambda watch: watch.checks),
    ("failed_checks", "Checks that found the host down, or silent.", lambda watch: watch.failed),
    ("troubled_checks", "Checks that could not be made.", lambda watch: watch.troubled),
    ("late_checks", "Checks that were ended at their timeout.", lambda watch: watch.late),
    ("bugs", "Checks that met a bug in the monitor.", lambda watch: watch.bugs),
)
_TOTALS = (
    ("requests", "asked", "Clients that asked for a slot."),
    ("grants", "granted", "Slots that were lent."),
    ("releases", "ended", "Slots that came back."),
    ("withdrawals", "withdrawn", "Clients that left before they had a slot."),
    ("refusals", "refused", "Clients that were sent away, since they had waited for as long as queue.wait allows."),
)


class Metrics(Made):
    """The page that Prometheus scrapes, in the format that it asks for."""

    def __init__(self, reporter: Reporter, answers: Answers) -> None:
        super().__init__(answers)
        self._reporter = reporter
        self._process = ProcessCollector(registry=None)

    def pieces(self, request: Request) -> tuple[tuple[Any, ...], Pieces]:
        encoder, kind = choose_encoder(request.getHeader("accept") or "")
        request.setHeader(b"Content-Type", kind.encode())
        return ("metrics", kind), lambda: exposed(encoder, self._families())

    def _families(self) -> Iterator[Metric]:
        began = self._reporter.now
        yield from families(self._reporter.figures())
        yield from self._process.collect()
        yield _gauge("distbal_scrape_seconds", "Time that this page took to make, pauses included.", self._reporter.now - began)


class _One:
    """A registry with one family in it."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return (self._family,)


def exposed(encoder: Callable[[Any], bytes], metrics: Iterable[Metric]) -> Iterator[bytes]:
    """Each family as text, and the end, if the format has one."""
    end = b""
    for family in metrics:
        text = encoder(_One(family))
        if text.endswith(_END):
            text, end = text.removesuffix(_END), _END
        yield text
    yield end


def families(seen: Figures) -> Iterator[Metric]:
    """What distbal tells, one family at a time."""
    yield _of(
        GaugeMetricFamily("distbal_build_info", "1; the labels say what runs.", labels=["version", "python", "twisted"]),
        [([__version__, platform.python_version(), twisted.__version__], 1)],
    )
    yield from _farm(seen)
    hosts = [(host.spec.name, host) for host in seen.hosts]
    for name, words, value in _GAUGES:
        yield _of(
            GaugeMetricFamily(f"distbal_host_{name}", words, labels=["host"]), [([host], value(state)) for host, state in hosts]
        )
    # of a host that the proxy never used they would be a third of the page, all of it 0; and all outcomes of a host come with
    # its first proxied job, so that the first failure is seen to be one more
    proxied = [(name, host) for name, host in hosts if host.connected or host.failures]
    for counters, those in ((_COUNTERS, hosts), (_PROXY_COUNTERS, proxied)):
        for name, words, value in counters:
            yield _of(
                CounterMetricFamily(f"distbal_host_{name}", words, labels=["host"]),
                [([host], value(state)) for host, state in those],
            )
    outcomes = sorted(outcome.value for outcome in FAILURES)
    yield _of(
        CounterMetricFamily("distbal_host_failures", "Jobs of the proxy that the host failed.", labels=["host", "outcome"]),
        [([name, how], host.failures.get(how, 0)) for name, host in proxied for how in outcomes],
    )
    yield from _monitors(seen.watches)
    yield from _inside(seen)


def _inside(seen: Figures) -> Iterator[Metric]:
    """How the daemon itself is."""
    inside = seen.inside
    yield _of(
        CounterMetricFamily("distbal_bugs", "Exceptions that were met, by what they ended.", labels=["where"]),
        [([where], count) for where, count in inside["bugs"].items()],
    )
    yield _of(
        CounterMetricFamily("distbal_bound_hits", "How often a bound was hit, by its name.", labels=["bound"]),
        [([bound], count) for bound, count in inside["bounds"].items()],
    )
    if inside["room"] is not None:
        yield _gauge("distbal_client_room", "Descriptors that clients may still take.", inside["room"])
    yield HistogramMetricFamily(
        "distbal_loop_lag_seconds",
        "By how much a timer of the event loop, four times a second, was late.",
        buckets=list(zip([*map(str, LAGS), "+Inf"], seen.lags.counts, strict=True)),
        sum_value=seen.lags.seconds,
    )
    yield _gauge("distbal_loop_lag_max_seconds", "The most of that in the last minute.", inside["lag"]["minute"])
    yield CounterMetricFamily("distbal_log_lost_lines", "Lines of the log that could not be written.", value=inside["log_lost"])
    yield _gauge("distbal_log_troubled", "1 while the log cannot be written.", bool(inside["log_trouble"]))
    if (keeper := inside["keeper"]) is not None:
        yield _gauge("distbal_keeper_up", "1 while the keeper is there, 0 when it is gone.", not keeper["gone"])
        yield CounterMetricFamily("distbal_restarts", "How often the keeper started the daemon anew.", value=keeper["restarts"])
    words = "Connections that had just come when the daemon before was killed, and were lost."
    yield _gauge("distbal_lost_connections", words, inside["lost"])


def _farm(seen: Figures) -> Iterator[Metric]:
    states = Counter(map(state_of, seen.hosts))
    yield _of(
        GaugeMetricFamily("distbal_hosts", "Hosts by state; each is in one.", labels=["state"]),
        [([state], states[state]) for state in STATES],
    )
    yield _gauge("distbal_leases", "Slots that are lent now.", seen.lent)
    yield _gauge("distbal_waiting_clients", "Clients that wait for a slot now.", seen.waiting)
    yield _gauge("distbal_longest_wait_seconds", "How long the client that waits longest has waited.", seen.longest_wait)
    for name, count, words in _TOTALS:
        yield CounterMetricFamily(f"distbal_{name}", words, value=seen.counts[count])
    bounds = [*map(str, BOUNDS), "+Inf"]
    yield HistogramMetricFamily(
        "distbal_queue_wait_seconds",
        "How long clients waited for their slots, of those that got one.",
        buckets=list(zip(bounds, seen.waits.counts, strict=True)),
        sum_value=seen.waits.seconds,
    )


def _monitors(watches: tuple[WatchState, ...]) -> Iterator[Metric]:
    named = [([watch.host, watch.source], watch) for watch in watches]
    labels = ["host", "source"]
    yield _of(
        GaugeMetricFamily("distbal_monitor_up", "What a monitor last found: 1 for up, 0 for down.", labels=labels),
        [(names, watch.reading.up) for names, watch in named if watch.reading is not None],
    )
    yield _of(
        GaugeMetricFamily("distbal_monitor_troubled", "1 while a monitor's checks cannot be made.", labels=labels),
        [(names, bool(watch.trouble)) for names, watch in named],
    )
    yield _of(
        GaugeMetricFamily("distbal_monitor_check_seconds", "How long the last answer was waited for.", labels=labels),
        [(names, watch.took) for names, watch in named if watch.reading is not None],
    )
    for name, words, value in _WATCH_COUNTERS:
        yield _of(
            CounterMetricFamily(f"distbal_monitor_{name}", words, labels=labels),
            [(names, value(watch)) for names, watch in named],
        )


def _of(family: Any, samples: Iterable[tuple[list[str], float]]) -> Metric:
    for labels, value in samples:
        family.add_metric(labels, value)
    told: Metric = family
    return told


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=value)
