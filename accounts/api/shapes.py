"""What the operations of every room share: pages of lists, moments, text, and examples."""

import binascii
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import QuerySet
from ninja import Schema
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)

from accounts.services import WrongValue

T = TypeVar("T")
Row = TypeVar("Row", bound=models.Model)

FIRST_MOMENT, LAST_MOMENT = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def shown(**example: Any) -> ConfigDict:
    """A shape that goes out, with an example of it."""
    return ConfigDict(json_schema_extra={"examples": [example]})


def taken(**example: Any) -> ConfigDict:
    """A shape that comes in: nothing is converted, and a field that it does not have is refused."""
    return ConfigDict(strict=True, extra="forbid", json_schema_extra={"examples": [example]})


def also(*statuses: int) -> dict[str, Any]:
    """An operation's `openapi_extra`: how it may refuse beside what every one like it does."""
    return {"responses": {status: {} for status in statuses}}


def _text(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("Write a moment as text, such as 2030-01-01T00:00:00Z.")
    return value


def _near(value: datetime) -> datetime:
    if not FIRST_MOMENT <= value < LAST_MOMENT:
        raise ValueError("Choose a moment from 2000 to 2199.")
    return value.astimezone(UTC)


Moment = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_text), AfterValidator(_near)]
"""As in RFC 3339, with its offset. Handed on in UTC."""
Line = Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""Text without line breaks and other control characters."""
Name = Annotated[Line, Field(min_length=1, max_length=100)]
Email = Annotated[Line, Field(min_length=3, max_length=254)]
Role = Literal["owner", "member", "viewer"]
Whole = Annotated[int, Field(ge=0, lt=2**53)]
"""As much as JavaScript's numbers hold."""


class Window(Schema):
    """Which part of a list is asked for."""

    limit: int = Field(50, ge=1, le=100, description="How many at most.")
    after: str = Field(
        "", max_length=500, description="`next` of the page before, as it was given; empty: from the start."
    )


class Page(Schema, Generic[T]):
    """Part of a list, and where the next part begins."""

    items: list[T]
    next: str | None = Field(description="The `after` of the next page; null: there is none.")


def page(rows: QuerySet[Row], window: Window, by: str = "-id") -> tuple[list[Row], str | None]:
    """The rows after the cursor, and the next cursor. `by` is a unique field, with - for the last first.

    Rows that come or go meanwhile move no others: it goes by value, not by count.
    Raises WrongValue for a cursor that was not given out for this order.
    """
    name = by.removeprefix("-")
    field: Any = rows.model._meta.get_field(name)
    if window.after:
        beyond = "lt" if by.startswith("-") else "gt"
        rows = rows.filter(**{f"{name}__{beyond}": _value(window.after, by, field)})
    found = list(rows.order_by(by)[: window.limit + 1])
    if len(found) <= window.limit:
        return found, None
    found.pop()
    return found, _cursor(by, field.value_to_string(found[-1]))


def _cursor(by: str, value: str) -> str:
    return urlsafe_b64encode(json.dumps([by, value]).encode()).decode().rstrip("=")


def _value(cursor: str, by: str, field: Any) -> Any:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        order, text = json.loads(urlsafe_b64decode(padded))
        if order == by and isinstance(text, str):
            return field.to_python(text)
    except (ValueError, TypeError, RecursionError, binascii.Error, ValidationError):
        pass
    raise WrongValue("after", "Give `next` of a page of this list, as it was given.")
