import io

import pytest
from django.core.management import CommandError, call_command

from accounts import keys
from accounts.models import ApiKey, AuditEvent


@pytest.mark.parametrize("name", ["Search", "search"])
def test_a_new_key_is_printed_alone(team, name):
    out = io.StringIO()
    call_command("create_key", team=name, name="nightly", stdout=out)

    parts = keys.take_apart(out.getvalue().removesuffix("\n"))
    key = ApiKey.objects.get()
    assert (key.team, key.name, key.created_by) == (team, "nightly", None)
    assert key.secrets.get().public_id == parts.public_id
    event = AuditEvent.objects.get(action="key.created")
    assert (event.actor_kind, event.actor_name) == ("command", "manage.py create_key")


def test_an_unknown_team_is_a_sentence(db):
    with pytest.raises(CommandError, match=r"^There is no team called Nope\.$"):
        call_command("create_key", team="Nope", name="nightly")


def test_a_key_without_a_name_is_a_sentence(team):
    with pytest.raises(CommandError, match="name is needed"):
        call_command("create_key", team="Search", name=" ")
    assert not ApiKey.objects.exists()
