"""What is typed into the one search field of calls, and which calls it means.

    01a20519-f84d            the beginning of a call id, of eight digits at least
    pst_7Hq…                 an API key by what it begins with
    project=apollo           a tag that the team has declared
    gpt-4o, nightly, 429     part of a model name, a target or a key's name; the beginning of a code

Whatever `%`, `_` and quotes a text is made of, they are letters.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final
from uuid import UUID

from django.utils.translation import gettext as _

from accounts import keys
from accounts.models import ApiKey, KeySecret
from accounts.searching import with_part
from gateway.ledger.calls import Asked, Likeness

LONGEST: Final = 321
"""Characters, as of a tag with its value."""
LEAST_DIGITS: Final = 8
"""Of an id, so that a word of few letters is none; they stand for 65 seconds."""
ID: Final = re.compile(r"[0-9a-f]{8}[0-9a-f-]{0,28}\Z", re.ASCII)
MOST_KEYS: Final = 200
"""Whose names have the words in them; a question with more says too little."""


class Unreadable(ValueError):
    """What was typed can mean nothing; the message says why."""


def sought(asked: Asked, text: str, names: Mapping[int, str] | None = None) -> Asked:
    """The question with what was typed. Raises Unreadable.

    `names`: of all API keys of the teams that are asked about; None: looked up, in one or two queries.
    """
    text = text.strip()
    if not text:
        return asked
    if text.startswith(keys.PREFIX):
        return replace(asked, like=Likeness("", _keys_by_prefix(text, asked)))
    if bounds := ids(text):
        return replace(asked, ids=bounds)
    if "=" in text:
        return replace(asked, tag=_tag(text, asked))
    return replace(asked, like=Likeness(text, _keys_by_name(text, asked, names)))


def ids(text: str) -> tuple[UUID, UUID] | None:
    """The first and the last id that begin so; None: it is no beginning of one. Pure."""
    digits = text.lower().replace("-", "")
    if not ID.match(text.lower()) or not LEAST_DIGITS <= len(digits) <= 32:
        return None
    return UUID(hex=digits.ljust(32, "0")), UUID(hex=digits.ljust(32, "f"))


def _tag(text: str, asked: Asked) -> tuple[str, str]:
    name, _equals, value = text.partition("=")
    if not name.strip():
        raise Unreadable(_("Write a tag as name=value."))
    if asked.tag not in (None, (name, value)):
        raise Unreadable(_("One tag at a time can be looked for: clear the other."))
    return name.strip(), value


def _keys_by_prefix(text: str, asked: Asked) -> tuple[int, ...]:
    """By the beginning of a secret's public id, which has an index."""
    rows = KeySecret.objects.filter(public_id__startswith=keys.public_id_of(text))
    if asked.team_ids is not None:
        rows = rows.filter(key__team_id__in=asked.team_ids)
    return tuple(rows.values_list("key_id", flat=True).distinct()[:MOST_KEYS])


def _keys_by_name(text: str, asked: Asked, names: Mapping[int, str] | None) -> tuple[int, ...]:
    if names is not None:
        wanted = text.casefold()
        return tuple(pk for pk, name in names.items() if wanted in name.casefold())[:MOST_KEYS]
    rows = with_part(ApiKey.objects.all(), "name", text)
    if asked.team_ids is not None:
        rows = rows.filter(team_id__in=asked.team_ids)
    return tuple(rows.order_by("-pk").values_list("pk", flat=True)[:MOST_KEYS])
