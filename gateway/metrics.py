"""`/metrics`: what all processes together do, in Prometheus' text format. No team and no key is named.

The format and the naming are Prometheus': https://prometheus.io/docs/practices/naming/
What a transport does not know has no sample: a missing figure is not a zero.
"""

import asyncio
import hmac
import ipaddress
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from gateway.endpoints import NO_STORE, Scope, Send
from gateway.figures import CPU, Figures
from gateway.lifespan import Gateway
from gateway.meter import BOUNDS_S, Taken
from gateway.relay.gate import PRIORITIES, WAIT_BOUNDS_S
from gateway.relay.ports import ACQUIRE_BOUNDS_S, PoolFigures
from gateway.relay.targets import TargetState

PATH = "/metrics"
TEXT = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
PLAIN = (b"content-type", b"text/plain; charset=utf-8")
FORWARDED = frozenset((b"forwarded", b"via", b"x-forwarded-for", b"x-real-ip"))
NANOS = 10**9
STATES = ("closed", "half_open", "open")

TARGET = ["route", "target"]
"""Labels: the same provider and upstream model may stand behind several routes."""

Name = tuple[str, str]
Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


async def answer(gateway: Gateway, scope: Scope, send: Send, token: str) -> None:
    """The figures, to this machine or to whoever has the token; 403 to others."""
    if scope["method"] not in ("GET", "HEAD"):
        status, kind, body = 405, PLAIN, b"Metrics are only read.\n"
    elif may_read(scope, token):
        # Taken on the relay's loop, written in a thread: five hundred targets take half a second to write.
        figures = await gateway.figures()
        status, kind, body = 200, TEXT, await asyncio.to_thread(text, figures)
    else:
        status, kind = 403, PLAIN
        body = b"Metrics are for this machine, or for a bearer token: see METRICS_TOKEN.\n"
    headers = [kind, NO_STORE, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def may_read(scope: Scope, token: str) -> bool:
    """With a token set, who brings it; else who comes from this machine, and asks it by a name of its own.

    Behind a proxy on this machine everybody comes from it, and a web page that is open on it
    may lead its own name here.
    """
    headers = dict(scope["headers"])
    if token:
        brought = headers.get(b"authorization", b"")
        return hmac.compare_digest(brought, b"Bearer " + token.encode())
    if FORWARDED & headers.keys() or not scope.get("client"):
        return False
    return _is_here(str(scope["client"][0])) and _is_own_name(headers.get(b"host", b"").decode("latin-1"))


def _is_own_name(host: str) -> bool:
    """localhost or a loopback address, with or without a port."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name == "localhost" or _is_here(name)


def _is_here(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def text(figures: Figures) -> bytes:
    """All figures of a reading."""
    registry = CollectorRegistry()
    registry.register(Reading(figures))
    return generate_latest(registry)


class Reading(Collector):
    """One reading."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def describe(self) -> Iterable[Any]:
        """Nothing ahead: what there is is known when it is read."""
        return []

    def collect(self) -> Iterator[Family]:
        targets = self._figures.targets
        yield from _calls(self._figures.taken)
        yield from _targets(targets)
        yield from _gates(targets)
        yield from _pools([(_name(each), each.pool) for each in targets if each.pool])
        yield from _processes(self._figures)


PROCESS = (
    ("process_virtual_memory_bytes", "Virtual memory."),
    ("process_resident_memory_bytes", "Resident memory."),
    ("process_start_time_seconds", "When the oldest of the processes started, in Unix seconds."),
    ("process_open_fds", "Open file descriptors."),
    ("process_max_fds", "File descriptors that may be open."),
)


def _processes(figures: Figures) -> Iterator[Family]:
    """What the operating system says, all processes together, and how many they are."""
    known = figures.process
    if CPU in known:
        yield CounterMetricFamily(CPU, "Processor time, user and system.", value=known[CPU])
    for name, said in PROCESS:
        if name in known:
            yield GaugeMetricFamily(name, said, value=known[name])
    counted = GaugeMetricFamily("penstock_processes", "Processes that serve calls.", labels=["state"])
    counted.add_metric(("counted",), figures.processes)
    counted.add_metric(("missing",), figures.missing)
    yield counted
    yield GaugeMetricFamily(
        "penstock_journal_bytes", "Length of the journals together.", value=figures.journal_bytes
    )
    yield GaugeMetricFamily(
        "penstock_processes_behind",
        "Processes whose journal the database does not take at present.",
        value=figures.behind,
    )


def _calls(meter: Taken) -> Iterator[Family]:
    by = ["route", "outcome"]
    calls = CounterMetricFamily("penstock_calls", "Calls that ended.", labels=by)
    latency = HistogramMetricFamily("penstock_call_latency_seconds", "From admission to end.", labels=by)
    tokens = CounterMetricFamily("penstock_tokens", "Tokens of ended calls.", labels=[*by, "direction"])
    cost = CounterMetricFamily("penstock_cost", "Cost in the ledger currency.", labels=by)
    for key, tally in meter.tallies.items():
        calls.add_metric(key, tally.calls)
        counts = list(accumulate(tally.buckets))
        latency.add_metric(key, _buckets(BOUNDS_S, counts), tally.latency_us / 1e6)
        tokens.add_metric((*key, "input"), tally.input_tokens)
        tokens.add_metric((*key, "output"), tally.output_tokens)
        cost.add_metric(key, tally.cost_nanos / NANOS)
    refused = CounterMetricFamily("penstock_refused_calls", "Calls not let in.", labels=["code"])
    for code, count in meter.refusals.items():
        refused.add_metric((code,), count)
    yield from (calls, latency, tokens, cost, refused)


def _targets(targets: list[TargetState]) -> Iterator[Family]:
    state = GaugeMetricFamily(
        "penstock_breaker", "Processes that have it in this state.", labels=[*TARGET, "state"]
    )
    retries = CounterMetricFamily("penstock_retries", "Retries sent.", labels=TARGET)
    for each in targets:
        for one in STATES:
            state.add_metric((*_name(each), one), (each.breakers or (each.breaker,)).count(one))
        retries.add_metric(_name(each), each.retries)
    yield from (state, retries)


def _gates(targets: list[TargetState]) -> Iterator[Family]:
    by = [*TARGET, "priority"]
    places = GaugeMetricFamily("penstock_gate_places", "Attempts at once.", labels=TARGET)
    in_use = GaugeMetricFamily("penstock_gate_in_use", "Places taken.", labels=TARGET)
    refused = CounterMetricFamily("penstock_gate_refused", "Calls turned away.", labels=TARGET)
    waiting = GaugeMetricFamily("penstock_gate_waiting", "Calls that wait for a place.", labels=by)
    waits = HistogramMetricFamily("penstock_gate_wait_seconds", "Waits of those that entered.", labels=by)
    for each in targets:
        name, gate = _name(each), each.gate
        places.add_metric(name, gate.places)
        in_use.add_metric(name, gate.in_use)
        refused.add_metric(name, gate.refused)
        for one in PRIORITIES:
            waiting.add_metric((*name, one), gate.waiting[one])
            waits.add_metric((*name, one), _buckets(WAIT_BOUNDS_S, gate.wait_buckets[one]), gate.wait_s[one])
    yield from (places, in_use, refused, waiting, waits)


COUNTED = (
    ("acquired", "Places given out."),
    ("pool_timeouts", "Calls that found no connection in time."),
    ("connect_timeouts", "Connections that were not made in time."),
    ("connection_errors", "Connections refused, failed or broken."),
    ("requests", "Requests sent."),
    ("answers", "Requests whose headers came back."),
    ("opened", "Connections made."),
    ("reused", "Requests that needed no new connection."),
)
GAUGED = (
    ("in_use", "Connections in use."),
    ("waiting", "Calls that wait for a connection."),
    ("idle", "Connections kept for the next call."),
)


def _pools(pools: list[tuple[Name, PoolFigures]]) -> Iterator[Family]:
    for figure, said in GAUGED:
        yield _known(GaugeMetricFamily(f"penstock_pool_{figure}", said, labels=TARGET), figure, pools)
    for figure, said in COUNTED:
        yield _known(CounterMetricFamily(f"penstock_pool_{figure}", said, labels=TARGET), figure, pools)
    waits = HistogramMetricFamily("penstock_pool_acquire_seconds", "Waits for a connection.", labels=TARGET)
    spoken = GaugeMetricFamily("penstock_pool_http", "HTTP as last spoken.", labels=[*TARGET, "version"])
    for name, pool in pools:
        waits.add_metric(name, _buckets(ACQUIRE_BOUNDS_S, pool.acquire_buckets), pool.acquire_s)
        if pool.http_version is not None:
            spoken.add_metric((*name, pool.http_version), 1)
    yield from (waits, spoken)


def _known(family: Any, figure: str, pools: list[tuple[Name, PoolFigures]]) -> Any:
    """A sample of each pool whose transport knows the figure."""
    for name, pool in pools:
        value = getattr(pool, figure)
        if value is not None:
            family.add_metric(name, value)
    return family


def _buckets(bounds_s: tuple[float, ...], counts: Iterable[int]) -> list[tuple[str, float]]:
    """Cumulative counts beside their bounds, the last without one."""
    return list(zip((*map(str, bounds_s), "+Inf"), map(float, counts), strict=True))


def _name(target: TargetState) -> Name:
    return target.route, f"{target.provider}/{target.upstream_model}"
