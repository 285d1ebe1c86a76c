"""What operators do on their pages is on the audit, like what they do by the API."""

import pytest
from django.forms import model_to_dict
from django.test import Client

from accounts.models import AuditEvent, User
from gateway import services
from gateway.models import Provider

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada():
    return User.objects.create_superuser("ada@example.com")


@pytest.fixture
def operator(ada):
    client = Client(headers={"User-Agent": "Firefox"})
    client.force_login(ada)
    return client


@pytest.fixture
def provider():
    return services.add_provider("acme", "Acme", "https://acme.example/v1")


def told():
    """What happened by hand, the latest last."""
    by_hand = AuditEvent.objects.filter(actor_kind="person").order_by("id")
    return [(each.action, each.before, each.after) for each in by_hand]


def provider_form(provider, **changes):
    fields = ("name", "slug", "base_url", "enabled", "ca_pem")
    form = model_to_dict(provider, fields) | {"secret": "", "env_var": ""} | changes
    return {name: value for name, value in form.items() if value is not False}


def test_a_changed_provider_and_its_credential(operator, provider):
    form = provider_form(provider, name="Acme two", secret="sk-secret")

    page = operator.post(f"/admin/gateway/provider/{provider.pk}/change/", form)

    assert page.status_code == 302
    assert told() == [
        ("provider.changed", {"name": "Acme"}, {"name": "Acme two"}),
        ("credential.replaced", {"credential": ""}, {"credential": "(set)"}),
    ]
    event = AuditEvent.objects.filter(actor_kind="person").first()
    assert (event.actor_name, event.address, event.user_agent) == ("ada@example.com", "127.0.0.1", "Firefox")
    assert "sk-secret" not in str(list(AuditEvent.objects.values()))


def test_a_form_that_changes_nothing_is_no_event(operator, provider):
    page = operator.post(f"/admin/gateway/provider/{provider.pk}/change/", provider_form(provider))

    assert page.status_code == 302
    assert told() == []


def test_a_provider_that_is_added_and_removed(operator):
    form = {"name": "New", "slug": "new", "base_url": "https://new.example", "enabled": "on", "ca_pem": ""}
    operator.post("/admin/gateway/provider/add/", form | {"secret": "", "env_var": ""})
    made = Provider.objects.get()
    operator.post(f"/admin/gateway/provider/{made.pk}/delete/", {"post": "yes"})

    [(added, _, after), (removed, before, _)] = told()
    assert (added, after["base_url"]) == ("provider.added", "https://new.example")
    assert (removed, before["slug"]) == ("provider.removed", "new")
    assert not Provider.objects.exists()


def test_a_password_that_an_administrator_set(operator):
    bob = User.objects.create_user("bob@example.com")
    words = "correct horse battery"

    page = operator.post(
        f"/admin/accounts/user/{bob.pk}/password/",
        {"password1": words, "password2": words, "usable_password": "true"},
    )

    assert page.status_code == 302
    [(action, before, after)] = told()
    assert (action, before, after) == ("user.password_set", {}, {})


def test_a_person_who_is_made_an_administrator(operator):
    bob = User.objects.create_user("bob@example.com")
    form = {"email": "bob@example.com", "first_name": "", "last_name": "", "is_active": "on"}

    page = operator.post(f"/admin/accounts/user/{bob.pk}/change/", form | {"is_superuser": "on"})

    assert page.status_code == 302
    assert told() == [("user.changed", {"is_superuser": False}, {"is_superuser": True})]
