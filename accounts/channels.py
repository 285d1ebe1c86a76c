"""Channels: where alerts are sent. Made, changed and removed here, each change audited.

Who may do it is decided before. Whether an address may be connected to is decided when it is resolved.
"""

import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.utils.translation import gettext as _

from accounts import audit
from accounts.models import Channel, Team, User
from accounts.services import WrongValue
from accounts.services.common import live, named
from accounts.turns import Turn, take_turn
from accounts.webhooks import clean_url, told

MOST_CHANNELS = 20
"""Of one team, and of the system."""
MOST_ADDRESSES = 10
"""Of mail, in one channel."""


class Unreadable(Exception):
    """A kept address was encrypted under a key that CREDENTIAL_KEYS no longer has."""


class _Kept(NamedTuple):
    """An address as it is kept."""

    address: str
    sealed: str = ""


def add_channel(team: Team | None, kind: str, name: str, address: str, by: User | None) -> Channel:
    """Without a team: for alerts of the system. Raises WrongValue, NoName, Archived."""
    name, kept = named(name), _kept(kind, address)
    with transaction.atomic():
        take_turn(Turn.WEBHOOKS)
        if team is not None:
            live(team.pk)
        if Channel.objects.filter(team=team).count() >= MOST_CHANNELS:
            raise WrongValue(
                "name", _("There are %(most)d channels already: remove one first.") % {"most": MOST_CHANNELS}
            )
        channel = Channel.objects.create(
            team=team, kind=kind, name=name, salt=secrets.token_hex(16), created_by=by, **kept._asdict()
        )
        after = {"name": name, "kind": kind, "address": _audited(channel)}
        audit.record("channel.added", channel, team=team, after=after)
    return channel


def change_channel(channel: Channel, changes: Mapping[str, Any]) -> None:
    """Change its `name` or `address`, or switch it by `enabled`.

    Of an archived team it can only be switched off. Raises WrongValue, NoName, Archived.
    """
    clean = _clean(channel, changes)
    with transaction.atomic():
        if channel.team_id is not None and changes != {"enabled": False}:
            live(channel.team_id)
        Channel.objects.select_for_update().get(pk=channel.pk)
        channel.refresh_from_db()
        was = _audited(channel)
        before, after = audit.changed(channel, clean)
        if not after:
            return
        for name, value in after.items():
            setattr(channel, name, value)
        channel.save(update_fields=list(after))
        audit.record(
            "channel.changed",
            channel,
            team=channel.team,
            before=_without_secrets(before, was),
            after=_without_secrets(after, _audited(channel)),
        )


def _clean(channel: Channel, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The fields to set. Raises WrongValue, NoName."""
    assert changes.keys() <= {"name", "address", "enabled"}
    clean = {name: value for name, value in changes.items() if name != "address"}
    if "name" in clean:
        clean["name"] = named(clean["name"])
    if "address" in changes:
        clean |= _kept(channel.kind, changes["address"])._asdict()
    return clean


def remove_channel(channel: Channel) -> None:
    """What waits to be sent to it goes too, and the alerts that used it tell the others."""
    with transaction.atomic():
        before = {"name": channel.name, "kind": channel.kind, "address": _audited(channel)}
        audit.record("channel.removed", channel, team=channel.team, before=before)
        channel.delete()


def url_of(channel: Channel) -> str:
    """Where its messages are posted. Raises Unreadable."""
    if not channel.sealed:
        return channel.address
    try:
        return _box().decrypt(channel.sealed.encode()).decode()
    except InvalidToken:
        raise Unreadable(
            "its address was encrypted under a key that CREDENTIAL_KEYS no longer has: enter it anew"
        ) from None


def emails_of(channel: Channel) -> list[str]:
    """Of a channel of mail."""
    return channel.address.split(", ")


def rotate_addresses() -> int:
    """Encrypt every secret address under the newest key; all or none. Gives how many. Raises Unreadable."""
    with transaction.atomic():
        rows = list(Channel.objects.select_for_update().exclude(sealed=""))
        for each in rows:
            each.sealed = _box().encrypt(url_of(each).encode()).decode()
            each.save(update_fields=["sealed"])
    return len(rows)


def _kept(kind: str, address: str) -> _Kept:
    """Raises WrongValue."""
    if kind == Channel.Kind.MAIL:
        return _Kept(", ".join(_emails(address)))
    try:
        url = clean_url(address)
    except WrongValue as why:
        raise WrongValue("address", str(why)) from None
    if kind == Channel.Kind.WEBHOOK:
        return _Kept(url)
    return _Kept(told(url), _box().encrypt(url.encode()).decode())


def _emails(raw: str) -> list[str]:
    """In lower case, each once. Raises WrongValue."""
    found = list(dict.fromkeys(raw.lower().replace(",", " ").replace(";", " ").split()))
    if not found:
        raise WrongValue("address", _("Give at least one e-mail address."))
    if len(found) > MOST_ADDRESSES:
        raise WrongValue("address", _("At most %(most)d e-mail addresses.") % {"most": MOST_ADDRESSES})
    for each in found:
        try:
            validate_email(each)
        except ValidationError:
            sentence = _("“%(address)s” is not an e-mail address.") % {"address": each[:80]}
            raise WrongValue("address", sentence) from None
    return found


def _audited(channel: Channel) -> str:
    """What follows the host of an address may let whoever knows it write there."""
    return channel.address if channel.kind == Channel.Kind.MAIL else told(channel.address)


def _without_secrets(values: Mapping[str, Any], address: str) -> dict[str, Any]:
    shown = {name: value for name, value in values.items() if name not in ("address", "sealed")}
    moved = "address" in values or "sealed" in values
    return {**shown, "address": address} if moved else shown


def _box() -> MultiFernet:
    return MultiFernet([Fernet(each) for each in settings.CREDENTIAL_KEYS])
