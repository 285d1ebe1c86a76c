"""Many things at once into the database of a gateway that does not serve yet; runs in `manage.py shell`.

Each is made once by the project's own services, as a pattern, and multiplied by the database itself:
a million take seconds, and their columns are whatever the tables have. SQLite only.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count as counting
from itertools import islice, product
from typing import Any, Final

from django.db import connection, transaction
from django.db.models import Model

from accounts.changes import note_change
from accounts.models import ApiKey, KeySecret, Quota, RateLimit, Team, User
from accounts.services import create_key, create_team
from benchmarks.configured import AMPLE
from benchmarks.wire import MODEL_NAME
from gateway.ledger import rollups
from gateway.ledger.writer import book
from gateway.models import Attempt, Entry, Price, Route, Stale, Target
from tests.gateway.records import opened, settled

CALLERS: Final = 64
A_SECOND: Final = 100
"""Calls of a ledger's history, evenly."""
ENDED_AGO_S: Final = 3600
"""So that the live page, which has a quarter of an hour, has nothing of it."""
KEYS, ROUTES = 10, 4
"""Of the history."""
MINUTE_S = 60


def multiply(pattern: Model, count: int, **changed: str) -> None:
    """So many further rows like one. `changed` are SQL expressions by column; `n.i` counts from 1."""
    table = pattern._meta.db_table
    key = pattern._meta.pk.column  # type: ignore[union-attr]
    columns = [str(each.column) for each in pattern._meta.concrete_fields]
    kept = [each for each in columns if each != key or key in changed]
    quoted = connection.ops.quote_name
    values = ", ".join(changed.get(each, f"t.{quoted(each)}") for each in kept)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({', '.join(map(quoted, kept))}) "
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %s) "
            f"SELECT {values} FROM n, {table} t WHERE t.{key} = %s",
            [count, pattern._meta.pk.get_db_prep_value(pattern.pk, connection)],  # type: ignore[union-attr]
        )


def callers(count: int = CALLERS, teams: Sequence[Team] = ()) -> list[str]:
    """So many keys in clear, dealt out to these teams, or of a team of their own; all have every limit."""
    teams = teams or [create_team("Callers", User.objects.get())]
    made = [create_key(teams[each % len(teams)], f"caller {each}", None) for each in range(count)]
    _limit([{"key": key} for key, _ in made] + [{"team": team} for team in teams])
    return [secret for _, secret in made]


def _limit(owners: Sequence[Mapping[str, Any]]) -> None:
    """As `configured.SET_UP` does, in three statements."""
    RateLimit.objects.bulk_create(
        RateLimit(kind=kind, amount=AMPLE, **owner) for owner in owners for kind in ("requests", "tokens")
    )
    Quota.objects.bulk_create(Quota(kind="money", amount=AMPLE, hard=True, **owner) for owner in owners)


def keys(count: int) -> None:
    """A gateway with so many keys. Prints those that calls are made with."""
    with transaction.atomic():
        known = callers(min(CALLERS, count))
        if (further := count - len(known) - ApiKey.objects.filter(name="first key").count()) > 0:
            _more_keys(further)
        note_change()
    tell(keys=known)


def _more_keys(count: int) -> None:
    """With a rate limit each, as a new key has. Nobody knows their secrets."""
    key, _ = create_key(Team.objects.get(name="Callers"), "further", None)
    secret, last = KeySecret.objects.get(key=key), key.pk
    limit = RateLimit.objects.create(key=key, kind="requests", amount=AMPLE)
    multiply(key, count - 1, id=f"{last} + n.i")
    multiply(
        secret, count - 1, key_id=f"{last} + n.i", public_id="printf('%%012d', n.i)", digest="randomblob(32)"
    )
    multiply(limit, count - 1, key_id=f"{last} + n.i")


def teams(count: int) -> None:
    """A gateway whose callers are spread over so many teams, or over as many as there are callers."""
    with transaction.atomic():
        user = User.objects.get()
        with_calls = [create_team(f"Team {each}", user) for each in range(min(CALLERS, count))]
        if (further := count - len(with_calls)) > 0:
            team = create_team("further", user)
            multiply(team, further - 1, name="'further ' || n.i", slug="'further-' || n.i")
        known = callers(CALLERS, with_calls)
        note_change()
    tell(keys=known)


def routes(count: int) -> None:
    """A gateway with so many routes, each with a target and a price. Prints their model names."""
    route = Route.objects.get(model_name=MODEL_NAME)
    target = Target.objects.get(route=route)
    price = Price.objects.filter(target=target).latest("id")
    with transaction.atomic():
        if count > 1:
            multiply(route, count - 1, id=f"{route.pk} + n.i", model_name="'bench-' || n.i")
            multiply(target, count - 1, id=f"{target.pk} + n.i", route_id=f"{route.pk} + n.i")
            multiply(price, count - 1, target_id=f"{target.pk} + n.i")
        known = callers()
        note_change()
    names = Route.objects.order_by("pk").values_list("model_name", flat=True)
    tell(keys=known, model_names=list(names[:CALLERS]))


def limits(counts: Sequence[int]) -> None:
    """For each number a key that has so many limits, its team's among them; prints one for each."""
    with transaction.atomic():
        known = [_limited(count) for count in counts]
        note_change()
    tell(keys=known)


def _limited(count: int) -> str:
    user = User.objects.get()
    team = create_team(f"Limits {count}", user)
    key, secret = create_key(team, "limited", None)
    wanted = list(islice(_limits(), count))
    for model in (RateLimit, Quota):
        model.objects.bulk_create(
            model(amount=AMPLE, **{owner: {"key": key, "team": team}[owner]}, **fields)
            for kind, owner, fields in wanted
            if kind is model
        )
    return secret


def _limits() -> Iterator[tuple[type[Model], str, dict[str, Any]]]:
    """Kinds of limits in the order in which a key gets them: 24 that its calls meet, then of other routes."""
    rate_kinds, quota_kinds = ("requests", "tokens", "concurrent"), ("money", "tokens", "requests")
    for model_name, kind, owner in product(("", MODEL_NAME), rate_kinds, ("key", "team")):
        yield RateLimit, owner, {"kind": kind, "model_name": model_name}
    for period, kind, owner in product(("month", "day"), quota_kinds, ("key", "team")):
        yield Quota, owner, {"kind": kind, "period": period, "hard": True}
    for number in counting():
        for kind, owner in product(rate_kinds, ("key", "team")):
            yield RateLimit, owner, {"kind": kind, "model_name": f"another-{number}"}


def entries(count: int) -> None:
    """A gateway with so many calls on its ledger, of the callers' team, up to an hour ago, rolled up."""
    with transaction.atomic():
        known = callers()
        note_change()
    if count:
        _history(count, Team.objects.get(name="Callers"))
    tell(keys=known)


def _history(count: int, team: Team) -> None:
    first_s = int(time.time()) - ENDED_AGO_S - count // A_SECOND
    first_key = ApiKey.objects.filter(team=team).earliest("pk").pk
    began = first_s * 1_000_000
    one = settled(opened(started_at_us=began, team_id=team.pk, key_id=first_key), ended_at_us=began + 400_000)
    book([one])
    at = f"strftime('%%Y-%%m-%%d %%H:%%M:%%S', {first_s} + n.i / {A_SECOND}, 'unixepoch')"
    call_id = f"printf('%%012x70008000%%012x', {first_s * 1000} + n.i * {1000 // A_SECOND}, n.i)"
    with transaction.atomic():
        multiply(
            Entry.objects.get(pk=one.call_id),
            count - 1,
            call_id=call_id,
            key_id=f"{first_key} + n.i %% {KEYS}",
            route=f"'gpt-' || (n.i %% {ROUTES})",
            started_at=f"{at} || '.000000'",
            ended_at=f"{at} || '.400000'",
        )
        multiply(
            Attempt.objects.get(entry_id=one.call_id),
            count - 1,
            entry_id=call_id,
            started_at=f"{at} || '.000000'",
        )
    _roll_up(first_s, count, team)


def _roll_up(first_s: int, count: int, team: Team) -> None:
    """Mark every minute of it, and work out what is marked."""
    minutes = range(first_s // MINUTE_S, (first_s + count // A_SECOND) // MINUTE_S + 1)
    Stale.objects.bulk_create(
        (Stale(size=1, start=each, team_id=team.pk) for each in minutes), ignore_conflicts=True
    )
    rollups.work(datetime.now(UTC), budget_s=None)


def tell(**what: Any) -> None:
    """To whoever began this: the last line that is printed."""
    print(json.dumps(what))
