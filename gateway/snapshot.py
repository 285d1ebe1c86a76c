"""Door in: providers, routes, targets and prices from the database become one frozen Catalog."""

import itertools
import logging
import os
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import cast

from django.conf import settings

from gateway import credentials, exchange
from gateway import models as m
from gateway.exchange import Quoted
from gateway.relay.catalog import (
    Catalog,
    Lever,
    Overflow,
    PoolConfig,
    Price,
    Rates,
    Route,
    Secret,
    Target,
    TransportName,
)
from gateway.relay.transports.choice import ready

log = logging.getLogger(__name__)

_readings = itertools.count(1)
"""Numbers the readings of this process, so that what is newer can be told."""


class Snapshot:
    """The catalog as it was last read. Reading is synchronous; `current` is a look at an attribute."""

    def __init__(self) -> None:
        self._catalog = Catalog()

    def current(self) -> Catalog:
        return self._catalog

    def refresh(self) -> None:
        """Read everything again and swap it in whole. Raises DatabaseError, with the old one kept."""
        catalog = read()
        ready(catalog)
        self._catalog = catalog


def read() -> Catalog:
    """Five queries: providers with credentials, routes, targets, prices, exchange rates."""
    read_no = next(_readings)
    secrets = _secrets(m.Provider.objects.filter(enabled=True).select_related("credential"))
    prices = prices_of(m.Price.objects.order_by("valid_from", "id"), exchange_rates())
    targets: dict[int, list[Target]] = defaultdict(list)
    rows = m.Target.objects.filter(enabled=True, provider__enabled=True).select_related(
        "provider__credential"
    )
    for row in rows.order_by("order", "id"):
        if row.provider_id in secrets:
            target = _target(row, secrets[row.provider_id], prices.get(row.pk, ()), read_no)
            targets[row.route_id].append(target)
    routes: dict[str, Route] = {}
    for route in m.Route.objects.filter(enabled=True):
        made = _route(route, tuple(targets[route.pk]))
        for name in (*route.aliases, route.model_name):
            routes[name] = made
    return Catalog(routes)


def _secrets(providers: Iterable[m.Provider]) -> dict[int, Secret | None]:
    """Each usable provider's credential; one whose credential cannot be read is left out, and said."""
    found: dict[int, Secret | None] = {}
    for provider in providers:
        credential = getattr(provider, "credential", None)
        try:
            found[provider.pk] = (
                None
                if credential is None
                else credentials.reveal(credential, settings.CREDENTIAL_KEYS, os.environ)
            )
        except credentials.CredentialUnreadable as why:
            log.warning("the provider %s is left out: %s", provider.slug, why)
    return found


def exchange_rates() -> exchange.Rates:
    """One query. Raises DatabaseError."""
    rows = m.ExchangeRate.objects.order_by("id")
    return exchange.Rates(Quoted(each.base, each.quote, each.valid_from, each.rate_nanos) for each in rows)


def prices_of(rows: Iterable[m.Price], rates: exchange.Rates) -> dict[int, tuple[Price, ...]]:
    """By target, oldest first, in the ledger's currency. `rows` are in the order of date and entry."""
    found: dict[int, list[Price]] = defaultdict(list)
    for row in rows:
        found[row.target_id].append(price_of(row))
    currency = settings.LEDGER_CURRENCY
    return {target_id: exchange.in_ledger(prices, rates, currency) for target_id, prices in found.items()}


def price_of(row: m.Price) -> Price:
    """A row as the relay sees it, without an exchange rate."""
    tiers = sorted((Rates(**each) for each in row.tiers), key=lambda each: each.above_tokens)
    rates = Rates(
        row.input_nanos,
        row.cached_input_nanos,
        row.output_nanos,
        row.cache_write_nanos,
        row.reasoning_nanos,
        row.audio_input_nanos,
        row.audio_output_nanos,
    )
    return Price(row.pk, _us(row.valid_from), rates, tuple(tiers), row.request_nanos, row.currency)


def _us(moment: datetime) -> int:
    return (moment - exchange.EPOCH) // exchange.MICROSECOND


def _target(row: m.Target, credential: Secret | None, prices: tuple[Price, ...], read_no: int) -> Target:
    return Target(
        read_no=read_no,
        id=row.pk,
        provider=row.provider.slug,
        base_url=row.provider.base_url,
        upstream_model=row.upstream_model,
        credential=credential,
        simulated=row.provider.simulated,
        prices=prices,
        provider_id=row.provider_id,
        order=row.order,
        weight=row.weight,
        transport=cast(TransportName, row.transport),
        pool=_pool(row),
        ca_pem=row.provider.ca_pem,
        max_concurrency=row.max_concurrency,
        max_waiting=row.max_waiting,
        context_window=row.context_window,
        media_tokens=row.media_tokens,
        parameters=row.parameters,
        lever=cast(Lever, row.lever),
        closed_at_us=_us(row.closed_at) if row.closed_at else 0,
        credential_refused=_was_refused(row.provider),
    )


def _was_refused(provider: m.Provider) -> bool:
    credential: m.Credential | None = getattr(provider, "credential", None)
    return credential is not None and credential.refused_at is not None


def _pool(row: m.Target) -> PoolConfig:
    return PoolConfig(
        max_connections=row.max_connections,
        max_keepalive_connections=row.max_keepalive_connections,
        keepalive_expiry_s=row.keepalive_expiry_s,
        connect_timeout_s=row.connect_timeout_s,
        read_timeout_s=row.read_timeout_s,
        write_timeout_s=row.write_timeout_s,
        pool_timeout_s=row.pool_timeout_s,
        http2=row.http2,
    )


def _route(row: m.Route, targets: tuple[Target, ...]) -> Route:
    return Route(
        model_name=row.model_name,
        targets=targets,
        unpriced_allowed=row.unpriced == m.Route.Unpriced.ALLOWED,
        created_at_s=int(row.created_at.timestamp()),
        timeout_s=row.timeout_s,
        overflow=cast(Overflow, row.overflow),
        overflow_route=row.overflow_route,
        hang_up_drain_s=row.hang_up_drain_s,
        max_tokens=row.max_tokens,
        usual_max_tokens=row.usual_max_tokens,
        max_choices=row.max_choices,
    )
