"""No field outside an operation's shape changes anything, whoever sends it: every model, every role."""

import json

import pytest
from django.apps import apps
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from accounts.models import Membership, RateLimit, User
from tests.dashboard.test_access_matrix import (
    BODIES,
    EXAMPLES,
    MARKERS,
    PAGES,
    SCHEMA,
    a_client,
    client_of,
    sent,
    world,  # noqa: F401  a fixture
)

MODELS = [*apps.get_app_config("accounts").get_models(), *apps.get_app_config("gateway").get_models()]
FIELDS = sorted(
    {name for model in MODELS for each in model._meta.concrete_fields for name in (each.name, each.attname)}
)
HOSTILE = some.sampled_from(
    [True, False, None, 0, 1, 2, 10**6, "owner", "urgent", "1", [], {}, [1], {"id": 1}]
)
ROLES = ("viewer", "member", "owner", "other", "administrator")
WRITES = [name for name in EXAMPLES if name.startswith(MARKERS) and EXAMPLES[name] is not None]
A_FEW = settings(
    max_examples=12,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def known_to(name):
    """The fields that an operation's body has."""
    method, _, path = name.partition(" ")
    content = SCHEMA["paths"][path][method.lower()]["requestBody"]["content"]["application/json"]
    return set(SCHEMA["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]["properties"])


def everything():
    """Every row of every table."""
    return {model: list(model._default_manager.order_by("pk").values()) for model in MODELS}


@pytest.mark.parametrize("name", WRITES)
def test_an_operation_takes_its_own_fields_alone(name, world):  # noqa: F811
    strange = sorted(set(FIELDS) - known_to(name))
    body = BODIES[name](world) if name in BODIES else EXAMPLES[name]
    clients = {who: client_of(who, world) for who in ROLES}
    before = everything()

    @A_FEW
    @given(
        who=some.sampled_from(ROLES),
        more=some.dictionaries(some.sampled_from(strange), HOSTILE, min_size=1, max_size=5),
    )
    def is_refused(who, more):
        answer, told = sent(clients[who], name, world, body | more)

        assert answer.status_code == 422
        assert {each["field"] for each in json.loads(told)["errors"]} >= set(more)

    is_refused()
    now = everything()
    users = before.pop(User), now.pop(User)  # who signed in, when
    assert now == before
    assert [_without(each, "last_login") for each in users[0]] == [
        _without(each, "last_login") for each in users[1]
    ]


def _without(row, name):
    return {key: value for key, value in row.items() if key != name}


def rights():
    """What a person may never give themselves."""
    return {
        "users": list(User.objects.order_by("pk").values_list("pk", "is_superuser", "is_staff", "email")),
        "roles": sorted(Membership.objects.values_list("user_id", "team_id", "role")),
        "limits": sorted(RateLimit.objects.filter(by_administrator=True).values_list("pk", "amount")),
    }


FORMS = [name for name in PAGES if name.startswith("POST") and name != "POST /invitations/{token}/"]
"""That one gives the place that the invitation is for."""


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("who", ["viewer", "member", "other"])
def test_a_form_with_every_field_there_is_raises_nobody(name, who, world):  # noqa: F811
    """Whoever is no owner has no form that touches rights, so none may change whatever is sent."""
    client: Client = a_client()
    client.force_login(world["people"][who])
    own = world["people"][who].pk
    before = rights()

    for value in ("owner", "True", "1", "urgent"):
        client.post(name.partition(" ")[2].format(**world), dict.fromkeys(FIELDS, value))

    now = rights()
    if "/leave/" in name:
        before["roles"] = [each for each in before["roles"] if each[0] != own]
        now["roles"] = [each for each in now["roles"] if each[0] != own]
    assert now == before
