"""Owners say by which tags usage is told apart."""

from django.test import Client

from accounts.models import Membership, Team, User
from gateway.tag_names import names_of


def owner_of(team: Team) -> Client:
    owner = User.objects.create_user("olga@example.com")
    Membership.objects.create(team=team, user=owner, role="owner")
    client = Client()
    client.force_login(owner)
    return client


def test_names_are_one_a_line_and_shown_again(team: Team) -> None:
    client = owner_of(team)
    page = f"/teams/{team.slug}/tags/"

    answer = client.post(page, {"names": "project\n\n environment \nproject"})

    assert answer.status_code == 302
    assert names_of(team) == ["environment", "project"]
    assert b"environment\nproject" in client.get(page).content


def test_what_cannot_be_a_name_is_told_beside_the_field(team: Team) -> None:
    answer = owner_of(team).post(f"/teams/{team.slug}/tags/", {"names": "a=b"})

    assert answer.status_code == 422
    assert b"neither comma nor equals sign" in answer.content
    assert names_of(team) == []
