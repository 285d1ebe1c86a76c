"""Who presents which secret, gathered in memory and written now and then.

A page can then say that two programs still use the old secret of a key.
"""

import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from django.db import Error as DatabaseTrouble
from django.db import transaction
from django.db.models import F, Q

from accounts.models import KeySecret, KeyUse

AT_MOST = 2_000
"""Programs gathered between two flushes; those beyond are counted under their secret alone."""
PROGRAMS_AT_MOST = 500
"""Kept of one secret, so that a client with ever new names cannot fill the database."""
MAKES_ROOM_AFTER = timedelta(hours=24)
LONGEST_ADDRESS, LONGEST_USER_AGENT = 45, 200


class Program(NamedTuple):
    """Who presented a secret; address and user agent empty where it is not told apart."""

    secret_id: int
    address: str
    user_agent: str


@dataclass(slots=True)
class Used:
    """How often, and when last in Unix seconds."""

    uses: int
    last_s: float

    def and_also(self, uses: int, last_s: float) -> None:
        self.uses += uses
        self.last_s = max(self.last_s, last_s)


class Uses:
    """Counts added on the event loop, flushed from a thread."""

    def __init__(self, at_most: int = AT_MOST) -> None:
        self._at_most = at_most
        self._turning = threading.Lock()
        self._gathered: dict[Program, Used] = {}

    def __repr__(self) -> str:
        return f"<Uses of {len(self._gathered)} programs to write>"

    def add(self, secret_id: int, address: str, user_agent: str, at_s: float) -> None:
        program = Program(secret_id, address[:LONGEST_ADDRESS], user_agent[:LONGEST_USER_AGENT])
        with self._turning:
            self._put(program, 1, at_s)

    def flush(self) -> None:
        """Write what was gathered, in one transaction. Raises django.db.Error, and keeps it."""
        with self._turning:
            gathered, self._gathered = self._gathered, {}
        if not gathered:
            return
        try:
            with transaction.atomic():
                _write(gathered)
        except DatabaseTrouble:
            with self._turning:
                for program, used in gathered.items():
                    self._put(program, used.uses, used.last_s)
            raise

    def _put(self, program: Program, uses: int, last_s: float) -> None:
        seen = self._gathered.get(program)
        if seen is None and len(self._gathered) >= self._at_most:
            program = Program(program.secret_id, "", "")
            seen = self._gathered.get(program)
        if seen is None:
            self._gathered[program] = Used(uses, last_s)
        else:
            seen.and_also(uses, last_s)


def _write(gathered: Mapping[Program, Used]) -> None:
    by_secret: dict[int, list[tuple[Program, Used]]] = defaultdict(list)
    for program, used in gathered.items():
        by_secret[program.secret_id].append((program, used))
    for secret_id, those in sorted(by_secret.items()):  # the same order everywhere: no deadlock
        if _write_secret(secret_id, those):
            _write_programs(secret_id, those)


def _write_secret(secret_id: int, those: Iterable[tuple[Program, Used]]) -> bool:
    """Whether the secret is still there."""
    those = list(those)
    latest, used = max(those, key=lambda each: each[1].last_s)
    at = _moment(used.last_s)
    rows = KeySecret.objects.filter(pk=secret_id)
    found = rows.update(uses=F("uses") + sum(each.uses for _, each in those))
    rows.filter(Q(last_used_at=None) | Q(last_used_at__lt=at)).update(
        last_used_at=at, last_used_from=latest.address, last_user_agent=latest.user_agent
    )
    return bool(found)


def _write_programs(secret_id: int, those: Iterable[tuple[Program, Used]]) -> None:
    told_apart = {program: used for program, used in those if program.address}
    known = set(KeyUse.objects.filter(secret=secret_id).values_list("address", "user_agent"))
    fresh = {program: used for program, used in told_apart.items() if program[1:] not in known}
    if fresh:
        room = PROGRAMS_AT_MOST - len(known) + _made_room(secret_id, len(known) + len(fresh))
        _insert(dict(list(fresh.items())[: max(0, room)]))
    for program, used in told_apart.items():
        _count(program, used)


def _made_room(secret_id: int, wanted: int) -> int:
    """Forget who has not come for a day, where there would be too many."""
    if wanted <= PROGRAMS_AT_MOST:
        return 0
    newest = KeyUse.objects.filter(secret=secret_id).values_list("last_used_at", flat=True).first()
    if newest is None:
        return 0
    gone, _ = KeyUse.objects.filter(secret=secret_id, last_used_at__lt=newest - MAKES_ROOM_AFTER).delete()
    return gone


def _insert(fresh: Mapping[Program, Used]) -> None:
    """Rows that count nothing yet; another process may insert the same at this moment."""
    rows = [
        KeyUse(
            secret_id=program.secret_id,
            address=program.address,
            user_agent=program.user_agent,
            first_used_at=_moment(used.last_s),
            last_used_at=_moment(used.last_s),
        )
        for program, used in fresh.items()
    ]
    KeyUse.objects.bulk_create(rows, ignore_conflicts=True)


def _count(program: Program, used: Used) -> None:
    at = _moment(used.last_s)
    rows = KeyUse.objects.filter(
        secret=program.secret_id, address=program.address, user_agent=program.user_agent
    )
    rows.update(uses=F("uses") + used.uses)
    rows.filter(last_used_at__lt=at).update(last_used_at=at)


def _moment(at_s: float) -> datetime:
    return datetime.fromtimestamp(at_s, UTC)
