"""No page and no question goes through the whole ledger, however large it is."""

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from accounts.models import ApiKey, Membership, Team, User
from gateway import services
from gateway.models import Entry, Refusal, Target
from gateway.tag_names import declare
from tests.dashboard.scale import Crowd, fill
from tests.dashboard.test_access_matrix import ROWS

ENTRIES = int(os.environ.get("ENTRIES", "50000"))
MANY = int(os.environ.get("PROVE_ENTRIES", "10000000"))
MOST_QUERIES = 12
MOST_MS = 200.0
ROUNDS = 3
"""Of which the middle one counts."""
LEDGER = re.compile(
    r"SCAN (gateway_(?:entry|attempt|correction|refusalcount)\b\S*)"
    r"|Seq Scan on (gateway_(?:entry|attempt)\w*)"
)
"""An empty table, as that of corrections is here, PostgreSQL always reads whole."""
LONG = "since=2026-01-01T00:00:00Z"
"""A range that takes in everything."""
MORE = (
    "GET /admin/gateway/entry/",
    "GET /admin/gateway/entry/{call_id}/change/",
    "GET /calls/{call_id}/",
    "GET /calls/?team={slug}",
    "GET /calls/?team={slug}&outcome=failed",
    "GET /calls/?team={slug}&outcome=abandoned",
    "GET /calls/?key={key_id}",
    "GET /calls/?route=gpt-4o-2",
    "GET /calls/?tag=app%3Dapp-3",
    "GET /usage/?team={slug}&by=key",
    "GET /usage/?range=30d",
    "GET /api/calls?team={team_id}&outcome=abandoned",
    "GET /api/calls/{call_id}",
    "GET /api/refusals/{refusal_id}",
    f"GET /api/usage/series?{LONG}&by=route",
    f"GET /api/usage/breakdown?{LONG}&by=target",
)
STREAMED = re.compile(r"\.csv")
"""Exports, which read the calls that they give out; how is tested with them."""
OF_A_ROUTE = re.compile(
    r"\{(token|invitation_id|webhook_id|limit_id|quota_id|secret_id|token_id|alert_id|channel_id)\}"
)
"""What this house has none of."""


@dataclass
class Watch:
    """Every query of one answer, with those that go through a table of the ledger."""

    queries: list[tuple[str, Any]] = field(default_factory=list)
    scans: list[str] = field(default_factory=list)

    def __call__(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        if not many and sql.lstrip(" (").upper().startswith(("SELECT", "WITH")):
            self.queries.append((sql, params))
            self.scans += scans_of(sql, params)
        return execute(sql, params, many, context)


def scans_of(sql: str, params: Any) -> Iterator[str]:
    """Tables of the ledger that a query reads from one end to the other."""
    on_sqlite = connection.vendor == "sqlite"
    asked = f"EXPLAIN {'QUERY PLAN ' if on_sqlite else ''}{sql}"
    if on_sqlite:
        asked = asked % tuple("?" for _ in params or ()) if params else asked
    with closing(connection.connection.cursor()) as cursor:
        cursor.execute(asked, tuple(params or ()))
        for row in cursor.fetchall():
            if found := LEDGER.search(str(row[-1])):
                yield f"{found.group(1) or found.group(2)} in {sql[:400]}"


def crowd(*, days: int) -> Crowd:
    """Three teams with three keys each, and four routes."""
    provider = services.add_provider("openai", "OpenAI", "https://openai.example/v1")
    routes = [services.add_route(f"gpt-4o-{number}") for number in range(4)]
    targets = [services.add_target(each, provider, each.model_name) for each in routes]
    teams = [Team.objects.create(name=f"Team {number}", slug=f"team-{number}") for number in range(3)]
    keys = [
        [ApiKey.objects.create(team=team, name=f"key {number}").pk for number in range(3)] for team in teams
    ]
    return Crowd([each.pk for each in teams], keys, targets, datetime.now(UTC), days)


def world(of: Crowd) -> dict[str, Any]:
    """What addresses name, of the team with most of the calls."""
    team = Team.objects.get(pk=of.team_ids[0])
    bob = User.objects.create_user("bob@example.com")
    Membership.objects.create(team=team, user=bob, role="owner")
    target = Target.objects.select_related("route").first()
    assert target is not None
    return {
        "team_id": team.pk,
        "slug": team.slug,
        "user_id": bob.pk,
        "key_id": of.key_ids[0][0],
        "provider_id": target.provider_id,
        "route_id": target.route_id,
        "target_id": target.pk,
        "call_id": Entry.objects.filter(team=team).order_by("-started_at")[:1].get().pk,
        "refusal_id": Refusal.objects.order_by("-at")[:1].get().pk,
    }


def addresses(known: dict[str, Any]) -> list[str]:
    names = [*ROWS, *MORE]
    asked = [each.removeprefix("GET ") for each in names if each.startswith("GET ")]
    return [each.format(**known) for each in asked if not (STREAMED.search(each) or OF_A_ROUTE.search(each))]


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@dataclass
class Asked:
    """How one address was answered."""

    address: str
    queries: Sequence[tuple[str, Any]]
    page_ms: float
    """All of it, at its second time."""


def ask(client: Client, address: str, findings: list[str]) -> Asked:
    watch = Watch()
    with connection.execute_wrapper(watch):
        status = client.get(address).status_code
    if status >= 500 and not address.endswith("/state"):  # of a relay, which does not run here
        findings.append(f"{address}: {status}")
    if len(watch.queries) > MOST_QUERIES:
        findings.append(f"{address}: {len(watch.queries)} queries")
    findings.extend(f"{address}: goes through {each}" for each in watch.scans)
    began = time.perf_counter()
    client.get(address)
    return Asked(address, watch.queries, (time.perf_counter() - began) * 1000)


def queries_ms(asked: Sequence[tuple[str, Any]]) -> float:
    """How long all queries of one answer take together, each up to its last row.

    They are asked once more by themselves: SQLite works out rows while they are fetched.
    """
    found = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for sql, params in asked:
            with connection.cursor() as cursor:
                cursor.execute(sql, params)
                cursor.fetchall()
        found.append((time.perf_counter() - began) * 1000)
    return sorted(found)[ROUNDS // 2]


@pytest.mark.django_db(transaction=True)
def test_no_page_goes_through_the_ledger() -> None:
    of = crowd(days=2)
    declare(Team.objects.get(pk=of.team_ids[0]), ["app"])
    fill(of, ENTRIES)
    known = world(of)
    people = (User.objects.create_superuser("ada@example.com"), User.objects.get(email="bob@example.com"))
    findings: list[str] = []
    for person in people:
        client = client_of(person)
        for address in addresses(known):
            ask(client, address, findings)
    assert not findings, "\n".join(findings)


@pytest.mark.prove
@pytest.mark.django_db(transaction=True)
def test_pages_of_ten_million_calls_are_drawn_in_200_ms(capsys: pytest.CaptureFixture[str]) -> None:
    of = crowd(days=90)
    began = time.monotonic()
    fill(of, MANY)
    took_s = time.monotonic() - began
    known = world(of)
    client = client_of(User.objects.create_superuser("ada@example.com"))
    findings: list[str] = []
    slowest = []
    for address in addresses(known):
        asked = ask(client, address, findings)
        slowest.append((queries_ms(asked.queries), asked.page_ms, len(asked.queries), address))
    slowest.sort(reverse=True)
    with capsys.disabled():
        print(f"\n{connection.vendor}: {MANY:,} calls booked and rolled up in {took_s:.0f} s")
        for spent_ms, page_ms, queries, address in slowest[:12]:
            print(f"  {spent_ms:7.1f} ms in {queries:2} queries, page {page_ms:7.1f} ms: {address}")
    findings += [f"{address}: {spent_ms:.0f} ms" for spent_ms, _, _, address in slowest if spent_ms > MOST_MS]
    assert not findings, "\n".join(findings)
