"""What every write of this room needs: names, locks, and a team that is not archived."""

from django.utils.translation import gettext as _

from accounts.models import Membership, Team
from accounts.services.wishes import Archived, NoName

Role = Membership.Role
RANK: dict[str, int] = {Role.VIEWER: 0, Role.MEMBER: 1, Role.OWNER: 2}


def named(name: str) -> str:
    """The name without needless spaces. Raises NoName where nothing, or too much, is left of it."""
    name = " ".join(name.split())
    if not name:
        raise NoName(_("A name is needed, so that others know what this is for."))
    if len(name) > 100:
        raise NoName(_("A name has at most 100 characters; this one has %(count)s.") % {"count": len(name)})
    return name


def locked(team_id: int) -> Team:
    """The team as it is now, its row locked until the transaction ends."""
    return Team.objects.select_for_update(no_key=True).get(pk=team_id)


def live(team_id: int) -> Team:
    """The team, locked. Raises Archived: nothing is made in an archived one."""
    team = locked(team_id)
    if team.archived_at is not None:
        raise Archived(_("%(name)s is archived: restore it first.") % {"name": team.name})
    return team
