"""Whose figures a page shows."""

import pytest
from django.http import Http404

from accounts.models import ApiKey
from dashboard.chosen import chosen_team, key_names


def test_the_team_of_the_address_is_shown(team, other_team, alice):
    assert chosen_team([team, other_team], "solar", alice) == other_team


def test_without_a_team_in_the_address_it_is_the_first_or_for_an_administrator_all(
    team, other_team, alice, administrator
):
    assert chosen_team([team, other_team], "", alice) == team
    assert chosen_team([team, other_team], "", administrator) is None
    assert chosen_team([], "", alice) is None


def test_another_persons_team_is_not_found(team, other_team, alice):
    with pytest.raises(Http404):
        chosen_team([team], "solar", alice)


def test_names_of_keys_are_those_of_the_teams(team, other_team, api_key):
    ApiKey.objects.create(team=other_team, name="elsewhere")

    assert key_names([team]) == {api_key.pk: "nightly batch"}
