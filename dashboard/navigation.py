"""The places of the top bar, and at which of them a page is. Pure."""

from collections.abc import Iterator
from typing import NamedTuple

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _


class Place(NamedTuple):
    title: str | Promise
    address: str
    also: tuple[str, ...] = ()
    """Where other pages of the place begin."""
    for_administrators: bool = False

    def has(self, path: str) -> bool:
        if self.address == "/":
            return path == "/"
        return path.startswith((self.address, *self.also))


PLACES = (
    Place(_("Live"), "/"),
    Place(_("Usage"), "/usage/"),
    Place(_("Calls"), "/calls/"),
    Place(
        _("Money"), "/savings/", ("/forecast/", "/statement/", "/prices/", "/unpriced/", "/reconciliation/")
    ),
    Place(_("Keys"), "/keys/"),
    Place(_("Alerts"), "/alerts/", ("/channels/",)),
    Place(_("Playground"), "/playground/"),
    Place(_("Providers"), "/providers/", ("/routes/", "/targets/"), for_administrators=True),
    Place(_("Teams"), "/teams/"),
    Place(_("Audit"), "/audit/", for_administrators=True),
    Place(_("Admin"), "/admin/", for_administrators=True),
)


class Shown(NamedTuple):
    title: str | Promise
    address: str
    is_here: bool


def places(path: str, *, is_administrator: bool) -> Iterator[Shown]:
    for each in PLACES:
        if is_administrator or not each.for_administrators:
            yield Shown(each.title, each.address, each.has(path))
