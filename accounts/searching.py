"""Looking for a name by a part of it, which no index helps with: so among the newest rows alone.

`%`, `_` and `\\` are letters here, as Django escapes them.
"""

from typing import Any, Final, TypeVar

from django.db.models import Max, Model, QuerySet

MOST_SEARCHED: Final = 10_000
"""Rows that one search looks at. More would let one person's question be felt by others."""
LONGEST: Final = 200
"""Characters of what is looked for; no name is longer."""

Row = TypeVar("Row", bound=Model)


def newest(rows: QuerySet[Row], most: int = MOST_SEARCHED) -> QuerySet[Row]:
    """Those of the latest so many ids of the whole table. One query. For tables whose ids are numbers."""
    last: Any = rows.model._base_manager.aggregate(Max("pk"))["pk__max"]
    return rows if last is None or last <= most else rows.filter(pk__gt=last - most)


def with_part(rows: QuerySet[Row], field: str, text: str) -> QuerySet[Row]:
    """Those of the newest that have the text in a field, however it is capitalised."""
    return newest(rows).filter(**{f"{field}__icontains": text[:LONGEST]})
