"""Whom our own calls go to, and what is kept of them.

A probe costs what its calls cost, and is kept beside them: it is no team's, so it is on no team's books.
"""

import asyncio
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import cast

import msgspec
from django.conf import settings
from django.db import transaction
from django.db.models import Case, Max, Q, QuerySet, Value, When
from django.utils import timezone

from gateway import credentials, models, presets, probing, snapshot
from gateway.credentials import CredentialUnreadable
from gateway.models import Probe, Provider
from gateway.news import CredentialAccepted, CredentialRefused
from gateway.probing import Failure, Listed, Run, Tried
from gateway.relay import pricing, upstream
from gateway.relay.catalog import PoolConfig, Secret, Target, TransportName
from gateway.relay.transports.choice import Transports

KEPT = 500
"""Probes of a provider, the newest: every quarter of an hour, that is five days of them."""
SCHEDULED_S = 20.0
"""No call of a scheduled probe begins later: other tasks wait for it, because they run one at a time."""


def reach(provider: Provider, model_name: str) -> Target:
    """The provider's target for a model name as the relay would call it, or one with the usual settings.

    Raises CredentialUnreadable.
    """
    row = _target_row(provider, model_name)
    secret = _secret(provider)
    if row is None:
        return _without_row(provider, model_name, secret)
    rows = models.Price.objects.filter(target=row).order_by("valid_from", "id")
    return Target(
        id=row.pk,
        provider=provider.slug,
        provider_id=provider.pk,
        base_url=provider.base_url,
        upstream_model=row.upstream_model,
        credential=secret,
        prices=snapshot.prices_of(rows, snapshot.exchange_rates()).get(row.pk, ()),
        transport=cast(TransportName, row.transport),
        pool=PoolConfig(**{each.name: getattr(row, each.name) for each in fields(PoolConfig)}),
        ca_pem=provider.ca_pem,
        parameters=row.parameters,
    )


def _without_row(provider: Provider, model_name: str, secret: Secret | None) -> Target:
    """As nobody has set it up yet: with the usual settings and no price."""
    return Target(
        id=0,
        provider=provider.slug,
        provider_id=provider.pk,
        base_url=provider.base_url,
        upstream_model=_preset_model(provider, model_name),
        credential=secret,
        ca_pem=provider.ca_pem,
    )


def _secret(provider: Provider) -> Secret | None:
    credential: models.Credential | None = getattr(provider, "credential", None)
    if credential is None:
        return None
    return credentials.reveal(credential, settings.CREDENTIAL_KEYS, os.environ)


def _target_row(provider: Provider, model_name: str) -> models.Target | None:
    """The one behind the route of that name, or else the one that the provider calls so."""
    by_name = Case(When(route__model_name=model_name, then=Value(0)), default=Value(1))
    named = Q(route__model_name=model_name) | Q(upstream_model=model_name)
    return provider.targets.filter(named).order_by(by_name, "order", "id").first()


def _preset_model(provider: Provider, model_name: str) -> str:
    """What a vendor that we know calls it."""
    usual = presets.usual_routes(provider.slug)
    return next((each.upstream_model for each in usual if each.model_name == model_name), model_name)


def ask_models(provider: Provider) -> Listed:
    """Which models the provider says that it has."""
    try:
        target = reach(provider, "")
    except CredentialUnreadable as why:
        return Listed(0, (), Failure("no_credential", None, str(why)))
    allow_private = settings.ENV.allow_private_upstreams
    return probing.run(probing.models_of(target, allow_private=allow_private))


def probe(
    providers: Iterable[Provider],
    model_name: str,
    count: int,
    cause: Probe.Cause,
    *,
    for_s: float | None = None,
) -> list[tuple[Provider, Run, Probe]]:
    """So many calls to each, to all of them at the same time; and what was kept of it, in the same order."""
    asked = list(providers)
    reached = [_reached(each, model_name) for each in asked]
    targets = [each for each in reached if isinstance(each, Target)]
    runs = iter(probing.run(_measure(targets, count, for_s)))
    found = []
    for provider, target in zip(asked, reached, strict=True):
        run = next(runs) if isinstance(target, Target) else Run(model_name, [Tried(0, None, target)])
        kept = keep(provider, run, cause, target if isinstance(target, Target) else None)
        found.append((provider, run, kept))
    return found


def _reached(provider: Provider, model_name: str) -> Target | Failure:
    try:
        return reach(provider, model_name)
    except CredentialUnreadable as why:
        return Failure("no_credential", None, str(why))


async def _measure(targets: Sequence[Target], count: int, for_s: float | None) -> list[Run]:
    transports = [Transports(allow_private=settings.ENV.allow_private_upstreams) for _ in targets]
    try:
        return await asyncio.gather(
            *(
                probing.measure(transport, target, count, for_s=for_s)
                for transport, target in zip(transports, targets, strict=True)
            )
        )
    finally:
        for each in transports:
            await each.close()


def keep(provider: Provider, run: Run, cause: Probe.Cause, target: Target | None) -> Probe:
    """Write it down, and forget the oldest. Whether our credential is taken is noted as the relay does."""
    latencies = run.latencies_us
    row = Probe(
        provider=provider,
        at=timezone.now(),
        cause=cause,
        upstream_model=run.upstream_model,
        calls=len(run.tries),
        answered=len(latencies),
        avg_us=run.avg_us,
        min_us=min(latencies, default=None),
        max_us=max(latencies, default=None),
        failures=[{**msgspec.structs.asdict(why), "times": times} for why, times in run.failures.items()],
        **_usage(run, target),
    )
    with transaction.atomic():
        row.save()
        _forget_oldest(provider)
    _flag_credential(provider, run)
    return row


def _usage(run: Run, target: Target | None) -> dict[str, int | None]:
    """Tokens of all its calls, and what they cost now."""
    used = [each.usage for each in run.tries if each.usage is not None]
    price = target.price_at(time.time_ns() // 1000) if target else None
    cost = sum(pricing.cost_nanos(each, price) for each in used) if price and used else None
    return {
        "input_tokens": sum(each.input_tokens for each in used),
        "output_tokens": sum(each.output_tokens for each in used),
        "cost_nanos": cost,
    }


def _forget_oldest(provider: Provider) -> None:
    rows = Probe.objects.filter(provider=provider)
    first_too_many = rows.values_list("pk", flat=True)[KEPT : KEPT + 1].first()
    if first_too_many is not None:
        kept = list(rows.values_list("pk", flat=True)[:KEPT])
        rows.exclude(pk__in=kept).delete()


def _flag_credential(provider: Provider, run: Run) -> None:
    """As the relay does when a call finds it out."""
    statuses = [each.failure.status for each in run.tries if each.failure and each.failure.status]
    refused = [each for each in statuses if each in upstream.CREDENTIAL_REJECTED]
    if refused:
        CredentialRefused(provider.pk, refused[-1], time.time_ns() // 1000).write()
    elif run.latencies_us:
        CredentialAccepted(provider.pk).write()


def usable() -> QuerySet[Provider]:
    """Every provider that is switched on, with its credential."""
    return Provider.objects.filter(enabled=True).select_related("credential")


def probe_due(now: datetime, every_s: int) -> None:
    """Probe the providers whose last scheduled probe is as old as that. 0: none, ever."""
    if every_s:
        before = now - timedelta(seconds=every_s)
        scheduled = Q(probes__cause=Probe.Cause.SCHEDULE)
        last = usable().annotate(probed_at=Max("probes__at", filter=scheduled))
        due = last.filter(Q(probed_at=None) | Q(probed_at__lte=before))
        if found := list(due):
            probe(found, probing.MODEL_NAME, probing.COUNT, Probe.Cause.SCHEDULE, for_s=SCHEDULED_S)


def failures_of(row: Probe) -> list[tuple[str, int]]:
    """Why its calls failed, as sentences, and how often."""
    return [
        (probing.said(Failure(each["code"], each["status"], each["words"])), each["times"])
        for each in row.failures
    ]
