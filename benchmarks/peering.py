"""The gateway beside its peers: what was measured, and the section of docs/performance.md. Pure."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final

from benchmarks import leanest
from benchmarks.figures import Figure, Load, Sample

WHOLE: Final = Load(False, 64)
STREAMED: Final = Load(True, 64)
LOADS: Final = (WHOLE, STREAMED)
HEADS: Final = {
    "peers": ("peer", "version", "how it is run"),
    "loads": (
        "load",
        "peer",
        "peer, CPU per call",
        "gateway, CPU per call",
        "gateway / peer",
        "peer, calls/s on one core",
        "peer, calls/s in this run",
        "gateway, calls/s in this run",
    ),
    "goals": ("", "goal", "median", "lowest to highest", ""),
    "latency": ("peer", "at", "p50", "p99"),
}


@dataclass(frozen=True, slots=True)
class Against:
    """A load on the gateway and on a peer, round by round."""

    load: Load
    gateway: tuple[Sample, ...]
    peer: tuple[Sample, ...]

    @property
    def cpu_ratios(self) -> tuple[float, ...]:
        """CPU per call of the gateway's processes over that of the peer's, pair by pair."""
        return tuple(ours.tree_us / its.tree_us for ours, its in self._pairs())

    @property
    def rate_ratios(self) -> tuple[float, ...]:
        """Calls a second on one core of the gateway over those of the peer, pair by pair."""
        return tuple(its.tree_us / ours.tree_us for ours, its in self._pairs())

    def _pairs(self) -> Iterable[tuple[Sample, Sample]]:
        return zip(self.gateway, self.peer, strict=True)


def of_a_core(sample: Sample) -> float:
    """Calls that a second of CPU time is enough for, whoever else had the core in this run."""
    return 1e6 / sample.tree_us


@dataclass(frozen=True, slots=True)
class Latency:
    """What a peer adds to an upstream of 200 ms, round by round; in milliseconds."""

    rate: float
    """Calls a second that were due."""
    p50_ms: tuple[float, ...]
    p99_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """All that was found of one peer."""

    name: str
    form: str
    version: str = ""
    against: tuple[Against, ...] = ()
    latency: Latency | None = None
    why: str = ""
    """The reason why it, or something of it, is missing."""


@dataclass(frozen=True, slots=True)
class Peers:
    """What one run found, in the order in which it was measured."""

    standings: tuple[Standing, ...]
    seconds: float


def goals(peers: Peers) -> list[Figure]:
    """The ratios that we mean to reach, and their bounds; those that were measured."""
    asked = (
        (leanest.LITELLM, "calls a second on one core, gateway over LiteLLM", "rate_ratios", 90.0, True),
        (leanest.PORTKEY, "calls a second on one core, gateway over Portkey", "rate_ratios", 9.0, True),
        (leanest.ENVOY, "CPU per call, gateway over Envoy", "cpu_ratios", 1.9, False),
        (leanest.NGINX, "CPU per call, gateway over nginx, which is the limit", "cpu_ratios", None, False),
    )
    whole = {each.name: one for each in peers.standings for one in each.against if one.load == WHOLE}
    return [
        Figure(what, "times", getattr(whole[peer.name], ratios), bound, at_least)
        for peer, what, ratios, bound, at_least in asked
        if peer.name in whole
    ]


def page(peers: Peers) -> str:
    """The section of docs/performance.md."""
    parts = [f"## Beside other gateways and proxies\n\n{_method()}\n", _the_peers(peers)]
    if measured := [each for each in peers.standings if each.against]:
        parts.append(_table("goals", map(_goal, goals(peers))))
        parts.append("CPU time per call in µs; the median, and lowest to highest.\n")
        parts.append(_table("loads", map(_load, _by_load(measured))))
    if delayed := [each for each in measured if each.latency]:
        parts.append(f"{_latency_method()}\n")
        parts.append(_table("latency", map(_delay, delayed)))
    parts += [_missing(peers)] if any(each.why for each in peers.standings) else []
    return "\n".join(parts)


def document(peers: Peers) -> dict[str, Any]:
    """The same for docs/performance.json."""
    return {
        "seconds": round(peers.seconds, 1),
        "goals": [
            {"what": each.what, "bound": each.bound, "values": _rounded(each.values), "reached": each.reached}
            for each in goals(peers)
        ],
        "peers": [_standing(each) for each in peers.standings],
    }


def _standing(standing: Standing) -> dict[str, Any]:
    return {
        "name": standing.name,
        "version": standing.version,
        "form": standing.form,
        "missing": standing.why,
        "latency": standing.latency and _rounded(asdict(standing.latency)),
        "loads": [
            {
                "load": str(each.load),
                "gateway": [_rounded(asdict(one)) for one in each.gateway],
                "peer": [_rounded(asdict(one)) for one in each.peer],
                "cpu_ratios": _rounded(each.cpu_ratios),
                "rate_ratios": _rounded(each.rate_ratios),
            }
            for each in standing.against
        ],
    }


def _method() -> str:
    return (
        "Each peer runs on the tested core, in turns with the gateway, with the same load, upstream and "
        "answers.\n"
        "The gateway has everything on; each peer is in its leanest form, tuned as its own documentation "
        "advises, with off what the first table says.\n"
        "CPU time is of all processes of each, the gateway's supervisor among them.\n"
        "Calls a second on one core are those that a second of CPU time is enough for, "
        "for the gateway and for each peer alike.\n"
        "Calls a second in this run were fewer where somebody had less of the core: its share stands beside "
        "them.\n"
        "Load and upstream share the other core, and that one is the limit of the fastest peers; "
        "CPU per call does not depend on it.\n"
        "A peer's calls in this run are all its calls over the time until its last answer, because one that "
        "is slow answers few before the sending ends.\n"
        "The lowest cost that any relay could reach is near nginx, which looks into nothing."
    )


def _latency_method() -> str:
    return (
        "What each adds to an upstream of 200 ms in an open loop at half of its own calls a second in "
        "this run, or at what the load's core can send evenly, if that is less.\n"
        "Where few calls a second are due, the 99th percentile is of few calls."
    )


def _the_peers(peers: Peers) -> str:
    found = [each for each in peers.standings if each.version]
    return _table("peers", ((each.name, each.version, each.form) for each in found)) if found else ""


def _missing(peers: Peers) -> str:
    return "".join(f"{each.name}: {each.why}\n" for each in peers.standings if each.why)


def _by_load(standings: list[Standing]) -> list[tuple[str, Against]]:
    """All peers of a load side by side, in the order of the loads."""
    found = [(each.name, one) for each in standings for one in each.against]
    return sorted(found, key=lambda each: LOADS.index(each[1].load))


def _load(named: tuple[str, Against]) -> tuple[str, ...]:
    name, found = named
    return (
        str(found.load),
        name,
        _spread(each.tree_us for each in found.peer),
        _spread(each.tree_us for each in found.gateway),
        _spread(found.cpu_ratios),
        _number(median(map(of_a_core, found.peer))),
        _in_this_run(found.peer),
        _in_this_run(found.gateway),
    )


def _in_this_run(samples: tuple[Sample, ...]) -> str:
    """Calls a second, and the share of the core with which they were had."""
    share = median(each.share for each in samples)
    return f"{_number(median(each.rate for each in samples))} with {share:.0%}"


def _goal(figure: Figure) -> tuple[str, ...]:
    values, reached = figure.values, ""
    if figure.bound is not None:
        reached = "reached" if figure.reached else "**not reached**"
    bound = f"{'≥' if figure.at_least else '≤'} {figure.bound:g}" if figure.bound is not None else ""
    spread = f"{_number(min(values))} to {_number(max(values))}" if len(values) > 1 else "one round"
    return (figure.what, bound, _number(figure.median), spread, reached)


def _delay(standing: Standing) -> tuple[str, ...]:
    latency = standing.latency
    assert latency is not None
    return (
        standing.name,
        f"{latency.rate:,.0f} calls/s",
        f"{_spread(latency.p50_ms)} ms",
        f"{_spread(latency.p99_ms)} ms",
    )


def _spread(values: Iterable[float]) -> str:
    ordered = sorted(values)
    middle = _number(median(ordered))
    return f"{middle} ({_number(ordered[0])} to {_number(ordered[-1])})" if len(ordered) > 1 else middle


def _number(value: float) -> str:
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _table(kind: str, rows: Iterable[tuple[str, ...]]) -> str:
    head = HEADS[kind]
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(each)} |" for each in lines) + "\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, tuple):
        return [_rounded(each) for each in value]
    return round(value, 3) if isinstance(value, float) else value
