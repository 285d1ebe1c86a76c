"""A POST with an `Idempotency-Key` is done once: its repetition is given the first answer again.

The answer is kept for 24 hours, encrypted, because it may show an API key; it is written in the transaction
of the change itself, so that neither is there without the other.
What changed nothing is not kept: the same key may then be used for the request as it was meant.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.db import IntegrityError, transaction
from django.db.models import Q

from accounts.models import IdempotentAnswer, User

KEPT_FOR = timedelta(hours=24)
UNDER_WAY_FOR = timedelta(minutes=1)
"""A request that has not ended after so long ended with its process, and changed nothing."""
LONGEST_KEY = 255


class Refused(Exception):
    """The request cannot be done with this key; the message says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    is_repeated: bool = False


class _ChangedNothing(Exception):
    """Takes back what the request has written meanwhile."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer


def once(
    user: User,
    idempotency_key: str,
    digest: str,
    now: datetime,
    keys: Sequence[str],
    do: Callable[[], Answer],
) -> Answer:
    """Do it, or give the answer of when it was done. `keys` are Fernet's, newest first.

    Raises Refused where the key is another request's, or where the first request is still under way.
    """
    if not 1 <= len(idempotency_key) <= LONGEST_KEY or not idempotency_key.isprintable():
        raise Refused(422, f"An Idempotency-Key is printable text of 1 to {LONGEST_KEY} characters.")
    box = MultiFernet([Fernet(key) for key in keys])
    kept = _claimed(user, idempotency_key, digest, now)
    if kept.status is not None:
        return Answer(kept.status, _opened(kept, box), is_repeated=True)
    try:
        return _done(kept, box, do)
    except BaseException as why:
        IdempotentAnswer.objects.filter(pk=kept.pk, created_at=kept.created_at, status=None).delete()
        if isinstance(why, _ChangedNothing):
            return why.answer
        raise


def digest_of(method: str, path: str, body: bytes) -> str:
    """What makes two requests the same."""
    return hashlib.sha256(b"\n".join([method.encode(), path.encode(), body])).hexdigest()


def _claimed(user: User, idempotency_key: str, digest: str, now: datetime) -> IdempotentAnswer:
    """The row of this key: fresh, or finished. Raises Refused."""
    own = IdempotentAnswer.objects.filter(user=user)
    own.filter(Q(created_at__lte=now - KEPT_FOR)).delete()
    own.filter(Q(status=None, created_at__lte=now - UNDER_WAY_FOR)).delete()
    try:
        with transaction.atomic():
            return IdempotentAnswer.objects.create(
                user=user, idempotency_key=idempotency_key, request_digest=digest
            )
    except IntegrityError:
        kept = own.filter(idempotency_key=idempotency_key).first()
    if kept is not None and kept.request_digest != digest:
        raise Refused(422, "This Idempotency-Key was sent with another request before; take a new one.")
    if kept is None or kept.status is None:
        raise Refused(409, "The first request with this Idempotency-Key is still under way; ask again.")
    return kept


def _done(kept: IdempotentAnswer, box: MultiFernet, do: Callable[[], Answer]) -> Answer:
    """The change and its answer in one transaction. Raises _ChangedNothing, Refused."""
    with transaction.atomic():
        answer = do()
        if answer.status >= 400:
            raise _ChangedNothing(answer)
        mine = IdempotentAnswer.objects.filter(pk=kept.pk, created_at=kept.created_at, status=None)
        if not mine.update(status=answer.status, body=box.encrypt(answer.body).decode()):
            raise Refused(409, "This took too long, and the same request was begun again; ask once more.")
    return answer


def _opened(kept: IdempotentAnswer, box: MultiFernet) -> bytes:
    try:
        return box.decrypt(kept.body.encode())
    except InvalidToken:
        raise Refused(
            409, "This was done already, but its answer can no longer be shown: the server's key changed."
        ) from None
