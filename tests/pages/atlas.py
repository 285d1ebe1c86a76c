"""Every page of the site as a person sees it: its address, and who looks.

What there is comes from the table of who gets in where: a new page is here as soon as it has its row.
Written out below are other looks of the same pages, and those for people who are not signed in.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tests.dashboard.test_access_matrix import PAGES


class Sight(NamedTuple):
    name: str
    """Of its pictures' files."""
    address: str
    """With `{names}` of what a house has."""
    who: str = "owner"
    status: int = 200

    def of(self, names: Mapping[str, Any]) -> str:
        return self.address.format(**names)


LOOKERS = ("owner", "administrator", "stranger")
"""Who is asked to look at a page, the first of them who is let in."""
FILES = re.compile(r"\.(csv|json|js|txt)\b")
"""What is taken away and not looked at."""
PARTS = re.compile(r"/now/$")
"""What a page fetches of itself: never looked at alone."""
MORE = (
    Sight("live-administrator", "/", "administrator"),
    Sight("usage-by-key", "/usage/?range=30d&by=key"),
    Sight("usage-nothing", "/usage/?route=no-such-model"),
    Sight("calls-failed", "/calls/?outcome=failed"),
    Sight("calls-nothing", "/calls/?route=no-such-model"),
    Sight("call-failed", "/calls/{failed_id}/"),
    Sight("call-refused", "/calls/{refusal_id}/"),
    Sight("call-unknown", "/calls/{nobody_id}/", status=404),
    Sight("savings-administrator", "/savings/", "administrator"),
    Sight("unpriced-administrator", "/unpriced/", "administrator"),
    Sight("keys-viewer", "/keys/", "viewer"),
    Sight("team-viewer", "/teams/{slug}/", "viewer"),
    *(
        Sight(f"{name}-newcomer", address, "newcomer")
        for name, address in (
            ("live", "/"),
            ("usage", "/usage/"),
            ("calls", "/calls/"),
            ("savings", "/savings/"),
            ("keys", "/keys/"),
            ("teams", "/teams/"),
            ("account", "/account/"),
        )
    ),
    Sight("sign-in", "/accounts/login/", "stranger"),
    Sight("sign-up", "/accounts/signup/", "stranger"),
    Sight("password-forgotten", "/accounts/password/reset/", "stranger"),
    Sight("password-mailed", "/accounts/password/reset/done/", "stranger"),
    Sight("password-link-gone", "/accounts/password/reset/key/1-abc/", "stranger"),
    Sight("password-new-is-set", "/accounts/password/reset/key/done/", "stranger"),
    Sight("invitation-stranger", "/invitations/{token}/", "stranger"),
    Sight("invitation-gone", "/invitations/not-an-invitation-at-all/", status=404),
    Sight("password-change", "/accounts/password/change/"),
    Sight("sign-out", "/accounts/logout/"),
    Sight("two-factor", "/accounts/2fa/"),
    Sight("two-factor-begin", "/accounts/2fa/totp/activate/"),
    Sight("not-found", "/no-such-page/", status=404),
    Sight("not-allowed", "/audit/", "member", status=403),
)


def sights() -> Iterator[Sight]:
    """All of them. A page for a chosen team is the same page as without the choice."""
    for name, answers in PAGES.items():
        method, _, address = name.partition(" ")
        looker = next((who for who in LOOKERS if answers[who] == "yes"), None)
        is_page = not FILES.search(address) and not PARTS.search(address) and "?team=" not in address
        if method == "GET" and looker and is_page:
            yield Sight(_named(address), address, looker)
    yield from MORE


def _named(address: str) -> str:
    """`/keys/{key_id}/rotate/` is `keys-one-rotate`; `/` is `live`."""
    words = re.sub(r"\{\w+\}", "one", address.partition("?")[0]).strip("/")
    return re.sub(r"[^a-z0-9]+", "-", words) or "live"
