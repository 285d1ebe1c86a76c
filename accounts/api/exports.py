"""Lists as files for spreadsheets: sent part by part as they are read, so that their length costs nothing.

A part is made by one look at the database, so no transaction stays open while a reader is slow,
no connection to it is kept either,
and a reader who leaves in between leaves nothing behind.
What goes wrong in the middle breaks the answer off: the reader's program sees that it is not whole.
"""

import csv
import io
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from threading import Lock
from typing import Any
from weakref import WeakSet

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import connection
from django.http import HttpRequest, StreamingHttpResponse
from ninja.errors import HttpError

from accounts.api.auth import known
from accounts.api.shapes import also
from accounts.formulas import guarded

MOST_AT_ONCE = 3
"""Files of one person in one process. Each part is some 50 ms of it, which others wait for."""


def spreadsheet(*statuses: int) -> dict[str, Any]:
    """An operation's `openapi_extra`: a file, or one of these refusals beside the usual ones."""
    file = {"content": {"text/csv": {"schema": {"type": "string"}}}}
    return {"responses": {200: file, **also(429, *statuses)["responses"]}}


class Place:
    """A person's right to take one file; gone when it is given back, or when nobody holds it any more."""

    def __init__(self, places: "WeakSet[Place]") -> None:
        self._places = places

    def give_back(self) -> None:
        """The second time does nothing."""
        self._places.discard(self)


class Places:
    """How many files each person takes from this process at this moment."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: defaultdict[int, WeakSet[Place]] = defaultdict(WeakSet)
        self._lock = Lock()

    def take(self, user_id: int) -> Place:
        """Raises HttpError."""
        with self._lock:
            taken = self._taken[user_id]
            if len(taken) >= self._most:
                raise HttpError(429, f"You take {self._most} files at once already: wait until one is done.")
            place = Place(taken)
            taken.add(place)
            return place


class File(StreamingHttpResponse):
    """Gives its place back when it is closed: its reader left, or has it all."""

    def __init__(self, parts: Iterator[str] | AsyncIterator[str], place: Place) -> None:
        super().__init__(parts, content_type="text/csv")
        self._place = place

    def close(self) -> None:
        self._place.give_back()
        super().close()


_places = Places(MOST_AT_ONCE)


def as_file(request: HttpRequest, parts: Iterable[str], name: str) -> File:
    """An answer that a browser keeps under this name. The next part is made when the last one is taken.

    Raises HttpError where who asks takes too many at this moment, by whatever token or session.
    """
    place = _places.take(known(request).user.pk)
    steps = iter(parts)
    is_async = isinstance(request, ASGIRequest)
    answer = File(_stepped(steps, place) if is_async else _whole(steps, place), place)
    answer["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer


def lines(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as lines of CSV."""
    text = io.StringIO()
    csv.writer(text).writerows([cell(each) for each in row] for row in rows)
    return text.getvalue()


def cell(value: Any) -> str:
    """As text that no spreadsheet runs."""
    if isinstance(value, str):
        return guarded(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dict):
        return guarded(json.dumps(value, ensure_ascii=False))
    return "" if value is None else str(value)


def _whole(parts: Iterator[str], place: Place) -> Iterator[str]:
    try:
        yield from parts
    finally:
        place.give_back()


async def _stepped(parts: Iterator[str], place: Place) -> AsyncIterator[str]:
    """Each part made in the thread of the database. What breaks off is not closed, so the place goes here."""
    try:
        while (part := await sync_to_async(_next)(parts)) is not None:
            yield part
    finally:
        place.give_back()


def _next(parts: Iterator[str]) -> str | None:
    """The next part, or None. The connection goes back to the pool, as whoever reads may be slow."""
    try:
        return next(parts, None)
    finally:
        if not connection.in_atomic_block:
            connection.close()
