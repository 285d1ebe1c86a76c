"""Webhooks: addresses that are told of a team's notices, or of everybody's.

Who may set one up is decided before. Whether an address may be connected to is decided when it is resolved.
"""

import base64
import hmac
import re
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _

from accounts import audit
from accounts.models import Channel, Team, User, Webhook
from accounts.services import WrongValue
from accounts.turns import Turn, take_turn

LONGEST_URL = 500
HOST_AND_PORT = re.compile(r"[A-Za-z0-9._:\[\]-]+")
MOST_WEBHOOKS = 20
"""Of one owner: each notice is sent to every one."""


def add_webhook(team: Team | None, url: str, by: User | None) -> Webhook:
    """Without a team: told of every team's notices. Raises WrongValue."""
    url = clean_url(url)
    with transaction.atomic():
        take_turn(Turn.WEBHOOKS)
        if Webhook.objects.filter(team=team).count() >= MOST_WEBHOOKS:
            raise WrongValue(
                "url", _("There are %(most)s webhooks already: remove one first.") % {"most": MOST_WEBHOOKS}
            )
        webhook = Webhook.objects.create(team=team, url=url, salt=secrets.token_hex(16), created_by=by)
        audit.record("webhook.added", webhook, team=team, after={"url": told(url)}, name=told(url))
    return webhook


def change_webhook(webhook: Webhook, changes: Mapping[str, Any]) -> None:
    """Change its url, or switch it on or off by `enabled`. Raises WrongValue."""
    assert changes.keys() <= {"url", "enabled"}
    clean = {name: clean_url(value) if name == "url" else value for name, value in changes.items()}
    with transaction.atomic():
        Webhook.objects.select_for_update().get(pk=webhook.pk)
        webhook.refresh_from_db()
        before, after = audit.changed(webhook, clean)
        if not after:
            return
        for name, value in after.items():
            setattr(webhook, name, value)
        webhook.save(update_fields=list(after))
        was, now = ({**each, "url": told(each["url"])} if "url" in each else each for each in (before, after))
        name = told(webhook.url)
        audit.record("webhook.changed", webhook, team=webhook.team, before=was, after=now, name=name)


def remove_webhook(webhook: Webhook) -> None:
    """What waits to be sent to it goes too."""
    with transaction.atomic():
        url = told(webhook.url)
        audit.record("webhook.removed", webhook, team=webhook.team, before={"url": url}, name=url)
        webhook.delete()


def secret_of(webhook: Webhook | Channel) -> str:
    """What its messages are signed with, as receivers are given it by the Standard Webhooks specification."""
    return "whsec_" + base64.b64encode(_signing_key(webhook)).decode()


def signed(webhook: Webhook | Channel, message_id: str, at_s: int, body: bytes) -> dict[str, str]:
    """The headers by which a receiver knows that the message is ours, whole and not an old one.

    After the Standard Webhooks specification 1.0: HMAC-SHA-256 over id, Unix seconds and body.
    """
    content = f"{message_id}.{at_s}.".encode() + body
    signature = hmac.digest(_signing_key(webhook), content, "sha256")
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": "v1," + base64.b64encode(signature).decode(),
    }


def _signing_key(webhook: Webhook | Channel) -> bytes:
    """32 bytes, derived from its salt and SECRET_KEY, so none is kept."""
    purpose = f"penstock: secret of a webhook\n{webhook.salt}"
    return hmac.digest(settings.SECRET_KEY.encode(), purpose.encode(), "sha256")


def told(url: str) -> str:
    """An address as the audit keeps it: what follows the host may let whoever knows it write there."""
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.netloc}"
    return url if url in (origin, f"{origin}/") else f"{origin}/…"


def clean_url(raw: str) -> str:
    """An http or https address. Raises WrongValue."""
    url = raw.strip()
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:  # a bracket left open, a port that is no number
        host = None
    if not host or parts.scheme not in ("http", "https") or not url.isascii() or not url.isprintable():
        raise WrongValue("url", _("A webhook's address begins with https:// or http:// and a host name."))
    if "@" in parts.netloc or " " in url or "\\" in url or parts.fragment:
        raise WrongValue(
            "url", _("A webhook's address has no user name, blank, backslash or fragment in it.")
        )
    if not HOST_AND_PORT.fullmatch(parts.netloc):
        raise WrongValue(
            "url", _("The host name of a webhook has only letters, digits, dots, hyphens and underscores.")
        )
    if len(url) > LONGEST_URL:
        raise WrongValue(
            "url", _("A webhook's address has at most %(longest)s characters.") % {"longest": LONGEST_URL}
        )
    return url
