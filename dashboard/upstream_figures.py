"""What pages tell of providers and targets: breakers, pools, prices, credentials. Decides nothing.

Live figures are this process's own; where it serves no calls, the breakers' timeline says what was last.
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date
from urllib.parse import urlsplit

from django.conf import settings
from django.db.models import Max
from django.utils import timezone
from django.utils.translation import gettext as _

from gateway import credentials, snapshot, upstreams
from gateway.credentials import CredentialUnreadable
from gateway.exchange import Rates
from gateway.models import BreakerChange, Credential, Price, Probe, Provider, Target
from gateway.price_inputs import amount_of
from gateway.relay.ports import PoolFigures
from gateway.relay.targets import TargetState


@dataclass(frozen=True, slots=True)
class Live:
    """What this process knows of targets now, by their id; `why` says why it knows nothing."""

    states: Mapping[int, TargetState]
    why: str = ""


@dataclass(frozen=True, slots=True)
class Sign:
    """A badge: its words, its class, and what is beside it."""

    words: str
    kind: str = ""
    """good, warn, bad, or none"""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Now:
    """One target at this moment."""

    target: Target
    breaker: Sign
    state: TargetState | None

    @property
    def waiting(self) -> int:
        """Calls at the gate, of every priority."""
        return sum(self.state.gate.waiting.values()) if self.state else 0

    @property
    def pool(self) -> PoolFigures | None:
        return self.state.pool if self.state else None


def live() -> Live:
    try:
        return Live({each.target_id: each for each in upstreams.states()})
    except upstreams.NoRelayHere:
        return Live({}, _("This process serves no calls, so it has no live figures."))
    except TimeoutError:
        return Live({}, _("The relay did not answer in time."))


def now_of(targets: Sequence[Target]) -> tuple[list[Now], str]:
    """Each with its breaker, and why there are no live figures. `provider` and `route` are there."""
    known = live()
    told = last_changes(targets) if known.why else {}
    return [_now(each, known, told.get(each.pk)) for each in targets], known.why


def _now(target: Target, known: Live, last: str | None) -> Now:
    state = known.states.get(target.pk)
    return Now(target, breaker_of(target, state, last, is_live=not known.why), state)


def last_changes(targets: Iterable[Target]) -> dict[int, str]:
    """The state that each breaker's timeline says last, by the target's id. One query."""
    own = BreakerChange.objects.filter(target_id__in=[each.pk for each in targets])
    newest = own.order_by().values("target_id").annotate(last=Max("id")).values("last")
    return dict(BreakerChange.objects.filter(pk__in=newest).values_list("target_id", "after"))


def breaker_of(target: Target, state: TargetState | None, last: str | None, *, is_live: bool) -> Sign:
    """`last` is what the timeline says, for where nothing is live."""
    if not (target.enabled and target.provider.enabled and target.route.enabled):
        return Sign(_("Switched off"))
    if target.lever == Target.Lever.OPEN:
        return Sign(_("Held open"), "bad")
    if state is not None:
        return _of_state(state.breaker, state.ready_in_s)
    if is_live:
        return Sign(_("Not in use"), "warn", _("its credential cannot be read, or it was added just now"))
    return _of_state(last, 0) if last else Sign(_("Not known here"))


def _of_state(name: str, ready_in_s: float) -> Sign:
    if name == "closed":
        return Sign(_("Closed"), "good")
    if name == "half_open":
        return Sign(_("Half-open"), "warn", _("a probe is under way"))
    note = _("a probe in {seconds} s").format(seconds=round(ready_in_s)) if ready_in_s > 0 else ""
    return Sign(_("Open"), "bad", note)


def summary(rows: Iterable[Now]) -> list[tuple[int, Sign]]:
    """How many breakers are in each state, the worst first."""
    counted = Counter((each.breaker.kind, each.breaker.words) for each in rows)
    worst = ("bad", "warn", "good", "")
    return [
        (count, Sign(words, kind))
        for (kind, words), count in sorted(counted.items(), key=lambda item: worst.index(item[0][0]))
    ]


def host_of(provider: Provider) -> str:
    return urlsplit(provider.base_url).netloc


def credential_of(provider: Provider) -> Sign:
    """Where it is, and whether it can be used; never what it is."""
    row: Credential | None = getattr(provider, "credential", None)
    if row is None:
        return Sign(_("None"), "", _("calls carry no credential"))
    where = _("Kept, encrypted") if row.encrypted else _("In {name}").format(name=row.env_var)
    try:
        credentials.reveal(row, settings.CREDENTIAL_KEYS, os.environ)
    except CredentialUnreadable as why:
        return Sign(where, "bad", str(why))
    if row.refused_at is not None:
        said = _("refused by the provider with {status} at {moment} UTC")
        return Sign(
            where, "bad", said.format(status=row.refused_status, moment=f"{row.refused_at:%Y-%m-%d %H:%M}")
        )
    return Sign(where, "good")


@dataclass(frozen=True, slots=True)
class PriceNow:
    """What a target costs at this moment."""

    words: str
    usable: bool
    """False: its currency has no exchange rate, so that calls have no price."""


def prices_now(targets: Iterable[Target]) -> dict[int, PriceNow]:
    """By the target's id; none where no price has begun. Two queries."""
    ids = [each.pk for each in targets]
    rows = Price.objects.filter(target__in=ids, valid_from__lte=timezone.now()).order_by("valid_from", "id")
    last = {each.target_id: each for each in rows}
    rates, today = snapshot.exchange_rates(), timezone.now().astimezone(UTC).date()
    return {target_id: _price(row, rates, today) for target_id, row in last.items()}


def _price(row: Price, rates: Rates, today: date) -> PriceNow:
    currency = row.currency or settings.LEDGER_CURRENCY
    figures = {
        "input": amount_of(row.input_nanos),
        "output": amount_of(row.output_nanos),
        "currency": currency,
    }
    known = rates.exchange(currency, settings.LEDGER_CURRENCY, today)
    return PriceNow(_("{input} in, {output} out, {currency}").format(**figures), known is not None)


def last_probes(provider_ids: Iterable[int]) -> dict[int, Probe]:
    """The newest probe of each provider, tests included. One query."""
    own = Probe.objects.filter(provider__in=list(provider_ids)).order_by()
    newest = own.values("provider").annotate(last=Max("id")).values("last")
    return {each.provider_id: each for each in Probe.objects.filter(pk__in=newest)}
