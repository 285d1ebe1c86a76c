"""The management API: the routers of every room, and one shape for what goes wrong.

Errors are problem details as in RFC 9457, with a sentence in `detail`
and, where fields are wrong, a sentence for each in `errors`.
"""

import json
from collections.abc import Iterable
from http.client import responses
from typing import Any

from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.errors import HttpError
from ninja.errors import ValidationError as Unreadable

from gateway.api import OperatorSession, PoolOut
from gateway.api import router as upstream
from gateway.inputs import Unusable

api = NinjaAPI(
    title="Penstock",
    version="1",
    urls_namespace="api",
    description="Management of the gateway. Calls go to /v1/, which speaks OpenAI's dialect.",
    docs_decorator=login_required,
    auth=OperatorSession(),  # unless a room's router has its own
)
api.add_router("", upstream)


def problem(status: int, detail: str, errors: Iterable[tuple[str, str]] = ()) -> HttpResponse:
    """`errors` are pairs of a field, dotted where it is inside another, and a sentence."""
    told: dict[str, Any] = {"title": responses[status], "status": status, "detail": detail}
    if listed := [{"field": field, "message": sentence} for field, sentence in errors]:
        told["errors"] = listed
    return HttpResponse(json.dumps(told), status=status, content_type="application/problem+json")


@api.exception_handler(HttpError)
def _told(request: HttpRequest, why: HttpError) -> HttpResponse:
    return problem(why.status_code, why.message)


@api.exception_handler(Http404)
def _not_found(request: HttpRequest, why: Http404) -> HttpResponse:
    return problem(404, "There is nothing with this id.")


@api.exception_handler(Unreadable)
def _unreadable(request: HttpRequest, why: Unreadable) -> HttpResponse:
    """What does not have the right shape. Where a value is looked for, and its name there, comes first."""
    errors = [
        (".".join(map(str, each["loc"][2:])) or str(each["loc"][-1]), each["msg"]) for each in why.errors
    ]
    return problem(422, "The request does not have the right shape.", errors)


@api.exception_handler(ValidationError)
def _wrong(request: HttpRequest, why: ValidationError) -> HttpResponse:
    """What has the right shape and cannot be."""
    errors = [(_named(field), sentence) for field, told in why.message_dict.items() for sentence in told]
    return problem(422, "Nothing was changed: a value cannot be used.", errors)


@api.exception_handler(Unusable)
def _unusable(request: HttpRequest, why: Unusable) -> HttpResponse:
    return problem(422, str(why))


def _named(field: str) -> str:
    return f"pool.{field}" if field in PoolOut.model_fields else field
