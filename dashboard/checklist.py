"""Getting started: ten things to have done once, and whether they are. Pure: facts in, items out."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _


@dataclass(frozen=True, slots=True)
class Facts:
    """Of a person and their teams. Calls are those of the last three months."""

    has_key: bool = False
    """Not revoked, and not of the playground."""
    key_used: bool = False
    """From outside the playground."""
    has_entry: bool = False
    cost_seen: bool = False
    second_route: bool = False
    handled: bool = False
    """A retry, a fallback, or an error that the caller was told of."""
    has_limit: bool = False
    """Other than those that every team and key begins with."""
    savings_seen: bool = False
    alert_tested: bool = False
    makes_keys: bool = False
    """Here and below: whether the person may, in some team."""
    sets_limits: bool = False


class Item(NamedTuple):
    """One of the ten."""

    name: str
    title: str | Promise
    why: str | Promise
    done: bool
    address: str
    """Where it is done; empty: by somebody with another role."""
    words: str | Promise
    """Of the link."""


ASK_MEMBER: Final = _("An owner or member of your team makes keys; your role looks.")
ASK_OWNER: Final = _("An owner of your team sets these.")


def items(facts: Facts) -> tuple[Item, ...]:
    """All ten, in the order in which they are best done."""
    keys = "/keys/new/" if facts.makes_keys else ""
    return (
        Item("signed_in", _("Sign in"), _("You did, just now."), True, "", ""),
        Item(
            "key",
            _("Make an API key"),
            _("A program presents it with every call, and what it costs is booked on it.")
            if facts.makes_keys
            else ASK_MEMBER,
            facts.has_key,
            keys,
            _("Make a key"),
        ),
        Item(
            "key_used",
            _("Call with it from a program"),
            _("Any SDK that speaks to OpenAI works: change its base_url and its key, and nothing else."),
            facts.key_used,
            "/keys/",
            _("Your keys"),
        ),
        Item(
            "entry",
            _("See a call on the books"),
            _("Every call says what it cost, how long it took, and where it went."),
            facts.has_entry,
            "/calls/",
            _("Calls"),
        ),
        Item(
            "cost",
            _("Look at what it costs"),
            _("By team, key, model name or tag, so that you know what to change."),
            facts.cost_seen,
            "/usage/",
            _("Usage"),
        ),
        Item(
            "second_route",
            _("Use a second model name"),
            _("A cheaper one may do: the same program tries it by changing one word."),
            facts.second_route,
            "/usage/?by=route",
            _("Model names in use"),
        ),
        Item(
            "handled",
            _("Meet an error that was handled"),
            _("A retry or a fallback often answers before your program notices; the call explains how."),
            facts.handled,
            "/calls/?outcome=failed",
            _("Failed calls"),
        ),
        Item(
            "limit",
            _("Set a limit or a quota"),
            _("So that a loop in the night cannot spend the month.") if facts.sets_limits else ASK_OWNER,
            facts.has_limit,
            "/teams/" if facts.sets_limits else "",
            _("Your teams"),
        ),
        Item(
            "savings",
            _("Open the savings"),
            _("They show what another target would have cost for the calls that you made."),
            facts.savings_seen,
            "/savings/",
            _("Savings"),
        ),
        Item(
            "alert",
            _("Test an alert"),
            _("Then you know that the message comes, before the day you need it."),
            facts.alert_tested,
            "/alerts/",
            _("Alerts"),
        ),
    )


@dataclass(frozen=True, slots=True)
class Checklist:
    """The ten items, as a page shows them."""

    items: tuple[Item, ...]

    @property
    def done(self) -> int:
        return sum(each.done for each in self.items)

    @property
    def is_done(self) -> bool:
        return self.done == len(self.items)

    @property
    def next(self) -> Item | None:
        """The first open one that this person can do, else the first open one."""
        still_open = [each for each in self.items if not each.done]
        return next((each for each in still_open if each.address), still_open[0] if still_open else None)


def checklist(facts: Facts) -> Checklist:
    return Checklist(items(facts))
