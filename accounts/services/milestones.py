"""What a person did for the first time. Nothing is audited: it is nobody else's affair."""

from accounts.models import Milestone, User


def reach(user: User, name: Milestone.Name) -> None:
    """Note it, if it is not noted yet. One query where it is, four where it is not."""
    Milestone.objects.get_or_create(user=user, name=name)


def forget(user: User, name: Milestone.Name) -> None:
    """As if it had never been."""
    Milestone.objects.filter(user=user, name=name).delete()
