"""The rows of the field report: what was measured, what the provider billed, and the page of it. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any, Literal

from benchmarks import world
from benchmarks.figures import percentile
from gateway.simulator.journal import Ended, Line, Received

Fate = Literal["answered", "timed_out", "failed"]


def fate(status: int, said: bytes, *, streamed: bool) -> Fate:
    """What an answer means; a gateway that says it timed out has timed out as well."""
    if status == 504 or b'"upstream_timeout"' in said:
        return "timed_out"
    whole = said.rstrip().endswith(b"data: [DONE]") if streamed else b'"finish_reason":"stop"' in said
    return "answered" if status == 200 and whole else "failed"


@dataclass(frozen=True, slots=True)
class Call:
    """How one call of a program ended, and after how long."""

    fate: Fate
    latency_s: float


@dataclass(frozen=True, slots=True)
class Row:
    """What came of all calls of one program in one way of calling."""

    calls: int
    mean_ms: float
    """Of all calls; one that timed out counts with the time until then."""
    p95_ms: float
    timed_out: int
    failed: int
    attempts: int
    """Requests that the provider received for them."""
    usd: float
    """Per 1,000 answers: what the provider billed, whoever received the answers."""

    @property
    def timeouts(self) -> float:
        """Share of the calls."""
        return self.timed_out / self.calls


@dataclass(frozen=True, slots=True)
class Bill:
    """What the provider charges for one model name."""

    requests: int = 0
    usd: float = 0.0


def row(calls: Sequence[Call], bill: Bill) -> Row:
    """Raises ValueError where not one call was answered."""
    fates = Counter(each.fate for each in calls)
    latencies_ms = [each.latency_s * 1000 for each in calls]
    if not fates["answered"]:
        raise ValueError("not one call was answered")
    return Row(
        calls=len(calls),
        mean_ms=mean(latencies_ms),
        p95_ms=percentile(latencies_ms, 0.95),
        timed_out=fates["timed_out"],
        failed=fates["failed"],
        attempts=bill.requests,
        usd=bill.usd * 1000 / fates["answered"],
    )


def bills(journal: Iterable[Line]) -> dict[str, Bill]:
    """By model name, from the provider's own journal.

    It charges what it reported, and for a request whose usage never left it what that answer would have had:
    it did the work, and nobody told it in time to stop.
    """
    requests: Counter[str] = Counter()
    usd: Counter[str] = Counter()
    for line in journal:
        match line:
            case Received(model_name=str(name)):
                requests[name] += 1
            case Ended(model_name=str(name)):
                usd[name] += cost_usd(line)
    return {name: Bill(requests[name], usd[name]) for name in requests}


def cost_usd(ended: Ended) -> float:
    """Of one request."""
    prompt_tokens, completion_tokens = world.PROMPT_TOKENS, world.COMPLETION_TOKENS
    if ended.usage is not None:
        prompt_tokens, completion_tokens = ended.usage.prompt_tokens, ended.usage.completion_tokens
    return (prompt_tokens * world.INPUT_USD + completion_tokens * world.OUTPUT_USD) / 1_000_000


@dataclass(frozen=True, slots=True)
class Field:
    """The report: for each program its rows, in the order of the published ones."""

    client: str
    """The client library and its version."""
    plain: tuple[Row, ...]
    near: tuple[Row, ...]
    """Through the gateway, which is beside the program."""
    far: tuple[Row, ...]
    """Through the gateway, another round trip away."""
    whole: tuple[Row, ...]
    """Through the gateway, which is beside the program; answers are not streamed."""
    lag_ms: float
    """How late the programs' event loops were, p99 of the worst: the noise in every latency."""
    seconds: float

    @property
    def less_latency(self) -> float:
        """Share of the plain first row's mean that the gateway's last row is below it."""
        return 1 - self.near[-1].mean_ms / self.plain[0].mean_ms

    @property
    def less_alike(self) -> float:
        """The same share, beside the plain client with the settings of that last row."""
        return 1 - self.near[-1].mean_ms / self.plain[-1].mean_ms

    @property
    def fewer_timeouts(self) -> float | None:
        """Share of the plain first row's time-outs; None where it had none."""
        first = self.plain[0].timeouts
        return 1 - self.near[-1].timeouts / first if first else None

    @property
    def possible(self) -> float:
        """The most that `less_latency` could be: the answer's own time and one round trip are left."""
        return 1 - (world.mean_answer_s() + world.ROUND_TRIP_S) * 1000 / self.plain[0].mean_ms


HEAD = ("", "mean", "p95", "time-outs", "failed", "$ per 1,000 answers", "beside the published row")


def page(field: Field) -> str:
    """The section of docs/performance.md."""
    parts = ["## A field report, made again\n", _the_world(field), "", _table(field), "", *_verdict(field)]
    return "\n".join(parts) + "\n"


def document(field: Field) -> dict[str, Any]:
    """The same for docs/performance.json."""
    programs = {"plain": field.plain, "near": field.near, "far": field.far, "whole": field.whole}
    return {
        "client": field.client,
        "lag_ms": round(field.lag_ms, 2),
        "seconds": round(field.seconds, 1),
        "less_latency": round(field.less_latency, 4),
        "less_alike": round(field.less_alike, 4),
        "fewer_timeouts": None if field.fewer_timeouts is None else round(field.fewer_timeouts, 4),
        "rows": [
            {"name": published.name} | {program: _numbers(rows[place]) for program, rows in programs.items()}
            for place, published in enumerate(world.PUBLISHED)
        ],
    }


def _numbers(row: Row) -> dict[str, float]:
    return {
        "calls": row.calls,
        "mean_ms": round(row.mean_ms, 1),
        "p95_ms": round(row.p95_ms, 1),
        "timed_out": row.timed_out,
        "failed": row.failed,
        "attempts": row.attempts,
        "usd_per_1000_answers": round(row.usd, 3),
    }


def _the_world(field: Field) -> str:
    return (
        "Somebody published what pooling, concurrency and a limiter did for their LLM calls.\n"
        "Their four ways of calling are run again here, by the same program once against the provider "
        "and once with nothing changed but the `base_url`.\n"
        "The world was fixed first, in `benchmarks/world.py`, and not turned afterwards: "
        f"TLS, a round trip of {world.ROUND_TRIP_S * 1000:.0f} ms to the provider, "
        f"answers log-normal with a median of {world.ANSWER_MEDIAN_S * 1000:.0f} ms "
        f"and a sigma of {world.ANSWER_SIGMA}, "
        f"one call in {world.ONE_STALL_IN} that is never answered, "
        f"and a program that gives up after {world.CLIENT_TIMEOUT_S:.0f} s.\n"
        f"The program uses {field.client}, the continuation of httpx that the official SDK brings; "
        "it asks for a stream and reads it to its end; "
        f"every figure is of {world.CALLS} calls.\n"
        "*Penstock* is on the program's machine, so that the round trip lies between it and the provider; "
        "*far* has another round trip between program and gateway; "
        "*whole* is beside the program again, and the answers are not streamed.\n"
        "The provider bills whatever it received, as its own journal has it, and what is billed is shared "
        "among the answers that came.\n"
        "Latency is of all calls, those that timed out included, and does not count the limiter's wait.\n"
        f"The programs' own event loops were late by up to {field.lag_ms:.1f} ms at the 99th percentile."
    )


def _table(field: Field) -> str:
    lines = [HEAD, ("---",) * len(HEAD)]
    for place, published in enumerate(world.PUBLISHED):
        lines.append(_published_line(published))
        lines.append(_line("plain client", field.plain[place], None))
        lines.append(_line("Penstock", field.near[place], published))
        lines.append(_line("Penstock, far", field.far[place], published))
        lines.append(_line("Penstock, whole", field.whole[place], published))
    return "\n".join(f"| {' | '.join(each)} |" for each in lines)


def _published_line(published: world.Published) -> tuple[str, ...]:
    return (
        f"**{published.name}**, published",
        f"{published.mean_ms:,.0f} ms",
        "",
        f"{published.timeouts:.1%}",
        "",
        f"{published.usd:.2f}",
        "",
    )


def _line(program: str, row: Row, published: world.Published | None) -> tuple[str, ...]:
    return (
        program,
        f"{row.mean_ms:,.0f} ms",
        f"{row.p95_ms:,.0f} ms",
        f"{row.timeouts:.1%} ({row.timed_out})",
        str(row.failed),
        f"{row.usd:.2f}",
        "" if published is None else _won(row, published),
    )


def _won(row: Row, published: world.Published) -> str:
    verdicts = (
        ("latency", row.mean_ms <= published.mean_ms),
        ("time-outs", row.timeouts <= published.timeouts),
        ("cost", round(row.usd, 2) <= published.usd),
    )
    return ", ".join(f"{what} {'won' if won else '**lost**'}" for what, won in verdicts)


def _verdict(field: Field) -> list[str]:
    less, fewer = field.less_latency, field.fewer_timeouts
    said = "has no time-outs to compare with" if fewer is None else f"had {fewer:.0%} fewer time-outs"
    return [
        f"Beside the plain client without a pool, Penstock with pool, semaphore and limiter took "
        f"{less:.0%} less time ({_reached(less, world.AIM_LATENCY)}) and {said} "
        f"({_reached(fewer, world.AIM_TIMEOUTS)}); beside the plain client with the same, "
        f"{field.less_alike:.0%} less time.",
        *_told_of_late(field),
        f"More than {field.possible:.0%} less cannot be had in this world: "
        "what is left is the provider's own time and one round trip, "
        "and no gateway answers before its provider.",
        "A stream that stalls before its first byte is tried again, within the program's patience; "
        "a whole answer is not, because the provider has probably done the work and will bill it.",
    ]


def _told_of_late(field: Field) -> list[str]:
    """That a call which is answered after all is a slow one, where that shows."""
    slower = sum(near.p95_ms > plain.p95_ms for near, plain in zip(field.near, field.plain, strict=True))
    if not slower:
        return []
    return [
        f"Its 95th percentile is the higher one in {slower} of {len(field.near)} rows: "
        "a call that would have timed out is tried again and answered late."
    ]


def _reached(share: float | None, aim: float) -> str:
    return f"aim {aim:.0%}: {'reached' if share is not None and share >= aim else '**not reached**'}"
