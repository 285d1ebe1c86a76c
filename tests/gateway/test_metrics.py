"""`/metrics`: who may read it, that it agrees with the ledger, and what it does not tell."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import msgspec
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from accounts.keys import take_apart
from gateway.figures import Figures, of_this_process
from gateway.meter import Meter
from gateway.metrics import may_read, text
from gateway.relay.gate import Gate
from gateway.relay.ports import ACQUIRE_BOUNDS_S, PoolFigures
from gateway.relay.targets import TargetState
from tests.gateway.records import opened, settled
from tests.served import ADMIN_EMAIL, Served, eventually, serve

TOKEN = "a-token-for-whoever-reads-it"
LEDGER = (
    "SELECT route, outcome, COUNT(*), SUM(input_tokens), SUM(output_tokens), SUM(cost_nanos),"
    " SUM(latency_us) FROM gateway_entry GROUP BY route, outcome"
)
LABELS = {"route", "outcome", "direction", "code", "target", "state", "priority", "version", "le"}
"""All that a figure may be told apart by."""
KNOWN = PoolFigures(
    in_use=3,
    waiting=2,
    acquired=40,
    acquire_s=0.5,
    acquire_buckets=(*(30 for _ in ACQUIRE_BOUNDS_S), 40),
    pool_timeouts=1,
    connect_timeouts=4,
    connection_errors=5,
    requests=39,
    answers=33,
    http_version="1.1",
    idle=6,
    opened=7,
    reused=32,
)
UNKNOWN = msgspec.structs.replace(KNOWN, http_version=None, idle=None, opened=None, reused=None)


class Nobody:
    """A floor above where nobody lives."""

    def settled(self, *_: Any) -> None:
        """Nobody listens."""

    def refused(self, *_: Any) -> None:
        """Nobody listens."""


Read = dict[str, dict[tuple[str, ...], float]]
"""Values by sample name, then by the labels' values in the order of their names."""


def families(body: str) -> list[Metric]:
    return list(text_string_to_metric_families(body))


def read(body: str) -> Read:
    found: Read = defaultdict(dict)
    for family in families(body):
        for each in family.samples:
            labels = tuple(value for _, value in sorted(each.labels.items()))
            assert labels not in found[each.name], f"two samples of {each.name} {labels}"
            found[each.name][labels] = each.value
    return found


def target(pool: PoolFigures | None, **changes: Any) -> TargetState:
    gate = Gate(50, 1000, lambda: 0.0).figures()
    made = TargetState(7, "chat", "openai", "gpt-4o", "half_open", False, 0.0, 11, gate, pool)
    return msgspec.structs.replace(made, **changes)


def told(*targets: TargetState) -> Read:
    return read(text(Figures(Meter(Nobody()).taken(), list(targets))).decode())


def scope(
    *headers: tuple[bytes, bytes], client: Any = ("127.0.0.1", 50_000), host: bytes = b"localhost:8000"
) -> dict[str, Any]:
    return {"type": "http", "method": "GET", "headers": [(b"host", host), *headers], "client": client}


@pytest.mark.parametrize("host", [b"localhost", b"127.0.0.1:8000", b"[::1]:8000", b"[::1]"])
def test_this_machine_may_ask_by_a_name_of_its_own(host: bytes) -> None:
    assert may_read(scope(host=host), "")


@pytest.mark.parametrize("host", [b"evil.example", b"localhost.evil.example:8000", b"", b"[", b"10.0.0.1"])
def test_a_web_page_may_not_lead_its_own_name_here(host: bytes) -> None:
    assert not may_read(scope(host=host), "")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_this_machine_may_read_where_no_token_is_set(host: str) -> None:
    assert may_read(scope(client=(host, 50_000)), "")
    assert may_read(scope(client=(host, "50000")), "")


@pytest.mark.parametrize(
    "client", [("192.0.2.7", 1), ("10.0.0.1", 1), ("::ffff:192.0.2.7", 1), ("", 0), ("unix:", 0), None, ()]
)
def test_nobody_else_may(client: Any) -> None:
    assert not may_read(scope(client=client), "")


@pytest.mark.parametrize("name", [b"x-forwarded-for", b"forwarded", b"via", b"x-real-ip"])
def test_who_comes_through_a_proxy_is_not_this_machine(name: bytes) -> None:
    assert not may_read(scope((name, b"127.0.0.1")), "")


def test_with_a_token_set_it_alone_decides() -> None:
    right = (b"authorization", b"Bearer " + TOKEN.encode())

    assert may_read(scope(right), TOKEN)
    assert may_read(scope(right, (b"x-forwarded-for", b"192.0.2.7"), client=("192.0.2.7", 1)), TOKEN)
    assert not may_read(scope(), TOKEN)
    for brought in (b"", b"Bearer ", TOKEN.encode(), b"Bearer " + TOKEN.encode()[:-1], b"Bearer \xff"):
        assert not may_read(scope((b"authorization", brought)), TOKEN)


def test_a_pools_figures_are_told_under_its_route_and_target() -> None:
    name = ("chat", "openai/gpt-4o")
    found = told(target(KNOWN))

    assert found["penstock_pool_in_use"] == {name: 3}
    assert found["penstock_pool_waiting"] == {name: 2}
    assert found["penstock_pool_idle"] == {name: 6}
    assert found["penstock_pool_acquired_total"] == {name: 40}
    assert found["penstock_pool_pool_timeouts_total"] == {name: 1}
    assert found["penstock_pool_connect_timeouts_total"] == {name: 4}
    assert found["penstock_pool_connection_errors_total"] == {name: 5}
    assert found["penstock_pool_requests_total"] == {name: 39}
    assert found["penstock_pool_answers_total"] == {name: 33}
    assert found["penstock_pool_opened_total"] == {name: 7}
    assert found["penstock_pool_reused_total"] == {name: 32}
    assert found["penstock_pool_http"] == {(*name, "1.1"): 1}
    assert found["penstock_pool_acquire_seconds_sum"] == {name: 0.5}
    assert found["penstock_pool_acquire_seconds_count"] == {name: 40}


def test_a_figure_that_is_not_known_has_no_sample() -> None:
    found = told(target(UNKNOWN))

    for unknown in ("idle", "opened_total", "reused_total", "http"):
        assert f"penstock_pool_{unknown}" not in found
    assert found["penstock_pool_in_use"] == {("chat", "openai/gpt-4o"): 3}


def test_one_that_is_known_of_another_target_has_a_sample_of_that_one_alone() -> None:
    found = told(target(UNKNOWN), target(KNOWN, route="other"))

    assert found["penstock_pool_idle"] == {("other", "openai/gpt-4o"): 6}


def test_a_target_that_was_not_called_has_no_pool() -> None:
    found = told(target(None))

    assert not any(name.startswith("penstock_pool") for name in found)
    assert found["penstock_gate_places"] == {("chat", "openai/gpt-4o"): 50}


def test_the_breaker_is_in_one_state() -> None:
    name = ("chat",)
    found = told(target(None))

    assert found["penstock_breaker"] == {
        (*name, "closed", "openai/gpt-4o"): 0,
        (*name, "half_open", "openai/gpt-4o"): 1,
        (*name, "open", "openai/gpt-4o"): 0,
    }
    assert found["penstock_retries_total"] == {("chat", "openai/gpt-4o"): 11}


def test_each_processs_breaker_counts() -> None:
    found = told(target(None, breakers=("closed", "open", "closed")))

    states = {state: count for (_, state, _), count in found["penstock_breaker"].items()}
    assert states == {"closed": 2, "half_open": 0, "open": 1}


def test_processes_and_what_they_use_are_told() -> None:
    figures = Figures(Meter(Nobody()).taken(), [], of_this_process(), 3, 1, journal_bytes=70_000, behind=2)

    found = read(text(figures).decode())

    assert found["penstock_processes"] == {("counted",): 3, ("missing",): 1}
    assert found["penstock_journal_bytes"] == {(): 70_000}
    assert found["penstock_processes_behind"] == {(): 2}
    assert found["process_cpu_seconds_total"][()] > 0
    assert found["process_resident_memory_bytes"][()] > 0


def test_buckets_are_cumulative() -> None:
    meter = Meter(Nobody())
    for latency_us in (40_000, 60_000, 60_000, 400_000_000):
        meter.settled(settled(opened(), latency_us=latency_us))

    found = read(text(Figures(meter.taken(), [])).decode())["penstock_call_latency_seconds_bucket"]

    counts = {float(le): count for (le, _, _), count in found.items()}
    assert (counts[0.05], counts[0.1], counts[300.0], counts[float("inf")]) == (1, 3, 3, 4)


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway after some calls: answered, streamed, rejected and refused."""
    with serve(tmp_path_factory.mktemp("metrics") / "var") as served:
        for body in (
            *({"model": "gpt-4o"}, {"model": "gpt-4o", "stream": True}, {"model": "gpt-4o-mini"}),
            *({"model": "gpt-4o", "messages": []}, {"model": "gpt-of-next-year"}),
        ):
            ask(served, body)
        eventually(lambda: len(served.rows("SELECT 1 FROM gateway_entry")) == 4, what="the entries")
        yield served


def ask(served: Served, body: dict[str, Any]) -> None:
    """A call to its end, whatever that is."""
    asked = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5, **body}
    headers = {"Authorization": f"Bearer {served.api_key}"}
    httpx.post(f"{served.base_url}/chat/completions", json=asked, headers=headers, timeout=30)


def get(served: Served, **headers: str) -> httpx.Response:
    return httpx.get(f"{served.origin}/metrics", headers=headers, timeout=30)


def test_it_is_prometheus_text(busy: Served) -> None:
    answer = get(busy)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert {"penstock_calls", "penstock_breaker", "process_resident_memory_bytes"} <= {
        each.name for each in families(answer.text)
    }


def test_it_is_refused_through_a_proxy_and_tells_nothing(busy: Served) -> None:
    answer = get(busy, **{"X-Forwarded-For": "192.0.2.7"})

    assert answer.status_code == 403
    assert "METRICS_TOKEN" in answer.text
    assert "penstock_" not in answer.text


def test_it_agrees_with_the_ledger(busy: Served) -> None:
    found = read(get(busy).text)
    booked = busy.rows(LEDGER)

    assert {(route, outcome) for route, outcome, *_ in booked} == {
        ("gpt-4o", "answered"), ("gpt-4o", "rejected"), ("gpt-4o-mini", "answered"),
    }  # fmt: skip
    assert len(found["penstock_calls_total"]) == len(booked)
    for route, outcome, calls, prompt, output, cost_nanos, latency_us in booked:
        by = (outcome, route)
        assert found["penstock_calls_total"][by] == calls
        assert found["penstock_tokens_total"]["input", *by] == prompt
        assert found["penstock_tokens_total"]["output", *by] == output
        assert found["penstock_cost_total"][by] * 10**9 == pytest.approx(cost_nanos)
        assert found["penstock_call_latency_seconds_count"][by] == calls
        assert found["penstock_call_latency_seconds_sum"][by] * 10**6 == pytest.approx(latency_us)
    assert found["penstock_cost_total"]["answered", "gpt-4o"] > 0
    assert found["penstock_refused_calls_total"] == {("model_not_found",): 1}


def test_targets_and_their_pools_are_told(busy: Served) -> None:
    assert busy.figure("penstock_pool_requests_total", route="gpt-4o") == 3
    assert busy.figure("penstock_pool_answers_total", route="gpt-4o") == 3
    assert busy.figure("penstock_pool_opened_total", route="gpt-4o") >= 1
    assert busy.figure("penstock_pool_in_use", route="gpt-4o") == 0
    assert busy.figure("penstock_pool_requests_total", route="gpt-4.1") is None, "it was never called"
    assert busy.figure("penstock_breaker", route="gpt-4.1", state="closed") == 1
    assert busy.figure("penstock_gate_wait_seconds_count", route="gpt-4o") == 3


def test_no_team_no_key_and_no_secret_is_named(busy: Served) -> None:
    body = get(busy).text
    labels = {name for family in families(body) for each in family.samples for name in each.labels}
    parts = take_apart(busy.api_key)
    assert parts is not None

    assert labels == LABELS
    teams = [name for (name,) in busy.rows("SELECT name FROM accounts_team")]
    keys = [name for (name,) in busy.rows("SELECT name FROM accounts_apikey")]
    secrets = [each.read_text().strip() for each in (busy.var_dir / "secrets").iterdir()]
    assert teams
    assert keys
    assert secrets
    for each in (*teams, *keys, *secrets, parts.public_id, parts.secret, ADMIN_EMAIL, "Bearer", "Hello"):
        assert each not in body


def test_with_a_token_it_is_for_whoever_brings_it(var_dir: Any) -> None:
    with serve(var_dir, METRICS_TOKEN=TOKEN) as served:
        assert get(served).status_code == 403
        assert get(served, Authorization="Bearer another-token-of-some-length").status_code == 403
        assert get(served, Authorization=f"Bearer {served.api_key}").status_code == 403
        answer = get(served, Authorization=f"Bearer {TOKEN}")
        assert answer.status_code == 200
        assert TOKEN not in answer.text
        assert get(served, Authorization=f"Bearer {TOKEN}", Via="1.1 proxy").status_code == 200
