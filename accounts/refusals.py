"""What somebody is told whose role does not allow what they want, on pages and by the API alike."""

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy

from accounts.queries import Action

REFUSALS: dict[Action, Promise] = {
    "see": gettext_lazy("You are not in this team."),
    "make_keys": gettext_lazy("Your role does not allow you to make API keys; ask an owner of the team."),
    "manage_keys": gettext_lazy(
        "You may change the API keys that you made; ask an owner of the team for others."
    ),
    "manage_members": gettext_lazy("Only an owner of the team may change it and who is in it."),
    "manage_limits": gettext_lazy(
        "Only an owner of the team may set its limits and quotas, and those of its keys."
    ),
    "invite": gettext_lazy("Only an owner of the team may invite people to it."),
    "see_audit": gettext_lazy("The audit of a team is for its owners."),
    "allow_urgent": gettext_lazy("Only an administrator may let an API key's calls be urgent."),
}
SET_BY_ADMINISTRATOR = gettext_lazy("An administrator set this, so only an administrator can change it.")
