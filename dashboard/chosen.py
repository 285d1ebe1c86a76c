"""Whose figures a page shows: the team of its address, and the names of the teams' API keys."""

from collections.abc import Collection, Sequence
from typing import Final

from django.http import Http404

from accounts.models import ApiKey, Team, User

KEY_NAMES: Final = 1000
"""As many names as a page carries; a key beyond them is shown by its number."""


def chosen_team(teams: Sequence[Team], slug: str, user: User) -> Team | None:
    """The team of the address, else all for an administrator, else the first. Raises Http404.

    `teams` are those that the user may see. None: all of them, or there is none.
    """
    if slug:
        for team in teams:
            if team.slug == slug:
                return team
        raise Http404
    return None if user.is_superuser or not teams else teams[0]


def key_names(teams: Collection[Team]) -> dict[int, str]:
    """By id, of the newest API keys, at most KEY_NAMES. One query."""
    keys = ApiKey.objects.filter(team__in=teams).order_by("-id").values_list("id", "name")
    return dict(keys[:KEY_NAMES])
