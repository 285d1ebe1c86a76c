"""What somebody is told whose role does not allow what they want, on pages and by the API alike."""

from accounts.queries import Action

REFUSALS: dict[Action, str] = {
    "see": "You are not in this team.",
    "make_keys": "Your role does not allow you to make API keys; ask an owner of the team.",
    "manage_keys": "You may change the API keys that you made; ask an owner of the team for others.",
    "manage_members": "Only an owner of the team may change it and who is in it.",
    "manage_limits": "Only an owner of the team may set its limits and quotas, and those of its keys.",
    "invite": "Only an owner of the team may invite people to it.",
    "see_audit": "The audit of a team is for its owners.",
    "allow_urgent": "Only an administrator may let an API key's calls be urgent.",
}
SET_BY_ADMINISTRATOR = "An administrator set this, so only an administrator can change it."
