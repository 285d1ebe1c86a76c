"""The management API is what its schema says: tried with what is valid and with what is not.

Schemathesis makes the requests, from the schema alone; the application and its database are the real ones.
"""

import json

import pytest
import schemathesis
from django.conf import settings
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as some
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from accounts import channels, services, tokens, webhooks
from accounts.models import Membership, Team, User
from dashboard.api import api
from gateway import services as upstream
from gateway import standing, upstreams
from gateway.alerts import services as alerts
from gateway.ledger.writer import book
from gateway.models import BreakerChange
from gateway.relay.gate import Gate
from gateway.relay.limits import Figures
from gateway.relay.records import Refusals
from gateway.relay.targets import TargetState
from tests.gateway.records import opened, refused, settled

pytestmark = pytest.mark.django_db

EXAMPLES = 8
"""Of each operation, for each person."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
    ignored_auth,
]


def loaded():
    """As a client reads it."""
    schema = schemathesis.openapi.from_dict(json.loads(json.dumps(api.get_openapi_schema())))
    schema.app = get_wsgi_application()
    return schema


SCHEMA = loaded()
OPERATIONS = {each.ok().label: each.ok() for each in SCHEMA.get_all_operations()}


@pytest.fixture(autouse=True)
def one_connection():
    """Requests leave the database open for the next, as those of Django's own test client do."""
    signals = (request_started, request_finished)
    for signal in signals:
        signal.disconnect(close_old_connections)
    yield
    for signal in signals:
        signal.connect(close_old_connections)


@pytest.fixture
def world(db):
    """One of everything; by the names of path parameters."""
    ada = User.objects.create_superuser("ada@example.com")
    bob = User.objects.create_user("bob@example.com")
    team = services.create_team("Hydro", ada)
    Membership.objects.create(team=team, user=bob, role=Membership.Role.MEMBER)
    key, _ = services.create_key(team, "nightly", bob)
    services.rotate_key(key, bob)
    provider = upstream.add_provider("acme", "Acme", "https://acme.example/v1")
    upstream.keep_credential(provider, "sk-kept", settings.CREDENTIAL_KEYS)
    target = upstream.add_target(upstream.add_route("gpt-4o"), provider, "gpt-4o")
    BreakerChange.objects.create(
        target_id=target.pk,
        provider="acme",
        upstream_model="gpt-4o",
        before="closed",
        after="open",
        cause="5 failures.",
        at=key.created_at,
    )
    state = TargetState(
        target_id=target.pk,
        route="gpt-4o",
        provider="acme",
        upstream_model="gpt-4o",
        breaker="closed",
        held=False,
        ready_in_s=0.0,
        retries=0,
        gate=Gate(50, 1000, lambda: 0.0).figures(),
        pool=None,
    )
    upstreams.install(lambda: [state])
    standing.install(lambda quota_ids: {each: Figures(1, 2, 3) for each in quota_ids})
    limit = services.set_rate_limit(team, "requests", 100, by_administrator=False)
    quota = services.set_quota(key, "money", 10**9, by_administrator=False)
    yield {
        "team_id": team.pk,
        "user_id": bob.pk,
        "invitation_id": services.invite(team, ada, "member")[0].pk,
        "key_id": key.pk,
        "secret_id": key.secrets.exclude(ends_at=None).get().pk,
        "token_id": tokens.make_token(bob, "spare", ["read"])[0].pk,
        "webhook_id": webhooks.add_webhook(team, "https://hooks.example/", ada).pk,
        **watched(team, ada),
        "limit_id": limit.pk,
        "quota_id": quota.pk,
        "provider_id": provider.pk,
        "route_id": target.route_id,
        "target_id": target.pk,
        **on_the_books(team.pk, key.pk),
    }
    upstreams.install(None)
    standing.install(None)


def watched(team, owner):
    """A channel, and an alert that tells it."""
    channel = channels.add_channel(team, "mail", "On call", "oncall@example.com", owner)
    values = {"name": "Spend", "threshold": 10**9, "tell_owners": False}
    alert = alerts.add_alert(team, "spend", values, [channel], owner)
    return {"alert_id": alert.pk, "channel_id": channel.pk}


def on_the_books(team_id, key_id):
    """A call that was let in, and one that was not."""
    call = settled(opened(team_id=team_id, key_id=key_id))
    row = refused(team_id=team_id, key_id=key_id)
    book([call], [Refusals(row.call_id, row.at_us, (), (row,))])
    return {"call_id": call.call_id, "refusal_id": row.call_id}


def requests_of(operation, ids):
    """Valid and invalid ones, of what is there and of what may be."""
    real = {each.name: ids[each.name] for each in operation.path_parameters}
    ways = [operation.as_strategy(path_parameters=real)] * 2
    ways.append(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE, path_parameters=real))
    if real:
        ways.append(operation.as_strategy())
    return some.one_of(ways)


@pytest.mark.parametrize("email", ["ada@example.com", "bob@example.com"], ids=["administrator", "member"])
@pytest.mark.parametrize("label", OPERATIONS)
def test_an_operation_answers_as_the_schema_says(label, email, world):
    _, token = tokens.make_token(User.objects.get(email=email), "program", list(tokens.SCOPES))

    @examples(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=requests_of(OPERATIONS[label], world))
    def answers(case):
        case.call_and_validate(headers={"Authorization": f"Bearer {token}"}, checks=CHECKS)

    answers()


def test_the_world_has_every_thing_that_paths_name(world):
    named = {each.name for operation in OPERATIONS.values() for each in operation.path_parameters}

    assert named == set(world)
    assert Team.objects.exists()
