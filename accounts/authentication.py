"""The door in: an API key becomes a `Caller`, remembered until something changes.

`remembered` answers on the hot path from memory; `look_up` asks the database off the event loop.
"""

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import cast

from django.db import Error as DatabaseTrouble
from django.db import connections, transaction
from django.db.models import Q

from accounts import keys
from accounts.caller import Caller, KeyCannotBeChecked, Priority
from accounts.models import KeySecret, PepperFingerprint

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

        take apart | remembered? | look up | compare | note the use

    Malformed, unknown, wrong, expired and revoked keys all give None: no oracle.
    Does not decide what a caller may do.
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
        self._uses: dict[int, float] = {}
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

    def flush_uses(self) -> None:
        """Write the last uses gathered since the last time: one UPDATE for each key secret that was used.

        Raises django.db.Error, and keeps the uses for the next time.
        """
        uses, self._uses = self._uses, {}
        gathered = list(uses.items())
        try:
            with transaction.atomic():
                for secret_id, at_s in gathered:
                    _write_use(secret_id, datetime.fromtimestamp(at_s, UTC))
        except DatabaseTrouble:
            for secret_id, at_s in gathered:
                self._uses.setdefault(secret_id, at_s)
            raise

    async def close(self) -> None:
        """Wait for look-ups under way, then end the threads where they are our own."""
        await asyncio.gather(*self._flights, return_exceptions=True)
        if self._owned:
            await asyncio.to_thread(self._owned.shutdown)

    def _admit(self, known: _Known, secret: str) -> Caller | None:
        if not known.is_secret(secret):
            return None
        now_s = self._now_s()
        if known.caller.expired(now_s):
            return None
        self._uses[known.secret_id] = now_s
        return known.caller

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
    """One query, in a thread of the executor; None where nobody may call with it. Raises django.db.Error."""
    try:
        secret = KeySecret.objects.select_related("key").filter(public_id=public_id).first()
    finally:
        connections.close_all()
    if secret is None or secret.key.revoked_at is not None:
        return None
    pepper = peppers.get(secret.pepper_id)
    if pepper is None:
        log.error("The key %s needs the pepper %s, which is not in KEY_PEPPERS.", secret, secret.pepper_id)
        return None
    return _Known(secret.pk, bytes(secret.digest), pepper, _caller(secret))


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
        needed = set(KeySecret.objects.order_by().values_list("pepper_id", flat=True).distinct())
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


def _caller(secret: KeySecret) -> Caller:
    key = secret.key
    expires_at_s = key.expires_at.timestamp() if key.expires_at else None
    return Caller(key.pk, key.team_id, expires_at_s, cast(Priority, key.priority_ceiling))


def _write_use(secret_id: int, at: datetime) -> None:
    earlier = Q(last_used_at=None) | Q(last_used_at__lt=at)
    KeySecret.objects.filter(earlier, pk=secret_id).update(last_used_at=at)
