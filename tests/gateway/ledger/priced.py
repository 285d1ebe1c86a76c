"""Calls that are priced as the relay would have priced them, and prices that come late."""

from datetime import UTC, date, datetime, timedelta

from django.conf import settings

from accounts.models import ApiKey, Team
from gateway import snapshot
from gateway.ledger import repricing
from gateway.models import ExchangeRate, Price, Provider, Route, Target
from gateway.relay import catalog, pricing
from gateway.relay.records import AttemptEnded, Settled, Usage
from tests.gateway.records import opened, settled

T0 = datetime(2026, 9, 21, 12, 0, tzinfo=UTC)
NOW = T0 + timedelta(hours=6)
USED = Usage(1_000, 200, 100, "reported")


def us(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


class Books:
    """A team, two targets, and calls to them, priced as the relay would have priced them."""

    def __init__(self) -> None:
        self.team = Team.objects.create(name="Tide", slug="tide")
        self.key = ApiKey.objects.create(team=self.team, name="alice's")
        provider = Provider.objects.create(slug="acme", name="Acme", base_url="https://acme.example/v1")
        route = Route.objects.create(model_name="gpt-4o", unpriced="allowed")
        self.target = Target.objects.create(route=route, provider=provider, upstream_model="gpt-4o-2024")
        self.other = Target.objects.create(route=route, provider=provider, upstream_model="gpt-4o-mini")

    def list_of(self, target: Target | None = None) -> catalog.Target:
        """A target with its prices of now."""
        target = target or self.target
        rows = Price.objects.filter(target=target).order_by("valid_from", "id")
        prices = snapshot.prices_of(rows, snapshot.exchange_rates()).get(target.pk, ())
        return catalog.Target(target.pk, "acme", "", target.upstream_model, None, prices=prices)

    def attempt(
        self, at: datetime, used: Usage = USED, *, known: catalog.Target | None = None, no: int = 1
    ) -> AttemptEnded:
        known = known or self.list_of()
        price = known.price_at(us(at))
        return AttemptEnded(
            *(no, known.id, "acme", known.upstream_model, "answered", 200, us(at), 400_000, None, used),
            None if price is None else price.id,
            pricing.cost_nanos(used, price),
            price=pricing.told(used, price),
        )

    def call(self, *attempts: AttemptEnded, started_at: datetime | None = None) -> Settled:
        at_us = attempts[0].started_at_us if started_at is None else us(started_at)
        call = opened(team_id=self.team.pk, key_id=self.key.pk, started_at_us=at_us)
        return settled(
            call,
            ended_at_us=max(each.started_at_us for each in attempts) + 400_000,
            cost_nanos=sum(each.cost_nanos for each in attempts),
            unpriced=any(each.price_id is None for each in attempts),
            attempts=attempts,
        )

    def price(
        self,
        valid_from: datetime = T0,
        nanos: int = 2_000_000_000,
        *,
        now: datetime = NOW,
        currency: str = "",
        target: Target | None = None,
    ) -> Price:
        """Entered now, and noted."""
        target = target or self.target
        next_price = Price.objects.filter(target=target, valid_from__gt=valid_from)
        until = next_price.order_by("valid_from").values_list("valid_from", flat=True).first()
        made = Price.objects.create(
            target=target,
            valid_from=valid_from,
            currency=currency,
            input_nanos=nanos,
            cached_input_nanos=nanos // 2,
            output_nanos=4 * nanos,
        )
        repricing.note([target.pk], valid_from, min(until or now, now), "A late price.", now=now)
        return made

    def rate(self, day: date, rate_nanos: int, *, now: datetime = NOW) -> None:
        """What a euro is in the ledger's currency, entered now, and noted."""
        ExchangeRate.objects.create(
            base="EUR", quote=settings.LEDGER_CURRENCY, valid_from=day, rate_nanos=rate_nanos
        )
        from_at = datetime.combine(day, datetime.min.time(), UTC)
        repricing.note([self.target.pk, self.other.pk], from_at, now, "A late exchange rate.", now=now)
