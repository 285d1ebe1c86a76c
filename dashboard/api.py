"""The management API: the routers of every room, what stands around each operation, and its schema.

A session with CSRF or an access token lets in, a POST with an `Idempotency-Key` is done once,
and what goes wrong is told in the one shape of `problems`.
"""

from functools import wraps
from http.client import responses
from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.core.exceptions import RequestDataTooBig, ValidationError
from django.http import Http404, HttpRequest, HttpResponse
from django.utils import timezone
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError
from ninja.errors import ValidationError as Unreadable
from ninja.openapi.schema import OpenAPISchema
from ninja.operation import Operation

from accounts import services
from accounts.api.audit import audit
from accounts.api.auth import Access, door, known, on_their_behalf, presented
from accounts.api.keys import keys
from accounts.api.people import people
from accounts.api.teams import teams
from accounts.api.webhooks import webhooks
from dashboard import idempotency, problems
from dashboard.problems import problem
from gateway.alerts.trying import TooManyTests
from gateway.alerts_api import alerts
from gateway.api import PoolOut, Taken, upstream
from gateway.calls_api import calls
from gateway.inputs import Unusable
from gateway.limits_api import limits
from gateway.price_files import FileRefused
from gateway.prices_api import prices
from gateway.repricing_api import unpriced
from gateway.savings_api import savings
from gateway.tags_api import tags
from gateway.usage_api import usage

WITH_BODY = ("POST", "PUT", "PATCH")
NOT_YOURS = (services.OwnRoleRaised, services.RoleAboveOwn, services.NotAnOwner)
UNUSABLE = (services.NoName, services.ExpiryPassed, services.PasswordTooWeak)
GONE = (services.NotAMember, services.InvitationGone)


class ManagementAPI(NinjaAPI):
    """Operations are called as their functions are."""

    def get_openapi_operation_id(self, operation: Operation) -> str:
        return operation.view_func.__name__

    def get_openapi_schema(self, **options: Any) -> OpenAPISchema:
        return completed(super().get_openapi_schema(**options))


def _for_known_people(view: Any) -> Any:
    """A decorator of the documentation: for who is signed in, or brings an access token."""
    to_sign_in = login_required(view)

    @wraps(view)
    def shown(request: HttpRequest, **options: Any) -> Any:
        by_token = presented(request) is not None and _who(request) is not None
        return view(request, **options) if by_token else to_sign_in(request, **options)

    return shown


api = ManagementAPI(
    title="Penstock",
    version="1",
    urls_namespace="api",
    description=(
        "Management of the gateway. Calls go to /v1/, which speaks OpenAI's dialect.\n\n"
        "Come with an access token (`Authorization: Bearer pat_…`), or with the session of a page and its "
        "CSRF token. Lists come in pages: `next` of one is the `after` of the following. "
        "Errors are problem details as in RFC 9457. What is in a team of others does not exist: 404."
    ),
    docs_decorator=_for_known_people,
    auth=door("operate"),  # unless a room's router has its own
)


def _guarded(run: Any) -> Any:
    """A decorator of every operation: its body is JSON or a file, as it says, and a POST with an
    Idempotency-Key is done once."""
    kind, media_type = ("CSV", "text/csv") if _takes_csv(run.__self__) else ("JSON", "application/json")

    @wraps(run)
    def guarded(request: HttpRequest, **kwargs: Any) -> Any:
        access = _who(request)
        if access is None:  # whom the operation will turn away
            return run(request, **kwargs)
        # A file of the right kind is not looked at here: the operation reads it as it comes.
        if request.method in WITH_BODY and request.content_type != media_type and request.body:
            return problem(415, f"Send {kind}, with Content-Type: {media_type}.")
        if request.method != "POST" or "Idempotency-Key" not in request.headers:
            return run(request, **kwargs)
        return _once(request, access, lambda: run(request, **kwargs))

    return guarded


def _takes_csv(operation: Operation) -> bool:
    """Whether its `openapi_extra` says that its body is a file; others take JSON."""
    return "text/csv" in ((operation.openapi_extra or {}).get("requestBody") or {}).get("content", {})


def _who(request: HttpRequest) -> Access | None:
    try:
        return known(request)
    except AuthenticationError:
        return None


def _once(request: HttpRequest, access: Access, run: Any) -> HttpResponse:
    made: list[HttpResponse] = []

    def do() -> idempotency.Answer:
        made.append(run())
        return idempotency.Answer(made[0].status_code, made[0].content)

    try:
        answer = idempotency.once(
            access.user,
            request.headers["Idempotency-Key"],
            _digest(request, access),
            timezone.now(),
            settings.CREDENTIAL_KEYS,
            do,
        )
    except idempotency.Refused as why:
        return problem(why.status, str(why))
    if not answer.is_repeated:
        return made[0]
    repeated = HttpResponse(answer.body, status=answer.status, content_type="application/json; charset=utf-8")
    repeated["Idempotent-Replayed"] = "true"
    return repeated


def _digest(request: HttpRequest, access: Access) -> str:
    """An access token with fewer scopes is not shown what another one was."""
    with_what = "session" if access.token is None else str(access.token.pk)
    return idempotency.digest_of(f"POST {with_what}", request.get_full_path(), request.body)


api.add_decorator(on_their_behalf)
api.add_decorator(_guarded, mode="view")
ROUTERS = (
    *(people, teams, keys, limits, webhooks, audit, upstream),
    *(prices, calls, savings, usage, unpriced, tags, alerts),
)
for _router in ROUTERS:
    api.add_router("", _router)


# What goes wrong


@api.exception_handler(HttpError)
def _told(request: HttpRequest, why: HttpError) -> HttpResponse:
    is_no_json = why.status_code == 400  # django-ninja's word for it is no sentence
    answer = problem(why.status_code, "The body is no JSON that can be read." if is_no_json else why.message)
    if why.status_code == 401:
        answer["WWW-Authenticate"] = 'Bearer realm="Penstock"'
    return answer


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


@api.exception_handler(services.WrongValue)
def _wrong_value(request: HttpRequest, why: services.WrongValue) -> HttpResponse:
    return problem(422, "Nothing was changed: a value cannot be used.", [(why.field, str(why))])


@api.exception_handler(Unusable)
def _unusable(request: HttpRequest, why: Unusable) -> HttpResponse:
    return problem(422, str(why))


@api.exception_handler(RequestDataTooBig)
def _too_big(request: HttpRequest, why: RequestDataTooBig) -> HttpResponse:
    return problem(413, "The body is too large: send what is in it in parts.")


@api.exception_handler(FileRefused)
def _file_refused(request: HttpRequest, why: FileRefused) -> HttpResponse:
    return problem(422, str(why), [("file", sentence) for sentence in why.wrong])


@api.exception_handler(Taken)
def _taken(request: HttpRequest, why: Taken) -> HttpResponse:
    return problem(409, str(why))


@api.exception_handler(services.NotPossible)
def _not_possible(request: HttpRequest, why: services.NotPossible) -> HttpResponse:
    """What the rules of the house refuse, mostly because of how things are now."""
    return problem(_status_of(why), str(why))


@api.exception_handler(TooManyTests)
def _too_many_tests(request: HttpRequest, why: TooManyTests) -> HttpResponse:
    answer = problem(429, str(why))
    answer["Retry-After"] = str(why.retry_after_s)
    return answer


def _status_of(why: services.NotPossible) -> int:
    if isinstance(why, (*NOT_YOURS, services.SetByAdministrator, services.InvitedSomebodyElse)):
        return 403
    if isinstance(why, UNUSABLE):
        return 422
    return 404 if isinstance(why, GONE) else 409


def _named(field: str) -> str:
    return f"pool.{field}" if field in PoolOut.model_fields else field


# The schema

IDEMPOTENCY_KEY = {
    "in": "header",
    "name": "Idempotency-Key",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    "description": "Any text of your own. For 24 hours the same request with the same key is not done again, "
    "and is given the first answer.",
    "example": "rotate-nightly-index-2030-01",
}


def completed(schema: OpenAPISchema) -> OpenAPISchema:
    """With all that can go wrong with each operation, and what every operation takes."""
    schema["components"]["schemas"]["Problem"] = problems.SCHEMA
    for path, ways in schema["paths"].items():
        for method, operation in ways.items():
            _complete(path, method, operation)
    return schema


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    if method == "post":
        operation["parameters"].append(IDEMPOTENCY_KEY)
    if described := operation.get("description"):
        operation["summary"] = described.partition("\n")[0].partition(". ")[0].rstrip(".")
    told = operation["responses"]
    for status in {*_failures(path, method, operation), *(each for each in told if int(each) >= 400)}:
        told[status] = {
            "description": responses[int(status)],
            "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }


def _failures(path: str, method: str, operation: dict[str, Any]) -> set[int]:
    """The statuses with which an operation may refuse."""
    found = {401, 403}
    if "{" in path:
        found.add(404)
    if operation["parameters"]:
        found.add(422)
    if "requestBody" in operation:
        found |= {400, 408, 413, 415, 422}
    if method != "get":
        found.add(409)
    return found
