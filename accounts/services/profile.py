"""What a person says of themselves: a name, a language, a time zone."""

from django.db import transaction

from accounts import audit
from accounts.models import User


def change_profile(user: User, *, name: str, language: str, zone: str) -> None:
    """The whole name is one field: not everybody's has two parts. Empty means: none chosen."""
    wished = {"first_name": name, "last_name": "", "language": language, "zone": zone}
    before, after = audit.changed(user, wished)
    if user.get_full_name() == name:
        before, after = ({k: v for k, v in each.items() if "name" not in k} for each in (before, after))
    if not after:
        return
    with transaction.atomic():
        for field, value in after.items():
            setattr(user, field, value)
        user.save(update_fields=list(after))
        audit.record("user.profile_changed", user, before=before, after=after)
