"""One counter for every change that a serving process must hear of.

A process hears of its own changes by signal, at commit, and of others through Redis, where there is one,
or by polling the counter.
"""

from functools import partial

from django.db import transaction
from django.db.models import F

from accounts.models import ChangeCounter
from accounts.signals import changed


def note_change() -> None:
    """Count up inside the caller's transaction; the signal goes out with the number when that commits.

    After all else that may wait for somebody: from here to the commit every other change waits for this one.
    """
    if not ChangeCounter.objects.filter(pk=1).update(number=F("number") + 1):
        ChangeCounter.objects.get_or_create(pk=1, defaults={"number": 1})
    transaction.on_commit(partial(changed.send, sender=ChangeCounter, number=change_number()))


def change_number() -> int:
    """How many changes there have been; 0 where there was none."""
    return ChangeCounter.objects.filter(pk=1).values_list("number", flat=True).first() or 0
