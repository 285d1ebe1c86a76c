"""The door in: an API key becomes a `Caller`, remembered until something changes.

`remembered` answers on the hot path from memory; `look_up` asks the database off the event loop.
"""

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from ipaddress import ip_network
from types import MappingProxyType
from typing import cast

from django.db import Error as DatabaseTrouble
from django.db import connections, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from accounts import keys
from accounts import models as m
from accounts.caller import (
    NO_TAGS,
    Caller,
    KeyCannotBeChecked,
    Owner,
    Period,
    Priority,
    Quota,
    QuotaKind,
    RateLimit,
    RateLimitKind,
)
from accounts.models import AccessToken, KeySecret, Membership, PepperFingerprint
from accounts.turns import Turn, take_turn
from accounts.uses import Uses

log = logging.getLogger("penstock.authentication")

LOOK_UPS_AT_ONCE = 50
LOOK_UP_THREADS = 4  # a read takes well under a millisecond; more threads would only be more connections
UNKNOWN_FOR_S = 60.0
ASK_AGAIN_AFTER_S = 1.0  # while the database is away a remembered key does not ask it at every call


class WrongPeppers(Exception):
    """The configured peppers cannot check the keys in the database; the message says what would help."""


@dataclass(frozen=True, slots=True)
class _Known:
    """One key secret as last read: its digest, the pepper it needs, and whom it stands for."""

    secret_id: int
    digest: bytes = field(repr=False)
    pepper: str = field(repr=False)
    caller: Caller

    def is_secret(self, secret: str) -> bool:
        return keys.same(keys.digest(secret, self.pepper), self.digest)


@dataclass(frozen=True, slots=True)
class _Stale:
    """A key that was known before something changed, and may have changed with it."""

    known: _Known
    since_s: float
    ask_again_at_s: float


class Authenticator:
    """Tell who is calling.

        take apart | remembered? | look up | compare

    Malformed, unknown, wrong, expired and revoked keys all give None, and so do those of an archived team:
    no oracle.
    Does not decide what a caller may do, nor what counts as a use: whoever let the call in says so by `used`.
    Used on one event loop; only `forget` and `flush_uses` may be called from other threads.
    A database slower than `look_up_timeout_s` counts as away.
    `now_s` is Unix time, for expiry and last use; `steady_s` never jumps, and measures how old a memory is.
    """

    def __init__(
        self,
        peppers: Sequence[str],
        *,
        stale_keys_s: float = 300.0,
        look_up_timeout_s: float = 5.0,
        unknown_at_most: int = 10_000,
        executor: Executor | None = None,
        now_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._newest = peppers[0]
        self._peppers: Mapping[str, str] = {keys.pepper_id(pepper): pepper for pepper in peppers}
        self._stale_keys_s, self._look_up_timeout_s = stale_keys_s, look_up_timeout_s
        self._unknown_at_most = unknown_at_most
        self._now_s, self._steady_s = now_s, steady_s
        self._owned = None if executor else ThreadPoolExecutor(LOOK_UP_THREADS, "authenticate")
        self._executor = executor or self._owned
        self._places = asyncio.Semaphore(LOOK_UPS_AT_ONCE)
        self._writing = threading.Lock()
        self._generation = 0
        self._known: dict[str, _Known] = {}
        self._stale: dict[str, _Stale] = {}
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._in_flight: dict[str, asyncio.Task[_Known | None]] = {}
        self._flights: set[asyncio.Task[_Known | None]] = set()
        self._uses = Uses()
        self._database_away = False

    def __repr__(self) -> str:
        away = ", database away" if self._database_away else ""
        return f"<Authenticator knows {len(self._known)} keys, {len(self._stale)} stale{away}>"

    def remembered(self, presented: str) -> Caller | None:
        """The caller, where this key was read since the last change. None: ask `look_up`."""
        parts = keys.take_apart(presented)
        if parts is None:
            return None
        known = self._known.get(parts.public_id)
        return self._admit(known, parts.secret) if known else None

    async def look_up(self, presented: str) -> Caller | None:
        """The caller, from the database where need be.

        Raises KeyCannotBeChecked where the database does not answer and the key is not
        remembered, or was last certain more than `stale_keys_s` ago.
        """
        parts = keys.take_apart(presented)
        if parts is None or self._is_unknown(parts.public_id):
            return None
        known = await self._current(parts.public_id)
        caller = self._admit(known, parts.secret) if known else None
        if known and caller and known.pepper != self._newest:
            await self._redigest(parts, known)
        return caller

    def forget(self) -> None:
        """Something changed: ask the database again about every key, also about unknown ones."""
        since_s = self._steady_s()
        with self._writing:
            self._generation += 1
            before, self._known = self._known, {}
            self._unknown.clear()
            self._in_flight.clear()
            oldest_s = since_s - self._stale_keys_s
            kept = {public_id: stale for public_id, stale in self._stale.items() if stale.since_s > oldest_s}
            kept |= {public_id: _Stale(known, since_s, since_s) for public_id, known in before.items()}
            self._stale = kept

    def used(self, caller: Caller, address: str, user_agent: str) -> None:
        """A call of this caller got past the door: gathered in memory until the next flush."""
        self._uses.add(caller.secret_id, address, user_agent, self._now_s())

    def flush_uses(self) -> None:
        """Write the uses gathered since the last time. Raises django.db.Error, and keeps them."""
        self._uses.flush()

    async def still_good(self, secret_ids: Iterable[int], now_s: float) -> set[int]:
        """Which of these secrets may be called with at that moment: one query, in a thread.

        Raises django.db.Error or TimeoutError where the database does not answer.
        """
        asked = frozenset(secret_ids)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._look_up_timeout_s):
            return await loop.run_in_executor(self._executor, read_good, asked, now_s)

    async def close(self) -> None:
        """Wait for look-ups under way, then end the threads where they are our own."""
        await asyncio.gather(*self._flights, return_exceptions=True)
        if self._owned:
            await asyncio.to_thread(self._owned.shutdown)

    def _admit(self, known: _Known, secret: str) -> Caller | None:
        if not known.is_secret(secret):
            return None
        return None if known.caller.expired(self._now_s()) else known.caller

    async def _current(self, public_id: str) -> _Known | None:
        """What is known of a key now; a stale memory only where the database is away."""
        if known := self._known.get(public_id):
            return known
        stale = self._stale.get(public_id)
        if stale and self._steady_s() < min(stale.ask_again_at_s, stale.since_s + self._stale_keys_s):
            return stale.known
        try:
            return await asyncio.shield(self._flight(public_id))
        except (DatabaseTrouble, TimeoutError) as why:
            return self._from_before(public_id, why)

    def _flight(self, public_id: str) -> asyncio.Task[_Known | None]:
        """The one look-up of this key under way, shared by all who wait for it."""
        task = self._in_flight.get(public_id)
        if task is None:
            task = asyncio.create_task(self._read(public_id, self._generation))
            self._in_flight[public_id] = task
            self._flights.add(task)
            task.add_done_callback(lambda done: self._landed(public_id, done))
        return task

    def _landed(self, public_id: str, task: "asyncio.Task[_Known | None]") -> None:
        self._flights.discard(task)
        if self._in_flight.get(public_id) is task:
            del self._in_flight[public_id]
        if not task.cancelled():
            task.exception()  # taken here, because every waiter may have gone away

    async def _read(self, public_id: str, generation: int) -> _Known | None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._look_up_timeout_s), self._places:
            known = await loop.run_in_executor(self._executor, read_key, public_id, self._peppers)
        if self._database_away:
            self._database_away = False
            log.warning("The database answers again; keys are checked as usual.")
        self._remember(public_id, known, generation)
        return known

    def _remember(self, public_id: str, known: _Known | None, generation: int) -> None:
        """Keep what was read, unless something changed meanwhile: then it may be old already."""
        with self._writing:
            if generation != self._generation:
                return
            self._stale.pop(public_id, None)
            if known:
                self._known[public_id] = known
                return
            self._unknown[public_id] = self._steady_s() + UNKNOWN_FOR_S
            if len(self._unknown) > self._unknown_at_most:
                self._unknown.popitem(last=False)

    def _is_unknown(self, public_id: str) -> bool:
        until_s = self._unknown.get(public_id)
        if until_s is None:
            return False
        if self._steady_s() >= until_s:
            self._unknown.pop(public_id, None)
            return False
        return True

    def _from_before(self, public_id: str, why: Exception) -> _Known:
        """The last known rights, for a bounded time: an outage of ours should not be one of theirs."""
        if not self._database_away:
            self._database_away = True
            log.error("Keys cannot be checked, the database does not answer: %s", why or "too slow")
        stale = self._stale.get(public_id)
        now_s = self._steady_s()
        if stale is None or now_s >= stale.since_s + self._stale_keys_s:
            raise KeyCannotBeChecked from why
        with self._writing:
            self._stale[public_id] = replace(stale, ask_again_at_s=now_s + ASK_AGAIN_AFTER_S)
        return stale.known

    async def _redigest(self, parts: keys.Parts, known: _Known) -> None:
        """Move a secret to the newest pepper, so that an older one can be retired."""
        generation = self._generation
        fresh = replace(known, digest=keys.digest(parts.secret, self._newest), pepper=self._newest)
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._executor, write_digest, known, fresh)
        except DatabaseTrouble as why:
            log.warning("A key stays under its older pepper until the next look-up: %s", why)
            return
        self._remember(parts.public_id, fresh, generation)


def read_key(public_id: str, peppers: Mapping[str, str]) -> _Known | None:
    """Three queries, in a thread of the executor: the key, its and its team's rate limits and quotas.

    None where nobody may call with it. Raises django.db.Error.
    """
    try:
        secret = _not_revoked().select_related("key__team").filter(public_id=public_id).first()
        if secret is None:
            return None
        pepper = peppers.get(secret.pepper_id)
        if pepper is None:
            log.error(
                "The key %s needs the pepper %s, which is not in KEY_PEPPERS.", secret, secret.pepper_id
            )
            return None
        return _Known(secret.pk, bytes(secret.digest), pepper, _caller(secret))
    finally:
        connections.close_all()


def read_good(secret_ids: Iterable[int], now_s: float) -> set[int]:
    """In a thread of the executor: of these secrets, those that are neither over nor revoked at that moment.

    Raises django.db.Error.
    """
    at = datetime.fromtimestamp(now_s, UTC)
    lasting = (Q(ends_at=None) | Q(ends_at__gt=at)) & (Q(key__expires_at=None) | Q(key__expires_at__gt=at))
    good = _not_revoked().filter(lasting, pk__in=list(secret_ids))
    try:
        return set(good.order_by().values_list("pk", flat=True))
    finally:
        connections.close_all()


def _not_revoked() -> QuerySet[KeySecret]:
    """Secrets of keys that nobody took back.

    A personal key is good while its maker is in the team, however they went: the door asks for itself,
    because an account may also be switched off or deleted. So is a key of the playground, or while its maker
    is an administrator.
    """
    place = Membership.objects.filter(
        team=OuterRef("key__team"), user=OuterRef("key__created_by"), user__is_active=True
    )
    administers = Q(key__created_by__is_superuser=True, key__created_by__is_active=True)
    is_tried_by_one = Q(key__kind=m.ApiKey.Kind.PLAYGROUND) & administers
    has_its_person = Q(key__kind=m.ApiKey.Kind.SERVICE) | Exists(place) | is_tried_by_one
    return KeySecret.objects.filter(has_its_person, key__revoked_at=None, key__team__archived_at=None)


def write_digest(known: _Known, fresh: _Known) -> None:
    """In a thread of the executor; leaves a secret alone that changed meanwhile. Raises django.db.Error."""
    try:
        KeySecret.objects.filter(pk=known.secret_id, digest=known.digest).update(
            digest=fresh.digest, pepper_id=keys.pepper_id(fresh.pepper)
        )
    finally:
        connections.close_all()


def check_peppers(peppers: Sequence[str]) -> None:
    """Hold the configured peppers to the database, and record new ones.

    Raises WrongPeppers where a stored secret needs a pepper that is not configured.
    """
    configured = {keys.pepper_id(pepper): keys.fingerprint(pepper) for pepper in peppers}
    with transaction.atomic():
        take_turn(Turn.PEPPERS)
        needed = _needed_peppers()
        if missing := sorted(needed - configured.keys()):
            raise WrongPeppers(_says_missing(missing))
        recorded = dict(PepperFingerprint.objects.values_list("pepper_id", "fingerprint"))
        for pepper_id, fingerprint in configured.items():
            if recorded.get(pepper_id, fingerprint) != fingerprint:
                raise WrongPeppers(
                    f"The pepper {pepper_id} is not the one whose fingerprint is in the database: "
                    "restore the KEY_PEPPERS that belong to this database."
                )
            if pepper_id not in recorded:
                PepperFingerprint.objects.create(pepper_id=pepper_id, fingerprint=fingerprint)


def _says_missing(missing: Sequence[str]) -> str:
    return (
        f"API keys in the database need a pepper that is not configured (id {', '.join(missing)}): "
        "add the old one to the end of KEY_PEPPERS, or restore VAR_DIR/secrets/key_pepper from the backup."
    )


def _needed_peppers() -> set[str]:
    held = KeySecret.objects.order_by().values_list("pepper_id", flat=True)
    return set(held.union(AccessToken.objects.order_by().values_list("pepper_id", flat=True)))


def _caller(secret: KeySecret) -> Caller:
    key = secret.key
    owners = {
        (key.pk, None): Owner("key", key.pk, key.name),
        (None, key.team_id): Owner("team", key.team_id, key.team.name),
    }
    theirs = Q(key=key) | Q(team=key.team_id)
    rate_limits, quotas = m.RateLimit.objects.filter(theirs), m.Quota.objects.filter(theirs)
    return Caller(
        key_id=key.pk,
        team_id=key.team_id,
        expires_at_s=_ends_s(secret),
        priority_ceiling=cast(Priority, key.priority_ceiling),
        secret_id=secret.pk,
        routes=None if key.routes is None else frozenset(key.routes),
        networks=tuple(ip_network(each) for each in key.networks),
        tags=MappingProxyType(dict(key.tags)) if key.tags else NO_TAGS,
        rate_limits=tuple(_rate_limit(row, owners[row.key_id, row.team_id]) for row in rate_limits),
        quotas=tuple(_quota(row, owners[row.key_id, row.team_id]) for row in quotas),
    )


def _ends_s(secret: KeySecret) -> float | None:
    """In Unix seconds, the end of the key or of the secret's overlap, whichever comes first."""
    ends = [at.timestamp() for at in (secret.key.expires_at, secret.ends_at) if at is not None]
    return min(ends, default=None)


def _rate_limit(row: m.RateLimit, owner: Owner) -> RateLimit:
    return RateLimit(row.pk, owner, cast(RateLimitKind, row.kind), row.amount, row.model_name)


def _quota(row: m.Quota, owner: Owner) -> Quota:
    return Quota(
        id=row.pk,
        owner=owner,
        kind=cast(QuotaKind, row.kind),
        amount=row.amount,
        period=cast(Period, row.period),
        zone=row.zone,
        hard=row.hard,
        warn_at=tuple(row.warn_at),
    )
