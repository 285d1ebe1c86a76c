"""Wishes that the rules of the house refuse: one tree, each message a sentence for whoever had it."""


class NotPossible(Exception):
    """The message says what stands against it and, where there is one, the way out."""


class NameTaken(NotPossible):
    pass


class NoName(NotPossible):
    pass


class AlreadyMember(NotPossible):
    pass


class NotAMember(NotPossible):
    pass


class NotAnOwner(NotPossible):
    pass


class LastOwner(NotPossible):
    pass


class OwnRoleRaised(NotPossible):
    pass


class RoleAboveOwn(NotPossible):
    pass


class Archived(NotPossible):
    """The team makes nothing new, or is archived or not as was wished already."""


class InvitationGone(NotPossible):
    """Accepted, withdrawn, expired, or never made: the same answer."""


class InvitedSomebodyElse(NotPossible):
    pass


class AccountExists(NotPossible):
    pass


class PasswordTooWeak(NotPossible):
    pass


class ExpiryPassed(NotPossible):
    pass


class AlreadyRevoked(NotPossible):
    pass


class NotOverlapping(NotPossible):
    """The secret has no overlap to extend or to end."""


class WrongValue(NotPossible):
    """A setting that cannot be: `field` names it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class SetByAdministrator(NotPossible):
    pass
