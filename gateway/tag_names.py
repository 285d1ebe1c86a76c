"""The names of tags that a team wants its usage told apart by."""

from collections.abc import Iterable, Sequence

from django.db import transaction
from django.utils.translation import gettext as _

from accounts import audit
from accounts.models import Team
from accounts.services.common import live
from accounts.services.wishes import WrongValue
from gateway.ledger import rebuilding
from gateway.models import TagName, TagRollup

MOST_NAMES = 10
"""Of one team: every call is added up once more for each of its tags."""
LONGEST_NAME = 64


def names_of(team: Team) -> list[str]:
    """In the order of the alphabet."""
    return list(TagName.objects.filter(team=team).order_by("name").values_list("name", flat=True))


def declare(team: Team, names: Iterable[str]) -> list[str]:
    """Make these the team's names, in place of those it had; gives them in the order of the alphabet.

    Calls that are kept are added up by a new name as well, from the newest day on; sums by a name that is
    no longer among them are deleted. Who may do it is decided before. Raises WrongValue, Archived.
    """
    wanted = _checked(names)
    with transaction.atomic():
        live(team.pk)
        before = names_of(team)
        added, removed = sorted(set(wanted) - set(before)), sorted(set(before) - set(wanted))
        if not added and not removed:
            return wanted
        _remove(team, removed)
        TagName.objects.bulk_create(TagName(team=team, name=each) for each in added)
        if added:
            rebuilding.again([team.pk], None)
        audit.record(
            "team.tag_names_changed", team, team=team, before={"names": before}, after={"names": wanted}
        )
    return wanted


def _remove(team: Team, names: Sequence[str]) -> None:
    TagName.objects.filter(team=team, name__in=names).delete()
    TagRollup.objects.filter(team_id=team.pk, name__in=names).delete()


def _checked(names: Iterable[str]) -> list[str]:
    wanted = sorted({_name(each) for each in names})
    if len(wanted) > MOST_NAMES:
        raise WrongValue(
            "names",
            _("A team has at most %(most)s names of tags; these are %(count)s.")
            % {"most": MOST_NAMES, "count": len(wanted)},
        )
    return wanted


def _name(text: str) -> str:
    """As a call can bring it."""
    name = text.strip()
    if not name or not name.isprintable() or len(name) > LONGEST_NAME or set(name) & set(",="):
        raise WrongValue(
            "names",
            _(
                "The name of a tag is printable text of 1 to %(longest)s characters "
                "with neither comma nor equals sign."
            )
            % {"longest": LONGEST_NAME},
        )
    return name
